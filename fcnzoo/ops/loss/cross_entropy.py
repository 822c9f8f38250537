"""From scores to the training loss.

Two ways: `_compose` is upsampling, then PyTorch's cross-entropy; `_LeanLoss` never makes the logits, and has the
gradient ready when the loss is. The first is the meaning of the second, and serves where tensors hold no numbers
(compilation, export, the meta device), inside `torch.func`, and for derivatives of derivatives. The second is taken
by one of three routes: compiled loops on a CPU (compiled.py), Triton kernels on a CUDA device (cuda.py), or where those
cannot be had plain PyTorch in strips (plain.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnzoo.ops.checks import check_target
from fcnzoo.ops.loss.compiled import compiled_loss
from fcnzoo.ops.loss.cuda import triton_loss
from fcnzoo.ops.loss.plain import Sums, Terms, strip_loss
from fcnzoo.ops.upsample import upsample

if TYPE_CHECKING:
    from fcnzoo.config import Grid


Reduction = Literal["mean", "sum", "none"]


def _terms(weight: Tensor | None, label_smoothing: float, ignore_index: int, scores: Tensor) -> Terms:
    classes = scores.shape[1]
    weight = scores.new_ones(classes) if weight is None else weight.detach().to(scores)
    hit = weight * (1 - label_smoothing)
    smooth = weight * (label_smoothing / classes) if label_smoothing else None
    return Terms(weight, hit, smooth, hit if smooth is None else hit + smooth.sum(), ignore_index)


def _compose(
    scores: Tensor,
    target: Tensor,
    grid: Grid,
    ignore_index: int,
    weight: Tensor | None,
    label_smoothing: float,
    reduction: Reduction,
) -> Tensor:
    """Make the logits, and give them to PyTorch."""
    # On channels-last logits PyTorch's log-softmax takes twice as long on a CPU.
    scores = scores.contiguous()
    target = target.long()
    weight = None if weight is None else weight.to(scores)
    pixels = F.cross_entropy(
        upsample(scores, grid, (target.shape[1], target.shape[2])),
        target,
        weight=weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    if reduction == "sum":
        return pixels.sum()
    counted = target.long() != ignore_index  # a uint8 target would take 300 for 44
    share = counted.to(scores.dtype) if weight is None else weight[target.where(counted, 0)] * counted
    axes = (0, 1, 2) if reduction == "mean" else (1, 2)
    total = share.sum(axes)
    return pixels.sum(axes) / total.where(total > 0, 1)


def _on_cpu(*tensors: Tensor) -> bool:
    return all(tensor.device.type == "cpu" for tensor in tensors)


def _on_one_gpu(*tensors: Tensor) -> bool:
    return all(tensor.is_cuda and tensor.device == tensors[0].device for tensor in tensors)


def _sum(scores: Tensor, target: Tensor, grid: Grid, terms: Terms, *, gradient: bool) -> Sums:
    """Take the fastest route that there is."""
    sums = None
    if _on_cpu(scores, target):
        sums = compiled_loss(scores, target, grid, terms, gradient=gradient)
    elif _on_one_gpu(scores, target):
        sums = triton_loss(scores, target, grid, terms, gradient=gradient)
    return sums or strip_loss(scores, target, grid, terms, gradient=gradient)


class _LeanLoss(torch.autograd.Function):
    """Loss and gradient in one pass; the backward pass only scales what the forward pass found."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, target: Tensor, options: tuple[Any, ...], wanted: bool) -> Tensor:
        grid, ignore_index, weight, label_smoothing, reduction = options
        # Matrix products would be taken in half precision otherwise.
        with torch.autocast(scores.device.type, enabled=False):
            sums = _sum(scores, target, grid, _terms(weight, label_smoothing, ignore_index, scores), gradient=wanted)
        if reduction == "sum":
            loss, factor = sums.loss.sum(), None
        else:
            total = sums.total if reduction == "none" else sums.total.sum()
            factor = total.where(total > 0, 1).reciprocal()
            loss = (sums.loss if reduction == "none" else sums.loss.sum()) * factor
        if sums.gradient is not None:
            if factor is not None:
                sums.gradient.mul_(factor.view(-1, 1, 1, 1))
            ctx.save_for_backward(scores, target, sums.gradient)
            ctx.options = options
        return loss

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> tuple[Tensor | None, ...]:
        (output,) = outputs
        scores, target, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: the gradient must itself be differentiable
            loss = _compose(scores, target, *ctx.options)
            (gradient,) = torch.autograd.grad(loss, scores, output, create_graph=True)
            return gradient, None, None, None
        return gradient * output.view(-1, 1, 1, 1), None, None, None


def _must_compose(scores: Tensor, target: Tensor, weight: Tensor | None) -> bool:
    """Whether something looks on that wants ordinary operations instead of numbers."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return True
    if weight is not None and weight.requires_grad:
        return True
    given = [scores, target] if weight is None else [scores, target, weight]
    if any(type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.is_meta for tensor in given):
        return True  # FakeTensor and other subclasses
    try:
        for tensor in given:
            tensor.data_ptr()
    except RuntimeError:  # inside torch.func tensors have no memory of their own
        return True
    return torch.autograd.forward_ad.unpack_dual(scores).tangent is not None


def upsample_cross_entropy(
    scores: Tensor,
    target: Tensor,
    grid: Grid,
    *,
    ignore_index: int = 255,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of the upsampled scores, as `F.cross_entropy(upsample(scores), target)`.

    Two things differ from `F.cross_entropy`: where no pixel counts, the mean is 0 with zero gradients
    instead of NaN; and half-precision scores are summed in float32. A label outside 0…K−1 that is not ignored is an
    `IndexError` on a CPU. On a GPU it trips a device-side assertion of PyTorch, which shows at a later call and
    ends the process's use of the GPU; `check_labels` finds such labels in advance, and waits for the device.

    Args:
        scores: (B, K, h, w), floating point.
        target: (B, H, W) integers: labels 0…K−1, or `ignore_index`.
        grid: Where pixels lie on the scores.
        ignore_index: Target value that takes no part.
        weight: (K,) one factor per class; the mean is weighted by it, as in PyTorch.
        label_smoothing: Share of the uniform distribution in the target, in [0, 1].
        reduction: `"mean"` over counted pixels, `"sum"`, or `"none"`: one mean per image, (B,).

    Returns:
        A scalar, or (B,) for `"none"`; float32 for half-precision scores, else the dtype of `scores`.

    Raises:
        ValueError: Shapes do not fit, or `reduction` is unknown.
        TypeError: A dtype does not fit.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    check_target(scores, target)
    if weight is not None and tuple(weight.shape) != (scores.shape[1],):
        raise ValueError(f"weight must be ({scores.shape[1]},), one factor per class, got shape {tuple(weight.shape)}")
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    if _must_compose(scores, target, weight):
        return _compose(scores, target, grid, ignore_index, weight, label_smoothing, reduction)
    options = (grid, ignore_index, weight, label_smoothing, reduction)
    wanted = scores.requires_grad and torch.is_grad_enabled()  # inside a Function gradients are always off
    return cast("Tensor", _LeanLoss.apply(scores, target, options, wanted))
