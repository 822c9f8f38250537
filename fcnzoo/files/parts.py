"""What is being written and has no name yet: temporary files and folders, whose writer may die at any time.

A writer holds a lock on its part for as long as it lives. Whoever writes to the same place next deletes the parts that
nobody holds: what kills have left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

STALE_SECONDS = 3600
"""Where files cannot be locked, a part that nobody has touched for so long is left over."""


SWEEP_SECONDS = 5.0
"""A folder is not looked through again for so long: thousands of files may be written into it, one after the other."""

_FILES = ".fcnzoo.part"
_swept: dict[Path, float] = {}


@contextlib.contextmanager
def part_file(path: Path) -> Iterator[tuple[int, str]]:
    """Give a temporary file beside `path`, as a handle and a name; deleted at the end, if it is still called so."""
    now = time.monotonic()
    if now - _swept.get(path.parent, -SWEEP_SECONDS) >= SWEEP_SECONDS:
        sweep(path.parent, ".", _FILES)
        _swept[path.parent] = now
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{_short(path)}.", suffix=_FILES, dir=path.parent)
        if _hold(handle) is not False and _is_there(handle, name):
            break
        os.close(handle)  # somebody took it for left over before it was locked
    held = None if fcntl is None else os.dup(handle)  # the lock outlives the writer's closing of the file
    try:
        yield handle, name
    finally:
        if held is not None:
            os.close(held)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


@contextlib.contextmanager
def part_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a temporary folder in `parent`; deleted at the end, if it is still called so."""
    sweep(parent, prefix, ".part")
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=parent))
        handle = _open_folder(folder)
        if handle is None or (_hold(handle) is not False and _is_there(handle, folder)):
            break
        os.close(handle)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def sweep(parent: Path, prefix: str, suffix: str) -> None:
    """Delete the files and folders of such names that nobody holds."""
    with contextlib.suppress(OSError):
        for path in parent.iterdir():
            if path.name.startswith(prefix) and path.name.endswith(suffix) and not path.is_symlink():
                with contextlib.suppress(OSError):
                    _delete_unheld(path)


def _delete_unheld(path: Path) -> None:
    handle = _open_folder(path) if path.is_dir() else os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        held = None if handle is None else _hold(handle)
        if held is False or (held is None and time.time() - path.stat().st_mtime < STALE_SECONDS):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        if handle is not None:
            os.close(handle)


def _hold(handle: int) -> bool | None:
    """Lock a file or folder; `False` if another holds it, `None` where that cannot be known."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network share without locks
        return None
    return True


def _open_folder(folder: Path) -> int | None:
    return None if fcntl is None else os.open(folder, os.O_RDONLY)


def _is_there(handle: int, path: str | Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), Path(path).stat())
    except FileNotFoundError:
        return False


def _short(path: Path) -> str:
    return path.name[:50]
