"""torchvision's segmentation networks: FCN, DeepLabV3 and Lite R-ASPP (`torchvision/models/segmentation/`)."""

from __future__ import annotations

from collections.abc import Iterable

from fcnzoo.weights.converters.plan import Checkpoint, Plan, Rename
from fcnzoo.zoo.registry import get_spec

AUX_RULES = (
    Rename("aux_classifier.0.", "aux_head.convs.0.0."),
    Rename("aux_classifier.1.", "aux_head.convs.0.1."),
    Rename("aux_classifier.4.", "aux_head.score."),
)

HEAD_RULES = {
    "fcn": (
        Rename("classifier.0.", "head.convs.0.0."),
        Rename("classifier.1.", "head.convs.0.1."),
        Rename("classifier.4.", "head.score."),
        *AUX_RULES,
    ),
    "deeplabv3": (
        Rename("classifier.0.convs.", "head.branches."),
        Rename("classifier.0.convs.4.1.", "head.pooling.conv."),
        Rename("classifier.0.convs.4.2.", "head.pooling.norm."),
        Rename("classifier.0.project.", "head.project."),
        Rename("classifier.1.", "head.convs.0.0."),
        Rename("classifier.2.", "head.convs.0.1."),
        Rename("classifier.4.", "head.score."),
        *AUX_RULES,
    ),
    "lraspp": (
        Rename("classifier.cbr.", "head.hidden."),
        Rename("classifier.scale.1.", "head.gate."),
        Rename("classifier.low_classifier.", "head.score_low."),
        Rename("classifier.high_classifier.", "head.score_high."),
    ),
}
"""By head: from torchvision's names to ours."""

BACKBONE_RULES = {
    "resnet50": Rename("backbone.", "backbone.network."),
    "resnet101": Rename("backbone.", "backbone.network."),
    "mobilenet_v3_large": Rename("backbone.", "backbone.network.features."),
}

MODELS = (
    "fcn_resnet50",
    "fcn_resnet101",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large",
)
"""All of torchvision's."""

BLOCKS_OF_DEPTH = {6: 50, 23: 101, 36: 152}
"""Blocks of `layer3`, by which ResNets of bottlenecks differ, and the depth."""

MOBILENET_V3_LARGE = ("backbone.16.0.weight", (960, 160, 1, 1))
"""The last convolution of MobileNetV3-Large's features, by which it is told from Small and from other networks."""


def plan_torchvision(checkpoint: Checkpoint) -> Plan:
    """Plan the conversion; keys and shapes say the head, the backbone, the classes, and whether there is an aux head.

    Raises:
        ConversionError: It is none of torchvision's networks.
    """
    tensors = checkpoint.tensors
    if "classifier.low_classifier.weight" in tensors:
        head, score = "lraspp", "classifier.low_classifier.weight"
    else:
        head = "deeplabv3" if any(key.startswith("classifier.0.convs.") for key in tensors) else "fcn"
        score = "classifier.4.weight"
    num_classes = checkpoint.classes(score)
    backbone = _backbone(checkpoint)
    if f"{head}_{backbone}" not in MODELS:
        raise checkpoint.refuse(
            f"its head is that of {head}_…, its backbone is {backbone}; {', '.join(MODELS)} can be converted"
        )
    config = get_spec(f"{head}_{backbone}").config
    aux = any(key.startswith("aux_classifier.") for key in tensors)
    labels = config.label_set if num_classes == 21 else None
    config = config.replace(label_set=None, aux_head=config.aux_head if aux else None)
    config = config.with_classes(num_classes, labels)
    return Plan(config, (BACKBONE_RULES[backbone], *HEAD_RULES[head]), dict(tensors))


def _backbone(checkpoint: Checkpoint) -> str:
    key, shape = MOBILENET_V3_LARGE
    if key in checkpoint.tensors and tuple(checkpoint.tensors[key].shape) == shape:
        return "mobilenet_v3_large"
    depth = resnet_depth(checkpoint.tensors)
    return "no ResNet-50 or deeper" if depth is None else f"resnet{depth}"


def resnet_depth(keys: Iterable[str]) -> int | None:
    """Return the depth of a ResNet of bottlenecks by its keys `backbone.layer3.N.conv3…`; `None` for another."""
    blocks = {key.split(".")[2] for key in keys if key.startswith("backbone.layer3.") and ".conv3." in key}
    return BLOCKS_OF_DEPTH.get(len(blocks))
