"""The auxiliary head of DARTS's training networks: a second classifier, in training only.

It stands after two thirds of the cells and has plain fp32 arithmetic: it is no part of the network
that is evaluated and exported. DARTS pools 8×8 images with windows of 5 and a stride of 3; here the
pool adapts to any size, so windows of 8×8 images do not overlap.
"""

from torch import nn

from cosearch.space import SearchSpace

__all__ = ["auxiliary_head", "auxiliary_place"]

NARROW, WIDE = 128, 768
SIDE = 2


def auxiliary_place(space: SearchSpace) -> int:
    """The cell after which it stands."""
    return 2 * space.cells // 3


def auxiliary_head(space: SearchSpace) -> nn.Module:
    """From the cell's output (N, C, H, W) to logits (N, classes)."""
    channels = space.nodes * space.places[auxiliary_place(space)].channels
    return nn.Sequential(
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(SIDE),
        nn.Conv2d(channels, NARROW, 1, bias=False),
        nn.BatchNorm2d(NARROW),
        nn.ReLU(),
        nn.Conv2d(NARROW, WIDE, SIDE, bias=False),
        nn.BatchNorm2d(WIDE),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(WIDE, space.classes),
    )
