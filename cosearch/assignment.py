"""An assignment: a multiplier of its own for every layer inside the cells of a found network.

It stands beside the genotype, whose multipliers it replaces layer by layer; a run that has one is
trained, evaluated and exported with it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from cosearch.genotype import MultiplierChoice
from hw.errors import InputError
from lut import ApproxConv2d, Candidates, MultiplierLibrary

__all__ = ["Assignment", "assigned", "inner_layers"]

FORMAT = 1


@dataclass(frozen=True)
class Assignment:
    """`genotype`: digest of the genotype it is for; `layers`: multipliers by path of the layer."""

    genotype: str
    layers: Mapping[str, MultiplierChoice]

    @property
    def digest(self) -> str:
        """SHA-256 of its JSON, in hexadecimal."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        layers = {path: choice.to_json() for path, choice in self.layers.items()}
        return {"format": FORMAT, "genotype": self.genotype, "layers": layers}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], source: str = "assignment") -> "Assignment":
        """Raises InputError that names `source` when the data is no assignment."""
        try:
            if data["format"] != FORMAT:
                raise InputError(f"{source} must be of format {FORMAT}, not {data['format']!r}")
            layers = {
                str(path): MultiplierChoice.from_json(choice)
                for path, choice in data["layers"].items()
            }
            return cls(str(data["genotype"]), layers)
        except InputError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{source} must be an assignment, not data with a fault at {error}"
            ) from None


def inner_layers(network: nn.Module) -> dict[str, ApproxConv2d]:
    """The emulated layers inside the cells, by path; stem and classifier stay exact."""
    return {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, ApproxConv2d) and path.startswith("cells.")
    }


def assigned(
    network: nn.Module, assignment: Assignment, library: MultiplierLibrary, gradient: str
) -> None:
    """Give each layer of `network` its multiplier; weights stay.

    Raises InputError where the layers are others, or the library has another table under a name.
    """
    layers = inner_layers(network)
    if set(layers) != set(assignment.layers):
        differing = sorted(set(layers) ^ set(assignment.layers))[0]
        raise InputError(
            "assignment must name every layer inside the cells and no other, "
            f"it differs at {differing!r}"
        )
    known: dict[str, Candidates] = {}
    for path, choice in assignment.layers.items():
        entry = library[choice.name]
        if entry.digest != choice.sha256:
            raise InputError(
                f"multiplier {choice.name!r} must have the table of digest {choice.sha256}, "
                f"not {entry.digest}"
            )
        if choice.name not in known:
            known[choice.name] = Candidates([entry.lut], gradient=gradient)
        layers[path].candidates = known[choice.name]
