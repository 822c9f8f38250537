"""The Triton kernels behind `upsample_cross_entropy`. Imported only where scores lie on a CUDA device.

`_evidence` goes over pixels: the loss, and the log of the sum of exponentials, which it keeps for each pixel.
`_gradient` goes over scores: from what was kept it finds the softmax again at every pixel that a score takes part
in, and sums. No two programs write to the same place, so equal inputs give equal bits.

From every score the largest class there is subtracted: a shift that is the same for all classes of a score is the
same for all classes of a pixel, and the softmax does not see it. So no logit is above 0.
"""

# Triton compiles these functions; to Python its types are opaque.
# pyright: basic, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from fcnzoo.ops.loss.plain import Terms

PIXELS = 128
"""Pixels of one program of `_evidence`: neighbors in a row, which read the same few scores."""

CELLS = 32
"""Columns of scores of one program of `_gradient`, at most."""

TILE = 256
"""Sums of one program of `_gradient`: its columns times its classes."""

Taps = tuple[Tensor, Tensor, Tensor]


@triton.jit
def _label_at(target, image, y, x, inside, target_image, target_row, target_column):
    """Labels of pixels, whatever integers the target holds."""
    place = target + image * target_image + y * target_row + x * target_column
    return tl.load(place, mask=inside, other=0).to(tl.int64)


@triton.jit
def _shares(wx, x, width, inside):
    """Shares of the left and the right score at pixels of a row."""
    return tl.load(wx + x, mask=inside, other=0.0), tl.load(wx + width + x, mask=inside, other=0.0)


@triton.jit
def _pixel_loss(total, best, picked, smoothed, label, classes, hit, share):
    """Share · logsumexp − hit · logit, with nothing lost where the class is the best one."""
    safe = tl.minimum(tl.maximum(label, 0), classes - 1)
    mine, full = tl.load(hit + safe), tl.load(share + safe)
    return full * tl.log(total) + mine * (best - picked) + ((full - mine) * best - smoothed)


@triton.jit
def _slope(value, evidence, label, counted, k, classes, hit, smooth, share, SMOOTH: tl.constexpr):
    """What the loss gains with each class's logit: share · softmax − hit − smooth."""
    safe = tl.minimum(tl.maximum(label, 0), classes - 1)
    slope = tl.load(share + safe)[None, :] * tl.exp(value - evidence[None, :])
    slope -= tl.where(k[:, None] == label[None, :], tl.load(hit + safe)[None, :], 0.0)
    if SMOOTH:
        slope -= tl.load(smooth + k, mask=k < classes, other=0.0)[:, None]
    # Pixels that do not count are left out, not multiplied by 0: NaN · 0 is NaN.
    return tl.where(counted[None, :], slope, 0.0)


@triton.jit
def _row(line, columns, known):
    """One number per column, for all classes."""
    return tl.load(line + columns, mask=known, other=0.0)[None, :]


@triton.jit
def _blend(scores, upper, lower, shift0, shift1, up, down, mask):
    """Scores of two rows, less the highest of their classes, mixed by the shares of the rows."""
    first = (tl.load(scores + upper, mask=mask, other=0.0) - shift0) * up
    return first + (tl.load(scores + lower, mask=mask, other=0.0) - shift1) * down


@triton.jit
def _store_sums(loss, counts, label, counted, classes, place, pixels, sums, wrong):
    """The sums of a program's pixels, and K where one of its labels is outside the range."""
    tl.store(sums + place, tl.sum(tl.where(counted, loss, 0.0).to(tl.float64), 0))
    tl.store(sums + pixels + place, tl.sum(tl.where(counted, counts, 0.0).to(tl.float64), 0))
    bad = counted & ((label < 0) | (label >= classes))
    tl.store(wrong + place, tl.max(tl.where(bad, classes, 0), 0))


