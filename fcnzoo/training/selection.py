"""After each epoch: evaluate, keep the best weights, write a checkpoint. At the end: the last weights and plots."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fcnzoo.config.spec import Metric
from fcnzoo.files.staging import recover_folder, replaced_folder
from fcnzoo.inference.evaluation import evaluate
from fcnzoo.training.report import Reporter, read_log
from fcnzoo.weights.load import load
from fcnzoo.weights.save import save

if TYPE_CHECKING:
    from fcnzoo.data import SegmentationDataset
    from fcnzoo.inference.evaluation import Evaluation
    from fcnzoo.model.fcn import FCN
    from fcnzoo.training.loop import Trainer

FIGURES = ("mean_iou", "pixel_accuracy", "mean_accuracy")
"""Metrics that are logged and kept with the weights."""


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run left.

    Attributes:
        out: Output folder: `best/` and `final/` (for `fcnzoo.load`), `checkpoints/`, `log.jsonl`, plots.
        mean_iou: Of the best weights, on the validation split.
        epoch: After which epoch (from 1) they were.
        steps: Optimizer steps of the run.
        seconds: Time spent, over all resumptions.
    """

    out: Path
    mean_iou: float
    epoch: int
    steps: int
    seconds: float


class Selection:
    """Chooses the weights that a run keeps, by mean IoU on the validation split.

    Args:
        trainer: The run.
        val_set: Validation split, without a transform.
        out: Output folder.
        report: Where results are told.
    """

    def __init__(self, trainer: Trainer, val_set: SegmentationDataset, out: Path, report: Reporter) -> None:
        self.trainer, self.val_set, self.out, self.report = trainer, val_set, out, report
        self.main = trainer.accelerator.is_main_process
        if self.main:
            for name in ("best", "final"):
                recover_folder(out / name)

    def end_epoch(self) -> None:
        """Evaluate if it is time, and write a checkpoint."""
        trainer, progress = self.trainer, self.trainer.progress
        start = time.monotonic()
        done = progress.step >= trainer.steps
        if done or (progress.epoch + 1) % trainer.recipe.run.eval_epochs == 0:
            self._evaluate()
        progress.epoch += 1
        progress.batch = 0
        progress.seconds += time.monotonic() - start
        trainer.save()

    def _evaluate(self) -> None:
        """Evaluate on the main process; every process learns of a new best."""
        trainer, progress = self.trainer, self.trainer.progress
        score = torch.zeros((), dtype=torch.float64)
        scores: dict[str, float] = {}
        if self.main:
            metrics = self._evaluation(trainer.best_model).metrics
            scores = {name: getattr(metrics, name) for name in FIGURES}
            score += metrics.mean_iou
            self.report.write("val", progress.step, epoch=progress.epoch + 1, **scores, iou=metrics.iou)
        if trainer.accelerator.num_processes > 1:
            score = trainer.accelerator.reduce(score.to(trainer.accelerator.device), "sum")
        mean_iou = float(score)  # pyright: ignore[reportArgumentType]
        best = progress.best is None or mean_iou > progress.best["mean_iou"]
        if best:
            progress.best = {"mean_iou": mean_iou, "epoch": progress.epoch + 1, "step": progress.step}
        if self.main:
            texts = ", ".join(
                f"{name.replace('_iou', ' IoU').replace('_', ' ')} {value:.4f}" for name, value in scores.items()
            )
            self.report.say(
                f"epoch {progress.epoch + 1}/{trainer.epochs}: val {texts}{' (best so far)' if best else ''}"
            )
            if best:
                self._keep("best", scores, progress.epoch + 1)

    def _evaluation(self, model: FCN, picture: Path | None = None) -> Evaluation:
        batch_size = self.trainer.recipe.data.val_batch_size
        return evaluate(model, self.val_set, batch_size=batch_size, progress=False, picture_grid=picture)

    def _keep(self, name: str, scores: Mapping[str, float], epoch: int) -> None:
        """Save the weights as a model folder that says where they come from and how good they are."""
        trainer, data = self.trainer, self.trainer.recipe.data
        metrics = [Metric(figure, value, f"{data.dataset} {data.val_split}") for figure, value in scores.items()]
        provenance = {
            "trained_on": f"{data.dataset} {data.train_split} ({len(trainer.samples)} images)",
            "epoch": epoch,
            "step": trainer.progress.step,
            "weights": "exponential moving average" if trainer.average else "last step",
            "criterion": trainer.criterion_name or "cross-entropy of the config's loss",
            "recipe": ", ".join(f"{key}={value}" for key, value in trainer.recipe.settings().items()),
        }
        with replaced_folder(self.out / name) as folder:
            save(trainer.best_model, folder, metrics=metrics, provenance=provenance)

    def finish(self) -> TrainingResult:
        """Save the last weights, draw the plots, and say what came out."""
        trainer, progress = self.trainer, self.trainer.progress
        best = progress.best or {"mean_iou": float("nan"), "epoch": 0}
        if self.main:
            last = [entry for entry in read_log(self.out / "log.jsonl") if entry["kind"] == "val"][-1:]
            scores = {name: last[0][name] for name in FIGURES} if last else {}
            self._keep("final", scores, progress.epoch)
            if trainer.recipe.run.plots:
                self._plot()
            self.report.say(
                f"best val mean IoU {best['mean_iou']:.4f}, after epoch {best['epoch']}: {self.out / 'best'}"
            )
        return TrainingResult(self.out, best["mean_iou"], int(best["epoch"]), progress.step, progress.seconds)

    def _plot(self) -> None:
        from fcnzoo.training import plots

        model = load(self.out / "best", device=self.trainer.accelerator.device)
        result = self._evaluation(model, self.out / "pictures.png")
        plots.confusion(np.array(result.confusion), result.metrics.names, self.out / "confusion.png")
        plots.curves(read_log(self.out / "log.jsonl"), self.out / "curves.png")
