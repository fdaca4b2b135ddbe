"""The operations that layers are made of: linear, normalisation, embedding, dropout, rotary positions, attention.

Forward, then the chain rule, on one screen each. The arithmetic is in ``kernels``; its NumPy twins there spell it out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from .. import kernels
from ..tensor import Tensor, floats, operand
from .activations import gelu, softmax
from .checks import check_gelu, check_ids
from .elementwise import where


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, by_columns: bool = False) -> Tensor:
    """Project ``x`` into another space: every output is a weighted sum of the inputs, one neuron each.

    x: (..., C_in), weight: (C_out, C_in), bias: (C_out,) -> y: (..., C_out).
    y = x W^T + b;   dx = dy W,   dW = dy^T x,   db = sum of dy over all rows
    by_columns: the weight is stored the other way round, (C_in, C_out): y = x W + b.
    Raises ValueError when the widths do not agree.
    """
    if by_columns:
        weight = weight.T
    a, w = floats(x), weight.data
    _check_linear("linear", a.shape, weight, bias)
    y = kernels.linear_forward(a, w, None if bias is None else bias.data)  # (..., C_out)
    needs = x.requires_grad, weight.requires_grad, bias is not None

    def backward(dy):  # (..., C_out)
        # y = x @ w.T + b  ->  dx = dy @ w,  dw = dy.T @ x,  db = sum of rows
        dx, dw, db = kernels.linear_backward(dy, a, w, False, *needs)
        return (dx, dw) if bias is None else (dx, dw, db)

    return Tensor.from_op(y, (x, weight) if bias is None else (x, weight, bias), backward)


def _check_linear(name: str, shape: tuple[int, ...], weight: Tensor, bias: Tensor | None) -> None:
    outputs, inputs = weight.shape if weight.ndim == 2 else (-1, -1)
    if not shape or shape[-1] != inputs:
        raise ValueError(
            f"{name}: weight must be (C_out, C_in) with C_in = {shape[-1] if shape else '?'}, the width of x; "
            f"got weight {weight.shape} for x {shape}"
        )
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"{name}: bias must be (C_out,) = {(outputs,)}; got {bias.shape}")


def joint_linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor] | None = None) -> Tensor:
    """Several linear layers of one input at once, their outputs side by side.

    x: (..., C), weights: [(N_1, C), (N_2, C), ...] -> y: (..., N_1 + N_2 + ...).
    y_i = x W_i^T + b_i;   dx = sum_i dy_i W_i,   dW_i = dy_i^T x,   db_i = sum of dy_i over all rows
    Equal to ``concatenate([linear(x, w) for w in weights], axis=-1)``, without the copies: queries, keys and values,
    or gate and up, leave as one array.
    """
    a, ws = x.data, [w.data for w in weights]
    for w in ws:
        if w.ndim != 2 or w.shape[1] != a.shape[-1]:
            raise ValueError(f"joint_linear: every weight must be (N, {a.shape[-1]}) for x {a.shape}; got {w.shape}")
    if biases is not None and [b.shape for b in biases] != [w.shape[:1] for w in ws]:
        raise ValueError(f"joint_linear: biases must be {[w.shape[:1] for w in ws]}; got {[b.shape for b in biases]}")
    y = kernels.joint_linear_forward(a, ws, None if biases is None else [b.data for b in biases])
    x_needs = x.requires_grad

    def backward(dy):
        dx, dws, db = kernels.joint_linear_backward(dy, a, ws, x_needs, biases is not None)
        if db is None:
            return (dx, *dws)
        ends = np.cumsum([len(w) for w in ws])
        return (dx, *dws, *(part.copy() for part in np.split(db, ends[:-1])))

    return Tensor.from_op(y, (x, *weights, *(biases or ())), backward)


def mlp(
    x: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    approximate: str = "tanh",
    by_columns: bool = False,
) -> Tensor:
    """Two linear layers with a gelu between, to a wider space and back (Vaswani et al. 2017, section 3.3).

    y = gelu(x W1^T + b1) W2^T + b2;   x: (..., C), up W1: (I, C), b1: (I,), down W2: (N, I), b2: (N,) -> y: (..., N).
    """
    return linear(gelu(linear(x, up, up_bias, by_columns), approximate), down, down_bias, by_columns)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Bring every row to mean 0 and variance 1, then scale and shift it (Ba et al. 2016).

    x: (..., C), weight, bias: (C,) -> (..., C).
    x^ = (x - mean) r,  r = 1 / sqrt(var + eps),  y = w x^ + b
    dx = r (g - mean g - x^ mean(g x^))  with g = w dy;   dw = sum dy x^,  db = sum dy
    """
    _check_norm("layer_norm", x, weight, bias)
    shift = None if bias is None else bias.data
    y, mean, rstd = kernels.layer_norm_forward(x.data, weight.data, shift, eps)
    a, w = x.data, weight.data

    def backward(dy):
        dx, dw, db = kernels.layer_norm_backward(dy, a, w, mean, rstd)
        return (dx, dw) if bias is None else (dx, dw, db)

    return Tensor.from_op(y, (x, weight) if bias is None else (x, weight, bias), backward)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Divide every row by its root mean square, then scale it (Zhang & Sennrich 2019).

    x: (..., C), weight: (C,) -> (..., C).
    y = w x r,  r = 1 / sqrt(mean x^2 + eps);   dx = r (g - x r^2 mean(g x))  with g = w dy;   dw = sum dy x r
    """
    _check_norm("rms_norm", x, weight, None)
    y, rstd = kernels.rms_norm_forward(x.data, weight.data, eps)
    a, w = x.data, weight.data

    def backward(dy):
        return kernels.rms_norm_backward(dy, a, w, rstd)

    return Tensor.from_op(y, (x, weight), backward)


def _check_norm(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    for part, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.shape != x.shape[-1:]:
            raise ValueError(f"{name}: {part} must have the shape of x's last axis, {x.shape[-1:]}; got {t.shape}")


def embedding(weight: Tensor, ids: Any) -> Tensor:
    """Look up a row for each id: a linear layer whose input is one-hot, without the multiplications by zero.

    weight: (V, C), ids: (...) integers -> y: (..., C).
    y = weight[id];   dweight[id] += dy: an id that occurs twice gets the sum of both gradients.
    Raises ValueError for ids that are not integers in [0, V).
    """
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ValueError(f"embedding: weight must be a Tensor (V, C), and stand before the ids; got {weight!r}")
    ids = check_ids("embedding", ids, len(weight))
    vocabulary = len(weight)

    def backward(dy):
        return (kernels.embedding_backward(dy, ids, vocabulary),)

    return Tensor.from_op(kernels.embedding_forward(weight.data, ids), (weight,), backward)


def dropout(x: Tensor, p: float, rng: np.random.Generator | None = None, training: bool = True) -> Tensor:
    """Set a random share ``p`` of the entries to zero and scale up the rest, while training (Srivastava et al. 2014).

    y = x m / (1 - p), m ~ Bernoulli(1 - p);   dx = dy m / (1 - p).   x: (...) -> (...)
    Divided by 1 - p, so that the mean of every entry stays what it was, and nothing need be done when not training.
    Raises ValueError unless 0 <= p < 1.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1); got {p}")
    if not training or p == 0:
        return x
    a = floats(x)
    draw = np.random.default_rng(rng).random(x.shape, dtype=np.float32)
    keep = (draw >= p).astype(a.dtype) * a.dtype.type(1 / (1 - p))

    def backward(dy):
        return (dy * keep,)

    return Tensor.from_op(a * keep, (x,), backward)


