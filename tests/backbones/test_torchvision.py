"""torchvision backbones: cut at block boundaries, dilated where they can be, weights from a local file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fcnzoo.backbones import build_backbone
from fcnzoo.config import BackboneConfig
from fcnzoo.errors import BackboneError, UnknownModelError, WeightsError

SHUFFLE = "shufflenet_v2_x0_5"

# (reduction, channels) at the ends of the stages, from the architectures' own tables, and the module in
# which each tap must lie: the last block of its stage.
STAGES = {
    "resnet18": [
        (2, 64, "relu"),
        (4, 64, "layer1.1"),
        (8, 128, "layer2.1"),
        (16, 256, "layer3.1"),
        (32, 512, "layer4.1"),
    ],
    "mobilenet_v3_small": [
        (2, 16, "features.0"),
        (4, 16, "features.1"),
        (8, 24, "features.3"),
        (16, 48, "features.8"),
        (32, 576, "features.12"),
    ],
    "convnext_tiny": [
        (4, 96, "features.1.2"),
        (8, 192, "features.3.2"),
        (16, 384, "features.5.8"),
        (32, 768, "features.7.2"),
    ],
    "shufflenet_v2_x0_5": [
        (2, 24, "conv1"),
        (4, 24, "maxpool"),
        (8, 48, "stage2.3"),
        (16, 96, "stage3.7"),
        (32, 1024, "conv5"),
    ],
    "densenet121": [
        (2, 64, "features.relu0"),
        (4, 256, "features.denseblock1"),
        (8, 512, "features.denseblock2"),
        (16, 1024, "features.denseblock3"),
        (32, 1024, "relu"),
    ],
    "regnet_y_400mf": [
        (2, 32, "stem"),
        (4, 48, "trunk_output.block1.block1-0"),
        (8, 104, "trunk_output.block2.block2-2"),
        (16, 208, "trunk_output.block3.block3-5"),
        (32, 440, "trunk_output.block4.block4-5"),
    ],
    "swin_t": [(4, 96, "features.1.1"), (8, 192, "features.3.1"), (16, 384, "features.5.5"), (32, 768, "permute")],
}


def on_meta(name: str, **options: object):
    """Build a backbone on the meta device."""
    with torch.device("meta"):
        return build_backbone(BackboneConfig(f"torchvision/{name}", **options))  # pyright: ignore


@pytest.mark.parametrize("name", STAGES)
def test_taps_are_the_ends_of_stages(name: str) -> None:
    """Features come from the last block of every stage, as NCHW of the announced channels and size."""
    backbone = on_meta(name).eval()
    assert [(i.reduction, i.channels) for i in backbone.features] == [stage[:2] for stage in STAGES[name]]
    for info, (_, _, module) in zip(backbone.features, STAGES[name], strict=True):
        assert info.tap == module or info.tap.startswith(f"{module}."), info.tap
    features = backbone(torch.empty(2, 3, 96, 128, device="meta"))
    for info, feature in zip(backbone.features, features, strict=True):
        assert tuple(feature.shape) == (2, info.channels, 96 // info.reduction, 128 // info.reduction)


def test_features_equal_the_classifiers_own() -> None:
    """ResNet-18: every feature equals what torchvision's own modules compute, to the bit."""
    backbone = build_backbone(BackboneConfig("torchvision/resnet18")).eval()
    network = torchvision.models.resnet18(weights=None).eval()
    missing, unexpected = network.load_state_dict(backbone.network.state_dict(), strict=False)  # pyright: ignore
    assert set(missing) == {"fc.weight", "fc.bias"}
    assert not unexpected
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        hidden = network.relu(network.bn1(network.conv1(image)))
        want = [hidden.clone()]
        hidden = network.maxpool(hidden)
        for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
            hidden = layer(hidden)
            want.append(hidden.clone())
        for ours, theirs in zip(backbone(image), want, strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_resnets_are_dilated(name: str, stride: int) -> None:
    """A ResNet of bottlenecks keeps its last stages at the output stride, each as a feature of its own."""
    backbone = on_meta(name, output_stride=stride).eval()
    deep = [(min(4, stride), 256), (8, 512), (min(16, stride), 1024), (min(32, stride), 2048)]
    assert [(i.reduction, i.channels) for i in backbone.features][-4:] == deep
    features = backbone(torch.empty(1, 3, 128, 128, device="meta"))
    assert features[-1].shape[-1] == 128 // stride


def test_dilated_resnet_is_torchvisions_own() -> None:
    """At output stride 8 layer4 equals that of the backbone of torchvision's `fcn_resnet50`, to the bit."""
    theirs = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None).backbone.eval()
    ours = build_backbone(BackboneConfig("torchvision/resnet50", output_stride=8)).eval()
    ours.network.load_state_dict(theirs.state_dict())  # pyright: ignore
    image = torch.randn(1, 3, 65, 96)
    with torch.inference_mode():
        assert torch.equal(ours(image)[-1], theirs(image)["out"])


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnext_tiny", "densenet121", "vgg11", "swin_t"])
@pytest.mark.parametrize("stride", [8, 16])
def test_networks_that_cannot_be_dilated_are_refused(name: str, stride: int) -> None:
    """A network that refuses, or silently ignores, dilation is a BackboneError that says so in one line."""
    with pytest.raises(
        BackboneError, match=rf"torchvision/{name} cannot be dilated to output_stride={stride}"
    ) as caught:
        on_meta(name, output_stride=stride)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vit_b_16", "maxvit_t"])
