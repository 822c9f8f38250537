"""PASCAL VOC 2007–2012, and the additional masks of SBD in the same layout."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from fcnzoo.data.checks import Problem
from fcnzoo.data.dataset import PairTransform, SegmentationDataset
from fcnzoo.data.folder import Pairs, require_folder
from fcnzoo.files.reading import read_text
from fcnzoo.labels import BORDER, get_label_set

_LAYOUT = "expected JPEGImages, SegmentationClass and ImageSets/Segmentation, as the VOC development kit unpacks"


class VOCSegmentation(SegmentationDataset):
    """PASCAL VOC (Everingham et al. 2010): background and 20 object classes.

    The pictures are those that `ImageSets/Segmentation/<split>.txt` names, one per line. A mask is read
    from `SegmentationClass`: palette PNGs as the indices they are, RGB PNGs by their colors; the border
    of objects (index 255, color (224, 224, 192)) becomes 255.

    For a split with `aug` in its name (`trainaug`, `train_aug`: VOC with the 10,582 pictures of SBD,
    Hariharan et al. 2011) the mask is the index PNG in `SegmentationClassAug`, or, if that has none of
    the name, the one in `SegmentationClass`. Lines of two paths, `/JPEGImages/a.jpg
    /SegmentationClassAug/a.png`, are taken as they are.

    Args:
        root: The folder of `VOCdevkit`, `VOCdevkit` itself, or the folder of one year.
        split: Name of a list: `"train"`, `"val"`, `"trainval"`, `"trainaug"`, or your own, such as
            `"seg11valid"`.
        year: `"2007"` to `"2012"`: the folder `VOC<year>`, where `root` is not itself the year's.
        transform: Called with each image and mask.
        check: Decode every mask, and read every image to its end; `False`: only the headers.

    Raises:
        FileNotFoundError: A folder or the list is missing; the text says which lists there are.
        LabelError, ValueError: As [`SegmentationDataset`][fcnzoo.data.SegmentationDataset].
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        year: str | int = "2012",
        transform: PairTransform | None = None,
        *,
        check: bool = True,
    ) -> None:
        self.root, self.split, self.year = _year_folder(Path(root), str(year)), split, str(year)
        pairs = _pairs(self.root, split)
        super().__init__(
            pairs.files,
            get_label_set("voc"),
            transform=transform,
            ignore=(BORDER,),
            check=check,
            problems=pairs.problems,
        )


def _year_folder(root: Path, year: str) -> Path:
    candidates = (root / "VOCdevkit" / f"VOC{year}", root / f"VOC{year}", root)
    for folder in candidates:
        if (folder / "JPEGImages").is_dir():
            require_folder(folder / "SegmentationClass", _LAYOUT)
            require_folder(folder / "ImageSets" / "Segmentation", _LAYOUT)
            return folder
    raise FileNotFoundError(f"there is no JPEGImages in {', '.join(map(str, candidates))}; {_LAYOUT}")


def _pairs(root: Path, split: str) -> Pairs:
    folder = root / "ImageSets" / "Segmentation"
    if not (folder / f"{split}.txt").is_file():
        lists = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        raise FileNotFoundError(f"there is no list {folder / f'{split}.txt'}; lists there: {lists}")
    lines = read_text(folder / f"{split}.txt", encoding="utf-8-sig").split("\n")
    names = [line.split() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"the list {folder / f'{split}.txt'} is empty")
    pairs = Pairs([], [])
    for name in names:
        image, mask = map(_as_stored, _paths(root, split, name))
        if image.is_file() and mask.is_file():
            pairs.files.append((image, mask))
        if not image.is_file():
            pairs.problems.append(Problem(f"images that {split}.txt names and that are not there", str(image)))
        if not mask.is_file():
            pairs.problems.append(Problem("images without a mask", f"{image} (no {mask})"))
    return pairs


def _as_stored(path: Path) -> Path:
    """Return a path as its file is called: lists and file systems compose accented letters in two ways."""
    forms = (path, *(path.with_name(unicodedata.normalize(form, path.name)) for form in ("NFC", "NFD")))
    return next((form for form in forms if form.exists()), path)


def _paths(root: Path, split: str, name: list[str]) -> tuple[Path, Path]:
    if len(name) > 1:
        image, mask = (root / field.lstrip("/") for field in name[:2])
        return image, mask
    folders = ("SegmentationClassAug", "SegmentationClass") if "aug" in split else ("SegmentationClass",)
    masks = [root / folder / f"{name[0]}.png" for folder in folders]
    return root / "JPEGImages" / f"{name[0]}.jpg", next((mask for mask in masks if mask.is_file()), masks[0])
