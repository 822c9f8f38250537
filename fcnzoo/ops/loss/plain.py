"""Cross-entropy and its gradient at low resolution, a few rows of pixels at a time, in plain PyTorch.

Bilinear sampling is A · scores · Bᵀ with banded A (rows) and B (columns), so a strip of logits is two small
matrix products, and the gradient of the scores is Aᵀ · (softmax − target) · B, two more. Only one strip of
logits exists at a time, and it is overwritten in place: logits, exponentials, gradient. Sums are taken in one
fixed order, so equal inputs give equal bits.

Letters: N blocks of columns, P pixels of a block, S scores that a block lies on, R pixel rows of a strip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fcnzoo.ops.axis import axis_taps
from fcnzoo.ops.threads import compute

if TYPE_CHECKING:
    from fcnzoo.config import Grid

BLOCK = 64
"""Pixels of a block of columns: wide enough for vectors, narrow enough that B's zeros cost little (P/stride + 2)."""

STRIP = {"cpu": 2**19}
"""Logits of a strip, of which each thread has one: 2 MiB in float32. Smaller ones would fit nearer caches, but each
costs some thirty calls (measured on one core, K = 21: 6.9 ns per logit at 2¹⁷, 5.2 at 2¹⁸, 4.6 at 2²⁰; the
composition takes 12)."""
STRIP_ELSEWHERE = 2**24
"""On an accelerator: enough to fill it; 64 MiB in float32."""

TINY = 1e-30
"""Smallest sum of exponentials that is trusted. Terms below float32's 1e-38 are then less than 1e-8 of it."""


@dataclass(frozen=True)
class Terms:
    """What the loss of a pixel of class t is made of: `share[t] · logsumexp − hit[t] · logit[t] − smooth · logits`.

    With class weights w and label smoothing ε (`torch.nn.functional.cross_entropy`):
    hit = (1 − ε) w, smooth = ε w / K, share = hit + sum(smooth).

    Attributes:
        weight: (K,) class weights; their sum over the counted pixels is what a mean is divided by.
        hit: (K,).
        smooth: (K,); `None` without smoothing.
        share: (K,).
        ignore_index: Label that takes no part.
    """

    weight: Tensor
    hit: Tensor
    smooth: Tensor | None
    share: Tensor
    ignore_index: int


@dataclass
class Sums:
    """Sums over the counted pixels of each image; B images, or without that axis of a strip of one.

    Attributes:
        loss: (B,).
        total: (B,) sum of the class weights.
        gradient: (B, K, h, w) of the loss with regard to the scores; `None` where it was not asked for.
    """

    loss: Tensor
    total: Tensor
    gradient: Tensor | None


@dataclass(frozen=True)
class _Columns:
    first: list[int]
    """Of each block the first of its S scores."""
    weights: Tensor
    """(N, S, P); 0 beyond the image."""


def _dense(low: Tensor, high: Tensor, weights: Tensor, first: int, span: int) -> Tensor:
    """(pixels, span): the matrix of bilinear sampling from scores first…first+span−1."""
    matrix = weights.new_zeros(low.numel(), span)
    matrix.scatter_add_(1, (low - first)[:, None], weights[0][:, None])
    return matrix.scatter_add_(1, (high - first)[:, None], weights[1][:, None])


def _columns(grid: Grid, width: int, cells: int, like: Tensor) -> _Columns:
    low, high, weights = axis_taps(grid, width, cells, torch.device("cpu"))
    starts = range(0, width, BLOCK)
    span = max(int(high[s : s + BLOCK].max()) - int(low[s]) + 1 for s in starts)
    first = [min(int(low[s]), cells - span) for s in starts]
    table = weights.new_zeros(len(first), span, min(BLOCK, width))
    for i, start in enumerate(starts):
        cut = slice(start, start + BLOCK)
        dense = _dense(low[cut], high[cut], weights[:, cut], first[i], span)
        table[i, :, : dense.shape[0]] = dense.T
    return _Columns(first, table.to(like))


def _strips(grid: Grid, height: int, cells: int, rows: int, like: Tensor) -> Iterator[tuple[int, int, int, Tensor]]:
    """First and last + 1 pixel row, first score row, and the matrix (R, scores) of each strip."""
    low, high, weights = axis_taps(grid, height, cells, torch.device("cpu"))
    for start in range(0, height, rows):
        cut = slice(start, min(start + rows, height))
        first = int(low[start])
        span = int(high[cut].max()) - first + 1
        yield cut.start, cut.stop, first, _dense(low[cut], high[cut], weights[:, cut], first, span).to(like)


def _labels(target: Tensor, columns: _Columns, terms: Terms) -> tuple[Tensor, Tensor]:
    """Of rows (R, W): labels (N, R, P), 0 where not counted, and whether counted.

    Raises:
        IndexError: On a CPU, for a label outside 0…K−1, as `torch.nn.functional.cross_entropy`.
    """
    blocks, _, pixels = columns.weights.shape
    wide = target.new_full((target.shape[0], blocks * pixels), terms.ignore_index, dtype=torch.int64)
    wide[:, : target.shape[1]] = target
    wide = wide.view(-1, blocks, pixels).transpose(0, 1).contiguous()
    counted = wide != terms.ignore_index
    labels = wide.where(counted, 0)
    if labels.device.type == "cpu":
        classes = terms.weight.numel()
        lowest, highest = (int(value) for value in labels.aminmax())
        if lowest < 0 or highest >= classes:
            bad = lowest if lowest < 0 else highest
            raise IndexError(f"Target {bad} is out of bounds: allowed are 0…{classes - 1} and {terms.ignore_index}")
    return labels, counted


