"""The mean over all tokens, whatever the batches, and what follows from it."""

import dataclasses
import doctest
import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minillm import models, nn
from minillm.tensor import Tensor
from minillm.tokenizer import CharTokenizer
from minillm.training.evaluate import Evaluation, answer_loss, evaluate, evaluating, next_token_loss

PROBABILITIES = np.array([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4], [0.97, 0.01, 0.01, 0.01], [0.25] * 4])


class Known(nn.Module):
    """p(next | token) as in the table."""

    def __init__(self):
        self.logits = Tensor(np.log(PROBABILITIES), requires_grad=True)
        self.seen = []

    def forward(self, ids):
        self.seen.append((self.training, np.shape(ids)))
        return self.logits[ids]


def batches(sizes):
    rng = np.random.default_rng(0)
    for rows, length in sizes:
        x, y = rng.integers(0, 4, size=(2, rows, length))
        y[rng.random(y.shape) < 0.4] = -100
        yield x, y


def test_docstring_examples():
    assert doctest.testmod(sys.modules["minillm.training.evaluate"]).failed == 0


def test_the_mean_is_over_all_counted_targets():
    sizes = [(3, 7), (1, 2), (5, 1), (2, 30)]
    expected = [
        -math.log(PROBABILITIES[a, b])
        for x, y in batches(sizes)
        for a, b in zip(x.ravel(), y.ravel(), strict=True)
        if b != -100
    ]
    result = evaluate(Known(), batches(sizes), floor=0.5)
    assert result.tokens == len(expected)
    assert result.loss == pytest.approx(np.mean(expected), rel=1e-12)
    assert result.perplexity == pytest.approx(math.exp(np.mean(expected)), rel=1e-12)
    assert result.above_floor == pytest.approx(np.mean(expected) - 0.5, rel=1e-12)
    assert result.bits_per_byte is None and result.tokens_per_s > 0


def test_bytes_are_those_of_the_text_and_special_tokens_are_none():
    tokenizer = CharTokenizer.train(["aé"])
    ids = {tokenizer.decode([i]): i for i in range(tokenizer.vocab_size)}
    y = np.array([[ids["a"], ids["é"], ids["é"], tokenizer.eos_id, -100]])
    x = np.zeros_like(y)
    result = evaluate(Known(), [(x, y)], tokenizer=tokenizer)
    assert result.tokens == 4 and result.bytes == 1 + 2 + 2
    nats = -np.log(PROBABILITIES[0, y[0, :4]]).sum()
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / 5, rel=1e-12)


def test_nothing_is_recorded_and_the_mode_comes_back():
    model = Known()
    evaluate(model, batches([(1, 9)]))
    assert model.training and model.seen == [(False, (1, 9))] and model.logits.grad is None
    model.eval()
    evaluate(model, batches([(1, 9)]))
    assert not model.training
    model.train()
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training
        raise ZeroDivisionError
    assert model.training


def test_a_part_that_was_in_evaluation_mode_stays_there():
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    model[0].eval()
    with pytest.raises(KeyError), evaluating(model), evaluating(model[1]):
        assert not (model.training or model[0].training or model[1].training)
        raise KeyError
    assert model.training and model[1].training and not model[0].training


def test_evaluating_is_the_thread_s_own():
    model, inside, seen = nn.Dropout(0.5, rng=0), threading.Event(), threading.Event()

    def other():
        with evaluating(model):
            inside.set()
            seen.wait()
            return model.training, (model(Tensor(np.ones(99))).data == 1).all()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(other)
        inside.wait()
        assert model.training and (model(Tensor(np.ones(99))).data == 0).any()
        with evaluating(model):  # overlapping, and left in another order than entered
            seen.set()
            assert answer.result() == (False, True)
        assert model.training


def test_a_batch_may_have_several_inputs():
    class Two(Known):
        def forward(self, ids, decoder_ids):
            return self.logits[decoder_ids]

    (x, y) = next(batches([(2, 9)]))
    loss = next_token_loss(Two(), (np.zeros((2, 3), int), x, y))
    loss.backward()
    assert loss.item() == pytest.approx(evaluate(Known(), [(x, y)]).loss, rel=1e-12)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (models.Llama, models.LlamaConfig(20, 8, 12, 1, 2, max_position_embeddings=9)),
        (models.GPT2, models.GPT2Config(20, n_positions=9, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0)),
        (models.RecurrentLM, models.RecurrentLMConfig(20, 8, 1)),
        (models.T5, models.T5Config(20, 8, 4, 12, 1, num_heads=2)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_where_little_is_asked_little_is_scored(kind, config, tied, monkeypatch):
    """The same loss and gradients, from fewer scores; and a text's answers are weighed in nats."""
    model = kind(dataclasses.replace(config, tie_word_embeddings=tied), rng=0).astype(np.float64).eval()
    rng = np.random.default_rng(0)
    inputs = [rng.integers(1, 20, (3, 9)) for _ in range(1 + model.is_encoder_decoder)]
    asked = rng.random((3, 9)) < 0.3
    batch = (*inputs, np.where(asked, rng.integers(0, 20, (3, 9)), -100))
    whole = next_token_loss(model, batch)
    whole.backward()
    gradients = [p.grad.data for p in model.parameters()]
    model.zero_grad()
    shapes, scores = [], model.scores
    monkeypatch.setattr(model, "scores", lambda x: shapes.append(x.shape) or scores(x))
    loss = answer_loss(model, batch)
    loss.backward()
    assert shapes == [(asked.sum(), 8)] and loss.item() == pytest.approx(whole.item(), abs=1e-12)
    for p, expected in zip(model.parameters(), gradients, strict=True):
        np.testing.assert_allclose(p.grad.data, expected, atol=1e-12)
    assert str(evaluate(model, [batch], loss=answer_loss)).startswith(f"loss {loss.item():.4f} nats per token")


def test_a_plain_text_says_nothing_of_a_model_with_an_encoder():
    class WithEncoder(Known):
        is_encoder_decoder = True

    with pytest.raises(ValueError, match="WithEncoder reads a question and writes an answer"):
        evaluate(WithEncoder(), batches([(2, 9)]))


def test_batches_without_targets():
    x = np.zeros((2, 3), int)
    with_some = evaluate(Known(), [(x, np.full((2, 3), -100)), (x[:1, :1], np.array([[2]]))])
    assert with_some.tokens == 1 and with_some.loss == pytest.approx(math.log(8), rel=1e-12)
    with pytest.raises(ValueError, match="evaluate: the batches hold no target to predict"):
        evaluate(Known(), [(x, np.full((2, 3), -100))])


def test_an_evaluation_as_text():
    text = str(Evaluation(loss=1.25, tokens=1000, seconds=0.5, floor=1.0, bytes=4000))
    assert text == (
        "loss 1.2500 nats per token, 0.2500 above the floor of 1.0000; perplexity 3.49; 0.4508 bits per byte; "
        "1,000 tokens at 2,000 a second"
    )
    assert Evaluation(loss=900.0, tokens=1, seconds=1.0).perplexity == math.inf
