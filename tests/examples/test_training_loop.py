"""examples/training_loop.py: plain PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples.conftest import RunExample, mean_iou

import fcnzoo

OPTIONS = ("--out", "net", "--model", "fcn8s_test_resnet", "--epochs", 4, "--crop", 48, "--lr", 0.01)


def test_training_improves_and_saves(run_example: RunExample, data_folder: Path, tmp_path: Path) -> None:
    """The saved network is the one of the last epoch, and better than guessing."""
    printed = run_example("training_loop.py", data_folder, "red", "green", "blue", *OPTIONS)
    reached = mean_iou(fcnzoo.load(tmp_path / "net"), data_folder)
    assert f"mean IoU {reached:.3f}" in next(line for line in printed.splitlines() if line.startswith("epoch 4: "))
    untrained = fcnzoo.create("fcn8s_test_resnet", label_set=("red", "green", "blue"))
    assert reached > mean_iou(untrained, data_folder) + 0.2


def test_a_missing_folder_is_named(run_example: RunExample, tmp_path: Path) -> None:
    """Without data the script ends with the folder it expects."""
    with pytest.raises(FileNotFoundError, match=r"images.*expected"):
        run_example("training_loop.py", tmp_path / "nothing", "red", "green", *OPTIONS)
