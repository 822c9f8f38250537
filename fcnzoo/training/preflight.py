"""What can be found wrong before the first step: folder, disk, extras, one batch through."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fcnzoo.data.presence import absent_classes, describe_masks
from fcnzoo.errors import LabelError
from fcnzoo.files.keys import listed
from fcnzoo.ops import check_labels

if TYPE_CHECKING:
    from fcnzoo.data import SegmentationDataset
    from fcnzoo.model.fcn import FCN
    from fcnzoo.training.recipe import Recipe
    from fcnzoo.training.sampling import Batch


def check_extras(recipe: Recipe) -> None:
    """Raise `ImportError` now for a package that the run would want at its end."""
    wanted = {"accelerate": "training", "rich": "the progress bar (run.progress=false)"}
    if not recipe.run.progress:
        wanted.pop("rich")
    if recipe.run.tensorboard:
        wanted["tensorboard"] = "run.tensorboard=true"
    if recipe.run.plots:
        wanted["matplotlib"] = "run.plots=true"
    missing = [f"{name} (for {why})" for name, why in wanted.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"not installed: {', '.join(missing)}; pip install 'fcnzoo[train]'")


def check_folder(out: Path, bytes_needed: int) -> None:
    """Write to the output folder, and claim for a moment the space that the run's files will take.

    Args:
        out: Output folder; made if it is missing.
        bytes_needed: Size of all that the run will keep at one time.

    Raises:
        OSError: The folder cannot be made or written, or the disk (or quota) is too small.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"fcnzoo")
            file.flush()
            free = shutil.disk_usage(out).free
            if free < bytes_needed:
                raise OSError(f"{_size(free)} are free there")
            if hasattr(os, "posix_fallocate") and bytes_needed:
                os.posix_fallocate(file.fileno(), 0, bytes_needed)
    except OSError as error:
        raise OSError(
            f"cannot train into {out}: {error}. The run needs a writable folder with {_size(bytes_needed)} "
            "for checkpoints and weights; choose another --out, or lower run.keep_last"
        ) from error


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def bytes_of_run(recipe: Recipe, model: FCN) -> int:
    """Return an upper estimate of the disk space a run takes at one time."""
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    per_checkpoint = weights * (1 + (recipe.optim.ema > 0) + (2 if recipe.optim.optimizer == "adamw" else 1))
    # One checkpoint more than are kept while a new one is written; best/ and final/, each with its successor.
    return per_checkpoint * (recipe.run.keep_last + 1) + 4 * weights + (50 << 20)


def check_classes(recipe: Recipe, splits: Mapping[str, SegmentationDataset]) -> None:
    """Raise where there is little or nothing to learn from.

    Args:
        recipe: Says what is allowed.
        splits: The training split first, by what errors call them.

    Raises:
        LabelError: More than `data.max_ignored` of a split's pixels are ignored; or, for classes that the recipe
            names, the training masks hold no pixel of one, and `data.allow_missing` is not set.
    """
    for name, dataset in splits.items():
        ignored = dataset.count_ignored()
        share = ignored / max(1, ignored + int(dataset.count_pixels().sum()))
        if share > recipe.data.max_ignored:
            raise LabelError(
                f"{share:.1%} of the {name} split's pixels are ignored, more than data.max_ignored = "
                f"{recipe.data.max_ignored}. {describe_masks(dataset)}, or raise data.max_ignored"
            )
    train = next(iter(splits.values()))
    absent = absent_classes(train)
    if absent and recipe.data.dataset == "folder" and not recipe.data.allow_missing:
        raise LabelError(
            f"no pixel of {listed(map(repr, absent))} in the "
            f"{len(train)} training masks. {describe_masks(train)}, or set data.allow_missing = true"
        )


def labels_seen(target: Tensor, model: FCN) -> dict[str, float]:
    """Return the share of each class in a target, and of the pixels that are ignored.

    Raises:
        LabelError: A value is no class, or nothing in the target counts.
    """
    config = model.config
    check_labels(target, config.num_classes, config.loss.ignore_index)
    names = config.label_set.names if config.label_set else tuple(f"class {i}" for i in range(config.num_classes))
    counted = target[target != config.loss.ignore_index].long()
    if not counted.numel():
        raise LabelError(
            f"every pixel of the first batch is ignored (value {config.loss.ignore_index}): nothing to learn from"
        )
    counts = torch.bincount(counted, minlength=len(names))
    seen = {name: int(count) / target.numel() for name, count in zip(names, counts.tolist(), strict=True) if count}
    return {**seen, "ignored": 1 - counted.numel() / target.numel()}


def try_batch(model: FCN, objective: Callable[[Tensor, Tensor], Tensor], batch: Batch, device: torch.device) -> float:
    """Send one batch forward and backward, and leave the model and the random state as they were.

    Finds labels out of range, a criterion that does not fit, too little memory, and a loss that is
    not a number, in the first seconds.

    Returns:
        The loss of the batch.

    Raises:
        ValueError: The loss is not a finite scalar.
    """
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        loss = objective(batch.image.to(device), batch.target.to(device))
        if loss.ndim or not torch.isfinite(loss):
            raise ValueError(
                f"the loss of the first batch must be a finite scalar, got {loss.detach()!r}; check criterion and data"
            )
        loss.backward()
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
    return float(loss.detach())
