"""Optimisers, clipping and schedules against formulas worked out by hand."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import optim
from minillm.tensor import Tensor


def parameter(*values):
    return Tensor(np.array(values, dtype=np.float64), requires_grad=True)


def test_docstring_examples():
    assert doctest.testmod(optim).failed == 0


def test_sgd_with_momentum_and_decay_by_hand():
    w = parameter(1.0, -2.0)
    optimizer = optim.SGD([w], lr=0.1, momentum=0.5, weight_decay=0.2)
    expected, b = np.array([1.0, -2.0]), np.zeros(2)
    for grad in ([1.0, 2.0], [-0.5, 0.25], [3.0, 0.0]):
        w.grad = np.array(grad)
        optimizer.step()
        b = 0.5 * b + (np.array(grad) + 0.2 * expected)
        expected = expected - 0.1 * b
        np.testing.assert_allclose(w.data, expected, rtol=1e-15)


def test_adamw_first_step_is_the_sign_of_the_gradient():
    """m' / sqrt(v') = g / |g| at the first step, whatever the scale of g; the decay is apart from it."""
    w = parameter(1.0, 1.0, 1.0)
    optimizer = optim.AdamW([w], lr=0.1, weight_decay=0.5, eps=0.0)
    w.grad = np.array([1e-6, -3.0, 1e6])
    optimizer.step()
    np.testing.assert_allclose(w.data, 1.0 - 0.1 * (np.array([1.0, -1.0, 1.0]) + 0.5), rtol=1e-12)


def test_muon_makes_a_step_of_the_same_length_in_every_direction():
    rng = np.random.default_rng(0)
    (u, _), (v, _) = (np.linalg.qr(rng.normal(size=(n, 4))) for n in (6, 9))
    for g in (u * [0.05, 1.0, 5.0, 7.0] @ v.T, v * [0.5, 20.0, 1.0, 300.0] @ u.T):
        made = optim.orthogonal(g)
        left, s, right = np.linalg.svd(made)
        assert (0.68 < s[:4]).all() and (s[:4] < 1.2).all() and (s[4:] < 1e-12).all()
        directions = u.T @ made @ v if len(g) == 6 else v.T @ made @ u
        np.testing.assert_allclose(directions, np.diag(np.diag(directions)), atol=1e-12)
    np.testing.assert_array_equal(optim.orthogonal(np.zeros((2, 3))), 0)


def test_muon_by_hand():
    """Of a matrix with one row the direction is all: it becomes a vector of about length 1."""
    w = Tensor(np.ones((1, 4)), requires_grad=True)
    optimizer = optim.Muon([w], lr=0.1, weight_decay=0.5, momentum=0.5)
    s = 1.0  # the one singular value
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    expected, m = np.ones(4), np.zeros(4)
    for g in ([3.0, 4.0, 0.0, 0.0], [0.0, 0.0, -8.0, 6.0]):
        w.grad = np.array([g])
        optimizer.step()
        m = 0.5 * m + 0.5 * np.array(g)
        u = 0.5 * m + 0.5 * np.array(g)
        expected = expected - 0.1 * (0.2 * np.sqrt(4) * s * u / np.linalg.norm(u) + 0.5 * expected)
        np.testing.assert_allclose(w.data[0], expected, rtol=1e-12)


def test_parameter_without_gradient_stays_and_counts_no_step():
    w, idle = parameter(1.0), parameter(5.0)
    optimizer = optim.AdamW([w, idle], lr=0.1, weight_decay=0.5)
    w.grad = np.array([1.0])
    optimizer.step()
    assert idle.data[0] == 5.0
    assert optimizer.steps == [1, 0]


def test_a_group_keeps_its_share_of_the_learning_rate():
    body, head = parameter(1.0, 1.0), parameter(1.0)
    optimizer = optim.SGD([{"params": body, "lr": 0.05}, {"params": iter([head])}], lr=0.5)
    for rate, left in ((0.5, (0.95, 0.5)), (0.1, (0.94, 0.4)), (0.0, (0.94, 0.4))):
        optimizer.lr = rate
        body.grad, head.grad = np.ones(2), np.ones(1)
        optimizer.step()
        np.testing.assert_allclose([*body.data, *head.data], [left[0], *left], rtol=1e-12)
    again = optim.SGD([{"params": body, "lr": 0.05}, {"params": [head]}], lr=0.5)
    again.load_state_dict(optimizer.state_dict())
    assert again.lr == 0.0 and again.lr_scales == optimizer.lr_scales == [0.1, 1.0]
    with pytest.raises(AttributeError, match="SGD has no 'param_groups': write optimizer.lr = rate"):
        _ = optimizer.param_groups


def test_an_array_that_was_replaced_is_the_one_that_is_changed():
    w, other = parameter(1.0, 1.0), parameter(7.0)
    optimizer = optim.SGD([other, w], lr=1.0)
    w.data = np.array([5.0, 6.0])
    w.grad = np.array([1.0, 2.0])
    optimizer.step()
    assert w.data.tolist() == [4.0, 4.0] and other.data.tolist() == [7.0]
    w.data -= 1.0
    optimizer.step()
    assert w.data.tolist() == [2.0, 1.0]


def test_parameters_of_any_layout():
    w = Tensor(np.asfortranarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), requires_grad=True)
    frozen_view = Tensor(np.broadcast_to(np.float64(1), (2, 2)), requires_grad=True)
    optimizer = optim.SGD([w, frozen_view], lr=1.0)
    w.grad = np.array([[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]).T
    frozen_view.grad = np.array([[1.0, 2.0], [3.0, 4.0]])
    optimizer.step()
    assert w.data.tolist() == [[0.0] * 3] * 2
    assert frozen_view.data.tolist() == [[0.0, -1.0], [-2.0, -3.0]]


def test_two_optimisers_may_share_a_parameter():
    w = parameter(1.0)
    first, second = optim.SGD([w], lr=1.0), optim.SGD([w], lr=10.0)
    for optimizer in (first, second, first):
        w.grad = np.array([1.0])
        optimizer.step()
    assert w.data[0] == 1.0 - 12.0


def test_groups_have_their_own_decay():
    decayed, free = parameter(1.0), parameter(1.0)
    optimizer = optim.SGD([{"params": [decayed], "weight_decay": 1.0}, {"params": [free]}], lr=0.5)
    for p in (decayed, free):
        p.grad = np.zeros(1)
    optimizer.step()
    assert (decayed.data[0], free.data[0]) == (0.5, 1.0)


def test_decay_groups_spares_vectors_and_frozen_parameters():
    matrix, bias = Tensor(np.ones((2, 2)), requires_grad=True), parameter(1.0)
    frozen = Tensor(np.ones((2, 2)))
    groups = optim.decay_groups([matrix, bias, frozen], 0.3)
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.3), (1, 0.0)]
    assert groups[0]["params"][0] is matrix and groups[1]["params"][0] is bias


def test_zero_grad_and_the_announcement_of_a_change():
    w = parameter(2.0)
    optimizer = optim.SGD([w], lr=0.1)
    loss = (w * w).sum()
    w.grad = np.array([1.0])
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()
    optimizer.zero_grad()
    assert w.grad is None


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, 0.05, momentum=0.9),
        lambda p: optim.AdamW(p, 0.05),
        lambda p: optim.Muon(p, 0.05),
    ],
)
def test_state_goes_on_bit_for_bit(make):
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=(3, 2)), rng.normal(size=(10, 3, 2))

    def steps(w, optimizer, grads):
        for grad in grads:
            w.grad = grad.copy()
            optimizer.step()

    whole = Tensor(start.copy(), requires_grad=True)
    steps(whole, make([whole]), grads)

    first = Tensor(start.copy(), requires_grad=True)
    optimizer = make([first])
    optimizer.lr = 0.05
    steps(first, optimizer, grads[:4])
    second = Tensor(first.data.copy(), requires_grad=True)
    resumed = make([second])
    resumed.load_state_dict({name: array.copy() for name, array in optimizer.state_dict().items()})
    steps(second, resumed, grads[4:])
    assert np.array_equal(second.data, whole.data)


def test_state_of_other_parameters_is_refused():
    optimizer = optim.AdamW([parameter(1.0, 2.0)])
    with pytest.raises(ValueError, match=r"AdamW.load_state_dict: expected 'm.0' of shape \(2,\); got shape \(1,\)"):
        optimizer.load_state_dict(optim.AdamW([parameter(1.0)]).state_dict())
    with pytest.raises(ValueError, match="expected 'steps' of shape"):
        optimizer.load_state_dict(optim.AdamW([parameter(1.0, 2.0), parameter(1.0)]).state_dict())
    with pytest.raises(ValueError, match="unexpected entry 'm.1'"):
        optimizer.load_state_dict(optimizer.state_dict() | {"m.1": np.zeros(1)})
    with pytest.raises(ValueError, match="got nothing"):
        optimizer.load_state_dict({})


def test_clip_grad_norm():
    a, b, idle = parameter(0.0, 0.0), parameter(0.0), parameter(0.0)
    a.grad, b.grad = np.array([2.0, 3.0]), np.array([6.0])
    assert optim.clip_grad_norm([a, b, idle], 14.0) == 7.0  # sqrt(4 + 9 + 36), nothing to clip
    assert np.array_equal(a.grad, [2.0, 3.0])
    assert optim.clip_grad_norm([a, b, idle], 3.5) == 7.0
    np.testing.assert_allclose(np.concatenate([a.grad, b.grad]), [1.0, 1.5, 3.0], rtol=2e-7)
    clipped = a.grad.copy()
    b.grad[0] = np.nan
    assert math.isnan(optim.clip_grad_norm([a, b], 1.0))
    b.grad[0] = np.inf
    assert optim.clip_grad_norm([a, b], 1.0) == math.inf
    assert np.array_equal(a.grad, clipped)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 300), st.floats(0.0, 1.0), st.floats(0.01, 0.9), st.floats(0.0, 1.0))
def test_schedules_warm_up_stay_within_bounds_and_end_where_they_should(steps, warm, decay, final):
    warmup = int(warm * (steps - 2))
    for name, schedule in {
        "constant": optim.constant(2.0, steps=steps, warmup=warmup),
        "cosine": optim.warmup_cosine(2.0, steps=steps, warmup=warmup, final=final),
        "wsd": optim.wsd(2.0, steps=steps, warmup=warmup, decay=decay, final=final),
    }.items():
        rates = [schedule(step) for step in range(steps)]
        rising, falling = rates[: warmup + 1], rates[warmup:]
        assert all(0 < a < b for a, b in zip(rising, rising[1:], strict=False)), name
        assert all(a >= b for a, b in zip(falling, falling[1:], strict=False)), name
        assert max(rates) <= 2.0
        assert rates[-1] == pytest.approx(2.0 if name == "constant" else final), name
        assert schedule(steps + 10) == pytest.approx(rates[-1])


def test_wsd_is_flat_then_straight():
    schedule = optim.wsd(1.0, steps=11, warmup=1, decay=5 / 11)
    assert [round(schedule(step), 6) for step in range(11)] == [0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.0]


@pytest.mark.parametrize("schedule", [optim.constant, optim.warmup_cosine, optim.wsd])
def test_a_single_step_learns(schedule):
    assert schedule(2.0, steps=1)(0) == 2.0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda w: optim.SGD([], lr=0.1), "SGD: params must hold at least one parameter"),
        (lambda w: optim.SGD([w, w], lr=0.1), "the same parameter twice"),
        (lambda w: optim.SGD([w, Tensor([1.0], requires_grad=True)], lr=0.1), "must be of one dtype; got float"),
        (lambda w: optim.SGD([w], lr=-1.0), r"SGD: lr must be a number >= 0; got -1.0"),
        (lambda w: optim.AdamW([w], lr=math.nan), "AdamW: lr must be a number >= 0; got nan"),
        (lambda w: optim.Muon([w.reshape(1, 1)], lr="fast"), "Muon: lr must be a number >= 0; got fast"),
        (lambda w: optim.AdamW([w], betas=(0.9, 1.0)), r"AdamW: betas\[1\] must be in \[0, 1\); got 1.0"),
        (lambda w: optim.AdamW([{"params": w, "betas": 1}]), "'params', 'lr' and 'weight_decay'; got 'betas'"),
        (lambda w: optim.AdamW([{"params": w, "lr": -1.0}]), "AdamW: lr must be a number >= 0; got -1.0"),
        (lambda w: optim.SGD([{"params": [w], "lr": 1.0}], lr=0.0), "kept as a multiple of lr, which must not be 0"),
        (lambda w: optim.Muon([w]), r"Muon: params must be matrices, what is none is AdamW's; got shape \(1,\)"),
        (lambda w: optim.clip_grad_norm([w], math.nan), "clip_grad_norm: max_norm must be"),
        (lambda w: optim.warmup_cosine(1.0, steps=5, warmup=6), "warmup must be from 0 to steps = 5; got 6"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(parameter(1.0))


def test_what_is_no_parameter_is_told():
    for params in ([("weight", parameter(1.0))], [{"lr": 1.0}], [np.zeros(2)]):
        with pytest.raises(TypeError, match="AdamW: params must be Tensors, or groups such as"):
            optim.AdamW(params)


@pytest.mark.parametrize("make", [optim.SGD, optim.AdamW, optim.Muon])
@pytest.mark.parametrize("shape", [(2, 3), (1, 2), (4, 1), (4,)])
def test_a_gradient_of_another_shape_changes_nothing(make, shape):
    first, second = (Tensor(np.ones((2, 2)), requires_grad=True) for _ in range(2))
    optimizer = make([first, second], lr=0.1)
    before = optimizer.state_dict()["steps"].copy()
    first.grad, second.grad = np.ones((2, 2)), np.ones(shape)
    with pytest.raises(ValueError, match=rf"{make.__name__}.step: parameter 1 has shape \(2, 2\), and its gradient"):
        optimizer.step()
    assert (first.data == 1).all() and (second.data == 1).all()
    np.testing.assert_array_equal(optimizer.state_dict()["steps"], before)
