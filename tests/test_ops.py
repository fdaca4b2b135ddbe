"""Every operation of the table: against NumPy, against mathematics, with awkward inputs, with mistakes."""

import inspect

import numpy as np
import pytest

import minillm.functional as F
from minillm import Tensor, gradcheck, no_grad
from tests.opspec import OPS, WITHOUT_GRADIENT, Op

CASES = [pytest.param(op, arrays, id=f"{op.id}-{i}") for op in OPS for i, arrays in enumerate(op.inputs)]
ERRORS = [pytest.param(*error, id=f"{op.id}-{i}") for op in OPS for i, error in enumerate(op.errors)]
OPERATORS = "add sub mul truediv pow matmul radd rsub rmul rtruediv rpow rmatmul mod rmod abs neg getitem iter".split()


def tensors(arrays, dtype=np.float64, grad=True):
    return [Tensor(a.astype(dtype), requires_grad=grad) for a in arrays]


def loss_of(y: Tensor) -> Tensor:
    """One number that depends on every entry of y with a weight of its own."""
    weights = np.linspace(0.5, 1.5, max(1, y.size)).reshape(y.shape).astype(y.dtype)
    return (y * weights).sum()


def test_every_differentiable_name_has_a_row():
    public = {name for name, value in vars(F).items() if inspect.isfunction(value) and not name.startswith("_")}
    public |= {f"Tensor.{name}" for name in vars(Tensor) if not name.startswith("_")}
    public |= {f"Tensor.__{name}__" for name in OPERATORS}
    assert public - {op.name for op in OPS} - WITHOUT_GRADIENT == set()


def test_every_docstring_has_an_equation_and_shapes():
    for name in {op.name for op in OPS if not op.name.startswith("Tensor.__")}:
        told = getattr(Tensor, name[7:]) if name.startswith("Tensor.") else getattr(F, name)
        assert "=" in told.__doc__ and "->" in told.__doc__, name


