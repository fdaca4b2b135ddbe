"""The engine: order, sums, memory, and the sentences it says."""

import copy
import gc
import re
import weakref

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import minillm.functional as F
from minillm import Tensor, no_grad


def parameter(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


# ---- the graph -------------------------------------------------------------------------------------------------------


def test_diamond():
    """d = c + b with c = b * b: b's gradient must be whole before it goes on to a."""
    a = parameter(3.0)
    b = a + a
    c = b * b
    (c + b).sum().backward()
    assert a.grad.tolist() == [2 * (2 * 6 + 1)]  # d/da ((2a)^2 + 2a) = 8a + 2


def test_order_is_by_dependence_not_by_distance():
    """A short way and a long way from the same tensor to the loss."""
    a = parameter(2.0)
    b = a * 3
    long = b
    for _ in range(5):
        long = long * 1.5
    (b * long).sum().backward()
    assert a.grad.tolist() == pytest.approx([2 * 9 * 1.5**5 * 2])


def test_parameter_used_twice_and_backward_twice_add():
    a = parameter(2.0, 5.0)
    (a * a).sum().backward()
    assert a.grad.tolist() == [4.0, 10.0]
    (a * 3).sum().backward()
    assert a.grad.tolist() == [7.0, 13.0]


def test_gradient_of_one_tensor_is_not_that_of_another():
    a, b = parameter(1.0, 2.0), parameter(3.0, 4.0)
    (a + b).sum().backward()
    a.grad += 100
    assert b.grad.tolist() == [1.0, 1.0]


def test_where_gradients_meet_only_arrays_that_nobody_else_uses_are_added_to():
    """x reaches the loss through three operations: a sum (its gradient is dy itself), a view, and a product (fresh)."""
    x, other = parameter(1.0, 2.0), parameter(3.0, 4.0)
    seen = []
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)):
        x.grad = other.grad = None
        stream = x * 1.0
        ways = [stream + other, stream.reshape(2, 1).reshape(2), stream * 5.0]
        for way in ways:
            way.register_hook(lambda g: seen.append((g, g.copy())) and None)
        loss = ways[order[0]] + ways[order[1]] * 2.0
        (loss + ways[order[2]] * 3.0).sum().backward()
        factor = dict(zip(order, (1.0, 2.0, 3.0), strict=True))
        assert x.grad.tolist() == [factor[0] + factor[1] + 5 * factor[2]] * 2
        assert other.grad.tolist() == [factor[0]] * 2
    for gradient, as_it_was in seen:
        assert gradient.tolist() == as_it_was.tolist()


def test_chain_of_100_000_operations():
    x = parameter(1.0)
    y = x
    for _ in range(100_000):
        y = y + x
    y.sum().backward()
    assert x.grad.tolist() == [100_001.0]
    z = x
    for _ in range(100_000):
        z = z * 1.0
    del z  # freed without ever going backward, and without recursion
    del y


def test_graph_is_freed_by_reference_counting_alone():
    x = Tensor(np.ones((4, 4)), requires_grad=True)

    def forward():
        return F.softmax(F.gelu(x @ x) + F.layer_norm(x, Tensor(np.ones(4))))

    F.cross_entropy(forward(), [0, 1, 2, 3])  # while it compiles a kernel, Numba holds its arguments
    gc.collect()
    gc.disable()
    try:
        y = forward()
        array = weakref.ref(y.data)
        loss = F.cross_entropy(y, [0, 1, 2, 3])
        del y
        assert array() is not None  # the loss still needs it
        del loss
        assert array() is None
        loss = (x * 2).sum()
        middle = weakref.ref(loss._inputs[0])
        loss.backward()
        assert middle() is None  # dropped by backward, though the loss is alive
    finally:
        gc.enable()


