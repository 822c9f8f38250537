"""What a run says while it runs: mean loss and speed, a progress bar, a JSONL log, TensorBoard events."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fcnzoo.files.atomic import append, atomic
from fcnzoo.files.reading import read_text

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fcnzoo.training.sections import RunSection


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a JSONL log; a last line cut off by a kill is left out."""
    if not path.is_file():
        return []
    entries = []
    for line in read_text(path, 2**30).splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def rewind_log(path: Path, step: int) -> None:
    """Drop from a log what came after a step: a resumed run writes it again."""
    kept = [entry for entry in read_log(path) if entry.get("step", 0) <= step]
    if path.is_file():
        with atomic(path, "w") as file:
            file.writelines(json.dumps(entry) + "\n" for entry in kept)


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


class Reporter:
    """Writes the log and shows the progress of one run; on processes other than the main one, neither.

    Args:
        out: Output folder: `log.jsonl`, and `tensorboard/` if wanted.
        run: The recipe's section.
        steps: Optimizer steps of the whole run.
        first: Steps that are already done.
        main: Whether this process reports.
    """

    def __init__(self, out: Path, run: RunSection, steps: int, first: int, main: bool) -> None:
        self.main, self.progress, self.events, self.console = main, None, None, None
        self.file = append(out / "log.jsonl") if main else None
        if main and run.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(str(out / "tensorboard"), purge_step=first)
        if main and run.progress:
            self._start_progress(steps, first)

    def _start_progress(self, steps: int, first: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = Console(stderr=True)
        # The speed of the last minute: an evaluation must not throw the estimate off for long.
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self.console,
            speed_estimate_period=60,
        )
        self.task = self.progress.add_task("training", total=steps, completed=first, state="")
        self.progress.start()

    def step(self, step: int, epoch: int, state: str | None = None) -> None:
        """Move the bar; `state` is the text beside it."""
        if self.progress is not None:
            if state is not None:
                self.progress.update(self.task, state=state)
            self.progress.update(self.task, completed=step, description=f"epoch {epoch + 1}")

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Write one entry to the log; numbers go to TensorBoard too."""
        if self.file is not None:
            self.file.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **values}) + "\n")
            self.file.flush()
        if self.events is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and not isinstance(value, bool):
                    self.events.add_scalar(f"{kind}/{name}", value, step)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self.console is not None:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Close files and take the bar away."""
        if self.progress is not None:
            self.progress.stop()
        if self.events is not None:
            self.events.close()
        if self.file is not None:
            self.file.close()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
