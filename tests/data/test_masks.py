from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from fcnzoo.data import LabelTable
from fcnzoo.data.masks import mask_size, read_mask
from fcnzoo.errors import LabelError
from fcnzoo.labels import BORDER, LabelSet, get_label_set

INDICES = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)


def save(image: Image.Image, folder: Path, name: str = "mask.png") -> Path:
    """Write an image and return its path."""
    path = folder / name
    image.save(path)
    return path


def test_gray_masks_are_labels(tmp_path: Path, three: LabelSet) -> None:
    """An 8-bit gray mask is read as the numbers it holds, 255 included, in uint8."""
    labels = read_mask(save(Image.fromarray(INDICES), tmp_path), LabelTable(three))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, INDICES)


def test_palette_masks_are_read_as_indices(tmp_path: Path, three: LabelSet) -> None:
    """The colors of a palette PNG say nothing: two equal colors stay two classes."""
    image = Image.fromarray(INDICES).convert("L")
    image.putpalette([7] * 768)
    assert image.mode == "P"
    np.testing.assert_array_equal(read_mask(save(image, tmp_path), LabelTable(three)), INDICES)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_color_masks_are_read_by_the_palette(tmp_path: Path, mode: str) -> None:
    """RGB masks give the index of each color, and the colors in `ignore` are void."""
    voc = get_label_set("voc")
    indices = np.arange(24, dtype=np.uint8).reshape(4, 6) % 22
    colors = np.array([*voc.palette, BORDER], np.uint8)[indices]
    labels = read_mask(save(Image.fromarray(colors).convert(mode), tmp_path), LabelTable(voc, ignore=(BORDER,)))
    np.testing.assert_array_equal(labels, np.where(indices == 21, 255, indices))


def test_one_bit_and_16_bit_masks(tmp_path: Path) -> None:
    """1-bit masks hold 0 and 1; 16-bit masks hold labels above 255."""
    bits = Image.fromarray(INDICES == 1)
    assert bits.mode == "1"
    two = LabelSet.from_names(("off", "on"))
    np.testing.assert_array_equal(read_mask(save(bits, tmp_path), LabelTable(two)), INDICES == 1)

    many = LabelSet.from_names(tuple(f"{i}" for i in range(1000)))
    wide = INDICES.astype(np.uint16) * 100
    wide[1, 2] = 999
    labels = read_mask(save(Image.fromarray(wide), tmp_path, "wide.png"), LabelTable(many))
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, wide)


def test_ignore_and_mapping(tmp_path: Path, three: LabelSet) -> None:
    """`ignore` adds void values to the labels; `mapping` replaces the table as a whole."""
    path = save(Image.fromarray(np.array([[0, 1, 2, 9]], np.uint8)), tmp_path)
    np.testing.assert_array_equal(read_mask(path, LabelTable(three, ignore=(9,))), [[0, 1, 2, 255]])
    mapping = {0: 255, 1: 0, 2: 1, 9: 2}
    np.testing.assert_array_equal(read_mask(path, LabelTable(three, mapping)), [[255, 0, 1, 2]])
    with pytest.raises(LabelError, match=r"holds the values 9; allowed: 0…2, 255"):
        read_mask(path, LabelTable(three, {0: 0, 1: 1, 2: 2}))


def test_a_negative_ignore_index_makes_int64(tmp_path: Path) -> None:
    """With −1 as the ignore index targets are int64, and 255 in a file is an error like any other."""
    minus = LabelSet.from_names(("a", "b")).replace(ignore_index=-1)
    path = save(Image.fromarray(np.array([[0, 1, 7]], np.uint8)), tmp_path)
    labels = read_mask(path, LabelTable(minus, ignore=(7,)))
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, [[0, 1, -1]])
    with pytest.raises(LabelError, match="allowed: 0…1"):
        read_mask(path, LabelTable(minus))


@pytest.mark.parametrize("bad", [{5: 3}, {70000: 0}, {-1: 0}])
def test_impossible_mappings_are_refused(three: LabelSet, bad: dict[int, int]) -> None:
    """A mapping to a class that is not there, or of a value no file can hold, is an error."""
    with pytest.raises(ValueError, match="mapping"):
        LabelTable(three, bad)


