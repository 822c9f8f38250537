"""Images in, label maps out, checked against the network run by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision.transforms import functional as TF

import fcnzoo
from fcnzoo.config import BackboneConfig, FCNConfig, Preprocess, SkipHeadConfig
from fcnzoo.errors import LabelError, UnknownModelError, WeightsError
from fcnzoo.inference.predictor import Predictor, Segmentation
from fcnzoo.labels import LabelSet, get_label_set
from fcnzoo.model.fcn import FCN

VOC = get_label_set("voc")


def photo(height: int = 40, width: int = 57, channels: int = 3) -> np.ndarray:
    """Return a smooth random picture (H, W, C), so that labels form regions."""
    coarse = torch.rand(1, channels, 5, 6, generator=torch.Generator().manual_seed(height * width + channels))
    fine = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    return (fine[0].permute(1, 2, 0) * 255).round().byte().numpy()


def build(preprocess: Preprocess | None = None, *, backbone: str = "timm/resnet10t", **options: object) -> FCN:
    """Build a small FCN-32s whose random scores differ from class to class."""
    options.setdefault("num_classes", 21)
    channels = len(preprocess.mean) if preprocess else 3
    config = FCNConfig(
        backbone=BackboneConfig(backbone, in_channels=channels),
        head=SkipHeadConfig(stride=32, init="xavier"),
        preprocess=preprocess,
        **options,  # pyright: ignore[reportArgumentType]
    )
    torch.manual_seed(0)
    return fcnzoo.build(config)


@pytest.fixture(scope="module")
def model() -> FCN:
    """A small network of 21 classes with VOC's labels."""
    return build(label_set=VOC)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def normalized(model: FCN, image: Image.Image) -> torch.Tensor:
    """Return what torchvision's transforms make of an image, (1, C, H, W)."""
    return TF.normalize(TF.to_tensor(image), list(model.preprocess.mean), list(model.preprocess.std))[None]


def by_hand(model: FCN, image: Image.Image) -> np.ndarray:
    """Return the labels by torchvision's transforms and the network's logits."""
    tensor = normalized(model, image)
    modes = {module: module.training for module in model.modules()}
    with torch.no_grad():
        labels = model.eval()(tensor).argmax(1)[0].numpy()
    for module, training in modes.items():
        module.training = training
    return labels


@pytest.mark.parametrize("size", [(40, 57), (64, 96), (33, 47), (1, 1), (5, 90)])
def test_labels_are_those_of_the_logits(model: FCN, size: tuple[int, int]) -> None:
    """At any size, labels equal the argmax of the logits, have the image's size and dtype uint8."""
    image = Image.fromarray(photo(*size))
    result = Predictor(model)(image)
    assert (result.labels.shape, result.labels.dtype) == (size, np.uint8)
    np.testing.assert_array_equal(result.labels, by_hand(model, image))
    if min(size) > 30:
        assert len(np.unique(result.labels)) > 1
    assert result.image is image
    assert result.label_set == VOC


def test_every_source_gives_the_same_labels(model: FCN, tmp_path: Path) -> None:
    """A file, a PIL image, an array and a tensor of the same pixels are the same image."""
    array = photo()
    Image.fromarray(array).save(tmp_path / "a.png")
    predictor = Predictor(model)
    expected = predictor(array).labels
    sources = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(array),
        torch.from_numpy(array).permute(2, 0, 1),
    ]
    for result in predictor(sources):
        np.testing.assert_array_equal(result.labels, expected)


def test_lists_give_lists(model: FCN) -> None:
    """Images of different sizes in a list or tuple come back in order; an empty list is an empty list."""
    predictor = Predictor(model)
    sizes = [(40, 57), (33, 47)]
    assert [result.labels.shape for result in predictor([photo(*size) for size in sizes])] == sizes
    assert [result.labels.shape for result in predictor(tuple(photo(*size) for size in sizes))] == sizes
    assert predictor([]) == []


def test_exif_orientation_turns_labels_too(model: FCN, tmp_path: Path) -> None:
    """Labels belong to the upright image."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo()).save(tmp_path / "a.png", exif=exif)
    result = Predictor(model)(tmp_path / "a.png")
    assert result.labels.shape == (57, 40)
    np.testing.assert_array_equal(result.labels, Predictor(model)(np.rot90(photo(), -1)).labels)


def test_training_mode_is_put_back_module_by_module(model: FCN) -> None:
    """Prediction is in eval mode; afterwards each module has the flag it had, frozen BatchNorm included."""
    model.train()
    frozen = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)][:3]
    for module in frozen:
        module.eval()
    before = [module.training for module in model.modules()]
    statistics = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        first = Predictor(model)(photo()).labels
        assert [module.training for module in model.modules()] == before
        with pytest.raises(ValueError, match="pixels"):
            Predictor(model)(np.zeros((0, 3, 3), np.uint8))
        assert [module.training for module in model.modules()] == before
    finally:
        model.eval()
    assert all(torch.equal(value, statistics[key]) for key, value in model.state_dict().items())
    np.testing.assert_array_equal(Predictor(model)(photo()).labels, first)


def test_resize_samples_scores_at_the_images_own_size() -> None:
    """With preprocess.resize the network sees the resized image; labels are the scores' at the original size."""
    model = build(Preprocess(resize=64, std=(0.5, 0.5, 0.5)), backbone="timm/resnet10t").eval()
    image = Image.fromarray(photo(100, 150))
    small = normalized(model, cast("Image.Image", TF.resize(image, [64])))  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        scores = model.scores(small)
    assert all(scores.grid.padded(side) == side for side in (64, 96))
    expected = F.interpolate(scores.main, (100, 150), mode="bilinear", align_corners=False).argmax(1)[0]
    np.testing.assert_array_equal(Predictor(model)(image).labels, expected)


