"""`fcnzoo mirror`: trained weights in a folder, for machines that reach no network."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from fcnzoo.cli.console import complain, say, shown


def mirror(
    models: Annotated[
        list[str], typer.Argument(help="Names with trained weights: fcn_resnet50.coco_voc, …", show_default=False)
    ],
    to: Annotated[Path, typer.Option("--to", help="Folder; made if it is missing.", show_default=False)],
) -> None:
    """Write weights into a folder that works as `FCNZOO_MIRROR`, there or behind any web server.

    What is there already and whole stays as it is. Prints one line per model: name, sha256, folder.
    Exit code 1 if any could not be had.
    """
    from fcnzoo.errors import FCNZooError

    failed = False
    for name in models:
        try:
            folder, digest = copy(name, to)
        except (FCNZooError, OSError, ImportError) as error:
            complain(f"{name}: {error}")
            failed = True
            continue
        say(f"{name}\t{digest}\t{shown(folder)}")
    if failed:
        raise typer.Exit(1)
    say(f"set FCNZOO_MIRROR={shown(to.resolve())} where these are to be used", err=True)


def copy(name: str, to: Path) -> tuple[Path, str]:
    """Put the weights of a model into a mirror.

    Args:
        name: The model's, with or without a tag.
        to: The mirror.

    Returns:
        Their folder in the mirror, and the sha256 of the weights file.

    Raises:
        UnknownModelError: Nothing is called so.
        WeightsError: It has no trained weights, or they cannot be had.
    """
    from fcnzoo.files.parts import sweep
    from fcnzoo.files.staging import replaced_folder
    from fcnzoo.weights import bundle
    from fcnzoo.weights.factory import pretrained_weights
    from fcnzoo.weights.folder import CARD_FILE, WEIGHTS_FILE
    from fcnzoo.weights.sources import bundle_name, find

    spec, weights = pretrained_weights(name)
    source = find(spec, weights)
    folder = to / bundle_name(spec, weights)
    sweep(to, f".{folder.name[:50]}.", ".part")  # what a kill left, also where nothing is to be done
    if not _same(folder, source):
        with replaced_folder(folder) as temporary:
            for file in (*bundle.NEEDED, CARD_FILE):  # the Hub client's folder may hold others, unchecked
                if (source / file).is_file():
                    shutil.copyfile(source / file, temporary / file)
            bundle.write_digests(temporary)
        bundle.check_digests(folder, weights.sha256)
    return folder, bundle.read_digests(folder)[WEIGHTS_FILE]


def _same(folder: Path, source: Path) -> bool:
    """Whether a folder of the mirror is whole and holds what the source does."""
    from fcnzoo.errors import WeightsError
    from fcnzoo.files.digests import hash_file
    from fcnzoo.weights import bundle
    from fcnzoo.weights.folder import CONFIG_FILE, WEIGHTS_FILE

    try:
        bundle.check_digests(folder, hash_file(source / WEIGHTS_FILE))
        return bundle.read_digests(folder)[CONFIG_FILE] == hash_file(source / CONFIG_FILE)
    except WeightsError:
        return False
