"""What a converted network was made from, for `config.json` and the card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcnzoo.errors import ConversionError
from fcnzoo.model.fcn import FCN, evaluating
from fcnzoo.version import __version__

RULES_VERSION = 1
"""Of the converters; raised when the same file would give another network."""

GOLDEN_SIZE = (32, 48)


def golden_image(channels: int) -> Tensor:
    """Return the image (1, C, 32, 48) that golden scores are computed on: fixed numbers in [−1, 1)."""
    height, width = GOLDEN_SIZE
    numbers = torch.arange(channels * height * width, dtype=torch.int64) * 7919 % 256
    return (numbers.to(torch.float32) / 128 - 1).reshape(1, channels, height, width)


def golden_scores(model: FCN) -> dict[str, Any]:
    """Return a fingerprint of what a network computes.

    The hash is of float32 scores, little-endian: equal on the same machine and versions. Elsewhere the last bits
    may differ; mean and standard deviation are for comparing there.

    Raises:
        ConversionError: The scores are not finite.
    """
    with evaluating(model), torch.no_grad():
        scores = model.scores(golden_image(model.config.backbone.in_channels), aux=False).main
    if not torch.isfinite(scores).all():
        raise ConversionError("the converted network gives NaN or infinite scores: its weights are damaged")
    return {
        "golden_scores_sha256": hashlib.sha256(scores.numpy().astype("<f4").tobytes()).hexdigest(),
        "golden_scores_mean": scores.double().mean().item(),
        "golden_scores_std": scores.double().std(unbiased=False).item(),
    }


def receipt(source: str, path: Path, digest: str, notes: dict[str, Any], model: FCN) -> dict[str, Any]:
    """Return the provenance of a converted network, JSON-ready."""
    return {
        "converted_from": source,
        "file": path.name,
        "sha256": digest,
        "rules_version": RULES_VERSION,
        "converted_by": f"fcnzoo {__version__}",
        **notes,
        **golden_scores(model),
    }
