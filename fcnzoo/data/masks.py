"""From mask files to labels: which value, or color, of a file means which class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from fcnzoo.errors import LabelError
from fcnzoo.files.reading import open_image
from fcnzoo.images.load import FORMATS, upright, upright_size

if TYPE_CHECKING:
    from fcnzoo.labels import LabelSet

RGB: TypeAlias = "tuple[int, int, int]"

MASK_SUFFIXES = (".bmp", ".gif", ".pgm", ".png", ".ppm", ".tif", ".tiff")
"""Suffixes of mask files: formats that keep every value. A JPEG mask holds invented labels along its edges."""

MASK_FORMATS = ("BMP", "GIF", "PNG", "PPM", "TIFF")
"""What masks are decoded from, whatever their suffix."""

LOSSLESS_TIFF = (
    "raw", "packbits", "group3", "group4", "lzma", "zstd",
    "tiff_ccitt", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "tiff_raw_16",
)  # fmt: skip
"""Compressions of TIFF files that keep every value, by Pillow's names (`PIL/TiffImagePlugin.py`, COMPRESSION_INFO)."""

_LARGEST_VALUE = 2**16 - 1  # of a 16-bit PNG
_OUTSIDE = np.iinfo(np.int32).min


class LabelTable:
    """What each value of a mask file means.

    A mask of one channel (gray, palette or 1-bit PNG, 8 or 16 bits) holds indices; the colors of a
    palette say nothing. A mask of three channels holds colors, which are looked up in the label set's
    palette. An alpha channel is accepted where it is opaque.

    Args:
        label_set: The classes, their colors, and the ignore index.
        mapping: Value in the file → label (0…K−1 or the ignore index). A class to which it maps nothing keeps its
            own number as its value, unless the mapping says otherwise for that value; any other value is an error.
        ignore: Further values, or (R, G, B) colors, that are read as the ignore index. The ignore
            index itself is, unless the mapping makes a class of it.

    Raises:
        ValueError: A label of `mapping` is not in the label set, or a value is outside 0…65535.
    """

    def __init__(
        self, label_set: LabelSet, mapping: Mapping[int, int] | None = None, ignore: Iterable[int | RGB] = ()
    ) -> None:
        num_classes, void = len(label_set), label_set.ignore_index
        self.void = void
        self.dtype = np.dtype(np.uint8 if num_classes <= 256 and 0 <= void <= 255 else np.int64)
        ignore = tuple(ignore)
        mapped = dict(mapping or {})
        ignored = {value for value in ignore if isinstance(value, int) and value >= 0}
        labels = {label: label for label in range(num_classes) if label not in mapped.values()}
        labels |= {void: void} if void >= 0 else {}
        labels |= mapped | dict.fromkeys(ignored, void)
        for value, label in labels.items():
            if not 0 <= label < num_classes and label != void:
                raise ValueError(f"mapping: {value} → {label}, but labels are 0…{num_classes - 1} and {void} (ignore)")
        both = sorted(value for value in ignored & mapped.keys() if mapped[value] != void)
        if both:
            raise ValueError(f"ignore and mapping both name the value {both[0]}; leave it out of one")
        for value in labels:
            if not 0 <= value <= _LARGEST_VALUE:
                raise ValueError(f"mask values are 0…{_LARGEST_VALUE}, got {value} in mapping or ignore")
        self._labels = np.full(_LARGEST_VALUE + 1, _OUTSIDE, np.int32)
        self._labels[list(labels)] = list(labels.values())
        self._allowed = _ranges(sorted(labels))

        colors = {color: label for label, color in reversed(list(enumerate(label_set.palette)))}
        self._ambiguous = len(colors) < num_classes
        colors |= {color: void for color in ignore if not isinstance(color, int)}
        codes = sorted((_code(color), label) for color, label in colors.items())
        self._codes = np.array([code for code, _ in codes], np.int32)
        self._code_labels = np.array([label for _, label in codes], np.int32)
        self._name = label_set.name

    def labels(self, values: np.ndarray) -> np.ndarray:
        """Return the labels of a mask's values.

        Args:
            values: (H, W) integers, or (H, W, 3) colors in uint8.

        Returns:
            (H, W); uint8 where all labels and the ignore index fit, else int64.

        Raises:
            LabelError: A value or color means nothing; the text lists the first few and what is allowed.
        """
        labels = self._from_colors(values) if values.ndim == 3 else self._from_indices(values)
        outside = labels == _OUTSIDE
        if outside.any():
            raise LabelError(self._describe(values[outside]))
        return labels.astype(self.dtype)

    def _from_indices(self, values: np.ndarray) -> np.ndarray:
        if values.dtype not in (np.uint8, np.uint16):
            values = np.where((values < 0) | (values > _LARGEST_VALUE), -1, values)
            return np.where(values < 0, _OUTSIDE, self._labels[values])
        return np.take(self._labels, values)

    def _from_colors(self, values: np.ndarray) -> np.ndarray:
        if self._ambiguous:
            raise LabelError(
                f"is a color mask, but classes of the label set {self._name!r} share colors; use index masks"
            )
        codes = values.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        place = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        return np.where(self._codes[place] == codes, self._code_labels[place], _OUTSIDE)

    def _describe(self, values: np.ndarray) -> str:
        found = np.unique(values, axis=0)
        listed = [tuple(value) if found.ndim > 1 else value for value in found[:5].tolist()]
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        kind = "colors" if found.ndim > 1 else "values"
        allowed = f"the palette of {self._name!r}" if found.ndim > 1 else self._allowed
        return f"holds the {kind} {', '.join(map(str, listed))}{more}; allowed: {allowed}"


