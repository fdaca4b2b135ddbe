"""The optimiser's kernels = their definitions in optim.py; gradients in pieces = one long gradient; what is refused."""

import copy
import math

import numpy as np
import pytest

from minillm import kernels, optim
from minillm.kernels import _jit
from tests.pairs import assert_bits_do_not_depend_on_places

NAMES = ("adamw_update", "sgd_update", "muon_update", "sum_of_squares", "scale_all")
KERNEL = {name: kernels.load("optim", name) for name in NAMES}
DEFINITION = {name: kernels.DEFINITIONS[name][1] for name in NAMES}
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 1e-6}, np.float64: {"rtol": 1e-11, "atol": 1e-12}}
SIZES = [(1,), (7, 1), (3, 0, 5), (40_000, 7, 20_000), (16_384, 16_384)]

pytestmark = pytest.mark.skipif(not _jit.JIT, reason="addresses of arrays are nothing for plain Python")
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
every_name = pytest.mark.parametrize("name", NAMES)
any_size = pytest.mark.parametrize("sizes", SIZES)
both = pytest.mark.parametrize("functions", [KERNEL, DEFINITION], ids=["kernel", "definition"])


def arguments(name, sizes, dtype, step=3):
    rng = np.random.default_rng(0)
    grads = [rng.standard_normal(size).astype(dtype) for size in sizes]
    w, m, v = rng.random((3, sum(sizes))).astype(dtype)
    return {
        "adamw_update": (w, grads, m, v, 1e-2, 0.9, 0.95, 1e-8, 0.1, step),
        "sgd_update": (w, grads, m, 0.1, 0.9, 0.01),
        "muon_update": (w, [as_matrix(g, i % 2) for i, g in enumerate(grads)], m, 0.01, 0.95, 0.1),
        "sum_of_squares": (grads,),
        "scale_all": (grads, 0.3),
    }[name]


def as_matrix(x, tall):
    shorter = next((n for n in range(math.isqrt(x.size), 0, -1) if x.size % n == 0), 0)
    return x.reshape((-1, shorter) if tall and shorter else (shorter, -1) if shorter else (0, 5))


def after(function, given):
    """What a call returns, and the arrays among its arguments afterwards."""
    given = copy.deepcopy(given)
    made = function(*given)
    return made, [a for x in given for a in (x if isinstance(x, list) else [x]) if isinstance(a, np.ndarray)]


@every_name
@both_dtypes
@any_size
def test_equal_to_the_definition(name, dtype, sizes):
    for step in (1, 7):
        given = arguments(name, sizes, dtype, step)
        (made, arrays), (expected, expected_arrays) = after(KERNEL[name], given), after(DEFINITION[name], given)
        assert type(made) is type(expected)
        if made is not None:
            assert made == pytest.approx(expected, rel=1e-12)
        for ours, theirs in zip(arrays, expected_arrays, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, **TOLERANCE[dtype])


@every_name
def test_arguments_change_only_where_promised(name):
    changed = {
        "adamw_update": (0, 2, 3), "muon_update": (0, 2), "scale_all": (0,), "sgd_update": (0, 2), "sum_of_squares": ()
    }[name]  # fmt: skip
    given = arguments(name, (60,), np.float32)
    before = [x[0] if isinstance(x, list) else x for x in copy.deepcopy(given)]
    KERNEL[name](*given)
    for i, (old, new) in enumerate(zip(before, given, strict=True)):
        assert np.array_equal(old, new[0] if isinstance(new, list) else new) == (i not in changed)


@every_name
@pytest.mark.skipif(kernels.get_num_threads() < 2, reason="needs two cores")
def test_one_thread_equals_two_bit_for_bit(name):
    threads, outcomes = kernels.get_num_threads(), []
    for n in (1, 2):
        kernels.set_num_threads(n)
        try:
            made, arrays = after(KERNEL[name], arguments(name, (40_001, 7, 20_000), np.float32))
            outcomes.append([np.asarray(made).tobytes(), *(a.tobytes() for a in arrays)])
        finally:
            kernels.set_num_threads(threads)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", ["adamw_update", "sgd_update", "muon_update"])
def test_bits_do_not_depend_on_where_the_arrays_lie(name):
    for sizes in ((8,), (12,), (24, 7, 40), (64, 16)):
        assert_bits_do_not_depend_on_places(KERNEL[name], arguments(name, sizes, np.float32))


@both_dtypes
@any_size
def test_gradients_in_pieces_are_one_long_gradient(dtype, sizes):
    for name in ("adamw_update", "sgd_update"):
        w, grads, *state = arguments(name, sizes, dtype)
        whole, pieces = (after(KERNEL[name], (w, g, *state))[1][0] for g in ([np.concatenate(grads)], grads))
        np.testing.assert_array_equal(whole, pieces)
        assert (whole != w).all()
    (grads,) = arguments("sum_of_squares", sizes, dtype)
    whole = np.concatenate(grads)
    assert math.isclose(KERNEL["sum_of_squares"]([whole]), KERNEL["sum_of_squares"](grads), rel_tol=1e-13)
    assert KERNEL["sum_of_squares"](grads) == pytest.approx((whole.astype(np.float64) ** 2).sum(), rel=1e-12)
    KERNEL["scale_all"](grads, 0.3)
    np.testing.assert_array_equal(np.concatenate(grads), whole * dtype(0.3))


@both
@both_dtypes
def test_scaling_reaches_arrays_of_any_layout(functions, dtype):
    whole = np.arange(24, dtype=dtype).reshape(4, 6)
    other = np.ones(3, np.float64 if dtype == np.float32 else np.float32)
    functions["scale_all"]([whole[:, ::2], whole[:, 1::2].T, other], 2.0)
    np.testing.assert_array_equal(whole, 2 * np.arange(24).reshape(4, 6))
    np.testing.assert_array_equal(other, [2, 2, 2])


@both
def test_the_norm_of_arrays_of_any_shape_and_dtype(functions):
    a = np.array([[1, 2, 9], [3, 4, 9]], np.float32)[:, :2]
    assert functions["sum_of_squares"]([a, a.T, np.array(2.0), np.full(3, 1e25, np.float64)]) == pytest.approx(3e50)
    assert functions["sum_of_squares"]([a.T, np.array(2.0)]) == 34.0
    assert functions["sum_of_squares"]([]) == functions["sum_of_squares"]([np.zeros((0, 3), np.float32)]) == 0.0
    assert math.isnan(functions["sum_of_squares"]([a, np.array([np.nan], np.float32)]))
    assert functions["sum_of_squares"]([np.full(4, 1e30, np.float32)]) == pytest.approx(4e60)  # beyond float32


@both
def test_first_step_of_adamw_has_the_length_of_the_learning_rate(functions):
    w, m, v = np.zeros((3, 3))
    functions["adamw_update"](w, [np.array([5.0, -0.01, 0.0])], m, v, 0.1, 0.9, 0.99, 0.0001, 0.0, 1)
    np.testing.assert_allclose(w, [-0.1 * 5 / 5.0001, 0.1 * 0.01 / 0.0101, 0.0])


def test_updates_refuse_what_they_cannot_change_in_place():
    a = np.zeros(6, np.float32)
    frozen = a.copy()
    frozen.flags.writeable = False
    rest = (0.1, 0.9, 0.99, 1e-8, 0.0, 1)
    for bad in (a.astype(np.float64), a[:5], np.zeros(12, np.float32)[::2], a.reshape(2, 3), frozen):
        with pytest.raises(ValueError, match=r"adamw_update: m must be a writable contiguous \(6,\) array of float32"):
            KERNEL["adamw_update"](a, [a.copy()], bad, a.copy(), *rest)
        with pytest.raises(ValueError, match="sgd_update: velocity must be"):
            KERNEL["sgd_update"](a, [a.copy()], bad, 0.1, 0.9, 0.0)
    with pytest.raises(ValueError, match="adamw_update: w has 6 numbers; the gradients have 5"):
        KERNEL["adamw_update"](a, [a[:2], a[3:]], a.copy(), a.copy(), *rest)
    with pytest.raises(ValueError, match="scale_all: a read-only array"):
        KERNEL["scale_all"]([frozen], 2.0)


def test_few_signatures_are_compiled():
    from minillm.kernels import optim as loops

    for name in NAMES:
        for dtype in (np.float32, np.float64):
            KERNEL[name](*arguments(name, (12,), dtype))
    counts = {name: len(value.signatures) for name, value in vars(loops).items() if hasattr(value, "signatures")}
    assert counts and {name: count for name, count in counts.items() if count > 2} == {}


def test_the_optimisers_call_these():
    assert {name for name, (file, _) in kernels.DEFINITIONS.items() if file == "optim"} == set(NAMES)
    assert all(callable(getattr(optim, name)) for name in NAMES)
