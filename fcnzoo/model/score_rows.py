"""Which weights depend on the classes, and how those of classes with the same name are carried over."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fcnzoo.config import FCNConfig

logger = logging.getLogger("fcnzoo")


def score_keys(model: nn.Module, num_classes: int) -> set[str]:
    """Return the names of all weights of a network that depend on its number of classes: the score layers'."""
    return {f"{name}.{key}" for name, layer in score_layers(model, num_classes).items() for key in layer.state_dict()}


def score_layers(model: nn.Module, num_classes: int) -> dict[str, nn.Conv2d | nn.ConvTranspose2d]:
    """Return the layers of a network that depend on its number of classes, by their names."""
    return {
        name: module
        for name, module in model.named_modules()
        if name.startswith(("head.score", "aux_head.score", "head.deconv"))
        and isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        and _scores(module, num_classes)
    }


def _scores(module: nn.Conv2d | nn.ConvTranspose2d, num_classes: int) -> bool:
    """Whether a layer gives scores: hidden 3×3 convolutions stand in the head too."""
    if isinstance(module, nn.ConvTranspose2d):
        return True
    sides = [math.isqrt(module.out_channels // num_classes)] if module.out_channels % num_classes == 0 else []
    return module.kernel_size == (1, 1) and any(module.out_channels == num_classes * side**2 for side in sides)


def same_classes(config: FCNConfig, trained: FCNConfig) -> bool:
    """Whether a network's classes are those of its weights; classes without names are told by their number only."""
    if config.num_classes != trained.num_classes:
        return False
    return config.label_set is None or (
        trained.label_set is not None and config.label_set.names == trained.label_set.names
    )


def carry_rows(
    model: nn.Module, config: FCNConfig, trained: FCNConfig, weights: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Copy what weights say about a class to the network's class of the same name. The log says which.

    Args:
        model: The network; its score layers are as they should stay for all other classes.
        config: What it is.
        trained: What the weights were trained as.
        weights: The score layers', of the shapes that `trained` has.

    Returns:
        The names of the classes that both have.
    """
    if config.label_set is None:
        logger.info("the score layers for %d classes are fresh", config.num_classes)
        return ()
    old = {} if trained.label_set is None else {name: i for i, name in enumerate(trained.label_set.names)}
    shared = [(i, old[name]) for i, name in enumerate(config.label_set.names) if name in old]
    kept = tuple(config.label_set.names[i] for i, _ in shared)
    fresh = [name for name in config.label_set.names if name not in old]
    logger.info("scores carried over: %s; fresh: %s", ", ".join(kept) or "none", ", ".join(fresh) or "none")
    if not kept:
        logger.warning("the weights know none of the classes %s by these names; their scores are fresh", fresh)
    if not shared:
        return ()
    own, theirs = (torch.tensor(rows) for rows in zip(*shared, strict=True))
    for name, layer in score_layers(model, config.num_classes).items():
        for key, tensor in layer.named_parameters(recurse=False):
            if f"{name}.{key}" in weights:  # the weights may be without an aux head
                source = weights[f"{name}.{key}"].to(tensor.dtype).unflatten(0, (trained.num_classes, -1))
                _copy(tensor.data.unflatten(0, (config.num_classes, -1)), source, own, theirs, layer)
    return kept


def _copy(target: Tensor, source: Tensor, own: Tensor, theirs: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Copy the classes `theirs` of (K', rows, …) to `own` of (K, rows, …); sub-pixel heads have rows > 1."""
    rows = source[theirs]
    if isinstance(layer, nn.ConvTranspose2d) and layer.groups == 1 and target.ndim > 2:
        # A dense deconvolution mixes classes: what it says about two of them is kept where both are.
        target[own[:, None], 0, own] = rows[:, 0][:, theirs]
    else:
        target[own] = rows
