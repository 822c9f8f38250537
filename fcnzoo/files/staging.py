"""Folders that change as a whole: files that take their places together, and folders that take another's place."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from fcnzoo.files.atomic import default_mode, sync, umask
from fcnzoo.files.parts import part_folder
from fcnzoo.files.reading import open_file

PENDING = ".fcnzoo-pending"
"""Folder inside a folder of files that change together: those that have not been moved into place yet."""


@contextlib.contextmanager
def atomic_together(folder: str | Path) -> Iterator[Path]:
    """Give an empty folder whose files take their places in `folder` together, or not at all.

    No file system replaces several files in one step, so the step is the renaming of the finished files'
    folder to `PENDING`, inside `folder`. Before it, everything is as it was. After it, `open_current` finds the
    new files wherever they are; they are moved to their names at once, or, if the process dies first, by the
    next `finish_pending`. Other files in `folder` are never touched.

    Args:
        folder: Made if it is missing.

    Raises:
        OSError: The folder cannot be written, the disk is full, or a folder has the name of a file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with part_folder(folder, ".fcnzoo-") as staging:
        yield staging
        for path in staging.iterdir():
            if (folder / path.name).is_dir():
                raise IsADirectoryError(
                    errno.EISDIR, "a folder stands where a file is to be written", folder / path.name
                )
            os.chmod(path, default_mode())
            sync(path)
        os.chmod(staging, 0o777 & ~umask())
        sync(staging)
        _commit(folder, staging)
    finish_pending(folder)


def finish_pending(folder: str | Path) -> None:
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
    sync(folder)
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
            return open_file(pending / name)
    return open_file(folder / name)


def _pending(folder: Path) -> Path | None:
    """Return the folder `PENDING` if it is there; never through a link, whose files are somebody else's."""
    pending = folder / PENDING
    return pending if pending.is_dir() and not pending.is_symlink() else None


_NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)


def _commit(folder: Path, staging: Path) -> None:
    """Rename the finished files' folder, after what another process committed has been moved."""
    while True:
        finish_pending(folder)
        try:
            os.rename(staging, folder / PENDING)
        except OSError as error:
            if error.errno not in _NOT_EMPTY:
                raise
        else:
            break
    sync(folder)


@contextlib.contextmanager
def replaced_folder(folder: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` when the block ends without an error.

    The two change places in one step where the system can do that (Linux, macOS). Elsewhere there are two renames,
    between which `folder` is missing and lies under another name; `recover_folder` finds it. Where another process put
    a folder there in the meantime, theirs stays: it is as new as ours.

    Args:
        folder: Where it shall be; there may be one already.
        shared: Gather the files at `part_of_folder`, where the other processes of one job find them, instead of under
            a name of this process's own.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        shutil.rmtree(_old_folder(folder), ignore_errors=True)  # which a kill left
    with _shared_part(folder) if shared else part_folder(folder.parent, f".{folder.name[:50]}.") as new:
        before = folder_identity(folder)
        yield new
        for file in [path for path in new.rglob("*") if path.is_file()]:
            sync(file)
        new.chmod(0o777 & ~umask())
        sync(new)
        _take_place(new, folder, before)
        sync(folder.parent)


@contextlib.contextmanager
def _shared_part(folder: Path) -> Iterator[Path]:
    new = part_of_folder(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _take_place(new: Path, folder: Path, before: tuple[int, int] | None) -> None:
    """Put a folder where another is that is still the one it was, or where none is; the other is deleted."""
    old = _old_folder(folder)
    if before is not None and folder_identity(folder) == before:
        if exchange(new, folder):
            return  # the old one is at `new` now, and goes with it
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        if folder_identity(folder) in (None, before):
            raise
    shutil.rmtree(old, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; `False` where the system, or the file system, cannot do that."""
    name = {"linux": "renameat2", "darwin": "renameatx_np"}.get(sys.platform)
    call = getattr(ctypes.CDLL(None, use_errno=True), name, None) if name else None
    # AT_FDCWD is −100 on Linux, −2 on macOS; RENAME_EXCHANGE and RENAME_SWAP are 2 (linux/fs.h, sys/stdio.h).
    here = -100 if sys.platform == "linux" else -2
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other), 2) == 0


def recover_folder(folder: Path) -> None:
    """Put a folder back that a kill left between the two renames of `replaced_folder`."""
    old = _old_folder(folder)
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)


def part_of_folder(folder: Path) -> Path:
    """Return where `replaced_folder` gathers the files of a folder to come, if processes share that work."""
    return folder.with_name(f".{folder.name}.part")


def _old_folder(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def folder_identity(folder: Path) -> tuple[int, int] | None:
    """Return what tells a folder from another that later has its name; `None` if there is none."""
    try:
        facts = folder.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino
