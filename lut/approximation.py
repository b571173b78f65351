"""Any user's network with its convolutions and fully connected layers computed by multipliers.

``approximate(model, lut)`` copies the model and replaces its layers; weights and biases are kept.
``calibrate(model, batches)`` sets the ranges of activations; then the copy can be evaluated,
trained on or exported.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from hw.errors import InputError, did_you_mean

from .candidates import Candidates
from .layers import ApproxConv1d, ApproxConv2d, ApproxLinear
from .quantisation import ActivationQuantiser
from .table import LUT

__all__ = ["Assignment", "approximate", "calibrate"]

# One multiplier for all layers; by path or shell pattern of paths; or by any rule. None: leave
# alone.
Assignment = LUT | Mapping[str, LUT | None] | Callable[[str, nn.Module], LUT | None]


def approximate(model: nn.Module, assignment: Assignment) -> nn.Module:
    """A copy of `model` with emulated layers; `model` is left as it is.

    Conv1d, Conv2d and Linear layers are replaced where `assignment` gives a multiplier. In a
    mapping the first pattern that fits a path counts. Raises InputError for a pattern that fits no
    layer, and for padding other than zeros.
    """
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, _REPLACEABLE)
    }
    chosen = _chosen(layers, assignment)
    if "" in chosen:
        raise InputError("the model must be a module that holds layers, not itself one layer")
    result = copy.deepcopy(model)
    known: dict[str, Candidates] = {}
    for name, lut in chosen.items():
        candidates = known.setdefault(lut.digest, Candidates([lut]))
        parent, _, child = name.rpartition(".")
        setattr(result.get_submodule(parent), child, _replacement(name, layers[name], candidates))
    return result


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the activation ranges of all emulated layers from `batches` of inputs.

    Nothing else changes: batch norms and dropouts see evaluation mode meanwhile.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    for module in model.modules():
        if isinstance(module, ActivationQuantiser):
            module.train()
    try:
        for batch in batches:
            model(batch)
    finally:
        for module, flag in training.items():
            module.training = flag


_REPLACEABLE = (nn.Conv1d, nn.Conv2d, nn.Linear)


def _chosen(layers: Mapping[str, nn.Module], assignment: Assignment) -> dict[str, LUT]:
    """The multiplier of each layer that gets one."""
    if isinstance(assignment, LUT):
        choices: dict[str, LUT | None] = dict.fromkeys(layers, assignment)
    elif isinstance(assignment, Mapping):
        _check_patterns(layers, assignment)
        choices = {name: _first_fit(name, assignment) for name in layers}
    else:
        choices = {name: assignment(name, module) for name, module in layers.items()}
    return {name: lut for name, lut in choices.items() if lut is not None}


def _check_patterns(layers: Mapping[str, nn.Module], patterns: Iterable[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise InputError(
                f"a pattern must fit a layer of the model, not be {pattern!r}"
                f"{did_you_mean(pattern, layers)}"
            )


def _first_fit(name: str, assignment: Mapping[str, LUT | None]) -> LUT | None:
    return next((lut for pattern, lut in assignment.items() if fnmatchcase(name, pattern)), None)


def _replacement(name: str, layer: nn.Module, candidates: Candidates) -> nn.Module:
    """The emulated layer with the weights, bias, device and mode of `layer`."""
    if isinstance(layer, nn.Linear):
        has_bias = layer.bias is not None
        emulated: nn.Module = ApproxLinear(
            layer.in_features, layer.out_features, candidates, bias=has_bias
        )
        shape = (layer.out_features, layer.in_features, 1, 1)
    elif isinstance(layer, nn.Conv1d):
        emulated = ApproxConv1d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size[0],
            candidates,
            stride=layer.stride[0],
            padding=_zeros(name, layer)[0],
            dilation=layer.dilation[0],
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        shape = (layer.out_channels, layer.weight.shape[1], 1, layer.kernel_size[0])
    else:
        assert isinstance(layer, nn.Conv2d)
        height, width = _zeros(name, layer)
        emulated = ApproxConv2d(
            layer.in_channels,
            layer.out_channels,
            (layer.kernel_size[0], layer.kernel_size[1]),
            candidates,
            stride=(layer.stride[0], layer.stride[1]),
            padding=(height, width),
            dilation=(layer.dilation[0], layer.dilation[1]),
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        shape = tuple(layer.weight.shape)  # type: ignore[assignment]
    convolution = emulated if isinstance(emulated, ApproxConv2d) else emulated.convolution
    assert isinstance(convolution, ApproxConv2d)
    with torch.no_grad():
        convolution.weight.copy_(layer.weight.reshape(shape))
        if convolution.bias is not None and layer.bias is not None:
            convolution.bias.copy_(layer.bias)
    return emulated.to(layer.weight.device).train(layer.training)


def _zeros(name: str, layer: nn.Conv1d | nn.Conv2d) -> tuple[int, ...]:
    """The padding in numbers; only padding with zeros can be emulated."""
    if layer.padding_mode != "zeros":
        raise InputError(f"padding of layer {name!r} must be zeros, not {layer.padding_mode!r}")
    if not isinstance(layer.padding, str):
        return tuple(layer.padding)
    if layer.padding == "valid":
        return (0,) * len(layer.kernel_size)
    totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    if any(total % 2 for total in totals):
        raise InputError(
            f"padding of layer {name!r} must be the same on both sides, not 'same' "
            f"with a kernel of {tuple(layer.kernel_size)}"
        )
    return tuple(total // 2 for total in totals)
