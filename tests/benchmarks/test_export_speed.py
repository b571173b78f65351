"""What exported models are compared with: the same network in fp32."""

import numpy as np
import torch

from benchmarks.export import plain, session
from benchmarks.export_speed import integer_network
from export import ModelMetadata, onnx_model
from lut import LUT


def test_plain_network_is_the_same_without_rounding() -> None:
    network = integer_network("resnet20", LUT.exact(a_signed=True, b_signed=True))
    model = onnx_model(network, ModelMetadata())
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator).to(torch.uint8)
    feed = {network.input_name: images.numpy()}
    emulated, exact = (session(one).run(None, feed)[0] for one in (model, plain(model)))
    assert np.array_equal(emulated, network(images).numpy())
    assert not np.array_equal(emulated, exact)
    assert np.abs(emulated - exact).max() < 0.1 * exact.std() + 0.05
