"""The paper's VGG-16: geometry, features, and where its weights may come from."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torchvision
from references import paper_features
from safetensors.torch import save_file

from fcnzoo.backbones import build_backbone
from fcnzoo.backbones import paper as vgg
from fcnzoo.backbones.paper import PaperVGG16
from fcnzoo.config import BackboneConfig
from fcnzoo.errors import UnknownModelError, WeightsError

PAPER = BackboneConfig("paper/vgg16", geometry="paper")
SAME = BackboneConfig("paper/vgg16", geometry="same")


def timm_weights() -> dict[str, torch.Tensor]:
    """Weights of a narrow VGG-16, called as timm calls them, classifier and all."""
    network = PaperVGG16(SAME)
    layers = {name: f"features.{index}" for name, index in vgg._convolutions()}
    layers |= {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2"}
    weights = {}
    for key, tensor in network.state_dict().items():
        layer, _, kind = key.rpartition(".")
        weights[f"{layers[layer]}.{kind}"] = torch.randn_like(tensor)
    return weights | {"head.fc.weight": torch.randn(10, 16), "head.fc.bias": torch.randn(10)}


def torchvision_weights() -> dict[str, torch.Tensor]:
    """The same as torchvision calls them: fc6 and fc7 are Linear layers."""
    names = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
    weights = {}
    for key, tensor in timm_weights().items():
        layer, _, kind = key.rpartition(".")
        weights[f"{names.get(layer, layer)}.{kind}"] = (
            tensor.flatten(1) if tensor.ndim == 4 and layer in names else tensor
        )
    return weights


def save(weights: dict[str, torch.Tensor], folder: Path) -> Path:
    """Write weights to a file."""
    path = folder / "vgg.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, path)
    return path


def test_is_torchvision_vgg16_by_shape() -> None:
    """Layer for layer the shapes are those of torchvision's VGG-16, fc6 as 7×7 and fc7 as 1×1 convolutions."""
    with torch.device("meta"):
        ours, theirs = PaperVGG16(PAPER), torchvision.models.vgg16()
    want = [tuple(p.shape) for name, p in theirs.named_parameters() if not name.startswith("classifier.6")]
    got = [tuple(p.shape) for p in ours.parameters()]
    assert got[:-4] == want[:-4]
    assert got[-4:] == [(4096, 512, 7, 7), (4096,), (4096, 4096, 1, 1), (4096,)]
    assert sum(p.numel() for p in ours.parameters()) == 134_260_544


