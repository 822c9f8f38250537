"""torchvision's classifiers: found by name, built, loaded, fitted to other numbers of channels."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from fcnzoo.backbones.base import logger
from fcnzoo.config import BackboneConfig, Preprocess, fit_channels
from fcnzoo.errors import BackboneError, UnknownModelError, WeightsError
from fcnzoo.files.keys import check_keys
from fcnzoo.files.records import near
from fcnzoo.files.safetensors import read_safetensors

HEADS = ("classifier.", "fc.", "head.", "heads.", "aux1.", "aux2.", "AuxLogits.")
"""Parts that classify: no features, and left out of files."""


def find_classifier(config: BackboneConfig) -> tuple[str, Any]:
    """Return the architecture and the weights entry (the default one where the name has no tag).

    Raises:
        UnknownModelError: torchvision has no such network or weights.
    """
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


def build_classifier(architecture: str, entry: Any, *, pretrained: bool, output_stride: int | None = None) -> nn.Module:
    """Build torchvision's own classifier.

    Args:
        architecture: Its name.
        entry: The weights entry; vision transformers get the table of positions that it was trained with.
        pretrained: Whether to load it.
        output_stride: For the provider's own option, which some networks refuse and some ignore.

    Raises:
        TypeError, NotImplementedError, ValueError: It refuses the stride.
        WeightsError: The weights cannot be had.
    """
    options: dict[str, Any] = {"weights": entry if pretrained else None}
    if architecture.startswith("mobilenet_v3_"):
        options["dilated"] = output_stride == 16  # its last stage only (`mobilenetv3.py`, `_mobilenet_v3_conf`)
    elif output_stride in (8, 16):
        options["replace_stride_with_dilation"] = [False, output_stride == 8, True]
    if not pretrained and architecture in ("googlenet", "inception_v3"):
        # Said outright, since leaving it to the default makes these two warn.
        options["init_weights"] = True
    if not pretrained and architecture.startswith("vit_"):
        options["image_size"] = entry.meta["min_size"][0]
    try:
        with _NumbersOnCPU():
            classifier = torchvision.models.get_model(architecture, **options)
    except (OSError, RuntimeError) as error:  # RuntimeError: a download whose hash is wrong
        if isinstance(error, NotImplementedError):
            raise
        raise WeightsError(
            f"the weights of torchvision/{architecture} cannot be had ({type(error).__name__}: {error}). Where there "
            "is no network, give pretrained_backbone the path of a local .safetensors file"
        ) from error
    return classifier.to("meta") if torch.empty(0).is_meta else classifier


def classifier_on_meta(architecture: str, entry: Any, output_stride: int | None = None) -> nn.Module:
    """Build a classifier that has shapes only; see `build_classifier`."""
    with torch.device("meta"):
        return build_classifier(architecture, entry, pretrained=False, output_stride=output_stride).eval()


def load_file(classifier: nn.Module, path: Any, name: str) -> None:
    """Load a local file with the classifier's keys; those of its head may lack or differ, and go to the log.

    Raises:
        WeightsError: There is no such file, or it does not fit.
    """
    weights = read_safetensors(path)
    wanted = {key: tensor.shape for key, tensor in classifier.state_dict().items()}
    aside = {key for key in {*wanted, *weights} if key.startswith(HEADS)}
    check_keys({key: tensor.shape for key, tensor in weights.items()}, wanted, source=str(path), optional=aside)
    kept = {key: tensor for key, tensor in weights.items() if key in wanted and key not in aside}
    classifier.load_state_dict(kept, strict=False)
    logger.info("%s: loaded into %s; classifier keys left out: %s", path, name, sorted(aside & set(weights)) or "none")


def adapt_first_convolution(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution another number of input channels, its weights adapted as timm does.

    Raises:
        BackboneError: It does not take 3 channels.
    """
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


def preprocess_of(entry: Any, in_channels: int) -> Preprocess:
    """Return what the images of a weights entry went through."""
    transforms = entry.transforms()
    filters: dict[str, Any] = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest"}
    return Preprocess(
        mean=fit_channels(tuple(float(value) for value in transforms.mean), in_channels),
        std=fit_channels(tuple(float(value) for value in transforms.std), in_channels),
        interpolation=filters.get(transforms.interpolation.value, "bilinear"),
    )


class _NumbersOnCPU(TorchFunctionMode):
    """Keeps small tensors of numbers off the meta device: RegNet computes its widths with such."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.arange, torch.tensor):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)
