"""Files are opened in one room: the rest of the package uses its guarded reader and its atomic writer."""

from __future__ import annotations

import ast
from pathlib import Path

import fcnzoo

PACKAGE = Path(fcnzoo.__file__).parent

FORBIDDEN = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "fdopen", "mkstemp", "mkdtemp"}

ALLOWED = {
    ("zoo/plugins.py", "found.read_text"),  # of importlib.metadata
    ("weights/converters/torch_archive.py", "archive.open"),  # a part of a zip archive, which is open
}


def _calls(package: Path) -> list[tuple[str, str, int]]:
    found = []
    for file in sorted(package.rglob("*.py")):
        name = file.relative_to(package).as_posix()
        if name.startswith("files/"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func
                bare = isinstance(called, ast.Name) and called.id == "open"
                if bare or (isinstance(called, ast.Attribute) and called.attr in FORBIDDEN):
                    found.append((name, ast.unparse(called), node.lineno))
    return found


def test_no_file_is_opened_outside_the_room_for_files() -> None:
    """No bare `open`, `Path.read_…`, `Path.write_…` or `Image.open`: each would wait at a pipe, or be half there."""
    assert [call for call in _calls(PACKAGE) if call[:2] not in ALLOWED] == []


def test_the_check_sees_what_it_forbids(tmp_path: Path) -> None:
    """A bare open in a module of the package is found, with its line."""
    (tmp_path / "x.py").write_text(
        "from PIL import Image\nimage = Image.open('x')\n\nwith open('y') as file:\n    pass\n"
    )
    assert _calls(tmp_path) == [("x.py", "Image.open", 2), ("x.py", "open", 4)]
