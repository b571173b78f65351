"""What the search minimises: cross-entropy + lambda · expected energy relative to exact int8.

With a budget B for the relative energy e, lambda · e gives way to an augmented Lagrangian (Nocedal
and Wright, Numerical Optimization, section 17.4): ``(max(0, mu + r (e - B))^2 - mu^2) / (2 r)``,
whose slope is ``max(0, mu + r (e - B))``; after each step that slope is the new multiplier mu.

Expected energy, differentiable in alphas and betas: ``E = fixed + sum_edges sum_o alpha_o · macs_o
· sum_m beta_om · energy_m`` over all cells, plus the preprocessing convolutions. It is divided by
the energy of the same supernet with uniform alphas and the exact multiplier everywhere, a constant:
cheap operations win as well as cheap multipliers.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosearch.genotype import CELL_TYPES
from cosearch.supernet import Supernet
from lut import ApproxConv2d

__all__ = ["Budget", "EnergyModel", "Objective", "beta_decay", "layer_macs"]


def layer_macs(network: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Multiplications for one image (C, H, W) in each convolution and fully connected layer, by
    path.
    """
    counts: dict[str, int] = {}

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def count(module: nn.Module, inputs: object, output: Tensor) -> None:
            positions = output[0, 0].numel()
            weight = module.weight
            assert isinstance(weight, Tensor)
            counts[name] = weight.numel() * positions

        return count

    layers = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, ApproxConv2d | nn.Conv2d | nn.Linear)
    ]
    handles = [module.register_forward_hook(hook(name)) for name, module in layers]
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, *input_shape))
    network.train(training)
    for handle in handles:
        handle.remove()
    return counts


@dataclass(frozen=True, eq=False)
class EnergyModel:
    """Expected multiplication energy of a supernet.

    operation_macs: per cell type (edges, operations); preprocess_macs: per cell type (2,), both
    summed over the cells of that type; fixed_macs: stem and classifier, exact; energies_fj: (M,)
    per multiplication, the first being the exact multiplier.
    """

    operation_macs: dict[str, Tensor]
    preprocess_macs: dict[str, Tensor]
    fixed_macs: int
    energies_fj: Tensor

    @classmethod
    def of(
        cls, supernet: Supernet, input_shape: tuple[int, int, int], energies_fj: Iterable[float]
    ) -> "EnergyModel":
        macs = layer_macs(_with_all_channels(supernet), input_shape)
        inside = {name: count for name, count in macs.items() if name.startswith("cells.")}
        operation_macs, preprocess_macs = {}, {}
        for cell_type in CELL_TYPES:
            cells = [
                f"cells.{index}."
                for index, place in enumerate(supernet.space.places)
                if place.cell_type == cell_type
            ]
            operation_macs[cell_type] = _operation_macs(supernet, inside, cells)
            preprocess_macs[cell_type] = torch.tensor(
                [_sum_below(inside, [f"{cell}preprocess.{i}." for cell in cells]) for i in (0, 1)]
            )
        fixed = sum(macs.values()) - sum(inside.values())
        energies = torch.tensor(list(energies_fj), dtype=torch.float32)
        return cls(operation_macs, preprocess_macs, fixed, energies)

    def relative(self, supernet: Supernet) -> Tensor:
        """Expected energy divided by that of the exact multiplier at uniform alphas, a scalar."""
        return self.expected_fj(supernet) / self.reference_fj

    def expected_fj(self, supernet: Supernet) -> Tensor:
        """Expected energy of one inference in fJ, a scalar."""
        total = self.energies_fj[0] * self.fixed_macs
        for cell_type in CELL_TYPES:
            choices = supernet.choices(cell_type)
            per_operation = choices.alphas * self.operation_macs[cell_type]
            total = total + (per_operation * (choices.betas @ self.energies_fj)).sum()
            first = choices.preprocess @ self.energies_fj
            total = total + (self.preprocess_macs[cell_type] * first).sum()
        return total

    @property
    def reference_fj(self) -> float:
        """Energy of one inference in fJ with uniform alphas and the exact multiplier everywhere."""
        macs = float(self.fixed_macs)
        for cell_type in CELL_TYPES:
            operations = self.operation_macs[cell_type]
            macs += float(operations.sum()) / operations.shape[1]
            macs += float(self.preprocess_macs[cell_type].sum())
        return macs * float(self.energies_fj[0])


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss of alphas and betas; weights see the cross-entropy alone."""

    energy: EnergyModel
    energy_weight: float
    budget: "Budget | None" = None
    beta_decay: float = 0.0

    def __call__(self, supernet: Supernet, logits: Tensor, labels: Tensor) -> Tensor:
        loss = functional.cross_entropy(logits, labels)
        energy = self.energy.relative(supernet)
        if self.budget is None:
            loss = loss + self.energy_weight * energy
        else:
            loss = loss + self.budget.term(energy)
        return loss + self.beta_decay * beta_decay(supernet) if self.beta_decay else loss

    @torch.no_grad()
    def ascended(self, supernet: Supernet) -> "Objective":
        """With the budget's multiplier moved by the energy as it is now."""
        if self.budget is None:
            return self
        return replace(self, budget=self.budget.ascended(self.energy.relative(supernet)))


@dataclass(frozen=True)
class Budget:
    """At most `limit` of the exact energy; `rate` is r, `multiplier` mu >= 0."""

    limit: float
    rate: float
    multiplier: float = 0.0

    def term(self, energy: Tensor) -> Tensor:
        """What it adds to the loss; zero or less within the limit."""
        slope = (self.multiplier + self.rate * (energy - self.limit)).clamp(min=0.0)
        return (slope**2 - self.multiplier**2) / (2 * self.rate)

    def ascended(self, energy: Tensor) -> "Budget":
        excess = float(energy) - self.limit
        return replace(self, multiplier=max(0.0, self.multiplier + self.rate * excess))


def beta_decay(supernet: Supernet) -> Tensor:
    """Mean over all edges of the logsumexp of alphas, a scalar (Ye et al., CVPR 2022, Eq. 12)."""
    return torch.cat([alphas.logsumexp(-1) for alphas in supernet.alphas.values()]).mean()


def _with_all_channels(supernet: Supernet) -> Supernet:
    """Another of its space whose operations see every channel, as in the network that is found."""
    if supernet.form.partial_channels == 1:
        return supernet
    with torch.random.fork_rng(devices=[]):
        return Supernet(supernet.space, supernet.candidates, supernet.exact)


def _operation_macs(supernet: Supernet, macs: dict[str, int], cells: list[str]) -> Tensor:
    """(edges, operations), zero for operations that multiply nothing."""
    space = supernet.space
    return torch.tensor(
        [
            [
                _sum_below(macs, [f"{cell}edges.{edge}.operations.{name}." for cell in cells])
                for name in space.operations
            ]
            for edge in range(space.edges)
        ],
        dtype=torch.float32,
    )


def _sum_below(macs: dict[str, int], prefixes: list[str]) -> int:
    return sum(count for name, count in macs.items() if name.startswith(tuple(prefixes)))
