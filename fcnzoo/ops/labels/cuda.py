"""Labels from low-resolution scores on CUDA devices: when the Triton kernel is taken."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from torch import Tensor

from fcnzoo.ops.axis import axis_taps

if TYPE_CHECKING:
    from fcnzoo.config import Grid

logger = logging.getLogger("fcnzoo")


@lru_cache(maxsize=1)
def _launcher() -> Callable[..., None] | None:
    try:
        from fcnzoo.ops.labels.kernel import launch
    except ImportError as error:
        logger.info("labels are found by plain PyTorch, because Triton is missing: %s", error)
        return None
    return launch


def label(scores: Tensor, grid: Grid, out: Tensor) -> bool:
    """Fill `out` (B, H, W) with labels, and return whether that was possible.

    Args:
        scores: (B, K, h, w), float32 or float64.
        grid: Where pixels lie on the scores.
        out: uint8 or int16 labels.
    """
    launch = _launcher()
    if launch is None:
        return False
    down, across = (axis_taps(grid, out.shape[1 + i], scores.shape[2 + i], scores.device) for i in (0, 1))
    try:
        launch(scores, down, across, out)
    except Exception as error:  # a device or driver that this Triton does not know
        logger.info("labels are found by plain PyTorch, because Triton failed: %s: %s", type(error).__name__, error)
        return False
    return True
