"""The documentation is true: every block of the README and of the pages runs, in order, as a reader would run it."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reader import MARK, ROOT, Block, make_folder, run_page

from fcnzoo.training import Recipe

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
CHINESE = {page: DOCS / page.name for page in sorted((DOCS / "zh").glob("*.md"))}
"""Each Chinese page, and the English one that it translates."""

RUNNABLE = ("python", "sh")
NETWORK = re.compile(r"pip install|fcnzoo publish|push_to_hub\(|hf-hub:")
"""What makes a block need the network: packages, or the Hub."""


def name_of(page: Path) -> str:
    """Return a page's name for pytest."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if page not in CHINESE
        and any(block.language in RUNNABLE and not block.needs_network for block in Block.all_of(page))
    ],
    ids=name_of,
)
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after the other, in a folder that has what the page names."""
    folder = tmp_path / "reader"
    make_folder(page, folder)
    monkeypatch.chdir(folder)
    run_page(page, folder)


def test_only_the_network_keeps_a_block_from_running() -> None:
    """Blocks with pip or the Hub in them are marked, and no others; all others are of a language that runs."""
    marked = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = Block.all_of(page)
        assert text.count("\n```") == 2 * len(blocks), f"{name_of(page)}: a fence that no block belongs to"
        assert text.count(MARK) == sum(block.needs_network for block in blocks), f"{name_of(page)}: a mark alone"
        for block in blocks:
            where = f"{name_of(page)}:{block.line}"
            assert block.language in (*RUNNABLE, "toml", "text"), f"{where}: {block.language!r} is run by no test"
            needs = block.language in RUNNABLE and NETWORK.search(block.code) is not None
            assert block.needs_network == needs, f"{where}: marked {block.needs_network}, needs the network {needs}"
            marked += block.needs_network
    assert marked == 11


@pytest.mark.parametrize("page", CHINESE, ids=name_of)
def test_chinese_pages_have_the_blocks_of_the_english_ones(page: Path) -> None:
    """A translation has the same blocks, character by character: they run with the English page."""
    ours, theirs = ([(block.language, block.code) for block in Block.all_of(one)] for one in (page, CHINESE[page]))
    assert ours == theirs


def test_recipes_of_the_pages_are_recipes() -> None:
    """A TOML block is a whole recipe."""
    blocks = [block for page in PAGES for block in Block.all_of(page) if block.language == "toml"]
    assert blocks
    for block in blocks:
        Recipe.from_dict(tomllib.loads(block.code))


def test_pictures_of_the_home_page_are_what_its_code_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures under the code are the files that the code writes, up to their compression."""
    home = DOCS / "index.md"
    make_folder(home, tmp_path / "reader")
    monkeypatch.chdir(tmp_path / "reader")
    run_page(home, tmp_path / "reader")
    for file, picture in (("overlay.png", "cat.webp"), ("street.png", "street.webp")):
        with Image.open(file) as made, Image.open(DOCS / "pictures" / picture) as shown:
            made_pixels, shown_pixels = (np.asarray(one.convert("RGB")).astype(float) for one in (made, shown))
        assert made_pixels.shape == shown_pixels.shape
        assert np.abs(made_pixels - shown_pixels).mean() < 5


def test_commands_of_the_readme_are_there() -> None:
    """The README's two marked commands, which `.ci/run` runs itself, name files and extras that exist."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "fcnzoo segment examples/cat.jpg --out out" in text
    assert (ROOT / "examples" / "cat.jpg").is_file()
    assert "pip install -e '.[test]' && .venv/bin/pytest" in text


def test_public_things_have_docstrings() -> None:
    """Every public module, class, function, method and property says what it is for."""
    from fcnzoo.cli import COMMANDS

    silent = [command.__name__ for command in COMMANDS.values() if not command.__doc__]
    for file in sorted((ROOT / "fcnzoo").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if any(part.startswith("_") and part != "__init__" for part in parts) or "triton" in file.stem:
            continue
        module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
        silent += [] if module.__doc__ else [module.__name__]
        for name, value in vars(module).items():
            if not (name.startswith("_") or getattr(value, "__module__", None) != module.__name__):
                silent += [f"{module.__name__}.{one}" for one in _without_docstring(name, value)]
    assert silent == []


def _without_docstring(name: str, value: object) -> list[str]:
    """Return what of a class or function has no docstring; an override may leave it to what it overrides."""
    if inspect.isfunction(value):
        return [] if value.__doc__ else [name]
    if not inspect.isclass(value):
        return []
    members = {
        key: member
        for key, member in vars(value).items()
        if not key.startswith("_") and isinstance(member, property | classmethod | staticmethod | type(name_of))
    }
    return ([] if value.__doc__ else [name]) + [
        f"{name}.{key}" for key in members if not inspect.getdoc(getattr(value, key))
    ]
