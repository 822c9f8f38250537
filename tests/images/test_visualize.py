"""Label maps as pictures, checked pixel by pixel against plain formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnzoo.errors import LabelError
from fcnzoo.images.visualize import (
    LegendEntry,
    colorize,
    count_pixels,
    indexed,
    legend,
    legend_entries,
    overlay,
    percent,
    with_legend,
)
from fcnzoo.labels import LabelSet, generic_label_set, get_label_set

VOC = get_label_set("voc")
CAMVID = get_label_set("camvid")


def labels(num_classes: int, height: int = 13, width: int = 17, *, ignore: int | None = None) -> np.ndarray:
    """Return a random label map, with some ignored pixels if asked."""
    rng = np.random.default_rng(num_classes)
    array = rng.integers(0, num_classes, (height, width)).astype(np.int16)
    if ignore is not None:
        array[rng.random((height, width)) < 0.2] = ignore
    return array


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_colorize_uses_the_palette(dtype: type) -> None:
    """Every pixel has its class's color, ignored ones VOC's border color."""
    array = labels(21, ignore=255).astype(dtype)
    expected = [[VOC.palette[value] if value < 21 else (224, 224, 192) for value in row] for row in array]
    np.testing.assert_array_equal(np.asarray(colorize(array, VOC)), np.array(expected, np.uint8))


def test_negative_ignore_index() -> None:
    """An ignore index of −1 is colored and left out of the counts, not taken for the last class."""
    label_set = LabelSet.from_names(["a", "b"]).replace(ignore_index=-1)
    array = np.array([[0, 1, -1, 1]])
    assert np.asarray(colorize(array, label_set))[0, 2].tolist() == [224, 224, 192]
    assert count_pixels(array, label_set).tolist() == [1, 2]


def test_overlay_blends_by_alpha() -> None:
    """Overlay is (1 − alpha) · photo + alpha · color; 0 is the photo, 1 the colors."""
    photo = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    array = labels(11)
    colors = np.asarray(colorize(array, CAMVID)).astype(float)
    for alpha in (0, 0.25, 0.5, 1):
        result = np.asarray(overlay(Image.fromarray(photo), array, CAMVID, alpha)).astype(float)
        np.testing.assert_allclose(result, (1 - alpha) * photo + alpha * colors, atol=1)


def test_overlay_leaves_background_and_ignored_pixels() -> None:
    """What is background or ignored shows the photo unchanged."""
    photo = np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)
    array = labels(21, ignore=255)
    array[0] = 0
    result = np.asarray(overlay(Image.fromarray(photo), array, VOC))
    plain = (array == 0) | (array == 255)
    np.testing.assert_array_equal(result[plain], photo[plain])
    assert (result[~plain] != photo[~plain]).any(-1).mean() > 0.95


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_overlay_refuses_alpha(alpha: float) -> None:
    """An alpha outside 0…1 is an error."""
    with pytest.raises(ValueError, match="alpha"):
        overlay(Image.new("RGB", (17, 13)), labels(21), VOC, alpha)


def test_overlay_refuses_another_size() -> None:
    """Labels of another size than the photo's are an error that gives both."""
    with pytest.raises(ValueError, match=r"17 × 13.*13 × 17"):
        overlay(Image.new("RGB", (13, 17)), labels(21), VOC)


@pytest.mark.parametrize("name", ["voc", "camvid", "ade20k"])
def test_indexed_png_keeps_labels_and_colors(name: str, tmp_path: Path) -> None:
    """An indexed PNG reads back as the labels (255 too), and as their colors when converted."""
    label_set = get_label_set(name)
    array = labels(len(label_set), ignore=255)
    indexed(array, label_set).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), array)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(colorize(array, label_set)))


def test_more_than_256_classes_are_16_bit(tmp_path: Path) -> None:
    """300 classes go to a 16-bit gray PNG that reads back as the labels."""
    label_set = generic_label_set(300)
    array = labels(300)
    indexed(array, label_set).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode.startswith("I")
        np.testing.assert_array_equal(np.asarray(image), array)


