"""The page examples/whole.py computes what the library computes: gradients, steps of AdamW, texts."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from minillm import GenerationConfig, generate, models, optim
from minillm import functional as F
from minillm.tokenizer import CharTokenizer

PAGE = Path(__file__).parents[1] / "examples" / "whole.py"
V, T, C, H, LAYERS = 11, 24, 12, 3, 2


@pytest.fixture
def whole():
    spec = importlib.util.spec_from_file_location("whole", PAGE)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    page.T, page.C, page.H, page.LAYERS = T, C, H, LAYERS
    return page


def pair(page, scale=5.0):
    """The page's weights in float64, and the library's GPT-2 with copies of them: its biases are 0, its gains 1."""
    weights = page.new_weights(V, np.random.default_rng(0))
    for w in weights.values():
        w.data = scale * w.data.astype(np.float64)
    model = models.GPT2(
        models.GPT2Config(
            vocab_size=V, n_positions=T, n_embd=C, n_layer=LAYERS, n_head=H,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        ),
        rng=0,
    )  # fmt: skip
    for p in model.parameters():
        p.data = p.data.astype(np.float64)
    for parameter, value in zip(matrices(model), joined({name: w.data for name, w in weights.items()}), strict=True):
        assert parameter.shape == value.shape
        parameter.data = value.copy()
    return weights, model


def matrices(model):
    """The weights that the page has too."""
    found = [model.transformer.wte.weight, model.transformer.wpe.weight]
    for block in model.transformer.h:
        found += [block.attn.c_attn.weight, block.attn.c_proj.weight, block.mlp.c_fc.weight, block.mlp.c_proj.weight]
    return found


def joined(arrays):
    """The page's arrays by name, as the library keeps them: query, key and value side by side."""
    found = [arrays["token"], arrays["position"]]
    for i in range(LAYERS):
        qkv = np.concatenate([arrays[f"{name}{i}"] for name in ("query", "key", "value")], axis=1)
        found += [qkv, *(arrays[f"{name}{i}"] for name in ("out", "up", "down"))]
    return found


def batch(rng):
    ids = rng.integers(0, V, (3, T + 1))
    return ids[:, :-1], ids[:, 1:]


def test_it_is_one_page_of_numpy_alone():
    text = PAGE.read_text()
    assert len(text.splitlines()) < 200
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert imported <= {"functools", "itertools", "re", "numpy", "minillm.data"}


def test_scores_loss_and_gradients_are_the_librarys(whole):
    weights, model = pair(whole)
    inputs, targets = batch(np.random.default_rng(1))
    scores = whole.gpt(weights, inputs)
    loss = whole.cross_entropy(scores, targets)
    loss.backward()
    expected = model(inputs)
    expected_loss = F.cross_entropy(expected, targets)
    expected_loss.backward()
    np.testing.assert_allclose(scores.data, expected.data, rtol=1e-9, atol=1e-11)
    assert float(loss.data) == pytest.approx(expected_loss.item(), rel=1e-12)
    gradients = joined({name: w.grad for name, w in weights.items()})
    for mine, parameter in zip(gradients, matrices(model), strict=True):
        assert np.abs(parameter.grad).max() > 1e-4
        np.testing.assert_allclose(mine, parameter.grad, rtol=1e-8, atol=1e-11)


def test_ten_steps_of_adamw_end_where_the_librarys_end(whole):
    weights, model = pair(whole)
    optimizer = optim.AdamW(matrices(model), betas=(0.9, 0.99), weight_decay=0.01)
    averages, rng, losses, expected = {}, np.random.default_rng(2), [], []
    inputs, targets = batch(rng)
    for step in range(1, 11):
        loss = whole.cross_entropy(whole.gpt(weights, inputs), targets)
        loss.backward()
        whole.adamw(weights, averages, step, lr=0.01 * step)
        losses.append(float(loss.data))

        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.lr = 0.01 * step
        optimizer.step()
        model.zero_grad()
        expected.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    np.testing.assert_allclose(losses, expected, rtol=1e-7)
    for mine, parameter in zip(joined({n: w.data for n, w in weights.items()}), matrices(model), strict=True):
        np.testing.assert_allclose(mine, parameter.data, rtol=1e-5, atol=1e-7)


def test_it_writes_what_the_library_writes_with_the_same_random_numbers(whole):
    weights, model = pair(whole)
    tokenizer = CharTokenizer.train(["abcdefghij"])
    assert tokenizer.vocab_size == V and tokenizer.eos_id == 0
    reasons = set()
    for seed in range(12):
        texts = whole.write(weights, np.random.default_rng(seed).spawn(1)[0], temperature=0.8, limit=T - 1)
        config = GenerationConfig(temperature=0.8, max_new_tokens=T - 1)
        expected = generate(model, tokenizer, [0], config, rng=np.random.default_rng(seed))
        assert texts == expected.ids
        reasons.add(expected.finish_reason)
    assert reasons == {"eos", "length"}


def test_it_writes_on_when_the_text_is_longer_than_its_context(whole):
    weights, _ = pair(whole)
    weights["token"].data[0] = 0  # the end is no likelier than others
    longest = max((whole.write(weights, np.random.default_rng(seed), 0.5, 3 * T) for seed in range(20)), key=len)
    assert len(longest) > T and 0 not in longest[:-1]


def test_words_that_it_does_not_know_are_spelled(whole):
    text = 'Mia said: "No,  dog!"\n'
    vocabulary = ["<end>", "Mia", " said", ":", '"', "No", ",", " ", "!", "\n", "d", "o", "g"]
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokens = [vocabulary[i] for i in whole.encode(text, ids)]
    assert tokens == ["Mia", " said", ":", " ", '"', "No", ",", " ", " ", "d", "o", "g", "!", '"', "\n"]


def test_a_tensor_that_is_used_twice_gets_both_gradients(whole):
    a = whole.Tensor(np.array([[2.0, 3.0]]))
    b = a + a
    d = b + b * 3.0 + b  # b is used by three, of which two are older than the sum
    d.backward()
    np.testing.assert_array_equal(a.grad, [[10.0, 10.0]])


def test_it_learns(whole, capsys):
    whole.T, whole.C, whole.H, whole.LAYERS = 32, 32, 2, 1
    whole.main(n_stories=400, steps=100, batch=8, learning_rate=0.02)
    out = capsys.readouterr().out
    numbers = [float(word.rstrip(",;")) for word in out.split() if word.rstrip(",;").replace(".", "").isdigit()]
    guess, floor, _, first, _, second, unseen, again = numbers[:8]
    assert guess > first > second > floor == again
    assert floor < unseen < 0.5 * guess


def test_axes_in_another_order_come_back(whole):
    x = whole.Tensor(np.zeros((2, 3, 4)))
    y = x.transpose(1, 2, 0)
    dy = np.arange(24.0).reshape(3, 4, 2)
    (dx,) = y.chain_rule(dy)
    np.testing.assert_array_equal(dx, np.moveaxis(dy, 2, 0))


def test_what_has_no_probability_is_never_written(whole, monkeypatch):
    class Lowest:
        def random(self):
            return 0.0

    monkeypatch.setattr(whole, "gpt", lambda weights, ids: whole.Tensor(np.array([[[-np.inf, 0.0, -np.inf]]])))
    assert whole.write({}, Lowest(), limit=3) == [1, 1, 1]
