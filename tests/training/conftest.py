"""A tiny data set and recipe on which a whole run takes a second or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnzoo.training import Recipe

TINY = {
    "model": {"name": "fcn8s_test_resnet"},
    "data": {"dataset": "folder", "class_names": ["red", "green", "blue"]},
    "optim": {"batch_size": 4, "lr": 0.01},
    "schedule": {"epochs": 2},
    "augment": {"crop": [48, 48]},
    "run": {"device": "cpu", "log_steps": 1, "progress": False, "tensorboard": False, "plots": False},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in another order differ in the last bit: as many threads here as in the subprocesses."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training and four validation pictures of colored blocks, with a border of void."""
    root = tmp_path_factory.mktemp("blocks")
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            mask = np.kron(draw.integers(0, 3, (3, 4)), np.ones((16, 16), int)).astype(np.uint8)
            image = np.eye(3)[mask] * 150 + draw.integers(0, 60, (48, 64, 3))
            mask[: draw.integers(1, 24)] = 255  # another share of void in each picture
            Image.fromarray(image.astype(np.uint8)).save(root / split / "images" / f"{index}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{index}.png")
    return root


@pytest.fixture
def tiny(data_folder: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Make the tiny recipe: `tiny("out", "optim.lr=0.1")` trains into `tmp_path / "out"`."""

    def make(out: str = "out", *changes: str) -> Recipe:
        return Recipe.from_dict(TINY).override(f'data.root="{data_folder}"', f'run.out="{tmp_path / out}"', *changes)

    return make
