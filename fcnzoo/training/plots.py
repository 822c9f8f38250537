"""Plots of a finished run: its curves and its confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fcnzoo.files.atomic import atomic


def _write(figure: Figure, path: Path) -> None:
    # A canvas of its own: pyplot would change the user's global backend.
    FigureCanvasAgg(figure)
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=110, bbox_inches="tight")


def curves(log: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss and learning rate over steps, and validation scores over epochs.

    Args:
        log: Entries of `log.jsonl`.
        path: PNG file to write.
    """
    steps = [entry for entry in log if entry["kind"] == "train"]
    scores = [entry for entry in log if entry["kind"] == "val"]
    figure = Figure(figsize=(12, 4), layout="constrained")
    loss, score = figure.subplots(1, 2)
    loss.plot([entry["step"] for entry in steps], [entry["loss"] for entry in steps], color="tab:blue", linewidth=1)
    loss.set(xlabel="optimizer step", ylabel="training loss", yscale="log")
    rate = loss.twinx()
    for name in sorted({key for entry in steps for key in entry if key.startswith("lr ") and key.count(" ") == 1}):
        points = [(entry["step"], entry[name]) for entry in steps if name in entry]
        rate.plot(*zip(*points, strict=True), linewidth=0.8, linestyle="--", label=name)
    rate.set(ylabel="learning rate")
    rate.legend(fontsize="small")
    for name, label in (("mean_iou", "mean IoU"), ("pixel_accuracy", "pixel accuracy")):
        score.plot([entry["epoch"] for entry in scores], [entry[name] for entry in scores], marker=".", label=label)
    score.set(xlabel="epoch", ylabel="validation", ylim=(0, 1))
    score.grid(alpha=0.3)
    score.legend()
    _write(figure, path)


def confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix, each row as shares of the true class' pixels.

    Args:
        counts: (K, K) pixels, rows = truth.
        names: K class names.
        path: PNG file to write.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = max(5.0, 0.45 * len(names))
    figure = Figure(figsize=(side + 1, side))
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= 25:  # more would not be legible
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                color = "white" if share > 0.5 else "black"
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=7, color=color)
    figure.colorbar(drawn, fraction=0.046, pad=0.04)
    _write(figure, path)
