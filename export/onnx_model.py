"""An integer network as an ONNX model that stock onnxruntime runs bit for bit.

Values between nodes are integers carried in float32 (states, below 2**16), int8 (operands) or int32
(accumulators, sums); float64 appears inside ``Requantize`` only. Nothing rounds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hw.errors import InputError
from hw.files import write_bytes
from lut import LUT

from .integer import (
    FRACTION_BITS,
    Add,
    AveragePool,
    Clamp,
    Concatenate,
    Convolution,
    Crop,
    GlobalSum,
    IntegerNetwork,
    MaxPool,
    Node,
    Requantise,
)
from .onnx_functions import DOMAIN, OPSET, approx_conv_name, functions

__all__ = ["ConvolutionBody", "ModelMetadata", "convolution_body", "onnx_model", "write_onnx"]

IR_VERSION = 10
FP32_EXACT = 1 << 24
FACTOR_RANK_LIMIT = 64
MOST_PARTS = 4


@dataclass(frozen=True)
class ModelMetadata:
    """What the file says beside the arithmetic.

    energy_aj: energy of one inference in attojoules, by layer. properties: the model's
    metadata_props.
    """

    name: str = "cosearch"
    energy_aj: Mapping[str, int] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ConvolutionBody:
    """How a convolution is computed exactly in fp32: with u whole, or with u in `parts` digits.

    u = sum_i parts[i] · base**i; base is 1 for a single part. bound: no partial sum of any part's
    accumulators exceeds it, with the layer's own weights and any operands.
    """

    parts: tuple[NDArray[np.int64], ...]
    base: int
    v: NDArray[np.int64]
    bound: int

    @property
    def op_type(self) -> str:
        return approx_conv_name(len(self.parts))


def convolution_body(convolution: Convolution) -> ConvolutionBody:
    """The body with fewest parts that is exact for the layer's weights, whatever the activations.

    A table of high rank is its own factor: u = identity, v = its transpose.
    """
    u, v = _factors(convolution.lut)
    weights = convolution.weight.numpy().astype(np.int64) & (len(v) - 1)
    for count in range(1, MOST_PARTS + 1):
        for bits in range(1, 31) if count > 1 else [0]:
            parts = _digits(u, 1 << bits, count)
            bound = max(_bound(part, v, weights) for part in parts)
            if bound < FP32_EXACT:
                return ConvolutionBody(parts, 1 << bits, v, bound)
    raise InputError(
        f"layer {convolution.layer!r} must have sums below 2**24 in each of {MOST_PARTS} parts, "
        f"not a fan-in of {weights[0].size}"
    )


def _digits(u: NDArray[np.int64], base: int, count: int) -> tuple[NDArray[np.int64], ...]:
    """`count` digits of u, the lowest first; the last one takes what is left, with the sign."""
    digits = []
    for _ in range(count - 1):
        digits.append(u % base)
        u = u // base
    return (*digits, u)


def _factors(lut: LUT) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if lut.rank <= FACTOR_RANK_LIMIT:
        return lut.factors.u, lut.factors.v
    return np.eye(len(lut.table), dtype=np.int64), lut.table.T.astype(np.int64)


def _bound(u: NDArray[np.int64], v: NDArray[np.int64], weights: NDArray[np.int64]) -> int:
    """max over output channels of sum_k max_a sum_r |u_r(a)|·|v_r(w_k)|."""
    largest = (np.abs(u) @ np.abs(v).T).max(axis=0)
    return int(largest[weights].reshape(len(weights), -1).sum(axis=1).max())


def write_onnx(network: IntegerNetwork, path: Path, metadata: ModelMetadata | None = None) -> None:
    """Write `network` to `path`, atomically; the same network gives the same bytes."""
    model = onnx_model(network, metadata or ModelMetadata())
    write_bytes(path, model.SerializeToString(deterministic=True))


def onnx_model(network: IntegerNetwork, metadata: ModelMetadata) -> ModelProto:
    """The checked model: input uint8 (N, C, H, W), output float32 (N, classes)."""
    return _Writer(network, metadata).model()


class _Writer:
    """Collects nodes and initialisers; a tensor used twice is stored once."""

    def __init__(self, network: IntegerNetwork, metadata: ModelMetadata) -> None:
        self.network, self.metadata = network, metadata
        self.nodes: list[NodeProto] = []
        self.initialisers: dict[str, TensorProto] = {}
        self.kinds: dict[str, int] = {network.input_name: TensorProto.UINT8}

    def model(self) -> ModelProto:
        for node in self.network.nodes:
            self.kinds[node.name] = _WRITERS[type(node)](self, node)
        self._write_logits()
        graph = helper.make_graph(
            self.nodes,
            self.metadata.name,
            [self._input()],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", self._classes])],
            list(self.initialisers.values()),
        )
        model = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)],
            functions=functions(
                {len(convolution_body(c).parts) for c in self.network.convolutions}
            ),
            producer_name="cosearch",
        )
        helper.set_model_props(model, dict(self.metadata.properties))
        onnx.checker.check_model(model)
        return model

    def _input(self) -> onnx.ValueInfoProto:
        shape: list[str | int | None] = ["N", *self.network.input_shape]
        return helper.make_tensor_value_info(self.network.input_name, TensorProto.UINT8, shape)

    @property
    def _classes(self) -> int:
        return len(self.network.convolutions[-1].weight)

    def _write_logits(self) -> None:
        last = self.network.nodes[-1].name
        self._node("Flatten", [last], "logits.flat", axis=1)
        scale = self._constant("logits.scale", np.float32(2.0**-FRACTION_BITS))
        self._node("Mul", ["logits.flat", scale], "logits")

    # Nodes: each writes itself and says the type of its result

    def _requantise(self, node: Requantise) -> int:
        shape = (1, -1, 1, 1)
        low, high = (np.float64(limit) for limit in (node.low, node.high))
        kind = self._operand_kind(node)
        inputs = [
            node.inputs[0],
            self._constant(f"{node.name}.multiplier", _float64(node.multiplier).reshape(shape)),
            self._constant(f"{node.name}.offset", _float64(node.offset).reshape(shape)),
            self._constant(f"scale.{node.shift}", np.float64(2.0**-node.shift)),
            self._constant(f"limit.{node.low}", low),
            self._constant(f"limit.{node.high}", high),
        ]
        self._node("Requantize", inputs, node.name, domain=DOMAIN, to=kind, shift=node.shift)
        return kind

    def _operand_kind(self, node: Requantise) -> int:
        """int8 or uint8 where a convolution reads the result, float32 where it is a state."""
        for reader in self.network.convolutions:
            if node.name in reader.inputs:
                return TensorProto.INT8 if reader.lut.a_signed else TensorProto.UINT8
        return TensorProto.FLOAT

    def _convolution(self, node: Convolution) -> int:
        body = convolution_body(node)
        zero_point = np.array(node.zero_point, np.int8 if node.lut.a_signed else np.uint8)
        inputs = [
            node.inputs[0],
            self._constant(f"{node.layer}.weight", node.weight.numpy()),
            self._constant(f"zero_point.{zero_point.dtype}.{zero_point}", zero_point),
            *self._factor_constants(node.lut, body),
        ]
        attributes = {**_geometry(node), **self._annotations(node)}
        self._node(body.op_type, inputs, node.name, domain=DOMAIN, **attributes)
        return TensorProto.INT32

    def _factor_constants(self, lut: LUT, body: ConvolutionBody) -> list[str]:
        suffix = f".{body.base}" if len(body.parts) > 1 else ""
        constants = [
            self._constant(f"{lut.name}.u{index or ''}{suffix}", part.astype(np.float32))
            for index, part in enumerate(body.parts)
        ]
        constants.append(self._constant(f"{lut.name}.v", body.v.astype(np.float32)))
        if len(body.parts) > 1:
            constants.append(self._constant(f"base.{body.base}", np.int32(body.base)))
        return constants

    def _annotations(self, node: Convolution) -> dict[str, Any]:
        lut = node.lut
        return {
            "layer": node.layer,
            "multiplier": lut.name,
            "lut_sha256": lut.digest,
            "a_bits": lut.a_width,
            "b_bits": lut.b_width,
            "a_signed": int(lut.a_signed),
            "b_signed": int(lut.b_signed),
            "acc_bits": 32,
            "macs": node.macs,
            "energy_aj": int(self.metadata.energy_aj.get(node.layer, 0)),
        }

    def _clamp(self, node: Clamp) -> int:
        return self._clipped(node.inputs[0], node)

    def _add(self, node: Add) -> int:
        self._node("Add", list(node.inputs), f"{node.name}.sum")
        return self._clipped(f"{node.name}.sum", node)

    def _clipped(self, value: str, node: Add | Clamp) -> int:
        limits = [
            self._constant(f"state_limit.{limit}", np.float32(limit))
            for limit in (node.low, node.high)
        ]
        self._node("Clip", [value, *limits], node.name)
        return TensorProto.FLOAT

    def _max_pool(self, node: MaxPool) -> int:
        self._node("MaxPool", [node.inputs[0]], node.name, **_window(node))
        return TensorProto.FLOAT

    def _average_pool(self, node: AveragePool) -> int:
        """Windows summed by a depthwise convolution with ones: integers exact in fp32."""
        channels = self._channels(node.inputs[0])
        ones = np.ones((channels, 1, node.kernel, node.kernel), np.float32)
        kernel = self._constant(f"ones.{channels}.{node.kernel}", ones)
        name, inputs = node.name, [node.inputs[0], kernel]
        self._node("Conv", inputs, f"{name}.sum", **_window(node), group=channels)
        self._node("Cast", [f"{name}.sum"], f"{name}.wide", to=TensorProto.DOUBLE)
        multiplier = self._constant(f"{name}.multiplier", _float64(node.multiplier))
        self._node("Mul", [f"{name}.wide", multiplier], f"{name}.product")
        offset = self._constant(f"{name}.offset", np.float64(node.offset))
        self._node("Add", [f"{name}.product", offset], f"{name}.biased")
        scale = self._constant(f"scale.{node.shift}", np.float64(2.0**-node.shift))
        self._node("Mul", [f"{name}.biased", scale], f"{name}.scaled")
        self._node("Floor", [f"{name}.scaled"], f"{name}.rounded")
        self._node("Cast", [f"{name}.rounded"], name, to=TensorProto.FLOAT)
        return TensorProto.FLOAT

    def _global_sum(self, node: GlobalSum) -> int:
        self._node("Cast", [node.inputs[0]], f"{node.name}.integers", to=TensorProto.INT32)
        axes = self._constant("spatial_axes", np.array([2, 3], np.int64))
        self._node("ReduceSum", [f"{node.name}.integers", axes], node.name, keepdims=1)
        return TensorProto.INT32

    def _concatenate(self, node: Concatenate) -> int:
        self._node("Concat", list(node.inputs), node.name, axis=1)
        return TensorProto.FLOAT

    def _crop(self, node: Crop) -> int:
        end = np.iinfo(np.int64).max
        inputs = [
            node.inputs[0],
            self._constant(f"{node.name}.starts", np.array([node.top, node.left], np.int64)),
            self._constant("ends", np.array([end, end], np.int64)),
            self._constant("spatial_axes", np.array([2, 3], np.int64)),
        ]
        self._node("Slice", inputs, node.name)
        return self.kinds[node.inputs[0]]

    def _channels(self, name: str) -> int:
        """Channels of a value, found from the node that made it."""
        if name == self.network.input_name:
            return self.network.input_shape[0]
        node = next(node for node in self.network.nodes if node.name == name)
        if isinstance(node, Convolution):
            return len(node.weight)
        if isinstance(node, Concatenate):
            return sum(self._channels(part) for part in node.inputs)
        return self._channels(node.inputs[0])

    def _node(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> None:
        node = helper.make_node(
            op_type, list(inputs), [output], name=output, domain=domain, **attributes
        )
        self.nodes.append(node)

    def _constant(self, name: str, value: Any) -> str:
        tensor = numpy_helper.from_array(np.asarray(value), name)
        stored = self.initialisers.setdefault(name, tensor)
        assert stored == tensor, f"initialiser {name!r} stands for two tensors"
        return name


_WRITERS: dict[type[Node], Callable[..., int]] = {
    Requantise: _Writer._requantise,
    Convolution: _Writer._convolution,
    Clamp: _Writer._clamp,
    Add: _Writer._add,
    MaxPool: _Writer._max_pool,
    AveragePool: _Writer._average_pool,
    GlobalSum: _Writer._global_sum,
    Concatenate: _Writer._concatenate,
    Crop: _Writer._crop,
}


def _geometry(node: Convolution) -> dict[str, Any]:
    (top, left), geometry = node.geometry.padding, node.geometry
    return {
        "strides": list(geometry.stride),
        "pads": [top, left, top, left],
        "dilations": list(geometry.dilation),
        "group": geometry.groups,
    }


def _window(node: MaxPool | AveragePool) -> dict[str, Any]:
    return {
        "kernel_shape": [node.kernel] * 2,
        "strides": [node.stride] * 2,
        "pads": [node.padding] * 4,
    }


def _float64(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.numpy(), np.float64)
