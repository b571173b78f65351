"""A small network of emulated layers, trained for a moment so that its statistics are real."""

import torch
from torch import Tensor, nn

from lut import LUT, ApproxConv2d, ApproxLinear, Candidates


class Residual(nn.Module):
    """Every layer kind that the integer network knows: dilated, depthwise, pools, add, concat,
    crop.
    """

    def __init__(self, luts: list[LUT]) -> None:
        super().__init__()
        first, second = (Candidates([lut]) for lut in (luts[0], luts[-1]))
        self.stem = ApproxConv2d(2, 6, 3, first, padding=1)
        self.stem_norm = nn.BatchNorm2d(6)
        self.depthwise = ApproxConv2d(6, 6, 3, second, padding=2, dilation=2, groups=6)
        self.pointwise = ApproxConv2d(6, 6, 1, first)
        self.norm = nn.BatchNorm2d(6, affine=False)
        self.max_pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.average_pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.pool_norm = nn.BatchNorm2d(6, affine=False)
        self.left = ApproxConv2d(12, 4, 1, second, stride=2)
        self.right = ApproxConv2d(12, 4, 1, first, stride=2)
        self.reduced_norm = nn.BatchNorm2d(8)
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = ApproxLinear(8, 5, first)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem_norm(self.stem(x))
        branch = self.norm(self.pointwise(self.depthwise(torch.relu(stem))))
        pooled = self.pool_norm(self.average_pool(stem)) + self.max_pool(branch)
        state = torch.relu(torch.cat([branch + stem, pooled], dim=1))
        halves = torch.cat([self.left(state), self.right(state[:, :, 1:, 1:])], dim=1)
        features = self.global_pool(self.reduced_norm(halves))
        return self.classifier(torch.flatten(features, 1))


def trained_residual(luts: list[LUT], seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    network = Residual(luts)
    optimiser = torch.optim.SGD(network.parameters(), 0.05)
    images = pixels(16, seed).float() / 16
    targets = 5 * torch.randn(16, 5)
    for _ in range(8):
        loss = (network(images) - targets).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def pixels(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 100)
    return torch.randint(0, 17, (count, 2, 8, 8), generator=generator).to(torch.uint8)
