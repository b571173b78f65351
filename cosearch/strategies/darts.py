"""DARTS, first order (Liu, Simonyan, Yang, ICLR 2019, section 2.3 with xi = 0).

Alphas and betas follow the gradient of the objective on the validation batch at the weights as they
are; then the weights follow that of the cross-entropy on the training batch.
"""

import torch

from cosearch.choices import Form
from cosearch.config import Search
from cosearch.objective import Objective
from cosearch.supernet import Supernet

from .bilevel import bilevel_step
from .strategy import Batch, Optimisers, StepResult

__all__ = ["Darts"]


class Darts:
    """First-order DARTS; keeps nothing between steps."""

    form = Form()

    def __init__(self, settings: Search) -> None:
        pass

    def step(
        self,
        supernet: Supernet,
        objective: Objective,
        optimisers: Optimisers,
        train: Batch,
        validation: Batch,
        *,
        warming_up: bool,
        progress: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> StepResult:
        return bilevel_step(
            supernet,
            objective,
            optimisers,
            train,
            validation,
            warming_up=warming_up,
            choose=supernet.all_choices,
        )
