"""Pictures in, label maps as pictures out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fcnzoo.images.load import IMAGE_SUFFIXES as IMAGE_SUFFIXES
    from fcnzoo.images.load import MAX_PIXELS as MAX_PIXELS
    from fcnzoo.images.load import ImageSource as ImageSource
    from fcnzoo.images.load import load_image as load_image
    from fcnzoo.images.preprocess import fit_size as fit_size
    from fcnzoo.images.preprocess import image_channels as image_channels
    from fcnzoo.images.preprocess import to_tensor as to_tensor
    from fcnzoo.images.visualize import colorize as colorize
    from fcnzoo.images.visualize import count_pixels as count_pixels
    from fcnzoo.images.visualize import indexed as indexed
    from fcnzoo.images.visualize import legend as legend
    from fcnzoo.images.visualize import legend_entries as legend_entries
    from fcnzoo.images.visualize import overlay as overlay
    from fcnzoo.images.visualize import with_legend as with_legend

_FROM = {
    "load": ("IMAGE_SUFFIXES", "ImageSource", "MAX_PIXELS", "load_image"),
    "preprocess": ("fit_size", "image_channels", "to_tensor"),
    "visualize": ("colorize", "count_pixels", "indexed", "legend", "legend_entries", "overlay", "with_legend"),
}
__all__ = sorted(name for names in _FROM.values() for name in names)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import numpy, Pillow and torch only for what needs them (PEP 562)."""
    for module, names in _FROM.items():
        if name in names:
            return getattr(importlib.import_module(f"fcnzoo.images.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
