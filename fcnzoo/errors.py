"""The error tree.

    FCNZooError
    ├── UnknownModelError(LookupError)   no model, backbone, label set or tag of that name
    ├── BackboneError(ValueError)        a backbone cannot serve the head that was asked for
    ├── WeightsError                     weights are missing, damaged or do not fit the model
    ├── ConversionError                  a foreign checkpoint is not what its converter expects
    ├── ExportError                      a network cannot be exported, or the file would not say the same
    └── LabelError(ValueError)           a target or mask holds a label outside the label set

Arguments of a wrong type or value raise plain `TypeError` / `ValueError`; a missing optional
dependency raises `ImportError` naming the extra that brings it.
"""

from __future__ import annotations


class FCNZooError(Exception):
    """Base of every error that is particular to fcnzoo."""


class UnknownModelError(FCNZooError, LookupError):
    """A name that neither the zoo, plug-ins, timm nor torchvision know; the text lists near names."""


class BackboneError(FCNZooError, ValueError):
    """A backbone cannot give what a head needs (reductions, output stride, geometry)."""


class WeightsError(FCNZooError):
    """Weights are missing, damaged, or do not fit the model they were asked for."""


class ConversionError(FCNZooError):
    """A foreign checkpoint does not hold what its converter expects."""


class ExportError(FCNZooError):
    """A network cannot be traced or written in a format, or the graph gives other labels than the network."""


class LabelError(FCNZooError, ValueError):
    """A mask or target holds a value that is neither a class nor the ignore index."""
