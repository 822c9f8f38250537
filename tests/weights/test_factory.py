"""`create`: what its arguments do to a config, alone and against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fcnzoo
from fcnzoo.config import BackboneConfig, DilatedHeadConfig, SkipHeadConfig
from fcnzoo.errors import BackboneError, UnknownModelError, WeightsError
from fcnzoo.model.fcn import FCN


def create(name: str = "fcn8s_resnet34", **options: Any) -> FCN:
    """Create on the meta device."""
    return fcnzoo.create(name, device="meta", **options)


def test_entries_come_as_they_are() -> None:
    """Without options an entry's config is built, its preprocessing filled in."""
    model = create("fcn_resnet50")
    spec = fcnzoo.get_spec("fcn_resnet50")
    assert model.config == spec.config
    assert model.label_set is not None
    assert model.label_set.names[15] == "person"
    assert model.preprocess.resize == 520
    assert create("fcn8s_vgg16").preprocess.channel_order == "bgr"
    assert create().config.replace(preprocess=None) == fcnzoo.get_spec("fcn8s_resnet34").config


def test_training_mode_is_the_default() -> None:
    """A fresh network is in training mode, as PyTorch's own are."""
    assert create().training


@pytest.mark.parametrize("num_classes", [1, 2, 150, 300])
def test_num_classes(num_classes: int) -> None:
    """K score channels; labels of another K are dropped; above 255 classes the ignore index is −1."""
    model = create("fcn_resnet50", num_classes=num_classes)
    assert model.num_classes == num_classes
    assert model.label_set is None
    assert model(torch.empty(1, 3, 32, 32, device="meta")).shape[1] == num_classes
    assert model.config.loss.ignore_index == (255 if num_classes < 256 else -1)


def test_the_same_num_classes_keeps_the_labels() -> None:
    """Saying the entry's own K changes nothing."""
    assert create("fcn_resnet50", num_classes=21).config == create("fcn_resnet50").config


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (2**15 + 1, ValueError), ("5", TypeError), (2.5, TypeError), (True, TypeError)],
)
def test_impossible_num_classes(value: object, error: type[Exception]) -> None:
    """A K that cannot be is an error that names it."""
    with pytest.raises(error, match="num_classes"):
        create(num_classes=value)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-3, ValueError), ("3", TypeError), (1.5, TypeError)])
def test_impossible_in_channels(value: object, error: type[Exception]) -> None:
    """Channels that cannot be are an error that names them."""
    with pytest.raises(error, match="in_channels"):
        create(in_channels=value)


@pytest.mark.parametrize("name", ["fcn8s_resnet34", "fcn_resnet50", "fcn8s_vgg16", "fcn8s_shufflenet_v2_x0_5"])
@pytest.mark.parametrize("channels", [1, 4])
def test_in_channels(name: str, channels: int) -> None:
    """Every source takes other numbers of channels; mean and std follow."""
    model = create(name, in_channels=channels)
    assert len(model.preprocess.mean) == channels
    assert model(torch.empty(1, channels, 40, 40, device="meta")).shape == (1, 21, 40, 40)


def test_gray_statistics_are_the_mean_of_the_colors() -> None:
    """For one channel the mean of an entry's own statistics is kept, with all else of its preprocessing."""
    preprocess = create("fcn_resnet50", in_channels=1).preprocess
    assert preprocess.mean == pytest.approx((0.449,))
    assert preprocess.std == pytest.approx((0.226,))
    assert preprocess.resize == 520


