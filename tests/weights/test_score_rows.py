"""`create(..., label_set=…)`: score rows follow the names of the classes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model.test_fcn import HEADS, randomize

import fcnzoo
from fcnzoo.config.spec import ModelSpec, Weights
from fcnzoo.files.digests import hash_file
from fcnzoo.labels import LabelSet, get_label_set
from fcnzoo.model.fcn import FCN, build
from fcnzoo.zoo import registry

NAMES = ("sky", "road", "car", "tree", "sign")
SIZE = (1, 3, 33, 47)


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FCN]:
    """Register weights of the classes `NAMES` (or unnamed ones) as `fcn8s_mine`; return the trained network."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setenv("FCNZOO_CACHE", str(tmp_path / "cache"))

    def make(name: str, named: bool = True) -> FCN:
        config = HEADS[name]
        config = config.replace(
            label_set=LabelSet.from_names(NAMES) if named else None,
            loss=config.loss.replace(class_weights=(1.0, 2.0, 3.0, 4.0, 5.0)),
        )
        model = build(config).eval()
        randomize(model)
        fcnzoo.save(model, tmp_path / "weights", provenance={"from": "noise"})
        digest = hash_file(tmp_path / "weights" / "model.safetensors")
        known = Weights(tag="test", dataset="noise", license="MIT", packaged=str(tmp_path / "weights"), sha256=digest)
        registry.register(ModelSpec(name="fcn8s_mine", config=config, weights=(known,)))
        return model

    return make


BILINEAR = ["fcn32s", "fcn8s", "fcn8s hidden", "fcn8s subpixel", "fcn8s depthwise", "fcn", "fcn concat", "convnext"]


@pytest.mark.parametrize("name", BILINEAR)
def test_logits_of_shared_classes_stay(entry: Callable[..., FCN], name: str) -> None:
    """Whatever the head: the logits of a class that both have are those of the trained network, wherever it now is."""
    model = entry(name)
    labels = ["person", "car", "sky", "pole", "bike", "road", "wall"]
    loaded = fcnzoo.create("fcn8s_mine", pretrained=True, label_set=labels).eval()
    assert loaded.num_classes == 7
    assert loaded.label_set is not None
    assert loaded.label_set.names == tuple(labels)
    image = torch.randn(SIZE)
    with torch.inference_mode():
        new, old = loaded(image)[0], model(image)[0]
    for i, label in enumerate(labels):
        if label in NAMES:
            torch.testing.assert_close(new[i], old[NAMES.index(label)], rtol=1e-5, atol=1e-5)


def test_dense_deconvolutions_keep_what_both_know(entry: Callable[..., FCN]) -> None:
    """In a deconvolution that mixes classes, kernels from a shared class to a shared class stay, others are fresh."""
    model = entry("fcn32s deconv")
    loaded = fcnzoo.create("fcn8s_mine", pretrained=True, label_set=["car", "person", "sky"])
    old, new = model.state_dict()["head.deconv.weight"], loaded.state_dict()["head.deconv.weight"]
    for i, a in ((0, 2), (2, 0)):
        for j, b in ((0, 2), (2, 0)):
            assert torch.equal(new[i, j], old[a, b])
    fresh = build(loaded.config).state_dict()["head.deconv.weight"]
    for i, j in ((0, 1), (1, 0), (1, 1), (1, 2), (2, 1)):
        assert torch.equal(new[i, j], fresh[i, j])


def test_fresh_classes_start_as_in_a_new_network(entry: Callable[..., FCN]) -> None:
    """Rows of classes that the weights do not know are initialized; everything outside the score layers is trained."""
    model = entry("fcn")
    loaded = fcnzoo.create("fcn8s_mine", pretrained=True, label_set=["lamp", "road"])
    weight, bias = (loaded.state_dict()[f"head.score.{key}"] for key in ("weight", "bias"))
    old = model.state_dict()
    assert torch.equal(weight[1], old["head.score.weight"][1])
    assert torch.equal(bias[1], old["head.score.bias"][1])
    assert not any(torch.equal(weight[0], row) for row in old["head.score.weight"])
    assert torch.isfinite(weight).all()
    for key, tensor in loaded.state_dict().items():
        if "score" not in key:
            assert torch.equal(tensor, old[key]), key


