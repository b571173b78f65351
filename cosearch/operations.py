"""The operations of the DARTS space (Liu, Simonyan, Yang, ICLR 2019), their convolutions emulated.

An operation maps (N, C, H, W) to (N, C, H / stride, W / stride). Those that multiply hand the
weights of their candidate multipliers, shape (M,), to each of their convolutions, or row k of
weights (K, M) to convolution k; without them (one multiplier, or plain fp32) they are ordinary
modules. Convolutions of one multiplier get no weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lut import ApproxConv2d, Candidates

__all__ = [
    "OPERATIONS",
    "Arithmetic",
    "ConvolutionSequence",
    "FactorisedReduce",
    "Noise",
    "changes_nothing",
    "operation_kinds",
    "relu_conv_bn",
]


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """How the convolutions of an operation multiply: by `candidates`, or in fp32 where they are
    None.

    affine: whether batch norms learn gain and shift; DARTS learns none during the search.
    """

    candidates: Candidates | None
    affine: bool

    def convolution(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
    ) -> nn.Module:
        if self.candidates is None:
            return nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=padding,
                dilation=dilation,
                groups=groups,
                bias=False,
            )
        return ApproxConv2d(
            in_channels,
            out_channels,
            kernel_size,
            self.candidates,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )

    def batch_norm(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, affine=self.affine)


class ConvolutionSequence(nn.Module):
    """Layers one after the other; emulated convolutions receive the mixture."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        number = 0
        for layer in self.layers:
            if isinstance(layer, ApproxConv2d):
                x = layer(x, own_mixture(layer, mixture, number))
                number += 1
            else:
                x = layer(x)
        return x


def own_mixture(layer: nn.Module, mixture: Tensor | None, number: int) -> Tensor | None:
    """What convolution `number` of an operation weighs its candidates by; None for a single one."""
    if mixture is None or not isinstance(layer, ApproxConv2d) or len(layer.candidates) == 1:
        return None
    return mixture if mixture.dim() == 1 else mixture[number]


class FactorisedReduce(nn.Module):
    """Halves height and width: two 1×1 convolutions of stride 2, the second one pixel further."""

    def __init__(self, in_channels: int, out_channels: int, arithmetic: Arithmetic) -> None:
        super().__init__()
        first = out_channels // 2
        self.first = arithmetic.convolution(in_channels, first, 1, stride=2)
        self.second = arithmetic.convolution(in_channels, out_channels - first, 1, stride=2)
        self.norm = arithmetic.batch_norm(out_channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        result: Tensor = self.norm(self.halves(self.relu(x), mixture))
        return result

    def halves(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        """Both convolutions of rectified x, side by side, before the batch norm."""
        layers = (self.first, x), (self.second, x[:, :, 1:, 1:])
        mixtures = [own_mixture(layer, mixture, number) for number, (layer, _) in enumerate(layers)]
        halves = [
            layer(part) if weights is None else layer(part, weights)
            for (layer, part), weights in zip(layers, mixtures, strict=True)
        ]
        return torch.cat(halves, dim=1)


class Noise(nn.Module):
    """Numbers from N(0, 1), drawn anew in every pass, in the place of its input, also in eval mode
    (Zela et al., ICLR 2020, space S4). Drawn by torch's own generator of the device; no gradient.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor, mixture: Tensor | None = None) -> Tensor:
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


def relu_conv_bn(in_channels: int, out_channels: int, arithmetic: Arithmetic) -> nn.Module:
    """ReLU, 1×1 convolution, batch norm."""
    convolution = arithmetic.convolution(in_channels, out_channels, 1)
    return ConvolutionSequence(nn.ReLU(), convolution, arithmetic.batch_norm(out_channels))


def _max_pool(channels: int, stride: int, arithmetic: Arithmetic) -> nn.Module:
    return ConvolutionSequence(
        nn.MaxPool2d(3, stride=stride, padding=1), nn.BatchNorm2d(channels, affine=False)
    )


def _average_pool(channels: int, stride: int, arithmetic: Arithmetic) -> nn.Module:
    return ConvolutionSequence(
        nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False),
        nn.BatchNorm2d(channels, affine=False),
    )


def _skip(channels: int, stride: int, arithmetic: Arithmetic) -> nn.Module:
    if stride == 1:
        return ConvolutionSequence()
    return FactorisedReduce(channels, channels, arithmetic)


def changes_nothing(operation: nn.Module) -> bool:
    """Whether it is a skip of stride 1."""
    return isinstance(operation, ConvolutionSequence) and not operation.layers


def _noise(channels: int, stride: int, arithmetic: Arithmetic) -> nn.Module:
    return Noise(stride)


def _separable(kernel: int) -> "Builder":
    """Depthwise and pointwise, twice; the stride is in the first."""

    def build(channels: int, stride: int, arithmetic: Arithmetic) -> nn.Module:
        return ConvolutionSequence(
            *_depthwise_pointwise(channels, kernel, stride, 1, arithmetic),
            *_depthwise_pointwise(channels, kernel, 1, 1, arithmetic),
        )

    return build


def _dilated(kernel: int) -> "Builder":
    """Depthwise with dilation 2, then pointwise."""

    def build(channels: int, stride: int, arithmetic: Arithmetic) -> nn.Module:
        return ConvolutionSequence(*_depthwise_pointwise(channels, kernel, stride, 2, arithmetic))

    return build


def _depthwise_pointwise(
    channels: int, kernel: int, stride: int, dilation: int, arithmetic: Arithmetic
) -> list[nn.Module]:
    depthwise = arithmetic.convolution(
        channels,
        channels,
        kernel,
        stride=stride,
        padding=dilation * (kernel - 1) // 2,
        dilation=dilation,
        groups=channels,
    )
    pointwise = arithmetic.convolution(channels, channels, 1)
    return [nn.ReLU(), depthwise, pointwise, arithmetic.batch_norm(channels)]


Builder = Callable[[int, int, Arithmetic], nn.Module]

# channels, stride, arithmetic -> module. "none" is no module: it contributes zero.
OPERATIONS: dict[str, Builder] = {
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _average_pool,
    "skip_connect": _skip,
    "sep_conv_3x3": _separable(3),
    "sep_conv_5x5": _separable(5),
    "dil_conv_3x3": _dilated(3),
    "dil_conv_5x5": _dilated(5),
    "noise": _noise,
}


def operation_kinds(name: str, stride: int) -> tuple[str, ...]:
    """depthwise or pointwise, of each convolution of an operation in order."""
    operation = OPERATIONS[name](2, stride, Arithmetic(None, affine=False))
    layers = [module for module in operation.modules() if isinstance(module, nn.Conv2d)]
    return tuple("depthwise" if layer.groups > 1 else "pointwise" for layer in layers)
