"""Heads: which features they take, how they start, how they fuse, and how they refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from references import caffe_kernel, d2l_kernel
from torch import nn

from fcnzoo.backbones import FeatureInfo
from fcnzoo.config import DilatedHeadConfig, Grid, SkipHeadConfig
from fcnzoo.errors import BackboneError
from fcnzoo.model.heads import DilatedHead, SkipHead, build_head
from fcnzoo.model.skip import assign_taps, bilinear_kernel

INFOS = tuple(FeatureInfo(r, c, f"stage{r}") for r, c in ((4, 6), (8, 8), (16, 10), (32, 12)))
PADDED = tuple(
    FeatureInfo(r, c, tap, Grid(stride=r, offset=o, border="zeros"))
    for r, c, tap, o in ((8, 8, "pool3", 99.0), (16, 10, "pool4", 99.0), (32, 12, "fc7", 3.0))
)


def features(height: int = 64, width: int = 96, batch: int = 1) -> list[torch.Tensor]:
    """Random features of `INFOS` for an image of this size."""
    return [torch.randn(batch, i.channels, -(-height // i.reduction), -(-width // i.reduction)) for i in INFOS]


@pytest.mark.parametrize("stride", [1, 2, 8, 16, 32])
def test_bilinear_kernel_is_caffes(stride: int) -> None:
    """The kernel equals Caffe's BilinearFiller, and d2l's."""
    torch.testing.assert_close(bilinear_kernel(stride), caffe_kernel(2 * stride), rtol=0, atol=1e-15)
    torch.testing.assert_close(bilinear_kernel(stride).float(), d2l_kernel(1, 1, 2 * stride)[0, 0])


@pytest.mark.parametrize(("stride", "taps"), [(32, (3,)), (16, (3, 2)), (8, (3, 2, 1))])
def test_features_are_chosen_by_reduction(stride, taps: tuple[int, ...]) -> None:
    """FCN-32s scores reduction 32; 16s and 8s also 16 and 8, wherever they stand in the list."""
    assert SkipHead(SkipHeadConfig(stride=stride), INFOS, 5, "x").taps == taps


def test_of_equal_reductions_the_deepest_is_scored() -> None:
    """Where several features share a reduction the last one is taken."""
    infos = (FeatureInfo(8, 3, "a"), FeatureInfo(16, 3, "b"), FeatureInfo(32, 3, "c"), FeatureInfo(32, 7, "d"))
    head = SkipHead(SkipHeadConfig(stride=32), infos, 5, "x")
    assert head.taps == (3,)
    assert head.score["32"].weight.shape[1] == 7


@pytest.mark.parametrize(
    ("reductions", "taps"),
    [
        ((2, 4, 8, 16, 32), (4, 3, 2)),  # a pyramid: exactly
        ((1, 2, 4, 8, 16, 32), (5, 4, 3)),
        ((4, 8, 16, 32, 64), (3, 2, 1)),  # exact levels come before depth
        ((2, 4, 8, 8, 8), (4, 3, 2)),  # dilated
        ((16, 16, 16), (2, 1, 0)),  # patches of one size
        ((14, 14, 14, 14), (3, 2, 1)),  # of equally near ones the deepest
        ((16, 32, 64), (2, 1, 0)),  # begins late: a tap for every level
        ((2, 4, 8, 16), (3, 2, 1)),  # ends early
        ((8, 16), (1, 0, 0)),  # two taps: the finest serves two levels
        ((16,), (0, 0, 0)),
    ],
)
def test_levels_are_served_by_the_documented_rule(reductions: tuple[int, ...], taps: tuple[int, ...]) -> None:
    """Distinct taps first, then the nearest reductions, then the deepest; 32s and 16s take the first of 8s' taps."""
    infos = tuple(FeatureInfo(r, 4, f"block{i}") for i, r in enumerate(reductions))
    assert tuple(assign_taps(infos).values()) == taps
    for stride, count in ((32, 1), (16, 2), (8, 3)):
        assert SkipHead(SkipHeadConfig(stride=stride), infos, 5, "x").taps == taps[:count]


