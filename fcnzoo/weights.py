"""Networks as folders: `model.safetensors`, `config.json`, `README.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcnzoo.card import render
from fcnzoo.config import FCNConfig
from fcnzoo.digests import Digest, wrong_digest
from fcnzoo.errors import WeightsError
from fcnzoo.files import atomic_together
from fcnzoo.model import FCN
from fcnzoo.model_folder import (
    CARD_FILE,
    CONFIG_FILE,
    MAX_CONFIG,
    WEIGHTS_FILE,
    FolderRecord,
    open_folder,
    read_record,
)
from fcnzoo.restore import FLOATS, build_empty, check_fit, restore
from fcnzoo.safetensors_file import SafetensorsFile, open_safetensors, write_safetensors
from fcnzoo.score_rows import score_keys
from fcnzoo.spec import Metric, Weights

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "Verification",
    "load",
    "load_as",
    "packaged_folder",
    "read_config",
    "save",
    "score_keys",
    "verify",
]


def save(
    model: FCN,
    folder: str | Path,
    *,
    metrics: Iterable[Metric] = (),
    datasets: Iterable[str] = (),
    provenance: Mapping[str, Any] | None = None,
    license: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a network into a folder. All files change together, or none does, even if the process is killed.

    Args:
        model: The network.
        folder: Made if it is missing; files of an earlier save are replaced, all others stay, and so does a
            `README.md` that is no card of fcnzoo's. A network that was loaded from here keeps its weights.
        metrics: What it reaches, for `config.json` and the card.
        datasets: Names of the data sets it was trained on, as the Hub calls them, for the card.
        provenance: What it was made from (data, recipe, source); JSON-ready. By default `model.provenance`.
        license: Under which the weights may be used. None is ever invented.
        dtype: Floating-point tensors are stored in it (`torch.float16` halves the file); loading gives float32.

    Returns:
        The folder.

    Raises:
        WeightsError: A weight is NaN or infinite, or the weights are not those of the network that `model.config`
            describes (a part was compiled, pruned, quantised or replaced); nothing is written.
        TypeError: `model` is no FCN, the provenance holds what JSON cannot, or another argument has a wrong type.
        ValueError: The provenance holds NaN or an infinity, a name twice, or too much.
        OSError: The folder cannot be written.
    """
    inner = getattr(model, "_orig_mod", model)  # what torch.compile was given
    if not isinstance(inner, FCN):
        raise TypeError(f"model must be an FCN, got {type(model).__name__}; give the network inside any wrapper")
    model = inner
    if dtype is not None and dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {', '.join(map(str, FLOATS))}, got {dtype}")
    folder = Path(folder)
    tensors = model.state_dict()
    _check_whole(model, tensors)
    for name, tensor in tensors.items():
        _check_finite(name, tensor, dtype)
    provenance = dict(model.provenance if provenance is None else provenance)
    record = _record(model.config, metrics, datasets, provenance, license)
    metadata = {"format": "pt"} | ({"provenance": json.dumps(provenance)} if provenance else {})
    with atomic_together(folder) as staging:
        with (staging / WEIGHTS_FILE).open("wb") as file:
            digest = write_safetensors(file, tensors, metadata, dtype)
        (staging / CONFIG_FILE).write_bytes(replace(record, sha256=digest).to_json().encode())
        if not _is_foreign(folder / CARD_FILE):
            (staging / CARD_FILE).write_bytes(render(record).encode())
    return folder


def _record(
    config: FCNConfig,
    metrics: Iterable[Metric],
    datasets: Iterable[str],
    provenance: Mapping[str, Any],
    license: str | None,
) -> FolderRecord:
    """Make the record of a folder; what could not be read again is refused before anything is written."""
    metrics = tuple(metrics)
    if isinstance(datasets, str) or not all(isinstance(metric, Metric) for metric in metrics):
        raise TypeError("datasets must be names of data sets (not one text), and metrics be fcnzoo.spec.Metric")
    record = FolderRecord(config, None, metrics, tuple(datasets), provenance, license)
    text = replace(record, sha256="0" * 64).to_json().encode()
    if len(text) > MAX_CONFIG:
        raise ValueError(f"{CONFIG_FILE} would have {len(text)} bytes, at most {MAX_CONFIG}; shorten the provenance")
    FolderRecord.from_json(text)
    return record


def _check_whole(model: FCN, tensors: Mapping[str, Tensor]) -> None:
    """Compare a network with what its config builds: another one would be saved, and never load."""
    try:
        check_fit(build_empty(model.config, None), tensors, "model")
    except WeightsError as error:
        raise WeightsError(
            f"{error}; it could not be loaded again. Save it without compiled, pruned, quantised or replaced parts"
        ) from None


def _check_finite(name: str, tensor: Tensor, dtype: torch.dtype | None = None) -> None:
    if tensor.is_meta:
        raise WeightsError(f"{name} is on the meta device and has no values to save")
    if not tensor.is_floating_point():
        return
    if not torch.isfinite(tensor).all():
        raise WeightsError(f"{name} holds NaN or infinite values; such a network is of no use")
    if dtype is not None and not torch.isfinite(tensor.to(dtype)).all():
        raise WeightsError(f"{name} holds values that do not fit {dtype}; save it in another dtype")


