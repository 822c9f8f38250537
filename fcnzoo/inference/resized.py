"""Scores of a picture that was resized for the network, sampled at the picture's own pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fcnzoo.config import Grid

Sample = Callable[[Tensor, Grid, tuple[int, int]], Tensor]
"""Samples scores (B, K, h, w) on a grid at (H, W) pixels, the last two axes of what it returns: `ops.upsample` for
logits, `ops.upsample_argmax` for labels."""


def sample_resized(sample: Sample, scores: Tensor, grid: Grid, seen: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Sample scores at the pixels that a picture had before it was resized.

    Where the scores span the resized picture they span the picture itself, and are sampled at its pixels. Where they
    do not (a geometry of its own such as the paper's, or a resized picture that was padded) they are sampled at the
    pixels of the resized picture, of which each pixel of the picture takes the nearest.

    Args:
        sample: What is wanted of the scores.
        scores: (B, K, h, w).
        grid: Where pixels of the resized picture lie on the scores.
        seen: (H', W') of the resized picture.
        size: (H, W) of the picture.

    Returns:
        What `sample` returns for (H, W) pixels.
    """
    if grid.fits(seen):
        return sample(scores, grid.replace(multiple=1, min_size=1), size)
    found = sample(scores, grid, seen)
    for axis, have, want in zip((-2, -1), seen, size, strict=True):
        found = found.index_select(axis, nearest_pixel(have, want).to(found.device))
    return found


def nearest_pixel(have: Any, want: Any) -> Tensor:
    """Return the pixel, of `have`, in which the middle of each of `want` pixels lies; a trace's symbols serve too."""
    return ((torch.arange(want, dtype=torch.float64) + 0.5) * scale(have, want)).long()


def scale(have: Any, want: Any) -> Tensor:
    """Return have / want (1), float64, as a tensor: ONNX would divide open sizes in float32."""
    return torch.full((1,), have, dtype=torch.float64) / torch.full((1,), want, dtype=torch.float64)
