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
            x = np.tanh(q[:, t, None] + keys) @ w if w is not None else (keys @ q[:, t, :, None])[..., 0] / np.sqrt(q.shape[-1])
            out[:, t] = (softmax(x)[:, None] @ v[:, lo:hi])[:, 0]
    return out


ids = np.array([[0, 2, 1], [2, 2, 4]])
targets = np.array([[1, -100, 3], [0, 4, 4]])
cos4, sin4 = angles(5, 2)
additive = rng.standard_normal((2, 1, 4, 4))
boolean = np.tril(np.ones((4, 4), bool))
unary = [(normal(3, 4),), (normal(5),), (normal(2, 3, 4),)]
pairs = [(normal(3, 4), normal(3, 4)), (normal(3, 4), normal(4)), (normal(3, 1), normal(1, 4)), (normal(2, 3, 4), normal(3, 1))]
positive_pairs = [(positive(3, 4), normal(3, 4)), (positive(2, 3, 4), normal(3, 1)), (positive(3, 1), normal(4))]
corner = [(distinct(3, 4),), (distinct(7),)]
fit = "do not fit"
three, four = Tensor(np.ones((2, 3))), Tensor(np.ones((2, 4)))

OPS: list[Op] = [
    # ---- Python syntax
    Op("Tensor.__add__", lambda a, b: a + b, np.add, lambda t, a, b: a + b, pairs, [(lambda: three + four, ValueError, fit)]),
    Op("Tensor.__sub__", lambda a, b: a - b, np.subtract, lambda t, a, b: a - b, pairs, [(lambda: three - four, ValueError, fit)]),
    Op("Tensor.__mul__", lambda a, b: a * b, np.multiply, lambda t, a, b: a * b, pairs, [(lambda: three * four, ValueError, fit)]),
    Op("Tensor.__truediv__", lambda a, b: a / b, np.divide, lambda t, a, b: a / b,
       [(a, np.abs(b) + 0.5) for a, b in pairs], [(lambda: three / four, ValueError, fit)]),
    Op("Tensor.__pow__", lambda a, b: a**b, np.power, lambda t, a, b: a**b, positive_pairs, [(lambda: three**four, ValueError, fit)]),
    Op("Tensor.__pow__", lambda a: a**3, lambda a: a**3, lambda t, a: a**3, unary, label="cube"),
    Op("Tensor.__radd__", lambda a: 2 + a, lambda a: 2 + a, lambda t, a: 2 + a, unary),
    Op("Tensor.__rsub__", lambda a: 2 - a, lambda a: 2 - a, lambda t, a: 2 - a, unary),
    Op("Tensor.__rmul__", lambda a: 2 * a, lambda a: 2 * a, lambda t, a: 2 * a, unary),
    Op("Tensor.__rtruediv__", lambda a: 2 / a, lambda a: 2 / a, lambda t, a: 2 / a, [(positive(3, 4),)]),
    Op("Tensor.__rpow__", lambda a: 2**a, lambda a: 2.0**a, lambda t, a: 2**a, unary),
    Op("Tensor.__rmatmul__", lambda a: np.ones((2, 3), a.dtype) @ a, lambda a: np.ones((2, 3)) @ a,
       lambda t, a: t.ones(2, 3, dtype=a.dtype) @ a, [(normal(3, 4),)]),
    Op("Tensor.__neg__", lambda a: -a, np.negative, lambda t, a: -a, unary),
    Op("Tensor.__matmul__", lambda a, b: a @ b, np.matmul, lambda t, a, b: a @ b,
       [(normal(3, 4), normal(4, 5)), (normal(4), normal(4)), (normal(4), normal(4, 5)), (normal(3, 4), normal(4)),
        (normal(2, 3, 4), normal(4, 5)), (normal(2, 3, 4), normal(2, 4, 5)), (normal(2, 1, 3, 4), normal(5, 4, 2)),
        (normal(40, 30), normal(30, 50)), (normal(9, 20, 16), normal(9, 16, 20)), (normal(2, 3, 4), normal(4)),
        (normal(4), normal(2, 4, 3))],
       [(lambda: three @ four, ValueError, "last axis"), (lambda: Tensor(np.ones((2, 3, 4))) @ Tensor(np.ones((3, 4, 5))), ValueError, fit)]),
    Op("Tensor.__getitem__", lambda a: a[1:, ::2], lambda a: a[1:, ::2], lambda t, a: a[1:, ::2], [(normal(3, 5),)], label="slices"),
    Op("Tensor.__getitem__", lambda a: a[..., None, 1], lambda a: a[..., None, 1], lambda t, a: a[..., None, 1], unary, label="ellipsis"),
    Op("Tensor.__getitem__", lambda a: a[[0, 2, 0, 0]], lambda a: a[[0, 2, 0, 0]], lambda t, a: a[[0, 2, 0, 0]], [(normal(3, 5),)],
       [(lambda: three[1.5], IndexError, "integers, booleans or slices"), (lambda: three[9], IndexError, "out of bounds")], label="repeated"),
    Op("Tensor.__getitem__", lambda a: a[np.array([0, 1, 1]), np.array([2, 0, 0])], lambda a: a[[0, 1, 1], [2, 0, 0]],
       lambda t, a: a[[0, 1, 1], [2, 0, 0]], [(normal(3, 5),)], label="pairs"),
    Op("Tensor.__getitem__", lambda a: a[np.array([True, False, True])], lambda a: a[[True, False, True]],
       lambda t, a: a[[True, False, True]], [(normal(3, 5),)], label="booleans"),
    Op("Tensor.__iter__", lambda a: list(a)[1] * 2, lambda a: a[1] * 2, lambda t, a: a[1] * 2, [(normal(3, 4),)]),
    # ---- reductions
    *[Op(f"Tensor.{n}", lambda a, n=n, k=k: getattr(a, n)(**k), lambda a, n=n, k=k: getattr(np, n)(a, **k),
         lambda t, a, n=n, k=k: getattr(t, {"max": "amax", "min": "amin"}.get(n, n))(
             a, **({"unbiased": False} if n == "var" else {}),
             **{"axis" if n in ("sum", "mean") else "dim": k.get("axis", tuple(range(a.ndim))), "keepdim": k.get("keepdims", False)}),
         inputs, label=str(k))
      for n, inputs in (("sum", unary), ("mean", unary), ("var", unary), ("max", corner), ("min", corner))
      for k in ({}, {"axis": 0}, {"axis": -1, "keepdims": True})],
    Op("Tensor.max", lambda a: a.max(axis=1), lambda a: a.max(axis=1), lambda t, a: a.amax(dim=1), [(np.ones((2, 3)),)],
       [(lambda: Tensor(np.ones((0, 2))).max(), ValueError, "empty")], label="torch's ties"),
    Op("prod", lambda a: F.prod(a, axis=1), lambda a: a.prod(axis=1), lambda t, a: a.prod(dim=1),
       [(normal(3, 4),), (np.array([[1.0, 0.0, 3.0], [0.0, 0.0, 2.0]]),)]),
    Op("prod", lambda a: F.prod(a), lambda a: a.prod(), lambda t, a: a.prod(), [(normal(3, 2),)], label="all"),
    Op("logsumexp", F.logsumexp, lambda a: np.log(np.exp(a).sum(-1)), lambda t, a: t.logsumexp(a, -1), unary),
    Op("logsumexp", lambda a: F.logsumexp(a, (0, 1), True), lambda a: np.log(np.exp(a).sum((0, 1), keepdims=True)),
       lambda t, a: t.logsumexp(a, (0, 1), True), [(normal(3, 4),)], label="axes"),
    Op("std", lambda a: F.std(a, axis=-1), lambda a: a.std(axis=-1), lambda t, a: a.std(dim=-1, unbiased=False), unary),
    Op("norm", F.norm, np.linalg.norm, lambda t, a: a.norm(), [(normal(5),), (normal(3, 4),)]),
    Op("norm", lambda a: F.norm(a, -1, True), lambda a: np.linalg.norm(a, axis=-1, keepdims=True),
       lambda t, a: a.norm(dim=-1, keepdim=True), unary, label="axis"),
    Op("cumsum", lambda a: F.cumsum(a, 0), lambda a: a.cumsum(0), lambda t, a: a.cumsum(0), unary),
    # ---- shapes
    Op("Tensor.reshape", lambda a: a.reshape(2, -1), lambda a: a.reshape(2, -1), lambda t, a: a.reshape(2, -1), [(normal(3, 4),)],
       [(lambda: three.reshape(4, 4), ValueError, "do not fill shape (4, 4)")]),
    Op("Tensor.transpose", lambda a: a.transpose(1, 0, 2), lambda a: a.transpose(1, 0, 2), lambda t, a: a.permute(1, 0, 2), [(normal(2, 3, 4),)]),
    Op("Tensor.T", lambda a: a.T, lambda a: a.T, lambda t, a: a.T, [(normal(3, 4),)]),
    Op("Tensor.swapaxes", lambda a: a.swapaxes(0, -1), lambda a: a.swapaxes(0, -1), lambda t, a: a.swapaxes(0, -1), [(normal(2, 3, 4),)]),
    Op("Tensor.astype", lambda a: a.astype(np.float64) * 2, lambda a: a * 2.0, lambda t, a: a.double() * 2, unary),
    Op("squeeze", F.squeeze, np.squeeze, lambda t, a: a.squeeze(), [(normal(3, 1, 4),)]),
    Op("unsqueeze", lambda a: F.unsqueeze(a, 1), lambda a: a[:, None], lambda t, a: a.unsqueeze(1), unary),
    Op("broadcast_to", lambda a: F.broadcast_to(a, (2, 3, 4)), lambda a: np.broadcast_to(a, (2, 3, 4)),
       lambda t, a: a.broadcast_to(2, 3, 4), [(normal(3, 1),), (normal(4),)]),
    Op("flip", lambda a: F.flip(a, 1), lambda a: np.flip(a, 1), lambda t, a: a.flip(1), [(normal(3, 4),)]),
    Op("pad", lambda a: F.pad(a, ((1, 2), (0, 1))), lambda a: np.pad(a, ((1, 2), (0, 1))),
       lambda t, a: t.nn.functional.pad(a, (0, 1, 1, 2)), [(normal(3, 4),)]),
    Op("split", lambda a: F.split(a, [1, 3], 1)[1], lambda a: a[:, 1:], lambda t, a: a.split([1, 3], 1)[1], [(normal(3, 4),)],
       [(lambda: F.split(three, [1, 1], 1), ValueError, "add up to 3")]),
    Op("chunk", lambda a: F.chunk(a, 3, 0)[2] * 3, lambda a: a[4:] * 3, lambda t, a: a.chunk(3, 0)[2] * 3, [(normal(5, 2),)],
       [(lambda: F.chunk(three, 0), ValueError, "at least 1")]),
    Op("concatenate", lambda a, b: F.concatenate([a, b], 1), lambda a, b: np.concatenate([a, b], 1),
       lambda t, a, b: t.cat([a, b], 1), [(normal(3, 2), normal(3, 4))],
       [(lambda: F.concatenate([]), ValueError, "at least one"), (lambda: F.concatenate([three, four], 0), ValueError, "concatenate")]),
    Op("stack", lambda a, b: F.stack([a, b], 1), lambda a, b: np.stack([a, b], 1), lambda t, a, b: t.stack([a, b], 1),
       [(normal(3, 2), normal(3, 2))], [(lambda: F.stack([three, four]), ValueError, "one shape")]),
    Op("tile", lambda a: F.tile(a, (2, 1, 3)), lambda a: np.tile(a, (2, 1, 3)), lambda t, a: a.tile((2, 1, 3)), [(normal(3, 4),)]),
    Op("take", lambda a: F.take(a, [0, 2, 2], 1), lambda a: a.take([0, 2, 2], 1), lambda t, a: a[:, [0, 2, 2]], [(normal(3, 4),)]),
    Op("gather", lambda a: F.gather(a, ids[:, :2], 1), lambda a: np.take_along_axis(a, ids[:, :2], 1),
       lambda t, a: a.gather(1, t.tensor(ids[:, :2])), [(normal(2, 5),)], [(lambda: F.gather(three, np.array([0])), ValueError, "as many axes")]),
    Op("tril", lambda a: F.tril(a, 1), lambda a: np.tril(a, 1), lambda t, a: a.tril(1), [(normal(4, 4),)]),
    Op("triu", lambda a: F.triu(a, 1), lambda a: np.triu(a, 1), lambda t, a: a.triu(1), [(normal(4, 4),)]),
    # ---- one entry at a time
    Op("exp", F.exp, np.exp, lambda t, a: a.exp(), unary),
    Op("log", F.log, np.log, lambda t, a: a.log(), [(positive(3, 4),)]),
    Op("log1p", F.log1p, np.log1p, lambda t, a: a.log1p(), [(positive(3, 4),)]),
    Op("sqrt", F.sqrt, np.sqrt, lambda t, a: a.sqrt(), [(positive(3, 4),)]),
    Op("rsqrt", F.rsqrt, lambda a: a**-0.5, lambda t, a: a.rsqrt(), [(positive(3, 4),)]),
    Op("abs", F.abs, np.abs, lambda t, a: a.abs(), corner),
    Op("sin", F.sin, np.sin, lambda t, a: a.sin(), unary),
    Op("cos", F.cos, np.cos, lambda t, a: a.cos(), unary),
    Op("tanh", F.tanh, np.tanh, lambda t, a: a.tanh(), unary),
    Op("sigmoid", F.sigmoid, lambda a: 1 / (1 + np.exp(-a)), lambda t, a: a.sigmoid(), unary),
    Op("softplus", F.softplus, lambda a: np.log1p(np.exp(a)), lambda t, a: t.nn.functional.softplus(a), unary),
    Op("relu", F.relu, lambda a: np.maximum(a, 0), lambda t, a: a.relu(), corner),
    Op("leaky_relu", lambda a: F.leaky_relu(a, 0.1), lambda a: np.where(a > 0, a, 0.1 * a),
       lambda t, a: t.nn.functional.leaky_relu(a, 0.1), corner),
    Op("elu", lambda a: F.elu(a, 1.5), lambda a: np.where(a > 0, a, 1.5 * np.expm1(a)), lambda t, a: t.nn.functional.elu(a, 1.5), corner),
    Op("gelu", F.gelu, gelu,
       lambda t, a: t.nn.functional.gelu(a, approximate="tanh"), unary, [(lambda: F.gelu(three, "fast"), ValueError, "'tanh' or 'none'")]),
    Op("gelu", lambda a: F.gelu(a, "none"), gelu_exact, lambda t, a: t.nn.functional.gelu(a), unary, label="exact"),
    Op("silu", F.silu, lambda a: a / (1 + np.exp(-a)), lambda t, a: t.nn.functional.silu(a), unary),
    Op("swiglu", F.swiglu, lambda a: a[..., :2] / (1 + np.exp(-a[..., :2])) * a[..., 2:],
       lambda t, a: t.nn.functional.silu(a[..., :2]) * a[..., 2:], [(normal(3, 4),), (normal(2, 3, 4),)],
       [(lambda: F.swiglu(three), ValueError, "odd length 3")]),
    Op("clip", lambda a: F.clip(a, -0.5, 0.7), lambda a: np.clip(a, -0.5, 0.7), lambda t, a: a.clip(-0.5, 0.7), corner,
       [(lambda: F.clip(three), ValueError, "min, max or both")]),
    Op("maximum", F.maximum, np.maximum, lambda t, a, b: t.maximum(a, b), [(distinct(3, 4), normal(4)), (normal(4), distinct(3, 4)), (np.ones(3), np.ones(3))],
       [(lambda: F.maximum(three, four), ValueError, fit)], label="ties"),
    Op("minimum", F.minimum, np.minimum, lambda t, a, b: t.minimum(a, b), [(distinct(3, 4), normal(3, 1))],
       [(lambda: F.minimum(three, four), ValueError, fit)]),
    Op("where", lambda a, b: F.where(boolean, a, b), lambda a, b: np.where(boolean, a, b),
       lambda t, a, b: t.where(t.tensor(boolean), a, b), [(normal(4, 4), normal(4, 4)), (normal(4), normal(4, 1))],
       [(lambda: F.where(boolean, three, three), ValueError, "")]),
    # ---- products
    Op("matmul", F.matmul, np.matmul, lambda t, a, b: t.matmul(a, b), [(normal(3, 4), normal(4, 5))]),
    Op("outer", F.outer, np.outer, lambda t, a, b: t.outer(a, b), [(normal(3), normal(4))], [(lambda: F.outer(three, three), ValueError, "vectors")]),
    Op("einsum", lambda a, b: F.einsum("bij,bjk->bik", a, b), lambda a, b: np.einsum("bij,bjk->bik", a, b),
       lambda t, a, b: t.einsum("bij,bjk->bik", a, b), [(normal(2, 3, 4), normal(2, 4, 5))],
       [(lambda: F.einsum("ij,jk", three), ValueError, "has 2 terms; got 1 tensors"), (lambda: F.einsum("ijk->i", three), ValueError, "3 axes")]),
    Op("einsum", lambda a, b: F.einsum("ij,k->ik", a, b), lambda a, b: np.einsum("ij,k->ik", a, b),
       lambda t, a, b: t.einsum("ij,k->ik", a, b), [(normal(2, 3), normal(4))], label="lone letter"),
    *[Op("einsum", lambda *a, s=s: F.einsum(s, *a), lambda *a, s=s: np.einsum(s, *a), lambda t, *a, s=s: t.einsum(s, *a), [arrays], label=s)
      for s, arrays in (("ij", (normal(2, 3),)), ("ji", (normal(2, 3),)), ("ii", (normal(3, 3),)), ("ii->i", (normal(3, 3),)), ("iij,jk", (normal(2, 2, 3), normal(3, 4))),
                        ("...ij,...jk->...ik", (normal(2, 3, 4), normal(4, 5))), ("...i", (normal(2, 3),)), ("i...->...", (normal(2, 3, 4),)),
                        ("...i,...j", (normal(3, 1, 2), normal(5, 2))), ("ij,jk->ik", (normal(2, 1), normal(3, 4))), ("i,i,ij->j", (normal(2), normal(2), normal(2, 3))))],
    # ---- softmax and losses
    Op("softmax", F.softmax, softmax, lambda t, a: a.softmax(-1), unary),
    Op("softmax", lambda a: F.softmax(a, 0), lambda a: softmax(a, 0), lambda t, a: a.softmax(0), unary, label="axis 0"),
    Op("log_softmax", F.log_softmax, lambda a: np.log(softmax(a)), lambda t, a: a.log_softmax(-1), unary),
    Op("log_softmax", lambda a: F.log_softmax(a, 0), lambda a: np.log(softmax(a, 0)), lambda t, a: a.log_softmax(0), unary, label="axis 0"),
    *[Op("cross_entropy", lambda z, r=r: F.cross_entropy(z, targets, reduction=r),
         lambda z, r=r: {"mean": nll(z, targets).sum() / 5, "sum": nll(z, targets).sum(), "none": nll(z, targets)}[r],
         lambda t, z, r=r: t.nn.functional.cross_entropy(z.reshape(-1, 5), t.tensor(targets).reshape(-1), reduction=r).reshape(
             (2, 3) if r == "none" else ()), [(normal(2, 3, 5),)], label=r)
      for r in ("mean", "sum", "none")],
    Op("cross_entropy", lambda z: F.cross_entropy(z, targets, label_smoothing=0.1),
       lambda z: (0.9 * nll(z, targets) - 0.1 * np.log(softmax(z)).mean(-1) * (targets >= 0)).sum() / 5,
       lambda t, z: t.nn.functional.cross_entropy(z.reshape(-1, 5), t.tensor(targets).reshape(-1), label_smoothing=0.1), [(normal(2, 3, 5),)],
       [(lambda: F.cross_entropy(Tensor(np.ones((2, 3, 5))), np.array([[0, 1, 2], [0, 7, 1]])), ValueError,
         r"cross_entropy: targets must be integers in [0, 5); got 7 at (1, 1)"),
        (lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([0.0, 1.0])), ValueError, "integers"),
        (lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([0])), ValueError, "shape"),
        (lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([-100, -100])), ValueError, "every target"),
        (lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([0, 1]), reduction="avg"), ValueError, "'mean', 'sum' or 'none'"),
        (lambda: F.cross_entropy(Tensor(np.ones((2, 5))), np.array([0, 1]), label_smoothing=1.01), ValueError, "label_smoothing must be in [0, 1]; got 1.01")],
       label="smoothed"),
    Op("cross_entropy", lambda z: F.cross_entropy(z, targets, label_smoothing=1.0),
       lambda z: (-np.log(softmax(z)).mean(-1) * (targets >= 0)).sum() / 5,
       lambda t, z: t.nn.functional.cross_entropy(z.reshape(-1, 5), t.tensor(targets).reshape(-1), label_smoothing=1.0), [(normal(2, 3, 5),)],
       label="smoothed to the last"),
    Op("nll_loss", lambda z: F.nll_loss(F.log_softmax(z), targets), lambda z: nll(z, targets).sum() / 5,
       lambda t, z: t.nn.functional.nll_loss(z.log_softmax(-1).reshape(-1, 5), t.tensor(targets).reshape(-1)), [(normal(2, 3, 5),)],
       [(lambda: F.nll_loss(three, np.array([0])), ValueError, "shape"), (lambda: F.nll_loss(three, np.array([-100, -100])), ValueError, "every")]),
    Op("mse_loss", F.mse_loss, lambda a, b: ((a - b) ** 2).mean(), lambda t, a, b: t.nn.functional.mse_loss(a, b), pairs[:1],
       [(lambda: F.mse_loss(three, three, "no"), ValueError, "reduction")]),
    Op("l1_loss", F.l1_loss, lambda a, b: np.abs(a - b).mean(), lambda t, a, b: t.nn.functional.l1_loss(a, b), pairs[:1],
       [(lambda: F.l1_loss(three, three, "no"), ValueError, "reduction")]),
    Op("huber_loss", lambda a, b: F.huber_loss(a, b, "sum", 0.7),
       lambda a, b: np.where(np.abs(a - b) <= 0.7, (a - b) ** 2 / 2, 0.7 * (np.abs(a - b) - 0.35)).sum(),
       lambda t, a, b: t.nn.functional.huber_loss(a, b, "sum", 0.7), pairs[:1], [(lambda: F.huber_loss(three, three, delta=0.0), ValueError, "delta")]),
    Op("binary_cross_entropy_with_logits", lambda z: F.binary_cross_entropy_with_logits(z, (ids > 1), "none"),
       lambda z: np.log1p(np.exp(z)) - z * (ids > 1),
       lambda t, z: t.nn.functional.binary_cross_entropy_with_logits(z, t.tensor(ids > 1).to(z.dtype), reduction="none"), [(normal(2, 3),)]),
    Op("kl_div", lambda q, p: F.kl_div(F.log_softmax(q), F.softmax(p)),
       lambda q, p: (softmax(p) * (np.log(softmax(p)) - np.log(softmax(q)))).sum() / 3,
       lambda t, q, p: t.nn.functional.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="batchmean"), [(normal(3, 4), normal(3, 4))]),
    # ---- layers
    Op("linear", F.linear, lambda x, w, b: x @ w.T + b, lambda t, x, w, b: t.nn.functional.linear(x, w, b),
       [(normal(2, 3, 4), normal(5, 4), normal(5)), (normal(4), normal(5, 4), normal(5)), (normal(64, 40), normal(70, 40), normal(70))],
       [(lambda: F.linear(three, four), ValueError, "linear: weight must be (C_out, C_in) with C_in = 3")]),
    Op("linear", F.linear, lambda x, w: x @ w.T, lambda t, x, w: t.nn.functional.linear(x, w), [(normal(2, 3, 4), normal(5, 4))], label="no bias"),
    Op("linear", lambda x, w, b: F.linear(x, w, b, by_columns=True), lambda x, w, b: x @ w + b, lambda t, x, w, b: x @ w + b,
       [(normal(2, 3, 4), normal(4, 5), normal(5))], label="by columns",
       errors=[(lambda: F.linear(three, four, by_columns=True), ValueError, "linear: weight must be (C_in, C_out) with C_in = 3")]),
    Op("joint_linear", lambda x, w, v, b, c: F.joint_linear(x, [w, v], [b, c]),
       lambda x, w, v, b, c: np.concatenate([x @ w.T + b, x @ v.T + c], -1),
       lambda t, x, w, v, b, c: t.cat([t.nn.functional.linear(x, w, b), t.nn.functional.linear(x, v, c)], -1),
       [(normal(2, 3, 4), normal(5, 4), normal(2, 4), normal(5), normal(2))],
       [(lambda: F.joint_linear(three, [four]), ValueError, "linear: weight must be (C_out, C_in) with C_in = 3")]),
    Op("joint_linear", lambda x, w, v: F.joint_linear(x, [w, v]), lambda x, w, v: np.concatenate([x @ w.T, x @ v.T], -1),
       lambda t, x, w, v: t.cat([x @ w.T, x @ v.T], -1), [(normal(6, 4), normal(5, 4), normal(2, 4))], label="no bias"),
    Op("mlp", F.mlp, lambda x, w, b, v, c: gelu(x @ w.T + b) @ v.T + c,
       lambda t, x, w, b, v, c: t.nn.functional.gelu(x @ w.T + b, approximate="tanh") @ v.T + c,
       [(normal(2, 5, 4), normal(8, 4), normal(8), normal(3, 8), normal(3)), (normal(4), normal(8, 4), normal(8), normal(3, 8), normal(3))],
       [(lambda: F.mlp(three, four, four, four, four), ValueError, "linear: weight must be (C_out, C_in) with C_in = 3"),
        (lambda: F.mlp(three, Tensor(np.ones((2, 3))), Tensor(np.ones(2)), three, Tensor(np.ones(2))), ValueError, "linear: weight must be (C_out, C_in) with C_in = 2"),
        (lambda: F.mlp(three, Tensor(np.ones((3, 3))), Tensor(np.ones(3)), three, Tensor(np.ones(2)), "erf"), ValueError,
         "gelu: approximate must be 'tanh' or 'none'; got 'erf'")]),
    Op("mlp", lambda x, w, b, v, c: F.mlp(x, w, b, v, c, "none", by_columns=True), lambda x, w, b, v, c: gelu_exact(x @ w + b) @ v + c,
       lambda t, x, w, b, v, c: t.nn.functional.gelu(x @ w + b) @ v + c,
       [(normal(9, 4), normal(4, 8), normal(8), normal(8, 3), normal(3))], label="exact, by columns"),
    Op("layer_norm", F.layer_norm, lambda x, w, b: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b,
       lambda t, x, w, b: t.nn.functional.layer_norm(x, (x.shape[-1],), w, b), [(normal(2, 3, 6), normal(6), normal(6))],
       [(lambda: F.layer_norm(three, Tensor(np.ones(4))), ValueError, "weight must have the shape of x's last axis, (3,)")]),
    Op("layer_norm", F.layer_norm, lambda x, w: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w,
       lambda t, x, w: t.nn.functional.layer_norm(x, (x.shape[-1],), w), [(normal(5, 6), normal(6))], label="no bias"),
    Op("layer_norm", lambda x, w, b: x + F.layer_norm(x, w, b),
       lambda x, w, b: x + (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b,
       lambda t, x, w, b: x + t.nn.functional.layer_norm(x, (x.shape[-1],), w, b), [(normal(2, 3, 6), normal(6), normal(6))],
       label="beside a residual"),
    Op("rms_norm", lambda x, w: x + F.rms_norm(x, w), lambda x, w: x + x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w,
       lambda t, x, w: x + t.nn.functional.rms_norm(x, (x.shape[-1],), w, eps=1e-5), [(normal(2, 3, 6), normal(6))],
       label="beside a residual"),
    Op("rms_norm", F.rms_norm, lambda x, w: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w,
       lambda t, x, w: t.nn.functional.rms_norm(x, (x.shape[-1],), w, eps=1e-5), [(normal(2, 3, 6), normal(6))],
       [(lambda: F.rms_norm(three, Tensor(np.ones(4))), ValueError, "rms_norm: weight")]),
    Op("embedding", lambda w: F.embedding(w, ids), lambda w: w[ids], lambda t, w: t.nn.functional.embedding(t.tensor(ids), w), [(normal(5, 3),)],
       [(lambda: F.embedding(three, [2]), ValueError, "embedding: ids must be integers in [0, 2); got 2 at (0,)"),
        (lambda: F.embedding(three, [0.5]), ValueError, "integers")]),
    Op("dropout", lambda x: F.dropout(x, 0.4, np.random.default_rng(3)),
       lambda x: x * (np.random.default_rng(3).random(x.shape, dtype=np.float32) >= 0.4) / 0.6,
       lambda t, x: x * t.tensor((np.random.default_rng(3).random(tuple(x.shape), dtype=np.float32) >= 0.4) / 0.6).to(x.dtype), unary,
       [(lambda: F.dropout(three, 1.0), ValueError, "dropout: p must be in [0, 1); got 1.0")]),
    Op("rotary_embedding", lambda x: F.rotary_embedding(x, cos4.astype(x.dtype), sin4.astype(x.dtype)), lambda x: rotate(x, cos4, sin4),
       lambda t, x: t.cat([x[..., :2] * t.tensor(cos4).to(x.dtype) - x[..., 2:] * t.tensor(sin4).to(x.dtype),
                           x[..., 2:] * t.tensor(cos4).to(x.dtype) + x[..., :2] * t.tensor(sin4).to(x.dtype)], -1), [(normal(2, 3, 5, 4),)],
       [(lambda: F.rotary_embedding(Tensor(np.ones((1, 1, 5, 6))), cos4, sin4), ValueError, "cos and sin must be (T, D / 2) = (5, 3)")]),
    *[Op("scaled_dot_product_attention", lambda q, k, v, o=o: F.scaled_dot_product_attention(q, k, v, **o),
         lambda q, k, v, o=o: attend(q, k, v, **o),
         lambda t, q, k, v, o=o: t.nn.functional.scaled_dot_product_attention(
             q, k, v, enable_gqa=True, scale=o.get("scale"),
             attn_mask=t.tensor(np.arange(k.shape[2]) <= np.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None]).logical_and(t.tensor(
                 np.arange(k.shape[2]) > np.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None] - (o.get("window") or 99))) if o.get("causal") else None),
         [(normal(2, 4, T, 6), normal(2, G, S, 6), normal(2, G, S, 6))], label=f"{o} T={T} S={S} G={G}")
      for o, T, S, G in (({}, 3, 5, 4), ({"causal": True}, 5, 5, 2), ({"causal": True}, 2, 5, 1), ({"causal": True, "window": 2}, 5, 5, 4),
                         ({"scale": 0.3}, 4, 4, 4))],
    Op("scaled_dot_product_attention", lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, mask=m),
       lambda q, k, v, m: attend(q, k, v, mask=m),
       lambda t, q, k, v, m: t.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=m),
       [(normal(2, 2, 4, 6), normal(2, 2, 4, 6), normal(2, 2, 4, 6), additive)],
       [(lambda: F.scaled_dot_product_attention(three, three, three), ValueError, "must be (B, heads, time, D)"),
        (lambda: F.scaled_dot_product_attention(*[Tensor(np.ones((1, h, 2, 4))) for h in (3, 2, 2)]), ValueError, "divisor of q's heads"),
        (lambda: F.scaled_dot_product_attention(*[Tensor(np.ones((1, 1, 2, 4)))] * 3, window=2), ValueError, "window needs causal")],
       label="additive mask"),
    Op("scaled_dot_product_attention", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask=boolean),
       lambda q, k, v: attend(q, k, v, causal=True), lambda t, q, k, v: t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
       [(normal(2, 2, 4, 6), normal(2, 2, 4, 6), normal(2, 2, 4, 6))], label="boolean mask"),
    Op("self_attention", lambda x: F.self_attention(x, 2),
       lambda x: attend(*[x[..., i * 8 : i * 8 + 8].reshape(2, 5, 2, 4).swapaxes(1, 2) for i in range(3)], causal=True).swapaxes(1, 2).reshape(2, 5, 8),
       lambda t, x: t.nn.functional.scaled_dot_product_attention(
           *[x[..., i * 8 : i * 8 + 8].reshape(2, 5, 2, 4).swapaxes(1, 2) for i in range(3)], is_causal=True).swapaxes(1, 2).reshape(2, 5, 8),
       [(normal(2, 5, 24),)], [(lambda: F.self_attention(Tensor(np.ones((1, 2, 5))), 2), ValueError, "multiple of heads + 2 kv_heads = 6")]),
    Op("self_attention", lambda x: F.self_attention(x, 2, 1, (cos4.astype(x.dtype), sin4.astype(x.dtype)), window=3),
       lambda x: attend(*[rotate(p, cos4, sin4) if i < 2 else p for i, p in enumerate(
           [x[..., :8].reshape(2, 5, 2, 4).swapaxes(1, 2), x[..., 8:12].reshape(2, 5, 1, 4).swapaxes(1, 2), x[..., 12:].reshape(2, 5, 1, 4).swapaxes(1, 2)])],
           causal=True, window=3).swapaxes(1, 2).reshape(2, 5, 8),
       None, [(normal(2, 5, 16),)], label="rotary, grouped, window"),
    # ---- recurrence
    Op("rnn", F.rnn, rnn, None, [(normal(2, 4, 3), normal(5, 3), normal(5, 5), normal(5), normal(5), normal(2, 5))],
       [(lambda: F.rnn(three, three, three, None, None, three), ValueError, "rnn")]),
    Op("rnn", lambda x, w, u, h: F.rnn(x, w, u, None, None, h), lambda x, w, u, h: rnn(x, w, u, 0, 0, h), None,
       [(normal(2, 4, 3), normal(5, 3), normal(5, 5), normal(2, 5))], label="no bias"),
    Op("gru", F.gru, gru, None, [(normal(2, 4, 3), normal(15, 3), normal(15, 5), normal(15), normal(15), normal(2, 5))],
       [(lambda: F.gru(three, three, three, None, None, three), ValueError, "gru")]),
    Op("lstm", lambda *a: F.lstm(*a)[0], lambda *a: lstm(*a)[0], None,
       [(normal(2, 4, 3), normal(20, 3), normal(20, 5), normal(20), normal(20), normal(2, 5), normal(2, 5))],
       [(lambda: F.lstm(three, three, three, None, None, three, three), ValueError, "lstm")]),
    Op("lstm", lambda *a: F.lstm(*a)[0].sum() + F.lstm(*a)[1].sum() * 3, lambda *a: lstm(*a)[0].sum() + 3 * lstm(*a)[1].sum(), None,
       [(normal(2, 4, 3), normal(20, 3), normal(20, 5), normal(20), normal(20), normal(2, 5), normal(2, 5))], label="last memory"),
    *[Op("past_attention", lambda q, k, v, *w: F.past_attention(q, k, v, 3, *w), past, None,
         [(normal(2, 4, 3), normal(2, S, 3), normal(2, S, 3), *w)], label=f"{'additive' if w else 'dot'} S={S}",
         errors=[(lambda: F.past_attention(three, three, three, 3), ValueError, "past_attention: expected query (B, T, C)")])
      for S in (4, 6) for w in ((), (normal(3),))],
    # ---- pictures
    Op("conv2d", lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), lambda x, w, b: conv(x, w, b, 2, 1),
       lambda t, x, w, b: t.nn.functional.conv2d(x, w, b, 2, 1), [(normal(2, 3, 6, 5), normal(4, 3, 3, 3), normal(4))],
       [(lambda: F.conv2d(three, three), ValueError, "expected x (B, C, Y, X)"),
        (lambda: F.conv2d(Tensor(np.ones((1, 1, 2, 2))), Tensor(np.ones((1, 1, 3, 3)))), ValueError, "does not fit into 2 x 2"),
        (lambda: F.conv2d(Tensor(np.ones((1, 1, 4, 4))), Tensor(np.ones((1, 1, 3, 3))), stride=0), ValueError, "stride")]),
    Op("conv1d", lambda x, w: F.conv1d(x, w, stride=2, padding=1), lambda x, w: conv(np.pad(x, ((0, 0), (0, 0), (1, 1)))[:, :, None], w[:, :, None])[:, :, 0, ::2],
       lambda t, x, w: t.nn.functional.conv1d(x, w, None, 2, 1), [(normal(2, 3, 7), normal(4, 3, 3))],
       [(lambda: F.conv1d(three, three), ValueError, "expected x (B, C, T)")]),
    Op("max_pool2d", lambda x: F.max_pool2d(x, 2), lambda x: windows(x, 2).max((3, 5)), lambda t, x: t.nn.functional.max_pool2d(x, 2),
       [(distinct(2, 3, 4, 6),)], [(lambda: F.max_pool2d(three, 2), ValueError, "expected x (B, C, Y, X)")]),
    Op("avg_pool2d", lambda x: F.avg_pool2d(x, 2), lambda x: windows(x, 2).mean((3, 5)), lambda t, x: t.nn.functional.avg_pool2d(x, 2),
       [(normal(2, 3, 4, 6),)], [(lambda: F.avg_pool2d(three, 2), ValueError, "expected x (B, C, Y, X)")]),
    Op("avg_pool2d", lambda x: F.avg_pool2d(x, 3, 1), lambda x: np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3)).mean((-1, -2)),
       lambda t, x: t.nn.functional.avg_pool2d(x, 3, 1), [(normal(1, 2, 4, 5),)], label="overlapping"),
    Op("max_pool2d", lambda x: F.max_pool2d(x, 3, 2, 1),
       lambda x: np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf), (3, 3), (2, 3))[:, :, ::2, ::2].max((-1, -2)),
       lambda t, x: t.nn.functional.max_pool2d(x, 3, 2, 1), [(distinct(1, 2, 4, 5),)],
       [(lambda: F.max_pool2d(Tensor(np.ones((1, 1, 4, 4))), 2, padding=2), ValueError, "at most half of the window")], label="overlapping, padded"),
]  # fmt: skip

# Public names that give no gradient, and so need no row.
WITHOUT_GRADIENT = {
    "arange", "one_hot", "Tensor.argmax", "Tensor.detach", "Tensor.numpy", "Tensor.item", "Tensor.backward", "Tensor.from_op",
    "Tensor.mark_changed", "Tensor.register_hook", "Tensor.retain_grad", "Tensor.data", "Tensor.dtype", "Tensor.ndim", "Tensor.op",
    "Tensor.shape", "Tensor.size", "Tensor.grad", "Tensor.requires_grad",
}  # fmt: skip
