"""The network and its loss as one module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from fcnzoo.ops import upsample

if TYPE_CHECKING:
    from fcnzoo.model.fcn import FCN

Criterion = Callable[[Tensor, Tensor], Tensor]
"""From logits (B, K, H, W) and targets (B, H, W) to a scalar loss."""


def criterion_name(criterion: Criterion | None) -> str | None:
    """Return a name by which a resumed run recognizes its criterion."""
    if criterion is None:
        return None
    kind = criterion if hasattr(criterion, "__qualname__") else type(criterion)
    return f"{kind.__module__}.{kind.__qualname__}"


class Objective(nn.Module):
    """`FCN` plus loss with one `forward`, so that DDP and mixed precision wrap both.

    Args:
        model: The network.
        criterion: An own loss of (logits, target), or `None` for the model's cross-entropy, which
            needs no logits at full size. It is applied to the aux head too, weighted as the config says.
    """

    def __init__(self, model: FCN, criterion: Criterion | None = None) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss of images (B, C, H, W) and targets (B, H, W)."""
        if self.criterion is None:
            return self.model(image, target)
        size = (target.shape[1], target.shape[2])
        scores = self.model.scores(image, aux=self.model.aux_head is not None)
        loss = self.criterion(upsample(scores.main, scores.grid, size), target)
        if scores.aux is not None and scores.aux_grid is not None:
            aux = self.criterion(upsample(scores.aux, scores.aux_grid, size), target)
            loss = loss + self.model.config.loss.aux_weight * aux
        return loss
