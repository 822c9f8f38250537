"""From a name to a network."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from fcnzoo.config import BackboneConfig, DilatedHeadConfig, FCNConfig, fit_channels
from fcnzoo.config.spec import ModelSpec, Weights
from fcnzoo.errors import BackboneError, WeightsError
from fcnzoo.files.records import near
from fcnzoo.labels import LabelSetLike
from fcnzoo.model.fcn import FCN, build
from fcnzoo.weights.folder import CONFIG_FILE, WEIGHTS_FILE, read_config
from fcnzoo.weights.foreign_words import FOREIGN_WORDS
from fcnzoo.zoo import registry
from fcnzoo.zoo.heads import HEADS, OUTPUT_STRIDES, head_config
from fcnzoo.zoo.registry import check_backbone, list_models, split_name

if TYPE_CHECKING:
    from fcnzoo.backbones.base import Pretrained

logger = logging.getLogger("fcnzoo")


def create(
    name: str,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    label_set: LabelSetLike | None = None,
    in_channels: int | None = None,
    backbone: str | None = None,
    pretrained_backbone: Pretrained = False,
    aux: bool | None = None,
    output_stride: Literal[8, 16, 32] | None = None,
    head: Mapping[str, Any] | None = None,
    geometry: Literal["paper", "same"] | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **foreign: Any,
) -> FCN:
    """Create a network by name.

    Args:
        name: `<head>_<backbone>[.<tag>]`: an entry of the zoo (`fcn8s_vgg16`), or any head on any timm or
            torchvision backbone (`fcn8s_convnext_tiny`); `everyday` or `street`, whose weights are shipped; or a bare
            head (`fcn8s`) with `backbone=`; or `hf-hub:org/name[@revision]`, a network that `push_to_hub` wrote.
        pretrained: Load trained segmentation weights: those of the tag, or the default ones.
        num_classes: K. Other than the weights', only the score layers stay fresh.
        label_set: Names of the classes instead of their number: a `LabelSet`, a list, or `{0: "sky", …}`. What
            trained weights say about classes of the same name is kept ("road" stays road); the log says which, and
            only the other classes' scores are fresh.
        in_channels: Channels of the image; by default as the entry says (3 for every built-in one).
        backbone: For a bare head: `"timm/…"`, `"torchvision/…"`, `"paper/vgg16"`.
        pretrained_backbone: `True`: the provider's ImageNet weights; a path: a local safetensors file with
            the provider's keys. Not together with `pretrained`, which brings the backbone's.
        aux: With or without the auxiliary head; by default as the entry says (dilated heads have one).
        output_stride: Coarsest reduction of the backbone (8, 16 or 32), by dilation.
        head: Options of the head, `{"dropout": 0.1}`: fields of [`SkipHeadConfig`][fcnzoo.config.SkipHeadConfig],
            [`DilatedHeadConfig`][fcnzoo.config.DilatedHeadConfig],
            [`ContextHeadConfig`][fcnzoo.config.ContextHeadConfig] or
            [`LRASPPHeadConfig`][fcnzoo.config.LRASPPHeadConfig].
        geometry: For the paper's VGG-16: `"paper"` or `"same"` (no padding by 100).
        device: Where to build it; `"meta"` builds without memory or time.
        dtype: Of the parameters.
        **foreign: None is known; words of other libraries are answered with fcnzoo's.

    Returns:
        The network: in eval mode with `pretrained=True`, as `load` returns it (`.train()` before training); else in
        training mode, as PyTorch's own are.

    Raises:
        UnknownModelError: Nothing is called so; the text lists near names.
        BackboneError: The backbone cannot serve the head.
        WeightsError: Weights do not exist, cannot be had, or do not fit.
        ValueError: An argument is impossible, or two contradict each other.
        TypeError: There is no such argument (the text says what it is called here), or one has a wrong type.
    """
    if foreign:
        raise TypeError(_unknown_keyword(next(iter(foreign))))
    check_device(device)
    if pretrained and pretrained_backbone is not False:
        raise ValueError("pretrained=True brings the backbone's weights too; leave pretrained_backbone out")
    from fcnzoo.weights.load import load_as

    base, folder, sha256 = _look_up(name, backbone, pretrained)
    config = _configure(base.with_classes(num_classes, label_set), in_channels, aux, output_stride, geometry, head)
    if pretrained_backbone is not False and config.backbone.source == "paper":
        # The provider's VGG-16 was trained on other statistics than Caffe's: take those of the weights.
        config = config.replace(preprocess=None)
    if folder is not None:
        return load_as(folder, config, device=device, dtype=dtype, fetched=True, sha256=sha256)
    with torch.device(device) if device is not None else contextlib.nullcontext(), _default_dtype(dtype):
        model = build(config, pretrained_backbone=pretrained_backbone)
    return model.to(device=device, dtype=dtype)


def _unknown_keyword(name: str) -> str:
    if name in FOREIGN_WORDS:
        return f"create() has no argument {name!r}; in fcnzoo that is {FOREIGN_WORDS[name]}"
    known = [known for known in inspect.signature(create).parameters if known != "foreign"]
    return f"create() has no argument {name!r}.{near(name, known)} Its arguments are {', '.join(known)}"


def pretrained_weights(name: str) -> tuple[ModelSpec, Weights]:
    """Return what `create(name, pretrained=True)` loads: those of the tag, or the default ones.

    Raises:
        UnknownModelError: Nothing is called so.
        WeightsError: There are no trained weights.
    """
    spec, tag = split_name(name)
    return spec, _pick_weights(spec, tag)


def pretrained_folder(name: str) -> tuple[Path, str | None]:
    """Return the folder that `create(name, pretrained=True)` loads, and the digest the registry has for its weights.

    Raises:
        UnknownModelError: Nothing is called so.
        WeightsError: The weights do not exist or cannot be had.
    """
    from fcnzoo.weights.sources import find

    spec, weights = pretrained_weights(name)
    return find(spec, weights), weights.sha256


def _look_up(name: str, backbone: str | None, pretrained: bool) -> tuple[FCNConfig, Path | None, str | None]:
    """Return what network a name means; the folder of its weights if they are wanted, and their digest if pinned."""
    if isinstance(name, str) and name.startswith("hf-hub:"):
        if backbone is not None:
            raise ValueError(f"backbone={backbone!r} goes with a bare head; {name!r} says its backbone itself")
        from fcnzoo.weights.hub import pull

        folder = pull(name, files=(CONFIG_FILE, WEIGHTS_FILE) if pretrained else (CONFIG_FILE,))
        return read_config(folder, fetched=True), folder if pretrained else None, None
    spec, tag = _resolve(name, backbone)
    if pretrained:
        from fcnzoo.weights.bundle import check_config
        from fcnzoo.weights.sources import find

        weights = _pick_weights(spec, tag)
        folder = find(spec, weights)
        if weights.noncommercial:
            _say_license(f"{spec.name}.{weights.tag}", weights.license)
        config = read_config(folder, fetched=True)
        check_config(folder, config, weights.config or (spec.config if weights.published else None))
        return config, folder, weights.sha256
    tagged = spec.find_weights(tag) if tag is not None else None
    return (tagged.config if tagged is not None else None) or spec.config, None, None


@functools.cache
def _say_license(name: str, license: str) -> None:
    """Say in the log, once per process, that weights are not for commercial use."""
    logger.warning("the weights %s are for non-commercial use (%s)", name, license)


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype | None) -> Iterator[None]:
    """Make parameters in a dtype from the start where their initialization allows it."""
    if dtype not in (torch.float32, torch.float64):
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _resolve(name: str, backbone: str | None) -> tuple[ModelSpec, str | None]:
    if backbone is None:
        if name in HEADS:
            raise ValueError(
                f"{name!r} is a head; say which network it stands on: backbone='timm/…', or {name}_<backbone>"
            )
        return split_name(name)
    if name not in HEADS:
        raise ValueError(
            f"backbone={backbone!r} goes with a bare head ({', '.join(HEADS)}); {name!r} says its backbone itself"
        )
    full = check_backbone(backbone)
    if name in OUTPUT_STRIDES and full.startswith("paper/"):
        raise BackboneError(f"{full} cannot be dilated, which the head {name!r} needs; use fcn32s, fcn16s or fcn8s")
    plain = full.partition("/")[2].replace(".", "_")
    return ModelSpec(name=f"{name}_{plain}", config=head_config(name, full)), None


def _configure(
    config: FCNConfig,
    in_channels: int | None,
    aux: bool | None,
    output_stride: Literal[8, 16, 32] | None,
    geometry: Literal["paper", "same"] | None,
    head: Mapping[str, Any] | None,
) -> FCNConfig:
    """Put the caller's other wishes into a config."""
    changes: dict[str, Any] = {}
    if head is not None:
        if not isinstance(head, Mapping):
            raise TypeError(f"head must be options by name, {{'dropout': 0.1}}, got {head!r} ({type(head).__name__})")
        changes["head"] = type(config.head).from_dict({**config.head.to_dict(), **head}, where="head")
    backbone: dict[str, Any] = {}
    if in_channels is not None and in_channels != config.backbone.in_channels:
        backbone["in_channels"] = in_channels
        if config.preprocess is not None and isinstance(in_channels, int) and in_channels > 0:
            mean, std = (fit_channels(v, in_channels) for v in (config.preprocess.mean, config.preprocess.std))
            changes["preprocess"] = config.preprocess.replace(mean=mean, std=std)
    if output_stride is not None:
        backbone["output_stride"] = output_stride
    if geometry is not None:
        backbone["geometry"] = geometry
    if backbone:
        changes["backbone"] = BackboneConfig.from_dict(config.backbone.to_dict() | backbone)
    if aux is not None:
        changes["aux_head"] = (config.aux_head or DilatedHeadConfig()) if aux else None
    return config.replace(**changes)


