"""The model card: what the Hub reads in it, what a person does, and that its snippet runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from model.test_fcn import HEADS, randomize
from PIL import Image

import fcnzoo
from fcnzoo.config.spec import Metric
from fcnzoo.labels import LabelSet
from fcnzoo.model.fcn import build
from fcnzoo.weights.folder import read_record


def card_of(folder: Path, name: str = "fcn8s", channels: int = 3, **options: Any) -> str:
    """Save a small network and return its card."""
    config = HEADS[name].replace(label_set=LabelSet.from_names(["sky", "road", "car", "tree", "sign"]))
    backbone = config.backbone.replace(in_channels=channels)
    model = build(config.replace(backbone=backbone, preprocess=None))
    randomize(model)
    fcnzoo.save(model, folder, **options)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    """The Hub's own client reads library, task, license, data sets and one result per metric."""
    metrics = [Metric("mean_iou", 0.65, "CamVid val"), Metric("pixel_accuracy", 0.9, "CamVid: test | x")]
    card = ModelCard(card_of(tmp_path, metrics=metrics, datasets=["camvid", "a: b"], license="Apache-2.0"))
    data = card.data
    assert data.library_name == "fcnzoo"
    assert data.pipeline_tag == "image-segmentation"
    assert data.license == "apache-2.0"
    assert data.datasets == ["camvid", "a: b"]
    found = [(r.task_type, r.dataset_name, r.metric_type, r.metric_value) for r in data.eval_results or ()]
    assert found == [
        ("image-segmentation", "CamVid val", "mean_iou", 0.65),
        ("image-segmentation", "CamVid: test | x", "pixel_accuracy", 0.9),
    ]
    assert "| pixel_accuracy | 0.9000 | CamVid: test \\| x |" in card.text
    assert read_record(tmp_path).datasets == ("camvid", "a: b")
    assert read_record(tmp_path).metrics == tuple(metrics)


def test_nothing_is_invented(tmp_path: Path) -> None:
    """Without license, data sets, figures and provenance the card has none of them."""
    text = card_of(tmp_path)
    assert set(ModelCard(text).data.to_dict()) == {"library_name", "pipeline_tag"}
    assert not re.search("licen[cs]e|Figures|Made from", text)


def test_licenses_that_the_hub_does_not_know(tmp_path: Path) -> None:
    """A license in somebody's own words is "other" to the Hub, with these words as its name."""
    data = ModelCard(card_of(tmp_path, license="for research: ask us")).data.to_dict()
    assert data["license"] == "other"
    assert data["license_name"] == "for research: ask us"
    assert "given by who saved them: for research: ask us" in (tmp_path / "README.md").read_text()


def test_provenance_is_printed_readably(tmp_path: Path) -> None:
    """Short facts are a list, what has parts is JSON in a block, and no content can end its block."""
    recipe = {"optim": {"lr": 0.01, "steps": 100}, "crop": [320, 320]}
    provenance = {"trained_on": "CamVid train", "epoch": 3, "recipe": recipe, "log": "a\n```\nb"}
    text = card_of(tmp_path, provenance=provenance)
    assert "- trained_on: CamVid train\n- epoch: 3\n" in text
    block = re.search(r"```json\n(.*?)\n```", text, re.DOTALL)
    assert block is not None
    assert json.loads(block[1]) == recipe
    assert "````\na\n```\nb\n````" in text


@pytest.mark.parametrize("channels", [3, 4])
def test_the_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    """The card's Python runs as it stands, in the model's folder, with a photo beside it."""
    text = card_of(tmp_path, channels=channels)
    Image.new("RGB", (40, 30), "gray").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    snippet = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert snippet is not None
    exec(snippet[1], names := {})
    assert (tmp_path / "overlay.png").is_file() if channels == 3 else names["labels"].shape == (1, 240, 320)


def test_classes_are_listed(tmp_path: Path) -> None:
    """The card names head, backbone and classes."""
    text = card_of(tmp_path, "fcn")
    assert "# FCN (dilated) on timm/test_resnet" in text
    assert "5 classes: sky, road, car, tree, sign" in text


def test_provenance_travels_with_the_network(tmp_path: Path) -> None:
    """What was saved is there after loading, and is saved again unless something else is given."""
    card_of(tmp_path / "a", provenance={"from": "noise", "step": 3})
    model = fcnzoo.load(tmp_path / "a")
    assert model.provenance == {"from": "noise", "step": 3}
    fcnzoo.save(model, tmp_path / "b")
    fcnzoo.save(model, tmp_path / "c", provenance={})
    assert read_record(tmp_path / "b").provenance == model.provenance
    assert read_record(tmp_path / "c").provenance == {}
    model.provenance = {"nan": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        fcnzoo.save(model, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_provenance_stands_in_the_weights_file(tmp_path: Path) -> None:
    """The safetensors metadata hold the provenance, so that the file alone says where it comes from."""
    from safetensors import safe_open

    card_of(tmp_path, provenance={"sha256": "abc", "rules": 1})
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["provenance"]) == {"sha256": "abc", "rules": 1}
