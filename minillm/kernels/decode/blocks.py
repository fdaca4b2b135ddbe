"""Rows of weights in the blocks of a GGUF file, as the processor reads them: 32 weights at a time.

What is stored is told in ``files/blocks.py``. A block holds a scale s, 32 codes c of four to eight
bits, and perhaps a minimum m, so that its part of a product is

    sum_j (s c_j + m) x_j  =  s sum_j c_j x_j  +  m sum_j x_j

and the last sum is the same for all rows: it is made once. (A Q4_0 has m = -8 s. A Q6, which stands
for a Q6_K, has a scale for each 16 codes: ``files/k_quants.py``.) So a weight costs
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
from .table import BY_ROWS, INT8, Q4_0, Q4_1, Q5_0, Q5_1, Q6, Q8_0

SIZE = 32  # weights of a block
BYTES = {BY_ROWS: 128, INT8: 32, Q8_0: 34, Q4_0: 18, Q4_1: 20, Q5_0: 22, Q5_1: 24, Q6: 28}  # of 32 weights
_MINIMUM = {Q4_0: (0, -8.0), Q4_1: (1, 1.0), Q5_0: (0, -16.0), Q5_1: (1, 1.0)}  # which float16, and times what
_LANES = 16
_WORD, _FLOAT, _BYTE = ir.IntType(64), ir.FloatType(), ir.IntType(8)
_FLOATS, _CODES = ir.VectorType(_FLOAT, _LANES), ir.VectorType(_BYTE, _LANES)
_FREE = ("contract", "reassoc", "nsz")


def number(n: int) -> Any:
    """An index, in an intrinsic."""
    return ir.Constant(_WORD, n)


def _everywhere(build: Any, x: Any, lanes: int = _LANES) -> Any:
    nothing, number = ir.Constant(ir.VectorType(_FLOAT, lanes), ir.Undefined), ir.IntType(32)
    zeros = ir.Constant(ir.VectorType(number, lanes), [0] * lanes)
    return build.shuffle_vector(build.insert_element(nothing, x, ir.Constant(number, 0)), nothing, zeros)


def _entry(build: Any, vector: Any, lane: int) -> Any:
    return build.extract_element(vector, ir.Constant(ir.IntType(32), lane))


def _block(build: Any, kind: int, at: Any) -> tuple[Any, Any, Any]:
    """The codes of a block, the lower and the upper 16 as floats; and its first four float16, of
    which the first is a scale. (A row of floats or int8 has none.)
    """

    def load(offset: int, vector: Any) -> Any:
        place = build.gep(at, [number(offset)])
        return build.load(build.bitcast(place, vector.as_pointer()), align=1)

    def codes(offset: int, count: int = _LANES) -> Any:
        return load(offset, ir.VectorType(_BYTE, count))

    def everywhere(byte: int) -> Any:
        return ir.Constant(_CODES, [byte] * _LANES)

    def picked(a: Any, b: Any, picks: list[int]) -> Any:
        return build.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(picks)), picks))

    if kind == BY_ROWS:
        return load(0, _FLOATS), load(64, _FLOATS), None
    if kind == INT8:
        return build.sitofp(codes(0), _FLOATS), build.sitofp(codes(16), _FLOATS), None
    numbers = load_halves(build, at, 4)
    if kind == Q8_0:
        return build.sitofp(codes(2), _FLOATS), build.sitofp(codes(18), _FLOATS), numbers
    both = codes(BYTES[kind] - _LANES)
    if kind in (Q4_0, Q4_1):  # bytes in lanes of 32 bits are cut in two there: half as many instructions
        spread = [n // 4 if n % 4 == 0 else _LANES for n in range(4 * _LANES)]
        lanes = ir.VectorType(ir.IntType(32), _LANES)
        wide = build.bitcast(picked(both, everywhere(0), spread), lanes)
        lower = build.and_(wide, ir.Constant(lanes, [15] * _LANES))
        upper = build.lshr(wide, ir.Constant(lanes, [4] * _LANES))
        return build.uitofp(lower, _FLOATS), build.uitofp(upper, _FLOATS), numbers
    lower, upper = build.and_(both, everywhere(15)), build.lshr(both, everywhere(4))
    if kind == Q6:  # byte j has two bits more of the codes j, j + 8, j + 16 and j + 24
        few = codes(4, 8)
        few = picked(few, build.lshr(few, ir.Constant(few.type, [2] * 8)), [*range(_LANES)])
        lower = build.or_(lower, build.shl(build.and_(few, everywhere(3)), everywhere(4)))
        upper = build.or_(upper, build.and_(few, everywhere(0x30)))
        lower, upper = (build.sub(x, everywhere(32)) for x in (lower, upper))
        return build.sitofp(lower, _FLOATS), build.sitofp(upper, _FLOATS), numbers
    fifth, bits = codes(BYTES[kind] - _LANES - 4, 4), ir.Constant(_CODES, [1 << j % 8 for j in range(_LANES)])

    def with_fifth(half: Any, first: int) -> Any:  # bit j is the fifth of code j
        here = build.and_(picked(fifth, fifth, [first + j // 8 for j in range(_LANES)]), bits)
        more = build.select(build.icmp_unsigned("==", here, everywhere(0)), everywhere(0), everywhere(16))
        return build.uitofp(build.or_(half, more), _FLOATS)

    return with_fifth(lower, 0), with_fifth(upper, 2), numbers


def block_weights(build: Any, kind: int, at: Any) -> list[Any]:
    """The 32 weights of a block, or of a part of a row: the lower and the upper 16, in an
    intrinsic.
    """
    *halves, numbers = _block(build, kind, at)
    if numbers is None:
        return halves
    weights = []
    for n, codes in enumerate(halves):
        scale = _everywhere(build, _entry(build, numbers, n if kind == Q6 else 0))
        found = build.fmul(codes, scale, flags=("contract",))
        if kind in _MINIMUM:
            lane, factor = _MINIMUM[kind]
            minimum = build.fmul(_entry(build, numbers, lane), ir.Constant(_FLOAT, factor))
            found = build.fadd(found, _everywhere(build, minimum), flags=("contract",))
        weights.append(found)
    return weights


def looped(build: Any, count: Any, state: list[Any], step: Any) -> list[Any]:
    """``state = step(i, state)`` for i < count (at least one); returns the last state."""
    start, body, done = build.block, build.append_basic_block("block"), build.append_basic_block("done")
    build.branch(body)
    build.position_at_end(body)
    i = build.phi(_WORD)
    now = [build.phi(value.type) for value in state]
    after = step(i, now)
    following = build.add(i, number(1))
    for phi, first, then in zip([i, *now], [number(0), *state], [following, *after], strict=True):
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
            at = build.add(first, build.add(build.mul(i, number(SIZE)), number(half * _LANES)))
            return build.bitcast(pointer(argument, at), _FLOATS.as_pointer())

        def block(i: Any) -> Any:
            return pointer(0, build.add(arguments[1], build.mul(i, number(BYTES[kind]))))

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
                lower, upper, numbers = _block(build, kind, block(i))
                x0, x1 = (build.load(vector(2, arguments[3], i, half), align=4) for half in (0, 1))
                parts = [build.fmul(lower, x0, flags=_FREE), build.fmul(upper, x1, flags=_FREE)]
                if kind != Q6:
                    parts = [build.fadd(*parts, flags=_FREE)]
                for lane, part in enumerate(parts):
                    scale = _everywhere(build, _entry(build, numbers, lane))
                    total = build.fadd(total, build.fmul(part, scale, flags=_FREE), flags=_FREE)
                if kind in _MINIMUM:
                    s = build.load(pointer(4, build.add(arguments[5], i)))
                    rest = build.fadd(rest, build.fmul(numbers, _everywhere(build, s, 4), flags=_FREE), flags=_FREE)
                return [total, rest]

            none = [ir.Constant(ir.VectorType(_FLOAT, lanes), [0.0] * lanes) for lanes in (_LANES, 4)]
            total, rest = looped(build, arguments[6], none, step)
            lane, factor = _MINIMUM.get(kind, (0, 0.0))
            rest = build.fmul(_entry(build, rest, lane), ir.Constant(_FLOAT, factor))
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
                for half, weights in enumerate(block_weights(build, kind, block(i))):
                    build.store(weights, vector(2, arguments[3], i, half), align=4)
                return state

            looped(build, arguments[4], [], step)
            return context.get_dummy_value()

        return types.void(codes, size, w, size, size), generate

    return row_sum, to_floats


_sum_q8_0, _floats_q8_0 = _made(Q8_0)
_sum_q4_0, _floats_q4_0 = _made(Q4_0)
_sum_q4_1, _floats_q4_1 = _made(Q4_1)
_sum_q5_0, _floats_q5_0 = _made(Q5_0)
_sum_q5_1, _floats_q5_1 = _made(Q5_1)
_sum_q6, _floats_q6 = _made(Q6)
_SIZES = tuple(BYTES.get(kind, 0) for kind in range(max(BYTES) + 1))


@jit(inner=True)
def block_bytes(kind, k):
    """The bytes of k weights, whole blocks of them (for kernels)."""
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
