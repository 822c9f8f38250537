"""examples/segment_folder.py: overlays, and a table of areas."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from examples.conftest import FOLDER, RunExample
from PIL import Image

import fcnzoo


def test_every_photo_gets_an_overlay_and_a_row(run_example: RunExample, tmp_path: Path) -> None:
    """Two photos among other files: two overlays, and rows that say what `areas` says; each sums to 1."""
    photos = ("street.jpg", "junction.jpg")
    (tmp_path / "photos").mkdir()
    for name in (*photos, "README.md"):
        shutil.copy(FOLDER / name, tmp_path / "photos" / name)
    printed = run_example("segment_folder.py", "photos", "--out", "out", "--model", "street")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "areas.csv",
        "junction.jpg.png",
        "street.jpg.png",
    ]
    with (tmp_path / "out" / "areas.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    predictor = fcnzoo.Predictor("street")
    assert [row["photo"] for row in rows] == sorted(photos)
    for row in rows:
        areas = predictor(FOLDER / row.pop("photo")).areas()
        assert list(row) == list(predictor.label_set.names)
        assert {name: float(share) for name, share in row.items() if float(share)} == areas
        assert sum(map(float, row.values())) == pytest.approx(1)
    with Image.open(tmp_path / "out" / "street.jpg.png") as overlay:
        assert overlay.width == 480 and overlay.height > 360  # the legend is below
    assert "street.jpg: building" in printed


def test_a_folder_without_photos_is_refused(run_example: RunExample, tmp_path: Path) -> None:
    """The script stops and says what it looked for."""
    (tmp_path / "photos").mkdir()
    with pytest.raises(SystemExit, match=r"photos holds no photos .*\.jpg"):
        run_example("segment_folder.py", "photos")
    assert not (tmp_path / "out").exists()
