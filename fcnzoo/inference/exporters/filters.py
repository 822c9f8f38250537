"""Resizing with open sizes: each axis is a matrix made from the sizes themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fcnzoo.inference.resized import scale

PRECISION = 2.0**22
"""Pillow keeps its weights for 8-bit pictures as multiples of 2⁻²² (`Resample.c`, `PRECISION_BITS = 32 − 8 − 2`)."""


def resize(tensor: Tensor, size: tuple[Any, Any], kind: str) -> Tensor:
    """Resize (B, C, H, W) as `F.interpolate(antialias=True)`: filters widen where the picture shrinks."""
    down, across = (_filter(have, want, kind).to(tensor) for have, want in zip(tensor.shape[2:], size, strict=True))
    return down @ tensor @ across.T


def resize_bytes(pixels: Tensor, size: tuple[Any, Any], kind: str) -> Tensor:
    """Resize uint8 (B, C, H, W) as Pillow does, to the bit: along the rows first, rounded to bytes after each axis.

    Source: Pillow, `src/libImaging/Resample.c` (`precompute_coeffs`, `normalize_coeffs_8bpc`); for `"nearest"`
    `Geometry.c` (`ImagingScaleAffine`).

    Returns:
        Float64 with whole numbers 0…255.
    """
    height, width = pixels.shape[2:]
    if kind == "nearest":
        rows, columns = (_nearest(have, want) for have, want in ((height, size[0]), (width, size[1])))
        return pixels.index_select(2, rows).index_select(3, columns).double()
    down, across = (_as_bytes(_filter(have, want, kind)) for have, want in ((height, size[0]), (width, size[1])))
    return _rounded(down @ _rounded(pixels.double() @ across.T))


def _nearest(have: Any, want: Any) -> Tensor:
    """Pillow adds up its steps, and falls on the other side of a border between pixels where rounding says so."""
    steps = scale(have, want).expand(want)
    return torch.where(torch.arange(want) == 0, steps / 2, steps).cumsum(0).long()


def _as_bytes(weights: Tensor) -> Tensor:
    return (weights.abs() * PRECISION + 0.5).floor() * weights.sign()


def _rounded(total: Tensor) -> Tensor:
    return ((total + PRECISION / 2) / PRECISION).floor().clamp(0, 255)


def _filter(have: Any, want: Any, kind: str) -> Tensor:
    """Return the (want, have) matrix of an antialiasing filter along one axis, float64; rows sum to 1."""
    step = scale(have, want)
    wide = step.clamp(min=1)
    center = (torch.arange(want, dtype=torch.float64) + 0.5) * step
    # Pillow cuts filters to whole pixels at `int(center ± support + 0.5)`; there they are 0.
    distance = ((torch.arange(have, dtype=torch.float64) - center[:, None]) + 0.5).abs() * (1.0 / wide)
    weights = _triangle(distance) if kind == "bilinear" else _cubic(distance)
    return weights / weights.sum(1, keepdim=True)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic with a = −0.5, as in Pillow and in PyTorch's antialiased resizing."""
    a = -0.5
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * a
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