def test_backward_frees_what_it_is_done_with():
    early = Tensor(np.ones(3), requires_grad=True) * 2
    late = early * 3
    array, freed = weakref.ref(late.data), []
    loss = (late + late * 4).sum()  # two gradients arrive at it, and are summed
    del late
    early.register_hook(lambda dy: freed.append(array() is None))
    loss.backward()
    assert freed == [True]


def test_gradients_that_nobody_else_holds_are_kept_without_a_copy():
    x, y = (Tensor(np.ones((50, 50)), requires_grad=True) for _ in range(2))
    addresses, held = [], []

    def backward(dy):
        gradients = dy * 2, dy * 3
        addresses[:] = [g.ctypes.data for g in gradients]
        return gradients

    Tensor.from_op(x.data + y.data, (x, y), backward).sum().backward()
    assert [x.grad.ctypes.data, y.grad.ctypes.data] == addresses
    x.grad = y.grad = None
    Tensor.from_op(x.data + y.data, (x, y), lambda dy: held.extend(backward(dy)) or held).sum().backward()
    assert addresses == [g.ctypes.data for g in held]
    assert not {x.grad.ctypes.data, y.grad.ctypes.data} & {*addresses}
    x.grad, memory = None, bytearray(8 * x.size)
    Tensor.from_op(x.data, (x,), lambda dy: (np.frombuffer(memory).reshape(50, 50),)).sum().backward()
    np.frombuffer(memory)[:] = 7.0
    assert not x.grad.any()


def test_the_gradient_of_a_number_is_an_array():
    x = parameter(3.0)
    x = Tensor(x.data[0], requires_grad=True)
    (x * 2).backward()
    assert type(x.grad) is np.ndarray and x.grad.shape == () and x.grad == 2


def test_a_thousand_steps_leave_no_trace():
    import tracemalloc

    w = Tensor(np.ones((8, 8), np.float32), requires_grad=True)
    x = np.ones((4, 8), np.float32)

    def step():
        F.mse_loss(F.tanh(x @ w), np.zeros((4, 8), np.float32)).backward()
        w.data -= 0.01 * w.grad
        w.grad = None

    for _ in range(10):
        step()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(1000):
        step()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000


def test_no_grad_records_nothing():
    a = parameter(1.0)
    with no_grad():
        b = a * 2
        assert not b.requires_grad and b._inputs == ()
    assert (a * 2).requires_grad

    @no_grad()
    def evaluate():
        return a * 2

    assert not evaluate().requires_grad


def test_no_grad_ends_with_an_exception():
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (parameter(1.0) * 2).requires_grad


def test_no_grad_around_a_function_that_calls_itself():
    @no_grad()
    def down(n):
        return down(n - 1) if n else None

    down(2)
    assert (parameter(1.0) * 2).requires_grad


def test_detach_stops_the_gradient():
    a = parameter(3.0)
    (a * a.detach()).sum().backward()
    assert a.grad.tolist() == [3.0]


def test_backward_twice_needs_retain_graph():
    a = parameter(3.0)
    y = (a * a).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert a.grad.tolist() == [12.0]
    with pytest.raises(RuntimeError, match="was used before.*retain_graph=True"):
        y.backward()


def test_retain_grad_and_hooks():
    a = parameter(2.0)
    b = a * 3
    b.retain_grad()
    seen = []
    remove = a.register_hook(seen.append)
    (b * b).sum().backward()
    assert b.grad.tolist() == [12.0] and a.grad.tolist() == [36.0] and seen[0].tolist() == [36.0]
    remove()
    (a * 1).sum().backward()
    assert len(seen) == 1
    doubling = parameter(1.0)
    doubling.register_hook(lambda g: g * 2)
    (doubling * 5).sum().backward()
    assert doubling.grad.tolist() == [10.0]
    with pytest.raises(RuntimeError, match="no gradient"):
        Tensor([1.0]).register_hook(print)


