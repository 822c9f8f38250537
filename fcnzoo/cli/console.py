"""What several commands do alike: error lines, tables, files to write, the device."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from fcnzoo.files.atomic import is_special

Device: TypeAlias = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps. Default: cuda if there is one.")
]
"""The option of every command that runs a network; `pick_device` turns it into a device."""


def pick_device(device: Device) -> str:
    """Return the device that was asked for; if none was, a GPU where there is one."""
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def prepare_file(file: Path, option: str, *, force: bool) -> None:
    """Make the folder of a file to write, and refuse what cannot be written: better told before the work than after.

    Raises:
        IsADirectoryError: It is a folder.
        FileExistsError: It exists, and `force` is not given.
        OSError: Its folder cannot be made.
    """
    if file.is_dir():
        raise IsADirectoryError(f"{option} {file} is a folder; give a file")
    if is_special(file):
        return  # a device or a pipe is written to, never replaced
    if file.exists() and not force:
        raise FileExistsError(f"{file} exists; give another {option}, or --force to overwrite it")
    file.parent.mkdir(parents=True, exist_ok=True)


def one_line(error: BaseException | str) -> str:
    """Return an error's text on one line; the name of its type if it has none."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


def complain(error: BaseException | str) -> None:
    """Print an error to stderr: one line, or, where it lists problems, a line for each."""
    first, *more = [line.rstrip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    say(f"fcnzoo: {first}", *more, err=True)


def say(*lines: str, err: bool = False) -> None:
    """Print lines, whatever a name in them holds; all that commands print comes through here, or is drawn by rich."""
    typer.echo("\n".join(map(clean, lines)), err=err)


def clean(text: str) -> str:
    """Return a text without what a terminal would take for a command; only its spaces stay."""
    return re.sub(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", "?", text)


def shown(path: Path) -> str:
    """Return a path as it can be printed: on one line, whatever bytes its name has."""
    return clean(os.fsencode(path).decode("utf-8", "replace"))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout: drawn on a terminal, tab-separated without headers elsewhere, as `gh` does."""
    if not sys.stdout.isatty():
        for row in rows:
            say("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(clean(cell), overflow="fold") for cell in row))  # Text: a "[" in a name is no markup
    Console().print(table)
