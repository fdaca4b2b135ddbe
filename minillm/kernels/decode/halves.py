"""float16 in kernels: Numba has no such numbers, so they are bits in int16, and LLVM converts them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import compiles_for, jit

_LANES = 16
_F16C = compiles_for("f16c")  # the processor converts float16 itself


def load_halves(build: Any, at: Any, lanes: int | None = None) -> Any:
    """The float16 at an address as a float, or so many as a vector of floats (in an intrinsic)."""

    def kind(number: Any) -> Any:
        return number if lanes is None else ir.VectorType(number, lanes)

    def constant(number: Any, value: float) -> Any:
        return ir.Constant(kind(number), value if lanes is None else [value] * lanes)

    word = ir.IntType(32)
    h = build.load(build.bitcast(at, kind(ir.IntType(16)).as_pointer()), align=1)
    if _F16C:
        return build.fpext(build.bitcast(h, kind(ir.HalfType())), kind(ir.FloatType()))
    # exponent and mantissa move to their places in a float; 2^112 makes up for the other bias
    bits = build.zext(h, kind(word))
    body = build.shl(build.and_(bits, constant(word, 0x7FFF)), constant(word, 13))
    value = build.fmul(build.bitcast(body, kind(ir.FloatType())), constant(ir.FloatType(), 2.0**112))
    sign = build.shl(build.and_(bits, constant(word, 0x8000)), constant(word, 16))
    return build.bitcast(build.or_(build.bitcast(value, kind(word)), sign), kind(ir.FloatType()))


@intrinsic
def halves_to_floats(typing, halves, at, n, x, to):
    """x[to : to + n] = the n float16 whose bits are halves[at : at + n] (for kernels)."""
    size = types.intp

    def generate(context, build, signature, arguments):
        def pointer(argument, i, kind):
            array = cgutils.create_struct_proxy(signature.args[argument])(context, build, arguments[argument])
            return build.bitcast(build.gep(array.data, [i]), kind.as_pointer())

        lanes = ir.Constant(arguments[2].type, _LANES)
        whole = build.sdiv(arguments[2], lanes)
        for count, first, each, kind in (
            (whole, ir.Constant(whole.type, 0), lanes, ir.VectorType(ir.FloatType(), _LANES)),
            (build.srem(arguments[2], lanes), build.mul(whole, lanes), ir.Constant(whole.type, 1), ir.FloatType()),
        ):
            with cgutils.for_range(build, count, intp=whole.type) as loop:
                i = build.add(first, build.mul(loop.index, each))
                values = load_halves(
                    build,
                    pointer(0, build.add(arguments[1], i), ir.IntType(16)),
                    None if kind is ir.FloatType() else kind.count,
                )
                build.store(values, pointer(3, build.add(arguments[4], i), kind), align=4)
        return context.get_dummy_value()

    return types.void(halves, size, size, x, size), generate


@jit(inner=True)
def floats_to_halves(x, halves):
    """halves = the bits of the float16 next to each x, rounded as NumPy does, the largest, 65,504,
    for what is larger: of an infinite key all scores would be NaN (for kernels).
    """
    bits = x.view(np.uint32)
    for i in range(x.size):
        sign, body = bits[i] >> np.uint32(16) & np.uint32(0x8000), bits[i] & np.uint32(0x7FFFFFFF)
        if body >= np.uint32(0x477FF000):  # 65,520 and more, or no number
            half = np.uint32(0x7E00 if body > np.uint32(0x7F800000) else 0x7BFF)
        elif body < np.uint32(0x38800000):  # below 2^-14, where the steps are 2^-24: as those of 0.5 in a float
            half = np.float32(abs(x[i]) + np.float32(0.5)).view(np.uint32) - np.uint32(0x3F000000)
        else:  # the other bias; and what is cut off carries over when it is more than a half
            odd = body >> np.uint32(13) & np.uint32(1)
            half = (body - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)
        halves[i] = np.int16(np.uint16(sign | half))
