"""Texts, patterns and files made to break a tokenizer."""

import json
import random
import time

import pytest

from minillm import tokenizer
from minillm.tokenizer import BPETokenizer, CharTokenizer, UnigramTokenizer, patterns

TEXT = "the cat sat on the mat, who's there? 1234 !!\n\n" * 3 + "a" * 64 + "_" * 64 + " " * 64 + "猫" * 9

HOSTILE = {
    "one letter": "a",
    "underscores": "_",
    "spaces": " ",
    "line ends": "\n",
    "contractions": "'s",
    "digits": "7",
    "spaces and line ends": " \n",
    "mixed scripts": "aя猫ب🐈é",
    "one wide letter": "猫",
}


@pytest.fixture(scope="module", params=["gpt2", "gpt4", "smollm2"])
def bpe(request):
    tok = BPETokenizer.train([TEXT], 400, pattern=request.param)
    tok.encode("warm up" + "a" * 100)
    return tok


@pytest.mark.parametrize("kind", HOSTILE)
def test_time_is_linear_in_the_length(bpe, kind):
    # three doublings, each at most 2.6 times the time: 18 in all, where quadratic time would give 64
    unit = HOSTILE[kind]
    small, large = unit * (15_000 // len(unit)), unit * (120_000 // len(unit))
    assert bpe.decode(bpe.encode(large)) == large

    def seconds(text):
        times = []
        for _ in range(5):
            start = time.thread_time()
            bpe.encode(text)
            times.append(time.thread_time() - start)
        return min(times)

    assert seconds(large) < 2.6**3 * seconds(small)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_million_characters_are_encoded_and_come_back(bpe, kind):
    text = HOSTILE[kind] * (1_000_000 // len(HOSTILE[kind]))
    assert bpe.decode(bpe.encode(text)) == text


def test_training_on_one_endless_word():
    tok = BPETokenizer.train(["a" * 300_000 + " " + "ab" * 100_000], 280, special_tokens=())
    assert max(len(tok.token_bytes(id)) for id in range(280)) >= 2**10
    assert tok.decode(tok.encode("a" * 12345)) == "a" * 12345


def test_a_pattern_without_end_is_stopped(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    with pytest.raises(TimeoutError, match=r"pattern '\(a\|aa\)\+\$' took more than 0\.2 s on a text of 41 characters"):
        BPETokenizer.train(["a" * 40 + "b"], 300, pattern="(a|aa)+$")


def mutations(content, rng):
    """Endless damaged versions of a JSON file: cut, wrong bytes, values exchanged, removed or of other types."""
    text = json.dumps(content)
    odd = [None, True, -1, 0, 2**40, 1.5, "", "x", [], [1], {}, {"type": "x"}, 10**30]
    while True:
        kind = rng.randrange(4)
        if kind == 0:
            yield text[: rng.randrange(len(text))].encode()
        elif kind == 1:
            data = bytearray(text.encode())
            for _ in range(rng.randrange(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            yield bytes(data)
        else:
            tree = json.loads(text)
            node = tree
            while True:
                key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
                if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.25:
                    break
                node = node[key]
            if kind == 2:
                node[key] = rng.choice(odd)
            else:
                del node[key]
            yield json.dumps(tree).encode()


@pytest.mark.parametrize("kind", ["bpe", "char", "unigram"])
def test_damaged_files_are_refused_or_read_never_a_crash(kind, tmp_path):
    if kind == "bpe":
        tok = BPETokenizer.train([TEXT], 270)
    else:
        tok = CharTokenizer.train([TEXT]) if kind == "char" else UnigramTokenizer.train([TEXT], 60, sentinels=2)
    file = tmp_path / "tokenizer.json"
    refused = 0
    stream = mutations(tok.to_json(), random.Random(kind))
    for _ in range(300):
        file.write_bytes(next(stream))
        try:
            loaded = tokenizer.load(file)
            loaded.decode(loaded.encode("the cat"))
        except ValueError as error:
            refused += "tokenizer.json" in str(error) or "encode" in str(error) or "Tokenizer" in str(error)
    assert refused > 150


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["dropout_rate"], 0.1, "'dropout_rate' is not implemented"),
        (["model", "dropout"], 0.1, "dropout=0.1 is not implemented"),
        (["model", "byte_fallback"], True, "byte_fallback=True"),
        (["model", "end_of_word_suffix"], "</w>", "end_of_word_suffix"),
        (["model", "type"], "WordPiece", "model 'WordPiece' is not implemented"),
        (["normalizer"], {"type": "Lowercase"}, "BPE with a normalizer"),
        (["pre_tokenizer", "type"], "Whitespace", "pre-tokenizer Whitespace"),
        (["pre_tokenizer", "split_more"], True, "split_more"),
        (["decoder"], None, "decoder must be ByteLevel"),
        (["post_processor"], {"type": "BertProcessing"}, "BertProcessing"),
        (["pre_tokenizer"], None, "the pre-tokenizer must end with ByteLevel; got none"),
        (["added_tokens", 0, "strip"], True, "'strip' is not implemented"),
        (["added_tokens", 0, "id"], 10**9, "highest of"),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(tmp_path, path, value, message):
    content = BPETokenizer.train([TEXT], 270).to_json()
    node = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        tokenizer.load(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("pre_tokenizer", "Unigram: the pre-tokenizer must be Metaspace; got none"),
        ("decoder", "Unigram: the decoder must be Metaspace; got none"),
    ],
)
def test_what_is_missing_is_named(tmp_path, part, message):
    file = tmp_path / "tokenizer.json"
    content = UnigramTokenizer.train([TEXT], 60).to_json()
    without = {key: value for key, value in content.items() if key != part}
    for damaged in ({**content, part: None}, without):
        file.write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=message):
            tokenizer.load(file)


@pytest.mark.parametrize("normalizer", ["Lowercase", "BertNormalizer", "Prepend"])
def test_unknown_normalizers_are_refused_by_name(tmp_path, normalizer):
    content = UnigramTokenizer.train([TEXT], 60).to_json()
    content["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": normalizer}]}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"normalizer '{normalizer}' is not implemented"):
        tokenizer.load(file)
