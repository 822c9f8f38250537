"""Labels from low-resolution scores in plain PyTorch, a few rows at a time."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnzoo.ops.axis import axis_taps
from fcnzoo.ops.cells import cut_axis
from fcnzoo.ops.threads import compute

if TYPE_CHECKING:
    from fcnzoo.config import Grid

SERIAL = 2**15 - 1
"""Numbers that `label_strips` works on at a time on a CPU. A call on more is split by PyTorch among its threads, which
wait for each other after every call. Source: `at::internal::GRAIN_SIZE`, 32,768.
"""

LAUNCHED = 2**24
"""The same on other devices, where a call costs more than a pass through memory: 64 MiB of float32."""

SAMPLED = 3 * 2**15
"""Scores of pixels that a thread of `label_cells` holds at a time: 384 KiB of float32 stay in a core's cache of the
second level, and take several times as long as the calls that make them.
"""

ALONE = 2**23
"""Scores of an image's pixels for each further thread: Python lets only one thread at a time begin a call, so that
threads wait for each other, on a busy machine for longer than the work takes.
"""

PRUNED = 48
"""Classes from which on it pays to find those that cannot win."""

FEW = 0.5
"""Share of mixed cells up to which they are sampled wherever they lie, and from which all cells are, row by row."""

CELLS = 64
"""Cells, and columns, that `label_cells` samples at a time, at least: fewer would not fill PyTorch's vectors."""

