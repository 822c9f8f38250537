"""Stopping a run cleanly: SIGTERM (schedulers) and Ctrl-C end it after the step at hand, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

AGREE_EVERY = 20
"""Steps between two questions whether any process wants to save or stop; each costs a round of messages."""


class Interrupt:
    """Remembers SIGTERM and SIGINT while it is entered; a second one acts at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # signals can be set only there
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - Python's signature
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def agree(self, accelerator: Accelerator, step: int, due: bool) -> tuple[bool, bool]:
        """Return whether all processes should save now, and stop now: they must do it at the same step."""
        if accelerator.num_processes == 1:
            return due, self.asked
        if step % AGREE_EVERY:
            return False, False
        wishes = torch.tensor([float(due), float(self.asked)], device=accelerator.device)
        save, stop = accelerator.reduce(wishes, "sum").tolist()  # pyright: ignore[reportAttributeAccessIssue]
        return save > 0, stop > 0
