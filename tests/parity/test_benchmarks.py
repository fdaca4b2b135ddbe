"""The torch side of the benchmarks does the same work as ours: same weights, same result, same gradient."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.recurrent import torch_recurrent_attention
from benchmarks.torch_gpt2 import TorchGPT2
from benchmarks.train import Shape
from minillm import Tensor, models, nn
from minillm import functional as F

RNG = np.random.default_rng(0)
SHAPE = Shape(n_layer=2, n_head=2, n_embd=8, batch=2, time=5, vocab_size=11)
TORCH_NAMES = {"attn.c_attn": "c_attn", "attn.c_proj": "attn_proj", "mlp.c_fc": "c_fc", "mlp.c_proj": "mlp_proj"}


def test_gpt2_is_gpt2():
    config = models.GPT2Config(**SHAPE.model(), resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.3)
    ours, theirs = models.GPT2(config, rng=0), TorchGPT2(**SHAPE.model())
    state = {}
    for name, array in ours.state_dict().items():
        array = array.T if name.endswith("weight") and "c_" in name else array  # Conv1D keeps its weight turned
        for mine, torchs in TORCH_NAMES.items():
            name = name.replace(mine, torchs)
        state[name.removeprefix("transformer.")] = torch.tensor(array)
    theirs.load_state_dict(state)

    ids, targets = RNG.integers(0, SHAPE.vocab_size, (2, SHAPE.batch, SHAPE.time))
    loss = F.cross_entropy(ours(ids), targets)
    loss.backward()
    scores = theirs(torch.from_numpy(ids)).flatten(0, 1)
    torch_loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(targets).flatten())
    torch_loss.backward()
    assert loss.item() == pytest.approx(torch_loss.item(), rel=1e-5)
    np.testing.assert_allclose(ours.transformer.wte.weight.grad, theirs.wte.weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", ["dot", "additive"])
def test_the_loop_in_torch_is_recurrent_attention(score):
    C, window = 6, 3
    ours = nn.RecurrentAttention(C, C, "gru", score, window, rng=0)
    state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    linear, modules = torch.nn.Linear, {"cell": torch.nn.GRUCell(C, C), "query": torch.nn.Linear(C, C, bias=False)}
    theirs = torch.nn.ModuleDict({**modules, "key": linear(C, C, bias=False), "output": linear(2 * C, C)})
    weight = state.pop("score_weight", None)
    theirs.load_state_dict(
        {name.replace("_l0", ""): value for name, value in state.items()}, strict=score == "additive"
    )

    values, dy = RNG.standard_normal((2, 2, 8, C)).astype(np.float32)
    x, torch_x = Tensor(values, requires_grad=True), torch.tensor(values, requires_grad=True)
    y, torch_y = ours(x), torch_recurrent_attention(theirs, weight, torch_x, window)
    y.backward(dy)
    torch_y.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(y.data, torch_y.detach(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(x.grad, torch_x.grad, rtol=1e-4, atol=1e-6)


def test_operations_that_are_counted():
    baby = Shape(n_layer=4, n_head=4, n_embd=128, batch=12, time=64)
    products = 6 * baby.tokens * (4 * (3 + 1 + 4 + 4) * 128 * 128 + 65 * 128)
    attention = 4 * 3 * 2 * 2 * 12 * 4 * 64 * 64 * 32  # layers, forward and twice backward, two products of 2 T T D
    assert baby.flops == products + attention