def test_resize_with_a_padded_or_fixed_grid_goes_by_nearest_neighbor() -> None:
    """A grid that does not just fit the image: labels at the resized size, brought back by nearest neighbor."""
    model = build(Preprocess(resize=40)).eval()
    image = Image.fromarray(photo(100, 150))
    small = normalized(model, cast("Image.Image", TF.resize(image, [40])))  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        assert any(model.scores(small).grid.padded(side) != side for side in (40, 60))
        labels = model.predict(small)
    expected = F.interpolate(labels[None].float(), (100, 150), mode="nearest-exact")[0, 0]
    np.testing.assert_array_equal(Predictor(model)(image).labels, expected)


def test_gray_network() -> None:
    """A network of one channel sees the luma of a color image; the result keeps the colors."""
    model = build(Preprocess(mean=(0.5,), std=(0.25,)))
    image = Image.fromarray(photo())
    result = Predictor(model)(image)
    np.testing.assert_array_equal(result.labels, by_hand(model, image.convert("L")))
    assert result.image is image


def test_other_channel_counts() -> None:
    """A network of five channels takes arrays and tensors of five; files and pictures are refused clearly."""
    model = build(Preprocess(mean=(0.5,) * 5, std=(0.25,) * 5))
    array = photo(channels=5)
    result = Predictor(model)(array)
    with torch.no_grad():
        tensor = (torch.from_numpy(array).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
        np.testing.assert_array_equal(result.labels, model.predict(tensor)[0])
    np.testing.assert_array_equal(np.asarray(result.image), array[:, :, :3])
    np.testing.assert_array_equal(Predictor(model)(torch.from_numpy(array).permute(2, 0, 1)).labels, result.labels)
    with pytest.raises(ValueError, match=r"5 channels.*\(H, W, 5\).*Image"):
        Predictor(model)(Image.fromarray(photo()))
    with pytest.raises(ValueError, match="5 channels, the image has 3"):
        Predictor(model)(photo())


def test_half_precision_model() -> None:
    """A bfloat16 network gets bfloat16 images."""
    model = build().to(torch.bfloat16)
    assert Predictor(model)(photo()).labels.shape == (40, 57)


def test_many_classes_are_int16() -> None:
    """Above 256 classes labels are int16, and save to a 16-bit PNG."""
    model = build(num_classes=300, loss=fcnzoo.config.LossConfig(ignore_index=-1))
    result = Predictor(model)(photo())
    assert result.labels.dtype == np.int16
    assert result.label_set.names[299] == "class 299"


def test_folder_is_loaded(model: FCN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved network is found by Path, by a text with a separator, and by the bare name of its folder."""
    fcnzoo.save(model, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    expected = Predictor(model)(photo()).labels
    for name in (tmp_path / "mine", str(tmp_path / "mine"), "./mine", "mine", Path("mine")):
        np.testing.assert_array_equal(Predictor(name)(photo()).labels, expected)


def test_a_name_is_created_with_its_weights(model: FCN, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo name goes to `create(name, pretrained=True)`; no model to the default's name."""
    asked = []

    def create(name: str, *, pretrained: bool) -> FCN:
        asked.append((name, pretrained))
        return model

    monkeypatch.setattr("fcnzoo.weights.factory.create", create)
    monkeypatch.setattr("fcnzoo.zoo.registry.DEFAULT_MODEL", "fcn8s_default.tag")
    assert Predictor("fcn8s_x").model is model
    assert Predictor().model is model
    assert asked == [("fcn8s_x", True), ("fcn8s_default.tag", True)]


def test_no_default_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a shipped model, `Predictor()` says so."""
    monkeypatch.setattr("fcnzoo.zoo.registry.DEFAULT_MODEL", None)
    with pytest.raises(WeightsError, match="ships no model"):
        Predictor()


def test_wrong_models(tmp_path: Path) -> None:
    """Unknown names, folders without a model, untrained entries and foreign objects are told apart."""
    with pytest.raises(UnknownModelError, match="fcn8s_resnet50"):
        Predictor("fcn8s_resnt50")
    with pytest.raises(WeightsError, match=r"config\.json"):
        Predictor(tmp_path)
    with pytest.raises(WeightsError, match="no trained"):
        Predictor("fcn32s_resnet18")
    with pytest.raises(TypeError, match="Linear"):
        Predictor(nn.Linear(2, 2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="int"):
        Predictor(3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "cpu:x"])
def test_wrong_device(model: FCN, device: str) -> None:
    """A device that is none, or not here, is a one-line ValueError that names it."""
    with pytest.raises(ValueError, match=device) as error:
        Predictor(model, device=device)
    assert "\n" not in str(error.value)


def segmentation() -> Segmentation:
    """Return a small result with four classes."""
    labels = np.zeros((10, 20), np.uint8)
    labels[:5] = 7
    labels[8:, 5:] = 15
    labels[0, 0] = 12
    return Segmentation(labels, VOC, Image.fromarray(photo(10, 20)))


def test_areas_are_shares_sorted() -> None:
    """Areas are pixel counts over the image's, largest first, only of classes present."""
    areas = segmentation().areas()
    assert list(areas) == ["car", "background", "person", "dog"]
    assert areas == {"car": 99 / 200, "background": 70 / 200, "person": 30 / 200, "dog": 1 / 200}
    assert sum(areas.values()) == pytest.approx(1)


def test_overlay_with_and_without_legend() -> None:
    """Without legend the overlay has the image's size; with it, the picture stands above the strip."""
    result = segmentation()
    plain = result.overlay(0.3, legend=False)
    assert plain.size == (20, 10)
    full = result.overlay(0.3)
    assert full.height > 10
    left = (full.width - 20) // 2
    assert full.crop((left, 0, left + 20, 10)).tobytes() == plain.tobytes()
    expected = 0.7 * np.asarray(result.image)[1].astype(float) + 0.3 * np.array(VOC.palette[7])
    np.testing.assert_allclose(np.asarray(plain)[1], expected, atol=1)


def test_save_by_suffix(tmp_path: Path) -> None:
    """.png holds the labels, indexed; .json the areas; folders are made, files replaced, nothing else left."""
    result = segmentation()
    for _ in range(2):
        result.save(tmp_path / "new" / "a.png")
        result.save(str(tmp_path / "new" / "a.json"))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.json", "a.png"]
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), result.labels)
    facts = json.loads((tmp_path / "new" / "a.json").read_text())
    assert (facts["width"], facts["height"], facts["label_set"]) == (20, 10, "voc")
    assert facts["classes"][0] == {"index": 7, "name": "car", "pixels": 99, "share": 99 / 200}
    assert sum(entry["pixels"] for entry in facts["classes"]) == 200


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp"])
def test_save_overlay(tmp_path: Path, suffix: str) -> None:
    """An overlay goes to any picture format, with the options of `overlay`."""
    result = segmentation()
    path = tmp_path / f"a{suffix}"
    result.save(path, "overlay", alpha=0.2, legend=False)
    with Image.open(path) as image:
        assert image.size == (20, 10)
        assert image.format == {".png": "PNG", ".webp": "WEBP"}.get(suffix, "JPEG")
        if suffix == ".png":
            assert image.tobytes() == result.overlay(0.2, legend=False).tobytes()


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("a.jpg", None, "overlay"),
        ("a", None, "overlay"),
        ("a.jpg", "labels", "labels go to .png"),
        ("a.png", "json", "json go to .json"),
        ("a.json", "overlay", "overlay go to"),
        ("a.png", "picture", "kind must be one of"),
    ],
)
def test_save_refuses_what_does_not_fit(tmp_path: Path, name: str, kind: str | None, part: str) -> None:
    """A suffix that does not go with the kind is refused before anything is written."""
    with pytest.raises(ValueError, match=part):
        segmentation().save(tmp_path / name, kind)  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails half-way, the old file stays and no temporary file is left."""
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(self: Image.Image, file: object, **_: object) -> None:
        file.write(b"half")  # pyright: ignore[reportAttributeAccessIssue]
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        segmentation().save(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_segmentation_refuses_what_does_not_fit() -> None:
    """Labels of another size than the image's, or outside the set, are refused."""
    image = Image.new("RGB", (4, 3))
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(3, 4\)"):
        Segmentation(np.zeros((4, 3), np.uint8), VOC, image)
    with pytest.raises(LabelError, match="21"):
        Segmentation(np.full((3, 4), 21, np.uint8), VOC, image)


def test_ignored_pixels_are_no_area() -> None:
    """A segmentation made from a mask leaves its ignored pixels out of the shares."""
    labels = np.array([[0, 1, 1, 255]], np.uint8)
    result = Segmentation(labels, LabelSet.from_names(["a", "b"]), Image.new("RGB", (4, 1)))
    assert result.areas() == {"b": 2 / 3, "a": 1 / 3}
