"""The compiled route to the training loss: when it is taken, how work is cut up, and how parts are put together.

Work is cut into bands of rows of cells, the same ones for any number of threads; each band has its own row of sums
where it meets the one above, and bands are added in order: equal inputs give equal bits on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fcnzoo.ops.cells import cut_axis
from fcnzoo.ops.compiling import Kernel, compile_kept, kernel, source_key
from fcnzoo.ops.loss.plain import Sums, Terms
from fcnzoo.ops.threads import run_in_threads

if TYPE_CHECKING:
    from fcnzoo.config import Grid

ALONE = 2**18
"""Logits up to which one thread is enough: starting another one costs some 50 µs."""

BANDS = 16
"""Bands of an image, at most: enough for many threads, and to share out well over a few."""

LEAST = 4
"""Rows of cells of a band, at least: at its borders a row of scores is sampled twice."""

_kernels: dict[tuple[str, ...], Kernel | None] = {}


def _kernel(real: str) -> Kernel | None:
    """Return the loops for scores of this dtype; `None` where they cannot be had."""
    return kernel(_kernels, (real,), lambda *key: _build(*key) if find_spec("numba") else None)


def _build(real: str) -> Kernel:
    from numba import types

    from fcnzoo.ops.loss import vectors
    from fcnzoo.ops.loss.loops import keyed_band

    number, size = getattr(types, real), types.intp

    def block(kind: types.Type, axes: int) -> types.Array:
        return types.Array(kind, axes, "C")

    line, weights = block(types.int32, 1), block(number, 2)
    rows = (line, line, weights, size, size)
    columns = (block(types.int32, 2), line, weights)
    scores = types.Array(number, 3, "A", readonly=True)
    sums = (block(number, 3), block(number, 3), block(number, 3), block(types.float64, 1))
    signature = types.void(scores, block(types.int64, 2), types.int64, weights, *rows, *columns, *sums)
    return compile_kept(keyed_band(source_key(vectors)), signature)


@dataclass(frozen=True, eq=False)
class _Runs:
    """Columns, cut where their scores change and where a chunk ends; see `compiled_loss.sum_band`."""

    cuts: np.ndarray
    chunks: np.ndarray
    weights: np.ndarray


@lru_cache(maxsize=32)
def _cut_columns(grid: Grid, width: int, scores: int, chunk: int) -> _Runs:
    cells = cut_axis(grid, width, scores)
    begins = np.unique(np.concatenate([cells.start[:-1], np.arange(0, width, chunk)]))
    begins = begins[begins < width]
    # Of the cells that begin at one column only the last has pixels.
    cell = np.searchsorted(cells.start, begins, side="right") - 1
    cuts = np.zeros((3, len(begins) + 1), np.int32)
    cuts[0, :-1], cuts[1, :-1] = cells.nodes[cell], cells.nodes[cell + 1]
    cuts[2] = np.append(begins, width)
    chunks = np.append(np.searchsorted(begins, np.arange(0, width, chunk)), len(begins))
    return _Runs(cuts, chunks.astype(np.int32), cells.weights)


def _threads(scores: Tensor, target: Tensor) -> int:
    return torch.get_num_threads() if target.numel() * scores.shape[1] > ALONE else 1


def compiled_loss(scores: Tensor, target: Tensor, grid: Grid, terms: Terms, *, gradient: bool) -> Sums | None:
    """Sum the cross-entropy of the upsampled scores over each image, as `strip_loss`.

    Args:
        scores: (B, K, h, w), float32 or float64, on the CPU.
        target: (B, H, W) integers.
        grid: Where pixels lie on the scores.
        terms: Weights and smoothing.
        gradient: Whether the gradient is wanted.

    Returns:
        The sums; `None` where there is no compiled code, or a score is NaN or infinite.

    Raises:
        IndexError: For a label outside 0…K−1 that is not ignored.
    """
    loops = _kernel(str(scores.dtype).removeprefix("torch."))
    if loops is None or not scores.numel() or not target.numel():
        return None
    from fcnzoo.ops.loss.loops import CHUNK

    values, labels = scores.detach().numpy(), target.numpy()
    images, classes, _, width = values.shape
    rows = cut_axis(grid, labels.shape[1], values.shape[2])
    columns = _cut_columns(grid, labels.shape[2], width, CHUNK)
    wy, wx = rows.weights.astype(values.dtype), columns.weights.astype(values.dtype)
    table = torch.stack([terms.weight, terms.hit, terms.share]).numpy()
    # What smoothing takes from the loss is found from where the counted pixels lie, as the gradient is.
    wanted = gradient or terms.smooth is not None
    made = np.zeros(values.shape if wanted else (images, 0, 0, 0), values.dtype)
    cover = np.zeros((images, 1, *values.shape[2:]), values.dtype)
    height = max(LEAST, -(-rows.count // BANDS))
    bands = [(i, y, min(y + height, rows.count)) for i in range(images) for y in range(0, rows.count, height)]
    borders = np.zeros((len(bands), classes + 1, 1, width), values.dtype)
    results = np.zeros((len(bands), 5))

    def work(n: int, i: int, begin: int, end: int) -> None:
        own = labels[i, rows.start[begin] : rows.start[end]].astype(np.int64, order="C", copy=False)
        loops(
            values[i], own, terms.ignore_index, table, rows.nodes, rows.start, wy, begin, end,
            columns.cuts, columns.chunks, wx, made[i], cover[i], borders[n], results[n],
        )  # fmt: skip

    run_in_threads([(n, *band) for n, band in enumerate(bands)], work, _threads(scores, target))
    if results[:, 4].any():
        return None
    _check_labels(results, classes, terms.ignore_index)
    for border, (i, begin, _) in zip(borders, bands, strict=True) if wanted else ():
        made[i, :, rows.nodes[begin]] += border[:-1, 0]
        cover[i, :, rows.nodes[begin]] += border[-1:, 0]
    found = results.reshape(images, -1, 5).sum(1)
    loss, total = (torch.from_numpy(found[:, column].copy()) for column in (0, 1))
    gained = torch.from_numpy(made) if gradient else None
    if terms.smooth is not None:
        loss -= _smoothed(scores, terms.smooth, torch.from_numpy(cover), gained)
    return Sums(loss.to(scores.dtype), total.to(scores.dtype), gained)


def _check_labels(results: np.ndarray, classes: int, ignore_index: int) -> None:
    if results[:, 2].any():
        bad = int(results[results[:, 2] > 0, 3][0])
        raise IndexError(f"Target {bad} is out of bounds: allowed are 0…{classes - 1} and {ignore_index}")


def _smoothed(scores: Tensor, smooth: Tensor, cover: Tensor, gradient: Tensor | None) -> Tensor:
    """Return what smoothing takes from the loss of each image, and take its part from the gradient, in place."""
    part = cover * smooth[:, None, None]
    if gradient is not None:
        gradient.sub_(part)
    return (part * (scores - scores.amax(1, keepdim=True))).sum((1, 2, 3), dtype=torch.float64)
