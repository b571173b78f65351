"""The largest eigenvalue of the validation loss's Hessian in alphas: it grows before a collapse.

Source: Zela et al., "Understanding and Robustifying Differentiable Architecture Search" (ICLR
2020). Here by Lanczos, with products by central differences of gradients, since emulated
convolutions have no second derivative.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cosearch.passes import at, filled_gradients, frozen, undisturbed
from cosearch.strategies import Batch
from cosearch.supernet import Supernet

__all__ = ["largest_eigenvalue", "largest_hessian_eigenvalue"]

STEPS = 16
DISPLACEMENT = 0.02  # of the alphas, in norm


def largest_hessian_eigenvalue(
    supernet: Supernet, batch: Batch, displacement: float = DISPLACEMENT
) -> float:
    """Of the cross-entropy on `batch`, in all alphas; the supernet is left as it is."""
    alphas = list(supernet.alphas.parameters())
    center = torch.cat([parameter.detach().flatten() for parameter in alphas])

    def gradient(point: Tensor) -> Tensor:
        parts = point.split([parameter.numel() for parameter in alphas])
        values = [part.view_as(a) for part, a in zip(parts, alphas, strict=True)]
        with undisturbed(supernet), frozen(supernet.weight_parameters()), at(alphas, values):
            loss = functional.cross_entropy(supernet(batch.images), batch.labels)
            return torch.cat([part.flatten() for part in filled_gradients(loss, alphas)])

    def product(vector: Tensor) -> Tensor:
        step = displacement * vector
        return (gradient(center + step) - gradient(center - step)) / (2 * displacement)

    start = torch.randn(center.shape, generator=torch.Generator().manual_seed(0)).to(center)
    return largest_eigenvalue(product, start, STEPS)


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> float:
    """Of a symmetric matrix given by its products, (n,) to (n,): Lanczos, exact for n <= steps.

    Vectors are made orthogonal to all before them twice, so no copy of an eigenvalue appears.
    """
    basis = [start / start.norm()]
    diagonal, beside = [], []
    for _ in range(min(steps, len(start))):
        image = product(basis[-1])
        diagonal.append(float(image @ basis[-1]))
        for _ in range(2):
            for vector in basis:
                image = image - (image @ vector) * vector
        norm = float(image.norm())
        if norm < 1e-6 * max(1e-12, max(map(abs, diagonal))):
            break
        beside.append(norm)
        basis.append(image / norm)
    size = len(diagonal)
    off = torch.tensor(beside[: size - 1], dtype=torch.float64)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    tridiagonal = tridiagonal + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(tridiagonal)[-1])
