"""Seeded division of labelled images, class by class. This module does not import torch."""

from collections.abc import Mapping

import numpy as np


def stratified(labels: np.ndarray, shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Indices of each split in random order; each class is divided by ``shares``, rounded."""
    random = np.random.default_rng(seed)
    bounds = np.cumsum(list(shares.values()))[:-1]
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        cuts = np.rint(bounds * len(members)).astype(int)
        for part, indices in zip(parts, np.split(members, cuts), strict=True):
            part.append(indices)
    return {
        name: random.permutation(np.concatenate(part))
        for name, part in zip(shares, parts, strict=True)
    }


def capped(splits: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """The first ``most`` of each split; 0: all."""
    return {name: chosen[: most or None] for name, chosen in splits.items()}
