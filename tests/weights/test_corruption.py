"""Damaged and hostile folders: a typed error that names file and cause, at once, in little memory."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model.test_fcn import HEADS, randomize
from safetensors.torch import load_file, save_file

import fcnzoo
from fcnzoo.errors import WeightsError
from fcnzoo.files.safetensors import MAX_HEADER, open_safetensors, write_safetensors
from fcnzoo.model.fcn import build


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder that loads; networks are built once before, so that imports are not timed."""
    model = build(HEADS["fcn8s"])
    randomize(model)
    return fcnzoo.save(model, tmp_path / "saved")


def refused(folder: Path, message: str, file: str = "model.safetensors") -> None:
    """Loading must fail with a WeightsError naming file and cause, under a second of work, within 100 MB."""
    start = time.process_time()
    with pytest.raises(WeightsError, match=message) as caught:
        fcnzoo.load(folder)
    assert time.process_time() - start < 1
    tracemalloc.start()  # makes everything slow, so it has a load of its own
    try:
        with pytest.raises(WeightsError):
            fcnzoo.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    assert str(folder / file) in str(caught.value)
    assert len(str(caught.value)) < 5000


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a file's header; its tensors' bytes stay."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>", "web page"),
        (b"\n  <html lang=en>" + b" " * 1000, "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git-lfs pointer"),
        (b"", "0 bytes only"),
        (b"\x00" * 7, "7 bytes only"),
        (b"\x00" * 4096, "does not begin with"),
        (struct.pack("<Q", 2) + b"{}" + b"extra", "something was added"),
        (struct.pack("<Q", 4) + b"{} x", "no valid JSON"),
        (struct.pack("<Q", 2**63) + b"{}", "cut short"),
        (struct.pack("<Q", 7) + b'{"a":1}', "must have dtype"),
        (struct.pack("<Q", 15) + b'{"a":{},"a":{}}', "comes twice"),
        (struct.pack("<Q", 23) + b'{"__metadata__":{"a":1}}'[:23], "JSON"),
        (struct.pack("<Q", 24) + b'{"__metadata__":{"a":1}}', "texts only"),
    ],
)
def test_files_that_are_something_else(saved: Path, content: bytes, message: str) -> None:
    """Web pages, git-lfs pointers, empty and broken files are told apart."""
    (saved / "model.safetensors").write_bytes(content)
    refused(saved, message)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_renamed_pickle_is_never_unpickled(saved: Path, zipped: bool) -> None:
    """A PyTorch checkpoint renamed `.safetensors` is recognized by its first bytes."""
    torch.save({"a": torch.ones(3)}, saved / "model.safetensors", _use_new_zipfile_serialization=zipped)
    refused(saved, "pickle")


def test_a_200_mb_header_is_not_read(saved: Path) -> None:
    """A header of 200 MB is refused in milliseconds, in little memory, though the file really has it."""
    path = saved / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 200_000_000) + b'{"')
        file.truncate(200_000_008)
    start = time.process_time()
    with pytest.raises(WeightsError, match="takes 200000000 bytes; at most"), open_safetensors(path):
        pass
    assert time.process_time() - start < 0.05
    refused(saved, "takes 200000000 bytes")


