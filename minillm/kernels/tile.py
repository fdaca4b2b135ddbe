"""The innermost step of a matrix product, held in registers.

A recurrent layer multiplies a handful of rows by the same matrix at every time step. BLAS would
copy ("pack") the whole matrix into its own order at every call: for 16 rows that costs as much as
the product. So the matrix is packed here once for the whole sequence, and a *tile* of ROWS x COLS
sums stays in the processor's registers while the loop runs along the inner axis: every number
loaded is used ROWS or COLS times. Measured on one core with AVX-512, 16 rows times a (256, 1024)
matrix: 58 to 78 GFLOP/s by BLAS, 220 by tiles, which is all the core has. Large products are built
of tall tiles (``tile_products.py``).

Numba alone cannot express "keep these sums in registers", so ``tile`` writes the few LLVM
instructions itself.

The order: the columns are cut into panels of COLS, and a panel keeps the rows of its columns one
after another.

    w (K, N)  ->  panels (N / COLS, K, COLS), the last panel filled up with zeros
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ._jit import compiles_for, jit, prange
from .layout import address
from .vector_math import like

# ROWS x COLS sums, a row of the panel and one number of a must fit in the registers: AVX-512 has 32
# of 16 floats, AVX2 16 of 8 floats. Two additions start in each cycle and take four: at least eight
# registers of sums, or they wait.
ROWS, COLS = (8, 32) if compiles_for("avx512f") else (4, 16)
# Tall tiles read a from bands, where the numbers of a column lie side by side. AVX-512 then loads
# a number and multiplies by it in one instruction, and a core that is shared does more.
TALL_ROWS, TALL_COLS = (16, 16) if compiles_for("avx512f") else (6, 16)
TERMS = 192  # of the sums of few rows that tall tiles take at a time
SIDE = 16  # of the squares of a matrix that are turned over at once
_SQUARE = range(SIDE)
LINE = 64  # bytes of a cache line: a panel row that begins in the middle of one costs two loads
AHEAD, COLUMNS_AHEAD = 64, 8  # so far ahead the caches are asked for rows of a panel, and for columns that are packed


def width_of(n: int) -> int:
    """``n`` columns rounded up to whole panels."""
    return -(-n // COLS) * COLS


def empty_panels(k: int, n: int, dtype: np.dtype) -> np.ndarray:
    """Flat room for the panels of a (k, n) matrix, its first number at the begin of a cache line.
    """
    size = np.dtype(dtype).itemsize
    room = np.empty(k * width_of(n) + LINE // size, dtype)
    skip = -address(room) % LINE // size
    return room[skip : skip + k * width_of(n)]


def pack_under(cols: int, *matrices: np.ndarray) -> np.ndarray:
    """The panels, of ``cols`` columns (COLS or TALL_COLS), of some matrices (k_i, n), one under the
    other; each contiguous, or the transpose of what is.
    """
    first, n, rows = 0, matrices[0].shape[1], sum(map(len, matrices))
    panels = empty_panels(rows, n, matrices[0].dtype)
    for w in matrices:
        turned = not w.flags.c_contiguous
        _pack((w.T if turned else w).reshape(-1), len(w) if turned else n, turned, first, len(w), n, rows, cols, panels)
        first += len(w)
    return panels


@intrinsic
def _turn_square(typing, w, at, ldw, y, to, width):
    """y[to + i width + j] = w[at + j ldw + i] for i, j < 16: a square of a matrix, turned over in
    registers.

    Turned are its four quarters, in four steps: numbers whose row and column differ in one binary
    digit change places.
    """
    signature = types.void(w, types.intp, types.intp, y, types.intp, types.intp)

    def generate(context, build, signature, arguments):
        def row(argument, number_type, begin, step, i):
            array = cgutils.create_struct_proxy(signature.args[argument])(context, build, arguments[argument])
            at = build.add(begin, build.mul(ir.Constant(ir.IntType(64), i), step))
            return build.bitcast(build.gep(array.data, [at]), ir.VectorType(number_type, SIDE).as_pointer())

        kind, into = context.get_data_type(w.dtype), context.get_data_type(y.dtype)
        vector = ir.VectorType(into, SIDE)
        rows = [build.load(row(0, kind, arguments[1], arguments[2], i), align=w.dtype.bitwidth // 8) for i in _SQUARE]
        if w.dtype == types.int8:
            rows = [build.sitofp(x, vector) for x in rows]
        for digit in (8, 4, 2, 1):
            for i in _SQUARE:
                if not i & digit:
                    a, b = rows[i], rows[i + digit]
                    upper = [n - digit + SIDE if n & digit else n for n in _SQUARE]
                    lower = [n + SIDE if n & digit else n + digit for n in _SQUARE]
                    for to, picks in ((i, upper), (i + digit, lower)):
                        rows[to] = build.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), SIDE), picks))
        for i, x in enumerate(rows):
            build.store(x, row(3, into, arguments[4], arguments[5], i), align=y.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature, generate


@jit(inner=True)
def turn_over(w, at, ldw, rows, k, y, width):
    """y[i width + j] = w[at + j ldw + i] for i < k, j < rows: make columns of rows (int8 too)."""
    whole = k // SIDE * SIDE if rows % SIDE == 0 else 0
    for j in range(0, rows if whole else 0, SIDE):
        for i in range(0, whole, SIDE):
            _turn_square(w, at + j * ldw + i, ldw, y, i * width + j, width)  # type: ignore[call-arg]
    for j in range(rows):
        row = w[at + j * ldw : at + j * ldw + k]
        for i in range(whole, k):
            y[i * width + j] = row[i]


@jit(parallel=True)
def _pack(w, ldw, turned, first, k, n, rows, width, panels):
    # rows first to first + k of the panels (rows, width)
    count = panels.size // (rows * width)
    if panels.size < 1 << 15:
        for p in range(count):
            _pack_rows(w, ldw, turned, first, k, n, rows, width, p, panels)
    else:
        for p in prange(count):
            _pack_rows(w, ldw, turned, first, k, n, rows, width, np.int64(p), panels)  # Numba counts unsigned


@jit(inner=True)
def _pack_rows(w, ldw, turned, first, k, n, rows, width, p, panels):
    begin, cols = (p * rows + first) * width, max(0, min(width, n - p * width))
    pack_panel(w, p * width * (ldw if turned else 1), ldw, turned, k, cols, width, panels[begin : begin + k * width])


@jit(inner=True)
def pack_panel(w, at, ldw, turned, k, cols, width, panel):
    """panel (k, width) = ``cols`` columns of the matrix w, from ``at`` on, or of its transpose if
    that is what lies there, and zeros.
    """
    if cols < width:
        panel[:] = 0
    if turned:
        turn_over(w, at, ldw, cols, k, panel, width)
    elif cols == width:
        for j in range(0, width, SIDE):
            for i in range(k):
                scale_side(w, at + i * ldw + j, like(w, 1), panel, i * width + j)
    else:
        for i in range(k):
            row, into = w[at + i * ldw : at + i * ldw + cols], panel[i * width : i * width + cols]
            for j in range(cols):
                into[j] = row[j]


@jit(inner=True)
def room(n, like):
    """``n`` numbers of the dtype of the array ``like``, the first at the begin of a cache line (for
    kernels).
    """
    made = np.empty(n + LINE // like.itemsize, like.dtype)
    return made[np.int64(-made.ctypes.data % LINE) // like.itemsize :]


def _everywhere(build: Any, x: Any, vector: Any) -> Any:
    """A vector whose every entry is the number x."""
    undefined, zero = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return build.shuffle_vector(build.insert_element(undefined, x, zero), undefined, zeros)


def _fetch(build: Any, at: Any, vector: Any) -> None:
    """Ask for the cache lines of a vector that will be loaded from ``at`` soon. (Beyond the end of
    an array this does nothing.)
    """
    flag, byte = ir.IntType(32), ir.IntType(8).as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
    prefetch = cgutils.get_or_insert_function(build.module, signature, "llvm.prefetch.p0i8")
    to_read, into_the_first_cache, data = (ir.Constant(flag, n) for n in (0, 3, 1))
    size, first = vector.count * (8 if vector.element == ir.DoubleType() else 4), build.bitcast(at, byte)
    for line in range(0, size, LINE):
        where = build.gep(first, [ir.Constant(ir.IntType(64), line)])
        build.call(prefetch, [where, to_read, into_the_first_cache, data])


def _scaled(count: int) -> Any:
    """y[to + j] = factor x[at + j] for j < count: a loop over so few numbers would be all beginning
    and end.
    """

    def generate(context, build, signature, arguments):
        x, _, _, y, _ = signature.args
        vector, align = ir.VectorType(context.get_data_type(y.dtype), count), y.dtype.bitwidth // 8

        def row(argument, at):
            array = cgutils.create_struct_proxy(signature.args[argument])(context, build, arguments[argument])
            return build.bitcast(build.gep(array.data, [at]), vector.as_pointer())

        scaled = build.fmul(build.load(row(0, arguments[1]), align=align), _everywhere(build, arguments[2], vector))
        build.store(scaled, row(3, arguments[4]), align=align)
        return context.get_dummy_value()

    @intrinsic
    def scale(typing, x, at, factor, y, to):
        return types.void(x, types.intp, factor, y, types.intp), generate

    return scale


scale_side, _scale_band = _scaled(SIDE), _scaled(TALL_ROWS)


@intrinsic
def _fetch_number(typing, x, at):
    """Ask for the cache line of x[at]."""

    def generate(context, build, signature, arguments):
        array = cgutils.create_struct_proxy(signature.args[0])(context, build, arguments[0])
        _fetch(build, build.gep(array.data, [arguments[1]]), ir.VectorType(context.get_data_type(x.dtype), 1))
        return context.get_dummy_value()

    return types.void(x, types.intp), generate


def _in_registers(most_rows: int, cols: int, begin: str) -> Any:
    """A product in registers, of at most ``most_rows`` rows and exactly ``cols`` columns.

    c[:rows] = first + a[:rows] @ panel, where the sums begin with ``first``: with what stands in c
    (``begin`` "c"), with a number for each row ("numbers"), or with rows of numbers ("rows"). c is
    read in the first case alone. In the last case a is a band: it has ``most_rows`` rows
    whatever ``rows`` is, those beyond being the last one again.

    a, panel, c, first: flat arrays; a_at, panel_at, c_at, first_at: where the operands begin in
    them; a_row, panel_row, c_row, first_row: from row to row (0: one row of numbers for all);
    a_step: from column to column of a, so that a transposed matrix is multiplied where it lies.
    """

    def generate(context, build, signature, arguments):
        c = signature.args[9]
        word, vector = ir.IntType(64), ir.VectorType(context.get_data_type(c.dtype), cols)
        _, a_at, a_row, a_step, rows, _, panel_at, panel_row, k, _, c_at, c_row, *first = arguments

        def number(n):
            return ir.Constant(word, n)

        def pointer(argument, at):
            array = cgutils.create_struct_proxy(signature.args[argument])(context, build, arguments[argument])
            return build.gep(array.data, [at])

        def load(at):
            return build.load(build.bitcast(at, vector.as_pointer()), align=c.dtype.bitwidth // 8)

        # where rows < most_rows, the rows beyond the edge are the last one again: computed and
        # stored twice
        last = build.sub(rows, number(1))
        each = range(most_rows)
        index = [build.select(build.icmp_signed("<", number(i), rows), number(i), last) for i in each]
        of_a = index
        if begin == "rows":
            # LLVM must not see that band and panel have one step: with one counter for both, each
            # multiplication would take a second micro-operation to find its number
            hidden = ir.InlineAsm(ir.FunctionType(word, [word]), "", "=r,0", side_effect=True)
            of_a, a_step = [*map(number, each)], build.call(hidden, [a_step])
        a_rows = [build.gep(pointer(0, a_at), [build.mul(i, a_row)]) for i in of_a]
        c_rows = [build.gep(pointer(9, c_at), [build.mul(i, c_row)]) for i in index]
        panel_rows = pointer(5, panel_at)
        if begin == "c":
            before = [load(row) for row in c_rows]
        elif begin == "numbers":
            before = [_everywhere(build, build.load(build.gep(pointer(12, first[1]), [i])), vector) for i in index]
        else:
            before = [load(build.gep(pointer(12, first[1]), [build.mul(i, first[2])])) for i in index]

        start, body, done = build.block, build.append_basic_block("step"), build.append_basic_block("done")
        build.branch(body)
        build.position_at_end(body)
        step = build.phi(word)
        step.add_incoming(number(0), start)
        sums = [build.phi(vector) for _ in each]
        b = load(build.gep(panel_rows, [build.mul(step, panel_row)]))
        if most_rows > 1:
            _fetch(build, build.gep(panel_rows, [build.mul(build.add(step, number(AHEAD)), panel_row)]), vector)
        column = build.mul(step, a_step)
        after = []
        for row, total in zip(a_rows, sums, strict=True):
            x = _everywhere(build, build.load(build.gep(row, [column])), vector)
            after.append(build.fadd(total, build.fmul(x, b, flags=("contract",)), flags=("contract",)))
        following = build.add(step, number(1))
        step.add_incoming(following, body)
        for total, at_start, next_total in zip(sums, before, after, strict=True):
            total.add_incoming(at_start, start)
            total.add_incoming(next_total, body)
        build.cbranch(build.icmp_signed("<", following, k), body, done)

        build.position_at_end(done)
        for row, total in zip(c_rows, after, strict=True):
            build.store(total, build.bitcast(row, vector.as_pointer()), align=c.dtype.bitwidth // 8)
        return context.get_dummy_value()

    size = types.intp

    @intrinsic
    def add(typing, a, a_at, a_row, a_step, rows, panel, panel_at, panel_row, k, c, c_at, c_row):
        return types.void(a, size, size, size, size, panel, size, size, size, c, size, size), generate

    @intrinsic
    def from_numbers(
        typing, a, a_at, a_row, a_step, rows, panel, panel_at, panel_row, k, c, c_at, c_row, first, first_at
    ):
        arguments = a, size, size, size, size, panel, size, size, size, c, size, size, first, size
        return types.void(*arguments), generate

    @intrinsic
    def from_rows(
        typing, a, a_at, a_row, a_step, rows, panel, panel_at, panel_row, k, c, c_at, c_row, first, first_at, first_row
    ):
        arguments = a, size, size, size, size, panel, size, size, size, c, size, size, first, size, size
        return types.void(*arguments), generate

    return {"c": add, "numbers": from_numbers, "rows": from_rows}[begin]


tile, tile_from = _in_registers(ROWS, COLS, "c"), _in_registers(ROWS, COLS, "numbers")
tall_tile = _in_registers(TALL_ROWS, TALL_COLS, "rows")
STRIP = 4 * COLS
strip = _in_registers(1, STRIP, "c")  # for a single row: every number of the matrix is used once


@jit(inner=True)
def multiply_add(a, a_row, a_step, rows, k, b, b_panel, b_row, c, c_row, width):
    """c += a @ b for a (rows, k) matrix ``a`` and a (k, width) matrix ``b``, whose panels lie
    ``b_panel`` apart.
    """
    for col in range(0, width, COLS):
        for row in range(0, rows, ROWS):
            tile(a, row * a_row, a_row, a_step, rows - row, b, col // COLS * b_panel, b_row, k,
                 c, row * c_row + col, c_row)  # fmt: skip


# ---- bands ---------------------------------------------------------------------------------------
# What panels are for columns, bands are for rows:
#
#    a (M, K)  ->  bands (M / TALL_ROWS, K, TALL_ROWS)


@jit(inner=True)
def room_for_bands(rows, k, like):
    """Room for the bands of a (rows, k) matrix, in the dtype of the array ``like``."""
    return room((rows + TALL_ROWS - 1) // TALL_ROWS * TALL_ROWS * k, like)


@jit(inner=True)
def pack_bands(a, a_row, a_step, rows, k, bands):
    """The bands of a (rows, k); the last one is filled up with its last row."""
    if a_step == 1 and TALL_ROWS == SIDE:
        for row in range(0, rows, TALL_ROWS):
            turn_over(a, row * a_row, a_row, min(TALL_ROWS, rows - row), k, bands[row * k :], TALL_ROWS)
    elif a_step == 1:
        columns = room(rows * k, a)
        turn_over(a, 0, a_row, rows, k, columns, rows)
        _cut_columns(columns, rows, rows, k, bands)
    else:
        _cut_columns(a, a_step, rows, k, bands)
    there = rows % TALL_ROWS
    if there > 0:
        last = bands[(rows - there) * k :]
        for i in range(0, k * TALL_ROWS, TALL_ROWS):
            for j in range(there, TALL_ROWS):
                last[i + j] = last[i + there - 1]


@jit(inner=True)
def _cut_columns(columns, step, rows, k, bands):
    # the k columns, ``rows`` numbers each, lie ``step`` apart
    whole = rows // TALL_ROWS * TALL_ROWS
    for i in range(k):
        for row in range(0, whole, TALL_ROWS):
            _fetch_number(columns, (i + COLUMNS_AHEAD) * step + row)  # type: ignore[call-arg]
            _scale_band(columns, i * step + row, like(columns, 1), bands, row * k + i * TALL_ROWS)
        for row in range(whole, rows):
            bands[whole * k + i * TALL_ROWS + row - whole] = columns[i * step + row]


@jit(inner=True)
def multiply_bands(bands, rows, k, panels, panel_rows, first, first_row, c, c_row, width):
    """c = first + a b, for the bands of a (rows, k) and the panels of TALL_COLS columns of b
    (k, width), of which each begins ``panel_rows`` rows after the one before: a band stays in the
    first-level cache, while the panels go past it.
    """
    for row in range(0, rows, TALL_ROWS):
        for col in range(0, width, TALL_COLS):
            tall_tile(bands, row * k, 1, TALL_ROWS, rows - row, panels, col * panel_rows, TALL_COLS, k,
                      c, row * c_row + col, c_row, first, row * first_row + col, first_row)  # fmt: skip


@jit(inner=True)
def multiply_add_tall(a, lda, rows, k, panels, c, width):
    """c += a @ b for panels of TALL_COLS columns and contiguous c (rows, width), TERMS of the sums
    at a time: a band and a panel then fit into the first-level cache together.
    """
    bands = room_for_bands(rows, min(TERMS, k), a)
    for term in range(0, k, TERMS):
        terms = min(TERMS, k - term)
        pack_bands(a[term:], lda, 1, rows, terms, bands)
        multiply_bands(bands, rows, terms, panels[term * TALL_COLS :], k, c, width, c, width, width)
