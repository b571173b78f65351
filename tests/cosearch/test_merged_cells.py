"""A supernet with merged operations against the plain one: results, gradients, statistics."""

import copy
import os

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cosearch import norm_mixtures
from cosearch.choices import Form
from cosearch.exact_layers import convolved, fast_kernel
from cosearch.merged_cells import Edge, State, can_merge, unnormalised
from cosearch.operations import OPERATIONS, Arithmetic, ConvolutionSequence
from cosearch.supernet import Cell, Supernet
from lut import ApproxConv2d, Candidates
from lut.backends import cuda_exact

from .small import LUTS, SPACE, images

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Real(nn.Conv2d):
    """A convolution in real numbers in the place of an emulated one."""

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        return super().forward(x)


def in_real_numbers(module: nn.Module) -> None:
    """Replace emulated convolutions: their rounding would turn small differences to large ones."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ApproxConv2d):
                outputs, inputs, *kernel = child.weight.shape
                geometry = child.geometry
                real = Real(
                    inputs * geometry.groups, outputs, (kernel[0], kernel[1]), geometry.stride,
                    geometry.padding, geometry.dilation, geometry.groups, bias=False,
                )  # fmt: skip
                parent.register_module(name, real)


def pair(form: Form) -> tuple[Supernet, Supernet]:
    """Plain and merged, otherwise the same, with shares that differ."""
    torch.manual_seed(0)
    plain = Supernet(SPACE, Candidates(LUTS), Candidates(LUTS[:1]), form)
    for parameter in plain.architecture_parameters():
        nn.init.normal_(parameter)
    in_real_numbers(plain.cells)
    merged = copy.deepcopy(plain)
    for cell in merged.cells:
        assert isinstance(cell, Cell)
        cell.merged = True
    return plain.double(), merged.double()


def step(net: Supernet) -> tuple[Tensor, list[Tensor | None]]:
    """Logits, and gradients of all parameters."""
    logits = net(images(6).double())
    loss = functional.cross_entropy(logits, torch.arange(6))
    return logits, list(torch.autograd.grad(loss, list(net.parameters()), allow_unused=True))


@pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="kernels have no float64, which this is in"
)
@pytest.mark.parametrize(
    "form", [Form(), Form(partial_channels=2, weighs_edges=True)], ids=["whole", "partial"]
)
def test_merged_equals_plain(form: Form) -> None:
    plain, merged = pair(form)
    logits, gradients = step(plain)
    found, found_gradients = step(merged)
    # Alphas are used in float32 by merged cells.
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
    for (name, _), one, two in zip(
        plain.named_parameters(), gradients, found_gradients, strict=True
    ):
        assert (one is None) == (two is None), name
        if one is not None and two is not None:
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5, msg=name)
    for (name, one), (_, two) in zip(plain.named_buffers(), merged.named_buffers(), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.usefixtures("kernels")
def test_what_reads_one_state_is_observed_once() -> None:
    """And ends as if each convolution had observed it."""
    torch.manual_seed(0)
    names = ("max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
    arithmetic = Arithmetic(Candidates([LUTS[0]]), affine=False)
    one = nn.ModuleDict({n: OPERATIONS[n](4, 1, arithmetic) for n in names}).to(DEVICE)
    two = copy.deepcopy(one)
    x = torch.randn(2, 4, 4, 4, device=DEVICE).contiguous(memory_format=torch.channels_last)
    zero = torch.zeros(4)
    together = State(x, 4, 1, [Edge(0, one, {}, 1, zero, zero, zero)])
    assert len(together.scales) == 2
    for name in names[2:]:
        found, expected = (
            unnormalised(operations[name], state, None)
            for operations, state in ((one, together), (two, State(x, 4, 1)))
        )
        assert torch.equal(found[0], expected[0])
    for (name, buffer), (_, other) in zip(one.named_buffers(), two.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name


def test_batch_norms_of_several_processes_are_not_merged() -> None:
    class Shared(nn.BatchNorm2d):
        pass

    cell = pair(Form())[1].cells[0]
    assert can_merge(cell)
    operation = cell.preprocess[0]
    assert isinstance(operation, ConvolutionSequence)
    operation.layers[-1] = Shared(4)
    assert not can_merge(cell)


def test_evaluation_is_not_merged() -> None:
    _, merged = pair(Form())
    cell = merged.cells[0]
    assert isinstance(cell, Cell) and cell.merged
    merged.eval()
    expected = merged(images(2).double())
    cell.merged = False
    assert torch.equal(merged(images(2).double()), expected)


def weighted(normed: int, plain: int, based: bool) -> list[Tensor]:
    """Results, gradients of everything and running statistics of a weighted sum."""
    torch.manual_seed(0)

    def image() -> Tensor:
        x = 2 * torch.randn(3, 6, 4, 4, device=DEVICE) + 1
        return x.contiguous(memory_format=torch.channels_last).requires_grad_()

    terms = [image() for _ in range(normed + plain)]
    norms = [nn.BatchNorm2d(6, affine=False).to(DEVICE) for _ in range(normed)]
    weights = torch.rand(normed + plain, device=DEVICE, requires_grad=True)
    bases = [image()] if based else []
    pairs = list(zip(terms[:normed], norms, strict=True))
    found = norm_mixtures.weighted_sum(weights, pairs, terms[normed:], *bases)
    loss = (found * torch.randn(found.shape, device=DEVICE)).sum()
    gradients = torch.autograd.grad(loss, [weights, *terms, *bases])
    statistics = [value for n in norms for value in (n.running_mean, n.running_var)]
    return [found.detach(), *gradients] + [s for s in statistics if s is not None]


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's kernels: on a CPU its interpreter runs them, in a process of its own."""
    if (
        not torch.cuda.is_available()
        and cuda_exact.cuda_refusal(torch.empty(0, device=DEVICE)) is not None
    ):
        pytest.skip("a CUDA device is not here, and TRITON_INTERPRET is not 1")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("case", [(4, 0, True), (2, 1, True), (0, 2, False), (1, 1, False)])
