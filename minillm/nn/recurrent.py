"""Layers that read a sequence step by step: RNN, LSTM, GRU, and a cell that attends to its own past
states.

Parameter names and layouts are torch's. One difference: x is always (B, T, C), which torch calls
``batch_first=True``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..functional.checks import Starts
from ..tensor import Tensor
from . import init
from .linear import Linear
from .module import Module


class _Recurrent(Module):
    """What the three cells share: ``num_layers`` layers, each on the states of the one below, and
    their parameters.
    """

    gates: int  # the matrices have so many times H rows

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        C, H, rows = input_size, hidden_size, self.gates * hidden_size
        if C < 1 or H < 1 or num_layers < 1:
            raise ValueError(f"{type(self).__name__}: sizes must be at least 1; got {C} -> {H}, {num_layers} layers")
        self.input_size, self.hidden_size, self.num_layers = C, H, num_layers
        rng = np.random.default_rng(rng)
        for k in range(num_layers):
            setattr(self, f"weight_ih_l{k}", init.fan_in(rng, (rows, C if k == 0 else H), H))
            setattr(self, f"weight_hh_l{k}", init.fan_in(rng, (rows, H), H))
            setattr(self, f"bias_ih_l{k}", init.fan_in(rng, (rows,), H) if bias else None)
            setattr(self, f"bias_hh_l{k}", init.fan_in(rng, (rows,), H) if bias else None)

    def parameters_of(self, k: int) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Layer k's weight_ih, weight_hh, bias_ih, bias_hh."""
        weight_ih, weight_hh = getattr(self, f"weight_ih_l{k}"), getattr(self, f"weight_hh_l{k}")
        return weight_ih, weight_hh, getattr(self, f"bias_ih_l{k}"), getattr(self, f"bias_hh_l{k}")

    def first_states(self, x: Tensor, name: str, given: Tensor | None) -> list[Tensor]:
        """The state that each layer starts from: (B, H) each, zeros unless given."""
        kind, C, H = type(self).__name__, self.input_size, self.hidden_size
        if x.ndim != 3 or x.shape[2] != C:
            raise ValueError(f"{kind}: x must be (B, T, {C}); got {x.shape}")
        shape = (self.num_layers, x.shape[0], H)
        if given is None:
            return [Tensor(np.zeros(shape[1:], x.dtype))] * self.num_layers
        if given.shape != shape:
            raise ValueError(f"{kind}: {name} must be (num_layers, B, H) = {shape}; got {given.shape}")
        return [given[k] for k in range(self.num_layers)]

    def extra_repr(self) -> str:
        """Sizes."""
        layers = "" if self.num_layers == 1 else f", {self.num_layers} layers"
        return f"{self.input_size} -> {self.hidden_size}{layers}"


class RNN(_Recurrent):
    """h_t = tanh(W x_t + b + U h_{t-1} + b'), in ``num_layers`` layers, each on the states of the
    one below.

    x: (B, T, input_size) -> output (B, T, H), the last layer's states, and h_n (num_layers, B, H),
    each layer's last.
    Parameters: ``weight_ih_l{k}`` (H, input), ``weight_hh_l{k}`` (H, H), ``bias_ih_l{k}``,
    ``bias_hh_l{k}`` (H,), uniform in +-1 / sqrt(H). (Elman 1990.)
    """

    gates = 1

    def forward(self, x: Tensor, h0: Tensor | None = None, starts: Starts = None) -> tuple[Tensor, Tensor]:
        """h0: (num_layers, B, H), zeros if left out; starts: (B,), steps of left padding, where
        states stay zero.
        """
        last = []
        for k, h in enumerate(self.first_states(x, "h0", h0)):
            x = F.rnn(x, *self.parameters_of(k), h, starts)  # (B, T, H)
            last.append(x[:, -1])
        return x, F.stack(last)


class LSTM(_Recurrent):
    """A state h and a cell state c that gates protect, in ``num_layers`` layers (Hochreiter &
    Schmidhuber 1997).

    i, f, o = sigmoid(...), g = tanh(...);   c_t = f c_{t-1} + i g;   h_t = o tanh(c_t).
    x: (B, T, input_size) -> output (B, T, H) and (h_n, c_n), each (num_layers, B, H).
    Parameters as ``RNN``, with 4 H rows: i, f, g, o.
    """

    gates = 4

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, starts: Starts = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """state: (h0, c0), each (num_layers, B, H), zeros if left out; starts: as ``RNN.forward``.
        """
        h0, c0 = (None, None) if state is None else state
        h_last, c_last = [], []
        for k, (h, c) in enumerate(zip(self.first_states(x, "h0", h0), self.first_states(x, "c0", c0), strict=True)):
            x, c_k = F.lstm(x, *self.parameters_of(k), h, c, starts)  # (B, T, H), (B, H)
            h_last.append(x[:, -1])
            c_last.append(c_k)
        return x, (F.stack(h_last), F.stack(c_last))


