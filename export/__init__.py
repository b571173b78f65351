"""Writers: the integer network, its ONNX model, Verilog, and the bundle that holds them."""

from .bundle import Bundle as Bundle
from .bundle import copy_bundle as copy_bundle
from .bundle import write_bundle as write_bundle
from .integer import IntegerNetwork as IntegerNetwork
from .integerise import integerise as integerise
from .onnx_model import ModelMetadata as ModelMetadata
from .onnx_model import onnx_model as onnx_model
from .onnx_model import write_onnx as write_onnx
from .operands import OperandRecord as OperandRecord
from .operands import layer_operands as layer_operands
from .verification import Verified as Verified
from .verification import onnxruntime_logits as onnxruntime_logits
from .verification import verify as verify
