"""What a run finds out before its first step, and that a start that failed is not in the way of the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnzoo.errors import FCNZooError, LabelError
from fcnzoo.training import Recipe, train

Tiny = Callable[..., Recipe]
MakeData = Callable[..., str]
TWO = "data.class_names=[bg,fg]"


@pytest.fixture
def make_data(tmp_path: Path) -> MakeData:
    """Write a data set whose masks hold given values; returns the override that points to it."""

    def make(train: Sequence[int], val: Sequence[int] | None = None) -> str:
        rng = np.random.default_rng(0)
        root = tmp_path / "data"
        for split, values in (("train", train), ("val", val or train)):
            for index in range(4):
                for kind, pixels in (
                    ("images", rng.integers(0, 256, (48, 48, 3))),
                    ("masks", rng.choice(values, (48, 48))),
                ):
                    (root / split / kind).mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels.astype(np.uint8)).save(root / split / kind / f"{index}.png")
        return f'data.root="{root}"'

    return make


@pytest.mark.parametrize(
    ("values", "names", "mapping"),
    [
        ((0, 255), "bg,fg", "255 = 1"),
        ((0, 1, 255), "a,b,c", "255 = 2"),
        ((1, 255), "a,b,c", "255 = 0"),
        ((0, 0), "bg,fg", "128 = 1"),
    ],
)
def test_a_class_without_pixels_is_refused(
    tiny: Tiny, make_data: MakeData, values: Sequence[int], names: str, mapping: str
) -> None:
    """Masks of 0/255, and others that never hold a class: an error with the values found and a mapping."""
    with pytest.raises(LabelError, match="no pixel of") as caught:
        train(tiny("out", make_data(values), f"data.class_names=[{names}]"))
    text = str(caught.value)
    assert f"hold the values {', '.join(map(str, sorted(set(values))))}" in text
    assert f"mapping = {{{mapping}}}" in text and "data.allow_missing" in text


@pytest.mark.parametrize("mapping", ["{255=1}", "{0=0, 255=1}"])
def test_values_are_mapped_as_the_recipe_says(tiny: Tiny, make_data: MakeData, tmp_path: Path, mapping: str) -> None:
    """`data.mapping` makes a class of 255: both classes are seen, none is ignored, here and in the evaluation."""
    result = train(tiny("out", make_data((0, 255)), TWO, f"data.mapping={mapping}"))
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert log[0]["labels_seen"].keys() == {"bg", "fg", "ignored"} and log[0]["labels_seen"]["fg"] > 0.2
    assert [len(entry["iou"]) for entry in log if entry["kind"] == "val"] == [2, 2]
    assert result.mean_iou < 0.9


def test_a_missing_class_can_be_allowed(tiny: Tiny, make_data: MakeData) -> None:
    """`data.allow_missing` trains without it."""
    train(tiny("out", make_data((0, 0)), TWO, "data.allow_missing=true", "schedule.epochs=1"))


@pytest.mark.parametrize(("split", "values"), [("training", ((255,), (0, 1))), ("validation", ((0, 1), (255,)))])
def test_a_split_that_is_ignored_is_refused(
    tiny: Tiny, make_data: MakeData, split: str, values: tuple[Sequence[int], Sequence[int]]
) -> None:
    """More ignored pixels than `data.max_ignored` in a split: an error that says which and how many."""
    with pytest.raises(LabelError, match=rf"100\.0% of the {split} split's pixels are ignored"):
        train(tiny("out", make_data(*values), TWO))


@pytest.mark.parametrize(
    "fault",
    [
        'data.root="nowhere"',
        "data.class_names=[a,b]",
        "model.name=fcn8s_rsnet18",
        'model.init_from="nowhere"',
        'model.pretrained_backbone="nowhere.safetensors"',
        "optim.batch_size=64",
        "data.class_names=[red,green,blue,violet]",
    ],
)
@pytest.mark.parametrize("resume", [True, False])
def test_a_failed_start_does_not_block_the_next(tiny: Tiny, fault: str, resume: bool) -> None:
    """After a wrong path, label, name or size, the corrected run takes the same folder, told to resume or not."""
    with pytest.raises((FCNZooError, OSError, ValueError)):
        train(tiny("out", fault))
    assert train(tiny("out", "schedule.epochs=1"), resume=resume).epoch == 1


def test_a_start_that_fails_at_its_first_batch(tiny: Tiny, tmp_path: Path) -> None:
    """A criterion that does not fit leaves a recipe and a log, and no step: the next run starts anew."""
    with pytest.raises(ValueError, match="finite scalar"):
        train(tiny("out"), criterion=lambda logits, target: logits)
    assert (tmp_path / "out" / "recipe.json").exists()
    train(tiny("out", "optim.lr=0.02", "schedule.epochs=1"))
    log = (tmp_path / "out" / "log.jsonl").read_text()
    assert log.count('"start"') == 1 and Recipe.load(tmp_path / "out").optim.lr == 0.02


def test_a_folder_with_steps_is_not_taken(tiny: Tiny) -> None:
    """A run that got anywhere is neither overwritten nor resumed by another recipe."""
    train(tiny("out", "schedule.epochs=1"))
    with pytest.raises(FileExistsError, match="not empty"):
        train(tiny("out", "schedule.epochs=1"))
    with pytest.raises(ValueError, match=r"another recipe: data\.mapping\.7"):
        train(tiny("out", "schedule.epochs=1", "data.mapping={7=1}"), resume=True)