@pytest.mark.parametrize("text", [b'{"a":' + b"[" * 1_000_000, b'{"a":[' + b"[]," * 200_000 + b"0]}"])
def test_deep_and_wide_headers(saved: Path, text: bytes) -> None:
    """JSON nested a million deep, or of 200,000 parts, is refused."""
    (saved / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    refused(saved, "JSON|must have dtype")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_offsets": [0, 4]}, "its shape"),
        ({"data_offsets": [-20, 0]}, "data_offsets"),
        ({"data_offsets": [20, 0]}, "data_offsets"),
        ({"data_offsets": [0.0, 20.0]}, "data_offsets"),
        ({"data_offsets": [0, 20, 40]}, "data_offsets"),
        ({"data_offsets": [10**9, 10**9 + 20]}, "overlap or gap|cut short"),
        ({"data_offsets": [2**80, 2**80 + 20]}, "data_offsets"),
        ({"data_offsets": "0-20"}, "data_offsets"),
        ({"data_offsets": [0, 20]}, "overlap or gap"),
        ({"shape": [5, 10**12]}, "its shape"),
        ({"shape": [-5]}, "sizes of 0 or more"),
        ({"shape": [True] * 5}, "sizes of 0 or more"),
        ({"shape": [5.0]}, "sizes of 0 or more"),
        ({"shape": 5}, "sizes of 0 or more"),
        ({"shape": [5] + [1] * 100_000}, "sizes of 0 or more"),
        ({"dtype": "F128"}, "F128"),
        ({"dtype": "__import__('os')"}, "__import__"),
        ({"dtype": ["F32"]}, "dtype"),
        ({"dtype": "I32"}, "int32, the network has torch.float32"),
        ({"dtype": "U32"}, "uint32, the network has torch.float32"),
        ({"shape": [5, 1]}, r"\(5, 1\) instead of \(5,\)"),
        ({"surprise": 1}, "nothing else"),
    ],
)
def test_headers_that_lie(saved: Path, change: dict[str, Any], message: str) -> None:
    """Offsets that overlap, leave gaps, or lie outside the file; odd shapes and dtypes: all are refused."""
    rewrite(saved / "model.safetensors", lambda header: header["head.score.8.bias"].update(change))
    refused(saved, message)


def test_long_names_do_not_flood_the_screen(saved: Path) -> None:
    """A tensor with an endless name is refused without its name."""
    rewrite(saved / "model.safetensors", lambda h: h.update({"x" * 10**6: h.pop("head.score.8.bias")}))
    refused(saved, "name has 1000000 letters")


def test_a_missing_folder_in_place_of_the_weights(saved: Path) -> None:
    """A folder called `model.safetensors`, or a missing file, is a WeightsError."""
    (saved / "model.safetensors").unlink()
    refused(saved, "cannot be read")
    (saved / "model.safetensors").mkdir()
    refused(saved, "cannot be read")


@pytest.mark.parametrize("place", [0.3, 0.999])
def test_flipped_bits_are_found_on_request(saved: Path, place: float) -> None:
    """One flipped bit passes a plain load, and is found by `verify=True` through the recorded digest."""
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    fcnzoo.load(saved)
    with pytest.raises(WeightsError, match=r"model\.safetensors: sha256 is .* config\.json says"):
        fcnzoo.load(saved, verify=True)


def damaged_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the JSON of `config.json`."""
    path = folder / "config.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["model"]["head"].update(kind="__import__"), "__import__"),
        (lambda r: r["model"]["head"].update(kind=["skip"]), "kind"),
        (lambda r: r["model"]["backbone"].update(name="../../x"), "name"),
        (lambda r: r["model"].update(__class__="os.system"), "__class__"),
        (lambda r: r.update(weights_file="../../x"), "weights_file"),
        (lambda r: r.update(model=None), "model"),
        (lambda r: r.update(model=[]), "model"),
        (lambda r: r.pop("model"), "model"),
        (lambda r: r.update(library="transformers"), "fcnzoo"),
        (lambda r: r.update(sha256="../../x"), "sha256"),
        (lambda r: r.update(sha256=3), "sha256"),
        (lambda r: r.update(metrics={"a": 1}), "metrics"),
        (lambda r: r.update(metrics=[{"name": "mean_iou"}]), "metrics"),
        (lambda r: r.update(datasets=[1]), "datasets"),
        (lambda r: r.update(provenance="x"), "provenance"),
        (lambda r: r.update(license=["MIT"]), "license"),
        (lambda r: r["model"].update(num_classes=10**30), "num_classes"),
        (lambda r: r["model"]["head"].update(dropout=float("nan")), "finite"),
        (lambda r: r.update(provenance={"a": float("inf")}), "finite"),
        (lambda r: r["model"]["head"].update(hidden_channels=2**62), "hidden_channels"),
        (lambda r: r["model"].update(aux_head={"num_convs": 10**9}), "num_convs"),
        (
            lambda r: (r["model"].update(preprocess=None), r["model"]["backbone"].update(in_channels=10**9)),
            "in_channels",
        ),
        (lambda r: r["model"].update({"x" * 7_000_000: 1}), "no field"),
        (lambda r: r["model"].update(num_classes="x" * 7_000_000), "num_classes"),
    ],
)
def test_hostile_configs(saved: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    """Unknown, missing, mistyped and hostile fields are refused by name; nothing in a config is imported or opened."""
    damaged_config(saved, change)
    refused(saved, message, "config.json")


@pytest.mark.parametrize("name", ["timm/../../x", "timm/no_such_network", "torchvision/os.system", "paper/x"])
def test_backbones_that_nobody_has(saved: Path, name: str) -> None:
    """A backbone's name is looked up, never opened or imported; the error blames the file that has it."""
    damaged_config(saved, lambda record: record["model"]["backbone"].update(name=name))
    refused(saved, r"config\.json: (timm|torchvision|.*paper)", "config.json")