def test_retain_grad_adds_once_and_makes_no_circle():
    a = parameter(2.0)
    b = a * 3
    b.retain_grad()
    b.retain_grad()
    (b * b).sum().backward()
    assert b.grad.tolist() == [12.0]
    gc.collect()
    gc.disable()
    try:
        c = a * 3
        c.retain_grad()
        gone = weakref.ref(c)
        del c
        assert gone() is None
    finally:
        gc.enable()
    with pytest.raises(RuntimeError, match="retain_grad: this tensor has no gradient"):
        Tensor([1.0]).retain_grad()


def test_what_a_hook_has_kept_stays_what_it_was():
    a = parameter(2.0)
    seen = []
    remove = a.register_hook(seen.append)
    for _ in range(2):
        (a * 3).sum().backward()
    a.grad += 100
    assert [g.tolist() for g in seen] == [[3.0], [3.0]]
    remove()
    remove()  # a second time does nothing
    given = np.array([7.0])
    a.register_hook(lambda g: given)
    a.grad = None
    (a * 3).sum().backward()
    a.grad += 1
    assert given.tolist() == [7.0]


@pytest.mark.parametrize("before, after", [(0, 0), (1, 0), (0, 1), (2, 1)])
def test_a_rule_that_adds_to_the_gradient_so_far(before, after):
    """A norm gets what has come to its input by then, from ``after`` later operations; ``before`` earlier ones add."""
    x, weight = parameter(1.0, 3.0, -2.0), parameter(2.0, 1.0, 3.0)
    ways = sum((x * (i + 2) for i in range(before)), Tensor(0.0))
    y = F.layer_norm(x, weight)
    seen, out = [], (y * y + ways).sum()
    for i in range(after):
        out = out + (x * (10.0 + i)).sum()
    x.register_hook(seen.append)
    out.backward(retain_graph=True)
    once, kept = x.grad.copy(), seen[0].copy()
    alone = parameter(*x.data)
    (F.layer_norm(alone, weight) * F.layer_norm(alone, weight)).sum().backward()
    expected = alone.grad + sum(i + 2 for i in range(before)) + sum(10 + i for i in range(after))
    np.testing.assert_allclose(once, expected, atol=1e-5)
    np.testing.assert_allclose(kept, expected, atol=1e-5)
    out.backward()  # a second time: nothing of the first was kept or written into
    np.testing.assert_allclose(x.grad, 2 * once, rtol=1e-6)
    np.testing.assert_array_equal(seen[0], kept)
    with pytest.raises(RuntimeError, match="this graph was used before"):
        out.backward()


def test_a_rule_that_adds_leaves_what_came_before_as_it_was():
    x, weight, seen = parameter(1.0, 3.0, -2.0), parameter(1.0, 1.0, 1.0), []
    stream = x * 1
    normed = F.rms_norm(stream, weight)
    y = stream + normed  # the sum's gradient goes to both, as one array
    y.register_hook(lambda dy: seen.append((dy, dy.copy())) and None)
    (y * y).sum().backward()
    np.testing.assert_array_equal(*seen[0])


def test_backward_from_a_parameter_itself():
    a = parameter(2.0)
    a.backward()
    assert a.grad.tolist() == [1.0]


def test_gradient_takes_the_tensors_dtype():
    a = Tensor(np.ones(3, np.float32), requires_grad=True)
    (a * np.ones(3)).sum().backward()  # float64 on the way
    assert a.grad.dtype == np.float32


# ---- changes in place ------------------------------------------------------------------------------------------------


def test_change_in_place_before_backward_is_noticed():
    a = parameter(2.0)
    y = a * a
    a.data -= 1.0
    with pytest.raises(RuntimeError, match="input of 'mul', shape .1,., was changed in place after 'mul' had used it"):
        y.sum().backward()


def test_change_in_place_of_what_is_not_needed_is_allowed():
    a = parameter(2.0)
    y = a + 1.0  # the derivative of a sum needs no values
    a.data -= 1.0
    y.sum().backward()
    assert a.grad.tolist() == [1.0]


