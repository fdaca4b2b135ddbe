"""Attention as users call it: the joint form equals the plain lines, caches, dtypes, errors."""

import numpy as np
import pytest

import minillm.functional as F
from minillm import Tensor, no_grad
from minillm.models.base import KVCache


def normal(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(("H", "G", "window"), [(4, 4, None), (4, 2, None), (2, 1, 3)])
def test_the_joint_operation_equals_the_plain_lines(H, G, window):
    """Turned by an angle of 0, nothing changes, and the plain lines are what computes."""
    data, dy = normal(2, 7, (H + 2 * G) * 6), normal(2, 7, H * 6, seed=1)
    results = []
    for rotary in (None, (np.ones((7, 3), np.float32), np.zeros((7, 3), np.float32))):
        qkv = Tensor(data, requires_grad=True)
        y = F.self_attention(qkv, H, G, rotary, window)
        y.backward(dy)
        results.append((y.data, qkv.grad))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert F.self_attention(Tensor(data, requires_grad=True), H, G, None, window).op == "self_attention"


@pytest.mark.parametrize("turned", [False, True])
def test_in_pieces_with_a_cache_equals_the_whole(turned):
    qkv, angles = normal(2, 9, 16), normal(9, 2)
    cos, sin = np.cos(angles), np.sin(angles)
    whole = F.self_attention(Tensor(qkv), 2, 1, (cos, sin) if turned else None, window=4).data
    cache = KVCache(1, 2, 9, 1, 4, np.float32)
    for lo, hi in ((0, 5), (5, 6), (6, 9)):
        rotary = (cos[lo:hi], sin[lo:hi]) if turned else None
        piece = F.self_attention(Tensor(qkv[:, lo:hi], requires_grad=True), 2, 1, rotary, 4, cache.layer(0))
        cache.length += hi - lo
        np.testing.assert_allclose(piece.data, whole[:, lo:hi], rtol=1e-5, atol=1e-6)
        assert not piece.requires_grad  # the keys of the cache have no graph, and half a gradient would be a wrong one


def test_a_cache_in_float16_rounds_what_is_written_and_computes_in_float32():
    k, v = (normal(2, 3, 1, 4) for _ in "kv")
    cache = KVCache(2, 2, 4, 1, 4, np.float16)
    keys, values = cache.layer(1).append(k, v)
    for got, x in ((keys, k), (values, v)):
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, x.astype(np.float16).astype(np.float32))
        assert 0 < np.abs(got - x).max() < 2.0**-11 * np.abs(x).max()
    cache.length = 3
    for other in (cache.reorder(np.array([1, 0])), cache.kept(2, 9)):
        assert other.keys.dtype == other.values.dtype == np.float16
    assert cache.capacity == 9
    again = cache.layer(1).append(k[:, :1], v[:, :1])[0]
    np.testing.assert_array_equal(again, np.concatenate([keys[:, :2], keys[:, :1]], axis=1))


def test_the_wider_dtype_wins_and_gradients_are_of_each_input():
    q, k, v = (
        Tensor(normal(1, 2, 3, 4), True),
        Tensor(normal(1, 1, 5, 4, dtype=np.float64), True),
        Tensor(normal(1, 1, 5, 4)),
    )
    y = F.scaled_dot_product_attention(q, k, v, causal=True)
    y.sum().backward()
    assert (y.dtype, q.grad.dtype, k.grad.dtype) == (np.float64, np.float32, np.float64)
    w = Tensor(normal(4, dtype=np.float64))
    assert F.past_attention(v[0], v[0], v[0], 2, w).dtype == np.float64


def test_a_number_of_numpys_as_scale_does_not_widen():
    q = Tensor(normal(1, 1, 3, 4))
    assert F.scaled_dot_product_attention(q, q, q, scale=np.float64(0.5)).dtype == np.float32


def test_starts_that_do_not_fit_are_refused():
    """They bound loops that read memory."""
    x, h, w = Tensor(normal(2, 3, 4)), Tensor(normal(2, 5)), Tensor(normal(4))
    weights = {
        cell: [Tensor(normal(gates * 5, n)) for n in (4, 5)] for cell, gates in (("rnn", 1), ("lstm", 4), ("gru", 3))
    }
    calls = {
        cell: lambda s, cell=cell: getattr(F, cell)(x, *weights[cell], None, None, *[h] * (1 + (cell == "lstm")), s)
        for cell in weights
    }
    calls["past_attention"] = lambda s: F.past_attention(x, x, x, 2, None, s)
    for name, call in calls.items():
        for starts in (np.array([1]), np.array([0.0, 1.0]), np.zeros((2, 1), int)):
            with no_grad(), pytest.raises(ValueError, match=rf"{name}: starts must be \(B,\) = \(2,\) integers"):
                call(starts)
        call([0, 1])
    with pytest.raises(ValueError, match="past_attention: starts"):
        F.past_attention(x, x, x, 2, w, np.array([1]))
