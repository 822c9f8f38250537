"""Backbones from torchvision, cut open by tracing their graph.

torchvision says nowhere where a network's stages end, so it is read off the graph: a *cut* is a node
that all data passes through (inside a residual block there is none), a cut that ends a block of the
network is a candidate, and the last candidate at each reduction is the tap.
"""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer, create_feature_extractor

from fcnzoo.backbones.base import Backbone, FeatureInfo, Pretrained, check_keys, logger, read_safetensors
from fcnzoo.config import BackboneConfig, Preprocess, fit_channels
from fcnzoo.errors import BackboneError, UnknownModelError, WeightsError
from fcnzoo.records import near

_LEAVES = [
    member for _, member in inspect.getmembers(torchvision.ops, inspect.isclass) if issubclass(member, nn.Module)
]
TRACING = {"autowrap_modules": (math, torchvision.ops), "leaf_modules": _LEAVES}
"""How graphs are traced: as `create_feature_extractor` does by default, said outright so that names agree."""

HEADS = ("classifier.", "fc.", "head.", "heads.", "aux1.", "aux2.", "AuxLogits.")
"""Parts that classify: no features, and left out of files."""

PROBE = (256, 320)
"""(H, W) of the image that is run on the meta device; sides differ so that NCHW and NHWC can be told apart."""


