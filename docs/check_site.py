"""What must hold of the built site: every link leads somewhere, every public name is in the API reference.

    mkdocs build --strict --site-dir site && python docs/check_site.py site

Addresses outside the site are not asked, only read: they must be well-formed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urldefrag, urlsplit

import fcnzoo

MODULES = ("fcnzoo", *(f"fcnzoo.{name}" for name in fcnzoo.__all__ if inspect.ismodule(getattr(fcnzoo, name))))
"""The package and its public modules."""


class Page(HTMLParser):
    """One page: what it links to, and where one can link to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep links, sources and ids."""
        for name, value in attrs:
            if name in ("href", "src", "data-source") and value is not None:
                self.links.append(value)
            elif value and (name == "id" or (tag == "a" and name == "name")):
                self.anchors.add(value)


def broken_links(site: Path) -> list[str]:
    """Return a line for every link of a built site that leads nowhere.

    Raises:
        FileNotFoundError: There is no page.
    """
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        raise FileNotFoundError(f"{site} holds no page; build it: mkdocs build --strict --site-dir {site}")
    found = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            reason = _outside(link) if urlsplit(link).scheme else _inside(link, path, site, pages)
            if reason:
                found.append(f"{path.relative_to(site)}: {link} ({reason})")
    return found


def _outside(link: str) -> str | None:
    """Say what is wrong with an address outside the site, which is not asked."""
    parts = urlsplit(link)
    if parts.scheme in ("data", "mailto") and parts.path:
        return None
    if parts.scheme not in ("http", "https"):
        return f"the scheme {parts.scheme!r} is none of http, https, mailto, data"
    host = parts.hostname or ""
    good = "." in host.strip(".") and not any(sign.isspace() for sign in link)
    return None if good else "no well-formed address"


def _inside(link: str, path: Path, site: Path, pages: dict[Path, Page]) -> str | None:
    """Say what is missing of a link within the site."""
    address, anchor = urldefrag(link)
    name = unquote(urlsplit(address).path)
    target = path if not name else site / name.lstrip("/") if name.startswith("/") else path.parent / name
    target = target.resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site.resolve()) or not target.is_file():
        return "there is no such file"
    page = pages.get(site / target.relative_to(site.resolve()))
    if anchor and (page is None or unquote(anchor) not in page.anchors):
        return "there is no such place in it"
    return None


def public_names() -> list[str]:
    """Return the full name of everything public: modules, what they export, and the public members of classes.

    A module without `__all__` exports what it defines at its top. Members are named after the module that defines
    their class.
    """
    names = list(MODULES)
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", None) or _defined(module):
            full = f"{module_name}.{name}"
            value = getattr(module, name)
            if full not in MODULES:
                # `ops.upsample` is a function, and the module that defines it: it stands under its own place.
                names.append(f"{full}.{name}" if full in sys.modules else full)
            if inspect.isclass(value):
                names += [f"{value.__module__}.{value.__qualname__}.{member}" for member in _members(value)]
    return sorted(set(names))


def _defined(module: ModuleType) -> list[str]:
    """Return the public classes, functions and constants that a module defines."""
    names: list[str] = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def _members(value: type) -> list[str]:
    """Return the methods and properties that a class defines itself, without those the reference leaves out."""
    return [
        name
        for name, member in vars(value).items()
        if not name.startswith("_")
        and name != "check"  # of records: what `Record.check` says
        and isinstance(inspect.unwrap(getattr(member, "__func__", member)), property | type(_members))
    ]


def read_inventory(file: Path) -> set[str]:
    """Return the names of Python objects in an `objects.inv` (Sphinx inventory, version 2).

    Raises:
        ValueError: The file is of another form.
    """
    head, _, body = file.read_bytes().partition(b"compressed using zlib.\n")
    if not head.startswith(b"# Sphinx inventory version 2"):
        raise ValueError(f"{file} is no Sphinx inventory of version 2")
    lines = zlib.decompress(body).decode("utf-8").splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}


def main(site: Path) -> int:
    """Print what is wrong with a site; return how many things that are."""
    there = read_inventory(site / "objects.inv")
    names = public_names()
    problems = broken_links(site) + [f"{name} is not in the API reference" for name in names if name not in there]
    for problem in problems:
        print(problem)
    print(f"{len(names)} public names, {len(problems)} problems")
    return len(problems)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) > 0)
