"""What a search strategy is: one step over a training batch and a validation batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from cosearch.choices import Choices, Form
from cosearch.device import computing
from cosearch.objective import Objective
from cosearch.supernet import Supernet
from cosearch.world import ALONE, World

__all__ = ["Batch", "Optimisers", "Step", "StepResult", "Strategy"]


@dataclass(frozen=True, eq=False)
class Batch:
    """images: float (N, C, H, W) in [0, 1]; labels: int64 (N,)."""

    images: Tensor
    labels: Tensor

    def copy(self) -> "Batch":
        return Batch(self.images.clone(), self.labels.clone())


@dataclass(frozen=True, eq=False)
class Optimisers:
    """One for weights and one for alphas and betas."""

    weights: Optimizer
    architecture: Optimizer
    gradient_clip: float


@dataclass(frozen=True, eq=False)
class StepResult:
    """Loss of each batch before the step that it led to, a scalar, and its logits, without
    gradients and where the supernet is: nobody waits for them.

    train_loss is the cross-entropy; validation_loss is the objective.
    """

    train_loss: Tensor
    train_logits: Tensor
    validation_loss: Tensor
    validation_logits: Tensor


@dataclass(frozen=True, eq=False)
class Step:
    """What one step works on and how far the search is.

    warming_up: alphas and betas rest. progress: the share of the search that is done. generator (of
    the CPU): where a strategy draws from, torch's own where it is None. world: the processes that
    share the batches. precision: of the passes, in ``config.PRECISIONS``.
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
    precision: str = "fp32"

    def logits(self, images: Tensor, choices: Mapping[str, Choices] | None = None) -> Tensor:
        """Of the supernet, float32; its own shares where `choices` are left out."""
        with computing(images.device, self.precision):
            logits: Tensor = self.supernet(images, choices)
        return logits.float() if logits.dtype == torch.bfloat16 else logits


class Strategy(Protocol):
    """Moves alphas and betas on the validation batch (unless warming up), then weights on the
    training batch. `form` is what it asks of the supernet. capturable: whether a step depends on
    nothing but tensors where the supernet is, and may become a CUDA graph.
    """

    form: Form
    capturable: bool

    def step(self, at: Step) -> StepResult: ...
