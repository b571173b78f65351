"""DrNAS (Chen et al., ICLR 2021): shares are drawn from Dirichlet distributions that are learned.

Concentrations are ``elu(logits) + 1``; the loss of alphas and betas has `search.kl_weight` times
the divergence of the distributions from uniform ones (section 3.2). Gradients pass through the
samples. The mean of a distribution is what selection and the expected energy go by.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from cosearch.choices import Choices, Form, concentrations, dirichlet_mean
from cosearch.config import Search
from cosearch.supernet import Supernet

from .bilevel import bilevel_step
from .strategy import Step, StepResult

__all__ = ["Drnas", "dirichlet_choices", "divergence"]


class Drnas:
    """DrNAS with all channels."""

    form, capturable = Form(relaxation=dirichlet_mean), False

    def __init__(self, settings: Search) -> None:
        self.kl_weight = settings.kl_weight

    def step(self, at: Step) -> StepResult:
        return bilevel_step(
            at,
            choose=lambda: dirichlet_choices(at.supernet, at.generator),
            penalty=lambda: self.kl_weight * divergence(at.supernet),
        )


def dirichlet_choices(supernet: Supernet, generator: torch.Generator | None) -> dict[str, Choices]:
    """Shares of each cell type, drawn anew."""
    return supernet.all_choices(lambda logits: _drawn(logits, generator))


def divergence(supernet: Supernet) -> Tensor:
    """Sum of the divergences of all distributions from uniform ones, a scalar."""
    logits = [*supernet.alphas.values(), *supernet.beta_parameters()]
    several = [one for one in logits if one.shape[-1] > 1]
    return torch.stack([_divergence(one) for one in several]).sum()


def _divergence(logits: Tensor) -> Tensor:
    uniform = Dirichlet(torch.ones_like(logits))
    return kl_divergence(Dirichlet(concentrations(logits)), uniform).sum()


def _drawn(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """A sample (on the CPU, whatever the device) that gradients pass through."""
    if logits.shape[-1] == 1:
        return torch.ones_like(logits)
    with _seeded(generator):
        sample: Tensor = Dirichlet(concentrations(logits).cpu()).rsample()
    return sample.to(logits)


@contextlib.contextmanager
def _seeded(generator: torch.Generator | None) -> Iterator[None]:
    """With torch's generator seeded from another one, restored afterwards: Dirichlet takes none."""
    if generator is None:
        yield
        return
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=generator)))
    try:
        yield
    finally:
        torch.set_rng_state(before)
