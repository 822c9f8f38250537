"""`reset_classifier`: other classes on the same network; `features`: what the heads see."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from model.test_fcn import HEADS, randomize

import fcnzoo
from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
from fcnzoo.labels import LabelSet
from fcnzoo.model.fcn import FCN, build
from fcnzoo.model.score_rows import score_keys

NAMES = ("sky", "road", "tree")


def network(name: str = "fcn8s") -> FCN:
    """A network of three named classes with weights that no initialization gives."""
    config = HEADS[name].with_classes(label_set=NAMES)
    model = build(config)
    randomize(model)
    return model


@pytest.mark.parametrize("name", HEADS)
def test_only_score_layers_change(name: str) -> None:
    """All other weights stay, the config follows, logits have the new classes, and a loss can be computed."""
    model = network(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.reset_classifier(5)
    assert model.num_classes == model.config.num_classes == 5
    assert model.label_set is None
    scores = score_keys(model, 5)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert scores
    for key, value in after.items():
        if key not in scores:
            torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    image = torch.randn(2, 3, 33, 47)
    assert model.eval()(image).shape == (2, 5, 33, 47)
    assert model.train()(image, torch.randint(0, 5, (2, 33, 47))).ndim == 0


@pytest.mark.parametrize(
    "label_set", [["car", "road", "sky"], {2: "sky", 0: "car", 1: "road"}, LabelSet.from_names(["car", "road", "sky"])]
)
def test_classes_of_the_same_name_keep_their_scores(label_set: list[str] | Mapping[int, str] | LabelSet) -> None:
    """Logits of classes that both sets name are the same, to the bit; the mode and dtype of the head stay."""
    model = network().double().eval()
    image = torch.randn(1, 3, 33, 47, dtype=torch.float64)
    before = model(image)
    model.reset_classifier(label_set=label_set)
    assert not model.head.training
    after = model(image)
    assert model.label_set is not None and model.label_set.names == ("car", "road", "sky")
    torch.testing.assert_close(after[:, 1], before[:, 1], rtol=0, atol=0)
    torch.testing.assert_close(after[:, 2], before[:, 0], rtol=0, atol=0)


@pytest.mark.parametrize("name", HEADS)
def test_what_is_no_score_layer_is_the_same_object(name: str) -> None:
    """Modules, their hooks and what is frozen stay; score layers are new, trainable parameters."""
    model = network(name).requires_grad_(False)
    before, modules, calls = dict(model.named_parameters()), (model.head, model.aux_head), []
    model.head.register_forward_hook(lambda *_: calls.append(1))
    model.reset_classifier(5)
    scores = score_keys(model, 5)
    for key, parameter in model.named_parameters():
        assert (parameter is before[key]) == (key not in scores), key
        assert parameter.requires_grad == (key in scores), key
    assert (model.head, model.aux_head) == modules
    model.eval()(torch.randn(1, 3, 33, 47))
    assert calls == [1]


def test_score_layers_of_somebody_else() -> None:
    """Where the layers are not those of the config nothing is changed in silence."""
    model = network()
    model.head.score["8"] = torch.nn.Identity()
    with pytest.raises(RuntimeError, match=r"score layers are .*head\.score\.16.*its config describes"):
        model.reset_classifier(5)
    assert model.num_classes == 3


def test_what_cannot_be_reset() -> None:
    """Nothing given, a contradiction, numbers with gaps: errors, and the network stays as it is."""
    model = network()
    for arguments, text in (
        ({}, "needs num_classes or label_set"),
        ({"num_classes": 2, "label_set": NAMES}, "label_set has 3 names"),
        ({"label_set": {0: "a", 2: "b"}}, "numbers 0…1, got \\[0, 2\\]"),
        ({"num_classes": 0}, "num_classes must be at least 1"),
    ):
        with pytest.raises(ValueError, match=text):
            model.reset_classifier(**arguments)  # pyright: ignore[reportArgumentType]
        assert model.config.label_set is not None and model.config.label_set.names == NAMES


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 47), (1, 130)])
def test_features_cover_the_image(height: int, width: int) -> None:
    """Every map has ⌈H / r⌉ × ⌈W / r⌉ cells and the announced channels, and is what the backbone gives of it padded."""
    model = fcnzoo.create("fcn8s_resnet18").eval()
    image = torch.randn(1, 3, height, width)
    found = model.features(image)
    rows, columns = model.padding.padded(height), model.padding.padded(width)
    padded = torch.zeros(1, 3, rows, columns)
    padded[:, :, :height, :width] = image
    for feature, info, whole in zip(found, model.backbone.features, model.backbone(padded), strict=True):
        assert feature.shape == (1, info.channels, -(-height // info.reduction), -(-width // info.reduction))
        torch.testing.assert_close(feature, whole[..., : feature.shape[2], : feature.shape[3]])
    with pytest.raises(ValueError, match="image must be"):
        model.features(image[0])


def test_features_of_other_geometries_come_whole() -> None:
    """The paper's features, which reach beyond the image, are what its backbone gives."""
    config = FCNConfig(BackboneConfig("paper/vgg16", geometry="paper"), SkipHeadConfig())
    with torch.device("meta"):
        model = build(config)
        image = torch.randn(1, 3, 40, 50)
        assert [one.shape for one in model.features(image)] == [one.shape for one in model.backbone(image)]
