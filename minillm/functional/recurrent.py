"""Recurrent layers: a state that is carried from step to step, h_t = cell(x_t, h_{t-1}).

Three cells: RNN, LSTM, GRU. An operation is a whole layer over a whole sequence: its recurrence,
and backward the same steps in reverse. Written with a Tensor per step it would be the same
mathematics, recorded as thousands of small operations; a test compares the two.

*Why gates.* Backward through T steps of an RNN multiplies T Jacobians: the gradient dies out or
explodes. An LSTM's c_t = f c_{t-1} + ... and a GRU's z h_{t-1} carry it back unchanged while the
gate is open.

*Layouts* are torch's: ``w_ih`` (G H, C), ``w_hh`` (G H, H), biases (G H,), with G = 1, 4 or 3 gates
stacked in the order that each cell names. ``starts``: before step ``starts[b]`` row b is padding;
its state is zero there, and begins at zero.
"""

from __future__ import annotations

import numpy as np

from ..autograd.shapes import alike, total
from ..kernels import compiled
from ..tensor import Tensor
from .checks import Starts, check_starts

Array = np.ndarray
Arrays = tuple[Array, ...]

# ---- RNN -----------------------------------------------------------------------------------------


def rnn(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    h0: Tensor,
    starts: Starts = None,
) -> Tensor:
    """Carry a state through time: h_t = tanh(W x_t + b + U h_{t-1} + b') (Elman 1990).

    x: (B, T, C), weight_ih: (H, C), weight_hh: (H, H), biases: (H,) or None, h0: (B, H) -> h:
    (B, T, H). starts: (B,) integers; row b is zero before step ``starts[b]``, without gradient.
    dz = dh (1 - h^2),  dh_{t-1} = dz U,  dx = dz W,  dW = sum_t dz^T x_t,  dU = sum_t dz^T h_{t-1}
    Raises ValueError for shapes that do not fit.
    """
    inputs = _inputs("rnn", 1, x, weight_ih, weight_hh, bias_ih, bias_hh, h0)
    a, w_ih, w_hh, b_ih, b_hh, first = alike(*inputs)
    starts = check_starts("rnn", starts, len(x))
    h = rnn_forward(a, w_ih, w_hh, b_ih, b_hh, first, starts)  # (B, T, H)

    def backward(dh):
        return rnn_backward(dh, a, w_ih, w_hh, first, h, starts)

    return Tensor.from_op(h, inputs, backward)


@compiled("recurrent")
def rnn_forward(
    x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, h0: Array, starts: Starts = None
) -> Array:
    """x: (B, T, C), h0: (B, H) -> h: (B, T, H)."""
    h = x @ w_ih.T + b_ih  # (B, T, H)
    begun, state = _begun(starts, x), h0
    for t in range(x.shape[1]):
        state = np.tanh(h[:, t] + state @ w_hh.T + b_hh) * begun[:, t]  # (B, H)
        h[:, t] = state
    return h


@compiled("recurrent")
def rnn_backward(dh: Array, x: Array, w_ih: Array, w_hh: Array, h0: Array, h: Array, starts: Starts = None) -> Arrays:
    """dh, h: (B, T, H) -> dx, dw_ih, dw_hh, db_ih, db_hh, dh0."""
    begun = _begun(starts, x)
    dz = np.empty_like(h)  # (B, T, H), of what is inside the tanh
    carried = np.zeros_like(h0)  # (B, H), the gradient of h_t that comes from step t + 1
    for t in reversed(range(x.shape[1])):
        # h = tanh(z)  ->  dz = dh (1 - h^2)
        dz[:, t] = (dh[:, t] + carried) * (1 - h[:, t] ** 2) * begun[:, t]
        # z = ... + h_{t-1} w_hh^T  ->  dh_{t-1} = dz w_hh
        carried = dz[:, t] @ w_hh
    dw_ih, dw_hh, db_ih, db_hh = _weight_gradients(dz, dz, x, _before(h, h0))
    return dz @ w_ih, dw_ih, dw_hh, db_ih, db_hh, carried