class TorchvisionBackbone(Backbone):
    """A torchvision classifier, cut at the ends of its stages.

    Args:
        config: `name` is `"torchvision/<architecture>[.<weights>]"`, weights as in
            `torchvision.models.get_model_weights` (case does not matter).
        pretrained: Whose weights; see `Pretrained`.

    Raises:
        UnknownModelError: torchvision has no such network or weights.
        BackboneError: It cannot be cut, or not at this output stride.
        WeightsError: The weights cannot be had or do not fit.
    """

    def __init__(self, config: BackboneConfig, pretrained: Pretrained = False) -> None:
        super().__init__()
        self.config = config
        architecture, weights = _find(config)
        classifier = _build(config, architecture, weights if pretrained is True else None)
        if not isinstance(pretrained, bool):
            _load_file(classifier, pretrained, config.name)
        if config.in_channels != 3:
            _adapt_first_convolution(classifier, config.in_channels)
        taps = find_taps(classifier, config)
        self.features = tuple(info for info, _ in taps)
        self._channels_last = tuple(nhwc for _, nhwc in taps)
        coarsest = max(info.reduction for info in self.features)
        if config.output_stride is not None and coarsest > config.output_stride:
            raise BackboneError(
                f"{config.name} cannot be dilated to output_stride={config.output_stride}: its features stay at "
                f"{[info.reduction for info in self.features]}"
            )
        nodes = {info.tap: str(i) for i, info in enumerate(self.features)}
        self.network = create_feature_extractor(classifier, nodes, tracer_kwargs=TRACING, suppress_diff_warning=True)
        self.size_multiple = config.size_multiple or (32 if config.output_stride is not None else coarsest)
        self.preprocess = _preprocess(weights, config.in_channels)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features, finest first: (B, C_i, ⌈H / r_i⌉, ⌈W / r_i⌉)."""
        features = self.network(image)
        return [
            features[str(i)].permute(0, 3, 1, 2) if nhwc else features[str(i)]
            for i, nhwc in enumerate(self._channels_last)
        ]


def _find(config: BackboneConfig) -> tuple[str, Any]:
    """Return the architecture and the weights entry (the default one where the name has no tag)."""
    architecture, _, tag = config.architecture.partition(".")
    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise UnknownModelError(
            f"torchvision {torchvision.__version__} has no classifier {architecture!r}.{near(architecture, known)}"
        )
    published: Any = torchvision.models.get_model_weights(architecture)
    entries = {entry.name.lower(): entry for entry in published}
    if not tag:
        return architecture, published.DEFAULT
    if tag.lower() not in entries:
        raise UnknownModelError(f"torchvision/{architecture} has no weights {tag!r}; it has {', '.join(entries)}")
    return architecture, entries[tag.lower()]


def _build(config: BackboneConfig, architecture: str, weights: Any) -> nn.Module:
    options: dict[str, Any] = {"weights": weights}
    if config.output_stride in (8, 16):
        options["replace_stride_with_dilation"] = [False, config.output_stride == 8, True]
    if weights is None and architecture in ("googlenet", "inception_v3"):
        # Said outright, since leaving it to the default makes these two warn.
        options["init_weights"] = True
    try:
        try:
            return torchvision.models.get_model(architecture, **options)
        except NotImplementedError:
            # RegNet computes its widths with tensors, which the meta device cannot.
            if torch.empty(0).device.type != "meta":
                raise
            with torch.device("cpu"):
                return torchvision.models.get_model(architecture, **options).to("meta")
    except (TypeError, NotImplementedError, ValueError) as error:
        raise BackboneError(
            f"{config.name} cannot be dilated to output_stride={config.output_stride}: torchvision says {error}"
        ) from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a download whose hash is wrong
        raise WeightsError(
            f"the weights of {config.name} cannot be had ({type(error).__name__}: {error}). Where there is no network, "
            "give pretrained_backbone the path of a local .safetensors file"
        ) from error


def _load_file(classifier: nn.Module, path: Any, name: str) -> None:
    weights = read_safetensors(path)
    wanted = {key: tensor.shape for key, tensor in classifier.state_dict().items()}
    aside = {key for key in {*wanted, *weights} if key.startswith(HEADS)}
    check_keys({key: tensor.shape for key, tensor in weights.items()}, wanted, source=str(path), optional=aside)
    kept = {key: tensor for key, tensor in weights.items() if key in wanted and key not in aside}
    classifier.load_state_dict(kept, strict=False)
    logger.info("%s: loaded into %s; classifier keys left out: %s", path, name, sorted(aside & set(weights)) or "none")


def _adapt_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution another number of input channels, its weights adapted as timm does."""
    from timm.models import adapt_input_conv

    name, conv = next((name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if conv.in_channels != 3 or conv.groups != 1:
        raise BackboneError(f"the first convolution {name!r} takes {conv.in_channels} channels, not 3; cannot adapt it")
    new = copy.copy(conv)
    new._parameters = dict(conv._parameters)
    new.in_channels = in_channels
    new.weight = nn.Parameter(adapt_input_conv(in_channels, conv.weight.detach()))
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, new)


def _preprocess(weights: Any, in_channels: int) -> Preprocess:
    transforms = weights.transforms()
    return Preprocess(
        mean=fit_channels(tuple(float(value) for value in transforms.mean), in_channels),
        std=fit_channels(tuple(float(value) for value in transforms.std), in_channels),
    )


class _ShapeProbe(fx.Interpreter):
    """Runs a traced network and keeps the shape of every 4-D result."""

    def shapes(self, image: Tensor) -> dict[fx.Node, tuple[int, ...]]:
        self._found: dict[fx.Node, tuple[int, ...]] = {}
        self.run(image)
        return self._found

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.ndim == 4:
            self._found[n] = tuple(result.shape)
        return result


def find_taps(classifier: nn.Module, config: BackboneConfig) -> list[tuple[FeatureInfo, bool]]:
    """Find where a classifier's stages end.

    Returns:
        One (feature, whether its tensor is NHWC) per reduction from 2 up, finest first. Under dilation
        the same reduction comes again for every dilated stage.

    Raises:
        BackboneError: The network gives no feature maps at the probe's size.
    """
    probe = copy.deepcopy(classifier).to("meta").eval()
    tracer = NodePathTracer(**TRACING)
    graph = fx.GraphModule(probe, tracer.trace(probe))
    image = torch.empty(1, config.in_channels, *PROBE, device="meta")
    try:
        shapes = _ShapeProbe(graph).shapes(image)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise BackboneError(
            f"{config.name} does not run at {PROBE[0]}×{PROBE[1]}: {str(error).splitlines()[0]}"
        ) from error
    stages: dict[tuple[int, int], tuple[FeatureInfo, bool]] = {}
    for node in _ends_of_blocks(graph, tracer.node_to_qualname):
        inside = not tracer.node_to_qualname[node].startswith(HEADS)
        found = _reduction(shapes[node]) if node in shapes and inside else None
        if found and found[0] >= 2:
            reduction, nhwc = found
            channels = shapes[node][-1 if nhwc else 1]
            info = FeatureInfo(reduction, channels, tracer.node_to_qualname[node])
            stage = _stage(info.tap) if config.output_stride is not None else 0
            stages[reduction, stage] = (info, nhwc)
    if not stages:
        raise BackboneError(f"{config.name} gives no feature maps that all its data passes through")
    return list(stages.values())


def _stage(tap: str) -> int:
    """Number of a ResNet's stage: under dilation, stages share a reduction."""
    name = tap.split(".")[0]
    return int(name[5:]) if name.startswith("layer") and name[5:].isdigit() else 0


def _ends_of_blocks(graph: fx.GraphModule, names: dict[fx.Node, str]) -> list[fx.Node]:
    """Return the last cut of every block, in order; a block is named by the first two parts of its path."""
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    reach = 0
    data: set[fx.Node] = set()
    last: dict[str, fx.Node] = {}
    for node, index in order.items():
        if node.op == "placeholder" or any(source in data for source in node.all_input_nodes):
            data.add(node)
            if reach <= index and node.op not in ("placeholder", "output"):
                last[".".join(names[node].split(".")[:2])] = node
            reach = max(reach, *(order[user] for user in node.users)) if node.users else reach
    return list(last.values())


def _reduction(shape: tuple[int, ...]) -> tuple[int, bool] | None:
    """Return the reduction of a map of the probe image and whether it is NHWC; `None` if it is no map.

    Unpadded stems leave maps a little smaller than size / 2ⁿ: the nearest power of two counts where both
    axes agree on it within 15 %.
    """
    for nhwc in (False, True):
        height, width = shape[1:3] if nhwc else shape[2:4]
        exact = math.sqrt(PROBE[0] * PROBE[1] / (height * width))
        power = 2 ** round(math.log2(exact))
        if all(abs(math.log(size / (cells * power))) < 0.15 for size, cells in ((PROBE[0], height), (PROBE[1], width))):
            return power, nhwc
    return None
