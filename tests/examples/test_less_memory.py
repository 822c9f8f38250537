"""examples/less_memory.py: the same loss and labels in a fraction of the memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from examples.conftest import FOLDER, RunExample

CLASSES, SIZE = 150, 320
LOGITS = CLASSES * SIZE * SIZE * 4 / 2**20
"""MiB of float32 logits."""

LINE = re.compile(r"(plain|lean) *: loss ([\d.]+), checksum of the labels (\d+), ([\d.]+) MiB")


def run(run_example: RunExample, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the script on a small case, without compiled loops, which take long to compile on a fresh machine."""
    monkeypatch.setenv("FCNZOO_COMPILED", "0")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    return run_example("less_memory.py", "--classes", CLASSES, "--size", SIZE)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_same_results_in_less_memory(run_example: RunExample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and labels agree; the plain way holds logits and their gradient, the lean one less than half the logits."""
    found = {way: rest for way, *rest in LINE.findall(run(run_example, monkeypatch))}
    plain, lean = found["plain"], found["lean"]
    assert float(lean[0]) == pytest.approx(float(plain[0]), abs=1e-4)
    assert lean[1] == plain[1]
    assert float(plain[2]) > 2 * LOGITS
    assert float(lean[2]) < LOGITS / 2


def test_other_systems_are_told(run_example: RunExample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no `/proc`, the script says so instead of printing a wrong figure."""
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(SystemExit, match="only Linux"):
        run(run_example, monkeypatch)