@pytest.mark.parametrize(("name", "aux", "want"), [
    ("fcn_resnet50", None, True),
    ("fcn_resnet50", False, False),
    ("fcn_resnet50", True, True),
    ("fcn8s_resnet34", None, False),
    ("fcn8s_resnet34", True, True),
])  # fmt: skip
def test_aux(name: str, aux: bool | None, want: bool) -> None:
    """`aux` adds or removes the auxiliary head; by default it is the entry's."""
    model = create(name, aux=aux)
    assert (model.aux_head is not None) == want
    assert (model.config.aux_head is not None) == want


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_stride(stride: int) -> None:
    """`output_stride` dilates the backbone of a dilated head."""
    model = create("fcn_resnet50", output_stride=stride)
    scores = model.scores(torch.empty(1, 3, 128, 160, device="meta"), aux=False)
    assert tuple(scores.main.shape[2:]) == (128 // stride, 160 // stride)


def test_dilation_under_a_skip_head() -> None:
    """A dilated backbone's stages share a stride: the skip head scores the three deepest, coarse to fine."""
    model = fcnzoo.create("fcn8s", backbone="timm/test_resnet", output_stride=8, device="meta")
    assert [model.backbone.features[tap].reduction for tap in model.head.taps] == [8, 8, 8]
    assert list(model.head.taps) == sorted(model.head.taps, reverse=True)


@pytest.mark.parametrize("stride", [4, 0, 64, "8"])
def test_impossible_output_strides(stride: object) -> None:
    """Another output stride is a ValueError that lists those that can be."""
    with pytest.raises(ValueError, match=r"\[8, 16, 32\]"):
        create("fcn_resnet50", output_stride=stride)


def test_geometry() -> None:
    """`geometry` is the paper's, with padding by 100, or the same weights without."""
    assert create("fcn8s_vgg16").grid.stride == 8
    assert create("fcn8s_vgg16", geometry="same").grid.stride is None
    with pytest.raises(ValueError, match="paper"):
        create(geometry="same")
    with pytest.raises(ValueError, match="geometry"):
        create("fcn8s_vgg16", geometry="caffe")


@pytest.mark.parametrize(
    ("head", "backbone", "full", "config"),
    [
        ("fcn8s", "timm/resnet18", "timm/resnet18", SkipHeadConfig()),
        ("fcn16s", "resnet18", "timm/resnet18", SkipHeadConfig(stride=16)),
        ("fcn32s", "torchvision/resnet18", "torchvision/resnet18", SkipHeadConfig(stride=32)),
        ("fcn8s", "mnasnet0_5", "torchvision/mnasnet0_5", SkipHeadConfig()),
        ("fcn8s", "paper/vgg16", "paper/vgg16", SkipHeadConfig()),
        ("fcn", "torchvision/resnet50", "torchvision/resnet50", DilatedHeadConfig()),
        ("fcn", "timm/resnet18.tv_in1k", "timm/resnet18.tv_in1k", DilatedHeadConfig()),
    ],
)
def test_bare_heads(head: str, backbone: str, full: str, config: object) -> None:
    """A bare head stands on `backbone=`, looked up at timm, then torchvision."""
    model = create(head, backbone=backbone)
    assert model.config.backbone == BackboneConfig(full, output_stride=8 if head == "fcn" else None)
    assert model.config.head == config
    assert model(torch.empty(1, 3, 97, 131, device="meta")).shape == (1, 21, 97, 131)


def test_a_bare_head_needs_a_backbone() -> None:
    """A head alone is a ValueError that shows how to name the backbone."""
    with pytest.raises(ValueError, match=r"backbone='timm/…'.*fcn8s_<backbone>"):
        create("fcn8s")


def test_a_whole_name_takes_no_backbone() -> None:
    """A name that says its backbone together with another one is a ValueError."""
    with pytest.raises(ValueError, match="says its backbone itself"):
        create("fcn8s_resnet34", backbone="timm/resnet18")


@pytest.mark.parametrize("backbone", ["resnet_18", "timm/resnet_18", "hub/resnet18", "", "paper/alexnet"])
def test_unknown_backbones(backbone: str) -> None:
    """A backbone that nobody has is an UnknownModelError."""
    with pytest.raises(UnknownModelError, match=r"backbone|network"):
        create("fcn8s", backbone=backbone)


def test_the_papers_network_cannot_be_dilated() -> None:
    """`fcn` on the paper's VGG-16 is refused in words about the backbone, not about an argument never given."""
    with pytest.raises(BackboneError, match="paper/vgg16"):
        create("fcn", backbone="paper/vgg16")


def test_unknown_names() -> None:
    """A wrong name lists near ones."""
    with pytest.raises(UnknownModelError, match="fcn8s_vgg16"):
        create("fcn8s_vgg_16")


def test_absent_weights_are_named() -> None:
    """`pretrained=True` without weights says which models have some, and names `pretrained_backbone`."""
    with pytest.raises(WeightsError, match=r"fcn8s_resnet34 has no trained.*pretrained_backbone=True"):
        create(pretrained=True)


def test_pretrained_and_pretrained_backbone_contradict() -> None:
    """Both together are a ValueError."""
    with pytest.raises(ValueError, match="pretrained_backbone"):
        create(pretrained=True, pretrained_backbone=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtype(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters have the dtype; the process's default stays as it was, also after an error."""
    model = fcnzoo.create("fcn8s", backbone="timm/test_resnet", dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.dtype == dtype

    def fail(*_: object) -> None:
        raise BackboneError("cannot be built")

    monkeypatch.setattr("fcnzoo.model.fcn.build_backbone", fail)
    with pytest.raises(BackboneError, match="cannot be built"):
        fcnzoo.create("fcn8s", backbone="timm/test_resnet", dtype=torch.float64)
    assert torch.get_default_dtype() == torch.float32


def test_device() -> None:
    """`device` is where everything is; nothing is by accident elsewhere."""
    assert all(p.is_meta for p in create().parameters())
    model = fcnzoo.create("fcn8s", backbone="timm/test_resnet", device="cpu")
    assert {t.device.type for t in model.state_dict().values()} == {"cpu"}
