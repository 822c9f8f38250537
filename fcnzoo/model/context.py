"""From features to scores with global context: the head of DeepLabV3, and Lite R-ASPP."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnzoo.backbones.base import FeatureInfo
from fcnzoo.config import ContextHeadConfig, LRASPPHeadConfig
from fcnzoo.errors import BackboneError
from fcnzoo.model.dilated import conv_norm_relu
from fcnzoo.model.skip import FIT
from fcnzoo.ops import upsample


class ImagePooling(nn.Module):
    """The mean of an image's features, through a 1×1 convolution, BatchNorm and ReLU: what the image is about.

    In training, one image alone gives one value per channel, which has no statistics: BatchNorm then normalizes by its
    running ones, and leaves these as they are. (A SyncBatchNorm sees the other processes' images.)

    Args:
        inputs: Channels of the features.
        outputs: Channels of the result.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, `outputs`, 1, 1) for features (B, `inputs`, h, w)."""
        pooled = self.conv(features.mean((2, 3), keepdim=True))
        norm = self.norm
        if type(norm) is nn.BatchNorm2d and norm.training and pooled.shape[0] == 1:
            statistics = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
            return F.batch_norm(pooled, *statistics, training=False, eps=norm.eps).relu()
        return norm(pooled).relu()


class ContextHead(nn.Module):
    """Global context beside local features: the head of DeepLabV3 (ASPP), of which FCN plus ParseNet is the least form.

    A 1×1 convolution and, if there are `rates`, 3×3 convolutions of these dilations see the last feature; image-level
    pooling (`ImagePooling`) sees all of it at once. What they give is concatenated, projected by a 1×1 convolution,
    and scored. Every convolution but the score layer has a BatchNorm and a ReLU.

    Source: `torchvision/models/segmentation/deeplabv3.py`; Chen et al. 2017, section 3.3 and figure 5.

    Args:
        config: Which head.
        features: What the backbone gives.
        num_classes: K.

    Attributes:
        grid: Where image pixels lie on the scores.
        taps: Index of the scored feature: the last.
    """

    def __init__(self, config: ContextHeadConfig, features: Sequence[FeatureInfo], num_classes: int) -> None:
        super().__init__()
        info, width = features[-1], config.hidden_channels
        self.taps = (len(features) - 1,)
        self.grid = info.grid.replace(align_corners=True) if config.align_corners else info.grid
        self.branches = nn.ModuleList(
            [
                conv_norm_relu(info.channels, width, 1),
                *(conv_norm_relu(info.channels, width, 3, rate) for rate in config.rates),
            ]
        )
        self.pooling = ImagePooling(info.channels, width)
        self.project = conv_norm_relu((len(self.branches) + 1) * width, width, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.convs = nn.Sequential(*(conv_norm_relu(width, width, 3) for _ in range(config.num_convs)))
        self.score = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Score the last feature map: (B, K, h, w) of its size."""
        feature = features[self.taps[0]]
        local = [branch(feature) for branch in self.branches]
        hidden = torch.cat([*local, self.pooling(feature).expand_as(local[0])], dim=1)
        return self.score(self.convs(self.dropout(self.project(hidden))))


class LRASPPHead(nn.Module):
    """Lite R-ASPP: the last feature, gated channel by channel by its own mean, plus a finer feature's scores.

    The finer feature is the one before the last whose reduction is nearest to 8 (in octaves; of equally near ones the
    deepest), as in the paper. Coarse scores are resized, where the publishers resize hidden features and score them
    then: a 1×1 convolution and bilinear sampling may change places, since the weights of a sample sum to 1.

    Source: `torchvision/models/segmentation/lraspp.py`; Howard et al. 2019, section 6.4 and figure 10.

    Args:
        config: Which head.
        features: What the backbone gives.
        num_classes: K.
        name: What to call the backbone in errors.

    Attributes:
        grid: Where image pixels lie on the scores.
        taps: Indices of the last feature and of the finer one.

    Raises:
        BackboneError: The features do not lie on the image (the paper's padded geometry).
    """

    def __init__(self, config: LRASPPHeadConfig, features: Sequence[FeatureInfo], num_classes: int, name: str) -> None:
        super().__init__()
        last = len(features) - 1
        self.taps = (last, min(range(max(last, 1)), key=lambda i: (abs(math.log2(features[i].reduction / 8)), -i)))
        high, low = (features[tap] for tap in self.taps)
        if high.grid.stride is not None:
            raise BackboneError(f"{name}: the head lraspp needs features that fit the image (geometry='same')")
        self.grid = low.grid
        self.hidden = conv_norm_relu(high.channels, config.hidden_channels, 1)
        self.gate = nn.Conv2d(high.channels, config.hidden_channels, 1, bias=False)
        self.score_high = nn.Conv2d(config.hidden_channels, num_classes, 1)
        self.score_low = nn.Conv2d(low.channels, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Score two feature maps: (B, K, h, w) of the finer one's size."""
        high, low = (features[tap] for tap in self.taps)
        gate = self.gate(high.mean((2, 3), keepdim=True)).sigmoid()
        fine = self.score_low(low)
        return upsample(self.score_high(self.hidden(high) * gate), FIT, (fine.shape[-2], fine.shape[-1])) + fine
