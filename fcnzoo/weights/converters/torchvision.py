"""torchvision's fcn_resnet50 and fcn_resnet101 (`torchvision/models/segmentation/fcn.py`)."""

from __future__ import annotations

from collections.abc import Iterable

from fcnzoo.weights.converters.plan import Checkpoint, Plan, Rename
from fcnzoo.zoo.registry import get_spec

RULES = (
    Rename("backbone.", "backbone.network."),
    Rename("classifier.0.", "head.convs.0.0."),
    Rename("classifier.1.", "head.convs.0.1."),
    Rename("classifier.4.", "head.score."),
    Rename("aux_classifier.0.", "aux_head.convs.0.0."),
    Rename("aux_classifier.1.", "aux_head.convs.0.1."),
    Rename("aux_classifier.4.", "aux_head.score."),
)

BLOCKS_OF_DEPTH = {6: 50, 23: 101, 36: 152}
"""Blocks of `layer3`, by which ResNets of bottlenecks differ, and the depth."""


def plan_torchvision(checkpoint: Checkpoint) -> Plan:
    """Plan the conversion; keys and shapes say the depth, the classes, and whether there is an aux head.

    Raises:
        ConversionError: It is not one of the two networks.
    """
    num_classes = checkpoint.classes("classifier.4.weight")
    depth = resnet_depth(checkpoint.tensors)
    if depth not in (50, 101):
        raise checkpoint.refuse(f"its backbone is {_called(depth)}; fcn_resnet50 and fcn_resnet101 can be converted")
    config = get_spec(f"fcn_resnet{depth}").config
    aux = any(key.startswith("aux_classifier.") for key in checkpoint.tensors)
    labels = config.label_set if num_classes == 21 else None
    config = config.replace(label_set=None, aux_head=config.aux_head if aux else None)
    config = config.with_classes(num_classes, labels)
    return Plan(config, RULES, dict(checkpoint.tensors))


def resnet_depth(keys: Iterable[str]) -> int | None:
    """Return the depth of a ResNet of bottlenecks by its keys `backbone.layer3.N.conv3…`; `None` for another."""
    blocks = {key.split(".")[2] for key in keys if key.startswith("backbone.layer3.") and ".conv3." in key}
    return BLOCKS_OF_DEPTH.get(len(blocks))


def _called(depth: int | None) -> str:
    return "no ResNet-50 or deeper" if depth is None else f"a ResNet-{depth}"
