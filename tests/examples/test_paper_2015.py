"""examples/paper_2015.py: the three networks and their three stages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from examples.conftest import RunExample
from PIL import Image
from safetensors.torch import save_file

import fcnzoo
from fcnzoo.labels import get_label_set

STAGES = ("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16")
CHEAP = (
    "schedule.steps=3",
    "augment.crop=[40, 56]",
    "run.device=cpu",
    "run.progress=false",
    "run.tensorboard=false",
    "run.plots=false",
)
CHANGES = [part for change in CHEAP for part in ("--set", change)]


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A VOCdevkit of five small pictures, with masks in VOC's palette and borders of 255."""
    root, draw = tmp_path / "VOCdevkit" / "VOC2012", np.random.default_rng(0)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    palette = [value for color in get_label_set("voc").palette for value in color]
    for number in range(5):
        mask = np.kron(draw.choice([0, 7, 15], (5, 7)), np.ones((8, 8), int)).astype(np.uint8)
        image = np.stack([mask * 11, 255 - mask * 9, draw.integers(0, 255, mask.shape)], -1).astype(np.uint8)
        mask[:, ::8] = 255
        Image.fromarray(image).save(root / "JPEGImages" / f"{number}.jpg")
        picture = Image.fromarray(mask)
        picture.putpalette(palette)  # values stay; it is an indexed picture now
        picture.save(root / "SegmentationClass" / f"{number}.png")
    lists = {"train": "0\n1\n2\n", "val": "3\n4\n"}
    for split, text in lists.items():
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(text)
    return root.parent


def test_the_networks_are_the_papers(run_example: RunExample) -> None:
    """At full width: the parameters of torchfcn's networks less their deconvolutions, and the published crops."""
    printed = run_example("paper_2015.py")
    # torchfcn's FCN-8s has 134,489,759 parameters at 21 classes, of them dense deconvolutions of 4², 4² and 16².
    assert f"fcn8s_vgg16: {134_489_759 - 21 * 21 * (4 * 4 + 4 * 4 + 16 * 16):,} parameters" in printed
    for name, times, crop in zip(STAGES, (32, 16, 8), (19, 27, 31), strict=True):
        assert f"upsampled {times} times, cropped by {crop} pixels" in printed.partition(f"{name}:")[2]
    assert printed.count("sees BGR, 0–255, minus (104.00698793, 116.66876762, 122.67891434)") == 3


@pytest.mark.usefixtures("narrow_vgg")
def test_stages_follow_from_each_other(run_example: RunExample, voc: Path, tmp_path: Path) -> None:
    """Each stage takes every weight of the one before, with its own learning rate; only the new scores are fresh.

    The first starts from a file with the keys of Caffe's VGG-16, so that all see pictures as Caffe's networks do.
    """
    vgg = fcnzoo.create("fcn32s_vgg16").backbone
    save_file(vgg.state_dict(), tmp_path / "vgg16.safetensors")
    assert {"conv1_1.weight", "fc7.bias"} <= vgg.state_dict().keys()
    start_from = ("--set", "model.pretrained_backbone=vgg16.safetensors")
    run_example("paper_2015.py", "--voc", voc, "--out", "runs", *CHANGES, *start_from)
    first = fcnzoo.load(tmp_path / "runs" / STAGES[0] / "final").backbone
    # Three steps at 1.9e-5 with a momentum of 0.99 move little.
    torch.testing.assert_close(first.fc7.weight, vgg.fc7.weight, rtol=0, atol=1e-2)
    before = None
    for name, lr in zip(STAGES, (1.9e-5, 1.9e-7, 1.9e-9), strict=True):
        out = tmp_path / "runs" / name
        recipe = json.loads((out / "recipe.json").read_text())
        start = json.loads((out / "log.jsonl").read_text().splitlines()[0])
        model = fcnzoo.load(out / "best")
        assert recipe["optim"]["lr"] == lr
        assert (recipe["optim"]["momentum"], recipe["optim"]["batch_size"]) == (0.99, 1)
        assert model.preprocess == fcnzoo.get_spec(name).config.preprocess
        assert model.grid.border == "zeros"
        if before is not None:
            new = f"head.score.{model.config.head.stride}"
            assert start["init_from"]["fresh"] == [f"{new}.weight", f"{new}.bias"]
            assert set(start["init_from"]["taken"]) == set(before.state_dict())
        before = model


def test_a_folder_that_is_not_vocs_is_refused(run_example: RunExample, tmp_path: Path) -> None:
    """Without JPEGImages the script ends with the layout it expects."""
    with pytest.raises(FileNotFoundError, match="JPEGImages"):
        run_example("paper_2015.py", "--voc", tmp_path, "--out", "runs", *CHANGES)
