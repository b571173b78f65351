"""Gates: arithmetic circuits as netlists, their simulation, synthesis, energy, delay and area."""

from .amaranth_netlist import netlist_from_component as netlist_from_component
from .errors import InputError as InputError
from .errors import unknown_name as unknown_name
from .files import read_json as read_json
from .files import write_bytes as write_bytes
from .files import write_json as write_json
from .files import write_text as write_text
from .multipliers import CATALOGUE as CATALOGUE
from .multipliers import FAMILIES as FAMILIES
from .multipliers import Multiplier as Multiplier
from .multipliers import build_multiplier as build_multiplier
from .multipliers import parse_multiplier_name as parse_multiplier_name
from .netlist import Gate as Gate
from .netlist import GateKind as GateKind
from .netlist import Netlist as Netlist
from .netlist import Port as Port
from .simulation import truth_table as truth_table
from .verilog import read_verilog as read_verilog
from .verilog import verilog as verilog
