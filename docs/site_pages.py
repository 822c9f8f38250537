"""MkDocs hook: the language of each page, and pages that send readers of an old address to the new one."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

LANGUAGES = {"zh/": "zh-Hans"}
"""Language of the pages by their folder, so that browsers choose the right glyphs; all others are English."""

MOVED = {"concepts/": "concepts/grids/", "predict/": "guides/predict/", "train/": "guides/fine-tune/"}
"""Old addresses and new ones."""

REDIRECT = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Moved</title>
<link rel="canonical" href="{address}">
<meta http-equiv="refresh" content="0; url={address}">
</head>
<body><a href="{address}">This page has moved.</a></body>
</html>
"""


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Write a page's language into its first tag."""
    for folder, language in LANGUAGES.items():
        if page.file.src_uri.startswith(folder):
            if '<html lang="en"' not in output:
                raise ValueError(f'{page.file.src_uri}: the theme no longer writes <html lang="en">')
            return output.replace('<html lang="en"', f'<html lang="{language}"', 1)
    return output


def on_post_build(config: Any, **_: Any) -> None:
    """Write the pages that send readers on."""
    for old, new in MOVED.items():
        file = Path(config.site_dir, old, "index.html")
        if file.exists():
            raise ValueError(f"{old} has moved to {new}, but there is a page at the old address")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(REDIRECT.format(address=posixpath.relpath(new, old) + "/"), encoding="utf-8")