def test_indexed_refuses_what_it_cannot_hold() -> None:
    """An ignore index of −1 that occurs does not fit a PNG."""
    with pytest.raises(LabelError, match="-1"):
        indexed(np.array([[0, -1]]), LabelSet.from_names(["a"]).replace(ignore_index=-1))


@pytest.mark.parametrize("function", [colorize, indexed, count_pixels, legend_entries])
def test_foreign_labels_are_refused(function: Callable[..., object]) -> None:
    """A label outside the set is a LabelError that names it; floats and other ranks are refused, too."""
    with pytest.raises(LabelError, match=r"\[21, 77\].*0…20"):
        function(np.array([[0, 21, 77, 255]]), VOC)
    with pytest.raises(LabelError, match="-3"):
        function(np.array([[0, -3]]), VOC)
    with pytest.raises(TypeError, match="float64"):
        function(np.zeros((2, 2)), VOC)
    with pytest.raises(TypeError, match="list"):
        function([[0]], VOC)
    with pytest.raises(ValueError, match="shape"):
        function(np.zeros((1, 2, 2), np.uint8), VOC)
    with pytest.raises(ValueError, match="shape"):
        function(np.zeros((0, 2), np.uint8), VOC)


def test_counts_are_bincount() -> None:
    """Pixels are counted per class; ignored ones are in none."""
    array = labels(21, ignore=255)
    np.testing.assert_array_equal(count_pixels(array, VOC), [(array == k).sum() for k in range(21)])
    np.testing.assert_array_equal(count_pixels(array.astype(np.uint8), VOC), [(array == k).sum() for k in range(21)])


def test_legend_entries_are_sorted_shares() -> None:
    """Classes present, largest first, equal ones by number; background's swatch is hollow."""
    array = np.array([[7, 7, 7, 7, 0, 0, 15, 12, 255, 255]])
    entries = legend_entries(array, VOC)
    assert [entry.text for entry in entries] == ["car 50.0%", "background 25.0%", "dog 12.5%", "person 12.5%"]
    assert [entry.color for entry in entries] == [VOC.palette[7], None, VOC.palette[12], VOC.palette[15]]


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0.0%"), (1e-6, "<0.1%"), (0.0006, "0.1%"), (0.3421, "34.2%"), (1, "100.0%")]
)
def test_percent(share: float, text: str) -> None:
    """Shares are given to a tenth of a percent, and what is there is never 0."""
    assert percent(share) == text


@pytest.mark.parametrize("width", [1, 40, 480, 2000])
@pytest.mark.parametrize("count", [0, 1, 7, 150])
def test_legend_fits_all_entries(width: int, count: int) -> None:
    """Every entry's swatch is in the strip, whole; the strip is at least as wide as asked."""
    entries = [LegendEntry((i + 1, 200, 255 - i), f"class number {i} 0.1%") for i in range(count)]
    strip = legend(entries, width)
    assert strip.width >= width
    pixels = np.asarray(strip).astype(np.int64) @ [65536, 256, 1]
    counts = dict(zip(*np.unique(pixels, return_counts=True), strict=True))
    for entry in entries:
        red, green, blue = entry.color or (0, 0, 0)
        assert counts[red * 65536 + green * 256 + blue] > 100


def test_legend_is_below_the_picture() -> None:
    """The picture is not covered, and is centered where the legend is wider."""
    picture = Image.new("RGB", (8, 6), (1, 2, 3))
    result = with_legend(picture, [LegendEntry((9, 9, 9), "a rather long name of a class 100.0%")])
    assert result.width > 100
    assert result.height > 6
    left = (result.width - 8) // 2
    assert np.asarray(result.crop((left, 0, left + 8, 6))).reshape(-1, 3).tolist() == [[1, 2, 3]] * 48
