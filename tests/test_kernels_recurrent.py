"""Recurrent layers and additive attention: kernel = definition = differences, one thread = two, padding, causality."""

import importlib
import itertools

import numpy as np
import pytest

from minillm import kernels
from minillm.kernels import _jit, additive, recurrent, recurrent_loops, tile
from tests.pairs import pair
from tests.test_hard_numbers import heavy_head

pytestmark = pytest.mark.skipif(not _jit.JIT, reason="the loops are made of machine instructions")
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
SHAPES = [(1, 1, 3, 4), (3, 5, 6, 7), (5, 1, 4, 33), (19, 7, 5, 40)]  # B, T, C, H: odd, one row, one step, many rows
SHAPES += [(350, 3, 33, 130)]  # matrices that are worth tiles, and more rows than one part of their sums

every_cell = pytest.mark.parametrize("cell", GATES)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
compiled = pytest.mark.skipif(not _jit.JIT or _jit.KERNELS == "numpy", reason="nothing is compiled")
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 2e-5}, np.float64: {"rtol": 1e-11, "atol": 1e-12}}


def layer(cell, B, T, C, H, dtype=np.float64, seed=0):
    """x, w_ih, w_hh, b_ih, b_hh and the first state(s) of a random layer."""
    rng, G = np.random.default_rng(seed), GATES[cell]
    shapes = [(B, T, C), (G * H, C), (G * H, H), (G * H,), (G * H,), (B, H)] + [(B, H)] * (cell == "lstm")
    # matrices that neither shrink nor blow up: errors must not grow with the steps
    sizes = [1, C**-0.5, H**-0.5] + [0.5] * (len(shapes) - 3)
    return [(rng.standard_normal(shape) * size).astype(dtype) for shape, size in zip(shapes, sizes, strict=True)]


def forward(cell, arguments, starts=None, which=0):
    made = pair(f"{cell}_forward")[which](*arguments, starts)
    return made if isinstance(made, tuple) else (made,)


def backward(cell, arguments, saved, dh, starts=None, which=0, dc=None):
    x, w_ih, w_hh, _, _, *states = arguments
    first = (dh,) if cell != "lstm" else (dh, np.zeros_like(states[1]) if dc is None else dc)
    return pair(f"{cell}_backward")[which](*first, x, w_ih, w_hh, *states, *saved, starts)


def both(cell, arguments, dh, starts, which):
    """The states, then all gradients."""
    saved = forward(cell, arguments, starts, which)
    dc = dh[:, -1] * 0.3 if cell == "lstm" else None
    return [saved[0], *backward(cell, arguments, saved, dh, starts, which, dc)]


@every_cell
@both_dtypes
def test_equal_to_its_definition(cell, dtype):
    rng = np.random.default_rng(1)
    for B, T, C, H in SHAPES:
        arguments = layer(cell, B, T, C, H, dtype)
        dh = rng.standard_normal((B, T, H)).astype(dtype)
        for starts in (None, rng.integers(0, T + 1, B)):
            before = [a.copy() for a in arguments]
            ours, theirs = (both(cell, arguments, dh, starts, which) for which in (0, 1))
            for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                assert a.dtype == b.dtype == dtype and a.shape == b.shape
                # gradients of matrices and biases are sums of B T terms, and rounding errors walk at random
                walk = (B * T) ** 0.5 if 2 <= i < 6 else 1
                np.testing.assert_allclose(a / walk, b / walk, **TOLERANCE[dtype], err_msg=f"{(B, T, C, H)} {starts}")
            for a, b in zip(arguments, before, strict=True):
                np.testing.assert_array_equal(a, b)  # no argument was changed


@every_cell
@pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])
def test_gradients_are_central_differences(cell, which):
    arguments = layer(cell, 2, 3, 2, 3)
    starts = np.array([0, 1])
    rng = np.random.default_rng(2)
    dh, dc = rng.standard_normal((2, 3, 3)), rng.standard_normal((2, 3))

    def loss():
        h, *rest = forward(cell, arguments, starts, which)
        return (h * dh).sum() + ((rest[0][:, -1] * dc).sum() if cell == "lstm" else 0)

    saved = forward(cell, arguments, starts, which)
    gradients = backward(cell, arguments, saved, dh, starts, which, dc)
    for argument, gradient in zip(arguments, gradients, strict=True):
        for at in np.ndindex(argument.shape):
            value = argument[at]
            argument[at] = value + 1e-6
            above = loss()
            argument[at] = value - 1e-6
            below = loss()
            argument[at] = value
            np.testing.assert_allclose(gradient[at], (above - below) / 2e-6, rtol=1e-5, atol=1e-7)


