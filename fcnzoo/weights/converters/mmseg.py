"""mmsegmentation's FCN on ResNet-50 and 101 at output stride 8 ("D8"), with ResNetV1c or plain ResNet ("b").

Sources: `mmseg/models/backbones/resnet.py`, `mmseg/models/decode_heads/fcn_head.py`,
`configs/_base_/models/fcn_r50-d8.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fcnzoo.config import IMAGENET_255, BackboneConfig, DilatedHeadConfig, FCNConfig, LossConfig, Preprocess
from fcnzoo.labels import LabelSet, get_label_set, list_label_sets
from fcnzoo.weights.converters.mmseg_config import check_facts, read_config
from fcnzoo.weights.converters.plan import Checkpoint, Plan, Rename
from fcnzoo.weights.converters.torchvision import resnet_depth

STEM = (
    *(Rename(f"backbone.stem.{i}.", f"backbone.network.conv1.{i}.") for i in (0, 1, 3, 4, 6)),
    Rename("backbone.stem.7.", "backbone.network.bn1."),
)
"""ResNetV1c's three convolutions are `conv1` at timm, the last BatchNorm is `bn1`."""

CONV_MODULE = (("conv", "0"), ("bn", "1"))
"""Inside mmcv's ConvModule, and inside ours."""


def plan_mmseg(checkpoint: Checkpoint) -> Plan:
    """Plan the conversion; keys and shapes say most, the checkpoint's meta says geometry and labels.

    Without a config in the meta, D8 with `align_corners=False` is assumed, and the plan says so.

    Raises:
        ConversionError: It is another network.
    """
    num_classes = checkpoint.classes("decode_head.conv_seg.weight")
    depth = resnet_depth(checkpoint.tensors)
    if depth not in (50, 101):
        raise checkpoint.refuse("its backbone is not a ResNet-50 or 101 at `backbone.layerN`, which can be converted")
    deep = any(key.startswith("backbone.stem.") for key in checkpoint.tensors)
    text = checkpoint.meta.get("config")
    stated = read_config(text, checkpoint.file) if isinstance(text, str) else {}
    parts = check_facts(stated, checkpoint.file) if isinstance(text, str) else {}
    head = _head(checkpoint, "decode_head", parts.get("decode_head", {}))
    aux = None
    if any(key.startswith("auxiliary_head.") for key in checkpoint.tensors):
        aux = _head(checkpoint, "auxiliary_head", parts.get("auxiliary_head", {}))
    config = FCNConfig(
        backbone=BackboneConfig(f"timm/resnet{depth}{'c' if deep else ''}", output_stride=8, size_multiple=1),
        head=head,
        aux_head=aux,
        preprocess=_preprocess(stated.get("img_norm_cfg"), checkpoint),
        loss=LossConfig(aux_weight=0.4),
    )
    assumed = "" if parts else "output stride 8 by dilation, align_corners=False"
    notes = {"align_corners": head.align_corners} | ({"assumed": assumed} if assumed else {})
    rules = (*(STEM if deep else ()), Rename("backbone.", "backbone.network."), *_head_rules(head, aux))
    config = config.replace(label_set=None).with_classes(num_classes, _label_set(checkpoint, num_classes))
    return Plan(config, rules, dict(checkpoint.tensors), notes, assumed)


def _head(checkpoint: Checkpoint, name: str, stated: Mapping[str, Any]) -> DilatedHeadConfig:
    convs = {key.split(".")[2] for key in checkpoint.tensors if key.startswith(f"{name}.convs.")}
    checkpoint.classes(f"{name}.conv_seg.weight")
    if not convs:
        raise checkpoint.refuse(f"{name} has no convolutions before its score layer")
    return DilatedHeadConfig(
        hidden_channels=checkpoint.tensors[f"{name}.conv_seg.weight"].shape[1],
        num_convs=len(convs),
        concat_input=f"{name}.conv_cat.conv.weight" in checkpoint.tensors,
        align_corners=stated.get("align_corners") is True,
    )


def _head_rules(head: DilatedHeadConfig, aux: DilatedHeadConfig | None) -> tuple[Rename, ...]:
    rules = []
    for theirs, ours, config in (("decode_head", "head", head), ("auxiliary_head", "aux_head", aux)):
        for part, place in CONV_MODULE:
            rules += [
                Rename(f"{theirs}.convs.{i}.{part}.", f"{ours}.convs.{i}.{place}.")
                for i in range(config.num_convs if config else 0)
            ]
            rules.append(Rename(f"{theirs}.conv_cat.{part}.", f"{ours}.mix.{place}."))
        rules.append(Rename(f"{theirs}.conv_seg.", f"{ours}.score."))
    return tuple(rules)


def _preprocess(stated: Any, checkpoint: Checkpoint) -> Preprocess:
    if not isinstance(stated, Mapping):
        return IMAGENET_255  # the `img_norm_cfg` of every published config
    order = "rgb" if stated.get("to_rgb", True) else "bgr"
    try:
        return Preprocess(mean=tuple(stated["mean"]), std=tuple(stated["std"]), channel_order=order, value_range=255)
    except (KeyError, TypeError, ValueError) as error:
        raise checkpoint.refuse(f"img_norm_cfg in its config is not mean, std and to_rgb ({error})") from None


def _label_set(checkpoint: Checkpoint, num_classes: int) -> LabelSet | None:
    """Return the classes that the meta names: a built-in set where all names agree, else a set of its own."""
    stated = checkpoint.meta.get("CLASSES")
    if stated is None:
        return None
    if not isinstance(stated, list | tuple) or not all(isinstance(name, str) for name in stated):
        raise checkpoint.refuse(f"meta.CLASSES must be class names, got {type(stated).__name__}")
    names = tuple(name.strip() for name in stated)  # ADE20K's "bed " has a blank
    if len(names) != num_classes:
        raise checkpoint.refuse(f"meta.CLASSES names {len(names)} classes, the score layer has {num_classes}")
    for known in map(get_label_set, list_label_sets()):
        if known.names == names:
            return known
    try:
        return LabelSet.from_names(names, name="mmseg")
    except ValueError as error:
        raise checkpoint.refuse(f"meta.CLASSES cannot be a label set ({error})") from None
