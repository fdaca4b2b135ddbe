"""T5's tokenizer: the ids, text and offsets of `tokenizers` and `transformers`, the likelihood of `sentencepiece`."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from minillm import tokenizer
from minillm.tokenizer import UnigramTokenizer
from minillm.tokenizer.normalize import Normalizer
from tests.tokenizer_texts import ODD, agree, anything, strings

tokenizers = pytest.importorskip("tokenizers")
spm = pytest.importorskip("sentencepiece")
transformers = pytest.importorskip("transformers")
from tokenizers import NormalizedString, PreTokenizedString, Regex, normalizers  # noqa: E402

CORPUS = Path(np.__file__).parent.joinpath("linalg", "_linalg.py").read_text()
LINES = [line for line in CORPUS.split("\n") if line.strip()]


def train_theirs(lines, folder, size, **options):
    """A folder with spiece.model, which sentencepiece learned from the lines."""
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "spiece"), vocab_size=size,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, **options,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """A SentencePiece model trained here, and what transformers makes of it as T5's tokenizer."""
    folder = train_theirs(LINES, tmp_path_factory.mktemp("t5"), 600)
    transformers.T5TokenizerFast.from_pretrained(str(folder)).save_pretrained(str(folder / "saved"))
    return folder


def test_transformers_file_gives_the_same_ids_text_and_offsets(t5):
    ours = tokenizer.load(t5 / "saved")
    theirs = tokenizers.Tokenizer.from_file(str(t5 / "saved" / "tokenizer.json"))
    assert ours.special_tokens["<extra_id_0>"] == ours.vocab_size - 1 == 699
    assert ours.encode("a")[-1] == ours.eos_id == 1
    agree(ours, theirs, [*strings(5000, seed=8), *ODD])


# Of two ways with the same pieces in another order, rounding decides. `tokenizers` reads one in eight numbers of 17
# digits as a neighbour of what stands in the file (serde_json without float_roundtrip), shorter ones as they are.
DIGITS = 6


@pytest.fixture(scope="module")
def both(t5, tmp_path_factory):
    content = json.loads((t5 / "saved" / "tokenizer.json").read_text())
    content["model"]["vocab"] = [[piece, round(score, DIGITS)] for piece, score in content["model"]["vocab"]]
    file = tmp_path_factory.mktemp("rounded") / "tokenizer.json"
    file.write_text(json.dumps(content))
    return tokenizer.load(file), tokenizers.Tokenizer.from_file(str(file))


@settings(deadline=None, max_examples=300)
@given(text=anything)
def test_any_text_gives_the_same_ids_text_and_offsets(both, text):
    agree(*both, [text])


def test_sentencepiece_model_gives_the_same_ids(t5):
    ours = tokenizer.load(t5 / "spiece.model")
    theirs = spm.SentencePieceProcessor(model_file=str(t5 / "spiece.model"))
    saved = tokenizer.load(t5 / "saved")
    assert ours.vocab_size == 700
    for line in LINES[:400]:
        assert ours.encode(line) == saved.encode(line) == [*theirs.encode(line), 1]


def test_our_file_opens_in_tokenizers_and_transformers(t5, tmp_path):
    ours = UnigramTokenizer.train(LINES, 700, sentinels=5)
    file = ours.save(tmp_path)
    agree(ours, tokenizers.Tokenizer.from_file(str(file)), [*strings(1000, seed=9), *ODD])
    agree(tokenizer.load(file), tokenizers.Tokenizer.from_file(str(file)), ODD)
    auto = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert auto(LINES[0])["input_ids"] == ours.encode(LINES[0])
    assert auto.eos_token == "</s>"


