"""What a search strategy is: one step over a training batch and a validation batch."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from cosearch.choices import Form
from cosearch.objective import Objective
from cosearch.supernet import Supernet
from cosearch.world import ALONE, World

__all__ = ["Batch", "Optimisers", "Step", "StepResult", "Strategy"]


@dataclass(frozen=True, eq=False)
class Batch:
    """images: float (N, C, H, W) in [0, 1]; labels: int64 (N,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Optimisers:
    """One for weights and one for alphas and betas."""

    weights: Optimizer
    architecture: Optimizer
    gradient_clip: float


@dataclass(frozen=True, eq=False)
class StepResult:
    """Loss of each batch before the step that it led to, and its logits.

    train_loss is the cross-entropy; validation_loss is the objective.
    """

    train_loss: float
    train_logits: Tensor
    validation_loss: float
    validation_logits: Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """What one step works on and how far the search is.

    warming_up: alphas and betas rest. progress: the share of the search that is done. generator (of
    the CPU): where a strategy draws from, torch's own where it is None. world: the processes that
    share the batches.
    """

    supernet: Supernet
    objective: Objective
    optimisers: Optimisers
    train: Batch
    validation: Batch
    warming_up: bool
    progress: float = 0.0
    generator: torch.Generator | None = None
    world: World = ALONE


class Strategy(Protocol):
    """Moves alphas and betas on the validation batch (unless warming up), then weights on the
    training batch. `form` is what it asks of the supernet.
    """

    form: Form

    def step(self, at: Step) -> StepResult: ...
