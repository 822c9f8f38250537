"""Single layers: the window each has, and how it changes under dilation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from fcnzoo.backbones.dilation.layers import DilatedAvgPool2d, DilatedBlurPool2d, DilatedMaxPool2d, PaddedConv2d, Pads
from fcnzoo.backbones.dilation.trace import Call, Size, timm_layer


@dataclass(frozen=True)
class Window:
    """The window of a layer, everything per axis; `padding` is what lies before the first and after the last cell."""

    kernel: Size
    stride: Size
    dilation: Size
    padding: tuple[Size, Size]


@dataclass(frozen=True)
class Change:
    """What becomes of a layer.

    Attributes:
        factor: l, by which the layer's input is finer than it was; of an upsampling: by how much its scale shrinks.
        stride: The new one, the same on both axes.
        dilation: The new one, per axis.
        pads: The new padding.
        counted: l times the padding there was.
    """

    factor: int
    stride: int
    dilation: Size
    pads: Pads
    counted: Pads

    @classmethod
    def none(cls) -> Change:
        """Return the change of a layer that stays as it is."""
        return cls(1, 0, (1, 1), (0, 0, 0, 0), (0, 0, 0, 0))

    @property
    def nothing(self) -> bool:
        """Whether the layer stays as it is."""
        return self == Change.none()

    def joined(self, other: Change) -> Change:
        """Return the change that serves two uses of a layer.

        Maps that do not cover the image exactly may need one cell of padding more at one size than at another.

        Raises:
            UndefinedError: There is none.
        """
        left, right, top, bottom = (max(pair) for pair in zip(self.pads, other.pads, strict=True))
        joined = replace(self, pads=(left, right, top, bottom), counted=other.counted)
        if joined != replace(other, pads=joined.pads):
            raise UndefinedError("a layer is used at several reductions")
        return joined


class UndefinedError(Exception):
    """A layer must change for which dilation is not defined."""


class Undo:
    """Sets attributes, and gives them back the values they had."""

    def __init__(self) -> None:
        self._old: list[tuple[nn.Module, str, Any]] = []

    def set(self, layer: nn.Module, **attributes: Any) -> None:
        """Set attributes of a layer; `kind` is its class."""
        for given, value in attributes.items():
            name = "__class__" if given == "kind" else given
            self._old.append((layer, name, getattr(layer, name, _MISSING)))
            setattr(layer, name, value)

    def all(self) -> None:
        """Take everything back, the last first."""
        for layer, name, old in reversed(self._old):
            if old is _MISSING:
                delattr(layer, name)
            else:
                setattr(layer, name, old)


_MISSING = object()


def window(call: Call) -> Window | None:
    """Return the window of a layer as it was used; `None` for a layer that only pads.

    timm's "same" layers choose their padding by the map's size (`timm/layers/padding.py`, `get_same_padding`):
    they are known by their output, which the padding they announce does not give.

    Raises:
        UndefinedError: The output's size has some other reason.
    """
    layer: Any = call.layer
    if isinstance(layer, (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)):
        return None
    kernel = _pair(layer.filt_size if hasattr(layer, "filt_size") else layer.kernel_size)
    stride, dilation = _pair(layer.stride), _pair(getattr(layer, "dilation", 1))
    reach = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    padding = []
    for axis in (0, 1):
        before, after = call.before[axis], call.after[axis]
        first, last = _announced(layer.padding, axis, reach[axis])
        if after != _cells(before, first, last, reach[axis], stride[axis], ceil=getattr(layer, "ceil_mode", False)):
            if after != math.ceil(before / stride[axis]):
                raise UndefinedError(f"{type(layer).__name__} takes {before} cells to {after}")
            total = max((after - 1) * stride[axis] + reach[axis] + 1 - before, 0)
            first, last = total // 2, total - total // 2
        padding.append((first, last))
    return Window(kernel, stride, dilation, (padding[0], padding[1]))


def apply(layer: nn.Module, change: Change, undo: Undo) -> None:
    """Change a layer.

    Raises:
        UndefinedError: It is of a kind, or has options, for which that is not defined.
    """
    if isinstance(layer, nn.Conv2d):
        _apply_to_convolution(layer, change, undo)
    elif isinstance(layer, nn.MaxPool2d):
        if layer.return_indices or type(layer) not in (nn.MaxPool2d, *timm_layer("MaxPool2dSame")):
            raise UndefinedError(f"{layer}")
        undo.set(layer, kind=DilatedMaxPool2d, stride=change.stride, dilation=change.dilation, pads=change.pads)
    elif isinstance(layer, nn.AvgPool2d):
        if layer.divisor_override is not None or type(layer) not in (nn.AvgPool2d, *timm_layer("AvgPool2dSame")):
            raise UndefinedError(f"{layer}")
        counted = tuple(min(pair) for pair in zip(change.pads, change.counted, strict=True))
        undo.set(
            layer,
            kind=DilatedAvgPool2d,
            stride=change.stride,
            dilation=change.dilation,
            pads=change.pads,
            counted=counted if layer.count_include_pad else (0, 0, 0, 0),
        )
    elif hasattr(layer, "filt_size"):
        undo.set(layer, kind=DilatedBlurPool2d, stride=change.stride, dilation=change.dilation, pads=change.pads)
    elif isinstance(layer, nn.Upsample):
        _apply_to_upsampling(layer, change, undo)
    else:
        pads: Any = layer
        undo.set(layer, padding=tuple(change.factor * cells for cells in pads.padding))


def _apply_to_upsampling(layer: nn.Upsample, change: Change, undo: Undo) -> None:
    old = layer.scale_factor
    if not isinstance(old, float) or old % change.factor or layer.align_corners:
        raise UndefinedError(f"{layer}")
    undo.set(layer, scale_factor=old / change.factor)


def _apply_to_convolution(layer: nn.Conv2d, change: Change, undo: Undo) -> None:
    if layer.padding_mode != "zeros":
        raise UndefinedError(f"{layer}")
    left, right, top, bottom = change.pads
    plain = type(layer) in (nn.Conv2d, *timm_layer("Conv2dSame"))
    undo.set(layer, stride=(change.stride, change.stride), dilation=change.dilation)
    if left == right >= 0 and top == bottom >= 0:
        undo.set(layer, padding=(top, left), **({"kind": nn.Conv2d} if plain else {}))
        if hasattr(layer, "same_pad"):
            undo.set(layer, same_pad=False)
    elif plain:
        undo.set(layer, kind=PaddedConv2d, padding=(0, 0), pads=change.pads)
    else:
        raise UndefinedError(f"{layer}")


def _pair(value: Any) -> Size:
    return (int(value[0]), int(value[1])) if isinstance(value, (tuple, list)) else (int(value), int(value))


def _announced(padding: Any, axis: int, reach: int) -> Size:
    """Return the padding before and after, as a layer announces it."""
    if padding == "same":
        return reach // 2, reach - reach // 2
    both = 0 if padding == "valid" else _pair(padding)[axis]
    return both, both


def _cells(before: int, first: int, last: int, reach: int, stride: int, *, ceil: bool) -> int:
    """Return how many cells come out (PyTorch's `pooling_output_shape`)."""
    room = before + first + last - reach - 1
    cells = (-(-room // stride) if ceil else room // stride) + 1
    return cells - 1 if ceil and (cells - 1) * stride >= before + first else cells