def test_a_tap_of_two_levels_is_brought_to_the_finer_grid() -> None:
    """Features at 32 and 16 give FCN-8s scores at 8: those of level 8 are the finest tap's, resized."""
    infos = (FeatureInfo(16, 4, "a"), FeatureInfo(32, 6, "b"))
    head = SkipHead(SkipHeadConfig(stride=8, init="xavier"), infos, 5, "x")
    fine, coarse = torch.randn(2, 4, 6, 10), torch.randn(2, 6, 3, 5)

    def resize(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)

    fused = resize(head.score["32"](coarse), (6, 10)) + head.score["16"](fine)
    expected = resize(fused, (12, 20)) + resize(head.score["8"](fine), (12, 20))
    torch.testing.assert_close(head([fine, coarse]), expected)


def test_missing_details_are_named() -> None:
    """Detail asks for its very reductions: without them the error says which there are, and on what."""
    with pytest.raises(BackboneError) as caught:
        build_head(SkipHeadConfig(detail=(4, 2)), INFOS, 5, "timm/thing")
    text = str(caught.value)
    assert "timm/thing" in text
    assert "no features at reduction 2" in text
    assert all(f"{info.reduction} ({info.tap})" in text for info in INFOS)


@pytest.mark.parametrize("kind", ["deconv", "deconv_depthwise"])
def test_learned_deconvolutions_need_an_even_reduction(kind) -> None:
    """A transposed convolution cannot be centered on patches of odd size."""
    with pytest.raises(BackboneError, match="even reduction, not 7"):
        SkipHead(SkipHeadConfig(stride=32, upsampling=kind), (FeatureInfo(7, 4, "a"),), 5, "x")


@pytest.mark.parametrize("hidden", [0, 4])
def test_scores_start_at_zero(hidden: int) -> None:
    """With `init="zero"` every score is 0 before training, as in the paper."""
    head = SkipHead(SkipHeadConfig(hidden_channels=hidden), INFOS, 5, "x").eval()
    assert not head(features()).any()


def test_xavier_initialization() -> None:
    """`init="xavier"` draws uniformly within ±√(6 / (fan in + fan out)), biases are 0."""
    head = SkipHead(SkipHeadConfig(stride=32, init="xavier"), (FeatureInfo(32, 500, "a"),), 100, "x")
    layer = head.score["32"]
    limit = (6 / 600) ** 0.5
    assert layer.weight.abs().max() <= limit
    assert layer.weight.abs().max() > 0.99 * limit
    assert abs(layer.weight.std().item() - limit / 3**0.5) < 0.01 * limit
    assert not layer.bias.any()


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 1)])
def test_fusion_resizes_to_the_finer_map_and_adds(size: tuple[int, int]) -> None:
    """Fitting features: score, `F.interpolate` to the finer scores' size, add; odd sizes too."""
    head = SkipHead(SkipHeadConfig(init="xavier"), INFOS, 5, "x").eval()
    maps = features(*size)
    s32, s16, s8 = (
        F.conv2d(maps[i], head.score[key].weight, head.score[key].bias) for i, key in ((3, "32"), (2, "16"), (1, "8"))
    )
    fused = F.interpolate(s32, s16.shape[2:], mode="bilinear", align_corners=False) + s16
    fused = F.interpolate(fused, s8.shape[2:], mode="bilinear", align_corners=False) + s8
    torch.testing.assert_close(head(maps), fused)
    assert head.grid == Grid()


@pytest.mark.parametrize(("stride", "crops", "offset"), [(32, (), 3), (16, (5,), 19), (8, (5, 9), 27)])
def test_padded_geometry_gives_the_published_crops(stride, crops: tuple[int, ...], offset: float) -> None:
    """Skip crops 5 and 9 and final crops 19, 27, 31 (offset + stride / 2) follow from the features' grids."""
    head = SkipHead(SkipHeadConfig(stride=stride), PADDED, 5, "x")
    assert head._crops == crops
    assert head.grid == Grid(stride=stride, offset=offset, border="zeros")