def test_the_same_names_in_another_order_are_sorted_anew(entry: Callable[..., FCN]) -> None:
    """As many classes in another order are not taken for the same ones."""
    model = entry("fcn8s")
    loaded = fcnzoo.create("fcn8s_mine", pretrained=True, label_set=NAMES[::-1]).eval()
    image = torch.randn(SIZE)
    torch.testing.assert_close(loaded(image).flip(1), model(image))


def test_the_same_names_are_the_same_network(entry: Callable[..., FCN]) -> None:
    """The trained names themselves change nothing but what the set is called, its colors, and the loss's weights."""
    model = entry("fcn")
    loaded = fcnzoo.create("fcn8s_mine", pretrained=True, label_set=LabelSet.from_names(NAMES, name="mine")).eval()
    for key, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key
    assert loaded.label_set is not None
    assert loaded.label_set.name == "mine"


def test_what_was_kept_is_reported(entry: Callable[..., FCN], caplog: pytest.LogCaptureFixture) -> None:
    """The log of "fcnzoo" names the classes whose scores were carried over and those that are fresh."""
    entry("fcn8s")
    with caplog.at_level(logging.INFO, logger="fcnzoo"):
        fcnzoo.create("fcn8s_mine", pretrained=True, label_set=["lamp", "road", "sky"])
    assert "scores carried over: road, sky; fresh: lamp" in caplog.text


@pytest.mark.parametrize(("named", "labels"), [(True, ["Road", "SKY"]), (False, list(NAMES))])
def test_nothing_in_common_is_a_warning(
    entry: Callable[..., FCN], caplog: pytest.LogCaptureFixture, named: bool, labels: list[str]
) -> None:
    """Names that the weights do not have, or weights without names, give fresh scores and a warning."""
    entry("fcn8s", named=named)
    loaded = fcnzoo.create("fcn8s_mine", pretrained=True, label_set=labels)
    assert loaded.num_classes == len(labels)
    assert any(record.levelno == logging.WARNING and "fresh" in record.message for record in caplog.records)


def test_fresh_scores_do_not_claim_the_provenance(entry: Callable[..., FCN]) -> None:
    """The whole trained network carries its provenance; one with fresh scores does not."""
    entry("fcn8s")
    assert fcnzoo.create("fcn8s_mine", pretrained=True).provenance == {"from": "noise"}
    assert fcnzoo.create("fcn8s_mine", pretrained=True, label_set=["road"]).provenance == {}


@pytest.mark.parametrize("pretrained", [False, True])
def test_labels_alone(entry: Callable[..., FCN], pretrained: bool) -> None:
    """`labels` gives names, number and ignore index with or without weights; the loss's weights go."""
    entry("fcn8s")
    labels = get_label_set("camvid")
    model = fcnzoo.create("fcn8s_mine", pretrained=pretrained, label_set=labels)
    assert model.label_set == labels
    assert model.config.loss.ignore_index == labels.ignore_index
    assert model.config.loss.class_weights is None
    assert (
        fcnzoo.create("fcn8s_mine", pretrained=pretrained, label_set=labels, num_classes=len(labels)).num_classes == 11
    )
    assert fcnzoo.create("fcn8s_mine", pretrained=pretrained, num_classes=3).config.loss.class_weights is None


def test_labels_that_contradict(entry: Callable[..., FCN]) -> None:
    """Another `num_classes`, a single text, names twice: errors that say so."""
    entry("fcn8s")
    with pytest.raises(ValueError, match="label_set has 2 names"):
        fcnzoo.create("fcn8s_mine", label_set=["a", "b"], num_classes=3)
    with pytest.raises(TypeError, match="single text"):
        fcnzoo.create("fcn8s_mine", label_set="road")
    with pytest.raises(ValueError, match="differ"):
        fcnzoo.create("fcn8s_mine", label_set=["road", "road"])
