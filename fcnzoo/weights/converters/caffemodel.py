"""Weights out of a `.caffemodel`, without Caffe: a strict reader of the few protobuf fields that hold them.

Sources: protobuf's "Encoding" page for the wire format; `src/caffe/proto/caffe.proto` for the messages
NetParameter, LayerParameter, V1LayerParameter, BlobProto and BlobShape.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from fcnzoo.errors import ConversionError
from fcnzoo.files.download import not_the_file
from fcnzoo.files.reading import open_file
from fcnzoo.files.records import Record

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types. Groups (3 and 4) are not used by Caffe, and refused."""

NET_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 100})
"""Fields of NetParameter: name, V1 layers, input, input_dim, force_backward, state, debug_info, input_shape, layer."""


@dataclass(frozen=True)
class LayerFields(Record):
    """Where a layer's name and weights stand.

    Attributes:
        layer: Field of NetParameter.
        name: Field of the layer's message: its name.
        blobs: Field of the layer's message: its weights.
    """

    layer: int
    name: int
    blobs: int


LAYERS = (LayerFields(layer=100, name=1, blobs=7), LayerFields(layer=2, name=4, blobs=6))
"""LayerParameter, and V1LayerParameter of files from before 2015."""

DATA, SHAPE, DIM = 5, 7, 1
"""`BlobProto.data`, `BlobProto.shape`, `BlobShape.dim`."""

LEGACY_DIMS = (1, 2, 3, 4)
"""`BlobProto.num`, `.channels`, `.height`, `.width`, of files from before `shape`."""

MOST_DIMS = 8

MOST_FIELDS = 100_000
"""Fields of a file, runs of numbers counted once: ten times those of the deepest networks, and a second's work."""

DOUBLES = (8, 9)
"""`BlobProto.double_data` and `.double_diff`."""

BLOB_NAMES = ("weight", "bias")

Field: TypeAlias = tuple[int, int, int, int]
"""Number, wire type, and where the value begins and ends; for a varint: the value, twice."""


