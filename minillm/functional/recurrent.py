"""The operations of recurrent layers: a state carried from step to step, and attention to the states of the past.

One operation is a whole layer over a whole sequence. Written with a Tensor per step it would be the same mathematics,
recorded as thousands of small operations; a test proves both equal. The recurrences, their gradients and how they are
made fast stand in ``kernels/recurrent.py``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import kernels
from ..tensor import Tensor

Starts = np.ndarray | None


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

    x: (B, T, C), weight_ih: (H, C), weight_hh: (H, H), biases: (H,) or None, h0: (B, H) -> h: (B, T, H).
    starts: (B,) integers; row b is padding before step ``starts[b]``: zero, without gradient.
    dz = dh (1 - h^2),  dh_{t-1} = dz U,  dx = dz W,  dW = sum_t dz^T x_t,  dU = sum_t dz^T h_{t-1}
    Raises ValueError for shapes that do not fit.
    """
    arrays = _arrays("rnn", 1, x, weight_ih, weight_hh, bias_ih, bias_hh, h0)
    x_, w_ih, w_hh, _, _, start = arrays
    h = kernels.rnn_forward(*arrays, starts)  # (B, T, H)
    x_needs = x.requires_grad

    def backward(dh):
        return _without_none(kernels.rnn_backward(dh, x_, w_ih, w_hh, start, h, starts, x_needs), bias_ih, bias_hh)

    return Tensor.from_op(h, _inputs(x, weight_ih, weight_hh, bias_ih, bias_hh, h0), backward)


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
    """Carry a state and a memory that gates protect (Hochreiter & Schmidhuber 1997).

    i, f, o = sigmoid(...), g = tanh(...) of W x_t + b + U h_{t-1} + b';  c_t = f c_{t-1} + i g,  h_t = o tanh(c_t).
    x: (B, T, C), h0, c0: (B, H) -> h: (B, T, H) and the last c: (B, H). Weights and biases as ``rnn``'s, of 4 H rows in
    the order i, f, g, o.
    do = dh tanh c,  dc += dh o (1 - tanh^2 c),  di = dc g,  df = dc c_{t-1},  dg = dc i,  dc_{t-1} = dc f;
    what is inside the gates then as ``rnn``.
    """
    arrays = _arrays("lstm", 4, x, weight_ih, weight_hh, bias_ih, bias_hh, h0, c0)
    x_, w_ih, w_hh, _, _, h_start, c_start = arrays
    h, c, gates = kernels.lstm_forward(*arrays, starts)
    x_needs = x.requires_grad
    of_last_c: list[np.ndarray] = []  # its gradient, when c_n was used: c_n's backward comes first, and leaves it here

    def backward(dh):
        dc = of_last_c.pop() if of_last_c else np.zeros_like(c_start)
        gradients = kernels.lstm_backward(dh, dc, x_, w_ih, w_hh, h_start, c_start, h, c, gates, starts, x_needs)
        return _without_none(gradients, bias_ih, bias_hh)

    output = Tensor.from_op(h, _inputs(x, weight_ih, weight_hh, bias_ih, bias_hh, h0, c0), backward)

    def last_memory_backward(dc):
        of_last_c.append(dc)
        return (np.zeros_like(h),)

    return output, Tensor.from_op(c[:, -1].copy(), (output,), last_memory_backward)


def gru(
    x: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    h0: Tensor,
    starts: Starts = None,
) -> Tensor:
    """Carry a state that one gate keeps and another forgets (Cho et al. 2014).

    r, z = sigmoid(...), n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + b'_n)),  h_t = (1 - z) n + z h_{t-1}.
    x: (B, T, C), h0: (B, H) -> h: (B, T, H). Weights and biases as ``rnn``'s, of 3 H rows in the order r, z, n.
    dn = dh (1 - z),  dz = dh (h_{t-1} - n),  dr = dn' u with n' and u = U_n h_{t-1} + b'_n inside the tanh,
    du = dn' r,  dh_{t-1} = dh z + ... through U; what is inside the gates then as ``rnn``.
    """
    arrays = _arrays("gru", 3, x, weight_ih, weight_hh, bias_ih, bias_hh, h0)
    x_, w_ih, w_hh, _, _, start = arrays
    h, gates, u = kernels.gru_forward(*arrays, starts)
    x_needs = x.requires_grad

    def backward(dh):
        gradients = kernels.gru_backward(dh, x_, w_ih, w_hh, start, h, gates, u, starts, x_needs)
        return _without_none(gradients, bias_ih, bias_hh)

    return Tensor.from_op(h, _inputs(x, weight_ih, weight_hh, bias_ih, bias_hh, h0), backward)


