"""Writing files so that nothing is ever half there."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def default_mode() -> int:
    """Return the permission bits a plain `open(..., "w")` would give a new file."""
    return 0o666 & ~umask()


_umask_lock = threading.Lock()


def umask() -> int:
    """Read the umask, which can only be done by setting it: one thread at a time, and never to "all may write"."""
    with _umask_lock:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


@contextlib.contextmanager
def atomic(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that takes the place of `path` only when all of it is on the disk.

    The bytes go to a temporary file in the same folder, which is flushed, given the mode that the
    umask asks for, and moved over `path` in one step. If the block raises, or the process dies,
    `path` is what it was.

    Args:
        path: File to write; its folder is made if it is missing.
        mode: `"wb"`, or `"w"` for UTF-8 text.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:50]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, default_mode())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and keeps its journal of names itself
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
