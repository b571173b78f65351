"""Networks of random genotypes: whatever a search may find is exported bit for bit."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from cosearch.config import NOISE
from cosearch.genotype import CellGenotype, Gene, Genotype, MultiplierChoice, genotype_of
from cosearch.network import Network
from cosearch.operations import OPERATIONS, Arithmetic
from cosearch.space import SearchSpace
from export import integerise, onnxruntime_logits, write_onnx
from lut import Candidates

from ..lut.tables import truncated

IN_HARDWARE = tuple(name for name in OPERATIONS if name != NOISE)
LUTS = [truncated(0), truncated(6), truncated(5, rows=1), truncated(7)]
CHOICES = [MultiplierChoice(lut.name, lut.digest) for lut in LUTS]


def random_cell(generator: random.Random, nodes: int) -> CellGenotype:
    def gene(node: int) -> Gene:
        operation = generator.choice(IN_HARDWARE)
        return Gene(operation, generator.randrange(node + 2), generator.choice(CHOICES))

    genes = tuple((gene(node), gene(node)) for node in range(nodes))
    return CellGenotype((generator.choice(CHOICES), generator.choice(CHOICES)), genes)


def arithmetic(choice: MultiplierChoice | None) -> Arithmetic:
    lut = LUTS[0] if choice is None else next(t for t in LUTS if t.digest == choice.sha256)
    return Arithmetic(Candidates([lut]), affine=True)


def trained(space: SearchSpace, genotype: Genotype, images: torch.Tensor) -> Network:
    """A few steps, so that ranges and batch norms are those of real activations."""
    network = Network(space, genotype, arithmetic)
    optimiser = torch.optim.SGD(network.parameters(), 0.05)
    labels = torch.randint(0, space.classes, (len(images),))
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    return network.eval()


@pytest.mark.parametrize("seed", range(8))
def test_onnxruntime_equals_the_integer_network(seed: int, tmp_path: Path) -> None:
    generator = random.Random(seed)
    torch.manual_seed(seed)
    nodes, cells, size = generator.randint(1, 4), generator.randint(1, 5), generator.choice([8, 12])
    space = SearchSpace(3, cells, nodes, IN_HARDWARE, image_channels=2, classes=7)
    genotype = genotype_of(lambda _: random_cell(generator, nodes))
    pixels = torch.randint(0, 256, (24, 2, size, size)).to(torch.uint8)
    network = trained(space, genotype, pixels.float() / 255)
    integer = integerise(network, (2, size, size), 1 / 255)
    write_onnx(integer, tmp_path / "model.onnx")
    logits = onnxruntime_logits(tmp_path / "model.onnx", pixels.numpy())
    assert np.array_equal(logits, integer(pixels).numpy())
    # The integer network is the trained one, up to rounding (chaotic only where tables are).
    expected = network(pixels.float() / 255).detach()
    correlation = np.corrcoef(logits.ravel(), expected.numpy().ravel())[0, 1]
    assert correlation > 0.95
