"""What networks and weights are: frozen records that go to JSON and back. Nothing here imports torch."""

from fcnzoo.config.grid import Border, Grid, Padding
from fcnzoo.config.heads import DilatedHeadConfig, SkipHeadConfig
from fcnzoo.config.network import (
    CAFFE,
    FORMAT,
    IMAGENET_255,
    BackboneConfig,
    FCNConfig,
    LossConfig,
    Preprocess,
    fit_channels,
)
from fcnzoo.config.spec import Metric, ModelSpec, Publication, Weights

__all__ = [
    "CAFFE",
    "FORMAT",
    "IMAGENET_255",
    "BackboneConfig",
    "Border",
    "DilatedHeadConfig",
    "FCNConfig",
    "Grid",
    "LossConfig",
    "Metric",
    "ModelSpec",
    "Padding",
    "Preprocess",
    "Publication",
    "SkipHeadConfig",
    "Weights",
    "fit_channels",
]
