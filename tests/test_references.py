"""What pages, docstrings and errors name after `fcnzoo.` is there after a bare `import fcnzoo`."""

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

NAME = re.compile(r"(?<![\w./-])(?<!\]\[)(?<!^::: )fcnzoo((?:\.[A-Za-z_]\w*)+)", re.MULTILINE)
"""A dotted name that somebody may type. Addresses of the reference (`::: …`, `[…][…]`) may lead into any module; mkdocs
follows them."""

NO_ATTRIBUTES = {
    ".models": "the group of the plug-ins' entry points",
    ".json": "a file inside an exported program",
}


def texts() -> dict[str, str]:
    """Every page and example, and every text of the package, docstrings and errors included, by where it stands."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    pages += [page for kind in ("py", "md", "toml") for page in (ROOT / "examples").rglob(f"*.{kind}")]
    found = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in pages}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found[f"{file.relative_to(ROOT)}:{node.lineno}:{node.col_offset}"] = node.value
    return found


def names(text: str) -> set[str]:
    """The dotted names of a text, without the package's own and without what is no attribute."""
    return {name for name in NAME.findall(text) if name not in NO_ATTRIBUTES}


def unreachable(wanted: list[str]) -> list[str]:
    """Return the names that attributes alone do not lead to, in one fresh process."""
    script = """
import json, sys
import fcnzoo
missing = []
for name in json.loads(sys.argv[1]):
    value = fcnzoo
    try:
        for part in name[1:].split("."):
            # A submodule that an earlier name happened to import is no way to it.
            if value is fcnzoo and part not in dir(fcnzoo):
                raise AttributeError(f"{part!r} is not public")
            value = getattr(value, part)
    except AttributeError:
        missing.append(name)
print(json.dumps(missing))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(wanted)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_name_is_reachable() -> None:
    """Each is reached by attributes alone; one that is not is told with every place that names it."""
    places: dict[str, list[str]] = {}
    for place, text in texts().items():
        for name in names(text):
            places.setdefault(name, []).append(place)
    assert len(places) > 40
    assert {f"fcnzoo{name}": places[name] for name in unreachable(sorted(places))} == {}


def test_what_counts_as_a_name() -> None:
    """Names in prose, code and f-strings count; addresses of the reference, paths and hosts do not."""
    text = "`fcnzoo.create`, [x][fcnzoo.weights.push.x], ./fcnzoo.toml\n::: fcnzoo.weights.load\nfcnzoo.ops.upsample("
    assert names(text) == {".create", ".ops.upsample"}
    assert unreachable([".create", ".nonsense", ".weights.push", ".labels.LabelSet"]) == [".nonsense", ".weights.push"]
