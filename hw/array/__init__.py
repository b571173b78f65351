"""A weight-stationary systolic array of any multipliers: its description, schedule and gateware.

Description and schedule are plain Python, so that a latency can be computed where no circuit is
built; Amaranth is imported when a component is first asked for.
"""

import importlib
from typing import TYPE_CHECKING

from .description import ArrayDescription as ArrayDescription
from .description import ArrayMultiplier as ArrayMultiplier
from .description import ArrayTile as ArrayTile
from .description import module_name as module_name
from .schedule import ArraySchedule as ArraySchedule
from .schedule import LayerShape as LayerShape
from .schedule import Pass as Pass
from .schedule import layer_clocks as layer_clocks
from .traffic import Traffic as Traffic
from .traffic import layer_traffic as layer_traffic
from .verilog import array_verilog as array_verilog

if TYPE_CHECKING:
    from .multiply_accumulate import MultiplyAccumulate as MultiplyAccumulate
    from .systolic_array import SystolicArray as SystolicArray

_OF_AMARANTH = {
    "MultiplyAccumulate": ".multiply_accumulate",
    "SystolicArray": ".systolic_array",
}


def __getattr__(name: str) -> object:
    if name not in _OF_AMARANTH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_OF_AMARANTH[name], __name__), name)
