"""Looking at every file of a data set once, so that a wrong one is named before training, not during it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fcnzoo.data.masks import LabelTable, mask_size, read_mask
from fcnzoo.errors import LabelError
from fcnzoo.files.reading import open_image
from fcnzoo.images.load import FORMATS, load_image, orientation, upright_size

LISTED = 5
"""How many files of each kind an error lists."""

_LABELS = "masks with labels outside the label set"
_UNREADABLE = "files that cannot be read"
_SIZE = "masks of another size than their image"


class Problem(NamedTuple):
    """Something wrong with one file.

    Attributes:
        kind: What is wrong, as a heading: `"images without a mask"`.
        text: The file, and details.
    """

    kind: str
    text: str


class PairReport(NamedTuple):
    """What was found in one image and its mask: problems, and the result of `count_labels`, if that was counted."""

    problems: tuple[Problem, ...]
    counts: np.ndarray | None


def check_pairs(
    files: Sequence[tuple[Path, Path]], table: LabelTable, num_classes: int, *, decode: bool
) -> tuple[list[Problem], np.ndarray | None]:
    """Check every image and mask, in threads (decoding leaves Python's lock).

    Args:
        files: (image, mask) paths.
        table: What the values of the masks mean.
        num_classes: K.
        decode: Read more than the headers: every label of the masks, and images to their end.

    Returns:
        The problems, in the order of the files; and with `decode`, if there are none, the sum of
        `count_labels`.
    """
    workers = min(32, (os.cpu_count() or 1) + 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="fcnzoo-check") as pool:
        reports = list(pool.map(lambda pair: _check_pair(pair[0], pair[1], table, num_classes, decode), files))
    problems = [problem for report in reports for problem in report.problems]
    if problems or not decode:
        return problems, None
    counts = np.zeros(num_classes + 1, np.int64)
    for report in reports:
        if report.counts is not None:
            counts += report.counts
    return problems, counts


def report_problems(problems: Iterable[Problem], name: str, total: int) -> None:
    """Raise one error that names every kind of problem and the first few files of each.

    Raises:
        LabelError: A mask holds a label outside the set.
        ValueError: There are only other problems.
    """
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem.text)
    if not kinds:
        return
    lines = [f"{name}: {sum(map(len, kinds.values()))} problems in {total} pairs of files"]
    for kind, texts in kinds.items():
        lines.append(f"  {kind} ({len(texts)}):")
        lines.extend(f"    {text}" for text in texts[:LISTED])
        if len(texts) > LISTED:
            lines.append(f"    and {len(texts) - LISTED} more")
    if _LABELS in kinds:
        lines.append(
            "Values that are no class can be renumbered (mapping={255: 1}; in a recipe [data] mapping = {255 = 1}), "
            "or read as void (ignore=(7, 9); [data] ignore = [7, 9])."
        )
        raise LabelError("\n".join(lines))
    raise ValueError("\n".join(lines))


def _check_pair(image: Path, mask: Path, table: LabelTable, num_classes: int, decode: bool) -> PairReport:
    problems: list[Problem] = []
    image_shape = mask_shape = counts = None
    try:
        image_shape = _image_size(image, decode)
    except (OSError, ValueError) as error:
        problems.append(Problem(_UNREADABLE, str(error)))
    try:
        if decode:
            labels = read_mask(mask, table)
            mask_shape = labels.shape
            counts = count_labels(labels, num_classes)
        else:
            mask_shape = mask_size(mask)
    except LabelError as error:
        problems.append(Problem(_LABELS, str(error)))
        mask_shape = mask_size(mask)
    except ValueError as error:
        problems.append(Problem(_UNREADABLE, str(error)))
    if image_shape and mask_shape and image_shape != mask_shape and not _is_turned(image, mask_shape):
        problems.append(Problem(_SIZE, size_mismatch(image, image_shape, mask, mask_shape)))
    return PairReport(tuple(problems), counts)


def size_mismatch(image: Path, image_shape: Sequence[int], mask: Path, mask_shape: Sequence[int]) -> str:
    """Say that an image and its mask, of shapes (H, W), do not fit."""
    sizes = [f"{width} × {height}" for height, width in (mask_shape, image_shape)]
    text = f"{mask} is {sizes[0]} pixels (W × H), {image} {sizes[1]}"
    if tuple(mask_shape[::-1]) == tuple(image_shape) and _exif_turns(image) != _exif_turns(mask):
        text += (
            "; only one of them has an EXIF orientation, which turns it by 90°: write it upright "
            "(PIL.ImageOps.exif_transpose), or give the other the same tag"
        )
    return text


def _exif_turns(path: Path) -> bool:
    """Whether a file's EXIF orientation swaps its sides."""
    try:
        with open_image(path, FORMATS) as image:
            return orientation(image) >= 5
    except Exception:  # it is reported elsewhere
        return False


def count_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the number of pixels of each class, and last that of the others, which are ignored: (K + 1,) int64."""
    inside = labels.ravel() if labels.dtype == np.uint8 else labels[(labels >= 0) & (labels < num_classes)]
    counts = np.bincount(inside, minlength=max(num_classes, 256))[:num_classes].astype(np.int64)
    return np.append(counts, labels.size - counts.sum())


def _image_size(path: Path, decode: bool) -> tuple[int, int]:
    """Return (H, W) of the upright image; with `decode`, having read it to its end.

    Raises:
        OSError, ValueError: As `load_image`, which says in one line what is wrong with a file.
    """
    size = _probe(path, decode)
    if size is not None:
        return size
    image = load_image(path)
    return image.height, image.width


def _probe(path: Path, decode: bool) -> tuple[int, int] | None:
    """Return (H, W) in the cheapest way that notices damage, or `None` where only decoding can tell.

    A PNG is read by its checksums, a JPEG is decoded at an eighth of its size.
    """
    try:
        with open_image(path, FORMATS) as image:
            # Pillow decodes a PNG to look for EXIF behind the pixels; what stands before them is enough here.
            known = image.format != "PNG" or "exif" in image.info
            height, width = upright_size(image) if known else (image.height, image.width)
            if not decode:
                return height, width
            if image.mode not in ("RGB", "L", "P", "RGBA", "CMYK") or image.format not in ("JPEG", "PNG", "MPO"):
                return None
            if image.format == "PNG":
                image.verify()
            else:
                image.draft("L", (1, 1))
                image.load()
            return height, width
    except Exception:  # whatever a damaged header leads Pillow to
        return None


def _is_turned(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether an image is of this shape after all: its EXIF orientation may stand behind its pixels."""
    if path.suffix.lower() != ".png":
        return False
    try:
        image = load_image(path)
    except (OSError, ValueError):
        return False
    return (image.height, image.width) == shape
