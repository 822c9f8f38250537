"""Checkpoints as people's own training writes them: read whole, nothing in them run, what is left out is said."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import pathlib
import pickle
import struct
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel
from torchvision.models import segmentation

import fcnzoo
from fcnzoo.errors import ConversionError
from fcnzoo.weights.converters.torch_file import read_torch


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network of torchvision's with random weights and five classes."""
    torch.manual_seed(0)
    return segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=5).eval()


class Color(enum.Enum):
    """An enumeration of somebody's own."""

    RED = 1


class History:
    """As mmengine's HistoryBuffer: arrays and scalars of NumPy in an object."""

    def __init__(self) -> None:
        self.values = np.zeros((3, 2))
        self.last = np.float64(0.5)


class Settings(dict):
    """As EasyDict, CfgNode and ConfigDict: a dict with attributes."""

    def __init__(self, **values: Any) -> None:
        super().__init__(values)
        self.__dict__["frozen"] = True


class Stack(list):
    """A list of somebody's own."""


STRANGE = {
    "args": argparse.Namespace(lr=0.01, out=pathlib.PurePosixPath("runs")),
    "best": np.float64(0.5),
    "history": {"loss": History()},
    "settings": Settings(lr=0.1, inner=Settings(a=1)),
    "more": [Stack([1, 2]), collections.deque([1]), collections.defaultdict(list, a=[1]), {1, 2}, frozenset([3])],
    "when": datetime.datetime(2026, 1, 1),
    "color": Color.RED,
    "function": print,
    "range": range(3),
    "optimizer": torch.optim.SGD([torch.ones(2)], lr=0.1),
    "random": torch.get_rng_state(),
}