@compiled
@pytest.mark.skipif(kernels.get_num_threads() < 2, reason="needs two cores")
def test_one_thread_equals_two_bit_for_bit():
    threads = kernels.get_num_threads()
    rng = np.random.default_rng(3)
    dh = rng.standard_normal((37, 9, 40)).astype(np.float32)
    q, k, v, dout = rng.standard_normal((4, 5, 40, 24)).astype(np.float32)
    outcomes = []
    for n in (1, 2):
        kernels.set_num_threads(n)
        try:
            made = [a for cell in GATES for a in both(cell, layer(cell, 37, 9, 33, 40, np.float32), dh, None, 0)]
            out, p = additive.additive_attention_forward(q, k, v, v[0, 0], 7)
            made += [out, p, *additive.additive_attention_backward(dout, q, k, v, v[0, 0], p)]
        finally:
            kernels.set_num_threads(threads)
        outcomes.append([a.tobytes() for a in made])
    assert outcomes[0] == outcomes[1]


@every_cell
def test_padding_is_zero_and_what_follows_is_the_row_alone(cell):
    x, *rest = layer(cell, 3, 6, 4, 5, np.float32)
    starts = np.array([0, 2, 6])
    for state in rest[4:]:
        state[1:] = 0
    h = forward(cell, [x, *rest], starts)[0]
    assert not h[1, :2].any() and not h[2].any()
    alone = forward(cell, [x[1:2, 2:], *rest[:4], *(state[1:2] for state in rest[4:])])[0]
    np.testing.assert_allclose(h[1:2, 2:], alone, rtol=1e-6, atol=1e-6)
    dx = backward(cell, [x, *rest], forward(cell, [x, *rest], starts), np.ones_like(h), starts)[0]
    assert not dx[1, :2].any() and not dx[2].any() and dx[1, 2:].all()


@every_cell
def test_the_future_does_not_change_the_past(cell):
    arguments = layer(cell, 18, 6, 4, 20, np.float32)
    before = forward(cell, arguments)[0].copy()
    arguments[0][:, 4] += 1
    after = forward(cell, arguments)[0]
    assert before[:, :4].tobytes() == after[:, :4].tobytes()
    assert (before[:, 4:] != after[:, 4:]).all()


@every_cell
def test_any_layout_gives_the_same(cell):
    arguments = layer(cell, 3, 4, 5, 6, np.float32)
    expected = forward(cell, arguments)
    strided = [np.repeat(a, 2, axis=-1)[..., ::2] for a in arguments]
    frozen = [np.asfortranarray(a) for a in arguments]
    for a in frozen:
        a.flags.writeable = False
    for changed in (strided, frozen):
        for a, b in zip(forward(cell, changed), expected, strict=True):
            np.testing.assert_array_equal(a, b)


# ---- additive attention ----------------------------------------------------------------------------------------------

# B, T, S, C, window
ATTENTION = [(1, 1, 1, 3, 1), (2, 5, 5, 4, 3), (3, 4, 9, 33, 5), (2, 7, 6, 8, 20), (2, 40, 39, 5, 6)]


def pairs(B, T, S, C, dtype=np.float64):
    rng = np.random.default_rng(4)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((B, T, C), (B, S, C), (B, S, C + 1), (C,))]


@both_dtypes
def test_additive_attention_is_its_definition(dtype):
    rng = np.random.default_rng(5)
    for B, T, S, C, window in ATTENTION:
        arguments = pairs(B, T, S, C, dtype)
        dout = rng.standard_normal((B, T, C + 1)).astype(dtype)
        for starts in (None, rng.integers(0, S + 1, B)):
            made = []
            for which in (0, 1):
                out, p = pair("additive_attention_forward")[which](*arguments, window, starts)
                made.append([out, p, *pair("additive_attention_backward")[which](dout, *arguments, p)])
            for a, b in zip(*made, strict=True):
                assert a.dtype == b.dtype == dtype and a.shape == b.shape
                np.testing.assert_allclose(a, b, **TOLERANCE[dtype], err_msg=f"{(B, T, S, C, window)} {starts}")


@pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])
def test_additive_attention_by_its_definition(which):
    q, k, v, w = pairs(2, 4, 6, 3)
    out, p = pair("additive_attention_forward")[which](q, k, v, w, 3, np.array([0, 4]))
    # query 1 stands at position 3 and sees keys 1, 2, 3; in the second row nothing before key 4
    e = np.exp([w @ np.tanh(q[0, 1] + k[0, s]) for s in (1, 2, 3)])
    np.testing.assert_allclose(p[0, 1], e / e.sum(), rtol=1e-12)
    np.testing.assert_allclose(out[0, 1], e / e.sum() @ v[0, 1:4], rtol=1e-12)
    assert not out[1, 1].any() and not p[1, 1].any()
    np.testing.assert_allclose(p[1, 2], [0, 0, 1])


@pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])
def test_additive_attention_gradients_are_central_differences(which):
    arguments = pairs(2, 4, 3, 2)
    dout = np.random.default_rng(6).standard_normal((2, 4, 3))

    def attend():
        return pair("additive_attention_forward")[which](*arguments, 2, np.array([0, 1]))

    gradients = pair("additive_attention_backward")[which](dout, *arguments, attend()[1])
    for argument, gradient in zip(arguments, gradients, strict=True):
        for at in np.ndindex(argument.shape):
            value = argument[at]
            argument[at] = value + 1e-6
            above = (attend()[0] * dout).sum()
            argument[at] = value - 1e-6
            below = (attend()[0] * dout).sum()
            argument[at] = value
            np.testing.assert_allclose(gradient[at], (above - below) / 2e-6, rtol=1e-5, atol=1e-7)


