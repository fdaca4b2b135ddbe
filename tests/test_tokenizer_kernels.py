"""The compiled loops of the tokenizer equal their definitions: splitting, counting, learning, merging."""

from itertools import product

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.kernels.text.split import code_point_classes
from minillm.kernels.text.tables import padded
from minillm.tokenizer.bpe import Merges, join_pairs
from minillm.tokenizer.patterns import PATTERNS, expression
from tests.pairs import pair

SPLIT, UNIQUE, LEARN = pair("split"), pair("unique_pieces"), pair("learn_merges")
ENCODE, JOIN = pair("encode_pieces"), pair("join_tokens")

# All that the patterns ask of a character. Two characters with the same answers are alike to every pattern, in every
# context: below, each of KINDS is tried in all contexts, and every code point is shown to be like one of them.
QUESTIONS = [
    r"[^\r\n\p{L}\p{N}]", r"[^\s\p{L}\p{N}]", r"\p{L}", r"\p{N}", r"\s", r"\S", r"[\r\n]", "[sdmt]", "'", " ",
    "l", "v", "r", "e",
]  # fmt: skip
KINDS = ["a", "s", "l", "v", "r", "e", "S", "L", "V", "R", "E", "ſ", "1", " ", "\n", "\r", "\t", "!", "'"]


def joined(texts):
    return "".join(texts), np.cumsum([len(text) for text in texts], dtype=np.int64)


def test_the_patterns_ask_nothing_else():
    for pattern in PATTERNS.values():
        for part in ("(?i:", *QUESTIONS):
            pattern = pattern.replace(part, "")
        assert set(pattern) <= set("(?:!=)|+*?{1,3}"), pattern  # what is left only says how often, and in which order


def test_every_code_point_is_like_one_of_the_kinds():
    codes = np.array([*range(0xD800), *range(0xE000, 0x110000)], np.uint32)
    text = "".join(map(chr, codes))
    answers = np.zeros(0x110000, np.int64)
    for number, question in enumerate([*QUESTIONS, *(f"(?i:{question})" for question in QUESTIONS[7:])]):
        yes = np.zeros(len(codes), bool)
        for match in regex.finditer(f"(?:{question})+", text):
            yes[slice(*match.span())] = True
        answers[codes[yes]] |= 1 << number
    assert set(answers[codes].tolist()) == {int(answers[ord(kind)]) for kind in KINDS}
    classes = code_point_classes()  # all that the loops know of it, but for the letters and signs they name
    for kind in KINDS:
        alike = classes[codes][answers[codes] == answers[ord(kind)]]
        assert (alike == classes[ord(kind)]).all(), kind


@pytest.mark.parametrize("pattern", PATTERNS)
def test_split_equals_regex_on_every_string_of_up_to_four_kinds(pattern):
    texts = ["".join(kinds) for n in range(5) for kinds in product(KINDS, repeat=n)]
    text, stops = joined(texts)
    fast, plain = (split(text, stops, pattern) for split in SPLIT)
    if not np.array_equal(fast, plain):
        bad = min(set(fast.tolist()) ^ set(plain.tolist()))
        raise AssertionError(f"{pattern} differs on {texts[np.searchsorted(stops, bad)]!r}")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_split_equals_regex_on_code_points_of_every_block(pattern):
    """The first, all where the class changes, and some of each stretch; the classes of all are looked at above."""
    classes = code_point_classes()
    changes = np.flatnonzero(classes[1:] != classes[:-1]) + 1
    some = {*range(0x3000), *(changes - 1).tolist(), *changes.tolist(), *range(0, 0x110000, 89)}
    codes = sorted(some - {*range(0xD800, 0xE000)})
    text = "".join("a? ??1?\n?!'?".replace("?", chr(code)) for code in codes)
    pieces = expression(pattern).findall(text)
    expected = np.cumsum(np.fromiter(map(len, pieces), np.int64))
    assert expected[-1] == len(text)  # nothing was left out between two pieces
    assert np.array_equal(SPLIT[0](text, np.array([len(text)]), pattern), expected)


@settings(deadline=None, max_examples=100)
@given(texts=st.lists(st.text(st.sampled_from(KINDS), max_size=30)), pattern=st.sampled_from([*PATTERNS]))
def test_split_equals_regex_on_long_strings(texts, pattern):
    fast, plain = (split(*joined(texts), pattern) for split in SPLIT)
    assert np.array_equal(fast, plain)


def test_classes_cover_what_regex_says():
    classes = code_point_classes()
    assert [int(classes[ord(c)]) for c in "aé猫1²Ⅷ \n\u3000!_'\u0301"] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 0, 0, 0]


def pieces_of(words):
    return np.frombuffer(b"".join(words), np.uint8), np.cumsum([len(word) for word in words], dtype=np.int64)


words = st.lists(st.binary(min_size=1, max_size=12) | st.text("ab", min_size=1).map(str.encode), max_size=40)


