"""Networks and samplers written again from their sources, to compare fcnzoo with.

Nothing here uses fcnzoo. Real deconvolution kernels, crops as printed in the prototxts, loops over pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

FINAL_CROP = {32: 19, 16: 27, 8: 31}
"""`offset` of the last Crop layer of voc-fcn32s, voc-fcn16s and voc-fcn8s/train.prototxt."""


def caffe_kernel(size: int) -> Tensor:
    """Caffe's BilinearFiller (`include/caffe/filler.hpp`), float64."""
    f = math.ceil(size / 2)
    c = (size - 1) / (2 * f)
    return torch.tensor(
        [[(1 - abs(x / f - c)) * (1 - abs(y / f - c)) for x in range(size)] for y in range(size)], dtype=torch.float64
    )


def d2l_kernel(in_channels: int, out_channels: int, kernel_size: int) -> Tensor:
    """`bilinear_kernel` as printed in Dive into Deep Learning, section 14.11.2."""
    factor = (kernel_size + 1) // 2
    center = factor - 1 if kernel_size % 2 == 1 else factor - 0.5
    og = (torch.arange(kernel_size).reshape(-1, 1), torch.arange(kernel_size).reshape(1, -1))
    filt = (1 - torch.abs(og[0] - center) / factor) * (1 - torch.abs(og[1] - center) / factor)
    weight = torch.zeros((in_channels, out_channels, kernel_size, kernel_size))
    weight[range(in_channels), range(out_channels), :, :] = filt
    return weight


def deconvolve(scores: Tensor, stride: int) -> Tensor:
    """A dense `ConvTranspose2d(K, K, 2s, s)` with the bilinear kernel on its diagonal, as in torchfcn."""
    classes = scores.shape[1]
    weight = scores.new_zeros(classes, classes, 2 * stride, 2 * stride)
    weight[range(classes), range(classes)] = caffe_kernel(2 * stride).to(scores)
    return F.conv_transpose2d(scores, weight, stride=stride)


def crop(maps: Tensor, offset: int, size: tuple[int, int]) -> Tensor:
    """Caffe's Crop layer: `size` from `offset` on, which must be there."""
    cut = maps[..., offset : offset + size[0], offset : offset + size[1]]
    assert tuple(cut.shape[-2:]) == size
    return cut


def paper_features(weights: Mapping[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """pool3, pool4 and fc7 of `voc-fcn8s/train.prototxt`; weights are called as the layers there."""
    hidden = image
    pools = []
    for block in range(1, 6):
        number = 1
        while f"conv{block}_{number}.weight" in weights:
            name = f"conv{block}_{number}"
            padding = 100 if name == "conv1_1" else 1
            hidden = F.conv2d(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding).relu()
            number += 1
        hidden = F.max_pool2d(hidden, 2, 2, ceil_mode=True)
        pools.append(hidden)
    hidden = F.conv2d(hidden, weights["fc6.weight"], weights["fc6.bias"]).relu()
    return pools[2], pools[3], F.conv2d(hidden, weights["fc7.weight"], weights["fc7.bias"]).relu()


def paper_scores(
    features: tuple[Tensor, Tensor, Tensor],
    score: Mapping[str, Tensor],
    stride: int,
    size: tuple[int, int],
    *,
    at_once: bool = False,
) -> Tensor:
    """Logits of FCN-32s, 16s or 8s with dense deconvolutions; `at_once` scales pool4 and pool3 first."""
    pool3, pool4, fc7 = features
    if at_once:
        pool4, pool3 = 0.01 * pool4, 0.0001 * pool3
    fused = F.conv2d(fc7, score["32.weight"], score["32.bias"])
    if stride <= 16:
        fused = deconvolve(fused, 2)
        skip = F.conv2d(pool4, score["16.weight"], score["16.bias"])
        fused = fused + crop(skip, 5, (fused.shape[2], fused.shape[3]))
    if stride == 8:
        fused = deconvolve(fused, 2)
        skip = F.conv2d(pool3, score["8.weight"], score["8.bias"])
        fused = fused + crop(skip, 9, (fused.shape[2], fused.shape[3]))
    return crop(deconvolve(fused, stride), FINAL_CROP[stride], size)


def d2l_network(classes: int) -> nn.Sequential:
    """FCN of Dive into Deep Learning, section 14.11."""
    net = nn.Sequential(*list(torchvision.models.resnet18(weights=None).children())[:-2])
    net.add_module("final_conv", nn.Conv2d(512, classes, kernel_size=1))
    net.add_module("transpose_conv", nn.ConvTranspose2d(classes, classes, kernel_size=64, padding=16, stride=32))
    return net


def sample(
    scores: Tensor,
    size: tuple[int, int],
    stride: tuple[float, float],
    offset: float = 0.0,
    *,
    zeros: bool = False,
    align_corners: bool = False,
) -> Tensor:
    """Bilinear sampling pixel by pixel, in Python: source(p) = (p + 0.5 + offset) / stride − 0.5."""
    planes = scores.double().tolist()
    rows, columns = scores.shape[-2:]

    def source(pixel: int, axis: int) -> float:
        if align_corners:
            return pixel * ((rows, columns)[axis] - 1) / (size[axis] - 1) if size[axis] > 1 else 0.0
        return (pixel + 0.5 + offset) / stride[axis] - 0.5

    def value(plane: list[list[float]], row: int, column: int) -> float:
        if 0 <= row < rows and 0 <= column < columns:
            return plane[row][column]
        return 0.0 if zeros else plane[min(max(row, 0), rows - 1)][min(max(column, 0), columns - 1)]

    def pixel(plane: list[list[float]], p: int, q: int) -> float:
        y, x = source(p, 0), source(q, 1)
        top, left = math.floor(y), math.floor(x)
        dy, dx = y - top, x - left
        return (
            (1 - dy) * (1 - dx) * value(plane, top, left)
            + (1 - dy) * dx * value(plane, top, left + 1)
            + dy * (1 - dx) * value(plane, top + 1, left)
            + dy * dx * value(plane, top + 1, left + 1)
        )

    return torch.tensor(
        [
            [[[pixel(plane, p, q) for q in range(size[1])] for p in range(size[0])] for plane in image]
            for image in planes
        ],
        dtype=torch.float64,
    )
