"""Unigram: segmentations drawn at random have the probabilities that the model gives them."""

import math
from collections import Counter

import numpy as np
import pytest

from minillm.tokenizer import UnigramTokenizer

SCORES = [("<unk>", 0.0), ("▁a", -1.0), ("▁", -2.0), ("a", -1.5), ("b", -1.0), ("ab", -0.7), ("▁ab", -2.5)]
WAYS = {  # every segmentation of "▁ab", and its log-probability
    ("▁ab",): -2.5,
    ("▁a", "b"): -2.0,
    ("▁", "ab"): -2.7,
    ("▁", "a", "b"): -4.5,
}


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
def test_samples_have_the_probabilities_of_the_model(alpha):
    tok, rng, n = UnigramTokenizer(SCORES, 0), np.random.default_rng(0), 4000
    drawn = Counter(tuple(tok.pieces[id][0] for id in tok.encode_sample("ab", rng, alpha)) for _ in range(n))
    weights = {way: math.exp(alpha * score) for way, score in WAYS.items()}
    assert set(drawn) <= set(WAYS)
    chi_square = 0.0
    for way, weight in weights.items():
        expected = n * weight / sum(weights.values())
        chi_square += (drawn[way] - expected) ** 2 / expected
    assert chi_square < 16.3  # 3 degrees of freedom: exceeded once in a thousand times, and the seed is fixed


def test_words_are_sampled_apart_and_unknown_characters_fused():
    tok, rng = UnigramTokenizer(SCORES, 0), np.random.default_rng(1)
    for _ in range(20):
        ids = tok.encode_sample("ab ☃☃", rng)
        assert tok.decode(ids) == "ab <unk>" and ids[-2:] == [2, 0]


def test_likelihood_and_best_ways_are_those_of_all_segmentations():
    tok = UnigramTokenizer(SCORES, 0)
    assert tok.log_likelihood("ab") == pytest.approx(math.log(sum(map(math.exp, WAYS.values()))))
    found = tok.encode_n_best("ab", 4)
    assert [tuple(tok.pieces[id][0] for id in ids) for ids, _ in found] == sorted(WAYS, key=WAYS.get, reverse=True)
    assert [score for _, score in found] == pytest.approx(sorted(WAYS.values(), reverse=True))
