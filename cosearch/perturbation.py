"""Selection by perturbation: an operation is as good as what its removal costs.

Source: Wang et al., "Rethinking Architecture Selection in Differentiable NAS" (DARTS-PT, ICLR
2021). Edge by edge each operation is taken out in turn, the edge is then fixed to the one whose
removal hurt accuracy most; afterwards each edge is taken out in turn. Equal accuracies are decided
by the loss. There is no training between decisions (DARTS-PT has some): batch norms and quantisers
see each network's own statistics instead, and the supernet is left as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from cosearch.choices import Choices
from cosearch.passes import undisturbed
from cosearch.selection import Scores
from cosearch.strategies import Batch
from cosearch.supernet import Supernet

__all__ = ["perturbation_scores"]


@torch.no_grad()
def perturbation_scores(supernet: Supernet, batches: Sequence[Batch]) -> dict[str, Scores]:
    """By cell type: errors on `batches` without each operation, then without each edge.

    Scores are wrong images + a share below one that orders equal numbers by their loss.
    """
    choices = supernet.all_choices()
    operations: dict[str, Tensor] = {}
    for cell_type in choices:
        rows = []
        for edge in range(supernet.space.edges):
            row = _operation_scores(supernet, batches, choices, cell_type, edge)
            rows.append(row)
            fixed = choices[cell_type].alphas.clone()
            fixed[edge] = 0
            fixed[edge, int(row.argmax())] = 1
            choices[cell_type] = replace(choices[cell_type], alphas=fixed)
        operations[cell_type] = torch.stack(rows)
    return {
        cell_type: Scores(scores, _edge_scores(supernet, batches, choices, cell_type))
        for cell_type, scores in operations.items()
    }


def _operation_scores(
    supernet: Supernet,
    batches: Sequence[Batch],
    choices: Mapping[str, Choices],
    cell_type: str,
    edge: int,
) -> Tensor:
    """(operations,); `none`, and what the edge has not, have the lowest score there is."""
    own, scores = supernet.space.edge_operations(cell_type, edge), []
    for index, name in enumerate(supernet.space.operations):
        alphas = choices[cell_type].alphas.clone()
        alphas[edge, index] = 0
        without = {**choices, cell_type: replace(choices[cell_type], alphas=alphas)}
        chooses = name != "none" and name in own
        scores.append(_harm(supernet, batches, without) if chooses else -1.0)
    return torch.tensor(scores, dtype=torch.float64)


def _edge_scores(
    supernet: Supernet, batches: Sequence[Batch], choices: Mapping[str, Choices], cell_type: str
) -> Tensor:
    """(edges,)"""
    scores = []
    for edge in range(supernet.space.edges):
        alphas = choices[cell_type].alphas.clone()
        alphas[edge] = 0
        without = {**choices, cell_type: replace(choices[cell_type], alphas=alphas)}
        scores.append(_harm(supernet, batches, without))
    return torch.tensor(scores, dtype=torch.float64)


def _harm(supernet: Supernet, batches: Sequence[Batch], choices: Mapping[str, Choices]) -> float:
    """Wrong images, and a fraction in [0, 1) that grows with the loss."""
    wrong, loss = 0, 0.0
    for batch in batches:
        with undisturbed(supernet):
            logits = supernet(batch.images, choices)
        wrong += int((logits.argmax(1) != batch.labels).sum())
        loss += float(functional.cross_entropy(logits.double(), batch.labels))
    return wrong + loss / (1 + loss)
