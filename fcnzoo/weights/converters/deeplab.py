"""DeepLabV3 on MobileNetV2 ×0.5, as Google published it for phones (`deeplabv3_257_mv_gpu.tflite`).

The file is TensorFlow Lite's. The same network as safetensors in torchvision's names (`backbone.` for
`mobilenet_v2(width_mult=0.5, round_nearest=4).features`) is read, too. In both, BatchNorm is folded into the
convolutions: here its layers add the biases and are otherwise the identity.

timm's `mobilenetv2_050` has 16 channels where this network has 12 (timm rounds ½ · 24 to a multiple of 8, Google to one
of 4). The four, and what they are expanded to, are zero here before and after every layer: the network computes the
same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fcnzoo.errors import ConversionError, WeightsError
from fcnzoo.files.safetensors import read_safetensors
from fcnzoo.weights.converters.plan import Checkpoint, Plan, Rename, listed
from fcnzoo.weights.converters.tflite import read_tflite
from fcnzoo.zoo.registry import get_spec

MODEL = "deeplabv3_mobilenetv2_050"

STAGES = (1, 2, 3, 4, 3, 3, 1)
"""Blocks of each stage of MobileNetV2 (Sandler et al. 2018, table 2)."""

EPS = 1e-5
"""Of PyTorch's BatchNorm: with a variance of 1 − EPS it is the identity."""

ZERO_CHANNELS = {12: 16, 72: 96}
"""Channels of the stage at stride 4, and what they are expanded to (six times): Google's, and timm's."""

AT_STRIDE_4 = re.compile(r"MobilenetV2/expanded_conv_[123]/")
"""Layers that read or write such channels."""

SCORE, PROJECT = "logits/semantic", "concat_projection"


class Layer(NamedTuple):
    """A convolution and its BatchNorm, by everybody's names.

    Attributes:
        tensorflow: TensorFlow's scope.
        torchvision: torchvision's convolution and BatchNorm; the same name twice where the bias is the convolution's.
        ours: Our convolution and BatchNorm.
    """

    tensorflow: str
    torchvision: tuple[str, str]
    ours: tuple[str, str]

    @property
    def weight(self) -> str:
        """What TensorFlow calls the weight."""
        return f"{self.tensorflow}/{'depthwise_' if self.tensorflow.endswith('/depthwise') else ''}weights"

    @property
    def bias(self) -> str:
        """What TensorFlow calls the bias."""
        return f"{self.tensorflow}/{'depthwise' if self.tensorflow.endswith('/depthwise') else 'Conv2D'}_bias"


def _layers() -> Iterator[Layer]:
    network = "backbone.network"
    yield Layer("MobilenetV2/Conv", ("backbone.0.0", "backbone.0.1"), (f"{network}.conv_stem", f"{network}.bn1"))
    places = [(stage, block) for stage, count in enumerate(STAGES) for block in range(count)]
    for number, (stage, block) in enumerate(places):
        theirs, features = f"MobilenetV2/expanded_conv{f'_{number}' * (number > 0)}", f"backbone.{number + 1}.conv"
        ours = f"{network}.blocks.{stage}.{block}"
        parts = [("expand", "conv_pw"), ("depthwise", "conv_dw"), ("project", "conv_pwl")]
        if number == 0:  # it does not expand
            parts = [("depthwise", "conv_dw"), ("project", "conv_pw")]
        for i, (part, conv) in enumerate(parts):
            last = i == len(parts) - 1
            names = (f"{features}.{i}", f"{features}.{i + 1}") if last else (f"{features}.{i}.0", f"{features}.{i}.1")
            yield Layer(f"{theirs}/{part}", names, (f"{ours}.{conv}", f"{ours}.bn{i + 1}"))
    yield Layer("image_pooling", ("image_pooling", "image_pooling"), ("head.pooling.conv", "head.pooling.norm"))
    yield Layer("aspp0", ("aspp0", "aspp0"), ("head.branches.0.0", "head.branches.0.1"))
    yield Layer(PROJECT, ("project", "project"), ("head.project.0", "head.project.1"))


LAYERS = tuple(_layers())
"""All but the score layer, which has no BatchNorm."""

STEPS = "num_batches_tracked"

FOLDED = {"weight": "scale", "running_mean": "mean", "running_var": "variance"}
"""What folding took from TensorFlow's BatchNorm, by our names."""

