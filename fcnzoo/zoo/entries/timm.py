"""Skip fusion on a dozen good timm backbones, from phones to servers."""

from __future__ import annotations

from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
from fcnzoo.config.spec import Metric, ModelSpec, Weights
from fcnzoo.labels import get_label_set

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

MEASURED = "fcnzoo evaluate street --data CamVid --dataset camvid"

LITE0 = ModelSpec(
    name="fcn8s_tf_efficientnet_lite0",
    config=FCNConfig(
        backbone=BackboneConfig("timm/tf_efficientnet_lite0"),
        head=SkipHeadConfig(stride=8, hidden_channels=128, dropout=0.1, detail=(4,), detail_channels=32),
        num_classes=11,
        label_set=get_label_set("camvid"),
    ),
    weights=(
        Weights(
            tag="camvid",
            dataset="CamVid",
            license="CC-BY-NC-4.0",
            packaged="zoo/shipped/fcn8s_tf_efficientnet_lite0.camvid",
            sha256="b05de20d0b5980264179a1dfb8e53bab67fccecccc16cdb9b9e2cc13329847db",
            metrics=(
                Metric("mean_iou", 0.7437, "CamVid val", MEASURED),
                Metric("pixel_accuracy", 0.9394, "CamVid val", MEASURED),
            ),
            note="trained by `fcnzoo train camvid_lite0`; CamVid is for non-commercial use",
        ),
    ),
    description="street: FCN-8s skip fusion with hidden layers and a detail tap at 4, on timm's tf_efficientnet_lite0",
    reference="Long, Shelhamer & Darrell 2015 (skip fusion); timm (backbone)",
)
"""Shipped, too: road scenes; small, and fast on a CPU."""

ENTRIES = (
    LITE0,
    *(
        ModelSpec(
            name=f"fcn{stride}s_{backbone}",
            config=FCNConfig(backbone=BackboneConfig(f"timm/{backbone}"), head=SkipHeadConfig(stride=stride)),
            description=f"FCN-{stride}s skip fusion on timm's {backbone}",
            reference="Long, Shelhamer & Darrell 2015 (head); timm (backbone)",
        )
        for backbone in BACKBONES
        for stride in (32, 16, 8)
        if f"fcn{stride}s_{backbone}" != LITE0.name
    ),
)
"""fcn32s_…, fcn16s_… and fcn8s_… on each."""
