"""Backbones from torchvision: all of its classifiers."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.feature_extraction import create_feature_extractor

from fcnzoo.backbones.base import Backbone, FeatureInfo, Pretrained, resize_to_stride
from fcnzoo.backbones.dilation.rule import dilate, meta_run
from fcnzoo.backbones.torchvision.margin import Margin, find_margin, poolings_as_modules
from fcnzoo.backbones.torchvision.maxvit import make_any_size
from fcnzoo.backbones.torchvision.taps import TRACING, block_of, find_taps
from fcnzoo.backbones.torchvision.vit import VisionTransformerMaps
from fcnzoo.backbones.torchvision.weights import (
    adapt_first_convolution,
    build_classifier,
    classifier_on_meta,
    find_classifier,
    load_file,
    preprocess_of,
)
from fcnzoo.config import BackboneConfig
from fcnzoo.errors import BackboneError

MULTIPLE = 32
"""Image sides of pyramids are a multiple of this; dilation does not change what poolings inside ask for."""


class TorchvisionBackbone(Backbone):
    """A torchvision classifier, cut at the ends of its stages, or at three depths where it has none.

    Output strides are reached by torchvision's own option (`replace_stride_with_dilation`, MobileNetV3's `dilated`)
    where the network honors it (not all that accept it do), else by the rule of `backbones/dilation/rule.py`, else
    by resizing features.

    Args:
        config: `name` is `"torchvision/<architecture>[.<weights>]"`, weights as in
            `torchvision.models.get_model_weights` (case does not matter).
        pretrained: Whose weights; see `Pretrained`.

    Raises:
        UnknownModelError: torchvision has no such network or weights.
        BackboneError: An image size was given, which none of these networks needs; or `taps` names no block.
        WeightsError: The weights cannot be had or do not fit.
    """

    def __init__(self, config: BackboneConfig, pretrained: Pretrained = False) -> None:
        super().__init__()
        self.config = config
        architecture, entry = find_classifier(config)
        if config.image_size is not None:
            raise BackboneError(
                f"{config.name} takes images of any size, not image_size={config.image_size}; leave it out"
            )
        taps, native = _look(architecture, config.output_stride, config.taps)
        stride = config.output_stride if native else None
        classifier = build_classifier(architecture, entry, pretrained=pretrained is True, output_stride=stride)
        if not isinstance(pretrained, bool):
            load_file(classifier, pretrained, config.name)
        if config.in_channels != 3:
            adapt_first_convolution(classifier, config.in_channels)
        self._margin = Margin()
        if isinstance(classifier, VisionTransformer):
            infos, self._channels_last = self._cut_transformer(classifier), (False,) * 3
        else:
            infos, self._channels_last = self._cut_pyramid(classifier, taps, native=native)
        self._reductions = tuple(info.reduction for info in infos)
        if config.output_stride is not None and max(self._reductions) > config.output_stride:
            self.dilation = "emulated"
            infos = tuple(info.replace(reduction=min(info.reduction, config.output_stride)) for info in infos)
        self.features = infos
        self.preprocess = preprocess_of(entry, config.in_channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features, finest first: (B, C_i, ⌈H / r_i⌉, ⌈W / r_i⌉)."""
        size = (image.shape[-2], image.shape[-1])
        found: Any = self.network(self._margin.pad(image))
        features: list[Tensor] = list(found.values()) if isinstance(found, dict) else found
        features = [
            feature.permute(0, 3, 1, 2) if nhwc else feature
            for feature, nhwc in zip(features, self._channels_last, strict=True)
        ]
        features = self._margin.crop(features, self._reductions, size)
        if self.dilation == "emulated" and self.config.output_stride is not None:
            return resize_to_stride(features, self.config.output_stride, size)
        return features

    def _cut_transformer(self, classifier: VisionTransformer) -> tuple[FeatureInfo, ...]:
        network = VisionTransformerMaps(classifier)
        self.network: nn.Module = network
        self.size_multiple = self.config.size_multiple or network.patch
        self.note = "maps of three blocks, evenly spaced; position embedding resized (bicubic); padded to the patch"
        return network.infos

    def _cut_pyramid(
        self, classifier: nn.Module, taps: tuple[tuple[FeatureInfo, bool], ...], *, native: bool
    ) -> tuple[tuple[FeatureInfo, ...], tuple[bool, ...]]:
        make_any_size(classifier)
        infos = tuple(info for info, _ in taps)
        nodes = {info.tap: str(i) for i, info in enumerate(infos)}
        network: Any = create_feature_extractor(classifier, nodes, tracer_kwargs=TRACING, suppress_diff_warning=True)
        self.network = network
        stride, coarsest = self.config.output_stride, max(info.reduction for info in infos)
        if native:
            self.dilation = "native"
        elif stride is not None and coarsest > stride:
            poolings_as_modules(network)
            if dilate(network, stride, meta_run(network, self.config.in_channels)):
                self.dilation = "dilated"
                infos = tuple(info.replace(reduction=min(info.reduction, stride)) for info in infos)
        self.size_multiple = self.config.size_multiple or max(coarsest, MULTIPLE if stride is not None else 1)
        self._margin = find_margin(
            network,
            [info.reduction for info in infos],
            max(coarsest, MULTIPLE),
            lambda size: meta_run(network, self.config.in_channels, (size,)),
        )
        if self._margin != Margin():
            self.note = (
                f"a margin of {self._margin.before} pixels before and {self._margin.after} after the image makes up "
                "for layers without padding"
            )
        return infos, tuple(nhwc for _, nhwc in taps)


@functools.cache
def _look(
    architecture: str, output_stride: int | None, blocks: tuple[str, ...] | None
) -> tuple[tuple[tuple[FeatureInfo, bool], ...], bool]:
    """Look at a network on the meta device: its taps, and whether it honors the stride it is asked for."""
    name = f"torchvision/{architecture}"
    _, entry = find_classifier(BackboneConfig(name))
    if architecture.startswith("vit_"):
        if blocks is not None:
            raise BackboneError(f"{name} gives maps of three evenly spaced blocks; leave taps={list(blocks)} out")
        return (), False
    twin = classifier_on_meta(architecture, entry)
    make_any_size(twin)
    taps = find_taps(twin, name, blocks)
    if output_stride in (8, 16):
        try:
            dilated = classifier_on_meta(architecture, entry, output_stride)
        except (TypeError, NotImplementedError, ValueError):
            pass  # It refuses.
        else:
            make_any_size(dilated)
            # Under dilation stages share a reduction: they are known by where they ended without.
            native = find_taps(dilated, name, [block_of(info.tap) for info, _ in taps])
            if max(info.reduction for info, _ in native) <= output_stride < max(info.reduction for info, _ in taps):
                return native, True
    return taps, False
