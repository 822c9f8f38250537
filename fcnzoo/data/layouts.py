"""One function for all layouts: what the command line and the recipes call a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from fcnzoo.config.spec import Layout
from fcnzoo.data.ade20k import ADE20K
from fcnzoo.data.camvid import CamVid
from fcnzoo.data.cityscapes import Cityscapes
from fcnzoo.data.dataset import PairTransform, SegmentationDataset
from fcnzoo.data.folder import SegmentationFolder
from fcnzoo.data.masks import RGB
from fcnzoo.data.voc import VOCSegmentation
from fcnzoo.files.records import near

if TYPE_CHECKING:
    from fcnzoo.labels import LabelSetLike

_CLASSES = {"camvid": CamVid, "voc": VOCSegmentation, "cityscapes": Cityscapes, "ade20k": ADE20K}


def open_dataset(
    layout: Layout,
    root: str | Path,
    split: str | None = None,
    *,
    label_set: LabelSetLike | None = None,
    mapping: Mapping[int, int] | None = None,
    ignore: Iterable[int | RGB] = (),
    transform: PairTransform | None = None,
    check: bool = True,
) -> SegmentationDataset:
    """Open a data set by the name of its layout.

    Args:
        layout: `"camvid"`, `"voc"`, `"cityscapes"`, `"ade20k"`; or `"folder"`: images and masks of your own.
        root: Its folder.
        split: Name of the split; for `"folder"`, a folder in `root` that holds `images` and `masks`,
            or `None` if `root` itself does.
        label_set: For `"folder"`, where it is needed: the classes. The others bring their own.
        mapping: For `"folder"`: value in the mask files → label; see [`LabelTable`][fcnzoo.data.LabelTable].
        ignore: For `"folder"`: further mask values, or (R, G, B) colors, that are read as the ignore index.
        transform: Called with each image and mask.
        check: Decode every mask, and read every image to its end; `False`: only the headers.

    Raises:
        ValueError: The layout is unknown; `label_set` is missing, or it, `mapping` or `ignore` are given where
            the layout has its own; `split` is missing.
        FileNotFoundError, LabelError: As the data set's class.
    """
    if layout not in get_args(Layout):
        raise ValueError(
            f"no data set {layout!r}.{near(str(layout), get_args(Layout))} There are {', '.join(get_args(Layout))}"
        )
    if layout == "folder":
        if label_set is None:
            raise ValueError("a folder of images and masks needs a label_set that says what the classes are")
        prefix = f"{split}/" if split else ""
        return SegmentationFolder(
            root,
            label_set,
            images=f"{prefix}images",
            masks=f"{prefix}masks",
            transform=transform,
            mapping=mapping,
            ignore=ignore,
            check=check,
        )
    if mapping or tuple(ignore):
        raise ValueError(f"{layout} says itself what its mask values mean; mapping and ignore are for 'folder'")
    if label_set is not None:
        raise ValueError(f"{layout} brings its own label set; leave label_set out, or use the layout 'folder'")
    if not split:
        raise ValueError(f"{layout} needs the name of a split, such as 'train' or 'val'")
    return _CLASSES[layout](root, split, transform=transform, check=check)