def test_change_in_place_through_a_view_or_of_a_result_is_noticed():
    a = parameter(1.0, 2.0)
    through = a.reshape(2, 1)
    y = (through * through).sum()
    a.data -= 1.0
    with pytest.raises(RuntimeError, match="what is seen through an input of 'mul', shape .2,., was changed in place"):
        y.backward()
    b = parameter(1.0)
    z = F.exp(b)  # its derivative is its result
    z.data *= 2
    with pytest.raises(RuntimeError, match="the result of 'exp', shape .1,., was changed in place"):
        z.sum().backward()
    c = parameter(1.0)
    c.data *= 2  # before anything used it
    (c * c).sum().backward()
    assert c.grad.tolist() == [4.0]


def test_an_optimisers_announcement_counts_as_a_change():
    a = parameter(2.0)
    y = a * a
    a.data[0] = 7.0
    a.mark_changed()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_assigning_another_array_is_no_change_in_place():
    a = parameter(2.0)
    y = a * a
    a.data = np.array([9.0])
    y.sum().backward()
    assert a.grad.tolist() == [4.0]  # at the old value


def test_augmented_assignment_of_tensors_makes_a_new_one():
    a = parameter(2.0)
    b = a
    b += 1
    assert a.data.tolist() == [2.0] and b.data.tolist() == [3.0]
    with pytest.raises(TypeError, match="not changed in place"):
        a[0] = 1


# ---- NumPy manners ---------------------------------------------------------------------------------------------------


def test_dtypes():
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor(np.ones(2)).dtype == np.float64
    assert Tensor(np.ones(2, np.float16)).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.int64
    assert Tensor([True]).dtype == bool
    assert Tensor(3.0).dtype == np.float32
    x = Tensor([1.0, 2.0])
    for y in (x + 1, x * 2.5, 2 - x, x / np.float64(3), x**2, np.float64(2) * x, x + np.sqrt(2.0)):
        assert y.dtype == np.float32
    assert (Tensor([1, 2]) * 2).data.tolist() == [2, 4]
    with pytest.raises(TypeError, match="expected numbers"):
        Tensor(["a"])


def test_integers_beside_floats_keep_float32():
    x, three = Tensor([1.0, 2.0]), Tensor([3, 4])
    for y in (x * three, three * x, x - np.array([1, 2]), np.int64(2) * x, x**three, x + np.array(1), x * (x > 1)):
        assert y.dtype == np.float32
    assert (three / 2).dtype == (three / three).dtype == (three + 0.5).dtype == np.float32
    assert (three + three).dtype == np.int64 and (Tensor(np.ones(2)) * three).dtype == np.float64
    for function in (F.exp, F.sqrt, F.tanh, F.sigmoid, F.gelu, F.softmax, F.logsumexp, F.std, F.norm, Tensor.mean):
        assert function(three).dtype == np.float32
        assert function(Tensor([True, False])).dtype == np.float32
    assert F.concatenate([x, three]).dtype == F.stack([x, three]).dtype == F.arange(0, 1, 0.5).dtype == np.float32
    assert F.cross_entropy(Tensor([[1, 2]]), [1]).item() == pytest.approx(np.log(1 + np.exp(-1)))
    with pytest.raises(TypeError, match="float32 or float64 here; got float16"):
        x.astype(np.float16)


def test_a_single_number_can_be_trained_formatted_and_used_as_an_index():
    w = Tensor(3.0, requires_grad=True)
    (w * w).backward()
    w.data = w.data - 0.5 * w.grad  # of 0-d arrays NumPy makes a scalar
    assert w.data.shape == () and w.item() == 0.0
    assert f"{w:.2f} {w}" == "0.00 Tensor(0., shape=(), float32, requires_grad=True)"
    assert "abc"[Tensor([1.0, 9.0]).argmax()] == "b"
    with pytest.raises(TypeError):
        "abc"[w]


