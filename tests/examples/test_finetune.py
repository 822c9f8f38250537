"""examples/finetune.py: a recipe, own classes, the best weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples.conftest import RunExample, mean_iou

import fcnzoo
from fcnzoo.errors import LabelError

CHEAP = (
    "model.name=fcn8s_test_resnet",
    "model.pretrained_backbone=false",
    "optim.lr=0.01",
    "optim.batch_size=4",
    "optim.ema=0",
    "schedule.epochs=4",
    "schedule.warmup_steps=0",
    "augment.crop=[48, 48]",
    "run.device=cpu",
    "run.progress=false",
    "run.tensorboard=false",
    "run.plots=false",
)
CHANGES = [part for change in CHEAP for part in ("--set", change)]


def test_training_improves_and_the_best_weights_load(
    run_example: RunExample, data_folder: Path, tmp_path: Path
) -> None:
    """The best folder has the classes by name, reaches what the script says, and more than guessing."""
    printed = run_example("finetune.py", data_folder, "red", "green", "blue", "--out", "run", *CHANGES)
    model = fcnzoo.load(tmp_path / "run" / "best")
    assert model.label_set is not None and model.label_set.names == ("red", "green", "blue")
    reached = mean_iou(model, data_folder)
    assert f"mean IoU {reached:.3f}" in printed
    assert f"mean (mIoU): IoU {100 * reached:.2f} %" in printed
    untrained = fcnzoo.create("fcn8s_test_resnet", label_set=("red", "green", "blue"))
    assert reached > mean_iou(untrained, data_folder) + 0.2
    assert (tmp_path / "run" / "validation.png").is_file()


def test_too_few_classes_are_refused_before_training(
    run_example: RunExample, data_folder: Path, tmp_path: Path
) -> None:
    """Masks with a value that has no class are named, and no step is made."""
    with pytest.raises(LabelError, match="2"):
        run_example("finetune.py", data_folder, "red", "green", "--out", "run", *CHANGES)
    assert not (tmp_path / "run" / "best").exists()
