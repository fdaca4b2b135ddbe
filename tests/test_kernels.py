"""Every kernel = its definition; NaN and -inf; one thread = two; the gradients of both; few compilations."""

import copy
import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from minillm import kernels
from minillm.kernels import _jit
from minillm.kernels.rows import Loop
from tests.pairs import all_pairs, assert_bits_do_not_depend_on_places

PAIRS = all_pairs()
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 1e-5}, np.float64: {"rtol": 1e-11, "atol": 1e-12}}
SHAPES = [(1, 1), (7, 1), (1, 10), (9, 33), (37, 70)]
BIG = (131, 201)  # more numbers than one thread takes alone, and odd: a vector loop leaves a rest in each part

# ---- sample inputs: name -> function(rng, N, V) -> list of argument tuples, arrays in float64 ------------------------


def _ids(rng, n, high):
    return rng.integers(0, high, n)


def _targets(rng, n, v):
    targets = rng.integers(0, v, n)
    targets[::3] = -100
    return targets


def _softmaxed(rng, n, v):
    return PAIRS["softmax_forward"][1](rng.standard_normal((n, v)))


def _layer_norm_backward(rng, n, v):
    dy, x = rng.standard_normal((2, n, v))
    weight = rng.standard_normal(v)
    _, mean, r = PAIRS["layer_norm_forward"][1](x, weight, weight, 0.1)  # eps: a row of one number has variance 0
    return [(dy, x, weight, mean, r)]


def _rms_norm_backward(rng, n, v):
    dy, x = rng.standard_normal((2, n, v))
    weight = rng.standard_normal(v)
    return [(dy, x, weight, PAIRS["rms_norm_forward"][1](x, weight, 0.1)[1])]


def _cross_entropy_backward(rng, n, v):
    logits, targets = rng.standard_normal((n, v)), _targets(rng, n, v)
    _, lse = PAIRS["cross_entropy_forward"][1](logits, targets, -100, 0.0)
    return [(rng.standard_normal(n), logits, targets, lse, -100, smoothing) for smoothing in (0.0, 0.1, 1.0)]


def _angles(rng, *shape):
    angle = rng.uniform(0, 6, shape)
    return np.cos(angle), np.sin(angle)


