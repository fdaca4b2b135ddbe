"""The table of operations: one row each, from which the tests of all operations are generated.

A row says how to call the operation on Tensors, what NumPy says it should give, what torch calls it, which inputs to try,
and which mistakes must be refused with which words. ``test_ops.py`` and ``parity/test_ops.py`` read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import minillm.functional as F
from minillm import Tensor

rng = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


def positive(*shape: int) -> np.ndarray:
    return rng.uniform(0.5, 2.0, shape)


def distinct(*shape: int) -> np.ndarray:
    """No two entries nearer than 0.1: where an operation has corners, differences must not step over them."""
    return (rng.permutation(int(np.prod(shape))).reshape(shape) - np.prod(shape) / 2.0 + 0.3) * 0.2


def angles(T: int, half: int) -> tuple[np.ndarray, np.ndarray]:
    a = rng.uniform(0, 6, (T, half))
    return np.cos(a), np.sin(a)


@dataclass(frozen=True)
class Op:
    name: str  # as it is found: "exp" in functional, "Tensor.sum" on Tensor
    call: Callable[..., Any]  # on Tensors
    numpy: Callable[..., Any]  # on arrays
    torch: Callable[..., Any]  # (torch, *tensors)
    inputs: Sequence[tuple[np.ndarray, ...]]  # what to try
    errors: Sequence[tuple[Callable[[], Any], type[Exception], str]] = ()  # what must be refused, with which words
    rtol32: float = 1e-5
    label: str = ""

    @property
    def id(self) -> str:
        return self.name + (f"[{self.label}]" if self.label else "")


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def erf(x: np.ndarray) -> np.ndarray:
    import math

    return np.vectorize(math.erf)(x)


def gelu(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_exact(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + erf(x / np.sqrt(2)))


def nll(z: np.ndarray, t: np.ndarray) -> np.ndarray:
    p = np.log(softmax(z))
    return -np.take_along_axis(p, np.where(t < 0, 0, t)[..., None], -1)[..., 0] * (t >= 0)


def attend(q, k, v, causal=False, window=None, mask=None, scale=None):
    k, v = (np.repeat(a, q.shape[1] // a.shape[1], axis=1) for a in (k, v))
    T, S = q.shape[2], k.shape[2]
    s = q @ k.swapaxes(-1, -2) * (scale or q.shape[-1] ** -0.5)
    if mask is not None:
        s = s + mask
    t, u = np.arange(S - T, S)[:, None], np.arange(S)
    if causal:
        s = np.where((u <= t) & (u > t - (window or S)), s, -np.inf)
    return softmax(s) @ v


def conv(x, w, b=None, stride=1, padding=0):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    p = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    y = np.einsum("bcyxij,ncij->bnyx", p, w)
    return y if b is None else y + b[:, None, None]


def windows(x, k):
    B, C, Y, X = x.shape
    return x.reshape(B, C, Y // k, k, X // k, k)


def rotate(x, cos, sin):
    h = x.shape[-1] // 2
    return np.concatenate([x[..., :h] * cos - x[..., h:] * sin, x[..., h:] * cos + x[..., :h] * sin], -1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn(x, w, u, b, c, h):
    out = []
    for t in range(x.shape[1]):
        h = np.tanh(x[:, t] @ w.T + b + h @ u.T + c)
        out.append(h)
    return np.stack(out, 1)


def gru(x, w, u, b, c, h):
    out = []
    for t in range(x.shape[1]):
        (r, z, n), (ru, zu, nu) = np.split(x[:, t] @ w.T + b, 3, -1), np.split(h @ u.T + c, 3, -1)
        r, z = sigmoid(r + ru), sigmoid(z + zu)
        h = (1 - z) * np.tanh(n + r * nu) + z * h
        out.append(h)
    return np.stack(out, 1)


def lstm(x, w, u, b, c, h, m):
    out = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w.T + b + h @ u.T + c, 4, -1)
        m = sigmoid(f) * m + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(m)
        out.append(h)
    return np.stack(out, 1), m


def past(q, k, v, w=None):
    """The three steps before each query, not its own."""
    P, out = k.shape[1] - q.shape[1], np.zeros_like(q)
    for t in range(q.shape[1]):
        lo, hi = max(0, P + t - 3), P + t
        if hi > lo:
            keys = k[:, lo:hi]
            x = (
                np.tanh(q[:, t, None] + keys) @ w
                if w is not None
                else (keys @ q[:, t, :, None])[..., 0] / np.sqrt(q.shape[-1])
            )
            out[:, t] = (softmax(x)[:, None] @ v[:, lo:hi])[:, 0]
    return out


ids = np.array([[0, 2, 1], [2, 2, 4]])
targets = np.array([[1, -100, 3], [0, 4, 4]])
cos4, sin4 = angles(5, 2)
additive = rng.standard_normal((2, 1, 4, 4))
boolean = np.tril(np.ones((4, 4), bool))
unary = [(normal(3, 4),), (normal(5),), (normal(2, 3, 4),)]
pairs = [
    (normal(3, 4), normal(3, 4)),
    (normal(3, 4), normal(4)),
    (normal(3, 1), normal(1, 4)),
    (normal(2, 3, 4), normal(3, 1)),
]
positive_pairs = [(positive(3, 4), normal(3, 4)), (positive(2, 3, 4), normal(3, 1)), (positive(3, 1), normal(4))]
corner = [(distinct(3, 4),), (distinct(7),)]
fit = "do not fit"
three, four = Tensor(np.ones((2, 3))), Tensor(np.ones((2, 4)))

OPS: list[Op] = [
    # ---- Python syntax
    Op(
        "Tensor.__add__",
        call=lambda a, b: a + b,
        numpy=np.add,
        torch=lambda t, a, b: a + b,
        inputs=pairs,
        errors=[(lambda: three + four, ValueError, fit)],
    ),
    Op(
        "Tensor.__sub__",
        call=lambda a, b: a - b,
        numpy=np.subtract,
        torch=lambda t, a, b: a - b,
        inputs=pairs,
        errors=[(lambda: three - four, ValueError, fit)],
    ),
    Op(
        "Tensor.__mul__",
        call=lambda a, b: a * b,
        numpy=np.multiply,
        torch=lambda t, a, b: a * b,
        inputs=pairs,
        errors=[(lambda: three * four, ValueError, fit)],
    ),
    Op(
        "Tensor.__truediv__",
        call=lambda a, b: a / b,
        numpy=np.divide,
        torch=lambda t, a, b: a / b,
        inputs=[(a, np.abs(b) + 0.5) for a, b in pairs],
        errors=[(lambda: three / four, ValueError, fit)],
    ),
    Op(
        "Tensor.__pow__",
        call=lambda a, b: a**b,
        numpy=np.power,
        torch=lambda t, a, b: a**b,
        inputs=positive_pairs,
        errors=[(lambda: three**four, ValueError, fit)],
    ),
    Op(
        "Tensor.__pow__", call=lambda a: a**3, numpy=lambda a: a**3, torch=lambda t, a: a**3, inputs=unary, label="cube"
    ),
    Op("Tensor.__radd__", call=lambda a: 2 + a, numpy=lambda a: 2 + a, torch=lambda t, a: 2 + a, inputs=unary),
    Op("Tensor.__rsub__", call=lambda a: 2 - a, numpy=lambda a: 2 - a, torch=lambda t, a: 2 - a, inputs=unary),
    Op("Tensor.__rmul__", call=lambda a: 2 * a, numpy=lambda a: 2 * a, torch=lambda t, a: 2 * a, inputs=unary),
    Op(
        "Tensor.__rtruediv__",
        call=lambda a: 2 / a,
        numpy=lambda a: 2 / a,
        torch=lambda t, a: 2 / a,
        inputs=[(positive(3, 4),)],
    ),
    Op("Tensor.__rpow__", call=lambda a: 2**a, numpy=lambda a: 2.0**a, torch=lambda t, a: 2**a, inputs=unary),
    Op(
        "Tensor.__rmatmul__",
        call=lambda a: np.ones((2, 3), a.dtype) @ a,
        numpy=lambda a: np.ones((2, 3)) @ a,
        torch=lambda t, a: t.ones(2, 3, dtype=a.dtype) @ a,
        inputs=[(normal(3, 4),)],
    ),
    Op(
        "Tensor.__mod__",
        call=lambda a, b: a % b,
        numpy=np.mod,
        torch=lambda t, a, b: a % b,
        inputs=[(3 * distinct(3, 4), positive(3, 4)), (distinct(2, 3, 4), -positive(3, 1)), (distinct(3, 1), positive(4))],
        errors=[(lambda: three % four, ValueError, fit)],
    ),
    Op(
        "Tensor.__rmod__",
        call=lambda a: 7 % a,
        numpy=lambda a: 7 % a,
        torch=lambda t, a: t.full_like(a, 7) % a,  # 7 % a has no gradient there
        inputs=[(positive(3, 4),), (-positive(5),)],
    ),
    Op("Tensor.__abs__", call=abs, numpy=np.abs, torch=lambda t, a: abs(a), inputs=corner),
    Op("Tensor.__neg__", call=lambda a: -a, numpy=np.negative, torch=lambda t, a: -a, inputs=unary),
    Op(
        "Tensor.__matmul__",
        call=lambda a, b: a @ b,
        numpy=np.matmul,
        torch=lambda t, a, b: a @ b,
        inputs=[
            (normal(3, 4), normal(4, 5)),
            (normal(4), normal(4)),
            (normal(4), normal(4, 5)),
            (normal(3, 4), normal(4)),
            (normal(2, 3, 4), normal(4, 5)),
            (normal(2, 3, 4), normal(2, 4, 5)),
            (normal(2, 1, 3, 4), normal(5, 4, 2)),
            (normal(40, 30), normal(30, 50)),
            (normal(9, 20, 16), normal(9, 16, 20)),
            (normal(2, 3, 4), normal(4)),
            (normal(4), normal(2, 4, 3)),
        ],
        errors=[
            (lambda: three @ four, ValueError, "last axis"),
            (lambda: Tensor(np.ones((2, 3, 4))) @ Tensor(np.ones((3, 4, 5))), ValueError, fit),
        ],
    ),
    Op(
        "Tensor.__getitem__",
        call=lambda a: a[1:, ::2],
        numpy=lambda a: a[1:, ::2],
        torch=lambda t, a: a[1:, ::2],
        inputs=[(normal(3, 5),)],
        label="slices",
    ),
    Op(
        "Tensor.__getitem__",
        call=lambda a: a[..., None, 1],
        numpy=lambda a: a[..., None, 1],
        torch=lambda t, a: a[..., None, 1],
        inputs=unary,
        label="ellipsis",
    ),
    Op(
        "Tensor.__getitem__",
        call=lambda a: a[[0, 2, 0, 0]],
        numpy=lambda a: a[[0, 2, 0, 0]],
        torch=lambda t, a: a[[0, 2, 0, 0]],
        inputs=[(normal(3, 5),)],
        errors=[
            (lambda: three[1.5], IndexError, "integers, booleans or slices"),
            (lambda: three[9], IndexError, "out of bounds"),
        ],
        label="repeated",
    ),
    Op(
        "Tensor.__getitem__",
        call=lambda a: a[np.array([0, 1, 1]), np.array([2, 0, 0])],
        numpy=lambda a: a[[0, 1, 1], [2, 0, 0]],
        torch=lambda t, a: a[[0, 1, 1], [2, 0, 0]],
        inputs=[(normal(3, 5),)],
        label="pairs",
    ),
    Op(
        "Tensor.__getitem__",
        call=lambda a: a[np.array([True, False, True])],
        numpy=lambda a: a[[True, False, True]],
        torch=lambda t, a: a[[True, False, True]],
        inputs=[(normal(3, 5),)],
        label="booleans",
    ),
    Op(
        "Tensor.__iter__",
        call=lambda a: list(a)[1] * 2,
        numpy=lambda a: a[1] * 2,
        torch=lambda t, a: a[1] * 2,
        inputs=[(normal(3, 4),)],
    ),
    # ---- reductions
    *[
        Op(
            f"Tensor.{n}",
            call=lambda a, n=n, k=k: getattr(a, n)(**k),
            numpy=lambda a, n=n, k=k: getattr(np, n)(a, **k),
            torch=lambda t, a, n=n, k=k: getattr(t, {"max": "amax", "min": "amin"}.get(n, n))(
                a,
                **({"unbiased": False} if n == "var" else {}),
                **{
                    "axis" if n in ("sum", "mean") else "dim": k.get("axis", tuple(range(a.ndim))),
                    "keepdim": k.get("keepdims", False),
                },
            ),
            inputs=inputs,
            label=str(k),
        )
        for n, inputs in (("sum", unary), ("mean", unary), ("var", unary), ("max", corner), ("min", corner))
        for k in ({}, {"axis": 0}, {"axis": -1, "keepdims": True})
    ],
    Op(
        "Tensor.max",
        call=lambda a: a.max(axis=1),
        numpy=lambda a: a.max(axis=1),
        torch=lambda t, a: a.amax(dim=1),
        inputs=[(np.ones((2, 3)),)],
        errors=[(lambda: Tensor(np.ones((0, 2))).max(), ValueError, "empty")],
        label="torch's ties",
    ),
    Op(
        "prod",
        call=lambda a: F.prod(a, axis=1),
        numpy=lambda a: a.prod(axis=1),
        torch=lambda t, a: a.prod(dim=1),
        inputs=[(normal(3, 4),), (np.array([[1.0, 0.0, 3.0], [0.0, 0.0, 2.0]]),)],
    ),
    Op(
        "prod",
        call=lambda a: F.prod(a),
        numpy=lambda a: a.prod(),
        torch=lambda t, a: a.prod(),
        inputs=[(normal(3, 2),)],
        label="all",
    ),
    Op(
        "logsumexp",
        call=F.logsumexp,
        numpy=lambda a: np.log(np.exp(a).sum(-1)),
        torch=lambda t, a: t.logsumexp(a, -1),
        inputs=unary,
    ),
    Op(
        "logsumexp",
        call=lambda a: F.logsumexp(a, (0, 1), True),
        numpy=lambda a: np.log(np.exp(a).sum((0, 1), keepdims=True)),
        torch=lambda t, a: t.logsumexp(a, (0, 1), True),
        inputs=[(normal(3, 4),)],
        label="axes",
    ),
    Op(
        "std",
        call=lambda a: F.std(a, axis=-1),
        numpy=lambda a: a.std(axis=-1),
        torch=lambda t, a: a.std(dim=-1, unbiased=False),
        inputs=unary,
    ),
    Op("norm", call=F.norm, numpy=np.linalg.norm, torch=lambda t, a: a.norm(), inputs=[(normal(5),), (normal(3, 4),)]),
    Op(
        "norm",
        call=lambda a: F.norm(a, -1, True),
        numpy=lambda a: np.linalg.norm(a, axis=-1, keepdims=True),
        torch=lambda t, a: a.norm(dim=-1, keepdim=True),
        inputs=unary,
        label="axis",
    ),
    Op(
        "cumsum",
        call=lambda a: F.cumsum(a, 0),
        numpy=lambda a: a.cumsum(0),
        torch=lambda t, a: a.cumsum(0),
        inputs=unary,
    ),
    # ---- shapes
    Op(
        "Tensor.reshape",
        call=lambda a: a.reshape(2, -1),
        numpy=lambda a: a.reshape(2, -1),
        torch=lambda t, a: a.reshape(2, -1),
        inputs=[(normal(3, 4),)],
        errors=[(lambda: three.reshape(4, 4), ValueError, "do not fill shape (4, 4)")],
    ),
    Op(
        "Tensor.transpose",
        call=lambda a: a.transpose(1, 0, 2),
        numpy=lambda a: a.transpose(1, 0, 2),
        torch=lambda t, a: a.permute(1, 0, 2),
        inputs=[(normal(2, 3, 4),)],
    ),
    Op("Tensor.T", call=lambda a: a.T, numpy=lambda a: a.T, torch=lambda t, a: a.T, inputs=[(normal(3, 4),)]),
    Op(
        "Tensor.swapaxes",
        call=lambda a: a.swapaxes(0, -1),
        numpy=lambda a: a.swapaxes(0, -1),
        torch=lambda t, a: a.swapaxes(0, -1),
        inputs=[(normal(2, 3, 4),)],
    ),
    Op(
        "Tensor.astype",
        call=lambda a: a.astype(np.float64) * 2,
        numpy=lambda a: a * 2.0,
        torch=lambda t, a: a.double() * 2,
        inputs=unary,
    ),
    Op("squeeze", call=F.squeeze, numpy=np.squeeze, torch=lambda t, a: a.squeeze(), inputs=[(normal(3, 1, 4),)]),
    Op(
        "unsqueeze",
        call=lambda a: F.unsqueeze(a, 1),
        numpy=lambda a: a[:, None],
        torch=lambda t, a: a.unsqueeze(1),
        inputs=unary,
    ),
    Op(
        "broadcast_to",
        call=lambda a: F.broadcast_to(a, (2, 3, 4)),
        numpy=lambda a: np.broadcast_to(a, (2, 3, 4)),
        torch=lambda t, a: a.broadcast_to(2, 3, 4),
        inputs=[(normal(3, 1),), (normal(4),)],
    ),
    Op(
        "flip",
        call=lambda a: F.flip(a, 1),
        numpy=lambda a: np.flip(a, 1),
        torch=lambda t, a: a.flip(1),
        inputs=[(normal(3, 4),)],
    ),
    Op(
        "pad",
        call=lambda a: F.pad(a, ((1, 2), (0, 1))),
        numpy=lambda a: np.pad(a, ((1, 2), (0, 1))),
        torch=lambda t, a: t.nn.functional.pad(a, (0, 1, 1, 2)),
        inputs=[(normal(3, 4),)],
    ),
    Op(
        "split",
        call=lambda a: F.split(a, [1, 3], 1)[1],
        numpy=lambda a: a[:, 1:],
        torch=lambda t, a: a.split([1, 3], 1)[1],
        inputs=[(normal(3, 4),)],
        errors=[(lambda: F.split(three, [1, 1], 1), ValueError, "add up to 3")],
    ),
    Op(
        "chunk",
        call=lambda a: F.chunk(a, 3, 0)[2] * 3,
        numpy=lambda a: a[4:] * 3,
        torch=lambda t, a: a.chunk(3, 0)[2] * 3,
        inputs=[(normal(5, 2),)],
        errors=[(lambda: F.chunk(three, 0), ValueError, "at least 1")],
    ),
    Op(
        "concatenate",
        call=lambda a, b: F.concatenate([a, b], 1),
        numpy=lambda a, b: np.concatenate([a, b], 1),
        torch=lambda t, a, b: t.cat([a, b], 1),
        inputs=[(normal(3, 2), normal(3, 4))],
        errors=[
            (lambda: F.concatenate([]), ValueError, "at least one"),
            (lambda: F.concatenate([three, four], 0), ValueError, "concatenate"),
        ],
    ),
    Op(
        "stack",
        call=lambda a, b: F.stack([a, b], 1),
        numpy=lambda a, b: np.stack([a, b], 1),
        torch=lambda t, a, b: t.stack([a, b], 1),
        inputs=[(normal(3, 2), normal(3, 2))],
        errors=[(lambda: F.stack([three, four]), ValueError, "one shape")],
    ),
    Op(
        "tile",
        call=lambda a: F.tile(a, (2, 1, 3)),
        numpy=lambda a: np.tile(a, (2, 1, 3)),
        torch=lambda t, a: a.tile((2, 1, 3)),
        inputs=[(normal(3, 4),)],
    ),
    Op(
        "take",
        call=lambda a: F.take(a, [0, 2, 2], 1),
        numpy=lambda a: a.take([0, 2, 2], 1),
        torch=lambda t, a: a[:, [0, 2, 2]],
        inputs=[(normal(3, 4),)],
    ),
    Op(
        "gather",
        call=lambda a: F.gather(a, ids[:, :2], 1),
        numpy=lambda a: np.take_along_axis(a, ids[:, :2], 1),
        torch=lambda t, a: a.gather(1, t.tensor(ids[:, :2])),
        inputs=[(normal(2, 5),)],
        errors=[(lambda: F.gather(three, np.array([0])), ValueError, "as many axes")],
    ),
    Op(
        "tril",
        call=lambda a: F.tril(a, 1),
        numpy=lambda a: np.tril(a, 1),
        torch=lambda t, a: a.tril(1),
        inputs=[(normal(4, 4),)],
    ),
    Op(
        "triu",
        call=lambda a: F.triu(a, 1),
        numpy=lambda a: np.triu(a, 1),
        torch=lambda t, a: a.triu(1),
        inputs=[(normal(4, 4),)],
    ),
    # ---- one entry at a time
    Op("exp", call=F.exp, numpy=np.exp, torch=lambda t, a: a.exp(), inputs=unary),
    Op("log", call=F.log, numpy=np.log, torch=lambda t, a: a.log(), inputs=[(positive(3, 4),)]),
    Op("log1p", call=F.log1p, numpy=np.log1p, torch=lambda t, a: a.log1p(), inputs=[(positive(3, 4),)]),
    Op("sqrt", call=F.sqrt, numpy=np.sqrt, torch=lambda t, a: a.sqrt(), inputs=[(positive(3, 4),)]),
    Op("rsqrt", call=F.rsqrt, numpy=lambda a: a**-0.5, torch=lambda t, a: a.rsqrt(), inputs=[(positive(3, 4),)]),
    Op("abs", call=F.abs, numpy=np.abs, torch=lambda t, a: a.abs(), inputs=corner),
    Op("sin", call=F.sin, numpy=np.sin, torch=lambda t, a: a.sin(), inputs=unary),
    Op("cos", call=F.cos, numpy=np.cos, torch=lambda t, a: a.cos(), inputs=unary),
    Op("tanh", call=F.tanh, numpy=np.tanh, torch=lambda t, a: a.tanh(), inputs=unary),
    Op("sigmoid", call=F.sigmoid, numpy=lambda a: 1 / (1 + np.exp(-a)), torch=lambda t, a: a.sigmoid(), inputs=unary),
    Op(
        "softplus",
        call=F.softplus,
        numpy=lambda a: np.log1p(np.exp(a)),
        torch=lambda t, a: t.nn.functional.softplus(a),
        inputs=unary,
    ),
    Op("relu", call=F.relu, numpy=lambda a: np.maximum(a, 0), torch=lambda t, a: a.relu(), inputs=corner),
    Op(
        "leaky_relu",
        call=lambda a: F.leaky_relu(a, 0.1),
        numpy=lambda a: np.where(a > 0, a, 0.1 * a),
        torch=lambda t, a: t.nn.functional.leaky_relu(a, 0.1),
        inputs=corner,
    ),
    Op(
        "elu",
        call=lambda a: F.elu(a, 1.5),
        numpy=lambda a: np.where(a > 0, a, 1.5 * np.expm1(a)),
        torch=lambda t, a: t.nn.functional.elu(a, 1.5),
        inputs=corner,
    ),
    Op(
        "gelu",
        call=F.gelu,
        numpy=gelu,
        torch=lambda t, a: t.nn.functional.gelu(a, approximate="tanh"),
        inputs=unary,
        errors=[(lambda: F.gelu(three, "fast"), ValueError, "'tanh' or 'none'")],
    ),
    Op(
        "gelu",
        call=lambda a: F.gelu(a, "none"),
        numpy=gelu_exact,
        torch=lambda t, a: t.nn.functional.gelu(a),
        inputs=unary,
        label="exact",
    ),
    Op(
        "silu",
        call=F.silu,
        numpy=lambda a: a / (1 + np.exp(-a)),
        torch=lambda t, a: t.nn.functional.silu(a),
        inputs=unary,
    ),
    Op(
        "swiglu",
        call=F.swiglu,
        numpy=lambda a: a[..., :2] / (1 + np.exp(-a[..., :2])) * a[..., 2:],
        torch=lambda t, a: t.nn.functional.silu(a[..., :2]) * a[..., 2:],
        inputs=[(normal(3, 4),), (normal(2, 3, 4),)],
        errors=[(lambda: F.swiglu(three), ValueError, "odd length 3")],
    ),
    Op(
        "clip",
        call=lambda a: F.clip(a, -0.5, 0.7),
        numpy=lambda a: np.clip(a, -0.5, 0.7),
        torch=lambda t, a: a.clip(-0.5, 0.7),
        inputs=corner,
        errors=[(lambda: F.clip(three), ValueError, "min, max or both")],
    ),
    Op(
        "maximum",
        call=F.maximum,
        numpy=np.maximum,
        torch=lambda t, a, b: t.maximum(a, b),
        inputs=[(distinct(3, 4), normal(4)), (normal(4), distinct(3, 4)), (np.ones(3), np.ones(3))],
        errors=[(lambda: F.maximum(three, four), ValueError, fit)],
        label="ties",
    ),
    Op(
        "minimum",
        call=F.minimum,
        numpy=np.minimum,
        torch=lambda t, a, b: t.minimum(a, b),
        inputs=[(distinct(3, 4), normal(3, 1))],
        errors=[(lambda: F.minimum(three, four), ValueError, fit)],
    ),
    Op(
        "where",
        call=lambda a, b: F.where(boolean, a, b),
        numpy=lambda a, b: np.where(boolean, a, b),
        torch=lambda t, a, b: t.where(t.tensor(boolean), a, b),
        inputs=[(normal(4, 4), normal(4, 4)), (normal(4), normal(4, 1))],
        errors=[(lambda: F.where(boolean, three, three), ValueError, "")],
    ),
    # ---- products
    Op(
        "matmul",
        call=F.matmul,
        numpy=np.matmul,
        torch=lambda t, a, b: t.matmul(a, b),
        inputs=[(normal(3, 4), normal(4, 5))],
    ),
    Op(
        "outer",
        call=F.outer,
        numpy=np.outer,
        torch=lambda t, a, b: t.outer(a, b),
        inputs=[(normal(3), normal(4))],
        errors=[(lambda: F.outer(three, three), ValueError, "vectors")],
    ),
    Op(
        "einsum",
        call=lambda a, b: F.einsum("bij,bjk->bik", a, b),
        numpy=lambda a, b: np.einsum("bij,bjk->bik", a, b),
        torch=lambda t, a, b: t.einsum("bij,bjk->bik", a, b),
        inputs=[(normal(2, 3, 4), normal(2, 4, 5))],
        errors=[
            (lambda: F.einsum("ij,jk", three), ValueError, "has 2 terms; got 1 tensors"),
            (lambda: F.einsum("ijk->i", three), ValueError, "3 axes"),
        ],
    ),
    Op(
        "einsum",
        call=lambda a, b: F.einsum("ij,k->ik", a, b),
        numpy=lambda a, b: np.einsum("ij,k->ik", a, b),
        torch=lambda t, a, b: t.einsum("ij,k->ik", a, b),
        inputs=[(normal(2, 3), normal(4))],
        label="lone letter",
    ),
    *[
        Op(
            "einsum",
            call=lambda *a, s=s: F.einsum(s, *a),
            numpy=lambda *a, s=s: np.einsum(s, *a),
            torch=lambda t, *a, s=s: t.einsum(s, *a),
            inputs=[arrays],
            label=s,
        )
        for s, arrays in (
            ("ij", (normal(2, 3),)),
            ("ji", (normal(2, 3),)),
            ("ii", (normal(3, 3),)),
            ("ii->i", (normal(3, 3),)),
            ("iij,jk", (normal(2, 2, 3), normal(3, 4))),
            ("...ij,...jk->...ik", (normal(2, 3, 4), normal(4, 5))),
            ("...i", (normal(2, 3),)),
            ("i...->...", (normal(2, 3, 4),)),
            ("...i,...j", (normal(3, 1, 2), normal(5, 2))),
            ("ij,jk->ik", (normal(2, 1), normal(3, 4))),
            ("i,i,ij->j", (normal(2), normal(2), normal(2, 3))),
        )
    ],
    # ---- softmax and losses
    Op("softmax", call=F.softmax, numpy=softmax, torch=lambda t, a: a.softmax(-1), inputs=unary),
    Op(
        "softmax",
        call=lambda a: F.softmax(a, 0),
        numpy=lambda a: softmax(a, 0),
        torch=lambda t, a: a.softmax(0),
        inputs=unary,
        label="axis 0",
    ),
    Op(
        "log_softmax",
        call=F.log_softmax,
        numpy=lambda a: np.log(softmax(a)),
        torch=lambda t, a: a.log_softmax(-1),
        inputs=unary,
    ),
    Op(
        "log_softmax",
        call=lambda a: F.log_softmax(a, 0),
        numpy=lambda a: np.log(softmax(a, 0)),
        torch=lambda t, a: a.log_softmax(0),
        inputs=unary,
        label="axis 0",
    ),
    *[
        Op(
            "cross_entropy",
            call=lambda z, r=r: F.cross_entropy(z, targets, reduction=r),
            numpy=lambda z, r=r: {
                "mean": nll(z, targets).sum() / 5,
                "sum": nll(z, targets).sum(),
                "none": nll(z, targets),
            }[r],
            torch=lambda t, z, r=r: t.nn.functional.cross_entropy(
                z.reshape(-1, 5), t.tensor(targets).reshape(-1), reduction=r
            ).reshape((2, 3) if r == "none" else ()),
            inputs=[(normal(2, 3, 5),)],
            label=r,
        )
        for r in ("mean", "sum", "none")
    ],
    Op(
        "cross_entropy",
        call=lambda z: F.cross_entropy(z, targets, label_smoothing=0.1),
        numpy=lambda z: (0.9 * nll(z, targets) - 0.1 * np.log(softmax(z)).mean(-1) * (targets >= 0)).sum() / 5,
        torch=lambda t, z: t.nn.functional.cross_entropy(
            z.reshape(-1, 5), t.tensor(targets).reshape(-1), label_smoothing=0.1
        ),
        inputs=[(normal(2, 3, 5),)],
        errors=[
            (
                lambda: F.cross_entropy(Tensor(np.ones((2, 3, 5))), np.array([[0, 1, 2], [0, 7, 1]])),
                ValueError,
                r"cross_entropy: targets must be integers in [0, 5); got 7 at (1, 1)",
            ),
            (lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([0.0, 1.0])), ValueError, "integers"),
            (lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([0])), ValueError, "shape"),
            (lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([-100, -100])), ValueError, "every target"),
            (
                lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([0, 1]), reduction="avg"),
                ValueError,
                "'mean', 'sum' or 'none'",
            ),
            (
                lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([0, 1]), label_smoothing=1.01),
                ValueError,
                "label_smoothing must be in [0, 1]; got 1.01",
            ),
        ],
        label="smoothed",
    ),
    Op(
        "cross_entropy",
        call=lambda z: F.cross_entropy(z, targets, label_smoothing=1.0),
        numpy=lambda z: (-np.log(softmax(z)).mean(-1) * (targets >= 0)).sum() / 5,
        torch=lambda t, z: t.nn.functional.cross_entropy(
            z.reshape(-1, 5), t.tensor(targets).reshape(-1), label_smoothing=1.0
        ),
        inputs=[(normal(2, 3, 5),)],
        label="smoothed to the last",
    ),
    Op(
        "nll_loss",
        call=lambda z: F.nll_loss(F.log_softmax(z), targets),
        numpy=lambda z: nll(z, targets).sum() / 5,
        torch=lambda t, z: t.nn.functional.nll_loss(z.log_softmax(-1).reshape(-1, 5), t.tensor(targets).reshape(-1)),
        inputs=[(normal(2, 3, 5),)],
        errors=[
            (lambda: F.nll_loss(three, np.array([0])), ValueError, "shape"),
            (lambda: F.nll_loss(three, np.array([-100, -100])), ValueError, "every"),
        ],
    ),
    Op(
        "mse_loss",
        call=F.mse_loss,
        numpy=lambda a, b: ((a - b) ** 2).mean(),
        torch=lambda t, a, b: t.nn.functional.mse_loss(a, b),
        inputs=pairs[:1],
        errors=[(lambda: F.mse_loss(three, three, "no"), ValueError, "reduction")],
    ),
    Op(
        "l1_loss",
        call=F.l1_loss,
        numpy=lambda a, b: np.abs(a - b).mean(),
        torch=lambda t, a, b: t.nn.functional.l1_loss(a, b),
        inputs=pairs[:1],
        errors=[(lambda: F.l1_loss(three, three, "no"), ValueError, "reduction")],
    ),
    Op(
        "huber_loss",
        call=lambda a, b: F.huber_loss(a, b, "sum", 0.7),
        numpy=lambda a, b: np.where(np.abs(a - b) <= 0.7, (a - b) ** 2 / 2, 0.7 * (np.abs(a - b) - 0.35)).sum(),
        torch=lambda t, a, b: t.nn.functional.huber_loss(a, b, "sum", 0.7),
        inputs=pairs[:1],
        errors=[(lambda: F.huber_loss(three, three, delta=0.0), ValueError, "delta")],
    ),
    Op(
        "binary_cross_entropy_with_logits",
        call=lambda z: F.binary_cross_entropy_with_logits(z, (ids > 1), "none"),
        numpy=lambda z: np.log1p(np.exp(z)) - z * (ids > 1),
        torch=lambda t, z: t.nn.functional.binary_cross_entropy_with_logits(
            z, t.tensor(ids > 1).to(z.dtype), reduction="none"
        ),
        inputs=[(normal(2, 3),)],
    ),
    Op(
        "kl_div",
        call=lambda q, p: F.kl_div(F.log_softmax(q), F.softmax(p)),
        numpy=lambda q, p: (softmax(p) * (np.log(softmax(p)) - np.log(softmax(q)))).sum() / 3,
        torch=lambda t, q, p: t.nn.functional.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="batchmean"),
        inputs=[(normal(3, 4), normal(3, 4))],
    ),
    # ---- layers
    Op(
        "linear",
        call=F.linear,
        numpy=lambda x, w, b: x @ w.T + b,
        torch=lambda t, x, w, b: t.nn.functional.linear(x, w, b),
        inputs=[
            (normal(2, 3, 4), normal(5, 4), normal(5)),
            (normal(4), normal(5, 4), normal(5)),
            (normal(64, 40), normal(70, 40), normal(70)),
        ],
        errors=[(lambda: F.linear(three, four), ValueError, "linear: weight must be (C_out, C_in) with C_in = 3")],
    ),
    Op(
        "linear",
        call=F.linear,
        numpy=lambda x, w: x @ w.T,
        torch=lambda t, x, w: t.nn.functional.linear(x, w),
        inputs=[(normal(2, 3, 4), normal(5, 4))],
        label="no bias",
    ),
    Op(
        "linear",
        call=lambda x, w, b: F.linear(x, w, b, by_columns=True),
        numpy=lambda x, w, b: x @ w + b,
        torch=lambda t, x, w, b: x @ w + b,
        inputs=[(normal(2, 3, 4), normal(4, 5), normal(5))],
        label="by columns",
        errors=[
            (
                lambda: F.linear(three, four, by_columns=True),
                ValueError,
                "linear: weight must be (C_in, C_out) with C_in = 3",
            )
        ],
    ),
    Op(
        "joint_linear",
        call=lambda x, w, v, b, c: F.joint_linear(x, [w, v], [b, c]),
        numpy=lambda x, w, v, b, c: np.concatenate([x @ w.T + b, x @ v.T + c], -1),
        torch=lambda t, x, w, v, b, c: t.cat([t.nn.functional.linear(x, w, b), t.nn.functional.linear(x, v, c)], -1),
        inputs=[(normal(2, 3, 4), normal(5, 4), normal(2, 4), normal(5), normal(2))],
        errors=[
            (lambda: F.joint_linear(three, [four]), ValueError, "linear: weight must be (C_out, C_in) with C_in = 3")
        ],
    ),
    Op(
        "joint_linear",
        call=lambda x, w, v: F.joint_linear(x, [w, v]),
        numpy=lambda x, w, v: np.concatenate([x @ w.T, x @ v.T], -1),
        torch=lambda t, x, w, v: t.cat([x @ w.T, x @ v.T], -1),
        inputs=[(normal(6, 4), normal(5, 4), normal(2, 4))],
        label="no bias",
    ),
    Op(
        "mlp",
        call=F.mlp,
        numpy=lambda x, w, b, v, c: gelu(x @ w.T + b) @ v.T + c,
        torch=lambda t, x, w, b, v, c: t.nn.functional.gelu(x @ w.T + b, approximate="tanh") @ v.T + c,
        inputs=[
            (normal(2, 5, 4), normal(8, 4), normal(8), normal(3, 8), normal(3)),
            (normal(4), normal(8, 4), normal(8), normal(3, 8), normal(3)),
        ],
        errors=[
            (
                lambda: F.mlp(three, four, four, four, four),
                ValueError,
                "linear: weight must be (C_out, C_in) with C_in = 3",
            ),
            (
                lambda: F.mlp(three, Tensor(np.ones((2, 3))), Tensor(np.ones(2)), three, Tensor(np.ones(2))),
                ValueError,
                "linear: weight must be (C_out, C_in) with C_in = 2",
            ),
            (
                lambda: F.mlp(three, Tensor(np.ones((3, 3))), Tensor(np.ones(3)), three, Tensor(np.ones(2)), "erf"),
                ValueError,
                "gelu: approximate must be 'tanh' or 'none'; got 'erf'",
            ),
        ],
    ),
    Op(
        "mlp",
        call=lambda x, w, b, v, c: F.mlp(x, w, b, v, c, "none", by_columns=True),
        numpy=lambda x, w, b, v, c: gelu_exact(x @ w + b) @ v + c,
        torch=lambda t, x, w, b, v, c: t.nn.functional.gelu(x @ w + b) @ v + c,
        inputs=[(normal(9, 4), normal(4, 8), normal(8), normal(8, 3), normal(3))],
        label="exact, by columns",
    ),
    Op(
        "layer_norm",
        call=F.layer_norm,
        numpy=lambda x, w, b: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b,
        torch=lambda t, x, w, b: t.nn.functional.layer_norm(x, (x.shape[-1],), w, b),
        inputs=[(normal(2, 3, 6), normal(6), normal(6))],
        errors=[
            (
                lambda: F.layer_norm(three, Tensor(np.ones(4))),
                ValueError,
                "weight must have the shape of x's last axis, (3,)",
            )
        ],
    ),
    Op(
        "layer_norm",
        call=F.layer_norm,
        numpy=lambda x, w: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w,
        torch=lambda t, x, w: t.nn.functional.layer_norm(x, (x.shape[-1],), w),
        inputs=[(normal(5, 6), normal(6))],
        label="no bias",
    ),
    Op(
        "layer_norm",
        call=lambda x, w, b: x + F.layer_norm(x, w, b),
        numpy=lambda x, w, b: x + (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b,
        torch=lambda t, x, w, b: x + t.nn.functional.layer_norm(x, (x.shape[-1],), w, b),
        inputs=[(normal(2, 3, 6), normal(6), normal(6))],
        label="beside a residual",
    ),
    Op(
        "rms_norm",
        call=lambda x, w: x + F.rms_norm(x, w),
        numpy=lambda x, w: x + x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w,
        torch=lambda t, x, w: x + t.nn.functional.rms_norm(x, (x.shape[-1],), w, eps=1e-5),
        inputs=[(normal(2, 3, 6), normal(6))],
        label="beside a residual",
    ),
    Op(
        "rms_norm",
        call=F.rms_norm,
        numpy=lambda x, w: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w,
        torch=lambda t, x, w: t.nn.functional.rms_norm(x, (x.shape[-1],), w, eps=1e-5),
        inputs=[(normal(2, 3, 6), normal(6))],
        errors=[(lambda: F.rms_norm(three, Tensor(np.ones(4))), ValueError, "rms_norm: weight")],
    ),
    Op(
        "embedding",
        call=lambda w: F.embedding(w, ids),
        numpy=lambda w: w[ids],
        torch=lambda t, w: t.nn.functional.embedding(t.tensor(ids), w),
        inputs=[(normal(5, 3),)],
        errors=[
            (lambda: F.embedding(three, [2]), ValueError, "embedding: ids must be integers in [0, 2); got 2 at (0,)"),
            (lambda: F.embedding(three, [0.5]), ValueError, "integers"),
        ],
    ),
    Op(
        "dropout",
        call=lambda x: F.dropout(x, 0.4, np.random.default_rng(3)),
        numpy=lambda x: x * (np.random.default_rng(3).random(x.shape, dtype=np.float32) >= 0.4) / 0.6,
        torch=lambda t, x: (
            x * t.tensor((np.random.default_rng(3).random(tuple(x.shape), dtype=np.float32) >= 0.4) / 0.6).to(x.dtype)
        ),
        inputs=unary,
        errors=[(lambda: F.dropout(three, 1.0), ValueError, "dropout: p must be in [0, 1); got 1.0")],
    ),
    Op(
        "rotary_embedding",
        call=lambda x: F.rotary_embedding(x, cos4.astype(x.dtype), sin4.astype(x.dtype)),
        numpy=lambda x: rotate(x, cos4, sin4),
        torch=lambda t, x: t.cat(
            [
                x[..., :2] * t.tensor(cos4).to(x.dtype) - x[..., 2:] * t.tensor(sin4).to(x.dtype),
                x[..., 2:] * t.tensor(cos4).to(x.dtype) + x[..., :2] * t.tensor(sin4).to(x.dtype),
            ],
            -1,
        ),
        inputs=[(normal(2, 3, 5, 4),)],
        errors=[
            (
                lambda: F.rotary_embedding(Tensor(np.ones((1, 1, 5, 6))), cos4, sin4),
                ValueError,
                "cos and sin must be (T, D / 2) = (5, 3)",
            )
        ],
    ),
    *[
        Op(
            "scaled_dot_product_attention",
            call=lambda q, k, v, o=o: F.scaled_dot_product_attention(q, k, v, **o),
            numpy=lambda q, k, v, o=o: attend(q, k, v, **o),
            torch=lambda t, q, k, v, o=o: t.nn.functional.scaled_dot_product_attention(
                q,
                k,
                v,
                enable_gqa=True,
                scale=o.get("scale"),
                attn_mask=t.tensor(
                    np.arange(k.shape[2]) <= np.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None]
                ).logical_and(
                    t.tensor(
                        np.arange(k.shape[2])
                        > np.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None] - (o.get("window") or 99)
                    )
                )
                if o.get("causal")
                else None,
            ),
            inputs=[(normal(2, 4, T, 6), normal(2, G, S, 6), normal(2, G, S, 6))],
            label=f"{o} T={T} S={S} G={G}",
        )
        for o, T, S, G in (
            ({}, 3, 5, 4),
            ({"causal": True}, 5, 5, 2),
            ({"causal": True}, 2, 5, 1),
            ({"causal": True, "window": 2}, 5, 5, 4),
            ({"scale": 0.3}, 4, 4, 4),
        )
    ],
    Op(
        "scaled_dot_product_attention",
        call=lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, mask=m),
        numpy=lambda q, k, v, m: attend(q, k, v, mask=m),
        torch=lambda t, q, k, v, m: t.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=m),
        inputs=[(normal(2, 2, 4, 6), normal(2, 2, 4, 6), normal(2, 2, 4, 6), additive)],
        errors=[
            (lambda: F.scaled_dot_product_attention(three, three, three), ValueError, "must be (B, heads, time, D)"),
            (
                lambda: F.scaled_dot_product_attention(*[Tensor(np.ones((1, h, 2, 4))) for h in (3, 2, 2)]),
                ValueError,
                "divisor of q's heads",
            ),
            (
                lambda: F.scaled_dot_product_attention(*[Tensor(np.ones((1, 1, 2, 4)))] * 3, window=2),
                ValueError,
                "window needs causal",
            ),
        ],
        label="additive mask",
    ),
    Op(
        "scaled_dot_product_attention",
        call=lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask=boolean),
        numpy=lambda q, k, v: attend(q, k, v, causal=True),
        torch=lambda t, q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        inputs=[(normal(2, 2, 4, 6), normal(2, 2, 4, 6), normal(2, 2, 4, 6))],
        label="boolean mask",
    ),
    Op(
        "self_attention",
        call=lambda x: F.self_attention(x, 2),
        numpy=lambda x: (
            attend(*[x[..., i * 8 : i * 8 + 8].reshape(2, 5, 2, 4).swapaxes(1, 2) for i in range(3)], causal=True)
            .swapaxes(1, 2)
            .reshape(2, 5, 8)
        ),
        torch=lambda t, x: (
            t.nn.functional.scaled_dot_product_attention(
                *[x[..., i * 8 : i * 8 + 8].reshape(2, 5, 2, 4).swapaxes(1, 2) for i in range(3)], is_causal=True
            )
            .swapaxes(1, 2)
            .reshape(2, 5, 8)
        ),
        inputs=[(normal(2, 5, 24),)],
        errors=[
            (lambda: F.self_attention(Tensor(np.ones((1, 2, 5))), 2), ValueError, "multiple of heads + 2 kv_heads = 6")
        ],
    ),
    Op(
        "self_attention",
        call=lambda x: F.self_attention(x, 2, 1, (cos4.astype(x.dtype), sin4.astype(x.dtype)), window=3),
        numpy=lambda x: (
            attend(
                *[
                    rotate(p, cos4, sin4) if i < 2 else p
                    for i, p in enumerate(
                        [
                            x[..., :8].reshape(2, 5, 2, 4).swapaxes(1, 2),
                            x[..., 8:12].reshape(2, 5, 1, 4).swapaxes(1, 2),
                            x[..., 12:].reshape(2, 5, 1, 4).swapaxes(1, 2),
                        ]
                    )
                ],
                causal=True,
                window=3,
            )
            .swapaxes(1, 2)
            .reshape(2, 5, 8)
        ),
        torch=None,
        inputs=[(normal(2, 5, 16),)],
        label="rotary, grouped, window",
    ),
    # ---- recurrence
    Op(
        "rnn",
        call=F.rnn,
        numpy=rnn,
        torch=None,
        inputs=[(normal(2, 4, 3), normal(5, 3), normal(5, 5), normal(5), normal(5), normal(2, 5))],
        errors=[(lambda: F.rnn(three, three, three, None, None, three), ValueError, "rnn")],
    ),
    Op(
        "rnn",
        call=lambda x, w, u, h: F.rnn(x, w, u, None, None, h),
        numpy=lambda x, w, u, h: rnn(x, w, u, 0, 0, h),
        torch=None,
        inputs=[(normal(2, 4, 3), normal(5, 3), normal(5, 5), normal(2, 5))],
        label="no bias",
    ),
    Op(
        "gru",
        call=F.gru,
        numpy=gru,
        torch=None,
        inputs=[(normal(2, 4, 3), normal(15, 3), normal(15, 5), normal(15), normal(15), normal(2, 5))],
        errors=[(lambda: F.gru(three, three, three, None, None, three), ValueError, "gru")],
    ),
    Op(
        "lstm",
        call=lambda *a: F.lstm(*a)[0],
        numpy=lambda *a: lstm(*a)[0],
        torch=None,
        inputs=[(normal(2, 4, 3), normal(20, 3), normal(20, 5), normal(20), normal(20), normal(2, 5), normal(2, 5))],
        errors=[(lambda: F.lstm(three, three, three, None, None, three, three), ValueError, "lstm")],
    ),
    Op(
        "lstm",
        call=lambda *a: F.lstm(*a)[0].sum() + F.lstm(*a)[1].sum() * 3,
        numpy=lambda *a: lstm(*a)[0].sum() + 3 * lstm(*a)[1].sum(),
        torch=None,
        inputs=[(normal(2, 4, 3), normal(20, 3), normal(20, 5), normal(20), normal(20), normal(2, 5), normal(2, 5))],
        label="last memory",
    ),
    *[
        Op(
            "past_attention",
            call=lambda q, k, v, *w: F.past_attention(q, k, v, 3, *w),
            numpy=past,
            torch=None,
            inputs=[(normal(2, 4, 3), normal(2, S, 3), normal(2, S, 3), *w)],
            label=f"{'additive' if w else 'dot'} S={S}",
            errors=[
                (
                    lambda: F.past_attention(three, three, three, 3),
                    ValueError,
                    "past_attention: expected query (B, T, C)",
                )
            ],
        )
        for S in (4, 6)
        for w in ((), (normal(3),))
    ],
    # ---- pictures
    Op(
        "conv2d",
        call=lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
        numpy=lambda x, w, b: conv(x, w, b, 2, 1),
        torch=lambda t, x, w, b: t.nn.functional.conv2d(x, w, b, 2, 1),
        inputs=[(normal(2, 3, 6, 5), normal(4, 3, 3, 3), normal(4))],
        errors=[
            (lambda: F.conv2d(three, three), ValueError, "expected x (B, C, Y, X)"),
            (
                lambda: F.conv2d(Tensor(np.ones((1, 1, 2, 2))), Tensor(np.ones((1, 1, 3, 3)))),
                ValueError,
                "does not fit into 2 x 2",
            ),
            (
                lambda: F.conv2d(Tensor(np.ones((1, 1, 4, 4))), Tensor(np.ones((1, 1, 3, 3))), stride=0),
                ValueError,
                "stride",
            ),
        ],
    ),
    Op(
        "conv1d",
        call=lambda x, w: F.conv1d(x, w, stride=2, padding=1),
        numpy=lambda x, w: conv(np.pad(x, ((0, 0), (0, 0), (1, 1)))[:, :, None], w[:, :, None])[:, :, 0, ::2],
        torch=lambda t, x, w: t.nn.functional.conv1d(x, w, None, 2, 1),
        inputs=[(normal(2, 3, 7), normal(4, 3, 3))],
        errors=[(lambda: F.conv1d(three, three), ValueError, "expected x (B, C, T)")],
    ),
    Op(
        "max_pool2d",
        call=lambda x: F.max_pool2d(x, 2),
        numpy=lambda x: windows(x, 2).max((3, 5)),
        torch=lambda t, x: t.nn.functional.max_pool2d(x, 2),
        inputs=[(distinct(2, 3, 4, 6),)],
        errors=[(lambda: F.max_pool2d(three, 2), ValueError, "expected x (B, C, Y, X)")],
    ),
    Op(
        "avg_pool2d",
        call=lambda x: F.avg_pool2d(x, 2),
        numpy=lambda x: windows(x, 2).mean((3, 5)),
        torch=lambda t, x: t.nn.functional.avg_pool2d(x, 2),
        inputs=[(normal(2, 3, 4, 6),)],
        errors=[(lambda: F.avg_pool2d(three, 2), ValueError, "expected x (B, C, Y, X)")],
    ),
    Op(
        "avg_pool2d",
        call=lambda x: F.avg_pool2d(x, 3, 1),
        numpy=lambda x: np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3)).mean((-1, -2)),
        torch=lambda t, x: t.nn.functional.avg_pool2d(x, 3, 1),
        inputs=[(normal(1, 2, 4, 5),)],
        label="overlapping",
    ),
    Op(
        "max_pool2d",
        call=lambda x: F.max_pool2d(x, 3, 2, 1),
        numpy=lambda x: np.lib.stride_tricks.sliding_window_view(
            np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf), (3, 3), (2, 3)
        )[:, :, ::2, ::2].max((-1, -2)),
        torch=lambda t, x: t.nn.functional.max_pool2d(x, 3, 2, 1),
        inputs=[(distinct(1, 2, 4, 5),)],
        errors=[
            (
                lambda: F.max_pool2d(Tensor(np.ones((1, 1, 4, 4))), 2, padding=2),
                ValueError,
                "at most half of the window",
            )
        ],
        label="overlapping, padded",
    ),
]

# Public names that give no gradient, and so need no row.
WITHOUT_GRADIENT = {
    "arange", "one_hot", "Tensor.argmax", "Tensor.detach", "Tensor.numpy", "Tensor.item", "Tensor.backward", "Tensor.from_op",
    "Tensor.mark_changed", "Tensor.register_hook", "Tensor.retain_grad", "Tensor.data", "Tensor.dtype", "Tensor.ndim", "Tensor.op",
    "Tensor.shape", "Tensor.size", "Tensor.grad", "Tensor.requires_grad",
}  # fmt: skip
