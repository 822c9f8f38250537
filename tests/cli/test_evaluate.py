"""`fcnzoo evaluate` on a folder laid out as PASCAL VOC, with the shipped model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fcnzoo
from fcnzoo.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two photographs with masks: what the model says of them, moved by some pixels, and a border of 255."""
    year = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (year / folder).mkdir(parents=True)
    palette = [value for color in fcnzoo.labels.get_label_set("voc").palette for value in color]
    predictor = fcnzoo.Predictor("everyday")
    for name in ("cat", "street"):
        (year / "JPEGImages" / f"{name}.jpg").write_bytes((EXAMPLES / f"{name}.jpg").read_bytes())
        truth = np.roll(predictor(EXAMPLES / f"{name}.jpg").labels, 9, axis=1)
        truth[:5] = 255
        mask = Image.fromarray(truth)
        mask.putpalette(palette + [0] * (768 - len(palette)))
        mask.save(year / "SegmentationClass" / f"{name}.png")
    (year / "ImageSets" / "Segmentation" / "val.txt").write_text("cat\nstreet\n", encoding="utf-8")
    return tmp_path / "VOCdevkit"


def test_the_command_beside_the_model_measures_it(voc: Path, tmp_path: Path) -> None:
    """`fcnzoo evaluate everyday --data VOCdevkit --dataset voc` gives the IoU that counting pixels gives."""
    out = tmp_path / "result.json"
    arguments = ["evaluate", "everyday", "--data", str(voc), "--dataset", "voc", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    predictor = fcnzoo.Predictor("everyday")
    counts = np.zeros((21, 21), int)
    for name in ("cat", "street"):
        with Image.open(voc / "VOC2012" / "SegmentationClass" / f"{name}.png") as mask:
            truth = np.array(mask)
        labels = predictor(EXAMPLES / f"{name}.jpg").labels
        np.add.at(counts, (truth[truth < 255], labels[truth < 255]), 1)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    expected = (counts.diagonal()[union > 0] / union[union > 0]).mean()
    assert json.loads(out.read_text(encoding="utf-8"))["metrics"]["mean_iou"] == pytest.approx(expected)
    assert "cat" in done.output


def test_values_of_masks_are_mapped(tmp_path: Path) -> None:
    """Masks of 0/255: without a mapping the absent class and the way out are told; with it, both classes count."""
    model = fcnzoo.create("fcn8s_test_resnet", label_set=["bg", "fg"], head={"init": "normal"}).eval()
    fcnzoo.save(model, tmp_path / "model")
    draw = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    picture, mask = draw.integers(0, 256, (40, 40, 3), np.uint8), draw.choice([0, 7, 255], (40, 40)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "data" / "images" / "a.png")
    Image.fromarray(mask).save(tmp_path / "data" / "masks" / "a.png")
    command = ["evaluate", str(tmp_path / "model"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "x.json")]
    done = CliRunner().invoke(app, [*command, "--ignore", "7"])
    assert done.exit_code == 0 and "no pixel of fg in the masks" in done.stderr and "{7 = 1}" in done.stderr
    done = CliRunner().invoke(app, [*command, "--force", "--ignore", "7", "--mapping", "255=1"])
    assert done.exit_code == 0 and "no pixel" not in done.stderr
    labels = fcnzoo.Predictor(model)(picture).labels
    right = [int(((labels == 0) & (mask == 0)).sum()), int(((labels == 1) & (mask == 255)).sum())]
    found = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))["metrics"]
    assert found["pixel_accuracy"] == pytest.approx(sum(right) / int((mask != 7).sum()))
    for option, value in (("--mapping", "255"), ("--mapping", "a=b"), ("--ignore", "x")):
        assert CliRunner().invoke(app, [*command, option, value]).exit_code == 2
