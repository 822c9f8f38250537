"""Parts of networks said again so that they can be traced with open sizes.

Some parts ask how large a map is, or make a padding from it. Where such a part is followed by others its answers
become formulas of formulas, and tracing takes hours or binds the graph to one size. They are said again here in a way
that has no question in it: the same parameters, the same numbers (compared by the tests and after every export).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from timm.models import swin_transformer, swin_transformer_v2
from torch import Tensor, nn

from fcnzoo.backbones.base import Backbone
from fcnzoo.backbones.dilation.layers import DilatedAvgPool2d, DilatedMaxPool2d, PaddedConv2d, Pads

SAME = (Conv2dSame, MaxPool2dSame, AvgPool2dSame)


def open_sizes(backbone: Backbone) -> None:
    """Say such parts of a backbone again, in place."""
    fix_padding(backbone)
    for part in backbone.modules():
        if type(part) in _BLOCKS and getattr(part, "dynamic_mask", False):
            part.__class__ = _BLOCKS[type(part)]


def fix_padding(backbone: Backbone) -> None:
    """Give layers with "same" padding the one padding that they have on images of a size the network pads to.

    timm's layers compute it from the size of each map (`timm/layers/padding.py`); on maps of whole multiples it is
    always the same, which is looked at on two sizes. Where it is not (a network that does not pad its images) they
    stay as they are.
    """
    layers = [part for part in backbone.modules() if isinstance(part, SAME)]
    if not layers:
        return
    found: dict[nn.Module, set[Pads]] = {layer: set() for layer in layers}

    def look(layer: nn.Module, given: tuple[Tensor]) -> None:
        found[layer].add(_pads(layer, given[0]))

    multiple, like = backbone.size_multiple, next(backbone.parameters())
    with torch.no_grad(), contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.register_forward_pre_hook(look))
        for rows, columns in ((2, 3), (3, 4)):
            backbone(like.new_zeros(1, backbone.in_channels, rows * multiple, columns * multiple))
    for layer, pads in found.items():
        if len(pads) == 1:
            _pad_always(layer, pads.pop())


def _pads(layer: Any, feature: Tensor) -> Pads:
    kernel, stride, dilation = (
        value if isinstance(value, tuple) else (value, value)
        for value in (layer.kernel_size, layer.stride, getattr(layer, "dilation", 1))
    )
    below, right = (int(get_same_padding(feature.shape[2 + i], kernel[i], stride[i], dilation[i])) for i in (0, 1))
    return right // 2, right - right // 2, below // 2, below - below // 2


def _pad_always(layer: Any, pads: Pads) -> None:
    layer.pads = pads
    if isinstance(layer, Conv2dSame):
        layer.__class__ = PaddedConv2d
    elif isinstance(layer, MaxPool2dSame):
        layer.__class__ = DilatedMaxPool2d
    else:
        # timm pads with zeros first, so that they count in any case.
        layer.__class__, layer.counted, layer.dilation = DilatedAvgPool2d, pads, (1, 1)


def pick(tensor: Tensor, axis: int, start: int, length: Any, *, inside: bool = False) -> Tensor:
    """Return `length` places of an axis from `start` on; beyond the end there are zeros.

    Args:
        tensor: Of any rank.
        axis: Counted from the front.
        start: At least 0.
        length: May be a symbol.
        inside: The axis is known to be long enough.
    """
    place = torch.arange(length, device=tensor.device) + start
    if inside:
        return tensor.index_select(axis, place)
    last = tensor.shape[axis] - 1
    shape = [1] * tensor.ndim
    shape[axis] = -1
    return tensor.index_select(axis, place.clamp(max=last)) * (place <= last).to(tensor.dtype).view(shape)


def to_windows(x: Tensor, counts: tuple[Any, Any], window: tuple[int, int]) -> Tensor:
    """Cut a map (B, H, W, C) of whole windows into these: (B · windows, cells, C)."""
    (down, across), (high, wide), width = counts, window, x.shape[3]
    x = x.view(-1, down, high, across, wide, width).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, high * wide, width)


def from_windows(windows: Tensor, counts: tuple[Any, Any], window: tuple[int, int]) -> Tensor:
    """Put what `to_windows` cut together again."""
    (down, across), (high, wide), width = counts, window, windows.shape[2]
    x = windows.view(-1, down, across, high, wide, width).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, down * high, across * wide, width)


def window_mask(shifts: Sequence[int | Tensor], counts: tuple[Any, Any], window: tuple[int, int]) -> Tensor:
    """Return what keeps apart, within each window, cells that the shift brought together: 0 or −100.

    Args:
        shifts: Of rows and columns. Where one is 0, no window has cells of two regions.
        counts: Windows along each axis.
        window: (rows, columns) of a window.

    Returns:
        (windows, cells, cells), float32.
    """
    regions = []
    for count, side, shift in zip(counts, window, shifts, strict=True):
        cell = torch.arange(count * side)
        regions.append((cell >= count * side - side).long() + (cell >= count * side - shift).long())
    region = to_windows((3 * regions[0][:, None] + regions[1])[None, :, :, None], counts, window)[:, :, 0]
    return torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)


class _OpenWindows:
    """The shifted windows of Swin (Liu et al. 2021, section 3.2; v2: Liu et al. 2022) on maps of any size."""

    window_size: tuple[int, int]
    shift_size: tuple[int, int]
    attn: Any

    def _attn(self, x: Tensor) -> Tensor:
        """Attend within windows; see `SwinTransformerBlock._attn` of timm.

        Args:
            x: (B, H, W, C).

        Returns:
            (B, H, W, C).
        """
        rows, columns = x.shape[1], x.shape[2]
        (high, wide), shift = self.window_size, self.shift_size
        counts = ((rows + high - 1) // high, (columns + wide - 1) // wide)
        shifted = torch.roll(x, (-shift[0], -shift[1]), (1, 2)) if any(shift) else x
        padded = pick(pick(shifted, 1, 0, counts[0] * high), 2, 0, counts[1] * wide)
        mask = window_mask(shift, counts, (high, wide)).to(x.dtype) if any(shift) else None
        mixed = from_windows(self.attn(to_windows(padded, counts, (high, wide)), mask=mask), counts, (high, wide))
        mixed = pick(pick(mixed, 1, 0, rows, inside=True), 2, 0, columns, inside=True)
        return torch.roll(mixed, shift, (1, 2)) if any(shift) else mixed


class _OpenSwinBlock(_OpenWindows, swin_transformer.SwinTransformerBlock):
    pass


class _OpenSwinV2Block(_OpenWindows, swin_transformer_v2.SwinTransformerV2Block):
    pass


_BLOCKS: dict[type[nn.Module], type[nn.Module]] = {
    swin_transformer.SwinTransformerBlock: _OpenSwinBlock,
    swin_transformer_v2.SwinTransformerV2Block: _OpenSwinV2Block,
}
