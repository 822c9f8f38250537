"""`fcnzoo evaluate`: measure a network on a data set."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnzoo.cli.console import Device, complain, pick_device, prepare_file, print_table, say
from fcnzoo.config.spec import Layout

if TYPE_CHECKING:
    from fcnzoo.data import SegmentationDataset
    from fcnzoo.inference.evaluation import Evaluation
    from fcnzoo.model.fcn import FCN


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of a saved model, or name of a zoo model with trained weights.", show_default=False
        ),
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder of the data set.", show_default=False)],
    dataset: Annotated[
        Layout, typer.Option("--dataset", help="Its layout; folder: images/ and masks/ of the model's own classes.")
    ] = "folder",
    split: Annotated[
        str | None, typer.Option("--split", help="Which split. Default: val; for folder, the folder itself.")
    ] = None,
    mapping: Annotated[
        str | None,
        typer.Option("--mapping", help="For folder: mask values and their classes: 255=1,128=2.", show_default=False),
    ] = None,
    ignore: Annotated[
        str | None, typer.Option("--ignore", help="For folder: mask values that do not count: 7,9.", show_default=False)
    ] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    scales: Annotated[
        str, typer.Option("--scales", help="Average over these factors of the image size: 0.75,1,1.25.")
    ] = "1",
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images read at once.")] = 1,
    num_workers: Annotated[int, typer.Option("--num-workers", min=0, help="Processes that read images.")] = 0,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for all figures, as JSON.", show_default=False)
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option("--pictures", help="File for photo, truth and prediction of 8 images.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite files that exist.")] = False,
) -> None:
    """Measure a network on a data set.

    Prints IoU and accuracy of every class, and their means, in percent; void pixels take no part, and
    everything is measured at the masks' own size.
    """
    from fcnzoo.data.presence import absent_classes, describe_masks
    from fcnzoo.files.atomic import atomic
    from fcnzoo.files.keys import listed
    from fcnzoo.inference.evaluation import evaluate as run
    from fcnzoo.weights.factory import resolve_model

    factors, values, void = _factors(scales), _numbers(mapping), _values(ignore)
    for file, option in ((out, "--out"), (pictures, "--pictures")):
        if file is not None:
            prepare_file(file, option, force=force)
    network = resolve_model(model)
    pairs = _dataset(network, dataset, data, split, values, void)
    result = run(
        network,
        pairs,
        batch_size=batch_size,
        flip=flip,
        scales=factors,
        device=pick_device(device),
        num_workers=num_workers,
        picture_grid=pictures,
    )
    if out is not None:
        with atomic(out, "w") as file:
            file.write(result.to_json())
    _print(result)
    absent = absent_classes(pairs) if dataset == "folder" and pairs.count_ignored() else ()
    if absent:  # are they what is ignored? With 0/255 masks everything would be right
        complain(f"no pixel of {listed(absent)} in the masks. {describe_masks(pairs)}")


def _factors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of factors such as 0.75,1,1.25", param_hint="--scales") from None


def _numbers(text: str | None) -> dict[int, int]:
    try:
        pairs = [part.split("=") for part in text.split(",")] if text else []
        return {int(value): int(label) for value, label in pairs}
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not like 255=1,128=2", param_hint="--mapping") from None


def _values(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of values such as 7,9", param_hint="--ignore") from None


def _dataset(
    model: FCN, layout: Layout, root: Path, split: str | None, mapping: Mapping[int, int], ignore: Sequence[int]
) -> SegmentationDataset:
    from fcnzoo.data import open_dataset
    from fcnzoo.labels import generic_label_set

    if layout != "folder":
        return open_dataset(layout, root, split or "val", mapping=mapping, ignore=ignore)
    label_set = model.label_set or generic_label_set(model.num_classes)
    return open_dataset("folder", root, split, label_set=label_set, mapping=mapping, ignore=ignore)


def _print(result: Evaluation) -> None:
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(result.table())
        return
    print_table(("class", "IoU %", "accuracy %"), result.metrics.rows())
    if result.metrics.absent:
        absent = ", ".join(result.metrics.absent)
        say(f"fcnzoo: neither in the truth nor predicted, in no mean: {absent}", err=True)
