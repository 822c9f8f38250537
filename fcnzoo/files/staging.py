"""Folders that change as a whole: files that take their places together, and folders that take another's place."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from fcnzoo.files.atomic import default_mode, sync, umask
from fcnzoo.files.reading import open_file

PENDING = ".fcnzoo-pending"
"""Folder inside a folder of files that change together: those that have not been moved into place yet."""

STALE_SECONDS = 3600
"""What a killed process left half written is deleted when nobody has touched it for so long."""


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
            sync(path)
        os.chmod(staging, 0o777 & ~umask())
        sync(staging)
        _commit(folder, staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
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


def _sweep(folder: Path) -> None:
    """Delete what killed processes left half written; what is being written now is younger."""
    for staging in folder.glob(".fcnzoo-*.part"):
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in [staging, *staging.iterdir()])
            if time.time() - newest > STALE_SECONDS:
                shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def replaced_folder(folder: Path, *, shared: bool = False) -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` when the block ends without an error.

    Between the two renames `folder` is missing and lies under another name; `recover_folder` finds it. Where another
    process put a folder there in the meantime, theirs stays: it is as new as ours.

    Args:
        folder: Where it shall be; there may be one already.
        shared: Gather the files at `part_of_folder`, where the other processes of one job find them, instead of under
            a name of this process's own.

    Raises:
        OSError: The folder cannot be written, or the disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = _old_folder(folder)
    if shared:
        new = part_of_folder(folder)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        new.mkdir()
    else:
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name[:50]}.", suffix=".part", dir=folder.parent))
    before = _identity(folder)
    try:
        yield new
        for file in [path for path in new.rglob("*") if path.is_file()]:
            sync(file)
        new.chmod(0o777 & ~umask())
        sync(new)
        if before is not None and _identity(folder) == before:
            shutil.rmtree(old, ignore_errors=True)
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except OSError:
            if _identity(folder) in (None, before):
                raise
        sync(folder.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


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


def _identity(folder: Path) -> tuple[int, int] | None:
    """Tell one folder from another that later has its name."""
    try:
        facts = folder.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino
