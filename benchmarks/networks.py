"""The networks that benchmarks emulate: fp32, 3×32×32 images in, 10 logits out.

ResNet-20 and ResNet-50: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
MobileNetV2: Sandler et al., CVPR 2018. DARTS: genotype DARTS_V2 of Liu et al., ICLR 2019, without
auxiliary head and drop path. ResNet-50 and MobileNetV2 are in the form usual for 32×32 images: a
3×3 stem of stride 1, no pooling behind it, and an earlier stage of stride 1.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from cosearch.config import OPERATIONS
from cosearch.genotype import CellGenotype, Gene, Genotype, MultiplierChoice
from cosearch.network import Network, float_arithmetic
from cosearch.space import SearchSpace
from lut import LUT

__all__ = ["NETWORKS", "darts", "darts_v2", "mobilenet_v2", "resnet20", "resnet50"]

CLASSES = 10
IMAGE_CHANNELS = 3


def resnet20() -> nn.Module:
    """Three blocks each of 16, 32 and 64 channels; shortcuts without parameters (option A)."""
    layers: list[nn.Module] = [*_convolution(IMAGE_CHANNELS, 16, 3), nn.ReLU()]
    before = 16
    for channels in (16, 32, 64):
        for _ in range(3):
            layers.append(_basic_block(before, channels))
            before = channels
    return nn.Sequential(*layers, *_classifier(64))


def resnet50() -> nn.Module:
    """3, 4, 6 and 3 bottlenecks of width 64, 128, 256 and 512, each of four times the outputs."""
    layers: list[nn.Module] = [*_convolution(IMAGE_CHANNELS, 64, 3), nn.ReLU()]
    before = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(blocks):
            layers.append(_bottleneck(before, width, stride if index == 0 else 1))
            before = 4 * width
    return nn.Sequential(*layers, *_classifier(before))


def mobilenet_v2() -> nn.Module:
    """Inverted residuals of table 2, the strides of stem and second stage 1 instead of 2."""
    layers: list[nn.Module] = [*_convolution(IMAGE_CHANNELS, 32, 3), nn.ReLU6()]
    before = 32
    for expansion, channels, blocks, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for index in range(blocks):
            step = stride if index == 0 else 1
            layers.append(_inverted_residual(before, channels, expansion, step))
            before = channels
    return nn.Sequential(*layers, *_convolution(before, 1280, 1), nn.ReLU6(), *_classifier(1280))


def darts() -> nn.Module:
    """20 cells, 36 channels in the first."""
    space = SearchSpace(36, 20, 4, OPERATIONS, IMAGE_CHANNELS, CLASSES)
    return Network(space, darts_v2(), float_arithmetic)


def darts_v2() -> Genotype:
    """The genotype found by the second-order search, its multipliers exact."""
    return Genotype(_cell(*NORMAL), _cell(*REDUCTION))


# An operation and its source for both genes of each of four nodes.
NORMAL = (
    (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
    (("sep_conv_3x3", 0), ("sep_conv_3x3", 1)),
    (("sep_conv_3x3", 1), ("skip_connect", 0)),
    (("skip_connect", 0), ("dil_conv_3x3", 2)),
)
REDUCTION = (
    (("max_pool_3x3", 0), ("max_pool_3x3", 1)),
    (("skip_connect", 2), ("max_pool_3x3", 1)),
    (("max_pool_3x3", 0), ("skip_connect", 2)),
    (("skip_connect", 2), ("max_pool_3x3", 1)),
)


def _cell(*nodes: tuple[tuple[str, int], tuple[str, int]]) -> CellGenotype:
    exact = LUT.exact(a_signed=True, b_signed=True)
    choice = MultiplierChoice(exact.name, exact.digest)

    def gene(operation: str, source: int) -> Gene:
        return Gene(operation, source, None if "pool" in operation else choice)

    genes = tuple((gene(*one), gene(*two)) for one, two in nodes)
    return CellGenotype((choice, choice), genes)


class Residual(nn.Module):
    """``activation(body(x) + shortcut(x))``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return result


class Subsample(nn.Module):
    """Every second pixel, and as many channels of zeros as there are, half on each side."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


def _basic_block(before: int, channels: int) -> nn.Module:
    """Two 3×3 convolutions; of stride 2 where the channels double."""
    doubles = channels != before
    body = nn.Sequential(
        *_convolution(before, channels, 3, stride=2 if doubles else 1),
        nn.ReLU(),
        *_convolution(channels, channels, 3),
    )
    return Residual(body, Subsample() if doubles else nn.Identity(), nn.ReLU())


def _bottleneck(before: int, width: int, stride: int) -> nn.Module:
    """1×1, 3×3 (of the stride) and 1×1."""
    outputs = 4 * width
    body = nn.Sequential(
        *_convolution(before, width, 1),
        nn.ReLU(),
        *_convolution(width, width, 3, stride=stride),
        nn.ReLU(),
        *_convolution(width, outputs, 1),
    )
    changes = before != outputs or stride != 1
    shortcut = nn.Sequential(*_convolution(before, outputs, 1, stride=stride))
    return Residual(body, shortcut if changes else nn.Identity(), nn.ReLU())


def _inverted_residual(before: int, channels: int, expansion: int, stride: int) -> nn.Module:
    """1×1 to more channels (unless expansion is 1), 3×3 depthwise, 1×1 without activation."""
    width = expansion * before
    expand = [*_convolution(before, width, 1), nn.ReLU6()] if expansion != 1 else []
    body = nn.Sequential(
        *expand,
        *_convolution(width, width, 3, stride=stride, groups=width),
        nn.ReLU6(),
        *_convolution(width, channels, 1),
    )
    if stride != 1 or before != channels:
        return body
    return Residual(body, nn.Identity(), nn.Identity())


def _convolution(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution that keeps the size at stride 1, and batch norm."""
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(outputs)]


def _classifier(channels: int) -> list[nn.Module]:
    """Global average pooling and a fully connected layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


# Each makes the network anew, with torch's default initial weights.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "darts": darts,
    "resnet20": resnet20,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
}
