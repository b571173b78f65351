"""The int8 backend: planes looked up in words and in vectors, its sums against the table's."""

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from lut import LUT, approx_conv2d
from lut.backends import int8
from lut.backends.int8 import int8_units_are_exact
from lut.backends.int8_kernel import (
    expand_planes,
    expand_planes_in_vectors,
    has_byte_permutations,
)

from .tables import random_table, truncated

in_vectors = pytest.mark.skipif(
    not has_byte_permutations(), reason="numba compiles for a processor without AVX-512 VBMI"
)
on_units = pytest.mark.skipif(
    not int8_units_are_exact(), reason="the processor has no exact int8 sums"
)


def _operands(places: int, channels: int, planes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(places * channels + planes)
    patterns = generator.integers(0, 256, (places, channels), np.uint8)
    return patterns, generator.integers(0, 256, (planes, 256), np.uint8)


def _expected(patterns: np.ndarray, tables: np.ndarray) -> np.ndarray:
    return np.concatenate([table[patterns] for table in tables], axis=1)


@in_vectors
@pytest.mark.parametrize("planes", [1, 5])
@pytest.mark.parametrize("channels", [1, 3, 16, 63, 64, 65, 130])
@pytest.mark.parametrize("places", [1, 2, 70])
def test_vectors(places: int, channels: int, planes: int) -> None:
    patterns, tables = _operands(places, channels, planes)
    whole = np.full((places + 1, channels * planes), 7, np.uint8)
    expand_planes_in_vectors(patterns, tables, whole[:places])
    assert np.array_equal(whole[:places], _expected(patterns, tables))
    assert (whole[places:] == 7).all(), "nothing is written beyond the last place"


@in_vectors
def test_vectors_look_up_every_pattern() -> None:
    patterns = np.arange(256, dtype=np.uint8).reshape(1, -1).repeat(8, 0)
    _, tables = _operands(8, 256, 4)
    result = np.empty((8, 4 * 256), np.uint8)
    expand_planes_in_vectors(patterns, tables, result)
    assert np.array_equal(result, tables.reshape(1, -1).repeat(8, 0))


@pytest.mark.parametrize(("words", "rest"), [(0, 3), (1, 0), (2, 1)])
def test_words(words: int, rest: int) -> None:
    patterns, tables = _operands(9, 12, 4 * words + rest)
    result = np.empty((9, 12 * len(tables)), np.uint8)
    together = np.ascontiguousarray(tables[: 4 * words].T).view(np.int32).T
    by_word = result.view(np.int32) if words else np.empty((9, 0), np.int32)
    expand_planes(patterns, np.ascontiguousarray(together), tables[4 * words :], by_word, result)
    expected = [tables[4 * k : 4 * k + 4].T[patterns].reshape(9, -1) for k in range(words)] + [
        table[patterns] for table in tables[4 * words :]
    ]
    assert np.array_equal(result, np.concatenate(expected, axis=1))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@on_units
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("vectors", [False, pytest.param(True, marks=in_vectors)])
@pytest.mark.parametrize("zero_point", [0, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("lut", [truncated(7), random_table(6)], ids=lambda lut: lut.name)
def test_sums_are_those_of_the_table(
    lut: LUT, groups: int, zero_point: int, vectors: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "VECTOR_BYTES_A_THREAD", 1)
    monkeypatch.setattr(int8, "BYTES_A_THREAD", 1)
    monkeypatch.setattr(int8, "_has_vectors", lambda: vectors)
    monkeypatch.setattr(int8, "_PACKED", OrderedDict())
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-128, 128, (2, 20, 9, 7), generator=generator).to(torch.int8)
    w = torch.randint(-128, 128, (6, 20 // groups, 3, 2), generator=generator).to(torch.int8)

    def sums(backend: str) -> Tensor:
        return approx_conv2d(
            x, w, lut, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=groups,
            x_zero_point=zero_point, backend=backend,
        )  # fmt: skip

    assert torch.equal(sums("int8"), sums("table"))