def _rotary(rng, n, v):
    half = -(-v // 4)
    x = rng.standard_normal((2, n, 3, 2 * half)).swapaxes(1, 2)  # (B, H, T, D), as a projection leaves it
    tables = _angles(rng, n, half), _angles(rng, 2, n, half)
    return [(some, *angles) for some in (x, x.copy(), np.repeat(x, 2, axis=1)[:, ::2]) for angles in tables]


def _one(*shapes):
    """A sampler of one argument tuple: standard normal arrays, whose shapes are functions of (n, v)."""
    return lambda rng, n, v: [tuple(rng.standard_normal(shape(n, v)) for shape in shapes)]


def _rows(n, v):
    return n, v


def _both_forms(sampler):
    return lambda rng, n, v: [(*arguments, exact) for arguments in sampler(rng, n, v) for exact in (False, True)]


X, DY_X = _one(_rows), _one(_rows, _rows)
SAMPLES = {
    "sigmoid_forward": X,
    "sigmoid_backward": lambda rng, n, v: [(rng.standard_normal((n, v)), rng.random((n, v)))],
    "gelu_forward": _both_forms(X),
    "gelu_backward": _both_forms(DY_X),
    "silu_forward": X,
    "silu_backward": DY_X,
    "softmax_forward": X,
    "softmax_backward": lambda rng, n, v: [(rng.standard_normal((n, v)), _softmaxed(rng, n, v))],
    "log_softmax_forward": X,
    "log_softmax_backward": lambda rng, n, v: [(rng.standard_normal((n, v)), np.log(_softmaxed(rng, n, v)))],
    "cross_entropy_forward": lambda rng, n, v: [
        (rng.standard_normal((n, v)), _targets(rng, n, v), -100, smoothing) for smoothing in (0.0, 0.1, 1.0)
    ],
    "cross_entropy_backward": _cross_entropy_backward,
    "layer_norm_forward": lambda rng, n, v: [(rng.standard_normal((n, v)), *rng.standard_normal((2, v)), 1e-5)],
    "layer_norm_backward": _layer_norm_backward,
    "rms_norm_forward": lambda rng, n, v: [(rng.standard_normal((n, v)), rng.standard_normal(v), 1e-6)],
    "rms_norm_backward": _rms_norm_backward,
    "embedding_backward": lambda rng, n, v: [
        (rng.standard_normal((5, 3, v)), _ids(rng, (5, 3), n), n),
        (rng.standard_normal((n, v)), _ids(rng, n, 2).astype(np.int32), 2),  # every id many times
    ],
    "rotate": _rotary,
}


def samples(name, n, v, dtype, seed=0):
    def cast(value):
        if isinstance(value, list):
            return [cast(one) for one in value]
        floating = isinstance(value, np.ndarray) and value.dtype == np.float64
        return value.astype(dtype) if floating else value

    rng = np.random.default_rng(seed)
    return [tuple(map(cast, arguments)) for arguments in SAMPLES[name](rng, n, v)]


def results(function, arguments):
    """All arrays that a call makes or changes: what it returns, and its arguments afterwards."""
    arguments = copy.deepcopy(arguments)
    made = function(*arguments)
    made = [] if made is None else list(made) if isinstance(made, tuple) else [made]
    return made, arrays_of(arguments)


def arrays_of(arguments):
    """The arrays among them, and in the lists among them."""
    listed = (a if isinstance(a, list) else [a] for a in arguments)
    return [a for some in listed for a in some if isinstance(a, np.ndarray)]


every_kernel = pytest.mark.parametrize("name", SAMPLES)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def test_every_kernel_is_compared_with_its_definition():
    """Here, or in the test of its file, or in another test that names it."""
    here = Path(__file__).parent
    texts = [path.read_text() for path in here.glob("test_*.py") if path.name != Path(__file__).name]
    unproved = []
    for name, (kernel, _) in PAIRS.items():
        file = kernel.__module__.rsplit(".")[-1]
        if name not in SAMPLES and not (here / f"test_kernels_{file}.py").exists():
            unproved += [name] * (not any(name in text for text in texts))
    assert not unproved, f"add a row to SAMPLES, or a test file, for {unproved}"


@every_kernel
@both_dtypes
def test_equal_to_its_definition(name, dtype):
    kernel, definition = PAIRS[name]
    for n, v in SHAPES:
        for arguments in samples(name, n, v, dtype):
            (made, changed), (expected, expected_changed) = results(kernel, arguments), results(definition, arguments)
            assert len(made) == len(expected)
            for ours, theirs in zip(made + changed, expected + expected_changed, strict=True):
                assert type(ours) is type(theirs)
                np.testing.assert_allclose(ours, theirs, **TOLERANCE[dtype], err_msg=f"{name} {(n, v)}")
                if isinstance(ours, np.ndarray):
                    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
            for array in made:
                base = array.base if isinstance(array, np.ndarray) else None
                assert base is None or base.size == array.size  # no view of something larger


@every_kernel
def test_arguments_are_not_changed(name):
    for arguments in samples(name, 9, 33, np.float32):
        _, afterwards = results(PAIRS[name][0], arguments)
        for before, after in zip(arrays_of(arguments), afterwards, strict=True):
            np.testing.assert_array_equal(before, after)


@every_kernel
@pytest.mark.skipif(not _jit.JIT, reason="plain Python has one thread")
@pytest.mark.skipif(kernels.get_num_threads() < 2, reason="needs two cores")
def test_one_thread_equals_two_bit_for_bit(name):
    threads = kernels.get_num_threads()
    for arguments in samples(name, *BIG, np.float32):
        outcomes = []
        for n in (1, 2):
            kernels.set_num_threads(n)
            try:
                outcomes.append(results(PAIRS[name][0], arguments))
            finally:
                kernels.set_num_threads(threads)
        for one, two in zip(outcomes[0][0] + outcomes[0][1], outcomes[1][0] + outcomes[1][1], strict=True):
            assert np.asarray(one).tobytes() == np.asarray(two).tobytes()


@every_kernel
def test_beyond_the_serial_size(name):
    if not _jit.JIT:
        pytest.skip("too slow as plain Python")
    kernel, definition = PAIRS[name]
    for arguments in samples(name, *BIG, np.float32):
        (made, changed), (expected, expected_changed) = results(kernel, arguments), results(definition, arguments)
        for ours, theirs in zip(made + changed, expected + expected_changed, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=5e-5)


EMPTY = [
    name for name in SAMPLES if not name.startswith(("cross_entropy", "rota", "embedding"))
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a row of nothing has no mean
@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 0, 4)])
def test_empty_arrays(name, shape):
    x, weight, r = np.zeros(shape, np.float32), np.ones(shape[-1], np.float32), np.ones((*shape[:-1], 1), np.float32)
    extra = {
        "gelu_forward": (False,),
        "gelu_backward": (False,),
        "layer_norm_forward": (weight, weight, 1e-5),
        "rms_norm_forward": (weight, 1e-5),
        "layer_norm_backward": (weight, r, r),
        "rms_norm_backward": (weight, r),
    }.get(name, ())
    made, _ = results(PAIRS[name][0], (x, x, *extra) if name.endswith("backward") else (x, *extra))
    assert made[0].shape == x.shape
    if name.startswith(("layer", "rms")) and name.endswith("backward"):
        np.testing.assert_array_equal(made[1], np.zeros(shape[-1]))  # the sum of no rows


