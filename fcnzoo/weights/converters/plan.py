"""What every converter shares: a checkpoint as it was read, rename rules, and the strict bookkeeping of keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fcnzoo.config import FCNConfig
from fcnzoo.errors import ConversionError
from fcnzoo.files.keys import differences, listed
from fcnzoo.files.records import Record


@dataclass(frozen=True)
class Rename(Record):
    """Names that start with `theirs` start with `ours` here, and the other way round.

    Attributes:
        theirs: Beginning of the publisher's names.
        ours: Beginning of fcnzoo's.
    """

    theirs: str
    ours: str

    def invert(self) -> Rename:
        """Return the rule that leads back."""
        return Rename(theirs=self.ours, ours=self.theirs)


@dataclass(frozen=True)
class Checkpoint:
    """A foreign file, read.

    Attributes:
        file: What to call it in errors.
        tensors: Weights by the publisher's names.
        meta: What stands beside the weights, if anything.
        notes: For the receipt; JSON-ready.
    """

    file: str
    tensors: dict[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def refuse(self, why: str) -> ConversionError:
        """Return the error that says why this file cannot be converted."""
        return ConversionError(f"{self.file}: {why}")

    def classes(self, key: str) -> int:
        """Return the number of classes, from the shape of a score layer's weight.

        Raises:
            ConversionError: There is no such key, or it is not the weight of a convolution.
        """
        if key not in self.tensors:
            raise self.refuse(f"has no {key}{guess_source(self.tensors)}; its keys are {listed(self.tensors)}")
        weight = self.tensors[key]
        if weight.ndim != 4 or not weight.shape[0]:
            raise self.refuse(f"{key} must be the weight of a convolution (K, C, 1, 1), got {tuple(weight.shape)}")
        return weight.shape[0]


@dataclass(frozen=True)
class Plan:
    """What a converter made of a checkpoint.

    Attributes:
        config: The network that it holds.
        rules: From the publisher's names to ours.
        tensors: What is to be loaded, by the publisher's names.
        notes: For the receipt; JSON-ready.
        assumed: What neither keys nor shapes nor meta say; the caller must then name the model. Empty: nothing.
    """

    config: FCNConfig
    rules: tuple[Rename, ...]
    tensors: dict[str, Tensor]
    notes: dict[str, Any] = field(default_factory=dict)
    assumed: str = ""


SIGNS = (
    ("MobilenetV2/", "deeplab"),
    ("decode_head.", "mmseg"),
    ("classifier.", "torchvision"),
    ("score_fr.", "torchfcn or caffe"),
)
"""A key that begins so betrays where a file comes from."""


def guess_source(keys: Iterable[str]) -> str:
    """Return a hint for the error text: which source these keys look like; empty if none."""
    keys = list(keys)
    for prefix, source in SIGNS:
        if any(key.startswith(prefix) for key in keys):
            return f" (it looks like a file of {source})"
    return ""


def rename(name: str, rules: Iterable[Rename]) -> str | None:
    """Rename by the rule with the longest beginning; `None` if no rule fits."""
    fitting = [rule for rule in rules if name.startswith(rule.theirs)]
    if not fitting:
        return None
    rule = max(fitting, key=lambda rule: len(rule.theirs))
    return rule.ours + name[len(rule.theirs) :]


def use_every_key(plan: Plan, wanted: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """Give every tensor of a plan its place in the network: each is used once, and each place is filled.

    The network's own names are led back to the publisher's, so that errors speak the file's language.
    Only step counters of BatchNorm may be missing: they do not change what a network computes, and files
    of old PyTorch versions lack them.

    Args:
        plan: What to load.
        wanted: The network's state dict (on the meta device, say).
        file: What to call the file in errors.

    Returns:
        Tensors by our names; floating-point ones in float32.

    Raises:
        ConversionError: Keys are missing or unknown, or shapes differ; they are listed.
    """
    back = [rule.invert() for rule in plan.rules]
    theirs = {ours: rename(ours, back) for ours in wanted}
    places = {name: ours for ours, name in theirs.items() if name is not None}
    if len(places) != len(wanted):
        unnamed = [ours for ours, name in theirs.items() if name is None or places[name] != ours]
        raise ConversionError(f"{file}: the converter has no rule, or the same one, for {listed(unnamed)}")
    given = plan.tensors
    found = differences(
        {key: tensor.shape for key, tensor in given.items()},
        {key: wanted[ours].shape for key, ours in places.items()},
    )
    if found:
        hint = guess_source(key for key in given if key not in places)
        raise ConversionError(f"{file} does not hold a {plan.config.backbone.name} with this head{hint}: {found}")
    return {ours: _like(given.get(key), wanted[ours], key, file) for key, ours in places.items()}


def _like(tensor: Tensor | None, wanted: Tensor, key: str, file: str) -> Tensor:
    if tensor is None:
        return torch.zeros(wanted.shape, dtype=wanted.dtype)
    if tensor.is_floating_point() != wanted.is_floating_point():
        raise ConversionError(f"{file}: {key} is {tensor.dtype}, the network has {wanted.dtype}")
    tensor = tensor.detach().to(wanted.dtype).contiguous()
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise ConversionError(f"{file}: {key} holds values that are not finite in {wanted.dtype}")
    return tensor