def read_caffemodel(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a `.caffemodel`.

    Layers without weights (data, pooling, loss) are passed over; gradients (`diff`) are not weights.

    Args:
        path: A binary NetParameter.

    Returns:
        float32 tensors in the file's order and shapes: `"<layer>.weight"`, `"<layer>.bias"`, and
        `"<layer>.blob2"`, … where a layer has more. A blob of the old form has four dimensions, ones first.

    Raises:
        ConversionError: The file is missing, truncated, or not of that form.
    """
    path = Path(path)
    try:
        with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, path.name).read()
    except (OSError, ValueError) as error:  # ValueError: mmap of an empty file
        raise ConversionError(f"{path}: cannot be read as a caffemodel ({error})") from None


class _Reader:
    """Walks through the messages of one file; every length is checked against what is left."""

    def __init__(self, data: mmap.mmap, name: str) -> None:
        self.data = data
        self.name = name
        self.fields = 0

    def read(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for number, wire, start, end in self._fields(0, len(self.data)):
            if number not in NET_FIELDS:
                raise self._error(f"field {number} at the top is none of a caffemodel's")
            for kind in LAYERS:
                if number == kind.layer:
                    self._check_wire(number, wire)
                    self._read_layer(kind, start, end, tensors)
        if not tensors:
            raise self._error("holds no layer with weights")
        return tensors

    def _read_layer(self, kind: LayerFields, start: int, end: int, tensors: dict[str, Tensor]) -> None:
        name, blobs = "", []
        for number, wire, begin, stop in self._fields(start, end):
            if number == kind.name:
                self._check_wire(number, wire)
                name = bytes(self.data[begin:stop]).decode("utf-8", "replace")
            elif number == kind.blobs:
                self._check_wire(number, wire)
                blobs.append((begin, stop))
        for index, (begin, stop) in enumerate(blobs):
            key = f"{name}.{BLOB_NAMES[index] if index < len(BLOB_NAMES) else f'blob{index}'}"
            if not name:
                raise self._error("a layer with weights has no name")
            if key in tensors:
                raise self._error(f"two layers are called {name!r}")
            tensors[key] = self._read_blob(begin, stop, key)

    def _read_blob(self, start: int, end: int, key: str) -> Tensor:
        parts: list[np.ndarray] = []
        shape: tuple[int, ...] | None = None
        legacy = dict.fromkeys(LEGACY_DIMS, 0)
        for number, wire, begin, stop in self._fields(start, end):
            if number == DATA and wire in (BYTES, FIXED32):
                if (stop - begin) % (4 if wire == BYTES else 5):
                    raise self._error(f"{key}: {stop - begin} bytes are no whole number of floats")
                parts.append(self._floats(begin, stop, wire))
            elif number == SHAPE:
                self._check_wire(number, wire)
                shape = self._read_shape(begin, stop)
            elif number in LEGACY_DIMS and wire == VARINT:
                legacy[number] = begin
            elif number in DOUBLES:
                raise self._error(f"{key} is stored in double precision, which FCN files are not")
        if shape is None:
            shape = tuple(legacy.values()) if any(legacy.values()) else ()
        count = sum(len(part) for part in parts)
        if not count or not shape or math.prod(shape) != count:
            raise self._error(f"{key} holds {count} numbers, its shape says {'×'.join(map(str, shape)) or 'nothing'}")
        return torch.from_numpy(np.concatenate(parts).astype(np.float32, copy=False).reshape(shape))

    def _read_shape(self, start: int, end: int) -> tuple[int, ...]:
        dims: list[int] = []
        for number, wire, begin, stop in self._fields(start, end):
            if number != DIM or wire not in (VARINT, BYTES):
                raise self._error(f"field {number} of a shape is not its dimensions")
            if wire == VARINT:
                dims.append(begin)
            position = begin
            while wire == BYTES and position < stop and len(dims) <= MOST_DIMS:
                value, position = self._varint(position, stop)
                dims.append(value)
            if len(dims) > MOST_DIMS:
                raise self._error(f"a shape has more than {MOST_DIMS} dimensions")
        return tuple(dims)

    def _floats(self, start: int, end: int, wire: int) -> np.ndarray:
        """Copy floats out of the file: packed, or each behind its own tag byte."""
        if wire == BYTES:
            return np.frombuffer(self.data[start:end], dtype="<f4")
        rows = np.frombuffer(self.data[start:end], dtype=np.uint8).reshape(-1, 5)
        return np.ascontiguousarray(rows[:, 1:]).view("<f4").reshape(-1)

    def _fields(self, start: int, end: int) -> Iterator[Field]:
        position = start
        while position < end:
            self.fields += 1
            if self.fields > MOST_FIELDS:
                raise self._error(f"has more than {MOST_FIELDS} fields")
            tag_start = position
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if wire == VARINT:
                value, position = self._varint(position, end)
                yield number, wire, value, value
                continue
            if wire == BYTES:
                length, position = self._varint(position, end)
            elif wire in (FIXED64, FIXED32):
                length = 8 if wire == FIXED64 else 4
            else:
                raise self._error(f"wire type {wire} at byte {tag_start} is not used by Caffe")
            if not number or length > end - position:
                raise self._error(f"field {number} at byte {tag_start} does not fit: truncated, or not a caffemodel")
            if wire == FIXED32 and position - tag_start == 1:
                # Unpacked floats, one tag each: a whole run at once, since a file may hold a hundred million.
                run = self._run(tag_start, end)
                yield number, wire, tag_start, run
                position = run
                continue
            yield number, wire, position, position + length
            position += length

    def _run(self, start: int, end: int) -> int:
        """Where a run of values of four bytes, each behind the same tag byte, ends.

        Each value ends where the next tag begins, so comparing every fifth byte cannot leave the grid of fields.
        """
        block, position, tag = 64, start, self.data[start]
        while True:
            count = min(block, (end - position) // 5)
            tags = np.frombuffer(self.data[position : position + 5 * count], dtype=np.uint8)[::5]
            other = np.flatnonzero(tags != tag)
            if len(other) or count < block:
                return position + 5 * int(other[0] if len(other) else count)
            position += 5 * count
            block = min(2 * block, 1 << 20)

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                break
            byte = self.data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
        raise self._error(f"a number at byte {position} does not end: truncated, or not a caffemodel")

    def _check_wire(self, number: int, wire: int) -> None:
        if wire != BYTES:
            raise self._error(f"field {number} has wire type {wire} instead of {BYTES}")

    def _error(self, why: str) -> ConversionError:
        return ConversionError(f"{self.name}: {why}{_looks_like(bytes(self.data[:64]))}")


def _looks_like(head: bytes) -> str:
    """Return what a file that is no caffemodel seems to be, by its first bytes; empty if nobody knows."""
    if head.startswith((b"PK\x03\x04", b"\x80\x02")):
        return "; it is a PyTorch file: use the source 'torchfcn' or 'torchvision'"
    if head.startswith(b"name:"):
        return "; it is a prototxt, which holds no weights"
    other = not_the_file(head)
    return f"; {other}" if other else ""
