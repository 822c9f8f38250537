"""State dicts out of PyTorch files, whatever training script wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcnzoo.errors import ConversionError
from fcnzoo.files.download import not_the_file
from fcnzoo.files.keys import listed
from fcnzoo.files.reading import open_file
from fcnzoo.weights.converters.plan import Checkpoint
from fcnzoo.weights.converters.torch_archive import StandIn, module_tensors, read_archive

WRAPPERS = ("state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights")
"""Where training scripts put the state dict beside other things: mmcv's, Lightning's, torchfcn's, torchvision's, …"""

AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
"""Where they put averaged weights: torchvision's, timm's, mmengine's."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What wrappers put before every name: DistributedDataParallel, torch.compile, the attribute of a LightningModule."""

BESIDE = ("criterion", "loss", "metric", "train_", "val_", "test_", "n_averaged", "step_counter")
"""How names begin that stand beside the network's: losses and metrics of a LightningModule, counters of averages."""


def read_torch(path: str | Path, *, ema: bool = False) -> Checkpoint:
    """Read a `.pth` file: a state dict, a dict that holds one under one of `WRAPPERS`, or a whole module.

    Nothing that the file names is imported or run; see `torch_archive`. What is left out stands in the notes.

    Args:
        path: The file.
        ema: Take the averaged weights, from one of `AVERAGES`.

    Raises:
        ConversionError: The file is missing, damaged, or holds something else.
    """
    path = Path(path)
    hint = _looks_like(path)
    if hint:
        raise ConversionError(f"{path}: {hint}")
    try:
        content = read_archive(path)
        wrapper, state = _state(content, AVERAGES if ema else WRAPPERS)
    except (Exception, MemoryError) as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(
            f"{path}: not a PyTorch file with weights ({type(error).__name__}: {reason}); nothing in it was run"
        ) from None
    if state is None:
        kind = content.origin if isinstance(content, StandIn) else type(content).__name__
        wanted = f"averaged weights under {', '.join(AVERAGES)}" if ema else "a state dict"
        raise ConversionError(f"{path}: holds a {kind}, not {wanted}")
    state, left = _without_prefixes(state)
    strange = [str(key) for key, value in state.items() if not isinstance(key, str) or not _is_plain(value)]
    if strange or not state:
        keys = listed(strange) if strange else "it is empty"
        raise ConversionError(f"{path}: not a state dict of dense, whole tensors, by name: {keys}")
    meta = content.get("meta") if wrapper and isinstance(content, Mapping) else None
    beside = [str(key) for key in content if key != wrapper] if wrapper else []
    notes = {"weights": wrapper} if ema else {}
    notes |= {"left_out": listed([*beside, *left])} if beside or left else {}
    return Checkpoint(path.name, state, meta if isinstance(meta, Mapping) else {}, notes)


def _state(content: Any, wrappers: tuple[str, ...]) -> tuple[str, Mapping[Any, Any] | None]:
    """Return under which key the weights stand (empty: they are the content), and them, if there are any."""
    if isinstance(content, Mapping):
        for key in wrappers:
            value = content.get(key)
            if isinstance(value, Mapping):  # mmengine's averages are a state dict, timm's a dict that holds one
                return key, _state(value, ("state_dict",))[1] if "state_dict" in value else value
            if isinstance(value, StandIn):
                return key, dict(module_tensors(value))
    if wrappers is AVERAGES:
        return "", None
    if isinstance(content, StandIn):
        return "", dict(module_tensors(content))
    return "", content if isinstance(content, Mapping) else None


def _without_prefixes(state: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """Return a state dict without what wrappers put before its names, and the names that are no part of the network."""
    found, left = dict(state), []
    while True:
        inner = {key: value for key, value in found.items() if not str(key).startswith(BESIDE)}
        prefix = next((p for p in PREFIXES if inner and all(str(key).startswith(p) for key in inner)), None)
        if prefix is None:
            return found, left
        left += [str(key) for key in found if key not in inner]
        found = {key.removeprefix(prefix): value for key, value in inner.items()}


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor whose numbers all stand in the file: an expanded one may say that it has 10¹⁵."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        return False
    size = value.numel() * value.element_size()
    return value.device.type == "cpu" and size <= value.untyped_storage().nbytes()


def _looks_like(path: Path) -> str:
    """Return why a file cannot be a PyTorch file, by its first bytes; empty if it may be one."""
    try:
        with open_file(path) as file:
            head = file.read(64)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return not_the_file(head) or ("" if head else "it is empty")
