"""Checkpoints are whole or not there, and give back every bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fcnzoo.errors import WeightsError
from fcnzoo.files import staging
from fcnzoo.training import checkpoint


def _trained(kind: Callable[..., torch.optim.Optimizer], **options: object) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)  # pyright: ignore
    optimizer = kind(model.parameters(), lr=0.1, **options)
    for _ in range(3):
        model(torch.rand(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize(("kind", "options"), [(torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9})])
def test_optimizer_state_round_trip(tmp_path: Path, kind: type, options: dict[str, float]) -> None:
    """Model and optimizer come back equal to the bit and in the same memory order, and go on alike."""
    model, optimizer = _trained(kind, **options)
    checkpoint.write_tensors(tmp_path / "model.safetensors", model.state_dict())
    checkpoint.write_tensors(tmp_path / "optimizer.safetensors", checkpoint.optimizer_tensors(optimizer, model))
    torch.manual_seed(9)
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)  # pyright: ignore
    fresh = kind(other.parameters(), lr=0.1, **options)
    checkpoint.load_model(other, tmp_path / "model.safetensors")
    checkpoint.load_optimizer(fresh, other, tmp_path / "optimizer.safetensors")
    image = torch.rand(2, 3, 8, 8)
    for net, opt in ((model, optimizer), (other, fresh)):
        net(image).square().sum().backward()
        opt.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for parameter, twin in zip(model.parameters(), other.parameters(), strict=True):
        one, two = optimizer.state[parameter], fresh.state[twin]
        assert one.keys() == two.keys()
        assert all(one[key].stride() == two[key].stride() for key in one)


def test_random_states_round_trip() -> None:
    """All three generators go on as they would have."""
    states = checkpoint.random_states(torch.device("cpu"))
    drawn = torch.rand(3), random.random(), np.random.standard_normal(3)
    checkpoint.set_random_states(states, torch.device("cpu"))
    assert torch.equal(torch.rand(3), drawn[0])
    assert random.random() == drawn[1]
    assert (np.random.standard_normal(3) == drawn[2]).all()


def test_a_failed_write_leaves_the_old_folder(tmp_path: Path) -> None:
    """An error in the middle of writing a folder leaves the one that was there, and no litter."""
    folder = tmp_path / "best"
    with staging.replaced_folder(folder) as part:
        (part / "file").write_text("one")
    with pytest.raises(RuntimeError), staging.replaced_folder(folder) as part:  # noqa: PT012 - the write fails midway
        (part / "file").write_text("two")
        raise RuntimeError
    assert (folder / "file").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_kill_between_the_renames_is_recovered(tmp_path: Path) -> None:
    """A folder that was moved aside when the process died is put back; a complete one stays."""
    (tmp_path / ".best.old").mkdir()
    (tmp_path / ".best.old" / "file").write_text("one")
    staging.recover_folder(tmp_path / "best")
    assert (tmp_path / "best" / "file").read_text() == "one"


def test_listing_and_pruning(tmp_path: Path) -> None:
    """Only complete checkpoints count, in the order of their steps; pruning keeps the newest and sweeps."""
    for name in (
        "step-00000002",
        "step-00000010",
        "step-100000000",
        ".step-00000011.part",
        ".step-00000001.trash",
        "notes",
    ):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == [
        "step-00000002",
        "step-00000010",
        "step-100000000",
    ]
    checkpoint.prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "step-00000010", "step-100000000"]


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    """A cut file, another model's file and bad JSON are errors that name the file."""
    model, _ = _trained(torch.optim.SGD)
    path = tmp_path / "model.safetensors"
    checkpoint.write_tensors(path, model.state_dict())
    with pytest.raises(WeightsError, match="of another model"):
        checkpoint.load_model(nn.Conv2d(3, 4, 3), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match=r"cannot read .*model\.safetensors"):
        checkpoint.load_model(model, path)
    for text in ("{", '{"step": 1, "step": 2}', '{"seconds": NaN}', "[" * 100_000):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(WeightsError, match=r"state\.json"):
            checkpoint.read_json(tmp_path / "state.json")
