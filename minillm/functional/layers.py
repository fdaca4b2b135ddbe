"""The operations that layers are made of: linear, normalisation, embedding, dropout, rotary positions.

Forward, then the chain rule, on one screen each. The arithmetic is in ``kernels``; its NumPy twins there spell it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..tensor import Tensor, floats
from .activations import gelu
from .checks import check_gelu, check_ids


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
