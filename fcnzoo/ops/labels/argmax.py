"""From scores to labels, and to counts of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fcnzoo.ops.checks import check_labels, check_scores, check_target, label_dtype
from fcnzoo.ops.labels import compiled as compiled_route
from fcnzoo.ops.labels import cuda as triton_argmax
from fcnzoo.ops.labels.plain import label_cells, label_strips
from fcnzoo.ops.upsample import upsample

if TYPE_CHECKING:
    from fcnzoo.config import Grid

COUNTED = 2**20
"""Pixels that `upsample_confusion` counts at a time on a CPU: their indices take 8 MiB."""


def _check(scores: Tensor, size: tuple[int, int], out: Tensor | None) -> None:
    check_scores(scores, size)
    batch, classes, *cells = scores.shape
    if classes > 2**15:
        raise ValueError(f"labels of {classes} classes do not fit int16; at most {2**15} classes")
    if not classes or not min(cells):
        raise ValueError(f"scores must have K, h, w ≥ 1, got shape {tuple(scores.shape)}")
    if out is None:
        return
    want, dtype = (batch, *size), label_dtype(classes)
    if tuple(out.shape) != want or out.dtype != dtype or out.device != scores.device:
        raise ValueError(
            f"out must be {dtype} of shape {want} on {scores.device}, "
            f"got {out.dtype} of shape {tuple(out.shape)} on {out.device}"
        )


def _is_traced(scores: Tensor) -> bool:
    """Whether somebody records what is done instead of doing it."""
    if torch.compiler.is_compiling() or scores.is_meta or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return True
    return type(scores) not in (Tensor, torch.nn.Parameter)


def upsample_argmax(scores: Tensor, grid: Grid, size: tuple[int, int], *, out: Tensor | None = None) -> Tensor:
    """Return the class with the highest upsampled score at every pixel, without upsampling the scores.

    On a CPU, loops that numba compiles do the work where it is installed (`pip install "fcnzoo[fast]"`); else
    plain PyTorch does, a few rows at a time. The first call imports numba (about a second) and, once per
    machine, compiles (about ten seconds); the code is kept on disk. `FCNZOO_COMPILED=0` in the environment
    turns that off. As many threads are used as PyTorch uses. On CUDA devices a Triton kernel does the work where
    Triton is there. Under `torch.compile` and in exports this is `upsample(…).argmax(1)`.

    Args:
        scores: (B, K, h, w), floating point. Half precision is weighted and compared in float32.
        grid: Where pixels lie on the scores.
        size: (H, W) of the image.
        out: (B, H, W), to be filled: of the dtype named below, on the device of `scores`.

    Returns:
        Labels (B, H, W): uint8 up to 256 classes, else int16. Of equal scores the lower class wins;
        NaN counts as the highest, as in `torch.argmax`.

    Raises:
        ValueError: `scores` is not 4-D or empty, `size` is empty, K is above 32,768, or `out` does not fit.
        TypeError: `scores` is not floating point.
    """
    _check(scores, size, out)
    dtype = label_dtype(scores.shape[1])
    if _is_traced(scores):
        labels = upsample(scores, grid, size).argmax(1).to(dtype)
        return labels if out is None else out.copy_(labels)
    scores = scores.detach()
    if scores.dtype != torch.float64:
        scores = scores.float()
    labels = torch.empty((scores.shape[0], *size), dtype=dtype, device=scores.device) if out is None else out
    if not labels.numel():
        return labels
    if scores.is_cuda and triton_argmax.label(scores, grid, labels):
        return labels
    if scores.device.type != "cpu":
        label_strips(scores, grid, labels)
    elif not compiled_route.label(scores, grid, labels):
        label = label_cells if all(end.isfinite() for end in scores.aminmax()) else label_strips
        label(scores, grid, labels)
    return labels


def upsample_confusion(scores: Tensor, target: Tensor, grid: Grid, *, ignore_index: int = 255) -> Tensor:
    """Count how often each class was taken for each class.

    Args:
        scores: (B, K, h, w), floating point.
        target: (B, H, W) integers: labels 0…K−1, or `ignore_index`.
        grid: Where pixels lie on the scores.
        ignore_index: Target value that is not counted.

    Returns:
        Counts (K, K), int64; rows are the truth, columns the prediction.

    Raises:
        LabelError: `target` holds another value.
        ValueError: Shapes do not fit.
    """
    size = check_target(scores, target)
    classes = scores.shape[1]
    predicted = upsample_argmax(scores, grid, size)
    counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=scores.device)
    rows = max(1, COUNTED // size[1]) if target.device.type == "cpu" else size[0]
    for truth, labels in zip(target, predicted, strict=True):
        for some, found in zip(truth.split(rows), labels.split(rows), strict=True):
            # int64 first: against a uint8 tensor PyTorch would wrap the ignore index (−1 is 255 there).
            wide = some.long()
            check_labels(wide, classes, ignore_index)
            # What is not counted goes into a bin of its own; picking pixels out would take longer.
            index = torch.where(wide == ignore_index, classes**2, wide * classes + found)
            counts += torch.bincount(index.flatten(), minlength=classes**2 + 1)
    return counts[:-1].view(classes, classes)
