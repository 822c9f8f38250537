"""examples/plugin: a package with a model of its own, installed beside fcnzoo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from examples.conftest import FOLDER

Python = Callable[..., str]


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """A fresh interpreter, in whose path the package lies as pip would install it; returns what it prints."""
    project = tomllib.loads((FOLDER / "plugin" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copy(FOLDER / "plugin" / "fcnzoo_fields.py", tmp_path)
    folder = tmp_path / "fcnzoo_fields-0.1.0.dist-info"
    folder.mkdir()
    about = f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(about, encoding="utf-8")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(tmp_path), str(FOLDER.parent)])},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_an_installed_package_brings_its_models(python: Python) -> None:
    """`list_models`, `create` and `fcnzoo list` know them; importing fcnzoo reads nothing, listing imports no torch."""
    script = """
import sys, fcnzoo
print("fcnzoo_fields" in sys.modules)
print(fcnzoo.list_models("*fields*"), "torch" in sys.modules)
import torch
model = fcnzoo.create("fcn8s_fields").eval()
print(model.label_set.names, tuple(model(torch.zeros(1, 3, 97, 131)).shape))
"""
    assert python("-c", script).splitlines() == [
        "False",
        "['fcn32s_fields', 'fcn8s_fields'] False",
        "('soil', 'crop', 'weed') (1, 3, 97, 131)",
    ]
    listed = [line.split("\t")[0] for line in python("-m", "fcnzoo", "list").splitlines()]
    assert "fcn8s_fields" in listed and "fcn8s_vgg16" in listed
