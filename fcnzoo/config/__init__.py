"""What networks and weights are: frozen records that go to JSON and back. Nothing here imports torch."""

from fcnzoo.config.grid import Border, Grid, Padding
from fcnzoo.config.heads import ContextHeadConfig, DilatedHeadConfig, HeadConfig, LRASPPHeadConfig, SkipHeadConfig
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
    "ContextHeadConfig",
    "DilatedHeadConfig",
    "FCNConfig",
    "Grid",
    "HeadConfig",
    "LRASPPHeadConfig",
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
