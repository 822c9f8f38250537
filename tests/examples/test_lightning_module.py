"""examples/lightning_module.py: a network in a Lightning module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from examples.conftest import RunExample, mean_iou

import fcnzoo
from fcnzoo.errors import LabelError

OPTIONS = ("--out", "run", "--model", "fcn8s_test_resnet", "--crop", 48, "--lr", 0.01)


def test_training_improves_and_saves(run_example: RunExample, data_folder: Path, tmp_path: Path) -> None:
    """The saved network is better than guessing; Lightning's last checkpoint holds the same weights."""
    run_example(
        "lightning_module.py",
        *(data_folder, "red", "green", "blue", *OPTIONS, "--max-epochs", 4, "--accelerator", "cpu"),
    )
    model = fcnzoo.load(tmp_path / "run" / "model")
    (checkpoint,) = (tmp_path / "run" / "lightning_logs").rglob("*.ckpt")
    theirs = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert theirs.keys() == {f"network.{name}" for name in model.state_dict()}
    assert all(torch.equal(tensor, theirs[f"network.{name}"]) for name, tensor in model.state_dict().items())
    untrained = fcnzoo.create("fcn8s_test_resnet", label_set=("red", "green", "blue"))
    assert mean_iou(model, data_folder) > mean_iou(untrained, data_folder) + 0.2


def test_a_class_too_few_is_refused(run_example: RunExample, data_folder: Path) -> None:
    """Masks with a value that has no class end the script before Lightning starts."""
    with pytest.raises(LabelError, match="2"):
        run_example("lightning_module.py", data_folder, "red", "green", *OPTIONS)
