"""Where a torchvision network's stages end.

torchvision says that nowhere, so it is read off the graph: a *cut* is a node that all data passes through
(inside a residual block there is none), a cut that ends a block of the network is a candidate, and the last
candidate at each reduction is the tap.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from fcnzoo.backbones.base import FeatureInfo
from fcnzoo.backbones.shapes import NodeShapes
from fcnzoo.backbones.torchvision.maxvit import AnySizePartitionAttention
from fcnzoo.backbones.torchvision.weights import HEADS
from fcnzoo.errors import BackboneError

_LEAVES = [
    member for _, member in inspect.getmembers(torchvision.ops, inspect.isclass) if issubclass(member, nn.Module)
]
TRACING: dict[str, Any] = {
    "autowrap_modules": (math, torchvision.ops),
    "leaf_modules": [*_LEAVES, AnySizePartitionAttention],
}
"""How graphs are traced: as `create_feature_extractor` does by default, said outright so that names agree."""

PROBE = (256, 320)
"""(H, W) of the image that is run on the meta device; sides differ so that NCHW and NHWC can be told apart."""


def find_taps(
    classifier: nn.Module, name: str, blocks: Sequence[str] | None = None
) -> tuple[tuple[FeatureInfo, bool], ...]:
    """Find where a classifier's stages end.

    Args:
        classifier: On the meta device, in eval mode, for images of 3 channels.
        name: What to call it in errors.
        blocks: The blocks that end stages, where that is known; see `block_of`.

    Returns:
        One (feature, whether its tensor is NHWC) per block, or else per reduction from 2 up, finest first.

    Raises:
        BackboneError: The network gives no feature maps at the probe's size, or has no such block.
    """
    tracer = NodePathTracer(**TRACING)
    graph = fx.GraphModule(classifier, tracer.trace(classifier))
    try:
        shapes = NodeShapes(graph).of(torch.empty(1, 3, *PROBE, device="meta"))
        shapes = {node: shape for node, shape in shapes.items() if len(shape) == 4}
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneError(f"{name} does not run at {PROBE[0]}×{PROBE[1]}: {reason}") from error
    stages: dict[object, tuple[FeatureInfo, bool]] = {}
    known: list[str] = []
    for block, node in _ends_of_blocks(graph, tracer.node_to_qualname).items():
        inside = not tracer.node_to_qualname[node].startswith(HEADS)
        found = _reduction(shapes[node]) if node in shapes and inside else None
        if found and found[0] >= 2:
            reduction, nhwc = found
            known.append(block)
            if blocks is None or block in blocks:
                info = FeatureInfo(reduction, shapes[node][-1 if nhwc else 1], tracer.node_to_qualname[node])
                stages[reduction if blocks is None else block] = (info, nhwc)
    if not known:
        raise BackboneError(f"{name} gives no feature maps that all its data passes through")
    if blocks is not None and len(stages) < len(blocks):
        missing = ", ".join(block for block in blocks if block not in stages)
        raise BackboneError(f"{name} has no block {missing} that gives a feature map; it has {', '.join(known)}")
    return tuple(stages.values())


def block_of(name: str) -> str:
    """Return the block in which a node of the graph stands: the first two parts of its path."""
    return ".".join(name.split(".")[:2])


def _ends_of_blocks(graph: fx.GraphModule, names: dict[fx.Node, str]) -> dict[str, fx.Node]:
    """Return the last cut of every block, in order."""
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    reach = 0
    data: set[fx.Node] = set()
    last: dict[str, fx.Node] = {}
    for node, index in order.items():
        if node.op == "placeholder" or any(source in data for source in node.all_input_nodes):
            data.add(node)
            if reach <= index and node.op not in ("placeholder", "output"):
                last[block_of(names[node])] = node
            reach = max(reach, *(order[user] for user in node.users)) if node.users else reach
    return last


SMALLER, LARGER = 1.4, 1.05
"""How many times too small, or too large, each axis of a map may be for its reduction: 6 × 8 cells of 256 × 320 pixels
(1.33 and 1.25 times) are a map of reduction 32. Not beyond √2, where the next power of two is as near."""


def _reduction(shape: tuple[int, ...]) -> tuple[int, bool] | None:
    """Return the reduction of a map of the probe image and whether it is NHWC; `None` if it is no map.

    Stems without padding leave maps smaller than size / 2ⁿ, never larger: the nearest power of two counts where
    both axes agree on it.
    """
    for nhwc in (False, True):
        height, width = shape[1:3] if nhwc else shape[2:4]
        if min(height, width) < 2:
            continue  # The mean of the image, not a map of it.
        exact = math.sqrt(PROBE[0] * PROBE[1] / (height * width))
        power = 2 ** round(math.log2(exact))
        ratios = (PROBE[0] / (height * power), PROBE[1] / (width * power))
        if all(1 / LARGER < ratio < SMALLER for ratio in ratios):
            return power, nhwc
    return None