def test_masks_combine():
    x = Tensor([1.0, 2.0, 3.0])
    assert x[(x > 1) & (x < 3)].data.tolist() == [2.0]
    assert x[~(x > 1) | np.array([False, False, True])].data.tolist() == [1.0, 3.0]
    assert x[np.array([True, False, False]) | (x > 2)].data.tolist() == [1.0, 3.0]


def test_arrays_on_both_sides():
    x = Tensor(np.eye(2), requires_grad=True)
    a = np.arange(4.0).reshape(2, 2)
    for y, expected in ((a + x, a + np.eye(2)), (a - x, a - np.eye(2)), (a @ x, a), (a * x, a * np.eye(2)), (x @ a, a)):
        assert isinstance(y, Tensor)
        assert y.data.tolist() == expected.tolist()
    (a @ x).sum().backward()
    assert x.grad.tolist() == [[2.0, 2.0], [4.0, 4.0]]


def test_numpys_operators_are_pythons():
    x, a = Tensor([[1.0, 2.0]], requires_grad=True), np.array([[3.0, 4.0]], np.float32)
    for y, expected in (
        *((a + x, a + x.data), (a - x, a - x.data), (a * x, a * x.data), (a / x, a / x.data), (a**x, a**x.data)),
        *((np.add(x, 1), x.data + 1), (np.power(x, 2), x.data**2), (np.negative(x), -x.data), (a @ x.T, a @ x.data.T)),
        *((np.float64(2) * x, 2 * x.data), (np.int64(2) - x, 2 - x.data), (a[0, 0] / x, 3 / x.data)),
    ):
        assert isinstance(y, Tensor) and y.requires_grad and y.dtype == np.float32 and np.array_equal(y.data, expected)
    for y, expected in (
        *((a == x, [[False, False]]), (a != x, [[True, True]]), (a < x, [[False, False]]), (a <= x, [[False, False]])),
        *((a > x + 2, [[False, False]]), (a >= x + 2, [[True, True]]), (np.invert(x > 1), [[True, False]])),
        *(((a > 3) & (x > 1), [[False, True]]), ((a > 3) | (x > 1), [[False, True]])),
    ):
        assert isinstance(y, Tensor) and y.data.tolist() == expected
    total = np.zeros((1, 2))
    total += x  # an array cannot remember where it came from: this makes a new tensor
    assert isinstance(total, Tensor) and total.requires_grad


def test_numpys_functions_take_a_tensor_outside_the_graph_as_its_array():
    x = Tensor([[1.0, 4.0], [9.0, 16.0]])
    for y, expected in (
        *((np.sqrt(x), [[1, 2], [3, 4]]), (np.sum(x, axis=0), [10, 20]), (np.mean(x), 7.5), (np.max(x), 16)),
        *((np.concatenate([x, x[:1]]), [[1, 4], [9, 16], [1, 4]]), (np.median(x), 6.5), (np.add.reduce(x), [10, 20])),
        *((np.clip(x, 2, a_max=x[0]), [[1, 4], [1, 4]]), (np.argmax(x), 3), (np.transpose(x), [[1, 9], [4, 16]])),
    ):
        assert not isinstance(y, Tensor) and y.tolist() == expected
    assert np.allclose(x, x.data) and np.all(x == x) and np.isfinite(x).all()
    np.testing.assert_array_equal(x, x.data)
    for write in (lambda: np.exp(x.data, out=x), lambda: np.fill_diagonal(x, 0), lambda: np.copyto(x, 1)):
        with pytest.raises(ValueError, match="read-only"):  # the graph would not know
            write()


