"""DARTS, first order (Liu, Simonyan, Yang, ICLR 2019, section 2.3 with xi = 0).

Alphas and betas follow the gradient of the objective on the validation batch at the weights as they
are; then the weights follow that of the cross-entropy on the training batch.
"""

from cosearch.choices import Form
from cosearch.config import Search

from .bilevel import bilevel_step
from .strategy import Step, StepResult

__all__ = ["Darts"]


class Darts:
    """First-order DARTS; keeps nothing between steps."""

    form, capturable = Form(), True

    def __init__(self, settings: Search) -> None:
        pass

    def step(self, at: Step) -> StepResult:
        return bilevel_step(at, at.supernet.all_choices)
