"""What a netlist computes for every operand pair, 64 pairs to a machine word.

Bit patterns are enumerated with the first input port in the high bits (a * 2**b_width + b),
so that the values reshape to a table indexed ``[a, b]``.
"""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

from .errors import InputError
from .netlist import FALSE, TRUE, Netlist, Port

Words = npt.NDArray[np.uint64]
MAX_INPUT_BITS = 24
"""The widest circuit that is enumerated: 16.8 million patterns."""

_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_LOW_PATTERNS = tuple(
    np.uint64(pattern)
    for pattern in (
        0xAAAA_AAAA_AAAA_AAAA,
        0xCCCC_CCCC_CCCC_CCCC,
        0xF0F0_F0F0_F0F0_F0F0,
        0xFF00_FF00_FF00_FF00,
        0xFFFF_0000_FFFF_0000,
        0xFFFF_FFFF_0000_0000,
    )
)


def truth_table(netlist: Netlist, signed: bool) -> npt.NDArray[np.int32]:
    """The value of the only output for every pair of operands, shape (2**a_width, 2**b_width).

    Indexed by bit pattern, row = first input port. ``signed``: the output is two's complement.
    """
    if len(netlist.inputs) != 2 or len(netlist.outputs) != 1:
        raise InputError(
            f"{netlist.name} must have two input ports and one output port to have a table, "
            f"not {len(netlist.inputs)} and {len(netlist.outputs)}"
        )
    a, b = netlist.inputs
    values = port_values(all_nets(netlist), netlist.outputs[0], signed)
    return values[: 1 << (a.width + b.width)].reshape(1 << a.width, 1 << b.width)


def all_nets(netlist: Netlist) -> dict[int, Words]:
    """Every net's bits over all input patterns, packed: bit ``i % 64`` of word ``i // 64``.

    Below 64 patterns the one word repeats them.
    """
    bits = sum(port.width for port in netlist.inputs)
    if bits > MAX_INPUT_BITS:
        raise InputError(
            f"{netlist.name} must have at most {MAX_INPUT_BITS} input bits, not {bits}, for a table"
        )
    stimuli: dict[int, Words] = {}
    position = bits
    for port in netlist.inputs:
        position -= port.width
        stimuli.update(
            (net, counter_bit(position + bit, bits)) for bit, net in enumerate(port.nets)
        )
    return simulate(netlist, stimuli)


def simulate(netlist: Netlist, stimuli: Mapping[int, Words]) -> dict[int, Words]:
    """Every net's words, given those of the input nets (all of one length)."""
    length = max((len(words) for words in stimuli.values()), default=1)
    nets = dict(stimuli)
    nets[FALSE] = np.zeros(length, np.uint64)
    nets[TRUE] = np.full(length, _ONES)
    for gate in netlist.gates:
        kind = netlist.kinds[gate.kind]
        operands = [nets[net] for net in gate.inputs]
        for net, table in zip(gate.outputs, kind.tables, strict=True):
            nets[net] = logic_function(table, len(operands))(operands, nets)
    return nets


def counter_bit(position: int, bits: int) -> Words:
    """Bit ``position`` of the numbers 0 … 2**bits - 1, packed."""
    length = max(1, (1 << bits) // 64)
    if position < 6:
        return np.full(length, _LOW_PATTERNS[position])
    words = np.arange(length, dtype=np.uint64) >> np.uint64(position - 6)
    return np.where(words & np.uint64(1), _ONES, np.uint64(0))


def port_values(nets: Mapping[int, Words], port: Port, signed: bool) -> npt.NDArray[np.int32]:
    """The port's number in every packed pattern, at most 31 bits (32 when signed)."""
    if port.width > (32 if signed else 31):
        raise InputError(f"port {port.name!r} must have at most 31 bits, not {port.width}")
    values = np.zeros(len(nets[FALSE]) * 64, np.int32)
    for start in range(0, port.width, 8):
        values |= _octets(nets, port.nets[start : start + 8]).astype(np.int32) << start
    if signed and port.width < 32:
        sign = np.int32(1 << (port.width - 1))
        values = (values ^ sign) - sign
    return values


def unpacked(words: Words) -> npt.NDArray[np.uint8]:
    """The bits of packed words, one byte each, in the order of the patterns."""
    return np.unpackbits(words.view(np.uint8), bitorder="little")


def _octets(nets: Mapping[int, Words], port_nets: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    octets = np.zeros(len(nets[FALSE]) * 64, np.uint8)
    for bit, net in enumerate(port_nets):
        if net != FALSE:
            octets |= unpacked(nets[net]) << np.uint8(bit)
    return octets


Function = Callable[[list[Words], Mapping[int, Words]], Words]


@cache
def logic_function(table: int, inputs: int) -> Function:
    """The bit-parallel function of a truth table: a Shannon expansion, simplified on the way.

    Takes the operands' words and the nets, which hold the constants.
    """
    full = (1 << (1 << inputs)) - 1
    if table == 0:
        return lambda _operands, nets: nets[FALSE]
    if table == full:
        return lambda _operands, nets: nets[TRUE]
    half = 1 << (inputs - 1)
    low, high = table & ((1 << half) - 1), table >> half
    return _expansion(low, high, inputs - 1)


def _expansion(low: int, high: int, index: int) -> Function:
    """``high`` where operand ``index`` is one, else ``low``; both of the operands before it."""
    full = (1 << (1 << index)) - 1
    f0, f1 = logic_function(low, index), logic_function(high, index)
    if low == high:
        return f0
    if low == 0 and high == full:
        return lambda x, _nets: x[index]
    if low == full and high == 0:
        return lambda x, _nets: ~x[index]
    if low == 0:
        return lambda x, nets: x[index] & f1(x, nets)
    if high == 0:
        return lambda x, nets: ~x[index] & f0(x, nets)
    if low == full:
        return lambda x, nets: ~x[index] | f1(x, nets)
    if high == full:
        return lambda x, nets: x[index] | f0(x, nets)
    if low == high ^ full:
        return lambda x, nets: x[index] ^ f0(x, nets)
    return lambda x, nets: (x[index] & f1(x, nets)) | (~x[index] & f0(x, nets))
