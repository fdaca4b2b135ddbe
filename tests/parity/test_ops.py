"""Every operation of the table against torch: values and gradients, float32 and float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import minillm.functional as F  # noqa: E402
from minillm import Tensor  # noqa: E402
from tests.opspec import OPS  # noqa: E402

CASES = [pytest.param(op, arrays, id=f"{op.id}-{i}") for op in OPS if op.torch for i, arrays in enumerate(op.inputs)]


@pytest.mark.parametrize("op, arrays", CASES)
@pytest.mark.parametrize("dtype, rtol", [(np.float32, None), (np.float64, 1e-10)])
def test_torch_says_the_same(op, arrays, dtype, rtol):
    rtol = rtol or op.rtol32
    ours = [Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    y, z = op.call(*ours), op.torch(torch, *theirs)
    weights = np.linspace(0.5, 1.5, max(1, y.size)).reshape(y.shape).astype(y.dtype)
    (y * weights).sum().backward()
    (z * torch.tensor(weights)).sum().backward()
    pairs = [(y.data, z.detach().numpy()), *((t.grad, u.grad.numpy()) for t, u in zip(ours, theirs, strict=True))]
    for got, expected in pairs:
        assert got.shape == expected.shape
        # relative to the largest entry: sums that cancel keep the rounding of their terms
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * max(1.0, np.abs(expected).max(initial=0)))


INF, NAN = np.inf, np.nan
odd = np.array([-INF, -1.5, -0.0, 0.0, 2.0, INF, NAN])
left = np.array([1.0, 1.0, 2.0, NAN, 1.0, NAN, INF, -INF, -INF])
right = np.array([1.0, 2.0, 1.0, 1.0, NAN, NAN, INF, -INF, INF])
rows = np.array([[1.0, 2.0, 2.0], [3.0, NAN, 1.0], [NAN, NAN, 1.0], [-INF, -INF, -INF], [INF, 1.0, INF]])
chosen = left >= right
targets = np.array([-0.5, 0.0, 1.5, NAN])
functional = torch.nn.functional
EDGES = {
    "relu": (F.relu, torch.relu, odd),
    "leaky_relu": (F.leaky_relu, functional.leaky_relu, odd),
    "elu": (F.elu, functional.elu, odd),
    "abs": (F.abs, torch.abs, odd[:-1]),  # at NaN torch gives 0
    "clip": (lambda x: F.clip(x, 0.0, 1.0), lambda x: x.clip(0.0, 1.0), odd),
    "clip with bounds the wrong way round": (lambda x: F.clip(x, 2.0, 1.0), lambda x: x.clip(2.0, 1.0), odd),
    "clip with a bound of NaN": (lambda x: F.clip(x, NAN, 1.0), lambda x: x.clip(NAN, 1.0), odd),
    "maximum": (F.maximum, torch.maximum, left, right),
    "minimum": (F.minimum, torch.minimum, left, right),
    "where": (lambda x, y: F.where(chosen, x, y), lambda x, y: torch.where(torch.tensor(chosen), x, y), left, right),
    "max": (lambda x: x.max(axis=-1), lambda x: x.amax(dim=-1), rows),
    "min": (lambda x: x.min(axis=-1), lambda x: x.amin(dim=-1), rows),
    "huber_loss": (
        lambda x: F.huber_loss(x, 0.0, "none", 1.2),
        lambda x: functional.huber_loss(x, torch.zeros_like(x), "none", 1.2),
        odd,
    ),
    "kl_div of what is no probability": (
        lambda q: F.kl_div(q, targets, "none"),
        lambda q: functional.kl_div(q, torch.tensor(targets), reduction="none"),
        np.log([0.1, 0.2, 0.3, 0.4]),
    ),
    "std of equal numbers": (F.std, lambda x: x.std(unbiased=False), np.ones(3)),
    "the power 0": (lambda x: x**0, lambda x: x**0, odd),
}


@pytest.mark.parametrize("upstream", [1.0, INF, -INF, NAN, 0.0])
@pytest.mark.parametrize("name", EDGES)
def test_infinities_and_nans_go_where_torchs_go(name, upstream):
    """Values and gradients at the corners, and what becomes there of a gradient that is infinite itself."""
    ours, theirs, *arrays = EDGES[name]
    inputs = [Tensor(a.copy(), requires_grad=True) for a in arrays]
    twins = [torch.tensor(a, requires_grad=True) for a in arrays]
    with np.errstate(invalid="ignore", divide="ignore"):
        y, z = ours(*inputs), theirs(*twins)
        y.backward(np.full(y.shape, upstream))
    z.backward(torch.full(z.shape, upstream, dtype=z.dtype))
    for got, expected in ((y.data, z.detach()), *((t.grad, u.grad) for t, u in zip(inputs, twins, strict=True))):
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-12)
