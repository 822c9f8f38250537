"""The training loop, on Hugging Face Accelerate."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
from torch import Tensor

from fcnzoo.files.staging import part_of_folder, replaced_folder
from fcnzoo.training import checkpoint
from fcnzoo.training.objective import Criterion, Objective, criterion_name
from fcnzoo.training.optim import (
    AveragedModel,
    build_optimizer,
    freeze,
    schedule_factor,
    set_learning_rates,
    training_mode,
)
from fcnzoo.training.report import Meter
from fcnzoo.training.sampling import Batch, BatchOrder, Collate, SeededSamples, build_loader, derive_seed

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fcnzoo.model.fcn import FCN
    from fcnzoo.training.interrupt import Interrupt
    from fcnzoo.training.recipe import Recipe
    from fcnzoo.training.report import Reporter


@dataclass
class Progress:
    """Where a run stands: all that a checkpoint holds besides tensors and random states.

    Attributes:
        step: Optimizer steps done.
        epoch: Epochs done.
        batch: Steps done in the current epoch.
        best: `{"mean_iou", "epoch", "step"}` of the best evaluation so far, or `None`.
        seconds: Time spent training, evaluating and saving, over all resumptions.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: dict[str, float] | None = None
    seconds: float = 0.0


class Trainer:
    """One run: a model, its data, its optimizer, and where they stand.

    Args:
        recipe: The run as data.
        accelerator: Says which process and device this is, and wraps the model.
        model: The network with its first weights.
        train: Training split, with its transform.
        criterion: See `Objective`.
    """

    def __init__(
        self, recipe: Recipe, accelerator: Accelerator, model: FCN, train: Any, criterion: Criterion | None
    ) -> None:
        self.recipe, self.accelerator, self.model = recipe, accelerator, model
        self.folder = Path(recipe.run.out) / "checkpoints"
        self.progress = Progress()
        self.criterion_name = criterion_name(criterion)
        self.memory_format = torch.channels_last if recipe.run.channels_last else torch.contiguous_format
        optim, seed = recipe.optim, recipe.run.seed
        self.order = BatchOrder(
            len(train),
            optim.batch_size,
            accumulate=optim.accumulate,
            processes=accelerator.num_processes,
            rank=accelerator.process_index,
            seed=seed,
        )
        loss = model.config.loss
        self.samples, self.collate = SeededSamples(train, seed), Collate(loss.class_weights, loss.ignore_index)
        self.loader = build_loader(self.samples, self.order, self.collate, recipe.data.num_workers)
        self.steps = recipe.schedule.steps or recipe.schedule.epochs * self.order.steps_per_epoch
        model.to(accelerator.device, memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        freeze(model, optim)
        self.average = AveragedModel(model, optim.ema) if optim.ema else None
        self.objective = Objective(model, criterion).to(accelerator.device)
        if optim.sync_batchnorm and accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            from timm.layers.norm_act import convert_sync_batchnorm

            self.objective = convert_sync_batchnorm(self.objective)
            self.model = cast("FCN", self.objective.get_submodule("model"))
        training_mode(self.model, optim)
        self.prepared, self.optimizer = accelerator.prepare(self.objective, build_optimizer(self.model, optim))
        # Replaced by the states of a checkpoint; each process has a dropout of its own.
        torch.manual_seed(derive_seed(seed, accelerator.process_index) % 2**63)

    @property
    def best_model(self) -> FCN:
        """The model that is evaluated and kept: the average if there is one."""
        return self.average.model if self.average else self.model  # pyright: ignore[reportReturnType]

    @property
    def epochs(self) -> int:
        """Epochs of the whole run, the last of which may be cut short by `schedule.steps`."""
        return math.ceil(self.steps / self.order.steps_per_epoch)

    def first_batch(self) -> Batch:
        """Return the first batch of the run, read in this process."""
        self.order.start(0)
        return self.collate([self.samples[key] for key in next(iter(self.order))])

    def epoch(self, report: Reporter, interrupt: Interrupt) -> None:
        """Train to the end of the current epoch (or of the run), writing checkpoints as they fall due."""
        progress, run = self.progress, self.recipe.run
        training_mode(self.model, self.recipe.optim)
        self.order.start(progress.epoch, progress.batch)
        meter = Meter(self.accelerator, self.recipe.optim.batch_size)
        saved = time.monotonic()
        for parts in _grouped(self.loader, self.order.accumulate):
            if progress.step >= self.steps:
                break
            meter.add(self._update(parts))
            progress.step += 1
            progress.batch += 1
            last = progress.step == self.steps or progress.batch == self.order.steps_per_epoch
            if last or progress.step % run.log_steps == 0:
                self._log(meter, report)
            else:
                report.step(progress.step, progress.epoch)
            if last:
                break  # the end of the epoch is saved after its evaluation
            due = bool(run.checkpoint_seconds) and time.monotonic() - saved > run.checkpoint_seconds
            due, stop = interrupt.agree(self.accelerator, progress.step, due)
            if due or stop or (run.checkpoint_steps and progress.step % run.checkpoint_steps == 0):
                self.save(meter.seconds())
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt
        progress.seconds += meter.seconds()

    def _update(self, parts: list[Batch]) -> Tensor:
        """Make one optimizer step and return its loss (this process' share of it)."""
        accelerator, optim = self.accelerator, self.recipe.optim
        factor = schedule_factor(self.progress.step, self.steps, self.recipe.schedule)
        set_learning_rates(self.optimizer, factor)
        total = torch.zeros((), device=accelerator.device)
        for batch, scale in zip(parts, self._scales(parts), strict=True):
            with accelerator.accumulate(self.prepared):
                image = batch.image.to(accelerator.device, memory_format=self.memory_format, non_blocking=True)
                loss = self.prepared(image, batch.target.to(accelerator.device, non_blocking=True))
                loss = loss if scale is None else loss * scale.to(loss)
                accelerator.backward(loss)
                if optim.clip_norm is not None and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.model.parameters(), optim.clip_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            total += loss.detach() / len(parts)
        if self.average is not None:
            self.average.update(self.model, self.progress.step + 1)
        return total

    def _scales(self, parts: list[Batch]) -> list[Tensor | None]:
        """Return the factors that turn the parts' mean losses into the mean over the whole batch.

        Each part is a mean over its own counted pixels, DDP averages over the processes and
        Accelerate over the parts; so each is weighted by its share of all counted pixels. An own
        criterion is not known to be such a mean: its parts are averaged as they are.
        """
        processes = self.accelerator.num_processes
        if self.objective.criterion is not None or processes * len(parts) == 1:
            return [None] * len(parts)
        weights = torch.stack([batch.weight for batch in parts]).to(self.accelerator.device, torch.float32)
        whole = self.accelerator.reduce(weights.sum(), "sum")
        return list(weights * (processes * len(parts)) / whole.clamp_min(torch.finfo(whole.dtype).tiny))  # pyright: ignore

    def _log(self, meter: Meter, report: Reporter) -> None:
        loss, speed = meter.read()
        if not math.isfinite(loss):
            self._diverged(f"the loss is {loss}")
        rates = {f"lr {group['name']}": group["lr"] for group in self.optimizer.param_groups}
        head = rates.get("lr head", next(iter(rates.values())))
        report.step(self.progress.step, self.progress.epoch, f"loss {loss:.3f}  lr {head:.2e}  {speed:.1f} images/s")
        report.write(
            "train", self.progress.step, epoch=self.progress.epoch + 1, loss=loss, images_per_second=speed, **rates
        )

    def _diverged(self, what: str) -> NoReturn:
        raise FloatingPointError(
            f"{what} at step {self.progress.step}; the checkpoints before it are kept. "
            "Lower optim.lr, set optim.clip_norm, or use mixed_precision bf16 in place of fp16"
        )

    def save(self, seconds: float = 0.0) -> None:
        """Write a checkpoint of everything, by all processes together, and drop the oldest.

        Raises:
            FloatingPointError: A weight is no number: such a checkpoint must not push out a good one.
        """
        values = [value for value in self.model.state_dict().values() if value.is_floating_point()]
        if not all(bool(value.isfinite().all()) for value in values):
            self._diverged("the weights are no longer finite")
        accelerator, path = self.accelerator, checkpoint.checkpoint_path(self.folder, self.progress.step)
        states = checkpoint.random_states(accelerator.device)
        with contextlib.ExitStack() as stack:
            if accelerator.is_main_process:
                stack.enter_context(replaced_folder(path, shared=True))
            accelerator.wait_for_everyone()
            part = part_of_folder(path)
            checkpoint.write_json(part / f"random-{accelerator.process_index}.json", states)
            if accelerator.is_main_process:
                self._write(part, seconds)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                checkpoint.write_digests(part)
            accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            checkpoint.prune(self.folder, self.recipe.run.keep_last)

    def _write(self, part: Path, seconds: float) -> None:
        checkpoint.write_tensors(part / "model.safetensors", self.model.state_dict())
        checkpoint.write_tensors(
            part / "optimizer.safetensors", checkpoint.optimizer_tensors(self.optimizer.optimizer, self.model)
        )
        if self.average is not None:
            checkpoint.write_tensors(part / "average.safetensors", self.average.model.state_dict())
        scaler = self.accelerator.scaler
        state = {**asdict(self.progress), "seconds": self.progress.seconds + seconds, "criterion": self.criterion_name}
        state["scaler"] = scaler.state_dict() if scaler is not None else None
        checkpoint.write_state(part, self.model, state)

    def restore(self) -> bool:
        """Take up the newest checkpoint; `False` if there is none yet.

        Raises:
            ValueError: It was trained with another criterion, or written by a newer fcnzoo.
            WeightsError: It is damaged.
        """
        found = checkpoint.checkpoints(self.folder)
        if not found:
            return False
        path = found[-1]
        state, _ = checkpoint.read_state(path)
        checkpoint.check_digests(path)
        state = checkpoint.whole_state(path, state, ("criterion", "scaler", *Progress.__dataclass_fields__))
        trained = state.pop("criterion")
        if trained != self.criterion_name:
            raise ValueError(f"{path} was trained with criterion {trained}, this run has {self.criterion_name}")
        checkpoint.load_model(self.model, path / "model.safetensors")
        checkpoint.load_optimizer(self.optimizer.optimizer, self.model, path / "optimizer.safetensors")
        if self.average is not None:
            checkpoint.load_model(self.average.model, path / "average.safetensors")
        scaler = state.pop("scaler")
        if scaler is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        random = path / f"random-{self.accelerator.process_index}.json"
        if random.is_file():  # missing only for processes that the run did not have before
            checkpoint.set_random_states(checkpoint.read_json(random), self.accelerator.device)
        self.progress = Progress(**state)
        return True


def _grouped(batches: Iterable[Batch], count: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, count)):
        yield group