def rotary_embedding(x: Tensor, cos: np.ndarray, sin: np.ndarray) -> Tensor:
    """Turn each pair of features by an angle that grows with the position (Su et al. 2021).

    x: (B, H, T, D), cos, sin: (T, D / 2) or (B, T, D / 2) -> (B, H, T, D); feature i is paired with i + D / 2.
    (y1, y2) = (x1 cos - x2 sin, x2 cos + x1 sin);   (dx1, dx2) = (dy1 cos + dy2 sin, dy2 cos - dy1 sin), turned back.
    A rotation of q by t and of k by s leaves q . k depending on t - s alone: attention sees distances.
    """
    half = x.shape[-1] // 2
    cos, sin = (np.asarray(table, dtype=x.dtype) for table in (cos, sin))
    if x.shape[-1] % 2 or cos.shape[-2:] != (x.shape[-2], half) or cos.shape != sin.shape:
        raise ValueError(
            f"rotary_embedding: cos and sin must be (T, D / 2) = {(x.shape[-2], half)} for x {x.shape} (D even); "
            f"got {cos.shape} and {sin.shape}"
        )
    if cos.ndim == 3:  # (B, T, D / 2): rows that begin at different positions
        cos, sin = cos[:, None], sin[:, None]

    def turn(a: np.ndarray, sine: np.ndarray) -> np.ndarray:
        first, second = a[..., :half], a[..., half:]
        return np.concatenate([first * cos - second * sine, second * cos + first * sine], axis=-1)

    def backward(dy):
        return (turn(dy, -sin),)

    return Tensor.from_op(turn(x.data, sin), (x,), backward)


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    window: int | None = None,
    mask: Any = None,
    scale: float | None = None,
    starts: np.ndarray | None = None,
) -> Tensor:
    """Let every query look at the keys and take home a mean of the values, weighted by likeness (Vaswani et al. 2017).

    q: (B, H, T, D), k, v: (B, G, S, D), H a multiple of G -> (B, H, T, D).
    y = p v,  p = softmax(q k^T scale + mask),  scale = 1 / sqrt(D) unless given: a dot product of D independent terms
    has variance D, and without the division softmax would start almost one-hot, with hardly a gradient.
    dv = p^T dy,   ds = p (dp - sum_s p dp)  with dp = dy v^T,   dq = scale ds k,   dk = scale ds^T q,   dmask = ds
    causal: query t sees keys up to S - T + t: the last query sees all, as when new tokens follow a cache of keys, and
    for T > S the first see none. (torch's is_causal counts from the start, up to key t; the same for T = S.) window:
    only the latest ``window`` of those. mask: broadcasts to (B, H, T, S); True (or 0) lets through, False (or -inf)
    hides, other numbers are added to the scores, and get gradients when it is a Tensor. A query that sees no key gives
    0, without gradients. starts: (B,) integers; the keys of row b before ``starts[b]`` are padding, which nobody sees.
    Raises ValueError for shapes that do not fit.
    """
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim != 4:
            raise ValueError(f"scaled_dot_product_attention: {name} must be (B, heads, time, D); got {t.shape}")
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[1] % k.shape[1]:
        raise ValueError(
            "scaled_dot_product_attention: k and v must have the same shape (B, G, S, D), with q's B and D, and G a "
            f"divisor of q's heads; got q {q.shape}, k {k.shape}, v {v.shape}"
        )
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"scaled_dot_product_attention: window needs causal=True and a length >= 1; got {window}")
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if mask is not None:
        if starts is not None:
            raise ValueError("scaled_dot_product_attention: give mask or starts; a mask can hide the padding, too")
        return _masked_attention(q, k, v, causal, window, mask, scale)
    # (B, H, T, D) -> (B, T, H, D), a view: the kernels' order is the one in which projections leave their rows
    qt, kt, vt = (t.data.swapaxes(1, 2) for t in (q, k, v))
    options: dict[str, Any] = {"causal": causal, "window": window or 0, "scale": scale, "starts": starts}
    out, lse = kernels.attention_forward(qt, kt, vt, **options)

    def backward(dy):  # (B, H, T, D)
        gradients = tuple(np.empty_like(x.swapaxes(1, 2), order="C") for x in (qt, kt, vt))  # as the inputs lie
        into = tuple(g.swapaxes(1, 2) for g in gradients)
        kernels.attention_backward(dy.swapaxes(1, 2), qt, kt, vt, out, lse, **options, into=into)
        return gradients

    return Tensor.from_op(out.swapaxes(1, 2), (q, k, v), backward)


