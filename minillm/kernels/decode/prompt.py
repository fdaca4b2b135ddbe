"""A prompt in one call: all layers of a transformer for many tokens, at the speed of the processor.

Read one by one, tokens cost the memory's time; read together, each weight is used for all of them,
and the products are what counts: 2 operations for each weight and token. Where a processor has
AVX-512, ``tile.py`` does them at nearly the rate of the registers, if nothing else comes between.
So here

* a task owns COLS outputs of a matrix: it packs their weights into a panel, which stays in the
  second-level cache, and multiplies all tokens by it, so that no weight is packed, or read from
  memory, more than once; codes and blocks become floats on the way into the panel;
* what follows a product, the scales of int8, the bias, the activation, the sum with the residual,
  is done while the outputs are in the cache; gate and up of a gated MLP are one task, whose product
  is all that is written;
* while a panel is used, the weights of the next one are fetched;
* the last layer is read to its end for the last token only, if only that is asked for;
* of up to sixteen tokens, each takes part in a product as a text does in ``step.py``: to pack a
  panel for so few costs more than it saves.

It computes what ``model(ids, cache=cache)`` does. Measured with 512 tokens and a Llama of 135
million parameters, on two cores whose registers do 230 GFLOP/s: the layers one by one 150 GFLOP/s,
this 190.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .. import attention_tiles as tiles
from .._jit import jit, prange
from ..activations import _gelu, _gelu_exact
from ..attention import _block, _chunks
from ..layout import integers
from ..tile import COLS, LINE, ROWS, room, tile, turn_over, width_of
from ..vector_math import sigmoid
from . import MOST_ROWS, Decoder
from .attend import kept
from .blocks import block_bytes, block_row_to_floats
from .products import codes_at, floats, product
from .step import activate, after_qkv, begin_row, copy, norm_rows, room_of_layer, score, turn_and_keep
from .table import (
    BIAS,
    BY_COLUMNS,
    DOWN,
    FIELDS,
    GELU,
    GELU_EXACT,
    INT8,
    KIND,
    NORM_1,
    NORM_2,
    OUT,
    OUTPUTS,
    Q8_0,
    QKV,
    SCALE,
    SWIGLU,
    UP,
    WEIGHT,
)

_TOKENS = 1024  # that go through all layers together: more would only take more memory
ADD = 3  # to what is there, instead of an activation; and NONE does neither
NONE = 4

# ---- a panel of weights, and the products with it ------------------------------------------------


@intrinsic
def _fetch_line(typing, address):
    """Ask for the cache line at an address, without waiting for it, into the second-level cache."""

    def generate(context, build, signature, arguments):
        pointer = build.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        fetch = build.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        build.call(fetch, [pointer, *map(number, (0, 2, 1))])  # to read; level 2; data
        return context.get_dummy_value()

    return types.void(types.int64), generate


@jit(inner=True)
def _fetch(address, begin, end):
    for line in range(begin, end, LINE):
        _fetch_line(address + line)  # type: ignore[call-arg]


@jit(inner=True)
def _pack(entry, column, cols, k, panel):
    # the weights of the outputs from ``column`` on; returns where those of the next panel lie, and
    # their size in bytes
    outputs, address = entry[OUTPUTS], entry[WEIGHT]
    if cols < COLS:
        panel[:] = 0
    if entry[KIND] >= Q8_0:
        row, w = block_bytes(entry[KIND], k), np.empty(cols * k, np.float32)
        codes = codes_at(address, outputs * row)
        for j in range(cols):
            block_row_to_floats(entry[KIND], codes, (column + j) * row, k, w, j * k)
        turn_over(w, 0, k, cols, k, panel, COLS)
        return address + (column + COLS) * row, COLS * row
    if entry[KIND] == INT8:
        turn_over(codes_at(address, outputs * k), column * k, k, cols, k, panel, COLS)
        return address + (column + COLS) * k, COLS * k
    if entry[KIND] == BY_COLUMNS:
        w = floats(address, outputs * k)
        for i in range(k):
            copy(w[i * outputs + column :], panel[i * COLS : i * COLS + cols])
        return address, 0
    turn_over(floats(address, outputs * k), column * k, k, cols, k, panel, COLS)
    return address + 4 * (column + COLS) * k, 4 * COLS * k


@jit(inner=True)
def _factors_and_terms(entry, column, cols, factor, term):
    # the scales and biases of a panel's outputs: 1 and 0 where there are none
    scale, bias = floats(entry[SCALE], entry[OUTPUTS]), floats(entry[BIAS], entry[OUTPUTS])
    for j in range(COLS):
        factor[j] = scale[column + j] if scale.size and j < cols else np.float32(1)
        term[j] = bias[column + j] if bias.size and j < cols else np.float32(0)
    return scale.size + bias.size > 0


@jit(inner=True)
def _sums(x, row, k, rows, panel, changed, factor, term, sums):
    # sums (ROWS, COLS) of the tokens from ``row`` on
    for i in range(ROWS * COLS):
        sums[i] = 0
    tile(x, row * k, k, 1, rows - row, panel, 0, COLS, k, sums, 0, COLS)
    if changed:
        for at in range(0, ROWS * COLS, COLS):
            for j in range(COLS):
                sums[at + j] = sums[at + j] * factor[j] + term[j]


@jit(inner=True)
def _activate(sums, up, then):
    if then == SWIGLU:
        for i in range(ROWS * COLS):
            sums[i] = sums[i] * sigmoid(sums[i]) * up[i]
    elif then == GELU:
        for i in range(ROWS * COLS):
            sums[i] = _gelu(sums[i])
    elif then == GELU_EXACT:
        for i in range(ROWS * COLS):
            sums[i] = _gelu_exact(sums[i])


@jit(inner=True)
def _store(sums, rows, cols, y, at, width, add):
    # the first rows and columns of sums, into or onto y, whose rows are ``width`` long
    for row in range(rows):
        from_row, to = row * COLS, at + row * width
        if cols < COLS:
            for j in range(cols):
                y[to + j] = sums[from_row + j] + (y[to + j] if add else np.float32(0))
        elif add:
            for j in range(COLS):
                y[to + j] += sums[from_row + j]
        else:
            for j in range(COLS):
                y[to + j] = sums[from_row + j]


@jit(inner=True)
def _panel_task(entries, task, x, y, then):
    # one panel of the matrices side by side, counted through; of gate and up, one of each
    (rows, k), width, flat_x, flat_y = x.shape, y.shape[1], x.reshape(-1), y.reshape(-1)
    e, at, two = 0, 0, then == SWIGLU
    while not two and task * COLS >= entries[e + OUTPUTS]:
        task -= (entries[e + OUTPUTS] + COLS - 1) // COLS
        at += entries[e + OUTPUTS]
        e += FIELDS
    column, one, other = task * COLS, entries[e : e + FIELDS], entries[FIELDS if two else 0 :]
    cols, size = min(COLS, one[OUTPUTS] - column), k * COLS
    memory = room((2 if two else 1) * size + 2 * ROWS * COLS + 4 * COLS, x)
    sums, up = memory[: ROWS * COLS], memory[ROWS * COLS : 2 * ROWS * COLS]
    numbers, panels = memory[2 * ROWS * COLS :], memory[2 * ROWS * COLS + 4 * COLS :]
    panel, panel_up = panels[:size], panels[size : 2 * size]
    ahead, bytes_ahead = _pack(one, column, cols, k, panel)
    changed = _factors_and_terms(one, column, cols, numbers, numbers[COLS:])
    ahead_up, changed_up = ahead, changed
    if two:
        ahead_up, _ = _pack(other, column, cols, k, panel_up)
        changed_up = _factors_and_terms(other, column, cols, numbers[2 * COLS :], numbers[3 * COLS :])
    step = (bytes_ahead // ((rows + ROWS - 1) // ROWS) + 63) // 64 * 64
    for row in range(0, rows, ROWS):
        _sums(flat_x, row, k, rows, panel, changed, numbers, numbers[COLS:], sums)
        _fetch(ahead, row // ROWS * step, min((row // ROWS + 1) * step, bytes_ahead))
        if two:
            _sums(flat_x, row, k, rows, panel_up, changed_up, numbers[2 * COLS :], numbers[3 * COLS :], up)
            _fetch(ahead_up, row // ROWS * step, min((row // ROWS + 1) * step, bytes_ahead))
        _activate(sums, up, then)
        _store(sums, min(ROWS, rows - row), cols, flat_y, row * width + at + column, width, then == ADD)


@jit(parallel=True)
def _panels(entries, tasks, x, y, then):
    for task in prange(tasks):
        _panel_task(entries, np.int64(task), x, y, then)


@jit(inner=True)
def _product(entries, x, y, then):
    # y = activation(x w^T + b), or y += ...; x: (rows, k), y: (rows, N)
    rows, width = y.shape
    if rows <= MOST_ROWS:  # too few for a panel
        if then >= ADD:
            product(entries, x, y, then == ADD)
        else:
            wide = np.empty((rows, 2 * width if then == SWIGLU else width), np.float32)
            product(entries, x, wide, False)
            activate(wide, then, y)
        return
    tasks = 0
    for e in range(0, FIELDS if then == SWIGLU else entries.size, FIELDS):
        tasks += (entries[e + OUTPUTS] + COLS - 1) // COLS
    _panels(entries, tasks, x, y, then)


# ---- what is done row by row ---------------------------------------------------------------------

_PARTS = 16  # of the rows, for the threads


@jit(parallel=True)
def _begin(entry, ids, length, starts, positions, speeds, x, cos, sin):
    for part in prange(_PARTS):
        B, T = ids.shape
        for n in range(np.int64(part) * B * T // _PARTS, (np.int64(part) + 1) * B * T // _PARTS):
            position = max(length + n % T - starts[n // T], 0)
            begin_row(entry, ids[n // T, n % T], position, positions, speeds, x[n], cos[n], sin[n])


@jit(parallel=True)
def _norms(x, weight_address, bias_address, eps, y):
    for part in prange(_PARTS):
        lo, hi = np.int64(part) * x.shape[0] // _PARTS, (np.int64(part) + 1) * x.shape[0] // _PARTS
        norm_rows(x[lo:hi], weight_address, bias_address, eps, y[lo:hi])


@jit(parallel=True)
def _turn_and_keep(qkv, cos, sin, keys, values, length, T, H, G, D):
    for part in prange(_PARTS):
        rows = qkv.shape[0]
        for n in range(np.int64(part) * rows // _PARTS, (np.int64(part) + 1) * rows // _PARTS):
            b, s = n // T, length + n % T
            turn_and_keep(qkv[n], cos[n], sin[n], keys[b, s], values[b, s], H, G, D)


# ---- all layers ----------------------------------------------------------------------------------


@jit(parallel=True)
def _all_kept(words, now, G, D, x):
    # x (B, now, G, D) = the first tokens of the cache as floats
    for part in prange(_PARTS):
        lo, hi = np.int64(part) * now // _PARTS, (np.int64(part) + 1) * now // _PARTS
        for b in range(words.shape[0]):
            kept(words[b], lo * G * D, D, x[b, lo:hi].reshape(-1))


@jit(inner=True)
def _attend(qkv, keys, values, starts, now, sizes, cut, out):
    # the tokens of qkv (B T, (H + 2 G) D) are the last ones of those in the cache, keys, values:
    # (B, S, G, 1 or 2 D) int16
    (H, G, D), B, (wide, height, width, chunks) = sizes, keys.shape[0], cut
    T, W, G_D, H_D = qkv.shape[0] // B, qkv.shape[1], G * D, H * D
    k, v = np.empty((B, now, G, D), np.float32), np.empty((B, now, G, D), np.float32)
    _all_kept(keys, now, G, D, k)
    _all_kept(values, now, G, D, v)
    steps = (T * W, W, D, now * G_D, G_D, D, now * G_D, G_D, D, T * H_D, H_D, D)
    q, flat = qkv.reshape(-1), out.reshape(-1)
    lse, scale = np.empty((B, H, T), np.float32), np.float32(1 / math.sqrt(D))
    tiles.forward(chunks, q, k.reshape(-1), v.reshape(-1), flat, lse, starts, (B, T, now, H, G, D), steps, (0, now),
                  scale, (wide, height, width))  # fmt: skip


@jit(inner=True)
def _last_rows(x, T, y):
    for b in range(y.shape[0]):
        copy(x[(b + 1) * T - 1], y[b])


@jit
def _read(
    table, positions, speeds, sizes, width, activation, eps, ids, keys, values, length, starts, cut, last_only, logits
):
    (H, G, D), (B, T), C, layers = sizes, ids.shape, positions.shape[1], table.shape[0] - 1
    rows, now, last = B * T, length + T, table[layers]
    x, (h, qkv, heads, _, active) = np.empty((rows, C), np.float32), room_of_layer(rows, C, sizes, width, activation)
    cos, sin = np.empty((rows, speeds.size), np.float32), np.empty((rows, speeds.size), np.float32)
    _begin(last[QKV + FIELDS : QKV + 2 * FIELDS], ids, length, starts, positions, speeds, x, cos, sin)
    for i in range(layers):
        line = table[i]
        _norms(x, line[NORM_1], line[NORM_1 + 1], eps, h)
        _product(line[QKV:OUT], h, qkv, NONE)
        _turn_and_keep(qkv, cos, sin, keys[i], values[i], length, T, H, G, D)
        if last_only and i == layers - 1:
            break
        _attend(qkv, keys[i], values[i], starts, now, sizes, cut, heads)
        _product(line[OUT:NORM_2], heads, x, ADD)  # x = x + out(attention)
        _norms(x, line[NORM_2], line[NORM_2 + 1], eps, h)
        _product(line[UP:DOWN], h, active, activation)
        _product(line[DOWN:], active, x, ADD)  # x = x + down(active)

    if not last_only:
        _norms(x, last[NORM_1], last[NORM_1 + 1], eps, h)
        _product(last[QKV : QKV + FIELDS], h, logits, NONE)
    elif logits.shape[0]:
        x_last, few = np.empty((B, C), np.float32), room_of_layer(B, C, sizes, width, activation)
        _last_rows(x, T, x_last)
        _last_rows(qkv, T, few[1])
        after_qkv(table[layers - 1], few, keys[layers - 1], values[layers - 1], starts, now, sizes, activation, eps,
                  x_last)  # fmt: skip
        score(last, eps, x_last, few[0], logits)


def read(
    decoder: Decoder,
    ids: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    length: int,
    starts: np.ndarray | None,
    last_only: bool = False,
) -> np.ndarray:
    """Read tokens after those whose keys and values are there; score what follows each, or only the
    last.

    ids: (B, T) in [0, V) -> (B, T or 1, V) scores; the rest as in ``step.decode_step``.
    """
    (B, T), V = ids.shape, len(decoder.head.weight)
    starts = np.zeros(B, np.int64) if starts is None else integers(starts)
    keys, values = keys.view(np.int16), values.view(np.int16)
    logits = np.empty((B, 1 if last_only else T, V), np.float32)
    parts = -(-B * T // _TOKENS) if B < _TOKENS else T
    for part in range(parts):
        lo, hi = part * T // parts, (part + 1) * T // parts
        now, height = length + hi, _block(hi - lo, 256)
        cut = width_of(decoder.head_size), height, 256, _chunks(B * decoder.kv_heads, (hi - lo) * now, height)
        if last_only:
            scores = logits[:, 0] if part == parts - 1 else logits[:0, 0]
        else:
            scores = logits.reshape(B * T, V) if parts == 1 else np.empty((B * (hi - lo), V), np.float32)
        _read(*decoder.arguments, integers(ids[:, lo:hi]), keys, values, length + lo, starts, cut, last_only, scores)
        if not last_only and parts > 1:
            logits[:, lo:hi] = scores.reshape(B, hi - lo, V)
    return logits
