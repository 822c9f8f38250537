"""A classifier made fully convolutional (Long et al. 2015, section 3.1, figure 2).

A Linear layer on a flattened C×k×k map is a k×k convolution evaluated at one place. Run as such, the
classifier takes an image of any larger size and gives a map of class scores: a heat map.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.proxy import TraceError

from fcnzoo.backbones.shapes import NodeShapes
from fcnzoo.errors import BackboneError


def reshape_linear(weight: Tensor, kernel_size: int) -> Tensor:
    """Reshape a Linear weight (out, C·k·k) to that of the equal convolution, (out, C, k, k).

    Raises:
        ValueError: The inputs are not a multiple of k².
    """
    outputs, inputs = weight.shape
    if inputs % kernel_size**2:
        raise ValueError(f"{inputs} inputs are no multiple of {kernel_size}×{kernel_size}")
    return weight.reshape(outputs, inputs // kernel_size**2, kernel_size, kernel_size)


def linear_to_conv(linear: nn.Linear, kernel_size: int = 1) -> nn.Conv2d:
    """Return the convolution that computes the same as a Linear layer on a flattened k×k map.

    Args:
        linear: A layer with C·k·k inputs.
        kernel_size: k.

    Raises:
        ValueError: The inputs are not a multiple of k².
    """
    weight = reshape_linear(linear.weight.detach(), kernel_size)
    with torch.device(weight.device):
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], kernel_size, bias=linear.bias is not None).to(weight.dtype)
    conv.weight = nn.Parameter(weight.clone(), requires_grad=linear.weight.requires_grad)
    if linear.bias is not None:
        conv.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=linear.bias.requires_grad)
    return conv


def fully_convolutional(classifier: nn.Module, image_size: int = 224) -> fx.GraphModule:
    """Make a whole image classifier convolutional, without training anything.

    The network must end in a pooling to a fixed size, a flattening and Linear layers with elementwise
    layers between, as VGG, AlexNet, ResNet and most of torchvision's do. The pooling becomes the average
    over the window that it saw at `image_size` (nothing at all for VGG, whose features are 7×7 there),
    every Linear layer a convolution.

    Args:
        classifier: The network; it is copied, not changed. It must be traceable by `torch.fx`.
        image_size: Side of the square image it was trained on, in pixels.

    Returns:
        A network that gives the same logits, as (B, classes, 1, 1), for an image of `image_size`, and a
        heat map (B, classes, h, w) for a larger one.

    Raises:
        BackboneError: The network is not of that form.
    """
    network = copy.deepcopy(classifier).eval()
    channels = next((m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d)), 3)
    try:
        graph = fx.symbolic_trace(network)
        shapes = NodeShapes(graph).of(next(network.parameters()).new_zeros(1, channels, image_size, image_size))
    except (TraceError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneError(
            f"{type(classifier).__name__} cannot be traced at {image_size}×{image_size}: {reason}"
        ) from error
    modules = dict(graph.named_modules())
    kernel: int | None = None
    for node in list(graph.graph.nodes):
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Flatten) or node.target is torch.flatten:
            _replace_pools_before(graph, node, modules, shapes)
            source = node.all_input_nodes[0]
            kernel = shapes[source][-1] if len(shapes[source]) == 4 else None
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
        elif isinstance(module, nn.Linear):
            if kernel is None:
                raise BackboneError(
                    f"{type(classifier).__name__}: Linear {node.target!r} does not follow a flattened map"
                )
            graph.add_submodule(f"{node.target}", linear_to_conv(module, kernel))
            kernel = 1
    if kernel is None:
        raise BackboneError(f"{type(classifier).__name__} has no flattening followed by Linear layers")
    graph.graph.lint()
    graph.recompile()
    return graph


def _replace_pools_before(
    graph: fx.GraphModule, flatten: fx.Node, modules: Mapping[str, nn.Module], shapes: dict[fx.Node, tuple[int, ...]]
) -> None:
    """Replace the pooling that feeds a flattening; poolings inside the network (squeeze-excite) stay."""
    node = flatten.all_input_nodes[0]
    while len(node.all_input_nodes) == 1:
        above = node.all_input_nodes[0]
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.AdaptiveAvgPool2d) or node.target is F.adaptive_avg_pool2d:
            _replace_pool(graph, node, shapes)
            return
        node = above


def _replace_pool(graph: fx.GraphModule, node: fx.Node, shapes: dict[fx.Node, tuple[int, ...]]) -> None:
    """Put the average over a fixed window in the place of a pooling to a fixed size."""
    source = node.all_input_nodes[0]
    before, after = shapes[source][-1], shapes[node][-1]
    if shapes[source][-2] != before or before % after:
        raise BackboneError(f"a pooling of {before} to {after} is no average over equal windows")
    window = before // after
    with graph.graph.inserting_before(node):
        pooled = graph.graph.call_function(F.avg_pool2d, (source, window), {"stride": window if after > 1 else 1})
    shapes[pooled] = shapes[node]
    node.replace_all_uses_with(pooled if window > 1 else source)
    graph.graph.erase_node(node)
    if window == 1:
        graph.graph.erase_node(pooled)
