"""Networks cut open: image in, features by reduction out."""

from __future__ import annotations

from fcnzoo.backbones.base import Backbone, FeatureInfo, Pretrained
from fcnzoo.backbones.convolutional import fully_convolutional, linear_to_conv
from fcnzoo.config import BackboneConfig

__all__ = ["Backbone", "FeatureInfo", "build_backbone", "fully_convolutional", "linear_to_conv"]


def build_backbone(config: BackboneConfig, pretrained: Pretrained = False) -> Backbone:
    """Build a backbone.

    Args:
        config: What to build.
        pretrained: `False`: random weights; `True`: the provider's own; a path: a local safetensors file
            with the provider's keys, loaded strictly (the classifier's keys aside, which go to the log).

    Raises:
        UnknownModelError: There is no such network.
        BackboneError: It cannot be built as asked.
        WeightsError: The weights cannot be had or do not fit.
    """
    if config.source == "timm":
        from fcnzoo.backbones.timm.backbone import TimmBackbone

        return TimmBackbone(config, pretrained)
    if config.source == "torchvision":
        from fcnzoo.backbones.torchvision.backbone import TorchvisionBackbone

        return TorchvisionBackbone(config, pretrained)
    from fcnzoo.backbones.paper import PaperVGG16

    return PaperVGG16(config, pretrained)