@pytest.mark.parametrize("size", [(97, 131), (33, 47), (1, 1), (2, 65)])
def test_paper_features_equal_the_prototxt(narrow_vgg: None, size: tuple[int, int]) -> None:
    """pool3, pool4 and fc7 equal an independent network with padding 100 and ceiling pools, at any size."""
    network = PaperVGG16(PAPER).double().eval()
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    got = network(image)
    for ours, theirs, info in zip(got, paper_features(network.state_dict(), image), network.features, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.shape[1] == info.channels
    assert [info.reduction for info in network.features] == [8, 16, 32]
    assert [info.tap for info in network.features] == ["pool3", "pool4", "fc7"]


@pytest.mark.parametrize(("height", "width"), [(32, 64), (96, 32)])
def test_same_geometry_covers_the_image(narrow_vgg: None, height: int, width: int) -> None:
    """Without the padding by 100 the features are exactly H / r × W / r."""
    features = PaperVGG16(SAME).eval()(torch.randn(1, 3, height, width))
    assert [tuple(f.shape[2:]) for f in features] == [(height // r, width // r) for r in (8, 16, 32)]


def test_same_geometry_uses_the_same_weights(narrow_vgg: None) -> None:
    """On an image with 99 zeros around it the pad-free geometry computes what the padded one does."""
    paper, same = PaperVGG16(PAPER).double().eval(), PaperVGG16(SAME).double().eval()
    same.load_state_dict(paper.state_dict())
    image = torch.randn(1, 3, 41, 66, dtype=torch.float64)
    pool3, pool4, fc7 = paper(image)
    ours = same(torch.nn.functional.pad(image, (99, 99, 99, 99)))
    torch.testing.assert_close(ours[0], pool3)
    torch.testing.assert_close(ours[1], pool4)
    torch.testing.assert_close(ours[2][..., 3:-3, 3:-3], fc7)


def test_timm_and_torchvision_files_give_the_classifier(
    narrow_vgg: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys of timm and of torchvision load alike; the 1000-way layer is left out and named in the log."""
    torch.manual_seed(1)
    from_timm = timm_weights()
    torch.manual_seed(1)
    from_torchvision = torchvision_weights()
    with caplog.at_level(logging.INFO, "fcnzoo"):
        first = build_backbone(PAPER, save(from_timm, tmp_path)).state_dict()
    assert "head.fc.weight" in caplog.text
    second = build_backbone(SAME, save(from_torchvision, tmp_path)).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(first["fc6.weight"], from_timm["pre_logits.fc1.weight"])
    assert torch.equal(first["conv1_2.bias"], from_timm["features.2.bias"])


def test_own_keys_load_and_keep_the_caffe_mean(narrow_vgg: None, tmp_path: Path) -> None:
    """A file with this network's own keys loads; its pixels stay BGR 0–255. ImageNet files bring theirs."""
    own = PaperVGG16(PAPER)
    loaded = build_backbone(PAPER, save(own.state_dict(), tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), loaded.parameters(), strict=True))
    assert loaded.preprocess.channel_order == "bgr"
    assert loaded.preprocess.value_range == 255
    assert build_backbone(PAPER, save(timm_weights(), tmp_path)).preprocess.channel_order == "rgb"


def test_linear_fc6_is_a_convolution_over_channels_first(narrow_vgg: None, tmp_path: Path) -> None:
    """fc6 on a 7×7 map equals torchvision's flatten and Linear."""
    weights = torchvision_weights()
    network = build_backbone(PAPER, save(weights, tmp_path))
    x = torch.randn(1, 8, 7, 7)
    want = torch.nn.functional.linear(x.flatten(1), weights["classifier.0.weight"], weights["classifier.0.bias"])
    got = network.get_submodule("fc6")(x)
    torch.testing.assert_close(got.flatten(1), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(narrow_vgg: None, tmp_path: Path, channels: int) -> None:
    """`in_channels` builds, and RGB weights are adapted to it as timm does: gray images score as gray RGB."""
    path = save(timm_weights(), tmp_path)
    rgb = build_backbone(SAME, path).eval()
    network = build_backbone(SAME.replace(in_channels=channels), path).eval()
    assert len(network.preprocess.mean) == channels
    got = network(torch.randn(1, channels, 32, 32))
    assert got[0].shape == (1, 256, 4, 4)
    if channels == 1:
        gray = torch.randn(1, 1, 32, 32)
        torch.testing.assert_close(network(gray)[0], rgb(gray.expand(1, 3, 32, 32))[0], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda w: w.pop("features.0.weight"), "missing.*conv1_1.weight"),
        (lambda w: w.update({"features.1.running_mean": torch.zeros(4)}), "features.1.running_mean"),
        (lambda w: w.update({"features.2.weight": torch.zeros(5, 4, 3, 3)}), "conv1_2.weight"),
        (lambda w: w.update({"classifier.0.weight": torch.zeros(16, 100)}), "fc6|classifier.0"),
        (lambda w: w.update({"classifier.3.weight": torch.zeros(17, 16)}), "fc7"),
        (lambda w: w.clear(), "missing"),
    ],
    ids=["missing", "batchnorm", "shape", "fc6", "fc7", "empty"],
)
def test_files_that_do_not_fit_are_refused(narrow_vgg: None, tmp_path: Path, break_it, message: str) -> None:
    """Missing, unknown and misshapen keys are a WeightsError that names them."""
    weights = torchvision_weights()
    break_it(weights)
    with pytest.raises(WeightsError, match=message):
        build_backbone(PAPER, save(weights, tmp_path))


def test_only_vgg16_is_the_papers() -> None:
    """Another `paper/…` name is an UnknownModelError that says what there is."""
    with pytest.raises(UnknownModelError, match="paper/vgg16"):
        build_backbone(BackboneConfig("paper/alexnet"))
