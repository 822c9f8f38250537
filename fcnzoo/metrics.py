"""How well label maps agree: a confusion matrix that grows image by image, and what is read off it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fcnzoo.errors import LabelError
from fcnzoo.files.records import Record

if TYPE_CHECKING:
    from rich.table import Table

Labels: TypeAlias = "Tensor | np.ndarray"
"""Integer labels, as a network or `Predictor` gives them."""


@dataclass(frozen=True)
class SegmentationMetrics(Record):
    """Figures of a confusion matrix; all are shares, 0…1, and void pixels take no part.

    With n[t, p] pixels of true class t that were taken for p: TP = n[k, k], FN the rest of row k, FP the
    rest of column k; IoU = TP / (TP + FP + FN). **A class is absent if it occurs neither in the truth
    nor in the prediction** (TP + FP + FN = 0): it has no IoU (`None`), is listed in `absent`, and no
    mean counts it. A class that is predicted but not true has IoU 0, and that counts. So does torchmetrics;
    the definitions of pixel and mean accuracy, mean and frequency-weighted IoU are those of Long et al. 2015.

    Attributes:
        mean_iou: Mean IoU of the classes that are not absent (macro): the field's "mIoU".
        pixel_accuracy: Share of pixels whose class is right.
        mean_accuracy: Mean of the accuracies of the classes in the truth.
        frequency_weighted_iou: Mean IoU, weighted by the pixels of each class in the truth.
        micro_iou: ΣTP / Σ(TP + FP + FN): one IoU of all classes together.
        per_image_mean_iou: Mean over images of the mean IoU of each image alone (its own absent classes left
            out); `None` unless every image was counted by itself.
        images: Images in `per_image_mean_iou`; those that are void throughout are not among them.
        pixels: Pixels that were counted.
        iou: IoU of each class; `None` for absent ones.
        accuracy: Recall of each class, TP / (TP + FN); `None` for those not in the truth.
        names: What the classes are called.
        absent: Names of the absent classes.
    """

    mean_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    micro_iou: float
    per_image_mean_iou: float | None
    images: int
    pixels: int
    iou: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    names: tuple[str, ...]
    absent: tuple[str, ...]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (what, IoU, accuracy) in percent, as text: one row per class, then the means."""
        rows = [
            (name, _percent(iou), _percent(accuracy))
            for name, iou, accuracy in zip(self.names, self.iou, self.accuracy, strict=True)
        ]
        rows += [
            ("mean (mIoU)", _percent(self.mean_iou), _percent(self.mean_accuracy)),
            ("all pixels (micro)", _percent(self.micro_iou), _percent(self.pixel_accuracy)),
            ("frequency-weighted", _percent(self.frequency_weighted_iou), ""),
        ]
        if self.per_image_mean_iou is not None:
            rows.append((f"mean per image ({self.images})", _percent(self.per_image_mean_iou), ""))
        return rows

    def table(self, title: str | None = None) -> Table:
        """Return `rows` as a table for the terminal; absent classes are listed below it."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(title) if title else None)
        table.add_column("class")
        table.add_column("IoU %", justify="right")
        table.add_column("accuracy %", justify="right")
        for i, row in enumerate(self.rows()):
            if i == len(self.names):
                table.add_section()
            table.add_row(*map(Text, row), style="bold" if i == len(self.names) else None)  # Text: "[" is no markup
        if self.absent:
            table.caption = Text(f"neither in the truth nor predicted, in no mean: {', '.join(self.absent)}")
        return table


class ConfusionMatrix:
    """Counts of (truth, prediction) pairs that grow batch by batch.

    Args:
        num_classes: K.
        names: What the classes are called; `None`: `"class 0"`, `"class 1"`, …
        device: Where the counts are kept; predictions are brought there.

    Attributes:
        counts: (K, K) int64; rows are the truth, columns the prediction.

    Raises:
        ValueError: `num_classes` is below 1, or there is another number of names.
    """

    counts: Tensor

    def __init__(
        self, num_classes: int, names: Sequence[str] | None = None, *, device: torch.device | str | None = None
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.names = tuple(names) if names is not None else tuple(f"class {i}" for i in range(num_classes))
        if len(self.names) != num_classes:
            raise ValueError(f"there are {num_classes} classes and {len(self.names)} names")
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        # Kept as one value per image, not as a sum: the result then does not depend on the order of images.
        self._image_iou: list[float] = []  # NaN for an image that is void throughout
        self._all_by_image = True

    def __repr__(self) -> str:
        return f"ConfusionMatrix({self.num_classes} classes, {int(self.counts.sum())} pixels)"

    def update(self, prediction: Labels, target: Labels, ignore_index: int | None = 255) -> None:
        """Count pixels.

        Args:
            prediction: Integer labels of any shape, 0…K−1 wherever the target counts: a tensor or an array.
            target: Integer labels of that shape, 0…K−1 or `ignore_index`: a tensor or an array.
            ignore_index: Target value that is not counted; `None`: all are.

        Raises:
            LabelError: There is another value in the target or the prediction.
            ValueError: Shapes differ.
            TypeError: One is not of an integer dtype.
        """
        self._add(self._count(prediction, target, ignore_index), by_image=False)

    def update_image(self, prediction: Labels, target: Labels, ignore_index: int | None = 255) -> None:
        """Count the pixels of one image, and keep its own mean IoU for `per_image_mean_iou`.

        Arguments and errors are those of `update`.
        """
        self._add(self._count(prediction, target, ignore_index), by_image=True)

    def merge(self, counts: Tensor | ConfusionMatrix, *, by_image: bool = False) -> None:
        """Add counts that were made elsewhere: by `fcnzoo.ops.upsample_confusion`, by another process.

        Args:
            counts: (K, K) integers, rows = truth; or another matrix, whose images are taken over as well.
            by_image: The counts are those of one image.

        Raises:
            ValueError: It is not (K, K), or a count is negative.
            TypeError: It is not of an integer dtype.
        """
        if isinstance(counts, ConfusionMatrix):
            self._check_counts(counts.counts)
            self.counts += counts.counts.to(self.counts.device)
            self._image_iou += counts._image_iou
            self._all_by_image &= counts._all_by_image
            return
        self._check_counts(counts)
        self._add(counts.to(self.counts), by_image=by_image)

    def compute(self) -> SegmentationMetrics:
        """Return the figures of what was counted so far.

        Raises:
            ValueError: No pixel was counted.
        """
        counts = self.counts.cpu().double()  # exact up to 2**53 pixels
        total = counts.sum()
        if not total:
            raise ValueError("no pixel was counted: every target was void, or nothing was added")
        right, true = counts.diagonal(), counts.sum(1)
        union = true + counts.sum(0) - right
        iou, accuracy = right / union, right / true  # NaN where there is nothing
        present, in_truth = union > 0, true > 0
        images = [value for value in self._image_iou if not math.isnan(value)]
        return SegmentationMetrics(
            mean_iou=float(iou[present].mean()),
            pixel_accuracy=float(right.sum() / total),
            mean_accuracy=float(accuracy[in_truth].mean()),
            frequency_weighted_iou=float((true[in_truth] * iou[in_truth]).sum() / total),
            micro_iou=float(right.sum() / union.sum()),
            per_image_mean_iou=math.fsum(images) / len(images) if images and self._all_by_image else None,
            images=len(images) if self._all_by_image else 0,
            pixels=int(total),
            iou=_optional(iou),
            accuracy=_optional(accuracy),
            names=self.names,
            absent=tuple(name for name, there in zip(self.names, present.tolist(), strict=True) if not there),
        )

    def _add(self, counts: Tensor, *, by_image: bool) -> None:
        self.counts += counts
        self._all_by_image &= by_image
        if by_image:
            counts = counts.cpu()
            union = counts.sum(0) + counts.sum(1) - counts.diagonal()
            self._image_iou.append(float((counts.diagonal().double() / union).nanmean()))

    def _count(self, prediction: Labels, target: Labels, ignore_index: int | None) -> Tensor:
        prediction, target = _as_tensor("prediction", prediction), _as_tensor("target", target)
        if ignore_index is not None and (isinstance(ignore_index, bool) or not hasattr(ignore_index, "__index__")):
            raise TypeError(f"ignore_index must be an int or None, got {ignore_index!r}")
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
        for what, labels in (("prediction", prediction), ("target", target)):
            if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
                raise TypeError(f"{what} must be of an integer dtype, got {labels.dtype}; scores need argmax(1) first")
        prediction, target = (labels.to(self.counts.device).flatten() for labels in (prediction, target))
        # As int64: a value that the target's own type cannot hold would be taken modulo 256.
        counted = slice(None) if ignore_index is None else target.long() != int(ignore_index)
        truth, taken = target[counted].long(), prediction[counted].long()
        more = "" if ignore_index is None else f" and ignore_index={ignore_index}"
        self._check_range("target", truth, f"0…{self.num_classes - 1}{more}")
        self._check_range("prediction", taken, f"0…{self.num_classes - 1}")
        cells = torch.bincount(truth * self.num_classes + taken, minlength=self.num_classes**2)
        return cells.view(self.num_classes, self.num_classes)

    def _check_range(self, what: str, labels: Tensor, allowed: str) -> None:
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            outside = labels[(labels < 0) | (labels >= self.num_classes)].unique()
            raise LabelError(f"{what} holds {outside[:8].tolist()}; allowed are {allowed}")

    def _check_counts(self, counts: Tensor) -> None:
        if counts.shape != self.counts.shape:
            raise ValueError(
                f"counts must be {tuple(self.counts.shape)}, rows = truth, got shape {tuple(counts.shape)}"
            )
        if counts.is_floating_point() or counts.is_complex():
            raise TypeError(f"counts must be of an integer dtype, got {counts.dtype}")
        if int(counts.min()) < 0:
            raise ValueError("counts must be 0 or more")


def _as_tensor(what: str, labels: Labels) -> Tensor:
    """Return labels as a tensor; arrays of any integer type, read-only or of the other byte order too."""
    if isinstance(labels, Tensor):
        return labels
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        kind = type(labels).__name__ if array.dtype == object else array.dtype
        raise TypeError(
            f"{what} must be a tensor or an array of an integer dtype, got {kind}; scores need argmax first"
        )
    return torch.from_numpy(array.astype(np.uint8 if array.dtype == np.uint8 else np.int64))


def _optional(values: Tensor) -> tuple[float | None, ...]:
    return tuple(None if value != value else value for value in values.tolist())


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}"
