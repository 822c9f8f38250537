"""timm backbones: features by reduction, options, and weights from a local file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from fcnzoo.backbones import build_backbone
from fcnzoo.config import BackboneConfig
from fcnzoo.errors import BackboneError, UnknownModelError, WeightsError

RESNET = BackboneConfig("timm/test_resnet")


def classifier_file(folder: Path, name: str = "test_resnet", **changes: Tensor | None) -> Path:
    """Write timm's own classifier with random weights; `changes` replaces keys (`None`: drops them)."""
    weights: dict[str, Any] = dict(timm.create_model(name).state_dict())
    for key, tensor in weights.items():
        if tensor.is_floating_point():
            weights[key] = torch.rand_like(tensor) + 0.1
    weights |= {key.replace("__", "."): value for key, value in changes.items()}
    path = folder / "classifier.safetensors"
    save_file({key: value for key, value in weights.items() if value is not None}, path)
    return path


@pytest.mark.parametrize(
    ("name", "reductions"),
    [
        ("test_resnet", [2, 4, 8, 16, 32]),
        ("test_convnext", [4, 8, 16, 32]),
        ("test_efficientnet", [2, 4, 8, 16, 32]),
        ("test_nfnet", [2, 4, 8, 16, 32]),
        ("vgg11", [1, 2, 4, 8, 16, 32]),
    ],
)
def test_features_are_what_is_said_of_them(name: str, reductions: list[int]) -> None:
    """Reductions, channels and sizes of the features are those announced, finest first."""
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(f"timm/{name}")).eval()
        features = backbone(torch.empty(2, 3, 64, 96))
    assert [info.reduction for info in backbone.features] == reductions
    for info, feature in zip(backbone.features, features, strict=True):
        assert tuple(feature.shape) == (2, info.channels, 64 // info.reduction, 96 // info.reduction)
    assert backbone.size_multiple == 32


def test_channels_last_networks_come_out_channels_first() -> None:
    """A network that computes in NHWC gives NCHW features, equal to timm's own, transposed."""
    config = BackboneConfig("timm/test_mambaout")
    backbone = build_backbone(config).eval()
    image = torch.randn(1, 3, 64, 96)
    theirs = backbone.network(image)  # pyright: ignore
    for info, ours, own in zip(backbone.features, backbone(image), theirs, strict=True):
        assert ours.shape[1] == info.channels
        assert tuple(ours.shape[2:]) == (64 // info.reduction, 96 // info.reduction)
        assert torch.equal(ours, own.permute(0, 3, 1, 2))


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_stride_dilates(stride) -> None:
    """With an output stride the deepest features stay at it, with the weights of the plain network."""
    backbone = build_backbone(RESNET.replace(output_stride=stride)).eval()
    plain = build_backbone(RESNET)
    assert [i.reduction for i in backbone.features] == [2, 4, 8, min(16, stride), min(32, stride)]
    assert backbone.state_dict().keys() == plain.state_dict().keys()
    features = backbone(torch.randn(1, 3, 64, 64))
    assert features[-1].shape[-1] == 64 // stride


@pytest.mark.parametrize("channels", [1, 2, 4, 12])
def test_other_numbers_of_channels(channels: int) -> None:
    """`in_channels` builds the first convolution and the statistics for it."""
    backbone = build_backbone(RESNET.replace(in_channels=channels)).eval()
    assert len(backbone.preprocess.mean) == len(backbone.preprocess.std) == channels
    assert len(backbone(torch.randn(1, channels, 32, 32))) == 5


def test_preprocess_is_the_weights_own() -> None:
    """Mean and std are those of the weights that the name's tag stands for."""
    with torch.device("meta"):
        for name in ("vit_tiny_patch16_224.augreg_in21k", "resnet18.tv_in1k"):
            cfg: Any = timm.get_pretrained_cfg(name)
            preprocess = build_backbone(BackboneConfig(f"timm/{name}")).preprocess
            assert preprocess.mean == cfg.mean
            assert preprocess.std == cfg.std


def test_unknown_networks_list_near_names() -> None:
    """A name that timm lacks is an UnknownModelError with near names and timm's version."""
    with pytest.raises(UnknownModelError, match=rf"timm {timm.__version__}.*resnet_50.*resnet50"):
        build_backbone(BackboneConfig("timm/resnet_50"))


def test_unknown_tags_are_refused() -> None:
    """A weights tag that timm lacks is an error of ours that names it."""
    with pytest.raises((UnknownModelError, BackboneError), match="nonsense"):
        build_backbone(BackboneConfig("timm/resnet18.nonsense"))


def test_local_file_gives_the_providers_own_features(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Features with a local file equal those of timm's classifier with these weights; the log says what is left out."""
    path = classifier_file(tmp_path)
    with caplog.at_level(logging.INFO, "fcnzoo"):
        backbone = build_backbone(RESNET, path).eval()
    assert "fc.weight" in caplog.text
    classifier: Any = timm.create_model("test_resnet", pretrained=True, pretrained_cfg_overlay={"file": str(path)})
    image = torch.randn(1, 3, 64, 64)
    want = classifier.eval().forward_intermediates(image, intermediates_only=True)
    for ours, theirs in zip(backbone(image), want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_local_file_and_dilation_and_gray_images(tmp_path: Path) -> None:
    """A file loads under dilation too, and its first convolution is summed for gray images."""
    path = classifier_file(tmp_path)
    rgb = build_backbone(RESNET.replace(output_stride=8), str(path)).eval()
    gray = build_backbone(RESNET.replace(output_stride=8, in_channels=1), path).eval()
    image = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(gray(image)[0], rgb(image.expand(1, 3, 32, 32))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer1__0__conv1__weight": None}, "1 missing: layer1.0.conv1.weight"),
        ({"layer1__0__conv1__surprise": torch.zeros(3)}, "1 unknown: layer1.0.conv1.surprise"),
        ({"layer4__0__conv1__weight": torch.zeros(3)}, r"1 of another shape: layer4.0.conv1.weight \(3,\) instead of"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """A missing, unknown or misshapen key is a WeightsError that names it and the file."""
    path = classifier_file(tmp_path, **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        build_backbone(RESNET, path)
    assert str(path) in str(caught.value)


def test_files_of_another_network_are_refused(tmp_path: Path) -> None:
    """The weights of another network are a WeightsError that counts what does not fit."""
    with pytest.raises(WeightsError, match=r"\d+ missing.*\d+ unknown"):
        build_backbone(RESNET, classifier_file(tmp_path, "test_convnext"))


def test_classifiers_of_other_classes_load(tmp_path: Path) -> None:
    """The classifier's own keys may be missing or of another shape: they are not used."""
    head = {"fc__weight": None, "fc__bias": torch.zeros(7)}
    assert build_backbone(RESNET, classifier_file(tmp_path, **head)).features


@pytest.mark.parametrize("content", [None, b"", b"no weights", b"\x80\x02}q\x00.", b"\xff" * 100])
@pytest.mark.parametrize("name", ["timm/test_resnet", "torchvision/shufflenet_v2_x0_5", "paper/vgg16"])
def test_files_that_are_no_safetensors_are_refused(
    narrow_vgg: None, tmp_path: Path, name: str, content: bytes | None
) -> None:
    """A missing, empty, pickled or broken file is a WeightsError that names it, from every source."""
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.safetensors"):
        build_backbone(BackboneConfig(name), path)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    """A safetensors file that ends too early is a WeightsError."""
    path = classifier_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="safetensors"):
        build_backbone(RESNET, path)


@pytest.mark.parametrize("path", ["", ".", "no/such/file.safetensors"])
def test_paths_that_are_no_file_are_refused(path: str) -> None:
    """A folder or nothing at all is a WeightsError that says what to give."""
    with pytest.raises(WeightsError, match="no such file"):
        build_backbone(RESNET, path)
