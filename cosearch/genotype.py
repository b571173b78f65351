"""A genotype: what a search found, cell by cell, as JSON in and out.

As in DARTS (Liu, Simonyan, Yang, ICLR 2019) each node of a cell sums two genes; here a gene names
its multiplier too. Sources 0 and 1 are the outputs of the two cells before, source n + 2 is node n.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cosearch.config import CELL_TYPES, KNOWN_OPERATIONS, NOISE
from hw.errors import InputError, unknown_name

__all__ = [
    "CELL_TYPES",
    "CellGenotype",
    "CellMultipliers",
    "Gene",
    "Genotype",
    "MultiplierChoice",
    "check_hardware",
]

FORMAT = 1


@dataclass(frozen=True)
class MultiplierChoice:
    """A multiplier by name and by the SHA-256 of its table: names alone have lied before."""

    name: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "sha256": self.sha256}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "MultiplierChoice":
        return cls(str(data["name"]), str(data["sha256"]))


@dataclass(frozen=True)
class Gene:
    """One edge: an operation, the state it reads, and its multiplier (None where it multiplies
    nothing).
    """

    operation: str
    source: int
    multiplier: MultiplierChoice | None

    def __post_init__(self) -> None:
        if self.operation not in KNOWN_OPERATIONS or self.operation == "none":
            raise unknown_name("operation", self.operation, set(KNOWN_OPERATIONS) - {"none"})

    def to_json(self) -> dict[str, Any]:
        multiplier = self.multiplier.to_json() if self.multiplier else None
        return {"operation": self.operation, "source": self.source, "multiplier": multiplier}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Gene":
        choice = data["multiplier"]
        multiplier = None if choice is None else MultiplierChoice.from_json(choice)
        return cls(str(data["operation"]), int(data["source"]), multiplier)


@dataclass(frozen=True)
class CellGenotype:
    """Multipliers of the two preprocessing convolutions, then the two genes of each node."""

    preprocess: tuple[MultiplierChoice, MultiplierChoice]
    nodes: tuple[tuple[Gene, Gene], ...]

    def __post_init__(self) -> None:
        for number, genes in enumerate(self.nodes):
            for gene in genes:
                if not 0 <= gene.source < number + 2:
                    raise InputError(
                        f"source of a gene of node {number} must be 0 to {number + 1}, "
                        f"not {gene.source}"
                    )

    def to_json(self) -> dict[str, Any]:
        return {
            "preprocess": [choice.to_json() for choice in self.preprocess],
            "genes": [[gene.to_json() for gene in genes] for genes in self.nodes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CellGenotype":
        first, second = (MultiplierChoice.from_json(choice) for choice in data["preprocess"])
        nodes = []
        for one, two in data["genes"]:
            nodes.append((Gene.from_json(one), Gene.from_json(two)))
        return cls((first, second), tuple(nodes))

    def with_multiplier(self, choice: MultiplierChoice) -> "CellGenotype":
        """The same operations, `choice` wherever something is multiplied."""

        def changed(gene: Gene) -> Gene:
            return Gene(gene.operation, gene.source, choice if gene.multiplier else None)

        nodes = tuple((changed(one), changed(two)) for one, two in self.nodes)
        return CellGenotype((choice, choice), nodes)


@dataclass(frozen=True)
class CellMultipliers:
    """The multipliers of one cell, convolution by convolution.

    preprocess: of its two inputs; edges: of its genes in order, empty where one multiplies nothing.
    """

    preprocess: tuple[tuple[MultiplierChoice, ...], ...]
    edges: tuple[tuple[MultiplierChoice, ...], ...]

    @property
    def all(self) -> tuple[MultiplierChoice, ...]:
        return tuple(choice for layers in (*self.preprocess, *self.edges) for choice in layers)

    def to_json(self) -> dict[str, Any]:
        return {
            "preprocess": [[one.to_json() for one in layers] for layers in self.preprocess],
            "edges": [[one.to_json() for one in layers] for layers in self.edges],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CellMultipliers":
        preprocess, edges = (
            tuple(tuple(map(MultiplierChoice.from_json, layers)) for layers in data[key])
            for key in ("preprocess", "edges")
        )
        return cls(preprocess, edges)


@dataclass(frozen=True)
class Genotype:
    """The normal and the reduction cell.

    ends: multipliers of stem and classifier, None where both are exact. layers: those of every cell
    of the network, in order, where each convolution has its own; then they decide, and genes name
    the likeliest of all cells.
    """

    normal: CellGenotype
    reduction: CellGenotype
    ends: tuple[MultiplierChoice, MultiplierChoice] | None = None
    layers: tuple[CellMultipliers, ...] = ()

    def cell(self, cell_type: str) -> CellGenotype:
        return {"normal": self.normal, "reduction": self.reduction}[cell_type]

    def with_multiplier(self, choice: MultiplierChoice) -> "Genotype":
        """The same network with one multiplier everywhere."""
        ends = None if self.ends is None else (choice, choice)
        cells = self.normal.with_multiplier(choice), self.reduction.with_multiplier(choice)
        return Genotype(*cells, ends)

    @property
    def multipliers(self) -> tuple[MultiplierChoice, ...]:
        """The distinct multipliers, in order of first use."""
        found: dict[MultiplierChoice, None] = dict.fromkeys(self.ends or ())
        if self.layers:
            return tuple(found | dict.fromkeys(one for cell in self.layers for one in cell.all))
        for cell in (self.normal, self.reduction):
            found |= dict.fromkeys(cell.preprocess)
            genes = (gene for node in cell.nodes for gene in node)
            found |= {gene.multiplier: None for gene in genes if gene.multiplier}
        return tuple(found)

    @property
    def digest(self) -> str:
        """SHA-256 of the genotype's JSON, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "nodes": len(self.normal.nodes),
            "normal": self.normal.to_json(),
            "reduction": self.reduction.to_json(),
            **({} if self.ends is None else {"ends": [one.to_json() for one in self.ends]}),
            **({"layers": [cell.to_json() for cell in self.layers]} if self.layers else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], source: str = "genotype") -> "Genotype":
        """Raises InputError that names `source` when the data is no genotype."""
        try:
            if data["format"] != FORMAT:
                raise InputError(f"{source} must be of format {FORMAT}, not {data['format']!r}")
            cells = [CellGenotype.from_json(data[cell_type]) for cell_type in CELL_TYPES]
            ends = _ends(data.get("ends"))
            layers = tuple(map(CellMultipliers.from_json, data.get("layers", ())))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{source} must be a genotype, not data with a fault at {error}"
            ) from None
        return cls(cells[0], cells[1], ends, layers)


def _ends(data: Any) -> tuple[MultiplierChoice, MultiplierChoice] | None:
    if data is None:
        return None
    first, last = map(MultiplierChoice.from_json, data)
    return first, last


def check_hardware(genotype: Genotype, source: str) -> None:
    """InputError that names `source` where an edge has an operation that no hardware computes."""
    cells = (genotype.normal, genotype.reduction)
    noise = sum(g.operation == NOISE for cell in cells for node in cell.nodes for g in node)
    if noise:
        raise InputError(
            f"{source} must hold operations that hardware has, not {NOISE!r} on {noise} of its "
            "edges"
        )


def genotype_of(choose: Callable[[str], CellGenotype]) -> Genotype:
    """The genotype whose cells `choose` derives, by cell type."""
    normal, reduction = (choose(cell_type) for cell_type in CELL_TYPES)
    return Genotype(normal, reduction)
