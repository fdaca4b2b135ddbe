"""Two linear layers with a gelu between them: two thirds of the products of a GPT.

    h = x W1^T + b1,   a = gelu(h),   y = residual + a W2^T + b2

Rows do not need each other, so each thread takes its own rows from x to y, and on the way back from dy to dx, and waits
for nobody in between. And of the two wide arrays only h is kept: gelu and its derivative need the same exponential, so
the backward makes a anew with one multiplication, which costs less than to have written it down and to read it back.
"""

from __future__ import annotations

import numpy as np

from ._jit import as_rows, contiguous, jit, kernel, prange
from .activations import (
    _gelu,
    _gelu_and_slope,
    _gelu_exact,
    _gelu_exact_and_slope,
    gelu_backward_numpy,
    gelu_forward,
    gelu_forward_numpy,
)
from .matmul import (
    add_rows,
    by_tiles,
    has_blas,
    linear_backward,
    linear_backward_numpy,
    linear_forward,
    linear_forward_numpy,
    parts_of,
    product,
    sum_rows,
)

Gradients = tuple[np.ndarray | None, ...]


def mlp_forward_numpy(
    x: np.ndarray,
    up: np.ndarray,
    up_bias: np.ndarray,
    down: np.ndarray,
    down_bias: np.ndarray,
    by_columns: bool = False,
    exact: bool = False,
    residual: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """y and h of the equations above.

    x: (..., C), up: (I, C), up_bias: (I,), down: (N, I), down_bias: (N,), residual: (..., N) or None -> y: (..., N),
    h: (..., I); by_columns, up: (C, I), down: (I, N).
    """
    h = linear_forward_numpy(x, up, up_bias, by_columns)
    return linear_forward_numpy(gelu_forward_numpy(h, exact), down, down_bias, by_columns, residual), h


def mlp_backward_numpy(
    dy: np.ndarray,
    x: np.ndarray,
    h: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    by_columns: bool = False,
    exact: bool = False,
) -> Gradients:
    """dx, and the gradients of up, up_bias, down and down_bias, by the chain rule through all three steps.

    dy: (..., N), the rest as in ``mlp_forward``.
    """
    da, ddown, ddown_bias = linear_backward_numpy(dy, gelu_forward_numpy(h, exact), down, by_columns, True, True, True)
    assert da is not None  # it was asked for
    dh = gelu_backward_numpy(da, h, exact)
    dx, dup, dup_bias = linear_backward_numpy(dh, x, up, by_columns, True, True, True)
    return dx, dup, dup_bias, ddown, ddown_bias


@jit(inner=True)
def _through_gelu(h, a, exact):
    if exact:
        for i in range(h.size):
            a[i] = _gelu_exact(h[i])
    else:
        for i in range(h.size):
            a[i] = _gelu(h[i])


@jit(inner=True)
def _back_through_gelu(h, da, a, exact):
    # a = gelu(h), and da becomes dh
    if exact:
        for i in range(h.size):
            a[i], slope = _gelu_exact_and_slope(h[i])
            da[i] *= slope
    else:
        for i in range(h.size):
            a[i], slope = _gelu_and_slope(h[i])
            da[i] *= slope


@jit(parallel=True)
def _all_back_through_gelu(h, da, a, exact):
    rows = h.shape[0]
    for part in prange(8):
        lo, hi = part * rows // 8, (part + 1) * rows // 8
        _back_through_gelu(h[lo:hi].reshape(-1), da[lo:hi].reshape(-1), a[lo:hi].reshape(-1), exact)


if has_blas:
    from .matmul import hold_blas_threads, input_gradient, linear_block, release_blas_threads, weight_gradient

    @jit(inner=True)
    def _forward_rows(row, rows, x, up, up_bias, down, down_bias, by_columns, exact, residual, h, a, y):
        linear_block(row, rows, 0, h.shape[1], x, up, by_columns, up_bias, up_bias[:0], h)
        _through_gelu(h[row : row + rows].reshape(-1), a[row : row + rows].reshape(-1), exact)
        linear_block(row, rows, 0, y.shape[1], a, down, by_columns, down_bias, residual, y)

    @jit(parallel=True)
    def _forward(x, up, up_bias, down, down_bias, by_columns, exact, residual, h, a, y, parts):
        m = x.shape[0]
        hold_blas_threads()
        for part in prange(parts):
            row = part * m // parts
            rows = (part + 1) * m // parts - row
            _forward_rows(row, rows, x, up, up_bias, down, down_bias, by_columns, exact, residual, h, a, y)
        release_blas_threads()

    @jit(inner=True)
    def _backward_rows(lo, hi, dy, h, up, down, by_columns, exact, a, dh, dx, up_sums, down_sums):
        input_gradient(lo, hi, dy, down, by_columns, dh, down_sums)  # so far da
        _back_through_gelu(h[lo:hi].reshape(-1), dh[lo:hi].reshape(-1), a[lo:hi].reshape(-1), exact)
        input_gradient(lo, hi, dh, up, by_columns, dx, up_sums)

    @jit(parallel=True)
    def _backward(
        dy, x, h, up, down, by_columns, exact, a, dh, dx, dup, dup_bias, ddown, ddown_bias, up_sums, down_sums
    ):
        m, parts = x.shape[0], up_sums.shape[0]
        hold_blas_threads()
        for part in prange(parts):
            lo, hi = part * m // parts, (part + 1) * m // parts
            _backward_rows(lo, hi, dy, h, up, down, by_columns, exact, a, dh, dx, up_sums[part], down_sums[part])
        for part in prange(parts):
            weight_gradient(np.int64(part), parts, dy, a, by_columns, ddown)
            weight_gradient(np.int64(part), parts, dh, x, by_columns, dup)
        release_blas_threads()
        dup_bias[:], ddown_bias[:] = 0, 0
        add_rows(up_sums, dup_bias)
        add_rows(down_sums, ddown_bias)


def _in_parts(rows: np.ndarray, inner: int, *weights: np.ndarray) -> int:
    """Into how many parts the rows (M, C) are dealt; 0 where the steps are better taken one by one."""
    (m, c), dtype = rows.shape, rows.dtype
    plain = all(w.flags.c_contiguous and w.flags.writeable and w.dtype == dtype for w in weights)
    if not (has_blas and plain and dtype.char in "fd") or m < inner or by_tiles(dtype, m, inner, c):
        return 0
    return parts_of(m, inner, c)[0]


@kernel(twin=mlp_forward_numpy)
def mlp_forward(  # noqa: D103
    x: np.ndarray,
    up: np.ndarray,
    up_bias: np.ndarray,
    down: np.ndarray,
    down_bias: np.ndarray,
    by_columns: bool = False,
    exact: bool = False,
    residual: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    inner, n, dtype, rows = up_bias.size, down_bias.size, x.dtype, as_rows(contiguous(x))
    parts = _in_parts(rows, inner, up, up_bias, down, down_bias)
    if not parts:
        h = linear_forward(x, up, up_bias, by_columns)
        return linear_forward(gelu_forward(h, exact), down, down_bias, by_columns, residual), h
    y, h = np.empty((*x.shape[:-1], n), dtype), np.empty((*x.shape[:-1], inner), dtype)
    begin = np.empty(0, dtype) if residual is None else contiguous(residual, dtype).reshape(-1)
    a = np.empty((len(rows), inner), dtype)
    _forward(rows, up, up_bias, down, down_bias, by_columns, exact, begin, as_rows(h), a, as_rows(y), parts)
    return y, h


@kernel(twin=mlp_backward_numpy)
def mlp_backward(  # noqa: D103
    dy: np.ndarray,
    x: np.ndarray,
    h: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    by_columns: bool = False,
    exact: bool = False,
) -> Gradients:
    inner, n, dtype = h.shape[-1], dy.shape[-1], x.dtype
    dy, h, rows = as_rows(contiguous(dy, dtype)), as_rows(contiguous(h, dtype)), as_rows(contiguous(x))
    a, parts = np.empty(h.shape, dtype), _in_parts(rows, inner, up, down)
    if not parts:
        da = product(dy, down.T if by_columns else down)
        _all_back_through_gelu(h, da, a, exact)
        ddown = product(a.T, dy) if by_columns else product(dy.T, a)
        dx, dup, dup_bias = linear_backward(da.reshape(*x.shape[:-1], inner), x, up, by_columns, True, True, True)
        return dx, dup, dup_bias, ddown, sum_rows(dy)
    dh, dx = np.empty(h.shape, dtype), np.empty(x.shape, dtype)
    dup, ddown = np.empty(up.shape, dtype), np.empty(down.shape, dtype)
    dup_bias, ddown_bias = np.empty(inner, dtype), np.empty(n, dtype)
    _backward(dy, rows, h, up, down, by_columns, exact, a, dh, as_rows(dx), dup, dup_bias, ddown, ddown_bias,
              np.empty((parts, inner), dtype), np.empty((parts, n), dtype))  # fmt: skip
    return dx, dup, dup_bias, ddown, ddown_bias
