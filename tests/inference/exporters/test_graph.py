"""The graph that is exported, run as it is: it gives what `Predictor` gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import fcnzoo
from fcnzoo.backbones.dilation.layers import PaddedConv2d
from fcnzoo.config import BackboneConfig, ContextHeadConfig, DilatedHeadConfig, FCNConfig, Preprocess
from fcnzoo.inference.exporters.check import expected, pictures
from fcnzoo.inference.exporters.graph import OUTPUTS, PictureGraph, traceable
from fcnzoo.model.fcn import FCN

SIZES = [(2, 97, 131), (1, 64, 96), (1, 33, 50)]


def alive(model: FCN) -> FCN:
    """Give score layers that begin at zero numbers, so that labels differ."""
    for module in model.head.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
    return model.eval()


def compare(model: FCN, sizes: list[tuple[int, int, int]] = SIZES) -> None:
    """Labels equal to the pixel but for ties; logits and scores to 1e-4 of the largest."""
    graph = PictureGraph(traceable(model, torch.float32), OUTPUTS).eval()
    for size in sizes:
        images = pictures(size, model.config.backbone.in_channels)
        labels, logits, scores = expected(model, images)
        with torch.no_grad():
            found = graph(torch.from_numpy(images))
        assert found[0].dtype == torch.uint8
        top = logits.topk(2, dim=1).values
        sure = (top[:, 0] - top[:, 1] > 1e-4 * logits.abs().max()).numpy()
        assert sure.mean() > 0.9
        assert np.array_equal(found[0].numpy()[sure], labels[sure])
        torch.testing.assert_close(found[1], logits, rtol=0, atol=1e-4 * logits.abs().max().item())
        torch.testing.assert_close(found[2], scores, rtol=0, atol=1e-4 * logits.abs().max().item())


@pytest.mark.parametrize("head", ["fcn32s", "fcn16s", "fcn8s", "fcn"])
def test_every_head(head: str) -> None:
    """All four heads on a padded network."""
    compare(alive(fcnzoo.create(head, backbone="timm/test_resnet.r160_in1k", num_classes=5)))


@pytest.mark.parametrize(
    "backbone", ["timm/test_vit.r160_in1k", "timm/test_efficientnet.r160_in1k", "torchvision/alexnet"]
)
def test_other_backbones(backbone: str) -> None:
    """A transformer, a network with other blocks, one in a margin."""
    compare(alive(fcnzoo.create("fcn8s", backbone=backbone, num_classes=5)))


@pytest.mark.parametrize("geometry", ["paper", "same"])
@pytest.mark.parametrize("head", ["fcn32s", "fcn8s"])
def test_the_papers_networks(head: str, geometry: str, narrow_vgg: None) -> None:
    """BGR, the mean of Caffe, grids of a fixed stride with zeros outside, and the padded geometry."""
    compare(alive(fcnzoo.create(f"{head}_vgg16", geometry=geometry, num_classes=5)))


def test_learned_deconvolution() -> None:
    """d2l's network: scores of stride 1, cropped."""
    compare(alive(fcnzoo.create("fcn32s_resnet18", num_classes=4)), [(1, 97, 131)])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("multiple", [1, 32])
def test_resized_pictures(multiple: int, interpolation: str) -> None:
    """Pictures are resized as by Pillow; labels come back to their size, by scores (64×96) or by the nearest pixel."""
    config = FCNConfig(
        BackboneConfig("timm/test_resnet.r160_in1k", output_stride=8, size_multiple=multiple),
        DilatedHeadConfig(),
        num_classes=5,
        preprocess=Preprocess(resize=75, interpolation=interpolation),
    )
    compare(alive(fcnzoo.build(config)))
    compare(alive(fcnzoo.build(config.replace(preprocess=Preprocess(resize=64)))), [(1, 128, 192), (1, 100, 150)])


@pytest.mark.parametrize("multiple", [1, 32])
def test_pictures_of_one_longer_side(multiple: int) -> None:
    """Longer sides are brought to a length, shrunk or enlarged, slivers to one pixel; with aligned corners too."""
    config = FCNConfig(
        BackboneConfig("timm/test_resnet.r160_in1k", output_stride=8, size_multiple=multiple),
        ContextHeadConfig(hidden_channels=8, rates=(2,), align_corners=True),
        num_classes=5,
        preprocess=Preprocess(longer_side=65),
    )
    compare(alive(fcnzoo.build(config)), [(1, 97, 131), (2, 40, 30), (1, 65, 33), (1, 200, 1)])


def test_lite_reduced_aspp() -> None:
    """Gates are means of the picture, whatever its size."""
    model = fcnzoo.create("lraspp", backbone="timm/test_resnet.r160_in1k", num_classes=5)
    compare(alive(model))


def test_one_size_only() -> None:
    """A network that takes one size sees the picture resized to it."""
    model = alive(fcnzoo.create("fcn8s", backbone="timm/mixer_s32_224", num_classes=5))
    assert model.backbone.fixed_size
    compare(model)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels: int) -> None:
    """Gray pictures, and those with more channels."""
    compare(alive(fcnzoo.create("fcn32s", backbone="timm/test_resnet.r160_in1k", in_channels=channels, num_classes=3)))


def test_same_padding_becomes_one_padding() -> None:
    """Layers that compute their padding have it fixed, and give the same numbers at other sizes."""
    model = alive(fcnzoo.create("fcn8s", backbone="timm/tf_mobilenetv3_small_minimal_100", num_classes=5))
    copy = traceable(model, torch.float32)
    names = {type(part).__name__ for part in copy.backbone.modules()}
    assert "Conv2dSame" not in names
    assert any(isinstance(part, PaddedConv2d) for part in copy.backbone.modules())
    assert any(type(part).__name__ == "Conv2dSame" for part in model.backbone.modules())
    compare(model)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_open_windows(name: str) -> None:
    """Swin's shifted windows give what timm's blocks give, on maps that the windows do not divide."""
    model = fcnzoo.create("fcn32s", backbone=f"timm/{name}", num_classes=2).eval()
    copy = traceable(model, torch.float32)
    blocks = [
        (one, two)
        for one, two in zip(model.backbone.modules(), copy.backbone.modules(), strict=True)
        if type(one) is not type(two)
    ]
    assert len(blocks) == 12
    with torch.no_grad():
        for plain, again in blocks[:2] + blocks[-2:]:
            tokens = torch.randn(2, 10, 17, plain.dim)
            torch.testing.assert_close(again._attn(tokens), plain._attn(tokens), rtol=1e-5, atol=1e-5)


def test_weights_are_shared_in_float32_only() -> None:
    """A float32 copy takes no memory; a float16 one leaves the network alone."""
    model = fcnzoo.create("fcn8s", backbone="timm/test_resnet.r160_in1k", num_classes=2)
    weight = next(model.parameters())
    assert next(traceable(model, torch.float32).parameters()) is weight
    assert next(traceable(model, torch.float16).parameters()).dtype == torch.float16
    assert weight.dtype == torch.float32
    assert model.training


def test_many_classes_are_int16() -> None:
    """Above 256 classes labels are int16, as `predict` gives them."""
    model = alive(fcnzoo.create("fcn32s", backbone="timm/test_resnet.r160_in1k", num_classes=300))
    graph = PictureGraph(traceable(model, torch.float32), ("labels",))
    (labels,) = graph(torch.from_numpy(pictures((1, 40, 40), 3)))
    assert labels.dtype == torch.int16
