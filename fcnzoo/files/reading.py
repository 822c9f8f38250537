"""Opening files to read: never one that would wait for a writer, never more of one than is allowed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 2**26
"""Bytes of the longest file that is read whole: recipes, records, lists."""


def open_file(path: str | Path) -> BufferedReader:
    """Open a regular file, in binary.

    Raises:
        OSError: There is no such file, it cannot be read, or it is something else: a folder, a pipe, a device.
    """
    path = Path(path)
    if stat.S_ISREG(path.stat().st_mode):  # opening a device may do things
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115 - the caller closes it
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()  # it has changed in between
    raise OSError(errno.EINVAL, "it is no regular file", path)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would wait for a writer for ever


def read_bytes(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """Read a whole regular file of at most `limit` bytes; errors are those of `open_file` and `read_at_most`."""
    with open_file(path) as file:
        return read_at_most(file, limit)


def read_text(path: str | Path, limit: int = MAX_BYTES, encoding: str = "utf-8") -> str:
    """As `read_bytes`, decoded; bytes that are none of the encoding are a `UnicodeDecodeError` (a `ValueError`)."""
    return read_bytes(path, limit).decode(encoding)


def open_image(source: str | Path | IO[bytes], formats: Sequence[str]) -> Image.Image:
    """Open a picture's header, from a regular file, by those of some formats that this Pillow reads.

    Raises:
        OSError: As `open_file`; or (`PIL.UnidentifiedImageError`) it is none of these formats.
        Exception: Whatever a damaged header leads Pillow to.
    """
    from PIL import Image

    Image.init()
    known = [name for name in formats if name in Image.OPEN]
    if not isinstance(source, str | Path):
        return Image.open(source, formats=known)
    file = open_file(source)
    try:
        image = Image.open(file, formats=known)
    except BaseException:
        file.close()
        raise
    image._exclusive_fp = True  # pyright: ignore[reportAttributeAccessIssue] - closed with the image, as a path's is
    return image


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
