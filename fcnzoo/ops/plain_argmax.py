"""Labels from low-resolution scores in plain PyTorch, a few rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnzoo.ops.axis import axis_taps
from fcnzoo.ops.cells import cut_axis

if TYPE_CHECKING:
    from fcnzoo.config import Grid

SERIAL = 2**15 - 1
"""Numbers that `label_strips` works on at a time on a CPU. A call on more is split by PyTorch among its threads, which
wait for each other after every call. Source: `at::internal::GRAIN_SIZE`, 32,768.
"""

LAUNCHED = 2**24
"""The same on other devices, where a call costs more than a pass through memory: 64 MiB of float32."""

SAMPLED = 2**17
"""Scores of pixels that `label_cells` holds at a time: 512 KiB of float32 stay in a core's cache of the second level,
and take several times as long as the calls that make them.
"""

PRUNED = 2**17
"""Scores of pixels from which on it pays to find the classes that cannot win."""

LARGE = 1e38
"""Scores above are halved: the difference of two may overflow float32."""


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


def _winner(values: Tensor) -> Tensor:
    """Return the first class with the highest of values (n, K, m), contiguous and finite: (n, m), int64.

    As pooling, because that is the only operation of PyTorch's that finds maxima along an axis other than the last
    together with where they are by vector instructions on a CPU (0.2 ns per value; `argmax` takes 3 to 10): with
    classes as columns and pixels as channels, in memory the values are an image with channels last. Of equal
    values pooling keeps the first.
    """
    pixels = values.unsqueeze(1).permute(0, 3, 1, 2)
    return F.max_pool2d(pixels, (1, values.shape[1]), return_indices=True)[1].view(len(values), -1)


class _Axis:
    """One axis of an image of L pixels, in n cells of at most m pixels.

    Attributes:
        nodes: (n + 1) scores that the cells lie between.
        start: First pixel of each cell, and L.
        cell: (L) cell of each pixel.
        share: (L) share of the cell's second score at each pixel, of what both have: 0…1.
        pixel: (m, n) pixels of each cell; the last one is repeated in shorter cells.
        empty: (n) whether a cell has no pixel.
        beyond: Pixels that have no share of any score.
    """

    def __init__(self, grid: Grid, length: int, scores: int, dtype: torch.dtype) -> None:
        cells = cut_axis(grid, length, scores)
        self.nodes, start = torch.from_numpy(cells.nodes).long(), torch.from_numpy(cells.start).long()
        size = start.diff()
        self.cell = torch.arange(cells.count).repeat_interleave(size)
        self.empty = size == 0
        weights = torch.from_numpy(cells.weights[:, :length])
        # Beyond a border of zeros both weights are less than 1 together. All classes' scores are less by the same
        # factor there, so the winner is as without it, unless it is 0.
        total = weights.sum(0)
        self.share = torch.where(total > 0, weights[1] / total, 0).to(dtype)
        self.beyond = (total == 0).nonzero()[:, 0]
        steps = torch.arange(int(size.max()))[:, None]
        self.pixel = torch.minimum(start[:-1] + steps, start[1:] - 1).clamp_(min=0)
        self.start = start.tolist()


class _Image:
    """How an image is labelled, one row of cells after the other."""

    def __init__(self, image: Tensor, grid: Grid, labels: Tensor) -> None:
        """Take scores (K, h, w) and labels (H, W); fill every cell with the winner at its first corner."""
        if max(abs(value.item()) for value in image.aminmax()) > LARGE:
            image = image / 2
        self.lines, self.labels = image.transpose(0, 1), labels
        self.down, self.across = (
            _Axis(grid, labels.shape[axis], image.shape[1 + axis], image.dtype) for axis in (0, 1)
        )
        winner = _winner(image.contiguous().flatten(1)[None]).to(labels.dtype).view(image.shape[1:])
        winner = winner[self.down.nodes][:, self.across.nodes]
        a, b = winner[:-1], winner[1:]
        torch.index_select(a[:, self.across.cell], 0, self.down.cell, out=labels)
        mixed = (a != b)[:, 1:] | (a[:, 1:] != a[:, :-1]) | (b[:, 1:] != b[:, :-1])
        mixed &= ~(self.down.empty[:, None] | self.across.empty)
        self.mixed = mixed.nonzero()[:, 1]
        self.ends = mixed.sum(1).cumsum(0).tolist()
        self.values = image.new_empty(0)

    def label(self) -> None:
        """Label the pixels of all mixed cells, and those beyond a border of zeros."""
        # At least four rows of pixels at a time, for PyTorch to split among threads.
        most = max(1, SAMPLED // 4 // (self.lines.shape[1] * len(self.across.pixel)))
        begin = 0
        for row, end in enumerate(self.ends):
            if begin < end:
                lines = self.lines.index_select(0, self.down.nodes[row : row + 2])
                for columns in self.mixed[begin:end].split(most):
                    self._sample(lines, row, columns)
            begin = end
        self.labels.index_fill_(0, self.down.beyond, 0).index_fill_(1, self.across.beyond, 0)

    def _sample(self, lines: Tensor, row: int, columns: Tensor) -> None:
        """Label cells of a row, given the scores (2, K, w) above and below it and the cells' columns (n)."""
        left, right = (lines.index_select(2, self.across.nodes[at]) for at in (columns, columns + 1))
        pixel = self.across.pixel.index_select(1, columns)
        begin, end = self.down.start[row : row + 2]
        classes = None
        if lines.shape[1] * pixel.numel() * (end - begin) > PRUNED:
            # A class whose highest score at a cell's corners is below another's lowest cannot win in it.
            highest, lowest = torch.maximum(left, right).amax(0), torch.minimum(left, right).amin(0)
            classes = (highest >= lowest.amax(0)).any(1).nonzero()[:, 0]
            left, right = left.index_select(1, classes), right.index_select(1, classes)
        upper, lower = torch.lerp(left[:, :, None], right[:, :, None], self.across.share[pixel]).flatten(2)
        pixel = pixel.flatten()
        rows = max(1, SAMPLED // upper.numel())
        for share in self.down.share[begin:end, None, None].split(rows):
            # Into the same memory every time: fresh memory costs more than the numbers.
            found = _winner(torch.lerp(upper, lower, share, out=self.values.resize_(0)))
            found = (found if classes is None else classes.take(found)).to(self.labels.dtype)
            self.labels[begin : begin + len(found)].index_copy_(1, pixel, found)
            begin += len(found)


def label_cells(scores: Tensor, grid: Grid, out: Tensor) -> None:
    """Fill `out` (B, H, W) on a CPU, from finite scores.

    A pixel's scores are a convex combination of those at the four corners of its cell, so where one class
    wins at all four corners it wins in between, and the cell is filled; only the other cells are sampled.

    Args:
        scores: (B, K, h, w), float32 or float64, finite.
        grid: Where pixels lie on the scores.
        out: Labels.
    """
    for image, labels in zip(scores, out, strict=True):
        _Image(image, grid, labels).label()