# ---- LSTM ----------------------------------------------------------------------------------------


def lstm(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    h0: Tensor,
    c0: Tensor,
    starts: Starts = None,
) -> tuple[Tensor, Tensor]:
    """Carry a state, and a cell state c that gates protect (Hochreiter & Schmidhuber 1997).

    i, f, o = sigmoid(...), g = tanh(...) of W x_t + b + U h_{t-1} + b';
    c_t = f c_{t-1} + i g,  h_t = o tanh(c_t).
    x: (B, T, C), h0, c0: (B, H) -> h: (B, T, H) and the last c: (B, H). Weights and biases as
    ``rnn``'s, of 4 H rows in the order i, f, g, o.
    do = dh tanh c,  dc += dh o (1 - tanh^2 c),  di = dc g,  df = dc c_{t-1},  dg = dc i,
    dc_{t-1} = dc f;  what is inside the gates then as ``rnn``.
    """
    inputs = _inputs("lstm", 4, x, weight_ih, weight_hh, bias_ih, bias_hh, h0, c0)
    a, w_ih, w_hh, b_ih, b_hh, first_h, first_c = alike(*inputs)
    starts = check_starts("lstm", starts, len(x))
    h, c, gates = lstm_forward(a, w_ih, w_hh, b_ih, b_hh, first_h, first_c, starts)

    def backward(dh):
        return lstm_backward(dh, np.zeros_like(first_c), a, w_ih, w_hh, first_h, first_c, h, c, gates, starts)

    def backward_c(dc):
        return lstm_backward(np.zeros_like(h), dc, a, w_ih, w_hh, first_h, first_c, h, c, gates, starts)

    # an operation has one result: these are two, and who uses both goes back through time twice
    return Tensor.from_op(h, inputs, backward), Tensor.from_op(c[:, -1].copy(), inputs, backward_c, "lstm")


@compiled("recurrent")
def lstm_forward(
    x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, h0: Array, c0: Array, starts: Starts = None
) -> Arrays:
    """x: (B, T, C), h0, c0: (B, H) -> h, c: (B, T, H), gates i f g o: (B, T, 4 H)."""
    begun, before = _begun(starts, x), x @ w_ih.T + b_ih  # (B, T, 1), (B, T, 4 H)
    gates, h, c = np.empty_like(before), *(np.empty((*x.shape[:2], h0.shape[1]), x.dtype) for _ in range(2))
    h_t, c_t = h0, c0
    for t in range(x.shape[1]):
        i, f, g, o = np.split(before[:, t] + h_t @ w_hh.T + b_hh, 4, axis=1)  # (B, H) each
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        c_t = (f * c_t + i * g) * begun[:, t]
        h_t = o * np.tanh(c_t)
        gates[:, t], c[:, t], h[:, t] = np.concatenate([i, f, g, o], axis=1), c_t, h_t
    return h, c, gates


