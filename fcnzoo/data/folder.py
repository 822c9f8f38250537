"""A folder of images and a folder of masks."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from fcnzoo.data.checks import Problem
from fcnzoo.data.dataset import PairTransform, SegmentationDataset
from fcnzoo.data.masks import MASK_SUFFIXES, RGB
from fcnzoo.images.load import IMAGE_SUFFIXES
from fcnzoo.labels import LabelSetLike, as_label_set

_LITTER = ("thumbs.db", "desktop.ini")  # what Windows leaves in folders of pictures; files with a leading dot likewise


class Pairs(NamedTuple):
    """What a listing gave: (image, mask) paths that belong together, and what was wrong with the rest."""

    files: list[tuple[Path, Path]]
    problems: list[Problem]


class SegmentationFolder(SegmentationDataset):
    """`root/images/<name>.jpg` and `root/masks/<name>.png`.

    An image and a mask belong together if their names without the suffix are equal. Hidden files,
    `Thumbs.db` and `desktop.ini` are passed over; any other file that is no image or has no partner is an error.

    Args:
        root: The folder.
        label_set: The classes that the masks hold; a `LabelSet`, a list of names, or `{0: "sky", …}`.
        images: Folder of the images, from `root`.
        masks: Folder of the masks, from `root`.
        transform: Called with each image and mask.
        ignore: Further mask values, or (R, G, B) colors, that are read as the ignore index.
        mapping: Value in the mask files → label; see [`LabelTable`][fcnzoo.data.LabelTable].
        check: Decode every mask, and read every image to its end; `False`: only the headers.

    Raises:
        FileNotFoundError: A folder is missing.
        LabelError, ValueError: As [`SegmentationDataset`][fcnzoo.data.SegmentationDataset].
    """

    def __init__(
        self,
        root: str | Path,
        label_set: LabelSetLike,
        *,
        images: str = "images",
        masks: str = "masks",
        transform: PairTransform | None = None,
        ignore: Iterable[int | RGB] = (),
        mapping: Mapping[int, int] | None = None,
        check: bool = True,
    ) -> None:
        layout = f"expected {images}/<name>.jpg and {masks}/<name>.png in {root}"
        self.root = Path(root)
        pairs = pair_folders(self.root / images, self.root / masks, layout)
        super().__init__(
            pairs.files,
            as_label_set(label_set),
            transform=transform,
            ignore=ignore,
            mapping=mapping,
            check=check,
            problems=pairs.problems,
        )


def pair_folders(images: Path, masks: Path, layout: str) -> Pairs:
    """Match the images of one folder with the masks of another by their names without the suffix.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: A folder is empty.
    """
    problems: list[Problem] = []
    by_name = [
        _by_name(images, "image", IMAGE_SUFFIXES, layout, problems),
        _by_name(masks, "mask", MASK_SUFFIXES, layout, problems),
    ]
    pairs = match_names(*by_name)
    return Pairs(pairs.files, problems + pairs.problems)


def match_names(images: Mapping[str, Path], masks: Mapping[str, Path]) -> Pairs:
    """Match images and masks that go by the same name, however its letters are composed; the others are problems."""
    images, masks = (
        {unicodedata.normalize("NFC", name): path for name, path in found.items()} for found in (images, masks)
    )
    problems = [Problem("images without a mask", str(images[name])) for name in sorted(images.keys() - masks.keys())]
    problems += [Problem("masks without an image", str(masks[name])) for name in sorted(masks.keys() - images.keys())]
    return Pairs([(images[name], masks[name]) for name in sorted(images.keys() & masks.keys())], problems)


def require_folder(folder: Path, layout: str) -> Path:
    """Return `folder`.

    Raises:
        FileNotFoundError: There is none; the text says what was expected.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; {layout}")
    return folder


def _by_name(
    folder: Path, what: str, suffixes: tuple[str, ...], layout: str, problems: list[Problem]
) -> dict[str, Path]:
    entries = sorted(require_folder(folder, layout).iterdir())
    entries = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _LITTER]
    if not entries:
        raise ValueError(f"the folder {folder} is empty; {layout}")
    folders = [entry.name for entry in entries if entry.is_dir()]
    if folders:
        raise ValueError(f"{folder} holds folders ({', '.join(folders[:5])}), where {what}s belong; {layout}")
    by_name: dict[str, Path] = {}
    for entry in entries:
        if entry.suffix.lower() not in suffixes:
            problems.append(Problem(f"files that are no {what} ({' '.join(suffixes)})", str(entry)))
        elif (name := unicodedata.normalize("NFC", entry.stem)) in by_name:
            problems.append(Problem(f"two {what}s of one name", f"{by_name[name]} and {entry.name}"))
        else:
            by_name[name] = entry
    return by_name
