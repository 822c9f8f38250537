"""The configs: what they allow, what they refuse, and their JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fcnzoo.config import (
    FORMAT,
    BackboneConfig,
    DilatedHeadConfig,
    FCNConfig,
    Grid,
    LossConfig,
    Preprocess,
    SkipHeadConfig,
    fit_channels,
)
from fcnzoo.labels import LabelSet, get_label_set

TIMM = BackboneConfig("timm/resnet18")
VOC = get_label_set("voc")

FULL = FCNConfig(
    backbone=BackboneConfig("timm/resnet50.a1_in1k", in_channels=4, output_stride=8, size_multiple=16),
    head=DilatedHeadConfig(hidden_channels=64, num_convs=2, concat_input=True, dropout=0.2),
    aux_head=DilatedHeadConfig(dropout=0),
    num_classes=21,
    label_set=VOC,
    preprocess=Preprocess(mean=(1, 2, 3, 4), std=(1, 1, 1, 1), channel_order="bgr", value_range=255, resize=520),
    loss=LossConfig(ignore_index=-1, class_weights=(1.0,) * 21, label_smoothing=0.1, aux_weight=0.4),
)


@pytest.mark.parametrize(
    "config",
    [
        FULL,
        FCNConfig(TIMM, SkipHeadConfig()),
        FCNConfig(BackboneConfig("paper/vgg16", geometry="same"), SkipHeadConfig(stride=32, upsampling="deconv")),
        FCNConfig(TIMM, SkipHeadConfig(hidden_channels=8, dropout=0.5, subpixel=4, init="xavier")),
    ],
)
def test_json_round_trip(config: FCNConfig) -> None:
    """Config → JSON → config is the same config."""
    assert FCNConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["format"] == FORMAT


@pytest.mark.parametrize("version", [FORMAT + 1, 99])
def test_future_formats_say_so_first(version: int) -> None:
    """A config of a future version asks for an upgrade, whatever else it holds."""
    data = {"format": version, "something": "new", "backbone": 3}
    with pytest.raises(ValueError, match=rf"format {version}.*upgrade"):
        FCNConfig.from_dict(data)
    with pytest.raises(ValueError, match="upgrade"):
        FULL.replace(format=version)


@pytest.mark.parametrize("version", [0, -1])
def test_impossible_formats_do_not_ask_for_an_upgrade(version: int) -> None:
    """A format below 1 never existed: the error does not speak of a newer fcnzoo."""
    with pytest.raises(ValueError, match=r"format") as caught:
        FULL.replace(format=version)
    assert "upgrade" not in str(caught.value)


@pytest.mark.parametrize(
    ("record", "changes", "message"),
    [
        (Grid(), {"stride": 0}, "stride must be positive"),
        (Grid(), {"stride": -8}, "stride"),
        (Grid(), {"multiple": 0}, "multiple must be at least 1"),
        (Grid(), {"min_size": 0}, "min_size must be at least 1"),
        (Grid(align_corners=True), {"stride": 8}, "align_corners"),
        (Grid(align_corners=True), {"offset": 1}, "align_corners"),
        (Grid(align_corners=True), {"border": "zeros"}, "align_corners"),
        (Grid(), {"border": "reflect"}, r"Grid\.border must be one of \['edge', 'zeros'\]"),
        (Preprocess(), {"std": (1.0, 1.0)}, "std must hold as many values as mean"),
        (Preprocess(), {"mean": (), "std": ()}, "std"),
        (Preprocess(), {"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        (Preprocess(), {"resize": 0}, "resize"),
        (Preprocess(), {"value_range": 2}, "value_range"),
        (TIMM, {"name": "resnet18"}, "'timm/…', 'torchvision/…' or 'paper/…'"),
        (TIMM, {"name": "timm/"}, "name"),
        (TIMM, {"name": "hub/resnet18"}, "name"),
        (TIMM, {"in_channels": 0}, "in_channels must be at least 1"),
        (TIMM, {"size_multiple": 0}, "size_multiple"),
        (TIMM, {"geometry": "same"}, "geometry is for 'paper/…'"),
        (TIMM, {"output_stride": 4}, r"output_stride must be one of \[8, 16, 32\]"),
        (BackboneConfig("paper/vgg16"), {"output_stride": 8}, "output_stride cannot be changed"),
        (SkipHeadConfig(), {"stride": 4}, r"stride must be one of \[8, 16, 32\]"),
        (SkipHeadConfig(), {"hidden_channels": -1}, "hidden_channels"),
        (SkipHeadConfig(hidden_channels=8), {"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        (SkipHeadConfig(), {"dropout": -0.1}, r"dropout must be in \[0, 1\)"),
        (SkipHeadConfig(subpixel=2), {"upsampling": "deconv"}, "subpixel goes only with"),
        (DilatedHeadConfig(), {"hidden_channels": 0}, "hidden_channels"),
        (DilatedHeadConfig(), {"num_convs": 0}, "num_convs"),
        (DilatedHeadConfig(), {"dropout": -0.1}, "dropout"),
        (LossConfig(), {"label_smoothing": 1.1}, "label_smoothing"),
        (LossConfig(), {"aux_weight": -1}, "aux_weight"),
        (LossConfig(), {"class_weights": ()}, "class_weights"),
        (LossConfig(), {"class_weights": (0.0, 0.0)}, "class_weights"),
        (LossConfig(), {"class_weights": (1.0, -1.0)}, "class_weights"),
        (FULL, {"num_classes": 0}, "num_classes must be at least 1"),
        (FULL, {"num_classes": 2**15 + 1}, "32768"),
        (FULL, {"num_classes": 20}, "'voc' has 21 classes, num_classes is 20"),
        (FULL, {"preprocess": Preprocess()}, "mean has 3 values, the backbone takes 4 channels"),
        (FULL, {"loss": LossConfig(class_weights=(1.0, 2.0))}, "class_weights has 2 values, num_classes is 21"),
        (FULL, {"loss": LossConfig(ignore_index=0)}, "ignore_index 0 is one of the 21 classes"),
    ],
)
def test_impossible_values_are_refused(record: Any, changes: dict[str, Any], message: str) -> None:
    """A value that the types allow and the meaning does not is a ValueError that says why."""
    with pytest.raises(ValueError, match=message):
        record.replace(**changes)


def test_errors_in_json_name_the_way_to_the_field() -> None:
    """A wrong value deep in a JSON config is named by its path."""
    data = FULL.to_dict()
    data["head"]["num_convs"] = "two"
    with pytest.raises(TypeError, match=r"FCNConfig\.head\.num_convs must be int, got 'two'"):
        FCNConfig.from_dict(data)
    data = FULL.to_dict()
    data["head"]["kind"] = "psp"
    kinds = r"\['context', 'dilated', 'lraspp', 'skip'\]"
    with pytest.raises(ValueError, match=rf"FCNConfig\.head\.kind must be one of {kinds}, got 'psp'"):
        FCNConfig.from_dict(data)


def test_many_classes_need_another_ignore_index() -> None:
    """With more than 255 classes the default ignore index is a class, which is refused by name."""
    with pytest.raises(ValueError, match="ignore_index 255"):
        FCNConfig(TIMM, SkipHeadConfig(), num_classes=256)
    FCNConfig(TIMM, SkipHeadConfig(), num_classes=256, loss=LossConfig(ignore_index=-1))


def test_own_label_sets_go_through_json() -> None:
    """A label set of one's own is part of the config."""
    config = FCNConfig(TIMM, SkipHeadConfig(), num_classes=2, label_set=LabelSet.from_names(["a", "b"]))
    assert FCNConfig.from_json(config.to_json()).label_set == config.label_set


