"""The same ids, text and offsets as `tokenizers`, `transformers` and tiktoken, in both directions."""

import base64
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from minillm import tokenizer
from minillm.tokenizer import BPETokenizer, CharTokenizer
from minillm.tokenizer.patterns import PATTERNS
from tests.tokenizer_texts import SAMPLES, agree, anything, strings

tokenizers = pytest.importorskip("tokenizers")
tiktoken = pytest.importorskip("tiktoken")
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers  # noqa: E402

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    " ".join(strings(2000, seed=1)).replace("<|endoftext|>", ""),
    Path(tokenizers.__file__).read_text(),
    Path(os.__file__).read_text(),
]


def their_components(pattern, prefix_space=False):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=pattern != "gpt4")
    if pattern == "gpt2":
        return byte_level
    first = pre_tokenizers.Digits(individual_digits=True)
    if pattern == "gpt4":
        first = pre_tokenizers.Split(Regex(PATTERNS["gpt4"]), "isolated")
    return pre_tokenizers.Sequence([first, byte_level])


def train_theirs(pattern, size=1500, prefix_space=False, corpus=CORPUS):
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = their_components(pattern, prefix_space)
    theirs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator(corpus, trainer)
    return theirs


@pytest.mark.parametrize("pattern", PATTERNS)
def test_training_gives_the_same_vocabulary_and_merges(pattern):
    ours = json.dumps(BPETokenizer.train(CORPUS, 1500, SPECIALS, pattern).to_json()["model"])
    theirs = json.loads(train_theirs(pattern).to_str())["model"]
    assert json.loads(ours)["vocab"] == theirs["vocab"]
    assert [tuple(pair) for pair in json.loads(ours)["merges"]] == [tuple(pair) for pair in theirs["merges"]]


@pytest.mark.parametrize("text", ["Shakespeare", "source code"])
def test_4096_tokens_are_learned_in_the_same_order(text):
    """Every merge, ties too: among pairs of equal count their trainer takes the one with the lowest ids, as we do."""
    if text == "Shakespeare":
        file = Path(os.environ.get("MINILLM_DATA", "")) / "tinyshakespeare.txt"
        if not file.is_file():
            pytest.skip("MINILLM_DATA is no folder with tinyshakespeare.txt")
        corpus = [file.read_text(encoding="utf-8")]
    else:
        corpus = [file.read_text(encoding="utf-8") for file in sorted(Path(os.__file__).parent.glob("*.py"))[:60]]
    ours = BPETokenizer.train(corpus, 4096, SPECIALS)
    theirs = json.loads(train_theirs("gpt2", 4096, corpus=corpus).to_str())["model"]["merges"]
    assert len(ours.merges) == 4096 - 256 - len(SPECIALS)
    assert ours.to_json()["model"]["merges"] == [list(pair) for pair in theirs]


@pytest.mark.parametrize(
    ("pattern", "prefix_space"), [("gpt2", False), ("gpt2", True), ("smollm2", False), ("gpt4", False)]
)
def test_their_file_gives_the_same_ids_text_and_offsets(pattern, prefix_space, tmp_path):
    theirs = train_theirs(pattern, 900, prefix_space)
    theirs.save(str(tmp_path / "tokenizer.json"))
    agree(tokenizer.load(tmp_path), theirs, strings(1000 if pattern == "gpt4" or prefix_space else 5000))


@pytest.fixture(scope="module", params=["gpt2", "smollm2"])
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    theirs = train_theirs(request.param, 900)
    theirs.save(str(folder / "tokenizer.json"))
    return tokenizer.load(folder), theirs


@settings(deadline=None, max_examples=300)
@given(text=anything)
def test_any_text_gives_the_same_ids_text_and_offsets(both, text):
    agree(*both, [text])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_our_file_gives_them_the_same_ids_text_and_offsets(pattern, tmp_path):
    ours = BPETokenizer.train(CORPUS, 900, SPECIALS, pattern)
    file = ours.save(tmp_path)
    agree(ours, tokenizers.Tokenizer.from_file(str(file)), strings(1000, seed=2))


