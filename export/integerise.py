"""From a trained float module made of emulated layers to the integer network that it stands for.

The module is traced symbolically (torch.fx). Layers keep their integer weights; everything linear
between a layer's accumulators and the next quantiser (scales, batch norm, bias) is folded into one
requantisation, computed in float64 from the module's parameters.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from hw.errors import InputError
from lut import ApproxConv2d, ApproxMatmul

from .building import STATE_SCALE, Value, float64
from .conversion import Conversion, Result
from .function_conversions import FUNCTIONS, METHODS
from .integer import IntegerNetwork
from .module_conversions import MODULES
from .tracing import Trace, traced

__all__ = ["integerise"]

INPUT = "image"
LOGIT_RANGE = (-(1 << 23), (1 << 23) - 1)


def integerise(
    network: nn.Module, input_shape: tuple[int, int, int], pixel_scale: float
) -> IntegerNetwork:
    """The integer network of `network`, which takes ``pixels · pixel_scale``, (N, C, H, W), in eval
    mode.

    `network` is left as it is (its training flags too). Raises InputError for a layer or function
    that has no integer form here.
    """
    _check_decided(network)
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        return _network(traced(network, input_shape), input_shape, pixel_scale)
    finally:
        for module, flag in training.items():
            module.training = flag


def _check_decided(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, ApproxConv2d | ApproxMatmul) and len(module.candidates) != 1:
            raise InputError(
                f"layer {name!r} must have one multiplier, not {len(module.candidates)} candidates"
            )


def _network(trace: Trace, input_shape: tuple[int, int, int], pixel_scale: float) -> IntegerNetwork:
    to = Conversion(trace, INPUT)
    for node in trace.nodes:
        if node.op == "placeholder":
            shape = (-1, *input_shape)
            to.values[node] = Value(INPUT, float64(pixel_scale), float64(0.0), shape)
        elif node.op == "output":
            to.builder.requantised(to.raw(node), "logits.fixed", float64(STATE_SCALE), *LOGIT_RANGE)
        elif node in trace.data:
            to.values[node] = _converted(to, node)
    return IntegerNetwork(INPUT, input_shape, tuple(to.builder.nodes))


def _converted(to: Conversion, node: fx.Node) -> Result:
    if node.op == "call_module":
        module = to.trace.modules[str(node.target)]
        for kind, convert in MODULES.items():
            if isinstance(module, kind):
                return convert(to, node, module)
        raise InputError(
            f"layer {node.target!r} must be one of "
            f"{', '.join(kind.__name__ for kind in MODULES)}, not {type(module).__name__}"
        )
    known: Mapping[Any, Callable[..., Result]] = METHODS if node.op == "call_method" else FUNCTIONS
    if node.target in known:
        return known[node.target](to, node)
    raise InputError(
        "the network may only add, scale by numbers, average, reshape, transpose, concatenate, "
        f"slice, pad and rectify outside of layers, not call {node.target!r}"
    )
