"""Each step against its definition, spelled out for one row with Python loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.generation import GenerationConfig
from minillm.generation import processors as steps

seeds = st.integers(0, 2**32 - 1)
INF = np.inf


def random_logits(seed, B=3, V=40, dtype=np.float32):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=rng.uniform(0.1, 6), size=(B, V)).astype(dtype)
    logits[rng.random((B, V)) < rng.choice([0, 0.3])] = -INF  # as an earlier step may have left them
    logits[:, 0] = 0
    return logits


def softmax(row):
    weights = np.exp(row.astype(np.float64) - row.max())
    return weights / weights.sum()


def kept(logits):
    return [set(np.flatnonzero(row > -INF).tolist()) for row in logits]


def nucleus(row, order, p):
    """Take tokens in an order until their probabilities reach p."""
    probs, chosen, mass = softmax(row), set(), 0.0
    for id in order:
        chosen.add(int(id))
        mass += probs[id]
        if mass >= p:
            break
    return {id for id in chosen if row[id] > -INF}


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 60))
def test_top_k(seed, k):
    logits = random_logits(seed)
    before = logits.copy()
    after = steps.keep_top_k(logits, k)
    for row, keeps in zip(before, kept(after), strict=True):
        assert keeps == {int(i) for i in np.argsort(-row)[:k] if row[i] > -INF}
    assert np.array_equal(logits, before), "the input is not changed"
    assert np.array_equal(after[after > -INF], before[after > -INF]) and after.dtype == logits.dtype


@settings(deadline=None, max_examples=60)
@given(seeds, st.floats(0, 0.999))
def test_top_p(seed, p):
    logits = random_logits(seed, dtype=np.float64)
    for row, keeps in zip(logits, kept(steps.keep_top_p(logits, p)), strict=True):
        assert keeps == nucleus(row, np.argsort(-row), p)


@settings(deadline=None, max_examples=60)
@given(seeds, st.floats(0.01, 0.999))
def test_typical(seed, p):
    logits = random_logits(seed, dtype=np.float64)
    for row, keeps in zip(logits, kept(steps.keep_typical(logits, p)), strict=True):
        probs = softmax(row)
        surprise = np.array([-np.log(q) if q > 0 else INF for q in probs])
        entropy = sum(q * s for q, s in zip(probs, surprise, strict=True) if q > 0)
        assert keeps == nucleus(row, np.argsort(abs(surprise - entropy)), p)


@settings(deadline=None, max_examples=60)
@given(seeds, st.floats(0.001, 1))
def test_min_p(seed, p):
    logits = random_logits(seed, dtype=np.float64)
    for row, keeps in zip(logits, kept(steps.keep_min_p(logits, p)), strict=True):
        probs = softmax(row)
        assert keeps == set(np.flatnonzero(probs >= p * probs.max() * (1 - 1e-12)).tolist())


def test_a_flat_distribution_keeps_what_it_must():
    flat = np.zeros((2, 5))
    assert kept(steps.keep_top_p(flat, 0.0)) == kept(flat), "equally likely tokens are kept together"
    assert kept(steps.keep_top_k(flat, 2)) == kept(flat)
    assert kept(steps.keep_typical(flat, 0.2)) == kept(flat)
    one = np.array([[0.0, -INF, -INF]])
    for step in (steps.keep_top_p, steps.keep_typical, steps.keep_min_p):
        assert kept(step(one, 0.5)) == [{0}]


def test_penalties_by_hand():
    logits = np.array([[2.0, -1.0, 0.5, 1.0], [2.0, -1.0, 0.5, 1.0]], np.float32)
    past = np.array([[-1, 0, 1, 1], [3, 3, 3, 1]])
    repeated = steps.penalize_repetition(logits, past, 2.0)
    assert repeated.tolist() == [[1, -2, 0.5, 1], [2, -2, 0.5, 0.5]]
    counted = steps.penalize_frequency(logits, past[:, 2:], 0.25, 0.5)
    assert counted.tolist() == [[2, -2, 0.5, 1], [2, -1.75, 0.5, 0.25]]
    assert steps.penalize_frequency(logits, past[:, 4:], 0.25, 0.5).tolist() == logits.tolist()
    assert steps.add_bias(logits, {1: 3.0, 0: -1.0}).tolist() == [[1, 2, 0.5, 1]] * 2
    assert steps.forbid(logits, [1, 2]).tolist() == [[2, -INF, -INF, 1]] * 2
    assert logits[0].tolist() == [2, -1, 0.5, 1] and repeated.dtype == counted.dtype == np.float32


@settings(deadline=None, max_examples=80)
@given(seeds, st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 12))
def test_frequency_and_presence_by_their_formula(seed, frequency, presence, prompt_length):
    """No other library has the two together: the formula, token by token, over what was drawn after the prompt."""
    B, V, rng = 3, 7, np.random.default_rng(seed)
    logits, past = rng.normal(size=(B, V)), rng.integers(0, V, (B, 12))
    past[0, : min(4, prompt_length)] = -1  # the padding of a shorter prompt
    config = GenerationConfig(frequency_penalty=frequency, presence_penalty=presence)
    after = logits
    for step in steps.penalties(config, prompt_length, [], V, V):
        after = step(after, past)
    for row in range(B):
        drawn = past[row, prompt_length:].tolist()
        for token in range(V):
            expected = logits[row, token]
            for other in drawn:
                expected -= frequency if other == token else 0
            expected -= presence if token in drawn else 0
            assert after[row, token] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=80)
@given(seeds, st.integers(1, 5), st.integers(0, 14))
def test_repeated_ngrams(seed, size, padding):
    V, rng = 4, np.random.default_rng(seed)
    past = rng.integers(0, V, (2, 16))
    past[0, :padding] = -1
    after = steps.forbid_repeated_ngrams(np.zeros((2, V)), past, size)
    for row, keeps in zip(past, kept(after), strict=True):
        text = [int(id) for id in row if id >= 0]
        there = {tuple(text[i : i + size]) for i in range(len(text) - size + 1)}
        assert keeps == {id for id in range(V) if (*text[len(text) - size + 1 :], id) not in there or len(text) < size}


def test_padding_forbids_nothing():
    assert kept(steps.forbid_repeated_ngrams(np.zeros((1, 4)), np.array([[-1, -1, 1]]), 1)) == [{0, 2, 3}]


def test_too_short_for_an_ngram():
    assert kept(steps.forbid_repeated_ngrams(np.zeros((1, 3)), np.array([[1, 1]]), 3)) == [{0, 1, 2}]


def test_only_what_is_on_is_in_the_list():
    assert steps.filters(GenerationConfig()) == []
    assert steps.filters(GenerationConfig(temperature=0, top_k=3, typical_p=0.5)) == []
    assert steps.penalties(GenerationConfig(), 3, [0], 10, 10) == []
    everything = GenerationConfig(temperature=0.5, top_k=3, top_p=0.9, min_p=0.1, typical_p=0.9)
    names = ["apply_temperature", "keep_top_k", "keep_top_p", "keep_min_p", "keep_typical"]
    assert [step.func.__name__ for step in steps.filters(everything)] == names, "the documented order"


def test_the_order_matters_and_is_the_documented_one():
    """A bias that is added after the penalties is not penalised itself; top-k comes after the temperature."""
    config = GenerationConfig(
        repetition_penalty=2, frequency_penalty=0.5, logit_bias={1: 4.0}, temperature=0.5, top_k=2, min_new_tokens=3
    )
    logits, past = np.array([[1.0, 2.0, 3.0, 9.0]]), np.array([[0, 1]])
    for step in steps.penalties(config, prompt_length=1, stop_ids=[3], scored=4, known=4):
        logits = step(logits, past)
    assert logits.tolist() == [[0.5, 2 / 2 - 0.5 + 4, 3, -INF]]
    for step in steps.filters(config):
        logits = step(logits)
    assert logits.tolist() == [[-INF, 9, 6, -INF]]


def test_min_new_tokens_counts_from_the_prompt():
    (step,) = steps.penalties(GenerationConfig(min_new_tokens=2), 3, [0], 2, 2)
    for length, held in ((3, True), (4, True), (5, False)):
        assert (step(np.zeros((1, 2)), np.zeros((1, length), int))[0, 0] == -INF) == held


# ---- the draw --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("V", [2, 30, 3000])
def test_chi_square_of_the_draw(V):
    n = 20_000
    logits = np.random.default_rng(V).normal(scale=2, size=V).astype(np.float32)
    logits[1] = -INF
    p = softmax(logits)
    rngs = np.random.default_rng(1).spawn(100)
    rows = np.broadcast_to(logits, (100, V))
    counts = np.bincount(np.concatenate([steps.draw(rows, rngs) for _ in range(n // 100)]), minlength=V)
    assert counts[1] == 0 and counts.sum() == n
    usual = n * p >= 5  # the rare tokens are put together, as the test demands
    observed, expected = np.append(counts[usual], counts[~usual].sum()), np.append(n * p[usual], n * p[~usual].sum())
    chi2 = ((observed - expected)[expected > 0] ** 2 / expected[expected > 0]).sum()
    degrees = max(1, (expected > 0).sum() - 1)
    assert chi2 < degrees + 3.7 * np.sqrt(2 * degrees)


def test_the_point_that_is_drawn():
    """The stretches of three tokens on the line: 1/4, 0 (impossible), 3/4."""

    class Fixed:
        def __init__(self, u):
            self.u = u

        def random(self):
            return self.u

    logits = np.log(np.array([[1.0, 1e-300, 3.0]]))
    logits[0, 1] = -INF
    points = {0.0: 0, 0.2499: 0, 0.25: 2, 0.26: 2, 1 - 2**-53: 2}
    assert {u: int(steps.draw(logits, [Fixed(u)])[0]) for u in points} == points
    last = np.array([[0.0, -800.0, -INF]])  # e^-800 is 0 in floating point: a stretch of length 0
    assert steps.draw(last, [Fixed(1 - 2**-53)])[0] == 0


def test_every_token_of_a_large_vocabulary_can_be_drawn():
    """All V tokens equally likely: the first point finds the block, the second the token in it."""
    V = 2 * steps.BLOCK + 3

    class Points:
        def __init__(self, id):
            start = id // steps.BLOCK * steps.BLOCK
            size = min(steps.BLOCK, V - start)
            self.points = iter([(start + size / 2) / V, (id - start + 0.5) / size])

        def random(self):
            return next(self.points)

    ids = [0, 1, steps.BLOCK - 1, steps.BLOCK, 2 * steps.BLOCK - 1, 2 * steps.BLOCK, V - 1]
    assert steps.draw(np.zeros((len(ids), V)), [Points(id) for id in ids]).tolist() == ids


def test_the_draw_is_searchsorted_of_the_sums():
    """The definition, for one row: p = softmax, and the first i with p_0 + ... + p_i > u."""
    logits = random_logits(4, B=40)
    for row, seed in zip(logits, range(40), strict=True):
        u = np.random.default_rng(seed).random()
        expected = np.searchsorted(np.cumsum(softmax(row)), u, side="right")
        assert steps.draw(row[None], [np.random.default_rng(seed)])[0] == expected


@pytest.mark.parametrize("V", [5, 40, 3000])
def test_np_seterr_changes_nothing(V):
    """Scores so far apart that their probabilities are smaller than any float."""
    logits = np.random.default_rng(0).normal(scale=1e3, size=(3, V)).astype(np.float32)
    logits[:, 1] = -INF
    config = GenerationConfig(
        temperature=1e-3, top_k=4, top_p=0.9, min_p=1e-60, typical_p=0.9, repetition_penalty=1.5, frequency_penalty=0.1
    )

    def drawn():
        scores, past = logits, np.array([[0, 2]] * 3)
        for step in steps.penalties(config, 0, [], V, V):
            scores = step(scores, past)
        for keep in [*steps.filters(GenerationConfig(top_p=0.5, min_p=1e-60)), *steps.filters(config)]:
            scores = keep(scores)
        rngs = np.random.default_rng(1).spawn(3)
        return [*steps.draw(scores, rngs).tolist(), *steps.log_sum_exp(scores).tolist()]

    with np.errstate(all="raise"):
        careful = drawn()
    assert careful == drawn()


def test_each_row_has_random_numbers_of_its_own():
    logits = random_logits(0, B=4)
    rngs = [np.random.default_rng(i) for i in range(4)]
    together = steps.draw(logits, rngs)
    alone = [steps.draw(logits[i : i + 1], [np.random.default_rng(i)])[0] for i in range(4)]
    assert together.tolist() == alone


def test_most_likely_takes_the_first_of_several():
    assert steps.most_likely(np.array([[1.0, 3, 3], [0, -1, -2]])).tolist() == [1, 0]


def test_log_sum_exp_does_not_overflow():
    logits = np.array([[1000.0, 1000.0], [-1000.0, -INF]], np.float32)
    assert steps.log_sum_exp(logits) == pytest.approx([1000 + np.log(2), -1000])
