"""The generator with the models of this library: cache = recomputation, padded batch = one by one."""

import numpy as np
import pytest

from minillm import models
from minillm.generation import GenerationConfig, generate, generate_batch, stream
from minillm.tensor import no_grad
from tests.generate_mocks import MockTokenizer

TOKENIZER = MockTokenizer("abcdefghijklmnopqrs")
EOS, V = TOKENIZER.eos_id, TOKENIZER.vocab_size
PAD = 18
PROMPTS = ["abcde", "b", "", "fgh"]


def gpt2(rng):
    config = models.GPT2Config(vocab_size=V, n_positions=24, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3)
    return models.GPT2(config, rng).eval()


def llama(rng):
    config = models.LlamaConfig(
        vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=24, initializer_range=0.3,
    )  # fmt: skip
    return models.Llama(config, rng).eval()


def rnn(rng):
    config = models.RecurrentLMConfig(vocab_size=V, hidden_size=16, num_layers=2, window=6, initializer_range=0.5)
    return models.RecurrentLM(config, rng).eval()


def t5(rng):
    config = models.T5Config(
        vocab_size=V, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=2, initializer_factor=2.0, pad_token_id=PAD,
        decoder_start_token_id=PAD,
    )  # fmt: skip
    return models.T5(config, rng).eval()


@pytest.mark.parametrize("make", [gpt2, llama, rnn])
def test_cache_equals_recomputation(make):
    model = make(np.random.default_rng(0))
    for prompt in PROMPTS:
        result = generate(model, TOKENIZER, prompt, GenerationConfig(temperature=0, max_new_tokens=10))
        text = result.prompt_ids.copy()
        for id, logprob in zip(result.ids, result.logprobs, strict=True):
            with no_grad():
                logits = model(np.array([text])).data[0, -1].astype(np.float64)
            assert id == logits.argmax()
            assert logprob == pytest.approx(logits[id] - np.log(np.exp(logits).sum()), abs=1e-5)
            text.append(id)


@pytest.mark.parametrize("make", [gpt2, llama, rnn, t5])
def test_a_padded_batch_equals_one_by_one(make):
    """Also to the end of the context, which the rows of a padded batch reach at different steps."""
    model = make(np.random.default_rng(1))
    prompts = [prompt or "c" for prompt in PROMPTS]
    config = GenerationConfig(max_new_tokens=26, eos_token_id=(), temperature=0.8, top_k=10)
    rng = np.random.default_rng(2)
    alone = [generate(model, TOKENIZER, prompt, config, rng=rng) for prompt in prompts]
    together = generate_batch(model, TOKENIZER, prompts, config, rng=np.random.default_rng(2))
    assert [result.ids for result in together] == [result.ids for result in alone]
    assert [result.finish_reason for result in together] == [result.finish_reason for result in alone]
    for a, b in zip(alone, together, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    if make in (gpt2, llama):
        assert [len(result.ids) for result in alone] == [24 - len(result.prompt_ids) + 1 for result in alone]


@pytest.mark.parametrize("make", [gpt2, llama, rnn, t5])
def test_samples_beams_and_streams(make):
    model = make(np.random.default_rng(3))
    config = GenerationConfig(n=3, max_new_tokens=8, seed=0)
    samples = generate_batch(model, TOKENIZER, ["ab", "cde"], config)
    rng = np.random.default_rng(0)
    alone = [generate(model, TOKENIZER, p, config.replace(n=1), rng=rng).ids for p in ["ab"] * 3 + ["cde"] * 3]
    assert [result.ids for result in samples] == alone
    pieces = list(stream(model, TOKENIZER, "ab", config.replace(n=1)))
    assert sum([piece.ids for piece in pieces], []) == alone[0]
    beams = generate_batch(model, TOKENIZER, ["ab"], GenerationConfig(num_beams=4, n=4, max_new_tokens=6))
    scores = [sum(result.logprobs) / len(result.ids) for result in beams]
    assert scores == sorted(scores, reverse=True) and len({tuple(result.ids) for result in beams}) == 4
    greedy = generate(model, TOKENIZER, "ab", GenerationConfig(temperature=0, max_new_tokens=6))
    assert scores[0] >= sum(greedy.logprobs) / len(greedy.ids) - 1e-6


def test_the_answer_of_an_encoder_decoder():
    model = t5(np.random.default_rng(4))
    result = generate(model, TOKENIZER, "abcde", GenerationConfig(temperature=0, max_new_tokens=8))
    drawn = [PAD]
    for id in result.ids:
        with no_grad():
            assert id == model(np.array([TOKENIZER.encode("abcde")]), np.array([drawn])).data[0, -1].argmax()
        drawn.append(id)


@pytest.mark.parametrize("make", [gpt2, llama, rnn])
def test_echo_equals_the_forward_pass(make):
    model = make(np.random.default_rng(5))
    config = GenerationConfig(max_new_tokens=1, echo=True)
    for result in generate_batch(model, TOKENIZER, PROMPTS, config):
        with no_grad():
            logits = model(np.array([result.prompt_ids])).data[0].astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        places = range(1, len(result.prompt_ids))
        assert result.prompt_logprobs[1:] == pytest.approx(
            [expected[t - 1, result.prompt_ids[t]] for t in places], abs=1e-5
        )
