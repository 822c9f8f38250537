"""Labels from low-resolution scores in plain PyTorch, a few rows at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fcnzoo.ops.axis import axis_taps
from fcnzoo.ops.cells import cut_axis
from fcnzoo.ops.threads import share

if TYPE_CHECKING:
    from fcnzoo.config import Grid

SERIAL = 2**15 - 1
"""Numbers that are worked on at a time on a CPU. A call on more is split by PyTorch among its threads, which wait for
each other after every call; here each thread has rows of its own instead, and its numbers stay in its cache.
Source: `at::internal::GRAIN_SIZE`, 32,768.
"""

ALONE = 2**24
"""Numbers of an image, K·H·W, up to which one thread does all."""

LAUNCHED = 2**24
"""The same on other devices, where a call costs more than a pass through memory: 64 MiB of float32."""


def label_strips(scores: Tensor, grid: Grid, out: Tensor) -> None:
    """Fill `out` (B, H, W) strip by strip, on any device, by `torch.argmax`: the first NaN is the highest.

    Args:
        scores: (B, K, h, w), float32 or float64.
        grid: Where pixels lie on the scores.
        out: Labels.
    """
    height, width = out.shape[1:]
    top, bottom, down = axis_taps(grid, height, scores.shape[2], scores.device)
    left, right, across = axis_taps(grid, width, scores.shape[3], scores.device)
    down, across = down.to(scores.dtype)[..., None], across.to(scores.dtype)
    limit = SERIAL if scores.device.type == "cpu" else LAUNCHED
    rows = max(1, limit // (scores.shape[1] * width))
    for image, labels in zip(scores, out, strict=True):
        for y in range(0, height, rows):
            span = slice(y, y + rows)
            lines = image.index_select(1, top[span]) * down[0, span]
            lines += image.index_select(1, bottom[span]) * down[1, span]
            pixels = lines.index_select(2, left) * across[0]
            pixels += lines.index_select(2, right) * across[1]
            labels[span] = pixels.argmax(0)


def _pick(values: Tensor, codes: Tensor) -> Tensor:
    """Return the first index of the maximum along axis 1 of (n, K, m); `values` are spoilt.

    On a CPU PyTorch's `argmax` over an axis that is not the last takes some 7 ns per number, a comparison 0.6,
    `amax` and sums 0.1. So what is below the maximum is pushed far below 0, and of the rest the highest code wins;
    codes are K − 1 − k. For values up to about 1, which no two float32 differ by less than 2⁻¹⁰⁰ near.
    """
    values -= values.amax(1, keepdim=True)
    found = torch.add(codes, values, alpha=2.0**120).amax(1)
    return (codes.shape[0] - 1) - found


class _Image:
    """How an image is labelled, in blocks of columns and rows of cells."""

    def __init__(self, image: Tensor, grid: Grid, labels: Tensor) -> None:
        """Take scores (K, h, w) and labels (H, W)."""
        largest = max(abs(value.item()) for value in image.aminmax())
        # To about 1, for `_pick`; by a power of two, so nothing is rounded.
        exponent = min(max(math.frexp(largest)[1], -100), 120)
        self.scores = image.transpose(0, 1).clone(memory_format=torch.contiguous_format).mul_(2.0**-exponent)
        self.labels = labels
        down, across = (cut_axis(grid, labels.shape[axis], image.shape[1 + axis]) for axis in (0, 1))
        self.start = down.start.tolist()
        self.down, nodes = torch.from_numpy(down.nodes).long(), torch.from_numpy(across.nodes).long()
        self.cell = torch.arange(across.count).repeat_interleave(torch.from_numpy(across.start).diff())
        self.left, self.right = nodes[self.cell], nodes[self.cell + 1]
        self.columns = torch.from_numpy(across.weights[:, : labels.shape[1]]).to(image.dtype)
        self.rows = torch.from_numpy(down.weights).to(image.dtype)[..., None, None]
        self.codes = torch.arange(image.shape[0] - 1, -1, -1, dtype=image.dtype)[:, None]
        rows = self.scores.split(max(1, SERIAL // self.scores[0].numel()))
        winner = torch.cat([_pick(some.clone(), self.codes).to(labels.dtype) for some in rows])[self.down][:, nodes]
        a, b = winner[:-1], winner[1:]
        mixed = (a != b)[:, 1:] | (a[:, 1:] != a[:, :-1]) | (b[:, 1:] != b[:, :-1])
        partial = torch.from_numpy(down.partial)[:, None] | torch.from_numpy(across.partial)
        self.fill, self.mixed = a, mixed | partial

    def blocks(self) -> list[tuple[int, int, int, int]]:
        """Cut into rows of cells and columns of pixels: `SERIAL` numbers are some four lines of scores."""
        classes, (count, width) = len(self.codes), (len(self.fill), self.labels.shape[1])
        wide = min(width, max(16, SERIAL // (4 * classes)))
        tall = max(1, SERIAL // (classes * wide) - 1)
        return [
            (i, min(i + tall, count), x, min(x + wide, width))
            for x in range(0, width, wide)
            for i in range(0, count, tall)
        ]

    def label(self, first: int, last: int, x0: int, x1: int) -> None:
        """Label a block."""
        cell = self.cell[x0:x1]
        mixed = self.mixed[first:last].index_select(1, cell)
        number = mixed.sum(1).tolist()
        fill = self.fill[first:last].index_select(1, cell)
        lines = self.scores[:0] if not any(number) else self.scores.index_select(0, self.down[first : last + 1])
        sampled = lines.index_select(2, self.left[x0:x1]).mul_(self.columns[0, x0:x1])
        sampled.addcmul_(lines.index_select(2, self.right[x0:x1]), self.columns[1, x0:x1])
        for i in range(last - first):
            labels = self.labels[self.start[first + i] : self.start[first + i + 1], x0:x1]
            if number[i] == x1 - x0:
                self._sample(sampled[i], sampled[i + 1], labels, None, self.start[first + i])
                continue
            labels.copy_(fill[i])
            if number[i]:
                here = mixed[i].nonzero()[:, 0]
                upper, lower = sampled[i : i + 2].index_select(2, here)
                self._sample(upper, lower, labels, here, self.start[first + i])

    def _sample(self, upper: Tensor, lower: Tensor, labels: Tensor, here: Tensor | None, begin: int) -> None:
        """Label columns of pixels of a row of cells that begins at a row of pixels, from the scores at its ends."""
        rows = max(1, SERIAL // upper.numel())
        for y in range(0, len(labels), rows):
            some = labels[y : y + rows]
            span = slice(begin + y, begin + y + len(some))
            values = (upper * self.rows[0, span]).addcmul_(lower, self.rows[1, span])
            found = _pick(values, self.codes)
            if here is None:
                some.copy_(found)
            else:
                some.index_copy_(1, here, found.to(some.dtype))


def label_cells(scores: Tensor, grid: Grid, out: Tensor) -> None:
    """Fill `out` (B, H, W) on a CPU, from finite scores.

    A pixel's scores are a convex combination of those at the four corners of its cell, so where one class
    wins at all four corners it wins in between, and the cell is filled; only the other cells are sampled.

    Args:
        scores: (B, K, h, w), float32 or float64, finite.
        grid: Where pixels lie on the scores.
        out: Labels.
    """
    for values, labels in zip(scores, out, strict=True):
        image = _Image(values, grid, labels)
        # Python threads get in each other's way between calls as short as these; only long work gains.
        threads = torch.get_num_threads() if scores.shape[1] * labels.numel() > ALONE else 1
        share(image.blocks(), image.label, threads)
