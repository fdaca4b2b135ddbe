"""Numbers at the edge: sums of millions of float32 rows, and underflow where ``np.seterr`` calls it an error."""

import numpy as np
import pytest

import minillm.functional as F
from minillm import Tensor
from minillm.kernels import _jit, embedding, norm, rows
from tests.pairs import pair

N = 20_000_000  # beyond 16,777,216 float32 cannot count one by one


def heavy_head():
    """(2**20 + 1024, 1), and their sum: beside that of the first 1,024 float32 does not notice a 1, nor 256 of them."""
    x = np.ones((2**20 + 1024, 1), np.float32)
    x[:1024] = 2**22
    return x, 2**32 + 2**20


compiled = pytest.mark.skipif(not _jit.JIT, reason="too slow as plain Python")
both = pytest.mark.parametrize("which", [0, 1], ids=["kernel", "definition"])


@compiled
@both
def test_the_gradient_of_a_bias_counts_all_rows(which):
    dy, total = heavy_head()
    _, _, db = pair("linear_backward")[which](dy, dy, np.ones((1, 1), np.float32), (False, False, True))
    assert db.dtype == np.float32 and db.tolist() == [total]


@compiled
@both
def test_the_gradients_of_a_norm_count_all_rows(which):
    dy, total = heavy_head()
    x, weight = np.ones_like(dy), np.ones(1, np.float32)
    _, dweight, dbias = pair("layer_norm_backward")[which](dy, x, weight, np.zeros_like(x), x)
    assert (dweight.tolist(), dbias.tolist()) == ([total], [total])
    assert pair("rms_norm_backward")[which](dy, x, weight, x)[1].tolist() == [total]


@compiled
def test_the_gradient_of_a_frequent_token_counts_all_its_places():
    dy, ids = np.ones((N, 1), np.float32), np.zeros(N, np.int64)
    assert pair("embedding_backward")[0](dy, ids, 2).tolist() == [[N], [0]]


def test_the_gradient_of_a_frequent_token_counts_on_from_where_float32_stands_still():
    dy = np.array([[2.0**24], [1.0], [1.0]], np.float32)
    assert pair("embedding_backward")[1](dy, np.zeros(3, np.int64), 1).tolist() == [[2**24 + 2]]


@compiled
def test_sums_in_blocks_lose_no_digits():
    """0.1 a million times is 100958.3, if added one by one in float32; a block rounds once for each of its rows."""
    x = np.full((1_000_000, 3), 0.1, np.float32)
    exact = 1_000_000 * float(np.float32(0.1))
    np.testing.assert_allclose(rows.sum_rows(x), exact, rtol=64 * 2.0**-24)
    one, r = np.ones(3, np.float32), np.ones((1_000_000, 1), np.float32)
    for backward in pair("layer_norm_backward"):
        np.testing.assert_allclose(backward(x, x, one, 0 * r, r)[2], exact, rtol=1024 * 2.0**-24)
    assert norm._blocks_of(1_000_000) > norm._BLOCKS and embedding._MOST_TOKENS < 1 << 24


@both
def test_softmax_along_a_long_first_axis(which):
    x = np.zeros((N, 1), np.float32).T
    np.testing.assert_allclose(pair("softmax_forward")[which](x)[0, :2], 1 / N, rtol=1e-6)
    np.testing.assert_allclose(pair("log_softmax_forward")[which](x)[0, :2], -np.log(N), rtol=1e-6)


# ---- underflow is no error -------------------------------------------------------------------------------------------

