"""Cityscapes: street scenes of 50 cities."""

from __future__ import annotations

from pathlib import Path

from fcnzoo.data.dataset import PairTransform, SegmentationDataset
from fcnzoo.data.folder import Pairs, match_names, require_folder
from fcnzoo.labels import get_label_set

_IMAGE_END, _MASK_END = "_leftImg8bit.png", "_gtFine_labelIds.png"

_EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

TRAIN_IDS: dict[int, int] = dict.fromkeys(range(34), 255) | {
    label_id: train_id for train_id, label_id in enumerate(_EVALUATED)
}
"""Label id → train id, 255 where a class takes no part.

Source: `cityscapesscripts/helpers/labels.py`. The license plate, id −1, is not drawn in the label images.
"""


class Cityscapes(SegmentationDataset):
    """Cityscapes (Cordts et al. 2016), fine annotations, the 19 classes of the benchmark.

    Read from `root/leftImg8bit/<split>/<city>/*_leftImg8bit.png` and
    `root/gtFine/<split>/<city>/*_gtFine_labelIds.png`; label ids become train ids by `TRAIN_IDS`.

    Args:
        root: The folder of `leftImg8bit` and `gtFine`.
        split: `"train"` or `"val"` (the masks of `"test"` are not public: all void).
        transform: Called with each image and mask.
        check: Decode every mask, and read every image to its end; `False`: only the headers.

    Raises:
        FileNotFoundError: A folder is missing.
        LabelError, ValueError: As [`SegmentationDataset`][fcnzoo.data.SegmentationDataset].
    """

    def __init__(
        self, root: str | Path, split: str = "train", transform: PairTransform | None = None, *, check: bool = True
    ) -> None:
        self.root, self.split = Path(root), split
        pairs = _pairs(self.root, split)
        super().__init__(
            pairs.files,
            get_label_set("cityscapes"),
            transform=transform,
            mapping=TRAIN_IDS,
            check=check,
            problems=pairs.problems,
        )


def _pairs(root: Path, split: str) -> Pairs:
    layout = (
        f"expected leftImg8bit/{split}/<city>/<name>{_IMAGE_END} and gtFine/{split}/<city>/<name>{_MASK_END} in {root}"
    )
    found = []
    for top, end in (("leftImg8bit", _IMAGE_END), ("gtFine", _MASK_END)):
        folder = require_folder(root / top / split, layout)
        files = sorted(folder.glob(f"*/*{end}"))
        if not files:
            raise ValueError(f"{folder} holds no <city>/*{end}; {layout}")
        found.append({f"{file.parent.name}/{file.name.removesuffix(end)}": file for file in files})
    return match_names(*found)
