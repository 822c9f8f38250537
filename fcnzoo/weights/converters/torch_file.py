"""State dicts out of PyTorch files, without running code that they may hold."""

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

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the state dict beside other things: mmcv's, torchfcn's, torchvision's."""


def read_torch(path: str | Path) -> Checkpoint:
    """Read a `.pth` file: a state dict, or a dict that holds one under one of `WRAPPERS`.

    Only tensors and plain values are unpickled (`weights_only=True`); a file with anything else is refused.

    Args:
        path: The file.

    Raises:
        ConversionError: The file is missing, damaged, wants to run code, or holds something else.
    """
    path = Path(path)
    hint = _looks_like(path)
    if hint:
        raise ConversionError(f"{path}: {hint}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = str(error).split("\n", 1)[0].strip()[:300] or type(error).__name__
        raise ConversionError(
            f"{path}: not a PyTorch file of plain tensors ({type(error).__name__}: {reason}); nothing in it was run"
        ) from None
    if not isinstance(content, Mapping):
        raise ConversionError(f"{path}: holds a {type(content).__name__}, not a state dict")
    meta: Mapping[str, Any] = {}
    state = content
    wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if wrapper is not None:
        state = content[wrapper]
        meta = content["meta"] if isinstance(content.get("meta"), Mapping) else {}
    strange = [str(key) for key, value in state.items() if not isinstance(key, str) or not _is_plain(value)]
    if strange or not state:
        keys = listed(strange) if strange else "it is empty"
        raise ConversionError(f"{path}: not a state dict of dense, whole tensors, by name: {keys}")
    # DistributedDataParallel puts `module.` before every name.
    prefix = "module." if all(key.startswith("module.") for key in state) else ""
    return Checkpoint(path.name, {key.removeprefix(prefix): tensor for key, tensor in state.items()}, meta)


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
