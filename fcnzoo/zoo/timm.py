"""Skip fusion on a dozen good timm backbones, from phones to servers."""

from __future__ import annotations

from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
from fcnzoo.spec import ModelSpec

BACKBONES = (
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "efficientnet_b3",
    "resnet34",
    "resnet50",
    "resnet101",
    "regnety_032",
    "densenet121",
    "convnext_tiny",
    "convnext_base",
    "convnextv2_nano",
    "hrnet_w18",
)
"""Architectures, small to large."""

ENTRIES = tuple(
    ModelSpec(
        name=f"fcn{stride}s_{backbone}",
        config=FCNConfig(backbone=BackboneConfig(f"timm/{backbone}"), head=SkipHeadConfig(stride=stride)),
        description=f"FCN-{stride}s skip fusion on timm's {backbone}",
        reference="Long, Shelhamer & Darrell 2015 (head); timm (backbone)",
    )
    for backbone in BACKBONES
    for stride in (32, 16, 8)
)
"""fcn32s_…, fcn16s_… and fcn8s_… on each."""
