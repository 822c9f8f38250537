"""What PyTorch's own layers lack under dilation: unequal padding, and a dilation for averages and blurs.

A layer that needs these becomes one of the classes here by a change of its class and attributes: parameters,
buffers and their names stay as they were.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pads = tuple[int, int, int, int]
"""Cells added (or, if negative, cut off) left, right, above and below, as `F.pad` takes them."""


class PaddedConv2d(nn.Conv2d):
    """A convolution whose zeros around the map may differ from side to side.

    Attributes:
        pads: The padding; `padding` does not count.
    """

    pads: Pads

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C, h, w)."""
        padded = F.pad(input, self.pads)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class DilatedMaxPool2d(nn.MaxPool2d):
    """A maximum over a dilated window; what lies outside the map never wins.

    Attributes:
        pads: The padding; `padding` and `ceil_mode` do not count.
    """

    pads: Pads

    def forward(self, input: Tensor) -> Tensor:
        """Pool (B, C, h, w)."""
        padded = F.pad(input, self.pads, value=float("-inf"))
        return F.max_pool2d(padded, self.kernel_size, self.stride, 0, self.dilation)


class DilatedAvgPool2d(nn.AvgPool2d):
    """An average over a dilated window, of the cells that count.

    Attributes:
        pads: The padding; `padding` and `ceil_mode` do not count.
        counted: The part of the padding that counts as zeros (`count_include_pad`).
        dilation: Distance between the window's cells, per axis.
    """

    pads: Pads
    counted: Pads
    dilation: tuple[int, int]

    def forward(self, input: Tensor) -> Tensor:
        """Pool (B, C, h, w)."""
        rows, columns = self.kernel_size if isinstance(self.kernel_size, tuple) else (self.kernel_size,) * 2
        # A sum over a dilated window is a depthwise convolution with ones.
        ones = torch.ones(1, 1, rows, columns, dtype=input.dtype, device=input.device)
        kernel = ones.expand(input.shape[1], 1, rows, columns)
        padded = F.pad(input, self.pads)
        total = F.conv2d(padded, kernel, None, self.stride, 0, self.dilation, input.shape[1])
        if self.counted == self.pads:
            return total / (rows * columns)
        rest = tuple(pad - counted for pad, counted in zip(self.pads, self.counted, strict=True))
        inside = F.pad(F.pad(torch.ones_like(input[:1, :1]), self.counted, value=1), rest)
        return total / F.conv2d(inside, ones, None, self.stride, 0, self.dilation)


class DilatedBlurPool2d(nn.Module):
    """timm's `BlurPool2d` with a dilated filter; such a layer becomes one by a change of its class.

    Attributes:
        pads: The padding.
        pad_mode: How `F.pad` fills it.
        stride: Of the filter.
        dilation: Distance between the filter's taps, per axis.
        filt: The filter (C or 1, 1, k, k).
    """

    pads: Pads
    pad_mode: str
    stride: int
    dilation: tuple[int, int]
    filt: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Blur (B, C, h, w)."""
        channels = x.shape[1]
        kernel = self.filt.expand(channels, 1, *self.filt.shape[2:])
        return F.conv2d(F.pad(x, self.pads, mode=self.pad_mode), kernel, None, self.stride, 0, self.dilation, channels)
