"""Any user's network with its convolutions, fully connected layers and ``lut.Matmul`` modules
computed by multipliers.

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

from .attention import ApproxMatmul, Matmul
from .candidates import Candidates
from .layers import PLAIN, ApproxConv1d, ApproxConv2d, ApproxLinear
from .quantisation import ActivationQuantiser, Quantisation
from .table import LUT

__all__ = ["Assignment", "approximate", "calibrate"]

# One multiplier for all layers; by path or shell pattern of paths; or by any rule. None: leave
# alone.
Assignment = LUT | Mapping[str, LUT | None] | Callable[[str, nn.Module], LUT | None]


def approximate(
    model: nn.Module, assignment: Assignment, quantisation: Quantisation = PLAIN
) -> nn.Module:
    """A copy of `model` with emulated layers; `model` is left as it is.

    Conv1d, Conv2d, Linear and ``lut.Matmul`` modules are replaced where `assignment` gives a
    multiplier. In a mapping the first pattern that fits a path counts. A layer that the model holds
    at several paths stays one layer where they get the same multiplier.

    Raises InputError for a pattern that fits no layer, for padding other than zeros, and for a
    layer inside of nn.MultiheadAttention, which computes with that layer's weights by itself.
    """
    layers = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, _REPLACEABLE)
    }
    chosen = _chosen(layers, assignment)
    _check_called(model, chosen)
    result = copy.deepcopy(model)
    candidates = {lut: Candidates([lut]) for lut in set(chosen.values())}
    made: dict[tuple[int, LUT], nn.Module] = {}
    for name, lut in chosen.items():
        key = id(layers[name]), lut
        if key not in made:
            made[key] = _replacement(name, layers[name], candidates[lut], quantisation)
        parent, _, child = name.rpartition(".")
        setattr(result.get_submodule(parent), child, made[key])
    _leave_fast_paths(result)
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


_REPLACEABLE = (nn.Conv1d, nn.Conv2d, nn.Linear, Matmul)


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


def _check_called(model: nn.Module, chosen: Iterable[str]) -> None:
    """InputError for layers that no parent calls."""
    for name in chosen:
        if name == "":
            raise InputError("the model must be a module that holds layers, not itself one layer")
        if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
            raise InputError(
                f"layer {name!r} must be given no multiplier (None), not one that would not be "
                "used: nn.MultiheadAttention computes with its weights by itself; write attention "
                "with nn.Linear and lut.Matmul instead"
            )


def _leave_fast_paths(model: nn.Module) -> None:
    """Transformer encoders with emulated layers call them in evaluation mode, too, instead of
    torch's fused kernels on their weights.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and any(
            isinstance(layer, ApproxLinear) for layer in module.modules()
        ):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder) and any(
            isinstance(layer, ApproxLinear) for layer in module.modules()
        ):
            module.use_nested_tensor = False


def _replacement(
    name: str, layer: nn.Module, candidates: Candidates, quantisation: Quantisation
) -> nn.Module:
    """The emulated layer with the weights, bias, device and mode of `layer`."""
    if isinstance(layer, Matmul):
        return ApproxMatmul(candidates, quantisation=quantisation).train(layer.training)
    assert isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)
    emulated = _emulated(name, layer, candidates, quantisation)
    convolution = emulated if isinstance(emulated, ApproxConv2d) else emulated.convolution
    with torch.no_grad():
        convolution.weight.copy_(layer.weight.reshape(convolution.weight.shape))
        if convolution.bias is not None and layer.bias is not None:
            convolution.bias.copy_(layer.bias)
    convolution.start_weight_scale()
    return emulated.to(layer.weight.device).train(layer.training)


def _emulated(
    name: str,
    layer: nn.Linear | nn.Conv1d | nn.Conv2d,
    candidates: Candidates,
    quantisation: Quantisation,
) -> ApproxLinear | ApproxConv1d | ApproxConv2d:
    """Of the same shape and settings."""
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return ApproxLinear(
            layer.in_features,
            layer.out_features,
            candidates,
            bias=has_bias,
            quantisation=quantisation,
        )
    if isinstance(layer, nn.Conv1d):
        return ApproxConv1d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size[0],
            candidates,
            stride=layer.stride[0],
            padding=_zeros(name, layer)[0],
            dilation=layer.dilation[0],
            groups=layer.groups,
            bias=has_bias,
            quantisation=quantisation,
        )
    height, width = _zeros(name, layer)
    return ApproxConv2d(
        layer.in_channels,
        layer.out_channels,
        (layer.kernel_size[0], layer.kernel_size[1]),
        candidates,
        stride=(layer.stride[0], layer.stride[1]),
        padding=(height, width),
        dilation=(layer.dilation[0], layer.dilation[1]),
        groups=layer.groups,
        bias=has_bias,
        quantisation=quantisation,
    )


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
