"""Graphs as files of `torch.export`."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import torch
from torch.utils._sympy.value_ranges import ValueRanges

from fcnzoo.inference.exporters.about import About
from fcnzoo.inference.exporters.check import Run

ABOUT_FILE = "fcnzoo.json"
"""Name of the metadata among a `.pt2` file's extra files."""


def forget_example(program: torch.export.ExportedProgram) -> None:
    """Let a graph take the sizes that PyTorch, while tracing, took to be others; leave the example out of the file.

    Tracing writes down what was true of the example ("there is more than one window", "height ≥ 33") wherever an
    operation might have returned a view, say, and a loaded graph refuses images of which it is not. The operations in
    the graph are the same either way: that is checked, by running it on such sizes, before a file is written.
    """
    guards = getattr(program, "_guards_code", None)  # PyTorch 2.9 and later
    if guards:
        guards.clear()
    program._example_inputs = None  # 22 MB of zeros in every file otherwise
    for symbol, allowed in list(program.range_constraints.items()):
        program.range_constraints[symbol] = ValueRanges(1, allowed.upper)


def to_file(program: torch.export.ExportedProgram, about: About) -> bytes:
    """Return the bytes of a `.pt2` file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about itself
        torch.export.save(program, buffer, extra_files={ABOUT_FILE: json.dumps(about.texts(), ensure_ascii=False)})
    return buffer.getvalue()


def runner(file: bytes, outputs: tuple[str, ...]) -> Run:
    """Return a function that runs a `.pt2` file, loaded anew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.export.load(io.BytesIO(file)).module()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = graph(torch.from_numpy(images))
        return {name: tensor.numpy() for name, tensor in zip(outputs, found, strict=True)}

    return run
