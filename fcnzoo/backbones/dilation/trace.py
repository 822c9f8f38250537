"""A network watched at work: which of its layers see maps of which size, and whether it holds attention."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fcnzoo.backbones.dilation.layers import DilatedBlurPool2d

Size = tuple[int, int]
"""(rows, columns)."""

ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward", "matmul", "__matmul__", "bmm", "einsum"}
"""Functions that mix positions by what they hold; `matmul` and the like only between two activations."""


@dataclass(frozen=True)
class Call:
    """One use of a layer: sizes of its network's image, of what goes in and of what comes out."""

    layer: nn.Module
    image: Size
    before: Size
    after: Size


@dataclass
class Trace:
    """What a run showed.

    Attributes:
        calls: Uses of windowed layers, in order.
        outputs: Of each of the network's outputs, the image's size and its own; `None` where it is no map.
        attends: Whether activations were multiplied with activations.
    """

    calls: list[Call] = field(default_factory=list)
    outputs: list[tuple[Size, Size | None]] = field(default_factory=list)
    attends: bool = False


def trace_sizes(network: nn.Module, run: Callable[[], object], *, attention: bool = False) -> Trace:
    """Run a network and watch it.

    Args:
        network: What is watched.
        run: Calls it, once or several times.
        attention: Whether to look for attention, which takes time.
    """
    trace = Trace()
    images: list[Size] = []

    def start(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        images.append(_size(inputs[0]))

    def layer(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        trace.calls.append(Call(module, images[-1], _size(inputs[0]), _size(output)))

    def end(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        trace.outputs.extend((images[-1], map_size(tensor.shape, images[-1])) for tensor in _tensors(output))

    with contextlib.ExitStack() as stack:  # PyTorch's hooks are gone when their handles are closed
        stack.enter_context(network.register_forward_pre_hook(start))
        stack.enter_context(network.register_forward_hook(end))
        for module in network.modules():
            if isinstance(module, windowed()):
                stack.enter_context(module.register_forward_hook(layer))
        if attention:
            stack.enter_context(_AttentionSeen(trace))
        run()
    return trace


def windowed() -> tuple[type[nn.Module], ...]:
    """Return the layers that have a window, a stride, a border or a scale."""
    pads = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)
    plain = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.Upsample, DilatedBlurPool2d)
    return (*plain, *pads, *timm_layer("BlurPool2d"))


def timm_layer(name: str) -> tuple[type[nn.Module], ...]:
    """Return a class of `timm.layers`, if timm is loaded: a network that holds one has loaded it."""
    modules = (sys.modules.get(module) for module in ("timm.layers", "timm.layers.pool2d_same"))
    return tuple({getattr(module, name) for module in modules if hasattr(module, name)})


def fixed_grids(calls: Iterable[Call]) -> set[nn.Module]:
    """Return the layers on maps that an adaptive pooling made: 1×1, or of one size for images of different sizes.

    Such a map covers the image whatever is dilated before it.
    """
    seen: dict[nn.Module, dict[Size, set[Size]]] = {}
    for call in calls:
        seen.setdefault(call.layer, {}).setdefault(call.image, set()).add(call.before)
    return {
        layer
        for layer, images in seen.items()
        if all(sizes == {(1, 1)} for sizes in images.values())
        or (len(images) > 1 and len({size for sizes in images.values() for size in sizes}) == 1)
    }


def reduction(image: Size, size: Size) -> int:
    """Return how many image pixels a cell of a map stands for, on the two axes' mean: the nearest power of two."""
    exact = math.sqrt(image[0] * image[1] / (size[0] * size[1]))
    return 2 ** max(0, round(math.log2(exact)))


def fits(image: Size, old: Size, new: Size, output_stride: int) -> bool:
    """Tell whether a map of the size `old` has become finer as it should.

    To the cell where the old map covered the image exactly, else by its reduction.
    """
    coarse = reduction(image, old)
    lost = max(1, coarse // output_stride)
    if (old[0] * coarse, old[1] * coarse) == image:
        return new == (old[0] * lost, old[1] * lost)
    return reduction(image, new) == coarse // lost


SKEW = 1.2
"""How far the sides of a map may be from the proportions of the image: 5 × 8 cells of an image of 3 : 4 are, 5 × 9 are
not. Channels taken for a side, in a map that is not of the order looked for, are farther off on images of 3 : 4."""


def map_size(shape: tuple[int, ...], image: Size) -> Size | None:
    """Return the size of a map, which may be NCHW or NHWC; `None` where its axes do not agree with the image's."""
    if len(shape) != 4:
        return None
    layouts = [size for size in ((shape[2], shape[3]), (shape[1], shape[2])) if 0 not in size]
    for size in layouts:
        coarse = reduction(image, size)
        if (size[0] * coarse, size[1] * coarse) == image:
            return size
    for size in layouts:
        # Stems without padding leave maps that are smaller by a few cells, on the shorter axis more so.
        if 1 / SKEW < image[0] * size[1] / (image[1] * size[0]) < SKEW:
            return size
    return None


class _AttentionSeen(TorchFunctionMode):
    """Notices the functions that attention is made of."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ATTENTION:
            activations = [tensor for tensor in _tensors(args) if not isinstance(tensor, nn.Parameter)]
            self.trace.attends |= len(activations) > 1
        return func(*args, **(kwargs or {}))


def _size(tensor: Tensor) -> Size:
    return int(tensor.shape[-2]), int(tensor.shape[-1])


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
