"""Bilinear sampling of scores on a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnzoo.ops.axis import axis_taps
from fcnzoo.ops.checks import check_scores

if TYPE_CHECKING:
    from fcnzoo.config import Grid


def _is_fit(grid: Grid) -> bool:
    """Whether the grid is `F.interpolate`'s own geometry for the image as it was padded."""
    return grid.stride is None and not grid.offset and grid.border == "edge"


def _crop_start(grid: Grid, scores: Tensor, size: tuple[int, int]) -> int | None:
    """Where scores of stride 1 are merely cropped: the first row and column; else `None`."""
    if grid.stride != 1 or not grid.offset.is_integer() or grid.offset < 0:
        return None
    start = int(grid.offset)
    return start if all(start + want <= have for want, have in zip(size, scores.shape[-2:], strict=True)) else None


def _along(scores: Tensor, axis: int, grid: Grid, length: int) -> Tensor:
    low, high, weights = axis_taps(grid, length, scores.shape[axis], scores.device)
    shape = [1] * scores.ndim
    shape[axis] = length
    lower, upper = (weight.to(scores.dtype).view(shape) for weight in weights)
    return scores.index_select(axis, low) * lower + scores.index_select(axis, high) * upper


def upsample(scores: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
    """Sample scores at every pixel of an image.

    Args:
        scores: (B, K, h, w), floating point.
        grid: Where pixels lie on the scores.
        size: (H, W) of the image.

    Returns:
        Logits (B, K, H, W) in the dtype of `scores`; half-precision input is weighted in float32.

    Raises:
        ValueError: `scores` is not 4-D or `size` is empty.
        TypeError: `scores` is not floating point.

    Source: for `Grid()` this is `F.interpolate(mode="bilinear")`; for the grids of Long et al. 2015 it
    equals `ConvTranspose2d` with the bilinear kernel of size 2·stride, then the crop of the published
    prototxt (identity checked in float64 by the tests).
    """
    check_scores(scores, size)
    if _is_fit(grid):
        # The padding is computed and cut off, at any size: no branch on it, so that graphs serve all sizes.
        padded = (grid.padded(size[0]), grid.padded(size[1]))
        whole = F.interpolate(scores, size=padded, mode="bilinear", align_corners=grid.align_corners)
        return whole[..., : size[0], : size[1]].contiguous()
    start = _crop_start(grid, scores, size)
    if start is not None:
        return scores[..., start : start + size[0], start : start + size[1]]
    work = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    return _along(_along(work, 2, grid, size[0]), 3, grid, size[1]).to(scores.dtype)