def test_empty_batches():
    none = np.zeros((0, 5), np.float32)
    targets = np.zeros(0, np.int64)
    losses, lse = PAIRS["cross_entropy_forward"][0](none, targets, -100, 0.0)
    assert losses.shape == lse.shape == (0,)
    assert PAIRS["cross_entropy_backward"][0](losses, none, targets, lse, -100, 0.0).shape == (0, 5)
    np.testing.assert_array_equal(PAIRS["embedding_backward"][0](none, targets, 3), np.zeros((3, 5)))
    assert PAIRS["rotate"][0](np.zeros((2, 3, 0, 4), np.float32), none[:, :2], none[:, :2]).shape == (2, 3, 0, 4)


# ---- layout and dtype ------------------------------------------------------------------------------------------------


@every_kernel
def test_any_layout_and_dtype_gives_the_same(name):
    kernel = PAIRS[name][0]

    def strided(a):
        return np.repeat(a, 2, axis=-1)[..., ::2]

    def frozen(a):
        a = a.copy()
        a.flags.writeable = False
        return a

    def fortran(a):
        return np.asfortranarray(a)

    for arguments in samples(name, 9, 33, np.float32):
        expected = results(kernel, arguments)[0]
        for change in (strided, frozen, fortran):
            changed = [change(a) if isinstance(a, np.ndarray) else a for a in arguments]
            made = kernel(*changed)
            for ours, theirs in zip(made if isinstance(made, tuple) else (made,), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(not _jit.JIT, reason="nothing is compiled")
def test_few_signatures_are_compiled():
    for name in SAMPLES:
        for dtype in (np.float32, np.float64):
            for arguments in samples(name, 3, 4, dtype):
                results(PAIRS[name][0], arguments)
    counts = {}
    for room in ("activations", "softmax", "norm", "embedding", "rows", "linear", "matmul"):
        for name, value in vars(importlib.import_module(f"minillm.kernels.{room}")).items():
            for loop in (value.alone, value.parallel) if isinstance(value, Loop) else (value,):
                if hasattr(loop, "signatures"):
                    counts[f"{room}.{name}"] = len(loop.signatures)
    assert counts and {name: count for name, count in counts.items() if count > 2} == {}


# ---- gradients: every backward against central differences of its forward --------------------------------------------

TARGETS = np.array([2, 0, -100, 4])
ROTATION = _angles(np.random.default_rng(5), 2, 2)  # cos and sin of T = 2, D = 4

# name -> (forward of the differentiated arrays, gradients by the backward, shapes of the arrays)
GRADIENTS = {
    "sigmoid": (lambda f, x: f(x), lambda f, b, dy, x: [b(dy, f(x))], [(4, 5)]),
    "gelu": (lambda f, x: f(x, False), lambda f, b, dy, x: [b(dy, x, False)], [(4, 5)]),
    "gelu exact": (lambda f, x: f(x, True), lambda f, b, dy, x: [b(dy, x, True)], [(4, 5)]),
    "silu": (lambda f, x: f(x), lambda f, b, dy, x: [b(dy, x)], [(4, 5)]),
    "softmax": (lambda f, x: f(x), lambda f, b, dy, x: [b(dy, f(x))], [(4, 5)]),
    "log_softmax": (lambda f, x: f(x), lambda f, b, dy, x: [b(dy, f(x))], [(4, 5)]),
    "layer_norm": (
        lambda f, x, w, b: f(x, w, b, 1e-5)[0],
        lambda f, back, dy, x, w, b: back(dy, x, w, *f(x, w, b, 1e-5)[1:]),
        [(4, 5), (5,), (5,)],
    ),
    "rms_norm": (
        lambda f, x, w: f(x, w, 1e-5)[0],
        lambda f, b, dy, x, w: b(dy, x, w, f(x, w, 1e-5)[1]),
        [(4, 5), (5,)],
    ),
    "cross_entropy": (
        lambda f, x: f(x, TARGETS, -100, 0.0)[0],
        lambda f, b, dy, x: [b(dy, x, TARGETS, f(x, TARGETS, -100, 0.0)[1], -100, 0.0)],
        [(4, 5)],
    ),
    "cross_entropy smoothed": (
        lambda f, x: f(x, TARGETS, -100, 0.2)[0],
        lambda f, b, dy, x: [b(dy, x, TARGETS, f(x, TARGETS, -100, 0.2)[1], -100, 0.2)],
        [(4, 5)],
    ),
    "rotate": (lambda f, x: f(x, *ROTATION), lambda f, b, dy, x: [f(dy, ROTATION[0], -ROTATION[1])], [(3, 2, 2, 4)]),
}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])
def test_backward_is_the_derivative_of_forward(name, which):
    forward_of, gradients_of, shapes = GRADIENTS[name]
    base = name.split()[0]
    forward = PAIRS["rotate" if base == "rotate" else f"{base}_forward"][which]
    backward = PAIRS.get(f"{base}_backward", (None, None))[which]
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    dy = rng.standard_normal(forward_of(forward, *arrays).shape)
    gradients = gradients_of(forward, backward, dy, *arrays)
    eps = 1e-6
    for array, gradient in zip(arrays, gradients, strict=True):
        numeric = np.empty_like(array)
        for at in np.ndindex(array.shape):
            kept = array[at]
            ends = []
            for array[at] in (kept + eps, kept - eps):
                ends.append((dy * forward_of(forward, *arrays)).sum())
            array[at] = kept
            numeric[at] = (ends[0] - ends[1]) / (2 * eps)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)


