"""The training loss on CUDA devices: when the Triton kernels are taken."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from torch import Tensor

from fcnzoo.ops.axis import axis_taps
from fcnzoo.ops.loss.plain import Sums, Terms

if TYPE_CHECKING:
    from fcnzoo.config import Grid

logger = logging.getLogger("fcnzoo")


@lru_cache(maxsize=32)
def _tell(why: str) -> None:
    """Say it once, not at every step of a training."""
    logger.info("the loss is found by plain PyTorch, because Triton %s", why)


@lru_cache(maxsize=1)
def _launcher() -> Callable[..., tuple[Tensor, Tensor, Tensor | None]] | None:
    try:
        from fcnzoo.ops.loss.kernel import launch
    except ImportError as error:
        _tell(f"is missing: {error}")
        return None
    return launch


def triton_loss(scores: Tensor, target: Tensor, grid: Grid, terms: Terms, *, gradient: bool) -> Sums | None:
    """Sum the cross-entropy of the upsampled scores over each image, as `strip_loss`.

    A label outside 0…K−1 that is not ignored trips an assertion of PyTorch on the device.

    Args:
        scores: (B, K, h, w), float32 or float64.
        target: (B, H, W) integers, on the same device.
        grid: Where pixels lie on the scores.
        terms: Weights and smoothing, on the same device.
        gradient: Whether the gradient is wanted.

    Returns:
        The sums; `None` where Triton is missing or fails, or there is nothing to sum.
    """
    launch = _launcher() if scores.numel() and target.numel() else None
    if launch is None:
        return None
    down, across = (axis_taps(grid, target.shape[1 + i], scores.shape[2 + i], scores.device) for i in (0, 1))
    try:
        sums, wrong, made = launch(scores.detach(), target, down, across, terms, gradient=gradient)
    except Exception as error:  # a device or driver that this Triton does not know
        _tell(f"failed: {type(error).__name__}: {error}")
        return None
    # Triton's own assertions are off unless it debugs. `wrong` is 0, or K: PyTorch's gather asserts on that,
    # and nobody has to wait for the device.
    terms.weight.expand(wrong.shape[0], -1).gather(1, wrong)
    loss, total = sums.sum(2).to(scores.dtype)
    return Sums(loss, total, made)
