"""Handwritten digits: the 1,797 grey 8×8 images that ship inside scikit-learn; no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998. Pixels are whole numbers from 0 to 16, kept as they are: their scale is 1/16.
"""

import numpy as np

from .data_set import DataSet, Split

SHARES = {"train": 0.35, "validation": 0.35, "test": 0.30}


def digits(seed: int) -> DataSet:
    """The digits in stratified splits by ``SHARES``; equal seeds give equal splits."""
    import torch
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    splits = {
        name: Split(torch.from_numpy(pixels[chosen]), torch.from_numpy(labels[chosen]))
        for name, chosen in stratified(labels, SHARES, seed).items()
    }
    return DataSet("digits", 10, 1, 8, 1 / 16, splits)


def stratified(labels: np.ndarray, shares: dict[str, float], seed: int) -> dict[str, np.ndarray]:
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