def test_an_extended_vocabulary_gives_them_the_same_ids(tmp_path):
    ours = BPETokenizer.train(CORPUS[1:], 600, SPECIALS).extended(CORPUS[:1], 300, 2)
    assert 700 < ours.vocab_size <= 900
    ours.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    agree(ours, theirs, [*SAMPLES, *strings(300, seed=3)])


@pytest.mark.parametrize("prefix_space", [False, True])
def test_trimmed_offsets_and_templates(prefix_space, tmp_path):
    theirs = train_theirs("gpt2", 700, prefix_space)
    template = processors.TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=list(zip(SPECIALS, range(3), strict=True))
    )
    trim = processors.ByteLevel(add_prefix_space=prefix_space, trim_offsets=True)
    theirs.post_processor = processors.Sequence([trim, template])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = tokenizer.load(tmp_path)
    agree(ours, theirs, strings(500, seed=3))
    agree(tokenizer.load(ours.save(tmp_path / "again.json")), theirs, strings(100, seed=4))
    assert ours.encode("a", add_special_tokens=False) == theirs.encode("a", add_special_tokens=False).ids


def test_transformers_files_both_ways(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = train_theirs("gpt2", 700)
    theirs.model.save(str(tmp_path))
    gpt2 = transformers.GPT2TokenizerFast.from_pretrained(str(tmp_path))
    ours = tokenizer.load(tmp_path)  # vocab.json and merges.txt
    assert ours.special_tokens == {name: i for i, name in enumerate(SPECIALS)}
    gpt2.save_pretrained(tmp_path / "saved")
    loaded = tokenizer.load(tmp_path / "saved")
    file = ours.save(tmp_path / "ours")
    auto = transformers.AutoTokenizer.from_pretrained(str(file.parent))
    assert auto.eos_token == "<|endoftext|>"
    for text in strings(300, seed=5):
        assert ours.encode(text) == loaded.encode(text)
        if "<|" not in text:
            assert ours.encode(text) == gpt2(text)["input_ids"] == auto(text)["input_ids"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ranks_give_the_ids_of_tiktoken(pattern, tmp_path):
    trained = BPETokenizer.train(CORPUS, 1200, (), pattern)
    ranks = {trained.token_bytes(i): i for i in range(trained.vocab_size)}
    file = tmp_path / "words.tiktoken"
    file.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % i for token, i in ranks.items()))
    special = {"<|endoftext|>": 1200, "<|im_end|>": 1205}
    ours = tokenizer.load_ranks(file, pattern, special)
    theirs = tiktoken.Encoding("words", pat_str=PATTERNS[pattern], mergeable_ranks=ranks, special_tokens=special)
    assert ours.encode("a<|im_end|>", allowed_special="all")[-1] == 1205
    for text in strings(1500, seed=6):
        assert ours.encode(text, allowed_special="all") == theirs.encode(text, allowed_special="all")
        assert ours.encode(text) == theirs.encode_ordinary(text)
    theirs_again = tokenizers.Tokenizer.from_file(str(ours.save(tmp_path)))
    agree(ours, theirs_again, strings(300, seed=7))


def test_ranks_of_a_vocabulary_that_no_training_made():
    rng = np.random.default_rng(0)
    tokens = {bytes([b]) for b in range(256)} | {bytes(rng.choice([97, 98], n)) for n in rng.integers(2, 7, 60)}
    ranks = {token: i for i, token in enumerate(sorted(tokens, key=lambda t: (len(t) > 1, rng.random())))}
    ours = BPETokenizer.from_ranks(ranks, {}, "gpt2")
    theirs = tiktoken.Encoding("odd", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={})
    for n in [*range(1, 40), 100, 300]:
        text = "".join(rng.choice(["a", "b"], n))
        assert ours.encode(text) == theirs.encode(text)


def test_characters_open_in_tokenizers(tmp_path):
    ours = CharTokenizer.train(SAMPLES)
    theirs = tokenizers.Tokenizer.from_file(str(ours.save(tmp_path)))
    for text in SAMPLES:
        expected = theirs.encode(text)
        assert ours.encode_with_offsets(text, allowed_special="all") == (expected.ids, expected.offsets)
        assert theirs.decode(expected.ids, skip_special_tokens=False) == text
