"""Matrix products and linear layers: equal to NumPy's own, in every layout, for any number of threads."""

import itertools

import numpy as np
import pytest

from minillm import kernels
from minillm.kernels import blas, rows
from tests.pairs import pair

TOLERANCE = {np.float32: {"rtol": 1e-4, "atol": 1e-4}, np.float64: {"rtol": 1e-12, "atol": 1e-12}}
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
SIZES = [(1, 1, 1), (1, 64, 200), (200, 1, 64), (33, 70, 5), (65, 48, 130), (300, 40, 20)]  # M, K, N
SIZES += [(261, 40, 99), (128, 1100, 64), (50, 24, 333)]  # by tiles: edges, a sum in two parts, the wide one flipped


def _normal(dtype, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _flatten(made):
    """The arrays of a result: an array, a tuple of arrays, or of lists of them; None is nothing."""
    if made is None:
        return []
    return [made] if isinstance(made, np.ndarray) else [array for part in made for array in _flatten(part)]


def _agree(name, dtype, *arguments):
    kernel, definition = pair(name)
    ours, theirs = _flatten(kernel(*arguments)), _flatten(definition(*arguments))
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype == dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, **TOLERANCE[dtype])


@both_dtypes
@pytest.mark.parametrize("m, k, n", SIZES)
def test_product_in_every_layout(dtype, m, k, n):
    a, b = _normal(dtype, m, k), _normal(dtype, k, n, seed=1)
    frozen = a.copy()
    frozen.flags.writeable = False
    for left in (a, np.asfortranarray(a), np.repeat(a, 2, axis=1)[:, ::2], frozen):
        for right in (b, np.asfortranarray(b), np.repeat(b, 2, axis=0)[::2]):
            _agree("product", dtype, left, right)


@both_dtypes
@pytest.mark.parametrize(
    "a, b",
    [
        ((3, 20, 40), (40, 30)),
        ((3, 20, 40), (3, 40, 30)),
        ((20, 40), (3, 40, 30)),
        ((2, 1, 20, 40), (5, 40, 30)),
        ((9, 20, 40), (9, 40, 30)),
        ((4, 0, 40), (40, 30)),
        ((40,), (40, 3)),
    ],
)
def test_product_of_batches(dtype, a, b):
    _agree("product", dtype, _normal(dtype, *a), _normal(dtype, *b, seed=1))


def test_a_wrong_product_is_refused_in_the_words_of_numpy():
    with pytest.raises(ValueError, match="mismatch"):
        pair("product")[0](np.ones((100, 200), np.float32), np.ones((100, 200), np.float32))


@both_dtypes
@pytest.mark.parametrize("m, k, n", SIZES)
@pytest.mark.parametrize("transposed", [False, True])
def test_linear(dtype, m, k, n, transposed):
    x, bias = _normal(dtype, 2, m, k), _normal(dtype, n, seed=2)
    w = _normal(dtype, k, n, seed=1).T if transposed else _normal(dtype, n, k, seed=1)
    for b, layout in itertools.product((bias, None), (w, np.repeat(w, 2, axis=1)[:, ::2])):
        _agree("linear_forward", dtype, x, layout, b)
    dy = _normal(dtype, 2, m, 2 * n, seed=7)[..., :n]  # not contiguous
    for needs in itertools.product((True, False), repeat=3):
        _agree("linear_backward", dtype, dy, x, w, needs)


def test_the_gradient_of_a_weight_lies_in_memory_as_the_weight_does():
    x, dy = _normal(np.float32, 200, 48), _normal(np.float32, 200, 70)
    for w in (_normal(np.float32, 70, 48), _normal(np.float32, 48, 70).T):
        for needs in ((True, True, True), (False, True, False)):
            assert pair("linear_backward")[0](dy, x, w, needs)[1].strides == w.strides


@pytest.mark.parametrize("m, k, n", [(8, 8, 0), (8, 0, 8), (0, 8, 8), (0, 0, 0)])
def test_a_layer_of_nothing(m, k, n):
    x, w = _normal(np.float32, 2, m, k), _normal(np.float32, n, k)
    _agree("linear_forward", np.float32, x, w, None)
    _agree("linear_backward", np.float32, _normal(np.float32, 2, m, n), x, w, (True,) * 3)


def test_widths_mix_as_numpys_do():
    x, w = _normal(np.float32, 20, 48), _normal(np.float64, 70, 48)
    assert pair("linear_forward")[0](x, w, None).dtype == np.float64
    assert pair("linear_forward")[0](x, w.astype(np.float32), _normal(np.float64, 70)).dtype == np.float64


@both_dtypes
@pytest.mark.parametrize("shape", [(1, 1), (0, 5), (40, 3), (300, 130)])
def test_sum_rows(dtype, shape):
    x = _normal(dtype, *shape)
    for layout in (x, np.asfortranarray(x)):
        y = rows.sum_rows(layout)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, x.sum(axis=0), **TOLERANCE[dtype])


@pytest.mark.skipif(kernels.get_num_threads() < 2, reason="needs two cores")
@pytest.mark.parametrize("m, n", [(301, 129), (90, 400), (30, 20)])
def test_one_thread_equals_two_bit_for_bit(m, n):
    threads = kernels.get_num_threads()
    x, w, b = _normal(np.float32, m, 67), _normal(np.float32, n, 67, seed=1), _normal(np.float32, n, seed=2)
    outcomes = []
    for n in (1, 2):
        kernels.set_num_threads(n)
        try:
            made = [pair("product")[0](x, w.T), pair("linear_forward")[0](x, w, b)]
            for layout in (w, w.T.copy().T):
                made += pair("linear_backward")[0](made[0], x, layout, (True, True, True))
            made.append(rows.sum_rows(made[0]))
        finally:
            kernels.set_num_threads(threads)
        outcomes.append([array.tobytes() for array in made])
    assert outcomes[0] == outcomes[1]


def _in_order(a, b):
    """a b with each sum taken in the order of its terms. Of 12 bits each, their products are exact in float32."""
    c = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(len(b)):
        c += a[:, k : k + 1] * b[k]
    return c


@pytest.mark.skipif(not blas.has_blas, reason="the definitions' sums are NumPy's")
def test_the_sums_of_large_products_are_taken_in_order_on_every_processor():
    def short(*shape, seed):  # numbers of 12 bits
        return (np.random.default_rng(seed).integers(-2047, 2048, shape) * 2.0**-9).astype(np.float32)

    for m, k, n in [(150, 130, 40), (131, 600, 45), (40, 513, 200), (40, 200, 1100)]:
        x, w, dy = short(m, k, seed=1), short(n, k, seed=2), short(m, n, seed=3)
        for layout in (w, np.asfortranarray(w)):
            assert np.array_equal(pair("linear_forward")[0](x, layout, None), _in_order(x, w.T))
            dx, dw, _ = pair("linear_backward")[0](dy, x, layout, (True,) * 3)
            assert np.array_equal(dx, _in_order(dy, w)) and np.array_equal(dw, _in_order(dy.T, x))


def test_the_path_is_told():
    assert blas.matmul_path().startswith(("np.matmul (", "scipy_cblas_sgemm", "cblas_sgemm"))


@pytest.mark.skipif(not blas.has_blas, reason="NumPy's BLAS was not found, or is not used")
def test_the_threads_of_numpy_are_given_back():
    from threadpoolctl import threadpool_info

    def blas_threads():
        return [info["num_threads"] for info in threadpool_info() if info.get("internal_api") == "openblas"]

    before = blas_threads()
    pair("product")[0](_normal(np.float32, 200, 200), _normal(np.float32, 200, 200))
    assert blas_threads() == before
