"""The compiled route to labels: when it is taken, how it is compiled, and on how many threads it runs.

Numba's own threads are not used: they do not survive a fork, and its default layer must not be entered twice at once.
"""

from __future__ import annotations

import itertools
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fcnzoo.ops.cells import cut_axis
from fcnzoo.ops.compiling import SWITCH as SWITCH
from fcnzoo.ops.compiling import Kernel, compile_kept, kernel, source_key
from fcnzoo.ops.threads import run_in_threads

if TYPE_CHECKING:
    from fcnzoo.config import Grid

ALONE = 2**18
"""Scores and pixels up to which one thread is enough: starting another one costs some 50 µs."""

SHARES = 4
"""Pieces per thread: some have more borders between classes than others."""

_kernels: dict[tuple[str, ...], Kernel | None] = {}


def _kernel(real: str, small: str) -> Kernel | None:
    """Return the loops for scores and labels of these dtypes; `None` where they cannot be had."""
    return kernel(_kernels, (real, small), lambda *key: _build(*key) if find_spec("numba") else None)


def _build(real: str, small: str) -> Kernel:
    from numba import types

    from fcnzoo.ops.labels import race
    from fcnzoo.ops.labels.loops import keyed_rows

    number, label = getattr(types, real), getattr(types, small)
    line, flags = types.Array(types.int32, 1, "C"), types.Array(types.boolean, 1, "C")
    axis = (line, line, types.Array(number, 2, "C"), flags)
    scores, labels = types.Array(number, 4, "A", readonly=True), types.Array(label, 3, "A")
    signature = types.void(scores, *axis, *axis, labels, types.intp, types.intp)
    return compile_kept(keyed_rows(source_key(race)), signature)


def label(scores: Tensor, grid: Grid, out: Tensor) -> bool:
    """Fill `out` (B, H, W) with labels, and return whether that was possible.

    Args:
        scores: (B, K, h, w), float32 or float64, on the CPU.
        grid: Where pixels lie on the scores.
        out: uint8 or int16 labels, on the CPU.
    """
    loops = _kernel(str(scores.dtype).removeprefix("torch."), str(out.dtype).removeprefix("torch."))
    if loops is None:
        return False
    values = scores.numpy()
    axes: list[np.ndarray] = []
    for length, cells in ((out.shape[1], scores.shape[2]), (out.shape[2], scores.shape[3])):
        axis = cut_axis(grid, length, cells)
        axes += [axis.nodes, axis.start, axis.weights.astype(values.dtype), axis.partial]
    rows = scores.shape[0] * len(axes[3])
    threads = min(torch.get_num_threads(), rows) if scores.numel() + out.numel() > ALONE else 1
    pieces = rows if rows < SHARES * threads else SHARES * threads
    bounds = np.linspace(0, rows, pieces + 1 if threads > 1 else 2).astype(int).tolist()
    labels = out.numpy()

    run_in_threads(itertools.pairwise(bounds), lambda begin, end: loops(values, *axes, labels, begin, end), threads)
    return True
