"""The models in the wheel: they are the registry's, they see what is there, and they need no network."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from deeplab_reference import labels, rebuilt
from PIL import Image
from safetensors.torch import load_file

import fcnzoo
from fcnzoo.errors import WeightsError
from fcnzoo.weights import factory
from fcnzoo.zoo.registry import ALIASES, DEFAULT_MODEL, split_name

EXAMPLES = Path(__file__).parents[1] / "examples"
SHIPPED = Path(fcnzoo.__file__).parent / "zoo" / "shipped"

# (column, row) of a pixel that a person sees the class at, in each photograph.
SEEN = {
    "street": {
        "road": [(300, 300), (150, 320), (250, 260)],
        "sky": [(230, 60), (260, 25)],
        "tree": [(380, 60), (420, 100)],
        "building": [(60, 80), (110, 60)],
        "car": [(385, 215), (370, 205)],
        "pavement": [(20, 300)],
        "bicyclist": [(244, 180)],
    },
    "everyday": {"cat": [(225, 110), (160, 60), (300, 60), (250, 250)], "background": [(20, 60), (430, 40)]},
}
PHOTOS = {"street": "street.jpg", "everyday": "cat.jpg"}
LICENSES = {"street": "CC-BY-NC-4.0", "everyday": "Apache-2.0"}

BLOCKED = """
import socket

def refuse(*arguments, **options):
    raise AssertionError(f"the network was touched: {arguments}")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from fcnzoo.cli import main
main()
"""


@pytest.mark.parametrize("name", SEEN)
def test_the_shipped_models_see_what_is_there(name: str) -> None:
    """Road, sky and cyclist of a street, the cat of a portrait are where they are, at the photograph's own size."""
    result = fcnzoo.Predictor(name)(EXAMPLES / PHOTOS[name])
    names = result.label_set.names
    found = {(label, at): names[result.labels[at[1], at[0]]] for label, places in SEEN[name].items() for at in places}
    assert {key: label for key, label in found.items() if key[0] != label} == {}
    assert result.image is not None
    assert result.labels.shape == result.image.size[::-1]


@pytest.mark.parametrize("name", ALIASES)
def test_digest_size_and_license_are_told(name: str) -> None:
    """The file has the registry's digest, is at most 10 MB, and its card names the license."""
    spec, tag = split_name(name)
    weights = spec.find_weights(tag)
    assert weights is not None and weights.packaged is not None
    folder = Path(fcnzoo.__file__).parent / weights.packaged
    assert fcnzoo.verify(folder, sha256=weights.sha256).size <= 10e6
    assert weights.license == LICENSES[name]
    assert f"license: {weights.license.lower()}" in (folder / "README.md").read_text(encoding="utf-8")
    assert ALIASES[name] in fcnzoo.list_models(pretrained=True, license=weights.license)
    assert {folder.name for folder in SHIPPED.iterdir()} == set(ALIASES.values())


def test_the_street_model_says_how_good_it_is_and_how_that_is_measured() -> None:
    """Its figures come with the command that measures them; nobody gives a mean IoU for the other one's file."""
    street = split_name("street")[0].weights[0]
    assert [metric for metric in street.metrics if metric.name == "mean_iou" and metric.value >= 0.70]
    assert all(metric.command.startswith("fcnzoo evaluate street ") for metric in street.metrics)
    everyday = split_name("everyday")[0].weights[0]
    assert [metric.name for metric in everyday.metrics] == ["label_agreement"]
    assert "fcnzoo evaluate everyday --data VOCdevkit --dataset voc" in everyday.note


def test_the_default_is_free_for_any_use() -> None:
    """Without a name the everyday model serves."""
    assert ALIASES["everyday"] == DEFAULT_MODEL
    assert fcnzoo.Predictor().label_set.name == "voc"


def test_weights_for_noncommercial_use_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """The street model's license is one warning in the log, however often it is loaded; the default's is none."""
    factory._say_license.cache_clear()
    with caplog.at_level(logging.WARNING, "fcnzoo"):
        fcnzoo.Predictor()
        fcnzoo.create("everyday", pretrained=True)
        assert caplog.messages == []
        fcnzoo.Predictor("street")
        fcnzoo.create(ALIASES["street"], pretrained=True)
    assert caplog.messages == [f"the weights {ALIASES['street']} are for non-commercial use (CC-BY-NC-4.0)"]


def test_other_classes_keep_everything_but_the_scores() -> None:
    """With another number of classes only the score layers are fresh: everything else is the trained network's."""
    scores = {"street": {f"head.score.{r}.4." for r in (32, 16, 8, 4)}, "everyday": {"head.score."}}
    for name, layers in scores.items():
        trained = fcnzoo.create(name, pretrained=True).state_dict()
        other = fcnzoo.create(name, pretrained=True, num_classes=3).state_dict()
        differ = {
            key for key in trained if trained[key].shape != other[key].shape or not trained[key].equal(other[key])
        }
        assert differ == {layer + kind for layer in layers for kind in ("weight", "bias")}


@pytest.mark.parametrize("name", ALIASES)
def test_a_batch_gives_what_single_images_give(name: str) -> None:
    """In eval mode images of a batch do not influence each other."""
    model = fcnzoo.create(name, pretrained=True)
    image = torch.randn(2, 3, 100, 140)
    with torch.no_grad():
        whole, single = model(image), torch.cat([model(image[:1]), model(image[1:])])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-4)


def test_labels_are_those_of_a_rebuild_in_plain_pytorch() -> None:
    """On photographs of several sizes, odd ones and slivers, 99.5 % of labels are the rebuild's or more."""
    network = rebuilt(load_file(SHIPPED / ALIASES["everyday"] / "model.safetensors"))
    predictor = fcnzoo.Predictor()
    with Image.open(EXAMPLES / "cat.jpg") as cat, Image.open(EXAMPLES / "street.jpg") as street:
        pictures = [cat.copy(), street.copy(), cat.resize((902, 603)), street.resize((333, 257)), cat.resize((40, 301))]
    for picture in pictures:
        ours = predictor(picture).labels
        assert ours.shape == picture.size[::-1]
        assert (ours == labels(network, picture)).mean() >= 0.995


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "missing"])
def test_a_damaged_file_is_named(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short, with a byte changed, empty or gone, the weights are a `WeightsError` that names the file."""
    folder = tmp_path / "zoo" / "shipped" / ALIASES["everyday"]
    shutil.copytree(SHIPPED / ALIASES["everyday"], folder)
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes({"truncated": content[:-1000], "changed": content, "empty": b""}[damage])
    from fcnzoo.weights import sources

    monkeypatch.setattr(sources, "__file__", str(tmp_path / "weights" / "sources.py"))
    with pytest.raises(WeightsError, match=r"deeplabv3_mobilenetv2_050\.coco_voc.model\.safetensors"):
        fcnzoo.Predictor()


@pytest.mark.parametrize(("photo", "options"), [("cat.jpg", []), ("street.jpg", ["--model", "street"])])
def test_the_main_job_touches_no_network(tmp_path: Path, photo: str, options: list[str]) -> None:
    """`fcnzoo segment` writes its overlay with every socket call forbidden, and says one line of a license or none."""
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hub")}
    arguments = ["segment", str(EXAMPLES / photo), "--out", str(tmp_path / "out"), *options]
    command = [sys.executable, "-W", "error", "-c", BLOCKED, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == (1 if options else 0), done.stderr
    overlay = tmp_path / "out" / f"{Path(photo).stem}.fcnzoo.overlay.png"
    with Image.open(overlay) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] >= 450
    assert pixels.std() > 20
