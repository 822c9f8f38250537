"""`fcnzoo segment`: label every pixel of images and folders of images."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnzoo.cli.console import Device, complain, one_line, pick_device, print_table, shown

if TYPE_CHECKING:
    from fcnzoo.images.segmentation import Segmentation
    from fcnzoo.inference.predictor import Predictor

SUFFIXES = {"overlay": ".fcnzoo.overlay.png", "labels": ".fcnzoo.labels.png", "json": ".fcnzoo.json"}
"""What is put after an image's stem, by kind of output."""

_OWN_OUTPUT = re.compile(r"\.fcnzoo\.(overlay|labels)\.png$")

BAD_IMAGE = (ValueError, TypeError, OSError, MemoryError, RuntimeError)
"""What one image may raise while the others go on; a full GPU raises RuntimeError."""


class Kind(StrEnum):
    """What to write for each image."""

    overlay = "overlay"
    labels = "labels"
    json = "json"
    all = "all"


@dataclass(frozen=True)
class Job:
    """One image and the files to write for it, by kind."""

    image: Path
    outputs: dict[str, Path]


def segment(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Images, or folders of images.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Name of a zoo model, or folder of a saved one. Default: the shipped model."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the results. Default: beside each image.")
    ] = None,
    kind: Annotated[Kind, typer.Option("--kind", "-k", help="What to write for each image.")] = Kind.overlay,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite results that exist.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search folders within folders, too.")] = False,
    device: Device = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Fold BatchNorm, use the fastest precision; labels at borders may change."),
    ] = False,
    tile: Annotated[
        int | None,
        typer.Option("--tile", min=1, help="Segment larger images in tiles of so many pixels.", show_default=False),
    ] = None,
    alpha: Annotated[float, typer.Option("--alpha", min=0, max=1, help="Share of the colors in the overlay.")] = 0.5,
    legend: Annotated[bool, typer.Option("--legend/--no-legend", help="Draw the legend below the overlay.")] = True,
    max_pixels: Annotated[
        int | None,
        typer.Option("--max-pixels", min=1, help="Largest image (width × height) to decode.", show_default=False),
    ] = None,
) -> None:
    """Label every pixel of images.

    Writes `<stem>.fcnzoo.overlay.png` (the image under the class colors, with a legend),
    `<stem>.fcnzoo.labels.png` (indexed: pixel values are the classes) and `<stem>.fcnzoo.json` (class areas),
    and prints the largest classes of each image. Goes on after a bad image, and ends with exit code 1 if there was one.
    """
    images, problems = find_images(paths, recursive=recursive)
    jobs, clashes = plan(images, out, list(SUFFIXES) if kind is Kind.all else [kind.value], force=force)
    problems += clashes
    for problem in problems:
        complain(problem)
    if not jobs:
        if not problems:
            complain("no images to segment")
        raise typer.Exit(1)
    from fcnzoo.inference.predictor import Predictor

    predictor = Predictor(model, device=pick_device(device), fast=fast, tile=tile)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # where it cannot be made, that is one error and not one per image
    debug = bool(ctx.find_root().params.get("debug"))
    failed = _run(jobs, predictor, max_pixels=max_pixels, alpha=alpha, legend=legend, debug=debug)
    if problems or failed:
        raise typer.Exit(1)


