"""Checkpoints that are whole or not there, without pickle.

A checkpoint is a folder `step-00001234` of safetensors (weights, averages, optimizer) and JSON
(position, best result, random states), with the digests of all of them. It is written beside its place,
brought to the disk and renamed; whatever carries the final name is complete.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fcnzoo.config import Preprocess
from fcnzoo.errors import WeightsError
from fcnzoo.files import records
from fcnzoo.files.atomic import atomic
from fcnzoo.files.digests import hash_file
from fcnzoo.files.keys import differences
from fcnzoo.files.reading import read_bytes
from fcnzoo.files.safetensors import open_safetensors, write_safetensors
from fcnzoo.files.staging import recover_folder

if TYPE_CHECKING:
    from fcnzoo.model.fcn import FCN

FORMAT = 3
"""Version of the checkpoints; up to 2 they had no digests."""

STATE_FILE = "state.json"

DIGESTS_FILE = "digests.json"

_NAME = re.compile(r"step-(\d{8,})")


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    for old in folder.glob(".step-*.old"):
        recover_folder(folder / old.name[1:].removesuffix(".old"))
    return sorted(
        (path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=lambda path: int(path.name[5:])
    )


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint after `step` optimizer steps lies."""
    return folder / f"step-{step:08d}"


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what killed runs left half done."""
    for path in checkpoints(folder)[:-keep]:
        # Renamed first: a kill in the middle of the deletion must not leave half a checkpoint.
        os.rename(path, path.with_name(f".{path.name}.trash"))
    for path in [*folder.glob(".step-*.trash"), *folder.glob(".step-*.part")]:
        shutil.rmtree(path, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, in plain memory order whatever theirs is."""
    with atomic(path) as file:
        write_safetensors(file, tensors, {})


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file in one piece."""
    with atomic(path, "w") as file:
        json.dump(data, file, indent=1)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a checkpoint.

    Raises:
        WeightsError: It is missing or damaged.
    """
    try:
        data = records.read_json(read_bytes(path))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if not isinstance(data, dict):
        raise _damaged(path, "it is no JSON object")
    return data


def load_model(model: nn.Module, path: Path) -> None:
    """Copy all tensors of a file into a model, in place: memory order and aliases stay.

    Raises:
        WeightsError: The file is damaged or of another model.
    """
    tensors = _read_tensors(path)
    own = model.state_dict()
    given, wanted = ({name: value.shape for name, value in state.items()} for state in (tensors, own))
    found = differences(given, wanted, counters=True)
    if found:
        raise WeightsError(f"{path} is of another model: {found}")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])


def write_state(path: Path, model: FCN, state: Mapping[str, Any]) -> None:
    """Write where a run stands, and how its model preprocesses pictures.

    The latter comes from where the first weights came from, which need not be there any more when the run goes on.
    """
    write_json(path / STATE_FILE, {"format": FORMAT, "preprocess": model.preprocess.to_dict(), **state})


def write_digests(path: Path) -> None:
    """Write the sha256 of each file of a checkpoint into it, once they are all there."""
    write_json(path / DIGESTS_FILE, {file.name: hash_file(file) for file in sorted(path.iterdir())})


def check_digests(path: Path) -> None:
    """Raise `WeightsError` unless a checkpoint's files are those that were written, all of them, to the bit."""
    if not (path / DIGESTS_FILE).exists() and read_json(path / STATE_FILE).get("format") in (1, 2):
        return
    for name, digest in read_json(path / DIGESTS_FILE).items():
        try:
            found = hash_file(path / name)
        except OSError as error:
            raise _damaged(path / name, error) from None
        if found != digest:
            raise _damaged(path / name, f"its sha256 is {found}, it should be {digest}")


def read_state(path: Path) -> tuple[dict[str, Any], Preprocess | None]:
    """Return what `write_state` wrote; checkpoints of format 1 do not tell the preprocessing.

    Raises:
        ValueError: A newer fcnzoo wrote it.
        WeightsError: It is missing or damaged.
    """
    state = read_json(path / STATE_FILE)
    version = state.pop("format", None)
    if not isinstance(version, int):
        raise _damaged(path / STATE_FILE, "it does not say its format")
    if version > FORMAT:
        raise ValueError(f"{path} was written by a newer fcnzoo; upgrade with `pip install -U fcnzoo`")
    preprocess = state.pop("preprocess", None)
    try:
        return state, None if preprocess is None else Preprocess.from_dict(preprocess)
    except (TypeError, ValueError) as error:
        raise _damaged(path / STATE_FILE, error) from None


def whole_state(path: Path, state: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return a state if it has these entries and no others.

    Raises:
        WeightsError: It has not.
    """
    odd = sorted(state.keys() ^ set(names))
    if odd:
        raise _damaged(path / STATE_FILE, f"it lacks, or should not have, {', '.join(odd[:5])}")
    return state


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with open_safetensors(path) as file:
            return file.read()
    except WeightsError as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: object) -> WeightsError:
    return WeightsError(
        f"cannot read the checkpoint file {path}: {error}; delete its folder to resume from an older one"
    )


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return an optimizer's state as `"<parameter>:<key>"` tensors."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{names[id(parameter)]}:{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)  # SGD without momentum keeps None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, path: Path) -> None:
    """Put back what `optimizer_tensors` returned.

    Raises:
        WeightsError: The file is damaged or of another model.
    """
    parameters = dict(model.named_parameters())
    for full, value in _read_tensors(path).items():
        name, _, key = full.rpartition(":")
        if name not in parameters:
            raise WeightsError(f"{path}: the model has no parameter {name}")
        parameter = parameters[name]
        if key != "step":
            # Where and in which memory order the optimizer itself would make it.
            value = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        optimizer.state[parameter][key] = value


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of torch's, Python's and NumPy's random generators, ready for JSON."""
    import numpy as np

    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # pyright: ignore[reportAssignmentType]
    return {
        "torch": bytes(torch.get_rng_state().tolist()).hex(),
        "cuda": bytes(torch.cuda.get_rng_state(device).tolist()).hex() if device.type == "cuda" else None,
        "python": [version, list(numbers), gauss],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
    }


def set_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Put back what `random_states` returned."""
    import numpy as np

    torch.set_rng_state(torch.tensor(list(bytes.fromhex(states["torch"])), dtype=torch.uint8))
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(torch.tensor(list(bytes.fromhex(states["cuda"])), dtype=torch.uint8), device)
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
