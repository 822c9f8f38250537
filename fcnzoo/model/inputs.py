"""What a network takes: checks that say what was given, and what to do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcnzoo.ops import check_labels


def check_image(image: Tensor, channels: int, dtype: torch.dtype) -> None:
    """Compare an image with what a network takes.

    Args:
        image: What should be (B, C, H, W), floating point.
        channels: C.
        dtype: Of the network; under autocast any floating point will do.

    Raises:
        TypeError: It is no tensor, or of a wrong dtype.
        ValueError: Wrong rank or number of channels, or empty.
    """
    if not isinstance(image, Tensor):
        raise TypeError(
            f"image must be a tensor (B, C, H, W), got {type(image).__name__}; "
            "fcnzoo.Predictor takes pictures and paths"
        )
    if image.ndim != 4 or image.shape[1] != channels or 0 in image.shape:
        raise ValueError(
            f"image must be (B, {channels}, H, W) with nothing empty, got shape {tuple(image.shape)}; "
            "add the batch axis with image[None], or build with in_channels=…"
        )
    if not image.is_floating_point():
        raise TypeError(
            f"image must be floating point, got {image.dtype}; preprocess it (fcnzoo.Predictor does, "
            "or fcnzoo.images.to_tensor)"
        )
    if image.dtype != dtype and not torch.is_autocast_enabled(image.device.type):
        raise TypeError(f"image is {image.dtype}, the network {dtype}; use image.to({dtype}) or autocast")


def explain_batch_of_one(network: nn.Module, error: ValueError) -> None:
    """Say more about an error of a network's, where BatchNorm cannot be trained on one value per channel.

    Networks that pool globally before a BatchNorm have that in a batch of one image.

    Raises:
        ValueError: It is that error; the text names the layer, and what helps.
    """
    if "more than 1 value per channel" not in str(error):
        return
    layer, trace = None, error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        layer = owner if isinstance(owner, nn.Module) and hasattr(owner, "running_var") else layer
        trace = trace.tb_next
    name = next((name for name, module in network.named_modules() if module is layer), "a BatchNorm")
    raise ValueError(
        f"the backbone's {name} sees one value per channel in a batch of one image, which BatchNorm cannot be trained "
        "on: give batches of 2 or more (drop_last=True for a last one), or leave the backbone's BatchNorm as it is "
        "(model.backbone.eval(); in recipes optim.freeze_batchnorm = 'backbone')"
    ) from error


def check_target(target: Tensor, image: Tensor, num_classes: int, ignore_index: int, *, on_gpu: bool) -> None:
    """Compare a target with the image and the classes.

    Args:
        target: What should be (B, H, W) integers.
        image: (B, C, H, W).
        num_classes: K.
        ignore_index: The one value allowed beside 0…K−1.
        on_gpu: Look at the labels on a GPU too, which waits for it. Compiled code is left to PyTorch's own checks.

    Raises:
        ValueError: The shape does not fit.
        TypeError: It is no integer.
        LabelError: A label is outside the range.
    """
    wanted = (image.shape[0], image.shape[-2], image.shape[-1])
    if tuple(target.shape) != wanted:
        raise ValueError(f"target must have the image's batch and size {wanted}, got shape {tuple(target.shape)}")
    if target.is_floating_point() or target.dtype == torch.bool:
        raise TypeError(f"target must be of an integer dtype, got {target.dtype}")
    if torch.compiler.is_compiling() or target.is_meta:
        return
    if target.device.type == "cpu" or on_gpu:
        check_labels(target, num_classes, ignore_index)
