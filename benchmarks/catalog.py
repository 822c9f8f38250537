"""Try every head on every installed backbone, on the meta device, and write `fcnzoo/heads.json`.

    python -m benchmarks.catalog

The file answers `list_backbones(head=…)` without importing anything. Takes about ten minutes on one core.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import timm
import torch
import torchvision
from rich.progress import track

import fcnzoo
from fcnzoo.backbones import build_backbone
from fcnzoo.config import BackboneConfig
from fcnzoo.heads import build_head
from fcnzoo.registry import HEADS

TABLE = Path(fcnzoo.__file__).parent / "heads.json"


def heads_of(name: str) -> list[str]:
    """Return the heads that can be built on a backbone."""
    found = []
    for output_stride in (None, 8):
        try:
            with torch.device("meta"):
                backbone = build_backbone(BackboneConfig(name, output_stride=output_stride))
        except fcnzoo.errors.BackboneError:
            continue
        for head, config in HEADS.items():
            if (head == "fcn") != (output_stride is not None):
                continue
            try:
                with torch.device("meta"):
                    build_head(config, backbone.features, 2, name)
            except fcnzoo.errors.BackboneError:
                continue
            found.append(head)
    return found


def main() -> None:
    """Write the table."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in track(fcnzoo.list_backbones(), disable=not sys.stderr.isatty()):
        if name.startswith("paper/"):
            groups["fcn32s fcn16s fcn8s"].append(name)
        else:
            groups[" ".join(heads_of(name))].append(name)
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0]}
    table = {"versions": versions, "heads": dict(sorted(groups.items()))}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for heads, names in sorted(groups.items()):
        print(f"{len(names):5}  {heads or 'none'}")


if __name__ == "__main__":
    main()
