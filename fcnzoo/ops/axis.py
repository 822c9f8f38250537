"""Where the pixels of one axis lie on the scores: the one place that turns a Grid into numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fcnzoo.config import Grid


def axis_taps(grid: Grid, length: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two scores that each pixel of an axis lies between, and the share of each.

    Args:
        grid: Where pixels lie on the scores; see [`Grid`][fcnzoo.config.Grid] for the formula.
        length: Pixels of the axis.
        cells: Scores of the axis.
        device: Of the result.

    Returns:
        Index of the lower score (length), of the upper one (length), both int64 in [0, cells), and their
        weights (2, length), computed in float64 because a stride of 32 at pixel 10,000 costs float32
        three digits. Beyond a border of zeros the weight is 0 (the index is then any valid one).
        Both indices grow with the pixel.
    """
    pixel = torch.arange(length, device=device, dtype=torch.float64)
    if grid.align_corners:
        source = pixel * ((cells - 1) / max(grid.padded(length) - 1, 1))
    else:
        stride = grid.padded(length) / cells if grid.stride is None else grid.stride
        source = (pixel + (0.5 + grid.offset)) / stride - 0.5
    if grid.border == "edge":
        source = source.clamp(0, cells - 1)
    low = source.floor()
    share = source - low
    high = low + 1
    weights = torch.stack([1 - share, share])
    if grid.border == "zeros":
        inside = torch.stack([(low >= 0) & (low < cells), (high >= 0) & (high < cells)])
        weights = weights * inside
    return low.clamp(0, cells - 1).long(), high.clamp(0, cells - 1).long(), weights
