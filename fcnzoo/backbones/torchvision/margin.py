"""Stems and poolings without padding: where the cells of such networks lie, and a margin that puts them right.

A layer with too little padding (AlexNet's poolings, Inception's stem) leaves maps with fewer cells than the
image has room for, which lie too far to the bottom and the right, and some never see the last pixels. So do
even windows under dilation (VGG's poolings). These networks see the image within a margin of zeros, and what
belongs to the margin is cut off their features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

from fcnzoo.backbones.dilation.trace import Size, trace_sizes

MARGINS = 8
"""Multiples of the coarsest reduction that are tried."""


@dataclass(frozen=True)
class Margin:
    """Zeros around the image, and what to cut off.

    Attributes:
        before: Pixels above and to the left.
        after: Pixels below and to the right.
        skipped: Cells that each feature has before its first one that belongs to the image.
    """

    before: int = 0
    after: int = 0
    skipped: tuple[int, ...] = ()

    def pad(self, image: Tensor) -> Tensor:
        """Put the margin around an image."""
        return F.pad(image, (self.before, self.after) * 2) if self.before or self.after else image

    def crop(self, features: Sequence[Tensor], reductions: Sequence[int], size: Size) -> list[Tensor]:
        """Cut features down to ⌈size / reduction⌉ cells."""
        if not self.skipped:
            return list(features)
        return [
            feature[..., skip : skip - (-size[0] // r), skip : skip - (-size[1] // r)]
            for feature, r, skip in zip(features, reductions, self.skipped, strict=True)
        ]


def find_margin(
    network: fx.GraphModule, reductions: Sequence[int], multiple: int, run: Callable[[Size], Callable[[], object]]
) -> Margin:
    """Find the margin a network needs; none for networks whose layers are padded.

    Args:
        network: Traced; returns a dict of maps in the order of `reductions`.
        reductions: Of its features.
        multiple: Image sides are a multiple of this.
        run: Returns a function that calls the network on an image (H, W).
    """
    shifts = _shifts(network, reductions)
    if max(shifts) <= 0:
        return Margin()
    size = (8 * multiple, 10 * multiple)
    needed = [(size[0] // r, size[1] // r) for r in reductions]
    complete = _covers(trace_sizes(network, run(size)).outputs, needed, (0,) * len(needed))
    if complete and all(shift <= r / 2 for shift, r in zip(shifts, reductions, strict=True)):
        return Margin()
    before, skipped = _best_start(shifts, reductions)
    for times in range(1, MARGINS + 1):
        total = times * multiple
        wider = (size[0] + total, size[1] + total)
        if total >= before and _covers(trace_sizes(network, run(wider)).outputs, needed, skipped):
            return Margin(before, total - before, skipped)
    return Margin()


def _covers(outputs: Sequence[tuple[Size, Size | None]], needed: Sequence[Size], skipped: Sequence[int]) -> bool:
    return all(
        have is not None and have[0] >= rows + skip and have[1] >= columns + skip
        for (_, have), (rows, columns), skip in zip(outputs, needed, skipped, strict=True)
    )


def _best_start(shifts: Sequence[float], reductions: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Return the margin before the image that leaves cells nearest to their places, in shares of a cell."""

    def skipped(before: int) -> tuple[int, ...]:
        return tuple(max(0, round((before - shift) / r)) for shift, r in zip(shifts, reductions, strict=True))

    def error(before: int) -> float:
        places = zip(shifts, reductions, skipped(before), strict=True)
        return sum(((shift - before + skip * r) / r) ** 2 for shift, r, skip in places if r >= 8)

    before = min(range(round(max(0.0, *shifts)) + 1), key=error)
    return before, skipped(before)


def _shifts(network: fx.GraphModule, reductions: Sequence[int]) -> list[float]:
    """Return, for each feature, how many pixels its cells lie below and to the right of their places.

    The center of a window's first cell, layer by layer, by receptive field arithmetic (Dumoulin & Visin 2016,
    "A guide to convolution arithmetic for deep learning", section 5): center += ((k − 1)·d / 2 − p) · jump. Its
    place is (r − 1) / 2. Where the graph hides a stride in functions (windowed attention) nothing is said: 0.
    """
    places: dict[fx.Node, tuple[float, int]] = {}
    outputs: list[fx.Node] = []
    for node in network.graph.nodes:
        inputs = [places[source] for source in node.all_input_nodes if source in places]
        if node.op == "placeholder":
            places[node] = (0.0, 1)
        elif node.op == "output":
            outputs = list(node.args[0].values())
        elif inputs:
            layer = network.get_submodule(str(node.target)) if node.op == "call_module" else None
            if not isinstance(layer, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
                places[node] = _through(layer, inputs[0])
    found = [places.get(node, (0.0, 0)) for node in outputs]
    return [center - (r - 1) / 2 if jump == r else 0.0 for (center, jump), r in zip(found, reductions, strict=True)]


def _through(layer: Any, place: tuple[float, int]) -> tuple[float, int]:
    if not isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return place
    center, jump = place
    given: dict[str, Any] = {"dilation": 1, **vars(layer)}
    kernel, stride, dilation, padding = (
        value[-1] if isinstance(value := given[name], (tuple, list)) else value
        for name in ("kernel_size", "stride", "dilation", "padding")
    )
    if "pads" in given:
        padding = given["pads"][0]
    elif isinstance(padding, str):
        padding = dilation * (kernel - 1) // 2 if padding == "same" else 0
    return center + (dilation * (kernel - 1) / 2 - padding) * jump, jump * stride


def poolings_as_modules(network: Any) -> None:
    """Turn pooling functions of a traced network into layers, so that these can be dilated.

    Args:
        network: What `create_feature_extractor` returned: one graph for training, one for evaluation.
    """
    kinds: dict[Any, type[nn.Module]] = {F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d}
    for graph in (network.train_graph, network.eval_graph):
        for node in list(graph.nodes):
            if node.op == "call_function" and node.target in kinds:
                name = f"{node.name}_layer"
                if not hasattr(network, name):
                    network.add_module(name, _pooling(kinds[node.target], node))
                with graph.inserting_before(node):
                    layer = graph.create_node("call_module", name, (node.args[0],))
                node.replace_all_uses_with(layer)
                graph.erase_node(node)
    network.recompile()


def _pooling(kind: Any, node: fx.Node) -> nn.Module:
    options = {name: value for name, value in node.kwargs.items() if name != "input"}
    return kind(*node.args[1:], **options)
