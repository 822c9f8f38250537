"""Constants out of a `.tflite` file, without TensorFlow: a strict reader of the flatbuffer fields that hold them.

Sources: the "FlatBuffer Internals" page for tables, vtables and vectors; `tensorflow/lite/schema/schema.fbs` for Model,
SubGraph, Tensor and Buffer.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

import torch
from torch import Tensor

from fcnzoo.errors import ConversionError
from fcnzoo.files.download import not_the_file
from fcnzoo.files.reading import open_file

IDENTIFIER = b"TFL3"
"""Bytes 4–7 of every file of schema version 3."""

SUBGRAPHS, BUFFERS = 2, 4
"""Fields of Model."""

TENSORS = 0
"""Field of SubGraph."""

SHAPE, TYPE, BUFFER, NAME = 0, 1, 2, 3
"""Fields of Tensor."""

DATA = 0
"""Field of Buffer."""

DTYPES = {0: torch.float32, 1: torch.float16, 2: torch.int32}
"""`TensorType`; other constants (quantized weights, texts) are refused."""

MOST_TABLES = 100_000
"""Tensors, or buffers, of a file; the largest networks have some thousands."""

MOST_DIMS = 8


def read_tflite(path: str | Path) -> dict[str, Tensor]:
    """Read the constants of a `.tflite` file.

    Args:
        path: A TensorFlow Lite model of one subgraph.

    Returns:
        Tensors by TensorFlow's names, in TensorFlow's layouts: (out, kh, kw, in) for convolutions, (1, kh, kw, C) for
        depthwise ones.

    Raises:
        ConversionError: The file is missing, damaged or not of that form, or has constants of another type.
    """
    path = Path(path)
    try:
        with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[4:8] != IDENTIFIER:
                raise ConversionError(f"{path}: {not_the_file(data[:64]) or 'not a TensorFlow Lite file'}")
            return _constants(data, path)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, IndexError, struct.error) as error:  # an empty file, offsets beyond its end, names
        raise ConversionError(f"{path}: not a whole TensorFlow Lite file ({error})") from None


def _constants(data: mmap.mmap, path: Path) -> dict[str, Tensor]:
    model = _Table(data, _unsigned(data, 0))
    graphs, buffers = model.tables(SUBGRAPHS), model.tables(BUFFERS)
    if len(graphs) != 1:
        raise ConversionError(f"{path}: holds {len(graphs)} subgraphs, one can be read")
    found: dict[str, Tensor] = {}
    for tensor in graphs[0].tables(TENSORS):
        number = tensor.number(BUFFER)
        start, size = buffers[number].vector(DATA) if number < len(buffers) else (0, 0)
        if not size:
            continue  # not a constant: something that is computed
        name, kind, shape = tensor.text(NAME), tensor.byte(TYPE), tensor.numbers(SHAPE)
        if kind not in DTYPES or name in found:
            raise ConversionError(f"{path}: {name!r} is of type {kind}, or there twice; float constants can be read")
        if min(shape, default=1) < 1 or math.prod(shape) * DTYPES[kind].itemsize != size:
            raise ConversionError(f"{path}: {name!r} has {size} bytes, not those of {DTYPES[kind]} {shape}")
        found[name] = torch.frombuffer(bytearray(data[start : start + size]), dtype=DTYPES[kind]).reshape(shape)
    return found


class _Table:
    """A flatbuffer table: fields by their numbers in the schema, each an offset in its vtable or absent."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self.data, self.position = data, position
        self.vtable = position - struct.unpack_from("<i", data, position)[0]
        if not 0 <= self.vtable < len(data):
            raise ValueError(f"a table at byte {position} points out of the file")
        self.size = struct.unpack_from("<H", data, self.vtable)[0]

    def _field(self, field: int) -> int | None:
        """Return where a field is; `None` if it has its default."""
        entry = 4 + 2 * field
        offset = struct.unpack_from("<H", self.data, self.vtable + entry)[0] if entry + 2 <= self.size else 0
        return self.position + offset if offset else None

    def number(self, field: int) -> int:
        place = self._field(field)
        return 0 if place is None else _unsigned(self.data, place)

    def byte(self, field: int) -> int:
        place = self._field(field)
        return 0 if place is None else self.data[place]

    def vector(self, field: int, width: int = 1) -> tuple[int, int]:
        """Return where the elements of a vector begin, and how many there are."""
        place = self._field(field)
        if place is None:
            return 0, 0
        start = place + _unsigned(self.data, place)
        count = _unsigned(self.data, start)
        if start + 4 + count * width > len(self.data):
            raise ValueError(f"{count} elements at byte {start} go beyond the file")
        return start + 4, count

    def numbers(self, field: int) -> tuple[int, ...]:
        start, count = self.vector(field, 4)
        if count > MOST_DIMS:
            raise ValueError(f"a shape of {count} numbers")
        return struct.unpack_from(f"<{count}i", self.data, start)

    def text(self, field: int) -> str:
        start, count = self.vector(field)
        return self.data[start : start + count].decode("utf-8")

    def tables(self, field: int) -> list[_Table]:
        start, count = self.vector(field, 4)
        if count > MOST_TABLES:
            raise ValueError(f"{count} tables, at most {MOST_TABLES} are read")
        places = range(start, start + 4 * count, 4)
        return [_Table(self.data, place + _unsigned(self.data, place)) for place in places]


def _unsigned(data: mmap.mmap, place: int) -> int:
    return struct.unpack_from("<I", data, place)[0]
