"""From a picture to the tensor that a network was trained on."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fcnzoo.config import Preprocess
from fcnzoo.images.load import MAX_PIXELS, load_image, to_array

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


def fit_size(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    """Return the size at which the network sees an image, before any padding of its own.

    The shorter side becomes `preprocess.resize`, the longer one `int(resize · long / short)`: the rule of
    `torchvision.transforms.Resize(int)`. Or the longer side becomes `preprocess.longer_side`, the shorter one
    `longer_side · short / long`, rounded, at least 1. Without either the image keeps its size.

    Args:
        size: (H, W) of the image, each at least 1.
        preprocess: The network's preprocessing.

    Returns:
        (H, W) of the tensor.

    Raises:
        ValueError: A side is below 1, or the image is so narrow that the result exceeds `images.MAX_PIXELS`.
    """
    height, width = size
    if min(size) < 1:
        raise ValueError(f"size must be (H, W) with H, W ≥ 1, got {tuple(size)}")
    if preprocess.longer_side is not None:
        # Halves up, in whole numbers: exported graphs compute the same.
        height, width = (max(1, (2 * side * preprocess.longer_side + max(size)) // (2 * max(size))) for side in size)
    short = preprocess.resize
    if short is None:
        return height, width
    long = int(short * max(size) / min(size))
    if short * long > MAX_PIXELS:
        raise ValueError(
            f"an image of {width} × {height} pixels is too narrow: its shorter side is to be resized to {short}, "
            f"which makes {short * long:,} pixels; crop it, or build the model with preprocess.resize=None"
        )
    return (short, long) if height <= width else (long, short)


def to_tensor(
    image: Image.Image | np.ndarray | Tensor,
    preprocess: Preprocess,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return a picture as a network sees it: resized, in its channel order, scaled and normalized.

    `(pixel · scale − mean) / std`, computed in float32 (float64 if that is `dtype`) in the order of
    `torchvision.transforms.ToTensor` and `Normalize`, so that it equals them to the bit.

    Args:
        image: A `PIL.Image`; or 8-bit values: an array (H, W) or (H, W, C), a tensor (C, H, W).
        preprocess: The network's preprocessing; `len(preprocess.mean)` is its C. For C = 3 a picture of
            another mode is converted to RGB, for C = 1 to gray (Pillow's `L`: ITU-R 601 luma); for any
            other C give an array or tensor of exactly C channels.
        device: Where the tensor goes; the picture travels there as bytes.
        dtype: Of the result; float32 by default.

    Returns:
        (1, C, H, W), contiguous.

    Raises:
        ValueError: The number of channels does not fit, or the image is empty.
        TypeError: `image` is of another type, or its numbers are not uint8.
    """
    array = _resize(image_channels(image, len(preprocess.mean)), preprocess)
    pixels = torch.from_numpy(array).to(device).permute(2, 0, 1)
    if preprocess.channel_order == "bgr":
        pixels = pixels.flip(0)
    work = torch.float64 if dtype == torch.float64 else torch.float32
    tensor = pixels.to(work, memory_format=torch.contiguous_format, copy=True)
    if preprocess.value_range == 1:
        tensor.div_(255)
    mean, std = (
        torch.tensor(values, dtype=work, device=device).view(-1, 1, 1) for values in (preprocess.mean, preprocess.std)
    )
    tensor.sub_(mean)
    if any(value != 1 for value in preprocess.std):
        tensor.div_(std)
    return tensor[None].to(dtype or work)


def image_channels(image: Image.Image | np.ndarray | Tensor, channels: int) -> np.ndarray:
    """Return an image as a writable uint8 array (H, W, `channels`), converting between gray and RGB.

    Raises:
        ValueError: The image has another number of channels and cannot be converted.
        TypeError: `image` is of another type, or its numbers are not uint8.
    """
    if isinstance(image, Image.Image):
        if channels not in (1, 3):
            raise ValueError(
                f"the network takes {channels} channels, and a picture is gray or RGB; "
                f"give a uint8 array (H, W, {channels}) or tensor ({channels}, H, W)"
            )
        mode = "L" if channels == 1 else "RGB"
        if image.mode not in ("L", "RGB"):  # Pillow's convert would clip 16-bit gray
            image = load_image(image)
        array = np.array(image if image.mode == mode else image.convert(mode))
        return array[:, :, None] if channels == 1 else array
    array = to_array(image)
    if array.shape[2] == channels:
        return array if array.flags.writeable and min(array.strides) >= 0 else array.copy()
    if channels in (1, 3) and array.shape[2] in (1, 3, 4):
        gray = array.shape[2] == 1
        return image_channels(Image.fromarray(np.ascontiguousarray(array[:, :, 0] if gray else array)), channels)
    raise ValueError(
        f"the network takes {channels} channels, the image has {array.shape[2]}: (H, W, C) = {array.shape}"
    )


def _resize(array: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Resize by Pillow, whose filters average when they shrink, channel by channel where it has no mode."""
    height, width = fit_size(array.shape[:2], preprocess)
    if (height, width) == array.shape[:2]:
        return array
    resample = _FILTERS[preprocess.interpolation]
    if array.shape[2] == 3:
        return np.array(Image.fromarray(np.ascontiguousarray(array)).resize((width, height), resample))
    planes = [
        Image.fromarray(np.ascontiguousarray(plane)).resize((width, height), resample)
        for plane in np.moveaxis(array, 2, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)
