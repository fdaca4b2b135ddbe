"""The weights of attention as a result: what is recorded is the softmax of the scores."""

import doctest
import threading

import numpy as np
import pytest

import minillm.functional as F
from minillm import Tensor, models, nn, record_attention
from minillm.check import attention

rng = np.random.default_rng(3)
IDS = rng.integers(0, 17, (2, 6))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def heads(x, H):
    return x.data.reshape(*x.shape[:2], H, -1).swapaxes(1, 2)


def by_hand(q, k, seen=True):
    return softmax(np.where(seen, q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]), -np.inf))


def gpt2():
    sizes = models.GPT2Config(vocab_size=17, n_positions=8, n_embd=12, n_layer=2, n_head=3, initializer_range=0.5)
    return models.GPT2(sizes, rng=0).eval()


def test_docstring_examples():
    assert doctest.testmod(attention).failed == 0


def test_gpt2_weights_are_the_softmax_of_its_scores():
    model, seen = gpt2(), []
    stop = model.transformer.h[1].attn.c_attn.register_forward_hook(lambda module, inputs, y: seen.append(y))
    plain = model(IDS).data
    with record_attention(model) as weights:
        np.testing.assert_array_equal(model(IDS).data, plain)
    stop()
    assert list(weights) == ["transformer.h.0.attn", "transformer.h.1.attn"]
    q, k, _ = (heads(x, 3) for x in F.split(seen[-1], [12, 12, 12]))
    p = weights["transformer.h.1.attn"]
    np.testing.assert_allclose(p, by_hand(q, k, np.tri(6, dtype=bool)), rtol=0, atol=1e-6)
    assert p.max() > 0.9 and (p[..., ~np.tri(6, dtype=bool)] == 0).all()
    weights.clear()
    model(IDS)
    assert not weights and not any(module.is_watched for module in model.modules())


def test_the_last_step_of_generation_is_the_last_row_of_the_whole():
    model, rows = gpt2(), IDS[:1]
    with record_attention(model) as whole:
        scores = model(rows).data[:, -1]
    cache = model.new_cache(1, 6)
    model.next_logits(rows[:, :5], cache)
    with record_attention(model) as weights:
        np.testing.assert_allclose(model.next_logits(rows[:, 5:], cache), scores, rtol=0, atol=1e-5)
    for name, p in whole.items():
        assert weights[name].shape == (1, 3, 1, 6)
        np.testing.assert_allclose(weights[name], p[:, :, -1:], rtol=0, atol=1e-6)


def test_a_window_groups_of_heads_and_a_mask():
    layer = nn.MultiHeadAttention(8, heads=4, kv_heads=2, window=2, rng=0)
    x = Tensor(2 * rng.standard_normal((2, 5, 8)).astype(np.float32))
    with record_attention(layer) as weights:
        layer(x)
    q, k = heads(layer.q_proj(x), 4), heads(layer.k_proj(x), 2).repeat(2, axis=1)
    band = np.tri(5, dtype=bool) & ~np.tri(5, k=-2, dtype=bool)
    np.testing.assert_allclose(weights["MultiHeadAttention"], by_hand(q, k, band), rtol=0, atol=1e-6)

    cross, memory = nn.MultiHeadAttention(8, heads=2, causal=False, rng=0), Tensor(rng.standard_normal((2, 3, 8)))
    mask = np.array([[True, True, False], [True, True, True]])[:, None, None]
    for hides in (mask, None):
        with record_attention(cross) as weights:
            cross(x, memory, hides)
        q, k = heads(cross.q_proj(x), 2), heads(cross.k_proj(memory), 2)
        expected = by_hand(q, k, True if hides is None else hides)
        np.testing.assert_allclose(weights["MultiHeadAttention"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("score", ["dot", "additive"])
def test_a_recurrent_layer_looks_at_its_past_states(score):
    sizes = models.RecurrentLMConfig(vocab_size=17, hidden_size=8, num_layers=2, attention=score, window=3)
    model = models.RecurrentLM(sizes, rng=0)
    layer = model.layers[1].recurrent
    states = []
    layer.cell.register_forward_hook(lambda module, inputs, y: states.append(y[0].data))
    with record_attention(model) as weights:
        model(IDS)
    p, h = weights["layers.1.recurrent"], states[-1]
    assert list(weights) == ["layers.0.recurrent", "layers.1.recurrent"] and p.shape == (2, 1, 6, 6)
    q = layer.query(Tensor(h)).data
    if score == "dot":
        x = q @ h.swapaxes(1, 2) / np.sqrt(8)
    else:
        x = np.tanh(q[:, :, None] + layer.key(Tensor(h)).data[:, None]) @ layer.score_weight.data
    seen = np.tri(6, k=-1, dtype=bool) & ~np.tri(6, k=-4, dtype=bool)  # the three before
    np.testing.assert_allclose(p[:, 0, 1:], softmax(np.where(seen, x, -np.inf)[:, 1:]), rtol=0, atol=1e-6)
    assert (p[:, 0, 0] == 0).all()


class Twice(nn.Module):
    def __init__(self):
        self.inner = [nn.MultiHeadAttention(4, 1, causal=False, rng=0)]

    def forward(self, x, fail=False):
        q = x[:, None]
        y = F.scaled_dot_product_attention(q, q, q, causal=True) + F.scaled_dot_product_attention(q, q, q)
        if fail:
            raise KeyError("on purpose")
        return self.inner[0](y[:, 0])


def in_another_thread(model, x):
    other = threading.Thread(target=model, args=(x,))
    other.start()
    other.join()


def in_the_middle(module, inputs):
    if threading.current_thread() is threading.main_thread():
        in_another_thread(module, inputs[0])


def test_own_modules_errors_on_the_way_and_other_models():
    model, x = Twice(), Tensor(rng.standard_normal((1, 3, 4)))
    with record_attention(model) as weights:
        with pytest.raises(KeyError):
            model(x, fail=True)
        model(x)
        first = {name: p.copy() for name, p in weights.items()}
        nn.MultiHeadAttention(4, 1, rng=1)(x)  # another's
        in_another_thread(model, x * 3)
    assert list(weights) == ["Twice", "Twice (2)", "inner.0"]
    with record_attention(model) as weights:  # another thread comes and goes in the middle
        model.inner[0].register_forward_pre_hook(in_the_middle)
        model(x)
    assert list(weights) == ["Twice", "Twice (2)", "inner.0"]
    assert all((weights[name] == p).all() for name, p in first.items())
    assert weights["Twice"][0, 0, 0].tolist() == [1, 0, 0] and 0 < weights["Twice (2)"][0, 0, 0, 2] < 1
    with pytest.raises(TypeError, match="record_attention: expected a Module; got list"), record_attention([model]):
        pass