def _is_foreign(card: Path) -> bool:
    """Whether a README is somebody's own: fcnzoo's cards say so in their front matter."""
    try:
        with card.open("rb") as file:
            return b"library_name: fcnzoo" not in file.read(2**16)
    except FileNotFoundError:
        return False


def load(
    source: str | Path,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    map: bool = True,
    verify: bool = False,
) -> FCN:
    """Load a network that `save` or `push_to_hub` wrote, in eval mode.

    Nothing is initialised and, by default, nothing is read before it is used. The file's names, shapes and
    dtypes are compared with the network first.

    Args:
        source: A folder, or `"hf-hub:org/name"`, perhaps with `@revision`.
        device: Where to put it; by default PyTorch's default device.
        dtype: Of its parameters; float32 by default, whatever the file holds.
        map: Let the weights be read from the file when they are first used. Training never writes to the file,
            and files that are replaced (as `save` does) or deleted do not matter. Give `False` to copy all
            weights now where others change files in place or the disk may vanish (network mounts, USB): an
            edit would show in the network, and a file cut short would kill the process.
        verify: Read everything now and check the digest that `config.json` records, and that all is finite.

    Raises:
        WeightsError: A file is missing, damaged, or does not fit the other.
        TypeError: `dtype` is no floating-point dtype.
    """
    if isinstance(source, str) and source.startswith("hf-hub:"):
        from fcnzoo.hub import pull

        source = pull(source)
    return load_as(source, None, device=device, dtype=dtype, map=map, verify=verify)


def load_as(
    folder: str | Path,
    config: FCNConfig | None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    map: bool = True,
    verify: bool = False,
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
        map: See `load`.
        verify: See `load`.

    Raises:
        WeightsError: A file is missing or damaged, or the weights do not fit.
        UnknownModelError: There is no such backbone as `config` names.
        BackboneError: The backbone of `config` cannot serve its head.
        TypeError: `dtype` is no floating-point dtype.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating-point dtype, got {dtype}")
    with open_folder(folder) as (record, raw), open_safetensors(Path(folder) / WEIGHTS_FILE, raw) as file:
        config = record.model if config is None else config
        if verify:
            _inspect(record, file, None)
        model = restore(config, record.model, file, dtype or torch.float32, map)
    if config == record.model:
        model.provenance = dict(record.provenance)
    return model.to(device=torch.get_default_device() if device is None else device, dtype=dtype)


def packaged_folder(weights: Weights) -> Path:
    """Return the folder of weights that are shipped in a wheel, fcnzoo's or a plug-in's, after comparing their digest.

    Raises:
        WeightsError: They are not shipped, or damaged.
    """
    if weights.packaged is None:
        raise WeightsError(f"the weights {weights.tag!r} are not shipped in a package")
    path = Path(__file__).parent / weights.packaged / WEIGHTS_FILE  # an absolute path, of a plug-in, stays as it is
    if not path.is_file():
        raise WeightsError(f"{path} is missing; reinstall the package that brings it")
    digest = wrong_digest(path, Digest("sha256", weights.sha256 or ""))
    if digest is not None:
        raise WeightsError(
            f"{path}: sha256 is {digest}, the registry says {weights.sha256}; reinstall the package that brings it"
        )
    return path.parent


def read_config(folder: str | Path) -> FCNConfig:
    """Read what network a folder holds, without its weights.

    Raises:
        WeightsError: There is no `config.json`, or it is not one that fcnzoo wrote.
    """
    return read_record(folder).model


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


def verify(folder: str | Path, *, sha256: str | None = None) -> Verification:
    """Read a folder's weights and check all that can be checked.

    The header is compared with the network that `config.json` describes, the digest with the one it
    records, and every value must be finite.

    Args:
        folder: The folder.
        sha256: A digest from elsewhere that the weights file must have, too.

    Raises:
        WeightsError: Something is wrong; the text names the file and the cause.
    """
    with open_folder(folder) as (record, raw), open_safetensors(Path(folder) / WEIGHTS_FILE, raw) as file:
        return _inspect(record, file, sha256)


def _inspect(record: FolderRecord, file: SafetensorsFile, sha256: str | None) -> Verification:
    """Check an open folder; see `verify`."""
    folder = file.path.parent
    check_fit(build_empty(record.model, folder), file.entries, str(file.path))
    found = file.sha256()
    for says, digest in (("config.json", record.sha256), ("the registry", sha256)):
        if digest is not None and digest != found:
            raise WeightsError(f"{file.path}: sha256 is {found}, {says} says {digest}; it is damaged or not the same")
    for name in file.entries:
        try:
            _check_finite(name, file.tensor(name))
        except WeightsError as error:
            raise WeightsError(f"{file.path}: {error}") from None
    size = file.file.seek(0, 2)
    return Verification(folder, found, bool(record.sha256 or sha256), size, len(file.entries))
