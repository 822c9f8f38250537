"""Which heads there are: what stands before the underscore in a model's name."""

from __future__ import annotations

from typing import Literal

from fcnzoo.config import (
    BackboneConfig,
    ContextHeadConfig,
    DilatedHeadConfig,
    FCNConfig,
    HeadConfig,
    LRASPPHeadConfig,
    SkipHeadConfig,
)

HeadName = Literal["fcn32s", "fcn16s", "fcn8s", "fcn", "deeplabv3", "lraspp"]

HEADS: dict[str, HeadConfig] = {
    "fcn32s": SkipHeadConfig(stride=32),
    "fcn16s": SkipHeadConfig(stride=16),
    "fcn8s": SkipHeadConfig(stride=8),
    "fcn": DilatedHeadConfig(),
    "deeplabv3": ContextHeadConfig(),
    "lraspp": LRASPPHeadConfig(),
}
"""What stands before the underscore in a model's name; the last three are called so by torchvision."""

OUTPUT_STRIDES: dict[str, Literal[8, 16]] = {"fcn": 8, "deeplabv3": 8, "lraspp": 16}
"""To which the backbone is dilated for heads that do not fuse its own strides: 8 as in torchvision's ResNets; 16 as
for MobileNetV3 (Howard et al. 2019, section 6.4)."""

WITH_AUX = ("fcn", "deeplabv3")
"""Heads that have an auxiliary head beside them by default, as in torchvision."""


def head_config(head: str, backbone: str) -> FCNConfig:
    """Return the config of a head, with its defaults, on a backbone given by its full name."""
    return FCNConfig(
        backbone=BackboneConfig(backbone, output_stride=OUTPUT_STRIDES.get(head)),
        head=HEADS[head],
        aux_head=DilatedHeadConfig() if head in WITH_AUX else None,
    )


def head_name(head: HeadConfig) -> str:
    """Return what a model's name says of a head, whatever its options."""
    return next(
        name
        for name, config in HEADS.items()
        if config.kind == head.kind and getattr(config, "stride", None) == getattr(head, "stride", None)
    )