def test_kernels_of_weighted_sums(
    case: tuple[int, int, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = weighted(*case)
    monkeypatch.setattr(norm_mixtures, "cuda_refusal", lambda x: "compared with")
    for one, two in zip(found, weighted(*case), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("kernels")
def test_kernel_of_normalised_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[Tensor]:
        torch.manual_seed(0)
        x = torch.randn(3, 20, 4, 4, device=DEVICE).contiguous(memory_format=torch.channels_last)
        norm = nn.BatchNorm2d(20, affine=False).to(DEVICE)
        y = norm_mixtures.normalised_relu(x.requires_grad_(), norm)
        (gradient,) = torch.autograd.grad((y * torch.randn(y.shape, device=DEVICE)).sum(), [x])
        return [y.detach(), gradient]

    kernel = found()
    monkeypatch.setattr(norm_mixtures, "cuda_refusal", lambda x: "compared with")
    for one, two in zip(kernel, found(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "dilation"),
    [(16, 3, 1, 1), (4, 5, 2, 1), (20, 3, 1, 2), (80, 5, 2, 2), (1, 3, 1, 1)],
)
def test_kernels_of_depthwise_convolutions(
    channels: int, kernel: int, stride: int, dilation: int, relu: bool
) -> None:
    torch.manual_seed(0)
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(
        channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
    ).to(DEVICE)
    x = torch.randn(2, channels, 9, 8, device=DEVICE)
    x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    kind = fast_kernel(layer, x)
    assert kind is not None
    expected = layer(functional.relu(x) if relu else x)
    signal = torch.randn_like(expected)
    found = convolved(layer, kind, x, relu=relu)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected_gradients = torch.autograd.grad(expected, [x, layer.weight], signal)
    for one, two in zip(
        torch.autograd.grad(found, [x, layer.weight], signal), expected_gradients, strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
