"""The command line: `fcnzoo list`, `info`, `segment`, ….

Each command is a function in a module of its own, which imports what is heavy (torch, timm) only
when it runs, so that `fcnzoo --help` and `fcnzoo list` answer at once.

Exit codes: 0 all done; 1 bad input, told in one line per problem on stderr; 2 wrong usage.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fcnzoo.cli import convert, evaluate, export, info, mirror, publish, segment, train, verify
from fcnzoo.cli import list as list_
from fcnzoo.cli.console import complain
from fcnzoo.errors import FCNZooError
from fcnzoo.version import __version__

COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_.list_models,
    "info": info.info,
    "segment": segment.segment,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "convert": convert.convert,
    "export": export.export,
    "verify": verify.verify,
    "mirror": mirror.mirror,
    "publish": publish.publish,
}
"""Every command by its name, in the order of `--help`."""

BAD_INPUT = (
    FCNZooError, ValueError, TypeError, OSError, ImportError, MemoryError, FloatingPointError, RecursionError,
)  # fmt: skip
"""What the library raises for bad input, or where a run diverges: told on stderr, no traceback (unless `--debug`)."""


class _Commands(TyperGroup):
    """The group of commands, which turns the library's errors into one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of our output has gone; Typer ends quietly
        except BAD_INPUT as error:
            if ctx.params.get("debug"):
                raise
            complain(error)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    name="fcnzoo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fcnzoo {__version__}")
        raise typer.Exit


@app.callback()
def fcnzoo(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Fully convolutional networks for semantic segmentation."""


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """Run the command line; the entry point of the `fcnzoo` script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not lose the line
            stream.reconfigure(errors="backslashreplace")
    app()
