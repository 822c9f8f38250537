"""Writing files so that nothing is ever half there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

PENDING = ".fcnzoo-pending"
"""Folder inside a folder of files that change together: those that have not been moved into place yet."""

STALE_SECONDS = 3600
"""What a killed process left half written is deleted when nobody has touched it for so long."""


def default_mode() -> int:
    """Return the permission bits a plain `open(..., "w")` would give a new file."""
    return 0o666 & ~_umask()


_umask_lock = threading.Lock()


def _umask() -> int:
    """Read the umask, which can only be done by setting it: one thread at a time, and never to "all may write"."""
    with _umask_lock:
        umask = os.umask(0o077)
        os.umask(umask)
    return umask


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


@contextlib.contextmanager
def atomic_together(folder: str | Path) -> Iterator[Path]:
    """Give an empty folder whose files take their places in `folder` together, or not at all.

    No file system replaces several files in one step, so the step is the renaming of the finished files'
    folder to `PENDING`, inside `folder`. Before it, everything is as it was. After it, `current` finds the
    new files wherever they are; they are moved to their names at once, or, if the process dies first, by the
    next `settle`. Other files in `folder` are never touched.

    Args:
        folder: Made if it is missing.

    Raises:
        OSError: The folder cannot be written, the disk is full, or a folder has the name of a file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    staging = Path(tempfile.mkdtemp(prefix=".fcnzoo-", suffix=".part", dir=folder))
    try:
        yield staging
        for path in staging.iterdir():
            if (folder / path.name).is_dir():
                raise IsADirectoryError(
                    errno.EISDIR, "a folder stands where a file is to be written", folder / path.name
                )
            os.chmod(path, default_mode())
            _sync(path)
        os.chmod(staging, 0o777 & ~_umask())
        _sync(staging)
        _commit(folder, staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    settle(folder)


def settle(folder: str | Path) -> None:
    """Finish a replacement that was cut short, if there is one. It does not matter who else does the same.

    Raises:
        OSError: The folder cannot be written.
    """
    folder = Path(folder)
    pending = _pending(folder)
    if pending is None:
        return
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(pending.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, folder / path.name)
    _sync(folder)
    try:
        pending.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:  # the next replacement has come already
        if error.errno not in _NOT_EMPTY:
            raise


def open_current(folder: str | Path, name: str) -> BufferedReader:
    """Open the newest complete version of a file in a folder that `atomic_together` writes.

    Raises:
        OSError: There is no such file, or it cannot be read.
    """
    folder = Path(folder)
    pending = _pending(folder)
    if pending is not None:
        with contextlib.suppress(FileNotFoundError):
            return _open(pending / name)
    return _open(folder / name)


def _open(path: Path) -> BufferedReader:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer for ever
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return path.open("rb")


def _pending(folder: Path) -> Path | None:
    """Return the folder `PENDING` if it is there; never through a link, whose files are somebody else's."""
    pending = folder / PENDING
    return pending if pending.is_dir() and not pending.is_symlink() else None


_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


def _commit(folder: Path, staging: Path) -> None:
    """Rename the finished files' folder, after what another process committed has been moved."""
    while True:
        settle(folder)
        try:
            os.rename(staging, folder / PENDING)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
        else:
            break
    _sync(folder)


def _sweep(folder: Path) -> None:
    """Delete what killed processes left half written; what is being written now is younger."""
    for staging in folder.glob(".fcnzoo-*.part"):
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in [staging, *staging.iterdir()])
            if time.time() - newest > STALE_SECONDS:
                shutil.rmtree(staging, ignore_errors=True)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders, and keeps its journal of names itself
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