@pytest.mark.parametrize("stride", [8, 32])
@pytest.mark.parametrize("side", [2, 4])
def test_subpixel_scores_are_finer(stride, side) -> None:
    """`subpixel=s` gives s² scores per finest feature, shuffled into an s times larger map."""
    head = SkipHead(SkipHeadConfig(stride=stride, subpixel=side, init="xavier"), INFOS, 5, "x").eval()
    maps = features()
    scores = head(maps)
    assert tuple(scores.shape) == (1, 5, 64 // stride * side, 96 // stride * side)
    if stride == 32:
        layer = head.score["32"]
        blocks = F.conv2d(maps[3], layer.weight, layer.bias).view(1, 5, side, side, 2, 3)
        assert torch.equal(scores[0, 2, 1, side], blocks[0, 2, 1, 0, 0, 1])


def test_subpixel_needs_fitting_features() -> None:
    """In the padded geometry `subpixel` is a BackboneError that says what to change."""
    with pytest.raises(BackboneError, match="geometry='same'"):
        SkipHead(SkipHeadConfig(subpixel=2), PADDED, 5, "x")


def test_hidden_layer_comes_before_each_score() -> None:
    """`hidden_channels` puts 3×3 convolution, BatchNorm, ReLU and dropout before every score layer."""
    head = SkipHead(SkipHeadConfig(hidden_channels=4, dropout=0.3, init="xavier"), INFOS, 5, "x")
    for reduction, channels in (("8", 8), ("16", 10), ("32", 12)):
        conv, norm, relu, dropout, score = head.score[reduction]
        assert conv.weight.shape == (4, channels, 3, 3)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(relu, nn.ReLU)
        assert dropout.p == 0.3
        assert score.weight.shape == (5, 4, 1, 1)


def test_dropout_without_hidden_layers() -> None:
    """It drops elements of the features before each score layer, in training only; weights keep their names."""
    plain = SkipHead(SkipHeadConfig(stride=32, init="xavier"), INFOS, 5, "x")
    head = SkipHead(SkipHeadConfig(stride=32, init="xavier", dropout=0.4), INFOS, 5, "x")
    assert head.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(head.state_dict())
    maps = features()
    torch.manual_seed(1)
    found = head.train()(maps)
    torch.manual_seed(1)
    score = head.score["32"]
    assert torch.equal(found, F.conv2d(F.dropout(maps[3], 0.4), score.weight, score.bias))
    assert torch.equal(head.eval()(maps), plain(maps))
    fused = SkipHead(SkipHeadConfig(init="xavier", dropout=0.4), INFOS, 5, "x")
    for level in (8, 16):  # silence the others' scores: what is left of this level is dropped too
        weights = {
            key: value if f".{level}." in key else torch.zeros_like(value) for key, value in fused.state_dict().items()
        }
        silent = SkipHead(SkipHeadConfig(init="xavier", dropout=0.4), INFOS, 5, "x")
        silent.load_state_dict(weights)
        assert not torch.equal(silent.train()(maps), silent.eval()(maps)), level


@pytest.mark.parametrize(("kind", "groups"), [("deconv", 1), ("deconv_depthwise", 5)])
@pytest.mark.parametrize("stride", [8, 32])
def test_learned_deconvolution_starts_bilinear(kind, groups: int, stride) -> None:
    """The learned upsampling starts as bilinear interpolation of every class by itself, and is trained."""
    plain = SkipHead(SkipHeadConfig(stride=stride, init="xavier"), INFOS, 5, "x").eval()
    head = SkipHead(SkipHeadConfig(stride=stride, init="xavier", upsampling=kind), INFOS, 5, "x").eval()
    head.load_state_dict(plain.state_dict(), strict=False)
    assert head.deconv is not None
    assert head.deconv.groups == groups
    assert head.deconv.weight.requires_grad
    want = d2l_kernel(5, 5, 2 * stride) if groups == 1 else d2l_kernel(1, 1, 2 * stride).expand(5, 1, -1, -1)
    torch.testing.assert_close(head.deconv.weight.detach(), want)
    maps = features()
    got = head(maps)
    assert tuple(got.shape) == (1, 5, 64, 96)
    inner = slice(stride // 2, -stride // 2)
    want = F.interpolate(plain(maps), (64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(got[..., inner, inner], want[..., inner, inner], rtol=1e-4, atol=1e-5)
    assert head.grid == Grid(stride=1)


def test_dilated_head_is_torchvisions() -> None:
    """The dilated head equals `torchvision.models.segmentation.fcn.FCNHead` on the last feature."""
    from torchvision.models.segmentation.fcn import FCNHead

    theirs = FCNHead(12, 5).eval()
    ours = build_head(DilatedHeadConfig(), INFOS, 5, "x").eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    maps = features()
    torch.testing.assert_close(ours(maps), theirs(maps[-1]), rtol=0, atol=0)
    assert isinstance(ours, DilatedHead)
    assert ours.dropout.p == 0.1
    assert ours.grid == Grid()


def test_concatenating_head_is_mmsegs() -> None:
    """Mmsegmentation's FCNHead: two convolutions, then one over [features, hidden], then the scores."""
    config = DilatedHeadConfig(hidden_channels=7, num_convs=2, concat_input=True)
    head = DilatedHead(config, INFOS, 5, "x").eval()
    maps = features()
    hidden = maps[-1]
    for layer in head.convs:
        conv, norm, _ = layer
        hidden = norm(F.conv2d(hidden, conv.weight, padding=1)).relu()
    assert head.mix is not None
    conv, norm, _ = head.mix
    assert conv.weight.shape == (7, 12 + 7, 3, 3)
    hidden = norm(F.conv2d(torch.cat([maps[-1], hidden], 1), conv.weight, padding=1)).relu()
    torch.testing.assert_close(head(maps), F.conv2d(hidden, head.score.weight, head.score.bias))


def test_aux_head_takes_the_feature_before_the_last() -> None:
    """`depth=-2` scores the second deepest feature."""
    head = DilatedHead(DilatedHeadConfig(), INFOS, 5, "x", depth=-2)
    assert head.taps == (2,)
    assert head.score.in_channels == 10 // 4


def test_aux_head_needs_two_features() -> None:
    """An aux head on a single feature is a BackboneError that says so."""
    with pytest.raises(BackboneError, match="aux head needs 2 features"):
        DilatedHead(DilatedHeadConfig(), INFOS[-1:], 5, "x", depth=-2)


def test_narrow_features_still_have_a_hidden_layer() -> None:
    """A quarter of fewer than four channels is one, not none."""
    head = DilatedHead(DilatedHeadConfig(), (FeatureInfo(8, 3, "a"),), 5, "x")
    assert head.score.in_channels == 1


@pytest.mark.parametrize("config", [SkipHeadConfig(upsampling="deconv"), DilatedHeadConfig()])
def test_heads_build_on_meta(config: SkipHeadConfig | DilatedHeadConfig) -> None:
    """Under the meta device a head holds nothing and gives the shape."""
    with torch.device("meta"):
        head = build_head(config, INFOS, 5, "x")
        assert all(p.is_meta for p in head.parameters())
        assert head([f.to("meta") for f in features()]).shape[:2] == (1, 5)


def test_detail_is_added_after_the_papers_fusion() -> None:
    """`detail=(4,)` scores reduction 4 too and adds it to the FCN-8s scores, resized to it."""
    torch.manual_seed(0)
    config = SkipHeadConfig(init="xavier", hidden_channels=7, detail=(4,), detail_channels=3)
    head = SkipHead(config, INFOS, 5, "x").eval()
    plain = SkipHead(config.replace(detail=(), detail_channels=0), INFOS, 5, "x").eval()
    plain.load_state_dict({key: value for key, value in head.state_dict().items() if not key.startswith("score.4.")})
    maps = features()
    fine = head.score["4"](maps[0])
    wanted = fine + F.interpolate(plain(maps), size=fine.shape[-2:], mode="bilinear")
    assert head.taps == (3, 2, 1, 0)
    assert head.score["4"][0].weight.shape[:2] == (3, 6)
    torch.testing.assert_close(head(maps), wanted)


def test_detail_needs_its_reductions() -> None:
    """A backbone without reduction 2 refuses `detail=(4, 2)` and says what there is."""
    with pytest.raises(BackboneError, match="no features at reduction 2"):
        SkipHead(SkipHeadConfig(detail=(4, 2)), INFOS, 5, "x")


@pytest.mark.parametrize(
    "changes",
    [
        {"detail": (2,)},
        {"detail": (2, 4)},
        {"detail": (4,), "stride": 16},
        {"detail_channels": 8},
        {"detail": (4,), "upsampling": "deconv"},
    ],
)
def test_impossible_details_are_refused(changes) -> None:
    """Detail goes from 4 to 2, on top of FCN-8s, bilinear; anything else names the field."""
    with pytest.raises(ValueError, match=r"SkipHeadConfig\.detail"):
        SkipHeadConfig(**changes)
