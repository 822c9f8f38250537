"""torchvision's windows of attention on maps of open size; timm's are in `open_sizes.py`."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torchvision.models.swin_transformer import shifted_window_attention

from fcnzoo.inference.exporters.open_sizes import from_windows, pick, to_windows, window_mask


def open_windows(network: nn.Module) -> None:
    """Let a traced Swin of torchvision compute its windows by `attend`, in place; others stay as they are."""
    graphs = [graph for name in ("train_graph", "eval_graph") if isinstance(graph := vars(network).get(name), fx.Graph)]
    nodes: list[Any] = [node for graph in graphs for node in graph.nodes if node.target is shifted_window_attention]
    for node in nodes:
        node.target = attend
    if nodes:
        network.recompile()  # pyright: ignore[reportCallIssue]


def attend(
    input: Tensor,
    qkv_weight: Tensor,
    proj_weight: Tensor,
    relative_position_bias: Tensor,
    window_size: list[int],
    num_heads: int,
    shift_size: list[int],
    attention_dropout: float = 0.0,  # noqa: ARG001 - nothing is dropped in evaluation mode
    dropout: float = 0.0,  # noqa: ARG001
    qkv_bias: Tensor | None = None,
    proj_bias: Tensor | None = None,
    logit_scale: Tensor | None = None,
    training: bool = False,  # noqa: ARG001
) -> Tensor:
    """Attend within windows, as `torchvision.models.swin_transformer.shifted_window_attention` in evaluation mode.

    That pads first and shifts then, and does not shift an axis with a single window.

    Args:
        input: (B, H, W, C).
        qkv_weight: (3C, C).
        proj_weight: (C, C).
        relative_position_bias: (1, heads, N, N) for windows of N cells.
        window_size: (rows, columns).
        num_heads: Heads.
        shift_size: (rows, columns).
        attention_dropout: Not used.
        dropout: Not used.
        qkv_bias: (3C).
        proj_bias: (C).
        logit_scale: (heads, 1, 1), for the cosine attention of version 2.
        training: Not used.

    Returns:
        (B, H, W, C).
    """
    batch, rows, columns, width = input.shape
    window = high, wide = window_size[0], window_size[1]
    counts = down, across = (rows + high - 1) // high, (columns + wide - 1) // wide
    shifts = [_shift(count, step) for count, step in zip(counts, shift_size, strict=True)]
    x = pick(pick(input, 1, 0, down * high), 2, 0, across * wide)
    if any(shift_size):
        x = _roll(_roll(x, 1, shifts[0]), 2, shifts[1])
    tokens = to_windows(x, counts, window)
    if logit_scale is not None and qkv_bias is not None:
        keys = torch.zeros_like(qkv_bias[:width])
        qkv_bias = torch.cat([qkv_bias[:width], keys, qkv_bias[2 * width :]])
    qkv = F.linear(tokens, qkv_weight, qkv_bias).view(batch * down * across, high * wide, 3, num_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if logit_scale is None:
        scores = (query * (width // num_heads) ** -0.5) @ key.transpose(-2, -1)
    else:
        scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1)
        scores = scores * logit_scale.clamp(max=math.log(100.0)).exp()
    scores = scores + relative_position_bias
    if any(shift_size):
        mask = window_mask(shifts, counts, window).to(scores.dtype)
        scores = scores.view(batch, down * across, num_heads, high * wide, high * wide) + mask[None, :, None]
        scores = scores.view(batch * down * across, num_heads, high * wide, high * wide)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch * down * across, high * wide, width)
    mixed = from_windows(F.linear(mixed, proj_weight, proj_bias), counts, window)
    if any(shift_size):
        mixed = _roll(_roll(mixed, 1, -shifts[0]), 2, -shifts[1])
    return pick(pick(mixed, 1, 0, rows, inside=True), 2, 0, columns, inside=True)


def _shift(count: Any, step: int) -> Tensor:
    """Return the step (1), or 0 where an axis has one window only."""
    return torch.where(torch.full((1,), count) > 1, step, 0)


def _roll(x: Tensor, axis: int, step: Tensor) -> Tensor:
    """Return `torch.roll(x, -step, axis)` for a step that is a tensor."""
    length = x.shape[axis]
    place = torch.arange(length) + step
    place = torch.where(place >= length, place - length, place)
    return x.index_select(axis, torch.where(place < 0, place + length, place))
