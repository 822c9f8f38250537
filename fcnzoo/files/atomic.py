"""Writing files so that nothing is ever half there."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fcnzoo.files.parts import part_file


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

    The bytes go to a temporary file in the same folder, which is flushed, given the mode that `path` has (a new file:
    what the umask asks for), and moved over `path` in one step. If the block raises, or the process dies, `path` is
    what it was. A link is followed and stays. What is no regular file (a device, a pipe) is written to as it is.

    Args:
        path: File to write; its folder is made if it is missing.
        mode: `"wb"`, or `"w"` for UTF-8 text.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    path = Path(path)
    encoding = None if "b" in mode else "utf-8"
    if is_special(path):
        with path.open(mode, encoding=encoding) as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve() if path.is_symlink() else path
    bits = stat.S_IMODE(path.stat().st_mode) if path.exists() else default_mode()
    with part_file(path) as (handle, temporary):
        with os.fdopen(handle, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, bits)
        os.replace(temporary, path)


def is_special(path: Path) -> bool:
    """Whether something is there that is neither a regular file nor a folder, or a stream by its name.

    `/dev/stdout` may lead to a regular file, which is being written to: replaced, it would lose the rest.
    """
    stream = str(path).startswith(("/dev/std", "/dev/fd/", "/proc/"))
    return path.exists() and not path.is_dir() and (stream or not path.is_file())


def append(path: Path) -> IO[str]:
    """Open a log for lines at its end, UTF-8; made if it is missing."""
    return path.open("a", encoding="utf-8")


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and keeps its journal of names itself
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
