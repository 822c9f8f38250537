"""The two innermost steps of the compiled loss, as LLVM vectors, and the exponential function they need.

Numba's own loops would test at each turn whether arrays overlap, and call the C library for one exponential at a time.
"""

# pyright: basic

from __future__ import annotations

# ruff: noqa: ARG001  (an intrinsic names its arguments only for their types)
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
"""Numbers of a vector: one AVX-512 register of float32, two of float64. Narrower machines use several registers."""

ROWS = 4
"""Rows of pixels worked on at once: so many exponentials overlap, and what they share is read once."""

FUSED = ("contract",)
"""The one liberty given: a multiplication and an addition may be one operation, which is more exact."""

LOWEST = {"float32": -87.0, "float64": -708.0}
"""Where the exponential function stops falling (1.6e-38, 3e-308): below, results would be subnormal."""

# Cephes (Moshier): expf.c and exp.c. e^x = 2^n e^r, where n is the integer next to x / ln 2 and r = x − n ln 2, with
# ln 2 in two parts, the first of which has so few digits that n times it is exact.
LN2 = {"float32": (0.693359375, -2.12194440e-4), "float64": (6.93145751953125e-1, 1.42860682030941723212e-6)}
POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""float32: e^r = 1 + r + r² P(r); relative error 8e-8."""
NUMERATOR = (1.26177193074810590878e-4, 3.02994407707441961300e-2, 9.99999999999999999910e-1)
DENOMINATOR = (3.00198505138664455042e-6, 2.52448340349684104192e-3, 2.27265548208155028766e-1, 2.0)
"""float64: e^r = 1 + 2 r N(r²) / (D(r²) − r N(r²)); relative error 3e-16."""

WORD = ir.IntType(32)


class _Vectors:
    """`LANES` numbers at a time, of one kind."""

    def __init__(self, context, builder, kind):
        self.context, self.build, self.name = context, builder, kind.name
        self.real = context.get_value_type(kind)
        self.align = kind.bitwidth // 8
        self.mantissa = {32: 23, 64: 52}[kind.bitwidth]
        self.lanes = ir.VectorType(self.real, LANES)
        self.bits = ir.VectorType(ir.IntType(kind.bitwidth), LANES)

    def constant(self, value, kind=None):
        kind = kind or self.lanes
        return ir.Constant(kind, [ir.Constant(kind.element, value)] * LANES)

    def splat(self, value):
        """One number in all lanes."""
        nothing = ir.Constant(self.lanes, ir.Undefined)
        single = self.build.insert_element(nothing, value, ir.Constant(WORD, 0))
        return self.build.shuffle_vector(single, nothing, ir.Constant(ir.VectorType(WORD, LANES), [0] * LANES))

    def place(self, array, kind, at, step=0):
        """Pointer to the vector that begins `step` vectors beyond the flat index `at`."""
        data = self.context.make_array(kind)(self.context, self.build, array).data
        at = self.build.add(at, ir.Constant(at.type, step * LANES))
        return self.build.bitcast(self.build.gep(data, [at]), self.lanes.as_pointer())

    def load(self, place):
        return self.build.load(place, align=self.align)

    def store(self, vector, place):
        self.build.store(vector, place, align=self.align)

    def mul(self, a, b):
        return self.build.fmul(a, b, flags=FUSED)

    def add(self, a, b):
        return self.build.fadd(a, b, flags=FUSED)

    def series(self, x, factors):
        """Horner's rule; the first factor is that of the highest power."""
        value = self.constant(factors[0])
        for factor in factors[1:]:
            value = self.add(self.mul(value, x), self.constant(factor))
        return value

    def exp(self, x):
        """e^x for x ≤ 0, at least e^`LOWEST`."""
        build = self.build
        floor = self.constant(LOWEST[self.name])
        x = build.select(build.fcmp_ordered(">", x, floor), x, floor)
        # Adding 1.5 · 2^mantissa rounds to an integer, and leaves it in the lowest bits.
        big = self.constant(1.5 * 2.0**self.mantissa)
        shifted = self.add(self.mul(x, self.constant(1.4426950408889634)), big)
        n = build.fsub(shifted, big)
        r = x
        for part in LN2[self.name]:
            r = self.add(r, self.mul(n, self.constant(-part)))
        one = self.constant(1.0)
        square = self.mul(r, r)
        if self.name == "float32":
            grown = self.add(self.add(self.mul(self.series(r, POLYNOMIAL), square), r), one)
        else:
            odd = self.mul(r, self.series(square, NUMERATOR))
            quotient = build.fdiv(odd, build.fsub(self.series(square, DENOMINATOR), odd))
            grown = self.add(self.mul(quotient, self.constant(2.0)), one)
        # Multiply by 2^n: n is added to the exponent's bits.
        power = build.shl(build.bitcast(shifted, self.bits), self.constant(self.mantissa, self.bits))
        return build.bitcast(build.add(build.bitcast(grown, self.bits), power), self.lanes)


