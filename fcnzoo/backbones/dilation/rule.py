"""Dilation of a finished network: strides become dilations, and no weight changes.

The rule is that of torchvision's ResNet (`torchvision/models/resnet.py`, `_make_layer` with
`replace_stride_with_dilation`), said of any layer. A layer that would go below `output_stride` loses that
part of its stride. What follows sees a map that is finer by the lost factor l: kernels and windows reach l
times as far, and their padding grows with them. This is the *algorithme à trous* (Chen et al. 2015,
"Semantic image segmentation with deep convolutional nets and fully connected CRFs"; Yu & Koltun 2016,
"Multi-scale context aggregation by dilated convolutions"):

    dilated(x)[..., ::l, ::l] = strided(x)

up to rounding, where sizes divide, also at the border, for networks of convolutions and poolings with zeros
around them. Global averages (squeeze-excite) see more cells and differ; so do mirrored borders at the bottom
and the right (anti-aliasing filters), and what comes after an upsampling inside the network: where a coarse cell
was held for several fine ones, each now has its own.

The rule has no meaning for windows, tables of positions and fixed numbers of tokens: networks with attention
are left as they are, unless the caller knows theirs to be free of all three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from fcnzoo.backbones.dilation.trace import Call, Size, Trace, fits, fixed_grids, reduction, trace_sizes
from fcnzoo.backbones.dilation.windows import Change, UndefinedError, Undo, Window, apply, window


def dilate(
    network: nn.Module, output_stride: int, run: Callable[[], object], *, global_attention: bool = False
) -> bool:
    """Change a network in place so that none of its features is coarser than `output_stride`.

    Names and shapes of parameters and buffers stay. The outcome is verified by running again: every layer
    and every output must have the size it was meant to have; otherwise everything is undone.

    Args:
        network: Takes an image (B, C, H, W), gives maps (a tensor, or tensors in lists, tuples and dicts).
        output_stride: Coarsest reduction wanted; a power of two.
        run: Calls `network` in eval mode (`meta_run` makes such a function) on images of 256 pixels or more, of
            sides that the coarsest reduction divides, better of two sizes.
        global_attention: Say `True` of a network whose attention, if any, is between all cells of a map, is
            normalized over them and knows no tables of positions. Like a global average, it then sees the map more
            densely sampled, which is as well defined as for squeeze-excite. Whether that is so cannot be read off a
            run.

    Returns:
        Whether no feature is now coarser than `output_stride`. `False`: the network is as it was, since it
        holds attention, or a layer for which the rule is not defined.
    """
    before = trace_sizes(network, run, attention=True)
    if any(size is None for _, size in before.outputs):
        return False
    if all(size is None or reduction(image, size) <= output_stride for image, size in before.outputs):
        return True
    if before.attends and not global_attention:
        return False
    undo = Undo()
    done = False
    try:
        fixed = fixed_grids(before.calls)
        for layer, change in _plan(before.calls, output_stride, fixed).items():
            apply(layer, change, undo)
        done = _as_planned(before, trace_sizes(network, run), output_stride, fixed)
    except (UndefinedError, RuntimeError, ValueError, AssertionError, IndexError):
        # After the changes sizes inside may not meet any more: where a stride is hidden in a function, say.
        pass
    finally:
        if not done:
            undo.all()
    return done


def meta_run(
    network: nn.Module, in_channels: int, sizes: Sequence[Size] = ((256, 320), (320, 384))
) -> Callable[[], None]:
    """Return a function that runs a network on images of some sizes, on the meta device, in eval mode.

    Nothing is computed, and the network's own parameters stay where they are.

    Args:
        network: Takes an image (1, `in_channels`, H, W).
        in_channels: C.
        sizes: (H, W) of the images.
    """

    def run() -> None:
        # Parameters stay parameters: by that, attention is told from a layer with a matrix. Each module's are given
        # once, and not tied: PyTorch would put those of a module with two names back wrongly.
        state: dict[str, Tensor] = {}
        for prefix, module in network.named_modules():
            path = f"{prefix}." if prefix else ""
            for name, tensor in module.named_parameters(recurse=False):
                state[path + name] = nn.Parameter(torch.empty_like(tensor, device="meta"), requires_grad=False)
            for name, tensor in module.named_buffers(recurse=False):
                state[path + name] = torch.empty_like(tensor, device="meta")
        training = network.training
        network.eval()
        try:
            with torch.no_grad():
                kinds = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
                dtype = next(kinds, None)
                for size in sizes:
                    image = torch.empty(1, in_channels, *size, dtype=dtype, device="meta")
                    torch.func.functional_call(network, state, (image,), tie_weights=False)
        finally:
            network.train(training)

    return run


def _plan(calls: Sequence[Call], output_stride: int, fixed: set[nn.Module]) -> dict[nn.Module, Change]:
    """Say what becomes of each layer that must change, in order of execution."""
    plan: dict[nn.Module, Change] = {}
    for call in calls:
        if call.layer in fixed:
            continue
        change = _change(call, output_stride)
        if call.layer not in plan:
            plan[call.layer] = change
        else:
            plan[call.layer] = plan[call.layer].joined(change)
    return {layer: change for layer, change in plan.items() if not change.nothing}


def _change(call: Call, output_stride: int) -> Change:
    """The rule, for one use of one layer.

    With l the lost factors before and after the layer, and n the strided network's sizes, the new layer must
    take n_in·l_in cells to n_out·l_out: its padding is what that needs, the part before the first cell being
    l_in times what it was (which puts the strided network's cells among the new ones).

    Raises:
        UndefinedError: Its stride is no power of two, or differs between axes.
    """
    before = reduction(call.image, call.before)
    lost = max(1, before // output_stride)
    if isinstance(call.layer, nn.Upsample):
        # The ratio of the reductions there are now; what was coarse and held for several cells is dense now.
        lost_after = max(1, reduction(call.image, call.after) // output_stride)
        return replace(Change.none(), factor=lost // lost_after)
    layer = window(call)
    if layer is None:
        return replace(Change.none(), factor=lost)
    if layer.kernel == (1, 1) and layer.stride == (1, 1):
        return Change.none()
    if before * max(layer.stride) <= output_stride:
        return Change.none()
    if layer.stride[0] != layer.stride[1] or layer.stride[0].bit_count() != 1:
        raise UndefinedError(f"stride {layer.stride}")
    after = before * layer.stride[0]
    lost_after = max(1, after // output_stride)
    stride = layer.stride[0] * lost // lost_after
    if stride == layer.stride[0] and lost == 1:
        return Change.none()
    padding = [
        _padding(layer, axis, stride, call.before[axis] * lost, call.after[axis] * lost_after, lost) for axis in (0, 1)
    ]
    old = [(lost * layer.padding[axis][0], lost * layer.padding[axis][1]) for axis in (0, 1)]
    return Change(
        factor=lost,
        stride=stride,
        dilation=(
            layer.dilation[0] * (lost if layer.kernel[0] > 1 else 1),
            layer.dilation[1] * (lost if layer.kernel[1] > 1 else 1),
        ),
        pads=(*padding[1], *padding[0]),
        counted=(*old[1], *old[0]),
    )


def _padding(layer: Window, axis: int, stride: int, before: int, after: int, lost: int) -> tuple[int, int]:
    reach = layer.dilation[axis] * (layer.kernel[axis] - 1) * lost
    first = layer.padding[axis][0] * lost
    return first, (after - 1) * stride + reach + 1 - before - first


def _as_planned(before: Trace, after: Trace, output_stride: int, fixed: set[nn.Module]) -> bool:
    """Compare a dilated network's sizes, layer by layer, with those the strided one lets expect."""
    if len(before.calls) != len(after.calls) or len(before.outputs) != len(after.outputs):
        return False
    if not all(
        old.before == new.before if old.layer in fixed else fits(old.image, old.before, new.before, output_stride)
        for old, new in zip(before.calls, after.calls, strict=True)
    ):
        return False
    return all(
        old is not None and new is not None and fits(image, old, new, output_stride)
        for (image, old), (_, new) in zip(before.outputs, after.outputs, strict=True)
    )
