"""Choices: how much of every operation and multiplier a pass of the supernet takes, in numbers.

Alphas, betas and gammas are logits; a *relaxation* turns them into shares. With samples the shares
are drawn instead, and may be one-hot: then only the drawn operation of an edge is evaluated.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional

__all__ = ["Choices", "Form", "Relaxation", "concentrations", "dirichlet_mean", "softmax"]

# Logits (..., n) to shares (..., n) that add up to one.
Relaxation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Choices:
    """The shares of one cell type.

    alphas (edges, operations); betas (edges, operations, M), or (cells, edges, operations, K, M)
    where each convolution k of each cell of the type has its own; preprocess (2, M) or
    (cells, 2, 2, M): multipliers of the
    two preprocessing convolutions; edges (edges,): weights of the edges of each node, None where
    they are summed as they are; sampled: index of the one operation of each edge that is evaluated,
    None where all are; ends (2, M): multipliers of stem and classifier, None where both are exact.
    """

    alphas: Tensor
    betas: Tensor
    preprocess: Tensor
    edges: Tensor | None = None
    sampled: tuple[int, ...] | None = None
    ends: Tensor | None = None

    @property
    def by_layer(self) -> bool:
        """Whether each convolution of each cell has shares of its own."""
        return self.betas.dim() == 5

    def of_cell(self, number: int) -> "Choices":
        """Those of one cell of the type: betas (edges, operations[, K], M), preprocess (2[, 2],
        M).
        """
        if not self.by_layer:
            return self
        return replace(self, betas=self.betas[number], preprocess=self.preprocess[number])

    def of_type(self) -> "Choices":
        """Without the grain of layers: their means."""
        if not self.by_layer:
            return self
        means = self.betas.mean((0, 3)), self.preprocess.mean((0, 2))
        return replace(self, betas=means[0], preprocess=means[1])


def softmax(logits: Tensor) -> Tensor:
    """Shares as in DARTS."""
    return logits.softmax(-1)


def concentrations(logits: Tensor) -> Tensor:
    """Positive concentrations of a Dirichlet distribution, 1 at logits of 0 (DrNAS)."""
    return functional.elu(logits) + 1


def dirichlet_mean(logits: Tensor) -> Tensor:
    """The mean of the Dirichlet distribution with these concentrations."""
    weights = concentrations(logits)
    return weights / weights.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Form:
    """What a strategy asks of the supernet.

    partial_channels: operations see one channel in so many, the rest pass by (PC-DARTS);
    weighs_edges: whether edges have weights of their own, gammas; relaxation: logits to shares,
    which are what is expected where shares are drawn.
    """

    partial_channels: int = 1
    weighs_edges: bool = False
    relaxation: Relaxation = softmax
