"""Gates: arithmetic circuits as netlists, their simulation, synthesis, energy, delay and area.

Amaranth is imported when a name of `hw.multipliers` is first asked for, so that what a circuit
costs can be read where no circuit is built.
"""

import importlib
from typing import TYPE_CHECKING

from .activity import ENERGY_MODELS as ENERGY_MODELS
from .activity import Activity as Activity
from .activity import EnergyModel as EnergyModel
from .activity import flip_activity as flip_activity
from .activity import operand_activity as operand_activity
from .activity import operand_stream as operand_stream
from .activity import stream_activity as stream_activity
from .amaranth_netlist import netlist_from_component as netlist_from_component
from .costs import Cost as Cost
from .costs import Operands as Operands
from .costs import mapped_cost as mapped_cost
from .costs import multiplier_cost as multiplier_cost
from .costs import netlist_cost as netlist_cost
from .errors import InputError as InputError
from .errors import unknown_name as unknown_name
from .files import read_json as read_json
from .files import write_bytes as write_bytes
from .files import write_json as write_json
from .files import write_text as write_text
from .liberty import CellLibrary as CellLibrary
from .liberty import LibraryCell as LibraryCell
from .liberty import default_library as default_library
from .liberty import find_library as find_library
from .liberty import read_liberty as read_liberty
from .netlist import Gate as Gate
from .netlist import GateKind as GateKind
from .netlist import Netlist as Netlist
from .netlist import Port as Port
from .simulation import truth_table as truth_table
from .synthesis import synthesise as synthesise
from .timing import static_timing as static_timing
from .verilog import read_verilog as read_verilog
from .verilog import verilog as verilog
from .waveforms import delayed_activity as delayed_activity

if TYPE_CHECKING:
    from .multipliers import CATALOGUE as CATALOGUE
    from .multipliers import FAMILIES as FAMILIES
    from .multipliers import Multiplier as Multiplier
    from .multipliers import build_multiplier as build_multiplier
    from .multipliers import load_multiplier as load_multiplier
    from .multipliers import multiplier_shape as multiplier_shape
    from .multipliers import named_by_digest as named_by_digest
    from .multipliers import parse_multiplier_name as parse_multiplier_name
    from .multipliers import save_multiplier as save_multiplier

_OF_MULTIPLIERS = (
    "CATALOGUE",
    "FAMILIES",
    "Multiplier",
    "build_multiplier",
    "load_multiplier",
    "multiplier_shape",
    "named_by_digest",
    "parse_multiplier_name",
    "save_multiplier",
)


def __getattr__(name: str) -> object:
    if name not in _OF_MULTIPLIERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(".multipliers", __name__), name)
