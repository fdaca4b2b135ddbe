"""Attention: kernel = definition = central differences; who sees whom; one thread = two; any layout."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minillm.functional as F
from minillm import Tensor, kernels
from minillm.functional.attention import visible
from minillm.kernels import _jit, attention_tiles
from tests.pairs import pair

attention_forward, attention_forward_definition = pair("attention_forward")
attention_backward, attention_backward_definition = pair("attention_backward")
compiled = pytest.mark.skipif(not _jit.JIT or _jit.KERNELS == "numpy", reason="nothing is compiled")
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
TOLERANCE = {np.float32: {"rtol": 2e-5, "atol": 2e-5}, np.float64: {"rtol": 1e-11, "atol": 1e-12}}

# B, T, S, H, G, D, causal, window, starts
CASES = [
    (2, 1, 1, 1, 1, 8, True, 0, None),
    (2, 33, 33, 4, 4, 32, True, 0, None),
    (1, 64, 64, 2, 2, 64, True, 0, None),
    (2, 65, 65, 4, 2, 16, True, 0, [0, 7]),
    (1, 130, 130, 3, 1, 33, True, 0, None),  # one key head in several parts
    (1, 70, 70, 1, 1, 8, False, 0, [40]),
    (2, 19, 83, 4, 2, 24, True, 0, [0, 70]),  # with a cache
    (2, 45, 45, 2, 1, 12, True, 5, [3, 44]),
    (1, 80, 50, 2, 2, 9, True, 0, None),  # the first 30 queries see nothing
    (1, 20, 90, 2, 2, 16, False, 30, None),
    (1, 300, 600, 1, 1, 16, True, 0, [20]),  # several tiles of keys: the online softmax
    (2, 1, 40, 4, 2, 64, True, 0, [0, 40]),  # a single query; the second row sees nothing
    (2, 1, 1300, 6, 2, 16, True, 0, [900, 0]),  # its keys in parts
    (1, 1, 1300, 2, 2, 16, True, 600, [800]),
]


def arrays(B, T, S, H, G, D, dtype=np.float64, seed=0):
    """dout, q: (B, H, T, D), k, v: (B, G, S, D), views of (B, T, H, D), as projections leave them."""
    rng = np.random.default_rng(seed)
    shapes = [(B, T, H, D), (B, T, H, D), (B, S, G, D), (B, S, G, D)]
    return [rng.standard_normal(shape).astype(dtype).swapaxes(1, 2) for shape in shapes]


def settings_of(D, causal, window, starts):
    return {
        "causal": causal,
        "window": window,
        "scale": D**-0.5,
        "starts": None if starts is None else np.array(starts),
    }


def check_equal(ours, theirs, dtype):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, **TOLERANCE[dtype])


@both_dtypes
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_its_definition(case, dtype):
    B, T, S, H, G, D, causal, window, starts = case
    dout, q, k, v = arrays(B, T, S, H, G, D, dtype)
    options = settings_of(D, causal, window, starts)
    before = [x.copy() for x in (dout, q, k, v)]
    out, lse = attention_forward_definition(q, k, v, **options)
    check_equal(attention_forward(q, k, v, **options), (out, lse), dtype)
    gradients = attention_backward(dout, q, k, v, out, lse, **options)
    check_equal(gradients, attention_backward_definition(dout, q, k, v, out, lse, **options), dtype)
    for a, b in zip(before, (dout, q, k, v), strict=True):
        np.testing.assert_array_equal(a, b)  # no argument was changed


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_equal_to_its_definition_whatever_the_shape(data):
    B, G = data.draw(st.integers(1, 3), "B"), data.draw(st.integers(1, 3), "G")
    H = G * data.draw(st.integers(1, 3), "heads per key head")
    T, S, D = data.draw(st.integers(1, 80), "T"), data.draw(st.integers(1, 80), "S"), data.draw(st.integers(1, 70), "D")
    window = data.draw(st.integers(0, 40), "window")
    starts = data.draw(st.none() | st.lists(st.integers(0, S), min_size=B, max_size=B), "starts")
    dout, q, k, v = arrays(B, T, S, H, G, D)
    options = settings_of(D, data.draw(st.booleans(), "causal"), window, starts)
    out, lse = attention_forward(q, k, v, **options)
    check_equal((out, lse), attention_forward_definition(q, k, v, **options), np.float64)
    gradients = attention_backward(dout, q, k, v, out, lse, **options)
    check_equal(gradients, attention_backward_definition(dout, q, k, v, out, lse, **options), np.float64)


def test_the_definition_row_by_row():
    """Each row by itself: softmax over the keys that the rules allow."""
    B, T, S, H, G, D, window, starts = 2, 5, 9, 4, 2, 3, 4, [0, 7]
    _, q, k, v = arrays(B, T, S, H, G, D)
    out, lse = attention_forward_definition(q, k, v, **settings_of(D, True, window, starts))
    for b, t, h in np.ndindex(B, T, H):
        position = S - T + t
        seen = [s for s in range(S) if s <= position and s > position - window and s >= starts[b]]
        scores = np.array([q[b, h, t] @ k[b, h // 2, s] / np.sqrt(D) for s in seen])
        if not seen:
            assert (out[b, h, t] == 0).all() and lse[b, h, t] == -np.inf
            continue
        weights = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(out[b, h, t], sum(w * v[b, h // 2, s] for w, s in zip(weights, seen, strict=True)))
        np.testing.assert_allclose(lse[b, h, t], np.log(np.exp(scores).sum()))


@pytest.mark.parametrize("which", ["kernel", "definition"])
@pytest.mark.parametrize(("causal", "window", "starts"), [(True, 0, None), (True, 3, [2]), (False, 0, [1])], ids=str)
def test_gradients_are_those_of_central_differences(which, causal, window, starts):
    forward, backward = {
        "kernel": (attention_forward, attention_backward),
        "definition": (attention_forward_definition, attention_backward_definition),
    }[which]
    dout, q, k, v = arrays(1, 5, 7, 4, 2, 3)
    options = settings_of(3, causal, window, starts)
    gradients = backward(dout, q, k, v, *forward(q, k, v, **options), **options)
    eps = 1e-6
    for x, dx in zip((q, k, v), gradients, strict=True):
        numeric = np.empty_like(x)
        for at in np.ndindex(x.shape):
            kept, values = x[at], []
            for x[at] in (kept + eps, kept - eps):
                values.append((forward(q, k, v, **options)[0] * dout).sum())
            x[at] = kept
            numeric[at] = (values[0] - values[1]) / (2 * eps)
        np.testing.assert_allclose(dx, numeric, rtol=1e-6, atol=1e-8)


@both_dtypes
@pytest.mark.parametrize(("H", "G", "D"), [(4, 4, 32), (6, 2, 16), (2, 1, 7)])
def test_self_attention_is_attention_of_the_columns(H, G, D, dtype):
    B, T = 3, 37
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((B, T, (H + 2 * G) * D)).astype(dtype)
    dy = rng.standard_normal((B, T, H * D)).astype(dtype)
    forward, backward = pair("self_attention_forward"), pair("self_attention_backward")
    y, lse = forward[0](qkv, H, G, 9)
    dqkv = backward[0](dy, qkv, y, lse, H, G, 9)
    defined = forward[1](qkv, H, G, 9)
    check_equal((y, lse), defined, dtype)
    check_equal([dqkv], [backward[1](dy, qkv, *defined, H, G, 9)], dtype)

    edges = ((0, H), (H, H + G), (H + G, H + 2 * G))
    q, k, v = (qkv[..., a * D : b * D].reshape(B, T, b - a, D).swapaxes(1, 2) for a, b in edges)
    options = {"causal": True, "window": 9, "scale": D**-0.5}
    apart, lse_apart = attention_forward_definition(q, k, v, **options)
    joined = apart.swapaxes(1, 2).reshape(B, T, -1)
    check_equal((y, lse), (joined, lse_apart), dtype)
    dout = dy.reshape(B, T, H, D).swapaxes(1, 2)
    gradients = attention_backward_definition(dout, q, k, v, apart, lse_apart, **options)
    check_equal([dqkv], [np.concatenate([g.swapaxes(1, 2).reshape(B, T, -1) for g in gradients], axis=-1)], dtype)


def test_views_are_read_where_they_lie():
    """Columns of a packed projection, a cache with room to spare; broadcast, reversed and read-only arrays."""
    B, T, S, H, D = 2, 21, 40, 3, 8
    dout, q, k, v = arrays(B, T, S, H, H, D)
    options = {"causal": True, "window": 0, "scale": 0.3}
    out, lse = attention_forward(q, k, v, **options)
    gradients = attention_backward(dout, q, k, v, out, lse, **options)

    packed = np.full((B, T, 5, H, D), np.nan)
    packed[:, :, 1] = q.swapaxes(1, 2)
    cache = np.full((2, B, S + 11, H, D), np.nan)
    cache[:, :, :S] = k.swapaxes(1, 2), v.swapaxes(1, 2)
    same = [np.broadcast_to(x[:1], x.shape) for x in (k, v)]
    views = {
        "columns": [x.swapaxes(1, 2) for x in (packed[:, :, 1], cache[0, :, :S], cache[1, :, :S])],
        "heads first": [np.ascontiguousarray(x) for x in (q, k, v)],
        "features first": [x.swapaxes(2, 3).copy().swapaxes(2, 3) for x in (q, k, v)],
        "backwards": [x[..., ::-1].copy()[..., ::-1] for x in (q, k, v)],
        "frozen": [x.copy() for x in (q, k, v)],
    }
    for x in views["frozen"]:
        x.flags.writeable = False
    for name, seen in views.items():
        check_equal(attention_forward(*seen, **options), (out, lse), np.float64)
        made = attention_backward(dout, *seen, out, lse, **options)
        check_equal(made, gradients, np.float64)
        if name in ("columns", "heads first"):  # gradients lie as the arguments do
            assert [x.swapaxes(1, 2).flags.c_contiguous for x in made] == [name == "columns"] * 3
    copies = [x.copy() for x in same]
    expected = attention_forward(q, *copies, **options)
    check_equal(attention_forward(q, *same, **options), expected, np.float64)
    check_equal(
        attention_backward(dout, q, *same, *expected, **options),
        attention_backward(dout, q, *copies, *expected, **options),
        np.float64,
    )


@both_dtypes
@pytest.mark.parametrize(("T", "window"), [(70, 0), (300, 0), (300, 40)])
def test_the_future_changes_nothing_before_it(T, window, dtype):
    """Bit for bit, forward; and the gradient of what is before is the same too."""
    _, q, k, v = arrays(1, T, T, 2, 2, 16, dtype)
    out, lse = attention_forward(q, k, v, causal=True, window=window, scale=0.25)
    for t in (1, 31, 32, T // 2, T - 1):
        q2, k2, v2 = q.copy(), k.copy(), v.copy()
        for x in (q2, k2, v2):
            x[:, :, t:] = 100 * x[:, :, t:] + 7
        out2, lse2 = attention_forward(q2, k2, v2, causal=True, window=window, scale=0.25)
        assert (out2[:, :, :t] == out[:, :, :t]).all() and (lse2[:, :, :t] == lse[:, :, :t]).all()
        assert not (out2[:, :, t] == out[:, :, t]).all()


def test_what_is_hidden_does_not_matter():
    """Keys before `starts`, outside the window or in the future may hold anything but must not be seen."""
    dout, q, k, v = arrays(2, 40, 60, 2, 2, 8)
    options = settings_of(8, True, 6, [10, 58])
    seen = visible((2, 2, 40, 60), True, 6, options["starts"]).any(axis=(1, 2))  # (B, S)
    out, lse = attention_forward(q, k, v, **options)
    gradients = attention_backward(dout, q, k, v, out, lse, **options)
    for x in (k, v):
        x.swapaxes(1, 2)[~seen] = 1e30
    check_equal(attention_forward(q, k, v, **options), (out, lse), np.float64)
    again = attention_backward(dout, q, k, v, out, lse, **options)
    check_equal(again, gradients, np.float64)
    assert all((x.swapaxes(1, 2)[~seen] == 0).all() for x in again[1:])


@both_dtypes
def test_rows_that_see_nothing_give_zero(dtype):
    for T, S in ((1, 9), (12, 9), (9, 9), (40, 2)):
        dout, q, k, v = arrays(2, T, S, 2, 1, 8, dtype)
        options = settings_of(8, True, 0, [S, S + 5])
        out, lse = attention_forward(q, k, v, **options)
        assert (out == 0).all() and (lse == -np.inf).all()
        for gradient in attention_backward(dout, q, k, v, out, lse, **options):
            assert (gradient == 0).all()


def test_nothing_at_all():
    for B, T, S in ((0, 3, 3), (2, 0, 3), (2, 3, 0), (2, 1, 0)):
        dout, q, k, v = arrays(B, T, S, 2, 1, 8)
        out, lse = attention_forward(q, k, v, causal=False, window=0, scale=1.0)
        assert out.shape == q.shape and lse.shape == (B, 2, T) and (out == 0).all()
        dq, dk, dv = attention_backward(dout, q, k, v, out, lse, causal=False, window=0, scale=1.0)
        assert dq.shape == q.shape and dk.shape == dv.shape == k.shape and not dk.any()


def test_huge_scores_neither_overflow_nor_vanish():
    dout, q, k, v = arrays(1, 300, 300, 1, 1, 8, np.float32)
    q, k = q * 100, k * 100  # scores of about 30,000
    options = {"causal": True, "window": 0, "scale": 8**-0.5}
    out, lse = attention_forward(q, k, v, **options)
    exact = attention_forward_definition(*(x.astype(np.float64) for x in (q, k, v)), **options)
    np.testing.assert_allclose(lse, exact[1], rtol=1e-6)
    np.testing.assert_allclose(out, exact[0], atol=0.02)  # a score is right to 1/500
    assert np.isfinite(attention_backward(dout, q, k, v, out, lse, **options)[0]).all()


def test_nan_comes_through_where_it_is_seen():
    _, q, k, v = arrays(1, 50, 50, 1, 1, 8, np.float32)
    q[0, 0, 20, 3] = np.nan
    out, lse = attention_forward(q, k, v, causal=True, window=0, scale=1.0)
    assert np.isnan(out[0, :, 20]).all() and np.isnan(lse[0, 0, 20])
    assert np.isfinite(np.delete(out, 20, axis=2)).all()


@compiled
@pytest.mark.parametrize(
    "case",
    [(3, 40, 40, 2, 2, 16), (1, 200, 200, 1, 1, 32), (1, 150, 400, 3, 3, 8), (1, 1, 1500, 4, 2, 16)],
    ids=str,
)
def test_one_thread_gives_the_bits_of_two(case):
    if _jit.numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    dout, q, k, v = arrays(*case, np.float32)
    results = []
    for n in (1, 2):
        before = kernels.get_num_threads()
        kernels.set_num_threads(n)
        try:
            out, lse = attention_forward(q, k, v, causal=True, window=0, scale=0.3)
            results.append((out, lse, *attention_backward(dout, q, k, v, out, lse, causal=True, window=0, scale=0.3)))
        finally:
            kernels.set_num_threads(before)
    for a, b in zip(*results, strict=True):
        assert a.tobytes() == b.tobytes()


@compiled
def test_two_signatures_are_compiled_and_no_more():
    loops = [getattr(attention_tiles, name) for name in ("forward", "backward", "decode", "decode_alone", "merge")]
    before = [len(loop.signatures) for loop in loops]  # the token step calls ``decode`` from its own compiled loop
    for dtype in (np.float32, np.float64, np.float16):
        for T in (1, 5):
            dout, q, k, v = arrays(2, T, 600, 2, 1, 8, dtype)
            wide = np.zeros((2, 700, 1, 8), dtype).swapaxes(1, 2)
            for keys in (k, wide[:, :, :600]):
                out, lse = attention_forward(q, keys, v, causal=True, window=0, scale=1, starts=np.array([0, 1]))
                attention_backward(dout, q, keys, v, out, lse, causal=T == 1, window=T, scale=np.float64(0.5))
    for loop, known in zip(loops, before, strict=True):
        assert len(loop.signatures) - known <= 2, loop.py_func.__name__


def test_errors_name_what_is_wrong():
    q, k, v = (Tensor(x) for x in arrays(1, 4, 4, 4, 2, 8)[1:])
    with pytest.raises(ValueError, match=r"must have the same shape \(B, G, S, D\).*k \(1, 2, 4, 4\)"):
        F.scaled_dot_product_attention(q, k[..., :4], v)
    with pytest.raises(ValueError, match="divisor of q's heads; got q .1, 3, 4, 8."):
        F.scaled_dot_product_attention(q[:, :3], k, v)
    for starts in (np.array([0, 1]), np.array([0.0])):
        with pytest.raises(ValueError, match=r"starts must be \(B,\) = \(1,\) integers; got .* of shape"):
            F.scaled_dot_product_attention(q, k, v, starts=starts)
    with pytest.raises(ValueError, match=r"self_attention: the width of qkv.*\(1, 4, 10\)"):
        F.self_attention(Tensor(np.zeros((1, 4, 10))), 2, 1, window=3)


@pytest.mark.parametrize("which", ["kernel", "definition"])
def test_underflow_is_no_error(which):
    """Most weights of a clear choice are below the smallest float32, whatever np.seterr says."""
    forward, backward = {
        "kernel": (attention_forward, attention_backward),
        "definition": (attention_forward_definition, attention_backward_definition),
    }[which]
    dout, q, k, v = arrays(2, 9, 9, 2, 1, 8, np.float32)
    options = settings_of(8, True, 0, [0, 12])
    with np.errstate(all="raise"):
        for small in (1, 1e-20):
            out, lse = forward(30 * q, 10 * k, v * small, **options)
            gradients = backward(dout * small, 30 * q, 10 * k, v * small, out, lse, **options)
    for x in (out, *gradients):
        assert np.isfinite(x).all() and not x[1].any()  # the second row sees nothing
