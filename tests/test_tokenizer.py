"""The tokenizers: round trips, special tokens, streaming, files, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import tokenizer
from minillm.tokenizer import BPETokenizer, CharTokenizer

TEXT = "the cat sat on the mat. the cat's hat 1234 !!  \n\n  thé 猫 🐈 something longer, the end\r\n" * 3
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
PATTERNS = ["gpt2", "gpt4", "smollm2", r"\w+|\W+", r"[a-z]+"]
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(scope="module", params=PATTERNS)
def bpe(request):
    return BPETokenizer.train([TEXT], 300, SPECIALS, request.param)


@pytest.fixture(scope="module")
def char():
    return CharTokenizer.train([TEXT], SPECIALS)


@pytest.fixture(scope="module", params=["bpe", "char"])
def either(request, char):
    return char if request.param == "char" else BPETokenizer.train([TEXT], 300, SPECIALS)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(anything, max_size=4))
def test_decode_undoes_encode_and_batch_equals_single(bpe, texts):
    rows = bpe.encode_batch(texts)
    assert rows == [bpe.encode(text) for text in texts]
    assert [bpe.decode(row) for row in rows] == texts
    assert all(0 <= id < bpe.vocab_size for row in rows for id in row)


def test_ids_are_special_tokens_then_bytes_then_merges(bpe):
    assert [bpe.special_tokens[name] for name in SPECIALS] == [0, 1, 2]
    assert sorted(bpe.token_bytes(id) for id in range(3, 259)) == [bytes([b]) for b in range(256)]
    assert bpe.token_bytes(3) == b"!"  # the first of the byte alphabet
    assert bpe.vocab_size == len(bpe) == 300
    assert bpe.eos_id == 0


def test_first_merges_are_the_most_frequent_pairs_and_ties_go_to_the_lowest():
    trained = BPETokenizer.train(["ab ab ab cd cd ef ef"], 256 + 4, special_tokens=())
    a, b, c, d = (trained.encode(letter)[0] for letter in "abcd")
    space = trained.encode(" ")[0]
    # ab: 3 times. Then " c" "cd" " e" "ef" " ab" all occur twice: the lowest pair of ids is (c, d)
    assert trained.merges[:2] == [(a, b), (c, d)]
    assert trained.merges[3] == (space, 256)
    assert trained.encode("ab abab") == [256, 259, 256]


def test_an_extended_vocabulary_joins_further_and_keeps_its_ids(bpe):
    texts = ["THE CAT SAT ON THE MAT. the cats sat"] * 5
    bpe.chat_format = tokenizer.chat_format.ChatFormat("{{ messages }}")
    longer = bpe.extended(texts, 40, min_frequency=5)
    assert longer.vocab_size <= bpe.vocab_size + 40 and longer.special_tokens == bpe.special_tokens
    assert longer.chat_format is bpe.chat_format and longer.eos_id == bpe.eos_id
    assert [longer.token_bytes(i) for i in range(bpe.vocab_size)] == [bpe.token_bytes(i) for i in range(bpe.vocab_size)]
    assert longer.merges[: len(bpe.merges)] == bpe.merges
    assert longer.encode(TEXT[:40]) == bpe.encode(TEXT[:40])
    assert len(longer.encode(texts[0])) < len(bpe.encode(texts[0]))
    assert longer.decode(longer.encode(texts[0])) == texts[0]
    assert len({longer.token_bytes(i) for i in range(longer.vocab_size)}) == longer.vocab_size
    assert bpe.extended(texts, 40, min_frequency=100).vocab_size == bpe.vocab_size
    bpe.chat_format = None


def test_old_merges_go_before_new_ones():
    letters = BPETokenizer.train(["x"], 256, special_tokens=())
    (a,), (b,), (c,), (x,), (y,) = map(letters.encode, "abcxy")
    old = BPETokenizer([*letters._tokens, b"xy", b"bc"], [(x, y), (b, c)])
    longer = old.extended(["ab"], 1)
    assert longer.merges == [(x, y), (b, c), (a, b)] and longer.encode("ab") == [258]
    assert longer.encode("abc") == old.encode("abc") == [a, 257]


def test_a_new_merge_may_spell_an_old_token():
    """Its id stays, and what is made of it goes on from there."""
    letters = BPETokenizer.train(["x"], 256, special_tokens=())._tokens
    longer = BPETokenizer([*letters, b"ab"], []).extended(["abab", "ab"], 2)
    (a,), (b,) = longer.encode("a"), longer.encode("b")
    assert longer.merges == [(a, b), (256, 256)] and longer.vocab_size == 258
    assert longer.encode("ab") == [256] and longer.encode("abab") == [257] and longer.decode([257]) == "abab"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_how_a_text_comes_in_does_not_matter(pattern, monkeypatch):
    text = TEXT + "\n" + "日本語の文。\n「中文字」\n\n1\n's\r\nx" * 3
    expected = BPETokenizer.train([text], 300, SPECIALS, pattern).merges
    with_specials = text.replace(" the", "<|im_end|> the")  # special tokens are no text to learn from
    alone = BPETokenizer.train(with_specials.split("<|im_end|>"), 300, SPECIALS, pattern).merges
    assert pattern not in PATTERNS[:3] or alone == expected
    for share in range(1, 40):  # characters: many small blocks, cut at many places, and put together often
        monkeypatch.setattr("minillm.tokenizer.pieces.SHARE", share)
        monkeypatch.setattr("minillm.tokenizer.pieces._PENDING", 50)
        assert BPETokenizer.train([text], 300, SPECIALS, pattern).merges == expected
        assert BPETokenizer.train(iter([with_specials]), 300, SPECIALS, pattern).merges == alone


def test_min_frequency_ends_training_early():
    assert BPETokenizer.train(["abab xy"], 500, (), min_frequency=2).merges == [
        tuple(BPETokenizer.train(["x"], 256, ()).encode("ab"))
    ]


def test_special_tokens_come_out_of_a_text_only_when_allowed(bpe):
    text = "cat<|im_end|> <|endoftext|><|endoftext|>"
    assert not set(bpe.encode(text)) & {0, 1, 2}
    assert bpe.decode(bpe.encode(text)) == text
    assert [i for i in bpe.encode(text, allowed_special=["<|endoftext|>"]) if i < 3] == [0, 0]
    everything = bpe.encode(text, allowed_special="all")
    assert [i for i in everything if i < 3] == [2, 0, 0]
    assert bpe.decode(everything) == text
    assert bpe.decode(everything, skip_special_tokens=True) == "cat "


def test_characters_know_special_tokens_too(char):
    assert char.encode("a<|endoftext|>", allowed_special="all") == [char.encode("a")[0], 0]
    with pytest.raises(ValueError, match="got '<'"):
        char.encode("<|endoftext|>")


def test_stream_decoder_shows_whole_characters_only(bpe):
    text = "aé猫🐈👩\u200d🚀!"
    decoder = bpe.stream_decoder()
    shown = [decoder.push(id) for id in bpe.encode(text)]
    assert "\ufffd" not in "".join(shown)
    assert "".join(shown) + decoder.flush() == text
    half = bpe.stream_decoder()
    first = bpe.encode("🐈")[0]
    assert half.push(first) == "" and half.flush() == "\ufffd"


@settings(deadline=None, max_examples=60)
@given(ids=st.lists(st.integers(0, 299), max_size=30))
def test_streaming_equals_decoding_whatever_the_ids(bpe, ids):
    decoder = bpe.stream_decoder()
    assert "".join(map(decoder.push, ids)) + decoder.flush() == bpe.decode(ids)
    assert bpe.decode_bytes(ids) == b"".join(map(bpe.token_bytes, ids))


def test_lone_surrogates_are_replaced(bpe):
    assert bpe.decode(bpe.encode("a\ud800b")) == "a\ufffdb"


def test_save_and_load(either, tmp_path):
    tok = either
    file = tok.save(tmp_path / "run")
    assert file == tmp_path / "run" / "tokenizer.json"
    for path in (file, file.parent, tok.save(tmp_path / "other.json")):
        loaded = tokenizer.load(path)
        assert type(loaded) is type(tok)
        assert loaded.encode(TEXT) == tok.encode(TEXT)
        assert loaded.special_tokens == tok.special_tokens
        assert loaded.fingerprint() == tok.fingerprint()


def test_fingerprint_tells_tokenizers_apart(bpe, char):
    other = BPETokenizer.train([TEXT], 301, SPECIALS, bpe.pattern)
    assert len({bpe.fingerprint(), char.fingerprint(), other.fingerprint()}) == 3


def test_char_tokenizer_numbers_characters_in_order():
    tok = CharTokenizer.train(["banana\n"])
    assert tok.vocab_size == 5
    assert tok.encode("\nabn") == [1, 2, 3, 4]
    assert tok.decode([4, 2, 3]) == "nab"
    with pytest.raises(ValueError, match=r"got 'x' \(U\+0078\) at 2"):
        tok.encode("abx")


def test_errors_say_what_is_wrong(bpe, tmp_path):
    with pytest.raises(ValueError, match="vocab_size must be at least 257, 256 bytes and 1 special token"):
        BPETokenizer.train([TEXT], 200)
    with pytest.raises(ValueError, match="min_frequency must be at least 1; got 0"):
        BPETokenizer.train([TEXT], 300, min_frequency=0)
    with pytest.raises(ValueError, match="special_tokens must be different names"):
        BPETokenizer.train([TEXT], 300, special_tokens=["<a>", "<a>"])
    with pytest.raises(ValueError, match="pattern must be one of gpt2, smollm2, gpt4, or a regular expression"):
        BPETokenizer.train([TEXT], 300, pattern="(")
    with pytest.raises(ValueError, match=r"vocabulary, \[0, 300\); got 300 at 2"):
        bpe.decode([1, 2, 300])
    with pytest.raises(ValueError, match="got -1 at 0"):
        bpe.decode([-1])
    with pytest.raises(TypeError, match="ids must be integers; got str at 1"):
        bpe.decode([1, "a"])
    with pytest.raises(ValueError, match="allowed_special names '<x>', which is no special token"):
        bpe.encode("a", allowed_special=["<x>"])
    with pytest.raises(TypeError, match="text must be a string; got bytes"):
        bpe.encode(b"a")
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        tokenizer.load(tmp_path / "nowhere")


def test_many_ids_are_decoded_as_few_are(either):
    ids = either.encode(TEXT) * 20
    assert len(ids) > 1000 and either.decode(ids) == TEXT * 20
    assert either.decode([0, *ids], skip_special_tokens=True) == TEXT * 20
    V = either.vocab_size
    for bad, error, message in (
        (V, ValueError, f"got {V} at 1007"), (-1, ValueError, "got -1 at 1007"), (1.5, TypeError, "got float at 1007"),
        (10**30, ValueError, "got 10+ at 1007"), ("a", TypeError, "got str at 1007"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            either.decode([*ids[:1007], bad, *ids])


def test_many_ids_of_a_vocabulary_with_gaps():
    tok = BPETokenizer.from_ranks({bytes([byte]): byte for byte in range(256)}, {"<|end|>": 260})
    assert tok.decode([65, 260] * 600) == "A<|end|>" * 600
    with pytest.raises(ValueError, match=r"vocabulary, \[0, 261\); got 258 at 1200"):
        tok.decode([65, 260] * 600 + [258])


def test_decode_takes_arrays(bpe):
    assert bpe.decode(np.array(bpe.encode("the cat"))) == "the cat"
