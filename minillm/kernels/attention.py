"""How a call of attention becomes loops; what is computed is told in ``functional/attention.py``.

*Bounds instead of masks.* Causality, a window and left padding together leave to each query one
range of keys, and to each key one range of queries: query t stands at position S - T + t and sees
the keys

    max(start, position - behind) <= s <= min(S - 1, position + ahead)

*Tiles.* All the scores of 4,096 tokens and 8 heads fill 512 MB. A tile of them fits in the cache,
and the softmax of a row can be had tile by tile: keep the largest score m so far, and the sum l of
exp(x - m); when a later tile raises m to m', everything summed so far is multiplied by exp(m - m').
This *online softmax* (Milakov & Gimelshein 2018, arXiv:1805.02867) makes the memory O(T);
FlashAttention (Dao et al. 2022, arXiv:2205.14135) is built on it. Backward keeps no probabilities
either: p = exp(x - lse), with one number lse = m + log l stored per row.

*Layout.* Projections leave their rows as (B, T, H, D), of which the definition's (B, H, T, D) is a
view; no transpose is ever made, and gradients lie in memory as their arguments do. Arrays may be
strided views, a column block of one packed projection or a cache that has room for more keys: the
loops get the memory as one flat array, with the strides from batch row to batch row, token to token
and head to head. A query head h reads the key and value head h // (H // G).

The loops are in ``attention_tiles.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from . import attention_tiles as tiles
from .layout import contiguous, integers
from .tile import width_of

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]
Starts = np.ndarray | None
Array = np.ndarray


# ---- the kernels ---------------------------------------------------------------------------------


def attention_forward(
    q: Array, k: Array, v: Array, causal: bool, window: int, scale: float, starts: Starts = None
) -> tuple[Array, Array]:
    """See functional/attention.py."""
    dtype = q.dtype if q.dtype.char in "fd" else np.dtype(np.float32)
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))  # (B, T, H, D), (B, S, G, D)
    (B, T, H, D), (S, G) = q.shape, k.shape[1:3]
    out = np.empty(q.shape, dtype)  # in this order, so that joining the heads copies nothing
    memory, steps = _memories((q, k, v, out), dtype)
    lse = _forward(memory, _first_keys(starts, B), (B, T, S, H, G, D), steps, causal, window, scale)
    return out.swapaxes(1, 2), lse


def attention_backward(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    lse: Array,
    causal: bool,
    window: int,
    scale: float,
    starts: Starts = None,
) -> Gradients:
    """See functional/attention.py."""
    dtype = q.dtype if q.dtype.char in "fd" else np.dtype(np.float32)
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
    dq, dk, dv = (_empty_as_it_lies(x, dtype) for x in (q, k, v))
    memory, steps = _memories((x.swapaxes(1, 2) for x in (q, k, v, y, dy)), dtype)
    grads, grad_steps = _memories((x.swapaxes(1, 2) for x in (dq, dk, dv)), dtype)
    arrays, sizes = (*memory, contiguous(lse, dtype)), (B, T, S, H, G, D)
    first_keys = _first_keys(starts, B)
    _backward(arrays, grads, dq.swapaxes(1, 2), first_keys, sizes, steps, grad_steps, causal, window, scale)
    return dq, dk, dv


def self_attention_forward(qkv: Array, H: int, G: int, window: int) -> tuple[Array, Array]:
    """See functional/attention.py."""
    qkv = contiguous(qkv)
    B, T, width = qkv.shape
    D = width // (H + 2 * G)
    y = np.empty((B, T, H * D), qkv.dtype)
    memory, steps = _packed_memory(qkv, H, G)
    steps += (T * H * D, H * D, D)
    arrays, sizes = (*memory, y.reshape(-1)), (B, T, T, H, G, D)
    lse = _forward(arrays, _first_keys(None, B), sizes, steps, True, window, 1 / math.sqrt(D))
    return y, lse


def self_attention_backward(dy: Array, qkv: Array, y: Array, lse: Array, H: int, G: int, window: int) -> Array:
    """See functional/attention.py."""
    qkv = contiguous(qkv)
    dy, y, lse = contiguous(dy, qkv.dtype), contiguous(y, qkv.dtype), contiguous(lse, qkv.dtype)
    B, T, width = qkv.shape
    D = width // (H + 2 * G)
    dqkv = np.empty(qkv.shape, qkv.dtype)
    (memory, steps), (grads, grad_steps) = _packed_memory(qkv, H, G), _packed_memory(dqkv, H, G)
    steps += (T * H * D, H * D, D) * 2
    arrays, sizes = (*memory, y.reshape(-1), dy.reshape(-1), lse), (B, T, T, H, G, D)
    dq = dqkv.reshape(B, T, H + 2 * G, D)[:, :, :H]
    _backward(arrays, grads, dq, _first_keys(None, B), sizes, steps, grad_steps, True, window, 1 / math.sqrt(D))
    return dqkv


# ---- arrays as flat memory -----------------------------------------------------------------------

Steps = tuple[int, int, int]  # in numbers: from batch row to batch row, from token to token, from head to head


def _in_place(x: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the loops can use the memory of ``x`` (B, T, H, D) as it is."""
    flags = x.flags
    if x.dtype != dtype or not flags.writeable or not flags.aligned:
        return False
    if flags.c_contiguous:
        return True
    last = x.strides[3] == x.itemsize or x.shape[3] == 1
    return last and min(x.strides) >= 0 and not any(step % x.itemsize for step in x.strides)


