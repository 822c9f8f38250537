"""Networks as folders: `model.safetensors`, `config.json`, `README.md`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

import fcnzoo
from fcnzoo.backbones.base import check_keys, read_safetensors
from fcnzoo.config import FCNConfig
from fcnzoo.errors import WeightsError
from fcnzoo.files import atomic
from fcnzoo.model import FCN, build
from fcnzoo.spec import Metric, Weights

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"


def save(
    model: FCN,
    folder: str | Path,
    *,
    metrics: Iterable[Metric] = (),
    provenance: Mapping[str, Any] | None = None,
    license: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a network into a folder. Every file takes its place whole, or not at all.

    Args:
        model: The network.
        folder: Made if it is missing; files of an earlier save are replaced.
        metrics: What it reaches, for `config.json` and the card.
        provenance: What it was made from (data, recipe, source); JSON-ready.
        license: Under which the weights may be used. None is ever invented.
        dtype: Floating-point tensors are stored in it (`torch.float16` halves the file); loading gives float32.

    Returns:
        The folder.

    Raises:
        WeightsError: A weight is NaN or infinite; nothing is written.
        OSError: The folder cannot be written.
    """
    folder = Path(folder)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"{name} holds NaN or infinite values; such a network is not saved")
        cast = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.detach().to("cpu", cast).contiguous()
        if tensor.is_floating_point() and not torch.isfinite(tensors[name]).all():
            raise WeightsError(f"{name} holds values that do not fit {dtype}; save it in another dtype")
    record = {
        "library": "fcnzoo",
        "library_version": fcnzoo.__version__,
        "model": model.config.to_dict(),
        "metrics": [metric.to_dict() for metric in metrics],
        "provenance": dict(provenance or {}),
        "license": license,
    }
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    with atomic(folder / WEIGHTS_FILE) as file:
        file.write(to_bytes(tensors, metadata={"format": "pt"}))
    with atomic(folder / CONFIG_FILE, "w") as file:
        file.write(text)
    with atomic(folder / CARD_FILE, "w") as file:
        file.write(_card(model, record))
    return folder


