"""The integer network in QONNX dialect, for FINN, hls4ml and whatever else reads that dialect.

The same nodes, weights and scales as the network's own model, but **exact** products: the dialect
has no approximate ones. It is the structure that a flow builds hardware from; the numbers of the
approximate network are those of ``model.onnx``. Values are integers in float32 and their types are
in ``quantization_annotation`` (``finn_datatype``). A rescaling, ``floor(y)`` with
y a multiple of 2^-shift, is ``Mul``, ``Add`` and ``Quant``: the rounding of y - 1/2 + 2^-(shift+1),
which is never halfway between two levels, so that every way of rounding to the nearest gives the
same. In float32 the sum has an error of at most 2^-22 of its largest term, and a value that comes
so close to halfway may be rounded to the neighbouring level; with ``wide`` the same three nodes
compute in float64, and every node is exact as long as no sum reaches 2^24 (:func:`largest_sum`).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorAnnotation, TensorProto, helper, numpy_helper

from hw.errors import InputError
from hw.files import write_bytes

from .integer import (
    FRACTION_BITS,
    STATE_RANGE,
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
from .onnx_model import ModelMetadata
from .qonnx_function import OPSET, QONNX_DOMAIN, int_quant

__all__ = ["FP32_EXACT", "largest_sum", "nodes_without_form", "qonnx_model", "write_qonnx"]

IR_VERSION = 10
FP32_EXACT = 1 << 24
POOL_BITS = 20
"""Averages have a few fraction bits more than states."""

_ABOUT = (
    "The structure of the network in QONNX dialect, with exact products. The multipliers that its "
    "Conv nodes name in their metadata are approximate ones: the network's own logits are those of "
    "model.onnx, not of this file."
)


def write_qonnx(network: IntegerNetwork, path: Path, metadata: ModelMetadata | None = None) -> None:
    """Write the twin to `path`, atomically; the same network gives the same bytes."""
    model = qonnx_model(network, metadata or ModelMetadata())
    write_bytes(path, model.SerializeToString(deterministic=True))


def qonnx_model(
    network: IntegerNetwork, metadata: ModelMetadata, *, wide: bool = False
) -> ModelProto:
    """The checked model: whole pixels as float32 (N, C, H, W) in, float32 logits (N, classes) out.

    wide: rescalings in float64. Raises InputError for a node that the dialect has no form for.
    """
    return _Writer(network, metadata, wide).model()


def nodes_without_form(network: IntegerNetwork) -> tuple[Node, ...]:
    """The nodes that the twin cannot hold; :func:`qonnx_model` refuses a network that has some."""
    return tuple(node for node in network.nodes if type(node) not in _WRITERS)


def largest_sum(network: IntegerNetwork) -> int:
    """No partial sum of exact products, of a pool or of a global pool exceeds it in magnitude."""
    sizes, sums = network.shapes, [0]
    for node in network.nodes:
        if isinstance(node, Convolution):
            operand = 1 << (node.lut.a_width - node.lut.a_signed)
            weights = node.weight.to(torch.int64).abs().sum((1, 2, 3))
            sums.append(operand * int(weights.max()))
        elif isinstance(node, AveragePool):
            sums.append(-STATE_RANGE[0] * node.kernel**2)
        elif isinstance(node, GlobalSum):
            sums.append(-STATE_RANGE[0] * sizes[node.inputs[0]][1] * sizes[node.inputs[0]][2])
    return max(sums)


class _Writer:
    """Collects nodes, initialisers and the integer types of values."""

    def __init__(self, network: IntegerNetwork, metadata: ModelMetadata, wide: bool) -> None:
        self.network, self.metadata, self.wide = network, metadata, wide
        self.shapes = network.shapes
        self.nodes: list[NodeProto] = []
        self.initialisers: dict[str, TensorProto] = {}
        self.types: dict[str, str] = {network.input_name: "UINT8"}

    def model(self) -> ModelProto:
        for node in nodes_without_form(self.network):
            raise InputError(
                f"node {node.name!r} must be one that QONNX has a form for, "
                f"not {type(node).__name__}"
            )
        for node in self.network.nodes:
            _WRITERS[type(node)](self, node)
        self._node("Flatten", [self.network.nodes[-1].name], "logits.flat", axis=1)
        scale = self._constant("logits.scale", 2.0**-FRACTION_BITS)
        self._node("Mul", ["logits.flat", scale], "logits")
        model = helper.make_model(
            self._graph(),
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(QONNX_DOMAIN, 1)],
            functions=[int_quant()],
            producer_name="cosearch",
            doc_string=_ABOUT,
        )
        helper.set_model_props(model, dict(self.metadata.properties))
        onnx.checker.check_model(model)
        return model

    def _graph(self) -> onnx.GraphProto:
        classes = self.shapes[self.network.nodes[-1].name][0]
        shape: list[str | int | None] = ["N", *self.network.input_shape]
        graph = helper.make_graph(
            self.nodes,
            self.metadata.name,
            [helper.make_tensor_value_info(self.network.input_name, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
            list(self.initialisers.values()),
            doc_string=_ABOUT,
        )
        graph.quantization_annotation.extend(
            TensorAnnotation(
                tensor_name=name,
                quant_parameter_tensor_names=[
                    onnx.StringStringEntryProto(key="finn_datatype", value=kind)
                ],
            )
            for name, kind in self.types.items()
        )
        return graph

    # Nodes

    def _requantise(self, node: Requantise) -> None:
        multiplier, offset = (
            np.asarray(tensor.numpy(), np.float64) for tensor in (node.multiplier, node.offset)
        )
        factors = _by_channel(multiplier * 2.0**-node.shift)
        constants = _by_channel(_rounded(offset, node.shift))
        self._rescaled(node.inputs[0], node.name, factors, constants, node.low, node.high)

    def _average_pool(self, node: AveragePool) -> None:
        """Windows summed by a depthwise convolution with ones, then weighted by position."""
        channels = self.shapes[node.inputs[0]][0]
        ones = np.ones((channels, 1, node.kernel, node.kernel))
        kernel = self._constant(f"ones.{channels}.{node.kernel}", ones, "BINARY")
        inputs, total = [node.inputs[0], kernel], f"{node.name}.sum"
        self._node("Conv", inputs, total, "INT32", **_window(node), group=channels)
        multiplier = np.asarray(node.multiplier.numpy(), np.float64)[None, None] * 2.0**-node.shift
        offset = _rounded(np.array(float(node.offset)), node.shift)
        low, high = -(1 << (POOL_BITS - 1)), (1 << (POOL_BITS - 1)) - 1
        self._rescaled(total, node.name, multiplier, offset, low, high)

    def _rescaled(
        self,
        value: str,
        name: str,
        multiplier: NDArray[np.float64],
        offset: NDArray[np.float64],
        low: int,
        high: int,
    ) -> None:
        """``clamp(round(value · multiplier + offset), low, high)``."""
        if self.wide:
            self._node("Cast", [value], f"{name}.wide", to=TensorProto.DOUBLE)
            value = f"{name}.wide"
        kind = np.float64 if self.wide else np.float32
        factor = self._constant(f"{name}.multiplier", multiplier, kind=kind)
        constant = self._constant(f"{name}.offset", offset, kind=kind)
        self._node("Mul", [value, factor], f"{name}.product")
        self._node("Add", [f"{name}.product", constant], f"{name}.biased")
        if self.wide:
            self._limited(f"{name}.biased", f"{name}.level", low, high, kind)
            kind_of_level = self.types[f"{name}.level"]
            self._node("Cast", [f"{name}.level"], name, kind_of_level, to=TensorProto.FLOAT)
        else:
            self._limited(f"{name}.biased", name, low, high)

    def _convolution(self, node: Convolution) -> None:
        lut, layer = node.lut, node.layer
        weight = self._constant(f"{layer}.weight", node.weight.numpy())
        b_type = _type(lut.b_signed, lut.b_width)
        self._quantised(weight, f"{layer}.weight.levels", lut.b_signed, False, lut.b_width)
        self.types[weight] = b_type
        operand, pads = self._padded(node)
        geometry = node.geometry
        attributes: dict[str, Any] = {
            "kernel_shape": list(node.weight.shape[2:]),
            "strides": list(geometry.stride),
            "pads": pads,
            "dilations": list(geometry.dilation),
            "group": geometry.groups,
        }
        inputs = [operand, f"{layer}.weight.levels"]
        self._node("Conv", inputs, node.name, "INT32", **attributes)
        helper.set_model_props(self.nodes[-1], self._annotations(node))

    def _padded(self, node: Convolution) -> tuple[str, list[int]]:
        """The operand and what is left to pad: Conv pads with zeros, a zero point needs a Pad."""
        top, left = node.geometry.padding
        if not node.zero_point or not (top or left):
            return node.inputs[0], [top, left, top, left]
        pads = np.array([0, 0, top, left, 0, 0, top, left], np.int64)
        amounts = self._constant(f"{node.layer}.pads", pads, kind=np.int64)
        value = self._constant(f"{node.layer}.zero_point", np.float32(node.zero_point))
        name = f"{node.layer}.padded"
        kind = self.types[node.inputs[0]]
        self._node("Pad", [node.inputs[0], amounts, value], name, kind, mode="constant")
        return name, [0, 0, 0, 0]

    def _annotations(self, node: Convolution) -> dict[str, str]:
        lut = node.lut
        values = {
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
        return {key: str(value) for key, value in values.items()}

    def _clamp(self, node: Clamp) -> None:
        self._limited(node.inputs[0], node.name, node.low, node.high)

    def _add(self, node: Add) -> None:
        self._node("Add", list(node.inputs), f"{node.name}.sum")
        self._limited(f"{node.name}.sum", node.name, node.low, node.high)

    def _max_pool(self, node: MaxPool) -> None:
        self._node("MaxPool", [node.inputs[0]], node.name, self._same(node), **_window(node))

    def _global_sum(self, node: GlobalSum) -> None:
        """The mean times the number of positions where that is exact, a plain sum elsewhere."""
        _, height, width = self.shapes[node.inputs[0]]
        count = height * width
        if count & (count - 1):
            axes = self._constant("spatial_axes", np.array([2, 3], np.int64), kind=np.int64)
            self._node("ReduceSum", [node.inputs[0], axes], node.name, "INT32", keepdims=1)
            return
        self._node("GlobalAveragePool", [node.inputs[0]], f"{node.name}.mean")
        positions = self._constant(f"{node.name}.positions", float(count))
        self._node("Mul", [f"{node.name}.mean", positions], node.name, "INT32")

    def _concatenate(self, node: Concatenate) -> None:
        kinds = {self.types[name] for name in node.inputs}
        kind = kinds.pop() if len(kinds) == 1 else _type(True, 16)
        self._node("Concat", list(node.inputs), node.name, kind, axis=1)

    def _crop(self, node: Crop) -> None:
        end = np.iinfo(np.int64).max
        bounds = {"starts": [node.top, node.left], "ends": [end, end], "axes": [2, 3]}
        inputs = [
            self._constant(f"{node.name}.{key}", np.array(value, np.int64), kind=np.int64)
            for key, value in bounds.items()
        ]
        self._node("Slice", [node.inputs[0], *inputs], node.name, self._same(node))

    def _same(self, node: Node) -> str:
        return self.types[node.inputs[0]]

    # Pieces

    def _limited(self, value: str, name: str, low: int, high: int, kind: Any = np.float32) -> None:
        """``round(clamp(value, low, high))``: a Quant, after a Relu or Clip where it needs one."""
        signed, bits = self._level_type(name.removesuffix(".level"), low, high)
        least, most = -(1 << (bits - 1)) if signed else 0, (1 << (bits - signed)) - 1
        narrow = signed and (low, high) == (least + 1, most)
        if (low, high) == (0, most):
            self._node("Relu", [value], f"{name}.rectified")
            value = f"{name}.rectified"
        elif (low, high) != (least, most) and not narrow:
            limits = [self._constant(f"{name}.{n}", v, kind=kind) for n, v in _named(low, high)]
            self._node("Clip", [value, *limits], f"{name}.clipped")
            value = f"{name}.clipped"
        self._quantised(value, name, signed, narrow, bits)

    def _level_type(self, name: str, low: int, high: int) -> tuple[bool, int]:
        """Signedness and bits: the narrowest type with the range, else, where a convolution reads
        `name`, that of the multiplier's operand.
        """
        signed, bits = low < 0, _bits(low, high)
        for reader in self.network.convolutions:
            if name in reader.inputs and not (low == 0 and high == (1 << bits) - 1):
                return reader.lut.a_signed, reader.lut.a_width
        return signed, bits

    def _quantised(self, value: str, name: str, signed: bool, narrow: bool, bits: int) -> None:
        constants = [
            self._constant("quant.scale", 1.0),
            self._constant("quant.zero_point", 0.0),
            self._constant(f"quant.bits.{bits}", float(bits)),
        ]
        self._node(
            "Quant",
            [value, *constants],
            name,
            _type(signed, bits),
            domain=QONNX_DOMAIN,
            signed=int(signed),
            narrow=int(narrow),
            rounding_mode="ROUND",
        )

    def _node(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        kind: str = "",
        *,
        domain: str = "",
        **attributes: Any,
    ) -> None:
        """One node named as its output; `kind`: the output's FINN type, if it is an integer."""
        self.nodes.append(
            helper.make_node(
                op_type, list(inputs), [output], name=output, domain=domain, **attributes
            )
        )
        if kind:
            self.types[output] = kind

    def _constant(self, name: str, value: Any, type_: str = "", kind: Any = np.float32) -> str:
        tensor = numpy_helper.from_array(np.asarray(value, kind), name)
        stored = self.initialisers.setdefault(name, tensor)
        assert stored == tensor, f"initialiser {name!r} stands for two tensors"
        if type_:
            self.types[name] = type_
        return name


_WRITERS: Mapping[type[Node], Callable[..., None]] = {
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


def _type(signed: bool, bits: int) -> str:
    return f"{'INT' if signed else 'UINT'}{bits}"


def _bits(low: int, high: int) -> int:
    """Of the narrowest integer type that holds both; unsigned unless low is negative."""
    if low < 0:
        return 1 + max((-low - 1).bit_length(), high.bit_length())
    return max(1, high.bit_length())


def _rounded(offset: NDArray[np.float64], shift: int) -> NDArray[np.float64]:
    """The offset with which rounding to the nearest gives what ``(x + offset) >> shift`` gives."""
    return (offset - 2.0 ** (shift - 1) + 0.5) * 2.0**-shift


def _by_channel(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C, 1, 1), or a scalar: flows move other nodes past a scalar alone."""
    return values.reshape(()) if values.size == 1 else values.reshape(-1, 1, 1)


def _named(low: int, high: int) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("low", low), ("high", high)


def _window(node: MaxPool | AveragePool) -> dict[str, Any]:
    return {
        "kernel_shape": [node.kernel] * 2,
        "strides": [node.stride] * 2,
        "pads": [node.padding] * 4,
    }
