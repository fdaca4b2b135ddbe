"""The innermost step of a matrix product, held in registers.

A recurrent layer multiplies a handful of rows by the same matrix at every time step. BLAS would
copy ("pack") the whole matrix into its own order at every call: for 16 rows that costs as much as
the product. So the matrix is packed here once for the whole sequence, and a *tile* of ROWS x COLS
sums stays in the processor's registers while the loop runs along the inner axis: every number
loaded is used ROWS or COLS times. Measured on one core with AVX-512, 16 rows times a (256, 1024)
matrix: 58 to 78 GFLOP/s by BLAS, 220 by tiles, which is all the core has. Large products are built
of the same tiles (``tile_products.py``).

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
_SIDE = 16  # of the squares of a matrix that are turned over at once
_SQUARE = range(_SIDE)
LINE = 64  # bytes of a cache line: a panel row that begins in the middle of one costs two loads
AHEAD = 64  # so many rows of a panel ahead is asked for what will be multiplied: caches take their time


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


def pack_under(*matrices: np.ndarray) -> np.ndarray:
    """The panels of some matrices (k_i, n), one under the other; each contiguous, or the transpose
    of what is.
    """
    first, n = 0, matrices[0].shape[1]
    panels = empty_panels(sum(map(len, matrices)), n, matrices[0].dtype)
    for w in matrices:
        transposed = not w.flags.c_contiguous
        _pack((w.T if transposed else w).reshape(-1), len(w) if transposed else n, transposed, first, len(w), n, panels)
        first += len(w)
    return panels


@intrinsic
def _turn_square(typing, w, at, ldw, panel, to):
    """panel[to + i COLS + j] = w[at + j ldw + i] for i, j < 16: a square of a matrix, turned over
    in registers.

    Turned are its four quarters, in four steps: numbers whose row and column differ in one binary
    digit change places.
    """
    signature = types.void(w, types.intp, types.intp, panel, types.intp)

    def generate(context, build, signature, arguments):
        def row(argument, number_type, begin, step, i):
            array = cgutils.create_struct_proxy(signature.args[argument])(context, build, arguments[argument])
            at = build.add(begin, build.mul(ir.Constant(ir.IntType(64), i), step))
            return build.bitcast(build.gep(array.data, [at]), ir.VectorType(number_type, _SIDE).as_pointer())

        kind, into = context.get_data_type(w.dtype), context.get_data_type(panel.dtype)
        vector = ir.VectorType(into, _SIDE)
        rows = [build.load(row(0, kind, arguments[1], arguments[2], i), align=w.dtype.bitwidth // 8) for i in _SQUARE]
        if w.dtype == types.int8:
            rows = [build.sitofp(x, vector) for x in rows]
        for digit in (8, 4, 2, 1):
            for i in _SQUARE:
                if not i & digit:
                    a, b = rows[i], rows[i + digit]
                    upper = [n - digit + _SIDE if n & digit else n for n in _SQUARE]
                    lower = [n + _SIDE if n & digit else n + digit for n in _SQUARE]
                    for to, picks in ((i, upper), (i + digit, lower)):
                        rows[to] = build.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), _SIDE), picks))
        columns = ir.Constant(ir.IntType(64), COLS)
        for i, x in enumerate(rows):
            build.store(x, row(3, into, arguments[4], columns, i), align=panel.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature, generate


@jit(inner=True)
def pack_rows(w, at, ldw, cols, k, panel):
    """Make columns of the panel of the first ``k`` numbers of ``cols`` rows of w, from ``at`` on
    (int8 too).
    """
    squares = k // _SIDE * _SIDE if cols == COLS else 0
    for i in range(0, squares, _SIDE):
        for j in range(0, COLS, _SIDE):
            _turn_square(w, at + j * ldw + i, ldw, panel, i * COLS + j)  # type: ignore[call-arg]
    for j in range(cols):
        row = w[at + j * ldw : at + j * ldw + k]
        for i in range(squares, k):
            panel[i * COLS + j] = row[i]


@jit(parallel=True)
def _pack(w, ldw, transposed, first, k, n, panels):
    if panels.size < 1 << 15:
        for p in range((n + COLS - 1) // COLS):
            pack_panel(w, ldw, transposed, first, k, n, p, panels)
    else:
        for p in prange((n + COLS - 1) // COLS):
            pack_panel(w, ldw, transposed, first, k, n, np.int64(p), panels)  # Numba counts in unsigned integers here


@jit(inner=True)
def pack_panel(w, ldw, transposed, first, k, n, p, panels):
    """Fill rows ``first`` to first + k of panel ``p`` with the (k, n) matrix that lies in ``w``, as
    ``pack`` has it.
    """
    cols, rows = min(COLS, n - p * COLS), panels.size // ((n + COLS - 1) // COLS * COLS)
    panel = panels[(p * rows + first) * COLS : (p * rows + first + k) * COLS]
    if cols < COLS:
        panel[:] = 0
    if transposed:
        pack_rows(w, p * COLS * ldw, ldw, cols, k, panel)
    elif cols == COLS:
        for i in range(k):
            scale_panel_row(w, i * ldw + p * COLS, like(w, 1), panel, i * COLS)  # type: ignore[call-arg]
    else:
        for i in range(k):
            row, into = w[i * ldw + p * COLS : i * ldw + p * COLS + cols], panel[i * COLS : i * COLS + cols]
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


@intrinsic
def scale_panel_row(typing, x, at, factor, y, to):
    """y[to + j] = factor x[at + j] for j < COLS: a loop over so few numbers would be all beginning
    and end.
    """
    signature = types.void(x, types.intp, factor, y, types.intp)

    def generate(context, build, signature, arguments):
        vector = ir.VectorType(context.get_data_type(y.dtype), COLS)

        def row(argument, at):
            array = cgutils.create_struct_proxy(signature.args[argument])(context, build, arguments[argument])
            return build.bitcast(build.gep(array.data, [at]), vector.as_pointer())

        align = y.dtype.bitwidth // 8
        scaled = build.fmul(build.load(row(0, arguments[1]), align=align), _everywhere(build, arguments[2], vector))
        build.store(scaled, row(3, arguments[4]), align=align)
        return context.get_dummy_value()

    return signature, generate


def _in_registers(most_rows: int, cols: int, begin: str) -> Any:
    """A product in registers, of at most ``most_rows`` rows and exactly ``cols`` columns.

    c[:rows] = first + a[:rows] @ panel, where the sums begin with ``first``: with what stands in c
    (``begin`` "c"), with a number for each row ("numbers"), or with rows of numbers ("rows"). c is
    read in the first case alone.

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
        a_rows = [build.gep(pointer(0, a_at), [build.mul(i, a_row)]) for i in index]
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
TALL_ROWS = ROWS * 3 // 2
tall_tile = _in_registers(TALL_ROWS, COLS, "rows")
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


@jit(inner=True)
def multiply_add_tall(a, lda, rows, k, panels, c, width):
    """The same for ``panels`` one after another and contiguous c, by tall tiles while that many
    rows are left.
    """
    for col in range(0, width, COLS):
        for row in range(0, rows, TALL_ROWS):
            if rows - row > ROWS:
                tall_tile(a, row * lda, lda, 1, rows - row, panels, col * k, COLS, k,
                          c, row * width + col, width, c, row * width + col, width)  # fmt: skip
            else:
                tile(a, row * lda, lda, 1, rows - row, panels, col * k, COLS, k, c, row * width + col, width)
