"""Attention: every query takes the mean of the values, weighted by how well their keys match it.

    out_t = sum_s p_ts v_s,    p_ts = exp(x_ts) / sum_s' exp(x_ts'),    x_ts = scale * (q_t . k_s)

*Why scale = 1/sqrt(D).* When the entries of q and k are independent with variance 1, q . k is a sum of D products of
variance 1: its variance is D. Scores of standard deviation sqrt(D) would make the softmax pick one key nearly alone,
and its gradient nearly zero; divided by sqrt(D), they have variance 1 whatever the head size.

*Who sees whom.* A causal query sees no later key, or predicting the next token would be copying it. A window hides the
keys that are too long ago, and left padding the keys before ``starts[b]``. All three together leave to each query one
range of keys, and to each key one range of queries, so that the loops below have bounds instead of masks: query t
stands at position S - T + t (with a cache of earlier keys, T < S) and sees the keys

    max(start, position - behind) <= s <= min(S - 1, position + ahead)

*Why tiles.* All the scores of 4,096 tokens and 8 heads fill 512 MB. A tile of them fits in the cache, and the softmax
of a row can be had tile by tile: keep the largest score m so far, and the sum l of exp(x - m); when a later tile raises
m to m', everything summed so far is multiplied by exp(m - m'). This *online softmax* (Milakov & Gimelshein 2018,
arXiv:1805.02867) makes the memory O(T); FlashAttention (Dao et al. 2022, arXiv:2205.14135) is built on it. Backward
keeps no probabilities either: p = exp(x - lse), with one number lse = m + log l stored per row.

Layout: q (B, T, H, D), k and v (B, S, G, D), as the projections leave them, and no transpose is ever made; a query head
h reads the key and value head h // (H // G) (grouped heads, Ainslie et al. 2023, arXiv:2305.13245). Arrays may be
strided views, a column block of one packed projection or a cache that has room for more keys: the kernels get the
memory as one flat array, with the steps from batch row to batch row, token to token and head to head.

Here is what is computed, and how a call becomes one; the loops are in ``attention_tiles.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from . import attention_tiles as tiles
from ._jit import JIT, contiguous, integers, kernel
from .tile import width_of

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]
Starts = np.ndarray | None

# ---- the text to read ------------------------------------------------------------------------------------------------


def visible_numpy(B: int, T: int, S: int, causal: bool, window: int, starts: Starts = None) -> np.ndarray:
    """Which keys each query sees: (B, 1, T, S) booleans.

    >>> visible_numpy(1, 2, 4, causal=True, window=2)[0, 0].astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 1, 1]])
    """
    t = S - T + np.arange(T)[:, None]  # (T, 1), the queries' positions: they are the last T of S
    s = np.arange(S)  # (S,)
    seen = np.ones((T, S), bool)
    if causal:
        seen &= s <= t
    if window > 0:
        seen &= s > t - window
    start = np.zeros(B, int) if starts is None else np.asarray(starts)
    return seen & (s >= start[:, None, None, None])


def _by_head(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, S, G, D) -> (B, H, S, D); each of the G heads serves H // G query heads."""
    return np.repeat(x.swapaxes(1, 2), heads // x.shape[2], axis=1)


def attention_forward_numpy(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    causal: bool,
    window: int = 0,
    scale: float,
    starts: Starts = None,
) -> tuple[np.ndarray, np.ndarray]:
    """out = softmax(scale * q k^T + mask) v for each batch row and head, and the log-sum-exp of the scores.

    q: (B, T, H, D), k, v: (B, S, G, D) -> out: (B, T, H, D), lse: (B, H, T).  With ``causal``, query t sees the keys
    up to its own position S - T + t; with ``window`` > 0 only the latest ``window`` of them; keys before ``starts[b]``
    are hidden. A query that sees nothing gives 0, and lse = -inf.
    """
    _check("attention_forward", q, k, v, starts)
    (B, T, H, _), S = q.shape, k.shape[1]
    q = q.swapaxes(1, 2)  # (B, H, T, D)
    k, v = _by_head(k, H), _by_head(v, H)  # (B, H, S, D)
    x = q @ k.swapaxes(-1, -2) * q.dtype.type(scale)  # (B, H, T, S)
    x = np.where(visible_numpy(B, T, S, causal, window, starts), x, -np.inf).astype(q.dtype)

    m = x.max(axis=-1, keepdims=True, initial=-np.inf)  # (B, H, T, 1)
    m[m == -np.inf] = 0  # a row that sees nothing: exp(-inf - 0) = 0, where exp(-inf - -inf) would be NaN
    p = np.exp(x - m)  # subtracting the largest leaves the quotient as it is, and nothing overflows
    l = p.sum(axis=-1, keepdims=True)  # noqa: E741
    with np.errstate(divide="ignore"):
        lse = (m + np.log(l))[..., 0]  # (B, H, T)
    out = p / np.where(l > 0, l, 1) @ v  # (B, H, T, D)
    return np.ascontiguousarray(out.swapaxes(1, 2)), lse


def attention_backward_numpy(
    dout: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    *,
    causal: bool,
    window: int = 0,
    scale: float,
    starts: Starts = None,
    into: Gradients | None = None,
) -> Gradients:
    """Gradients of ``attention_forward``; ``into`` gives the arrays that receive them.

    dout, out: (B, T, H, D), lse: (B, H, T) -> dq: (B, T, H, D), dk, dv: (B, S, G, D).

    out = p v          ->  dv = p^T dout,  dp = dout v^T
    p = softmax(x)     ->  dx = p * (dp - delta),  delta_t = sum_s p_ts dp_ts = dout_t . out_t
    x = scale * q k^T  ->  dq = scale * dx k,  dk = scale * dx^T q
    """
    _check("attention_backward", q, k, v, starts)
    (B, T, H, D), (S, G) = q.shape, k.shape[1:3]
    q_, k_, v_ = q.swapaxes(1, 2), _by_head(k, H), _by_head(v, H)  # (B, H, T or S, D)
    dout_ = dout.swapaxes(1, 2)
    seen = visible_numpy(B, T, S, causal, window, starts) & (lse > -np.inf)[..., None]
    x = q_ @ k_.swapaxes(-1, -2) * q.dtype.type(scale)
    p = np.exp(np.where(seen, x - np.where(lse > -np.inf, lse, 0)[..., None], -np.inf)).astype(q.dtype)  # (B, H, T, S)

    dp = dout_ @ v_.swapaxes(-1, -2)
    delta = (dout * out).sum(axis=-1).swapaxes(1, 2)[..., None]  # (B, H, T, 1)
    dx = p * (dp - delta) * q.dtype.type(scale)
    dq = (dx @ k_).swapaxes(1, 2)
    # a key and value head adds up what its H // G query heads send back
    dk = (dx.swapaxes(-1, -2) @ q_).reshape(B, G, H // G, S, D).sum(axis=2).swapaxes(1, 2)
    dv = (p.swapaxes(-1, -2) @ dout_).reshape(B, G, H // G, S, D).sum(axis=2).swapaxes(1, 2)
    if into is None:
        return np.ascontiguousarray(dq), np.ascontiguousarray(dk), np.ascontiguousarray(dv)
    for target, gradient in zip(into, (dq, dk, dv), strict=True):
        target[...] = gradient
    return into


def _unpack(qkv: np.ndarray, H: int, G: int) -> Gradients:
    """(B, T, (H + 2 G) D) -> views q (B, T, H, D), k and v (B, T, G, D)."""
    _check_packed(qkv, H, G)
    B, T, width = qkv.shape
    qkv = qkv.reshape(B, T, H + 2 * G, width // (H + 2 * G))
    return qkv[:, :, :H], qkv[:, :, H : H + G], qkv[:, :, H + G :]


def attention_packed_forward_numpy(
    qkv: np.ndarray, H: int, G: int, causal: bool, window: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """``attention_forward`` of one projection that holds the columns of q, then k, then v.

    qkv: (B, T, (H + 2 G) D) -> out: (B, T, H D), lse: (B, H, T)
    """
    q, k, v = _unpack(qkv, H, G)
    out, lse = attention_forward_numpy(q, k, v, causal=causal, window=window, scale=scale)
    return out.reshape(*out.shape[:2], -1), lse


def attention_packed_backward_numpy(
    dout: np.ndarray,
    qkv: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    H: int,
    G: int,
    causal: bool,
    window: int,
    scale: float,
) -> np.ndarray:
    """Gradient of ``attention_packed_forward``: dqkv, of the shape of ``qkv``."""
    q, k, v = _unpack(qkv, H, G)
    dqkv = np.empty(qkv.shape, qkv.dtype)
    attention_backward_numpy(dout.reshape(q.shape), q, k, v, out.reshape(q.shape), lse,
                             causal=causal, window=window, scale=scale, into=_unpack(dqkv, H, G))  # fmt: skip
    return dqkv


# ---- arrays as flat memory -------------------------------------------------------------------------------------------

Steps = tuple[int, int, int]  # in numbers: from batch row to batch row, from token to token, from head to head


def _in_place(x: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the kernels can use the memory of ``x`` (B, T, H, D) as it is."""
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


def _check(name: str, q: np.ndarray, k: np.ndarray, v: np.ndarray, starts: Starts) -> tuple[np.dtype, np.ndarray]:
    """The dtype to compute in, and ``starts`` as the kernels want it."""
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"{name}: expected q (B, T, H, D), k and v (B, S, G, D); got {q.shape}, {k.shape}, {v.shape}")
    if k.shape[2] == 0 or q.shape[2] % k.shape[2]:
        heads = f"{q.shape[2]} and {k.shape[2]}"
        raise ValueError(f"{name}: the query heads must be a multiple of the key heads; got {heads}")
    starts = np.zeros(len(q), np.int64) if starts is None else integers(starts)
    if starts.shape != (len(q),):
        raise ValueError(f"{name}: starts must be (B,) = ({len(q)},) integers; got shape {starts.shape}")
    return q.dtype if q.dtype.char in "fd" else np.dtype(np.float32), starts


def _check_packed(qkv: np.ndarray, H: int, G: int) -> None:
    if qkv.ndim != 3 or G < 1 or H % G or qkv.shape[2] % (H + 2 * G):
        raise ValueError(f"attention_packed: expected (B, T, (H + 2 G) D) with H = {H}, G = {G}; got {qkv.shape}")


def _packed_memory(x: np.ndarray, H: int, G: int) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """The memory of q, k and v in (B, T, (H + 2 G) D), each from its own first number on, and their steps."""
    width = x.shape[2]
    D, flat = width // (H + 2 * G), x.reshape(-1)
    return [flat, flat[H * D :], flat[(H + G) * D :]], (x.shape[1] * width, width, D) * 3


# ---- how the work is cut ---------------------------------------------------------------------------------------------
# By the shapes alone, never by the number of threads: sums that are cut elsewhere round differently.


def _sight(causal: bool, window: int, most: int) -> tuple[int, int]:
    """How many keys (ahead, behind) of its own position a query sees."""
    return 0 if causal else most, window - 1 if window > 0 else most


def _block(length: int, most: int) -> int:
    """Rows per block: small ones skip more of what a causal mask hides, large ones multiply faster."""
    return max(32, min(most, length // 16 // 32 * 32))


def _chunks(tasks: int, work: int, block: int) -> int:
    """Into how many parts the blocks of one head are dealt out, so that few heads still keep the threads busy."""
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


# ---- the kernels -----------------------------------------------------------------------------------------------------


@kernel(twin=attention_forward_numpy)
def attention_forward(  # noqa: D103
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    causal: bool,
    window: int = 0,
    scale: float,
    starts: Starts = None,
) -> tuple[np.ndarray, np.ndarray]:
    if not JIT:
        return attention_forward_numpy(q, k, v, causal=causal, window=window, scale=scale, starts=starts)
    dtype, starts = _check("attention_forward", q, k, v, starts)
    (B, T, H, D), (S, G) = q.shape, k.shape[1:3]
    out = np.empty(q.shape, dtype)
    memory, steps = _memories((q, k, v, out), dtype)
    lse = _forward(memory, starts, (B, T, S, H, G, D), steps, causal, window, scale)
    return out, lse


@kernel(twin=attention_backward_numpy)
def attention_backward(  # noqa: D103
    dout: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    *,
    causal: bool,
    window: int = 0,
    scale: float,
    starts: Starts = None,
    into: Gradients | None = None,
) -> Gradients:
    options: dict[str, Any] = {"causal": causal, "window": window, "scale": scale}
    if not JIT:
        return attention_backward_numpy(dout, q, k, v, out, lse, **options, starts=starts, into=into)
    dtype, starts = _check("attention_backward", q, k, v, starts)
    (B, T, H, D), (S, G) = q.shape, k.shape[1:3]
    grads = into or (np.empty(q.shape, dtype), np.empty(k.shape, dtype), np.empty(v.shape, dtype))
    inside = [x if _in_place(x, dtype) else np.empty(x.shape, dtype) for x in grads]
    memory, steps = _memories((q, k, v, out, dout), dtype)
    grad_memory, grad_steps = _memories(inside, dtype)
    sizes, lse = (B, T, S, H, G, D), contiguous(lse, dtype)
    _backward((*memory, lse), grad_memory, inside[0], starts, sizes, steps, grad_steps, **options)
    for x, gradient in zip(grads, inside, strict=True):
        if x is not gradient:
            x[...] = gradient
    return grads


@kernel(twin=attention_packed_forward_numpy)
def attention_packed_forward(  # noqa: D103
    qkv: np.ndarray, H: int, G: int, causal: bool, window: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    if not JIT:
        return attention_packed_forward_numpy(qkv, H, G, causal, window, scale)
    _check_packed(qkv, H, G)
    qkv = contiguous(qkv)
    B, T, width = qkv.shape
    D = width // (H + 2 * G)
    out, starts = np.empty((B, T, H * D), qkv.dtype), np.zeros(B, np.int64)
    memory, steps = _packed_memory(qkv, H, G)
    steps += (T * H * D, H * D, D)
    lse = _forward((*memory, out.reshape(-1)), starts, (B, T, T, H, G, D), steps, causal, window, scale)
    return out, lse


@kernel(twin=attention_packed_backward_numpy)
def attention_packed_backward(  # noqa: D103
    dout: np.ndarray,
    qkv: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    H: int,
    G: int,
    causal: bool,
    window: int,
    scale: float,
) -> np.ndarray:
    if not JIT:
        return attention_packed_backward_numpy(dout, qkv, out, lse, H, G, causal, window, scale)
    _check_packed(qkv, H, G)
    qkv = contiguous(qkv)
    dout, out, lse = contiguous(dout, qkv.dtype), contiguous(out, qkv.dtype), contiguous(lse, qkv.dtype)
    B, T, width = qkv.shape
    D = width // (H + 2 * G)
    dqkv, starts = np.empty(qkv.shape, qkv.dtype), np.zeros(B, np.int64)
    (memory, steps), (grads, grad_steps) = _packed_memory(qkv, H, G), _packed_memory(dqkv, H, G)
    steps += (T * H * D, H * D, D) * 2
    arrays = *memory, out.reshape(-1), dout.reshape(-1), lse
    dq = dqkv.reshape(B, T, H + 2 * G, D)[:, :, :H]
    sizes = B, T, T, H, G, D
    _backward(arrays, grads, dq, starts, sizes, steps, grad_steps, causal, window, scale)
    return dqkv
