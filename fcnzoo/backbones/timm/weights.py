"""Local files of timm's weights: compared strictly with timm's own classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from fcnzoo.backbones.base import logger
from fcnzoo.config import BackboneConfig
from fcnzoo.files.keys import check_keys
from fcnzoo.files.safetensors import read_safetensors


def check_file(config: BackboneConfig, path: str | Path) -> set[str]:
    """Compare a local file with timm's own classifier, whose keys it must have, the classifier's aside.

    timm itself loads backbones leniently (`strict=False`), which would accept any file.

    Returns:
        The keys of the file.

    Raises:
        WeightsError: It is not a safetensors file, or its keys or shapes are not those of timm's classifier.
    """
    with torch.device("meta"):
        classifier: nn.Module = timm.create_model(config.architecture)
    heads = getattr(classifier, "pretrained_cfg", {}).get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    wanted = {key: tensor.shape for key, tensor in classifier.state_dict().items()}
    given = {key: tensor.shape for key, tensor in read_safetensors(path).items()}
    aside = {key for key in {*wanted, *given} if key.rpartition(".")[0] in heads}
    check_keys(given, wanted, source=str(path), optional=aside)
    return set(given)


def log_unused(config: BackboneConfig, path: str | Path, keys: set[str], network: Any) -> None:
    """Say which keys of a file the cut network has no place for: the classifier's, and what comes after the cut."""
    # timm's wrappers put "model." or "body." before the names, or turn "stages.0" into "stages_0".
    have = {_plain(key) for key in network.state_dict()}
    unused = sorted(key for key in keys if _plain(key) not in have)
    logger.info(
        "%s: loaded into %s; keys left out (classifier and layers after the features): %s",
        path,
        config.name,
        ", ".join(unused) or "none",
    )


def _plain(key: str) -> str:
    return key.removeprefix("model.").removeprefix("body.").replace(".", "_")
