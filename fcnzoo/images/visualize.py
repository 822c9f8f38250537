"""Label maps as pictures: colored, laid over the photo, with a legend, or as an indexed PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fcnzoo.errors import LabelError
from fcnzoo.files.atomic import atomic
from fcnzoo.labels import BORDER, LabelSet

UNPAINTED = "background"
"""The class that an overlay leaves as it is: it is what no other class covers (PASCAL VOC, COCO)."""

PICTURE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Suffixes, in lower case, of the pictures that are written."""

_INK = (32, 33, 36)
_PAPER = (255, 255, 255)
_SWATCH_EDGE = (120, 120, 120)


def check_labels(labels: np.ndarray, label_set: LabelSet) -> None:
    """Raise unless `labels` is (H, W), of integers that are classes of the set or its ignore index.

    Raises:
        TypeError: It is not an array of integers.
        ValueError: It is not (H, W), or empty.
        LabelError: A value is neither a class nor the ignore index.
    """
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels must be an integer array (H, W), got {getattr(labels, 'dtype', type(labels).__name__)}"
        )
    if labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels must be (H, W), got shape {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < len(label_set):
        return
    present = np.unique(labels)
    bad = [int(value) for value in present if not 0 <= value < len(label_set) and value != label_set.ignore_index]
    if bad:
        raise LabelError(
            f"labels hold {bad[:8]}; {label_set.name!r} has the classes 0…{len(label_set) - 1} "
            f"and the ignore index {label_set.ignore_index}"
        )


def count_pixels(labels: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """Return how many pixels each class of the set has, (K,) int64; ignored pixels are in none.

    Raises:
        LabelError: As `check_labels`.
    """
    check_labels(labels, label_set)
    size = len(label_set)
    if labels.dtype.kind == "i":  # bincount takes no negative values, and −1 may be the ignore index
        labels = np.where((labels >= 0) & (labels < size), labels, size)
    return np.bincount(labels.ravel(), minlength=size + 1)[:size]


def colorize(labels: np.ndarray, label_set: LabelSet) -> Image.Image:
    """Return a label map in the colors of its label set.

    Args:
        labels: (H, W) integers: classes or the ignore index, which gets the border color of VOC's masks.
        label_set: Colors.

    Returns:
        An RGB image of the same size.

    Raises:
        LabelError: As `check_labels`.
    """
    check_labels(labels, label_set)
    return Image.fromarray(_lookup(labels, label_set, np.array(label_set.palette, dtype=np.uint8), BORDER))


def _lookup(labels: np.ndarray, label_set: LabelSet, table: np.ndarray, ignored: object) -> np.ndarray:
    """Index a table of one row per class; pixels of the ignore index get `ignored`."""
    table = np.concatenate([table, np.array([ignored], dtype=table.dtype)])
    if labels.dtype == np.uint8:  # bytes are indices as they are: an eighth of the memory
        rows = np.minimum(np.arange(256), len(label_set))
        return table[rows][labels]
    index = labels.astype(np.intp)
    index[(index < 0) | (index >= len(label_set))] = len(label_set)
    return table[index]


def overlay(image: Image.Image, labels: np.ndarray, label_set: LabelSet, alpha: float = 0.5) -> Image.Image:
    """Return a photo with a label map's colors blended over it.

    Ignored pixels and those of a class called `background` show the photo as it is.

    Args:
        image: RGB photo of width W and height H.
        labels: (H, W) integers.
        label_set: Colors.
        alpha: Share of the color, from 0 (photo only) to 1 (color only).

    Returns:
        An RGB image of the same size.

    Raises:
        LabelError: As `check_labels`.
        ValueError: Sizes differ, or `alpha` is outside 0…1.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    colors = colorize(labels, label_set)
    if colors.size != image.size:
        raise ValueError(
            f"labels are {colors.width} × {colors.height} pixels, the image is {image.width} × {image.height}"
        )
    image = image.convert("RGB")
    shown = _lookup(labels, label_set, np.array([name != UNPAINTED for name in label_set.names]), False)
    return Image.composite(Image.blend(image, colors, alpha), image, Image.fromarray(shown.astype(np.uint8) * 255))


def indexed(labels: np.ndarray, label_set: LabelSet) -> Image.Image:
    """Return a label map as an image whose pixel values are the labels.

    Args:
        labels: (H, W) integers.
        label_set: Colors of the palette.

    Returns:
        Mode `P` with the label set's palette up to 256 classes, 16-bit gray (`I;16`) above.

    Raises:
        LabelError: As `check_labels`; or the ignore index, of which there are pixels, does not fit the mode.
    """
    check_labels(labels, label_set)
    largest = 255 if len(label_set) <= 256 else 65535
    if labels.min() < 0 or labels.max() > largest:
        raise LabelError(
            f"labels hold the ignore index {label_set.ignore_index}, which a PNG of values 0…{largest} cannot; "
            "map it to another value first"
        )
    if largest > 255:
        return Image.fromarray(labels.astype(np.uint16))
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(label_set.flat_palette())  # turns L into P
    return picture


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend: a swatch (hollow without a color) and the text beside it."""

    color: tuple[int, int, int] | None
    text: str


def percent(share: float) -> str:
    """Return a share as text: `"34.2%"`, and `"<0.1%"` for what is there but rounds to nothing."""
    return "<0.1%" if 0 < share < 0.0005 else f"{100 * share:.1f}%"


@dataclass(frozen=True)
class ClassArea:
    """How many pixels a class has, and which share of all that are not ignored (0…1)."""

    index: int
    name: str
    pixels: int
    share: float


def class_areas(labels: np.ndarray, label_set: LabelSet) -> list[ClassArea]:
    """Return the areas of the classes present, largest first.

    Raises:
        LabelError: As `check_labels`.
    """
    counts = count_pixels(labels, label_set).tolist()
    total, present = sum(counts), sorted((-pixels, i) for i, pixels in enumerate(counts) if pixels)
    return [ClassArea(i, label_set.names[i], counts[i], counts[i] / total) for _, i in present]


def legend_entries(labels: np.ndarray, label_set: LabelSet) -> list[LegendEntry]:
    """Return name and area share of the classes present, largest first.

    Raises:
        LabelError: As `check_labels`.
    """
    return [
        LegendEntry(
            None if area.name == UNPAINTED else label_set.palette[area.index], f"{area.name} {percent(area.share)}"
        )
        for area in class_areas(labels, label_set)
    ]


def legend(entries: Sequence[LegendEntry], width: int, text_size: float = 14) -> Image.Image:
    """Draw a legend as a strip of columns.

    Args:
        entries: What to draw, in reading order.
        width: Pixels; the strip is wider where the longest entry does not fit.
        text_size: Height of the font in pixels.

    Returns:
        An RGB image, as high as the entries need; one pixel high without entries.
    """
    if not entries:
        return Image.new("RGB", (width, 1), _PAPER)
    font = ImageFont.load_default(size=text_size)
    pad, swatch, line = round(text_size * 0.7), round(text_size), round(text_size * 1.6)
    column = round(max(font.getlength(entry.text) for entry in entries)) + swatch + 2 * pad
    columns = min(max((width - pad) // column, 1), len(entries))
    rows = -(-len(entries) // columns)
    strip = Image.new("RGB", (max(width, column + pad), rows * line + pad), _PAPER)
    draw = ImageDraw.Draw(strip)
    pitch = (strip.width - pad) // columns
    for i, entry in enumerate(entries):
        x, middle = pad + i % columns * pitch, pad / 2 + (i // columns + 0.5) * line
        draw.rectangle(
            (x, middle - swatch / 2, x + swatch, middle + swatch / 2), fill=entry.color or _PAPER, outline=_SWATCH_EDGE
        )
        draw.text((x + swatch + pad / 2, middle), entry.text, fill=_INK, font=font, anchor="lm")
    return strip


def with_legend(picture: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """Return a picture with a legend below it, in letters that suit its size.

    The picture itself is not covered; where it is narrower than the longest entry, it is centered on a
    wider canvas.
    """
    text_size = min(max(max(picture.size) / 40, 12), 64)
    strip = legend(entries, picture.width, text_size)
    canvas = Image.new("RGB", (strip.width, picture.height + strip.height), _PAPER)
    canvas.paste(picture, ((strip.width - picture.width) // 2, 0))
    canvas.paste(strip, (0, picture.height))
    return canvas


def write_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all, in the format of its suffix, so that letters stay legible.

    Raises:
        OSError: The file cannot be written.
    """
    kind = PICTURE_FORMATS[path.suffix.lower()]
    options = {"JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 92}}.get(kind, {})
    with atomic(path) as file:
        picture.save(file, format=kind, **options)