class _Strip:
    """One strip of one image.

    The scores that come in have a largest class of 0 everywhere (`strip_loss` subtracts it; a shift that is the
    same for all classes of a score is the same for all classes of a pixel, and the softmax does not see it).
    So no logit is above 0 and no exponential overflows. They may all underflow: where one class is far ahead at
    one score and another one at the next, both are far behind halfway. Such a strip is done again, with the
    largest logit of each pixel subtracted.
    """

    def __init__(self, scores: Tensor, rows: Tensor, columns: _Columns, terms: Terms) -> None:
        self.scores, self.rows, self.columns, self.terms = scores, rows, columns, terms
        self.classes, height, _ = scores.shape
        span = columns.weights.shape[1]
        blocks = [scores[:, :, first : first + span].transpose(0, 1).reshape(height, -1) for first in columns.first]
        self.blocks = torch.stack(blocks)  # (N, scores, K·S)

    def sum(self, target: Tensor, *, gradient: bool) -> Sums:
        """Return the sums (scalars) over the pixels of a target (R, W); the gradient is (K, scores, w)."""
        labels, counted = _labels(target, self.columns, self.terms)
        zero = self.rows.new_zeros(())
        if not counted.any():
            return Sums(zero, zero, torch.zeros_like(self.scores) if gradient else None)
        strip = self._logits()
        picked = strip.gather(2, labels.unsqueeze(2)).squeeze(2)
        top = None
        sums = strip.exp_().sum(2) if strip.device.type == "cpu" else None
        if sums is None or not bool((sums > TINY).all()):  # also where it is NaN
            strip = self._logits()
            top = strip.amax(2, keepdim=True)
            sums = strip.sub_(top).exp_().sum(2)
        share, hit = (table[labels].where(counted, 0) for table in (self.terms.share, self.terms.hit))
        evidence = sums.log() if top is None else sums.log() + top.squeeze(2)
        # Pixels that do not count are left out, not multiplied by 0: NaN · 0 is NaN.
        loss = (share * evidence - hit * picked).where(counted, 0).sum()
        total = self.terms.weight[labels].where(counted, 0).sum()
        made = None
        if gradient:
            strip.mul_((share / sums).unsqueeze(2)).scatter_add_(2, labels.unsqueeze(2), -hit.unsqueeze(2))
            made = self._spread(strip.flatten(1, 2))
        if self.terms.smooth is not None:
            # The smoothed part of the target is the same at every counted pixel, so its logits are never needed:
            # the sum over pixels of their logit is the scores times what each score takes part in.
            pull = self._spread(counted.to(self.rows.dtype)) * self.terms.smooth[:, None, None]
            loss = loss - (pull * self.scores).sum()
            made = None if made is None else made - pull
        return Sums(loss, total, made)

    def _logits(self) -> Tensor:
        lower = torch.matmul(self.rows, self.blocks)
        lower = lower.view(lower.shape[0], -1, self.columns.weights.shape[1])
        return torch.bmm(lower, self.columns.weights).view(lower.shape[0], self.rows.shape[0], self.classes, -1)

    def _spread(self, strip: Tensor) -> Tensor:
        """Give (N, R·X, P) pixels back to the scores they were sampled from: (X, scores, w)."""
        lower = torch.bmm(strip, self.columns.weights.mT).view(strip.shape[0], self.rows.shape[0], -1)
        blocks = torch.matmul(self.rows.T, lower)  # (N, scores, X·S)
        _, height, width = self.scores.shape
        span = self.columns.weights.shape[1]
        joined = blocks.new_zeros(blocks.shape[2] // span, height, width)
        for first, block in zip(self.columns.first, blocks, strict=True):  # neighbors share scores where they meet
            joined[:, :, first : first + span] += block.view(height, -1, span).transpose(0, 1)
        return joined


def strip_loss(scores: Tensor, target: Tensor, grid: Grid, terms: Terms, *, gradient: bool) -> Sums:
    """Sum the cross-entropy of the upsampled scores over each image.

    Args:
        scores: (B, K, h, w), float32 or float64, on any device.
        target: (B, H, W) integers.
        grid: Where pixels lie on the scores.
        terms: Weights and smoothing, on the same device.
        gradient: Whether the gradient is wanted.

    Raises:
        IndexError: On a CPU, for a label outside 0…K−1 that is not ignored.
    """
    scores = scores - scores.amax(1, keepdim=True)
    height, width = target.shape[1:]
    columns = _columns(grid, width, scores.shape[3], scores)
    row = scores.shape[1] * columns.weights.shape[0] * columns.weights.shape[2]
    rows = max(1, STRIP.get(scores.device.type, STRIP_ELSEWHERE) // row)
    strips = list(_strips(grid, height, scores.shape[2], rows, scores))
    images, each = scores.shape[0], len(strips)

    def work(n: int) -> Sums:
        start, stop, first, matrix = strips[n % each]
        part = scores[n // each, :, first : first + matrix.shape[1]]
        return _Strip(part, matrix, columns, terms).sum(target[n // each, start:stop], gradient=gradient)

    made = torch.zeros_like(scores, memory_format=torch.contiguous_format) if gradient else None
    if scores.device.type == "cpu":
        found = compute([(n,) for n in range(images * each)], work, torch.get_num_threads())
    else:
        found = (work(n) for n in range(images * each))
    losses, totals = [], []
    for n, sums in enumerate(found):
        losses.append(sums.loss)
        totals.append(sums.total)
        if made is not None and sums.gradient is not None:
            first = strips[n % each][2]
            made[n // each, :, first : first + sums.gradient.shape[1]] += sums.gradient
    if not losses:
        return Sums(scores.new_zeros(0), scores.new_zeros(0), made)
    return Sums(torch.stack(losses).view(images, -1).sum(1), torch.stack(totals).view(images, -1).sum(1), made)