# ---- NaN and infinity ------------------------------------------------------------------------------------------------

ONES = np.ones(40)
ELEMENTWISE = [("sigmoid_forward",), ("gelu_forward", False), ("gelu_forward", True), ("silu_forward",)]
ROWWISE = [
    *(("softmax_forward",), ("log_softmax_forward",)),
    *(("layer_norm_forward", ONES, ONES, 1e-5), ("rms_norm_forward", ONES, 1e-5)),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@both_dtypes
@pytest.mark.parametrize("bad", [np.nan, -np.nan], ids=["nan", "-nan"])
@pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])
def test_nan_stays_nan(dtype, bad, which):
    x = np.random.default_rng(2).standard_normal((3, 40)).astype(dtype)
    x[1, 17] = bad
    alone = np.zeros(x.shape, bool)
    alone[1, 17] = True
    row = np.zeros(x.shape, bool)
    row[1] = True
    for name, *options in ELEMENTWISE:
        np.testing.assert_array_equal(np.isnan(PAIRS[name][which](x, *options)), alone, err_msg=name)
    for name, *options in ROWWISE:
        made = PAIRS[name][which](x, *options)
        np.testing.assert_array_equal(np.isnan(made[0] if isinstance(made, tuple) else made), row, err_msg=name)
    losses, lse = PAIRS["cross_entropy_forward"][which](x, np.array([1, 2, 3]), -100, 0.0)
    assert np.isnan(losses).tolist() == np.isnan(lse).tolist() == [False, True, False]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@both_dtypes
@pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])
def test_minus_infinity_is_probability_zero(dtype, which):
    inf = np.inf
    x = np.array([[0.0, -inf, 0.0, -inf], [-inf] * 4, [-inf, 5.0, -inf, -inf], [1.0, inf, 0.0, 2.0]], dtype)
    y = PAIRS["softmax_forward"][which](x)
    np.testing.assert_array_equal(y[0], [0.5, 0, 0.5, 0])
    assert np.isnan(y[1]).all() and np.isnan(y[3]).all()  # as torch: nothing to choose from; infinity over infinity
    np.testing.assert_array_equal(y[2], [0, 1, 0, 0])
    y = PAIRS["log_softmax_forward"][which](x)
    np.testing.assert_allclose(y[0], [-math.log(2), -inf, -math.log(2), -inf], rtol=1e-6)
    assert np.isnan(y[1]).all()
    targets = np.array([0, 0, 2, -100])
    losses, lse = PAIRS["cross_entropy_forward"][which](x, targets, -100, 0.0)
    np.testing.assert_allclose(losses, [math.log(2), np.nan, inf, 0.0], rtol=1e-6)
    dlogits = PAIRS["cross_entropy_backward"][which](np.ones(4, dtype), x, targets, lse, -100, 0.0)
    np.testing.assert_allclose(dlogits[0], [-0.5, 0, 0.5, 0], atol=1e-6)
    np.testing.assert_allclose(dlogits[2], [0, 1, -1, 0], atol=1e-6)
    np.testing.assert_array_equal(dlogits[3], np.zeros(4))


@both_dtypes
@pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])
def test_huge_scores_do_not_overflow(dtype, which):
    x = np.array([[1e4, 1e4, -1e4]], dtype)
    np.testing.assert_array_equal(PAIRS["softmax_forward"][which](x), [[0.5, 0.5, 0]])
    losses, _ = PAIRS["cross_entropy_forward"][which](x, np.array([1]), -100, 0.0)
    np.testing.assert_allclose(losses, [math.log(2)], rtol=1e-6)  # not lost in the rounding of 1e4
    np.testing.assert_array_equal(PAIRS["sigmoid_forward"][which](x), [[1, 1, 0]])
    for exact in (False, True):
        np.testing.assert_array_equal(PAIRS["gelu_forward"][which](x, exact), [[1e4, 1e4, 0]])
        np.testing.assert_array_equal(PAIRS["gelu_backward"][which](np.ones_like(x), x, exact), [[1, 1, 0]])


# ---- values known without us -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])
def test_known_values(which):
    def call(name, *arguments):
        return PAIRS[name][which](*arguments)

    one = np.array([1.0, -1.0])
    np.testing.assert_allclose(call("gelu_forward", one, True), [0.8413447460685429, -0.15865525393145707])
    np.testing.assert_allclose(call("gelu_forward", one, False), [0.8411919906082768, -0.15880800939172324])
    np.testing.assert_allclose(call("silu_forward", one), [0.7310585786300049, -0.2689414213699951])
    losses, lse = call("cross_entropy_forward", np.log([[0.5, 0.25, 0.25]]), np.array([1]), -100, 0.3)
    np.testing.assert_allclose(losses, [0.7 * math.log(4) + 0.1 * (math.log(2) + 2 * math.log(4))])
    np.testing.assert_allclose(lse, [0.0], atol=1e-15)
    y, mean, r = call("layer_norm_forward", np.array([[1.0, 3.0]]), np.array([2.0, 2.0]), np.array([0.0, 1.0]), 0.0)
    np.testing.assert_allclose(y, [[-2.0, 3.0]])
    assert (mean.tolist(), r.tolist()) == ([[2.0]], [[1.0]])
    y, r = call("rms_norm_forward", np.array([[3.0, 4.0]]), np.ones(2), 0.0)
    np.testing.assert_allclose(y, [[0.6 * math.sqrt(2), 0.8 * math.sqrt(2)]])
    quarter = np.zeros((1, 1, 1, 4))
    quarter[..., 0] = 1.0  # turned by 90 degrees, the first number moves to its partner half a head away
    turned = call("rotate", quarter, np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(turned[0, 0, 0], [0, 0, 1, 0])


@every_kernel
def test_bits_do_not_depend_on_where_the_arrays_lie(name):
    """Of short rows, all arrays side by side in memory, and far from each other."""
    if not _jit.JIT:
        pytest.skip("LLVM is not asked")
    for n, v in [(2, 4), (5, 8), (3, 12), (2, 20), (2, 24), (2, 40), (5, 64)]:
        for arguments in samples(name, n, v, np.float32):
            assert_bits_do_not_depend_on_places(PAIRS[name][0], arguments)
