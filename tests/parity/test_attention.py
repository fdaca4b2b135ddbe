"""Attention against torch's scaled_dot_product_attention, forward and backward: the kernels, then the function."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import minillm.functional as F  # noqa: E402
from minillm import Tensor  # noqa: E402
from minillm.functional.attention import attention_backward, attention_forward, visible  # noqa: E402

# B, T, S, H, G, D, window, starts
CASES = [
    (12, 64, 64, 4, 4, 32, 0, None),
    (2, 128, 128, 6, 6, 64, 0, None),
    (1, 530, 530, 2, 2, 64, 0, None),
    (2, 50, 50, 9, 3, 64, 0, None),
    (2, 17, 90, 4, 1, 20, 0, [3, 60]),
    (1, 70, 70, 2, 2, 8, 12, None),
    (3, 1, 700, 9, 3, 64, 0, [0, 5, 650]),
]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-12)], ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_torch(case, dtype, tolerance):
    B, T, S, H, G, D, window, starts = case
    rng = np.random.default_rng(0)
    shapes = [(B, H, T, D), (B, G, S, D), (B, G, S, D), (B, H, T, D)]
    q, k, v, dout = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    scale = D**-0.5
    starts = None if starts is None else np.array(starts)
    options = {"causal": True, "window": window, "scale": scale, "starts": starts}
    out, lse = attention_forward(q, k, v, **options)
    ours = (out, *attention_backward(dout, q, k, v, out, lse, **options))

    inputs = [torch.from_numpy(x.copy()).requires_grad_() for x in (q, k, v)]
    plain = T == S and window == 0 and starts is None
    mask = None if plain else torch.from_numpy(visible((B, H, T, S), True, window, starts))
    expected = torch.nn.functional.scaled_dot_product_attention(
        *inputs, attn_mask=mask, is_causal=plain, scale=scale, enable_gqa=H != G
    )
    theirs = (expected, *torch.autograd.grad(expected, inputs, torch.from_numpy(dout)))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=tolerance, atol=tolerance)

    scores = torch.einsum("bhtd,bhsd->bhts", inputs[0], inputs[1].repeat_interleave(H // G, dim=1)) * scale
    seen = torch.from_numpy(visible((B, H, T, S), True, window, starts))
    expected_lse = torch.where(seen, scores, -torch.inf).logsumexp(dim=-1)
    np.testing.assert_allclose(lse, expected_lse.detach().numpy(), rtol=tolerance, atol=tolerance)


# ---- the function that users call: shapes, masks, windows, groups ----------------------------------------------------

TOLERANCES = [pytest.param(np.float32, 2e-5, id="float32"), pytest.param(np.float64, 1e-10, id="float64")]
B, H, D = 2, 4, 5  # an odd head size


def compare(q_length, k_length, groups, dtype, tolerance, seen=None, mask=None, mask_gradient=False, **options):
    """Values and gradients of q, k, v (and of an additive mask) beside torch's, which is told ``seen`` outright."""
    T, S = q_length, k_length
    rng = np.random.default_rng(0)
    shapes = [(B, H, T, D), (B, groups, S, D), (B, groups, S, D)]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    inputs = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    twins = [torch.tensor(a, requires_grad=True) for a in arrays]
    ours, theirs = None, None if seen is None else torch.where(torch.tensor(seen), 0.0, -torch.inf).to(twins[0].dtype)
    if mask is not None:
        mask = mask if mask.dtype == bool else mask.astype(dtype)
        ours, given = Tensor(mask.copy(), requires_grad=mask_gradient), torch.tensor(mask, requires_grad=mask_gradient)
        added = given if mask.dtype != bool else torch.where(given, 0.0, -torch.inf).to(twins[0].dtype)
        theirs = added if theirs is None else added + theirs
        if mask_gradient:
            inputs.append(ours)
            twins.append(given)
    y = F.scaled_dot_product_attention(*inputs[:3], mask=ours, **options)
    z = torch.nn.functional.scaled_dot_product_attention(
        *twins[:3],
        attn_mask=None if theirs is None else theirs.broadcast_to(B, H, T, S),
        scale=options.get("scale"),
        enable_gqa=True,
    )
    assert y.dtype == dtype and y.shape == tuple(z.shape)
    dy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    z.backward(torch.tensor(dy))
    for got, expected in ((y.data, z.detach()), *((t.grad, u.grad) for t, u in zip(inputs, twins, strict=True))):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected.numpy(), rtol=tolerance, atol=tolerance)