def _same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict", "net"])
def test_what_stands_beside_the_weights_is_left_out(tmp_path: Path, wrapper: str, zipped: bool) -> None:
    """Options, scalars, buffers, enumerations, functions, optimizers: passed over, named, and nothing imported."""
    state = {
        "a.weight": torch.randn(3, 4, 5, 5).transpose(0, 1),
        "a.bias": torch.arange(6, dtype=torch.float16)[1::2],
        "a.empty": torch.empty(0, 3),
        "a.count": torch.tensor(7),
        "a.narrow": torch.ones(2, dtype=torch.bfloat16),
    }
    torch.save({wrapper: state, **STRANGE}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    found = read_torch(tmp_path / "x.pth")
    _same(found.tensors, state)
    assert all(name in found.notes["left_out"] for name in ("args", "best", "history", "settings", "more"))


@pytest.mark.parametrize("zipped", [True, False])
def test_whole_modules(network: nn.Module, tmp_path: Path, zipped: bool) -> None:
    """A module that was pickled whole, bare, wrapped or under a key, gives its state dict."""
    for content in (network, DataParallel(network), {"model": network, "epoch": 3}):
        torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        _same(read_torch(tmp_path / "x.pth").tensors, network.state_dict())


def test_buffers_that_do_not_persist(tmp_path: Path) -> None:
    """What a module keeps out of its state dict is kept out here; what it shares is there twice."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight
    module.register_buffer("passing", torch.ones(1), persistent=False)
    module.register_buffer("staying", torch.ones(1))
    torch.save(module, tmp_path / "x.pth")
    _same(read_torch(tmp_path / "x.pth").tensors, module.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net.", "model._orig_mod.", "module.model."])
def test_prefixes(network: nn.Module, tmp_path: Path, prefix: str) -> None:
    """What DistributedDataParallel, torch.compile and Lightning put before every name is taken away."""
    state = network.state_dict()
    torch.save({"state_dict": {f"{prefix}{name}": value for name, value in state.items()}}, tmp_path / "x.pth")
    assert fcnzoo.convert("torchvision", tmp_path / "x.pth").num_classes == 5
    _same(read_torch(tmp_path / "x.pth").tensors, state)


def test_losses_of_a_lightning_module(tmp_path: Path) -> None:
    """Weights of a loss or a metric beside `model.…` are left out, and named."""
    state = {"model.a.weight": torch.ones(1), "criterion.weight": torch.ones(3), "val_miou.counts": torch.ones(2)}
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    found = read_torch(tmp_path / "x.ckpt")
    assert found.tensors.keys() == {"a.weight"}
    assert found.notes == {"left_out": "criterion.weight, val_miou.counts"}


@pytest.mark.parametrize("key", ["model_ema", "state_dict_ema", "ema"])
def test_averaged_weights(network: nn.Module, tmp_path: Path, key: str) -> None:
    """The last weights by default; with `ema`, the averaged ones, without the counter that torch puts beside them."""
    state = network.state_dict()
    average = {f"module.{name}": value * 2 for name, value in state.items()} | {"n_averaged": torch.tensor(3)}
    torch.save({"model": state, key: average}, tmp_path / "x.pth")
    last = fcnzoo.convert("torchvision", tmp_path / "x.pth")
    assert key in last.provenance["left_out"]
    ours = fcnzoo.convert("torchvision", tmp_path / "x.pth", ema=True)
    assert ours.provenance["weights"] == key
    for name, value in last.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value * 2), name
    torch.save({"model": state}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="not averaged weights"):
        fcnzoo.convert("torchvision", tmp_path / "x.pth", ema=True)
    with pytest.raises(ValueError, match="ema is for PyTorch files"):
        fcnzoo.convert("caffe", tmp_path / "x.caffemodel", ema=True)


class Caller:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "inside", "key"])
def test_nothing_is_called(tmp_path: Path, zipped: bool, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of any function, of a class, through getattr or exec, beside the weights or among them: not one happens."""
    called: list[str] = []
    module = types.ModuleType("trap_module")
    module.__dict__["spring"] = lambda *arguments: called.append("called")
    module.__dict__["spring"].__module__, module.__dict__["spring"].__qualname__ = "trap_module", "spring"
    monkeypatch.setitem(__import__("sys").modules, "trap_module", module)
    hostile = [
        Caller(module.__dict__["spring"], 1),
        Caller(exec, f"open({str(tmp_path / 'trap')!r}, 'w')"),
        Caller(Path.touch, tmp_path / "trap"),
        Caller(getattr, tmp_path, "rmdir"),
    ]
    state: dict[Any, Any] = {"a": torch.ones(2)}
    content: dict[Any, Any] = {"state_dict": state}
    if place == "beside":
        content["extra"] = hostile
    elif place == "inside":
        state["b"] = hostile
    else:
        content[hostile[1]] = 1
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    if place == "inside":
        with pytest.raises(ConversionError, match="by name: b"):
            read_torch(tmp_path / "x.pth")
    else:
        assert read_torch(tmp_path / "x.pth").tensors.keys() == {"a"}
    assert not called and not (tmp_path / "trap").exists()


def test_damaged_archives(tmp_path: Path) -> None:
    """A flipped byte in a tensor, a cut file, a compressed part, a tensor outside its storage: one error each."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    whole = path.read_bytes()
    place = whole.index(struct.pack("<f", 500.0))
    path.write_bytes(whole[:place] + b"\x01" + whole[place + 1 :])
    with pytest.raises(ConversionError, match="CRC"):
        read_torch(path)
    for cut in (10, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        with pytest.raises(ConversionError, match="not a PyTorch file with weights"):
            read_torch(path)
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / "y.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    with pytest.raises(ConversionError, match="is compressed"):
        read_torch(tmp_path / "y.pth")


@pytest.mark.parametrize("cut", [9, 200, 600, 1500])
def test_damaged_old_files(tmp_path: Path, cut: int) -> None:
    """A file of the old layout that ends early, anywhere, is refused."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.arange(1000.0)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConversionError, match="nothing in it was run"):
        read_torch(path)


@pytest.mark.parametrize("content", [pickle.dumps([1]), b"\x80\x02K\x01.", b"\x80\x04\x8d" + b"\xff" * 8])
def test_pickles_of_something_else(tmp_path: Path, content: bytes) -> None:
    """Other pickles, and one that announces 2⁶⁴ letters, are refused at once."""
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ConversionError, match="nothing in it was run"):
        read_torch(tmp_path / "x.pth")


def test_programs_are_named(tmp_path: Path) -> None:
    """A TorchScript program is refused with what to save in its place."""
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("x/data.pkl", "x/code/__torch__.py", "x/constants.pkl"):
            archive.writestr(name, pickle.dumps(1))
    with pytest.raises(ConversionError, match="TorchScript program; save the state dict"):
        read_torch(tmp_path / "x.pt")
