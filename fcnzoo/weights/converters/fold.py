"""Preprocessing folded into the first convolution."""

from __future__ import annotations

import torch

from fcnzoo.backbones.paper import PaperVGG16
from fcnzoo.model.fcn import FCN


def fold_input(network: FCN) -> dict[str, object]:
    """Let a network trained on BGR pictures of 0–255 take RGB ones of 0–1, in place, with equal scores.

    Both are linear in the image: the first convolution's inputs change places and its weights are
    multiplied by 255. The mean stays in `preprocess` (in RGB, 0–1): it is taken off before the convolution
    pads with zeros, and a bias cannot say where the padding begins.

    Args:
        network: A network on the paper's VGG-16.

    Returns:
        What was folded, for the receipt.

    Raises:
        ValueError: The network is another one, or takes RGB pictures of 0–1 already.
    """
    preprocess = network.preprocess
    if not isinstance(network.backbone, PaperVGG16) or preprocess.channel_order != "bgr":
        given = f"{preprocess.channel_order.upper()} of 0–{preprocess.value_range}"
        raise ValueError(
            "fold_input is for networks that take BGR pictures (torchfcn's and Caffe's); "
            f"{network.config.backbone.name} takes {given}: leave fold_input out"
        )
    weight = network.get_parameter("backbone.conv1_1.weight")
    scale = float(preprocess.value_range)
    with torch.no_grad():
        weight.copy_((weight.double() * scale).flip(1))
    folded = preprocess.replace(
        mean=tuple(value / scale for value in reversed(preprocess.mean)),
        std=tuple(reversed(preprocess.std)),
        channel_order="rgb",
        value_range=1,
    )
    network.config = network.config.replace(preprocess=folded)
    return {"input_folded": {"channel_order": "bgr", "value_range": preprocess.value_range}}