def mask_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of a mask, upright, from its file's header.

    Raises:
        ValueError: It cannot be read, or is in a format that loses labels.
    """
    with _open(path) as image:
        return upright_size(image)


def read_mask(path: Path, table: LabelTable) -> np.ndarray:
    """Read the labels (H, W) of a mask file; see [`LabelTable`][fcnzoo.data.LabelTable].

    An EXIF orientation is applied, as it is to pictures.

    Raises:
        LabelError: The mask holds a value that the table does not know; the text names the file.
        ValueError: The file cannot be read as a mask; the text names it.
    """
    try:
        return table.labels(read_values(path))
    except LabelError as error:
        raise LabelError(f"{path} {error}") from None


def read_values(path: Path) -> np.ndarray:
    """Read a mask file as it is: (H, W) integers, or (H, W, 3) colors; upright.

    Raises:
        ValueError: The file cannot be read as a mask; the text names it.
    """
    with _open(path) as image:
        try:
            image.load()
            image = upright(image)
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, …
            raise ValueError(f"{path}: the mask is damaged ({_one_line(error)})") from error
        return _values(image, path)


def _open(path: Path) -> Image.Image:
    try:
        image = open_image(path, MASK_FORMATS)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: {_what_else(path)}") from None
    except Exception as error:  # a damaged header, no permission, no such file, too many pixels
        raise ValueError(f"{path}: cannot be read ({_one_line(error)})") from error
    compression = str(image.info.get("compression", "raw"))
    if image.format == "TIFF" and compression not in LOSSLESS_TIFF:
        image.close()
        raise ValueError(
            f"{path}: compressed by {compression!r}, which does not keep labels; save masks as PNG, or as TIFF with "
            "lzw or deflate"
        )
    return image


def _what_else(path: Path) -> str:
    """Say what a file is that is no mask."""
    try:
        with open_image(path, [name for name in FORMATS if name not in MASK_FORMATS]) as image:
            return f"a {image.format} need not keep labels; save masks as PNG"
    except Exception:  # whatever it is, it is none
        return f"not an image of the formats for masks: {', '.join(MASK_FORMATS)}"


def _values(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode in ("LA", "RGBA"):
        if image.getchannel("A").getextrema() != (255, 255):
            raise ValueError(f"{path}: the mask has transparent pixels, which have no label; save it without alpha")
        image = image.convert(image.mode[:-1])
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode not in ("L", "P", "RGB", "I") and not image.mode.startswith("I;16"):
        raise ValueError(f"{path}: a mask must be gray, palette or RGB, this is of Pillow's mode {image.mode!r}")
    return np.asarray(image)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _code(color: RGB) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _ranges(values: list[int]) -> str:
    """Write sorted integers as `"0…10, 255"`."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][1] + 1:
            parts[-1][1] = value
        else:
            parts.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}…{high}" for low, high in parts)
