"""Tiles: where they lie, that they blend to the whole, and what cannot be tiled."""

from __future__ import annotations

import itertools
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fcnzoo
from fcnzoo.backbones import Backbone, FeatureInfo
from fcnzoo.config import BackboneConfig, FCNConfig, Preprocess, SkipHeadConfig
from fcnzoo.inference.tiles import blend_weights, tile_layout
from fcnzoo.model.fcn import FCN
from fcnzoo.model.heads import build_head


class Averages(Backbone):
    """Features that see their own cell only: tiles lose nothing at their edges."""

    def __init__(self, finest: int) -> None:
        super().__init__()
        self.config = BackboneConfig("timm/averages")
        self.features = tuple(FeatureInfo(finest * 2**i, 3, f"pool{i}") for i in range(3))
        self.preprocess = Preprocess()
        self.size_multiple = finest * 4

    def forward(self, image: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(image, info.reduction) for info in self.features]


def model_of(finest: int = 8, stride: int = 32) -> FCN:
    """A network on `Averages`."""
    torch.manual_seed(0)
    backbone = Averages(finest)
    config = FCNConfig(backbone.config, SkipHeadConfig(stride=stride, init="xavier"), num_classes=6)
    return FCN(config, backbone, build_head(config.head, backbone.features, 6, "averages")).eval()


@pytest.mark.parametrize("length", [1, 31, 32, 33, 200, 1000])
@pytest.mark.parametrize(("tile", "overlap"), [(32, 0), (64, 16), (100, 99), (64, 33), (5, 0)])
def test_tiles_cover_an_axis(length: int, tile: int, overlap: int) -> None:
    """Every pixel lies in a tile, starts are multiples, the last tile ends where the padded axis ends."""
    size, starts = tile_layout(length, tile, overlap, 32)
    padded = -(-length // 32) * 32
    assert size % 32 == 0
    assert all(start % 32 == 0 for start in starts)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] + size == padded
    assert all(after <= before + size for before, after in itertools.pairwise(starts))


@pytest.mark.parametrize(("tile", "overlap"), [(64, 0), (64, 16), (128, 96)])
def test_shares_sum_to_one(tile: int, overlap: int) -> None:
    """At every cell the weights of all tiles there sum to 1, and none is negative."""
    size, starts = tile_layout(500, tile, overlap, 32)
    total = torch.zeros((starts[-1] + size) // 8, dtype=torch.float64)
    for start in starts:
        share = blend_weights(starts, start, size, overlap, 8)
        assert (share > 0).all()
        total[start // 8 : (start + size) // 8] += share
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("finest", [4, 8])
@pytest.mark.parametrize(("size", "tile", "overlap"), [((250, 333), 64, 16), ((100, 417), 96, 0), ((321, 60), 70, 69)])
def test_local_networks_are_tiled_exactly(finest: int, size: tuple[int, int], tile: int, overlap: int) -> None:
    """A network that sees its own cells only gives the labels of the whole image, at every pixel.

    FCN-32s: the coarsest scores are not resized within a tile.
    """
    model = model_of(finest)
    coarse = np.random.default_rng(0).integers(0, 256, (12, 14, 3), dtype=np.uint8)
    picture = coarse.repeat(32, 0).repeat(32, 1)[: size[0], : size[1]]
    whole = fcnzoo.Predictor(model)(picture).labels
    tiled = fcnzoo.Predictor(model, tile=tile, overlap=overlap)(picture).labels
    scores = model(fcnzoo.images.to_tensor(picture, model.preprocess)).topk(2, dim=1).values[0]
    clear = (scores[0] - scores[1] > 1e-5).numpy()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(tiled[clear], whole[clear])
    assert len(np.unique(whole)) > 2


def test_real_networks_agree_nearly_everywhere() -> None:
    """The shipped street network, tiles of 160 with the default overlap: a few labels differ, at most 3 %."""
    plain = fcnzoo.Predictor("street")
    street = Path(__file__).parents[2] / "examples" / "street.jpg"
    whole = plain(street).labels
    tiled = fcnzoo.Predictor(plain.model, tile=160)(street).labels
    assert 0.97 < (whole == tiled).mean() < 1


def test_small_images_are_not_tiled() -> None:
    """An image within one tile goes the ordinary way, to the very labels."""
    model = model_of()
    picture = np.random.default_rng(0).integers(0, 256, (60, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        fcnzoo.Predictor(model, tile=64)(picture).labels, fcnzoo.Predictor(model)(picture).labels
    )


def test_memory_is_bounded_by_the_tile() -> None:
    """A picture of 36 million pixels takes a few times its own bytes (as floats it would be 432 MB)."""
    model = model_of()
    predictor = fcnzoo.Predictor(model, tile=512)
    picture = np.zeros((6000, 6000, 3), np.uint8)
    predictor(picture[:1500, :1500])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    labels = predictor(picture).labels
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert labels.shape == (6000, 6000)
    assert grown < 4 * picture.nbytes


@pytest.mark.parametrize(
    ("name", "text"),
    [("fcn_resnet50", "resized to 520"), ("everyday", "resized to 513"), ("fcn32s_vgg16", "do not fit the image")],
)
def test_networks_that_cannot_be_tiled(name: str, text: str) -> None:
    """Networks that resize, or have the paper's padding, are refused with what to do."""
    model = fcnzoo.create(name, device="meta")
    with pytest.raises(ValueError, match=text):
        fcnzoo.Predictor(model, tile=512)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"tile": 0}, "tile must"), ({"tile": 64, "overlap": 64}, "overlap"), ({"overlap": 3}, "goes with tile")],
)
def test_impossible_tiles_are_refused(options: dict[str, int], text: str) -> None:
    """Bad numbers are ValueErrors that say what is allowed."""
    with pytest.raises(ValueError, match=text):
        fcnzoo.Predictor(model_of(), **options)