@pytest.mark.parametrize("op, arrays", CASES)
def test_forward_is_numpys(op: Op, arrays):
    y = op.call(*tensors(arrays, grad=False))
    expected = np.asarray(op.numpy(*arrays))
    assert y.dtype == np.float64 and y.shape == expected.shape
    np.testing.assert_allclose(y.data, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("op, arrays", CASES)
def test_float32_is_near_float64(op: Op, arrays):
    arrays = [a.astype(np.float32).astype(np.float64) for a in arrays]  # the same numbers for both
    results = []
    for dtype in (np.float32, np.float64):
        inputs = tensors(arrays, dtype)
        y = op.call(*inputs)
        assert y.dtype == dtype or op.name == "Tensor.astype"
        loss_of(y).backward()
        results.append([y.data, *(t.grad for t in inputs)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * max(1, np.abs(b).max(initial=0)))


@pytest.mark.parametrize("op, arrays", CASES)
def test_gradient_is_that_of_small_changes(op: Op, arrays):
    if any(len(set(a.reshape(-1).tolist())) == 1 and a.size > 1 for a in arrays):
        pytest.skip("a tie: there is no derivative, parity/test_ops.py compares the convention")
    if sum(a.size for a in arrays) > 300:
        arrays = [a[tuple(slice(None, 6) if n > 16 else slice(None) for n in a.shape)] for a in arrays]
    assert gradcheck(op.call, [Tensor(a) for a in arrays])


@pytest.mark.parametrize("op, arrays", CASES)
def test_gradient_along_a_random_direction(op: Op, arrays):
    """Two forward passes, whatever the size: (L(x + e d) - L(x - e d)) / 2e = sum of gradient times d."""
    if any(len(set(a.reshape(-1).tolist())) == 1 and a.size > 1 for a in arrays):
        pytest.skip("a tie")
    rng = np.random.default_rng(5)
    directions = [rng.standard_normal(a.shape) for a in arrays]
    inputs = tensors(arrays)
    loss_of(op.call(*inputs)).backward()
    slope = sum((t.grad * d).sum() for t, d in zip(inputs, directions, strict=True))
    with no_grad():
        up, down = (
            loss_of(op.call(*tensors([a + e * d for a, d in zip(arrays, directions, strict=True)]))).item()
            for e in (1e-6, -1e-6)
        )
    assert slope == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("op, arrays", CASES)
def test_layout_does_not_matter(op: Op, arrays):
    """Transposed, strided and reversed memory gives the same values and gradients."""

    def awkward(a: np.ndarray, how: int) -> np.ndarray:
        if how == 0:
            return np.asfortranarray(a)
        twice = np.zeros((*a.shape[:-1], 2 * a.shape[-1]))
        if how == 1:
            twice[..., ::2] = a
            return twice[..., ::2]
        return np.ascontiguousarray(a[..., ::-1])[..., ::-1]

    expected = tensors(arrays)
    y = op.call(*expected)
    loss_of(y).backward()
    for how in range(3):
        inputs = [Tensor(awkward(a, how), requires_grad=True) for a in arrays]
        z = op.call(*inputs)
        loss_of(z).backward()
        np.testing.assert_allclose(z.data, y.data, rtol=1e-10, atol=1e-12)
        for t, u in zip(inputs, expected, strict=True):
            np.testing.assert_allclose(t.grad, u.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("op, arrays", CASES)
def test_nothing_is_written_into_or_shared(op: Op, arrays):
    inputs = tensors(arrays)
    before = [t.data.copy() for t in inputs]
    y = op.call(*inputs)
    result = y.data.copy()
    dy = np.ones_like(y.data)
    y.backward(dy)
    assert np.array_equal(y.data, result), "backward wrote into the result"
    assert np.array_equal(dy, np.ones_like(dy)), "backward wrote into the gradient it was given"
    for t, a in zip(inputs, before, strict=True):
        assert np.array_equal(t.data, a), "an input was written into"
    owners = [y.data, dy, *(t.data for t in inputs)]
    grads = [t.grad for t in inputs]
    for i, g in enumerate(grads):
        assert g.shape == inputs[i].shape and g.flags.writeable
        for other in owners + grads[:i]:
            assert not np.shares_memory(g, other), "a gradient is a view of another array"


@pytest.mark.parametrize("op, arrays", CASES)
def test_gradients_add(op: Op, arrays):
    inputs = tensors(arrays)
    for _ in range(2):
        loss_of(op.call(*inputs)).backward()
    once = tensors(arrays)
    loss_of(op.call(*once)).backward()
    for t, u in zip(inputs, once, strict=True):
        np.testing.assert_allclose(t.grad, 2 * u.grad, rtol=1e-12)


@pytest.mark.parametrize("op, arrays", CASES)
def test_only_what_needs_a_gradient_gets_one(op: Op, arrays):
    for needed in range(len(arrays)):
        inputs = [Tensor(a, requires_grad=i == needed) for i, a in enumerate(arrays)]
        loss_of(op.call(*inputs)).backward()
        assert [t.grad is not None for t in inputs] == [i == needed for i in range(len(arrays))]


@pytest.mark.parametrize("call, kind, words", ERRORS)
def test_mistakes_get_a_sentence(call, kind, words):
    with pytest.raises(kind) as caught:
        call()
    assert words in str(caught.value)


ELEMENTWISE = "exp log log1p sqrt rsqrt abs sin cos tanh sigmoid softplus relu leaky_relu elu gelu silu".split()


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)])
def test_single_numbers_and_empty_arrays(name, shape):
    x = Tensor(np.full(shape, 0.7, np.float32), requires_grad=True)
    y = getattr(F, name)(x)
    assert y.shape == shape and y.dtype == np.float32
    y.sum().backward()
    assert x.grad.shape == shape


REDUCTIONS = [Tensor.sum, Tensor.max, Tensor.min, F.norm, F.logsumexp]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_an_axis_of_a_single_number(reduce):
    """As in torch, axis -1 of a 0-d tensor is no mistake where NumPy takes it."""
    x = Tensor(0.7, requires_grad=True)
    y = reduce(x, axis=-1)
    y.backward()
    assert y.shape == () and x.grad.shape == () and x.grad == 1.0


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax, F.cumsum, lambda x: F.cross_entropy(x, 0)])
def test_a_single_number_has_no_row(function):
    with pytest.raises(ValueError, match="at least one axis"):
        function(Tensor(1.0))


def test_empty_axes():
    assert Tensor(np.ones((0, 2))).max(axis=1).shape == (0,)  # the greatest of each of no rows
    x = Tensor(np.ones((2, 0, 3)), requires_grad=True)
    for y in (x.var(axis=-1), F.std(x, axis=-1), F.logsumexp(x), F.softmax(x), F.prod(x, axis=-1), x.max(axis=-1)):
        x.grad = None
        y.backward(np.ones(y.shape))
        assert x.grad.shape == (2, 0, 3)
    a, b = (Tensor(np.ones(shape), requires_grad=True) for shape in ((2, 0), (0, 3)))
    (a @ b).sum().backward()
    assert (a @ b).data.tolist() == [[0.0] * 3] * 2 and a.grad.shape == (2, 0) and b.grad.shape == (0, 3)
    assert [t.shape for t in F.split(Tensor(np.ones(0)), 2)] == [(0,)]


