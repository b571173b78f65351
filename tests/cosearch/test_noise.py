"""The operation `noise` (RobustDARTS's space S4): drawn anew, resumed, selected, never exported."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from cosearch.checkpoint import load_checkpoint, save_checkpoint
from cosearch.choices import Form
from cosearch.config import config_from_table
from cosearch.data import DataSet, Split, load_data_set
from cosearch.eigenvalue import largest_hessian_eigenvalue
from cosearch.evaluation import integer_network
from cosearch.genotype import CellGenotype, Gene, Genotype, MultiplierChoice, check_hardware
from cosearch.layer_use import LayerUse
from cosearch.network import Network, float_arithmetic
from cosearch.operations import Arithmetic, Noise, operation_kinds
from cosearch.perturbation import perturbation_scores
from cosearch.progress import Progress
from cosearch.run_folder import RunFolder
from cosearch.searching import Search
from cosearch.selection import normal_noise
from cosearch.space import SearchSpace
from cosearch.strategies import STRATEGIES, Step, strategy
from cosearch.supernet import Cell, Supernet
from cosearch.sweep.members import check_space
from cosearch.task import Task
from hw.errors import InputError
from lut import Candidates, MultiplierLibrary

from .costed import FIGURES, objective_of
from .small import LUTS, SHAPE, images
from .smooth import batch, optimisers, without_tables
from .test_merged_cells import in_real_numbers, step
from .test_searching import SmallLibrary, _same

QUIET = Progress(quiet=True)
OPERATIONS = ("noise", "sep_conv_3x3")
S4 = SearchSpace(4, 3, 2, OPERATIONS, image_channels=1, classes=10)


def noisy(seed: int = 0, form: Form | None = None, space: SearchSpace = S4) -> Supernet:
    torch.manual_seed(seed)
    net = Supernet(space, Candidates(LUTS), Candidates(LUTS[:1]), form or Form())
    without_tables(net)
    return net


def noisy_search(**settings: Any) -> Search:
    """On few digits."""
    search = {"epochs": 2, "batch_size": 16, "warmup_share": 0.0, "partial_channels": 2}
    names = ["mul8s_array", "mul8s_truncated_k5", "mul8s_truncated_k7"]
    config = config_from_table(
        {
            "search": search | settings,
            "space": {"channels": 4, "nodes": 1, "operations": OPERATIONS},
            "multipliers": {"candidates": names, "built_also": []},
            "train": {"batch_size": 16},
        }
    )
    data = load_data_set("digits", 0)
    splits = {name: Split(one.images[:32], one.labels[:32]) for name, one in data.splits.items()}
    few = DataSet(data.name, data.classes, data.channels, data.size, data.pixel_scale, splits)
    library = cast(MultiplierLibrary, SmallLibrary())
    found = Search(Task(config, few, replace(S4, nodes=1), library, FIGURES))
    without_tables(found.supernet)
    return found


def of_noise(nodes: int = 2) -> Genotype:
    """Noise on each first edge."""
    choice = MultiplierChoice(LUTS[0].name, LUTS[0].digest)
    genes = Gene("noise", 0, None), Gene("sep_conv_3x3", 1, choice)
    cell = CellGenotype((choice, choice), (genes,) * nodes)
    return Genotype(cell, cell)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_noise_is_normal_and_has_no_gradient(stride: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = 5 + torch.zeros(8, 6, 32, 32, dtype=dtype, requires_grad=True)
    operation = Noise(stride)
    one, two = operation(x), operation.eval()(x)
    assert one.shape == (8, 6, 32 // stride, 32 // stride) and one.dtype == dtype
    assert not one.requires_grad and not torch.equal(one, two)
    assert abs(float(one.double().mean())) < 0.05 and abs(float(one.double().std()) - 1) < 0.05


def test_passes_differ_and_alphas_of_noise_learn() -> None:
    net = noisy()
    assert not torch.equal(net(images()), net(images()))
    assert operation_kinds("noise", 2) == ()
    (gradient,) = torch.autograd.grad(net(images()).square().sum(), [net.alphas["normal"]])
    assert bool((gradient != 0).all())


def test_noise_costs_nothing() -> None:
    use = LayerUse.of(noisy(), SHAPE)
    inside = {layer.path.split(".")[5] for layer in use.layers if ".edges." in layer.path}
    assert inside == {"sep_conv_3x3"}


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_search_with_noise_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    straight = noisy_search(strategy=name)
    straight.one_epoch(QUIET)
    straight.epoch = 1
    save_checkpoint(tmp_path / "c.pt", straight.state())
    straight.one_epoch(QUIET)
    resumed = noisy_search(strategy=name)
    torch.rand(3)  # whatever happened before in the process
    resumed.restore(load_checkpoint(tmp_path / "c.pt"), "c.pt")
    resumed.one_epoch(QUIET)
    resumed.epoch = straight.epoch
    assert _same(straight.state(), resumed.state())


def test_noise_is_counted_each_epoch() -> None:
    search = noisy_search(epochs=1)
    with torch.no_grad():
        search.supernet.alphas["normal"][:, 0] = 5
    row = search._metrics(search.one_epoch(QUIET))
    assert row["noise"] == normal_noise(search.supernet.genotype()) == 2 and row["skips"] == 0


def test_selection_may_choose_noise() -> None:
    net = noisy()
    with torch.no_grad():
        for alphas in net.alphas.values():
            alphas[:, 0] = 5
    genotype = net.genotype()
    genes = [gene for node in genotype.normal.nodes for gene in node]
    assert {gene.operation for gene in genes} == {"noise"}
    assert all(gene.multiplier is None for gene in genes)
    assert Genotype.from_json(genotype.to_json()) == genotype


def test_the_network_of_a_genotype_with_noise_trains() -> None:
    network = Network(S4, of_noise(), float_arithmetic)
    network(images()).square().sum().backward()
    assert not torch.equal(network.eval()(images()), network(images()))


def test_a_one_hot_supernet_is_the_network_where_both_draw_the_same() -> None:
    space, one = replace(S4, nodes=1), Candidates(LUTS[:1])
    net = Supernet(space, one, one)
    with torch.no_grad():
        for alphas in net.alphas.values():
            alphas.copy_(1e4 * torch.eye(2))  # noise on the first edge, sep_conv_3x3 on the second
    network = Network(space, of_noise(1), lambda _: Arithmetic(one, affine=True))
    for name, value in network.state_dict().items():
        edge = name.split(".edges.1.")
        weights = net.state_dict().get(".edges.1.operations.sep_conv_3x3.".join(edge))
        if weights is not None:  # a gain of one or a shift of zero is there in the network alone
            value.copy_(weights)
    one_logits, other = (_drawing_by_shape(each.eval())(images()) for each in (net, network))
    assert torch.equal(one_logits, other)


def _drawing_by_shape(net: nn.Module) -> nn.Module:
    """With noise that is a function of its shape: how often it is drawn does not matter."""
    for module in net.modules():
        if isinstance(module, Noise):
            module.__class__ = Repeated
    return net


class Repeated(Noise):
    """The same numbers every time."""

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        like = x[:, :, :: self.stride, :: self.stride]
        generator = torch.Generator().manual_seed(0)
        return torch.randn(like.shape, generator=generator).to(like)


@pytest.mark.parametrize(
    "form", [Form(), Form(partial_channels=2, weighs_edges=True)], ids=["whole", "partial"]
)
def test_merged_cells_have_noise_too(form: Form) -> None:
    torch.manual_seed(0)
    space = replace(S4, operations=("none", "max_pool_3x3", "skip_connect", *OPERATIONS))
    plain = Supernet(space, Candidates(LUTS), Candidates(LUTS[:1]), form)
    for parameter in plain.architecture_parameters():
        nn.init.normal_(parameter)
    in_real_numbers(plain.cells)
    _drawing_by_shape(plain.double())
    merged = copy.deepcopy(plain)
    for cell in merged.cells:
        assert isinstance(cell, Cell)
        cell.merged = True
    (logits, gradients), (found, found_gradients) = step(plain), step(merged)
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
    for one, two in zip(gradients, found_gradients, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["darts", "gdas"])
def test_gradient_checkpointing_repeats_the_noise(name: str) -> None:
    states = []
    for checkpointing in (False, True):
        chosen = strategy(name)
        net = noisy(form=chosen.form)
        net.gradient_checkpointing = checkpointing
        draws, optimiser = torch.Generator().manual_seed(0), optimisers(net)
        torch.manual_seed(1)
        goal = objective_of(noisy(), 0.5)
        chosen.step(Step(net, goal, optimiser, batch(0), batch(1), False, 0.0, draws))
        states.append(net.state_dict() | {"generator": torch.get_rng_state()})
    assert _same(*states)


def test_differences_of_passes_are_of_the_same_noise() -> None:
    """So neither the Hessian nor a perturbation sees the draws, and nothing is left behind."""
    net, data = noisy(), batch(1)
    before = torch.get_rng_state()
    value = largest_hessian_eigenvalue(net, data)
    scores = perturbation_scores(net, [data])
    assert torch.equal(before, torch.get_rng_state())
    assert largest_hessian_eigenvalue(net, data) == value
    again = perturbation_scores(net, [data])
    assert all(torch.equal(one.operations, again[kind].operations) for kind, one in scores.items())


def test_what_hardware_has_not_is_refused(tmp_path: Path) -> None:
    expected = "genotype.json must hold operations that hardware has, not 'noise' on 4 of its edges"
    with pytest.raises(InputError, match=expected):
        check_hardware(of_noise(), "genotype.json")
    search = noisy_search()
    run = RunFolder.create(tmp_path / "run", search.task.config)
    with pytest.raises(InputError, match="not 'noise' on 4 of its edges"):
        integer_network("approximate", search.task, of_noise(), run)
    with pytest.raises(InputError, match="space.operations must hold operations that hardware has"):
        check_space(search.task.config.space)