RULES = (
    *(Rename(layer.weight, f"{layer.ours[0]}.weight") for layer in LAYERS),
    *(Rename(layer.bias, f"{layer.ours[1]}.bias") for layer in LAYERS),
    *(
        Rename(f"{layer.tensorflow}/{theirs}", f"{layer.ours[1]}.{ours}")
        for layer in LAYERS
        for ours, theirs in (*FOLDED.items(), (STEPS, STEPS))
    ),
    Rename(f"{SCORE}/weights", "head.score.weight"),
    Rename(f"{SCORE}/Conv2D_bias", "head.score.bias"),
)
"""From TensorFlow's names to ours."""


def read_deeplab(path: Path) -> Checkpoint:
    """Read the network's weights: by TensorFlow's names, in PyTorch's layouts.

    Raises:
        ConversionError: The file is missing, damaged, or holds something else.
    """
    if path.suffix == ".safetensors":
        try:
            return _from_torchvision(read_safetensors(path), path.name)
        except WeightsError as error:
            raise ConversionError(str(error)) from None
    # Whole numbers are no weights: to which sizes the graph resizes.
    found = {name: tensor for name, tensor in read_tflite(path).items() if tensor.is_floating_point()}
    for name, tensor in found.items():
        if tensor.ndim == 4:  # (out, kh, kw, in), and (1, kh, kw, C) of depthwise convolutions
            depthwise = name.endswith("/depthwise_weights")
            found[name] = tensor.permute(3, 0, 1, 2) if depthwise else tensor.permute(0, 3, 1, 2)
    return Checkpoint(path.name, found)


def _from_torchvision(tensors: dict[str, Tensor], file: str) -> Checkpoint:
    """Give weights in torchvision's names TensorFlow's; their BatchNorm must be folded."""
    found: dict[str, Tensor] = {}
    left = dict(tensors)
    for layer in (*LAYERS, Layer(SCORE, ("classifier", "classifier"), ("", ""))):
        conv, norm = layer.torchvision
        for ours, theirs in ((layer.weight, f"{conv}.weight"), (layer.bias, f"{norm}.bias")):
            if theirs in left:
                found[ours] = left.pop(theirs)
        if norm != conv and layer.bias in found:
            for name, identity in _identity(found[layer.bias]).items():
                tensor = left.pop(f"{norm}.{name}", identity)
                if tensor.shape != identity.shape or not torch.allclose(tensor, identity, rtol=0, atol=1e-7):
                    raise ConversionError(f"{file}: {norm}.{name} is not folded into the convolution before it")
            left.pop(f"{norm}.{STEPS}", None)
    if left:
        raise ConversionError(f"{file}: {len(left)} unknown: {listed(left)}")
    return Checkpoint(file, found)


def plan_deeplab(checkpoint: Checkpoint) -> Plan:
    """Plan the conversion: identities for BatchNorm, zeros for the channels that timm has more.

    Raises:
        ConversionError: It is another network.
    """
    num_classes = checkpoint.classes(f"{SCORE}/weights")
    config = get_spec(MODEL).config
    labels = config.label_set if num_classes == config.num_classes else None
    config = config.replace(label_set=None).with_classes(num_classes, labels)
    tensors = dict(checkpoint.tensors)
    for layer in LAYERS:
        if layer.bias in tensors:
            for name, tensor in _identity(tensors[layer.bias]).items():
                tensors[f"{layer.tensorflow}/{FOLDED[name]}"] = tensor
    for name in [name for name in tensors if AT_STRIDE_4.match(name)]:
        tensors[name] = _padded(tensors[name], 1.0 if name.endswith(("/scale", "/variance")) else 0.0)
    project = f"{PROJECT}/weights"
    if project in tensors:  # pooling comes first there, last here
        tensors[project] = tensors[project].roll(tensors[project].shape[1] // 2, dims=1)
    return Plan(config, RULES, tensors, {"zero_channels": "4 of 16 at stride 4, and 24 of the 96 they are expanded to"})


def _identity(bias: Tensor) -> dict[str, Tensor]:
    """Return what makes a BatchNorm with this bias add it and do nothing else."""
    return {
        "weight": torch.ones_like(bias),
        "running_mean": torch.zeros_like(bias),
        "running_var": torch.full_like(bias, 1 - EPS),
    }


def _padded(tensor: Tensor, value: float) -> Tensor:
    """Give a tensor the channels that timm's has more."""
    padded = tensor.new_full([ZERO_CHANNELS.get(length, length) for length in tensor.shape], value)
    padded[tuple(slice(length) for length in tensor.shape)] = tensor
    return padded