@intrinsic
def exponentials(typing_context, top, bottom, at, up, down, powers, powers_at, sums, sums_at):
    """At `LANES` pixels of each of `ROWS` rows: the exponential of one class's logit, and its part in the sum.

    Args:
        typing_context: Numba's.
        top: Logits at the upper scores; flat index `at` is the first pixel.
        bottom: At the lower ones.
        at: Flat index.
        up: Tuple, the share of the upper score in each row.
        down: That of the lower one.
        powers: Written from flat index `powers_at` on: (ROWS, LANES).
        powers_at: Flat index.
        sums: Added to, from flat index `sums_at` on: (ROWS, LANES).
        sums_at: Flat index.
    """
    signature = types.void(top, bottom, types.intp, up, down, powers, types.intp, sums, types.intp)

    def generate(context, builder, signature, arguments):
        top_, bottom_, at_, up_, down_, powers_, powers_at_, sums_, sums_at_ = arguments
        vectors = _Vectors(context, builder, top.dtype)
        upper = vectors.load(vectors.place(top_, top, at_))
        lower = vectors.load(vectors.place(bottom_, bottom, at_))
        for row in range(ROWS):
            first = vectors.mul(upper, vectors.splat(builder.extract_value(up_, row)))
            second = vectors.mul(lower, vectors.splat(builder.extract_value(down_, row)))
            power = vectors.exp(vectors.add(first, second))
            vectors.store(power, vectors.place(powers_, powers, powers_at_, row))
            place = vectors.place(sums_, sums, sums_at_, row)
            vectors.store(vectors.add(vectors.load(place), power), place)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def spread(typing_context, powers, powers_at, factors, factors_at, up, down, top, bottom, at):
    """Of `LANES` pixels of each of `ROWS` rows, add one class's gradient to that of the scores above and below.

    The gradient of a pixel is its exponential times a factor; arguments as in `exponentials`.
    """
    signature = types.void(powers, types.intp, factors, types.intp, up, down, top, bottom, types.intp)

    def generate(context, builder, signature, arguments):
        powers_, powers_at_, factors_, factors_at_, up_, down_, top_, bottom_, at_ = arguments
        vectors = _Vectors(context, builder, top.dtype)
        above, below = vectors.place(top_, top, at_), vectors.place(bottom_, bottom, at_)
        upper, lower = vectors.load(above), vectors.load(below)
        for row in range(ROWS):
            power = vectors.load(vectors.place(powers_, powers, powers_at_, row))
            part = vectors.mul(power, vectors.load(vectors.place(factors_, factors, factors_at_, row)))
            upper = vectors.add(upper, vectors.mul(part, vectors.splat(builder.extract_value(up_, row))))
            lower = vectors.add(lower, vectors.mul(part, vectors.splat(builder.extract_value(down_, row))))
        vectors.store(upper, above)
        vectors.store(lower, below)
        return context.get_dummy_value()

    return signature, generate
