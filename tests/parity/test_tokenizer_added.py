"""Added tokens as `tokenizers` finds them: two passes, white space beside them, whole words, normalized names."""

import json
import random

import pytest

from minillm import tokenizer

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

NAMES = ["<a<b>", "<b>", "<a", "b>", "low", "ﬁ<x>", "<ｙ>", " w", "hello ", "é", "<s>x", "Ⅷ"]
PARTS = [
    *NAMES, " ", "  ", "\n", "x", "y", "_", "1", "\u0301", "e\u0301", "fi<x>", "<y>", "e", "VIII", "hello", "\u00a0",
    "\u3000", "low low", ",",
]  # fmt: skip


def bpe(prefix_space):
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>"],
        show_progress=False,
    )  # fmt: skip
    theirs.train_from_iterator(["hello world low lower abc"] * 3, trainer)
    return theirs


def unigram(normalizer):
    theirs = tokenizers.Tokenizer(models.Unigram())
    theirs.normalizer = normalizer
    theirs.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    theirs.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    theirs.train_from_iterator(["hello world low lower abc", "fi fl ab <a b> x y"] * 3, trainer)
    return theirs


KINDS = {
    "bpe": lambda: bpe(False),
    "prefix space": lambda: bpe(True),
    "nfkc": lambda: unigram(normalizers.NFKC()),
    "nfkc and more": lambda: unigram(normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("fl", "F")])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_added_tokens_of_all_manners(kind, tmp_path):
    rng = random.Random(kind)
    for trial in range(12):
        theirs = KINDS[kind]()
        for name in rng.sample(NAMES, 5):
            if name == "é" and "nfkc" not in kind:
                continue  # to a byte-level vocabulary this is the name of a byte: see below
            flags = {flag: rng.random() < 0.4 for flag in ("single_word", "lstrip", "rstrip", "normalized")}
            add = theirs.add_special_tokens if rng.random() < 0.5 else theirs.add_tokens
            add([AddedToken(name, **flags)])
        file = tmp_path / f"{trial}.json"
        theirs.save(str(file))
        ours = tokenizer.load(file)
        again = tokenizer.load(ours.save(tmp_path / f"{trial}-again.json"))
        assert again.fingerprint() == ours.fingerprint()
        for _ in range(150):
            text = "".join(rng.choice(PARTS) for _ in range(rng.randrange(1, 9)))
            expected = theirs.encode(text)
            for tok in (ours, again):
                assert tok.encode_with_offsets(text, "all") == (expected.ids, expected.offsets), text
                assert tok.encode(text, "all") == expected.ids
                assert tok.decode(expected.ids) == theirs.decode(expected.ids, skip_special_tokens=False)


def test_longer_exact_tokens_go_before_shorter_special_ones(tmp_path):
    theirs = bpe(False)
    theirs.add_tokens(["<a<b>"])  # normalized, so in the second pass
    theirs.add_special_tokens(["<b>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = tokenizer.load(tmp_path)
    expected = theirs.encode("x<a<b>y")
    assert expected.tokens == ["x", "<", "a", "<b>", "y"]
    assert ours.encode("x<a<b>y", "all") == expected.ids


def test_a_word_of_the_vocabulary_may_be_added_again(tmp_path):
    theirs = bpe(False)
    theirs.add_tokens([AddedToken("low", single_word=True), AddedToken("a", single_word=True)])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = tokenizer.load(tmp_path)
    for tok in (ours, tokenizer.load(ours.save(tmp_path / "again.json"))):
        for text in ("low lower a abc", "lowlow a", "a"):
            assert tok.encode(text) == theirs.encode(text).ids and tok.decode(tok.encode(text)) == text


def test_an_added_token_that_is_written_like_a_byte_is_refused(tmp_path):
    theirs = bpe(False)
    theirs.add_tokens(["é"])  # the byte 0xe9 in the byte alphabet: its id is that of the byte
    theirs.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="added token 'é' has the id of a single byte"):
        tokenizer.load(tmp_path)


def trimmed(prefix_space):
    theirs = bpe(prefix_space)
    theirs.add_special_tokens(["<d>"])
    theirs.post_processor = processors.ByteLevel(add_prefix_space=prefix_space, trim_offsets=True)
    return theirs


@pytest.mark.parametrize("prefix_space", [False, True])
def test_trimmed_offsets_are_those_of_the_text_without_its_spaces(prefix_space, tmp_path):
    """`tokenizers` cuts the first letter off a word right after an added token (its issue 1300): there we differ."""
    theirs = trimmed(prefix_space)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = tokenizer.load(tmp_path)
    rng = random.Random(0)
    for _ in range(400):
        text = "".join(rng.choice(["<d>", " ", "  ", "low", "lower", "\n", "é", "x "]) for _ in range(6))
        expected = theirs.encode(text)
        ids, offsets = ours.encode_with_offsets(text, "all")
        assert ids == expected.ids == ours.encode(text, "all")
        for id, (start, end), places in zip(ids, offsets, expected.offsets, strict=True):
            glued = prefix_space and start >= 3 and text[start - 3 : start] == "<d>" and text[start] != " "
            if not glued:
                assert (start, end) == places, text
            elif ours.token_bytes(id).strip(b" "):  # the token's letters, all of them
                assert ours.token_bytes(id).strip(b" ") in text[start:end].encode("utf-8"), text


def test_padding_and_truncation_are_ignored(tmp_path):
    theirs = bpe(False)
    plain = theirs.encode("hello world").ids
    theirs.enable_padding(length=32)
    theirs.enable_truncation(4)
    theirs.save(str(tmp_path / "tokenizer.json"))
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    assert content["padding"] and content["truncation"]
    assert tokenizer.load(tmp_path).encode("hello world") == plain
