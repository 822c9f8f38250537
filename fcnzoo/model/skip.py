"""From features to scores: the skip fusion of Long et al. 2015."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnzoo.backbones.base import FeatureInfo
from fcnzoo.config import Grid, SkipHeadConfig
from fcnzoo.errors import BackboneError
from fcnzoo.ops import upsample

FIT = Grid()
LEVELS = (32, 16, 8)
"""Strides at which the skip heads score, coarsest first."""

_NORMAL_STD = 0.03
"""Of `init="normal"`: val mean IoU on CamVid after 9 epochs 0.662, from zero 0.576 (same seed, same everything)."""

UPSCORE = Grid(stride=2, offset=-1, border="zeros")
"""The paper's `upscore2` and `upscore_pool4`: a transposed convolution of kernel 4 and stride 2, not cropped."""


def bilinear_kernel(stride: int) -> Tensor:
    """Return the (2·stride, 2·stride) kernel with which a transposed convolution interpolates bilinearly.

    Source: Caffe's `filler.hpp` (BilinearFiller) and d2l, section 14.11.2.
    """
    size = 2 * stride
    ramp = 1 - (torch.arange(size, dtype=torch.float64) - (stride - 0.5)).abs() / stride
    return ramp[:, None] * ramp[None, :]


class SkipHead(nn.Module):
    """FCN-32s, 16s, 8s: score every feature, bring coarse scores to the finer grid, add.

    Scoring comes before upsampling, so that everything after the backbone has K channels only. Where
    features fit the image, coarse scores are resized to the finer map; in the paper's padded geometry
    they are upsampled by 2 and the finer scores are cropped, as in the published prototxt.

    Args:
        config: Which head.
        features: What the backbone gives.
        num_classes: K.
        name: What to call the backbone in errors.

    Attributes:
        grid: Where image pixels lie on the scores.
        taps: Index of each scored feature, coarsest first; see `assign_taps`.
        levels: The level of each: 32, 16, 8 and what `detail` adds. Score layers are called by it.

    Raises:
        BackboneError: The backbone lacks a reduction that `detail` asks for.
    """

    def __init__(self, config: SkipHeadConfig, features: Sequence[FeatureInfo], num_classes: int, name: str) -> None:
        super().__init__()
        taps = {level: tap for level, tap in assign_taps(features).items() if level >= config.stride}
        for level in config.detail:
            taps[level] = _detail(features, level, name, min(taps.values()))
        self.levels, self.taps = tuple(taps), tuple(taps.values())
        infos = [features[tap] for tap in self.taps]
        self.subpixel = config.subpixel
        self.dropout = nn.Dropout(config.dropout)
        self.score = nn.ModuleDict()
        for level, info in zip(self.levels, infos, strict=True):
            outputs = num_classes * (config.subpixel**2 if level == self.levels[-1] else 1)
            hidden = config.detail_channels if level in config.detail else config.hidden_channels
            self.score[str(level)] = _scorer(config, info.channels, hidden, outputs)
        # A tap that serves a second, finer level is brought to that level's grid: rows per row of the tap.
        self._finer = tuple(
            max(info.reduction / level, 1.0) if tap in self.taps[:i] and config.upsampling == "bilinear" else 1.0
            for i, (level, tap, info) in enumerate(zip(self.levels, self.taps, infos, strict=True))
        )
        self._crops, self.grid = _alignment(infos)
        if self.subpixel > 1 and self.grid.stride is not None:
            raise BackboneError(f"{name}: subpixel={self.subpixel} needs features that fit the image (geometry='same')")
        self.deconv: nn.ConvTranspose2d | None = None
        if config.upsampling != "bilinear":
            stride = infos[-1].reduction
            if stride % 2:
                raise BackboneError(f"{name}: upsampling={config.upsampling!r} needs an even reduction, not {stride}")
            self.deconv = _deconvolution(num_classes, stride, depthwise=config.upsampling == "deconv_depthwise")
            self.grid = Grid(stride=1, offset=self.grid.offset, border=self.grid.border)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Fuse the features to scores (B, K, h, w) of the finest one's size (times `subpixel`)."""
        scorers = list(self.score.values())
        scores = self._score(scorers[0], features[self.taps[0]])
        for scorer, tap, times, crop in zip(scorers[1:], self.taps[1:], self._finer[1:], self._crops, strict=True):
            finer = self._score(scorer, features[tap])
            if times > 1:
                finer = upsample(finer, FIT, (round(finer.shape[-2] * times), round(finer.shape[-1] * times)))
            if crop is None:
                finer = self._spread(finer) if scorer is scorers[-1] else finer
                scores = upsample(scores, FIT, (finer.shape[-2], finer.shape[-1])) + finer
            else:
                scores = _fuse_padded(scores, finer, crop)
        if len(scorers) == 1:
            scores = self._spread(scores)
        return scores if self.deconv is None else self.deconv(scores)

    def _score(self, scorer: nn.Module, feature: Tensor) -> Tensor:
        """Score a feature. Hidden layers have their own dropout; it is not the scorer's, whose weights keep names."""
        return scorer(self.dropout(feature) if isinstance(scorer, nn.Conv2d) else feature)

    def _spread(self, scores: Tensor) -> Tensor:
        return F.pixel_shuffle(scores, self.subpixel) if self.subpixel > 1 else scores


