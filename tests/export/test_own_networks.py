"""Networks of a user's own, made approximate layer by layer: bit-identical in onnxruntime."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from export import (
    Bundle,
    IntegerNetwork,
    ModelMetadata,
    integerise,
    layer_operands,
    onnx_model,
    verify,
    write_bundle,
    write_onnx,
)
from export.integer import FRACTION_BITS, MatrixProduct
from export.onnx_functions import PRODUCTS
from hw.errors import InputError
from lut import LUT, Matmul, MultiplierLibrary, Quantisation, approximate, calibrate

from ..lut.tables import random_table, truncated
from .transformer import VisionTransformer, resnet20

EXACT = LUT.exact(a_signed=True, b_signed=True)
LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]
AFFINE = Quantisation(symmetric=False)


def _disturbed(rank: int = 2) -> LUT:
    """Exact products and a structureless error, which zero operands have too."""
    table = EXACT.table + 20 * random_table(rank, magnitude=4).table
    return LUT(table, a_signed=True, b_signed=True, name=f"disturbed_{rank}")


@dataclass(frozen=True)
class Case:
    """A module, how it is made approximate, and pixels for it."""

    module: nn.Module
    assignment: object
    quantisation: Quantisation
    shape: tuple[int, int, int]
    images: int

    def pixels(self, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        size = (self.images, *self.shape)
        return torch.randint(0, 256, size, generator=generator).to(torch.uint8)

    def emulated(self) -> nn.Module:
        module = approximate(self.module.eval(), self.assignment, self.quantisation)
        calibrate(module, [self.pixels(1).float() / 255])
        return module.eval()


def _transformer(seed: int = 0, **settings: object) -> VisionTransformer:
    torch.manual_seed(seed)
    module = VisionTransformer(**settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name or name in ("token", "position"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def _resnet() -> nn.Module:
    torch.manual_seed(0)
    module = resnet20(width=4)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, 0.0, 0.1)
            nn.init.uniform_(norm.running_var, 0.2, 0.6)
            nn.init.normal_(norm.bias, 0.0, 0.2)
    return module


CASES = {
    "resnet20": Case(_resnet(), truncated(6), Quantisation(), (3, 16, 16), 5),
    "resnet20_affine": Case(_resnet(), _disturbed(), AFFINE, (3, 16, 16), 5),
    "transformer": Case(_transformer(), truncated(5), Quantisation(), (1, 8, 8), 9),
    "transformer_affine": Case(_transformer(class_token=False), _disturbed(), AFFINE, (1, 8, 8), 9),
    "transformer_mixed": Case(
        _transformer(),
        {"*.values": LUT.exact(b_signed=True), "*.scores": _disturbed(3), "*": truncated(7)},
        Quantisation(),
        (1, 8, 8),
        9,
    ),
    "transformer_high_rank": Case(
        _transformer(blocks=1, features=8),
        {"*.scores": _disturbed(70), "*": EXACT},
        AFFINE,
        (1, 8, 8),
        3,
    ),
}


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def network(case: Case) -> IntegerNetwork:
    return integerise(case.emulated(), case.shape, 1 / 255)


def _session(
    model: onnx.ModelProto, level: str = "ORT_ENABLE_ALL", threads: int = 1
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def test_logits_are_bit_identical(case: Case, network: IntegerNetwork) -> None:
    model, images = onnx_model(network, ModelMetadata()), case.pixels()
    expected = network(images).numpy()
    assert len(np.unique(expected)) > 20
    assert model.ir_version == 10
    assert {(o.domain, o.version) for o in model.opset_import} == {("", 21), ("ai.cosearch", 1)}
    for level in LEVELS:
        for threads in (1, 2):
            session = _session(model, level, threads)
            for count in (1, len(images)):
                logits = session.run(None, {"image": images[:count].numpy()})[0]
                assert np.array_equal(logits, expected[:count]), (level, threads, count)


def test_every_node_is_bit_identical(case: Case, network: IntegerNetwork) -> None:
    model, images = onnx_model(network, ModelMetadata()), case.pixels(3)
    del model.graph.output[:]
    nodes = [node for node in network.nodes if node.inputs]
    for node in nodes:
        model.graph.output.append(onnx.ValueInfoProto(name=node.name))
    results = _session(model).run(None, {"image": images.numpy()})
    trace = network.trace(images)
    for node, result in zip(nodes, results, strict=True):
        assert np.array_equal(result.astype(np.int64), trace[node.name].numpy()), node.name


def test_logits_are_the_last_integers_of_the_trace(case: Case, network: IntegerNetwork) -> None:
    images = case.pixels(3)
    last = network.trace(images)[network.nodes[-1].name]
    assert torch.equal(network(images), last.flatten(1).float() * 2.0**-FRACTION_BITS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA device is not here")
def test_a_gpu_computes_the_same_integers(case: Case, network: IntegerNetwork) -> None:
    images = case.pixels()
    on_gpu = network.to(torch.device("cuda"))(images.cuda())
    assert torch.equal(on_gpu.cpu(), network(images))


def test_integers_follow_the_emulated_module(case: Case, network: IntegerNetwork) -> None:
    images = case.pixels()
    with torch.no_grad():
        expected = case.emulated()(images.float() / 255)
    error = (network(images) - expected).abs()
    assert error.mean() < 0.1 * expected.std(), error.mean() / expected.std()


def test_annotations(case: Case, network: IntegerNetwork) -> None:
    energies = {node.layer: index + 1 for index, node in enumerate(network.layers)}
    model = onnx_model(network, ModelMetadata(energy_aj=energies))
    nodes = [node for node in model.graph.node if node.op_type.startswith(PRODUCTS)]
    assert len(nodes) == len(network.layers) == len(energies)
    for node, layer in zip(nodes, network.layers, strict=True):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes["layer"].decode() == layer.layer
        assert attributes["multiplier"].decode() == layer.lut.name
        assert attributes["lut_sha256"].decode() == layer.lut.digest
        assert attributes["macs"] == layer.macs
        assert attributes["energy_aj"] == energies[layer.layer]
        assert attributes["a_signed"] == layer.lut.a_signed


def test_recorded_operands_add_up_to_the_accumulators(case: Case, network: IntegerNetwork) -> None:
    images = case.pixels()[:2]
    trace = network.trace(images)
    for node in network.layers:
        record = layer_operands(network, node.layer, images)
        assert len(record.a) == len(images) * node.macs
        products = node.lut.table[record.a, record.b].astype(np.int64)
        assert products.sum() == int(trace[node.name].sum()), node.layer


@pytest.mark.parametrize("quantisation", [Quantisation(), AFFINE], ids=["symmetric", "affine"])
def test_a_trained_transformer_keeps_its_answers(quantisation: Quantisation) -> None:
    """Of handwritten digits, after a moment of training."""
    digits = load_digits()
    images = torch.from_numpy(digits.images[:, None]).to(torch.uint8)
    labels = torch.from_numpy(digits.target)
    module = _transformer(blocks=1)
    optimiser = torch.optim.Adam(module.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        batch = torch.randint(0, 1400, (64,), generator=generator)
        loss = nn.functional.cross_entropy(module(images[batch].float() / 16), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    emulated = approximate(module.eval(), truncated(5), quantisation)
    calibrate(emulated, [images[:256].float() / 16])
    test, expected = images[1400:], labels[1400:]
    with torch.no_grad():
        real = emulated.eval()(test.float() / 16).argmax(1)
    found = integerise(emulated, (1, 8, 8), 1 / 16)(test).argmax(1)
    assert (real == expected).float().mean() > 0.6
    assert (found == real).float().mean() > 0.95
    assert ((found == expected).float().mean() - (real == expected).float().mean()).abs() < 0.02


def test_multiplications_of_a_transformer() -> None:
    case = CASES["transformer"]
    network = integerise(case.emulated(), case.shape, 1 / 255)
    macs = {node.layer: node.macs for node in network.layers}
    tokens, features = 17, 16
    assert macs["patches"] == 16 * features * 4
    assert macs["blocks.0.attention.qkv"] == tokens * features * 3 * features
    assert macs["blocks.0.attention.scores"] == tokens * tokens * features
    assert macs["blocks.1.attention.values"] == tokens * tokens * features
    assert macs["classifier"] == features * 10


def test_products_of_activations_without_zero_points(case: Case, network: IntegerNetwork) -> None:
    """Σ (a - z)(b - y), where the table is that of exact products."""
    trace = network.trace(case.pixels()[:2])
    for node in network.nodes:
        if isinstance(node, MatrixProduct) and node.lut == EXACT:
            a, b = (trace[name] for name in node.inputs)
            centred = f"{node.layer}.centred" if node.zero_point or node.second_zero_point else ""
            expected = (a - node.zero_point) @ (b - node.second_zero_point)
            assert torch.equal(trace[centred or node.name].to(torch.int64), expected)


def test_split_product_where_fp32_stops_being_exact() -> None:
    """The classifier's 1,200 products of 255 · 255 would not be exact in one part."""
    torch.manual_seed(0)

    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.products = Matmul()

        def forward(self, x: Tensor) -> Tensor:
            return self.products(x.flatten(2), x.flatten(2).mT).flatten(1)

    module = approximate(Products(), LUT.exact())
    images = torch.full((1, 2, 30, 40), 255, dtype=torch.uint8)
    calibrate(module, [images.float() / (255 * 1200)])
    network = integerise(module.eval(), (2, 30, 40), 1 / (255 * 1200))
    model = onnx_model(network, ModelMetadata())
    assert "ApproxMatMulIntegerSplit2" in {node.op_type for node in model.graph.node}
    logits = _session(model).run(None, {"image": images.numpy()})[0]
    assert np.array_equal(logits, network(images).numpy())
    assert int(network.trace(images)["products"].max()) == 1200 * 255 * 255


