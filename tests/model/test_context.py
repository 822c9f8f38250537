"""Heads with global context, compared with torchvision's, and on backbones of every kind."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.lraspp import LRASPPHead as TorchvisionLRASPPHead

import fcnzoo
from fcnzoo.backbones import FeatureInfo
from fcnzoo.config import BackboneConfig, ContextHeadConfig, FCNConfig, Grid, LRASPPHeadConfig
from fcnzoo.errors import BackboneError
from fcnzoo.model.context import ContextHead, ImagePooling, LRASPPHead
from fcnzoo.model.heads import build_head

INFOS = tuple(FeatureInfo(r, c, f"stage{r}") for r, c in ((4, 6), (8, 8), (16, 10)))


def features(batch: int = 2) -> list[Tensor]:
    """Random features of `INFOS` for an image of 65×97."""
    return [torch.randn(batch, i.channels, -(-65 // i.reduction), -(-97 // i.reduction)).double() for i in INFOS]


def randomized(network: nn.Module) -> nn.Module:
    """The network in float64 and eval mode, with BatchNorm statistics of its own."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval().double()


@pytest.mark.parametrize("rates", [(12, 24, 36), (1, 2), ()])
def test_context_head_is_torchvisions(rates: tuple[int, ...]) -> None:
    """Scores equal `DeepLabHead`'s to 1e-12 with any rates, BatchNorm statistics included."""
    theirs = randomized(DeepLabHead(10, 5, rates))
    ours = ContextHead(ContextHeadConfig(rates=rates), INFOS, 5).eval().double()
    names = {
        **{f"0.convs.{i}.": f"branches.{i}." for i in range(len(rates) + 1)},
        f"0.convs.{len(rates) + 1}.1.": "pooling.conv.",
        f"0.convs.{len(rates) + 1}.2.": "pooling.norm.",
        "0.project.": "project.",
        "1.": "convs.0.0.",
        "2.": "convs.0.1.",
        "4.": "score.",
    }
    state = theirs.state_dict()
    ours.load_state_dict(
        {ours + key[len(name) :]: state[key] for name, ours in names.items() for key in state if key.startswith(name)}
    )
    maps = features()
    torch.testing.assert_close(ours(maps), theirs(maps[-1]), rtol=0, atol=1e-12)
    assert ours.dropout.p == theirs[0].project[3].p
    assert ours.grid == Grid()


def test_lite_head_is_torchvisions() -> None:
    """Scores equal `LRASPPHead`'s to 1e-12, which resizes hidden features where ours resizes scores."""
    theirs = randomized(TorchvisionLRASPPHead(8, 10, 5, 128))
    ours = LRASPPHead(LRASPPHeadConfig(), INFOS, 5, "x").eval().double()
    state = theirs.state_dict()
    for old, new in (("cbr", "hidden"), ("scale.1", "gate"), ("low_", "score_low."), ("high_", "score_high.")):
        state = {key.replace(old, new).replace(".classifier", ""): tensor for key, tensor in state.items()}
    ours.load_state_dict(state)
    maps = features()
    torch.testing.assert_close(ours(maps), theirs({"low": maps[1], "high": maps[2]}), rtol=0, atol=1e-12)
    assert ours.taps == (2, 1)


@pytest.mark.parametrize(
    ("reductions", "tap"),
    [((4, 8, 16), 1), ((2, 4, 8, 16, 16), 2), ((8, 16), 0), ((4, 16, 16), 1), ((16, 16, 16), 1), ((16,), 0)],
)
def test_lite_head_takes_the_feature_nearest_to_8(reductions: tuple[int, ...], tap: int) -> None:
    """The finer feature lies before the last, at 8 or as near as there is."""
    infos = tuple(FeatureInfo(r, 4, f"block{i}") for i, r in enumerate(reductions))
    assert LRASPPHead(LRASPPHeadConfig(), infos, 5, "x").taps == (len(reductions) - 1, tap)


def test_lite_head_needs_features_on_the_image() -> None:
    """The paper's padded geometry is refused, with what helps."""
    padded = tuple(info.replace(grid=Grid(stride=info.reduction, offset=3.0, border="zeros")) for info in INFOS)
    with pytest.raises(BackboneError, match="geometry='same'"):
        build_head(LRASPPHeadConfig(), padded, 5, "x")


