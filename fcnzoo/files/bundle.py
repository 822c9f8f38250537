"""Folders of weights with their digests beside them: what a mirror holds, and the cache of converted weights.

A bundle is what `fcnzoo.save` writes, and a `digests.json`: `{"model.safetensors": "<sha256>", …}`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fcnzoo.errors import WeightsError
from fcnzoo.files.atomic import atomic, default_mode
from fcnzoo.files.digests import Digest, cache_folder, hash_file, wrong_digest
from fcnzoo.files.strict_json import read_json

WEIGHTS_FILE = "model.safetensors"
DIGESTS_FILE = "digests.json"
CONFIG_FILE = "config.json"
NEEDED = (CONFIG_FILE, WEIGHTS_FILE)
"""What every bundle holds; a card may lie beside it."""

MAX_DIGESTS = 2**20
"""Longest `digests.json` read, in bytes."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process makes this folder of the cache, and keep others waiting: many start at once."""
    from huggingface_hub.utils import WeakFileLock

    lock = cache_folder() / "locks" / f"{folder.parent.name}-{folder.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        yield


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder under another name; it gets its own when all of it is there.

    A folder that is there already is replaced, unless another process put it there in the meantime. It is moved
    aside first, so that it is never there in part.

    Args:
        folder: Where it shall be.

    Yields:
        The folder to write into.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name[:50]}.", suffix=".part", dir=folder.parent))
    aside = temporary.with_suffix(".old")
    before = _identity(folder)
    try:
        yield temporary
        temporary.chmod(default_mode() | (default_mode() & 0o444) >> 2)  # who may read may enter
        if before is not None and _identity(folder) == before:
            os.replace(folder, aside)
        try:
            os.replace(temporary, folder)
        except OSError:
            # Two processes that make the same folder at once: the second finds it there, and just as good.
            if not (folder / DIGESTS_FILE).is_file():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Tell one folder from another that later has its name."""
    try:
        facts = folder.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def seal(folder: Path) -> None:
    """Write down the digests of a folder's files."""
    digests = {path.name: hash_file(path) for path in sorted(folder.iterdir()) if path.name != DIGESTS_FILE}
    with atomic(folder / DIGESTS_FILE, "w") as file:
        file.write(json.dumps(digests, indent=2) + "\n")


def read_digests(text: str | bytes, where: str) -> dict[str, str]:
    """Read `digests.json`.

    Args:
        text: What it holds.
        where: What errors call it.

    Raises:
        WeightsError: It is damaged, or does not tell of every file that is needed.
    """
    try:
        digests = read_json(text)
    except ValueError as error:
        raise WeightsError(f"{where}: not valid JSON ({error})") from None
    whole = isinstance(digests, dict) and all(
        re.fullmatch(r"[\w.-]+", name) and isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value)
        for name, value in digests.items()
    )
    if not whole or any(name not in digests for name in NEEDED):
        raise WeightsError(f"{where} must give the sha256 of {' and '.join(NEEDED)}; make it with `fcnzoo mirror`")
    return digests


def check(folder: Path, pin: str | None = None) -> None:
    """Compare a folder with its digests; files that passed before and have not changed are not hashed again.

    Args:
        folder: The folder.
        pin: What the registry says that `model.safetensors` hashes to, if it does.

    Raises:
        WeightsError: A file is missing, or is not what the digests (or the pin) say.
    """
    digests = digests_of(folder)
    if pin is not None:
        digests[WEIGHTS_FILE] = pin
    for name in NEEDED:
        try:
            found = wrong_digest(folder / name, Digest("sha256", digests[name]))
        except OSError as error:
            raise WeightsError(f"{folder / name}: {error.strerror or error}") from None
        if found is not None:
            raise WeightsError(f"{folder / name}: its sha256 is {found}, it should be {digests[name]}; it is damaged")


def digests_of(folder: Path, where: str | None = None) -> dict[str, str]:
    """Read a folder's `digests.json`; arguments and errors are those of `read_digests`."""
    path = folder / DIGESTS_FILE
    return read_digests(_bytes(path), where or str(path))


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_DIGESTS + 1)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}; make the folder with `fcnzoo mirror`") from None
    if len(text) > MAX_DIGESTS:
        raise WeightsError(f"{path}: longer than {MAX_DIGESTS} bytes; make the folder with `fcnzoo mirror`")
    return text
