"""Networks of a user's own that tests export: a small vision transformer and ResNet-20."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lut import Matmul


class Attention(nn.Module):
    """Vaswani et al., 2017; the products of activations are modules."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(features, 3 * features)
        self.scores, self.values = Matmul(), Matmul()
        self.out = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, features = x.shape
        size = features // self.heads
        split = self.qkv(x).view(batch, tokens, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        scores = self.scores(query, key.mT) * size**-0.5
        mixed = self.values(scores.softmax(-1), value).transpose(1, 2)
        result: Tensor = self.out(mixed.reshape(batch, tokens, features))
        return result


class Block(nn.Module):
    """Attention and perceptron, normalised before."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.first_norm, self.second_norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.attention = Attention(features, heads)
        self.perceptron = nn.Sequential(
            nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first_norm(x))
        result: Tensor = x + self.perceptron(self.second_norm(x))
        return result


class VisionTransformer(nn.Module):
    """Dosovitskiy et al., ICLR 2021: patches, positions, a class token (else the tokens' mean)."""

    def __init__(
        self,
        channels: int = 1,
        size: int = 8,
        features: int = 16,
        *,
        blocks: int = 2,
        heads: int = 2,
        patch: int = 2,
        classes: int = 10,
        class_token: bool = True,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, features, patch, stride=patch)
        tokens = (size // patch) ** 2 + class_token
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens, features))
        self.token = nn.Parameter(torch.zeros(1, 1, features)) if class_token else None
        self.blocks = nn.Sequential(*(Block(features, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(features)
        self.classifier = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], dim=1)
        tokens = self.norm(self.blocks(tokens + self.position))
        pooled = tokens.mean(1) if self.token is None else tokens[:, 0]
        result: Tensor = self.classifier(pooled)
        return result


class Subsample(nn.Module):
    """Every second pixel, and as many channels of zeros as there are, half on each side."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


class BasicBlock(nn.Module):
    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        doubles = channels != before
        self.first = nn.Conv2d(before, channels, 3, 2 if doubles else 1, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.shortcut = Subsample() if doubles else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


def resnet20(width: int = 16, classes: int = 10) -> nn.Module:
    """He et al., CVPR 2016, for 32×32 images, with shortcuts without parameters (option A)."""
    stages = [(width, width)] * 3 + [(width, 2 * width)] + [(2 * width, 2 * width)] * 2
    stages += [(2 * width, 4 * width)] + [(4 * width, 4 * width)] * 2
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        *(BasicBlock(before, channels) for before, channels in stages),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )
