"""`verify`, in Python and on the command line: hashes, headers and values are checked again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from model.test_fcn import HEADS, randomize
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import fcnzoo
from fcnzoo.cli import app
from fcnzoo.config.spec import ModelSpec, Weights
from fcnzoo.errors import WeightsError
from fcnzoo.model.fcn import build
from fcnzoo.weights.verify import verify
from fcnzoo.zoo import registry


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound folder."""
    monkeypatch.setenv("FCNZOO_CACHE", str(tmp_path / "cache"))
    model = build(HEADS["fcn8s"])
    randomize(model)
    return fcnzoo.save(model, tmp_path / "saved")


def digest(folder: Path) -> str:
    """Hash a folder's weights with nothing of ours."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_sound_folder(saved: Path) -> None:
    """A folder as saved is sound; its digest, tensors and size are told."""
    found = verify(saved)
    assert found.sha256 == digest(saved)
    assert json.loads((saved / "config.json").read_text())["sha256"] == digest(saved)
    assert found.recorded
    assert found.size == (saved / "model.safetensors").stat().st_size
    assert found.tensors == len(build(HEADS["fcn8s"]).state_dict())
    assert verify(saved, sha256=digest(saved)) == found


def test_folders_that_record_no_digest(saved: Path) -> None:
    """Without a recorded digest everything else is checked, and `recorded` says so."""
    record = json.loads((saved / "config.json").read_text())
    del record["sha256"]
    (saved / "config.json").write_text(json.dumps(record))
    assert not verify(saved).recorded
    assert verify(saved, sha256=digest(saved)).recorded


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_values_that_are_not_finite(saved: Path, value: float) -> None:
    """NaN and infinite values are found, though a plain load accepts them."""
    path = saved / "model.safetensors"
    tensors = load_file(path)
    tensors["head.score.8.bias"][2] = value
    save_file(tensors, path)
    record = json.loads((saved / "config.json").read_text()) | {"sha256": digest(saved)}
    (saved / "config.json").write_text(json.dumps(record))
    fcnzoo.load(saved)
    with pytest.raises(WeightsError, match=r"model\.safetensors: head\.score\.8\.bias holds NaN or infinite"):
        verify(saved)


def test_other_digests(saved: Path) -> None:
    """A digest from elsewhere must be the file's, too."""
    with pytest.raises(WeightsError, match=f"the registry says {'0' * 64}"):
        verify(saved, sha256="0" * 64)


def test_weights_of_another_network(saved: Path, tmp_path: Path) -> None:
    """Weights beside the config of another network are refused."""
    other = fcnzoo.save(build(HEADS["fcn"]), tmp_path / "other")
    (saved / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="does not fit the network"):
        verify(saved)


def test_command_line(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fcnzoo verify` prints a line per sound model, one per problem on stderr, and exits 1 if there is any."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    known = Weights(tag="test", dataset="noise", license="MIT", packaged=str(saved), sha256=digest(saved))
    registry.register(ModelSpec(name="fcn8s_mine", config=HEADS["fcn8s"], weights=(known,)))
    done = CliRunner().invoke(app, ["verify", str(saved), "fcn8s_mine", "fcn8s_mine.test"])
    assert done.exit_code == 0
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(saved), "fcn8s_mine", "fcn8s_mine.test"]
    assert done.stdout.count(digest(saved)) == 3

    content = bytearray((saved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (saved / "model.safetensors").write_bytes(content)
    done = CliRunner().invoke(app, ["verify", str(saved), "fcn8s_mine", str(saved / "no"), "fcn8s_nobody"])
    assert done.exit_code == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("fcnzoo: ") for line in lines)
    assert "sha256" in lines[0] and "model.safetensors" in lines[0]
    assert "registry" in lines[1]
    assert "config.json" in lines[2]
    assert "fcn8s_nobody" in lines[3]


def test_models_without_weights(saved: Path) -> None:
    """A model without trained weights cannot be verified, and is told so."""
    done = CliRunner().invoke(app, ["verify", "fcn8s_convnext_tiny"])
    assert done.exit_code == 1
    assert "no trained segmentation weights" in done.stderr
