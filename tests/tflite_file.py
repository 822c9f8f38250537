"""Writes TensorFlow Lite files of constants, to read them back: as little of flatbuffers as that needs.

Source: the "FlatBuffer Internals" page; fields as numbered in `tensorflow/lite/schema/schema.fbs`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np

TYPES = {"float32": 0, "float16": 1, "int32": 2, "int8": 9}
"""`TensorType` of the schema."""


class Builder:
    """Puts tables one after the other; what a table refers to comes after it."""

    def __init__(self) -> None:
        self.data = bytearray(struct.pack("<I4s", 0, b"TFL3"))

    def table(self, fields: Mapping[int, int]) -> int:
        """Append a table of 32-bit fields (numbers, or 0 for an offset that `point` fills in); returns where it is."""
        count = max(fields, default=-1) + 1
        offsets, body = [0] * count, bytearray(4)
        for field, value in sorted(fields.items()):
            offsets[field] = len(body)
            body += struct.pack("<I", value)
        start = len(self.data)
        vtable = struct.pack(f"<HH{count}H", 4 + 2 * count, len(body), *offsets)
        self.data += vtable + b"\0" * (-len(vtable) % 4)
        place = len(self.data)
        body[:4] = struct.pack("<i", place - start)
        self.data += body
        return place

    def point(self, table: int, field: int, target: int) -> None:
        """Let a field of a table point to where something is."""
        vtable = table - struct.unpack_from("<i", self.data, table)[0]
        place = table + struct.unpack_from("<H", self.data, vtable + 4 + 2 * field)[0]
        struct.pack_into("<I", self.data, place, target - place)

    def vector(self, content: bytes, count: int) -> int:
        """Append a vector; returns where it is."""
        place = len(self.data)
        self.data += struct.pack("<I", count) + content + b"\0" * (-len(content) % 4)
        return place

    def pointers(self, count: int) -> int:
        """Append a vector of offsets, to be filled in by `aim`."""
        return self.vector(bytes(4 * count), count)

    def aim(self, vector: int, targets: list[int]) -> None:
        """Let the elements of a vector point to tables."""
        for i, target in enumerate(targets):
            place = vector + 4 + 4 * i
            struct.pack_into("<I", self.data, place, target - place)


def tflite_file(constants: Mapping[str, np.ndarray], *, computed: tuple[str, ...] = ("result",)) -> bytes:
    """Return a model of one subgraph with these constants, and tensors without values.

    Args:
        constants: By name; float32, float16, int32 or int8.
        computed: Names of tensors that are no constants.
    """
    out = Builder()
    model = out.table({0: 3, 2: 0, 4: 0})
    struct.pack_into("<I", out.data, 0, model)
    graphs = out.pointers(1)
    out.point(model, 2, graphs)
    graph = out.table({0: 0})
    out.aim(graphs, [graph])
    tensors = out.pointers(len(constants) + len(computed))
    out.point(graph, 0, tensors)
    places = []
    for i, name in enumerate((*constants, *computed)):
        array = constants.get(name)
        shape = (1,) if array is None else array.shape
        kind = 0 if array is None else TYPES[str(array.dtype)]
        place = out.table({0: 0, 1: kind, 2: 0 if array is None else i + 1, 3: 0})
        out.point(place, 0, out.vector(struct.pack(f"<{len(shape)}i", *shape), len(shape)))
        out.point(place, 3, out.vector(name.encode() + b"\0", len(name)))
        places.append(place)
    out.aim(tensors, places)
    buffers = out.pointers(1 + len(constants))  # the first is empty, by the schema
    out.point(model, 4, buffers)
    places = [out.table({})]
    for array in constants.values():
        content = np.ascontiguousarray(array).tobytes()
        place = out.table({0: 0})
        out.point(place, 0, out.vector(content, len(content)))
        places.append(place)
    out.aim(buffers, places)
    return bytes(out.data)
