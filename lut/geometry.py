"""Shape arithmetic of 2-D convolutions."""

from dataclasses import dataclass

from torch import Size

__all__ = ["ConvGeometry", "IntPair", "pair"]

IntPair = int | tuple[int, int]


@dataclass(frozen=True)
class ConvGeometry:
    """Stride, padding, dilation (each: height, width) and groups of a 2-D convolution."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of(
        cls, stride: IntPair = 1, padding: IntPair = 0, dilation: IntPair = 1, groups: int = 1
    ) -> "ConvGeometry":
        return cls(pair(stride), pair(padding), pair(dilation), groups)

    def without_padding(self) -> "ConvGeometry":
        return ConvGeometry(self.stride, (0, 0), self.dilation, self.groups)

    def output_size(self, x: Size, w: Size) -> tuple[int, int]:
        """Height and width of the result for x (N, C, H, W), padding added already, and w."""
        extents = [d * (k - 1) + 1 for d, k in zip(self.dilation, w[2:], strict=True)]
        height, width = (
            (size - extent) // stride + 1
            for size, extent, stride in zip(x[2:], extents, self.stride, strict=True)
        )
        return height, width


def pair(value: IntPair) -> tuple[int, int]:
    """(height, width) of one number or of two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
