"""Every operation of the table against torch: values and gradients, float32 and float64."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from minillm import Tensor  # noqa: E402
from tests.opspec import OPS  # noqa: E402

CASES = [
    pytest.param(op, arrays, id=f"{op.id}-{i}") for op in OPS if op.torch for i, arrays in enumerate(op.inputs)
]


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
