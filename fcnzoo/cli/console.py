"""What all commands print alike: error lines, tables."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import typer


def one_line(error: BaseException | str) -> str:
    """Return an error's text on one line; the name of its type if it has none."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


def complain(error: BaseException | str) -> None:
    """Print one line to stderr."""
    typer.echo(f"fcnzoo: {one_line(error)}", err=True)


def shown(path: Path) -> str:
    """Return a path as it can be printed: on one line, whatever bytes its name has."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", os.fsencode(path).decode("utf-8", "replace"))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout: drawn on a terminal, tab-separated without headers elsewhere, as `gh` does."""
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))  # Text: a "[" in a name is no markup
    Console().print(table)
