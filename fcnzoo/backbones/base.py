"""The extraction contract: features by reduction, finest first, and what the network asks of the image."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from fcnzoo.config import BackboneConfig, Grid, Preprocess
from fcnzoo.errors import BackboneError
from fcnzoo.files.records import Record

Pretrained: TypeAlias = bool | str | Path
"""`False`: random weights; `True`: the provider's own; a path: a local safetensors file."""

Dilation: TypeAlias = Literal["none", "native", "dilated", "emulated"]
"""How a backbone reaches an output stride; see `Backbone`."""

logger = logging.getLogger("fcnzoo")


@dataclass(frozen=True)
class FeatureInfo(Record):
    """One feature map of a backbone.

    Attributes:
        reduction: Image pixels per feature.
        channels: C.
        tap: Name of the module or graph node it is taken from.
        grid: Where image pixels lie on it; `Grid()` fits it to the (padded) image.
    """

    reduction: int
    channels: int
    tap: str
    grid: Grid = field(default_factory=Grid)


class Backbone(nn.Module):
    """A network cut open: image (B, C, H, W) in, a list of NCHW features out, finest first.

    Subclasses set the attributes below and implement `forward`. The model around it pads images as
    they ask, so that callers never see it.

    Attributes:
        config: What it was built from.
        features: One `FeatureInfo` per feature that `forward` returns.
        preprocess: What the loaded weights, or else the provider's default ones, were trained on.
        size_multiple: Image sides must be a multiple of this.
        min_size: Image sides must be at least this.
        fixed_size: (H, W) that images are resized to, for networks that take no other; `None`: they are padded.
        dilation: How `config.output_stride` was reached: `"none"` was not asked for or had nothing to do,
            `"native"` by the provider's own option, `"dilated"` by the rule of `backbones/dilation/rule.py`,
            `"emulated"` by resizing the coarser features, where dilation has no meaning (windows, patches).
        note: What was done to run this network on any image, in a line for `fcnzoo info`.
    """

    config: BackboneConfig
    features: tuple[FeatureInfo, ...]
    preprocess: Preprocess
    size_multiple: int = 1
    min_size: int = 1
    fixed_size: tuple[int, int] | None = None
    dilation: Dilation = "none"
    note: str = ""

    @property
    def in_channels(self) -> int:
        """Channels of the image."""
        return self.config.in_channels

    def forward(self, image: Tensor) -> list[Tensor]:  # noqa: ARG002 - the contract of subclasses
        """Return the features, finest first: (B, C_i, ⌈H / r_i⌉, ⌈W / r_i⌉)."""
        raise BackboneError(f"{type(self).__name__} does not say how to compute its features")


def resize_to_stride(features: Sequence[Tensor], output_stride: int, size: tuple[int, int]) -> list[Tensor]:
    """Bring features that are coarser than an output stride to it: what dilation would give, by resizing.

    Args:
        features: (B, C_i, h_i, w_i), finest first.
        output_stride: Image pixels per feature of the coarsest result.
        size: (H, W) of the image that the network saw.

    Returns:
        The features; those with fewer than ⌈H / output_stride⌉ rows or ⌈W / output_stride⌉ columns are
        resized to that many, bilinearly.
    """
    height, width = (-(-length // output_stride) for length in size)
    return [
        F.interpolate(feature, size=(height, width), mode="bilinear", align_corners=False)
        if feature.shape[-2] < height or feature.shape[-1] < width
        else feature
        for feature in features
    ]
