"""Every Python block of the README and of the pages runs, in order, as a reader would run it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))], ids=str)
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after the other, in a folder that has `examples/` beside it."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block.group(1), str(page), "exec"), namespace)


def test_commands_of_the_readme_are_there() -> None:
    """The README's main job and test commands name files and extras that exist."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "fcnzoo segment examples/street.jpg --out out" in text
    assert (ROOT / "examples" / "street.jpg").is_file()
    assert "pip install -e '.[test]' && .venv/bin/pytest" in text
