"""A supernet in float64 without quantisation and kinks, for finite differences.

Its "multipliers" are smooth functions of the weight in place of tables: the convolution with
candidate m is that with ``w + m sin(w) / 2``, mixed by betas as the emulated one is.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosearch.choices import Form
from cosearch.config import Search
from cosearch.objective import Objective
from cosearch.space import SearchSpace
from cosearch.strategies import Batch
from cosearch.strategies.strategy import Optimisers
from cosearch.supernet import Supernet
from lut import ApproxConv2d, Candidates

from .costed import objective_of
from .small import LUTS, SHAPE

OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "sep_conv_3x3")
TINY = SearchSpace(4, 3, 2, OPERATIONS, image_channels=1, classes=10)

ONE_NODE = SearchSpace(4, 3, 1, OPERATIONS, image_channels=1, classes=10)


class SmoothConv2d(ApproxConv2d):
    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        shares = [1.0] if mixture is None else list(mixture)
        kernel = sum(s * (self.weight + m * self.weight.sin() / 2) for m, s in enumerate(shares))
        g = self.geometry
        assert isinstance(kernel, Tensor)
        return functional.conv2d(x, kernel, self.bias, g.stride, g.padding, g.dilation, g.groups)


def tiny(seed: int = 0, form: Form | None = None, space: SearchSpace = TINY) -> Supernet:
    """The tiny space, emulated with tables."""
    torch.manual_seed(seed)
    return Supernet(space, Candidates(LUTS), Candidates(LUTS[:1]), form or Form())


def smooth(seed: int = 0, form: Form | None = None, space: SearchSpace = TINY) -> Supernet:
    """The tiny space in float64, without tables."""
    net = tiny(seed, form, space).double()
    without_tables(net)
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):  # whose kinks are jumps of the gradient
                setattr(module, name, nn.Softplus(beta=3.0))
    with torch.no_grad():  # away from uniform shares
        for parameter in net.architecture_parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64) / 2)
    return net


def without_tables(net: Supernet) -> None:
    """Turn its convolutions into smooth ones."""
    for module in net.modules():
        if isinstance(module, ApproxConv2d):
            module.__class__ = SmoothConv2d


def objective(net: Supernet, weight: float = 0.7) -> Objective:
    """Cross-entropy and energy; layers are those of the emulated space."""
    return objective_of(tiny(form=net.form), weight)


def batch(seed: int, dtype: torch.dtype = torch.float32, count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64).to(dtype)
    return Batch(images, torch.randint(0, 10, (count,), generator=generator))


def optimisers(net: Supernet) -> Optimisers:
    settings = Search()
    weights = torch.optim.SGD(
        net.weight_parameters(), 0.1, momentum=0.9, weight_decay=settings.weight_decay
    )
    return Optimisers(weights, torch.optim.Adam(net.architecture_parameters(), 0.1), 5.0)
