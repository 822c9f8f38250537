"""Digests of files, and the memory of which files have been checked already."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import tempfile
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

from fcnzoo.errors import WeightsError
from fcnzoo.files.atomic import atomic
from fcnzoo.files.reading import open_file, read_bytes


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

    def mismatch(self, path: str | Path | BufferedReader) -> str | None:
        """Hash a file, or the rest of an open one; return the digest it has if it is not this one.

        Raises:
            OSError: It cannot be read.
        """
        found = _hash(path, self.kind) if isinstance(path, BufferedReader) else hash_file(path, self.kind)
        return None if self.value and found.startswith(self.value.lower()) else found


def cache_folder() -> Path:
    """Return where fcnzoo keeps what it fetched or converted: `FCNZOO_CACHE`, or `~/.cache/fcnzoo`.

    Where nobody has a home (containers that run as any user), it is a folder of this user's among the temporary files.
    """
    given = os.environ.get("FCNZOO_CACHE")
    try:
        return Path(given).expanduser() if given else Path.home() / ".cache" / "fcnzoo"
    except RuntimeError:
        if given:
            raise WeightsError(f"FCNZOO_CACHE={given}: there is no such user; give a folder") from None
        return _own_folder(
            Path(tempfile.gettempdir()) / f"fcnzoo-cache-{os.getuid() if hasattr(os, 'getuid') else 'any'}"
        )


def _own_folder(folder: Path) -> Path:
    """Make a folder where anybody may write; somebody else's of that name, or one open to others, is not taken.

    What is in the cache vouches for files that were checked.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or (
        hasattr(os, "getuid") and (facts.st_uid != os.getuid() or facts.st_mode & 0o022)
    ):
        raise WeightsError(f"{folder} is not a folder of this user's alone; set FCNZOO_CACHE to one")
    return folder


def hash_file(path: str | Path, kind: str = "sha256") -> str:
    """Hash a file in hex, piece by piece.

    Args:
        path: The file.
        kind: See `Digest`.

    Raises:
        OSError: It cannot be read.
    """
    with open_file(path) as file:
        return _hash(file, kind)


def _hash(file: BufferedReader, kind: str) -> str:
    if kind == "git":
        start = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        return hashlib.file_digest(file, start.copy).hexdigest()
    return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def wrong_digest(path: str | Path | BufferedReader, digest: Digest) -> str | None:
    """Return what `Digest.mismatch` does, but hash no file twice.

    A file that passed is remembered in the cache folder with its size and its times, and is not hashed again while
    they stay the same.

    Args:
        path: The file; or an open one, whose very bytes are then meant, whatever is called so by now.
        digest: What it must have.

    Raises:
        OSError: It cannot be read.
    """
    if not isinstance(path, BufferedReader):
        with open_file(path) as file:
            return wrong_digest(file, digest)
    facts = os.fstat(path.fileno())
    seen = {
        "file": [facts.st_dev, facts.st_ino],
        "digest": str(digest),
        "size": facts.st_size,
        "changed": [facts.st_mtime_ns, facts.st_ctime_ns],
    }
    # Under the path's name, so that the notes are as many as the files; what they say is of the file itself.
    name = hashlib.sha256(os.fsencode(Path(path.name).resolve())).hexdigest()[:32]
    note = cache_folder() / "verified" / f"{name}.json"
    if _read(note) == seen:
        return None
    found = digest.mismatch(path)
    path.seek(0)
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
        return json.loads(read_bytes(note))
    except (OSError, ValueError):
        return None
