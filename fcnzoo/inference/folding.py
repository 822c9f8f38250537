"""BatchNorm folded into the convolution before it: the same numbers with one operation less, in evaluation mode.

A convolution's output y goes to γ (y − μ) / √(σ² + ε) + β, which is linear in y: weights are multiplied by
γ / √(σ² + ε), the rest becomes the bias (Jacob et al. 2018, section 3.2; `torch.nn.utils.fusion`).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batchnorms(network: nn.Module, run: Callable[[], object]) -> int:
    """Fold every BatchNorm that follows a convolution into it, in place.

    Which follows which is seen in a run, since modules do not say: a BatchNorm is folded if both were called
    once and it was given the very tensor that the convolution returned. Whether anything else also reads that
    tensor is not seen: compare the outputs before and after.

    Args:
        network: In evaluation mode, on a real device.
        run: Runs it once, on a small image.

    Returns:
        How many were folded.
    """
    pairs = _pairs(network, run)
    names = {module: name for name, module in network.named_modules()}
    for norm, conv in pairs.items():
        _fold(conv, norm)
        parent, _, child = names[norm].rpartition(".")
        setattr(network.get_submodule(parent), child, _after(norm))
    return len(pairs)


def _pairs(network: nn.Module, run: Callable[[], object]) -> dict[nn.Module, nn.Conv2d]:
    """Run the network; return the BatchNorms that can be folded, each with its convolution."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensor is kept, so that its id is not given twice
    found: dict[nn.Module, nn.Conv2d] = {}
    calls: Counter[nn.Module] = Counter()

    def after_conv(module: nn.Module, _: object, output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = (module, output)

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        if id(inputs[0]) in made:
            found[module] = made[id(inputs[0])][0]

    with torch.no_grad(), contextlib.ExitStack() as stack:
        for module in network.modules():
            if _is_plain_convolution(module):
                stack.enter_context(module.register_forward_hook(after_conv))
            elif _is_plain_batchnorm(module):
                stack.enter_context(module.register_forward_pre_hook(before_norm))
        run()
    once = {norm: conv for norm, conv in found.items() if calls[norm] == calls[conv] == 1}
    served = Counter(once.values())
    owners = Counter(id(p) for m in network.modules() for p in m._parameters.values() if p is not None)
    return {
        norm: conv
        for norm, conv in once.items()
        if served[conv] == 1 and all(owners[id(parameter)] == 1 for parameter in conv.parameters())
    }


def _is_plain_convolution(module: nn.Module) -> bool:
    """Whether a module convolves with its weight as it stands (weight standardization does not)."""
    from timm.layers.conv2d_same import Conv2dSame

    return type(module) in (nn.Conv2d, Conv2dSame)


def _is_plain_batchnorm(module: nn.Module) -> bool:
    """Whether a module is PyTorch's BatchNorm, or timm's with an activation, and has statistics to fold."""
    from timm.layers.norm_act import BatchNormAct2d

    plain = type(module) in (nn.BatchNorm2d, nn.SyncBatchNorm, BatchNormAct2d)
    return plain and isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


def _after(norm: nn.Module) -> nn.Module:
    """Return what stays where a BatchNorm was: nothing, or timm's activation."""
    rest = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
    rest = [part for part in rest if not isinstance(part, nn.Identity)]
    return nn.Identity() if not rest else rest[0] if len(rest) == 1 else nn.Sequential(*rest)


def _fold(conv: nn.Conv2d, norm: nn.Module) -> None:
    """Change the convolution's weight and bias, computed in float64."""
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.running_mean is None or norm.running_var is None:
        raise TypeError(f"{type(norm).__name__} has no statistics to fold")
    weight, bias, mean, variance, gain, shift = (
        None if one is None else one.detach().double()
        for one in (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    fused = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, gain, shift)  # pyright: ignore[reportArgumentType]
    conv.weight, conv.bias = (nn.Parameter(one.to(conv.weight.dtype), requires_grad=False) for one in fused)
