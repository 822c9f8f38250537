"""`fcnzoo publish`: from the authors' file to a Hub repository, and the lines that pin it in the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcnzoo.cli.console import complain, say


def publish(
    model: Annotated[
        str, typer.Argument(help="Name with trained weights, or folder of a saved model.", metavar="MODEL")
    ],
    repo_id: Annotated[str, typer.Argument(help="Where to: org/name.", metavar="REPO")],
    file: Annotated[
        Path | None,
        typer.Option("--file", help="The authors' file, if you have it; else it is fetched.", show_default=False),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch to commit to.", show_default=False)] = None,
    sample: Annotated[
        Path | None, typer.Option("--sample", help="Picture to segment for the card.", show_default=False)
    ] = None,
    overwrite_card: Annotated[bool, typer.Option("--overwrite-card", help="Replace a README that is there.")] = False,
) -> None:
    """Convert if need be, push to the Hub, and print what pins the result in the registry.

    The lines on stdout are the arguments of the entry's `Weights(…)`.
    """
    from fcnzoo.inference.predictor import Predictor
    from fcnzoo.weights.folder import read_record
    from fcnzoo.weights.load import load
    from fcnzoo.weights.push import digest_of_weights, push_to_hub

    folder = _folder(model, file)
    record = read_record(folder)
    if record.license is None:
        complain(f"{model} says no license, so the card will name none; save it with license= if there is one")
    network = load(folder, verify=True)  # what is damaged here must not get a digest of its own there
    commit = push_to_hub(
        network,
        repo_id,
        private=private or None,
        revision=revision,
        license=record.license,
        datasets=record.datasets,
        metrics=record.metrics,
        provenance=record.provenance,
        sample=None if sample is None else Predictor(network)(sample).overlay(),
        overwrite_card=overwrite_card,
    )
    say(f'hub="{repo_id}",', f'revision="{commit}",', f'sha256="{digest_of_weights(repo_id, commit)}",')


def _folder(model: str, file: Path | None) -> Path:
    """Return the folder of weights to publish."""
    from fcnzoo.weights.factory import is_folder, pretrained_weights
    from fcnzoo.weights.sources import find

    if is_folder(model):
        if file is not None:
            raise typer.BadParameter("goes with the name of a model, not with a folder", param_hint="--file")
        return Path(model)
    return find(*pretrained_weights(model), original=file)
