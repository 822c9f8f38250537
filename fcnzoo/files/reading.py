"""Opening files to read: never one that would wait for a writer, never more of one than is allowed."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import IO


def open_file(path: str | Path) -> BufferedReader:
    """Open a regular file, in binary.

    Raises:
        OSError: There is no such file, it cannot be read, or it is something else: a folder, a pipe, a device.
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer for ever
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return path.open("rb")


def read_at_most(file: IO[bytes], limit: int) -> bytes:
    """Read the rest of a file.

    Args:
        file: Open for reading in binary.
        limit: Bytes that it may have.

    Raises:
        OSError: It cannot be read, or is longer.
    """
    data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"longer than {limit} bytes", os.fspath(getattr(file, "name", "")))
    return data