def test_networks_of_one_size_are_refused(name: str) -> None:
    """A network that takes only its own image size is a BackboneError that says so in one line."""
    with pytest.raises(BackboneError, match=rf"torchvision/{name} does not run at 256×320") as caught:
        on_meta(name)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_no_tap_lies_in_the_classifier(name: str) -> None:
    """SqueezeNet's 1000-way convolution is its classifier, not a feature."""
    assert all(not info.tap.startswith("classifier") for info in on_meta(name).features)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", [SHUFFLE, "convnext_tiny", "swin_t"])
def test_other_numbers_of_channels(name: str, channels: int) -> None:
    """`in_channels` adapts the first convolution and the statistics; the rest of the network is as it was."""
    backbone, plain = on_meta(name, in_channels=channels).eval(), on_meta(name)
    assert len(backbone.preprocess.mean) == len(backbone.preprocess.std) == channels
    features = backbone(torch.empty(1, channels, 64, 96, device="meta"))
    assert [f.shape[1] for f in features] == [info.channels for info in backbone.features]
    differ = [k for k, v in plain.state_dict().items() if backbone.state_dict()[k].shape != v.shape]
    assert len(differ) == 1


def classifier_file(folder: Path, **changes: torch.Tensor | None) -> tuple[nn.Module, Path]:
    """Write torchvision's own classifier with random weights; `changes` replaces keys (`None`: drops them)."""
    network = torchvision.models.get_model(SHUFFLE, weights=None).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_mean is not None
            module.running_mean.normal_(0, 0.1)
    weights = dict(network.state_dict()) | {key.replace("__", "."): value for key, value in changes.items()}
    path = folder / "classifier.safetensors"
    save_file({key: value for key, value in weights.items() if value is not None}, path)
    return network, path


def test_local_file_gives_the_providers_own_features(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Features with a local file equal the classifier's own, to the bit; the log names the keys left out."""
    network, path = classifier_file(tmp_path)
    with caplog.at_level(logging.INFO, "fcnzoo"):
        backbone = build_backbone(BackboneConfig(f"torchvision/{SHUFFLE}"), path).eval()
    assert "fc.weight" in caplog.text
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        hidden = network.maxpool(network.conv1(image))  # pyright: ignore
        for stage, feature in zip((network.stage2, network.stage3), backbone(image)[2:4], strict=True):
            hidden = stage(hidden)  # pyright: ignore
            assert torch.equal(hidden, feature)


def test_grey_images_score_as_grey_rgb(tmp_path: Path) -> None:
    """For one channel the first convolution's weights are summed, as timm does."""
    _, path = classifier_file(tmp_path)
    config = BackboneConfig(f"torchvision/{SHUFFLE}")
    rgb, grey = build_backbone(config, path).eval(), build_backbone(config.replace(in_channels=1), path).eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        for a, b in zip(grey(image), rgb(image.expand(1, 3, 64, 64)), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv1__0__weight": None}, "1 missing: conv1.0.weight"),
        ({"conv1__0__surprise": torch.zeros(3)}, "1 unknown: conv1.0.surprise"),
        ({"conv5__0__weight": torch.zeros(3)}, r"1 of another shape: conv5.0.weight \(3,\) instead of"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    """A missing, unknown or misshapen key is a WeightsError that names it."""
    _, path = classifier_file(tmp_path, **changes)
    with pytest.raises(WeightsError, match=message):
        build_backbone(BackboneConfig(f"torchvision/{SHUFFLE}"), path)


@pytest.mark.parametrize(("name", "hint"), [("resnet_50", "resnet50"), ("resnet50.nonsense", "imagenet1k_v1")])
def test_unknown_networks_and_weights_list_what_there_is(name: str, hint: str) -> None:
    """A network or a weights tag that torchvision lacks is an UnknownModelError with near names."""
    with pytest.raises(UnknownModelError, match=hint):
        on_meta(name)


def test_tags_choose_the_statistics() -> None:
    """The name's tag is a weights entry, in any case."""
    for name in ("vgg16.imagenet1k_features", "vgg16.IMAGENET1K_FEATURES"):
        preprocess = on_meta(name).preprocess
        assert preprocess.std == pytest.approx((1 / 255,) * 3)


def test_training_mode_trains() -> None:
    """In training mode BatchNorm takes the batch's statistics; back in eval mode the kept ones."""
    backbone = build_backbone(BackboneConfig(f"torchvision/{SHUFFLE}"))
    image = torch.randn(2, 3, 64, 64)
    trained = backbone.train()(image)[1]
    still = backbone.eval()(image)[1]
    assert not torch.allclose(trained, still)
    assert torch.equal(still, backbone(image)[1])
