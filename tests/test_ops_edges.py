"""The edges of operations: single numbers, every axis, long float32 sums, integers, byte order, np.seterr."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

import minillm.functional as F
from minillm import Tensor, gradcheck
from tests.opspec import OPS, Op, softmax

# ---- single numbers --------------------------------------------------------------------------------------------------

POSITIONS = [
    pytest.param(op, zero, id=f"{op.id}-{zero}")
    for op in OPS
    for zero in ("all", *range(len(op.inputs[0])))
    if zero == "all" or len(op.inputs[0]) > 1
]
NUMPY_REFUSES = {"Tensor.mean", "Tensor.var", "std", "norm"}  # an axis of a 0-d array, as torch allows


@pytest.mark.parametrize("op, zero", POSITIONS)
def test_a_single_number_is_right_or_refused(op: Op, zero):
    """A 0-d tensor in the place of each input, and of all: NumPy's value and the right gradient, or a ValueError."""
    arrays = [np.asarray(0.4 + i / 5) if zero in ("all", i) else a for i, a in enumerate(op.inputs[0])]
    try:
        y = op.call(*[Tensor(a) for a in arrays])
    except (ValueError, IndexError) as error:
        assert "tuple index out of range" not in str(error) and "not enough values to unpack" not in str(error)
        return
    except TypeError as error:
        assert str(error) == "len() of a tensor with no axes"  # as Python's own
        return
    if op.name not in NUMPY_REFUSES:
        np.testing.assert_allclose(y.data, op.numpy(*arrays), rtol=1e-10)
    assert gradcheck(op.call, [Tensor(a) for a in arrays])


def test_einsum_of_a_single_number():
    x, y = Tensor([1.0, 2.0], requires_grad=True), Tensor(3.0, requires_grad=True)
    z = F.einsum("i,->i", x, y)
    z.backward(np.array([1.0, 10.0]))
    assert z.data.tolist() == [3.0, 6.0] and x.grad.tolist() == [3.0, 30.0] and y.grad == 21.0
    w = Tensor(3.0, requires_grad=True)
    for subscripts, factors, value, slope in (("->", [w], 3, 1), (",->", [w, w], 9, 6), ("...,...->...", [w, w], 9, 6)):
        w.grad = None
        y = F.einsum(subscripts, *factors)
        y.backward()
        assert y.shape == () and y.item() == value and w.grad == slope


def test_the_product_of_a_single_number():
    x = Tensor(2.0, requires_grad=True)
    for axis in (None, 0, -1):
        x.grad = None
        F.prod(x, axis).backward()
        assert x.grad == 1.0


def test_an_integer_and_an_array_apart_are_numpys():
    a = np.arange(24.0).reshape(2, 3, 4)
    x = Tensor(a, requires_grad=True)
    y = x[0, :, [1, 2]]  # torch's would be (3, 2)
    y.backward(np.arange(6.0).reshape(2, 3))
    assert y.shape == (2, 3) and y.data.tolist() == a[0, :, [1, 2]].tolist()
    assert x.grad[0, :, 1].tolist() == [0, 1, 2] and x.grad[0, :, 2].tolist() == [3, 4, 5] and x.grad.sum() == 15


# ---- every axis ------------------------------------------------------------------------------------------------------


class Along(NamedTuple):
    """An operation along an axis: ours, NumPy's, and what may stand for the axis besides one integer."""

    call: Callable  # (tensor, axis)
    numpy: Callable  # (array, axis)
    none: bool = False
    several: bool = False
    number: bool = False  # a 0-d tensor has the axes 0 and -1, as torch's
    more: int = 0  # how many axes more the result has


def logsumexp(a, axis):
    return np.log(np.exp(a).sum(axis=axis))


def norm(a, axis):
    return np.sqrt((a * a).sum(axis=axis))


def along_axis(a, axis):
    return np.take_along_axis(a, np.argsort(a, axis=axis), axis)


def squeezed(x, axis):
    return F.squeeze(x[:1, :1, :1] if x.ndim else x, axis)


