"""The compiled route to labels: when it is taken, how it is compiled, and on how many threads it runs.

Numba's own threads are not used: they do not survive a fork, and its default layer must not be entered twice at once.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fcnzoo.ops.cells import cut_axis
from fcnzoo.ops.threads import share

if TYPE_CHECKING:
    from fcnzoo.config import Grid

logger = logging.getLogger("fcnzoo")

SWITCH = "FCNZOO_COMPILED"
"""Environment variable; `0` turns this route off."""

ALONE = 2**18
"""Scores and pixels up to which one thread is enough: starting another one costs some 50 µs."""

SHARES = 4
"""Pieces per thread: some have more borders between classes than others."""

Kernel = Callable[..., None]


_kernels: dict[tuple[str, str], Kernel | None] = {}
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # a thread that the child does not have may hold it


def _kernel(real: str, small: str) -> Kernel | None:
    """Return the loops for scores and labels of these dtypes; `None` where they cannot be had."""
    key = (real, small)
    if key not in _kernels:
        with _lock:
            if key not in _kernels:
                _kernels[key] = _compile(real, small)
    return _kernels[key]


def _compile(real: str, small: str) -> Kernel | None:
    """Import numba and compile, or load from disk. Any failure is told once, as information."""
    if find_spec("numba") is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _build(real, small)
    except Exception as error:  # whatever goes wrong inside numba or LLVM: plain PyTorch gives the same labels
        logger.info("labels are found by plain PyTorch, because numba failed: %s: %s", type(error).__name__, error)
        return None


def _build(real: str, small: str) -> Kernel:
    import numba
    from numba import types

    from fcnzoo.ops.compiled_argmax import label_rows

    number, label = getattr(types, real), getattr(types, small)
    line, flags = types.Array(types.int32, 1, "C"), types.Array(types.boolean, 1, "C")
    axis = (line, line, types.Array(number, 2, "C"), flags)
    scores, labels = types.Array(number, 4, "A", readonly=True), types.Array(label, 3, "A")
    signature = types.void(scores, *axis, *axis, labels, types.intp, types.intp)
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}}
    try:
        return numba.njit(signature, cache=True, **options)(label_rows)
    except (OSError, RuntimeError) as error:  # no folder to write to, or a full disk
        logger.info("compiled code is not kept on disk: %s", error)
        return numba.njit(signature, **options)(label_rows)


def label(scores: Tensor, grid: Grid, out: Tensor) -> bool:
    """Fill `out` (B, H, W) with labels, and return whether that was possible.

    Args:
        scores: (B, K, h, w), float32 or float64, on the CPU.
        grid: Where pixels lie on the scores.
        out: uint8 or int16 labels, on the CPU.
    """
    if os.environ.get(SWITCH) == "0":
        return False
    kernel = _kernel(str(scores.dtype).removeprefix("torch."), str(out.dtype).removeprefix("torch."))
    if kernel is None:
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

    share(itertools.pairwise(bounds), lambda begin, end: kernel(values, *axes, labels, begin, end), threads)
    return True
