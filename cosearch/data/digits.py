"""Handwritten digits: the 1,797 grey 8×8 images that ship inside scikit-learn; no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998. Pixels are whole numbers from 0 to 16, kept as they are: their scale is 1/16.
"""

from typing import TYPE_CHECKING

import numpy as np

from .data_set import DataSet, Split
from .stratified import capped, stratified

if TYPE_CHECKING:
    from cosearch.config import Data

SHARES = {"train": 0.35, "validation": 0.35, "test": 0.30}


def digits(seed: int, settings: "Data") -> DataSet:
    """The digits in stratified splits by ``SHARES``; equal seeds give equal splits."""
    import torch
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = bunch.images.astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    splits = {
        name: Split(torch.from_numpy(pixels[chosen]), torch.from_numpy(labels[chosen]))
        for name, chosen in capped(stratified(labels, SHARES, seed), settings.most_images).items()
    }
    return DataSet("digits", 10, 1, 8, 1 / 16, splits)