MANY = {"none": True, "several": True, "number": True}
ALONG = {
    **{
        name: Along(
            lambda x, axis, n=name: getattr(x, n)(axis), lambda a, axis, n=name: getattr(a, n)(axis=axis), **MANY
        )
        for name in ("sum", "mean", "var", "max", "min")
    },
    "std": Along(F.std, lambda a, axis: a.std(axis=axis), **MANY),
    "norm": Along(F.norm, norm, **MANY),
    "logsumexp": Along(F.logsumexp, logsumexp, **MANY),
    "prod": Along(F.prod, lambda a, axis: a.prod(axis=axis), none=True, number=True),
    "cumsum": Along(F.cumsum, np.cumsum),
    "softmax": Along(F.softmax, softmax),
    "log_softmax": Along(F.log_softmax, lambda a, axis: np.log(softmax(a, axis))),
    "flip": Along(F.flip, np.flip, none=True, several=True),
    "squeeze": Along(
        squeezed, lambda a, axis: np.squeeze(a[:1, :1, :1] if a.ndim else a, axis), none=True, several=True
    ),
    "unsqueeze": Along(F.unsqueeze, np.expand_dims, more=1),
    "stack": Along(lambda x, axis: F.stack([x, 2 * x], axis), lambda a, axis: np.stack([a, 2 * a], axis), more=1),
    "concatenate": Along(
        lambda x, axis: F.concatenate([x, 2 * x], axis), lambda a, axis: np.concatenate([a, 2 * a], axis)
    ),
    "take": Along(lambda x, axis: F.take(x, [0, 1, 0], axis), lambda a, axis: a.take([0, 1, 0], axis)),
    "gather": Along(lambda x, axis: F.gather(x, np.argsort(x.data, axis=int(axis)), axis), along_axis),
    "split": Along(lambda x, axis: F.split(x, 1, axis)[1], lambda a, axis: a.take([1], axis)),
    "chunk": Along(lambda x, axis: F.chunk(x, 2, axis)[0], lambda a, axis: np.array_split(a, 2, axis)[0]),
    "swapaxes": Along(lambda x, axis: x.swapaxes(axis, 1), lambda a, axis: a.swapaxes(axis, 1)),
}
A = np.random.default_rng(3).permutation(24).reshape(2, 3, 4) / 7 - 1.4


def axes_of(along: Along) -> list:
    legal = list(range(-3 - along.more, 3 + along.more))
    legal += [np.int64(1)] + [None] * along.none + [(1,), (0, 2), (-1, 0), ()] * along.several
    return legal


@pytest.mark.parametrize("name, axis", [(name, axis) for name, along in ALONG.items() for axis in axes_of(along)])
def test_every_axis_is_numpys(name, axis):
    call, numpy = ALONG[name][:2]
    y, expected = call(Tensor(A), axis), np.asarray(numpy(A, axis))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.data, expected, rtol=1e-12, atol=1e-12)
    assert gradcheck(lambda x: call(x, axis), Tensor(A))


@pytest.mark.parametrize("name", ALONG)
def test_other_axes_are_refused(name):
    along = ALONG[name]
    wrong = [3 + along.more, -4 - along.more, "0", 1.5] + [None] * (not along.none) + [(0, 1)] * (not along.several)
    for axis in wrong:
        with pytest.raises((ValueError, TypeError)):
            along.call(Tensor(A), axis)
    for axis in (True, 1.0):
        if name in ("cumsum", "stack", "concatenate", "take", "gather", "split", "chunk", "unsqueeze"):
            with pytest.raises(ValueError, match="axis must be one of"):
                along.call(Tensor(A), axis)


@pytest.mark.parametrize("name", ALONG)
def test_axes_of_a_single_number(name):
    along, x = ALONG[name], Tensor(0.7, requires_grad=True)
    for axis in (0, -1):
        if along.number:
            x.grad = None
            y = along.call(x, axis)
            y.backward()
            assert y.shape == () and y.item() == (0.0 if name in ("var", "std") else np.float32(0.7))
            assert x.grad == (0.0 if name in ("var", "std") else 1.0)
        elif along.more:
            assert along.call(x, axis).shape in ((1,), (2,))
        elif name != "squeeze":
            with pytest.raises(ValueError):
                along.call(x, axis)
    with pytest.raises((ValueError, TypeError)):
        along.call(x, 1 + along.more)


# ---- long sums -------------------------------------------------------------------------------------------------------

LONG = np.ones((4001, 2), np.float32)  # from 2^24 on, float32 cannot count one by one: a plain sum stands still there
LONG[0] = 2**24


def wide(a):
    return a.astype(np.float64)


