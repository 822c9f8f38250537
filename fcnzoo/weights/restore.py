"""From a weights file to a network: built without memory, compared with the header, then filled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fcnzoo.config import FCNConfig
from fcnzoo.errors import BackboneError, UnknownModelError, WeightsError
from fcnzoo.files.keys import check_keys
from fcnzoo.files.safetensors import Entry, SafetensorsFile
from fcnzoo.model.fcn import FCN, build
from fcnzoo.model.heads import build_heads
from fcnzoo.model.score_rows import carry_rows, same_classes, score_keys
from fcnzoo.weights.folder import config_error

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""In what a floating-point weight may be stored."""


def restore(config: FCNConfig, trained: FCNConfig, file: SafetensorsFile, dtype: torch.dtype, mapped: bool) -> FCN:
    """Build a network of `config` without memory or time, and fill it from the file of one of `trained`.

    See `load_as` in `weights/load.py` for what may differ.

    Args:
        config: What to build.
        trained: What the file should hold; it is compared before a tensor is read.
        file: The weights.
        dtype: Of the floating-point ones.
        mapped: See `SafetensorsFile.read`.

    Returns:
        The network on the CPU, in eval mode.

    Raises:
        WeightsError: The weights do not fit.
        UnknownModelError: There is no such backbone as `config` names (where the folder names it: a WeightsError).
        BackboneError: The backbone cannot serve the head (likewise).
    """
    folder = file.path.parent
    if config.backbone.in_channels != trained.backbone.in_channels:
        raise WeightsError(
            f"{file.path}: these weights take {trained.backbone.in_channels} channels, "
            f"not {config.backbone.in_channels}; build without pretrained=True, or with in_channels as trained"
        )
    model = build_empty(config, folder if config == trained else None)
    used = set(file.entries)
    if config.aux_head is None and trained.aux_head is not None:
        used -= {key for key in used if key.startswith("aux_head.")}
    own = model.state_dict()
    scores = set() if same_classes(config, trained) else score_keys(model, config.num_classes)
    fresh = scores | {
        key for key in own if config.aux_head and trained.aux_head is None and key.startswith("aux_head.")
    }
    if scores:
        check_fit(build_empty(trained, folder), file.entries, str(file.path))
    check_fit(model, {key: file.entries[key] for key in used}, str(file.path), fresh)
    state = {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, tensor in file.read(used & own.keys(), mapped=mapped).items()
    }
    if fresh:
        _renew_heads(model)
    if scores:
        carry_rows(model, config, trained, {key: state[key] for key in scores & state.keys()})
    for key in own.keys() - state.keys() - fresh:  # step counters that older files lack; see `check_keys`
        state[key] = torch.zeros(own[key].shape, dtype=own[key].dtype, device="cpu")
    kept = {key: tensor for key, tensor in state.items() if key not in fresh}
    model.load_state_dict(kept, strict=not fresh, assign=True)
    _rebuild_buffers(model)
    return model.eval()


def build_empty(config: FCNConfig, folder: Path | None) -> FCN:
    """Build a network without memory or time.

    Args:
        config: What to build.
        folder: Whose `config.json` says so, which then is to blame for what cannot be built.

    Raises:
        WeightsError: The folder's network cannot be built; the text names its `config.json`.
        UnknownModelError: Without a folder: there is no such backbone.
        BackboneError: Without a folder: the backbone cannot serve the head.
    """
    try:
        with torch.device("meta"):
            return build(config)
    except (UnknownModelError, BackboneError, ValueError, RuntimeError) as error:
        if folder is None:
            raise
        raise config_error(folder, error) from None


def check_fit(
    model: FCN, given: Mapping[str, Entry | Tensor], source: str, fresh: set[str] | frozenset[str] = frozenset()
) -> None:
    """Compare names, shapes and dtypes of weights with a network's; no value is read.

    Args:
        model: On any device, perhaps meta.
        given: The weights, or what a file's header says of them.
        source: What to call them in errors.
        fresh: Names that may be missing, or differ.

    Raises:
        WeightsError: They do not fit; the text lists the first few differences.
    """
    own = model.state_dict()
    shapes = {key: torch.Size(entry.shape) for key, entry in given.items()}
    check_keys(shapes, {key: tensor.shape for key, tensor in own.items()}, source=source, optional=fresh)
    for key in given.keys() & own.keys():
        stored, dtype = given[key].dtype, own[key].dtype
        if stored not in (FLOATS if dtype.is_floating_point else (dtype,)):
            raise WeightsError(f"{source}: {key} is {stored}, the network has {dtype}")


def _renew_heads(model: FCN) -> None:
    """Initialize the heads, which were built without memory: some of their weights are not in the file."""
    with torch.device("cpu"):
        model.head, model.aux_head = build_heads(model.config, model.backbone.features)


def _rebuild_buffers(model: FCN) -> None:
    """Make what files do not hold: index tables and the like were left on the meta device."""
    left = [name for name, tensor in model.named_buffers() if tensor.is_meta]
    if not left:
        return
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # the caller's random numbers stay the same
        rebuilt = dict(build(model.config).named_buffers())
    for name in left:
        parent, _, buffer = name.rpartition(".")
        model.get_submodule(parent)._buffers[buffer] = rebuilt[name]