def test_wrong_values_are_listed_with_the_file(tmp_path: Path, three: LabelSet) -> None:
    """A value outside the set is an error that names the file, the first five values and what is allowed."""
    path = save(Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)), tmp_path)
    with pytest.raises(LabelError, match=r"mask\.png holds the values 3, 4, 5, 6, 7 and 12 more; allowed: 0…2, 255"):
        read_mask(path, LabelTable(three))
    colors = save(Image.new("RGB", (2, 2), (1, 2, 3)), tmp_path, "colors.png")
    with pytest.raises(LabelError, match=r"colors\.png holds the colors \(1, 2, 3\); allowed: the palette of 'three'"):
        read_mask(colors, LabelTable(three))
    shared = three.replace(palette=((0, 0, 0),) * 3)
    with pytest.raises(LabelError, match="share colors"):
        read_mask(colors, LabelTable(shared))


def test_files_that_are_no_masks(tmp_path: Path, three: LabelSet) -> None:
    """Text, a truncated PNG, a JPEG, floats and transparent pixels each give one error naming the file."""
    table = LabelTable(three)
    (tmp_path / "text.png").write_text("not a picture")
    whole = save(Image.fromarray(np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8)), tmp_path).read_bytes()
    (tmp_path / "short.png").write_bytes(whole[: len(whole) // 2])
    save(Image.fromarray(INDICES), tmp_path, "lossy.jpg")
    save(Image.fromarray(INDICES.astype(np.float32)), tmp_path, "floats.tif")
    save(Image.new("RGBA", (3, 2), (0, 0, 0, 9)), tmp_path, "clear.png")
    for name, why in [
        ("text.png", "not an image"),
        ("short.png", "damaged"),
        ("lossy.jpg", "JPEG"),
        ("floats.tif", "mode 'F'"),
        ("clear.png", "transparent"),
        ("missing.png", "cannot be read"),
    ]:
        with pytest.raises(ValueError, match=f"{name}.*{why}") as caught:
            read_mask(tmp_path / name, table)
        assert not isinstance(caught.value, LabelError)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, three: LabelSet, orientation: int) -> None:
    """A mask with an EXIF orientation is turned as Pillow turns pictures; its size is that of the upright mask."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(INDICES).save(tmp_path / "mask.png", exif=exif)
    Image.fromarray(INDICES).save(tmp_path / "mask.tif", exif=exif)
    # Of the PNG for both: Pillow 13 turns an uncompressed TIFF that it opens by its path twice.
    want = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "mask.png")))
    for name in ("mask.png", "mask.tif"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, LabelTable(three)), want)
        assert mask_size(tmp_path / name) == want.shape


@pytest.mark.parametrize(
    ("file_format", "options", "why"),
    [
        ("TIFF", {"compression": "jpeg"}, "compressed by 'jpeg'"),
        ("WEBP", {"quality": 50}, "a WEBP need not keep labels"),
        ("JPEG2000", {"irreversible": True}, "a JPEG2000 need not keep labels"),
        ("JPEG", {}, "a JPEG need not keep labels"),
    ],
)
def test_lossy_masks_are_refused_by_content(
    tmp_path: Path, three: LabelSet, file_format: str, options: dict[str, object], why: str
) -> None:
    """What loses values is refused whatever the suffix says, from the header as from the pixels."""
    path = tmp_path / "mask.png"
    Image.fromarray(np.zeros((16, 16), np.uint8)).convert("RGB").save(path, format=file_format, **options)
    for read in (mask_size, lambda one: read_mask(one, LabelTable(three))):
        with pytest.raises(ValueError, match=f"mask.png.*{why}"):
            read(path)


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "lzma"])
def test_tiff_masks_that_keep_labels(tmp_path: Path, three: LabelSet, compression: str) -> None:
    """TIFF with any compression that keeps every value is read, to the pixel."""
    Image.fromarray(INDICES).save(tmp_path / "mask.tif", compression=compression)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif", LabelTable(three)), INDICES)


def test_no_other_program_is_started(tmp_path: Path, three: LabelSet) -> None:
    """PostScript under the name of a mask is no mask: Pillow would hand it to Ghostscript."""
    path = tmp_path / "mask.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"mask\.png: not an image of the formats for masks"):
        read_mask(path, LabelTable(three))
