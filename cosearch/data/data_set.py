"""A data set: labelled 8-bit images in named splits. This module does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """``images`` is uint8 (N, C, H, W), ``labels`` int64 (N,)."""

    images: "torch.Tensor"
    labels: "torch.Tensor"

    def __post_init__(self) -> None:
        assert self.images.ndim == 4, self.images.shape
        assert str(self.images.dtype) == "torch.uint8", self.images.dtype
        assert str(self.labels.dtype) == "torch.int64", self.labels.dtype
        assert self.labels.shape == self.images.shape[:1], self.labels.shape

    def to(self, device: "torch.device") -> "Split":
        """On another device."""
        return Split(self.images.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """Splits "train" (weights), "validation" (alphas and betas) and "test" (seen once, at the end).

    A pixel's real value is ``pixel * pixel_scale``, in [0, 1].
    """

    name: str
    classes: int
    channels: int
    size: int
    pixel_scale: float
    splits: Mapping[str, Split]

    def __post_init__(self) -> None:
        assert tuple(self.splits) == SPLITS, tuple(self.splits)
        shape = (self.channels, self.size, self.size)
        assert all(tuple(s.images.shape[1:]) == shape for s in self.splits.values()), shape
