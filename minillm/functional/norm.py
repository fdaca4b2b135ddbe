"""Bring every row to a standard size, so that depth neither inflates nor starves the signal."""

from __future__ import annotations

import numpy as np

from ..autograd.shapes import floats, unbroadcast
from ..kernels import compiled
from ..tensor import Tensor
from .checks import last_axis


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Bring every row to mean 0 and variance 1, then scale and shift it (Ba et al. 2016).

    x: (..., C), weight, bias: (C,) -> (..., C).
    x^ = (x - mean) r,  r = 1 / sqrt(var + eps),  y = w x^ + b
    dx = r (g - mean g - x^ mean(g x^))  with g = w dy;   dw = sum dy x^,  db = sum dy
    """
    _check_norm("layer_norm", x, weight, bias)
    a, w = floats(x), weight.data
    y, mean, r = layer_norm_forward(a, w, np.zeros_like(w) if bias is None else bias.data, eps)

    def backward(dy):
        dx, dw, db = layer_norm_backward(dy, a, w, mean, r)
        return (dx, dw) if bias is None else (dx, dw, db)

    return Tensor.from_op(y, (x, weight) if bias is None else (x, weight, bias), backward)


@compiled("norm")
def layer_norm_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x: (..., C), weight, bias: (C,) -> y: (..., C), and what the backward needs: mean and r,
    (..., 1) each.
    """
    mean = x.mean(axis=-1, keepdims=True)  # (..., 1)
    r = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + eps)  # (..., 1)
    return weight * (x - mean) * r + bias, mean, r


@compiled("norm")
def layer_norm_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, r: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx: (..., C), dw and db: (C,)."""
    x_hat = (x - mean) * r
    g = weight * dy
    # moving the row's mean or variance changes nothing in x^: those parts of g are taken out
    along = (g * x_hat).mean(axis=-1, keepdims=True)
    dx = r * (g - g.mean(axis=-1, keepdims=True) - x_hat * along)
    return dx, unbroadcast(dy * x_hat, weight.shape), unbroadcast(dy, weight.shape)


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Divide every row by its root mean square, then scale it: layer norm without the mean (Zhang &
    Sennrich 2019).

    x: (..., C), weight: (C,) -> (..., C).
    x^ = x r,  r = 1 / sqrt(mean x^2 + eps),  y = w x^;   dx = r (g - x^ mean(g x^))  with g = w dy;
    dw = sum dy x^
    """
    _check_norm("rms_norm", x, weight, None)
    a, w = floats(x), weight.data
    y, r = rms_norm_forward(a, w, eps)

    def backward(dy):
        return rms_norm_backward(dy, a, w, r)

    return Tensor.from_op(y, (x, weight), backward)


@compiled("norm")
def rms_norm_forward(x: np.ndarray, weight: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """x: (..., C), weight: (C,) -> y: (..., C), and r, (..., 1), which the backward needs."""
    r = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)  # (..., 1)
    return weight * x * r, r


@compiled("norm")
def rms_norm_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, r: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """dx: (..., C) and dw: (C,)."""
    x_hat = x * r
    g = weight * dy
    dx = r * (g - x_hat * (g * x_hat).mean(axis=-1, keepdims=True))  # what would only stretch the row is taken out
    return dx, unbroadcast(dy * x_hat, weight.shape)


def _check_norm(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    last_axis(name, x)
    for part, t in (("weight", weight), ("bias", bias)):
        if t is not None and not isinstance(t, Tensor):
            raise TypeError(f"{name}: {part} must be a Tensor, with the shape of x's last axis; got {t!r}")
        if t is not None and t.shape != x.shape[-1:]:
            raise ValueError(f"{name}: {part} must have the shape of x's last axis, {x.shape[-1:]}; got {t.shape}")
