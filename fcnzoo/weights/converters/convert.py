"""Other people's checkpoints made fcnzoo's: `fcnzoo.convert`.

Each publisher has a module of its own, which says by declarative rules how keys are renamed. Every key of a
file is used exactly once, or the conversion is refused; nothing is guessed that shapes and keys do not say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from fcnzoo.config import FCNConfig
from fcnzoo.config.spec import Converter
from fcnzoo.errors import BackboneError, ConversionError
from fcnzoo.files.digests import hash_file
from fcnzoo.files.keys import listed
from fcnzoo.model.fcn import FCN, build
from fcnzoo.weights.converters.caffemodel import read_caffemodel
from fcnzoo.weights.converters.deeplab import plan_deeplab, read_deeplab
from fcnzoo.weights.converters.fold import fold_input as fold
from fcnzoo.weights.converters.mmseg import plan_mmseg
from fcnzoo.weights.converters.paper import plan_paper
from fcnzoo.weights.converters.plan import Checkpoint, Plan, Rename, use_every_key
from fcnzoo.weights.converters.receipt import RULES_VERSION, receipt
from fcnzoo.weights.converters.torch_file import read_torch
from fcnzoo.weights.converters.torchvision import plan_torchvision
from fcnzoo.zoo.heads import head_name
from fcnzoo.zoo.registry import get_spec

__all__ = ["RULES_VERSION", "SOURCES", "Rename", "convert", "read_caffemodel"]


@dataclass(frozen=True)
class _Converter:
    """How files of one source are read, and what is made of them."""

    read: Callable[[Path], Checkpoint]
    plan: Callable[[Checkpoint], Plan]


def _read_caffe(path: Path) -> Checkpoint:
    return Checkpoint(path.name, read_caffemodel(path))


_CONVERTERS: Mapping[str, _Converter] = {
    "torchvision": _Converter(read_torch, plan_torchvision),
    "torchfcn": _Converter(read_torch, partial(plan_paper, at_once=False, caffe=False)),
    "torchfcn-atonce": _Converter(read_torch, partial(plan_paper, at_once=True, caffe=False)),
    "caffe": _Converter(_read_caffe, partial(plan_paper, at_once=False, caffe=True)),
    "caffe-atonce": _Converter(_read_caffe, partial(plan_paper, at_once=True, caffe=True)),
    "mmseg": _Converter(read_torch, plan_mmseg),
    "deeplab": _Converter(read_deeplab, plan_deeplab),
}

SOURCES: tuple[str, ...] = get_args(Converter)
"""Every source that `convert` takes."""


def convert(
    source: Converter,
    file: str | Path,
    *,
    model: str | None = None,
    num_classes: int | None = None,
    sha256: str | None = None,
    fold_input: bool = False,
    ema: bool = False,
) -> FCN:
    """Convert a checkpoint of somebody else's code.

    torchvision: its FCN, DeepLabV3 and Lite R-ASPP, with or without aux head. torchfcn, Caffe: FCN-32s, 16s, 8s on
    VGG-16, and FCN-8s at once (`…-atonce`: the scales of pool3 and pool4 are folded into the score layers; torchfcn's
    files of both have the same keys, so that only you can know which it is). mmseg: FCN on ResNet-50/101 (v1c or
    plain) D8. deeplab: DeepLabV3 on MobileNetV2 ×0.5 (`deeplabv3_257_mv_gpu.tflite`). `.caffemodel` files are read
    without Caffe, `.tflite` files without TensorFlow, PyTorch files without importing or running what they name: what
    training scripts put beside the weights is left out, as the receipt says, and so are prefixes such as `module.`.

    The preprocessing that the weights were trained on comes with them (BGR less the mean for torchfcn and
    Caffe), and their classes where these are certain: 21 are VOC's, 60 from Caffe PASCAL-Context's in the order
    of Long et al., mmseg's checkpoints name theirs.

    Args:
        source: Whose code wrote it.
        file: The checkpoint.
        model: Name of the model that it must hold, such as `"fcn8s_vgg16"`; by default what it is found to be.
            A bare state dict of mmseg's, without the config that its checkpoints carry, needs it.
        num_classes: K that it must have; by default what its score layer has.
        sha256: Digest that the file must have, or the first 8 digits or more, as file names carry them.
        fold_input: For torchfcn and Caffe: fold the order of the channels and the range of 0–255 into the first
            convolution, so that the network takes RGB pictures of 0–1 less the mean. The mean cannot be folded:
            it is taken off before the convolution pads with zeros.
        ema: Take the averaged weights that a PyTorch file holds beside the last ones (`model_ema`, `ema`, …).

    Returns:
        The network, in eval mode. `model.provenance` says what it was made from; `fcnzoo.save` keeps that.

    Raises:
        ConversionError: The file is missing, damaged, has another digest, holds NaN or infinite values, or is
            not what `source`, `model` or `num_classes` say; keys that do not fit are listed.
        UnknownModelError: Nothing is called `model`.
        ValueError: `source` or `sha256` is impossible, there is nothing to fold, or `ema` is for another kind of file.
    """
    if source not in _CONVERTERS:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {source!r}")
    if ema and _CONVERTERS[source].read is not read_torch:
        raise ValueError(f"ema is for PyTorch files; those of {source} hold one set of weights")
    path = Path(file)
    digest = _digest(path, sha256)
    with torch.device("cpu"):  # whatever the caller's default is: files are read and checked on the CPU
        checkpoint = read_torch(path, ema=True) if ema else _CONVERTERS[source].read(path)
        plan, network = _convert(source, checkpoint, path, model, num_classes)
        notes = plan.notes | checkpoint.notes | (fold(network) if fold_input else {})
        network.provenance = receipt(source, path, digest, notes, network)
        return network


def _digest(path: Path, wanted: str | None) -> str:
    """Return the sha256 of a file, compared with the one the caller gave, whole or the beginning."""
    if wanted is not None and not re.fullmatch(r"[0-9a-fA-F]{8,64}", wanted):
        raise ValueError(f"sha256 must be the 64 hexadecimal digits, or the first 8 or more of them, got {wanted!r}")
    try:
        digest = hash_file(path)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read ({error.strerror})") from None
    if wanted is not None and not digest.startswith(wanted.lower()):
        raise ConversionError(f"{path}: sha256 is {digest}, not {wanted}; the download is damaged or another file")
    return digest


def _convert(
    source: str, checkpoint: Checkpoint, path: Path, model: str | None, num_classes: int | None
) -> tuple[Plan, FCN]:
    _check_finite(checkpoint)
    try:
        plan = _CONVERTERS[source].plan(checkpoint)
    except ValueError as error:  # impossible numbers in the file, which the config's records refuse
        raise checkpoint.refuse(str(error)) from None
    _check_wishes(plan, path, model, num_classes)
    return plan, _load(plan, checkpoint.file)


def _check_finite(checkpoint: Checkpoint) -> None:
    # `float`: what is narrower than 16 bits has no `isfinite`.
    bad = [
        key
        for key, tensor in checkpoint.tensors.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor.float() if tensor.itemsize < 2 else tensor).all()
    ]
    if bad:
        raise checkpoint.refuse(f"NaN or infinite values in {listed(bad)}")


def _check_wishes(plan: Plan, path: Path, model: str | None, num_classes: int | None) -> None:
    config = plan.config
    if num_classes is not None and num_classes != config.num_classes:
        raise ConversionError(f"{path}: its score layer has {config.num_classes} classes, not {num_classes}")
    if model is None and plan.assumed:
        name = _outline(config).replace(" on timm/", "_")
        raise ConversionError(
            f"{path} does not say its geometry, which is no part of the weights; if it is {plan.assumed}, "
            f"say so by model={name!r}"
        )
    if model is None:
        return
    wanted = get_spec(model).config
    if _outline(wanted) != _outline(config):
        raise ConversionError(f"{path} holds {_outline(config)}, not {_outline(wanted)} ({model})")


def _outline(config: FCNConfig) -> str:
    """Say head and architecture, which is what a model's name says; weight tags and classes aside."""
    return f"{head_name(config.head)} on {config.backbone.name.partition('.')[0]}"


def _load(plan: Plan, file: str) -> FCN:
    """Build the network without memory, and give it the tensors."""
    try:
        with torch.device("meta"):
            network = build(plan.config)
    except BackboneError as error:
        raise ConversionError(f"{file}: {error}") from error
    tensors = use_every_key(plan, network.state_dict(), file)
    network.load_state_dict(tensors, strict=True, assign=True)
    left = [name for name, buffer in network.named_buffers() if buffer.is_meta]
    if left:
        raise ConversionError(f"{file}: the file cannot fill {listed(left)}")
    return network.eval()
