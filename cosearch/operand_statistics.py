"""The operands that multipliers really see, gathered in the supernet, and energies under them.

Per kind of layer: a histogram of quantised activations and one of quantised weights, by bit
pattern. An activation counts as often as taps and positions read it, padding included; layers of a
kind count by their multiplications times the share of their operation. Activations and weights are
taken as independent (docs/hw.md, "The formulae").
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cosearch.layer_use import LayerUse
from cosearch.mapped_netlists import MappedNetlists
from cosearch.passes import undisturbed
from cosearch.supernet import Supernet
from hw.errors import InputError
from lut import ApproxConv2d
from lut.quantisation import levels_of

__all__ = ["OperandStatistics", "gathered_statistics", "layer_histograms"]

PATTERNS = 256
Histogram = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OperandStatistics:
    """By kind of layer: histograms (256,) that sum to one of activations and weights; energies in
    fJ by kind and multiplier; images: how many were seen.
    """

    images: int
    histograms: Mapping[str, tuple[Histogram, Histogram]]
    energies_fj: Mapping[str, Mapping[str, float]]

    def of_multiplier(self, name: str) -> dict[str, float]:
        """Energy of a multiplication by kind of layer, in fJ."""
        return {kind: energies[name] for kind, energies in self.energies_fj.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "histograms": {
                kind: {"activations": a.tolist(), "weights": b.tolist()}
                for kind, (a, b) in self.histograms.items()
            },
            "energies_fj": {kind: dict(one) for kind, one in self.energies_fj.items()},
        }

    @classmethod
    def from_json(cls, data: Any, source: str) -> "OperandStatistics":
        """InputError that names `source` where the data is none."""
        try:
            histograms = {
                str(kind): (np.array(one["activations"], float), np.array(one["weights"], float))
                for kind, one in data["histograms"].items()
            }
            energies = {
                str(kind): {str(name): float(fj) for name, fj in one.items()}
                for kind, one in data["energies_fj"].items()
            }
            return cls(int(data["images"]), histograms, energies)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{source} must hold statistics of operands ({error})") from None


@torch.no_grad()
def gathered_statistics(
    supernet: Supernet, use: LayerUse, batches: Iterable[Tensor], netlists: MappedNetlists
) -> OperandStatistics:
    """From passes over the images of `batches`, as in training; the supernet is left as it is."""
    shares = use(supernet.all_choices()).operations.tolist()
    weights = {
        layer.path: layer.shape.macs * share
        for layer, share in zip(use.layers, shares, strict=True)
    }
    kinds = {layer.path: layer.kind for layer in use.layers}
    sums: dict[str, list[Histogram]] = {}
    images = 0
    for batch in batches:
        images += len(batch)
        for path, pair in _one_pass(supernet, batch).items():
            found = sums.setdefault(kinds[path], [np.zeros(PATTERNS), np.zeros(PATTERNS)])
            for total, histogram in zip(found, pair, strict=True):
                total += weights[path] * histogram
    histograms = {kind: (a / a.sum(), b / b.sum()) for kind, (a, b) in sums.items()}
    energies = {kind: _energies(pair, netlists) for kind, pair in histograms.items()}
    return OperandStatistics(images, histograms, energies)


def _energies(pair: Sequence[Histogram], netlists: MappedNetlists) -> dict[str, float]:
    return {name: netlists.energy_fj(name, pair[0], pair[1]) for name in netlists.netlists}


def _one_pass(supernet: Supernet, images: Tensor) -> dict[str, tuple[Histogram, Histogram]]:
    """By path of the layer."""
    found: dict[str, tuple[Histogram, Histogram]] = {}
    handles = []
    for path, module in supernet.named_modules():
        if isinstance(module, ApproxConv2d):
            name = path.removesuffix(".convolution")

            def hook(
                layer: ApproxConv2d, inputs: tuple[Tensor, ...], output: Tensor, name: str = name
            ) -> None:
                found[name] = layer_histograms(layer, inputs[0], output)

            handles.append(module.register_forward_hook(hook))
    try:
        with undisturbed(supernet):
            supernet(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def layer_histograms(layer: ApproxConv2d, x: Tensor, output: Tensor) -> tuple[Histogram, Histogram]:
    """Of the operands of all multiplications of a layer for input x; each sums to one."""
    quantiser, geometry = layer.quantiser, layer.geometry
    low, high = quantiser.low, quantiser.high
    levels = levels_of(x, quantiser.scale, low, high, quantiser.zero_point)
    height, width = geometry.padding
    zero = float(quantiser.zero_point)
    padded = functional.pad(levels, (width, width, height, height), value=zero)
    reads = functional.conv_transpose2d(
        torch.ones(1, 1, *output.shape[2:]),
        torch.ones(1, 1, *layer.weight.shape[2:]),
        stride=geometry.stride,
        dilation=geometry.dilation,
    )[0, 0]
    # Rows and columns that a stride leaves over are read by no tap.
    used = padded[:, :, : reads.shape[0], : reads.shape[1]].cpu()
    activations = _histogram(used, reads.expand_as(used))
    levels_of_weights = layer.quantised_weight()[0].cpu()
    return activations, _histogram(levels_of_weights, torch.ones_like(levels_of_weights))


def _histogram(levels: Tensor, counts: Tensor) -> Histogram:
    patterns = levels.flatten().to(torch.int64) & (PATTERNS - 1)
    sums = torch.bincount(patterns, counts.flatten().double(), PATTERNS)
    return (sums / sums.sum()).numpy()