def _masked_attention(q, k, v, causal, window, mask, scale):
    """The same from simple operations, with the whole (T, S) matrix of scores: the definition of attention."""
    B, H, T, D = q.shape
    G, S = k.shape[1:3]
    grouped = q.reshape(B, G, H // G * T, D)  # the heads that share a key head stand below one another
    scores = (grouped @ k.swapaxes(-1, -2)).reshape(B, H, T, S)
    if scale != 1:  # T5 has none, and its scores are many
        scores = scores * scale
    mask = operand(mask, scores)
    fits = mask.ndim <= 4 and all(m in (1, n) for m, n in zip(mask.shape[::-1], scores.shape[::-1], strict=False))
    if mask.dtype.kind not in "bf" or not fits:
        raise ValueError(
            "scaled_dot_product_attention: mask must be booleans (True lets through) or floats (added to the scores) "
            f"that broadcast to (B, H, T, S) = {scores.shape}; got {mask.dtype} of shape {mask.shape}"
        )
    if mask.dtype == bool:
        mask = Tensor(np.where(mask.data, scores.dtype.type(0), scores.dtype.type(-np.inf)))
    scores = scores + (mask if mask.dtype == scores.dtype else mask.astype(scores.dtype))
    if causal:
        t, s = np.arange(S - T, S)[:, None], np.arange(S)
        seen = (s <= t) & (s > t - (window or S))
        scores = scores + np.where(seen, 0, -np.inf).astype(scores.dtype)
    blind = np.isneginf(scores.data).all(axis=-1, keepdims=True)  # a query without any key
    if blind.any():
        weights = softmax(where(blind, 0, scores)) * ~blind  # gives 0, not the NaN of an empty mean
    else:
        weights = softmax(scores)
    return (weights.reshape(B, G, H // G * T, S) @ v).reshape(B, H, T, D)


class LayerCache(Protocol):
    """What self-attention needs of a cache: it keeps the keys and values of the tokens that came before."""

    @property
    def starts(self) -> np.ndarray | None:
        """(B,): positions before a row's start are padding, and invisible."""

    def append(self, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take in the new (B, T, G, D) keys and values, return all so far, (B, S, G, D) each."""


def self_attention(
    qkv: Tensor,
    heads: int,
    kv_heads: int | None = None,
    rotary: tuple[np.ndarray, np.ndarray] | None = None,
    window: int | None = None,
    cache: LayerCache | None = None,
) -> Tensor:
    """Causal attention of a sequence with itself, from the joint projection to the joined heads, in one piece.

    qkv: (B, T, (H + 2 G) D), per row H queries, G keys, G values of D numbers -> y: (B, T, H D).
    Equal to splitting, turning q and k (``rotary_embedding``), ``scaled_dot_product_attention(causal=True)`` and
    joining the heads, without the copies in between. cache: keys and values of earlier tokens, for generation: the
    result then has no gradient.
    """
    G = kv_heads or heads
    B, T, width = qkv.shape
    if width % (heads + 2 * G) or heads % G:
        raise ValueError(
            f"self_attention: the width of qkv must be a multiple of heads + 2 kv_heads = {heads + 2 * G}, and heads "
            f"one of kv_heads; got qkv {qkv.shape}, heads {heads}, kv_heads {G}"
        )
    D = width // (heads + 2 * G)
    options: dict[str, Any] = {"causal": True, "window": window or 0, "scale": 1 / math.sqrt(D)}
    packed = qkv.data
    if rotary is not None:
        turned = kernels.rotary_packed_forward(packed.reshape(B * T, width), *rotary, heads + G, D)
        packed = turned.reshape(B, T, width)
    if cache is not None:
        q, k, v = (
            part.reshape(B, T, -1, D) for part in np.split(packed, [heads * D, (heads + G) * D], axis=-1)
        )  # (B, T, H or G, D)
        k, v = cache.append(k, v)  # (B, S, G, D)
        out, _ = kernels.attention_forward(q, k, v, starts=cache.starts, **options)
        return Tensor(out.reshape(B, T, heads * D))
    out, lse = kernels.attention_packed_forward(packed, heads, G, **options)  # (B, T, H D)

    def backward(dy):
        dqkv = kernels.attention_packed_backward(dy, packed, out, lse, heads, G, **options)
        if rotary is not None:
            cos, sin = rotary
            kernels.rotary_packed_(dqkv.reshape(B * T, width), cos, -sin, heads + G, D)
        return (dqkv,)

    return Tensor.from_op(out, (qkv,), backward)