@settings(deadline=None, max_examples=100)
@given(words=words, seed=st.integers(0, 9))
def test_unique_pieces_equal_their_definition(words, seed):
    data, ends = pieces_of(words)
    counts = np.random.default_rng(seed).integers(1, 100, len(words))
    for fast, plain in zip(*(unique(data, ends, counts) for unique in UNIQUE), strict=True):
        assert np.array_equal(fast, plain)


def test_unique_pieces_grow_beyond_their_first_table():
    words = [str(i % 3000).encode() * (1 + i % 4) for i in range(9000)]
    data, ends = pieces_of(words)
    kept, kept_ends, counts = UNIQUE[0](data, ends, np.ones(9000, np.int64))
    assert len(kept_ends) == len(set(words))
    assert counts.sum() == 9000
    assert kept[: kept_ends[0]].tobytes() == words[0]


def as_ids(data, *rest):
    """Pieces of bytes as pieces of ids: each byte its own."""
    return data.astype(np.int32), *rest


@settings(deadline=None, max_examples=100)
@given(words=words, n=st.integers(0, 30), least=st.integers(1, 3))
def test_learned_merges_equal_their_definition(words, n, least):
    pieces = UNIQUE[1](*pieces_of(words), np.ones(len(words), np.int64))
    fast, plain = (learn(*as_ids(*pieces), 256, n, least) for learn in LEARN)
    assert np.array_equal(fast, plain)


def test_learning_grows_its_tables():
    rng = np.random.default_rng(0)
    pieces = [rng.integers(0, 256, 12).astype(np.uint8).tobytes() for _ in range(300)]  # about 3,000 pairs
    fast, plain = (learn(*as_ids(*pieces_of(pieces)), np.arange(1, 301), 256, 200, 1) for learn in LEARN)
    assert np.array_equal(fast, plain)


def test_progress_is_called_up_to_the_last_merge():
    calls = []
    for learn in LEARN:
        learn(*as_ids(*pieces_of([b"abcabc" * 30])), np.array([5]), 256, 4, 1, lambda *a: calls.append(a))
        assert calls.pop() == (4, 4)


def random_table(rng, alphabet=4, merges=30, whole=()):
    """Merges that no training would learn: of random tokens, in random order."""
    tokens, pairs, seen = {i: bytes([97 + i]) for i in range(alphabet)}, {}, {}
    for _ in range(merges):
        left, right = rng.choice(len(tokens), 2).tolist()
        word = tokens[left] + tokens[right]
        if len(word) > 12 or (left, right) in pairs:
            continue
        pairs[left, right] = new = seen.setdefault(word, len(tokens))
        tokens[new] = word
    byte_ids = [97 <= b < 97 + alphabet and b - 97 or 0 for b in range(256)]
    order = rng.permutation(len(pairs)).tolist()
    return Merges(byte_ids, [*pairs], [*pairs.values()], order, {word: 900 + i for i, word in enumerate(whole)})


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(0, 10_000))
def test_encoding_equals_its_definition_whatever_the_merges(data, seed):
    table = random_table(np.random.default_rng(seed), whole=[b"abab", b"cccccccccc"])
    row = data.draw(st.lists(st.text("abcd", min_size=1, max_size=90).map(str.encode) | st.just(b"abab"), max_size=8))
    fast, plain = (encode(*pieces_of(row), table) for encode in ENCODE)
    assert np.array_equal(fast[0], plain[0]) and np.array_equal(fast[1], plain[1])


def test_a_token_that_its_own_merges_do_not_reach_is_not_taken_whole():
    # "abc" is a + bc, but ab goes first: the merges give ab, c
    table = Merges([*range(256)], [(97, 98), (98, 99), (97, 257)], [256, 257, 258])
    assert [encode(*pieces_of([b"abc"]), table)[0].tolist() for encode in ENCODE] == [[256, 99]] * 2


def test_merge_steps_of_a_piece():
    table = Merges([*range(256)], [(97, 98), (256, 97)], [256, 257])
    assert [*join_pairs([97, 98, 97, 98], table.pairs)] == [[97, 98, 97, 98], [256, 97, 98], [256, 256]]


@settings(deadline=None, max_examples=100)
@given(tokens=st.lists(st.none() | st.binary(max_size=20), min_size=1), numbers=st.lists(st.integers(-1, 20)))
def test_joined_tokens_equal_their_definition(tokens, numbers):
    ends = np.cumsum([len(token or b"") for token in tokens], dtype=np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    ends = np.where([token is None for token in tokens], -1, ends)
    data = padded(np.frombuffer(b"".join(token or b"" for token in tokens), np.uint8))
    fast, plain = (join(np.array(numbers, np.int64), data, starts, ends) for join in JOIN)
    known = all(0 <= id < len(tokens) and tokens[id] is not None for id in numbers)
    assert (fast is None) == (plain is None) == (not known)
    if known:
        assert fast.tobytes() == plain.tobytes() == b"".join(tokens[id] for id in numbers)
