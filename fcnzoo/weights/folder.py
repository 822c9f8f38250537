"""What lies beside the weights in a model's folder: the record in `config.json`."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

from fcnzoo.config import FCNConfig
from fcnzoo.config.spec import Metric
from fcnzoo.errors import WeightsError
from fcnzoo.files.digests import Digest, wrong_digest
from fcnzoo.files.reading import open_file, read_at_most
from fcnzoo.files.records import read_json
from fcnzoo.files.staging import finish_pending, folder_identity, open_current
from fcnzoo.version import __version__

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"

MAX_CONFIG = 8 * 2**20
"""Longest `config.json` read, in bytes."""


@dataclass(frozen=True)
class FolderRecord:
    """What `config.json` says.

    Attributes:
        model: What the network is.
        sha256: Digest of `model.safetensors`; `None` in folders that do not say.
        metrics: What the network reaches.
        datasets: What it was trained on.
        provenance: What it was made from: JSON of any form.
        license: Of the weights, as given.
        library_version: Of the fcnzoo that wrote it.
    """

    model: FCNConfig
    sha256: str | None = None
    metrics: tuple[Metric, ...] = ()
    datasets: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    license: str | None = None
    library_version: str = __version__

    def to_json(self) -> str:
        """Return the text of `config.json`.

        Raises:
            TypeError: The provenance cannot be JSON.
            ValueError: It holds NaN or an infinity, or itself.
        """
        data = {
            "library": "fcnzoo",
            "library_version": self.library_version,
            "model": self.model.to_dict(),
            "sha256": self.sha256,
            "metrics": [metric.to_dict() for metric in self.metrics],
            "datasets": list(self.datasets),
            "provenance": dict(self.provenance),
            "license": self.license,
        }
        return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> FolderRecord:
        """Read the text of `config.json`.

        Raises:
            ValueError: It is no JSON, or a field is unknown, missing or impossible.
            TypeError: A field has the wrong type.
        """
        data = read_json(text)
        if not isinstance(data, dict):
            raise TypeError(f"it must hold a JSON object, got {type(data).__name__}")
        if data.pop("library", "fcnzoo") != "fcnzoo" or "model" not in data:
            raise ValueError("lacks the field 'model': it is not one that fcnzoo wrote")
        # The model first: a config of a future version says so before anything else is found odd.
        model = FCNConfig.from_dict(data.pop("model"), where="model")
        known = {name: data.pop(name) for name in _TYPES if name in data}
        if data:
            names = ", ".join(repr(str(name)[:80]) for name in list(data)[:5])
            raise ValueError(f"has unknown fields: {names}; if a newer fcnzoo wrote it, upgrade")
        for name, value in known.items():
            if not isinstance(value, _TYPES[name]):
                raise TypeError(f"{name} has the wrong type: {type(value).__name__}")
        if known.get("sha256") is not None and not re.fullmatch("[0-9a-f]{64}", known["sha256"]):
            raise ValueError("sha256 must be 64 hexadecimal digits")
        if not all(isinstance(name, str) for name in known.get("datasets", ())):
            raise TypeError("datasets must hold texts")
        metrics = tuple(Metric.from_dict(metric, where="metrics") for metric in known.pop("metrics", ()))
        return cls(model=model, metrics=metrics, datasets=tuple(known.pop("datasets", ())), **known)


_TYPES: dict[str, Any] = {
    "library_version": str,
    "sha256": str | None,
    "metrics": list,
    "datasets": list,
    "provenance": dict,
    "license": str | None,
}


def read_record(folder: str | Path, *, fetched: bool = False) -> FolderRecord:
    """Read what a folder says about its network, without the weights.

    Args:
        folder: The folder.
        fetched: See `open_folder`.

    Raises:
        WeightsError: There is no `config.json`, or it is not one that fcnzoo wrote.
    """
    return _parse(folder, _read_text(folder, fetched))


def _read_text(folder: str | Path, fetched: bool = False) -> bytes:
    path = Path(folder) / CONFIG_FILE
    try:
        with open_file(path) if fetched else open_current(folder, CONFIG_FILE) as file:
            return read_at_most(file, MAX_CONFIG)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise WeightsError(f"{folder} holds no {CONFIG_FILE}; give a folder that fcnzoo.save wrote") from None
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None


def _parse(folder: str | Path, text: bytes) -> FolderRecord:
    try:
        return FolderRecord.from_json(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise config_error(folder, error) from None


def config_error(folder: str | Path, error: Exception) -> WeightsError:
    """Return the error about a folder's `config.json`; a value in it may be megabytes long, and is cut."""
    text = str(error)
    return WeightsError(f"{Path(folder) / CONFIG_FILE}: {text[:1000]}{' …' if len(text) > 1000 else ''}")


@contextlib.contextmanager
def open_folder(
    folder: str | Path, *, fetched: bool = False, sha256: str | None = None
) -> Iterator[tuple[FolderRecord, BufferedReader]]:
    """Give a folder's record and its open weights file, both of the same save.

    A save that was cut short is finished first, if the folder may be written.

    Args:
        folder: The folder.
        fetched: It is not the user's own (a mirror, a cache): nothing in it is moved, nothing pending is read, and
            the digest is compared, that of `config.json` where no other is given.
        sha256: What the weights, as opened here, must hash to.

    Raises:
        WeightsError: A file is missing, or the record is not one that fcnzoo wrote; or the digest is another.
    """
    if fetched:
        with _open_fetched(folder, sha256) as found:
            yield found
        return
    with contextlib.suppress(OSError):
        finish_pending(folder)  # what cannot be moved is read where it is
    while True:
        text = _read_text(folder)
        record = _parse(folder, text)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_open_weights(folder))
            # Nobody may have saved in between, not even twice: the record, and then the file, must be the same still.
            same = _read_text(folder) == text
            with _open_weights(folder) as now:
                same &= os.path.samestat(os.fstat(file.fileno()), os.fstat(now.fileno()))
            if same:
                stack.pop_all()
                break
    with file:
        yield record, file


@contextlib.contextmanager
def _open_fetched(folder: str | Path, sha256: str | None) -> Iterator[tuple[FolderRecord, BufferedReader]]:
    """Open a folder whose files were compared with digests already: what is read now must still be the same."""
    path = Path(folder)
    while True:
        before = folder_identity(path)
        record = read_record(folder, fetched=True)
        weights = _open_weights(folder, fetched=True)
        if folder_identity(path) == before:
            break
        weights.close()  # somebody renewed the folder in between
    with weights:
        wanted = sha256 or record.sha256
        found = None if wanted is None else wrong_digest(weights, Digest("sha256", wanted))
        if found is not None:
            raise WeightsError(f"{path / WEIGHTS_FILE}: its sha256 is {found}, it should be {wanted}; it is damaged")
        yield record, weights


def _open_weights(folder: str | Path, fetched: bool = False) -> BufferedReader:
    try:
        return open_file(Path(folder) / WEIGHTS_FILE) if fetched else open_current(folder, WEIGHTS_FILE)
    except OSError as error:
        raise WeightsError(f"{Path(folder) / WEIGHTS_FILE}: cannot be read ({error.strerror or error})") from None


def read_config(folder: str | Path, *, fetched: bool = False) -> FCNConfig:
    """Read what network a folder holds, without its weights.

    Args:
        folder: The folder.
        fetched: See `open_folder`.

    Raises:
        WeightsError: There is no `config.json`, or it is not one that fcnzoo wrote.
    """
    return read_record(folder, fetched=fetched).model