def test_one_image_is_normalized_by_running_statistics() -> None:
    """In training, the context of a single image is what eval mode says, statistics stay, and gradients flow."""
    torch.manual_seed(0)
    pooling = ImagePooling(6, 4)
    nn.init.normal_(pooling.norm.running_mean)
    maps = torch.randn(1, 6, 3, 5)
    before = copy.deepcopy(pooling.state_dict())
    context = pooling.train()(maps)
    torch.testing.assert_close(context, pooling.eval()(maps))
    assert all(torch.equal(tensor, before[key]) for key, tensor in pooling.state_dict().items())
    context.sum().backward()
    assert pooling.conv.weight.grad is not None and pooling.norm.bias.grad is not None


def test_two_images_are_normalized_by_their_own_statistics() -> None:
    """From two images on it is plain BatchNorm of the mean feature."""
    pooling = ImagePooling(6, 4).train()
    maps = torch.randn(2, 6, 3, 5)
    hidden = F.conv2d(maps.mean((2, 3), keepdim=True), pooling.conv.weight)
    torch.testing.assert_close(pooling(maps), F.batch_norm(hidden, None, None, training=True).relu())


@pytest.mark.parametrize("head", ["deeplabv3", "lraspp"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", [(65, 97), (1, 1)])
def test_trains(head: str, batch: int, size: tuple[int, int]) -> None:
    """The loss reaches every parameter, one image or two, odd sizes or a single pixel."""
    model = fcnzoo.create(f"{head}_test_efficientnet", num_classes=3)
    model(torch.randn(batch, 3, *size), torch.zeros(batch, *size, dtype=torch.uint8)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("head", ["deeplabv3", "lraspp"])
@pytest.mark.parametrize(
    "backbone",
    [
        "timm/resnet10t",
        "timm/test_vit",
        "timm/test_convnext",
        "timm/test_nfnet",
        "torchvision/mobilenet_v3_small",
        "torchvision/squeezenet1_1",
        "torchvision/alexnet",
    ],
)
def test_runs_on_backbones_of_every_kind(head: str, backbone: str) -> None:
    """Logits and the loss have their shapes where stages, patches or poolings give the features."""
    model = fcnzoo.create(head, backbone=backbone, num_classes=3, device="meta")
    image, target = torch.empty(2, 3, 250, 333, device="meta"), torch.zeros(2, 250, 333, device="meta").long()
    assert tuple(model.eval()(image).shape) == (2, 3, 250, 333)
    assert model.train()(image, target).shape == ()


def test_corners_may_be_aligned() -> None:
    """`align_corners=True` resizes the scores as `F.interpolate` does with it."""
    config = FCNConfig(
        BackboneConfig("timm/test_efficientnet", output_stride=8, size_multiple=1),
        ContextHeadConfig(rates=(), num_convs=0, align_corners=True),
        num_classes=3,
    )
    model = fcnzoo.build(config).eval()
    image = torch.randn(1, 3, 65, 91)
    with torch.no_grad():
        expected = F.interpolate(model.scores(image).main, (65, 91), mode="bilinear", align_corners=True)
        torch.testing.assert_close(model(image), expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rates", (0,)), ("rates", (5000,)), ("hidden_channels", 0), ("num_convs", -1), ("dropout", 1.0)],
)
def test_impossible_options_are_refused(field: str, value: object) -> None:
    """An impossible option is an error that names it."""
    with pytest.raises(ValueError, match=rf"ContextHeadConfig\.{field}"):
        ContextHeadConfig(**{field: value})  # pyright: ignore


def test_other_classes_change_score_layers_only() -> None:
    """`reset_classifier` finds the score layers of both heads, and nothing else."""
    for name, scores in (("deeplabv3", {"head.score"}), ("lraspp", {"head.score_low", "head.score_high"})):
        model = fcnzoo.create(f"{name}_test_efficientnet", num_classes=3, aux=False)
        before = copy.deepcopy(model.state_dict())
        model.reset_classifier(4)
        after = model.state_dict()
        changed = {key for key in before if before[key].shape != after[key].shape or not before[key].equal(after[key])}
        assert {key.rpartition(".")[0] for key in changed} == scores
