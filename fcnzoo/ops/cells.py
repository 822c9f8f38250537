"""One axis cut into cells: runs of pixels that lie between the same two scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from fcnzoo.ops.axis import axis_taps

if TYPE_CHECKING:
    from fcnzoo.config import Grid

MARGIN = 8
"""Weights beyond the last pixel, so that eight can be read from any pixel on."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The n cells of an axis of L pixels.

    Attributes:
        nodes: (n + 1) int32; cell i lies between the scores `nodes[i]` and `nodes[i + 1]`.
        start: (n + 1) int32; the first pixel of each cell, and L. Where pixels are coarser than scores
            some cells have no pixels.
        weights: (2, L + MARGIN) float64, share of the lower and of the upper score at each pixel.
        partial: (n) whether the shares sum up to less than 1 at some pixel: beyond a border of zeros.
    """

    nodes: np.ndarray
    start: np.ndarray
    weights: np.ndarray
    partial: np.ndarray

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.partial)


@lru_cache(maxsize=32)
def cut_axis(grid: Grid, length: int, scores: int) -> Cells:
    """Cut an axis of `length` pixels that lie on so many scores.

    Within a cell the shares go one way, so the pixels between two pixels of a cell have scores between theirs.
    """
    low, high, weights = (taps.numpy() for taps in axis_taps(grid, length, scores, torch.device("cpu")))
    there = weights != 0
    # Beyond a border both indices are the same; there the shares rise before the score and fall after it.
    turns = (low == high)[1:] & (there[:, 1:] != there[:, :-1]).any(0)
    begins = np.flatnonzero(np.concatenate([[True], (np.diff(low) != 0) | (np.diff(high) != 0) | turns]))
    partial = np.logical_or.reduceat(weights.sum(0) < 1 - 1e-9, begins)
    low, high = low[begins], high[begins]
    # Cells must be neighbors: where a score is jumped over, a cell without pixels is put in between.
    jumps = np.flatnonzero(high[:-1] != low[1:]) + 1
    nodes = np.append(np.insert(low, jumps, high[jumps - 1]), high[-1])
    start = np.append(np.insert(begins, jumps, begins[jumps]), length)
    wide = np.pad(weights, ((0, 0), (0, MARGIN)))
    return Cells(nodes.astype(np.int32), start.astype(np.int32), wide, np.insert(partial, jumps, False))
