"""examples/README.md: every script stands there, has its own test, and uses public names only."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from examples.conftest import FOLDER

import fcnzoo

SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py"))


def test_every_script_is_listed_and_tested() -> None:
    """The table has a row for each script and for the plug-in, each file of this folder of tests is one's."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[`(.+?)`\]\((.+?)\) \| \S", text, re.MULTILINE)
    assert sorted(target for _, target in rows) == sorted([*SCRIPTS, "plugin"])
    assert all(name.rstrip("/") == target for name, target in rows)
    tests = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert tests >= {Path(name).stem for name in [*SCRIPTS, "plugin"]}


@pytest.mark.parametrize("script", [*SCRIPTS, "plugin/fcnzoo_fields.py"])
def test_scripts_use_public_names(script: str) -> None:
    """What comes from fcnzoo is a public name, or lies in a public module; no private attribute is used."""
    tree = ast.parse((FOLDER / script).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fcnzoo"):
            assert inspect.ismodule(getattr(fcnzoo, str(node.module).removeprefix("fcnzoo.")))
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_") or node.attr.endswith("__"), ast.unparse(node)
            if isinstance(node.value, ast.Name) and node.value.id == "fcnzoo":
                assert node.attr in fcnzoo.__all__


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_say_what_they_show(script: str, run_example, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` begins with the usage, and says what the docstring says."""
    with pytest.raises(SystemExit) as done:
        run_example(script, "--help")
    assert done.value.code == 0
    text = ast.get_docstring(ast.parse((FOLDER / script).read_text(encoding="utf-8")))
    assert text is not None and text.splitlines()[0] in capsys.readouterr().out
    assert f"python examples/{script}" in text