def test_of_two_ways_with_the_same_pieces_the_same_is_taken(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(10):
        drawn = ["".join(rng.choice(["a", "b"], size=rng.integers(2, 5))) for _ in range(8)]
        scores = {piece: -rng.uniform(1, 12) * len(piece) ** 0.7 for piece in ["▁", "a", "b", *drawn]}
        pieces = [(piece, round(score, DIGITS)) for piece, score in scores.items()]
        ours = UnigramTokenizer([("<unk>", 0.0), *pieces], 0)
        theirs = tokenizers.Tokenizer.from_file(str(ours.save(tmp_path)))
        agree(ours, theirs, ["".join(rng.choice(list("aaab ☃"), size=rng.integers(3, 80))) for _ in range(100)])


@pytest.mark.parametrize("text", ["source code", "Shakespeare"])
def test_likelihood_is_that_of_sentencepiece(text, tmp_path):
    """Per piece and per character: the longer the pieces, the less likely is each, and the more is the text.

    sentencepiece learns from the same text as many pieces.
    """
    lines, size = LINES, 600
    if text == "Shakespeare":
        file = Path(os.environ.get("MINILLM_DATA", "")) / "tinyshakespeare.txt"
        if not file.is_file():
            pytest.skip("MINILLM_DATA is no folder with tinyshakespeare.txt")
        lines = [line for line in file.read_text(encoding="utf-8").split("\n")[:12_000] if line.strip()]
        size = 2000
    characters = sum(len(" ".join(line.split())) + 1 for line in lines)  # as both see them, a mark before each word

    def nats(name, tok):
        ids = [id for line in lines for id in tok.encode(line, add_special_tokens=False)]
        total, best = sum(map(tok.log_likelihood, lines)), sum(tok.pieces[id][1] for id in ids)
        found = np.array([total, best]) / len(ids), np.array([total, best]) / characters
        print(f"{text}, {name}: nats per piece {found[0][0]:.4f} (the best way alone {found[0][1]:.4f}), per character "
              f"{found[1][0]:.4f} ({found[1][1]:.4f}), {characters / len(ids):.3f} characters per piece")  # fmt: skip
        return *found, best

    per_piece, per_character, _ = nats("minillm", UnigramTokenizer.train(lines, size))
    file = train_theirs(lines, tmp_path, size, character_coverage=1.0) / "spiece.model"
    theirs, judge = tokenizer.load(file), spm.SentencePieceProcessor(model_file=str(file))
    assert sum(score != 0.0 for _, score in theirs.pieces) == size - 3  # and <pad>, </s>, <unk>, as ours
    their_per_piece, their_per_character, best = nats("sentencepiece", theirs)
    assert sum(judge.get_score(id) for line in lines for id in judge.encode(line)) == pytest.approx(best)
    assert (per_character > 1.01 * their_per_character).all()  # negative numbers: at most 1 % lower
    assert (per_piece > 1.01 * their_per_piece).all()


def test_n_best_equals_sentencepiece(t5):
    ours = tokenizer.load(t5 / "spiece.model")
    theirs = spm.SentencePieceProcessor(model_file=str(t5 / "spiece.model"))
    for word in ("matrices", "decomposition", "the"):
        expected = theirs.nbest_encode_as_ids(word, 5)
        found = ours.encode_n_best(word, 5)
        assert [ids for ids, _ in found] == expected
        assert all(a[1] >= b[1] for a, b in zip(found, found[1:], strict=False))


STEPS = {
    "NFC": (normalizers.NFC(), {"type": "NFC"}),
    "NFD": (normalizers.NFD(), {"type": "NFD"}),
    "NFKC": (normalizers.NFKC(), {"type": "NFKC"}),
    "NFKD": (normalizers.NFKD(), {"type": "NFKD"}),
    "Nmt": (normalizers.Nmt(), {"type": "Nmt"}),
    "Strip": (normalizers.Strip(), {"type": "Strip", "strip_left": True, "strip_right": True}),
    "Replace": (
        normalizers.Replace(Regex(" {2,}"), "▁"),
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_normalizers_give_the_same_text_and_origins(name):
    theirs, description = STEPS[name]
    ours = Normalizer([description])
    for text in [*strings(600, seed=10), *ODD]:
        expected = PreTokenizedString(text)
        expected.normalize(theirs.normalize)
        expected.split(lambda _, part: NormalizedString.split(part, Regex(r"[\s\S]"), "isolated"))
        splits = expected.get_splits("original", "char")
        new, origins = ours.aligned(text)
        assert new == ours(text) == "".join(part for part, _, _ in splits)
        assert [(origin, origin + 1) for origin in origins] == [offsets for _, offsets, _ in splits]
