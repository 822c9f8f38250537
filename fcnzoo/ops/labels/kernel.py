"""The Triton kernel behind `upsample_argmax`. Imported only where scores lie on a CUDA device."""

# Triton compiles these functions; to Python its types are opaque.
# pyright: basic, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 128
"""Pixels of one program: neighbors in a row, which read the same few scores."""


@triton.jit
def _label(
    scores, top, bottom, wy, left, right, wx, out, classes, height, width,
    image_step, class_step, row_step, column_step, out_image, out_row, out_column, PIXELS: tl.constexpr,
):  # fmt: skip
    """One row of pixels of one image, `PIXELS` of them: a running maximum over the classes."""
    row = tl.program_id(0).to(tl.int64)
    image, y = row // height, row % height
    x = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    inside = x < width
    upper = scores + image * image_step + tl.load(top + y) * row_step
    lower = scores + image * image_step + tl.load(bottom + y) * row_step
    first = tl.load(left + x, mask=inside, other=0) * column_step
    second = tl.load(right + x, mask=inside, other=0) * column_step
    up, down = tl.load(wy + y), tl.load(wy + height + y)
    share0 = tl.load(wx + x, mask=inside, other=0.0)
    share1 = tl.load(wx + width + x, mask=inside, other=0.0)
    best = tl.full((PIXELS,), float("-inf"), dtype=share0.dtype)
    label = tl.zeros((PIXELS,), dtype=tl.int32)
    for k in range(classes):
        a = tl.load(upper + first) * up + tl.load(lower + first) * down
        b = tl.load(upper + second) * up + tl.load(lower + second) * down
        value = a * share0 + b * share1
        # The first NaN is the highest, as in PyTorch.
        higher = (value > best) | ((value != value) & (best == best))
        best = tl.where(higher, value, best)
        label = tl.where(higher, k, label)
        upper += class_step
        lower += class_step
    tl.store(out + image * out_image + y * out_row + x * out_column, label.to(out.dtype.element_ty), mask=inside)


def launch(
    scores: Tensor, down: tuple[Tensor, Tensor, Tensor], across: tuple[Tensor, Tensor, Tensor], out: Tensor
) -> None:
    """Fill `out` (B, H, W) from scores (B, K, h, w); `down` and `across` are the taps of the two axes."""
    batch, height, width = out.shape
    weights = [taps[2].to(scores.dtype).contiguous() for taps in (down, across)]
    programs = (batch * height, triton.cdiv(width, PIXELS))
    arguments = (scores, down[0], down[1], weights[0], across[0], across[1], weights[1], out)
    sizes = (scores.shape[1], height, width, *scores.stride(), *out.stride())
    if not scores.is_cuda:  # Triton's interpreter
        _label[programs](*arguments, *sizes, PIXELS=PIXELS)
        return
    with torch.cuda.device(scores.device):
        _label[programs](*arguments, *sizes, PIXELS=PIXELS)
