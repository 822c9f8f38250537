"""The figures of the pages show what their captions say."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from reader import ROOT

import fcnzoo
from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
from fcnzoo.labels import LabelSet, get_label_set
from fcnzoo.model.skip import bilinear_kernel

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _repository_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `docs.figures` importable, as it is in the repository's folder."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def photo() -> Image.Image:
    """A small picture of noise."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))


def small(**head: object) -> fcnzoo.FCN:
    """Return a small network with a skip head and CamVid's classes."""
    config = FCNConfig(
        backbone=BackboneConfig("timm/test_resnet"),
        head=SkipHeadConfig(init="xavier", **head),  # pyright: ignore[reportArgumentType]
        num_classes=11,
        label_set=get_label_set("camvid"),
    )
    return fcnzoo.build(config).eval()


def test_receptive_fields_are_what_gradients_reach(narrow_vgg: None) -> None:
    """With positive weights, the pixels that move a place of pool3 span exactly the side that was counted."""
    from docs.figures.draw import vgg_receptive_fields

    backbone = fcnzoo.create("fcn8s_vgg16", geometry="same").backbone.eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.uniform_(0.0, 0.1)
    reached = torch.zeros(48, 48)
    for _ in range(20):  # poolings choose other places in each image
        image = torch.rand(1, 3, 48, 48, requires_grad=True)
        backbone(image)[0][0, :, 3, 3].sum().backward()
        assert image.grad is not None
        reached += image.grad[0].abs().sum(0)
    for rows in (reached.sum(0).nonzero(), reached.sum(1).nonzero()):
        assert int(rows.max() - rows.min()) + 1 == vgg_receptive_fields(backbone)["pool3"]


def test_receptive_fields_of_the_full_vgg() -> None:
    """Those that the page names; 404 is what Long et al. 2015 give for fc7."""
    from docs.figures.draw import vgg_receptive_fields

    backbone = fcnzoo.create("fcn8s_vgg16", device="meta").backbone
    assert vgg_receptive_fields(backbone) == {"pool3": 44, "pool4": 100, "fc7": 404}


def test_measured_receptive_field_grows_with_the_stride() -> None:
    """A coarser level sees more; the picture is scaled to 1 and of the image's size."""
    from docs.figures.draw import measure_receptive_field

    fields = [measure_receptive_field(small(), level, (96, 96), images=1) for level in (8, 32)]
    assert all(field.shape == (96, 96) and field.max() == 1 for field in fields)
    assert (fields[0] > 0.1).sum() < (fields[1] > 0.1).sum()


def test_scores_lie_where_the_grid_says() -> None:
    """The drawn places are those whose source is the score itself."""
    from docs.figures.draw import score_places

    places = score_places("fcn8s_resnet18", None, 100)
    assert len(places) == 16 and places[0] == 3.5 and places[1] - places[0] == 8
    paper = score_places("fcn32s_vgg16", "paper", 500)
    assert np.allclose((paper + 0.5 + 3) / 32 - 0.5, np.arange(len(paper)))  # offset 3: crop 19 less half a stride


def test_a_flat_map_stays_flat_under_the_bilinear_kernel_only() -> None:
    """Shifted copies of the bilinear kernel sum to one; those of noise have the stride as their period."""
    from docs.figures.draw import flat_response

    flat = flat_response(bilinear_kernel(8).float(), 8)
    assert torch.allclose(flat, torch.ones_like(flat), atol=1e-5)
    rough = flat_response(torch.rand(16, 16), 8)
    assert rough.std() > 0.05 and torch.allclose(rough[:8, 8:16], rough[:8, 16:24], atol=1e-5)


def test_crops_have_the_class_of_their_middle() -> None:
    """Squares of one class get it; squares whose middle is void are left out."""
    from docs.figures.networks import sample_crops

    class Data:
        label_set = LabelSet.from_names(["a", "b", "c"])
        pairs = ((torch.full((3, 40, 50), 7, dtype=torch.uint8), torch.full((40, 50), value)) for value in (2, 255))

        def __init__(self) -> None:
            self.items = list(self.pairs)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return self.items[index]

    crops, classes = sample_crops(Data(), 3, side=20)  # pyright: ignore[reportArgumentType]
    assert crops.shape == (3, 3, 20, 20) and classes.tolist() == [2, 2, 2]


def test_figures_are_drawn(photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every figure is laid out and written, with networks that know nothing."""
    from docs.figures import draw

    monkeypatch.setattr(draw, "measure_receptive_field", lambda model, level, size: np.ones(size))
    models = {"FCN-8s": (small(), "1.0 mIoU")}
    learned = small(stride=32, upsampling="deconv")
    panels = {
        "fields": draw.receptive_fields(small(), photo),
        "strides": draw.strides(models, photo),
        "checkerboard": draw.checkerboard(small(stride=32), learned, "road", photo),
    }
    for name, shown in panels.items():
        draw.save_panels(shown, tmp_path / f"{name}.webp", columns=2, size=(1, 1))
        with Image.open(tmp_path / f"{name}.webp") as picture:
            assert picture.width == 240 and picture.mode == "RGBA"
    draw.grids([("a", "fcn32s_resnet18", None)], 64, tmp_path / "grids.svg")
    assert "<svg" in (tmp_path / "grids.svg").read_text(encoding="utf-8")
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".svg", ".webp", ".webp", ".webp"]


def test_classifier_becomes_a_heat_map(photo: Image.Image) -> None:
    """The VGG-16 of the figure, made convolutional, gives a map per class that sums to one over the classes."""
    from docs.figures import draw, networks

    classifier = networks.vgg_classifier(None, 3, hidden=4)
    networks.train_classifier(
        classifier, torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8), torch.tensor([0, 2]), 1
    )
    panels = draw.heat_maps(classifier, ["a", "b", "c"], ["a", "b", "c"], photo.resize((144, 112)))
    assert [panel[0] for panel in panels] == ["the photo", "a", "b", "c"]
    maps = [np.asarray(panel[1]) for panel in panels[1:]]
    assert maps[0].shape == (1 + 6, 3 + 6) and np.isnan(maps[0]).sum() == 7 * 9 - 3  # a margin of half a crop
    assert np.allclose(sum(one[3:-3, 3:-3] for one in maps), 1, atol=1e-5)


def test_stages_are_trained(tmp_path: Path) -> None:
    """32s, 16s from it, 8s from that, and the learned deconvolution: four folders that load."""
    from reader import make_pairs

    from docs.figures.networks import train_stages

    make_pairs(tmp_path / "x" / "camvid", 11)
    changes = ["schedule.steps=1", "augment.crop=[64,64]", "optim.batch_size=1", "run.device=cpu", "run.progress=false"]
    folders = train_stages(tmp_path / "x" / "camvid", tmp_path / "lite0.safetensors", tmp_path / "work", changes)
    strides = [fcnzoo.load(folder).config.head.to_dict() for folder in folders.values()]
    assert [(head["stride"], head["upsampling"]) for head in strides] == [
        (32, "bilinear"),
        (16, "bilinear"),
        (8, "bilinear"),
        (32, "deconv"),
    ]
