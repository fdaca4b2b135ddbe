"""Rows of weights in the blocks of a GGUF file, as the processor reads them: 32 weights at a time.

What is stored is told in ``files/blocks.py``. A block holds a scale s, 32 codes c of four or eight
bits, and perhaps a minimum m, so that its part of a product is

    sum_j (s c_j + m) x_j  =  s sum_j c_j x_j  +  m sum_j x_j

and the last sum is the same for all rows: it is made once. (A Q4_0 has m = -8 s.) So a weight costs
a conversion to float and a multiplication, in 16 lanes, and half a byte from memory; nothing is
rounded on the way. Numba alone does not find these lanes in half bytes: plain loops are four times
slower, and the few LLVM instructions are written here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import jit
from .halves import load_halves
from .table import Q4_0, Q4_1, Q5_0, Q5_1, Q6, Q8_0

SIZE = 32  # weights of a block
_BYTES = {Q8_0: 34, Q4_0: 18, Q4_1: 20, Q5_0: 22, Q5_1: 24, Q6: 28}  # of a block
_LANES = 16
_WORD, _FLOAT, _BYTE = ir.IntType(64), ir.FloatType(), ir.IntType(8)
_FLOATS, _CODES = ir.VectorType(_FLOAT, _LANES), ir.VectorType(_BYTE, _LANES)
_FREE = ("contract", "reassoc", "nsz")


def _number(n: int) -> Any:
    return ir.Constant(_WORD, n)


def _everywhere(build: Any, x: Any) -> Any:
    nothing, zero = ir.Constant(_FLOATS, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
    return build.shuffle_vector(build.insert_element(nothing, x, zero), nothing, zeros)


def _block(build: Any, kind: int, at: Any) -> tuple[Any, Any, tuple[Any, Any], Any]:
    """The codes of a block, the lower and the upper 16 as floats; the scale of each; the minimum,
    or None.
    """

    def place(offset: int) -> Any:
        return build.gep(at, [_number(offset)])

    def codes(offset: int, count: int = _LANES) -> Any:
        return build.load(build.bitcast(place(offset), ir.VectorType(_BYTE, count).as_pointer()), align=1)

    def all_lanes(byte: int) -> Any:
        return ir.Constant(_CODES, [byte] * _LANES)

    def lanes_of(few: Any, picks: list[int]) -> Any:
        return build.shuffle_vector(few, few, ir.Constant(ir.VectorType(ir.IntType(32), _LANES), picks))

    scale = load_halves(build, at)
    if kind == Q8_0:
        return build.sitofp(codes(2), _FLOATS), build.sitofp(codes(18), _FLOATS), (scale, scale), None
    both = codes(_BYTES[kind] - _LANES)
    lower, upper = build.and_(both, all_lanes(15)), build.lshr(both, all_lanes(4))
    if kind == Q6:  # byte j has two bits more of the codes j, j + 8, j + 16 and j + 24
        few = codes(4, 8)
        few = build.shuffle_vector(few, build.lshr(few, ir.Constant(few.type, [2] * 8)),
                                   ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [*range(_LANES)]))  # fmt: skip
        lower = build.or_(lower, build.shl(build.and_(few, all_lanes(3)), all_lanes(4)))
        upper = build.or_(upper, build.and_(few, all_lanes(0x30)))
        lower, upper = (build.sitofp(build.sub(x, all_lanes(32)), _FLOATS) for x in (lower, upper))
        return lower, upper, (scale, load_halves(build, place(2))), None
    if kind in (Q5_0, Q5_1):  # bit j is the fifth of code j
        fifth = codes(_BYTES[kind] - _LANES - 4, 4)
        bits = ir.Constant(_CODES, [1 << j % 8 for j in range(_LANES)])
        for first in (0, 2):
            there = build.and_(lanes_of(fifth, [first + j // 8 for j in range(_LANES)]), bits)
            more = build.select(build.icmp_unsigned("==", there, all_lanes(0)), all_lanes(0), all_lanes(16))
            lower, upper = (build.or_(lower, more), upper) if first == 0 else (lower, build.or_(upper, more))
    if kind in (Q4_1, Q5_1):
        minimum = load_halves(build, place(2))
    else:
        minimum = build.fmul(scale, ir.Constant(_FLOAT, -8.0 if kind == Q4_0 else -16.0))
    return build.uitofp(lower, _FLOATS), build.uitofp(upper, _FLOATS), (scale, scale), minimum


def _loop(build: Any, count: Any, state: list[Any], step: Any) -> list[Any]:
    """``state = step(i, state)`` for i < count (at least one); returns the last state."""
    start, body, done = build.block, build.append_basic_block("block"), build.append_basic_block("done")
    build.branch(body)
    build.position_at_end(body)
    i = build.phi(_WORD)
    now = [build.phi(value.type) for value in state]
    after = step(i, now)
    following = build.add(i, _number(1))
    for phi, first, then in zip([i, *now], [_number(0), *state], [following, *after], strict=True):
        phi.add_incoming(first, start)
        phi.add_incoming(then, body)
    build.cbranch(build.icmp_signed("<", following, count), body, done)
    build.position_at_end(done)
    return after


def _made(kind: int) -> tuple[Any, Any]:
    """For rows of one kind of block: ``row_sum`` and ``to_floats``."""

    def reader(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        def pointer(argument: int, at: Any) -> Any:
            array = cgutils.create_struct_proxy(signature.args[argument])(context, build, arguments[argument])
            return build.gep(array.data, [at])

        def vector(argument: int, first: Any, i: Any, half: int) -> Any:
            at = build.add(first, build.add(build.mul(i, _number(SIZE)), _number(half * _LANES)))
            return build.bitcast(pointer(argument, at), _FLOATS.as_pointer())

        def block(i: Any) -> Any:
            at = pointer(0, build.add(arguments[1], build.mul(i, _number(_BYTES[kind]))))
            return _block(build, kind, at)

        return pointer, vector, block

    @intrinsic
    def row_sum(typing, codes, at, x, x_at, x_sums, sums_at, blocks):
        """The product of a row, which begins at codes[at], with x[x_at : x_at + 32 blocks]; x_sums:
        the sums of x in blocks, from ``sums_at`` on.
        """
        size = types.intp

        def generate(context, build, signature, arguments):
            pointer, vector, block = reader(context, build, signature, arguments)

            def step(i, state):
                total, rest = state
                lower, upper, scales, minimum = block(i)
                x0, x1 = (build.load(vector(2, arguments[3], i, half), align=4) for half in (0, 1))
                parts = [build.fmul(lower, x0, flags=_FREE), build.fmul(upper, x1, flags=_FREE)]
                if scales[0] is scales[1]:
                    parts = [build.fadd(*parts, flags=_FREE)]
                for part, scale in zip(parts, scales, strict=False):
                    total = build.fadd(total, build.fmul(part, _everywhere(build, scale), flags=_FREE), flags=_FREE)
                if minimum is not None:
                    s = build.load(pointer(4, build.add(arguments[5], i)))
                    rest = build.fadd(rest, build.fmul(minimum, s, flags=_FREE), flags=_FREE)
                return [total, rest]

            none = [ir.Constant(_FLOATS, [0.0] * _LANES), ir.Constant(_FLOAT, 0.0)]
            total, rest = _loop(build, arguments[6], none, step)
            kind_of_sum = ir.FunctionType(_FLOAT, [_FLOAT, _FLOATS])
            add_all = cgutils.get_or_insert_function(build.module, kind_of_sum, f"llvm.vector.reduce.fadd.v{_LANES}f32")
            return build.call(add_all, [rest, total], fastmath=("reassoc",))

        return types.float32(codes, size, x, size, x_sums, size, size), generate

    @intrinsic
    def to_floats(typing, codes, at, w, w_at, blocks):
        """w[w_at : w_at + 32 blocks] = the weights of a row that begins at codes[at]."""
        size = types.intp

        def generate(context, build, signature, arguments):
            _, vector, block = reader(context, build, signature, arguments)

            def step(i, state):
                lower, upper, scales, minimum = block(i)
                for half, part in enumerate((lower, upper)):
                    weights = build.fmul(part, _everywhere(build, scales[half]), flags=("contract",))
                    if minimum is not None:
                        weights = build.fadd(weights, _everywhere(build, minimum), flags=("contract",))
                    build.store(weights, vector(2, arguments[3], i, half), align=4)
                return state

            _loop(build, arguments[4], [], step)
            return context.get_dummy_value()

        return types.void(codes, size, w, size, size), generate

    return row_sum, to_floats


_sum_q8_0, _floats_q8_0 = _made(Q8_0)
_sum_q4_0, _floats_q4_0 = _made(Q4_0)
_sum_q4_1, _floats_q4_1 = _made(Q4_1)
_sum_q5_0, _floats_q5_0 = _made(Q5_0)
_sum_q5_1, _floats_q5_1 = _made(Q5_1)
_sum_q6, _floats_q6 = _made(Q6)
_SIZES = tuple(_BYTES.get(kind, 0) for kind in range(max(_BYTES) + 1))


@jit(inner=True)
def block_bytes(kind, k):
    """The bytes of a row of k weights (for kernels)."""
    return k // SIZE * _SIZES[kind]


@jit(inner=True)
def sums_of_blocks(x, sums):
    """sums[i] = the sum of block i of x (for kernels)."""
    for i in range(sums.size):
        total = np.float32(0)
        for j in range(SIZE):
            total += x[i * SIZE + j]
        sums[i] = total


@jit(inner=True)
def block_row_sum(kind, codes, at, x, x_sums):
    """The product of a row of blocks with x (for kernels)."""
    if kind == Q8_0:
        return _sum_q8_0(codes, at, x, 0, x_sums, 0, x_sums.size)
    if kind == Q4_0:
        return _sum_q4_0(codes, at, x, 0, x_sums, 0, x_sums.size)
    if kind == Q4_1:
        return _sum_q4_1(codes, at, x, 0, x_sums, 0, x_sums.size)
    if kind == Q5_0:
        return _sum_q5_0(codes, at, x, 0, x_sums, 0, x_sums.size)
    if kind == Q5_1:
        return _sum_q5_1(codes, at, x, 0, x_sums, 0, x_sums.size)
    return _sum_q6(codes, at, x, 0, x_sums, 0, x_sums.size)


@jit(inner=True)
def block_row_to_floats(kind, codes, at, k, w, w_at):
    """The k weights of a row, into w from w_at on (for kernels)."""
    if kind == Q8_0:
        _floats_q8_0(codes, at, w, w_at, k // SIZE)
    elif kind == Q4_0:
        _floats_q4_0(codes, at, w, w_at, k // SIZE)
    elif kind == Q4_1:
        _floats_q4_1(codes, at, w, w_at, k // SIZE)
    elif kind == Q5_0:
        _floats_q5_0(codes, at, w, w_at, k // SIZE)
    elif kind == Q5_1:
        _floats_q5_1(codes, at, w, w_at, k // SIZE)
    else:
        _floats_q6(codes, at, w, w_at, k // SIZE)
