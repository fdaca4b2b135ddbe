"""Beam search against an exhaustive search, and how its texts end."""

import itertools

import numpy as np
import pytest

from minillm.generation import GenerationConfig, generate, generate_batch
from minillm.generation.processors import log_sum_exp
from tests.generate_mocks import MockModel, MockTokenizer, ScriptedModel

TOKENIZER = MockTokenizer("abc")
EOS, V = TOKENIZER.eos_id, TOKENIZER.vocab_size


def logprobs(model, ids):
    logits = model.scores(ids)[None]
    return (logits - log_sum_exp(logits)[:, None])[0]


def all_texts(model, prompt, steps):
    """Every text of up to `steps` tokens that ends with EOS or at the limit, and its log-probability."""
    for length in range(1, steps + 1):
        for ids in itertools.product(range(V), repeat=length):
            if EOS not in ids[:-1] and (ids[-1] == EOS or length == steps):
                yield sum(logprobs(model, [*prompt, *ids[:i]])[ids[i]] for i in range(length)), list(ids)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_many_beams_are_an_exhaustive_search(length_penalty):
    config = GenerationConfig(
        num_beams=200, n=5, max_new_tokens=4, length_penalty=length_penalty, early_stopping="never"
    )
    for seed in range(3):
        model = MockModel(V, seed=seed, sharpness=1)
        found = generate_batch(model, TOKENIZER, ["ab"], config)
        texts = [(logprob / len(ids) ** length_penalty, ids) for logprob, ids in all_texts(model, [EOS, 0, 1], 4)]
        best = sorted(texts, reverse=True)[:5]
        assert [result.ids for result in found] == [ids for _, ids in best]
        assert [result.score for result in found] == pytest.approx([score for score, _ in best])


def test_beams_find_what_greedy_misses():
    """a is likelier than b at first, but after b the text is certain: 0.6 x 1/4 < 0.4 x 1."""

    class Garden(MockModel):
        def scores(self, ids):
            p = {EOS: [0.55, 0.43, 0.01, 0.01], 0: [0.25] * 4, 1: [0.001, 0.001, 0.997, 0.001]}
            return np.log(p.get(ids[-1], [0.001, 0.001, 0.001, 0.997]))

    model = Garden(V)
    greedy = generate(model, TOKENIZER, "", GenerationConfig(temperature=0, max_new_tokens=3))
    beam = generate(model, TOKENIZER, "", GenerationConfig(num_beams=2, max_new_tokens=3))
    assert greedy.ids[0] == 0 and beam.text == "bc" and beam.finish_reason == "eos"
    assert sum(beam.logprobs) == pytest.approx(np.log(0.43 * 0.997 * 0.997))
    assert beam.score == pytest.approx(sum(beam.logprobs) / 3)
    assert beam.stop_probs == pytest.approx([0.01, 0.001, 0.997])


def test_what_is_reported_of_a_beam():
    model, config = MockModel(V), GenerationConfig(num_beams=3, n=2, max_new_tokens=6, logprobs=2, echo=True)
    results = generate_batch(model, TOKENIZER, ["ab", "c"], config)
    assert [result.index for result in results] == [0, 1, 2, 3]
    assert [len(result.prompt_logprobs) for result in results] == [3, 3, 2, 2]
    for result in results:
        text = result.prompt_ids.copy()
        for id, logprob, stop, top in zip(
            result.ids, result.logprobs, result.stop_probs, result.top_logprobs, strict=True
        ):
            expected = logprobs(model, text)
            assert (logprob, np.log(stop)) == pytest.approx((expected[id], expected[EOS]))
            assert list(top) == np.argsort(-expected)[:2].tolist()
            text.append(id)
        assert result.text == TOKENIZER.decode([id for id in text if id != EOS])
    assert results[0].score >= results[1].score
    assert generate_batch(MockModel(V), TOKENIZER, ["c"], config.replace(echo=False))[0].ids == results[2].ids


def test_how_the_texts_of_beams_end():
    beams = GenerationConfig(num_beams=2, max_new_tokens=8, min_new_tokens=0)

    def best(model, config=beams, **options):
        result = generate(model, TOKENIZER, "", config, **options)
        return result.text, result.finish_reason

    model = ScriptedModel(V, [*TOKENIZER.encode("abcabc"), EOS])
    assert best(model) == ("abcabc", "eos")
    assert best(model, beams.replace(stop="ca")) == ("ab", "stop")
    assert best(model, beams.replace(max_new_tokens=4)) == ("abca", "length")
    assert best(ScriptedModel(V, TOKENIZER.encode("abc"), context=5)) == ("abcab", "context")
    assert best(model, criterion=lambda ids, text: text.endswith("abca")) == ("abca", "criterion")
    assert best(model, cancel=lambda: True) == ("", "cancelled")
    asked = iter([False] * 3 + [True])
    assert best(model, cancel=lambda: next(asked)) == ("abc", "cancelled")
    assert best(model, beams.replace(max_new_tokens=0)) == ("", "length")
    with pytest.raises(ValueError, match="every token is forbidden"):
        best(model, beams.replace(no_repeat_ngram_size=1, eos_token_id=()))


def test_fewer_texts_than_were_asked_for():
    config = GenerationConfig(num_beams=9, n=9, max_new_tokens=1)
    results = generate_batch(MockModel(V), TOKENIZER, ["a", "b"], config)
    assert [result.index for result in results] == [0, 1, 2, 3, 9, 10, 11, 12], "there are V = 4 texts of one token"


def test_tokens_that_the_tokenizer_does_not_know_are_not_found():
    model = MockModel(V + 30, sharpness=0.1)
    results = generate_batch(model, TOKENIZER, [""], GenerationConfig(num_beams=8, n=8, max_new_tokens=4))
    assert max(max(result.ids) for result in results) < V
