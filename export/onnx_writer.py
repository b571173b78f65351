"""Nodes and initialisers of an ONNX model being collected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from .integer import IntegerNetwork
from .onnx_functions import DOMAIN

__all__ = ["ModelMetadata", "Writer", "float64"]


@dataclass(frozen=True)
class ModelMetadata:
    """What the file says beside the arithmetic.

    energy_aj: energy of one inference in attojoules, by layer. properties: the model's
    metadata_props.
    """

    name: str = "cosearch"
    energy_aj: Mapping[str, int] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)


class Writer:
    """Collects nodes and initialisers; a tensor used twice is stored once.

    kinds: ONNX element types of the values written so far, by name.
    """

    def __init__(self, network: IntegerNetwork, metadata: ModelMetadata) -> None:
        self.network, self.metadata = network, metadata
        self.nodes: list[NodeProto] = []
        self.initialisers: dict[str, TensorProto] = {}
        self.kinds: dict[str, int] = {network.input_name: TensorProto.UINT8}

    def node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """A standard operator."""
        self._append(op_type, inputs, output, "", attributes)

    def call(self, function: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """A function of our own domain."""
        self._append(function, inputs, output, DOMAIN, attributes)

    def _append(
        self,
        op_type: str,
        inputs: Sequence[str],
        output: str,
        domain: str,
        attributes: Mapping[str, Any],
    ) -> None:
        node = helper.make_node(
            op_type, list(inputs), [output], name=output, domain=domain, **attributes
        )
        self.nodes.append(node)

    def constant(self, name: str, value: Any) -> str:
        tensor = numpy_helper.from_array(np.asarray(value), name)
        stored = self.initialisers.setdefault(name, tensor)
        assert stored == tensor, f"initialiser {name!r} stands for two tensors"
        return name

    def indices(self, *values: int) -> str:
        """An int64 vector, as axes and shapes are given."""
        name = "indices." + ".".join(map(str, values))
        return self.constant(name, np.array(values, np.int64))

    def double(self, value: float) -> str:
        """A float64 number."""
        return self.constant(f"double.{value!r}", np.float64(value))


def float64(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.numpy(), np.float64)