def find_images(paths: Sequence[Path], *, recursive: bool = False) -> tuple[list[tuple[Path, Path]], list[str]]:
    """List the images that paths stand for, each once.

    Files are taken whatever their suffix, folders give their images in the order of their names, without
    hidden files. Results of earlier runs are left out, with a note on stderr.

    Returns:
        (image, its folder below the path that was given) for each, and one line per path that is nothing.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    problems: list[str] = []
    own = 0
    for path in paths:
        if not path.exists():
            problems.append(_missing(path))
            continue
        for file in _images_below(path, recursive, problems) if path.is_dir() else [path]:
            if _OWN_OUTPUT.search(file.name):
                own += 1
            else:
                found.setdefault(file.resolve(), (file, file.relative_to(path).parent if file != path else Path()))
    if own:
        complain(f"left out {own} {'result' if own == 1 else 'results'} of earlier runs (*.fcnzoo.*.png)")
    return list(found.values()), problems


def _missing(path: Path) -> str:
    from fcnzoo.images.load import refuse_url

    try:
        refuse_url(path)
    except ValueError as error:
        return str(error)
    return f"{path}: no such file or folder"


def _images_below(folder: Path, recursive: bool, problems: list[str]) -> list[Path]:
    """List the images in a folder; one that cannot be read, or holds none, is a problem."""
    from fcnzoo.images.load import IMAGE_SUFFIXES

    images: list[Path] = []
    unreadable: list[str] = []
    for root, folders, names in os.walk(folder, onerror=lambda error: unreadable.append(one_line(error))):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        images += [Path(root, name) for name in sorted(names) if not name.startswith(".")]
    images = [image for image in images if image.suffix.lower() in IMAGE_SUFFIXES]
    problems += unreadable
    if not images and not unreadable:
        deeper = "" if recursive else "; folders within it are searched with --recursive"
        problems.append(f"{folder}: no images in this folder ({' '.join(IMAGE_SUFFIXES)}){deeper}")
    return images


def plan(
    images: Sequence[tuple[Path, Path]], out: Path | None, kinds: Sequence[str], *, force: bool
) -> tuple[list[Job], list[str]]:
    """Say which files will be written for which image.

    With `out`, images found in folders within a folder keep that structure.

    Returns:
        The jobs; and one line per image that would overwrite what is there, or what another one writes.

    Raises:
        NotADirectoryError: `out` is a file.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out {out} is a file; give a folder")
    jobs: dict[Path, Job] = {}
    problems: list[str] = []
    for image, below in images:
        job = _job(image, image.parent if out is None else out / below, kinds)
        first = next(iter(job.outputs.values()))  # one stands for all: they share folder and stem
        other = jobs.setdefault(first.resolve(), job)
        existing = [] if force else [str(output) for output in job.outputs.values() if output.exists()]
        if other is not job:
            problems.append(f"{image}: not segmented, {other.image} goes to {first} too; give it an --out of its own")
        elif existing:
            problems.append(f"{image}: not segmented, there is {', '.join(existing)} already; --force overwrites")
            jobs[first.resolve()] = Job(image, {})
    return [job for job in jobs.values() if job.outputs], problems


def _job(image: Path, folder: Path, kinds: Sequence[str]) -> Job:
    return Job(image, {kind: folder / f"{image.stem}{SUFFIXES[kind]}" for kind in kinds})


def _run(
    jobs: Sequence[Job], predictor: Predictor, *, max_pixels: int | None, alpha: float, legend: bool, debug: bool
) -> int:
    """Segment and write; print one line for each image that fails, then a table of the others.

    Returns:
        How many images failed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fcnzoo.images.load import MAX_PIXELS, load_image

    rows: list[tuple[str, str, str]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        warnings.catch_warnings(),
        Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress,
    ):
        # Pillow's warnings are on the size, where load_image has a limit of its own, and on broken EXIF data.
        warnings.filterwarnings("ignore", module="PIL")
        for job in progress.track(jobs, description="segmenting"):
            try:
                result = predictor(load_image(job.image, max_pixels=max_pixels or MAX_PIXELS))
                for kind, output in job.outputs.items():
                    result.save(output, kind, alpha=alpha, legend=legend)  # pyright: ignore[reportArgumentType]
            except BAD_IMAGE as error:
                if debug:
                    raise
                complain(_naming(job.image, error))
                continue
            rows.append((shown(job.image), _largest(result), _written(job)))
    if rows:
        print_table(("image", "largest classes", "written"), rows)
    return len(jobs) - len(rows)


def _written(job: Job) -> str:
    """Return the paths of a job's results, those of several kinds as the shell's braces."""
    first = shown(next(iter(job.outputs.values())))
    if len(job.outputs) == 1:
        return first
    stem, mark, _ = first.rpartition(".fcnzoo.")
    return f"{stem}{mark}{{{','.join(SUFFIXES[kind].removeprefix(mark) for kind in job.outputs)}}}"


def _naming(image: Path, error: Exception) -> str:
    text = "not enough memory" if isinstance(error, MemoryError) else one_line(error)
    return text if str(image) in text else f"{image}: {text}"


def _largest(result: Segmentation) -> str:
    """Return the three largest classes, and how much of the image each covers."""
    from fcnzoo.images.visualize import percent

    return ", ".join(f"{name} {percent(share)}" for name, share in list(result.areas().items())[:3])
