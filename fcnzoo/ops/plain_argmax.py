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

SAMPLED = 2**16
"""Scores of pixels that `label_cells` holds at a time, at least: 256 KiB of float32 stay in a core's cache of the
second level, and take several times as long as the calls that make them.
"""

PRUNED = 2**17
"""Scores of pixels from which on it pays to find the classes that cannot win."""

FEW = 0.5
"""Share of mixed cells up to which they are sampled wherever they lie, and from which row by row."""

CELLS = 64
"""Cells that `label_cells` samples at a time, at least: fewer would not fill PyTorch's vectors."""

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
    """How an image is labelled: cells with one winner are filled, the others are sampled, many at a time."""

    def __init__(self, image: Tensor, grid: Grid, labels: Tensor) -> None:
        """Take scores (K, h, w) and contiguous labels (H, W); fill every cell with the winner at its first corner."""
        if max(abs(value.item()) for value in image.aminmax()) > LARGE:
            image = image / 2
        self.width, self.labels = image.shape[2], labels
        self.scores, self.lines = image.flatten(1), image.transpose(0, 1)
        self.down, self.across = (
            _Axis(grid, labels.shape[axis], image.shape[1 + axis], image.dtype) for axis in (0, 1)
        )
        winner = _winner(self.scores.contiguous()[None]).to(labels.dtype).view(image.shape[1:])
        winner = winner[self.down.nodes][:, self.across.nodes]
        a, b = winner[:-1], winner[1:]
        torch.index_select(a[:, self.across.cell], 0, self.down.cell, out=labels)
        mixed = (a != b)[:, 1:] | (a[:, 1:] != a[:, :-1]) | (b[:, 1:] != b[:, :-1])
        mixed &= ~(self.down.empty[:, None] | self.across.empty)
        self.mixed = mixed.nonzero()
        # Longer calls pay where the label map is larger still.
        self.sampled = max(SAMPLED, min(4 * SAMPLED, labels.numel() // 8))
        self.values = image.new_empty(0)

    def label(self) -> None:
        """Label the pixels of all mixed cells, and those beyond a border of zeros."""
        if len(self.mixed) > FEW * self.down.empty.numel() * self.across.empty.numel():
            self._label_rows()
        elif len(self.mixed):
            self._label_some()
        self.labels.index_fill_(0, self.down.beyond, 0).index_fill_(1, self.across.beyond, 0)

    def _label_rows(self) -> None:
        """Row after row of cells: where most are mixed."""
        # At least four rows of pixels at a time, for PyTorch to split among threads.
        most = max(1, self.sampled // 4 // (self.scores.shape[0] * len(self.across.pixel)))
        rows, columns = self.mixed.T
        begin = 0
        for row, count in enumerate(rows.bincount(minlength=len(self.down.empty)).tolist()):
            if count:
                lines = self.lines.index_select(0, self.down.nodes[row : row + 2])
                for some in columns[begin : begin + count].split(most):
                    self._sample_row(lines, row, some)
            begin += count

    def _label_some(self) -> None:
        """Cells from anywhere together: where few are mixed, calls for one row would take longer than its work."""
        most = max(
            CELLS, self.sampled // (self.scores.shape[0] * self.down.pixel.shape[0] * self.across.pixel.shape[0])
        )
        for cells in self.mixed.split(most):
            self._sample(cells[:, 0], cells[:, 1])

    def _corners(self, rows: Tensor, columns: Tensor) -> list[Tensor]:
        """Return the scores (K, n) at the corners of n cells: above left and right, below left and right."""
        lines = (self.down.nodes[rows] * self.width, self.down.nodes[rows + 1] * self.width)
        sides = (self.across.nodes[columns], self.across.nodes[columns + 1])
        return [self.scores.index_select(1, line + side) for line in lines for side in sides]

    def _sample(self, rows: Tensor, columns: Tensor) -> None:
        """Label the pixels of n cells, given the row and the column of each."""
        y, x = self.down.pixel.index_select(1, rows), self.across.pixel.index_select(1, columns)
        corners = self._corners(rows, columns)
        classes = None
        if corners[0].shape[0] * x.numel() * len(y) > PRUNED:
            # A class whose highest score at a cell's corners is below another's lowest cannot win in it.
            highest = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
            lowest = torch.minimum(torch.minimum(corners[0], corners[1]), torch.minimum(corners[2], corners[3]))
            classes = (highest >= lowest.amax(0)).any(1).nonzero()[:, 0]
            corners = [corner.index_select(0, classes) for corner in corners]
        across, down = self.across.share[x], self.down.share[y]
        upper = torch.lerp(corners[0][:, None], corners[1][:, None], across)
        lower = torch.lerp(corners[2][:, None], corners[3][:, None], across)
        pixels = self.labels.view(-1)
        lines = max(1, self.sampled // max(upper.numel(), 1))
        for share, line in zip(down[:, None, None].split(lines), y.split(lines), strict=True):
            # Into the same memory every time: fresh memory costs more than the numbers.
            values = torch.lerp(upper, lower, share, out=self.values.resize_(0))
            found = _winner(values.flatten(2))
            found = (found if classes is None else classes.take(found)).to(pixels.dtype)
            pixels.index_copy_(0, (line[:, None] * self.labels.shape[1] + x).flatten(), found.flatten())

    def _sample_row(self, lines: Tensor, row: int, columns: Tensor) -> None:
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
        rows = max(1, self.sampled // upper.numel())
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
        whole = labels if labels.is_contiguous() else torch.empty_like(labels, memory_format=torch.contiguous_format)
        _Image(image, grid, whole).label()
        if whole is not labels:
            labels.copy_(whole)
