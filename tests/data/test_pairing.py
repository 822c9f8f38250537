"""Which file belongs to which: names whose letters are composed in other ways, lists of other editors."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnzoo.data import SegmentationFolder, VOCSegmentation
from fcnzoo.data.presence import absent_classes, describe_masks
from fcnzoo.errors import LabelError
from fcnzoo.labels import LabelSet

WritePair = Callable[..., None]
NAMES = ("Gebäude é", "ångström", "한국")


@pytest.mark.parametrize(("picture", "mask"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_composed_and_decomposed_names_pair(
    tmp_path: Path, write_pair: WritePair, three: LabelSet, picture: str, mask: str
) -> None:
    """Names that look alike are alike: macOS stores accents decomposed, others composed."""
    for name in NAMES:
        write_pair("x")
        for folder, suffix, form in (("images", "jpg", picture), ("masks", "png", mask)):
            stem = unicodedata.normalize(form, name)  # pyright: ignore[reportArgumentType]
            shutil.move(tmp_path / folder / f"x.{suffix}", tmp_path / folder / f"{stem}.{suffix}")
    assert len(SegmentationFolder(tmp_path, three)) == 3


def test_two_files_whose_names_look_alike(tmp_path: Path, write_pair: WritePair, three: LabelSet) -> None:
    """Both forms of one name in a folder are one name twice."""
    for form in ("NFC", "NFD"):
        write_pair(unicodedata.normalize(form, "é"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="two images of one name"):
        SegmentationFolder(tmp_path, three)


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_lists_of_voc(tmp_path: Path, start: str, form: str) -> None:
    """A list may begin with a byte order mark, have Windows' line ends, and compose letters as it likes."""
    for folder, name, image in (
        ("JPEGImages", "2008_é.jpg", Image.new("RGB", (8, 8))),
        ("SegmentationClass", "2008_é.png", Image.fromarray(np.ones((8, 8), np.uint8))),
    ):
        (tmp_path / folder).mkdir()
        image.save(tmp_path / folder / unicodedata.normalize("NFC", name))
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    text = unicodedata.normalize(form, f"{start}2008_é\r\n")  # pyright: ignore[reportArgumentType]
    (lists / "val.txt").write_bytes(text.encode())
    assert len(VOCSegmentation(tmp_path, "val")) == 1


def test_classes_that_never_occur(tmp_path: Path, write_pair: WritePair, three: LabelSet) -> None:
    """They are named; the description counts pixels, lists values, and maps the ignored ones to them."""
    write_pair("x", top=2)
    data = SegmentationFolder(tmp_path, three)
    assert absent_classes(data) == ("c",)
    assert data.count_ignored() == 1 and data.count_pixels().sum() == 12 * 16 - 1
    text = describe_masks(data)
    assert "c 0.0%" in text and "values 0, 1, 255 (ignored: 255)" in text and "mapping = {255 = 2}" in text
    mapped = SegmentationFolder(tmp_path, three, mapping={255: 2})
    assert absent_classes(mapped) == () and mapped.count_ignored() == 0


def test_mapping_leaves_other_classes(tmp_path: Path, write_pair: WritePair, three: LabelSet) -> None:
    """A class to which nothing is mapped keeps its number; one value cannot be a class and ignored."""
    write_pair("x")
    counts = SegmentationFolder(tmp_path, three).count_pixels().tolist()
    both = SegmentationFolder(tmp_path, three, mapping={1: 1, 2: 1})
    assert both.count_pixels().tolist() == [counts[0], counts[1] + counts[2], 0]
    with pytest.raises(LabelError, match="holds the values 1; allowed: 0, 2, 255"):
        SegmentationFolder(tmp_path, three, mapping={2: 1})
    with pytest.raises(ValueError, match="ignore and mapping both name the value 2"):
        SegmentationFolder(tmp_path, three, mapping={2: 1}, ignore=[2])
