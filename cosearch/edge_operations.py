"""Operations by edge: which of a space's operations an edge has (RobustDARTS's space S1).

Source of the idea: Zela et al., "Understanding and Robustifying Differentiable Architecture Search"
(ICLR 2020), section 3. What an edge has not has a share of exactly zero and no gradient.
"""

import torch
from torch import Tensor, nn

from cosearch.genotype import CELL_TYPES
from cosearch.space import SearchSpace

__all__ = ["EdgeOperations", "absent"]


def absent(space: SearchSpace, cell_type: str) -> Tensor:
    """Bool (edges, operations): operations that an edge has not."""
    rows = [
        [name not in space.edge_operations(cell_type, edge) for name in space.operations]
        for edge in range(space.edges)
    ]
    return torch.tensor(rows)


class EdgeOperations(nn.Module):
    """Alphas as an edge's operations see them. It has no parameters; its buffers, 0 where there is
    an operation, else minus infinity, are in no state.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        for cell_type in CELL_TYPES:
            mask = None
            if space.by_edge:
                missing = absent(space, cell_type)
                mask = torch.zeros(missing.shape).masked_fill(missing, -torch.inf)
            self.register_buffer(cell_type, mask, persistent=False)

    def forward(self, cell_type: str, alphas: Tensor) -> Tensor:
        """Logits (edges, operations), minus infinity where there is no operation."""
        mask: Tensor | None = getattr(self, cell_type)
        return alphas if mask is None else alphas + mask