SCORES = np.array([[0.0, -60.0, -104.0, -1000.0], [1e-30, -1e-30, 88.0, -88.0], [1e3, 0.0, -9.0, 20.0]])
TARGETS = np.array([3, 1, 2])
OPERATIONS = {
    "softmax": F.softmax,
    "log_softmax": F.log_softmax,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "gelu": F.gelu,
    "gelu exact": lambda x: F.gelu(x, "none"),
    "silu": F.silu,
    "softplus": F.softplus,
    "elu": F.elu,
    "cross_entropy": lambda x: F.cross_entropy(x, TARGETS),
    "cross_entropy smoothed": lambda x: F.cross_entropy(x, TARGETS, label_smoothing=0.1),
    "layer_norm": lambda x: F.layer_norm(x, Tensor(np.ones(4, x.dtype)), Tensor(np.ones(4, x.dtype))),
    "rms_norm": lambda x: F.rms_norm(x, Tensor(np.ones(4, x.dtype))),
}
GENTLE = np.where(np.abs(SCORES) == 1e-30, 0.5, SCORES)  # for losses that are sums and products of tensors
LOSSES = {
    "binary_cross_entropy_with_logits": lambda x: F.binary_cross_entropy_with_logits(x, (GENTLE > 0).astype(x.dtype)),
    "nll_loss": lambda x: F.nll_loss(F.log_softmax(x), TARGETS),
    "kl_div": lambda x: F.kl_div(F.log_softmax(x), np.array([0, 0, 0.5, 0.5], x.dtype)),
    "mse_loss": lambda x: F.mse_loss(x, np.zeros_like(x.data)),
    "huber_loss": lambda x: F.huber_loss(x, np.zeros_like(x.data)),
    "l1_loss": lambda x: F.l1_loss(x, np.zeros_like(x.data)),
    "swiglu": F.swiglu,
}


@pytest.mark.parametrize("name", [*OPERATIONS, *LOSSES])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_underflow_is_no_error(name, dtype):
    results = []
    for errors in ("ignore", "raise"):
        x = Tensor((SCORES if name in OPERATIONS else GENTLE).astype(dtype), requires_grad=True)
        with np.errstate(all=errors):
            y = (OPERATIONS | LOSSES)[name](x)
            y.backward(np.full(y.shape, 1e-30 if name in OPERATIONS else 1, dtype))
        results.append((y.data, x.grad))
    for ignored, raised in zip(*results, strict=True):
        np.testing.assert_array_equal(ignored, raised)
        assert np.isfinite(raised).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "cross_entropy", "sigmoid", "silu", "gelu"])
def test_definitions_underflow_to_zero(name):
    """The same of the definitions, where the kernels are what runs."""
    x, more = SCORES.astype(np.float32), {"cross_entropy": (TARGETS, -100, 0.1), "gelu": (False,)}.get(name, ())
    with np.errstate(all="raise"):
        made = pair(f"{name}_forward")[1](x, *more)
        if name == "cross_entropy":
            made = pair("cross_entropy_backward")[1](np.full(3, 1e-30, np.float32), x, TARGETS, made[1], -100, 0.1)
        else:
            kept = made if name in ("softmax", "log_softmax", "sigmoid") else x
            made = pair(f"{name}_backward")[1](np.full(x.shape, 1e-30, np.float32), kept, *more)
    assert np.isfinite(made).all()


# ---- as torch decides ------------------------------------------------------------------------------------------------


def test_all_the_weight_on_the_smoothing():
    """label_smoothing 1: the target counts no more than any other; the loss is the mean of -log p."""
    z = Tensor(np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0]]), requires_grad=True)
    loss = F.cross_entropy(z, [0, 2], label_smoothing=1.0)
    log_p = F.log_softmax(z).data
    np.testing.assert_allclose(loss.item(), -log_p.mean(), rtol=1e-12)
    loss.backward()
    np.testing.assert_allclose(z.grad, (np.exp(log_p) - 1 / 3) / 2, rtol=1e-12)


def test_a_negative_probability_gives_nan():
    log_q = Tensor(np.log([[0.25, 0.25, 0.5]]), requires_grad=True)
    losses = F.kl_div(log_q, np.array([[-0.5, 0.0, 0.5]]), reduction="none")
    np.testing.assert_allclose(losses.data, [[np.nan, 0.0, 0.0]], atol=1e-15)
