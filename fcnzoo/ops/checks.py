"""What the operations take, checked; and the dtype of what they give."""

from __future__ import annotations

import torch
from torch import Tensor

from fcnzoo.errors import LabelError


def check_scores(scores: Tensor, size: tuple[int, int]) -> None:
    """Raise an error unless `scores` is (B, K, h, w) of floats and `size` is (H, W)."""
    if scores.ndim != 4:
        raise ValueError(f"scores must be (B, K, h, w), got shape {tuple(scores.shape)}")
    if not scores.is_floating_point():
        raise TypeError(f"scores must be floating point, got {scores.dtype}")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (H, W) with H, W ≥ 1, got {tuple(size)}")


def check_labels(target: Tensor, num_classes: int, ignore_index: int) -> None:
    """Raise unless every value of an integer target is a class or the ignore index.

    Reads the whole target, so on a GPU it waits for the device.

    Raises:
        TypeError: `target` is not of an integer dtype.
        LabelError: A value is outside 0…K−1 and is not `ignore_index`.
    """
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must be of an integer dtype, got {target.dtype}")
    if not target.numel():
        return
    # int64 first: against a uint8 tensor PyTorch would wrap the numbers compared with (−1 is 255 there, 300 is 44).
    wide = target.long()
    bad = ((wide < 0) | (wide >= num_classes)) & (wide != ignore_index)
    if bad.any():
        values = wide[bad].unique()[:8].tolist()
        raise LabelError(
            f"target holds {values}; allowed are the classes 0…{num_classes - 1} and ignore_index={ignore_index}. "
            "Map other values to ignore_index, or build the model with more classes"
        )


def check_target(scores: Tensor, target: Tensor) -> tuple[int, int]:
    """Raise an error unless scores are (B, K, h, w) of floats and the target (B, H, W) of integers; return (H, W)."""
    check_scores(scores, (1, 1))
    if target.ndim != 3 or target.shape[0] != scores.shape[0]:
        raise ValueError(f"target must be ({scores.shape[0]}, H, W), got shape {tuple(target.shape)}")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must be of an integer dtype, got {target.dtype}")
    size = (target.shape[1], target.shape[2])
    check_scores(scores, size)
    return size


def label_dtype(num_classes: int) -> torch.dtype:
    """Return the smallest dtype that label maps of so many classes are stored in."""
    return torch.uint8 if num_classes <= 256 else torch.int16
