"""Tiny data sets on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcnzoo.labels import LabelSet

WritePair = Callable[..., None]


@pytest.fixture
def three() -> LabelSet:
    """Three classes: black, red and green in VOC's colors."""
    return LabelSet.from_names(("a", "b", "c"), name="three")


@pytest.fixture
def write_pair(tmp_path: Path) -> WritePair:
    """Write `images/<name>.jpg` and `masks/<name>.png` of (height, width), labels 0, 1, 2 and some 255."""

    def write(name: str, size: tuple[int, int] = (12, 16), *, root: Path = tmp_path, top: int = 3) -> None:
        rng = np.random.default_rng(len(name))
        image, mask = rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, top, size, np.uint8)
        mask[0, 0] = 255
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "images" / f"{name}.jpg")
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")

    return write
