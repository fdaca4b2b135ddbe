"""Each step equal to the logits processor of transformers, greedy text and beam search equal to its generate."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.generation import logits_process as theirs  # noqa: E402

from minillm.generation import GenerationConfig, generate_batch  # noqa: E402
from minillm.generation import processors as steps  # noqa: E402
from tests.generate_mocks import MockCache, MockTokenizer  # noqa: E402

TOKENIZER = MockTokenizer("abcdefghijklmnopqrs")  # and the end of text: 20 tokens
EOS, V = TOKENIZER.eos_id, TOKENIZER.vocab_size


# ---- the steps -------------------------------------------------------------------------------------------------------


def logits_and_past(seed, B=4, V=300, T=40):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=rng.uniform(0.5, 5), size=(B, V)).astype(np.float32)
    return logits, rng.integers(0, V // 8, (B, T))


STEPS = {
    "temperature": (
        lambda logits, past: steps.apply_temperature(logits, 0.7),
        lambda: theirs.TemperatureLogitsWarper(0.7),
    ),
    "top_k": (lambda logits, past: steps.keep_top_k(logits, 17), lambda: theirs.TopKLogitsWarper(17)),
    "top_k of one": (lambda logits, past: steps.keep_top_k(logits, 1), lambda: theirs.TopKLogitsWarper(1)),
    "top_k of all": (lambda logits, past: steps.keep_top_k(logits, 999), lambda: theirs.TopKLogitsWarper(999)),
    "top_p": (lambda logits, past: steps.keep_top_p(logits, 0.9), lambda: theirs.TopPLogitsWarper(0.9)),
    "small top_p": (lambda logits, past: steps.keep_top_p(logits, 0.05), lambda: theirs.TopPLogitsWarper(0.05)),
    "min_p": (lambda logits, past: steps.keep_min_p(logits, 0.08), lambda: theirs.MinPLogitsWarper(0.08)),
    "typical": (lambda logits, past: steps.keep_typical(logits, 0.8), lambda: theirs.TypicalLogitsWarper(0.8)),
    "small typical": (lambda logits, past: steps.keep_typical(logits, 0.1), lambda: theirs.TypicalLogitsWarper(0.1)),
    "repetition": (
        lambda logits, past: steps.penalize_repetition(logits, past, 1.7),
        lambda: theirs.RepetitionPenaltyLogitsProcessor(1.7),
    ),
    "repetition, encouraged": (
        lambda logits, past: steps.penalize_repetition(logits, past, 0.6),
        lambda: theirs.RepetitionPenaltyLogitsProcessor(0.6),
    ),
    **{
        f"ngrams of {size}": (
            lambda logits, past, size=size: steps.forbid_repeated_ngrams(logits, past, size),
            lambda size=size: theirs.NoRepeatNGramLogitsProcessor(size),
        )
        for size in (1, 2, 3)
    },
    "bias": (
        lambda logits, past: steps.add_bias(logits, {3: 2.5, 7: -1.0}),
        lambda: theirs.SequenceBiasLogitsProcessor([[[3], 2.5], [[7], -1.0]]),
    ),
    "min_new_tokens": (
        lambda logits, past: steps.penalties(GenerationConfig(min_new_tokens=5), 36, [2, 9], 300, 300)[0](logits, past),
        lambda: theirs.MinNewTokensLengthLogitsProcessor(36, 5, [2, 9]),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_equals_theirs(name):
    ours, make = STEPS[name]
    changed = False
    for seed in range(20):
        logits, past = logits_and_past(seed)
        expected = make()(torch.tensor(past), torch.tensor(logits)).numpy()
        actual = ours(logits, past)
        assert actual.dtype == np.float32
        assert np.array_equal(actual == -np.inf, expected == -np.inf)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
        changed |= not np.array_equal(actual, logits)
    assert changed or name == "top_k of all"


def test_all_steps_in_a_row():
    """The documented order is theirs as well."""
    config = GenerationConfig(
        repetition_penalty=1.3, no_repeat_ngram_size=2, logit_bias={3: 2.5}, temperature=0.8, top_k=40, top_p=0.9,
        min_p=0.02, typical_p=0.95,
    )  # fmt: skip
    chain = theirs.LogitsProcessorList(
        [
            theirs.RepetitionPenaltyLogitsProcessor(1.3),
            theirs.NoRepeatNGramLogitsProcessor(2),
            theirs.SequenceBiasLogitsProcessor([[[3], 2.5]]),
            theirs.TemperatureLogitsWarper(0.8),
            theirs.TopKLogitsWarper(40),
            theirs.TopPLogitsWarper(0.9),
            theirs.MinPLogitsWarper(0.02),
            theirs.TypicalLogitsWarper(0.95),
        ]
    )
    for seed in range(20):
        logits, past = logits_and_past(seed)
        actual = logits
        for step in steps.penalties(config, 10, [], 300, 300):
            actual = step(actual, past)
        for keep in steps.filters(config):
            actual = keep(actual)
        expected = chain(torch.tensor(past), torch.tensor(logits)).numpy()
        assert np.array_equal(actual == -np.inf, expected == -np.inf)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


# ---- whole texts -----------------------------------------------------------------------------------------------------


class Wrapped:
    """A model of transformers behind our small interface; the cache holds ids, so that every answer is recomputed."""

    training = False

    def __init__(self, model):
        self.model, self.context = model, model.config.n_positions

    def new_cache(self, batch_size, length, starts=None):
        return MockCache(
            np.zeros((batch_size, 0), int), np.zeros(batch_size, int) if starts is None else starts, length
        )

    def next_logits(self, ids, cache):
        cache.ids = np.concatenate([cache.ids, ids], axis=1)
        places = np.arange(cache.length) - cache.starts[:, None]
        with torch.no_grad():
            logits = self.model(
                torch.tensor(cache.ids),
                attention_mask=torch.tensor(places >= 0).long(),
                position_ids=torch.tensor(places.clip(0)),
            ).logits
        return logits[:, -1].numpy()


def gpt2(seed):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=24, n_embd=16, n_layer=1, n_head=2, initializer_range=0.4, bos_token_id=EOS,
        eos_token_id=EOS, pad_token_id=EOS,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


def their_texts(model, ids, **options):
    """What transformers generates after the prompt, cut after the end of text, and the scores of its beams."""
    options = dict(do_sample=False, output_scores=True, return_dict_in_generate=True) | options
    out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long(), **options)
    texts = [row[len(ids) :].tolist() for row in out.sequences]
    texts = [row[: row.index(EOS) + 1] if EOS in row else row for row in texts]
    scores = out.sequences_scores.tolist() if options.get("num_beams", 1) > 1 else None
    return texts, scores


@pytest.mark.parametrize(
    "changes",
    [{}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 6}],
    ids=["plain", "repetition", "ngrams", "min_new_tokens"],
)
def test_greedy_text(changes):
    config = GenerationConfig(temperature=0, max_new_tokens=12, **changes)
    prompts = ["ab", "cdefg", "a"]
    for seed in range(3):
        model = gpt2(seed)
        results = generate_batch(Wrapped(model), TOKENIZER, prompts, config)
        for result in results:
            assert [result.ids] == their_texts(model, result.prompt_ids, max_new_tokens=12, **changes)[0]


BEAMS = {
    "plain": {},
    "five": {"num_beams": 5, "n": 5},
    "short ones": {"length_penalty": 0.0},
    "long ones": {"length_penalty": 2.0},
    "shorter ones": {"length_penalty": -1.0},
    "early": {"early_stopping": True},
    "never": {"early_stopping": "never"},
    "never, long ones": {"early_stopping": "never", "length_penalty": 1.7},
    "penalties": {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "min_new_tokens": 3},
    "two ends": {"eos_token_id": (EOS, 3)},
    "one token": {"max_new_tokens": 1},
}


@pytest.mark.parametrize("name", BEAMS)
def test_beam_search(name):
    changes = {"max_new_tokens": 10, "num_beams": 3, "n": 3} | BEAMS[name]
    config = GenerationConfig(**changes)
    options = {k: v for k, v in changes.items() if k not in ("n", "eos_token_id")}
    ends = list(changes.get("eos_token_id", (EOS,)))
    reasons = set()
    for seed in range(3):
        model = gpt2(seed)
        results = generate_batch(Wrapped(model), TOKENIZER, ["ab"], config)
        texts, scores = their_texts(
            model, results[0].prompt_ids, num_return_sequences=config.n, eos_token_id=ends, **options
        )
        texts = [row[: min((row.index(e) for e in ends if e in row), default=len(row)) + 1] for row in texts]
        assert [result.ids for result in results] == texts
        assert [result.score for result in results] == pytest.approx(scores, rel=3e-7, abs=1e-5), "float32 over there"
        for result in results:
            assert result.finish_reason == ("eos" if result.ids[-1] in ends else "length")
            if name == "plain":
                assert result.score == pytest.approx(sum(result.logprobs) / len(result.ids), abs=1e-6)
        reasons |= {result.finish_reason for result in results}
    assert "length" in reasons or name in ("short ones", "shorter ones", "early"), "some texts go to the limit"


def test_a_file_of_ours_is_read_by_transformers(tmp_path):
    config = GenerationConfig(
        temperature=0.7, top_p=0.9, max_new_tokens=9, stop="x", eos_token_id=1, end_of_turn_token_id=2, seed=5,
        frequency_penalty=0.5, logit_bias={3: 2.0},
    )  # fmt: skip
    config.save(tmp_path)
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert (theirs.do_sample, theirs.temperature, theirs.top_k, theirs.top_p) == (True, 0.7, 0, 0.9)
    assert (theirs.max_new_tokens, theirs.eos_token_id, theirs.stop_strings) == (9, [1, 2], ["x"])
    assert theirs.sequence_bias == [[[3], 2.0]]
    assert GenerationConfig.load(tmp_path) == config


@pytest.mark.parametrize(
    "options", [{}, {"do_sample": True, "temperature": 0.6}, {"num_beams": 3, "eos_token_id": [4]}]
)
def test_a_file_of_transformers_is_read_here(options, tmp_path):
    theirs = transformers.GenerationConfig(**options)
    theirs.save_pretrained(tmp_path)
    config = GenerationConfig.load(tmp_path)
    assert config.temperature == (0.6 if options.get("do_sample") else 0)
    assert config.num_beams == options.get("num_beams", 1)
    assert config.eos_token_id == (tuple(options["eos_token_id"]) if "eos_token_id" in options else None)
