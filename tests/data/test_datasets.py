from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from fcnzoo.config import Preprocess
from fcnzoo.data import (
    ADE20K,
    CamVid,
    Cityscapes,
    SegmentationDataset,
    SegmentationFolder,
    VOCSegmentation,
    make_transform,
    open_dataset,
)
from fcnzoo.errors import LabelError
from fcnzoo.labels import BORDER, LabelSet, get_label_set


def save(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG or JPEG, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def rgb(height: int = 4, width: int = 6) -> np.ndarray:
    """Return an image (H, W, 3)."""
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_a_folder_gives_images_and_masks(tmp_path: Path, write_pair, three: LabelSet) -> None:
    """Pairs come sorted by name, as uint8 tv_tensors of the right shapes, with the files' own values."""
    for name in ("b", "a", "cc"):
        write_pair(name)
    (tmp_path / "images" / ".hidden").touch()
    (tmp_path / "masks" / "Thumbs.db").touch()
    data = SegmentationFolder(tmp_path, three)
    assert [image.stem for image, _ in data.files] == ["a", "b", "cc"]
    assert len(data) == 3
    image, mask = data[0]
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(mask, tv_tensors.Mask)
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 12, 16))
    assert (mask.dtype, tuple(mask.shape)) == (torch.uint8, (12, 16))
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(data.files[0][0])))
    np.testing.assert_array_equal(mask.numpy(), np.asarray(Image.open(data.files[0][1])))
    with pytest.raises(IndexError):
        data[3]


def test_transform_is_applied_and_may_be_exchanged(tmp_path: Path, write_pair, three: LabelSet) -> None:
    """`transform` gets image and mask, and its result is what the data set gives."""
    write_pair("a")
    data = SegmentationFolder(tmp_path, three, transform=lambda image, mask: (image.shape, mask.max()))
    assert data[0] == (torch.Size([3, 12, 16]), 255)
    data.transform = None
    assert isinstance(data[0][0], tv_tensors.Image)