class GRU(_Recurrent):
    """A state of which one gate keeps a part and another forgets a part, in ``num_layers`` layers
    (Cho et al. 2014).

    r, z = sigmoid(...), n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + b'_n));
    h_t = (1 - z) n + z h_{t-1}.
    x: (B, T, input_size) -> output (B, T, H) and h_n (num_layers, B, H). Parameters as ``RNN``,
    with 3 H rows: r, z, n.
    """

    gates = 3

    def forward(self, x: Tensor, h0: Tensor | None = None, starts: Starts = None) -> tuple[Tensor, Tensor]:
        """h0: (num_layers, B, H), zeros if left out; starts: as ``RNN.forward``."""
        last = []
        for k, h in enumerate(self.first_states(x, "h0", h0)):
            x = F.gru(x, *self.parameters_of(k), h, starts)  # (B, T, H)
            last.append(x[:, -1])
        return x, F.stack(last)


CELLS = {"rnn": RNN, "lstm": LSTM, "gru": GRU}
SCORES = ("dot", "additive", "none")


class RecurrentAttention(Module):
    """A recurrent cell that looks back: its states of the last ``window`` steps are linked to the
    present by attention.

        h_t = cell(x_t, h_{t-1})                                            "rnn", "lstm" or "gru"
        context_t = sum_s p_ts h_s  over  t - window <= s < t,  p_t = softmax of the scores x_ts
        o_t = tanh(W_c [h_t ; context_t])                                   the layer's output

    score "dot": x_ts = (W h_t) . h_s / sqrt(H) (Luong et al. 2015, "general"; scaled as by Vaswani
    et al. 2017). score "additive": x_ts = w . tanh(W h_t + U h_s) (Bahdanau et al. 2015).
    score "none": no attention, o_t = h_t; the plain cell, to compare with.

    x: (B, T, input_size) -> (B, T, hidden_size). The window is the context: older states are seen
    only through what the cell still carries of them. The present state is not among those attended
    to, since o_t has it anyway, and it would match itself best. At the first step there is no past,
    and context is 0.

    *Input feeding*, which is not done here, gives o_{t-1} to the cell together with x_t, so that it
    knows where it looked last (Luong et al. 2015). It makes every step wait for the attention of
    the step before. Without it the recurrence is one kernel over all steps, and attention another
    over all steps and states: several times faster.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        cell: str = "gru",
        score: str = "dot",
        window: int = 32,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        for name, value, known in (("cell", cell, tuple(CELLS)), ("score", score, SCORES)):
            if value not in known:
                raise ValueError(f"RecurrentAttention: {name} must be one of {', '.join(known)}; got {value!r}")
        if window < 1:
            raise ValueError(f"RecurrentAttention: window must be at least 1; got {window}")
        rng = np.random.default_rng(rng)
        H = hidden_size
        self.score, self.window = score, window
        self.cell: Any = CELLS[cell](input_size, H, rng=rng)
        if score != "none":
            self.query = Linear(H, H, bias=False, rng=rng)
            self.output = Linear(2 * H, H, rng=rng)
        if score == "additive":
            self.key = Linear(H, H, bias=False, rng=rng)
            self.score_weight = init.fan_in(rng, (H,), H)

    def forward(self, x: Tensor, past: Past | None = None, starts: Starts = None) -> Tensor:
        """Read x: (B, T, input_size), after what ``past`` holds, which moves on; starts: (B,),
        steps of left padding.

        ``starts`` counts from the sequence's first step, also where that is long past.
        """
        length, state = (0, None) if past is None else (past.length, past.state)
        h, state = self.cell(x, state, starts if starts is None else np.maximum(starts - length, 0))  # (B, T, H)
        if self.score == "none":
            if past is not None:
                past.advance(x.shape[1], state)
            return h
        values = h if past is None or past.values is None else F.concatenate([past.values, h], axis=1)  # (B, P + T, H)
        keys, weight = values, None
        if self.score == "additive":
            keys, weight = self.key(values), self.score_weight
        before = length - (values.shape[1] - h.shape[1])  # how many steps the window has left behind
        seen_from = starts if starts is None else np.maximum(starts - before, 0)
        context = F.past_attention(self.query(h), keys, values, self.window, weight, seen_from)  # (B, T, H)
        if past is not None:
            past.advance(x.shape[1], state, values[:, -self.window :])
        return F.tanh(self.output(F.concatenate([h, context], axis=-1)))

    def extra_repr(self) -> str:
        """How it looks back."""
        return f"score={self.score}" + (f", window={self.window}" if self.score != "none" else "")


class Past:
    """What a ``RecurrentAttention`` remembers of the steps it has read: its state, and the states
    in its window.

    Its size does not grow with the length of the text.
    """

    def __init__(self) -> None:
        self.length = 0
        self.state: Any = None  # h, or (h, c): (1, B, H) each
        self.values: Tensor | None = None  # (B, at most window, H)

    def advance(self, steps: int, state: Any, values: Tensor | None = None) -> None:
        """Take over what is known after ``steps`` more steps."""
        self.length, self.state, self.values = self.length + steps, state, values

    def reorder(self, rows: np.ndarray) -> Past:
        """A copy whose row i goes on from row ``rows[i]`` of this one."""
        copy = Past()
        if self.state is not None:
            parts = [part[:, rows] for part in (self.state if isinstance(self.state, tuple) else (self.state,))]
            values = None if self.values is None else self.values[rows]
            copy.advance(self.length, tuple(parts) if len(parts) == 2 else parts[0], values)
        return copy