@pytest.mark.parametrize(
    "name, call, numpy",
    [
        ("sum", lambda x: x.sum(axis=0), lambda a: a.sum(axis=0)),
        ("mean", lambda x: x.mean(axis=0), lambda a: a.mean(axis=0)),
        ("mean of all", lambda x: x.mean(), lambda a: a.mean()),
        ("var", lambda x: x.var(axis=0), lambda a: a.var(axis=0)),
        ("std", lambda x: F.std(x, 0), lambda a: a.std(axis=0)),
        ("norm", lambda x: F.norm(F.sqrt(x), 0), lambda a: np.sqrt(a.sum(axis=0))),
        ("logsumexp", lambda x: F.logsumexp(F.log(x), 0), lambda a: np.log(a.sum(axis=0))),
        ("cumsum", lambda x: F.cumsum(x, 0), lambda a: a.cumsum(axis=0)),
        ("cumsum along rows", lambda x: F.cumsum(x.T), lambda a: a.T.cumsum(axis=1)),
        ("einsum", lambda x: F.einsum("ij->j", x), lambda a: a.sum(axis=0)),
        (
            "einsum of three",
            lambda x: F.einsum("ij,ij,ik->k", x, x * 0 + 0.5, x * 0 + 1),
            lambda a: np.full(2, a.sum() / 2),
        ),
        (
            "avg_pool2d",
            lambda x: F.avg_pool2d(x.reshape(1, 1, 4001, 2), (4001, 1)),
            lambda a: a.mean(0).reshape(1, 1, 1, 2),
        ),
        ("l1_loss", lambda x: F.l1_loss(x, 0.0), lambda a: a.mean()),
        ("mse_loss", lambda x: F.mse_loss(F.sqrt(x), 0.0, "sum"), lambda a: a.sum()),
    ],
)
def test_float32_sums_are_those_of_float64(name, call, numpy):
    np.testing.assert_allclose(wide(call(Tensor(LONG)).data), numpy(wide(LONG)), rtol=2e-7)


@pytest.mark.parametrize(
    "name, call, shape",
    [
        ("bias", lambda b: Tensor(np.zeros((4001, 2), np.float32)) + b, (2,)),
        ("column", lambda b: b * Tensor(np.ones((2, 4001), np.float32)), (2, 1)),
        ("broadcast_to", lambda b: F.broadcast_to(b, (4001, 2)), (2,)),
        ("where", lambda b: F.where(True, b, Tensor(np.zeros((4001, 2), np.float32))), (2,)),
        ("maximum", lambda b: F.maximum(b, Tensor(np.full((4001, 2), -1, np.float32))), (2,)),
        ("tile", lambda b: F.tile(b, (4001, 1)), (2,)),
        ("getitem", lambda b: b[np.zeros(4001, int)], (1, 2)),
        ("take", lambda b: F.take(b, np.zeros(4001, int)), (1, 2)),
        ("gather", lambda b: F.gather(b, np.zeros((4001, 2), int), 0), (1, 2)),
        ("cumsum", lambda b: F.cumsum(F.concatenate([b, Tensor(np.zeros((4000, 2)))], 0), 0), (1, 2)),
        ("einsum", lambda b: F.einsum("j,ij->ij", b, Tensor(np.ones((4001, 2), np.float32))), (2,)),
        ("conv2d", lambda b: F.conv2d(Tensor(np.zeros((4001, 1, 1, 1))), Tensor(np.zeros((2, 1, 1, 1))), b), (2,)),
    ],
)
def test_gradients_that_add_up_do_so_in_float64(name, call, shape):
    b = Tensor(np.zeros(shape, np.float32), requires_grad=True)
    y = call(b)
    y.backward((LONG.T if name == "column" else LONG).reshape(y.shape).astype(y.dtype))
    np.testing.assert_array_equal(b.grad.reshape(-1), [2**24 + 4000] * 2)


def test_a_mean_over_many_rows_of_a_large_constant():
    x = Tensor(np.full((300_000, 2), 1000.1, np.float32))
    for y in (x.mean(axis=0), F.norm(x, 0) / 300_000**0.5, F.logsumexp(x, 0) - np.log(300_000)):
        np.testing.assert_allclose(y.data, np.float32(1000.1), rtol=2e-7)
    np.testing.assert_allclose(x.var(axis=0).data, 0.0, atol=1e-8)


