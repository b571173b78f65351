"""Traffic of a layer against a walk over the passes of its schedule."""

import pytest

from hw.array import ArraySchedule, LayerShape, Traffic, layer_traffic

SHAPES = [
    LayerShape(1, 27, 24, 64),
    LayerShape(1, 200, 10, 1),
    LayerShape(16, 9, 1, 16),
    LayerShape(3, 20, 17, 5),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(4, 4), (16, 16), (8, 32)])
def test_traffic_is_that_of_the_passes(shape: LayerShape, size: tuple[int, int]) -> None:
    schedule = ArraySchedule(*size, shape, latency=sum(size))
    weights = activations = written = read = results = 0
    for part in schedule.passes():
        sums = len(list(part.results())) * shape.positions
        weights += len(part.groups) * len(part.fan_in) * len(part.outputs)
        activations += len(list(part.operands())) * shape.positions
        read += 0 if part.first else sums
        written += 0 if part.last else sums
        results += sums if part.last else 0
    assert layer_traffic(schedule) == Traffic(weights, activations, written, read, results)