@pytest.mark.parametrize(("name", "value"), [("sha256", f'"{"0" * 64}"'), ("model", "{}")])
def test_names_that_come_twice(saved: Path, name: str, value: str) -> None:
    """A config that names something twice means two things, and is refused."""
    path = saved / "config.json"
    path.write_text(path.read_text().rstrip().removesuffix("}") + f', "{name}": {value}}}')
    refused(saved, f"'{name}' comes twice", "config.json")


def test_an_endless_config_is_not_read(saved: Path) -> None:
    """A `config.json` of 200 MB is refused without being read whole."""
    with (saved / "config.json").open("r+b") as file:
        file.truncate(200_000_000)
    refused(saved, "longer than", "config.json")


# The form itself, against the reference implementation -----------------------------------------------------


def tensors_of_all_kinds() -> dict[str, torch.Tensor]:
    """Every dtype that the reference reads, odd sizes, no elements, no axes, any memory order."""
    numbers = torch.arange(-30, 30).reshape(3, 4, 5)
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8)
    tensors = {str(dtype): numbers.to(dtype) for dtype in (*dtypes, torch.int16, torch.bool)}
    tensors |= {"uint8": torch.arange(7, dtype=torch.uint8), "scalar": torch.tensor(3.5), "empty": torch.empty(0, 4)}
    return tensors | {"transposed": torch.randn(16, 32).t(), "channels_last": torch.randn(1, 4, 4, 4).contiguous()}


def test_written_files_are_read_by_the_reference(tmp_path: Path) -> None:
    """`safetensors` reads what we write: names, dtypes, shapes, bits."""
    tensors = tensors_of_all_kinds()
    with (tmp_path / "x").open("wb") as file:
        write_safetensors(file, tensors, {"format": "pt"})
    found = load_file(tmp_path / "x")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("mmap", [True, False])
def test_files_of_the_reference_are_read(tmp_path: Path, mmap: bool) -> None:
    """We read what `safetensors` writes, mapped or copied, though it does not align."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors_of_all_kinds().items()}
    save_file(tensors, tmp_path / "x")
    with open_safetensors(tmp_path / "x") as file:
        found = file.read(mapped=mmap)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
        assert found[name].data_ptr() % tensor.element_size() == 0


def test_equal_tensors_give_equal_files(tmp_path: Path) -> None:
    """The same network saved twice is the same file, in whatever order its tensors come."""
    tensors = tensors_of_all_kinds()
    for name, given in (("a", tensors), ("b", dict(reversed(tensors.items())))):
        with (tmp_path / name).open("wb") as file:
            write_safetensors(file, given, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_dtypes_without_a_name_are_refused(tmp_path: Path) -> None:
    """A dtype that the form has no name for is a WeightsError."""
    with (tmp_path / "x").open("wb") as file, pytest.raises(WeightsError, match="complex128"):
        write_safetensors(file, {"a": torch.zeros(1, dtype=torch.complex128)}, {})


def test_headers_that_could_not_be_read_are_not_written(tmp_path: Path) -> None:
    """Metadata beyond the limit is refused when it is written, not when it is read."""
    with (tmp_path / "x").open("wb") as file, pytest.raises(WeightsError, match="header"):
        write_safetensors(file, {}, {"long": "x" * MAX_HEADER})
