"""The reader of `.caffemodel` files, against the `protobuf` library."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
import torch
from caffe_proto import legacy_shape, net_class, write_net
from torch import Tensor

from fcnzoo.errors import ConversionError
from fcnzoo.weights.converters.convert import read_caffemodel

STATE = {
    "conv1_1.weight": torch.randn(4, 3, 3, 3),
    "conv1_1.bias": torch.randn(4),
    "score_fr.weight": torch.randn(2, 300, 1, 1),
    "score_fr.bias": torch.tensor([float("-0.0"), 3e38]),
    "upscore.weight": torch.randn(2, 2, 4, 4),
    "scale_pool4.weight": torch.full((5,), 0.01),
}


def written(tmp_path: Path, content: bytes) -> Path:
    """A file with that content."""
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    return path


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree in shape and in every bit."""
    return a.shape == b.shape and torch.equal(a.view(torch.int32), b.view(torch.int32))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_what_protobuf_writes_reads_back_exactly(tmp_path: Path, old: bool, packed: bool) -> None:
    """Old (V1, four dimensions) and new layers, packed and unpacked numbers: names, shapes and bits agree."""
    read = read_caffemodel(written(tmp_path, write_net(STATE, old=old, packed=packed)))
    assert list(read) == list(STATE)
    for key, tensor in STATE.items():
        assert same_bits(read[key], tensor.reshape(legacy_shape(tensor)) if old else tensor)


def test_layers_without_weights_and_gradients_are_passed_over(tmp_path: Path) -> None:
    """`diff` is not data, a third blob has a name of its own, and data may come in several runs."""
    net = net_class()(name="n")
    net.layer.add(name="relu", type="ReLU")
    layer = net.layer.add(name="bn", type="BatchNorm")
    for values in ([1.0, 2.0], [3.0], [4.0]):
        blob = layer.blobs.add()
        blob.data.extend(values)
        blob.diff.extend([9.0] * len(values))
        blob.shape.dim.append(len(values))
    read = read_caffemodel(written(tmp_path, net.SerializeToString()))
    assert {key: tensor.tolist() for key, tensor in read.items()} == {
        "bn.weight": [1.0, 2.0],
        "bn.bias": [3.0],
        "bn.blob2": [4.0],
    }


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A file cut at any byte is a ConversionError, or holds only whole layers (a cut between two of them)."""
    whole = write_net({key: STATE[key] for key in ("conv1_1.weight", "conv1_1.bias", "upscore.weight")})
    refused = 0
    for size in range(len(whole)):
        try:
            read = read_caffemodel(written(tmp_path, whole[:size]))
        except ConversionError:
            refused += 1
            continue
        assert all(same_bits(tensor, STATE[key]) for key, tensor in read.items())
    assert refused >= len(whole) - 1


@pytest.mark.parametrize("old", [True, False])
def test_random_damage_raises_nothing_else(tmp_path: Path, old: bool) -> None:
    """Bytes changed anywhere give another network or a ConversionError, never another exception."""
    whole = write_net({"c.weight": torch.randn(2, 3, 3, 3), "c.bias": torch.randn(2)}, old=old)
    chance = random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(60 if chance.random() < 0.5 else len(whole))] = chance.randrange(256)
        try:
            read_caffemodel(written(tmp_path, bytes(damaged)))
        except ConversionError:
            refused += 1
    assert refused > 50


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    rest = b""
    while number > 0x7F:
        rest += bytes([number & 0x7F | 0x80])
        number >>= 7
    return rest + bytes([number])


def message(field: int, content: bytes) -> bytes:
    """A field of wire type 2."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def layer(blob: bytes, name: bytes = b"a") -> bytes:
    """A net of one layer with one blob."""
    return message(100, message(1, name) + message(7, blob))


ONE = message(5, struct.pack("<f", 1.0))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "cannot be read"),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b'name: "FCN"\nlayer {\n', "prototxt"),
        (b"PK\x03\x04" + bytes(100), "PyTorch file"),
        (message(1, b"net"), "holds no layer with weights"),
        (message(9, b"x"), "field 9 at the top"),
        (varint(1 << 3 | 3), "wire type 3"),
        (varint(100 << 3 | 2) + varint(2**62) + b"x", "does not fit"),
        (b"\xff" * 12, "does not end"),
        (varint(100 << 3 | 0) + b"\x01", "wire type 0 instead of 2"),
        (layer(ONE + message(7, message(1, varint(2)))), "holds 1 numbers, its shape says 2"),
        (layer(ONE), "its shape says nothing"),
        (layer(ONE + message(7, message(1, varint(2**40) * 2))), "its shape says"),
        (layer(ONE + message(7, message(1, varint(2**64 - 1)))), "its shape says"),
        (layer(ONE + message(7, message(1, b"\x01" * 9))), "more than 8 dimensions"),
        (layer(message(5, b"\0\0\0")), "no whole number of floats"),
        (layer(message(8, struct.pack("<d", 1.0))), "double precision"),
        (layer(ONE + message(7, message(1, b"\x01")), name=b""), "has no name"),
        (layer(ONE + message(7, message(1, b"\x01"))) * 2, "two layers are called 'a'"),
        (b"\x28\x01" * 10_000_000, "more than 100000 fields"),
        (layer(message(7, b"") + b"\x2d\0\0\0\0\x35\0\0\0\0" * 60_000), "more than 100000 fields"),
    ],
)
def test_bad_files_are_refused_with_their_cause(tmp_path: Path, content: bytes, text: str) -> None:
    """What is no caffemodel, or one that contradicts itself, is one ConversionError that says why."""
    with pytest.raises(ConversionError, match=text):
        read_caffemodel(written(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A path without a file is a ConversionError that names it."""
    with pytest.raises(ConversionError, match=r"nothing\.caffemodel"):
        read_caffemodel(tmp_path / "nothing.caffemodel")
