from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from fcnzoo.data import SegmentationFolder
from fcnzoo.errors import LabelError
from fcnzoo.labels import LabelSet


def no_mask(root: Path) -> None:
    """The image has no mask."""
    (root / "masks" / "bad.png").unlink()


def no_image(root: Path) -> None:
    """The mask has no image."""
    (root / "images" / "bad.jpg").unlink()


def other_size(root: Path) -> None:
    """The mask is a pixel too wide."""
    Image.new("L", (17, 12)).save(root / "masks" / "bad.png")


def turned(root: Path) -> None:
    """The mask lies on its side."""
    Image.new("L", (12, 16)).save(root / "masks" / "bad.png")


def wrong_label(root: Path) -> None:
    """The mask holds a 3, of classes 0…2."""
    Image.new("L", (16, 12), 3).save(root / "masks" / "bad.png")


def text_image(root: Path) -> None:
    """The image is text."""
    (root / "images" / "bad.jpg").write_text("hello")


def text_mask(root: Path) -> None:
    """The mask is text."""
    (root / "masks" / "bad.png").write_text("hello")


def empty_image(root: Path) -> None:
    """The image file is empty."""
    (root / "images" / "bad.jpg").write_bytes(b"")


def truncated_jpeg(root: Path) -> None:
    """The end of the image is missing; its header is whole."""
    path = root / "images" / "bad.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).save(path, quality=100)
    path.write_bytes(path.read_bytes()[:-60])


def truncated_png(root: Path) -> None:
    """The same, as a PNG."""
    (root / "images" / "bad.jpg").unlink()
    path = root / "images" / "bad.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-60])


def truncated_mask(root: Path) -> None:
    """The end of the mask is missing."""
    path = root / "masks" / "bad.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 3, (12, 16), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-40])


def huge_image(root: Path) -> None:
    """A header that promises 20,000 × 20,000 pixels."""
    path = root / "images" / "bad.bmp"
    (root / "images" / "bad.jpg").unlink()
    Image.new("L", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[18:26] = (20000).to_bytes(4, "little") * 2
    path.write_bytes(data)


def stray_file(root: Path) -> None:
    """A text file lies among the images."""
    (root / "images" / "bad.txt").touch()


def jpeg_mask(root: Path) -> None:
    """The mask calls itself a JPEG."""
    (root / "masks" / "bad.png").rename(root / "masks" / "bad.jpeg")


def same_name_twice(root: Path) -> None:
    """Two images would go with one mask."""
    shutil.copy(root / "images" / "bad.jpg", root / "images" / "bad.jpeg")


KINDS: list[tuple[Callable[[Path], None], str]] = [
    (no_mask, "images without a mask"),
    (no_image, "masks without an image"),
    (other_size, "another size"),
    (turned, "another size"),
    (text_image, "cannot be read"),
    (text_mask, "cannot be read"),
    (empty_image, "cannot be read"),
    (truncated_jpeg, "cannot be read"),
    (truncated_png, "cannot be read"),
    (truncated_mask, "cannot be read"),
    (huge_image, "cannot be read"),
    (stray_file, "files that are no image"),
    (jpeg_mask, "files that are no mask"),
    (same_name_twice, "two images of one name"),
    (wrong_label, "labels outside the label set"),
]


@pytest.mark.parametrize(("spoil", "kind"), KINDS, ids=lambda value: getattr(value, "__name__", None))
def test_one_wrong_file_is_named(
    tmp_path: Path, write_pair, three: LabelSet, spoil: Callable[[Path], None], kind: str
) -> None:
    """Each kind of wrong file among good ones gives one error that says what is wrong and names it."""
    for name in ("good", "bad", "fine"):
        write_pair(name)
    assert len(SegmentationFolder(tmp_path, three)) == 3
    spoil(tmp_path)
    with pytest.raises(LabelError if spoil is wrong_label else ValueError, match=kind) as caught:
        SegmentationFolder(tmp_path, three)
    assert isinstance(caught.value, LabelError) is (spoil is wrong_label)
    text = str(caught.value)
    assert re.search(r"[/\\]bad\.", text)
    assert "good." not in text
    assert "fine." not in text


def test_many_wrong_files_give_one_error(tmp_path: Path, write_pair, three: LabelSet) -> None:
    """All problems come at once, by kind; of each kind five files are listed and the rest counted."""
    for i in range(8):
        write_pair(f"label{i}", top=5)
    write_pair("alone")
    (tmp_path / "masks" / "alone.png").unlink()
    (tmp_path / "images" / "label7.jpg").write_text("")
    with pytest.raises(LabelError) as caught:
        SegmentationFolder(tmp_path, three)
    text = str(caught.value)
    assert "10 problems in 8 pairs" in text
    assert "images without a mask (1):" in text
    assert "alone.jpg" in text
    assert "masks with labels outside the label set (8):" in text
    assert [f"label{i}.png" in text for i in range(8)] == [True] * 5 + [False] * 3
    assert "and 3 more" in text
    assert "[data] mapping = {255 = 1}" in text and "ignore = [7, 9]" in text


def test_headers_alone_are_read_without_check(tmp_path: Path, write_pair, three: LabelSet) -> None:
    """`check=False` notices sizes and unreadable headers, and leaves labels for later."""
    write_pair("a", top=5)
    data = SegmentationFolder(tmp_path, three, check=False)
    with pytest.raises(LabelError, match=r"a\.png"):
        data[0]
    with pytest.raises(LabelError, match=r"a\.png"):
        data.count_pixels()
    other = tmp_path / "masks" / "a.png"
    Image.new("L", (5, 5)).save(other)
    with pytest.raises(ValueError, match=r"a\.png is 5 × 5 pixels \(W × H\), .*a\.jpg 16 × 12"):
        SegmentationFolder(tmp_path, three, check=False)
    with pytest.raises(ValueError, match="5 × 5"):  # exchanged after the check
        data[0]


def test_folders_that_are_missing_or_empty(tmp_path: Path, write_pair, three: LabelSet) -> None:
    """A missing folder, an empty one, and folders where files belong: the error says what is expected."""
    expected = r"expected images/<name>\.jpg and masks/<name>\.png in "
    with pytest.raises(FileNotFoundError, match=rf"there is no folder .*images; {expected}"):
        SegmentationFolder(tmp_path, three)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(ValueError, match=rf"images is empty; {expected}"):
        SegmentationFolder(tmp_path, three)
    write_pair("a", root=tmp_path / "images")
    with pytest.raises(ValueError, match=rf"images holds folders \(images, masks\), where images belong; {expected}"):
        SegmentationFolder(tmp_path, three)
    assert len(SegmentationFolder(tmp_path, three, images="images/images", masks="images/masks")) == 1


@pytest.mark.parametrize("tagged", ["images/a.jpg", "masks/a.png"])
def test_only_one_of_a_pair_is_turned(
    tmp_path: Path, write_pair: Callable[..., None], three: LabelSet, tagged: str
) -> None:
    """Where only the picture or only the mask has an EXIF orientation that swaps its sides, the error says so."""
    write_pair("a")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    with Image.open(tmp_path / tagged) as image:
        image.load()
        image.save(tmp_path / tagged, exif=exif)
    with pytest.raises(ValueError, match="only one of them has an EXIF orientation"):
        SegmentationFolder(tmp_path, three)
