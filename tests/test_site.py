"""The check of the built site and the hooks that build it do what they say."""

from __future__ import annotations

import importlib.util
import zlib
from pathlib import Path
from types import ModuleType

import pytest
from reader import ROOT


def load(file: Path) -> ModuleType:
    """Import a script of the docs folder."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_site = load(ROOT / "docs" / "check_site.py")
site_pages = load(ROOT / "docs" / "site_pages.py")
example_pages = load(ROOT / "docs" / "example_pages.py")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two pages and a picture whose links all lead somewhere."""
    (tmp_path / "guide").mkdir()
    (tmp_path / "a picture.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(
        '<h1 id="top">A</h1><a href="guide/#place">b</a><a href="#top">c</a><img src="a%20picture.png">'
        '<a href="https://example.org/x?y=1">d</a><a href="mailto:a@example.org">e</a>',
        encoding="utf-8",
    )
    (tmp_path / "guide" / "index.html").write_text(
        '<h2 id="place">B</h2><a href="../">a</a><a href="/index.html#top">f</a>', encoding="utf-8"
    )
    return tmp_path


def test_a_whole_site_has_no_broken_link(site: Path) -> None:
    """Relative, absolute and quoted addresses, anchors and well-formed addresses outside all pass."""
    assert check_site.broken_links(site) == []


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("../nowhere/", "no such file"),
        ("../guide/#nowhere", "no such place"),
        ("#nowhere", "no such place"),
        ("../a%20picture.png#place", "no such place"),
        ("../../outside.html", "no such file"),
        ("https://", "no well-formed address"),
        ("https://exa mple.org", "no well-formed address"),
        ("htp://example.org", "none of http"),
    ],
)
def test_a_broken_link_is_told(site: Path, link: str, reason: str) -> None:
    """One line says the page, the link and what is wrong with it."""
    with (site / "guide" / "index.html").open("a", encoding="utf-8") as file:
        file.write(f'<a href="{link}">x</a>')
    (line,) = check_site.broken_links(site)
    assert line.startswith(f"guide/index.html: {link} (") and reason in line


def test_no_site_is_an_error(tmp_path: Path) -> None:
    """A folder without pages is not a site without broken links."""
    with pytest.raises(FileNotFoundError, match="mkdocs build"):
        check_site.broken_links(tmp_path)


def inventory(names: list[str]) -> bytes:
    """Return an `objects.inv` that holds names."""
    lines = "".join(f"{name} py:function 1 api/#$ -\n" for name in names) + "intro std:label -1 index#$ -\n"
    head = "# Sphinx inventory version 2\n# Project: x\n# Version: 0\n# The remainder is compressed using zlib.\n"
    return head.encode() + zlib.compress(lines.encode())


def test_a_name_that_the_reference_lacks_is_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All public names in the inventory: fine; one less: a line says which."""
    names = check_site.public_names()
    (site / "objects.inv").write_bytes(inventory(names))
    assert check_site.main(site) == 0
    (site / "objects.inv").write_bytes(inventory([name for name in names if name != "fcnzoo.create"]))
    capsys.readouterr()
    assert check_site.main(site) == 1
    assert capsys.readouterr().out.startswith("fcnzoo.create is not in the API reference\n")


def test_public_names_are_those_that_users_write() -> None:
    """Functions, classes, their methods, records' constants and modules are among them; private things are not."""
    names = set(check_site.public_names())
    assert {"fcnzoo", "fcnzoo.create", "fcnzoo.ops", "fcnzoo.model.fcn.FCN.predict", "fcnzoo.data.CamVid"} <= names
    assert {"fcnzoo.config.Border", "fcnzoo.ops.upsample.upsample", "fcnzoo.__version__"} <= names
    assert not [name for name in names - {"fcnzoo.__version__"} if any(part[0] == "_" for part in name.split("."))]


def test_an_inventory_of_another_form_is_an_error(tmp_path: Path) -> None:
    """What is no Sphinx inventory is not read as an empty one."""
    (tmp_path / "objects.inv").write_bytes(b"# Sphinx inventory version 1\n")
    with pytest.raises(ValueError, match="version 2"):
        check_site.read_inventory(tmp_path / "objects.inv")


class Thing:
    """Stands for MkDocs' own objects."""

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)


def test_chinese_pages_say_that_they_are() -> None:
    """Pages under zh/ get their language; others stay; a theme that writes its tag otherwise is an error."""
    english, chinese = (Thing(file=Thing(src_uri=uri)) for uri in ("index.md", "zh/index.md"))
    text = '<html lang="en" class="no-js">'
    assert site_pages.on_post_page(text, page=english) == text
    assert site_pages.on_post_page(text, page=chinese) == '<html lang="zh-Hans" class="no-js">'
    with pytest.raises(ValueError, match="theme"):
        site_pages.on_post_page("<html>", page=chinese)


def test_old_addresses_lead_to_the_new_ones(tmp_path: Path) -> None:
    """Each page that moved leaves one that links to its new place; a page at the old place is an error."""
    for new in site_pages.MOVED.values():
        (tmp_path / new).mkdir(parents=True, exist_ok=True)
        (tmp_path / new / "index.html").write_text("<p>here</p>", encoding="utf-8")
    site_pages.on_post_build(config=Thing(site_dir=str(tmp_path)))
    assert all((tmp_path / old / "index.html").is_file() for old in site_pages.MOVED)
    assert check_site.broken_links(tmp_path) == []
    with pytest.raises(ValueError, match="has moved"):
        site_pages.on_post_build(config=Thing(site_dir=str(tmp_path)))


def test_examples_become_pages(tmp_path: Path) -> None:
    """Each script and each folder of code is a page; the README's links lead there, and other links stay."""
    (tmp_path / "plugin").mkdir()
    (tmp_path / "README.md").write_text("x", encoding="utf-8")
    (tmp_path / "one.py").write_text('"""```text```"""\n', encoding="utf-8")
    (tmp_path / "plugin" / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    (tmp_path / "plugin" / "two.py").write_text("pass\n", encoding="utf-8")
    pages = example_pages.code_pages(tmp_path)
    assert list(pages) == ["one", "plugin"]
    assert '`````python\n"""```text```"""\n`````' in pages["one"]
    assert "## plugin/pyproject.toml" in pages["plugin"] and "## plugin/two.py" in pages["plugin"]
    text = "[`one.py`](one.py) [p](plugin) [q](plugin/two.py) [r](https://example.org) [s](photo.jpg)"
    assert example_pages.link_to_pages(text, pages) == (
        "[`one.py`](examples/one.md) [p](examples/plugin.md) [q](examples/plugin.md) [r](https://example.org) "
        "[s](photo.jpg)"
    )
