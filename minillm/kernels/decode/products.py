"""The products of a token step: a matrix of floats, codes or blocks with the vectors of some texts.

A matrix is an entry of table.py. Some entries side by side are one product, whose outputs are dealt
out to the threads in blocks.
"""

from __future__ import annotations

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from .._jit import jit, prange
from ..tile import COLS, ROWS, STRIP, strip, tile
from .blocks import SIZE, block_bytes, block_row_sum, sums_of_blocks
from .table import BIAS, BY_COLUMNS, BY_ROWS, FIELDS, INT8, KIND, OUTPUTS, Q8_0, SCALE, WEIGHT
from .texts import add_sums, rows_of, side_by_side

# ---- arrays from addresses -----------------------------------------------------------------------


@intrinsic
def _float_pointer(typing, address):
    def generate(context, build, signature, arguments):
        return build.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), generate


@intrinsic
def _byte_pointer(typing, address):
    def generate(context, build, signature, arguments):
        return build.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.int8)(types.int64), generate


@jit(inline=True, inner=True)
def floats(address, size):
    """The ``size`` floats at an address, or none where there is no address (for kernels)."""
    return carray(_float_pointer(address), (size if address != 0 else 0,))  # type: ignore[call-arg]


@jit(inline=True, inner=True)
def codes_at(address, size):
    """The ``size`` int8 numbers at an address (for kernels)."""
    return carray(_byte_pointer(address), (size,))  # type: ignore[call-arg]


@jit(inline=True, inner=True)
def _unowned(x):
    # the memory of x as a flat array that counts no references: each slice of x would be counted in
    # and out
    return carray(_float_pointer(np.int64(x.ctypes.data)), (x.size,))  # type: ignore[call-arg]


# ---- products ------------------------------------------------------------------------------------

_SERIAL = 1 << 19  # bytes of weights that one thread has read before a second one is awake; one in a block counts twice
_TASK = 1 << 16  # bytes of weights for a task
_LONG = 512  # numbers in a row, from which on a single text takes one row at a time
_NARROWEST = STRIP  # outputs of a task
_FEW = 2  # texts for which a matrix by columns is read strip by strip; more are worth a tile of sums
_INPUTS = 16  # rows of such a matrix at a time: it lies in memory row by row


@jit(inner=True)
def _one_row(w, at, x):
    total = np.float32(0)
    w0 = w[at : at + x.size]
    for j in range(x.size):
        total += np.float32(w0[j]) * x[j]
    return total


@jit(inner=True)
def _four_rows(w, at, apart, x):
    # four sums at once, and four streams of memory; the rows lie ``apart``
    k = x.size
    a0, a1, a2, a3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    w0, w1 = w[at : at + k], w[at + apart : at + apart + k]
    w2, w3 = w[at + 2 * apart : at + 2 * apart + k], w[at + 3 * apart : at + 3 * apart + k]
    for j in range(k):
        a0 += np.float32(w0[j]) * x[j]
        a1 += np.float32(w1[j]) * x[j]
        a2 += np.float32(w2[j]) * x[j]
        a3 += np.float32(w3[j]) * x[j]
    return a0, a1, a2, a3


@jit(inner=True)
def _row_sums(w, rows, x, sums):
    # the products of ``rows`` rows of floats or codes with a text. Four rows at a time lie a
    # quarter of the block apart; long rows come one after the other, as the memory likes it best
    k = x.size
    apart = 0 if k >= _LONG else rows // 4
    for n in range(apart):
        four = _four_rows(w, n * k, apart * k, x)
        sums[n], sums[n + apart], sums[n + 2 * apart], sums[n + 3 * apart] = four
    for n in range(4 * apart, rows):
        sums[n] = _one_row(w, n * k, x)


