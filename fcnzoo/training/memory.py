"""Keeping memory between training steps on a CPU, in place of giving it back and asking for it again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
"""Parameters of mallopt(3), from glibc's `malloc.h`."""

_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20}
_AFTERWARDS = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 128 << 10}
"""The defaults of mallopt(3), with the thresholds to which glibc itself raises them in a process that has freed
large tensors (`DEFAULT_MMAP_THRESHOLD_MAX` and twice that): once set, they do not move by themselves any more."""


def _glibc() -> ctypes.CDLL | None:
    """Return the C library where it is glibc and nobody has tuned its allocator already."""
    if platform.libc_ver()[0] != "glibc" or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    if any(name.startswith("MALLOC_") and name.endswith("_") for name in os.environ):
        return None
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError):  # another allocator stands in its place
        return None


@contextlib.contextmanager
def kept_memory(wanted: bool) -> Iterator[bool]:
    """Let freed memory stay with the process for a while.

    A step frees hundreds of megabytes of activations. By default glibc hands large blocks back to the
    system at once and the next step's first touch of every page costs a fault and a clearing: a fifth to
    a third of a small network's step. Afterwards the defaults are set again and unused memory is given back.

    Does nothing elsewhere than on glibc, and where the environment tunes the allocator (`MALLOC_…_`,
    `GLIBC_TUNABLES`).

    Args:
        wanted: Whether to.

    Yields:
        Whether it is done.
    """
    library = _glibc() if wanted else None
    if library is None:
        yield False
        return
    for parameter, value in _KEEP.items():
        library.mallopt(parameter, value)
    try:
        yield True
    finally:
        for parameter, value in _AFTERWARDS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
