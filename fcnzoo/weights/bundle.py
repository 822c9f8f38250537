"""Folders of weights with their digests beside them: what a mirror holds, and the cache of converted weights.

A bundle is what `fcnzoo.save` writes, and a `digests.json`: `{"model.safetensors": "<sha256>", …}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fcnzoo.config import FCNConfig
from fcnzoo.errors import WeightsError
from fcnzoo.files.atomic import atomic
from fcnzoo.files.digests import Digest, cache_folder, hash_file, wrong_digest
from fcnzoo.files.reading import open_file, read_at_most
from fcnzoo.files.records import read_json, shown
from fcnzoo.files.staging import folder_identity
from fcnzoo.weights.folder import CONFIG_FILE, WEIGHTS_FILE

DIGESTS_FILE = "digests.json"
NEEDED = (CONFIG_FILE, WEIGHTS_FILE)
"""What every bundle holds; a card may lie beside it."""

MAX_DIGESTS = 2**20
"""Longest `digests.json` read, in bytes."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process makes this folder of the cache, and keep others waiting: many start at once."""
    from huggingface_hub.utils import WeakFileLock

    lock = cache_folder() / "locks" / f"{folder.parent.name}-{folder.name}.lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"{lock.parent}: {error.strerror or error}; set FCNZOO_CACHE to a folder of yours") from None
    with WeakFileLock(lock):
        yield


def write_digests(folder: Path) -> None:
    """Write down the digests of a folder's files."""
    digests = {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name != DIGESTS_FILE}
    with atomic(folder / DIGESTS_FILE, "w") as file:
        file.write(json.dumps(digests, indent=2) + "\n")


def read_digests(folder: Path, where: str | None = None) -> dict[str, str]:
    """Read a folder's `digests.json`.

    Args:
        folder: The folder.
        where: What errors call the file; by default its path.

    Raises:
        WeightsError: It is missing, too long or damaged, or does not tell of every file that is needed.
    """
    where = where or str(folder / DIGESTS_FILE)
    try:
        with open_file(folder / DIGESTS_FILE) as file:
            digests = read_json(read_at_most(file, MAX_DIGESTS))
    except OSError as error:
        raise WeightsError(f"{where}: {error.strerror or error}; make the folder with `fcnzoo mirror`") from None
    except ValueError as error:
        raise WeightsError(f"{where}: not valid JSON ({error})") from None
    whole = isinstance(digests, dict) and all(
        re.fullmatch(r"[\w.-]+", name) and isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value)
        for name, value in digests.items()
    )
    if not whole or any(name not in digests for name in NEEDED):
        raise WeightsError(f"{where} must give the sha256 of {' and '.join(NEEDED)}; make it with `fcnzoo mirror`")
    return digests


def check_digests(folder: Path, pin: str | None = None) -> None:
    """Compare a folder with its digests; files that passed before and have not changed are not hashed again.

    Args:
        folder: The folder.
        pin: What the registry says that `model.safetensors` hashes to, if it does.

    Raises:
        WeightsError: A file is missing, or is not what the digests (or the pin) say.
    """
    while True:
        before = folder_identity(folder)
        try:
            return _check_digests(folder, pin)
        except WeightsError:
            if folder_identity(folder) == before:
                raise  # else somebody renewed it in between


def _check_digests(folder: Path, pin: str | None) -> None:
    digests = read_digests(folder)
    if pin is not None:
        digests[WEIGHTS_FILE] = pin
    for name in NEEDED:
        try:
            found = wrong_digest(folder / name, Digest("sha256", digests[name]))
        except OSError as error:
            raise WeightsError(f"{folder / name}: {error.strerror or error}") from None
        if found is not None:
            raise WeightsError(f"{folder / name}: its sha256 is {found}, it should be {digests[name]}; it is damaged")


def check_config(folder: Path, found: FCNConfig, wanted: FCNConfig | None) -> None:
    """Compare what a folder's `config.json` describes with what the registry says of the weights, class names included.

    Raises:
        WeightsError: They are not the same.
    """
    for part in ("backbone", "head", "aux_head", "num_classes", "label_set", "preprocess") if wanted else ():
        theirs, ours = getattr(found, part), getattr(wanted, part)
        if ours != theirs and not (ours is None and part in ("label_set", "preprocess")):
            raise WeightsError(
                f"{folder / CONFIG_FILE}: its {part} is {shown(theirs)}, the registry says {shown(ours)}; "
                "it is damaged, or of another network"
            )
