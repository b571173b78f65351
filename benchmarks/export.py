"""The exported model: equality in onnxruntime, its speed, and the time to write and verify a
bundle.

``python -m benchmarks.export RUN`` on the folder of a finished run. Speed is the time of
``model.onnx`` for one image on one thread ÷ that of the same network with plain fp32 convolutions,
exported by the same writer.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from benchmarks.measurement import Measurement, print_machine, print_measurement, ratio, seconds
from cosearch.evaluation import integer_network
from cosearch.run_folder import RunFolder
from cosearch.task import Task, read_genotype
from export import Bundle, ModelMetadata, onnx_model, onnxruntime_logits, verify, write_bundle
from export.onnx_functions import DOMAIN


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with fp32 `Conv` and fp32 scale, add, clip instead of integer functions."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for function in copy.functions:
        for prefix, replaced in _PLAIN.items():
            if function.name.startswith(prefix):
                function.CopyFrom(replaced(function))
    for node in copy.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Requantize" and attribute.name == "to":
                attribute.i = onnx.TensorProto.FLOAT
    return copy


def _plain_conv(function: onnx.FunctionProto) -> onnx.FunctionProto:
    """A float `Conv` of x and w; the factors are left unused."""
    node = onnx.helper.make_node("Conv", ["x", "weight"], ["result"])
    for name in ("strides", "dilations", "pads", "group"):
        kind = onnx.AttributeProto.INT if name == "group" else onnx.AttributeProto.INTS
        node.attribute.append(onnx.AttributeProto(name=name, type=kind, ref_attr_name=name))
    body = [onnx.helper.make_node("Cast", ["w"], ["weight"], to=1), node]
    return _with_body(function, body)


def _plain_matmul(function: onnx.FunctionProto) -> onnx.FunctionProto:
    body = [onnx.helper.make_node("Cast", [name], [f"{name}_f"], to=1) for name in ("x", "y")]
    body.append(onnx.helper.make_node("MatMul", ["x_f", "y_f"], ["result"]))
    return _with_body(function, body)


def _plain_requantize(function: onnx.FunctionProto) -> onnx.FunctionProto:
    """Scale and shift in fp32, without rounding."""
    parts = ["x", "multiplier", "offset", "scale", "low", "high"]
    casts = [onnx.helper.make_node("Cast", [name], [f"{name}_f"], to=1) for name in parts]
    body = [
        *casts,
        onnx.helper.make_node("Mul", ["multiplier_f", "scale_f"], ["gain"]),
        onnx.helper.make_node("Mul", ["offset_f", "scale_f"], ["shift"]),
        onnx.helper.make_node("Mul", ["x_f", "gain"], ["product"]),
        onnx.helper.make_node("Add", ["product", "shift"], ["sum"]),
        onnx.helper.make_node("Clip", ["sum", "low_f", "high_f"], ["result"]),
    ]
    return _with_body(function, body)


def _with_body(function: onnx.FunctionProto, body: list[onnx.NodeProto]) -> onnx.FunctionProto:
    return onnx.helper.make_function(
        DOMAIN,
        function.name,
        function.input,
        function.output,
        body,
        function.opset_import,
        function.attribute,
    )


_PLAIN = {
    "ApproxConvInteger": _plain_conv,
    "ApproxMatMulInteger": _plain_matmul,
    "Requantize": _plain_requantize,
}


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    run = RunFolder.open(parser.parse_args().run)
    print_machine()
    task = Task.of(run)
    network = integer_network("approximate", task, read_genotype(run), run)
    images = task.data.splits["test"].images
    expected = network(images).numpy()
    for threads in (1, 2):
        for optimised in (True, False):
            logits = onnxruntime_logits(
                run.bundle / "model.onnx", images.numpy(), threads=threads, optimised=optimised
            )
            assert np.array_equal(logits, expected)
    print_measurement(Measurement("images_that_differ_in_onnxruntime", 0, "images", 0))
    model = onnx_model(network, ModelMetadata())
    image = {network.input_name: images[:1].numpy()}
    emulated, float_model = session(model), session(plain(model))
    slower = ratio(
        lambda: emulated.run(None, image), lambda: float_model.run(None, image), repetitions=101
    )
    print_measurement(Measurement("onnxruntime_time_vs_fp32", round(slower, 3), "ratio"))
    ranks = [node.lut.rank for node in network.convolutions]
    print_measurement(Measurement("highest_rank_in_the_network", max(ranks), "terms"))
    bundle = Bundle("benchmark", network, tuple(task.library), images, {})
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(bundle, Path(folder) / "warm")
        counts = verify(Path(folder) / "warm")
        took = seconds(lambda: verify(Path(folder) / "warm"), repetitions=3)
    print_measurement(Measurement("verification", round(took, 3), "s", 60.0))
    print_measurement(Measurement("operand_pairs_verified", counts.operand_pairs, "pairs"))
    weights = sum(node.weight.numel() for node in network.convolutions)
    over = (run.bundle / "model.onnx").stat().st_size - weights
    print_measurement(Measurement("model_size_beyond_int8_weights", over, "bytes", 2e6))


if __name__ == "__main__":
    main()
