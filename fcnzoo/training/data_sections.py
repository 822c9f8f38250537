"""The sections of a recipe about pictures: which, and how they are varied."""

from __future__ import annotations

from dataclasses import dataclass, field

from fcnzoo.config.spec import Layout
from fcnzoo.files.records import Record


@dataclass(frozen=True)
class DataSection(Record):
    """Which pictures.

    Attributes:
        dataset: Layout of the data set.
        root: Its folder.
        train_split: Split that is trained on.
        val_split: Split by which the best weights are chosen.
        label_set: For `"folder"`: name of a label set the library knows, or `None` with `class_names`.
        class_names: For `"folder"`: one name per class, in the order of the mask values.
        mapping: For `"folder"`: value in the mask files → number of the class, or the ignore index: `{255 = 1}`.
            A class to which it maps nothing keeps its own number.
        ignore: For `"folder"`: further mask values, or (R, G, B) colors, that do not count.
        allow_missing: Train although the training masks do not hold every class that was named.
        max_ignored: Largest share of the pixels of a split that may be ignored.
        num_workers: Processes that read and augment pictures; 0 does it in the training process.
        val_batch_size: Pictures that are evaluated at once.
    """

    dataset: Layout
    root: str = ""
    train_split: str = "train"
    val_split: str = "val"
    label_set: str | None = None
    class_names: tuple[str, ...] = ()
    mapping: dict[int, int] = field(default_factory=dict)
    ignore: tuple[int | tuple[int, int, int], ...] = ()
    allow_missing: bool = False
    max_ignored: float = 0.9
    num_workers: int = 0
    val_batch_size: int = 4

    def check(self) -> None:
        """See `Record.check`."""
        if self.num_workers < 0:
            self.refuse("num_workers", "must be 0 or more")
        if self.val_batch_size < 1:
            self.refuse("val_batch_size", "must be at least 1")
        if not 0 <= self.max_ignored <= 1:
            self.refuse("max_ignored", "must be in [0, 1]")
        for name in ("label_set", "class_names", "mapping", "ignore"):
            if self.dataset != "folder" and getattr(self, name):
                raise ValueError(f"DataSection.{name} is for dataset = 'folder'; {self.dataset!r} brings its own")
        if self.dataset == "folder" and self.label_set and self.class_names:
            raise ValueError("DataSection: give label_set or class_names, not both")


@dataclass(frozen=True)
class AugmentSection(Record):
    """How training pictures are varied.

    Attributes:
        crop: Height and width in pixels of the pictures trained on.
        scale: Range of the random scale.
        flip: Probability of a left-right flip.
        jitter: Strength of the random brightness, contrast and saturation; 0: none.
        exposure: Range of the random exposure.
        gamma: Range of the random power of the values: more than 1 darkens, as at dusk.
        temperature: Largest random shift between red and blue.
        blur: Largest deviation in pixels of the blur that every other picture gets; 0: none.
        noise: Deviation of the noise that every other picture gets, for values in 0…1; 0: none.
    """

    crop: tuple[int, int] = (480, 480)
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    jitter: float = 0.3
    exposure: tuple[float, float] = (1.0, 1.0)
    gamma: tuple[float, float] = (1.0, 1.0)
    temperature: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def check(self) -> None:
        """See `Record.check`."""
        if min(self.crop) < 1:
            self.refuse("crop", "must be at least 1 × 1")
        for name in ("scale", "exposure", "gamma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                self.refuse(name, "must be 0 < low ≤ high")
        if not 0 <= self.flip <= 1:
            self.refuse("flip", "must be in [0, 1]")
        for name in ("jitter", "temperature"):
            if not 0 <= getattr(self, name) < 1:
                self.refuse(name, "must be in [0, 1)")
        for name in ("blur", "noise"):
            if getattr(self, name) < 0:
                self.refuse(name, "must be 0 or more")