def test_numpys_functions_do_not_lose_a_gradient():
    x = Tensor([[1.0, 4.0]], requires_grad=True)
    for words, call in (
        ("np.exp would lose the gradient of this tensor: use F.exp(...), or give it t.data", lambda: np.exp(x)),
        ("use F.abs(...)", lambda: np.abs(x)),
        ("use F.maximum(...)", lambda: np.maximum(0, x)),
        ("np.sum would lose the gradient of this tensor: use t.sum(...), or", lambda: np.sum(x)),
        *((f"use t.{f.__name__}(...)", lambda f=f: f(x)) for f in (np.mean, np.max, np.min, np.var, np.argmax)),
        *((f"use F.{f.__name__}(...)", lambda f=f: f([x, x])) for f in (np.concatenate, np.stack)),
        ("use F.where(...)", lambda: np.where(x > 1, x, 0)),
        ("np.linalg.norm would lose the gradient of this tensor: use F.norm(...)", lambda: np.linalg.norm(x)),
        ("np.median would lose the gradient of this tensor: give it t.data", lambda: np.median(x)),
        ("np.add.reduce would lose the gradient of this tensor: give it t.data", lambda: np.add.reduce(x)),
        ("np.vstack would lose", lambda: np.vstack((x.detach(), x))),
        ("use F.clip(...)", lambda: np.clip(np.ones(2), 0, a_max=x)),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert words in str(caught.value)
    assert np.shape(x) == (1, 2) and np.size(x) == 2 and np.ndim(x) == 2
    assert np.zeros_like(x).tolist() == [[0.0, 0.0]] and np.zeros_like(x).flags.writeable


def test_to_numpy():
    a = parameter(1.0)
    for turn in (np.asarray, Tensor.numpy):
        with pytest.raises(RuntimeError, match=re.escape("t.detach().numpy()")):
            turn(a)
    assert np.asarray(a.detach()).tolist() == [1.0]
    assert a.detach().numpy() is not None
    assert (a * 2).item() == 2.0 and float(a) == 1.0 and int(a) == 1 and bool(a)
    with pytest.raises(ValueError, match=r"item: expected a tensor with a single number; got shape \(2,\)"):
        parameter(1.0, 2.0).item()


def test_repr_shows_values_shape_dtype_and_origin():
    a = Tensor([[1.0, 2.0]], requires_grad=True)
    assert repr(a) == "Tensor([[1., 2.]], shape=(1, 2), float32, requires_grad=True)"
    assert repr(F.softmax(a)).endswith("shape=(1, 2), float32, op=softmax)")
    assert "op=mul" in repr(a * 2)
    assert "op=max" in repr(a.max())


def test_the_operations_name_stays_after_backward():
    a = parameter(1.0)
    loss = (a * 2).sum()
    loss.backward()
    assert loss.op == "sum"
    q = Tensor(np.ones((1, 3, 2)), requires_grad=True)
    assert F.past_attention(q, q, q, 2).op == "past_attention"
    assert F.maximum(a, 0.0).op == "maximum"


def test_copies():
    a = parameter(1.0, 2.0)
    a.grad = np.ones(2)
    deep, shallow = copy.deepcopy(a), copy.copy(a)
    a.data[0] = 9
    a.grad[0] = 9
    assert deep.data.tolist() == [1.0, 2.0] and deep.grad.tolist() == [1.0, 1.0] and deep.requires_grad
    assert shallow.data is a.data and shallow.grad is None


def test_floor_division_is_a_step_without_gradient():
    x = Tensor([-7.0, 7.0], requires_grad=True)
    for y, values in ((x // 2, [-4, 3]), (7 // x, [-1, 1]), (np.array([15.0, 15.0]) // x, [-3, 2])):
        assert y.data.tolist() == values and not y.requires_grad
    (x - 2 * (x // 2)).sum().backward()
    assert x.grad.tolist() == [1, 1]
    days = Tensor([3, 10, 17])
    assert (days // 7).data.tolist() == [0, 1, 2] and (days % 7).data.tolist() == [3, 3, 3]
    assert (days // 7).dtype == (days % 7).dtype == days.dtype and (days % 0.7).dtype == np.float32
    assert (np.array([9, 9, 9]) % days).data.tolist() == [0, 9, 9]
    with pytest.raises(ValueError, match="floor_divide: shapes"):
        x // Tensor([1.0, 2.0, 3.0])


def test_comparisons_give_booleans():
    x = Tensor([1.0, 2.0, 3.0])
    assert (x > 2).data.tolist() == [False, False, True]
    assert (x <= 2.0).data.tolist() == [True, True, False]
    assert (x == x).data.all() and not (x != x).data.any()
    assert (x < np.array([2.0, 2.0, 2.0])).data.tolist() == [True, False, False]
    assert (x >= 2).data.tolist() == [False, True, True]
    assert x[x > 1].data.tolist() == [2.0, 3.0]
    assert len({x, x}) == 1  # and still a key of a dictionary
    assert x.argmax().item() == 2


def test_length_and_iteration():
    x = Tensor([[1.0], [2.0]], requires_grad=True)
    assert len(x) == 2 and [row.data.tolist() for row in x] == [[1.0], [2.0]]
    with pytest.raises(TypeError, match="no axes"):
        len(Tensor(1.0))


# ---- sentences -------------------------------------------------------------------------------------------------------


def test_sentences():
    a = Tensor(np.ones((2, 3)), requires_grad=True)
    for kind, words, call in (
        (RuntimeError, "from a single number only; this tensor has shape (2, 3)", lambda: a.backward()),
        (RuntimeError, "not computed from any tensor with requires_grad", lambda: Tensor([1.0]).backward()),
        (ValueError, "grad must have the tensor's shape (2, 3); got (3,)", lambda: a.backward(np.ones(3))),
        (TypeError, "only floats can have gradients; got int64", lambda: Tensor([1, 2], requires_grad=True)),
        (ValueError, "add: shapes (2, 3) and (2, 4) do not fit: axis -1 has 3 and 4", lambda: a + np.ones((2, 4))),
        (ValueError, "got shapes (2, 3) and (2, 3)", lambda: a @ a),
        (IndexError, "got 0.5", lambda: a[0.5]),
        (TypeError, "Tensor.data must be a NumPy array; got list", lambda: setattr(a, "data", [1.0])),
        (TypeError, "F.stack joins them", lambda: Tensor([a[0, 0], a[0, 1]])),
        (TypeError, "expected numbers or booleans; got NoneType", lambda: a + None),
        (ValueError, "x.swapaxes(i, j) exchanges two", lambda: Tensor(np.ones((2, 3, 4))).transpose(1, 2)),
        (AttributeError, "Tensor has no 'relu': operations with a name are functions", lambda: a.relu()),
        (AttributeError, "minillm.functional has no 'max'; x.max(...) does this", lambda: F.max(a)),
        (AttributeError, "has no 'cat'; concatenate(...) does this", lambda: F.cat([a, a])),
        (TypeError, "expected a Tensor; got ndarray. Tensor(x) makes one", lambda: F.exp(np.ones(2))),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert words in str(caught.value)


def test_integers_that_were_told_to_want_gradients():
    ids = Tensor([1, 2])
    ids.requires_grad = True
    with pytest.raises(TypeError, match="only floats can have gradients; requires_grad was set on int64"):
        (ids * 2.5).sum().backward()


def test_a_wrong_backward_is_named():
    x = Tensor(np.ones((2, 3)), requires_grad=True)

    def transposing(t):
        return Tensor.from_op(t.data * 2, (t,), lambda dy: (dy.T,))

    with pytest.raises(RuntimeError, match=r"gradient of shape \(3, 2\) for input 0, whose shape is \(2, 3\)"):
        transposing(x).sum().backward()


# ---- against a naive engine ------------------------------------------------------------------------------------------


class Naive:
    """Forward-mode twin: a value and its derivative with respect to every parameter, carried along."""

    def __init__(self, value: float, slopes: dict[int, float]) -> None:
        self.value, self.slopes = value, slopes

    def combine(self, other: "Naive", value: float, mine: float, others: float) -> "Naive":
        names = self.slopes.keys() | other.slopes.keys()
        return Naive(value, {n: mine * self.slopes.get(n, 0) + others * other.slopes.get(n, 0) for n in names})


class Engine(RuleBasedStateMachine):
    """Random programs on single numbers: the engine's gradients are those of the naive one."""

    @initialize(values=st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=4))
    def begin(self, values):
        self.parameters = [Tensor(np.array(v), requires_grad=True) for v in values]
        self.tensors = [(p, Naive(v, {i: 1.0})) for i, (p, v) in enumerate(zip(self.parameters, values, strict=True))]

    @rule(i=st.integers(0, 10**6), j=st.integers(0, 10**6), op=st.sampled_from("+-*"))
    def binary(self, i, j, op):
        (x, a), (y, b) = self.tensors[i % len(self.tensors)], self.tensors[j % len(self.tensors)]
        if op == "+":
            new = x + y, a.combine(b, a.value + b.value, 1, 1)
        elif op == "-":
            new = x - y, a.combine(b, a.value - b.value, 1, -1)
        else:
            new = x * y, a.combine(b, a.value * b.value, b.value, a.value)
        if abs(new[1].value) < 1e3:
            self.tensors.append(new)

    @rule(i=st.integers(0, 10**6))
    def bend(self, i):
        x, a = self.tensors[i % len(self.tensors)]
        y = np.tanh(a.value)
        self.tensors.append((F.tanh(x), Naive(y, {n: s * (1 - y * y) for n, s in a.slopes.items()})))

    @rule(i=st.integers(0, 10**6))
    def detach(self, i):
        x, a = self.tensors[i % len(self.tensors)]
        self.tensors.append((x.detach(), Naive(a.value, {})))

    @rule(i=st.integers(0, 10**6))
    def backward(self, i):
        x, a = self.tensors[i % len(self.tensors)]
        if not x.requires_grad:
            return
        for p in self.parameters:
            p.grad = None
        x.backward(retain_graph=True)
        for n, p in enumerate(self.parameters):
            got = 0.0 if p.grad is None else float(p.grad)
            assert got == pytest.approx(a.slopes.get(n, 0.0), rel=1e-9, abs=1e-9)

    @invariant()
    def values_agree(self):
        if getattr(self, "tensors", None):
            x, a = self.tensors[-1]
            assert x.item() == pytest.approx(a.value, rel=1e-12, abs=1e-12)


TestEngine = Engine.TestCase
TestEngine.settings = settings(max_examples=125, stateful_step_count=60, deadline=None)


def test_a_gradient_that_others_hold_is_copied_and_another_is_kept():
    a, b = (Tensor(np.ones((2, 3)), requires_grad=True) for _ in range(2))
    given = np.ones((2, 3))
    (a + b).backward(given)  # both get dy, which is the caller's
    assert not any(np.shares_memory(x, y) for x, y in ((a.grad, given), (b.grad, given), (a.grad, b.grad)))

    made = []

    def twice(dy):
        made.append(dy * 2)
        return made[0], made[0]

    a.grad = b.grad = None
    Tensor.from_op(a.data + b.data, (a, b), twice).backward(given)
    assert not np.shares_memory(a.grad, b.grad) and not np.shares_memory(a.grad, made[0])

    for held in (True, False):
        kept = np.full((3, 2), 5.0)
        rule = (lambda dy, kept=kept: (kept.T,)) if held else (lambda dy: (np.full((3, 2), 5.0).T.copy(),))
        a.grad = None
        y = Tensor.from_op(a.data * 1, (a,), rule)
        (y * b).backward(given)
        a.grad += 1
        assert (kept == 5).all()

    seen = []
    a.grad = None
    a.register_hook(seen.append)
    (a * b).backward(given)
    assert not np.shares_memory(seen[0], a.grad)
