"""Recorded operands: their products add up to the accumulators, layer by layer."""

import numpy as np
import pytest

from export import integerise, layer_operands
from hw.errors import InputError

from ..lut.tables import truncated
from .networks import pixels, trained_residual


def test_products_of_all_pairs_are_the_accumulators() -> None:
    network = integerise(trained_residual([truncated(6), truncated(7)]), (2, 8, 8), 1 / 16)
    images = pixels(3)
    trace = network.trace(images)
    for node in network.convolutions:
        record = layer_operands(network, node.layer, images)
        assert len(record.a) == len(record.b) == node.macs * len(images)
        products = node.lut.table[record.a, record.b].astype(np.int64)
        sums = trace[node.name].numpy().transpose(1, 0, 2, 3)
        per_channel = products.reshape(len(sums), -1).sum(axis=1)
        assert np.array_equal(per_channel, sums.reshape(len(sums), -1).sum(axis=1)), node.layer


def test_histograms_and_limit() -> None:
    network = integerise(trained_residual([truncated(6)]), (2, 8, 8), 1 / 16)
    record = layer_operands(network, "pointwise", pixels(2), limit=1000)
    assert record.a_histogram.sum() == record.b_histogram.sum() == 1000
    assert np.array_equal(record.b_histogram > 0, np.isin(np.arange(256), record.b))
    assert np.array_equal(record.stream[:, 0], record.a) and record.stream.shape == (1000, 2)
    everything = layer_operands(network, "pointwise", pixels(2))
    assert np.array_equal(everything.a[:1000], record.a)


def test_unknown_layer() -> None:
    network = integerise(trained_residual([truncated(6)]), (2, 8, 8), 1 / 16)
    with pytest.raises(InputError, match="did you mean 'stem'"):
        layer_operands(network, "stm", pixels(1))
