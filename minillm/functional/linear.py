"""The neuron, many at a time: every output is a weighted sum of the inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..autograd.shapes import floats, total
from ..kernels import compiled
from ..tensor import Tensor
from .activations import gelu
from .shaping import concatenate

Gradients = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, by_columns: bool = False) -> Tensor:
    """Project ``x`` into another space: every output is a weighted sum of the inputs, one neuron
    each.

    x: (..., C), weight: (N, C), bias: (N,) -> y: (..., N).
    y = x W^T + b;   dx = dy W,   dW = dy^T x,   db = sum of dy over all rows
    by_columns: the weight is stored the other way round, (C, N): y = x W + b.
    Raises ValueError when the widths do not agree.
    """
    if by_columns:
        weight = weight.T
    a, w = floats(x), weight.data
    _check_linear(a.shape, weight, bias, by_columns)
    needs = x.requires_grad, weight.requires_grad, bias is not None and bias.requires_grad

    def backward(dy):
        dx, dw, db = linear_backward(dy, a, w, needs)
        return (dx, dw) if bias is None else (dx, dw, db)

    y = linear_forward(a, w, None if bias is None else bias.data)  # (..., N)
    return Tensor.from_op(y, (x, weight) if bias is None else (x, weight, bias), backward)


@compiled("linear")
def linear_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """x: (..., C), w: (N, C), b: (N,) or None -> y: (..., N)."""
    y = x @ w.T
    return y if b is None else y + b


@compiled("linear")
def linear_backward(dy: np.ndarray, x: np.ndarray, w: np.ndarray, needs: tuple[bool, bool, bool]) -> Gradients:
    """The gradients of x, w and b; None for those that nobody needs: each costs as much as the
    forward.
    """
    (N, C), rows, (x_needs, w_needs, b_needs) = w.shape, math.prod(x.shape[:-1]), needs
    x, dy_rows = x.reshape(rows, C), dy.reshape(rows, N)  # one row after another, whatever the batch looks like
    dx = dy @ w if x_needs else None
    dw = dy_rows.T @ x if w_needs else None
    db = total(dy_rows, axis=0) if b_needs else None
    return dx, dw, db


def joint_linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor] | None = None) -> Tensor:
    """Several linear layers of one input, their outputs side by side: queries, keys and values, or
    gate and up.

    x: (..., C), weights: [(N_1, C), (N_2, C), ...] -> y: (..., N_1 + N_2 + ...).
    y_i = x W_i^T + b_i
    """
    if biases is not None and [b.shape for b in biases] != [w.shape[:1] for w in weights]:
        expected, got = [w.shape[:1] for w in weights], [b.shape for b in biases]
        raise ValueError(f"joint_linear: biases must be {expected}; got {got}")
    shifts = biases if biases is not None else [None] * len(weights)
    return concatenate([linear(x, w, b) for w, b in zip(weights, shifts, strict=True)], axis=-1)


def mlp(
    x: Tensor,
    up: Tensor,
    up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    approximate: str = "tanh",
    by_columns: bool = False,
) -> Tensor:
    """Two linear layers with a gelu between, to a wider space and back (Vaswani et al. 2017,
    section 3.3).

    y = gelu(x W1^T + b1) W2^T + b2;
    x: (..., C), up W1: (I, C), b1: (I,), down W2: (N, I), b2: (N,) -> y: (..., N).
    """
    return linear(gelu(linear(x, up, up_bias, by_columns), approximate), down, down_bias, by_columns)


def _check_linear(shape: tuple[int, ...], weight: Tensor, bias: Tensor | None, by_columns: bool) -> None:
    """Raise unless x of ``shape`` fits the weight (N, C), which was (C, N) before if
    ``by_columns``, and the bias.
    """
    N, C = weight.shape if weight.ndim == 2 else (-1, -1)
    if not shape or shape[-1] != C:
        form, given = ("(C_in, C_out)", weight.shape[::-1]) if by_columns else ("(C_out, C_in)", weight.shape)
        raise ValueError(
            f"linear: weight must be {form} with C_in = {shape[-1] if shape else '?'}, the width of x; "
            f"got weight {given} for x {shape}"
        )
    if bias is not None and bias.shape != (N,):
        raise ValueError(f"linear: bias must be (C_out,) = {(N,)}; got {bias.shape}")
