"""Rows of weights times several texts: a block becomes floats in registers, for up to eight texts.

One text waits for the memory; with eight, the sums count: 16 operations for each weight. A block of
32 weights, and a sum for each text, are what 16 registers hold. So

    total_t += w x_t      w: eight weights in a register, used for each text t

is all that is done in the innermost loop: nothing is written there, and the next block becomes
floats while the multipliers work. The texts lie side by side for it, block by block, in groups of
8, 4 or 2, filled up with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .._jit import compiles_for, jit
from ..tile import room
from .blocks import BYTES, SIZE, block_bytes, block_weights, looped, number

GROUP = 8  # texts at a time, at most
_INNER = 192  # blocks of x that a row is multiplied by before the next row is: 24 KB, of the nearest cache
_LANES = 16 if compiles_for("avx512f") else 8
_CHAINS = 8  # sums at least, for an addition begins before the one before it is done
_FLOAT, _WORD, _NUMBER = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, _LANES)
_FREE = ("contract", "reassoc", "nsz")


def _pieces(build: Any, vectors: list[Any]) -> list[Any]:
    """The weights of a block in vectors of _LANES."""
    starts = range(0, vectors[0].type.count, _LANES)
    picks = [ir.Constant(ir.VectorType(_NUMBER, _LANES), [*range(n, n + _LANES)]) for n in starts]
    return [build.shuffle_vector(vector, vector, pick) for vector in vectors for pick in picks]


def _fetch(build: Any, place: Any) -> None:
    """Ask for what lies at ``place``, without waiting for it."""
    kind = ir.FunctionType(ir.VoidType(), [place.type, _NUMBER, _NUMBER, _NUMBER])
    fetch = build.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
    build.call(fetch, [place, *(ir.Constant(_NUMBER, n) for n in (0, 3, 1))])  # to read; nearest cache; data


def _add_rows(build: Any, kind: int, texts: int, at: Any, row: Any, rows: Any, x: Any, blocks: Any, sums: Any) -> None:
    """``_add_rows_of`` one kind of weights and so many texts; at, x, sums: pointers."""
    chains = min(max(1, _CHAINS // texts), SIZE // _LANES)  # of a text
    of_all = ir.FunctionType(_FLOAT, [_FLOAT, _VECTOR])
    add_all = cgutils.get_or_insert_function(build.module, of_all, f"llvm.vector.reduce.fadd.v{_LANES}f32")
    with cgutils.for_range(build, rows, intp=_WORD) as loop:
        here = build.gep(at, [build.mul(loop.index, row)])

        def step(i, totals):
            totals, first = list(totals), build.mul(i, number(SIZE * texts))
            block = build.gep(here, [build.mul(i, number(BYTES[kind]))])
            _fetch(build, build.gep(block, [row]))  # the next row's: parts of rows are no long stream
            for n, w in enumerate(_pieces(build, block_weights(build, kind, block))):
                for t in range(texts):
                    place = build.gep(x, [build.add(first, number(t * SIZE + n * _LANES))])
                    numbers = build.load(build.bitcast(place, _VECTOR.as_pointer()), align=4)
                    chain = t * chains + n % chains
                    totals[chain] = build.fadd(totals[chain], build.fmul(w, numbers, flags=_FREE), flags=_FREE)
            return totals

        found = looped(build, blocks, [ir.Constant(_VECTOR, [0.0] * _LANES)] * (texts * chains), step)
        for t in range(texts):
            total, *others = found[t * chains : (t + 1) * chains]
            for other in others:
                total = build.fadd(total, other, flags=_FREE)
            place = build.gep(sums, [build.add(build.mul(number(t), rows), loop.index)])
            build.store(build.call(add_all, [build.load(place), total], fastmath=("reassoc",)), place)


@intrinsic
def _add_rows_of(typing, kind, texts, codes, at, row, rows, x, x_at, blocks, sums, sums_at):
    """sums[sums_at + t rows + n] += the product of row n with text t, for some blocks.

    The rows begin at codes[at] and lie ``row`` apart; x: (blocks, texts, 32) from x_at on.
    """
    size = types.intp

    def generate(context, build, signature, arguments):
        def pointer(argument, at):
            array = cgutils.create_struct_proxy(signature.args[argument])(context, build, arguments[argument])
            return build.gep(array.data, [arguments[at]])

        weights, x, sums = pointer(2, 3), pointer(6, 7), pointer(9, 10)
        _, _, _, _, row, rows, _, _, blocks, _, _ = arguments
        for one in BYTES:
            for few in (GROUP, 4, 2):
                found = [build.icmp_signed("==", arguments[n], number(wanted)) for n, wanted in enumerate((one, few))]
                with build.if_then(build.and_(*found)):
                    _add_rows(build, one, few, weights, row, rows, x, blocks, sums)
        return context.get_dummy_value()

    return types.void(size, size, codes, size, size, size, x, size, size, sums, size), generate


@jit(inner=True)
def _together(texts):
    # the first group of so many texts
    return 8 if texts > 4 else 4 if texts > 2 else 2


@jit(inner=True)
def rows_of(texts):
    """So many texts and those that fill up their last group; a single text is alone (for kernels).
    """
    whole = texts // GROUP * GROUP
    return texts if texts in (1, whole) else whole + _together(texts - whole)


@jit(inner=True)
def side_by_side(x):
    """x (B, k) as ``add_sums`` wants it; nothing of a single text (for kernels)."""
    (B, k), at = x.shape, 0
    blocks = k // SIZE if B > 1 else 0
    y = room(rows_of(B) * blocks * SIZE, x)
    for first in range(0, B, GROUP):
        for i in range(0, blocks * SIZE, SIZE):
            for b in range(first, first + _together(B - first)):
                for j in range(SIZE):
                    y[at + j] = x[b, i + j] if b < B else np.float32(0)
                at += SIZE
    return y


@jit(inner=True)
def add_sums(kind, codes, rows, row, x, B, blocks, sums):
    """sums (rows_of(B), rows), flat, += the products of rows of weights and B texts (for kernels).

    codes: the rows, ``row`` bytes each; x: what ``side_by_side`` made; blocks: whole ones of a row.
    """
    for first in range(0, B, GROUP):
        texts = _together(B - first)
        for i in range(0, blocks, _INNER // texts):
            some = min(_INNER // texts, blocks - i)
            at, x_at = block_bytes(kind, i * SIZE), (first * blocks + i * texts) * SIZE
            _add_rows_of(kind, texts, codes, at, row, rows, x, x_at, some, sums, first * rows)  # type: ignore[call-arg]
