"""Measuring a network on a data set, at the masks' own resolution."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fcnzoo.files.records import Record
from fcnzoo.images.panels import PictureGrid
from fcnzoo.images.preprocess import fit_size, to_tensor
from fcnzoo.inference.resized import sample_resized
from fcnzoo.labels import LabelSet, generic_label_set
from fcnzoo.metrics import ConfusionMatrix, SegmentationMetrics
from fcnzoo.model.evaluating import evaluating
from fcnzoo.ops import upsample, upsample_argmax, upsample_confusion
from fcnzoo.weights.factory import move, resolve_model

if TYPE_CHECKING:
    from rich.table import Table

    from fcnzoo.config import Preprocess
    from fcnzoo.model.fcn import FCN

PICTURE_ROWS = 8
"""Rows of a picture grid: this many images, evenly spaced over the data set."""


@dataclass(frozen=True)
class Evaluation(Record):
    """How good a network is on a data set, and how that was measured.

    Attributes:
        metrics: The figures.
        dataset: What was measured on, in words.
        images: How many images that were.
        flip: Whether scores were averaged with those of the mirrored image.
        scales: Factors of the image size over which scores were averaged.
        confusion: Pixels by (truth, prediction): K rows of K.
    """

    metrics: SegmentationMetrics
    dataset: str
    images: int
    flip: bool
    scales: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]

    def table(self) -> Table:
        """Return a table for the terminal: a row per class, then the means."""
        settings = [self.dataset]
        if self.flip:
            settings.append("flip")
        if self.scales != (1.0,):
            settings.append(f"scales {', '.join(f'{scale:g}' for scale in self.scales)}")
        return self.metrics.table(title="; ".join(settings))


def evaluate(
    model: FCN | str | Path,
    dataset: Dataset[Any],
    *,
    batch_size: int = 1,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    device: torch.device | str | None = None,
    num_workers: int = 0,
    progress: bool = True,
    picture_grid: str | Path | None = None,
) -> Evaluation:
    """Measure a network, pixel by pixel at the masks' own size; void pixels take no part.

    Single-scale figures are made from the low-resolution scores; full-size scores never exist. With
    `flip` or several `scales`, softmax probabilities are averaged at full size. Otherwise the labels are
    those that `Predictor` gives. BatchNorm uses its stored statistics, and afterwards every part of the
    model has its training flag back. No global random number is drawn.

    Args:
        model: The network; or what [`Predictor`][fcnzoo.Predictor] takes: the name of a zoo model, or a folder.
        dataset: Pairs of an image, uint8 (3, H, W), and a mask, integers (H, W): a `SegmentationDataset`
            without transform. The model's own preprocessing is applied here.
        batch_size: Images read at once; those of one size go through the network together.
        flip: Average with the mirrored image.
        scales: Average over these factors of the size at which the network sees images.
        device: Where to run; `None`: where it is. A model that was given is itself moved there and stays there, as
            with `model.to(device)`.
        num_workers: Processes that read images.
        progress: Show a bar on stderr, if that is a terminal.
        picture_grid: File (PNG, JPEG, WebP) for `PICTURE_ROWS` rows of photo, truth and prediction.

    Raises:
        UnknownModelError: There is no model of that name.
        WeightsError: Its weights cannot be had.
        ValueError: The data set is empty, is transformed already, has other classes than the model, or has
            no labeled pixel; an argument is out of range; or the device does not exist here.
        LabelError: A mask holds a value that is no class.
        OSError: The picture cannot be written.
    """
    scales = tuple(float(scale) for scale in scales)
    _check_arguments(_length(dataset), batch_size, scales)
    network = resolve_model(model)
    label_set = _label_set(network, dataset)
    picture = None if picture_grid is None else PictureGrid(picture_grid, label_set)
    if device is not None:
        move(network, device)
    run = _Run(network, label_set, flip, scales, picture, _spread(_length(dataset)))
    # Its own generator: a loader draws a seed, which must not move the random numbers of a training run.
    loader = DataLoader(
        dataset, batch_size, collate_fn=_as_pairs, num_workers=num_workers, generator=torch.Generator().manual_seed(0)
    )
    with evaluating(network), torch.no_grad():  # not inference_mode: what the model caches must still serve training
        for batch in _track(loader, progress):
            run.add(batch)
    if picture is not None:
        picture.write()
    confusion = tuple(map(tuple, run.matrix.counts.tolist()))
    return Evaluation(run.matrix.compute(), _describe(dataset), run.done, flip, scales, confusion)


@dataclass
class _Run:
    """The state of one evaluation: what was counted, and where pictures go."""

    model: FCN
    label_set: LabelSet
    flip: bool
    scales: tuple[float, ...]
    picture: PictureGrid | None
    spread: Sequence[int]
    done: int = 0

    def __post_init__(self) -> None:
        """Begin with nothing counted."""
        self.matrix = ConfusionMatrix(self.model.num_classes, self.label_set.names)
        self.shown = frozenset(self.spread if self.picture is not None else ())

    def add(self, batch: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Count a batch; images of one size go through the network together."""
        results: dict[int, Tensor | None] = {}
        sizes: dict[tuple[int, ...], list[int]] = {}
        for place, (image, target) in enumerate(batch):
            _check_pair(image, target, self.done + place)
            sizes.setdefault(tuple(image.shape), []).append(place)
        for places in sizes.values():
            shown = [self.done + place in self.shown for place in places]
            images, targets = zip(*(batch[place] for place in places), strict=True)
            results.update(zip(places, self._add_group(images, targets, shown), strict=True))
        for place, labels in sorted(results.items()):
            if labels is not None and self.picture is not None:
                self.picture.add(*batch[place], labels)
        self.done += len(batch)

    def _add_group(
        self, images: Sequence[Tensor], targets: Sequence[Tensor], shown: Sequence[bool]
    ) -> list[Tensor | None]:
        """Count images of one size; return the labels of those that are shown."""
        if self.flip or self.scales != (1.0,):
            labels = self._averaged(images)
        elif self.model.preprocess.resizes:
            labels = self._resized(images)
        else:
            return self._add_scores(images, targets, shown)
        for one, target in zip(labels, targets, strict=True):
            self.matrix.update_image(one, target, self.label_set.ignore_index)
        return [one if wanted else None for one, wanted in zip(labels, shown, strict=True)]

    def _add_scores(
        self, images: Sequence[Tensor], targets: Sequence[Tensor], shown: Sequence[bool]
    ) -> list[Tensor | None]:
        """Do as `_add_group`, straight from the low-resolution scores."""
        main, _, grid, _ = self.model.scores(self._tensor(images, self.model.preprocess), aux=False)
        labels: list[Tensor | None] = []
        for scores, target, wanted in zip(main.split(1), targets, shown, strict=True):
            there = target[None].to(main.device)
            counts = upsample_confusion(scores, there, grid, ignore_index=self.label_set.ignore_index)
            self.matrix.merge(counts, by_image=True)
            size = (target.shape[0], target.shape[1])
            labels.append(upsample_argmax(scores, grid, size)[0] if wanted else None)
        return labels

    def _resized(self, images: Sequence[Tensor]) -> Tensor:
        """Return the labels (B, H, W) of images that the network sees resized."""
        tensor = self._tensor(images, self.model.preprocess)
        scores = self.model.scores(tensor, aux=False)
        seen, size = ((one.shape[-2], one.shape[-1]) for one in (tensor, images[0]))
        return sample_resized(upsample_argmax, scores.main, scores.grid, seen, size).cpu()

    def _averaged(self, images: Sequence[Tensor]) -> Tensor:
        """Return the labels (B, H, W) of softmax probabilities averaged over scales and mirror images."""
        probabilities = self._probabilities(images)
        total = next(probabilities)
        for more in probabilities:
            total += more
        return total.argmax(1).cpu()

    def _probabilities(self, images: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield softmax probabilities (B, K, H, W), one for each scale, and mirrored."""
        size = (images[0].shape[1], images[0].shape[2])
        shorter = min(fit_size(size, self.model.preprocess))
        for scale in self.scales:
            preprocess = self.model.preprocess
            if scale != 1:
                preprocess = preprocess.replace(resize=max(1, round(shorter * scale)), longer_side=None)
            tensor = self._tensor(images, preprocess)
            for mirrored in (False, True) if self.flip else (False,):
                scores = self.model.scores(tensor.flip(3) if mirrored else tensor, aux=False)
                logits = upsample(scores.main, scores.grid, (tensor.shape[2], tensor.shape[3])).float()
                logits = logits.flip(3) if mirrored else logits
                if logits.shape[2:] != size:
                    logits = F.interpolate(logits, size=size, mode="bilinear")
                yield logits.softmax(1)

    def _tensor(self, images: Sequence[Tensor], preprocess: Preprocess) -> Tensor:
        device, dtype = next(self.model.parameters()).device, self.model.dtype
        return torch.cat([to_tensor(image, preprocess, device=device, dtype=dtype) for image in images])


def _check_arguments(images: int, batch_size: int, scales: tuple[float, ...]) -> None:
    if images == 0:
        raise ValueError("the data set is empty")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise ValueError(f"scales must be one or more positive factors, got {scales}")


def _length(dataset: Dataset[Any]) -> int:
    if not isinstance(dataset, Sized):
        raise TypeError(f"the data set must have a length; {type(dataset).__name__} has none")
    return len(dataset)


def _label_set(model: FCN, dataset: Dataset[Any]) -> LabelSet:
    """Return the classes that masks hold, if they are the model's too."""
    known = getattr(dataset, "label_set", None)
    if known is None:
        return model.label_set or generic_label_set(model.num_classes)
    if len(known) != model.num_classes:
        raise ValueError(f"the model has {model.num_classes} classes, the data set {len(known)} ({known.name!r})")
    names = model.label_set.names if model.label_set is not None else known.names
    for i, (ours, theirs) in enumerate(zip(names, known.names, strict=True)):
        if ours != theirs:
            raise ValueError(
                f"class {i} is {ours!r} for the model and {theirs!r} in the data set ({known.name!r}); "
                "if they mean the same, set dataset.label_set = model.label_set"
            )
    return known


def _check_pair(image: object, target: object, index: int) -> None:
    if not (isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3):
        got = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f"image {index} must be uint8 (C, H, W), got {got}; give the data set without a transform: "
            "evaluate applies the model's own preprocessing"
        )
    if not (isinstance(target, Tensor) and target.shape == image.shape[1:]):
        got = str(tuple(target.shape)) if isinstance(target, Tensor) else type(target).__name__
        raise ValueError(f"mask {index} must be {tuple(image.shape[1:])} as its image, got {got}")


def _as_pairs(samples: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Collate nothing: images may differ in size."""
    return [tuple(part.as_subclass(Tensor) if isinstance(part, Tensor) else part for part in pair) for pair in samples]  # pyright: ignore[reportReturnType]


def _describe(dataset: Dataset[Any]) -> str:
    split = getattr(dataset, "split", None)
    return type(dataset).__name__ + (f" {split}" if isinstance(split, str) else "")


def _track(loader: DataLoader[Any], progress: bool) -> Iterable[Any]:
    """Iterate with a bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    shown = progress and console.is_terminal
    return track(loader, "evaluating", total=len(loader), console=console, transient=True, disable=not shown)


def _spread(count: int) -> list[int]:
    """Return up to `PICTURE_ROWS` indices, evenly spaced over `count` images."""
    rows = min(PICTURE_ROWS, count)
    return [round(i * (count - 1) / max(rows - 1, 1)) for i in range(rows)]
