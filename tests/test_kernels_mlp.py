"""Two linear layers with a gelu between, in one piece: equal to the three steps, for any number of threads."""

import numpy as np
import pytest

from minillm.kernels import _jit, mlp

FORWARD, BACKWARD = _jit.PAIRS["mlp_forward"], _jit.PAIRS["mlp_backward"]
TOLERANCE = {np.float32: {"rtol": 1e-4, "atol": 1e-4}, np.float64: {"rtol": 1e-11, "atol": 1e-11}}
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
# M rows, C, I, N: few rows, step by step; rows in two parts; a single row; no row at all
SIZES = [(5, 8, 40, 9), (260, 24, 70, 30), (1, 3, 1, 2), (0, 3, 5, 2)]


def _arrays(dtype, m, c, inner, n, by_columns=False):
    """dy, x, and the arguments of a forward from ``up`` to ``down_bias``, and a residual: numbers of size 1."""
    rng = np.random.default_rng(m)

    def normal(*shape, std=1.0):
        return (rng.standard_normal(shape) * std).astype(dtype)

    up, down = normal(inner, c, std=c**-0.5), normal(n, inner, std=inner**-0.5)
    up, down = (np.ascontiguousarray(w.T) for w in (up, down)) if by_columns else (up, down)
    return normal(2, m, n), normal(2, m, c), (up, normal(inner), down, normal(n)), normal(2, m, n)


def _agree(ours, theirs, dtype):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == dtype and a.shape == b.shape and a.base is None
        np.testing.assert_allclose(a, b, **TOLERANCE[dtype])


@both_dtypes
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("exact", [False, True], ids=["tanh", "exact"])
@pytest.mark.parametrize("by_columns", [False, True], ids=["rows", "columns"])
def test_equal_to_the_three_steps(dtype, sizes, exact, by_columns):
    dy, x, parameters, residual = _arrays(dtype, *sizes, by_columns)
    before = [array.copy() for array in (dy, x, *parameters, residual)]
    for onto in (None, residual):
        made = FORWARD[0](x, *parameters, by_columns, exact, onto)
        _agree(made, FORWARD[1](x, *parameters, by_columns, exact, onto), dtype)
    h = made[1].copy()
    backward = dy, x, made[1], parameters[0], parameters[2], by_columns, exact
    _agree(BACKWARD[0](*backward), BACKWARD[1](*backward), dtype)
    for array, as_it_was in zip((dy, x, *parameters, residual, made[1]), (*before, h), strict=True):
        np.testing.assert_array_equal(array, as_it_was)


@both_dtypes
def test_any_layout(dtype):
    """Transposed weights, strided rows and read-only arrays, of 260 rows and of 5."""
    for sizes in SIZES[:2]:
        dy, x, (up, up_bias, down, down_bias), residual = _arrays(dtype, *sizes)
        x, dy, residual = (np.repeat(array, 2, axis=-1)[..., ::2] for array in (x, dy, residual))
        up, down = np.asfortranarray(up), np.asfortranarray(down)
        up_bias.flags.writeable = False
        forward = x, up, up_bias, down, down_bias, False, False, residual
        made = FORWARD[0](*forward)
        _agree(made, FORWARD[1](*forward), dtype)
        backward = dy, x, made[1], up, down
        _agree(BACKWARD[0](*backward), BACKWARD[1](*backward), dtype)


@pytest.mark.skipif(_jit.get_num_threads() < 2, reason="needs two cores")
@pytest.mark.parametrize("sizes", [(260, 24, 70, 30), (40, 24, 70, 30)])
def test_one_thread_equals_two_bit_for_bit(sizes):
    threads, outcomes = _jit.get_num_threads(), []
    dy, x, parameters, residual = _arrays(np.float32, *sizes)
    for n in (1, 2):
        _jit.set_num_threads(n)
        try:
            made = FORWARD[0](x, *parameters, False, False, residual)
            made += tuple(BACKWARD[0](dy, x, made[1], parameters[0], parameters[2]))
        finally:
            _jit.set_num_threads(threads)
        outcomes.append([array.tobytes() for array in made])
    assert outcomes[0] == outcomes[1]


@pytest.mark.skipif(not mlp.has_blas or _jit.KERNELS == "numpy", reason="NumPy's BLAS was not found, or is not used")
def test_one_signature_per_dtype():
    for dtype in (np.float32, np.float64):
        for sizes in SIZES:
            for by_columns in (False, True):
                dy, x, parameters, residual = _arrays(dtype, *sizes, by_columns)
                _, h = FORWARD[0](x, *parameters, by_columns, False, residual)
                BACKWARD[0](dy, x, h, parameters[0], parameters[2], by_columns, True)
    assert [len(loop.signatures) for loop in (mlp._forward, mlp._backward, mlp._all_back_through_gelu)] == [2, 2, 2]
