"""MkDocs hook: `examples/README.md` as a page, and a page with the code of each example."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = "guides/examples.md"
MARK = "<!-- examples -->"
"""What stands in `PAGE` for the text of `examples/README.md`."""

LANGUAGES = {".py": "python", ".toml": "toml"}
"""Files of the examples that are shown, by suffix."""


def code_pages(folder: Path) -> dict[str, str]:
    """Return a page in Markdown for each script of a folder and for each folder in it, by name without suffix."""
    pages = {}
    for entry in sorted(folder.iterdir()):
        files = sorted(entry.rglob("*")) if entry.is_dir() else [entry]
        shown = [file for file in files if file.suffix in LANGUAGES and "__pycache__" not in file.parts]
        if shown:
            parts = [f"# {entry.name}", "[All examples](../examples.md)"]
            for file in shown:
                parts += [f"## {file.relative_to(folder).as_posix()}"] if entry.is_dir() else []
                parts.append(f"`````{LANGUAGES[file.suffix]}\n{file.read_text(encoding='utf-8').rstrip()}\n`````")
            pages[entry.name.removesuffix(".py")] = "\n\n".join(parts) + "\n"
    return pages


def link_to_pages(text: str, pages: Mapping[str, str]) -> str:
    """Let the links of `examples/README.md` to scripts and folders lead to their pages."""

    def replace(found: re.Match[str]) -> str:
        name = found[1].split("/")[0].removesuffix(".py")
        return f"](examples/{name}.md)" if name in pages else found[0]

    return re.sub(r"\]\(([\w./-]+)\)", replace, text)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages with code."""
    from mkdocs.structure.files import File

    for name, text in code_pages(EXAMPLES).items():
        files.append(File.generated(config, f"guides/examples/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the text of the README in its place."""
    if page.file.src_uri != PAGE:
        return markdown
    if MARK not in markdown:
        raise ValueError(f"{PAGE} has no {MARK}")
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    return markdown.replace(MARK, link_to_pages(text, code_pages(EXAMPLES)))
