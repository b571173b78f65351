"""Gradient checkpointing (Chen et al., arXiv 1604.06174): a module's activations are not kept for
the backward pass, but computed a second time there.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cosearch.choices import Choices
from cosearch.operations import Noise
from lut.quantisation import ActivationQuantiser

__all__ = ["recomputed"]


def recomputed(module: nn.Module, *inputs: Tensor | Choices) -> Tensor:
    """`module(*inputs)`, its activations recomputed in the backward pass.

    The second pass is the first one bit for bit and leaves running statistics and observers alone;
    noise is that of the first pass.
    """
    draws = any(isinstance(part, Noise) for part in module.modules())
    result: Tensor = checkpoint(
        module,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=draws,
        context_fn=lambda: (contextlib.nullcontext(), _again(module)),
    )
    return result


@contextlib.contextmanager
def _again(module: nn.Module) -> Iterator[None]:
    """Quantisers keep the grid of the pass before; running statistics take nothing of the batch."""
    quantisers = [m for m in module.modules() if isinstance(m, ActivationQuantiser) and m.training]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for quantiser in quantisers:
        quantiser.training = False
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for quantiser in quantisers:
            quantiser.training = True
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count
