"""A folder's weights, checked in every way there is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fcnzoo.errors import WeightsError
from fcnzoo.files.safetensors import SafetensorsFile, open_safetensors
from fcnzoo.weights.folder import CONFIG_FILE, WEIGHTS_FILE, FolderRecord, open_folder
from fcnzoo.weights.restore import build_empty, check_fit

__all__ = ["Verification", "check_finite", "inspect_open", "verify"]


def check_finite(name: str, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
    """Raise `WeightsError` unless a tensor has values, all finite, and also so in the dtype it is stored in."""
    if tensor.is_meta:
        raise WeightsError(f"{name} is on the meta device and has no values to save")
    if not tensor.is_floating_point():
        return
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{name} holds NaN or infinite values; such a network is of no use")
    if dtype is not None and not torch.isfinite(tensor.to(dtype)).all():
        raise WeightsError(f"{name} holds values that do not fit {dtype}; save it in another dtype")


@dataclass(frozen=True)
class Verification:
    """What `verify` found sound.

    Attributes:
        folder: Where.
        sha256: Digest of the weights file.
        recorded: Whether it was compared with one that `config.json` or the caller gave.
        size: Bytes of the weights file.
        tensors: How many it holds.
    """

    folder: Path
    sha256: str
    recorded: bool
    size: int
    tensors: int


def verify(folder: str | Path, *, sha256: str | None = None, fetched: bool = False) -> Verification:
    """Read a folder's weights and check all that can be checked.

    The header is compared with the network that `config.json` describes, the digest with the one it
    records, and every value must be finite.

    Args:
        folder: The folder.
        sha256: A digest from elsewhere that the weights file must have, too.
        fetched: It is not your own (a mirror, a cache): a save that was cut short there is not finished, nor read.

    Raises:
        WeightsError: Something is wrong; the text names the file and the cause.
    """
    with (
        open_folder(folder, fetched=fetched) as (record, raw),
        open_safetensors(Path(folder) / WEIGHTS_FILE, raw) as file,
    ):
        return inspect_open(record, file, sha256)


def inspect_open(record: FolderRecord, file: SafetensorsFile, sha256: str | None) -> Verification:
    """Check an open folder; see `verify`."""
    folder = file.path.parent
    check_fit(build_empty(record.model, folder), file.entries, str(file.path))
    found = file.sha256()
    for says, digest in ((CONFIG_FILE, record.sha256), ("the registry", sha256)):
        if digest is not None and digest != found:
            raise WeightsError(f"{file.path}: sha256 is {found}, {says} says {digest}; it is damaged or not the same")
    for name in file.entries:
        try:
            check_finite(name, file.tensor(name))
        except WeightsError as error:
            raise WeightsError(f"{file.path}: {error}") from None
    size = file.file.seek(0, 2)
    return Verification(folder, found, bool(record.sha256 or sha256), size, len(file.entries))
