"""fcnzoo: fully convolutional segmentation on any timm or torchvision backbone.

    model = fcnzoo.create("fcn8s_vgg16")
    logits = model(image)                       # (B, K, H, W)
    loss = model(image, target)                 # a scalar
    fcnzoo.Predictor()("photo.jpg").overlay()   # the shipped model

Importing the package imports nothing else: every name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"
"""The version of the package; the wheel's is read from here."""

if TYPE_CHECKING:
    from fcnzoo import (
        backbones,
        config,
        data,
        errors,
        evaluate,
        images,
        labels,
        metrics,
        ops,
        preprocess,
        train,
        visualize,
    )
    from fcnzoo.backbones import fully_convolutional
    from fcnzoo.config import Grid
    from fcnzoo.converters import convert
    from fcnzoo.exporters import export
    from fcnzoo.factory import create
    from fcnzoo.inference import optimize
    from fcnzoo.labels import LabelSet
    from fcnzoo.model import FCN, Scores, build
    from fcnzoo.predict import Predictor
    from fcnzoo.push import push_to_hub
    from fcnzoo.registry import ModelSpec, Weights, get_spec, list_backbones, list_models, register
    from fcnzoo.segmentation import Segmentation
    from fcnzoo.weights import load, save

_NAMES = {
    "FCN": "model",
    "Grid": "config",
    "LabelSet": "labels",
    "ModelSpec": "registry",
    "Predictor": "predict",
    "Scores": "model",
    "Segmentation": "segmentation",
    "Weights": "registry",
    "build": "model",
    "convert": "converters",
    "create": "factory",
    "export": "exporters",
    "fully_convolutional": "backbones",
    "get_spec": "registry",
    "list_backbones": "registry",
    "list_models": "registry",
    "load": "weights",
    "optimize": "inference",
    "push_to_hub": "push",
    "register": "registry",
    "save": "weights",
}
_MODULES = (
    "backbones",
    "config",
    "data",
    "errors",
    "evaluate",
    "images",
    "labels",
    "metrics",
    "ops",
    "preprocess",
    "train",
    "visualize",
)

__all__ = [
    "FCN",
    "Grid",
    "LabelSet",
    "ModelSpec",
    "Predictor",
    "Scores",
    "Segmentation",
    "Weights",
    "__version__",
    "backbones",
    "build",
    "config",
    "convert",
    "create",
    "data",
    "errors",
    "evaluate",
    "export",
    "fully_convolutional",
    "get_spec",
    "images",
    "labels",
    "list_backbones",
    "list_models",
    "load",
    "metrics",
    "ops",
    "optimize",
    "preprocess",
    "push_to_hub",
    "register",
    "save",
    "train",
    "visualize",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name in _NAMES:
        value = getattr(importlib.import_module(f"fcnzoo.{_NAMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"fcnzoo.{name}")
    else:
        raise AttributeError(f"module 'fcnzoo' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
