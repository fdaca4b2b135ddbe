"""RNN, LSTM, GRU equal torch's with the same weights; the cell with attention equals a loop of torch operations."""

import numpy as np
import pytest

from minillm import Tensor, nn

torch = pytest.importorskip("torch")

CASES = [(1, True), (2, True), (3, False)]  # layers, bias
TOLERANCE = {np.float32: {"rtol": 1e-4, "atol": 1e-5}, np.float64: {"rtol": 1e-9, "atol": 1e-11}}


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("layers, bias", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_equal_to_torch(kind, layers, bias, dtype):
    rng = np.random.default_rng(0)
    ours = getattr(nn, kind)(5, 7, layers, bias, rng=1).astype(dtype)
    theirs = getattr(torch.nn, kind)(5, 7, layers, bias=bias, batch_first=True, dtype=torch.tensor(dtype(0)).dtype)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    shapes = [(3, 6, 5)] + [(layers, 3, 7)] * (2 if kind == "LSTM" else 1)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    weights = [rng.standard_normal((3, 6, 7)).astype(dtype)] + [a[::-1].copy() for a in arrays[1:]]

    def run(layer, make):
        x, *states = (make(a) for a in arrays)
        output, last = layer(x, tuple(states) if kind == "LSTM" else states[0])
        made = [output, *(last if kind == "LSTM" else [last])]
        sum((y * make(w)).sum() for y, w in zip(made, weights, strict=True)).backward()
        return made, [x, *states], dict(layer.named_parameters())

    made, inputs, parameters = run(ours, lambda a: Tensor(a, requires_grad=True))
    torch_made, torch_inputs, torch_parameters = run(theirs, lambda a: torch.tensor(a, requires_grad=True))
    for a, b in zip(made, torch_made, strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), **TOLERANCE[dtype])
    for a, b in zip(inputs, torch_inputs, strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), **TOLERANCE[dtype])
    for name, ours in parameters.items():
        np.testing.assert_allclose(ours.grad, torch_parameters[name].grad.numpy(), **TOLERANCE[dtype], err_msg=name)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("score", ["dot", "additive"])
def test_attention_equals_a_loop_of_torch_operations(cell, score):
    C, H, window = 4, 6, 3
    layer = nn.RecurrentAttention(C, H, cell, score, window, rng=0).astype(np.float64)
    p = {name: torch.tensor(parameter.data, requires_grad=True) for name, parameter in layer.named_parameters()}
    x = np.random.default_rng(1).standard_normal((2, 8, C))

    step = {"rnn": torch.rnn_tanh_cell, "lstm": torch.lstm_cell, "gru": torch.gru_cell}[cell]
    weights = [p[f"cell.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    theirs = torch.tensor(x, requires_grad=True)
    h, c = torch.zeros(2, 2, H, dtype=torch.float64)
    states, outputs = [], []
    for t in range(8):
        h, c = step(theirs[:, t], (h, c), *weights) if cell == "lstm" else (step(theirs[:, t], h, *weights), c)
        context = torch.zeros(2, H, dtype=torch.float64)
        if states:
            past = torch.stack(states[-window:], dim=1)  # (B, at most window, H)
            query = h @ p["query.weight"].T
            if score == "dot":
                scores = (past @ query[:, :, None])[:, :, 0] / H**0.5
            else:
                scores = torch.tanh(query[:, None] + past @ p["key.weight"].T) @ p["score_weight"]
            context = (torch.softmax(scores, dim=1)[:, :, None] * past).sum(dim=1)
        joined = torch.cat([h, context], dim=1)
        outputs.append(torch.tanh(joined @ p["output.weight"].T + p["output.bias"]))
        states.append(h)
    expected = torch.stack(outputs, dim=1)
    weight = np.random.default_rng(2).standard_normal(expected.shape)
    (expected * torch.tensor(weight)).sum().backward()

    ours = Tensor(x, requires_grad=True)
    output = layer(ours)
    (output * weight).sum().backward()
    np.testing.assert_allclose(output.data, expected.detach().numpy(), **TOLERANCE[np.float64])
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), **TOLERANCE[np.float64])
    for name, parameter in layer.named_parameters():
        np.testing.assert_allclose(parameter.grad, p[name].grad.numpy(), **TOLERANCE[np.float64], err_msg=name)
