"""Digests of files, and the memory of which files have been checked already."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from fcnzoo.files.atomic import atomic
from fcnzoo.files.reading import open_file


class Digest(NamedTuple):
    """What a file's bytes must hash to.

    Attributes:
        kind: `"sha256"`, `"md5"`, or `"git"`: the id git gives a file (sha1 of a header and the bytes).
        value: Hex digits; the first few are enough where a publisher tells no more.
    """

    kind: str
    value: str

    def __str__(self) -> str:
        """Return it as error texts show it: `sha256 1167a1af`."""
        return f"{self.kind} {self.value}"

    def mismatch(self, path: str | Path) -> str | None:
        """Hash a file; return the digest it has if it is not this one.

        Raises:
            OSError: It cannot be read.
        """
        found = hash_file(path, self.kind)
        return None if self.value and found.startswith(self.value.lower()) else found


def cache_folder() -> Path:
    """Return where fcnzoo keeps what it fetched or converted: `FCNZOO_CACHE`, or `~/.cache/fcnzoo`."""
    given = os.environ.get("FCNZOO_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "fcnzoo"


def hash_file(path: str | Path, kind: str = "sha256") -> str:
    """Hash a file in hex, piece by piece.

    Args:
        path: The file.
        kind: See `Digest`.

    Raises:
        OSError: It cannot be read.
    """
    with open_file(path) as file:
        if kind == "git":
            start = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
            return hashlib.file_digest(file, start.copy).hexdigest()
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def wrong_digest(path: str | Path, digest: Digest) -> str | None:
    """Return what `Digest.mismatch` does, but hash no file twice.

    A file that passed is remembered in the cache folder with its size and time of change, and is not
    hashed again while both stay the same.

    Args:
        path: The file.
        digest: What it must have.

    Raises:
        OSError: It cannot be read.
    """
    path = Path(path).resolve()
    facts = path.stat()
    seen = {"path": str(path), "digest": str(digest), "size": facts.st_size, "changed": facts.st_mtime_ns}
    note = cache_folder() / "verified" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    if _read(note) == seen:
        return None
    found = digest.mismatch(path)
    if found is not None:
        return found
    try:
        with atomic(note, "w") as file:
            json.dump(seen, file)
    except OSError:
        pass  # a cache that cannot be written costs the next caller the time to hash again, nothing else
    return None


def _read(note: Path) -> object:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
