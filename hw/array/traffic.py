"""What the memories beside a weight-stationary array move for one layer, by ``ArraySchedule``.

Plain Python. Operands are read anew for every position (im2col: no line buffers) and every tile of
outputs; partial sums leave the array and re-enter it between the passes of a fan-in.
"""

from dataclasses import dataclass

from .schedule import ArraySchedule

__all__ = ["Traffic", "layer_traffic"]


@dataclass(frozen=True)
class Traffic:
    """Numbers moved by a layer: between memory and array, units that are not active left out."""

    weights_read: int
    activations_read: int
    sums_written: int
    sums_read: int
    results_written: int


def layer_traffic(schedule: ArraySchedule) -> Traffic:
    """Of all passes: each weight once, each operand once a tile of outputs and position, each sum
    once for every pass of its fan-in but the last.
    """
    layer = schedule.layer
    results = layer.groups * layer.outputs * layer.positions
    between = results * (schedule.fan_in_tiles - 1)
    return Traffic(
        weights_read=layer.groups * layer.fan_in * layer.outputs,
        activations_read=layer.groups * layer.fan_in * layer.positions * schedule.output_tiles,
        sums_written=between,
        sums_read=between,
        results_written=results,
    )
