"""torchvision backbones: cut at block boundaries, dilated where they can be, weights from a local file."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import fcnzoo
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


def test_mobilenet_v3_at_16_is_torchvisions_own() -> None:
    """At output stride 16, and with their taps, features equal those of torchvision's Lite R-ASPP, to the bit."""
    theirs = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).backbone
    config = BackboneConfig("torchvision/mobilenet_v3_large", output_stride=16, taps=("features.4", "features.16"))
    ours = build_backbone(config).eval()
    assert [(info.reduction, info.channels) for info in ours.features] == [(8, 40), (16, 960)]
    assert ours.dilation == "native"
    ours.network.features.load_state_dict(theirs.state_dict())  # pyright: ignore
    image = torch.randn(1, 3, 65, 96)
    with torch.inference_mode():
        low, high = theirs.eval()(image).values()
        assert all(torch.equal(a, b) for a, b in zip(ours(image), (low, high), strict=True))


def test_stages_keep_their_ends_under_dilation() -> None:
    """Dilated by torchvision's own option, MobileNetV3 has the same features, the last two at one stride."""
    plain, dilated = (on_meta("mobilenet_v3_large", output_stride=stride).features for stride in (None, 16))
    assert [info.tap for info in plain] == [info.tap for info in dilated]
    assert [info.reduction for info in dilated] == [2, 4, 8, 16, 16]


@pytest.mark.parametrize("taps", [("features.4", "nothing.1"), ("classifier.0",)])
def test_unknown_taps_are_named(taps: tuple[str, ...]) -> None:
    """A block that there is not, or that gives no map, is an error that lists those there are."""
    with pytest.raises(BackboneError, match=rf"no block {taps[-1]} .* it has features\.0, .*features\.16"):
        build_backbone(BackboneConfig("torchvision/mobilenet_v3_large", taps=taps))


@pytest.mark.parametrize(
    ("name", "taps"),
    [("timm/resnet18", ("layer1",)), ("torchvision/resnet18", ()), ("torchvision/resnet18", ("layer1.1", "layer1.1"))],
)
def test_impossible_taps_are_refused(name: str, taps: tuple[str, ...]) -> None:
    """Taps are for torchvision's networks, and each is named once."""
    with pytest.raises(ValueError, match=r"BackboneConfig\.taps"):
        BackboneConfig(name, taps=taps)


HOW = {
    "resnext50_32x4d": "native",
    "resnet18": "dilated",  # refuses the option
    "mobilenet_v3_small": "dilated",  # ignores it
    "convnext_tiny": "dilated",  # ignores it
    "densenet121": "dilated",
    "googlenet": "dilated",
    "inception_v3": "dilated",  # poolings are functions
    "squeezenet1_1": "dilated",
    "alexnet": "dilated",
    "vgg11": "dilated",
    "swin_t": "emulated",
    "swin_v2_t": "emulated",
    "maxvit_t": "emulated",
    "vit_b_32": "emulated",
}


COSTLY = ("densenet121", "inception_v3", "maxvit_t", "swin_v2_t", "googlenet", "vgg11")
"""Left to the exhaustive run where a cheaper network shows the same."""


