"""Threads of our own, for work that PyTorch's and numba's cannot be given."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

import torch

Result = TypeVar("Result")


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


def run_in_threads(tasks: Iterable[tuple], work: Callable[..., object], threads: int) -> None:
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


def compute(tasks: Sequence[tuple], work: Callable[..., Result], threads: int) -> list[Result]:
    """Return `work(*task)` of every task, in so many threads, each of PyTorch's operations on one of them.

    PyTorch's own threads meet at a barrier after every operation; where work is many short ones, that took ten times
    as long as one thread on a busy machine. The first task's error that is one is raised when all threads have ended.
    """
    before, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    found: list[Result | Exception | None] = [None] * len(tasks)

    def run(n: int) -> None:
        if torch.get_num_threads() > 1:  # each thread has its own number
            torch.set_num_threads(1)
        try:
            # Each thread has its own mode, too; what was made in that mode can be written to only in it.
            with torch.inference_mode() if inference else nullcontext():
                found[n] = work(*tasks[n])
        except Exception as error:  # raised below: by then no thread is still at work
            found[n] = error

    try:
        run_in_threads(((n,) for n in range(len(tasks))), run, threads)
    finally:
        if before > 1:
            torch.set_num_threads(before)
    return [_unwrap(result) for result in found]  # pyright: ignore[reportReturnType]


def _unwrap(result: object) -> object:
    if isinstance(result, Exception):
        raise result
    return result
