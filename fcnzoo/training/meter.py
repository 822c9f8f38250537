"""Mean loss and speed of a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator


class Meter:
    """Mean loss and speed between two lines of the log; reading it waits for the device."""

    def __init__(self, accelerator: Accelerator, batch_size: int) -> None:
        self.accelerator, self.batch_size = accelerator, batch_size
        self.start = self.since = time.monotonic()
        self.loss, self.steps = torch.zeros((), device=accelerator.device), 0

    def add(self, loss: Tensor) -> None:
        """Count one step."""
        self.loss += loss
        self.steps += 1

    def read(self) -> tuple[float, float]:
        """Return mean loss and images per second since the last reading, over all processes."""
        loss = float(self.accelerator.reduce(self.loss, "mean")) / self.steps  # pyright: ignore[reportArgumentType]
        now = time.monotonic()
        speed = self.steps * self.batch_size / max(now - self.since, 1e-9)
        self.loss, self.steps, self.since = torch.zeros_like(self.loss), 0, now
        return loss, speed

    def seconds(self) -> float:
        """Return the time since the meter was made."""
        return time.monotonic() - self.start