def _memory(x: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, Steps]:
    """(B, T, H, D) -> its memory as one flat array, and its steps; a copy only where it must be."""
    if not _in_place(x, dtype):
        x = np.array(x, dtype, order="C")
    B, T, H, D = x.shape
    if x.flags.c_contiguous:
        return x.reshape(-1), (T * H * D, H * D, D)
    by_head = x.swapaxes(1, 2)
    if by_head.flags.c_contiguous:  # (B, H, T, D) in memory
        return by_head.reshape(-1), (T * H * D, D, T * D)
    size, strides = x.itemsize, x.strides
    batch, row, head = strides[0] // size, strides[1] // size, strides[2] // size
    span = (B - 1) * batch + (T - 1) * row + (H - 1) * head + D
    return np.lib.stride_tricks.as_strided(x, (span,), (size,)), (batch, row, head)


def _memories(arrays: Iterable[np.ndarray], dtype: np.dtype) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """The memory of several, and all their steps in a row."""
    flat: list[np.ndarray] = []
    steps: tuple[int, ...] = ()
    for x in arrays:
        memory, own = _memory(x, dtype)
        flat.append(memory)
        steps += own
    return flat, steps


def _empty_as_it_lies(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array for the gradient of x (B, H, T, D), its axes in memory in the order of x: no copy
    undoes a swap.
    """
    made = np.empty_like(x, dtype)
    return made if _in_place(made.swapaxes(1, 2), dtype) else np.empty(x.shape, dtype)


def _packed_memory(x: np.ndarray, H: int, G: int) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """The memory of q, k and v in (B, T, (H + 2 G) D), each from its own first number on, and their
    strides.
    """
    width = x.shape[2]
    D, flat = width // (H + 2 * G), x.reshape(-1)
    return [flat, flat[H * D :], flat[(H + G) * D :]], (x.shape[1] * width, width, D) * 3


def _first_keys(starts: Starts, B: int) -> np.ndarray:
    return np.zeros(B, np.int64) if starts is None else integers(starts)


# ---- how the work is cut -------------------------------------------------------------------------
# By the shapes alone, never by the number of threads: sums that are cut elsewhere round
# differently.


def _sight(causal: bool, window: int, most: int) -> tuple[int, int]:
    """How many keys (ahead, behind) of its own position a query sees."""
    return 0 if causal else most, window - 1 if window > 0 else most


def _block(length: int, most: int) -> int:
    """Rows per block: small ones skip more of what a causal mask hides, large ones multiply faster.
    """
    return max(32, min(most, length // 16 // 32 * 32))


def _chunks(tasks: int, work: int, block: int) -> int:
    """Into how many parts the blocks of one head are dealt out, so that few heads still keep the
    threads busy.
    """
    if work < 16 * block * block:
        return 1
    return 4 if tasks == 1 else 2 if tasks < 4 or tasks % 2 and tasks < 16 else 1


def _forward(arrays, starts, sizes, steps, causal, window, scale):
    """Fill out, the last of ``arrays``, and return lse."""
    B, T, S, H, G, D = sizes
    q, k, v, out = arrays
    lse, scale, sight = np.empty((B, H, T), q.dtype), q.dtype.type(scale), _sight(causal, window, S + T)
    if T != 1:
        height = _block(T, 256)
        chunks = _chunks(B * G, T * S, height)
        tiles.forward(chunks, q, k, v, out, lse, starts, sizes, steps, sight, scale, (width_of(D), height, 256))
        return lse
    seen = min(S, sight[1] + 1)
    parts = 1 + max(0, seen - 1) // 512
    decode = tiles.decode_alone if B * H * seen * D < 1 << 16 else tiles.decode
    if parts == 1:
        decode(B * G, q, k, v, out.reshape(1, -1), lse.reshape(1, B, H), starts, sizes, steps, sight, scale)
    else:
        outs, lses = np.empty((parts, B * H * D), q.dtype), np.empty((parts, B, H), q.dtype)
        decode(B * G * parts, q, k, v, outs, lses, starts, sizes, steps, sight, scale)
        tiles.merge(outs, lses, out, lse)
    return lse


def _backward(arrays, grads, dq, starts, sizes, steps, grad_steps, causal, window, scale):
    """Fill dq (B, T, H, D), a view of the first of ``grads``, and the two others."""
    B, T, S, H, G, D = sizes
    height, width = max(1, min(256, T)), _block(S, 128)
    chunks = _chunks(B * G, T * S, width)
    parts, dq_steps = grads[0].reshape(1, -1), grad_steps[:3]
    if chunks > 1:
        parts, dq_steps = np.empty((chunks, B * T * H * D), dq.dtype), (T * H * D, H * D, D)
    tiles.backward(chunks, *arrays, parts, grads[1], grads[2], starts, sizes, steps, (*dq_steps, *grad_steps[3:]),
                   _sight(causal, window, S + T), dq.dtype.type(scale), (width_of(D), height, width))  # fmt: skip
    if chunks > 1:
        np.sum(parts.reshape(chunks, B, T, H, D), axis=0, out=dq)