def causal(T, S, window=None):
    """Ours is aligned at the end: the last query sees all keys, as when new tokens follow the keys of a cache."""
    t, s = np.arange(S - T, S)[:, None], np.arange(S)
    return (s <= t) & (s > t - (window or T + S))


LENGTHS = [(4, 4), (3, 7), (7, 3), (1, 6), (6, 1), (1, 1), (33, 70), (70, 33)]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize(("T", "S"), LENGTHS)
def test_lengths_windows_and_groups(T, S, groups, dtype, tolerance):
    """Also where T > S, and the first queries see no key at all: they get 0, here and in torch."""
    compare(T, S, groups, dtype, tolerance)
    compare(T, S, groups, dtype, tolerance, scale=0.7)
    compare(T, S, groups, dtype, tolerance, causal(T, S), causal=True)
    for window in (1, 2, 100):
        compare(T, S, groups, dtype, tolerance, causal(T, S, window), causal=True, window=window)


def test_torchs_causal_flag_is_aligned_at_the_start():
    """The two conventions agree for T == S; else torch's is_causal lets query t see the keys up to t."""
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((1, 1, 2, 4)), rng.standard_normal((1, 1, 5, 4))
    ours = F.scaled_dot_product_attention(Tensor(q), Tensor(k), Tensor(k), causal=True)
    theirs = torch.nn.functional.scaled_dot_product_attention(*map(torch.tensor, (q, k, k)), is_causal=True).numpy()
    assert not np.allclose(ours.data, theirs)
    top_left = F.scaled_dot_product_attention(Tensor(q), Tensor(k), Tensor(k), mask=np.tril(np.ones((2, 5), bool)))
    np.testing.assert_allclose(top_left.data, theirs, rtol=1e-12)


def masks(T, S):
    """Of every shape that broadcasts to (B, H, T, S), some with rows that are hidden completely."""
    rng = np.random.default_rng(3)
    shapes = [(S,), (1, S), (T, 1), (T, S), (1, 1), (H, 1, 1), (H, T, S), (1, T, S), (B, 1, 1, S), (B, 1, T, 1)]
    for shape in (*shapes, (1, H, 1, S), (B, H, 1, 1), (B, H, T, S), (1, 1, 1, 1), ()):
        yield np.asarray(rng.standard_normal(shape) * 2)
        yield np.asarray(rng.random(shape) > 0.3)
    additive = rng.standard_normal((B, H, T, S))
    additive[rng.random(additive.shape) > 0.6] = -np.inf
    additive[1, :, T // 2] = -np.inf
    yield additive
    yield np.full((T, S), -np.inf)
    yield np.zeros((T, S), bool)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize(("T", "S"), [(4, 4), (3, 6), (5, 2)])
def test_masks(T, S, groups, dtype, tolerance):
    for mask in masks(T, S):
        compare(T, S, groups, dtype, tolerance, mask=mask)
        compare(T, S, groups, dtype, tolerance, causal(T, S), mask=mask, causal=True)
        compare(T, S, groups, dtype, tolerance, causal(T, S, 2), mask=mask, causal=True, window=2)
        if mask.dtype != bool:
            compare(T, S, groups, dtype, tolerance, mask=mask, mask_gradient=True)
            compare(T, S, groups, dtype, tolerance, causal(T, S, 2), mask, True, causal=True, window=2)


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"mask": np.ones((1, 1), bool)}], ids=str)
def test_nothing_to_attend_to(options):
    """No queries, no keys, no batch: torch's shapes, and zeros where there is nothing to take home."""
    for batch, T, S in ((2, 0, 3), (2, 3, 0), (0, 3, 3)):
        inputs = [Tensor(np.ones((batch, 2, n, 4)), requires_grad=True) for n in (T, S, S)]
        y = F.scaled_dot_product_attention(*inputs, **options)
        z = torch.nn.functional.scaled_dot_product_attention(*(torch.tensor(t.data) for t in inputs))
        assert y.shape == tuple(z.shape) and np.array_equal(y.data, np.nan_to_num(z.numpy()))
        y.sum().backward()
        assert all(t.grad.shape == t.shape and not t.grad.any() for t in inputs)
