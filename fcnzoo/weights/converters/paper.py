"""The paper's networks on VGG-16, from torchfcn's state dicts and from Caffe: the layers have the same names.

Sources: `voc-fcn32s`, `voc-fcn16s`, `voc-fcn8s`, `voc-fcn8s-atonce` of the authors' repository
(fcn.berkeleyvision.org); `torchfcn/models/fcn{32s,16s,8s}.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fcnzoo.config import CAFFE
from fcnzoo.errors import ConversionError
from fcnzoo.model.skip import bilinear_kernel
from fcnzoo.weights.converters.plan import Checkpoint, Plan, Rename
from fcnzoo.zoo.entries.paper import context_labels
from fcnzoo.zoo.registry import get_spec

RULES = (
    Rename("conv", "backbone.conv"),
    Rename("fc", "backbone.fc"),
    Rename("score_fr.", "head.score.32."),
    Rename("score_pool4.", "head.score.16."),
    Rename("score_pool3.", "head.score.8."),
)

DECONVOLUTIONS: Mapping[int, Mapping[str, int]] = {
    32: {"upscore": 32},
    16: {"upscore2": 2, "upscore16": 16},
    8: {"upscore2": 2, "upscore_pool4": 2, "upscore8": 8},
}
"""By the finest stride: which layers upsample, and by how much. Here they are a `Grid` and hold no weights."""

AT_ONCE_SCALES: Mapping[str, float] = {"pool4": 0.01, "pool3": 0.0001}
"""FCN-8s at once scales these features before it scores them (`voc-fcn8s-atonce/net.py`)."""

TOLERANCE = 1e-5
"""Largest difference from the bilinear kernel: that of float32, and of the order of operations."""


def plan_paper(checkpoint: Checkpoint, *, at_once: bool, caffe: bool) -> Plan:
    """Plan the conversion of FCN-32s, 16s or 8s; the score layers in the file say which it is.

    Args:
        checkpoint: Weights by layer names.
        at_once: It is the FCN-8s that was trained at once, with scaled features.
        caffe: It is a file of the authors', whose PASCAL-Context labels are known by their number.

    Raises:
        ConversionError: Layers are missing, or a deconvolution is not the bilinear one.
    """
    tensors = dict(checkpoint.tensors)
    num_classes = checkpoint.classes("score_fr.weight")
    stride = 8 if "score_pool3.weight" in tensors else 16 if "score_pool4.weight" in tensors else 32
    if at_once and stride != 8:
        raise checkpoint.refuse(f"at once is a form of FCN-8s, and the file holds an FCN-{stride}s")
    for layer, factor in DECONVOLUTIONS[stride].items():
        key = f"{layer}.weight"
        if key not in tensors:
            raise checkpoint.refuse(f"lacks {key}, which an FCN-{stride}s has")
        check_bilinear(tensors.pop(key), num_classes, factor, f"{checkpoint.file}: {key}")
    if at_once:
        _fold_scales(tensors, checkpoint)
    for key, tensor in tensors.items():
        # Old Caffe files give every blob four dimensions.
        if key.endswith(".bias") and tensor.ndim == 4 and tuple(tensor.shape[:3]) == (1, 1, 1):
            tensors[key] = tensor.reshape(-1)
    config = get_spec(f"fcn{stride}s_vgg16").config
    labels = config.label_set if num_classes == 21 else context_labels() if caffe and num_classes == 60 else None
    notes = {"scales_folded": dict(AT_ONCE_SCALES)} if at_once else {}
    # BGR less the mean, as these files were trained, whoever changed the zoo's entry.
    config = config.replace(label_set=None).with_classes(num_classes, labels).replace(preprocess=CAFFE)
    return Plan(config, RULES, tensors, notes)


def check_bilinear(weight: Tensor, num_classes: int, stride: int, name: str) -> None:
    """Check that a deconvolution is bilinear interpolation, one class at a time.

    Args:
        weight: (K, K, 2·stride, 2·stride), the kernel on its diagonal, as Caffe's filler and torchfcn make it.
        num_classes: K.
        stride: By how much it upsamples.
        name: What to call it in the error.

    Raises:
        ConversionError: Its shape is another, it mixes classes, or its kernel is not the bilinear one.
    """
    wanted = (num_classes, num_classes, 2 * stride, 2 * stride)
    if tuple(weight.shape) != wanted:
        raise ConversionError(f"{name} has shape {tuple(weight.shape)} instead of {wanted}")
    kernel = bilinear_kernel(stride).to(torch.float32)
    for k in range(num_classes):
        # Row by row: at 150 classes the whole would be 350 MB a second time.
        difference = weight[k].float().clone()
        difference[k] -= kernel
        worst = difference.abs().amax(dim=(1, 2))
        if worst.max() > TOLERANCE:
            other = int(worst.argmax())
            what = "is not the bilinear kernel" if other == k else f"mixes class {k} into class {other}"
            raise ConversionError(
                f"{name} {what} (off by {worst[other].item():.3g}): it was trained, and fcnzoo upsamples these "
                "networks by bilinear interpolation only"
            )


def _fold_scales(tensors: dict[str, Tensor], checkpoint: Checkpoint) -> None:
    """Multiply the scales of pool4 and pool3 into the weights of their score layers; biases come after them."""
    for pool, scale in AT_ONCE_SCALES.items():
        own = tensors.pop(f"scale_{pool}.weight", None)  # Caffe's Scale layer, one value per channel, not trained
        if own is not None and not torch.allclose(own.double(), torch.tensor(scale, dtype=torch.float64), rtol=1e-5):
            raise checkpoint.refuse(f"scale_{pool} is not {scale} everywhere, as in the FCN-8s at once")
        key = f"score_{pool}.weight"
        if key not in tensors:
            raise checkpoint.refuse(f"lacks {key}, which an FCN-8s has")
        tensors[key] = (tensors[key].double() * scale).float()
