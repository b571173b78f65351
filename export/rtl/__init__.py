"""The ``rtl/`` folder of a bundle, as far as it is about multipliers: sources, benches, proofs."""

from .benches import bench_files as bench_files
from .benches import cocotb_files as cocotb_files
from .equivalence import pipeline_latency as pipeline_latency
from .equivalence import prove_equivalent as prove_equivalent
from .files import entry_multiplier as entry_multiplier
from .files import multiplier_files as multiplier_files
from .files import multiplier_verilog as multiplier_verilog
from .files import multipliers_rtl as multipliers_rtl
from .files import verilog_table as verilog_table
from .names import ModuleNames as ModuleNames
from .names import source_path as source_path
from .pipelined import MAX_STAGES as MAX_STAGES
from .simulators import icarus_present as icarus_present
from .simulators import lint_warnings as lint_warnings
from .simulators import simulated_table as simulated_table