# ---- numbers that are very large or very small -----------------------------------------------------------------------

both_ways = pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])


@every_cell
@both_ways
def test_underflow_is_no_error(cell, which):
    """Gates that are shut, and gradients of 1e-30, whatever np.seterr says."""
    arguments = layer(cell, 3, 4, 5, 6, np.float32)
    arguments[0] *= 200
    saved = forward(cell, arguments, None, which)
    with np.errstate(all="raise"):
        forward(cell, arguments, None, which)
        gradients = backward(cell, arguments, saved, np.full_like(saved[0], 1e-30), None, which)
    assert all(np.isfinite(a).all() for a in (*saved, *gradients))


@both_ways
def test_underflow_is_no_error_in_additive_attention(which):
    q, k, v, w = pairs(2, 5, 5, 4, np.float32)
    with np.errstate(all="raise"):
        out, p = pair("additive_attention_forward")[which](q, k, v * 1e-30, w * 100, 3, np.array([0, 9]))
        gradients = pair("additive_attention_backward")[which](np.full_like(out, 1e-20), q, k, v * 1e-30, w * 100, p)
    assert all(np.isfinite(a).all() for a in (out, *gradients)) and not out[1].any()


@pytest.mark.parametrize("cell", ["rnn", "gru"])
@both_ways
def test_the_gradient_of_a_bias_counts_beyond_16_777_216(cell, which):
    """A plain float32 sum of ones stands still there: one step of a million rows, of which the first weigh so much."""
    dh, total = heavy_head()
    dh, B = dh[:, None], len(dh)
    x, one, state = np.zeros((B, 1, 1), np.float32), np.ones((1, 1), np.float32), np.zeros((B, 1), np.float32)
    if cell == "rnn":  # h = 0: dz = dh
        made = pair("rnn_backward")[which](dh, x, one, one, state, x)
        assert [g.item() for g in made[3:5]] == [total, total]
    else:  # r = 0, z = 0, n = 0: only n has a gradient, dh
        made = pair("gru_backward")[which](
            dh, x, *[np.ones((3, 1), np.float32)] * 2, state, x, np.zeros((B, 1, 3), np.float32), x
        )
        assert made[3].tolist() == [0, 0, total]


@both_ways
def test_the_gradient_of_the_score_weight_counts_small_terms(which):
    """Two million pairs after some that weigh 1,000 times as much: a float32 would not notice what each adds."""
    T, window = 3_000, 1_000
    sign = np.tile([1, -1], T // 2).astype(np.float32).reshape(1, T, 1)
    q, w, p = np.zeros_like(sign), np.zeros(1, np.float32), np.full((1, T, window), 1 / window, np.float32)
    p[:, :window] = 0  # the first queries have fewer steps to see
    dout = np.ones_like(sign)
    dout[:, window : window + 100] = 1_000
    dw = pair("additive_attention_backward")[which](dout, q, sign, sign, w, p)[3]
    np.testing.assert_allclose(dw, (T - window + 100 * 999) * np.tanh(1), rtol=1e-5)


# ---- tiles -----------------------------------------------------------------------------------------------------------


@compiled
@both_dtypes
def test_panels_hold_the_matrix(dtype):
    rng = np.random.default_rng(7)
    for k, n in [(1, 1), (5, 3), (17, 31), (40, 64), (3, 70)]:
        w, more, width = rng.standard_normal((k, n)).astype(dtype), np.ones((2, n), dtype), tile.width_of(n)
        whole = np.pad(np.concatenate([w, more]), ((0, 0), (0, width - n)))
        for first, cols in itertools.product((w, np.asfortranarray(w)), (tile.COLS, tile.TALL_COLS)):
            order = whole.reshape(k + 2, -1, cols).swapaxes(0, 1).ravel()
            panels = tile.pack_under(cols, first, more)
            assert panels.ctypes.data % tile.LINE == 0
            np.testing.assert_array_equal(panels, order)


@compiled
def test_few_signatures_are_compiled():
    for cell in GATES:
        for dtype in (np.float32, np.float64):
            for shape in SHAPES[:2]:
                both(cell, layer(cell, *shape, dtype), np.ones((*shape[:2], shape[3]), dtype), None, 0)
    arguments, dh = layer("lstm", *SHAPES[0], np.float32), np.ones((*SHAPES[0][:2], SHAPES[0][3]), np.float32)
    by_columns = np.asfortranarray(dh[:, -1])  # the gradient of the last memory, as a transpose leaves it
    backward("lstm", arguments, forward("lstm", arguments, None, 0), dh, None, 0, by_columns)
    counts = {}
    for room in (recurrent, recurrent_loops, additive):
        for name, value in vars(importlib.import_module(room.__name__)).items():
            if hasattr(value, "signatures") and value.__module__ == room.__name__:  # not what it takes from elsewhere
                counts[f"{room.__name__}.{name}"] = len(value.signatures)
    assert counts and {name: count for name, count in counts.items() if count > 2} == {}