TILES = 4
"""Tiles of an image per thread, at least, so that threads end together."""

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
    """One axis of an image of L pixels, in n cells, and these in b blocks of at most m pixels.

    A block is a cell that has pixels, or a part of one that has far more than most have: beyond an edge.

    Attributes:
        nodes: (n + 1) scores that the cells lie between.
        start: First pixel of each cell, and L.
        cell: (L) cell of each pixel.
        share: (L) share of the cell's second score at each pixel, of what both have: 0…1.
        block: (b) cell of each block.
        sides: (2, b) scores that each block lies between.
        pixel: (m, b) pixels of each block; the last one is repeated in shorter blocks.
        beyond: Pixels that have no share of any score.
    """

    def __init__(self, grid: Grid, length: int, scores: int, dtype: torch.dtype) -> None:
        cells = cut_axis(grid, length, scores)
        self.nodes, start = torch.from_numpy(cells.nodes).long(), torch.from_numpy(cells.start).long()
        size = start.diff()
        self.cell = torch.arange(cells.count).repeat_interleave(size)
        weights = torch.from_numpy(cells.weights[:, :length])
        # Beyond a border of zeros both weights are less than 1 together. All classes' scores are less by the same
        # factor there, so the winner is as without it, unless it is 0.
        total = weights.sum(0)
        self.share = torch.where(total > 0, weights[1] / total, 0).to(dtype)
        self.beyond = (total == 0).nonzero()[:, 0]
        sizes = size[size > 0].sort().values
        height = int(sizes[len(sizes) * 9 // 10])
        parts = (size + height - 1) // height
        self.block = torch.arange(cells.count).repeat_interleave(parts)
        self.sides = torch.stack([self.nodes[self.block], self.nodes[self.block + 1]])
        part = torch.arange(len(self.block)) - (parts.cumsum(0) - parts)[self.block]
        first = start[self.block] + part * height
        self.pixel = torch.minimum(first + torch.arange(height)[:, None], start[self.block + 1] - 1)
        self.start = start.tolist()


def _contenders(highest: Tensor, lowest: Tensor) -> Tensor:
    """Return which classes (K) may win in some cell, given their highest and lowest score (…, K, n) at its corners.

    A class whose highest score is below another's lowest cannot win.
    """
    able = (highest >= lowest.amax(-2, keepdim=True)).any(-1)
    return able.view(-1, able.shape[-1]).any(0).nonzero()[:, 0]


class _Image:
    """How an image is labeled: cells with one winner are filled and the others sampled, or all are sampled."""

    def __init__(self, image: Tensor, grid: Grid, labels: Tensor) -> None:
        """Take scores (K, h, w) and contiguous labels (H, W)."""
        if max(abs(value.item()) for value in image.aminmax()) > LARGE:
            image = image / 2
        self.width, self.labels = image.shape[2], labels
        self.scores, self.lines = image.flatten(1), image.transpose(0, 1)
        self.down, self.across = (
            _Axis(grid, labels.shape[axis], image.shape[1 + axis], image.dtype) for axis in (0, 1)
        )
        self.own = threading.local()

    def label(self) -> None:
        """Label all pixels, in at most as many threads as PyTorch has."""
        winner = _winner(self.scores.contiguous()[None]).to(self.labels.dtype).view(-1, self.width)
        winner = winner[self.down.nodes][:, self.across.nodes]
        a, b = winner[:-1], winner[1:]
        mixed = (a != b)[:, 1:] | (a[:, 1:] != a[:, :-1]) | (b[:, 1:] != b[:, :-1])
        mixed = mixed[self.down.block][:, self.across.block]
        threads = max(1, min(torch.get_num_threads(), len(self.scores) * self.labels.numel() // ALONE))
        if int(mixed.sum()) > FEW * mixed.numel():
            compute(self._tiles(threads), self._sample_tile, threads)
        else:
            torch.index_select(a[:, self.across.cell], 0, self.down.cell, out=self.labels)
            # Blocks from anywhere together: where few are mixed, calls for one row would take longer than its work.
            some = SAMPLED // (len(self.scores) * len(self.down.pixel) * len(self.across.pixel))
            pieces = mixed.nonzero().split(max(CELLS, some))
            compute([(piece[:, 0], piece[:, 1]) for piece in pieces if len(piece)], self._sample, threads)
        self.labels.index_fill_(0, self.down.beyond, 0).index_fill_(1, self.across.beyond, 0)

    def _buffer(self) -> Tensor:
        """Return this thread's own memory, to be written over: fresh memory costs more than the numbers."""
        if not hasattr(self.own, "values"):
            self.own.values = self.scores.new_empty(0)
        return self.own.values.resize_(0)

    def _sample(self, rows: Tensor, columns: Tensor) -> None:
        """Label the pixels of n blocks, given the row and the column of each."""
        y, x = self.down.pixel.index_select(1, rows), self.across.pixel.index_select(1, columns)
        lines, sides = self.down.sides.index_select(1, rows), self.across.sides.index_select(1, columns)
        corners = self.scores.index_select(1, (lines[:, None] * self.width + sides).flatten())
        corners, classes = corners.view(-1, 2, 2, len(rows)), None
        if len(corners) >= PRUNED:
            classes = _contenders(corners.amax((1, 2)), corners.amin((1, 2)))
            corners = corners.index_select(0, classes)
        across, down = self.across.share[x], self.down.share[y]
        upper, lower = torch.lerp(corners[:, :, 0, None], corners[:, :, 1, None], across).unbind(1)
        pixels = self.labels.view(-1)
        step = max(1, SAMPLED // max(upper.numel(), 1))
        for share, line in zip(down[:, None, None].split(step), y.split(step), strict=True):
            values = torch.lerp(upper, lower, share, out=self._buffer())
            found = _winner(values.flatten(2))
            found = (found if classes is None else classes.take(found)).to(pixels.dtype)
            pixels.index_copy_(0, (line[:, None] * self.labels.shape[1] + x).flatten(), found.flatten())

    def _tiles(self, threads: int) -> list[tuple[int, int, int, int]]:
        """Cut the image into tiles: first row of cells and end, first column of pixels and end."""
        width, height, classes = self.labels.shape[1], len(self.down.nodes) - 1, len(self.scores)
        # A row of cells, or its first eight rows of pixels, is sampled by one call.
        chunks = -(-width // max(CELLS, SAMPLED // (classes * min(len(self.down.pixel), 8))))
        cuts = [width * i // chunks for i in range(chunks + 1)]
        scores = classes * (int(self.across.cell[cuts[1] - 1]) + 2)
        bands = -(-height // max(1, min(height * chunks // (TILES * threads), SAMPLED // (8 * scores))))
        ends = [height * i // bands for i in range(bands + 1)]
        return [(*band, *chunk) for band in pairwise(ends) for chunk in pairwise(cuts)]

    def _sample_tile(self, begin: int, end: int, left: int, right: int) -> None:
        """Label rows of cells `begin`…`end` between columns of pixels `left`…`right`."""
        cell, share, classes = self.across.cell[left:right], self.across.share[left:right], None
        first, last = int(cell[0]), int(cell[-1]) + 1
        corners = self.lines.index_select(0, self.down.nodes[begin : end + 1])
        corners = corners.index_select(2, self.across.nodes[first : last + 1])
        if corners.shape[1] >= PRUNED:
            highest, lowest = (pick(corners[:-1], corners[1:]) for pick in (torch.maximum, torch.minimum))
            highest = torch.maximum(highest[..., :-1], highest[..., 1:])
            classes = _contenders(highest, torch.minimum(lowest[..., :-1], lowest[..., 1:]))
            corners = corners.index_select(1, classes)
        sides = torch.cat([cell - first, cell - (first - 1)])
        both = corners.new_empty(corners.shape[1], len(sides))
        before, after = both.split(right - left, 1)
        upper, lower = torch.empty_like(before), torch.empty_like(before)

        def sample_line(scores: Tensor, line: Tensor) -> Tensor:
            torch.index_select(scores, 1, sides, out=both)
            return torch.lerp(before, after, share, out=line)

        sample_line(corners[0], lower)
        for i in range(begin, end):
            upper, lower = lower, sample_line(corners[i + 1 - begin], upper)
            start, stop = self.down.start[i : i + 2]
            pieces = max(1, -(-(stop - start) * lower.numel() // SAMPLED))
            rows = max(1, -(-(stop - start) // pieces))  # equal pieces
            for y in range(start, stop, rows):
                below = min(y + rows, stop)
                values = torch.lerp(upper, lower, self.down.share[y:below, None, None], out=self._buffer())
                found = _winner(values)
                self.labels[y:below, left:right] = found if classes is None else classes.take(found)


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
        whole = labels if labels.is_contiguous() else torch.empty_like(labels, memory_format=torch.contiguous_format)
        _Image(image, grid, whole).label()
        if whole is not labels:
            labels.copy_(whole)
