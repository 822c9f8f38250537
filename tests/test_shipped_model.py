"""The model in the wheel: it is the registry's, it sees what is there, and it needs no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fcnzoo
from fcnzoo.zoo.registry import DEFAULT_MODEL, split_name

EXAMPLES = Path(__file__).parents[1] / "examples"

# (column, row) of a pixel that a person sees the class at, in examples/street.jpg.
SEEN = {
    "road": [(300, 300), (150, 320), (250, 260)],
    "sky": [(230, 60), (260, 25)],
    "tree": [(380, 60), (420, 100)],
    "building": [(60, 80), (110, 60)],
    "car": [(385, 215), (370, 205)],
    "pavement": [(20, 300)],
    "bicyclist": [(244, 180)],
}

BLOCKED = """
import socket

def refuse(*arguments, **options):
    raise AssertionError(f"the network was touched: {arguments}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from fcnzoo.cli import main
main()
"""


@pytest.fixture(scope="module")
def result() -> fcnzoo.Segmentation:
    """The shipped model's view of the first example."""
    return fcnzoo.Predictor()(EXAMPLES / "street.jpg")


def test_the_shipped_model_sees_what_is_there(result: fcnzoo.Segmentation) -> None:
    """Road, sky, trees, buildings, the car, the pavement and the cyclist of a real photograph are where they are."""
    names = result.label_set.names
    found = {(name, at): names[result.labels[at[1], at[0]]] for name, places in SEEN.items() for at in places}
    assert {key: name for key, name in found.items() if key[0] != name} == {}
    assert result.labels.shape == (360, 480)


def test_its_digest_size_and_license_are_told() -> None:
    """The file has the registry's digest, is at most 10 MB, and comes with the data's license."""
    assert DEFAULT_MODEL is not None
    spec, tag = split_name(DEFAULT_MODEL)
    weights = spec.find_weights(tag)
    assert weights is not None
    assert weights.packaged is not None
    folder = Path(fcnzoo.__file__).parent / weights.packaged
    assert (folder / "model.safetensors").stat().st_size <= 10e6
    assert weights.license == "CC-BY-NC-4.0"
    assert "cc-by-nc-4.0" in (folder / "README.md").read_text(encoding="utf-8").lower()
    assert [metric for metric in weights.metrics if metric.name == "mean_iou" and metric.value >= 0.70]
    assert DEFAULT_MODEL in fcnzoo.list_models(pretrained=True, dataset="CamVid")


def test_other_classes_keep_everything_but_the_scores() -> None:
    """With another number of classes only the score layers are fresh: everything else is the trained network's."""
    trained = fcnzoo.create("fcn8s_tf_efficientnet_lite0", pretrained=True).state_dict()
    other = fcnzoo.create("fcn8s_tf_efficientnet_lite0", pretrained=True, num_classes=3).state_dict()
    differ = {key for key in trained if trained[key].shape != other[key].shape or not trained[key].equal(other[key])}
    assert differ == {f"head.score.{r}.4.{kind}" for r in (32, 16, 8, 4) for kind in ("weight", "bias")}


def test_a_batch_gives_what_single_images_give() -> None:
    """In eval mode images of a batch do not influence each other."""
    model = fcnzoo.create(DEFAULT_MODEL or "", pretrained=True).eval()
    image = torch.randn(2, 3, 100, 140)
    with torch.no_grad():
        whole, single = model(image), torch.cat([model(image[:1]), model(image[1:])])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-4)


def test_the_main_job_touches_no_network(tmp_path: Path) -> None:
    """`fcnzoo segment` writes its overlay with every socket call forbidden and no cache or home to look into."""
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-c", BLOCKED, "segment", str(EXAMPLES / "street.jpg"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    overlay = tmp_path / "out" / "street.fcnzoo.overlay.png"
    with Image.open(overlay) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] >= 480
    assert pixels.std() > 20
