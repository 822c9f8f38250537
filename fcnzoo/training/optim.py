"""Parameter groups, optimizers, learning-rate schedules, frozen BatchNorm and weight averaging."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fcnzoo.training.sections import OptimSection, ScheduleSection

PARTS = ("backbone", "head", "aux")


def part_of(name: str) -> str:
    """Return which learning rate a parameter of an `FCN` takes: `"backbone"`, `"head"` or `"aux"`."""
    first = name.partition(".")[0]
    return {"backbone": "backbone", "aux_head": "aux"}.get(first, "head")


def _kind(model: nn.Module, name: str) -> str:
    """Tell a parameter's kind by shapes: `"weight"`, `"bias"` (of a convolution) or `"norm"`.

    Normalizations and layer scales have one number per channel; a bias whose module's weight is
    such a vector belongs to a normalization.
    """
    path, _, last = name.rpartition(".")
    owner = model.get_submodule(path)
    weight = getattr(owner, "weight", None)
    if last == "bias" and isinstance(weight, Tensor) and weight.ndim > 1:
        return "bias"
    return "norm" if model.get_parameter(name).ndim <= 1 else "weight"


def parameter_groups(model: nn.Module, optim: OptimSection) -> list[dict[str, Any]]:
    """Sort a model's trainable parameters by learning rate and weight decay.

    Args:
        model: An `FCN`: its parameters start with `backbone.`, `head.` or `aux_head.`.
        optim: Learning rates and their options.

    Returns:
        Groups for a torch optimizer; each has `name` (`"head"`, `"backbone bias"`, …), `params`,
        `lr`, `weight_decay` and `base_lr`, which the schedule multiplies.
    """
    rates = {"head": optim.lr, "backbone": optim.backbone_lr, "aux": optim.aux_lr}
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, kind = part_of(name), _kind(model, name)
        rate = rates[part]
        rate = (optim.lr if rate is None else rate) * (optim.bias_lr_factor if kind == "bias" else 1.0)
        decay = 0.0 if kind in optim.no_decay else optim.weight_decay
        group = groups.setdefault(
            (part, kind),
            {
                "name": part if kind == "weight" else f"{part} {kind}",
                "params": [],
                "lr": rate,
                "base_lr": rate,
                "weight_decay": decay,
            },
        )
        group["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: (PARTS.index(key[0]), key[1] != "weight", key[1]))]


def build_optimizer(model: nn.Module, optim: OptimSection) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over a model's `parameter_groups`.

    Raises:
        ValueError: Nothing is left to train.
    """
    groups = parameter_groups(model, optim)
    if not groups:
        raise ValueError("nothing to train: every parameter is frozen (backbone_lr = 0, freeze_affine)")
    # One kernel per step in place of several per parameter: on a CPU a quarter of the time. Elsewhere PyTorch chooses.
    fused = True if all(p.device.type == "cpu" for group in groups for p in group["params"]) else None
    if optim.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=fused)


def schedule_factor(step: int, steps: int, schedule: ScheduleSection) -> float:
    """Return what learning rates are multiplied by at a step (0 ≤ `step` < `steps`).

    Poly is that of Chen et al. 2015 (DeepLab), `(1 − step / steps) ** power`; warm-up multiplies by
    `min(1, (step + 1) / warmup_steps)`.
    """
    warmup = min(1.0, (step + 1) / schedule.warmup_steps) if schedule.warmup_steps else 1.0
    done = step / steps
    if schedule.kind == "poly":
        return warmup * (1 - done) ** schedule.power
    if schedule.kind == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * done))
    return warmup


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def freeze(model: nn.Module, optim: OptimSection) -> None:
    """Take from training what the recipe freezes: parameters lose `requires_grad`."""
    if optim.backbone_lr == 0:
        model.get_submodule("backbone").requires_grad_(False)
    if optim.freeze_affine:
        for module in frozen_batchnorms(model, optim):
            module.requires_grad_(False)


def frozen_batchnorms(model: nn.Module, optim: OptimSection) -> Iterator[nn.Module]:
    """Yield the BatchNorm layers that must stay in evaluation mode while the model trains."""
    frozen = "backbone" if optim.backbone_lr == 0 and optim.freeze_batchnorm == "none" else optim.freeze_batchnorm
    if frozen == "none":
        return
    root = model if frozen == "all" else model.get_submodule("backbone")
    for module in root.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module


def training_mode(model: nn.Module, optim: OptimSection) -> None:
    """Put a model in training mode, save what the recipe freezes: BatchNorm layers, or the whole backbone."""
    model.train()
    if optim.backbone_lr == 0:
        model.get_submodule("backbone").eval()  # statistics and dropout too: it computes the same in every step
    for module in frozen_batchnorms(model, optim):
        module.eval()


class AveragedModel:
    """The exponential moving average of a model: parameters and BatchNorm statistics alike.

    `timm.utils.ModelEmaV3` goes through the state dict, which names shared tensors twice (timm's CoaT has some), and
    moves them twice in a step; elsewhere it gives the same bits.

    Args:
        model: What is averaged; its copy is in evaluation mode and takes no gradients.
        decay: Share of the old average per update; at most `step / (step + 10)` in the first steps,
            so that a short run is not an average of the fresh weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average toward `model` after optimizer step `step` (the first is 1)."""
        weight = 1 - min(self.decay, step / (step + 10))
        averages, values = self._floating(model)
        torch._foreach_lerp_(averages, values, weight)  # pyright: ignore[reportPrivateImportUsage]
        mine = dict(self.model.named_buffers())
        for name, buffer in model.named_buffers():
            if not buffer.is_floating_point():
                mine[name].copy_(buffer)

    def _floating(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tensors of both models that are averaged, in the same order."""
        mine = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        theirs = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        names = [name for name, value in mine.items() if value.is_floating_point()]
        return [mine[name] for name in names], [theirs[name].detach() for name in names]
