"""The networks of the benchmarks: shapes, published sizes, and that all of them can be emulated."""

import pytest
import torch
from torch import Tensor, fx, nn

from benchmarks.emulation_cuda import table_of
from benchmarks.networks import NETWORKS, darts_v2
from lut import ApproxConv2d, ApproxLinear, approximate

# ResNet-20: 0.27 M in its paper; DARTS: "param size = 3.349342MB" is what its authors' code prints.
PARAMETERS = {
    "darts": 3_349_342,
    "resnet20": 269_722,
    "resnet50": 23_520_842,
    "mobilenet_v2": 2_236_682,
}
CONVOLUTIONS = {"resnet20": 19, "resnet50": 53, "mobilenet_v2": 52}

every_network = pytest.mark.parametrize("name", NETWORKS)


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def of_type(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


@every_network
def test_logits(name: str) -> None:
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        logits = network(images(2))
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()


@every_network
def test_parameters(name: str) -> None:
    assert sum(p.numel() for p in NETWORKS[name]().parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "count"), CONVOLUTIONS.items())
def test_convolutions(name: str, count: int) -> None:
    assert len(of_type(NETWORKS[name](), nn.Conv2d)) == count


@every_network
def test_tracing_changes_nothing(name: str) -> None:
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        assert torch.equal(fx.symbolic_trace(network)(images(1)), network(images(1)))


@every_network
def test_every_layer_is_replaced(name: str) -> None:
    network = NETWORKS[name]()
    emulated = approximate(network, table_of("1"))
    assert not of_type(emulated, nn.Conv2d) and not of_type(emulated, nn.Linear)
    linear = of_type(emulated, ApproxLinear)
    assert len(of_type(emulated, ApproxConv2d)) == len(of_type(network, nn.Conv2d)) + len(linear)


def test_the_genotype_multiplies_where_it_convolves() -> None:
    genotype = darts_v2()
    assert len(genotype.multipliers) == 1
    genes = [
        gene for cell in (genotype.normal, genotype.reduction) for n in cell.nodes for gene in n
    ]
    assert {gene.operation for gene in genes if gene.multiplier is None} == {"max_pool_3x3"}
