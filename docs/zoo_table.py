"""MkDocs hook: the zoo's table, written from the registry whenever the pages are built."""

from __future__ import annotations

from typing import Any

import fcnzoo

MARK = "<!-- zoo table -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table where the mark is."""
    return markdown.replace(MARK, _table()) if MARK in markdown else markdown


def _table() -> str:
    rows = ["| model | what it is | weights | mIoU | licence of the weights |", "|---|---|---|---|---|"]
    for name in fcnzoo.list_models():
        spec = fcnzoo.get_spec(name)
        tags = "<br>".join(f"`{weights.tag}` ({weights.dataset})" for weights in spec.weights) or "–"
        figures = [
            f"{100 * metric.value:.1f} ({metric.split})"
            for weights in spec.weights
            for metric in weights.metrics
            if metric.name == "mean_iou"
        ]
        licences = "<br>".join(weights.license for weights in spec.weights) or "–"
        rows.append(f"| `{name}` | {spec.description} | {tags} | {'<br>'.join(figures) or '–'} | {licences} |")
    return "\n".join(rows)
