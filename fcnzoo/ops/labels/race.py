"""The innermost loop of the compiled labels, as LLVM vectors: neither numba nor LLVM finds this form by itself."""

# pyright: basic

from __future__ import annotations

# ruff: noqa: ARG001  (an intrinsic names its arguments only for their types)
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

BLOCK = 8
"""Pixels of a piece on each axis: 8 float32 fill one AVX register, and in a small piece few classes are left."""

FUSED = ("contract",)
"""The one liberty given: a multiplication and an addition may be one operation, which is more exact."""

WORD = ir.IntType(32)


class _Vectors:
    """Eight numbers at a time, of one kind."""

    def __init__(self, builder, real, align):
        self.builder = builder
        self.real = real
        self.align = align
        self.lanes = ir.VectorType(real, BLOCK)
        self.marks = ir.VectorType(WORD, BLOCK)

    def _at(self, pointer, offset, kind):
        return self.builder.bitcast(self.builder.gep(pointer, [offset]), kind.as_pointer())

    def load(self, pointer, offset):
        """Eight neighbors."""
        return self.builder.load(self._at(pointer, offset, self.lanes), align=self.align)

    def store(self, vector, pointer, offset, align):
        self.builder.store(vector, self._at(pointer, offset, vector.type), align=align)

    def splat(self, pointer, offset, kind, align):
        """One number eight times."""
        value = self.builder.load(self.builder.gep(pointer, [offset]), align=align)
        nothing = ir.Constant(kind, ir.Undefined)
        single = self.builder.insert_element(nothing, value, ir.Constant(WORD, 0))
        return self.builder.shuffle_vector(single, nothing, ir.Constant(self.marks, [0] * BLOCK))

    def number(self, pointer, offset):
        return self.splat(pointer, offset, self.lanes, self.align)

    def mix(self, a, share_a, b, share_b):
        """Return a · share_a + b · share_b."""
        build = self.builder
        first = build.fmul(a, share_a, flags=FUSED)
        return build.fadd(first, build.fmul(b, share_b, flags=FUSED), flags=FUSED)


def _loop(builder, n, carried, step):
    """Emit `for i in range(n)`, n ≥ 1, with values that are carried from turn to turn; return the last ones."""
    entry = builder.block
    body = builder.append_basic_block("loop")
    end = builder.append_basic_block("after")
    builder.branch(body)
    builder.position_at_end(body)
    i = builder.phi(n.type)
    i.add_incoming(ir.Constant(n.type, 0), entry)
    values = [builder.phi(start.type) for start in carried]
    for value, start in zip(values, carried, strict=True):
        value.add_incoming(start, entry)
    results = step(i, values)
    following = builder.add(i, ir.Constant(n.type, 1))
    i.add_incoming(following, body)
    for value, result in zip(values, results, strict=True):
        value.add_incoming(result, body)
    builder.cbranch(builder.icmp_signed("<", following, n), body, end)
    builder.position_at_end(end)
    return results


class _Piece:
    """The two passes over the classes: scores at the ends of the eight rows, and at their pixels."""

    def __init__(self, vectors, corners, name, room, index):
        builder = vectors.builder
        self.vectors, self.corners, self.name, self.room, self.index = vectors, corners, name, room, index
        self.width = builder.extract_value(corners.shape, 1)
        self.second_half = builder.mul(builder.extract_value(room.shape, 1), self.constant(BLOCK))

    def constant(self, value):
        return ir.Constant(self.index, value)

    def along_sides(self, c, ups, downs):
        """Each class's scores at the left and the right end of the eight rows."""
        vectors, builder, room = self.vectors, self.vectors.builder, self.room.data
        a, b, d, e = (
            vectors.number(self.corners.data, builder.add(c, builder.mul(self.width, self.constant(q))))
            for q in range(4)
        )
        at = builder.mul(c, self.constant(BLOCK))
        vectors.store(vectors.mix(a, ups, d, downs), room, at, vectors.align)
        vectors.store(vectors.mix(b, ups, e, downs), room, builder.add(at, self.second_half), vectors.align)
        return []

    def turn(self, c, state, lefts, rights):
        """Class c in all eight rows: sixteen registers hold the highest scores and their classes."""
        vectors, builder = self.vectors, self.vectors.builder
        mark = vectors.splat(self.name.data, c, vectors.marks, 4)
        highs, marks = [], []
        for y in range(BLOCK):
            at = builder.add(builder.mul(c, self.constant(BLOCK)), self.constant(y))
            a = vectors.number(self.room.data, at)
            b = vectors.number(self.room.data, builder.add(at, self.second_half))
            value = vectors.mix(a, lefts, b, rights)
            higher = builder.fcmp_ordered(">", value, state[y])
            highs.append(builder.select(higher, value, state[y]))
            marks.append(builder.select(higher, mark, state[BLOCK + y]))
        return highs + marks


@intrinsic
def race(typing_context, four, names, n, wy0, wy1, y0, wx0, wx1, x0, lines, label):
    """Find the highest of `n` classes at each pixel of an 8×8 piece.

    Args:
        typing_context: Numba's.
        four: (4, ≥ n) scores at the corners: top left, top right, bottom left, bottom right.
        names: (n) int32, the classes, ascending: of equal scores the first wins.
        n: At least 1.
        wy0: (≥ y0 + 8) share of the upper scores at each row of pixels.
        wy1: Share of the lower ones.
        y0: First row of the piece.
        wx0: (≥ x0 + 8) share of the left scores at each column of pixels.
        wx1: Share of the right ones.
        x0: First column of the piece.
        lines: (2, ≥ n, 8) room to work in.
        label: (8, 8), filled with classes. Rows and columns that the piece does not have are to be ignored.
    """
    size = types.intp
    signature = types.void(four, names, size, wy0, wy1, size, wx0, wx1, size, lines, label)

    def generate(context, builder, signature, arguments):
        real = context.get_value_type(four.dtype)
        vectors = _Vectors(builder, real, four.dtype.bitwidth // 8)
        arrays = [
            context.make_array(kind)(context, builder, value) if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        corners, name, count, up, down, row, left, right, column, room, result = arrays
        piece = _Piece(vectors, corners, name, room, count.type)
        ups, downs = vectors.load(up.data, row), vectors.load(down.data, row)
        lefts, rights = vectors.load(left.data, column), vectors.load(right.data, column)
        _loop(builder, count, [], lambda c, _: piece.along_sides(c, ups, downs))
        lowest = ir.Constant(vectors.lanes, [ir.Constant(real, float("-inf"))] * BLOCK)
        nobody = ir.Constant(vectors.marks, [0] * BLOCK)
        start = [lowest] * BLOCK + [nobody] * BLOCK
        marks = _loop(builder, count, start, lambda c, state: piece.turn(c, state, lefts, rights))[BLOCK:]
        small = context.get_value_type(label.dtype)
        for y, mark in enumerate(marks):
            short = builder.trunc(mark, ir.VectorType(small, BLOCK))
            vectors.store(short, result.data, ir.Constant(count.type, y * BLOCK), 1)
        return context.get_dummy_value()

    return signature, generate
