"""From scores to the training loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnzoo.errors import LabelError
from fcnzoo.ops.upsample import check_scores, upsample

if TYPE_CHECKING:
    from fcnzoo.config import Grid


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


def upsample_cross_entropy(
    scores: Tensor,
    target: Tensor,
    grid: Grid,
    *,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Cross-entropy of the upsampled scores, as `F.cross_entropy(upsample(scores), target)`.

    Two things differ from `F.cross_entropy`: where no pixel counts, the mean is 0 with zero gradients
    instead of NaN; and half-precision scores are summed in float32. Targets are *not* checked here
    (`check_labels` does that): on a CPU PyTorch refuses labels outside the range, on a GPU the kernel asserts.

    Args:
        scores: (B, K, h, w), floating point.
        target: (B, H, W) integers: labels 0…K−1, or `ignore_index`.
        grid: Where pixels lie on the scores.
        ignore_index: Target value that takes no part.
        weight: (K,) one factor per class; the mean is weighted by it, as in PyTorch.
        label_smoothing: Share of the uniform distribution in the target, in [0, 1].
        reduction: `"mean"` over counted pixels, `"sum"`, or `"none"`: one mean per image, (B,).

    Returns:
        A scalar, or (B,) for `"none"`; float32 for half-precision scores, else the dtype of `scores`.

    Raises:
        ValueError: Shapes do not fit, or `reduction` is unknown.
        TypeError: A dtype does not fit.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    size = check_target(scores, target)
    if weight is not None and tuple(weight.shape) != (scores.shape[1],):
        raise ValueError(f"weight must be ({scores.shape[1]},), one factor per class, got shape {tuple(weight.shape)}")
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    # On channels-last logits PyTorch's log-softmax takes twice as long on a CPU.
    scores = scores.contiguous()
    target = target.long()
    weight = None if weight is None else weight.to(scores)
    pixels = F.cross_entropy(
        upsample(scores, grid, size),
        target,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    if reduction == "sum":
        return pixels.sum()
    counted = target != ignore_index
    share = counted.to(scores.dtype) if weight is None else weight[target.where(counted, 0)] * counted
    axes = (0, 1, 2) if reduction == "mean" else (1, 2)
    total = share.sum(axes)
    return pixels.sum(axes) / total.where(total > 0, 1)
