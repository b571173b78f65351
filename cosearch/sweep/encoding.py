"""Genotypes as named choices among so many alternatives, as an evolutionary search wants them.

Every combination of choices is a genotype, and every genotype that a search can select is one of
them: two edges from different states a node, an operation other than `none` on each, a multiplier
wherever something is multiplied.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations

from cosearch.genotype import (
    CELL_TYPES,
    CellGenotype,
    Gene,
    Genotype,
    MultiplierChoice,
    genotype_of,
)
from cosearch.operations import operation_kinds
from cosearch.space import SearchSpace
from cosearch.task import Task

__all__ = ["Encoding"]

Choices = Mapping[str, int]


@dataclass(frozen=True)
class Encoding:
    """Choices by name: which multiplier, which two sources, which operation. `multipliers` are the
    candidates.
    """

    space: SearchSpace
    multipliers: tuple[MultiplierChoice, ...]

    @classmethod
    def of(cls, task: Task) -> "Encoding":
        entries = [task.library[name] for name in task.searched]
        return cls(
            task.space, tuple(MultiplierChoice(entry.name, entry.digest) for entry in entries)
        )

    @cached_property
    def alternatives(self) -> dict[str, int]:
        """The number of alternatives of each choice, all choices in a fixed order."""
        return {
            f"{cell_type}.{name}": count
            for cell_type in CELL_TYPES
            for name, count in self._cell_alternatives()
        }

    def genotype(self, choices: Choices) -> Genotype:
        """The genotype of `choices`, each from 0 to its number of alternatives - 1."""
        return genotype_of(lambda cell_type: self._cell(choices, cell_type))

    def choices(self, genotype: Genotype) -> dict[str, int]:
        """What `genotype` is the genotype of; 0 for multipliers of what multiplies nothing."""
        found: dict[str, int] = {}
        for cell_type in CELL_TYPES:
            cell = genotype.cell(cell_type)
            for index, choice in enumerate(cell.preprocess):
                found[f"{cell_type}.preprocess.{index}"] = self.multipliers.index(choice)
            for node, genes in enumerate(cell.nodes):
                found |= self._node_choices(f"{cell_type}.node.{node}", node, genes)
        return found

    @property
    def operations(self) -> tuple[str, ...]:
        """Those that an edge of a genotype may have."""
        return tuple(name for name in self.space.operations if name != "none")

    def _cell_alternatives(self) -> Iterator[tuple[str, int]]:
        for index in (0, 1):
            yield f"preprocess.{index}", len(self.multipliers)
        for node in range(self.space.nodes):
            yield f"node.{node}.sources", len(_pairs(node))
            for gene in (0, 1):
                yield f"node.{node}.{gene}.operation", len(self.operations)
                yield f"node.{node}.{gene}.multiplier", len(self.multipliers)

    def _cell(self, choices: Choices, cell_type: str) -> CellGenotype:
        first, second = (
            self.multipliers[choices[f"{cell_type}.preprocess.{index}"]] for index in (0, 1)
        )
        nodes = tuple(self._node(choices, cell_type, node) for node in range(self.space.nodes))
        return CellGenotype((first, second), nodes)

    def _node(self, choices: Choices, cell_type: str, node: int) -> tuple[Gene, Gene]:
        name = f"{cell_type}.node.{node}"
        one, two = _pairs(node)[choices[f"{name}.sources"]]

        def gene(number: int, source: int) -> Gene:
            operation = self.operations[choices[f"{name}.{number}.operation"]]
            stride = 2 if cell_type == "reduction" and source < 2 else 1
            choice = self.multipliers[choices[f"{name}.{number}.multiplier"]]
            return Gene(operation, source, choice if _multiplies(operation, stride) else None)

        return gene(0, one), gene(1, two)

    def _node_choices(self, name: str, node: int, genes: tuple[Gene, Gene]) -> dict[str, int]:
        one, two = genes
        found = {f"{name}.sources": _pairs(node).index((one.source, two.source))}
        for number, gene in enumerate(genes):
            choice = 0 if gene.multiplier is None else self.multipliers.index(gene.multiplier)
            found[f"{name}.{number}.operation"] = self.operations.index(gene.operation)
            found[f"{name}.{number}.multiplier"] = choice
        return found


def _pairs(node: int) -> list[tuple[int, int]]:
    """The pairs of different states that a node may sum."""
    return list(combinations(range(node + 2), 2))


@lru_cache
def _multiplies(operation: str, stride: int) -> bool:
    return bool(operation_kinds(operation, stride))
