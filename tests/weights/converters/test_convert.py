"""What `fcnzoo.convert` and `fcnzoo convert` do for every source: digests, receipts, damaged and hostile files."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from torchvision.models import segmentation
from typer.testing import CliRunner

import fcnzoo
from fcnzoo.cli import app
from fcnzoo.config.spec import Converter
from fcnzoo.errors import ConversionError
from fcnzoo.weights.converters.convert import RULES_VERSION, SOURCES
from fcnzoo.weights.converters.receipt import golden_image


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fcn_resnet50 of torchvision with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("published") / "fcn_resnet50.pth"
    torch.save(segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True).state_dict(), path)
    return path


def test_the_receipt_says_what_it_was_made_from(checkpoint: Path, tmp_path: Path) -> None:
    """Source, file, digest, rules and golden scores; the digest may be given whole or by its beginning."""
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    model = fcnzoo.convert("torchvision", checkpoint, sha256=digest[:8].upper())
    receipt = model.provenance
    assert (receipt["converted_from"], receipt["file"]) == ("torchvision", "fcn_resnet50.pth")
    assert (receipt["sha256"], receipt["rules_version"]) == (digest, RULES_VERSION)
    with torch.no_grad():
        scores = model.scores(golden_image(3)).main
    assert receipt["golden_scores_sha256"] == hashlib.sha256(scores.numpy().tobytes()).hexdigest()
    assert receipt["golden_scores_mean"] == pytest.approx(scores.mean().item(), rel=1e-4, abs=1e-6)
    assert json.loads(json.dumps(receipt)) == receipt
    assert fcnzoo.convert("torchvision", checkpoint, sha256=digest).provenance == receipt


def test_the_command_writes_a_folder_that_loads(checkpoint: Path, tmp_path: Path) -> None:
    """`fcnzoo convert` gives the converted network, with its receipt in config.json; a wrong digest writes nothing."""
    out = tmp_path / "ours"
    result = CliRunner().invoke(app, ["convert", "torchvision", str(checkpoint), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "timm/resnet50" in result.stdout and "21 classes (voc)" in result.stdout
    want = fcnzoo.convert("torchvision", checkpoint)
    got = fcnzoo.load(out)
    assert all(torch.equal(tensor, want.state_dict()[key]) for key, tensor in got.state_dict().items())
    assert json.loads((out / "config.json").read_text())["provenance"] == want.provenance
    options = ["--out", str(tmp_path / "none"), "--sha256", "0" * 64]
    result = CliRunner().invoke(app, ["convert", "torchvision", str(checkpoint), *options])
    assert result.exit_code == 1 and "sha256 is" in result.stderr and not (tmp_path / "none").exists()
    assert CliRunner().invoke(app, ["convert", "keras", str(checkpoint), "--out", str(out)]).exit_code == 2


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("source", [source for source in SOURCES if not source.startswith(("caffe", "deeplab"))])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, source: Converter, zipped: bool) -> None:
    """A pickle that calls something where a tensor should stand is refused, and nothing has happened."""
    trap = tmp_path / "trap"
    content = {"score_fr.weight": Hostile(trap)}
    path = tmp_path / "net.pth"
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ConversionError, match=r"nothing in it was run|not a state dict of dense, whole tensors"):
        fcnzoo.convert(source, path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is empty"),
        (b"\n<!doctype html><title>Quota exceeded</title>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer"),
        (b"\x00" * 1000, "not a PyTorch file"),
        (b"PK\x03\x04" + b"\x00" * 1000, "not a PyTorch file"),
    ],
)
def test_files_that_are_not_pytorchs(tmp_path: Path, content: bytes, text: str) -> None:
    """An empty file, a web page, a pointer, zeros, half an archive: one ConversionError that says which."""
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(ConversionError, match=text):
        fcnzoo.convert("torchvision", path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(checkpoint: Path, tmp_path: Path, share: float) -> None:
    """A download that broke off is a ConversionError that names the file."""
    whole = checkpoint.read_bytes()
    path = tmp_path / "half.pth"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ConversionError, match=r"half\.pth"):
        fcnzoo.convert("torchvision", path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "holds a list"),
        ({}, "it is empty"),
        ({"classifier.4.weight": 3}, "by name: classifier.4.weight"),
        ({1: torch.zeros(1)}, "by name: 1"),
        ({"a": torch.eye(2).to_sparse()}, "by name: a"),
        ({"a": torch.zeros(1)}, "has no classifier.4.weight; its keys are a"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_files_without_a_state_dict(tmp_path: Path, content: object, text: str) -> None:
    """Other things that PyTorch saves are refused with what they hold."""
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ConversionError, match=text):
        fcnzoo.convert("torchvision", tmp_path / "net.pth")


@pytest.mark.parametrize("source", SOURCES)
def test_a_missing_file_is_refused(tmp_path: Path, source: Converter) -> None:
    """A path without a file, or a folder, is a ConversionError that names it."""
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(ConversionError, match=path.name):
            fcnzoo.convert(source, path)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1).expand(10**9, 10**6, 1, 1), "whole tensors, by name: score_fr.weight"),
        (torch.zeros(21, 4096, 1, 1, device="meta"), "whole tensors, by name: score_fr.weight"),
        (torch.full((21, 4096, 1, 1), float("nan")).to(torch.float8_e5m2), "NaN or infinite values in score_fr.weight"),
    ],
)
def test_tensors_that_are_not_what_they_say(tmp_path: Path, tensor: torch.Tensor, message: str) -> None:
    """A tensor far larger than its numbers, one without any, and NaN in eight bits: refused in little memory."""
    torch.save({"score_fr.weight": tensor}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=message):
        fcnzoo.convert("torchfcn", tmp_path / "x.pth")


def test_values_beyond_float32(checkpoint: Path, tmp_path: Path) -> None:
    """A float64 weight that float32 cannot hold is refused, also in the aux head, which no score shows."""
    state = torch.load(checkpoint, weights_only=True)
    state["aux_classifier.4.bias"] = torch.full((21,), 1e300, dtype=torch.float64)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=r"aux_classifier\.4\.bias holds values that are not finite"):
        fcnzoo.convert("torchvision", tmp_path / "x.pth")