def past_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    window: int,
    score_weight: Tensor | None = None,
    starts: Starts = None,
) -> Tensor:
    """Mix the values of the ``window`` steps before each query, weighted by how well their keys match it.

    query: (B, T, C), keys, values: (B, P + T, C), P steps before the first query's and then its own -> (B, T, C).
    out_t = sum_s p_ts value_s over P + t - window <= s < P + t,  p_t = softmax of the scores x_ts. The query's own step
    is not among them: what it knows is at hand without attention. Where there is no past, out is 0.
    x_ts = query_t . key_s / sqrt(C) (Luong et al. 2015; scaled as by Vaswani et al. 2017), or, with ``score_weight``
    w (C,), x_ts = w . tanh(query_t + key_s) (Bahdanau et al. 2015).
    starts: (B,) integers; steps s < ``starts[b]`` are padding and not seen.
    """
    fits = query.ndim == keys.ndim == 3 and keys.shape[::2] == query.shape[::2] and keys.shape[1] >= query.shape[1]
    if not fits or keys.shape != values.shape:
        raise ValueError(
            "past_attention: expected query (B, T, C), keys and values (B, P + T, C); "
            f"got {query.shape}, {keys.shape}, {values.shape}"
        )
    if window < 1:
        raise ValueError(f"past_attention: window must be at least 1; got {window}")
    if keys.shape[1] == 1:
        return Tensor(np.zeros_like(query.data))  # a single step without a past
    if score_weight is None:
        return _by_dot_products(query, keys, values, window, starts)
    return _by_a_network(query, keys, values, window, score_weight, starts)


# The last of the keys and values are in nobody's past; without them the query's own position is the step before it.


def _by_dot_products(query: Tensor, keys: Tensor, values: Tensor, window: int, starts: Starts) -> Tensor:
    B, S, C = keys.shape
    options: dict[str, Any] = {"causal": True, "window": window, "scale": 1 / math.sqrt(C), "starts": starts}
    q, k, v = _alike(query, keys, values)
    q, k, v = q[:, :, None], k[:, :-1, None], v[:, :-1, None]  # (B, T, 1, C): one head
    out, lse = kernels.attention_forward(q, k, v, **options)

    def backward(dout):
        dq, dk, dv = np.empty_like(q), np.empty((B, S, 1, C), q.dtype), np.empty((B, S, 1, C), q.dtype)
        kernels.attention_backward(dout[:, :, None], q, k, v, out, lse, into=(dq, dk[:, :-1], dv[:, :-1]), **options)
        dk[:, -1], dv[:, -1] = 0, 0
        return dq[:, :, 0], dk[:, :, 0], dv[:, :, 0]

    return Tensor.from_op(out[:, :, 0], (query, keys, values), backward, op="past_attention")


def _by_a_network(
    query: Tensor, keys: Tensor, values: Tensor, window: int, score_weight: Tensor, starts: Starts
) -> Tensor:
    q, k, v, w = _alike(query, keys, values, score_weight)
    k, v = k[:, :-1], v[:, :-1]
    out, p = kernels.additive_attention_forward(q, k, v, w, window, starts)

    def backward(dout):
        dq, dk, dv, dw = kernels.additive_attention_backward(dout, q, k, v, w, p)
        return dq, _with_last(dk), _with_last(dv), dw

    return Tensor.from_op(out, (query, keys, values, score_weight), backward, op="past_attention")


def _with_last(d: np.ndarray) -> np.ndarray:
    """The gradient of ``x[:, :-1]`` as that of x: nothing for the last step."""
    return np.concatenate([d, np.zeros_like(d[:, :1])], axis=1)


def _inputs(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(t for t in tensors if t is not None)


def _without_none(gradients: tuple, bias_ih: Tensor | None, bias_hh: Tensor | None) -> tuple:
    """Leave out the gradients of biases that are not there; they are the fourth and fifth."""
    kept = [d for d, bias in zip(gradients[3:5], (bias_ih, bias_hh), strict=True) if bias is not None]
    return (*gradients[:3], *kept, *gradients[5:])


def _arrays(name: str, gates: int, x, weight_ih, weight_hh, bias_ih, bias_hh, *states) -> list[np.ndarray]:
    """The arrays behind the arguments, of one dtype, zeros for absent biases; a ValueError says what does not fit."""
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"{name}: x must be (B, T, C) with T >= 1; got {x.shape}")
    (B, _, C), H = x.shape, states[0].shape[-1]
    expected = {
        "weight_ih": (weight_ih, (gates * H, C)),
        "weight_hh": (weight_hh, (gates * H, H)),
        "bias_ih": (bias_ih, (gates * H,)),
        "bias_hh": (bias_hh, (gates * H,)),
        "h0": (states[0], (B, H)),
        "c0": (states[-1], (B, H)),
    }
    for argument, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name}: {argument} must be {shape} for x {x.shape} and H = {H}; got {tensor.shape}")
    zeros = Tensor(np.zeros(gates * H, x.dtype))
    biases = [zeros if bias is None else bias for bias in (bias_ih, bias_hh)]
    return _alike(x, weight_ih, weight_hh, *biases, *states)


def _alike(*tensors: Tensor) -> list[np.ndarray]:
    """The arrays in one dtype, float64 if any is: kernels do not mix."""
    dtype = np.result_type(*(t.dtype for t in tensors))
    return [t.data.astype(dtype, copy=False) for t in tensors]
