"""From features to scores: every head, built from its config."""

from __future__ import annotations

from collections.abc import Sequence

from fcnzoo.backbones.base import FeatureInfo
from fcnzoo.config import ContextHeadConfig, FCNConfig, HeadConfig, LRASPPHeadConfig, SkipHeadConfig
from fcnzoo.model.context import ContextHead, LRASPPHead
from fcnzoo.model.dilated import DilatedHead
from fcnzoo.model.skip import SkipHead

__all__ = ["ContextHead", "DilatedHead", "Head", "LRASPPHead", "SkipHead", "build_head", "build_heads"]

Head = SkipHead | DilatedHead | ContextHead | LRASPPHead
"""What a network's main head may be."""


def build_head(config: HeadConfig, features: Sequence[FeatureInfo], num_classes: int, name: str) -> Head:
    """Build the main head of a network.

    Raises:
        BackboneError: The features lack what the head needs; the text says what, and what there is.
    """
    if isinstance(config, SkipHeadConfig):
        return SkipHead(config, features, num_classes, name)
    if isinstance(config, ContextHeadConfig):
        return ContextHead(config, features, num_classes)
    if isinstance(config, LRASPPHeadConfig):
        return LRASPPHead(config, features, num_classes, name)
    return DilatedHead(config, features, num_classes, name)


def build_heads(config: FCNConfig, features: Sequence[FeatureInfo]) -> tuple[Head, DilatedHead | None]:
    """Build the main head and the aux head, if there is to be one, of a network.

    Raises:
        BackboneError: As `build_head`.
    """
    name = config.backbone.name
    head = build_head(config.head, features, config.num_classes, name)
    if config.aux_head is None:
        return head, None
    return head, DilatedHead(config.aux_head, features, config.num_classes, name, depth=-2)