def test_data_sets_travel_to_workers(tmp_path: Path, write_pair, three: LabelSet) -> None:
    """A data set pickles, and worker processes give what the main process gives."""
    for name in ("a", "bb", "ccc", "dddd"):
        write_pair(name)
    data = SegmentationFolder(tmp_path, three, transform=make_transform(Preprocess(), train=False))
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[1][0], data[1][0])
    here, there = (list(DataLoader(data, 2, num_workers=workers)) for workers in (0, 1))
    assert all(
        torch.equal(a, b) for one, other in zip(here, there, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_images_stand_upright(tmp_path: Path, write_pair, three: LabelSet) -> None:
    """An image stored sideways with an EXIF orientation is turned, and its size compared as turned."""
    write_pair("a", (12, 16))
    sideways = Image.fromarray(rgb(16, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "images" / "a.jpg", exif=exif)
    sideways.save(tmp_path / "images" / "b.png", exif=exif)
    png = (tmp_path / "images" / "b.png").read_bytes()
    start = png.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(png[start : start + 4], "big")
    late = png[:start] + png[end:-12] + png[start:end] + png[-12:]  # the chunk behind the pixels
    (tmp_path / "images" / "c.png").write_bytes(late)
    for name in ("b", "c"):
        shutil.copy(tmp_path / "masks" / "a.png", tmp_path / "masks" / f"{name}.png")
    for check in (True, False):
        data = SegmentationFolder(tmp_path, three, check=check)
        assert [image.shape for image, _ in data] == [(3, 12, 16)] * 3


def test_own_lists_of_files(tmp_path: Path, write_pair, three: LabelSet) -> None:
    """`SegmentationDataset` takes any list of pairs; an empty one is an error."""
    write_pair("a")
    files = [(tmp_path / "images" / "a.jpg", tmp_path / "masks" / "a.png")] * 2
    assert len(SegmentationDataset(files, three)) == 2
    with pytest.raises(ValueError, match="no images"):
        SegmentationDataset([], three)


def test_camvid(tmp_path: Path) -> None:
    """`root/<split>/{images,masks}`; 11 becomes 255, 12 is an error."""
    save(tmp_path / "val" / "images" / "x.jpg", rgb(3, 4))
    save(tmp_path / "val" / "masks" / "x.png", np.arange(12, dtype=np.uint8).reshape(3, 4))
    data = CamVid(tmp_path, "val")
    assert data[0][1].flatten().tolist() == [*range(11), 255]
    assert data.label_set == get_label_set("camvid")
    with pytest.raises(FileNotFoundError, match=r"expected train/images/<name>\.jpg and train/masks/<name>\.png"):
        CamVid(tmp_path)
    save(tmp_path / "val" / "masks" / "x.png", np.full((3, 4), 12, np.uint8))
    with pytest.raises(LabelError, match=r"x\.png holds the values 12; allowed: 0…11, 255"):
        CamVid(tmp_path, "val")


@pytest.mark.parametrize("below", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_voc(tmp_path: Path, below: str) -> None:
    """The list names the pictures; palette, index and color PNGs read alike, borders are 255."""
    root, voc = tmp_path / below, get_label_set("voc")
    indices = np.array([[0, 1, 20], [15, 255, 7]], np.uint8)
    palette = Image.fromarray(indices).convert("L")
    palette.putpalette(voc.flat_palette())
    colors = np.array([*voc.palette, BORDER], np.uint8)[np.where(indices == 255, 21, indices)]
    for name in ("2007_1", "2007_2", "2007_3"):
        save(root / "JPEGImages" / f"{name}.jpg", rgb(2, 3))
    save(root / "SegmentationClass" / "2007_2.png", colors)
    palette.save(root / "SegmentationClass" / "2007_1.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "seg11valid.txt").write_text("2007_1\n2007_2\n\n")
    data = VOCSegmentation(tmp_path, "seg11valid")
    assert [image.name for image, _ in data.files] == ["2007_1.jpg", "2007_2.jpg"]
    for index in range(2):
        np.testing.assert_array_equal(data[index][1].numpy(), indices)

    save(root / "SegmentationClassAug" / "2007_3.png", indices)
    (lists / "trainaug.txt").write_text("2007_3\n2007_1")
    assert [mask.parent.name for _, mask in VOCSegmentation(tmp_path, "trainaug").files] == [
        "SegmentationClassAug",
        "SegmentationClass",
    ]
    (lists / "train_aug.txt").write_text("/JPEGImages/2007_3.jpg /SegmentationClassAug/2007_3.png\n")
    np.testing.assert_array_equal(VOCSegmentation(tmp_path, "train_aug")[0][1].numpy(), indices)


def test_voc_says_what_is_missing(tmp_path: Path) -> None:
    """No development kit, no list, a listed picture or mask that is not there: each is named."""
    with pytest.raises(FileNotFoundError, match="expected JPEGImages"):
        VOCSegmentation(tmp_path)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("one")
    with pytest.raises(FileNotFoundError, match=r"train\.txt; lists there: val"):
        VOCSegmentation(tmp_path)
    with pytest.raises(ValueError, match=r"(?s)images that val\.txt names.*one\.jpg.*without a mask.*one\.png"):
        VOCSegmentation(tmp_path, "val")


def test_cityscapes(tmp_path: Path) -> None:
    """Label ids become the official train ids; the pairs are matched within their city."""
    ids = np.arange(34, dtype=np.uint8).reshape(2, 17)
    for city in ("ulm", "bonn"):
        save(tmp_path / "leftImg8bit" / "val" / city / f"{city}_0_leftImg8bit.png", rgb(2, 17))
        save(tmp_path / "gtFine" / "val" / city / f"{city}_0_gtFine_labelIds.png", ids)
        save(tmp_path / "gtFine" / "val" / city / f"{city}_0_gtFine_color.png", rgb(2, 17))
    data = Cityscapes(tmp_path, "val")
    assert [image.parent.name for image, _ in data.files] == ["bonn", "ulm"]
    # cityscapesscripts/helpers/labels.py, written out: trainId of id 0…33.
    official = [255] * 7 + [0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    official += [255, 255, 16, 17, 18]
    assert data[0][1].flatten().tolist() == official
    names = {7: "road", 24: "person", 26: "car", 33: "bicycle"}
    assert all(data.label_set.names[official[label_id]] == name for label_id, name in names.items())
    with pytest.raises(FileNotFoundError, match="leftImg8bit/train/<city>"):
        Cityscapes(tmp_path)
    (tmp_path / "gtFine" / "val" / "ulm" / "ulm_0_gtFine_labelIds.png").unlink()
    with pytest.raises(ValueError, match=r"(?s)images without a mask \(1\).*ulm_0_leftImg8bit\.png"):
        Cityscapes(tmp_path, "val")


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016"])
def test_ade20k(tmp_path: Path, below: str) -> None:
    """0 becomes 255, k becomes k − 1; "train" and "training" are the same split."""
    save(tmp_path / below / "images" / "training" / "x.jpg", rgb(2, 2))
    save(tmp_path / below / "annotations" / "training" / "x.png", np.array([[0, 1], [2, 150]], np.uint8))
    for split in ("training", "train"):
        assert ADE20K(tmp_path, split)[0][1].tolist() == [[255, 0], [1, 149]]
    with pytest.raises(FileNotFoundError, match="images/validation"):
        ADE20K(tmp_path, "val")


def test_open_dataset(tmp_path: Path, write_pair, three: LabelSet) -> None:
    """Layouts go by name; a wrong name, or a label set too many or too few, is an error."""
    write_pair("a", root=tmp_path / "val")
    assert isinstance(open_dataset("folder", tmp_path, "val", label_set=three), SegmentationFolder)
    assert isinstance(open_dataset("folder", tmp_path / "val", label_set=three), SegmentationFolder)
    assert isinstance(open_dataset("camvid", tmp_path, "val"), CamVid)
    with pytest.raises(ValueError, match=r"Did you mean camvid"):
        open_dataset("camvit", tmp_path, "val")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="needs a label_set"):
        open_dataset("folder", tmp_path, "val")
    with pytest.raises(ValueError, match="brings its own"):
        open_dataset("camvid", tmp_path, "val", label_set=three)
    with pytest.raises(ValueError, match="name of a split"):
        open_dataset("voc", tmp_path)
