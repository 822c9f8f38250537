"""`fcnzoo export`: a network as one file that takes pictures and gives labels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fcnzoo.cli.console import prepare_file, say, shown


def export(
    model: Annotated[
        str, typer.Argument(help="Name of a zoo model with weights, or folder of a saved one.", show_default=False)
    ],
    to: Annotated[Literal["onnx", "pt2"], typer.Option("--to", help="ONNX, or PyTorch's exported program.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write. Default: the model's name in this folder.")
    ] = None,
    outputs: Annotated[
        str, typer.Option("--outputs", help="What the graph gives: labels, logits, scores, separated by commas.")
    ] = "labels",
    dtype: Annotated[Literal["float32", "float16"], typer.Option("--dtype", help="In which it computes.")] = "float32",
    opset: Annotated[int, typer.Option("--opset", min=18, help="Of ONNX.")] = 18,
    license: Annotated[
        str | None,
        typer.Option("--license", help="License of the weights. Default: what the model says.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite a file that exists.")] = False,
) -> None:
    """Write a network as one file: picture of bytes in, labels out, at any size.

    The file is run and compared with the network first; if it disagrees nothing is written.
    """
    from fcnzoo.inference.exporters.export import export as run

    name = re.sub(r"[^\w.-]+", "_", Path(model).name if Path(model).is_dir() else model)
    file = out or Path(f"{name}.{to}")
    prepare_file(file, "--out", force=force)
    wanted: Any = [one.strip() for one in outputs.split(",")]
    run(model, file, to, outputs=wanted, dtype=dtype, opset=opset, license=license)
    size = file.stat().st_size / 1e6
    say(f"{shown(file)}: {size:.1f} MB, image to {', '.join(wanted)}; compared with the network")
