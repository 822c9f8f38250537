"""How often classes occur, and loss weights made from that."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnzoo.data.dataset import SegmentationDataset


def class_frequencies(dataset: SegmentationDataset) -> Tensor:
    """Count the pixels of each class over all masks of a data set.

    Returns:
        (K,) int64; ignored pixels are in none.

    Raises:
        LabelError, ValueError: A mask cannot be read, if the data set was made with `check=False`.
    """
    return dataset.count_pixels()


def median_frequency_weights(counts: Tensor, power: float = 1.0, max_weight: float | None = None) -> Tensor:
    """Return one loss weight per class: (median frequency / frequency) ** `power`.

    The frequency of a class is its share of all labeled pixels of the data set, and the median is taken
    over the classes that occur. (Eigen & Fergus 2015 divide by the pixels of the images in which the class
    occurs; over the whole data set, rare classes that fill few images get larger weights.) Only ratios
    between weights matter where the loss divides by the sum of the weights, as PyTorch's mean does.

    Args:
        counts: (K,) pixels of each class, as `class_frequencies` gives.
        power: 1 balances fully, 0 not at all, 0.5 lies between.
        max_weight: Larger weights are cut to this.

    Returns:
        (K,) float32. A class that does not occur has weight 1: no pixel ever uses it.

    Raises:
        ValueError: Counts are negative or all 0, or `power` or `max_weight` is out of range.
    """
    counts = torch.as_tensor(counts)
    if counts.ndim != 1 or not counts.numel() or bool((counts < 0).any()) or not bool(counts.any()):
        raise ValueError(f"counts must be (K,), 0 or more and not all 0, got {counts.tolist()}")
    if not power >= 0:
        raise ValueError(f"power must be 0 or more, got {power}")
    if max_weight is not None and not max_weight > 0:
        raise ValueError(f"max_weight must be positive (or None), got {max_weight}")
    occurs = counts > 0
    frequency = counts[occurs].double() / counts.sum().item()
    weights = torch.ones(len(counts), dtype=torch.float64)
    weights[occurs] = (frequency.quantile(0.5) / frequency) ** power
    return (weights if max_weight is None else weights.clamp(max=max_weight)).float()
