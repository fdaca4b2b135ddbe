"""Attention against torch's scaled_dot_product_attention, forward and backward."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from minillm.kernels.attention import attention_backward, attention_forward, visible_numpy  # noqa: E402

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
    shapes = [(B, T, H, D), (B, S, G, D), (B, S, G, D), (B, T, H, D)]
    q, k, v, dout = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    scale = D**-0.5
    starts = None if starts is None else np.array(starts)
    options = {"causal": True, "window": window, "scale": scale, "starts": starts}
    out, lse = attention_forward(q, k, v, **options)
    ours = (out, *attention_backward(dout, q, k, v, out, lse, **options))

    inputs = [torch.from_numpy(x.copy()).requires_grad_() for x in (q, k, v)]
    tq, tk, tv = (x.transpose(1, 2) for x in inputs)
    plain = T == S and window == 0 and starts is None
    mask = None if plain else torch.from_numpy(visible_numpy(B, T, S, True, window, starts))
    expected = torch.nn.functional.scaled_dot_product_attention(
        tq, tk, tv, attn_mask=mask, is_causal=plain, scale=scale, enable_gqa=H != G
    ).transpose(1, 2)
    theirs = (expected, *torch.autograd.grad(expected, inputs, torch.from_numpy(dout)))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=tolerance, atol=tolerance)

    scores = torch.einsum("bthd,bshd->bhts", inputs[0], inputs[1].repeat_interleave(H // G, dim=2)) * scale
    seen = torch.from_numpy(visible_numpy(B, T, S, True, window, starts))
    expected_lse = torch.where(seen, scores, -torch.inf).logsumexp(dim=-1)
    np.testing.assert_allclose(lse, expected_lse.detach().numpy(), rtol=tolerance, atol=tolerance)
