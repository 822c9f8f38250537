"""From scores to labels, and to counts of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fcnzoo.ops.cross_entropy import check_labels, check_target
from fcnzoo.ops.upsample import upsample

if TYPE_CHECKING:
    from fcnzoo.config import Grid


def label_dtype(num_classes: int) -> torch.dtype:
    """Return the smallest dtype that label maps of so many classes are stored in."""
    return torch.uint8 if num_classes <= 256 else torch.int16


def upsample_argmax(scores: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Return the class with the highest upsampled score at every pixel.

    Args:
        scores: (B, K, h, w), floating point.
        grid: Where pixels lie on the scores.
        size: (H, W) of the image.

    Returns:
        Labels (B, H, W): uint8 up to 256 classes, else int16. Of equal scores the lower class wins.

    Raises:
        ValueError: `scores` is not 4-D, `size` is empty, or K is above 32,768.
        TypeError: `scores` is not floating point.
    """
    if scores.ndim == 4 and scores.shape[1] > 2**15:
        raise ValueError(f"labels of {scores.shape[1]} classes do not fit int16; at most {2**15} classes")
    logits = upsample(scores, grid, size)
    return logits.argmax(1).to(label_dtype(scores.shape[1]))


def upsample_confusion(scores: Tensor, target: Tensor, grid: Grid, *, ignore_index: int = 255) -> Tensor:
    """Count how often each class was taken for each class.

    Args:
        scores: (B, K, h, w), floating point.
        target: (B, H, W) integers: labels 0…K−1, or `ignore_index`.
        grid: Where pixels lie on the scores.
        ignore_index: Target value that is not counted.

    Returns:
        Counts (K, K), int64; rows are the truth, columns the prediction.

    Raises:
        LabelError: `target` holds another value.
        ValueError: Shapes do not fit.
    """
    size = check_target(scores, target)
    num_classes = scores.shape[1]
    check_labels(target, num_classes, ignore_index)
    predicted = upsample_argmax(scores, grid, size)
    # int64 first: against a uint8 tensor PyTorch would wrap the ignore index (−1 is 255 there).
    target = target.long()
    counted = target != ignore_index
    index = target[counted] * num_classes + predicted[counted].long()
    return torch.bincount(index, minlength=num_classes**2).view(num_classes, num_classes)
