"""`fcnzoo verify`: read weights again and check all that can be checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fcnzoo.cli.console import complain, say, shown

if TYPE_CHECKING:
    from fcnzoo.weights.verify import Verification


def verify(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Folders of saved models, names of zoo models with trained weights, or hf-hub:org/name.",
            show_default=False,
        ),
    ],
) -> None:
    """Hash weights anew, compare them with the network they belong to, and look for NaN and infinite values.

    Prints one line for each sound model: name, digest, tensors, bytes. Exit code 1 if any is not sound.
    """
    from fcnzoo.errors import FCNZooError

    failed = False
    for name in models:
        try:
            found = verify_source(name)
        except (FCNZooError, OSError, ValueError, ImportError) as error:
            complain(f"{name}: {error}")
            failed = True
            continue
        digest = found.sha256 if found.recorded else f"{found.sha256} (none recorded to compare with)"
        say(f"{shown(Path(name))}\tsha256 {digest}\t{found.tensors} tensors\t{found.size} bytes")
    if failed:
        raise typer.Exit(1)


def verify_source(name: str) -> Verification:
    """Verify the weights of a folder, a zoo model or a repository on the Hub.

    Raises:
        UnknownModelError: Nothing is called so.
        WeightsError: There are no weights, or they are not sound.
    """
    from fcnzoo.weights.factory import is_folder, pretrained_folder
    from fcnzoo.weights.verify import verify as run

    if name.startswith("hf-hub:"):
        from fcnzoo.weights.hub import pull

        return run(pull(name), fetched=True)
    if is_folder(name):
        return run(name)
    folder, sha256 = pretrained_folder(name)
    return run(folder, sha256=sha256, fetched=True)
