"""Names of all backbones that are installed, without importing them.

Importing timm costs seconds, its list of names is in its source files: every network is a function below
`@register_model`. The tests compare what is read here with what timm and torchvision say themselves.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from pathlib import Path

from fcnzoo.files.reading import read_text

_TIMM = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)
_TORCHVISION = re.compile(r"^@register_model\((?:name=)?(?:\"(\w+)\")?\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
_RENAMED = re.compile(r"^register_model_deprecations\(__name__, \{(.*?)\}\)", re.MULTILINE | re.DOTALL)
_PAIR = re.compile(r"'(\w+)'\s*:\s*'([\w.]+)'")

PAPER = ("paper/vgg16",)
"""Networks that are ours."""

AS_BUILDABLE = {"deeplabv3": "fcn", "lraspp": "fcn"}
"""Heads that stand wherever another does, so that `benchmarks.coverage` tries that one only. `deeplabv3` asks for the
very features of `fcn`. `lraspp` asks for output stride 16, and whatever reaches 8 (by an option, by dilation or by
resizing) reaches 16 the same way; any feature may be its finer one."""


def _sources(package: str, folder: str, *, nested: bool) -> list[str]:
    """Read the source files of an installed package without running them."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{package} is not installed; `pip install {package}`")
    root = Path(next(iter(spec.submodule_search_locations))) / folder
    return [read_text(path) for path in sorted(root.glob("**/*.py" if nested else "*.py"))]


@functools.cache
def timm_names() -> tuple[str, ...]:
    """Return timm's architectures, sorted: what `timm.list_models()` returns."""
    names = {name for text in _sources("timm", "models", nested=True) for name in _TIMM.findall(text)}
    return tuple(sorted(names))


@functools.cache
def timm_renamed() -> dict[str, str]:
    """Return what timm calls networks today that once had other names: architecture, and often a tag."""
    tables = (table for text in _sources("timm", "models", nested=True) for table in _RENAMED.findall(text))
    return dict(pair for table in tables for pair in _PAIR.findall(table))


@functools.cache
def torchvision_names() -> tuple[str, ...]:
    """Return torchvision's classifiers, sorted: `torchvision.models.list_models(module=torchvision.models)`."""
    texts = _sources("torchvision", "models", nested=False)
    return tuple(sorted({name or function for text in texts for name, function in _TORCHVISION.findall(text)}))


def backbone_names(source: str | None = None) -> list[str]:
    """Return `"timm/…"`, `"torchvision/…"` and `"paper/…"` names, sorted by source and name.

    Raises:
        ValueError: `source` is none of the three.
    """
    groups = {
        "paper": lambda: list(PAPER),
        "timm": lambda: [f"timm/{name}" for name in timm_names()],
        "torchvision": lambda: [f"torchvision/{name}" for name in torchvision_names()],
    }
    if source is not None and source not in groups:
        raise ValueError(f"source must be one of {sorted(groups)} or None, got {source!r}")
    return [name for key, names in groups.items() if source in (None, key) for name in names()]


@functools.cache
def heads_by_backbone() -> dict[str, frozenset[str]]:
    """Return which heads can be built on which backbone: `heads.json`, which `benchmarks.coverage` writes.

    A network that the installed timm or torchvision has and the table does not is absent here.
    """
    table = json.loads(read_text(Path(__file__).parent / "heads.json"))
    return {
        name: frozenset((*heads.split(), *(head for head, other in AS_BUILDABLE.items() if other in heads.split())))
        for heads, names in table["heads"].items()
        for name in names
    }
