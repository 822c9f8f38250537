"""The catalog: the same names as timm and torchvision give, without importing them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torchvision

import fcnzoo
from fcnzoo.zoo import catalog


def test_timm_names_are_timms() -> None:
    """Name for name what `timm.list_models()` returns."""
    assert list(catalog.timm_names()) == sorted(timm.list_models())


def test_torchvision_names_are_torchvisions() -> None:
    """Name for name what `torchvision.models.list_models(module=torchvision.models)` returns."""
    assert list(catalog.torchvision_names()) == sorted(torchvision.models.list_models(module=torchvision.models))


def test_all_backbones_are_listed_by_source() -> None:
    """Without a source all are listed; with one, its own, each once."""
    everything = catalog.backbone_names()
    assert len(everything) == len(set(everything))
    parts = [catalog.backbone_names(source) for source in ("paper", "timm", "torchvision")]
    assert everything == [name for part in parts for name in part]
    assert "paper/vgg16" in everything
    assert "timm/resnet50" in everything
    assert "torchvision/resnet50" in everything


def test_unknown_sources_are_refused() -> None:
    """A source that is none is a ValueError that lists them."""
    with pytest.raises(ValueError, match="'paper', 'timm', 'torchvision'"):
        catalog.backbone_names("keras")


def test_a_missing_package_is_named() -> None:
    """A package that is not installed is an ImportError that says how to get it."""
    with pytest.raises(ImportError, match="pip install nowhere_to_be_found"):
        catalog._sources("nowhere_to_be_found", "models", nested=True)


def test_nothing_is_imported() -> None:
    """Listing every backbone imports neither torch nor timm nor torchvision."""
    script = (
        "import sys, fcnzoo; names = fcnzoo.list_backbones(); assert len(names) > 1000\n"
        "print([m for m in ('torch', 'timm', 'torchvision', 'numpy', 'PIL') if m in sys.modules])"
    )
    root = str(Path(fcnzoo.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONPATH": root}
    )
    assert done.stdout.strip() == "[]"
