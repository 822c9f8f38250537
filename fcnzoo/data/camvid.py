"""CamVid: road scenes."""

from __future__ import annotations

from pathlib import Path

from fcnzoo.data.dataset import PairTransform
from fcnzoo.data.folder import SegmentationFolder
from fcnzoo.labels import get_label_set

UNLABELED = 11
"""The mask value of the SegNet tutorial's files for pixels that have no class."""


class CamVid(SegmentationFolder):
    """CamVid (Brostow et al. 2009) with the 11 classes of SegNet, read from `root/<split>/{images,masks}`.

    The masks hold 0…10, and 11 where nothing is labeled, which becomes 255.

    Args:
        root: Folder of the splits.
        split: `"train"`, `"val"`, `"test"`, or whatever folder there is.
        transform: Called with each image and mask.
        check: Decode every mask, and read every image to its end; `False`: only the headers.

    Raises:
        FileNotFoundError: The split or one of its folders is missing.
        LabelError, ValueError: As [`SegmentationDataset`][fcnzoo.data.SegmentationDataset].
    """

    def __init__(
        self, root: str | Path, split: str = "train", transform: PairTransform | None = None, *, check: bool = True
    ) -> None:
        self.split = split
        super().__init__(
            root,
            get_label_set("camvid"),
            images=f"{split}/images",
            masks=f"{split}/masks",
            transform=transform,
            ignore=(UNLABELED,),
            check=check,
        )
