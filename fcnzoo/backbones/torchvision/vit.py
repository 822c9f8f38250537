"""torchvision's vision transformers as feature maps, for images of any size."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from fcnzoo.backbones.base import FeatureInfo

TAPS = 3
"""Depths that are taken: one for each level of the skip heads."""


class VisionTransformerMaps(nn.Module):
    """Outputs of a vision transformer's blocks, as maps.

    Three blocks are taken, evenly spaced, the last one last: 4, 8 and 12 of 12. A map is the block's own
    output, the residual stream, without the encoder's final norm, which serves the class token (no other block has
    one, and the heads normalize). The class token goes through the encoder and is dropped from the maps.

    Args:
        classifier: torchvision's; its parts become this module's and keep their names.

    Attributes:
        patch: Pixels per token.
        infos: What `forward` returns.
    """

    def __init__(self, classifier: VisionTransformer) -> None:
        super().__init__()
        self.class_token = classifier.class_token
        self.conv_proj = classifier.conv_proj
        self.encoder: Any = classifier.encoder
        # Without it no parameter stays without a gradient.
        self.encoder.ln = nn.Identity()
        self.patch = classifier.patch_size
        depth = len(self.encoder.layers)
        self._taken = tuple(math.ceil(depth * (i + 1) / TAPS) - 1 for i in range(TAPS))
        self.infos = tuple(
            FeatureInfo(self.patch, classifier.hidden_dim, f"encoder.layers.encoder_layer_{i}") for i in self._taken
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return maps (B, D, H / patch, W / patch) of an image whose sides the patch divides."""
        patches = self.conv_proj(image)
        batch, width, rows, columns = patches.shape
        tokens = torch.cat([self.class_token.expand(batch, -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = self.encoder.dropout(tokens + self.positions(rows, columns))
        maps = []
        for i, block in enumerate(self.encoder.layers):
            tokens = block(tokens)
            if i in self._taken:
                maps.append(tokens[:, 1:].transpose(1, 2).reshape(batch, width, rows, columns))
        return maps

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the position embedding of a map, (1, 1 + rows · columns, D).

        As `torchvision.models.vision_transformer.interpolate_embeddings` does it: bicubic between the corners.
        """
        table = self.encoder.pos_embedding
        side = math.isqrt(table.shape[1] - 1)
        if (rows, columns) == (side, side):
            return table
        grid = table[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=True)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
