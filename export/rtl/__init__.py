"""The ``rtl/`` folder of a bundle, as far as it is about multipliers: sources, benches, proofs."""

from .files import multiplier_verilog as multiplier_verilog
from .files import verilog_table as verilog_table
