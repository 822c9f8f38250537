"""ADE20K: scenes of all kinds."""

from __future__ import annotations

from pathlib import Path

from fcnzoo.data.dataset import PairTransform, SegmentationDataset
from fcnzoo.data.folder import pair_folders
from fcnzoo.labels import get_label_set

_SPLITS = {"train": "training", "val": "validation"}


class ADE20K(SegmentationDataset):
    """ADE20K, the 150 classes of the scene parsing benchmark (Zhou et al. 2017, `ADEChallengeData2016`).

    Read from `root/images/<split>/*.jpg` and `root/annotations/<split>/*.png`. In the files 0 is "other
    objects" and class k is k + 1: 0 becomes 255, everything else one less.

    Args:
        root: The folder of `images` and `annotations`, or the one that `ADEChallengeData2016` is in.
        split: `"training"` or `"validation"`; `"train"` and `"val"` are the same.
        transform: Called with each image and mask.
        check: Decode every mask, and read every image to its end; `False`: only the headers.

    Raises:
        FileNotFoundError: A folder is missing.
        LabelError, ValueError: As [`SegmentationDataset`][fcnzoo.data.SegmentationDataset].
    """

    def __init__(
        self, root: str | Path, split: str = "training", transform: PairTransform | None = None, *, check: bool = True
    ) -> None:
        label_set = get_label_set("ade20k")
        self.root, self.split = Path(root), _SPLITS.get(split, split)
        if (self.root / "ADEChallengeData2016").is_dir():
            self.root /= "ADEChallengeData2016"
        layout = f"expected images/{self.split}/<name>.jpg and annotations/{self.split}/<name>.png in {self.root}"
        pairs = pair_folders(self.root / "images" / self.split, self.root / "annotations" / self.split, layout)
        super().__init__(
            pairs.files,
            label_set,
            transform=transform,
            mapping={0: label_set.ignore_index} | {label + 1: label for label in range(len(label_set))},
            check=check,
            problems=pairs.problems,
        )
