"""The whole `rtl/` folder of a bundle: multipliers, array, traces, flows and the header for HLS."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from hw.errors import InputError
from lut import LibraryEntry

from .array_trace import array_files
from .flows import Flow, FlowModule, flow_files
from .hls import HlsMultiplier, hls_files
from .integer import IntegerNetwork
from .rtl import ModuleNames, entry_multiplier, multipliers_rtl

__all__ = ["hardware_files"]


def hardware_files(
    name: str, network: IntegerNetwork, entries: Sequence[LibraryEntry], images: Tensor
) -> tuple[Mapping[str, str], str]:
    """Text by path under `rtl/`, and why there is no array among it, or an empty text.

    entries: the multipliers that the network uses. The traces of the array are those of `images`.
    """
    texts = dict(multipliers_rtl(entries))
    array, reason = _array(network, images)
    texts |= array
    modules = [
        FlowModule(
            ModuleNames(entry.name).structural,
            entry.lut.a_width,
            entry.lut.b_width,
            entry.lut.a_width + entry.lut.b_width,
        )
        for entry in entries
    ]
    texts |= hls_files(
        [
            HlsMultiplier(
                ModuleNames(entry.name).structural, entry.lut, entry_multiplier(entry).netlist
            )
            for entry in entries
        ]
    )
    return {**texts, **flow_files(Flow.of(name, modules, texts))}, reason


def _array(network: IntegerNetwork, images: Tensor) -> tuple[Mapping[str, str], str]:
    """No files where the network has no convolution, or its multipliers cannot share an array."""
    if not network.convolutions:
        return {}, "no layer is a convolution"
    try:
        return array_files(network, images), ""
    except InputError as error:
        return {}, str(error)
