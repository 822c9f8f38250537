"""A data set of images and masks: what every layout has in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from fcnzoo.data.checks import Problem, check_pairs, report_problems, size_mismatch
from fcnzoo.data.masks import RGB, LabelTable, read_mask
from fcnzoo.images.load import load_image

if TYPE_CHECKING:
    from fcnzoo.labels import LabelSet

PairTransform: TypeAlias = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[Any, Any]]
"""Takes an image (3, H, W), uint8, and its mask (H, W), and returns both, changed together."""


class SegmentationDataset(Dataset[tuple[Any, Any]]):
    """Pairs of an image and a mask, checked when the data set is made.

    Made from pairs of files directly, or by a subclass that knows a layout of folders. Images are
    read as `fcnzoo.images.load.load_image` reads them (RGB, upright); masks as
    [`LabelTable`][fcnzoo.data.LabelTable] says.

    Args:
        files: (image, mask) paths.
        label_set: The classes: names, palette, ignore index.
        transform: Called with each image and mask; such as `make_transform` gives.
        mapping: Value in the mask files → label; see `LabelTable`.
        ignore: Further mask values, or (R, G, B) colors, that are read as the ignore index.
        check: Decode every mask, and read every image to its end. `False` reads only the headers: for
            large data that was checked before.
        problems: What a subclass found wrong while it listed the files; reported with the rest.

    Attributes:
        files: (image, mask) paths, in the order of the indices.
        label_set: The classes.
        transform: May be exchanged at any time.
        table: What the values of the mask files mean.

    Raises:
        LabelError: A mask holds a value that is no class; the text names the first few files of each
            kind of problem and says how many more there are.
        ValueError: There are no files; or files are unreadable, unmatched, or of different size.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, Path]],
        label_set: LabelSet,
        *,
        transform: PairTransform | None = None,
        mapping: Mapping[int, int] | None = None,
        ignore: Iterable[int | RGB] = (),
        check: bool = True,
        problems: Sequence[Problem] = (),
    ) -> None:
        self.files = tuple((Path(image), Path(mask)) for image, mask in files)
        self.label_set = label_set
        self.transform = transform
        self.table = LabelTable(label_set, mapping, ignore)
        found, self._counts = check_pairs(self.files, self.table, len(label_set), decode=check)
        total = len(self.files)
        report_problems([*problems, *found], type(self).__name__, total)
        if not total:
            raise ValueError(f"{type(self).__name__}: there are no images")

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images, {len(self.label_set)} classes of {self.label_set.name!r})"

    def image(self, index: int) -> tv_tensors.Image:
        """Read one image: uint8 (3, H, W), RGB, upright.

        Raises:
            OSError, ValueError: The file is gone or damaged; the text names it.
        """
        # Channels last in memory, as it was decoded: the layout in which torch resizes bytes fastest.
        return tv_tensors.Image(torch.from_numpy(np.array(load_image(self.files[index][0]))).permute(2, 0, 1))

    def mask(self, index: int) -> tv_tensors.Mask:
        """Read one mask: (H, W), labels 0…K−1 and the ignore index; uint8 where they fit, else int64.

        Raises:
            LabelError: It holds a value that is no class; the text names the file.
            ValueError: The file is gone or damaged; the text names it.
        """
        return tv_tensors.Mask(torch.from_numpy(read_mask(self.files[index][1], self.table)))

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return an image and its target; with a transform, what it returns.

        Returns:
            `tv_tensors.Image` uint8 (3, H, W) and `tv_tensors.Mask` (H, W), or `transform` of them.

        Raises:
            IndexError: `index` is out of range.
            OSError, ValueError: As `image` and `mask`.
        """
        image, mask = self.image(index), self.mask(index)
        if image.shape[-2:] != mask.shape:  # the files were exchanged since the check
            raise ValueError(size_mismatch(self.files[index][0], image.shape[-2:], self.files[index][1], mask.shape))
        return (image, mask) if self.transform is None else self.transform(image, mask)

    def count_pixels(self) -> Tensor:
        """Return how many pixels each class has, (K,) int64; ignored ones are left out.

        Free after `check=True`; otherwise every mask is read.

        Raises:
            LabelError, ValueError: As `mask`, for all masks at once.
        """
        return torch.from_numpy(np.array(self._count()[:-1]))

    def count_ignored(self) -> int:
        """Return how many pixels are ignored; costs and errors are those of `count_pixels`."""
        return int(self._count()[-1])

    def _count(self) -> np.ndarray:
        if self._counts is None:
            problems, self._counts = check_pairs(self.files, self.table, len(self.label_set), decode=True)
            report_problems(problems, type(self).__name__, len(self))
        return cast("np.ndarray", self._counts)  # there were no problems
