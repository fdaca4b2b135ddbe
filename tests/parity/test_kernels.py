"""Kernels and definitions against torch: values, gradients, and what becomes of -inf, NaN and ignored rows."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from minillm import optim  # noqa: E402
from minillm.functional.activations import (  # noqa: E402
    gelu_backward,
    gelu_forward,
    log_softmax_backward,
    log_softmax_forward,
    sigmoid_backward,
    sigmoid_forward,
    silu_backward,
    silu_forward,
    softmax_backward,
    softmax_forward,
)
from minillm.functional.embedding import embedding_backward, rotate  # noqa: E402
from minillm.functional.losses import cross_entropy_backward, cross_entropy_forward  # noqa: E402
from minillm.functional.norm import (  # noqa: E402
    layer_norm_backward,
    layer_norm_forward,
    rms_norm_backward,
    rms_norm_forward,
)

CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _torch(function, dy, *arrays):
    """(value, gradients of the arrays) of a torch function."""
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in arrays]
    y = function(*tensors)
    return y.detach().numpy(), [g.numpy() for g in torch.autograd.grad(y, tensors, torch.from_numpy(dy))]


CASES = {
    "gelu": (
        lambda x: gelu_forward(x, False),
        lambda dy, x, y: gelu_backward(dy, x, False),
        lambda x: F.gelu(x, approximate="tanh"),
    ),
    "gelu exact": (lambda x: gelu_forward(x, True), lambda dy, x, y: gelu_backward(dy, x, True), F.gelu),
    "silu": (silu_forward, lambda dy, x, y: silu_backward(dy, x), F.silu),
    "sigmoid": (sigmoid_forward, lambda dy, x, y: sigmoid_backward(dy, y), torch.sigmoid),
    "softmax": (softmax_forward, lambda dy, x, y: softmax_backward(dy, y), lambda x: F.softmax(x, -1)),
    "log softmax": (
        log_softmax_forward,
        lambda dy, x, y: log_softmax_backward(dy, y),
        lambda x: F.log_softmax(x, -1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_activations_and_softmax(name):
    forward, backward, theirs = CASES[name]
    x, dy = 4 * _normal(17, 61), _normal(17, 61, seed=1)
    value, (gradient,) = _torch(theirs, dy, x)
    y = forward(x)
    np.testing.assert_allclose(y, value, **CLOSE)
    np.testing.assert_allclose(backward(dy, x, y), gradient, **CLOSE)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_infinity_and_nan(name):
    inf, nan = np.inf, np.nan
    x = np.array([[1, -inf, 0.5], [-inf, -inf, -inf], [0, inf, 1], [nan, 1, 2], [1e4, -1e4, 0]], np.float32)
    if name == "gelu exact":
        x[2, 1] = 9.0  # of +inf torch makes NaN; here it is inf
    value, _ = _torch(CASES[name][2], np.ones_like(x), x)
    np.testing.assert_allclose(CASES[name][0](x), value, rtol=1e-5, atol=1e-6)


def test_norms():
    x, dy = _normal(6, 9, 37) + 3, _normal(6, 9, 37, seed=1)
    weight, bias = _normal(37, seed=2), _normal(37, seed=3)
    value, gradients = _torch(lambda x, w, b: F.layer_norm(x, (37,), w, b, 1e-5), dy, x, weight, bias)
    y, mean, r = layer_norm_forward(x, weight, bias, 1e-5)
    np.testing.assert_allclose(y, value, **CLOSE)
    for ours, theirs in zip(layer_norm_backward(dy, x, weight, mean, r), gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    value, gradients = _torch(lambda x, w: F.rms_norm(x, (37,), w, 1e-6), dy, x, weight)
    y, r = rms_norm_forward(x, weight, 1e-6)
    np.testing.assert_allclose(y, value, **CLOSE)
    for ours, theirs in zip(rms_norm_backward(dy, x, weight, r), gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy(smoothing):
    logits, dlosses = 5 * _normal(31, 67), _normal(31, seed=1)
    targets = np.random.default_rng(2).integers(0, 67, 31)
    targets[4:9] = -1
    options = {"ignore_index": -1, "label_smoothing": smoothing}

    def theirs(z):
        return F.cross_entropy(z, torch.from_numpy(targets), reduction="none", **options)

    value, (gradient,) = _torch(theirs, dlosses, logits)
    losses, lse = cross_entropy_forward(logits, targets, **options)
    np.testing.assert_allclose(losses, value, **CLOSE)
    np.testing.assert_allclose(lse, torch.logsumexp(torch.from_numpy(logits), -1).numpy(), **CLOSE)
    np.testing.assert_allclose(cross_entropy_backward(dlosses, logits, targets, lse, **options), gradient, **CLOSE)


def test_embedding():
    weight, dy = _normal(11, 70), _normal(4, 9, 70, seed=1)
    ids = np.random.default_rng(2).integers(0, 11, (4, 9))
    _, (gradient,) = _torch(lambda w: F.embedding(torch.from_numpy(ids), w), dy, weight)
    np.testing.assert_allclose(embedding_backward(dy, ids, 11), gradient, **CLOSE)


def test_rotary_is_that_of_transformers():
    rotary = pytest.importorskip("transformers.models.llama.modeling_llama").apply_rotary_pos_emb
    x = _normal(2, 7, 3, 16)  # (B, T, H, D)
    angle = np.arange(7)[:, None] * 100.0 ** (-np.arange(8) / 8)  # (T, D/2)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    twice = [torch.from_numpy(np.concatenate([a, a], -1))[None] for a in (cos, sin)]
    value, _ = rotary(*[torch.from_numpy(x).transpose(1, 2)] * 2, *twice)
    np.testing.assert_allclose(rotate(x.swapaxes(1, 2), cos, sin), value.numpy(), **CLOSE)


@pytest.mark.parametrize("size", [5, 30_001])
def test_adamw_and_sgd(size):
    start, m, v, velocity = _normal(size), *np.zeros((3, size), np.float32)
    adam, sgd = start.copy(), start.copy()
    theirs_adam, theirs_sgd = (torch.nn.Parameter(torch.from_numpy(start.copy())) for _ in range(2))
    optimizers = [
        torch.optim.AdamW([theirs_adam], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
        torch.optim.SGD([theirs_sgd], lr=1e-2, momentum=0.9, weight_decay=0.1),
    ]
    for step in range(1, 6):
        grad = _normal(size, seed=step)
        optim.adamw_update(adam, [grad], m, v, 1e-2, 0.9, 0.95, 1e-8, 0.1, step)
        optim.sgd_update(sgd, [grad], velocity, 1e-2, 0.9, 0.1)
        theirs_adam.grad, theirs_sgd.grad = torch.from_numpy(grad), torch.from_numpy(grad)
        for optimizer in optimizers:
            optimizer.step()
    np.testing.assert_allclose(adam, theirs_adam.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sgd, theirs_sgd.detach().numpy(), rtol=1e-5, atol=1e-6)
    norm = torch.nn.utils.get_total_norm([torch.from_numpy(grad)]).item()
    np.testing.assert_allclose(optim.sum_of_squares([grad]) ** 0.5, norm, rtol=1e-6)
