"""Convolution and pooling against torch: odd sizes, strides and paddings, values and every gradient."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import minillm.functional as F  # noqa: E402
from minillm import Tensor  # noqa: E402

functional = torch.nn.functional
DTYPES = [pytest.param(np.float32, 1e-5, id="float32"), pytest.param(np.float64, 1e-10, id="float64")]

# (Y, X), kernel, stride, padding: the kernel larger, smaller and as large as the stride and the padded picture
GEOMETRIES = [
    ((5, 7), (3, 2), (1, 1), (0, 0)),
    ((5, 7), (3, 2), (2, 3), (1, 0)),
    ((6, 5), (2, 3), (3, 4), (1, 1)),
    ((7, 4), (1, 1), (3, 2), (0, 0)),
    ((1, 1), (1, 1), (1, 1), (0, 0)),
    ((1, 1), (3, 3), (2, 2), (1, 1)),
    ((4, 6), (4, 6), (1, 5), (0, 0)),
    ((2, 3), (4, 5), (7, 7), (1, 1)),
    ((8, 9), (5, 4), (1, 2), (2, 2)),
    ((1, 6), (1, 4), (1, 3), (0, 2)),
]


def compare(ours, theirs, arrays, dtype, rtol):
    inputs = [Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    twins = [torch.tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    y, z = ours(*inputs), theirs(*twins)
    assert y.dtype == dtype and y.shape == tuple(z.shape)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    y.backward(dy)
    z.backward(torch.tensor(dy))
    pairs = [(y.data, z.detach().numpy())] + [
        (t.grad, np.zeros(t.shape) if u.grad is None else u.grad.numpy()) for t, u in zip(inputs, twins, strict=True)
    ]
    for got, expected in pairs:
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * max(1.0, np.abs(expected).max(initial=0)))


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize(("batch", "channels", "filters"), [(2, 3, 4), (1, 1, 1), (0, 2, 3), (3, 2, 1)])
def test_conv2d(batch, channels, filters, geometry, dtype, rtol):
    picture, kernel, stride, padding = geometry
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal(shape) for shape in ((batch, channels, *picture), (filters, channels, *kernel), filters)
    ]
    for given in (arrays, arrays[:2]):
        compare(
            lambda *t: F.conv2d(*t, stride=stride, padding=padding),
            lambda *t: functional.conv2d(*t, stride=stride, padding=padding),
            given,
            dtype,
            rtol,
        )


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
@pytest.mark.parametrize(("length", "kernel"), [(9, 3), (4, 4), (1, 1), (1, 3), (6, 2), (3, 5)])
def test_conv1d(length, kernel, dtype, rtol):
    rng = np.random.default_rng(0)
    for batch, stride, padding in itertools.product((2, 0), (1, 2, 5), (0, 1, 2)):
        if kernel <= length + 2 * padding:
            compare(
                lambda *t, o=(stride, padding): F.conv1d(*t, *o),
                lambda *t, o=(stride, padding): functional.conv1d(*t, *o),
                [rng.standard_normal(shape) for shape in ((batch, 3, length), (2, 3, kernel), (2,))],
                dtype,
                rtol,
            )


def pictures(kind, shape):
    """Numbers that differ, numbers that are often equal (as behind a relu), and all the same."""
    rng = np.random.default_rng(0)
    if kind == "distinct":
        return rng.permutation(int(np.prod(shape))).reshape(shape) / 7.0
    return np.maximum(rng.integers(-3, 2, shape), 0.0) if kind == "ties" else np.full(shape, -2.0)


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
@pytest.mark.parametrize("kind", ["distinct", "ties", "constant"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_pools(geometry, kind, dtype, rtol):
    picture, kernel, stride, padding = geometry
    for batch, name in itertools.product((2, 0), ("max_pool2d", "avg_pool2d")):
        for options in ({"stride": stride, "padding": padding}, {"padding": padding}):
            compare(
                lambda x, n=name, o=options: getattr(F, n)(x, kernel, **o),
                lambda x, n=name, o=options: getattr(functional, n)(x, kernel, **o),
                [pictures(kind, (batch, 2, *picture))],
                dtype,
                rtol,
            )


def test_integers_and_mixed_widths():
    """Integers are computed in float32, as everywhere here; float64 on one side widens."""
    rng = np.random.default_rng(0)
    whole, w = rng.integers(-9, 9, (2, 3, 5, 5)), rng.standard_normal((4, 3, 3, 3))
    expected = functional.conv2d(torch.tensor(whole, dtype=torch.float64), torch.tensor(w), padding=1).numpy()
    assert F.conv2d(Tensor(whole), Tensor(w.astype(np.float32)), padding=1).dtype == np.float32
    for x, weight, rtol in (
        (whole, w, 1e-10),
        (whole, w.astype(np.float32), 1e-4),
        (whole.astype(np.float64), w, 1e-10),
    ):
        b = Tensor(np.arange(4.0), requires_grad=True)
        for bias in (None, b, b.astype(np.float32)):
            y = F.conv2d(Tensor(x), Tensor(weight, requires_grad=True), bias, padding=1)
            y = y if bias is None else y - np.arange(4.0)[:, None, None]
            np.testing.assert_allclose(y.data, expected, rtol=rtol, atol=1e-4 if rtol > 1e-5 else 1e-10)
            y.sum().backward()
    x = torch.tensor(whole, dtype=torch.float64)
    np.testing.assert_array_equal(F.max_pool2d(Tensor(whole), 3, 2, 1).data, functional.max_pool2d(x, 3, 2, 1).numpy())
    assert F.avg_pool2d(Tensor(whole), 2).dtype == F.max_pool2d(Tensor(whole > 0), 2).dtype == np.float32


def test_a_nan_in_a_window_is_not_hidden():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    x[0, 0, 1, 2] = np.nan
    for name in ("max_pool2d", "avg_pool2d"):
        np.testing.assert_array_equal(
            getattr(F, name)(Tensor(x), 2).data, getattr(functional, name)(torch.tensor(x), 2)
        )


x, w, w1 = (np.ones(shape, np.float32) for shape in ((2, 3, 5, 4), (6, 3, 3, 2), (6, 3, 3)))
REFUSED = [
    ("does not fit into 5 x 4", "conv2d", (x, np.ones((6, 3, 6, 1), np.float32)), {}),
    ("does not fit into 3 x 8", "conv2d", (x[:, :, :1], np.ones((6, 3, 4, 1), np.float32)), {"padding": (1, 2)}),
    ("expected x (B, C, Y, X) and weight (N, C, KY, KX)", "conv2d", (x[:, :2], w), {}),
    ("bias must be (N,) = (6,); got (1,)", "conv2d", (x, w, np.ones(1, np.float32)), {}),
    ("stride must be an integer of at least 1", "conv2d", (x, w), {"stride": 0}),
    ("stride must be an integer of at least 1", "conv2d", (x, w), {"stride": (1, 2, 3)}),
    ("padding must be an integer of at least 0", "conv2d", (x, w), {"padding": -1}),
    ("expected x (B, C, T) and weight (N, C, K)", "conv1d", (x[..., 0], w1[:, :2]), {}),
    ("does not fit", "conv1d", (x[:, :, :2, 0], w1), {}),
    ("conv1d: stride must be an integer of at least 1; got 0", "conv1d", (x[..., 0], w1), {"stride": 0}),
    ("conv1d: padding must be an integer of at least 0; got -2", "conv1d", (x[..., 0], w1), {"padding": -2}),
]
for name in ("max_pool2d", "avg_pool2d"):
    REFUSED += [
        (f"{name}: a window of 6 x 2 does not fit into 5 x 4", name, (x,), {"kernel_size": (6, 2)}),
        (f"{name}: kernel_size must be", name, (x,), {"kernel_size": 0}),
        (f"{name}: stride must be", name, (x,), {"kernel_size": 2, "stride": 0}),
        (f"{name}: padding must be an integer", name, (x,), {"kernel_size": 2, "padding": -1}),
        (f"{name}: padding must be at most half of the window", name, (x,), {"kernel_size": (2, 3), "padding": (1, 2)}),
    ]


@pytest.mark.parametrize(("words", "name", "arrays", "options"), REFUSED)
def test_what_torch_refuses_gets_a_sentence(words, name, arrays, options):
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        getattr(functional, name)(*(torch.tensor(a) for a in arrays), **options)
    with pytest.raises(ValueError) as caught:
        getattr(F, name)(*(Tensor(a) for a in arrays), **options)
    assert words in str(caught.value)
