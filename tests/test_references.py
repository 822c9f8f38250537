"""What pages and errors name after `fcnzoo.` is there after a bare `import fcnzoo`."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import fcnzoo

PACKAGE = Path(fcnzoo.__file__).parent
ROOT = PACKAGE.parent

NAME = re.compile(r"(?<![\w./-])fcnzoo((?:\.[A-Za-z_]\w*)+)")
NO_ATTRIBUTES = re.compile(
    r"^\s*from fcnzoo\.|^:::|\]\[fcnzoo\.|entry-points|entry_points|\.png|\.json|fcnzoo\.models", re.MULTILINE
)
"""Lines that name modules to import, addresses of the reference, the group of entry points, or files."""


def names_of_pages() -> set[str]:
    """Every dotted name on a page, in the README and in the examples' scripts."""
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *(ROOT / "examples").rglob("*.py")]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if "changelog" not in line]
    return {found for line in lines if not NO_ATTRIBUTES.search(line) for found in NAME.findall(line)}


def names_of_errors() -> set[str]:
    """Every dotted name in a text that the package raises or warns of."""
    found: set[str] = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            loud = isinstance(node, ast.Raise) or (
                isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("warn", "warning")
            )
            for part in ast.walk(node) if loud else ():
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    found.update(NAME.findall(part.value))
    return {name for name in found if name != ".models"}


def test_every_name_is_reachable() -> None:
    """Each is reached by attributes alone, in one fresh process; a name that is not is told with what is missing."""
    names = sorted(names_of_pages() | names_of_errors())
    assert len(names) > 30
    script = """
import json, sys
import fcnzoo
missing = []
for name in json.loads(sys.argv[1]):
    value = fcnzoo
    try:
        for part in name[1:].split("."):
            value = getattr(value, part)
    except AttributeError as error:
        missing.append(f"fcnzoo{name}: {error}")
print(json.dumps(missing))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(names)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
