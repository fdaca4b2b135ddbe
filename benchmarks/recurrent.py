"""Recurrent layers, forward and backward over a whole sequence."""

from __future__ import annotations

import math

import numpy as np

from .harness import Case, Contestant, Step

TITLE = "recurrent layers, forward + backward"
B, T = 32, 64
WINDOW = 32


def cases(quick: bool) -> list[Case]:
    """The two gated layers, and the cell that attends to its own past."""
    layers = (
        Contestant("minillm", build_minillm_layer, ("minillm",)),
        Contestant("torch", build_torch_layer, ("torch",)),
    )
    attention = (
        Contestant("minillm", build_minillm_attention, ("minillm",)),
        Contestant("torch", build_torch_attention, ("torch",)),
    )
    return [
        Case(f"LSTM 256, B{B} T{T}", layers, ("LSTM", 256)),
        Case(f"GRU 256, B{B} T{T}", layers, ("GRU", 256)),
        Case(f"GRU 128 with dot attention to {WINDOW} past states, B{B} T{T}", attention, (128, "dot")),
        Case(f"GRU 128 with additive attention to {WINDOW} past states, B{B} T{T}", attention, (128, "additive")),
    ]


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def build_minillm_layer(kind: str, C: int) -> Step:
    from minillm import Tensor, nn

    layer = getattr(nn, kind)(C, C, rng=0)
    x, dy = Tensor(_normal(B, T, C), requires_grad=True), _normal(B, T, C)

    def step() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x)[0].backward(dy)

    return step


def build_torch_layer(kind: str, C: int) -> Step:
    import torch

    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(C, C, batch_first=True)
    x, dy = torch.tensor(_normal(B, T, C), requires_grad=True), torch.from_numpy(_normal(B, T, C))

    def step() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x)[0].backward(dy)

    return step


def build_minillm_attention(C: int, score: str) -> Step:
    from minillm import Tensor, nn

    layer = nn.RecurrentAttention(C, C, "gru", score, WINDOW, rng=0)
    x, dy = Tensor(_normal(B, T, C), requires_grad=True), _normal(B, T, C)

    def step() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x).backward(dy)

    return step


def build_torch_attention(C: int, score: str) -> Step:
    import torch

    torch.manual_seed(0)
    layer = torch.nn.ModuleDict(
        {
            "cell": torch.nn.GRUCell(C, C),
            "query": torch.nn.Linear(C, C, bias=False),
            "key": torch.nn.Linear(C, C, bias=False),
            "output": torch.nn.Linear(2 * C, C),
        }
    )
    weight = torch.nn.Parameter(torch.rand(C) / math.sqrt(C))
    x, dy = torch.tensor(_normal(B, T, C), requires_grad=True), torch.from_numpy(_normal(B, T, C))

    def step() -> None:
        layer.zero_grad()
        x.grad = weight.grad = None
        torch_recurrent_attention(layer, weight if score == "additive" else None, x, WINDOW).backward(dy)

    return step


def torch_recurrent_attention(layer, weight, x, window: int):
    """``nn.RecurrentAttention`` as one writes it in torch, step by step. x: (B, T, C) -> (B, T, C).

    layer: with the modules cell, query, output and (for a ``weight``, additive scores) key.
    """
    import torch

    h = x.new_zeros(x.shape[0], layer["cell"].hidden_size)  # (B, H)
    past, keys, outputs = [], [], []
    for x_t in x.unbind(1):
        h = layer["cell"](x_t, h)
        context = torch.zeros_like(h)
        if past:
            states, query = torch.stack(past[-window:], 1), layer["query"](h)  # (B, S, H), (B, H)
            if weight is None:
                scores = (states @ query[:, :, None])[:, :, 0] / math.sqrt(h.shape[1])  # (B, S)
            else:
                scores = torch.tanh(query[:, None] + torch.stack(keys[-window:], 1)) @ weight
            context = (scores.softmax(1)[:, None] @ states)[:, 0]  # (B, H)
        outputs.append(torch.tanh(layer["output"](torch.cat([h, context], 1))))
        past.append(h)
        if weight is not None:
            keys.append(layer["key"](h))
    return torch.stack(outputs, 1)
