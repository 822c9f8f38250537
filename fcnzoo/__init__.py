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

from fcnzoo.version import __version__

if TYPE_CHECKING:  # for type checkers and editors: the table below, as imports
    from fcnzoo import backbones as backbones
    from fcnzoo import config as config
    from fcnzoo import data as data
    from fcnzoo import errors as errors
    from fcnzoo import images as images
    from fcnzoo import labels as labels
    from fcnzoo import metrics as metrics
    from fcnzoo import ops as ops
    from fcnzoo import training as training
    from fcnzoo.backbones import fully_convolutional as fully_convolutional
    from fcnzoo.config import Grid as Grid
    from fcnzoo.config import Metric as Metric
    from fcnzoo.config import ModelSpec as ModelSpec
    from fcnzoo.config import Weights as Weights
    from fcnzoo.images.segmentation import Segmentation as Segmentation
    from fcnzoo.inference.evaluation import Evaluation as Evaluation
    from fcnzoo.inference.evaluation import evaluate as evaluate
    from fcnzoo.inference.exporters.export import export as export
    from fcnzoo.inference.optimize import Optimization as Optimization
    from fcnzoo.inference.optimize import optimize as optimize
    from fcnzoo.inference.predictor import Predictor as Predictor
    from fcnzoo.inference.predictor import agreement as agreement
    from fcnzoo.labels import LabelSet as LabelSet
    from fcnzoo.model.fcn import FCN as FCN
    from fcnzoo.model.fcn import Scores as Scores
    from fcnzoo.model.fcn import build as build
    from fcnzoo.training.run import train as train
    from fcnzoo.weights.converters.convert import convert as convert
    from fcnzoo.weights.factory import create as create
    from fcnzoo.weights.hub import pull as pull
    from fcnzoo.weights.load import load as load
    from fcnzoo.weights.push import push_to_hub as push_to_hub
    from fcnzoo.weights.save import save as save
    from fcnzoo.weights.verify import verify as verify
    from fcnzoo.zoo.registry import get_spec as get_spec
    from fcnzoo.zoo.registry import is_model as is_model
    from fcnzoo.zoo.registry import list_backbones as list_backbones
    from fcnzoo.zoo.registry import list_models as list_models
    from fcnzoo.zoo.registry import register as register

_PUBLIC = {
    "agreement": "inference.predictor",
    "backbones": "",
    "build": "model.fcn",
    "config": "",
    "convert": "weights.converters.convert",
    "create": "weights.factory",
    "data": "",
    "errors": "",
    "evaluate": "inference.evaluation",
    "Evaluation": "inference.evaluation",
    "export": "inference.exporters.export",
    "FCN": "model.fcn",
    "fully_convolutional": "backbones",
    "get_spec": "zoo.registry",
    "Grid": "config",
    "images": "",
    "is_model": "zoo.registry",
    "labels": "",
    "LabelSet": "labels",
    "list_backbones": "zoo.registry",
    "list_models": "zoo.registry",
    "load": "weights.load",
    "Metric": "config",
    "metrics": "",
    "ModelSpec": "config",
    "ops": "",
    "Optimization": "inference.optimize",
    "optimize": "inference.optimize",
    "Predictor": "inference.predictor",
    "pull": "weights.hub",
    "push_to_hub": "weights.push",
    "register": "zoo.registry",
    "save": "weights.save",
    "Scores": "model.fcn",
    "Segmentation": "images.segmentation",
    "train": "training.run",
    "training": "",
    "verify": "weights.verify",
    "Weights": "config",
}
"""Every public name and the module it comes from, below `fcnzoo`; `""`: it is a module itself."""

__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fcnzoo' has no attribute {name!r}")
    module = _PUBLIC[name]
    value = importlib.import_module(f"fcnzoo.{module or name}")
    if module:
        value = getattr(value, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