def load(folder: str | Path, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> FCN:
    """Load a network from a folder that `save` wrote, in eval mode.

    Args:
        folder: The folder.
        device: Where to put it.
        dtype: Of its parameters; float32 by default, whatever the file holds.

    Raises:
        WeightsError: A file is missing, damaged, or does not fit the other.
    """
    config = read_config(folder)
    return _restore(config, Path(folder) / WEIGHTS_FILE).to(device=device, dtype=dtype)


def read_config(folder: str | Path) -> FCNConfig:
    """Read what network a folder holds, without its weights.

    Raises:
        WeightsError: There is no `config.json`, or it is not one that fcnzoo wrote.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise WeightsError(f"{folder} holds no {CONFIG_FILE}; give a folder that fcnzoo.save wrote")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return FCNConfig.from_dict(record["model"], where="model")
    except (ValueError, TypeError, KeyError, OSError, RecursionError) as error:
        reason = f"lacks the field {error}" if isinstance(error, KeyError) else error
        raise WeightsError(f"{path}: {reason}") from None


def packaged_config(weights: Weights) -> FCNConfig:
    """Read what network packaged weights were trained as.

    Raises:
        WeightsError: They are not shipped, or their folder is damaged.
    """
    return read_config(_packaged_folder(weights))


def _packaged_folder(weights: Weights) -> Path:
    if weights.packaged is None:
        raise WeightsError(f"the weights {weights.tag!r} are not shipped with fcnzoo")
    return Path(__file__).parent / weights.packaged


def load_packaged(weights: Weights, config: FCNConfig) -> FCN:
    """Load weights that are shipped in the wheel into a network of `config`.

    Where `config` has another number of classes than the weights, the score layers stay fresh; an aux head
    that only one of the two has is left out or fresh. Everything else is loaded strictly.

    Args:
        weights: Which weights.
        config: `packaged_config(weights)`, perhaps changed.

    Raises:
        WeightsError: The file's digest is not the registry's, or the weights do not fit.
    """
    folder = _packaged_folder(weights)
    path = folder / WEIGHTS_FILE
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if digest != weights.sha256:
        raise WeightsError(f"{path}: sha256 is {digest}, the registry says {weights.sha256}; reinstall fcnzoo")
    trained = read_config(folder)
    if config.backbone.in_channels != trained.backbone.in_channels:
        raise WeightsError(
            f"the weights {weights.tag!r} take {trained.backbone.in_channels} channels, "
            f"not {config.backbone.in_channels}; "
            "build without pretrained=True, or with in_channels as trained"
        )
    return _restore(config, path, trained)


def _restore(config: FCNConfig, path: Path, trained: FCNConfig | None = None) -> FCN:
    """Fill a network of `config` from the file of one of `trained` (by default the same)."""
    trained = trained or config
    fresh_scores = config.num_classes != trained.num_classes
    fresh_aux = config.aux_head is not None and trained.aux_head is None
    with contextlib.nullcontext() if fresh_scores or fresh_aux else torch.device("meta"):
        model = build(config)
    tensors = read_safetensors(path)
    if config.aux_head is None and trained.aux_head is not None:
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith("aux_head.")}
    own = model.state_dict()
    fresh = score_keys(model) if fresh_scores else set()
    fresh |= {key for key in own if fresh_aux and key.startswith("aux_head.")}
    wanted = {key: tensor.shape for key, tensor in own.items()}
    check_keys({key: tensor.shape for key, tensor in tensors.items()}, wanted, source=str(path), optional=fresh)
    for key, tensor in own.items():
        if key in tensors and tensors[key].is_floating_point() != tensor.is_floating_point():
            raise WeightsError(f"{path}: {key} is {tensors[key].dtype}, the network has {tensor.dtype}")
    missing = wanted.keys() - tensors.keys() - fresh
    tensors |= {key: torch.zeros(wanted[key], dtype=torch.int64) for key in missing}
    kept = {key: _widen(tensor) for key, tensor in tensors.items() if key not in fresh}
    model.load_state_dict(kept, strict=not fresh, assign=True)
    _rebuild_buffers(model)
    return model.eval()


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def score_keys(model: FCN) -> set[str]:
    """Return the names of all weights that depend on the number of classes: the score layers'."""
    names = set()
    for name, module in model.named_modules():
        inside_head = name.startswith(("head.score", "aux_head.score", "head.deconv"))
        if inside_head and isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and _scores(module, model.num_classes):
            names |= {f"{name}.{key}" for key in module.state_dict()}
    return names


def _scores(module: nn.Conv2d | nn.ConvTranspose2d, num_classes: int) -> bool:
    """Whether a layer gives scores: hidden 3×3 convolutions stand in the head too."""
    if isinstance(module, nn.ConvTranspose2d):
        return True
    sides = [math.isqrt(module.out_channels // num_classes)] if module.out_channels % num_classes == 0 else []
    return module.kernel_size == (1, 1) and any(module.out_channels == num_classes * side**2 for side in sides)


def _rebuild_buffers(model: nn.Module) -> None:
    """Make what the file does not hold: buffers that are not saved were left on the meta device."""
    left = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    if not left:
        return
    config = model.config if isinstance(model, FCN) else None
    if config is None:
        raise WeightsError(f"not in the file: {', '.join(left[:5])}")
    rebuilt = dict(build(config).named_buffers())
    for name in left:
        parent, _, buffer = name.rpartition(".")
        model.get_submodule(parent)._buffers[buffer] = rebuilt[name]


def _card(model: FCN, record: Mapping[str, Any]) -> str:
    """Write what a person wants to know about a folder of weights."""
    config = model.config
    rows = "".join(f"| {m['name']} | {m['value']:.4f} | {m['split']} |\n" for m in record["metrics"])
    labels = ", ".join(config.label_set.names) if config.label_set else f"{config.num_classes} classes, unnamed"
    facts = "".join(f"- {key}: {value}\n" for key, value in record["provenance"].items())
    front = "---\nlibrary_name: fcnzoo\npipeline_tag: image-segmentation\n"
    front += f"license: {record['license']}\n" if record["license"] else ""
    parts = [
        f"{front}---\n",
        f"# {config.head.kind} head on {config.backbone.name}\n",
        f"Classes: {labels}\n",
        '```python\nimport fcnzoo\n\nmodel = fcnzoo.load("path/to/this/folder")\n```\n',
        f"| metric | value | on |\n|---|---|---|\n{rows}" if rows else "",
        facts,
        f"Written by fcnzoo {record['library_version']}.\n",
    ]
    return "\n".join(part for part in parts if part)
