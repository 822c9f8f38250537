"""Examples run as a reader would run them: as scripts, with arguments, in a folder of their own."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from training.conftest import data_folder  # noqa: F401 - a fixture

import fcnzoo

FOLDER = Path(__file__).parents[2] / "examples"

RunExample = Callable[..., str]


@pytest.fixture
def run_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExample:
    """Run a script in `tmp_path`, in this process, and return what it prints: `run_example("publish.py", "--help")`."""

    def run(script: str, *arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(FOLDER / script), run_name="__main__")
        return capsys.readouterr().out

    return run


def mean_iou(model: fcnzoo.FCN, data: Path) -> float:
    """Mean IoU of a network on the validation split of a folder."""
    assert model.label_set is not None
    validation = fcnzoo.data.SegmentationFolder(data / "val", model.label_set)
    return fcnzoo.evaluate(model, validation, progress=False).metrics.mean_iou
