"""Selection: the cap on skips, perturbation, and the Hessian's largest eigenvalue."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cosearch.eigenvalue import largest_eigenvalue, largest_hessian_eigenvalue
from cosearch.genotype import Genotype
from cosearch.passes import at
from cosearch.perturbation import perturbation_scores
from cosearch.selection import Scores, normal_skips, selected
from cosearch.supernet import Supernet

from .smooth import ONE_NODE, TINY, batch, smooth, tiny

SKIP = TINY.operations.index("skip_connect")


def _of_skips() -> Supernet:
    """Skips everywhere, the stronger the later; sep_conv_3x3 is next."""
    net = tiny()
    with torch.no_grad():
        for alphas in net.alphas.values():
            alphas.zero_()
            alphas[:, SKIP] = torch.arange(1.0, 6.0)
            alphas[:, TINY.operations.index("sep_conv_3x3")] = 0.5
    return net


def _operations(genotype: Genotype) -> list[str]:
    return [gene.operation for node in genotype.normal.nodes for gene in node]


@pytest.mark.parametrize(("cap", "kept"), [(-1, 4), (4, 4), (3, 3), (2, 2), (1, 1), (0, 0)])
def test_the_strongest_skips_are_kept(cap: int, kept: int) -> None:
    genotype = _of_skips().genotype(cap)
    assert normal_skips(genotype) == kept
    expected = ["sep_conv_3x3"] * (4 - kept) + ["skip_connect"] * kept
    assert _operations(genotype) == expected
    uncapped = _of_skips().genotype()
    assert genotype.reduction == uncapped.reduction
    sources = [[gene.source for gene in node] for node in genotype.normal.nodes]
    assert sources == [[gene.source for gene in node] for node in uncapped.normal.nodes]


def test_scores_decide_and_betas_choose_multipliers() -> None:
    net = tiny()
    operations = torch.zeros(TINY.edges, len(TINY.operations))
    operations[:, TINY.operations.index("none")] = 9
    operations[:, 3] = 1
    scores = Scores(operations, torch.tensor([0.0, 1.0, 2.0, 0.5, 1.0]))
    with torch.no_grad():
        net.betas["normal"][..., 2] = 1
    by_type = dict.fromkeys(("normal", "reduction"), scores)
    cell = selected(TINY, net.candidates.luts, net.all_choices(), by_type).normal
    assert [[gene.source for gene in node] for node in cell.nodes] == [[0, 1], [0, 2]]
    genes = [gene for node in cell.nodes for gene in node]
    assert {gene.operation for gene in genes} == {"sep_conv_3x3"}
    multipliers = {gene.multiplier.name for gene in genes if gene.multiplier}
    assert multipliers == {net.candidates.luts[2].name}


def test_perturbation_finds_the_operation_that_matters() -> None:
    """One edge of the normal cell carries all, by its convolution: without it images are alike."""
    net = smooth(space=ONE_NODE)
    with torch.no_grad():
        net.alphas["normal"].fill_(0)
        net.alphas["normal"][0, 3] = net.alphas["normal"][1, 0] = 60
    data = batch(1, torch.float64)
    labels = net(data.images).argmax(1).detach()  # as the network says, which it is right about
    before = {name: value.clone() for name, value in net.state_dict().items()}
    scores = perturbation_scores(net, [type(data)(data.images, labels)])
    again = perturbation_scores(net, [type(data)(data.images, labels)])
    assert int(scores["normal"].operations[0].argmax()) == 3
    for cell_type in net.alphas:
        assert torch.equal(scores[cell_type].operations, again[cell_type].operations)
        assert torch.equal(scores[cell_type].edges, again[cell_type].edges)
        assert float(scores[cell_type].operations[:, 0].max()) == -1.0  # `none`
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_lanczos_finds_the_largest_not_the_largest_in_magnitude() -> None:
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(40, 40, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(square)
    values = torch.linspace(-30.0, 1.0, 40, dtype=torch.float64)
    values[-1] = 12.0
    matrix = basis @ torch.diag(values) @ basis.T
    start = torch.randn(40, generator=generator, dtype=torch.float64)
    assert largest_eigenvalue(matrix.mv, start, 40) == pytest.approx(12.0, rel=1e-9)
    assert largest_eigenvalue(matrix.mv, start, 16) == pytest.approx(12.0, rel=1e-3)
    assert largest_eigenvalue(lambda v: 3 * v, start, 16) == pytest.approx(3.0)


def test_hessian_eigenvalue_is_that_of_autograd() -> None:
    net, data = smooth(space=ONE_NODE), batch(1, torch.float64)
    alphas = list(net.alphas.parameters())
    loss = functional.cross_entropy(net(data.images), data.labels)
    gradients: tuple[Tensor, ...] = torch.autograd.grad(loss, alphas, create_graph=True)
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    rows = []
    for entry in flat:
        row = torch.autograd.grad(entry, alphas, retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in row]))
    exact = float(torch.linalg.eigvalsh(torch.stack(rows))[-1])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert largest_hessian_eigenvalue(net, data) == pytest.approx(exact, rel=2e-2)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_parameters_are_restored_after_an_error() -> None:
    net = smooth()
    parameter = net.alphas["normal"]
    before = parameter.detach().clone()
    with pytest.raises(ZeroDivisionError), at([parameter], [parameter + 1]):
        raise ZeroDivisionError
    assert torch.equal(parameter, before)
