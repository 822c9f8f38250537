"""Export a network to ONNX, then segment with onnxruntime only: no fcnzoo, no PyTorch where it runs.

    python examples/export_onnx.py write model.onnx
    python examples/export_onnx.py run model.onnx examples/cat.jpg --out cat.png

`run` needs numpy, Pillow and onnxruntime (`pip install onnxruntime pillow`): everything else is in the file, names and
colors of the classes too. `fcnzoo export everyday --to onnx` writes the same file in a shell.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image


def write(file: Path, model: str) -> None:
    """Export a network; the graph is compared with it before the file is written."""
    import fcnzoo

    fcnzoo.export(model, file, to="onnx")
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


def run(file: Path, photo: Path, out: Path) -> None:
    """Segment a photo of any size, and save its labels as a picture in the classes' colors."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    about = session.get_modelmeta().custom_metadata_map
    names, palette = json.loads(about["labels"]), json.loads(about["palette"])

    image = np.asarray(Image.open(photo).convert("RGB"))  # (H, W, 3), uint8
    (labels,) = session.run(["labels"], {"image": image[None]})  # (1, H, W)

    picture = Image.fromarray(labels[0].astype(np.uint8))
    picture.putpalette([value for color in palette for value in color])
    picture.save(out)
    shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
    print(", ".join(f"{names[i]} {shares[i]:.0%}" for i in shares.argsort()[::-1][:4]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="export a network")
    writing.add_argument("file", type=Path, help="ONNX file to write")
    writing.add_argument("--model", default="everyday", help="name of a model, or a folder")
    running = commands.add_parser("run", help="segment a photo")
    running.add_argument("file", type=Path, help="ONNX file to run")
    running.add_argument("photo", type=Path, help="a photo of any size")
    running.add_argument("--out", type=Path, default=Path("labels.png"), help="picture to write")
    options = vars(parser.parse_args())
    {"write": write, "run": run}[options.pop("command")](**options)
