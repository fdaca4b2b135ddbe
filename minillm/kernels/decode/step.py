"""The next token in one call: all layers of a transformer for a single position, at the speed of
the memory.

While a text is read, a matrix product uses each weight for many tokens. While it is written, there
is one token at a time: every weight is fetched for one multiplication, so the time of a token is
the time to read the model, and whatever comes between two layers counts. ``decode_step`` takes a
token of each text through the whole model without coming back to Python, and computes what
``model(ids, cache=cache)`` does.

* the memory addresses of all weights stand in a table, a line for each layer, through which one
  loop runs (table.py);
* the outputs of a matrix are dealt out to the threads in blocks, and each output is summed by one
  thread from its first term to its last: the result does not depend on the number of threads;
* a product too small for that, less than some hundred kilobytes, stays in one thread: to call in
  the others takes some microseconds, five times in each layer;
* a thread reads its block from the first number to the last, one row after the other: memory is
  quick when it is read in one long stream (two threads, int8: 26 GB/s, four neighbouring rows at a
  time 10). Four rows at a time have less overhead: they win where rows are short, and lie a quarter
  of the block apart, as four long streams;
* where several texts are written at once, a row is fetched once for all of them.
"""

from __future__ import annotations

import math

import numpy as np

from .._jit import jit
from ..activations import _gelu, _gelu_exact, _swiglu_row
from ..embedding import _rotate_row
from ..layout import integers
from ..norm import _layer_norm_row, _rms_norm_row
from . import Decoder
from .attend import attend, keep
from .blocks import block_bytes, block_row_to_floats
from .products import codes_at, floats, product
from .table import (
    DOWN,
    FIELDS,
    GELU,
    INT8,
    KIND,
    LINE,
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


@jit(inner=True)
def norm_rows(x, weight_address, bias_address, eps, y):
    """The norm of each row of x (B, C), into y (for kernels)."""
    C = x.shape[1]
    weight, bias = floats(weight_address, C), floats(bias_address, C)
    for b in range(x.shape[0]):
        if bias.size:
            _layer_norm_row(x[b], weight, bias, eps, y[b])
        else:
            _rms_norm_row(x[b], weight, eps, y[b])


@jit(inner=True)
def copy(x, y):
    """y = x (for kernels)."""
    for j in range(y.size):
        y[j] = x[j]


@jit(inner=True)
def _add_into(y, x):
    for j in range(y.size):
        y[j] += x[j]


@jit(inner=True)
def embed(entry, id, x):
    """x (C,): the row of a token in the matrix of ``entry`` (for kernels)."""
    at, size = id * x.size, entry[OUTPUTS] * x.size
    if entry[KIND] == INT8:
        scale = floats(entry[SCALE], entry[OUTPUTS])
        codes = codes_at(entry[WEIGHT], size)[at : at + x.size]
        for j in range(x.size):
            x[j] = np.float32(codes[j]) * scale[id]
    elif entry[KIND] >= Q8_0:
        row = block_bytes(entry[KIND], x.size)
        block_row_to_floats(entry[KIND], codes_at(entry[WEIGHT], entry[OUTPUTS] * row), id * row, x.size, x, 0)
    else:
        copy(floats(entry[WEIGHT], size)[at : at + x.size], x)


@jit(inner=True)
def activate(wide, activation, y):
    """y (B, N) = the activation of wide, (B, N) or for a gated MLP (B, 2 N) (for kernels)."""
    width = y.shape[1]
    for b in range(y.shape[0]):
        row = y[b]
        if activation == SWIGLU:
            _swiglu_row(wide[b, :width], wide[b, width:], row)
        elif activation == GELU:
            for j in range(width):
                row[j] = _gelu(wide[b, j])
        else:
            for j in range(width):
                row[j] = _gelu_exact(wide[b, j])


@jit(inner=True)
def room_of_layer(B, C, sizes, width, activation):
    """Where a layer puts what it computes of one token a row: h, qkv, heads, wide, active (for
    kernels).
    """
    H, G, D = sizes
    return (
        np.empty((B, C), np.float32),
        np.empty((B, (H + 2 * G) * D), np.float32),
        np.empty((B, H * D), np.float32),
        np.empty((B, width), np.float32),
        np.empty((B, width // 2 if activation == SWIGLU else width), np.float32),
    )


@jit(inner=True)
def after_qkv(line, room, keys, values, starts, now, sizes, activation, eps, x):
    """The rest of a layer for one token a row; x (B, C) is its input and its output (for kernels).
    """
    h, qkv, heads, wide, active = room
    attend(qkv, keys, values, starts, now, sizes, heads)
    product(line[OUT:NORM_2], heads, x, True)  # x = x + out(attention)
    norm_rows(x, line[NORM_2], line[NORM_2 + 1], eps, h)
    product(line[UP:DOWN], h, wide, False)
    activate(wide, activation, active)
    product(line[DOWN:LINE], active, x, True)  # x = x + down(active)


@jit(inner=True)
def score(last, eps, x, h, logits):
    """logits (B, V) of the last norm and the head, in the last line of the table, for x (B, C) (for
    kernels).
    """
    norm_rows(x, last[NORM_1], last[NORM_1 + 1], eps, h)
    product(last[QKV : QKV + FIELDS], h, logits, False)


@jit(inner=True)
def begin_row(entry, id, position, positions, speeds, x, cos, sin):
    """What a token is before the first layer, x (C,), and the angles of its position (for kernels).
    """
    embed(entry, id, x)
    if positions.shape[0]:
        _add_into(x, positions[position])
    for j in range(speeds.size):
        angle = position * speeds[j]
        cos[j], sin[j] = np.float32(math.cos(angle)), np.float32(math.sin(angle))


@jit(inner=True)
def turn_and_keep(qkv, cos, sin, key, value, H, G, D):
    """Rotate the queries and keys of a token, and put its keys and values (G, 1 or 2 D) into the
    cache (for kernels).
    """
    if cos.size:
        _rotate_row(qkv, cos, sin, H + G)
    keep(qkv[H * D : (H + G) * D], key.reshape(-1))
    keep(qkv[(H + G) * D :], value.reshape(-1))


@jit
def _step(table, positions, speeds, sizes, width, activation, eps, ids, keys, values, length, starts, logits):
    (H, G, D), (B, C), layers = sizes, (ids.size, positions.shape[1]), table.shape[0] - 1
    x, room = np.empty((B, C), np.float32), room_of_layer(B, C, sizes, width, activation)
    h, qkv = room[0], room[1]
    cos, sin = np.empty((B, speeds.size), np.float32), np.empty((B, speeds.size), np.float32)
    last = table[layers]
    for b in range(B):
        position = max(length - starts[b], 0)
        begin_row(last[QKV + FIELDS : QKV + 2 * FIELDS], ids[b], position, positions, speeds, x[b], cos[b], sin[b])

    for i in range(layers):
        line = table[i]
        norm_rows(x, line[NORM_1], line[NORM_1 + 1], eps, h)
        product(line[QKV:OUT], h, qkv, False)
        for b in range(B):
            turn_and_keep(qkv[b], cos[b], sin[b], keys[i, b, length], values[i, b, length], H, G, D)
        after_qkv(line, room, keys[i], values[i], starts, length + 1, sizes, activation, eps, x)
    score(last, eps, x, h, logits)


def decode_step(
    decoder: Decoder, ids: np.ndarray, keys: np.ndarray, values: np.ndarray, length: int, starts: np.ndarray | None
) -> np.ndarray:
    """Read one token of each row after those whose keys and values are there; score what follows
    it.

    ids: (B,) in [0, V) -> (B, V).   keys, values: (layers, B, S, G, D), float16 or float32, with
    ``length`` tokens in them; those of the new ones are written behind.   starts: (B,), how many
    positions at the left of each row are padding.
    """
    B = len(ids)
    logits = np.empty((B, len(decoder.head.weight)), np.float32)
    starts = np.zeros(B, np.int64) if starts is None else integers(starts)
    _step(*decoder.arguments, integers(ids), keys.view(np.int16), values.view(np.int16), length, starts, logits)
    return logits
