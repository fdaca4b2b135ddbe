"""The next token in one call: all layers of a transformer for a single position, at the speed of the memory.

While a text is read, a matrix product uses each weight for many tokens. While it is written, there is one token at a
time: every weight is fetched for one multiplication, so the time of a token is the time to read the model, and
whatever comes between two layers counts. A ``Decoder`` is the model as a list of arrays, and ``decode_step`` takes a
token through all of it without coming back to Python.

``read_numpy``, the twin, says what is computed, for any number of tokens; the same mathematics as ``models/llama.py``
and ``models/gpt2.py``, in a page. The kernel below does it for one token a row (``decode_prompt.py`` for many):

* the memory addresses of all weights stand in a table, a line for each layer, through which one loop runs;
* the outputs of a matrix are dealt out to the threads in blocks, and each output is summed by one thread from its
  begin to its end: the result does not depend on the number of threads;
* a product too small for that, less than some hundred kilobytes, stays in one thread: to call in the others takes
  some microseconds, five times in each layer;
* a thread reads its block from the begin to the end, one row after the other: memory is quick when it is read in one
  long stream (two threads, int8: 26 GB/s, four neighbouring rows at a time 10). Four rows at a time have less overhead:
  they win where rows are short, and lie a quarter of the block apart, as four long streams;
* where several texts are written at once, a row is fetched once for all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from . import attention_tiles as tiles
from ._jit import JIT, address, integers, jit, kernel
from .activations import _gelu, _gelu_exact, _swiglu_row, gelu_forward, silu_forward
from .attention import attention_forward
from .decode_products import (
    BY_COLUMNS,
    BY_ROWS,
    FIELDS,
    INT8,
    KIND,
    OUTPUTS,
    SCALE,
    WEIGHT,
    codes_at,
    floats,
    product,
)
from .embedding import _rotate_row, rotary_packed_
from .linear import linear_forward
from .norm import _layer_norm_row, _rms_norm_row, layer_norm_forward, rms_norm_forward
from .quant import dequantize_row, dequantize_rows

__all__ = ["MOST_ROWS", "Decoder", "Layer", "Matrix", "Norm", "apply", "decode_step"]

MOST_ROWS = 16  # texts at once; for more, BLAS's matrix product is quicker

# ---- a model as a list of arrays -------------------------------------------------------------------------------------


class Matrix(NamedTuple):
    """A linear layer, y = x w^T + b."""

    weight: np.ndarray  # (N, C) float32, or int8 with a scale
    bias: np.ndarray | None = None  # (N,)
    scale: np.ndarray | None = None  # (N,): see quant.py
    by_columns: bool = False  # weight is (C, N), as GPT-2 stores it


class Norm(NamedTuple):
    """A layer norm, or without bias an RMS norm."""

    weight: np.ndarray  # (C,)
    bias: np.ndarray | None = None  # (C,)


class Layer(NamedTuple):
    """x = x + out(attention(qkv(norm_1(x)))),  x = x + down(activation(up(norm_2(x))))."""

    norm_1: Norm
    qkv: tuple[Matrix, ...]  # one or three, side by side: (H + 2 G) D outputs
    out: Matrix
    norm_2: Norm
    up: tuple[Matrix, ...]  # one, or gate and up
    down: Matrix


@dataclass(frozen=True, eq=False)
class Decoder:
    """All arrays and sizes of a GPT-2 or a Llama."""

    embedding: Matrix  # (V, C)
    positions: np.ndarray | None  # (context, C): added to the embeddings; None: rotary
    speeds: np.ndarray | None  # (D / 2,) float64: by which angle a pair of features turns from position to position
    layers: tuple[Layer, ...]
    norm: Norm
    head: Matrix  # (V, C)
    heads: int  # H
    kv_heads: int  # G
    head_size: int  # D
    eps: float
    activation: Literal["swiglu", "gelu", "gelu_exact"]  # of the MLP; swiglu: silu(gate) * up

    @cached_property
    def in_addresses(self) -> tuple:
        """The same for the kernel: a table of addresses, and what else `_step` wants to know."""
        C = self.norm.weight.size
        return (
            _table(self),
            np.zeros((0, C), np.float32) if self.positions is None else self.positions,
            np.zeros(0) if self.speeds is None else self.speeds,
            (self.heads, self.kv_heads, self.head_size),
            sum(matrix.weight.shape[1 if matrix.by_columns else 0] for matrix in self.layers[0].up),
            ("swiglu", "gelu", "gelu_exact").index(self.activation),
            np.float32(self.eps),
        )


def apply(x: np.ndarray, *matrices: Matrix) -> np.ndarray:
    """The outputs of matrices side by side: (..., C) -> (..., N_1 + N_2 ...); codes become floats block by block."""
    if all(matrix.scale is None for matrix in matrices):
        outputs = [linear_forward(x, m.weight.T if m.by_columns else m.weight, m.bias) for m in matrices]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)
    y = np.empty((*x.shape[:-1], sum(len(matrix.weight) for matrix in matrices)), np.float32)
    column = 0
    for codes, bias, scale, _ in matrices:
        assert scale is not None
        rows = max(1, (1 << 20) // codes.shape[1])
        room = np.empty((min(rows, len(codes)), codes.shape[1]), np.float32)
        for n in range(0, len(codes), rows):
            block = slice(n, min(n + rows, len(codes)))
            w = room[: block.stop - n]
            dequantize_rows(codes[block], scale[block], w)
            y[..., column + n : column + block.stop] = linear_forward(x, w, None if bias is None else bias[block])
        column += len(codes)
    return y


def read_numpy(
    decoder: Decoder,
    ids: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    length: int,
    starts: np.ndarray | None,
    last_only: bool = False,
) -> np.ndarray:
    """Read tokens after those whose keys and values are there, and score what follows each, or only the last.

    ids: (B, T) in [0, V) -> (B, T or 1, V) scores.

    keys, values: (layers, B, S, G, D) with ``length`` tokens in them; those of the new ones are written behind.
    starts: (B,), how many positions at the left of each row are padding.
    """
    H, G, D = decoder.heads, decoder.kv_heads, decoder.head_size
    (B, T), now = ids.shape, length + ids.shape[1]
    positions = np.arange(length, now)  # (T,)
    if starts is not None:
        positions = np.maximum(positions - starts[:, None], 0)  # (B, T)

    x = _rows(decoder.embedding, ids)  # (B, T, C)
    if decoder.positions is not None:
        x = x + decoder.positions[positions]
    for layer, k_all, v_all in zip(decoder.layers, keys, values, strict=True):
        qkv = apply(_normed(x, layer.norm_1, decoder.eps), *layer.qkv)  # (B, T, (H + 2 G) D)
        if decoder.speeds is not None:
            angles = positions[..., None] * decoder.speeds  # (T, D / 2) or (B, T, D / 2)
            cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
            rotary_packed_(qkv.reshape(B * T, -1), cos, sin, H + G, D)
        q, k, v = (part.reshape(B, T, -1, D) for part in np.split(qkv, [H * D, (H + G) * D], axis=-1))
        k_all[:, length:now], v_all[:, length:now] = k, v
        q, k, v = (part.swapaxes(1, 2) for part in (q, k_all[:, :now], v_all[:, :now]))
        y, _ = attention_forward(q, k, v, True, 0, 1 / math.sqrt(D), starts)  # (B, H, T, D)
        x = x + apply(y.swapaxes(1, 2).reshape(B, T, H * D), layer.out)
        wide = apply(_normed(x, layer.norm_2, decoder.eps), *layer.up)  # (B, T, I), or (B, T, 2 I) with a gate
        if decoder.activation == "swiglu":
            gate, up = np.split(wide, 2, axis=-1)
            active = silu_forward(gate) * up
        else:
            active = gelu_forward(wide, decoder.activation == "gelu_exact")
        x = x + apply(active, layer.down)
    return apply(_normed(x[:, -1:] if last_only else x, decoder.norm, decoder.eps), decoder.head)


def _rows(embedding: Matrix, ids: np.ndarray) -> np.ndarray:
    rows = embedding.weight[ids]
    return rows if embedding.scale is None else rows * embedding.scale[ids][..., None]


def _normed(x: np.ndarray, norm: Norm, eps: float) -> np.ndarray:
    if norm.bias is None:
        return rms_norm_forward(x, norm.weight, eps)[0]
    return layer_norm_forward(x, norm.weight, norm.bias, eps)[0]


def decode_step_numpy(
    decoder: Decoder, ids: np.ndarray, keys: np.ndarray, values: np.ndarray, length: int, starts: np.ndarray | None
) -> np.ndarray:
    """``read_numpy`` one token of each row: ids (B,) in [0, V) -> (B, V), the scores of the next."""
    return np.ascontiguousarray(read_numpy(decoder, ids[:, None], keys, values, length, starts)[:, 0])


# ---- the table of addresses ------------------------------------------------------------------------------------------
# A line for each layer: norm_1, qkv (up to three matrices), out, norm_2, up (up to two), down. In the last line norm_1
# is the last norm, the first matrix the head and the second one the embedding.

NORM_1, QKV, OUT, NORM_2, UP, DOWN, LINE = 0, 2, 17, 22, 24, 34, 39
SWIGLU, GELU, GELU_EXACT = range(3)  # activations


def _address(array: np.ndarray | None, dtype: Any = np.float32) -> int:
    if array is None:
        return 0
    if array.dtype != dtype or not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(f"decode_step: expected contiguous arrays of {np.dtype(dtype)}; got {array.dtype}")
    return address(array)


def _matrix_fields(matrices: tuple[Matrix, ...], room: int) -> list[int]:
    fields: list[int] = []
    for weight, bias, scale, by_columns in matrices:
        kind = BY_COLUMNS if by_columns else BY_ROWS if scale is None else INT8
        at = _address(weight, np.int8 if kind == INT8 else np.float32)
        fields += [kind, at, _address(scale), _address(bias), weight.shape[1 if by_columns else 0]]
    return fields + [0] * (FIELDS * room - len(fields))


def _table(decoder: Decoder) -> np.ndarray:
    lines = []
    for norm_1, qkv, out, norm_2, up, down in decoder.layers:
        line = [*map(_address, norm_1), *_matrix_fields(qkv, 3), *_matrix_fields((out,), 1)]
        lines.append([*line, *map(_address, norm_2), *_matrix_fields(up, 2), *_matrix_fields((down,), 1)])
    last = [*map(_address, decoder.norm), *_matrix_fields((decoder.head, decoder.embedding), 3)]
    return np.array([*lines, last + [0] * (LINE - len(last))], np.int64)


# ---- the step --------------------------------------------------------------------------------------------------------


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
        dequantize_row(codes_at(entry[WEIGHT], size)[at : at + x.size], scale[id], x)
    else:
        copy(floats(entry[WEIGHT], size)[at : at + x.size], x)


@jit(inner=True)
def _activate(wide, activation, y):
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
def _attend(qkv, keys, values, starts, now, H, G, D, out):
    # one query a row; keys, values: (B, S, G, D), ``now`` of them
    B, S = keys.shape[:2]
    lse, parts = np.empty((B, H, 1), np.float32), 1 + (now - 1) // 512
    q, k, v = qkv.reshape(-1), keys.reshape(-1), values.reshape(-1)
    width, G_D, H_D = qkv.shape[1], G * D, H * D
    steps = (width, width, D, S * G_D, G_D, D, S * G_D, G_D, D, H_D, H_D, D)
    sizes, sight, scale = (B, 1, now, H, G, D), (0, now), np.float32(1 / math.sqrt(D))
    if parts == 1:
        outs, lses = out.reshape(1, B * H_D), lse.reshape(1, B, H)
    else:
        outs, lses = np.empty((parts, B * H_D), np.float32), np.empty((parts, B, H), np.float32)
    if B * H * now * D < 1 << 16:
        tiles.decode_alone(B * G * parts, q, k, v, outs, lses, starts, sizes, steps, sight, scale)
    else:
        tiles.decode(B * G * parts, q, k, v, outs, lses, starts, sizes, steps, sight, scale)
    if parts > 1:
        tiles.merge(outs, lses, out.reshape(-1), lse)


@jit(inner=True)
def room_of_layer(B, C, sizes, width, activation):
    """Where a layer puts what it computes of one token a row: h, qkv, heads, wide, active (for kernels)."""
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
    """The rest of a layer for one token a row; x (B, C) is its input and its output (for kernels)."""
    (H, G, D), (h, qkv, heads, wide, active) = sizes, room
    _attend(qkv, keys, values, starts, now, H, G, D, heads)
    product(line[OUT:NORM_2], heads, x, True)  # x = x + out(attention)
    norm_rows(x, line[NORM_2], line[NORM_2 + 1], eps, h)
    product(line[UP:DOWN], h, wide, False)
    _activate(wide, activation, active)
    product(line[DOWN:LINE], active, x, True)  # x = x + down(active)


@jit(inner=True)
def score(last, eps, x, h, logits):
    """logits (B, V) of the last norm and the head, in the last line of the table, for x (B, C) (for kernels)."""
    norm_rows(x, last[NORM_1], last[NORM_1 + 1], eps, h)
    product(last[QKV : QKV + FIELDS], h, logits, False)


@jit(inner=True)
def begin_row(entry, id, position, positions, speeds, x, cos, sin):
    """What a token is before the first layer, x (C,), and the angles of its position (for kernels)."""
    embed(entry, id, x)
    if positions.shape[0]:
        _add_into(x, positions[position])
    for j in range(speeds.size):
        angle = position * speeds[j]
        cos[j], sin[j] = np.float32(math.cos(angle)), np.float32(math.sin(angle))


@jit(inner=True)
def turn_and_keep(qkv, cos, sin, key, value, H, G, D):
    """Rotate the queries and keys of a token, and put its keys and values (G, D) into the cache (for kernels)."""
    if cos.size:
        _rotate_row(qkv, cos, sin, H + G)
    copy(qkv[H * D : (H + G) * D], key.reshape(G * D))
    copy(qkv[(H + G) * D :], value.reshape(G * D))


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


@kernel(twin=decode_step_numpy)
def decode_step(  # noqa: D103
    decoder: Decoder, ids: np.ndarray, keys: np.ndarray, values: np.ndarray, length: int, starts: np.ndarray | None
) -> np.ndarray:
    if not JIT:
        return decode_step_numpy(decoder, ids, keys, values, length, starts)
    B = len(ids)
    logits = np.empty((B, len(decoder.head.weight)), np.float32)
    starts = np.zeros(B, np.int64) if starts is None else integers(starts)
    _step(*decoder.in_addresses, integers(ids), keys, values, length, starts, logits)
    return logits
