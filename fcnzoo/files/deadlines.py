"""How long a server is waited for: some seconds for its first byte, and then as long as enough bytes come."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fcnzoo.errors import WeightsError

VARIABLE = "FCNZOO_TIMEOUT"
"""Environment variable: seconds without an answer after which a server counts as dead."""

SECONDS = 10.0
"""Its default."""

MIN_RATE = 1024
"""Bytes per second that a download must bring, on average over that time."""

_STEP = 0.05  # seconds between two looks at what a call does

T = TypeVar("T")


def patience() -> float:
    """Return how many seconds a server is waited for.

    Raises:
        WeightsError: The environment variable is no number above 0.
    """
    given = os.environ.get(VARIABLE)
    try:
        seconds = SECONDS if not given else float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise WeightsError(f"{VARIABLE}={given}: must be seconds, more than 0")
    return seconds


def within(call: Callable[[], T], progress: Callable[[], int] | None = None, seconds: float | None = None) -> T:
    """Return what a call returns, or give it up: it then goes on by itself, and what it does is not waited for.

    Args:
        call: What to do, in a thread of its own.
        progress: Bytes that it has brought so far. It may take as long as it brings `MIN_RATE`; `None`: it must be
            done in the time.
        seconds: The time; `None`: `patience()`.

    Raises:
        TimeoutError: It was given up.
        BaseException: Whatever the call raises.
    """
    seconds = patience() if seconds is None else seconds
    result: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="fcnzoo-request", daemon=True)
    thread.start()
    since, before = time.monotonic(), progress() if progress else 0
    while thread.is_alive():
        thread.join(_STEP)
        if time.monotonic() - since >= seconds and thread.is_alive():
            now = progress() if progress else before
            if now - before < MIN_RATE * seconds:
                brought = f"{max(0, now - before):,} bytes" if progress else "no answer"
                raise TimeoutError(f"{brought} in {seconds:g} s ({VARIABLE} sets how long to wait)")
            since, before = time.monotonic(), now
    if errors:
        raise errors[0]
    return result[0]
