"""Attention of one token of each text to the keys and values in the cache, which are read once.

After a long text they are more to read than the model: with 8,000 tokens, SmolLM2's 135 million
weights of four and a half bits are 85 MB, its keys and values 184 MB in float16. So

* a task is a part of the tokens with all their heads, which lie side by side: a thread reads one
  long stream, whatever the number of heads;
* some tokens at a time become floats in the nearest cache, and all query heads that share a key
  head use them there;
* the parts are put together at the end, each weighed by the sum of its exponentials. They are cut
  by the length of the text alone: the result does not depend on the number of threads.

Keys and values lie as ``models/base.py`` keeps them, in float16 or float32. Both are arrays of
int16 to the loops, one or two for a number, so that each is one program.
"""

from __future__ import annotations

import math

import numpy as np

from .. import attention_tiles as tiles
from .._jit import jit, prange
from ..vector_math import row_max
from ..vectors import exponentials, fill, scale_by, scaled, subtract, sum_of
from .halves import floats_to_halves, halves_to_floats
from .products import _by_columns, _row_sums, _unowned

_BLOCK = 16  # tokens whose keys are floats in the nearest cache
_PART = 256  # tokens of a task, at most
_SERIAL = 1 << 16  # multiplications that one thread has done before a second one is awake


@jit(inner=True)
def keep(x, words):
    """Put the floats x into the cache: words (x.size or 2 x.size,) int16 (for kernels)."""
    if words.size == x.size:
        floats_to_halves(x, words)
    else:
        y = words.view(np.float32)
        for j in range(x.size):
            y[j] = x[j]


@jit(inner=True)
def kept(words, first, tokens, G, D, x):
    """x = the heads of some tokens of the cache as floats, head by head: words (S, G, 1 or 2 D) ->
    x flat (G, tokens, D) (for kernels).
    """
    flat = words.reshape(-1)
    for s in range(tokens):
        for g in range(G):
            at, to = ((first + s) * G + g) * D, (g * tokens + s) * D
            if words.shape[2] == D:
                halves_to_floats(flat, at, D, x, to)  # type: ignore[call-arg]
            else:
                row = flat[2 * at : 2 * (at + D)].view(np.float32)
                for j in range(D):
                    x[to + j] = row[j]


@jit(inner=True)
def _attend_part(q, keys, values, lo, hi, sizes, out, lse):
    # the queries (H D) of a token over the keys [lo, hi) of its text; out (H D), lse (H). x: blocks of scores (H, m),
    # one after another; w: the keys or values of a block (G, m, D)
    (H, G, D), n, none = sizes, hi - lo, q[:0]
    R, memory = H // G, np.empty((2 + n) * H + _BLOCK * G * D, np.float32)
    top, total = memory[:H], memory[H : 2 * H]  # which keep the memory alive
    x, w = _unowned(memory[2 * H : (2 + n) * H]), _unowned(memory[(2 + n) * H :])
    fill(top, -np.inf)
    fill(total, 0.0)
    fill(out, 0.0)
    for i in range(0, n, _BLOCK):
        m = min(_BLOCK, n - i)
        kept(keys, lo + i, m, G, D, w)
        for g in range(G):
            first = g * R
            _row_sums(w[g * m * D : (g + 1) * m * D], m, q[first * D : (first + R) * D], D,
                      x[i * H + first * m : i * H + (first + R) * m])  # fmt: skip
        for h in range(H):
            top[h] = max(top[h], row_max(x[i * H + h * m : i * H + (h + 1) * m]))
    for i in range(0, n, _BLOCK):
        m = min(_BLOCK, n - i)
        scores = x[i * H : (i + m) * H]
        for h in range(H):
            subtract(scores[h * m : (h + 1) * m], top[h])
        exponentials(scores)
        for h in range(H):
            total[h] += sum_of(scores[h * m : (h + 1) * m])
        kept(values, lo + i, m, G, D, w)
        for g in range(G):
            p = scores[g * R * m : (g + 1) * R * m].reshape(R, m)
            _by_columns(w[g * m * D : (g + 1) * m * D], D, none, 0, D, p, out[g * R * D : (g + 1) * R * D].reshape(R, D),
                        0, True)  # fmt: skip
    for h in range(H):
        lse[h] = top[h] + np.log(total[h])
        if total[h] > 0:
            scale_by(out[h * D : (h + 1) * D], np.float32(1) / total[h])


@jit(inner=True)
def _task(task, q, keys, values, starts, now, sizes, outs, lses):
    parts = outs.shape[0]
    b, part = task // parts, task % parts
    hi = (part + 1) * now // parts
    lo = min(hi, max(starts[b], part * now // parts))
    _attend_part(q[b], keys[b], values[b], lo, hi, sizes, outs[part, b], lses[part, b])


@jit(parallel=True)
def _tasks(tasks, q, keys, values, starts, now, sizes, outs, lses):
    for task in prange(tasks):
        _task(np.int64(task), q, keys, values, starts, now, sizes, outs, lses)


@jit(inner=True)
def attend(qkv, keys, values, starts, now, sizes, out):
    """out (B, H D) = the attention of the queries in qkv (B, (H + 2 G) D) to the first ``now``
    tokens of the cache (for kernels).

    keys, values: (B, S, G, 1 or 2 D) int16. starts: (B,), tokens before are padding.
    """
    (H, G, D), B = sizes, keys.shape[0]
    alone = B * H * now * D < _SERIAL
    parts = 1 if alone else 2 * ((now + 2 * _PART - 1) // (2 * _PART))  # an even number: most machines have
    q, scale = np.empty((B, H * D), np.float32), np.float32(1 / math.sqrt(D))
    for b in range(B):
        scaled(qkv[b, : H * D], scale, q[b])
    outs, lses = np.empty((parts, B, H * D), np.float32), np.empty((parts, B, H), np.float32)
    if alone:
        for b in range(B):
            _task(b, q, keys, values, starts, now, sizes, outs, lses)
    else:
        _tasks(B * parts, q, keys, values, starts, now, sizes, outs, lses)
    tiles.merge(outs.reshape(parts, B * H * D), lses, out.reshape(-1), np.empty((B, H, 1), np.float32))
