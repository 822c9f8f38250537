"""From features to scores: the FCNHead of torchvision and mmsegmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fcnzoo.backbones.base import FeatureInfo
from fcnzoo.config import DilatedHeadConfig
from fcnzoo.errors import BackboneError


class DilatedHead(nn.Module):
    """The FCNHead of torchvision and mmsegmentation on one feature map.

    torchvision: 3×3 convolution to a quarter of the channels, BatchNorm, ReLU, dropout 0.1, 1×1 convolution
    (`torchvision/models/segmentation/fcn.py`). mmsegmentation: several convolutions, and the features
    concatenated before one more (`mmseg/models/decode_heads/fcn_head.py`).

    Args:
        config: Which head.
        features: What the backbone gives.
        num_classes: K.
        depth: Which feature is scored: −1 the last, −2 the one before it (the aux head's).
        name: What to call the backbone in errors.

    Attributes:
        grid: Where image pixels lie on the scores.
        taps: Index of the scored feature.

    Raises:
        BackboneError: The backbone has fewer features than `depth` asks for.
    """

    def __init__(
        self, config: DilatedHeadConfig, features: Sequence[FeatureInfo], num_classes: int, name: str, depth: int = -1
    ) -> None:
        super().__init__()
        if len(features) < -depth:
            have = ", ".join(f"{info.reduction} ({info.tap})" for info in features)
            raise BackboneError(f"{name}: the aux head needs {-depth} features, there are {len(features)}: {have}")
        self.taps = (len(features) + depth,)
        info = features[depth]
        self.grid = info.grid.replace(align_corners=True) if config.align_corners else info.grid
        width = config.hidden_channels or max(info.channels // 4, 1)
        self.convs = nn.Sequential(
            *(conv_norm_relu(info.channels if i == 0 else width, width) for i in range(config.num_convs))
        )
        self.mix = conv_norm_relu(info.channels + width, width) if config.concat_input else None
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Score one feature map: (B, K, h, w) of its size."""
        hidden = self.convs(features[self.taps[0]])
        if self.mix is not None:
            hidden = self.mix(torch.cat([features[self.taps[0]], hidden], dim=1))
        return self.score(self.dropout(hidden))


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size of a map, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