# ---- integers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", "int8 uint8 int16 uint16 int32 uint32 int64 uint64".split())
def test_python_numbers_take_the_dtype_of_integers(dtype):
    a = np.array([1, 2, 3], dtype)
    for call in (
        lambda x: x + 1,
        lambda x: 7 - x,
        lambda x: x * 2,
        lambda x: x**2,
        lambda x: 2**x,
        lambda x: x + True,
        lambda x: x & 1,
        lambda x: 4 | x,
        lambda x: x == 300,
        lambda x: x > -1,
        lambda x: 2 <= x,
    ):
        y, expected = call(Tensor(a)), call(a)
        assert y.dtype == expected.dtype and y.data.tolist() == expected.tolist()
    assert F.maximum(Tensor(a), 2).dtype == F.where([True, False, True], Tensor(a), 0).dtype == a.dtype
    for y in (Tensor(a) + 0.5, Tensor(a) / 2, 256 / Tensor(a), Tensor(a) / 256):  # NumPy would give float64
        assert y.dtype == np.float32
    assert (Tensor(a) / 256).data.tolist() == [1 / 256, 2 / 256, 3 / 256]


def test_overflow_is_numpys():
    x = Tensor(np.array([250, 3], np.uint8))
    assert (x + 10).data.tolist() == [4, 13] and (-x).data.tolist() == [6, 253]
    for call in (lambda: x + 300, lambda: x - -1, lambda: x & 256, lambda: F.maximum(x, 1000)):
        with pytest.raises(OverflowError, match="out of bounds for uint8"):
            call()
    with pytest.raises(ValueError, match="negative integer powers"):
        Tensor(np.array([2], np.int32)) ** -1
    flags = Tensor([True, False])
    assert (flags + 1).data.tolist() == [2, 1] and (flags + 1).dtype == np.int64 and (flags & True).dtype == bool
    assert (Tensor(np.array([1], np.uint8)) + np.int64(1)).dtype == np.int64  # a NumPy scalar is no Python number


# ---- byte order ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i4", "u2", "i8"])
def test_byte_order_changes_nothing(dtype):
    a = np.array([1, 2, 300]).astype(dtype)
    swapped = a.astype(a.dtype.newbyteorder())
    x, y = Tensor(a), Tensor(swapped)
    assert y.dtype == x.dtype and y.dtype.isnative and y.data.tolist() == x.data.tolist()
    z = Tensor(np.zeros(3))
    z.data = swapped
    assert z.dtype == a.dtype and z.dtype.isnative and z.data.tolist() == a.tolist()
    for result in (x + swapped, swapped * x, F.where([True] * 3, x, swapped), F.concatenate([x, swapped])):
        assert result.dtype == x.dtype and result.dtype.isnative


def test_byte_order_of_other_arguments():
    x = Tensor(np.arange(3.0), requires_grad=True)
    assert x.astype(">f4").dtype == np.float32 and x.astype(">f8").dtype == np.float64
    assert x.astype(">i4").dtype.isnative
    assert F.take(x, np.array([2, 0], ">i4")).data.tolist() == x[np.array([2, 0], ">i8")].data.tolist() == [2.0, 0.0]
    assert F.embedding(Tensor([[1.0], [2.0]]), np.array([1], ">i2")).data.tolist() == [[2.0]]
    assert F.clip(x, np.array(1.0, ">f8")).dtype.isnative
    (x * 2).backward(np.ones(3, ">f8"))
    assert x.grad.dtype == np.float64 and x.grad.dtype.isnative and x.grad.tolist() == [2.0] * 3


# ---- np.seterr -------------------------------------------------------------------------------------------------------

OVERFLOWS = {"Tensor.__pow__", "Tensor.__rpow__", "exp"}  # e^300 is infinite in float32: NumPy may say so


@pytest.mark.parametrize("scale", [1, 20, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.id)
def test_nothing_harmless_is_told_to_a_strict_numpy(op: Op, dtype, scale):
    """With ``np.seterr(all="raise")``, what is too small for a float is 0, forward and backward, and no error."""
    if scale > 1 and op.name in OVERFLOWS:
        pytest.skip("overflows")
    for arrays in op.inputs:
        outcomes = []
        for mode in ("raise", "ignore"):
            inputs = [Tensor((a * scale).astype(dtype), requires_grad=True) for a in arrays]
            with np.errstate(all=mode):
                y = op.call(*inputs)
                y.backward(np.ones(y.shape))
            outcomes.append([y.data, *(t.grad for t in inputs)])
        for strict, easy in zip(*outcomes, strict=True):
            assert np.array_equal(strict, easy, equal_nan=True)
