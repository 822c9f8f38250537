"""Networks as folders: `model.safetensors`, `config.json`, `README.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fcnzoo.config import FCNConfig, Metric
from fcnzoo.errors import WeightsError
from fcnzoo.files.atomic import atomic
from fcnzoo.files.reading import open_file
from fcnzoo.files.safetensors import write_safetensors
from fcnzoo.files.staging import atomic_together
from fcnzoo.model.evaluating import uncompiled
from fcnzoo.model.fcn import FCN
from fcnzoo.weights.card import render
from fcnzoo.weights.folder import CARD_FILE, CONFIG_FILE, MAX_CONFIG, WEIGHTS_FILE, FolderRecord
from fcnzoo.weights.restore import FLOATS, build_empty, check_fit
from fcnzoo.weights.verify import check_finite

__all__ = ["save"]


def save(
    model: FCN,
    folder: str | Path,
    *,
    metrics: Iterable[Metric] = (),
    datasets: Iterable[str] = (),
    provenance: Mapping[str, Any] | None = None,
    license: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a network into a folder. All files change together, or none does, even if the process is killed.

    Args:
        model: The network.
        folder: Made if it is missing; files of an earlier save are replaced, all others stay, and so does a
            `README.md` that is no card of fcnzoo's. A network that was loaded from here keeps its weights.
        metrics: What it reaches, for `config.json` and the card.
        datasets: Names of the data sets it was trained on, as the Hub calls them, for the card.
        provenance: What it was made from (data, recipe, source); JSON-ready. By default `model.provenance`.
        license: Under which the weights may be used. None is ever invented.
        dtype: Floating-point tensors are stored in it (`torch.float16` halves the file); loading gives float32.

    Returns:
        The folder.

    Raises:
        WeightsError: A weight is NaN or infinite, or the weights are not those of the network that `model.config`
            describes (a part was compiled, pruned, quantized or replaced); nothing is written.
        TypeError: `model` is no FCN, the provenance holds what JSON cannot, or another argument has a wrong type.
        ValueError: The provenance holds NaN or an infinity, a name twice, or too much.
        OSError: The folder cannot be written.
    """
    inner = uncompiled(model)
    if not isinstance(inner, FCN):
        raise TypeError(f"model must be an FCN, got {type(model).__name__}; give the network inside any wrapper")
    model = inner
    if dtype is not None and dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {', '.join(map(str, FLOATS))}, got {dtype}")
    folder = Path(folder)
    tensors = model.state_dict()
    _check_whole(model, tensors)
    for name, tensor in tensors.items():
        check_finite(name, tensor, dtype)
    provenance = dict(model.provenance if provenance is None else provenance)
    record = _record(model.config, metrics, datasets, provenance, license)
    metadata = {"format": "pt"} | ({"provenance": json.dumps(provenance)} if provenance else {})
    with atomic_together(folder) as staging:
        with atomic(staging / WEIGHTS_FILE) as file:
            digest = write_safetensors(file, tensors, metadata, dtype)
        texts = {CONFIG_FILE: replace(record, sha256=digest).to_json()}
        texts |= {} if _is_foreign(folder / CARD_FILE) else {CARD_FILE: render(record)}
        for name, text in texts.items():
            with atomic(staging / name) as file:
                file.write(text.encode())
    return folder


def _record(
    config: FCNConfig,
    metrics: Iterable[Metric],
    datasets: Iterable[str],
    provenance: Mapping[str, Any],
    license: str | None,
) -> FolderRecord:
    """Make the record of a folder; what could not be read again is refused before anything is written."""
    metrics = tuple(metrics)
    if isinstance(datasets, str) or not all(isinstance(metric, Metric) for metric in metrics):
        raise TypeError("datasets must be names of data sets (not one text), and metrics be fcnzoo.config.spec.Metric")
    record = FolderRecord(config, None, metrics, tuple(datasets), provenance, license)
    text = replace(record, sha256="0" * 64).to_json().encode()
    if len(text) > MAX_CONFIG:
        raise ValueError(f"{CONFIG_FILE} would have {len(text)} bytes, at most {MAX_CONFIG}; shorten the provenance")
    FolderRecord.from_json(text)
    return record


def _check_whole(model: FCN, tensors: Mapping[str, Tensor]) -> None:
    """Compare a network with what its config builds: another one would be saved, and never load."""
    try:
        check_fit(build_empty(model.config, None), tensors, "model")
    except WeightsError as error:
        raise WeightsError(
            f"{error}; it could not be loaded again. Save it without compiled, pruned, quantized or replaced parts"
        ) from None


def _is_foreign(card: Path) -> bool:
    """Whether a README is somebody's own: fcnzoo's cards say so in their front matter."""
    try:
        with open_file(card) as file:
            return b"library_name: fcnzoo" not in file.read(2**16)
    except FileNotFoundError:
        return False