@jit(inner=True)
def _block_sums(kind, codes, rows, x, sums):
    # the same of rows of blocks
    x_sums, row = np.empty(x.size // SIZE, np.float32), block_bytes(kind, x.size)
    sums_of_blocks(x, x_sums)
    for n in range(rows):
        sums[n] = block_row_sum(kind, codes, n * row, x, x_sums)


@jit(inner=True)
def _add_ends(w, rows, x, sums):
    # sums (B, rows) += the products of the ends of rows that are no whole blocks; x: (B, k)
    B, k = x.shape
    whole = k // SIZE * SIZE
    if whole < k:
        for b in range(B):
            for n in range(rows):
                sums[b * rows + n] += _one_row(w, n * k + whole, x[b, whole:])


@jit(inner=True)
def row_bytes(kind, k):
    """The bytes of a row of k weights of a matrix (for kernels)."""
    if kind >= Q8_0:
        return block_bytes(kind, k)
    return k if kind == INT8 else 4 * k


@jit(inner=True)
def _finish(sums, scale, bias, y, add):
    if scale.size:
        for j in range(y.size):
            sums[j] *= scale[j]
    if bias.size:
        for j in range(y.size):
            sums[j] += bias[j]
    if add:
        for j in range(y.size):
            y[j] += sums[j]
    else:
        for j in range(y.size):
            y[j] = sums[j]


@jit(inner=True)
def _begin_sums(y, bias, add):
    for j in range(y.size):
        y[j] = (y[j] if add else np.float32(0)) + (bias[j] if bias.size else np.float32(0))


@jit(inner=True)
def _add_inputs(w, at, step, x, y):
    # y += x w for some inputs and the last few outputs
    for i in range(x.size):
        row = w[at + i * step : at + i * step + y.size]
        for j in range(y.size):
            y[j] += row[j] * x[i]


@jit(inner=True)
def _by_columns(w, width, bias, lo, hi, x, y, first, add):
    # the matrix lies the other way: a row of it holds what one input gives to all outputs
    (B, k), flat_x, flat_y = x.shape, _unowned(x), _unowned(y)
    m = hi - lo
    strips, tiled = (m // STRIP * STRIP if B <= _FEW else 0), m // COLS * COLS
    for b in range(B):
        _begin_sums(y[b, first : first + m], bias[lo:hi] if bias.size else bias, add)
    for i in range(0, k, _INPUTS):
        inputs, at = min(_INPUTS, k - i), i * width + lo
        for b in range(B):
            into = b * y.shape[1] + first
            for n in range(0, strips, STRIP):
                strip(flat_x, b * k + i, k, 1, 1, w, at + n, width, inputs, flat_y, into + n, 0)
    for n in range(strips, tiled, COLS):
        for b in range(0, B, ROWS):
            tile(flat_x, b * k, k, 1, B - b, w, lo + n, width, k, flat_y, b * y.shape[1] + first + n, y.shape[1])
    if tiled < m:
        for b in range(B):
            _add_inputs(w, lo + tiled, width, x[b], y[b, first + tiled : first + m])


@jit(inner=True)
def _outputs(entries, lo, hi, x, texts, y, add):
    # outputs lo .. hi of the matrices of ``entries``, counted through; texts: x again, side by side
    first, (B, k), flat_x = 0, x.shape, _unowned(x)
    for e in range(0, entries.size, FIELDS):
        outputs = entries[e + OUTPUTS]
        a, b = max(0, lo - first), min(outputs, hi - first)
        if a < b:
            kind, address, rows = entries[e + KIND], entries[e + WEIGHT], b - a
            bias = floats(entries[e + BIAS], outputs)
            if kind == BY_COLUMNS:
                _by_columns(floats(address, outputs * k), outputs, bias, a, b, x, y, first + a, add)
            else:
                sums, scale = np.zeros(rows_of(B) * rows, np.float32), floats(entries[e + SCALE], outputs)
                row = row_bytes(kind, k)
                codes, w = codes_at(address + a * row, rows * row), floats(address + a * row, rows * k)
                if B > 1:
                    add_sums(kind, codes, rows, row, texts, B, k // SIZE, sums)
                    if kind == BY_ROWS:
                        _add_ends(w, rows, x, sums)
                    elif kind == INT8:
                        _add_ends(codes, rows, x, sums)
                elif kind == BY_ROWS:
                    _row_sums(w, rows, flat_x, sums)
                elif kind == INT8:
                    _row_sums(codes, rows, flat_x, sums)
                else:
                    _block_sums(kind, codes, rows, flat_x, sums)
                for i in range(B):
                    _finish(sums[i * rows : (i + 1) * rows], scale[a:b], bias[a:b], y[i, first + a : first + b], add)
        first += outputs


@jit(parallel=True)
def _shared_outputs(entries, total, tasks, x, texts, y, add):
    for task in prange(tasks):
        lo, hi = np.int64(task) * total // tasks // COLS * COLS, (np.int64(task) + 1) * total // tasks // COLS * COLS
        _outputs(entries, lo, total if task == tasks - 1 else hi, x, texts, y, add)


@jit(inner=True)
def product(entries, x, y, add):
    """y = x w^T + b, or with ``add`` y += ..., for the matrices of ``entries`` side by side; x:
    (B, C), y: (B, N).
    """
    total = 0
    for e in range(0, entries.size, FIELDS):
        total += entries[e + OUTPUTS]
    size = total * row_bytes(entries[KIND], x.shape[1])
    tasks = min(64, max(2, size // _TASK // 2 * 2), total // _NARROWEST)
    texts = side_by_side(x)
    work = 2 * total * x.shape[1] if entries[KIND] >= Q8_0 else size
    if work * x.shape[0] < _SERIAL or tasks < 2:
        _outputs(entries, 0, total, x, texts, y, add)
    else:
        _shared_outputs(entries, total, tasks, x, texts, y, add)