def assign_taps(features: Sequence[FeatureInfo]) -> dict[int, int]:
    """Choose which feature serves which level of the skip fusion.

    Networks of five stages have features at 32, 16 and 8, and these are it. The others (patches of one size,
    pyramids that begin at 16 or end at 16) are served by one rule: every level gets a feature of its own, the
    deeper the coarser the level; among such choices the one whose reductions are nearest to the levels
    (least sum of |log2(reduction / level)|), then the deepest. Scores stay at the resolution of the features
    that they come from. Where there are fewer features than levels, the finest serves the remaining levels too,
    its scores brought to their grid.

    The choice is one for the three heads (FCN-32s takes the first, 16s the first two), so that a finished 32s
    is the beginning of a 16s.

    Args:
        features: What the backbone gives, finest first, deepest last.

    Returns:
        `{32: i, 16: j, 8: k}`: indices of features.
    """
    count = min(len(features), len(LEVELS))
    best = min(
        # Deepest first, so that of equally near choices `min` keeps the deepest.
        itertools.combinations(range(len(features) - 1, -1, -1), count),
        key=lambda taps: round(sum(_distance(features[i], level) for i, level in zip(taps, LEVELS, strict=False)), 6),
    )
    return dict(zip(LEVELS, best + best[-1:] * (len(LEVELS) - count), strict=True))


def _distance(info: FeatureInfo, level: int) -> float:
    return abs(math.log2(info.reduction / level))


def _detail(features: Sequence[FeatureInfo], reduction: int, name: str, before: int) -> int:
    """Return the last feature of a reduction that lies before the finest tap so far."""
    found = [i for i, info in enumerate(features[:before]) if info.reduction == reduction]
    if not found:
        have = ", ".join(f"{info.reduction} ({info.tap})" for info in features)
        raise BackboneError(
            f"{name} has no features at reduction {reduction} before those of the skip fusion, which detail asks for; "
            f"there are {have}"
        )
    return found[-1]


def _scorer(config: SkipHeadConfig, channels: int, hidden: int, outputs: int) -> nn.Module:
    score = nn.Conv2d(hidden or channels, outputs, 1)
    if config.init == "zero":
        nn.init.zeros_(score.weight)
    elif config.init == "xavier":
        nn.init.xavier_uniform_(score.weight)
    else:
        nn.init.normal_(score.weight, std=_NORMAL_STD)
    if score.bias is not None:
        nn.init.zeros_(score.bias)
    if not hidden:
        return score
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(config.dropout),
        score,
    )


def _alignment(infos: Sequence[FeatureInfo]) -> tuple[tuple[int | None, ...], Grid]:
    """How each finer map meets the fused coarser scores, and where the image lies on the result.

    In the padded geometry the fused scores lie at (p + 0.5 + o) / 2s − 0.5. Upsampled by 2 without a crop
    (offset −1) they lie at (p + 0.5 + o + s) / s − 0.5, the finer scores at (p + 0.5 + f) / s − 0.5: so
    (f − o − s) / s rows and columns of the finer scores come before them and are cropped. For the paper's
    offsets that gives the prototxt's 5 (pool4) and 9 (pool3), and final crops of 27 and 31.

    Args:
        infos: The scored features, coarsest first.

    Returns:
        For each finer feature the crop, or `None` where coarse scores are resized to it; the grid.
    """
    if any(info.grid.stride is None for info in infos):
        return (None,) * (len(infos) - 1), FIT
    offset = infos[0].grid.offset
    crops = []
    for info in infos[1:]:
        crops.append(round((info.grid.offset - offset - info.reduction) / info.reduction))
        offset += info.reduction
    return tuple(crops), infos[-1].grid.replace(offset=offset)


def _fuse_padded(scores: Tensor, finer: Tensor, crop: int) -> Tensor:
    height, width = (2 * cells + 2 for cells in scores.shape[-2:])
    return upsample(scores, UPSCORE, (height, width)) + finer[..., crop : crop + height, crop : crop + width]


def _deconvolution(num_classes: int, stride: int, *, depthwise: bool) -> nn.ConvTranspose2d:
    """A transposed convolution that starts as bilinear interpolation (d2l, section 14.11) and learns.

    Its padding of stride / 2 puts the scores of stride 1 where the image's pixels are.
    """
    groups = num_classes if depthwise else 1
    layer = nn.ConvTranspose2d(num_classes, num_classes, 2 * stride, stride, padding=stride // 2, groups=groups)
    if not layer.weight.is_meta:
        kernel = bilinear_kernel(stride).to(layer.weight)
        with torch.no_grad():
            layer.weight.zero_()
            for k in range(num_classes):
                layer.weight[k, 0 if depthwise else k] = kernel
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
