"""torchvision's MaxViT on images of any size.

torchvision writes the number of windows of the size it was built for (224×224) into every layer, though no
weight depends on it: windows are 7×7 cells, grids 7×7 strides, and the tables of relative positions have that
size. Here both are counted anew for every image.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.maxvit import PartitionAttentionLayer


class AnySizePartitionAttention(PartitionAttentionLayer):
    """Attention within windows, or within grids, of a map of any size.

    Maps that the window's side does not divide are padded with zeros at their bottom and right and cropped
    afterwards, as torchvision's Swin does (`torchvision/models/swin_transformer.py`,
    `shifted_window_attention`); others go through exactly as in torchvision.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Mix the cells of (B, C, h, w)."""
        batch, channels, height, width = x.shape
        side = self.p if self.partition_type == "window" else self.g
        rows, columns = -(-height // side), -(-width // side)
        x = F.pad(x, (0, columns * side - width, 0, rows * side - height))
        # Windows are `side` cells that lie together, grids are `side` cells that lie as far apart as possible.
        if self.partition_type == "window":
            split, order = (rows, side, columns, side), (0, 2, 4, 3, 5, 1)
        else:
            split, order = (side, rows, side, columns), (0, 3, 5, 2, 4, 1)
        x = x.reshape(batch, channels, *split).permute(order)
        shape = x.shape
        x = x.reshape(batch, rows * columns, side * side, channels)
        x = x + self.stochastic_dropout(self.attn_layer(x))
        x = x + self.stochastic_dropout(self.mlp_layer(x))
        back = [order.index(axis) for axis in range(6)]
        x = x.reshape(shape).permute(back).reshape(batch, channels, rows * side, columns * side)
        return x[..., :height, :width]


def make_any_size(classifier: nn.Module) -> None:
    """Free a MaxViT from its image size, in place."""
    for module in classifier.modules():
        if type(module) is PartitionAttentionLayer:
            module.__class__ = AnySizePartitionAttention
