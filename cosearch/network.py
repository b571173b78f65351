"""The discrete network of a genotype, its convolutions emulated with the multipliers it names."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from cosearch.drop_path import Drop
from cosearch.genotype import CellGenotype, Genotype, MultiplierChoice
from cosearch.layers import layer_kind
from cosearch.operations import (
    OPERATIONS,
    Arithmetic,
    FactorisedReduce,
    changes_nothing,
    relu_conv_bn,
)
from cosearch.space import CellPlace, SearchSpace
from hw.errors import InputError
from lut import LUT, ApproxConv2d, ApproxLinear, Candidates, MultiplierLibrary

__all__ = ["Network", "emulated_arithmetic", "float_arithmetic", "stem"]

# The arithmetic of a layer with this multiplier.
Arithmetics = Callable[[MultiplierChoice | None], Arithmetic]


def float_arithmetic(choice: MultiplierChoice | None) -> Arithmetic:
    """Plain fp32 convolutions, whatever the multiplier."""
    return Arithmetic(None, affine=True)


def emulated_arithmetic(
    library: MultiplierLibrary, gradient: str = "straight_through"
) -> Arithmetics:
    """Convolutions with the multipliers of `library`; no choice means its first, the exact one.

    `gradient` is a name in ``lut.gradients.GRADIENTS``.
    Raises InputError when the library has another table under a name than the genotype was found
    with.
    """
    known: dict[str, Arithmetic] = {}

    def arithmetic(choice: MultiplierChoice | None) -> Arithmetic:
        entry = library[choice.name] if choice else next(iter(library))
        if choice and choice.sha256 != entry.digest:
            raise InputError(
                f"multiplier {choice.name!r} must have the table of digest {choice.sha256}, "
                f"not {entry.digest}"
            )
        return known.setdefault(entry.name, Arithmetic(_alone(entry.lut, gradient), affine=True))

    return arithmetic


def _alone(lut: LUT, gradient: str) -> Candidates:
    return Candidates([lut], gradient=gradient)


def stem(space: SearchSpace, arithmetic: Arithmetic) -> nn.Sequential:
    """3×3 convolution and batch norm from image channels to `space.stem_channels`."""
    convolution = arithmetic.convolution(space.image_channels, space.stem_channels, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(space.stem_channels))


def classifier(space: SearchSpace, arithmetic: Arithmetic) -> nn.Module:
    """Fully connected, from pooled features to logits."""
    if arithmetic.candidates is None:
        return nn.Linear(space.output_channels, space.classes)
    return ApproxLinear(space.output_channels, space.classes, arithmetic.candidates)


def preprocess(place: CellPlace, index: int, arithmetic: Arithmetic) -> nn.Module:
    """Brings input `index` of a cell to the cell's channels, and to the size after a reduction."""
    if index == 0 and place.after_reduction:
        return FactorisedReduce(place.inputs[0], place.channels, arithmetic)
    return relu_conv_bn(place.inputs[index], place.channels, arithmetic)


class DiscreteCell(nn.Module):
    """A cell of a found network: each node adds the results of its two genes."""

    def __init__(self, place: CellPlace, genotype: CellGenotype, arithmetics: Arithmetics) -> None:
        super().__init__()
        self.preprocess = nn.ModuleList(
            preprocess(place, index, arithmetics(choice))
            for index, choice in enumerate(genotype.preprocess)
        )
        self.sources = [tuple(gene.source for gene in node) for node in genotype.nodes]
        self.edges = nn.ModuleList(
            OPERATIONS[gene.operation](
                place.channels,
                2 if place.reduces and gene.source < 2 else 1,
                arithmetics(gene.multiplier),
            )
            for node in genotype.nodes
            for gene in node
        )

    def forward(self, before: Tensor, last: Tensor, drop: Drop | None = None) -> Tensor:
        """`drop`: what becomes of the results of operations that are no skips."""
        states = [self.preprocess[0](before), self.preprocess[1](last)]
        for node, (first, second) in enumerate(self.sources):
            one = self._edge(2 * node, states[first], drop)
            states.append(one + self._edge(2 * node + 1, states[second], drop))
        return torch.cat(states[2:], dim=1)

    def _edge(self, edge: int, x: Tensor, drop: Drop | None) -> Tensor:
        operation = self.edges[edge]
        result: Tensor = operation(x)
        return result if drop is None or changes_nothing(operation) else drop(result)


def _choice(genotype: Genotype, place: str, number: int) -> MultiplierChoice | None:
    """Of convolution `number` at "stem…", "classifier…", "cells.i.preprocess.j" or
    "cells.i.edges.j".
    """
    parts = place.split(".")
    if parts[0] != "cells":
        return genotype.ends[parts[0] == "classifier"] if genotype.ends else None
    cell = genotype.layers[int(parts[1])]
    layers = cell.preprocess if parts[2] == "preprocess" else cell.edges
    return layers[int(parts[3])][number]


def _candidates(arithmetic: Arithmetic) -> Candidates:
    assert arithmetic.candidates is not None
    return arithmetic.candidates


class Network(nn.Module):
    """Stem, cells, global average pooling and classifier: (N, C, H, W) in [0, 1] to logits (N,
    classes).

    Convolutions of kinds that are not in `space.approximated` use the exact multiplier.
    """

    def __init__(self, space: SearchSpace, genotype: Genotype, arithmetics: Arithmetics) -> None:
        super().__init__()
        self.stem = stem(space, arithmetics(None))
        self.cells = nn.ModuleList(
            DiscreteCell(place, genotype.cell(place.cell_type), arithmetics)
            for place in space.places
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier(space, arithmetics(None))
        self._assign(space, genotype, arithmetics)

    def _assign(self, space: SearchSpace, genotype: Genotype, arithmetics: Arithmetics) -> None:
        """Hand each emulated convolution its own multiplier, where that is not its operation's."""
        seen: Counter[str] = Counter()
        for path, module in self.named_modules():
            if not isinstance(module, ApproxConv2d):
                continue
            place = ".".join(path.split(".")[:4])
            kind, number = layer_kind(path, module), seen[place]
            seen[place] += 1
            if kind not in space.approximated:
                module.candidates = _candidates(arithmetics(None))
            elif genotype.layers or not place.startswith("cells."):
                choice = _choice(genotype, place, number)
                module.candidates = _candidates(arithmetics(choice))

    def forward(self, x: Tensor) -> Tensor:
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self._classified(last)

    def training_logits(
        self, x: Tensor, drop: Drop | None, auxiliary: nn.Module | None, place: int
    ) -> tuple[Tensor, Tensor | None]:
        """Of the network, and of the auxiliary head after the cell `place`."""
        before = last = self.stem(x)
        beside = None
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last, drop)
            if auxiliary is not None and index == place:
                beside = auxiliary(last)
        return self._classified(last), beside

    def _classified(self, last: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.pool(last), 1))
        return logits
