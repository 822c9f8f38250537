"""Networks from folders and the Hub."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from fcnzoo.config import FCNConfig
from fcnzoo.errors import WeightsError
from fcnzoo.files.safetensors import open_safetensors
from fcnzoo.model.fcn import FCN
from fcnzoo.weights.folder import WEIGHTS_FILE, open_folder
from fcnzoo.weights.restore import restore
from fcnzoo.weights.verify import inspect_open

__all__ = ["load", "load_as"]


def load(
    source: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    mmap: bool = True,
    verify: bool = False,
) -> FCN:
    """Load a network that `save` or `push_to_hub` wrote, in eval mode.

    Nothing is initialized and, by default, nothing is read before it is used. The file's names, shapes and
    dtypes are compared with the network first.

    Args:
        source: A folder, or `"hf-hub:org/name"`, perhaps with `@revision`.
        device: Where to put it; by default PyTorch's default device.
        dtype: Of its parameters; float32 by default, whatever the file holds.
        mmap: Let the weights be read from the file when they are first used. Training never writes to the file,
            and files that are replaced (as `save` does) or deleted do not matter. Give `False` to copy all
            weights now where others change files in place or the disk may vanish (network mounts, USB): an
            edit would show in the network, and a file cut short would kill the process.
        verify: Read everything now and check the digest that `config.json` records, and that all is finite.

    Raises:
        WeightsError: A file is missing, damaged, or does not fit the other.
        TypeError: `dtype` is no floating-point dtype.
    """
    fetched = False
    if isinstance(source, str) and source.startswith("hf-hub:"):
        from fcnzoo.weights.hub import pull

        source, fetched = pull(source), True
    _check_source(source)
    return load_as(source, None, device=device, dtype=dtype, mmap=mmap, verify=verify, fetched=fetched)


def _check_source(source: str | Path) -> None:
    """Raise `WeightsError` for what is meant as a repository of the Hub, and is no folder here."""
    text = str(source)
    found = re.fullmatch(r"(?:https?:/+[\w.-]+/)?([\w-][\w.-]*/[\w-][\w.-]*)/?", text)
    if found and not Path(source).exists():
        raise WeightsError(f"{text}: there is no such folder; a repository of the Hub is 'hf-hub:{found[1]}'")


def load_as(
    folder: str | Path,
    config: FCNConfig | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    mmap: bool = True,
    verify: bool = False,
    fetched: bool = False,
    sha256: str | None = None,
) -> FCN:
    """Load a folder's weights into a network of `config`, in eval mode.

    Where the classes are others than the weights', the score layers are fresh, except for classes that both
    have by the same name. An aux head that only one of the two has is left out, or fresh. Everything else is
    loaded strictly.

    Args:
        folder: The folder.
        config: What to build; `None`: what the folder holds.
        device: See `load`.
        dtype: See `load`.
        mmap: See `load`.
        verify: See `load`.
        fetched: The folder is not the user's own; see `open_folder`.
        sha256: Digest that its weights must have.

    Raises:
        WeightsError: A file is missing or damaged, or the weights do not fit.
        UnknownModelError: There is no such backbone as `config` names.
        BackboneError: The backbone of `config` cannot serve its head.
        TypeError: `dtype` is no floating-point dtype.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point dtype, got {dtype}")
    opened = open_folder(folder, fetched=fetched, sha256=sha256)
    with opened as (record, raw), open_safetensors(Path(folder) / WEIGHTS_FILE, raw) as file:
        config = record.model if config is None else config
        if verify:
            inspect_open(record, file, None)
        model = restore(config, record.model, file, dtype or torch.float32, mmap)
    if config == record.model:
        model.provenance = dict(record.provenance)
    return model.to(device=torch.get_default_device() if device is None else device, dtype=dtype)
