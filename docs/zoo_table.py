"""MkDocs hook: the zoo's table, written from the registry whenever the pages are built."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import fcnzoo
from fcnzoo.zoo.catalog import AS_BUILDABLE
from fcnzoo.zoo.heads import HEADS

COVERAGE = Path(__file__).parent / "coverage.json"
"""Written by `python -m benchmarks.coverage`."""

BENCHMARKS = Path(__file__).parent / "benchmarks.json"
"""Written by `python -m benchmarks`."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put each table where its mark is."""
    tables = {"zoo table": _table, "coverage summary": _summary, "benchmark table": _benchmarks}
    for name, table in tables.items():
        mark = f"<!-- {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, table())
    return markdown


def _table() -> str:
    rows = ["| model | what it is | weights | mIoU | license of the weights |", "|---|---|---|---|---|"]
    for name in fcnzoo.list_models():
        spec = fcnzoo.get_spec(name)
        tags = "<br>".join(f"`{weights.tag}` ({weights.dataset})" for weights in spec.weights) or "–"
        figures = "<br>".join(_mean_iou(weights) for weights in spec.weights) or "–"
        licenses = "<br>".join(weights.license for weights in spec.weights) or "–"
        rows.append(f"| `{name}` | {spec.description} | {tags} | {figures} | {licenses} |")
    return "\n".join(rows)


def _mean_iou(weights: fcnzoo.Weights) -> str:
    """Return the mean IoU that was published for weights, in percent, and on what."""
    found = [f"{100 * one.value:.1f} ({one.split})" for one in weights.metrics if one.name == "mean_iou"]
    return ", ".join(found) or "–"


def _summary() -> str:
    """How many networks run under each head, and how they reach output stride 8."""
    coverage = json.loads(COVERAGE.read_text(encoding="utf-8"))
    sizes = " and ".join("×".join(map(str, size)) for size in coverage["sizes"])
    tried = [head for head in HEADS if head not in AS_BUILDABLE]
    columns = (", ".join([head, *(same for same in AS_BUILDABLE if AS_BUILDABLE[same] == head)]) for head in tried)
    rows = [
        f"| | networks | {' | '.join(columns)} | truly dilated | emulated |",
        "|---|---|" + "---|" * (len(tried) + 2),
    ]
    for source in ("timm", "torchvision"):
        mine = [row for row in coverage["rows"] if row["name"].startswith(f"{source}/")]
        kinds = Counter(row.get("dilation") for row in mine)
        works = " | ".join(str(sum(row["heads"].get(name) == "ok" for row in mine)) for name in tried)
        dilated = kinds["native"] + kinds["dilated"] + kinds["none"]
        version = coverage["versions"][source]
        rows.append(f"| {source} {version} | {len(mine)} | {works} | {dilated} | {kinds['emulated']} |")
    return f"Networks that build and run at {sizes}:\n\n" + "\n".join(rows)


def _benchmarks() -> str:
    """Every ratio with its bound."""
    found = json.loads(BENCHMARKS.read_text(encoding="utf-8"))
    machine = found["machine"]
    rows = ["| ours | peer | | ratio | promised |", "|---|---|---|---|---|"]
    for one in found["ratios"]:
        word = "faster" if one["kind"] == "time" else "less memory"
        rows.append(f"| {one['what']} | {one['against']} | {word} | {one['ratio']:.1f}× | {one['bound']:g}× |")
    where = f"{machine['threads']} threads of one {machine['processor']} machine, torch {machine['torch']}"
    return f"Measured on {where}.\n\n" + "\n".join(rows)
