"""Threads of our own, for work that PyTorch's and numba's cannot be given."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor


class _Pool:
    """Grows on demand. Unlike OpenMP's and numba's threads, these survive a fork (they are started again) and may
    be asked by several threads at once.
    """  # noqa: D205

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """A forked child has none of the threads, and the lock may be held by one of them."""
        self.lock = threading.Lock()
        self.executor: ThreadPoolExecutor | None = None
        self.size = 0

    def get(self, count: int) -> ThreadPoolExecutor:
        """Return at least so many threads."""
        with self.lock:
            if self.executor is None or self.size < count:
                # Work that an older one was given is finished by it.
                self.executor = ThreadPoolExecutor(count, thread_name_prefix="fcnzoo")
                self.size = count
            return self.executor


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def share(tasks: Iterable[tuple], work: Callable[..., object], threads: int) -> None:
    """Call `work(*task)` for every task, in so many threads (this one among them), each taking the next one left."""
    todo = deque(tasks)

    def run() -> None:
        while True:
            try:
                task = todo.popleft()
            except IndexError:
                return
            work(*task)

    threads = min(threads, len(todo))
    helpers = [_pool.get(threads - 1).submit(run) for _ in range(threads - 1)]
    run()
    for helper in helpers:
        helper.result()
