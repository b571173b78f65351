"""The lines of a network's energy, each a figure of its own: docs/cosearch.md has the assumptions.

A line is a function of a layer, the array, and the energy of a multiplication in that layer (fJ);
it gives the energy of one inference in fJ.
"""

from collections.abc import Callable, Iterable

from cosearch.array_model import ArrayModel
from cosearch.layers import LayerRecord
from hw.array import Traffic, layer_traffic

__all__ = ["LINES", "EnergyLine", "available_lines"]

EnergyLine = Callable[[LayerRecord, ArrayModel, float], float]


def multiplications(layer: LayerRecord, array: ArrayModel, multiplication_fj: float) -> float:
    """Every multiplication, those with padding too."""
    return layer.shape.macs * multiplication_fj


def accumulators(layer: LayerRecord, array: ArrayModel, multiplication_fj: float) -> float:
    """An addition a multiplication, of the width that the fan-in needs."""
    return layer.shape.macs * array.addition_fj(layer.shape.fan_in)


def registers(layer: LayerRecord, array: ArrayModel, multiplication_fj: float) -> float:
    """A clock of a unit's registers a multiplication."""
    return layer.shape.macs * array.register_fj(layer.shape.fan_in)


def on_chip_memory(layer: LayerRecord, array: ArrayModel, multiplication_fj: float) -> float:
    """Operands, partial sums that re-enter, and results, between on-chip memory and the array;
    weights are written into it and read from it.
    """
    traffic = layer_traffic(array.schedule(layer.shape))
    sums = traffic.sums_written + traffic.sums_read
    bits = array.operand_bits * _operands(traffic) + array.sum_bits(layer.shape.fan_in) * sums
    return bits / 8 * array.hardware.on_chip_pj * 1e3


def off_chip_memory(layer: LayerRecord, array: ArrayModel, multiplication_fj: float) -> float:
    """Weights once an inference; input and output of a layer where on-chip memory cannot hold
    both.
    """
    maps = layer.inputs + layer.outputs
    kept = maps * array.operand_bits / 8 <= array.hardware.on_chip_kib * 1024
    weights = layer_traffic(array.schedule(layer.shape)).weights_read
    moved = (weights + (0 if kept else maps)) * array.operand_bits / 8
    return moved * array.hardware.off_chip_pj * 1e3


def _operands(traffic: Traffic) -> int:
    return 2 * traffic.weights_read + traffic.activations_read + traffic.results_written


LINES: dict[str, EnergyLine] = {
    "multiplications": multiplications,
    "accumulators": accumulators,
    "registers": registers,
    "on_chip_memory": on_chip_memory,
    "off_chip_memory": off_chip_memory,
}


def available_lines(array: ArrayModel) -> Iterable[str]:
    """Those that can be computed: all, or without accumulators where no figures are known."""
    return [name for name in LINES if name != "accumulators" or array.figures is not None]