@triton.jit
def _evidence(
    scores, highest, target, ignore_index, weight, hit, smooth, share, top, bottom, wy, left, right, wx,
    kept, sums, wrong, programs, classes, height, width, rows, columns,
    image_step, class_step, row_step, column_step, target_image, target_row, target_column,
    SMOOTH: tl.constexpr, KEEP: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """One row of pixels of one image, `PIXELS` of them: a running log-sum-exp over the classes."""
    line = tl.program_id(0).to(tl.int64)
    image, y = line // height, line % height
    x = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    inside = x < width
    label = _label_at(target, image, y, x, inside, target_image, target_row, target_column)
    counted = inside & (label != ignore_index)
    first, second = tl.load(left + x, mask=inside, other=0), tl.load(right + x, mask=inside, other=0)
    up, down = tl.load(wy + y), tl.load(wy + height + y)
    share0, share1 = _shares(wx, x, width, inside)
    above, below = tl.load(top + y), tl.load(bottom + y)
    upper = scores + image * image_step + above * row_step
    lower = scores + image * image_step + below * row_step
    above = highest + (image * rows + above) * columns
    below = highest + (image * rows + below) * columns
    shift0, shift1 = tl.load(above + first), tl.load(below + first)
    shift2, shift3 = tl.load(above + second), tl.load(below + second)
    first, second = first * column_step, second * column_step
    best = tl.full((PIXELS,), -3e38, dtype=share0.dtype)  # not −inf, of which one cannot be taken from another
    nothing = tl.zeros((PIXELS,), dtype=share0.dtype)
    total, picked, smoothed = nothing, nothing, nothing
    for k in range(classes):
        a = (tl.load(upper + first) - shift0) * up + (tl.load(lower + first) - shift1) * down
        b = (tl.load(upper + second) - shift2) * up + (tl.load(lower + second) - shift3) * down
        value = a * share0 + b * share1
        ahead = value - best
        part = tl.exp(-tl.abs(ahead))
        total = tl.where(ahead > 0, total * part + 1, total + part)  # NaN stays NaN
        best = tl.where(ahead > 0, value, best)
        picked = tl.where(label == k, value, picked)
        if SMOOTH:
            smoothed += tl.load(smooth + k) * value
        upper += class_step
        lower += class_step
    if KEEP:
        tl.store(kept + line * width + x, best + tl.log(total), mask=inside)
    loss = _pixel_loss(total, best, picked, smoothed, label, classes, hit, share)
    counts = tl.load(weight + tl.minimum(tl.maximum(label, 0), classes - 1))
    place = line * programs + tl.program_id(1)
    pixels = tl.num_programs(0).to(tl.int64) * programs
    _store_sums(loss, counts, label, counted, classes, place, pixels, sums, wrong)


@triton.jit
def _gradient(
    scores, highest, target, ignore_index, hit, smooth, share, top, bottom, wy, y_begin, y_end,
    right, wx, x_begin, x_end, kept, made, extra, classes, height, width, rows, columns,
    image_step, class_step, row_step, column_step, target_image, target_row, target_column,
    SMOOTH: tl.constexpr, CLASSES: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """`CLASSES` classes of `CELLS` scores of one row of one image: a sum over all pixels that they take part in.

    The columns of pixels are those whose left score it is. What these owe the score to the right goes to `extra`.
    """
    line = tl.program_id(0).to(tl.int64)
    image, i = line // rows, line % rows
    j = tl.program_id(1) * CELLS + tl.arange(0, CELLS)
    k = (tl.program_id(2) * CLASSES + tl.arange(0, CLASSES)).to(tl.int64)
    known = j < columns
    mine = (k < classes)[:, None] & known[None, :]
    begin, end = tl.load(x_begin + j, mask=known, other=0), tl.load(x_end + j, mask=known, other=0)
    longest = tl.max(end - begin, 0)
    after = tl.minimum(j + 1, columns - 1)
    planes = scores + image * image_step + k[:, None] * class_step
    near, far = planes + j[None, :] * column_step, planes + after[None, :] * column_step
    nothing = tl.zeros((CLASSES, CELLS), dtype=made.dtype.element_ty)
    own, next_one = nothing, nothing
    for y in range(tl.load(y_begin + i), tl.load(y_end + i)):
        above, below = tl.load(top + y), tl.load(bottom + y)
        up, down = tl.load(wy + y), tl.load(wy + height + y)
        upper, lower = highest + (image * rows + above) * columns, highest + (image * rows + below) * columns
        shift0, shift1 = _row(upper, j, known), _row(lower, j, known)
        shift2, shift3 = _row(upper, after, known), _row(lower, after, known)
        a = _blend(near, above * row_step, below * row_step, shift0, shift1, up, down, mine)
        b = _blend(far, above * row_step, below * row_step, shift2, shift3, up, down, mine)
        here, there = nothing, nothing
        for n in range(longest):
            x = begin + n
            inside = x < end
            label = _label_at(target, image, y, x, inside, target_image, target_row, target_column)
            counted = inside & (label != ignore_index)
            evidence = tl.load(kept + (image * height + y) * width + x, mask=inside, other=0.0)
            share0, share1 = _shares(wx, x, width, inside)
            single = tl.load(right + x, mask=inside, other=0) == j  # at a border both scores may be the same one
            value = a * share0[None, :] + tl.where(single[None, :], a, b) * share1[None, :]
            slope = _slope(value, evidence, label, counted, k, classes, hit, smooth, share, SMOOTH)
            here += slope * (share0 + tl.where(single, share1, 0.0))[None, :]
            there += slope * tl.where(single, 0.0, share1)[None, :]
        part = tl.where(above == i, up, 0.0) + tl.where(below == i, down, 0.0)
        own += here * part
        next_one += there * part
    place = ((image * classes + k[:, None]) * rows + i) * columns + j[None, :]
    tl.store(made + place, own, mask=mine)
    tl.store(extra + place, next_one, mask=mine)


def _range(low: Tensor, high: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """Of each score the first pixel whose `high` it is, and the one after the last whose `low` it is."""
    index = torch.arange(cells, device=low.device)
    return torch.searchsorted(high, index), torch.searchsorted(low, index, right=True)


def launch(
    scores: Tensor, target: Tensor, down: Taps, across: Taps, terms: Terms, *, gradient: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Find the loss of scores (B, K, h, w) and a target (B, H, W); `down` and `across` are the taps of the two axes.

    Returns:
        Sums (2, B, X) in float64 of the loss and of the class weights, X a part of an image; of each part 0, or K
        where it holds a label outside 0…K−1, (B, X) of int64; the gradient (B, K, h, w) where it is wanted.
    """
    (batch, classes, rows, columns), (height, width) = scores.shape, target.shape[1:]
    wy, wx = (taps[2].to(scores.dtype).contiguous() for taps in (down, across))
    highest = scores.amax(1).contiguous()
    weight, hit, share = (table.contiguous() for table in (terms.weight, terms.hit, terms.share))
    smooth = weight if terms.smooth is None else terms.smooth.contiguous()  # without smoothing it is not read
    given = (scores, highest, target, terms.ignore_index)
    sizes = (classes, height, width, rows, columns, *scores.stride(), *target.stride())
    programs = triton.cdiv(width, PIXELS)
    sums = torch.empty(2, batch, height * programs, dtype=torch.float64, device=scores.device)
    wrong = torch.empty(batch, height * programs, dtype=torch.int64, device=scores.device)
    kept = torch.empty(target.shape if gradient else (0,), dtype=scores.dtype, device=scores.device)
    with torch.cuda.device(scores.device) if scores.is_cuda else nullcontext():  # the CPU is Triton's interpreter
        _evidence[(batch * height, programs)](
            *given, weight, hit, smooth, share, *down[:2], wy, *across[:2], wx, kept, sums, wrong, programs, *sizes,
            SMOOTH=terms.smooth is not None, KEEP=gradient, PIXELS=PIXELS,
        )  # fmt: skip
        if not gradient:
            return sums, wrong, None
        made, extra = (torch.empty(scores.shape, dtype=scores.dtype, device=scores.device) for _ in range(2))
        wide = min(CELLS, triton.next_power_of_2(columns))
        deep = TILE // wide
        _gradient[(batch * rows, triton.cdiv(columns, wide), triton.cdiv(classes, deep))](
            *given, hit, smooth, share, *down[:2], wy, *_range(*down[:2], rows),
            across[1], wx, *_range(across[0], across[0], columns), kept, made, extra, *sizes,
            SMOOTH=terms.smooth is not None, CLASSES=deep, CELLS=wide,
        )  # fmt: skip
    made[..., 1:] += extra[..., :-1]
    return sums, wrong, made