def test_one_number_has_no_spread():
    x = Tensor([[3.0]], requires_grad=True)
    with pytest.warns(RuntimeWarning, match="invalid value"):
        y = x.var(axis=-1, ddof=1)
        y.sum().backward()
    assert np.isnan(y.item()) and np.isnan(x.grad).all()
    z = Tensor(np.ones((2, 3)), requires_grad=True)
    F.std(z, axis=-1).sum().backward()
    assert z.grad.tolist() == [[0.0] * 3] * 2  # as torch's: a corner, where 0 is as good as any


def test_where_nothing_passes_an_infinite_gradient_is_stopped():
    """sqrt has slope inf at 0; 0 times inf is NaN, so the gradient is chosen, not multiplied."""
    for bend in (F.relu, lambda x: F.clip(x, 0.0), lambda x: F.maximum(x, 0.0)):
        x = Tensor([-1.0, 4.0], requires_grad=True)
        F.sqrt(bend(x)).sum().backward()
        assert x.grad.tolist() == [0.0, 0.25]


def test_clip_keeps_the_dtype():
    whole, x = Tensor([0, 1, 2, 3]), Tensor([0.0, 1.0, 2.0, 3.0])
    assert F.clip(whole, 1, 2).dtype == np.int64 and F.clip(whole, 1, 2).data.tolist() == [1, 1, 2, 2]
    for low, high in ((0.5, 2.5), (None, 2.5), (np.float64(0.5), 2)):
        y = F.clip(whole, low, high)  # as torch's; NumPy would give float64
        assert y.dtype == np.float32 and y.data.tolist() == [low or 0.0, 1.0, 2.0, high]
        assert F.clip(x, low, high).dtype == np.float32
    assert F.clip(Tensor(np.arange(4, dtype=np.int8)), 1, max=2).dtype == np.int8
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":  # 2.0 refuses a bound that the dtype cannot hold
        assert F.clip(Tensor(np.arange(4, dtype=np.uint8)), -1, 1000).data.tolist() == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="needs a gradient"):
        F.clip(x, Tensor(0.5, requires_grad=True))


def test_einsum_counts_booleans_and_keeps_float32():
    mask = Tensor([[True, False, True], [True, True, False]])
    assert F.einsum("ij->i", mask).data.tolist() == mask.sum(axis=1).data.tolist() == [2, 2]
    assert F.einsum("ij,kj->ik", mask, mask).data.tolist() == [[2, 1], [1, 2]]
    assert F.einsum("ij,ij->ji", mask, mask).dtype == bool
    x = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    for other in (mask, Tensor([[1, 2, 3], [4, 5, 6]])):
        x.grad = None
        y = F.einsum("ij,ij->i", x, other)
        y.sum().backward()
        assert y.dtype == np.float32 and x.grad.tolist() == other.data.astype(float).tolist()


def test_infinities_outside_are_left_out():
    full = Tensor(np.full((2, 2), -np.inf, np.float32))
    assert F.triu(full, 1).data.tolist() == [[0.0, -np.inf], [0.0, 0.0]]  # the additive mask of causal attention
    assert F.tril(full, diagonal=-1).data.tolist() == [[0.0, 0.0], [-np.inf, 0.0]]
    assert F.nll_loss(Tensor([[-np.inf, 0.0], [-1.0, -2.0]]), [-100, 1]).item() == 2.0
    with pytest.raises(ValueError, match="tril: expected at least two axes"):
        F.tril(Tensor([1.0]))


def test_dtype_of_masks_and_angles_does_not_spread():
    q = Tensor(np.ones((1, 2, 3, 4), np.float32))
    assert F.scaled_dot_product_attention(q, q, q, mask=np.zeros((3, 3))).dtype == np.float32
    assert F.rotary_embedding(q, np.ones((3, 2)), np.zeros((3, 2))).dtype == np.float32
    with pytest.raises(ValueError, match=r"mask must be booleans .* got int64 of shape \(3, 3\)"):
        F.scaled_dot_product_attention(q, q, q, mask=np.tril(np.ones((3, 3), int)))
    for shape in ((5, 3, 3), (2, 1, 3, 3), (1, 1, 1, 3, 3)):
        with pytest.raises(ValueError, match="mask must be"):
            F.scaled_dot_product_attention(q, q, q, mask=np.zeros(shape))