@pytest.mark.parametrize(
    ("multiple", "min_size", "size", "padded"),
    [(1, 1, 7, 7), (32, 1, 1, 32), (32, 1, 32, 32), (32, 1, 33, 64), (32, 33, 5, 64), (1, 33, 5, 33), (14, 30, 29, 42)],
)
def test_padded_length(multiple: int, min_size: int, size: int, padded: int) -> None:
    """The network sees the least multiple that holds both the image and the minimum."""
    assert Grid(multiple=multiple, min_size=min_size).padded(size) == padded


@pytest.mark.parametrize(
    ("count", "want"),
    [(3, (0.1, 0.2, 0.6)), (1, (0.3,)), (4, (0.1, 0.2, 0.6, 0.1)), (2, (0.1, 0.2)), (6, (0.1, 0.2, 0.6) * 2)],
)
def test_fit_channels(count: int, want: tuple[float, ...]) -> None:
    """Statistics are repeated for more channels; for one it is their mean."""
    assert fit_channels((0.1, 0.2, 0.6), count) == pytest.approx(want)


@pytest.mark.parametrize("name", ["timm/resnet50.a1_in1k", "torchvision/resnet50", "paper/vgg16"])
def test_source_and_architecture(name: str) -> None:
    """A backbone's name is its source, a slash, and its name there with the tag."""
    source, architecture = name.split("/")
    config = BackboneConfig(name)
    assert (config.source, config.architecture) == (source, architecture)
