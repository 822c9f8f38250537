"""Imports form a line: rooms stand in one order, and no file reaches itself again."""

from __future__ import annotations

import ast
from pathlib import Path

import fcnzoo

PACKAGE = Path(fcnzoo.__file__).parent

ORDER = (
    "version",
    "errors",
    "files",
    "labels",
    "config",
    "zoo",
    "images",
    "backbones",
    "ops",
    "metrics",
    "model",
    "weights",
    "inference",
    "data",
    "training",
    "cli",
    "__init__",
    "__main__",
)
"""Each room imports only what stands before it. CONTRIBUTING shows the same line."""

ALLOWED = {("model/fcn.py", "fcnzoo.weights.push")}
"""`model.push_to_hub(…)`, which users of the Hub expect: the one import that goes up."""


def imports(package: Path) -> list[tuple[Path, int, str]]:
    """Return file, line and module of every import of the package's own modules, wherever in a file it stands."""
    found = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:  # relative
                    parents = file.relative_to(package.parent).parts[: -node.level]
                    base = ".".join([*parents, *([base] if base else [])])
                # `from fcnzoo.ops import loss` imports a module, `from fcnzoo.ops import upsample_argmax` does not.
                names = [f"{base}.{a.name}" if locate(package, f"{base}.{a.name}") else base for a in node.names]
            else:
                continue
            found += [(file, node.lineno, name) for name in names if name.split(".")[0] == "fcnzoo"]
    return found


def locate(package: Path, module: str) -> Path | None:
    """Return the file of a module of the package."""
    path = package.parent.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def room(package: Path, file: Path) -> str:
    """Return the entry of the package that a file belongs to."""
    return file.relative_to(package).parts[0].removesuffix(".py")


def upward(package: Path) -> list[str]:
    """Return `file:line: module` of every import of a room that does not stand before the importing one."""
    wrong = []
    for file, line, module in imports(package):
        target = locate(package, module)
        here = room(package, file)
        there = "__init__" if target is None else room(package, target)
        allowed = (file.relative_to(package).as_posix(), module) in ALLOWED
        if here != there and ORDER.index(there) > ORDER.index(here) and not allowed:
            wrong.append(f"{file.relative_to(package.parent)}:{line}: {module}")
    return sorted(wrong)


def circles(package: Path) -> list[str]:
    """Return the files that reach themselves by imports that run when a module is loaded or a function is called."""
    edges: dict[Path, set[Path]] = {}
    for file, _, module in imports(package):
        target = locate(package, module)
        allowed = (file.relative_to(package).as_posix(), module) in ALLOWED
        if target is not None and target != file and not allowed:
            edges.setdefault(file, set()).add(target)

    def reaches(start: Path) -> bool:
        seen, waiting = set(), [*edges.get(start, ())]
        while waiting:
            file = waiting.pop()
            if file == start:
                return True
            if file not in seen:
                seen.add(file)
                waiting += edges.get(file, ())
        return False

    return [str(file.relative_to(package.parent)) for file in sorted(edges) if reaches(file)]


def test_every_entry_has_a_place() -> None:
    """The entries of the package are those of the order, no more than 16 beside the face."""
    entries = {
        path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed")
    }
    assert entries == set(ORDER)
    assert len(entries - {"__init__", "__main__"}) <= 16


def test_no_import_goes_up() -> None:
    """No file imports a room that stands after its own."""
    assert upward(PACKAGE) == []


def test_no_file_reaches_itself() -> None:
    """No file imports itself through others, inside a room or across them."""
    assert circles(PACKAGE) == []


def test_contributing_shows_the_order() -> None:
    """The order in CONTRIBUTING is this one."""
    text = " ".join((PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert " < ".join(ORDER) in text


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    """An import that goes up is named with file and line: at the top, in a function, for type checkers, relative."""
    package = tmp_path / "fcnzoo"
    for name in ("config", "model", "cli"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "cli" / "train.py").write_text("")
    (package / "model" / "fcn.py").write_text("def f():\n    from fcnzoo.cli import train\n")
    (package / "config" / "grid.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fcnzoo.model.fcn\nfrom .. import __version__\n"
    )
    (package / "model" / "a.py").write_text("from fcnzoo.model.b import x\n")
    (package / "model" / "b.py").write_text("from ..model import a\n")
    assert upward(package) == [
        "fcnzoo/config/grid.py:3: fcnzoo.model.fcn",
        "fcnzoo/config/grid.py:4: fcnzoo",
        "fcnzoo/model/fcn.py:2: fcnzoo.cli.train",
    ]
    assert circles(package) == ["fcnzoo/model/a.py", "fcnzoo/model/b.py"]
