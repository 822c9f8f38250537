"""Which convolutions of a network run faster by Winograd's algorithm: measured, one by one, where it will run."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fcnzoo.inference.winograd import WinogradConv2d, takes_winograd

CHANNELS = 64
"""Fewest input and output channels C and K worth a measurement, which is what decides. A tile takes 36·C·K products
and, in `winograd.py`, 144·C + 110·K operations of the transforms: as many at 7 channels. But the transforms wait for
memory: they take as long as the products at about 36 channels, and little is gained below twice that."""

LARGEST_ERROR = {torch.float32: 1e-4, torch.bfloat16: 0.03}
"""Largest error that a convolution may have with products of a precision: root mean square, relative to the
outputs. Weights as layers are initialized make 5e-7 (16 channels) to 2e-6 (512), and 0.012 with bfloat16: a hundred
times that, or 2.5 times, means weights that the transform cannot hold."""

LEAST_GAIN = {torch.float32: 1.05, torch.bfloat16: 1.25}
"""How many times as fast a convolution must become. float32: less is within what the least of three runs varies by.
bfloat16: errors are five times those of bfloat16 itself (0.012 and 0.0025), so a small gain is not worth them."""

CLEAR = 1.6
"""One turn is enough where one form takes so many times as long as the other: two runs of the same differ by less."""

Faster = Callable[[nn.Conv2d, WinogradConv2d, Tensor], bool]
"""Whether, of a convolution and its Winograd form, the second computes an input faster."""


def use_winograd(
    network: nn.Module,
    exact: nn.Module,
    run: Callable[[], object],
    products: torch.dtype,
    faster: Faster | None = None,
) -> int:
    """Compute a network's convolutions by Winograd's algorithm where that is faster, in place.

    Args:
        network: In evaluation mode, in the precision and memory order it will have, on a CPU.
        exact: The same network in float32, from which weights are transformed. It is not changed.
        run: Runs `network` once on an image of the usual size, so that inputs' shapes are seen.
        products: Precision of Winograd's matrix products, float32 or bfloat16.
        faster: Decides; by default it measures. Asked once for convolutions that differ by their weights only.

    Returns:
        How many convolutions were replaced.
    """
    decide = is_faster if faster is None else faster
    originals = dict(exact.named_modules())
    decisions: dict[Any, bool] = {}
    replaced = 0
    for name, shape in _input_shapes(network, run).items():
        conv, original = network.get_submodule(name), originals[name]
        if not isinstance(conv, nn.Conv2d) or not isinstance(original, nn.Conv2d):
            raise TypeError(f"{name} must be a convolution in both networks, got {type(conv)} and {type(original)}")
        key = (shape, conv.out_channels, conv.padding, conv.dilation, conv.bias is None)
        if not decisions.get(key, True):
            continue
        form = WinogradConv2d(original, products)
        if key not in decisions:
            image = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(
                conv.weight.dtype, memory_format=torch.channels_last
            )
            decisions[key] = decide(conv, form, image)
        if decisions[key] and _error(original, form) <= LARGEST_ERROR[products]:
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, form)
            replaced += 1
    return replaced


def is_faster(conv: nn.Conv2d, form: WinogradConv2d, image: Tensor) -> bool:
    """Measure both, taking turns, after one turn to warm up.

    The least of three counts, since other work on the machine only adds time; a clear first turn is enough.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for turn in range(4):  # the first warms up
            for module, taken in zip((conv, form), seconds, strict=True):
                start = time.perf_counter()
                module(image)
                if turn:
                    taken.append(time.perf_counter() - start)
            if turn and max(seconds[0] + seconds[1]) > CLEAR * min(seconds[0] + seconds[1]):
                break
    return min(seconds[1]) * LEAST_GAIN[form.weight.dtype] < min(seconds[0])


def _input_shapes(network: nn.Module, run: Callable[[], object]) -> dict[str, torch.Size]:
    """Run the network; return the names of the convolutions that Winograd can compute, and their inputs' shapes."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        shapes[name] = inputs[0].shape

    with torch.inference_mode(), contextlib.ExitStack() as stack:
        for name, module in network.named_modules():
            if takes_winograd(module) and min(module.in_channels, module.out_channels) >= CHANNELS:
                stack.enter_context(module.register_forward_pre_hook(functools.partial(note, name)))
        run()
    return shapes


def _error(conv: nn.Conv2d, form: WinogradConv2d) -> float:
    """Return the error of a Winograd form on half-zero noise, as it follows a ReLU, relative to the outputs."""
    generator = torch.Generator().manual_seed(0)
    side = 4 + 2 * max(conv.dilation)  # at least a tile without any padding
    image = torch.randn(1, conv.in_channels, side, side, generator=generator).relu()
    with torch.inference_mode():
        want, found = conv(image), form(image)
        # A large bias would hide an error.
        scale = want if conv.bias is None else want - conv.bias.view(1, -1, 1, 1)
        return float((found - want).norm() / scale.norm())