def _pick_weights(spec: ModelSpec, tag: str | None) -> Weights:
    weights = spec.find_weights(tag)
    if weights is None:
        names = list_models(pretrained=True)
        have = ", ".join(names[:10]) + (f", … ({len(names)} in all)" if len(names) > 10 else "") or "none yet"
        raise WeightsError(
            f"{spec.name} has no trained segmentation weights (models that have: {have}). "
            "pretrained_backbone=True loads ImageNet weights of its backbone alone"
        )
    return weights


def check_device(device: torch.device | str | None) -> None:
    """Raise `ValueError` for a device that does not exist here; PyTorch's own errors for that have many types."""
    try:
        if device is not None:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"device {str(device)!r} cannot be used here: {reason}; give 'cpu', 'cuda', 'cuda:1' or 'mps', "
            "as far as PyTorch has them here"
        ) from None


def move(model: torch.nn.Module, device: torch.device | str) -> None:
    """Move a model to a device.

    Raises:
        ValueError: The device does not exist here, or is full.
    """
    try:
        check_device(device)
        model.to(torch.device(device))
    except RuntimeError as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here: {reason}") from None


def resolve_model(model: FCN | str | Path | None) -> FCN:
    """Turn what a user calls a model into one."""
    if isinstance(model, torch.nn.Module):
        if not hasattr(model, "scores"):
            raise TypeError(f"model must be an FCN, got {type(model).__name__}, which has no scores()")
        from fcnzoo.weights.norms import check_norms

        check_norms(model)
        return cast("FCN", model)  # or what torch.compile made of one
    from fcnzoo.weights.load import load

    if model is None:
        if registry.DEFAULT_MODEL is None:
            raise WeightsError("this build of fcnzoo ships no model; give a model, the name of one, or a folder")
        return create(registry.DEFAULT_MODEL, pretrained=True)
    if isinstance(model, Path) or (isinstance(model, str) and is_folder(model)):
        return load(model)
    if isinstance(model, str):
        return create(model, pretrained=True)
    raise TypeError(f"model must be an FCN, a name, a folder or None, got {type(model).__name__}")


def is_folder(name: str) -> bool:
    """Whether a text means a saved model and not a name of the zoo."""
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    return any(separator in name for separator in separators) or (Path(name) / CONFIG_FILE).is_file()