def test_modules_are_written_directly(tmp_path: Path) -> None:
    case = CASES["transformer"]
    module = case.emulated()
    written = write_onnx(module, tmp_path / "one", input_shape=case.shape, pixel_scale=1 / 255)
    network = integerise(module, case.shape, 1 / 255)
    write_onnx(network, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    images = case.pixels()
    assert torch.equal(written(images), network(images))
    with pytest.raises(InputError, match="must be written with input_shape and pixel_scale"):
        write_onnx(module, tmp_path / "three")
    with pytest.raises(InputError, match="must be left to an integer network"):
        write_onnx(network, tmp_path / "three", pixel_scale=1.0)


def test_bundle_of_a_transformer(tmp_path: Path) -> None:
    library = MultiplierLibrary.build(["mul8s_array", "mul8s_truncated_k7"])
    exact, approximate_one = library.luts(["mul8s_array", "mul8s_truncated_k7"])
    assignment = {"*.scores": approximate_one, "*": exact}
    case = Case(_transformer(), assignment, AFFINE, (1, 8, 8), 4)
    network = integerise(case.emulated(), case.shape, 1 / 255)
    write_bundle(Bundle("vit", network, tuple(library), case.pixels(), {}), tmp_path / "bundle")
    assert verify(tmp_path / "bundle").images == 4
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    layers = {layer["layer"]: layer for layer in manifest["layers"]}
    assert layers["blocks.0.attention.scores"]["multiplier"] == "mul8s_truncated_k7"
    assert layers["blocks.0.attention.scores"]["output_shape"] == [2, 17, 17]
    assert layers["blocks.0.attention.scores"]["second_input_requantisation"]["shift"] > 0
    assert layers["blocks.0.perceptron.0"]["weight_shape"] == [16, 32]
    assert layers["blocks.0.perceptron.0"]["positions"] == 17
