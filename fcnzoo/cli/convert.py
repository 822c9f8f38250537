"""`fcnzoo convert`: somebody else's checkpoint made a folder of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcnzoo.cli.console import say, shown
from fcnzoo.config.spec import Converter


def convert(
    source: Annotated[Converter, typer.Argument(help="Whose code wrote the checkpoint.", show_default=False)],
    file: Annotated[Path, typer.Argument(help="The checkpoint: .pth, .caffemodel or .tflite.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write, for `fcnzoo.load`.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model that it must hold, such as fcn8s_vgg16.", show_default=False),
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", min=1, help="Classes that it must have.", show_default=False)
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", help="Digest that it must have, or its first 8 digits or more.", show_default=False),
    ] = None,
    fold_input: Annotated[
        bool,
        typer.Option("--fold-input", help="Let a network of torchfcn or Caffe take RGB pictures of 0–1."),
    ] = False,
    ema: Annotated[
        bool, typer.Option("--ema", help="Take the averaged weights of a PyTorch file (model_ema, ema, …).")
    ] = False,
    license: Annotated[
        str | None,
        typer.Option("--license", help="License of the weights, for the card; none is assumed.", show_default=False),
    ] = None,
) -> None:
    """Convert a checkpoint of torchvision, torchfcn, Caffe, mmsegmentation or DeepLab.

    Every weight must find its place, or nothing is written. No code in the file is run.
    """
    from fcnzoo.weights.converters.convert import convert as run
    from fcnzoo.weights.save import save

    network = run(
        source,
        file,
        model=model,
        num_classes=num_classes,
        sha256=sha256,
        fold_input=fold_input,
        ema=ema,
    )
    save(network, out, provenance=network.provenance, license=license)
    labels = network.label_set.name if network.label_set else "unnamed"
    say(f"{shown(out)}: {network.config.backbone.name}, {network.num_classes} classes ({labels})")
    if "left_out" in network.provenance:
        say(f"left out: {network.provenance['left_out']}", err=True)
    say(f"sha256 of the source: {network.provenance['sha256']}", err=True)