def test_arguments_that_a_kernel_would_not_survive():
    x, w = Tensor(np.ones((2, 3), np.float32)), Tensor(np.ones((4, 3), np.float32))
    two, picture = Tensor(np.ones(2, np.float32)), Tensor(np.ones((1, 1, 4, 4), np.float32))
    for words, call in (
        ("linear: bias must be", lambda: F.linear(x, w, two)),
        ("joint_linear: biases must be", lambda: F.joint_linear(x, [w, w], [Tensor(np.ones(4)), two])),
        ("joint_linear: biases must be", lambda: F.joint_linear(x, [w, w], [Tensor(np.ones(4))])),
        ("conv2d: bias must be", lambda: F.conv2d(picture, Tensor(np.ones((3, 1, 2, 2), np.float32)), two)),
        ("embedding: weight must be a Tensor", lambda: F.embedding([0, 1], w)),
        ("embedding: weight must be a Tensor", lambda: F.embedding(two, [0])),
        ("prod: axis must be one axis", lambda: F.prod(x, (0, 1))),
        ("split: axis must be one of", lambda: F.split(x, 1, 5)),
        ("split: sizes must add up", lambda: F.split(x, [4, -1], 1)),
        ("gather: axis must be one of", lambda: F.gather(x, [[0], [1]], 7)),
        ("concatenate: axis must be one of", lambda: F.concatenate([x, x], axis=None)),
        ("pad: widths must be", lambda: F.pad(x, (0, 1, 1, 2))),
        ("broadcast_to: shape", lambda: F.broadcast_to(x, (2, 4))),
        ("targets must have the shape", lambda: F.binary_cross_entropy_with_logits(x, two)),
    ):
        with pytest.raises(ValueError, match=words):
            call()


def test_losses_of_two_shapes_warn():
    """(N, 1) beside (N,) makes (N, N) differences: the learner's bug that trains, but not towards the target."""
    for loss in (F.mse_loss, F.l1_loss, F.huber_loss):
        with pytest.warns(UserWarning, match=r"prediction \(4, 1\) and target \(4,\) are broadcast"):
            loss(Tensor(np.ones((4, 1))), np.ones(4))
        assert loss(Tensor(np.ones((4, 1))), 1.0).item() == 0.0


def test_torchs_names_of_arguments():
    x, picture = Tensor([[-1.0, 2.0]]), Tensor(np.ones((1, 1, 4, 4)))
    assert F.leaky_relu(x, negative_slope=0.5).data.tolist() == [[-0.5, 2.0]]
    assert F.clip(x, min=0, max=1).data.tolist() == [[0.0, 1.0]]
    assert F.huber_loss(x, 0.0, reduction="sum", delta=1.0).item() == 2.0
    assert F.max_pool2d(picture, kernel_size=2, stride=2).shape == F.avg_pool2d(picture, kernel_size=2).shape
    assert F.one_hot([1], num_classes=3).shape == (1, 3) and len(F.chunk(x, chunks=2)) == 2


def test_a_row_of_minus_infinity():
    x = Tensor(np.array([[-np.inf, -np.inf], [0.0, -np.inf]]), requires_grad=True)
    with np.errstate(invalid="ignore"):
        y = F.softmax(x)
    assert np.isnan(y.data[0]).all() and y.data[1].tolist() == [1.0, 0.0]  # as torch's
    assert F.logsumexp(x).data.tolist() == [-np.inf, 0.0]
    q = Tensor(np.ones((1, 1, 2, 4)))
    nothing = F.scaled_dot_product_attention(q, q, q, mask=np.array([[False, False], [True, False]]))
    assert nothing.data[0, 0, 0].tolist() == [0.0] * 4  # a query that sees nothing takes nothing home
    assert nothing.data[0, 0, 1].tolist() == [1.0] * 4


def test_constants():
    assert F.arange(2, 8, 3).data.tolist() == [2, 5]
    assert F.one_hot([2, 0], 3).data.tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(ValueError, match="one_hot: ids must be integers"):
        F.one_hot([3], 3)


def test_the_fused_attention_is_its_composition():
    """self_attention = split, rotate, attend, join."""
    rng = np.random.default_rng(0)
    cos, sin = np.cos(rng.uniform(0, 6, (5, 2))), np.sin(rng.uniform(0, 6, (5, 2)))
    cos, sin = cos.astype(np.float32), np.sqrt(1 - cos.astype(np.float32) ** 2)
    data = rng.standard_normal((2, 5, 16)).astype(np.float32)
    x, z = Tensor(data, requires_grad=True), Tensor(data, requires_grad=True)
    y = F.self_attention(x, 2, 1, (cos, sin))
    q, k, v = F.split(z, [8, 4, 4])
    q, k, v = (t.reshape(2, 5, -1, 4).swapaxes(1, 2) for t in (q, k, v))
    q, k = F.rotary_embedding(q, cos, sin), F.rotary_embedding(k, cos, sin)
    w = F.scaled_dot_product_attention(q, k, v, causal=True).swapaxes(1, 2).reshape(2, 5, 8)
    np.testing.assert_allclose(y.data, w.data, atol=1e-6)
    loss_of(y).backward()
    loss_of(w).backward()
    np.testing.assert_allclose(x.grad, z.grad, atol=1e-5)
