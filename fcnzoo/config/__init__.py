"""What networks and weights are: frozen records that go to JSON and back. Nothing here imports torch."""

from fcnzoo.config.grid import Border, Grid
from fcnzoo.config.network import (
    FORMAT,
    BackboneConfig,
    DilatedHeadConfig,
    FCNConfig,
    LossConfig,
    Preprocess,
    SkipHeadConfig,
    fit_channels,
)
from fcnzoo.config.spec import Metric, ModelSpec, Publication, Weights

__all__ = [
    "FORMAT",
    "BackboneConfig",
    "Border",
    "DilatedHeadConfig",
    "FCNConfig",
    "Grid",
    "LossConfig",
    "Metric",
    "ModelSpec",
    "Preprocess",
    "Publication",
    "SkipHeadConfig",
    "Weights",
    "fit_channels",
]
