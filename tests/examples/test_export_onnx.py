"""examples/export_onnx.py: a file of the shipped model, run without fcnzoo and PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from examples.conftest import FOLDER, RunExample
from PIL import Image

import fcnzoo


def test_the_file_runs_without_fcnzoo(run_example: RunExample, tmp_path: Path) -> None:
    """A process that cannot import fcnzoo or torch gives the labels that `Predictor` gives, in the classes' colors."""
    run_example("export_onnx.py", "write", "model.onnx")
    photo = FOLDER / "cat.jpg"
    code = (
        "import sys, runpy\n"
        "sys.modules['fcnzoo'] = sys.modules['torch'] = None\n"  # importing these is an error now
        f"sys.argv = ['x', 'run', 'model.onnx', {str(photo)!r}, '--out', 'street.png']\n"
        f"runpy.run_path({str(FOLDER / 'export_onnx.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = fcnzoo.Predictor()(photo)
    with Image.open(tmp_path / "street.png") as picture:
        labels, palette = np.array(picture), picture.getpalette()
    assert (labels == expected.labels).mean() > 0.9999  # ties are told either way
    assert palette is not None
    assert palette[: 3 * 21] == [value for color in expected.label_set.palette for value in color]
    largest, share = next(iter(expected.areas().items()))
    assert done.stdout.startswith(f"{largest} {share:.0%}, ")
