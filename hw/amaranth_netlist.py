"""The netlist of an Amaranth component, by way of RTLIL and Yosys.

One road for the built-in families and for a user's own component: gates written as one-bit
expressions come out as exactly those gates, anything wider (``+``, ``*``, ``Switch``) is broken
into gates by Yosys. Gates that reach no output are dropped.
"""

from typing import TYPE_CHECKING

from .errors import InputError
from .netlist import Netlist
from .yosys import run_yosys
from .yosys_json import netlist_from_json

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

_TO_SMALLER = (
    "select -set bitwise t:$not t:$and %u t:$or %u t:$xor %u t:$xnor %u"
    " r:A_WIDTH=1 %i r:Y_WIDTH=1 %i r:B_WIDTH>1 %d t:$mux r:WIDTH=1 %i %u",
    "techmap * @bitwise %d",
)
TO_GATES = ("proc", "flatten", "opt_clean", *_TO_SMALLER * 3, "opt_clean")
"""From RTLIL to gates: what is a one-bit gate already stays as it was written.

Thrice, because several products in one expression become adders, these become full adders of many
bits, and these become gates.
"""


def netlist_from_component(component: "Component", name: str) -> Netlist:
    """The gates of a combinational component; its members become the ports, in their order."""
    from amaranth.back import rtlil

    inputs, outputs = _ports(component, name)
    text = rtlil.convert(component, name="top", emit_src=False)
    commands = (
        "read_rtlil top.il",
        "hierarchy -top top",
        *TO_GATES,
        "write_json top.json",
    )
    result = run_yosys(commands, {"top.il": text}, "top.json", what=f"component {name}")
    return netlist_from_json(result, "top", name, inputs, outputs)


def _ports(component: "Component", name: str) -> tuple[list[str], list[str]]:
    from amaranth.lib.wiring import In

    inputs: list[str] = []
    outputs: list[str] = []
    for member_name, member in component.signature.members.items():
        if not member.is_port or member.dimensions:
            raise InputError(
                f"members of component {name} must be plain ports, not {member_name!r}"
            )
        (inputs if member.flow is In else outputs).append(member_name)
    return inputs, outputs
