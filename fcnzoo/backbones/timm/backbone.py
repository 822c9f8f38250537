"""Backbones from timm, through its `features_only` interface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models import is_model, model_entrypoint
from torch import Tensor, nn

from fcnzoo.backbones.base import Backbone, FeatureInfo, Pretrained, resize_to_stride
from fcnzoo.backbones.dilation.rule import dilate, meta_run
from fcnzoo.backbones.timm.create import create_network
from fcnzoo.backbones.timm.families import TimmFamily, find_family
from fcnzoo.backbones.timm.layers import restate_as_layers
from fcnzoo.config import BackboneConfig, Preprocess, fit_channels
from fcnzoo.errors import BackboneError, UnknownModelError
from fcnzoo.files.records import near


class TimmBackbone(Backbone):
    """Any timm network, cut at the ends of its stages, or at three depths where it has no stages.

    What a family needs to run on any image is in `backbones/timm/families.py`. Features are timm's own
    (`features_only=True`); transformers' are the residual stream of a block, without the network's final norm.

    Args:
        config: `name` is `"timm/<architecture>[.<tag>]"`.
        pretrained: Whose weights; see `Pretrained`.

    Raises:
        UnknownModelError: timm has no such network.
        BackboneError: It cannot be built with these options.
        WeightsError: The weights cannot be had or do not fit.
    """

    def __init__(self, config: BackboneConfig, pretrained: Pretrained = False) -> None:
        super().__init__()
        self.config = config
        if not is_model(config.architecture):
            known = timm.list_models()
            raise UnknownModelError(
                f"timm {timm.__version__} has no {config.architecture!r}.{near(config.architecture, known)}"
            )
        self.family = _family(config)
        self.fixed_size = _fixed_size(config, self.family)
        self.adapter = _adapter(config, self.family)
        self.network, native = create_network(config, self.family, pretrained)
        cfg: dict[str, Any] = self.network.pretrained_cfg
        info: Any = self.network.feature_info
        reductions = [int(reduction) for reduction in info.reduction()]
        self._reductions = self._dilate(reductions, native=native)
        self.features = tuple(
            FeatureInfo(reduction=min(reduction, config.output_stride or reduction), channels=int(channels), tap=tap)
            for reduction, channels, tap in zip(
                self._reductions, info.channels(), _tap_names(self.network), strict=True
            )
        )
        self.size_multiple = _size_multiple(config, self.family, cfg, reductions)
        self.note = self.family.note or (
            f"its tables are of one size: images are resized to {self.fixed_size[0]}×{self.fixed_size[1]} "
            "(config.image_size may choose another)"
            if self.fixed_size
            else ""
        )
        self._channels_last = str(getattr(self.network, "output_fmt", "NCHW")).endswith("NHWC")
        if self.family.tokens:
            self.network.output_fmt = type(self.network.output_fmt)("NLC")
        self.preprocess = _preprocess(cfg, config.in_channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features, finest first: (B, C_i, ⌈H / r_i⌉, ⌈W / r_i⌉).

        Raises:
            BackboneError: timm's features do not have the size that their reduction says.
        """
        size = (image.shape[-2], image.shape[-1])
        if self.adapter is not None:
            image = self.adapter(image)
        before, after = self.family.margin
        features: Sequence[Tensor] = self.network(F.pad(image, (before, after) * 2) if before or after else image)
        if self._channels_last:
            features = [feature.permute(0, 3, 1, 2) for feature in features]
        if self.family.tokens:
            features = [
                feature.transpose(1, 2).unflatten(2, (size[0] // reduction, size[1] // reduction))
                for feature, reduction in zip(features, self._reductions, strict=True)
            ]
        if before or after:
            features = self._crop(features, size)
        # Compiled and traced code would be bound to one size by a look at it.
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):  # pyright: ignore[reportPrivateImportUsage]
            self._check_sizes(features, size)
        if self.dilation == "emulated" and self.config.output_stride is not None:
            return resize_to_stride(features, self.config.output_stride, size)
        return list(features)

    def _crop(self, features: Sequence[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Keep the cells that lie on the image, without those of the margin."""
        cropped = []
        centers = self.family.centers or (None,) * len(features)
        for feature, reduction, center in zip(features, self._reductions, centers, strict=True):
            # The first cell to keep is that whose center is nearest to the center of the first `reduction` pixels.
            first = 0 if center is None else round(((reduction - 1) / 2 + self.family.margin[0] - center) / reduction)
            rows, columns = (-(-length // reduction) for length in size)
            cropped.append(feature[..., first : first + rows, first : first + columns])
        return cropped

    def _dilate(self, reductions: list[int], *, native: bool) -> list[int]:
        """Reach `config.output_stride` and say how; return the reductions that the network now has."""
        stride = self.config.output_stride
        if stride is None or (max(reductions) <= stride and not native):
            return reductions
        if native:
            self.dilation = "native"
            return reductions
        if self._may_dilate(reductions):
            restate_as_layers(self.network)
            channels = self.family.channels or self.config.in_channels
            run = meta_run(self.network, channels, *([(self.fixed_size,)] if self.fixed_size else []))
            if dilate(self.network, stride, run, global_attention=self.family.global_attention):
                self.dilation = "dilated"
                return [min(reduction, stride) for reduction in reductions]
        self.dilation = "emulated"
        return reductions

    def _may_dilate(self, reductions: list[int]) -> bool:
        """Whether the rule of dilation can have a meaning: not for patches, tables of positions and windows."""
        family = self.family
        isotropic = len(set(reductions)) == 1
        windows = family.multiple is not None
        powers_of_two = all(reduction.bit_count() == 1 for reduction in reductions)
        return (
            powers_of_two
            and not family.centers
            and (family.global_attention or not (isotropic or windows or self.fixed_size))
        )

    def _check_sizes(self, features: Sequence[Tensor], size: tuple[int, int]) -> None:
        for feature, info, reduction in zip(features, self.features, self._reductions, strict=True):
            have = (feature.shape[-2], feature.shape[-1])
            # Where sizes do not divide, networks round up or down.
            low, high = (-1, 1) if self.family.nearly else (0, 0)
            wrong = any(
                not length // reduction + low <= cells <= -(-length // reduction) + high
                for cells, length in zip(have, size, strict=True)
            )
            if wrong or feature.ndim != 4 or feature.shape[1] != info.channels:
                raise BackboneError(
                    f"{self.config.name}: the features of {info.tap} have shape {tuple(feature.shape)} for an image of "
                    f"{size[0]}×{size[1]}, but timm {timm.__version__} says they have {info.channels} channels at "
                    f"reduction {reduction}; this network needs a record in backbones/timm/families.py"
                )


def _family(config: BackboneConfig) -> TimmFamily:
    name = config.architecture.partition(".")[0]
    return find_family(model_entrypoint(name).__module__.rpartition(".")[2], name)


def _adapter(config: BackboneConfig, family: TimmFamily) -> nn.Conv2d | None:
    """A 1×1 convolution to the channels a network takes, where it takes one number only.

    It starts as what timm's adaptation of a first convolution (`adapt_input_conv`) does to the weights: a single
    channel counts as each of the network's, others as one of them in turn, scaled so that sums stay.
    """
    if family.channels is None or family.channels == config.in_channels:
        return None
    layer = nn.Conv2d(config.in_channels, family.channels, 1, bias=False)
    if not layer.weight.is_meta:
        with torch.no_grad():
            layer.weight.zero_()
            if config.in_channels == 1:
                layer.weight.fill_(1)
            for i in range(config.in_channels if config.in_channels > 1 else 0):
                layer.weight[i % family.channels, i] = family.channels / config.in_channels
    return layer


def _fixed_size(config: BackboneConfig, family: TimmFamily) -> tuple[int, int] | None:
    """Return the one size the network takes, if it takes only one."""
    try:
        cfg: Any = timm.get_pretrained_cfg(config.architecture)
    except RuntimeError as error:
        raise BackboneError(f"{config.name} cannot be built: {error}") from error
    wanted = config.image_size
    if family.size == "pad" or (family.size is None and not getattr(cfg, "fixed_input_size", False)):
        if wanted is not None:
            raise BackboneError(f"{config.name} takes images of any size: leave image_size={wanted} out")
        return None
    own = (int(cfg.input_size[-2]), int(cfg.input_size[-1]))
    if wanted is not None and family.size == "square" and wanted[0] != wanted[1]:
        raise BackboneError(f"{config.name} takes square images only, not image_size={wanted}")
    if wanted not in (None, own) and family.size == "native":
        raise BackboneError(f"{config.name} can only be built for image_size={own}, not {wanted}")
    return wanted or own


def _size_multiple(config: BackboneConfig, family: TimmFamily, cfg: dict[str, Any], reductions: list[int]) -> int:
    """The multiple images are padded to.

    Dilation moves the coarsest reduction, not what poolings and skip additions inside the network ask of odd
    sizes; at 32 every pyramid of timm stays whole.
    """
    if config.size_multiple is not None:
        return config.size_multiple
    if family.multiple == "native":
        return math.lcm(max(reductions), *(int(side) for side in cfg["input_size"][-2:]))
    coarsest = max(reductions)
    if len(set(reductions)) > 1 and config.output_stride is not None:
        coarsest = max(32, coarsest)
    return math.lcm(coarsest, family.multiple or 1)


def _tap_names(network: Any) -> list[str]:
    return [str(name) for name in network.feature_info.module_name()]


def _preprocess(cfg: dict[str, Any], in_channels: int) -> Preprocess:
    mean = tuple(float(value) for value in cfg.get("mean") or Preprocess().mean)
    std = tuple(float(value) for value in cfg.get("std") or Preprocess().std)
    interpolation = cfg.get("interpolation")
    return Preprocess(
        mean=fit_channels(mean, in_channels),
        std=fit_channels(std, in_channels),
        interpolation=interpolation if interpolation in ("bilinear", "bicubic", "nearest") else "bilinear",
    )