@compiled("recurrent")
def lstm_backward(
    dh: Array,
    dc_last: Array,
    x: Array,
    w_ih: Array,
    w_hh: Array,
    h0: Array,
    c0: Array,
    h: Array,
    c: Array,
    gates: Array,
    starts: Starts = None,
) -> Arrays:
    """dh: (B, T, H), of all states, dc_last: (B, H), of the last c -> dx, dw_ih, dw_hh, db_ih,
    db_hh, dh0, dc0.
    """
    begun, c_before = _begun(starts, x), _before(c, c0)  # (B, T, 1), (B, T, H)
    dz = np.empty_like(gates)  # (B, T, 4 H), of what is inside the sigmoids and the tanh
    carried, dc = np.zeros_like(h0), dc_last
    for t in reversed(range(x.shape[1])):
        i, f, g, o = np.split(gates[:, t], 4, axis=1)
        dh_t, tanh_c = dh[:, t] + carried, np.tanh(c[:, t])
        # h = o tanh(c)  ->  do = dh tanh(c),  dc += dh o (1 - tanh^2 c)
        do = dh_t * tanh_c
        dc = dc + dh_t * o * (1 - tanh_c**2)
        # c = f c_{t-1} + i g  ->  di = dc g,  df = dc c_{t-1},  dg = dc i,  dc_{t-1} = dc f
        di, df, dg = dc * g, dc * c_before[:, t], dc * i
        # s = sigmoid(z)  ->  dz = ds s (1 - s)
        inside = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)]
        dz[:, t] = np.concatenate(inside, axis=1) * begun[:, t]
        dc = dc * f * begun[:, t]
        carried = dz[:, t] @ w_hh
    dw_ih, dw_hh, db_ih, db_hh = _weight_gradients(dz, dz, x, _before(h, h0))
    return dz @ w_ih, dw_ih, dw_hh, db_ih, db_hh, carried, dc


# ---- GRU -----------------------------------------------------------------------------------------


def gru(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    h0: Tensor,
    starts: Starts = None,
) -> Tensor:
    """Carry a state of which one gate keeps a part and another forgets a part (Cho et al. 2014).

    r, z = sigmoid(...), n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + b'_n)),
    h_t = (1 - z) n + z h_{t-1}.
    x: (B, T, C), h0: (B, H) -> h: (B, T, H). Weights and biases as ``rnn``'s, of 3 H rows in the
    order r, z, n.
    dn = dh (1 - z),  dz = dh (h_{t-1} - n),  dr = dn' u with n' and u = U_n h_{t-1} + b'_n inside
    the tanh,  du = dn' r,  dh_{t-1} = dh z + ... through U; what is inside the gates then as
    ``rnn``.
    """
    inputs = _inputs("gru", 3, x, weight_ih, weight_hh, bias_ih, bias_hh, h0)
    a, w_ih, w_hh, b_ih, b_hh, first = alike(*inputs)
    starts = check_starts("gru", starts, len(x))
    h, gates, u = gru_forward(a, w_ih, w_hh, b_ih, b_hh, first, starts)

    def backward(dh):
        return gru_backward(dh, a, w_ih, w_hh, first, h, gates, u, starts)

    return Tensor.from_op(h, inputs, backward)


@compiled("recurrent")
def gru_forward(
    x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, h0: Array, starts: Starts = None
) -> Arrays:
    """x: (B, T, C), h0: (B, H) -> h: (B, T, H), gates r z n: (B, T, 3 H), u: (B, T, H).

    u = U_n h_{t-1} + b'_n, which r multiplies; backward needs it.
    """
    begun, before = _begun(starts, x), x @ w_ih.T + b_ih  # (B, T, 1), (B, T, 3 H)
    gates, h, u = np.empty_like(before), *(np.empty((*x.shape[:2], h0.shape[1]), x.dtype) for _ in range(2))
    state = h0
    for t in range(x.shape[1]):
        r, z, n = np.split(before[:, t], 3, axis=1)  # (B, H) each
        u_r, u_z, u_n = np.split(state @ w_hh.T + b_hh, 3, axis=1)
        r, z = _sigmoid(r + u_r), _sigmoid(z + u_z)
        n = np.tanh(n + r * u_n)
        state = ((1 - z) * n + z * state) * begun[:, t]
        gates[:, t], u[:, t], h[:, t] = np.concatenate([r, z, n], axis=1), u_n, state
    return h, gates, u


