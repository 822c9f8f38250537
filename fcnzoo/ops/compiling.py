"""Compiling loops with numba, which may be absent: once per process, kept on disk, safe to fork and to call at once."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import threading
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

logger = logging.getLogger("fcnzoo")

SWITCH = "FCNZOO_COMPILED"
"""Environment variable; `0` turns every compiled route off."""

Kernel = Callable[..., Any]

_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)  # a thread that the child does not have may hold it


def kernel(
    kept: dict[tuple[str, ...], Kernel | None], key: tuple[str, ...], build: Callable[..., Kernel | None]
) -> Kernel | None:
    """Return `build(*key)`, made at most once, or `None` where that fails or compiled routes are switched off.

    Args:
        kept: What was made before.
        key: What the loops are for: names of dtypes.
        build: Imports numba and compiles, or returns `None` without numba. Any failure is told once, as information.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    if key not in kept:
        with _lock:
            if key not in kept:
                kept[key] = _try(build, key)
    return kept[key]


def _try(build: Callable[..., Kernel | None], key: tuple[str, ...]) -> Kernel | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return build(*key)
    except Exception as error:  # whatever goes wrong inside numba or LLVM, plain PyTorch gives the same
        logger.info("plain PyTorch is used, because numba failed: %s: %s", type(error).__name__, error)
        return None


def compile_kept(loops: Kernel, signature: Any) -> Kernel:
    """Compile for one signature, or load from disk."""
    import numba

    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}}
    try:
        return numba.njit(signature, cache=True, **options)(loops)
    except (OSError, RuntimeError) as error:  # no folder to write to, or a full disk
        logger.info("compiled code is not kept on disk: %s", error)
        return numba.njit(signature, **options)(loops)


def source_key(*modules: ModuleType) -> str:
    """Return a digest of modules' source: what compiled code is made of beside the file that it is kept for."""
    return hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()
