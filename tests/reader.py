"""A reader of the documentation: a folder with the files that pages name, and a way to run their blocks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
MARK = "<!-- needs the network -->"
BLOCK = re.compile(
    rf"^(?P<mark>{MARK}\n)?```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

COMMAND = """\
#!{python}
# The fcnzoo of this repository. Trainings are those of the page, but small: one epoch of tiny crops, weights of the
# backbone from a file, and a narrow VGG-16.
import sys

sys.path.insert(0, {root!r})
if sys.argv[1:2] == ["train"]:
    from fcnzoo.backbones import paper as vgg

    vgg.BLOCKS, vgg.FC_CHANNELS = ((4, 2), (4, 2), (256, 1), (512, 1), (8, 1)), 16
    changes = {changes!r}
    if "paper_voc" in sys.argv:
        changes = [*changes, "schedule.steps=1", "model.pretrained_backbone=false"]
    elif "mine.toml" in sys.argv:
        changes = [*changes, "model.pretrained_backbone=false"]
    else:
        changes = [*changes, "model.pretrained_backbone=" + {weights!r}]
    sys.argv += [part for change in changes for part in ("--set", change)]
from fcnzoo.cli import main

main()
"""

SMALL = [
    "augment.crop=[64,64]",
    "optim.batch_size=1",
    "run.tensorboard=false",
    "run.plots=false",
    "run.progress=false",
    "schedule.epochs=1",
]
"""What makes a training of a page small; `--epochs` of the page comes first and gives way."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    needs_network: bool
    title: str | None

    @classmethod
    def all_of(cls, page: Path) -> list[Block]:
        """Return the blocks of a page, in order."""
        text = page.read_text(encoding="utf-8")
        return [
            cls(
                found["language"],
                found["code"],
                text[: found.start("code")].count("\n"),
                found["mark"] is not None,
                found["title"],
            )
            for found in BLOCK.finditer(text)
        ]


def run_page(page: Path, folder: Path) -> None:
    """Run the blocks of a page one after the other in a folder, Python in this process, shell lines each by itself."""
    namespace: dict[str, object] = {"__name__": page.stem}
    environment = _environment(folder)
    for block in Block.all_of(page):
        if block.needs_network:
            continue
        if block.title:
            (folder / block.title).write_text(block.code, encoding="utf-8")
        if block.language == "python":
            exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)
        elif block.language == "sh":
            for line in block.code.replace("\\\n", "").splitlines():
                _run_line(line, folder, environment)


def _run_line(line: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(["bash", "-euc", line], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment with a `fcnzoo` on its PATH, one thread, and no way to the Hub."""
    programs = folder.parent / "bin"
    programs.mkdir()
    weights = folder.parent / "lite0.safetensors"
    command = COMMAND.format(python=sys.executable, root=str(ROOT), changes=SMALL, weights=str(weights))
    (programs / "fcnzoo").write_text(command, encoding="utf-8")
    (programs / "fcnzoo").chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    return os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "default"}


def make_folder(page: Path, folder: Path) -> None:
    """Make what a page names and a reader would have: photos, data sets, a checkpoint."""
    folder.mkdir()
    text = page.read_text(encoding="utf-8")
    for name, make in MAKERS.items():
        if name in text:
            make(folder / name)


def _photo(path: Path, size: tuple[int, int] = (64, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(ROOT / "examples" / "street.jpg") as photo:
        photo.resize(size[::-1]).save(path)


def _mask(path: Path, classes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, classes, (4, 4)).astype(np.uint8)
    Image.fromarray(np.kron(values, np.ones((16, 16), np.uint8))).save(path)


def make_pairs(folder: Path, classes: int) -> None:
    """Two pictures of `train` and one of `val`, and the weights of a backbone beside the folder."""
    for split, count in (("train", 2), ("val", 1)):
        for index in range(count):
            _photo(folder / split / "images" / f"{index}.jpg")
            _mask(folder / split / "masks" / f"{index}.png", classes)
    import timm
    from safetensors.torch import save_file

    weights = timm.create_model("tf_efficientnet_lite0").state_dict()
    save_file(weights, folder.parent.parent / "lite0.safetensors")


def _voc(folder: Path) -> None:
    year = folder / "VOC2012"
    for split in ("train", "val"):
        _photo(year / "JPEGImages" / f"{split}.jpg")
        _mask(year / "SegmentationClass" / f"{split}.png", 21)
        names = year / "ImageSets" / "Segmentation" / f"{split}.txt"
        names.parent.mkdir(parents=True, exist_ok=True)
        names.write_text(f"{split}\n", encoding="utf-8")


def _checkpoint(path: Path) -> None:
    import torchvision

    network = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None)
    torch.save(network.state_dict(), path)


MAKERS: dict[str, Callable[[Path], object]] = {
    "examples/": lambda path: shutil.copytree(ROOT / "examples", path),
    "photo.jpg": _photo,
    "folder/of/photos": lambda path: _photo(path / "one.jpg"),
    "segment photos ": lambda path: _photo(path.parent / "photos" / "one.jpg"),
    "my-data": lambda path: make_pairs(path, 3),
    "data camvid": lambda path: make_pairs(path.parent / "camvid", 11),
    "VOCdevkit": _voc,
    "fcn_resnet50_coco-1167a1af.pth": _checkpoint,
}
"""What a page may name, and how it comes to be."""
