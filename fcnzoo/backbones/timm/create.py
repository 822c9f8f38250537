"""timm's feature networks, built with the right features, size, output stride and weights."""

from __future__ import annotations

from typing import Any

import timm

from fcnzoo.backbones.base import Pretrained
from fcnzoo.backbones.timm.families import TimmFamily
from fcnzoo.backbones.timm.taps import choose_taps, set_out_indices
from fcnzoo.backbones.timm.weights import check_file, log_unused
from fcnzoo.config import BackboneConfig
from fcnzoo.errors import BackboneError, WeightsError


def create_network(config: BackboneConfig, family: TimmFamily, pretrained: Pretrained) -> tuple[Any, bool]:
    """Build the part of a network of timm's that gives the features.

    Args:
        config: What to build.
        family: What it needs.
        pretrained: Whose weights.

    Returns:
        timm's feature network, and whether it took `config.output_stride` itself.

    Raises:
        BackboneError: timm cannot build it with these options.
        WeightsError: The weights cannot be had or do not fit.
    """
    options: dict[str, Any] = {"features_only": True, "in_chans": family.channels or config.in_channels}
    options |= dict(family.options)
    if family.out_indices is not None:
        options["out_indices"] = family.out_indices
    if config.image_size is not None:
        options["img_size"] = config.image_size[0] if family.size == "square" else config.image_size
    keys: set[str] = set()
    if isinstance(pretrained, bool):
        options["pretrained"] = pretrained
    else:
        keys = check_file(config, pretrained)
        options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(pretrained), "custom_load": False}}
    network, native = _create_strided(config, options, pretrained)
    taps = family.out_indices or choose_taps(network)
    if taps != tuple(network.feature_info.out_indices) and not set_out_indices(network, taps):
        network, native = _create_strided(config, options | {"out_indices": taps}, pretrained)
    if not isinstance(pretrained, bool):
        log_unused(config, pretrained, keys, network)
    return network, native


def _create_strided(config: BackboneConfig, options: dict[str, Any], pretrained: Pretrained) -> tuple[Any, bool]:
    """Build with timm's own `output_stride` where it has that."""
    if config.output_stride is not None:
        try:
            network: Any = timm.create_model(config.architecture, **options, output_stride=config.output_stride)
        except (TypeError, AssertionError, NotImplementedError, ValueError):
            pass  # It has not; built without below, where other errors come up again.
        else:
            return network, max(network.feature_info.reduction()) <= config.output_stride
    return _create_plain(config, options, pretrained), False


def _create_plain(config: BackboneConfig, options: dict[str, Any], pretrained: Pretrained) -> Any:
    try:
        return timm.create_model(config.architecture, **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise BackboneError(f"{config.name} cannot be built: {error}") from error
        raise WeightsError(
            f"the weights of {config.name} cannot be had ({type(error).__name__}: {error}). Where there is no network, "
            "give pretrained_backbone the path of a local .safetensors file"
        ) from error
    except (TypeError, AssertionError, NotImplementedError, ValueError) as error:
        size = "" if config.image_size is None else f", image_size={config.image_size}"
        raise BackboneError(
            f"{config.name} cannot be built with in_channels={config.in_channels}{size}: "
            f"{type(error).__name__}: {error}"
        ) from error
