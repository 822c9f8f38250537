"""MkDocs hook: pages under `zh/` say that they are Chinese, so that browsers choose the right glyphs."""

from __future__ import annotations

from typing import Any

TAGS = {"zh/": "zh-Hans"}
"""Language of the pages by the folder that they lie in; all others are English."""


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Write a page's language into its first tag."""
    for folder, tag in TAGS.items():
        if page.file.src_uri.startswith(folder):
            if '<html lang="en"' not in output:
                raise ValueError(f"{page.file.src_uri}: the theme no longer writes <html lang=\"en\">")
            return output.replace('<html lang="en"', f'<html lang="{tag}"', 1)
    return output