@compiled("recurrent")
def gru_backward(
    dh: Array, x: Array, w_ih: Array, w_hh: Array, h0: Array, h: Array, gates: Array, u: Array, starts: Starts = None
) -> Arrays:
    """dh: (B, T, H) -> dx, dw_ih, dw_hh, db_ih, db_hh, dh0."""
    begun, h_before = _begun(starts, x), _before(h, h0)  # (B, T, 1), (B, T, H)
    dz, dp = np.empty_like(gates), np.empty_like(gates)  # (B, T, 3 H), of the part of x_t and of h_{t-1}
    carried = np.zeros_like(h0)
    for t in reversed(range(x.shape[1])):
        r, z, n = np.split(gates[:, t], 3, axis=1)
        dh_t = (dh[:, t] + carried) * begun[:, t]
        # h = (1 - z) n + z h_{t-1}  ->  dz = dh (h_{t-1} - n),  dn = dh (1 - z)
        # and dh_{t-1} = dh z + (what comes back through the gates)
        inside_z = dh_t * (h_before[:, t] - n) * z * (1 - z)
        inside_n = dh_t * (1 - z) * (1 - n**2)
        # n = tanh(... + r u)  ->  dr = dn u,  du = dn r
        inside_r = inside_n * u[:, t] * r * (1 - r)
        dz[:, t] = np.concatenate([inside_r, inside_z, inside_n], axis=1)
        dp[:, t] = np.concatenate([inside_r, inside_z, inside_n * r], axis=1)
        carried = dh_t * z + dp[:, t] @ w_hh
    dw_ih, dw_hh, db_ih, db_hh = _weight_gradients(dz, dp, x, h_before)
    return dz @ w_ih, dw_ih, dw_hh, db_ih, db_hh, carried


# ---- what the three share ------------------------------------------------------------------------


def _sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), without an e^-x that could overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def _begun(starts: Starts, x: Array) -> Array:
    """Which rows have begun by each step, x: (B, T, C) -> (B, T, 1) booleans."""
    B, T, _ = x.shape
    first = np.zeros(B, int) if starts is None else starts
    return (np.arange(T) >= first[:, None])[:, :, None]


def _before(h: Array, h0: Array) -> Array:
    """The state that each step starts from: (B, T, H), h0 and all of h but the last."""
    return np.concatenate([h0[:, None], h[:, :-1]], axis=1)


def _weight_gradients(dz: Array, dp: Array, x: Array, h_before: Array) -> Arrays:
    """Of z = x w_ih^T + b_ih and p = h_{t-1} w_hh^T + b_hh, all steps at once: dw_ih, dw_hh, db_ih,
    db_hh.

    dz, dp: (B, T, G H), one array twice where the gates need only z + p.
    """
    dz, dp, x, h_before = (a.reshape(-1, a.shape[-1]) for a in (dz, dp, x, h_before))  # (B T, ...)
    return dz.T @ x, dp.T @ h_before, total(dz, axis=0), total(dp, axis=0)


def _inputs(
    name: str,
    gates: int,
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    *states: Tensor,
) -> tuple[Tensor, ...]:
    """The arguments, with zeros for a bias that is not there; a ValueError says what does not fit.
    """
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"{name}: x must be (B, T, C) with T >= 1; got {x.shape}")
    if states[0].ndim != 2:
        raise ValueError(f"{name}: h0 must be (B, H) with B = {len(x)}; got {states[0].shape}")
    (B, _, C), H = x.shape, states[0].shape[-1]
    zeros = Tensor(np.zeros(gates * H, x.dtype))
    bias_ih, bias_hh = zeros if bias_ih is None else bias_ih, zeros if bias_hh is None else bias_hh
    expected = {
        "weight_ih": (weight_ih, (gates * H, C)),
        "weight_hh": (weight_hh, (gates * H, H)),
        "bias_ih": (bias_ih, (gates * H,)),
        "bias_hh": (bias_hh, (gates * H,)),
        "h0": (states[0], (B, H)),
        "c0": (states[-1], (B, H)),
    }
    for argument, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name}: {argument} must be {shape} for x {x.shape} and H = {H}; got {tensor.shape}")
    return x, weight_ih, weight_hh, bias_ih, bias_hh, *states
