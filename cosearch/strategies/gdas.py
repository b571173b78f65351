"""GDAS (Dong and Yang, CVPR 2019): one sampled operation an edge and pass, straight-through.

Gumbel noise is added to the logits; the largest operation of each edge is evaluated with a weight
of exactly 1 whose gradient is that of the softmax at a temperature (Eq. 3 to 5). Multipliers are
sampled the same way; the gradient of every beta is exact for the sampled operation, since a mixture
has it at no cost. Samples follow the softmax of the logits at any temperature, so the expected
energy is that of the plain shares.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cosearch.choices import Choices, Form
from cosearch.config import Search
from cosearch.supernet import Supernet

from .bilevel import bilevel_step
from .strategy import Step, StepResult

__all__ = ["Gdas", "gumbel_choices"]


class Gdas:
    """The temperature falls linearly from `search.temperature` to `search.temperature_end`."""

    form, capturable = Form(), False

    def __init__(self, settings: Search) -> None:
        self.start, self.end = settings.temperature, settings.temperature_end

    def step(self, at: Step) -> StepResult:
        temperature = self.start + (self.end - self.start) * at.progress
        return bilevel_step(at, lambda: gumbel_choices(at.supernet, temperature, at.generator))


def gumbel_choices(
    supernet: Supernet, temperature: float, generator: torch.Generator | None
) -> dict[str, Choices]:
    """One-hot shares of each cell type, drawn anew."""

    drawn = supernet.all_choices(lambda logits: _one_hot(logits, temperature, generator))
    return {
        cell_type: replace(one, sampled=tuple(one.alphas.detach().argmax(-1).tolist()))
        for cell_type, one in drawn.items()
    }


def _one_hot(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """Exactly one-hot in value, with the gradient of the softmax."""
    noise = torch.empty(logits.shape).exponential_(generator=generator).log().neg()
    soft = ((logits.log_softmax(-1) + noise.to(logits)) / temperature).softmax(-1)
    hard = torch.zeros_like(soft).scatter(-1, soft.detach().argmax(-1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())