def slow_if_costly(names: Iterable[str]) -> list[Any]:
    """Mark the costly ones."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in COSTLY else name for name in names]


@pytest.mark.parametrize("name", slow_if_costly(HOW))
def test_output_strides_are_reached_and_said_how(name: str) -> None:
    """Every network gives features of at most the output stride, deepest last, and says how it does."""
    backbone = on_meta(name, output_stride=8).eval()
    assert backbone.dilation == HOW[name]
    assert max(info.reduction for info in backbone.features) == 8
    assert len(backbone.features) >= 2
    features = backbone(torch.empty(1, 3, 192, 224, device="meta"))
    for info, feature in zip(backbone.features, features, strict=True):
        assert tuple(feature.shape) == (1, info.channels, 192 // info.reduction, 224 // info.reduction)
    plain = on_meta(name)
    assert plain.dilation == "none"
    assert plain.features[-1].channels == backbone.features[-1].channels
    # Keys that the head of the strided network writes are those of the dilated one: weights can be exchanged.
    assert {k: v.shape for k, v in plain.state_dict().items()} == {k: v.shape for k, v in backbone.state_dict().items()}


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "vit_b_32"])
def test_a_stride_that_is_there_already_changes_nothing(name: str) -> None:
    """`output_stride=32` has nothing to do for these."""
    assert on_meta(name, output_stride=32).dilation == "none"


def test_emulated_features_are_resized(tmp_path: Path) -> None:
    """Emulated: the network's own features, bilinearly resized where coarser than the output stride."""
    plain = build_backbone(BackboneConfig("torchvision/swin_t")).eval()
    emulated = build_backbone(BackboneConfig("torchvision/swin_t", output_stride=16)).eval()
    emulated.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        *finer, deep = plain(image)
        *same, resized = emulated(image)
    for a, b in zip(finer, same, strict=True):
        assert torch.equal(a, b)
    want = nn.functional.interpolate(deep, size=(4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized, want)


def test_image_sizes_are_refused() -> None:
    """No torchvision network needs a fixed size, so `image_size` is an error that says so."""
    with pytest.raises(BackboneError, match="any size"):
        on_meta("vit_b_16", image_size=(224, 224))


def hooked(modules: list[nn.Module]) -> list[torch.Tensor]:
    """Collect what modules give when their network runs."""
    outputs: list[torch.Tensor] = []
    for module in modules:
        module.register_forward_hook(lambda _, __, output: outputs.append(output))
    return outputs


def provider(name: str, folder: Path) -> tuple[nn.Module, Path]:
    """Write the provider's classifier, with random tables of positions."""
    network = torchvision.models.get_model(name, weights=None).eval()
    for key, parameter in network.named_parameters():
        if "pos_embedding" in key or "position_bias_table" in key:
            nn.init.normal_(parameter)
    path = folder / "classifier.safetensors"
    save_file({key: tensor.clone() for key, tensor in network.state_dict().items()}, path)
    return network, path


def test_vision_transformer_gives_its_blocks_outputs(tmp_path: Path) -> None:
    """Features equal the encoder's blocks 4, 8 and 12; at other sizes, after torchvision's `interpolate_embeddings`."""
    network, path = provider("vit_b_32", tmp_path)
    backbone = build_backbone(BackboneConfig("torchvision/vit_b_32"), path).eval()
    assert [info.tap for info in backbone.features] == [f"encoder.layers.encoder_layer_{i}" for i in (3, 7, 11)]
    state = torchvision.models.vision_transformer.interpolate_embeddings(288, 32, dict(network.state_dict()))
    larger = torchvision.models.vit_b_32(weights=None, image_size=288).eval()
    larger.load_state_dict(state)
    for size, own in ((224, network), (288, larger)):
        blocks = list(own.encoder.layers)  # pyright: ignore
        outputs = hooked([blocks[i] for i in (3, 7, 11)])
        image = torch.randn(1, 3, size, size)
        with torch.inference_mode():
            own(image)
            features = backbone(image)
        for output, feature in zip(outputs, features, strict=True):
            want = output[:, 1:].transpose(1, 2).reshape(feature.shape)
            torch.testing.assert_close(feature, want, rtol=1e-6, atol=1e-6)


def test_maxvit_gives_its_blocks_outputs(tmp_path: Path) -> None:
    """At 224×224 features equal torchvision's own to 1e-6; other sizes, not square either, run too."""
    network, path = provider("maxvit_t", tmp_path)
    backbone = build_backbone(BackboneConfig("torchvision/maxvit_t"), path).eval()
    outputs = hooked([network.stem, *network.blocks])  # pyright: ignore
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        network(image)
        for output, feature in zip(outputs, backbone(image), strict=True):
            torch.testing.assert_close(feature, output, rtol=1e-6, atol=1e-6)
        assert [tuple(f.shape[2:]) for f in backbone(torch.randn(1, 3, 96, 160))][-1] == (3, 5)


@pytest.mark.parametrize("stride", [None, 8])
@pytest.mark.parametrize(
    "name", slow_if_costly(["alexnet", "squeezenet1_0", "inception_v3", "googlenet", "vgg11", "densenet121"])
)
def test_features_lie_where_they_should(name: str, stride: int | None) -> None:
    """The center of a feature's receptive field is within half a cell (and a pixel) of (i + 0.5) · reduction − 0.5.

    Measured with constant weights and without non-linearities that choose, so that gradients are symmetric.
    """
    backbone = build_backbone(BackboneConfig(f"torchvision/{name}", output_stride=stride)).double().eval()  # pyright: ignore
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.MaxPool2d):
            module.register_forward_hook(average_instead)
    image = torch.ones(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    ramp = torch.arange(256, dtype=torch.float64)
    for info, feature in zip(backbone.features, backbone(image), strict=True):
        if info.reduction < 8:
            continue
        i = feature.shape[-1] // 2
        (gradient,) = torch.autograd.grad(feature[0, :, i, i].sum(), image, retain_graph=True)
        weight = gradient.abs().sum((0, 1, 2))
        center = float((weight * ramp).sum() / weight.sum())
        assert abs(center - ((i + 0.5) * info.reduction - 0.5)) <= info.reduction / 2 + 1, info


def average_instead(module: nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> torch.Tensor:
    """What an average over the window of a max-pooling gives: it spreads gradients evenly."""
    pool: nn.MaxPool2d = module  # pyright: ignore
    side = pool.kernel_size if isinstance(pool.kernel_size, int) else pool.kernel_size[0]
    channels = inputs[0].shape[1]
    kernel = torch.ones(channels, 1, side, side, dtype=inputs[0].dtype) / side**2
    given = getattr(pool, "pads", None)
    edge = 0 if given else (pool.padding if isinstance(pool.padding, int) else pool.padding[0])
    stride, dilation = pool.stride, pool.dilation
    last = edge + (pool.ceil_mode and stride != 1)
    padded = nn.functional.pad(inputs[0], given or (edge, last, edge, last))
    return nn.functional.conv2d(padded, kernel, None, stride, 0, dilation, channels)  # pyright: ignore


BORDERS = ["alexnet", "squeezenet1_1", "inception_v3", "vit_b_32", "swin_t", "maxvit_t", "mobilenet_v3_small", "vgg11"]


@pytest.mark.parametrize("name", BORDERS)
def test_no_border_pixel_is_ignored(name: str) -> None:
    """The last row and the last column of an image change the features, whether 32 divides its sides or not."""
    model = fcnzoo.create("fcn32s", backbone=f"torchvision/{name}", num_classes=3).eval()
    for size in ((97, 123), (96, 128)):
        images = torch.randn(1, 3, *size).repeat(3, 1, 1, 1)
        images[1, :, -1] += 1
        images[2, :, :, -1] += 1
        with torch.inference_mode():
            features = model.backbone(model._fit(images))
            scores = features[-1]
        assert (scores[1] - scores[0]).abs().max() > 0
        assert (scores[2] - scores[0]).abs().max() > 0


HEADS: dict[str, dict] = {"fcn32s": {}, "fcn16s": {}, "fcn8s": {}, "fcn": {"aux": True, "output_stride": 8}}


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_network_under_every_head(name: str) -> None:
    """All of torchvision's classifiers build and run under the four heads at sizes nobody chose for them."""
    for channels, (head, options) in zip((1, 2, 4, 13), HEADS.items(), strict=True):
        model = fcnzoo.create(
            head, backbone=f"torchvision/{name}", num_classes=5, in_channels=channels, device="meta", **options
        ).eval()
        for size in ((250, 333), (224, 224)):
            image = torch.empty(2, channels, *size, device="meta")
            scores = model.scores(image, aux=True if options else None)
            assert tuple(scores.main.shape[:2]) == (2, 5)
            assert tuple(model(image).shape) == (2, 5, *size)


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


def test_gray_images_score_as_gray_rgb(tmp_path: Path) -> None:
    """For one channel the first convolution's weights are summed, as timm does."""
    _, path = classifier_file(tmp_path)
    config = BackboneConfig(f"torchvision/{SHUFFLE}")
    rgb, gray = build_backbone(config, path).eval(), build_backbone(config.replace(in_channels=1), path).eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        for a, b in zip(gray(image), rgb(image.expand(1, 3, 64, 64)), strict=True):
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
