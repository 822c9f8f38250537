"""`fcnzoo train`: train a model by a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcnzoo.cli.console import complain, say, shown


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A built-in recipe (see --list), or a .toml file. Not needed with --resume.", show_default=False
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Folder of the data set.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output folder; new or empty.", show_default=False)
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default=False)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures per step, over all processes.", show_default=False)
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the head (optim.lr).", show_default=False)] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of weights, order, augmentation, dropout.", show_default=False)
    ] = None,
    num_workers: Annotated[int | None, typer.Option(help="Processes that read pictures.", show_default=False)] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Train on the CPU even if there is a GPU.")] = False,
    init_from: Annotated[
        Path | None, typer.Option(help="Folder of a finished model to start from.", show_default=False)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", help="Any field of the recipe: --set optim.ema=0.999.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List the built-in recipes, and stop.")] = False,
) -> None:
    """Train a model by a recipe.

    Writes checkpoints, the best and the last weights (folders for --model), a log and plots into --out. A run that
    was stopped, even by a power cut, goes on with `fcnzoo train --resume --out FOLDER` as if nothing had happened.
    Several processes: `accelerate launch -m fcnzoo train …`.
    """
    from fcnzoo.training import Recipe, list_recipes
    from fcnzoo.training import train as run

    if list_all:
        for name in list_recipes():
            say(f"{name}\t{' '.join(Recipe.load(name).description.split())}")
        return
    options = {
        "data.root": data,
        "run.out": out,
        "schedule.epochs": epochs,
        "optim.batch_size": batch_size,
        "optim.lr": lr,
        "run.seed": seed,
        "data.num_workers": num_workers,
        "run.device": "cpu" if cpu else None,
        "model.init_from": init_from,
    }
    if recipe is None:
        if not resume or out is None:
            complain(f"which recipe? Give one of {', '.join(list_recipes())}, a .toml file, or --resume with --out")
            raise typer.Exit(2)
        recipe = str(out)
    chosen = Recipe.load(
        recipe, [f"{key}={_toml(value)}" for key, value in options.items() if value is not None] + (changes or [])
    )
    try:
        result = run(chosen, resume=resume)
    except KeyboardInterrupt:
        complain(f"stopped; go on with: fcnzoo train --resume --out {chosen.run.out}")
        raise typer.Exit(130) from None
    say(f"best val mean IoU {result.mean_iou:.4f} (epoch {result.epoch}): {shown(result.out / 'best')}")


def _toml(value: object) -> str:
    """Write an option's value as TOML; a path is always text, even if it looks like a number."""
    import json

    return json.dumps(str(value), ensure_ascii=False) if isinstance(value, str | Path) else str(value)
