"""GGUF files that minillm writes, read by transformers; BPE on characters beside sentencepiece and tokenizers."""

import numpy as np
import pytest

from minillm import tokenizer
from minillm.tokenizer.from_gguf import from_settings, to_settings
from minillm.training.convert import to_file
from tests.gguf_oracle import by_transformers
from tests.test_gguf import KINDS_OF_LLAMA, bpe, folder_of, logits  # noqa: F401
from tests.tokenizer_texts import SAMPLES, strings

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("gguf", reason="transformers reads GGUF files with the package gguf")
KNOWN_TO_TRANSFORMERS = ("llama", "llama untied head size", "mistral", "qwen2", "qwen3")


@pytest.mark.parametrize("config, changes", [case for case in KINDS_OF_LLAMA if case.id in KNOWN_TO_TRANSFORMERS])
def test_transformers_reads_what_is_written(tmp_path, bpe, config, changes):  # noqa: F811
    if "head_dim" in changes and config.model_type == "qwen3":
        changes = changes | {"head_dim": 128}  # transformers takes every Qwen3's heads for these
    model, folder = folder_of(tmp_path, bpe, config, **changes)
    to_file(folder, tmp_path / "model.gguf", "f32")
    theirs = by_transformers(tmp_path / "model.gguf")
    ids = np.random.default_rng(0).integers(0, 300, (2, 30))
    with torch.no_grad():
        expected = theirs(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(logits(model), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    spm = pytest.importorskip("sentencepiece")
    path = tmp_path_factory.mktemp("spm")
    words = "the quick brown fox jumps over the lazy dog  and then some more, café naïve 3.14 was it not so?".split(" ")
    rng = np.random.default_rng(0)
    texts = [" ".join(words[i] for i in rng.integers(0, len(words), 12)) for _ in range(500)]
    (path / "text").write_text("\n".join([*texts, *SAMPLES[:4]]).replace("\r", ""), encoding="utf-8")
    spm.SentencePieceTrainer.train(
        input=str(path / "text"), model_prefix=str(path / "m"), model_type="bpe", vocab_size=500, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.9999, minloglevel=2,
    )  # fmt: skip
    return spm.SentencePieceProcessor(model_file=str(path / "m.model"))


@pytest.fixture(scope="module")
def from_file(sentencepiece_model, tmp_path_factory):
    """The tokenizer as a GGUF file, made by llama.cpp's script, would describe it."""
    from minillm import files

    m = sentencepiece_model
    kinds = [
        2 if m.is_unknown(i) else 3 if m.is_control(i) else 6 if m.is_byte(i) else 1 for i in range(m.vocab_size())
    ]
    settings = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [m.id_to_piece(i) for i in range(m.vocab_size())],
        "tokenizer.ggml.scores": np.array([m.get_score(i) for i in range(m.vocab_size())], np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return from_settings(files.GGUF(tmp_path_factory.mktemp("none"), settings, {}))


def test_ids_of_5000_texts_are_those_of_sentencepiece(sentencepiece_model, from_file):
    for text in strings(5000):
        if "\0" in text:  # which ends a text there
            continue
        ids = from_file.encode(text)
        assert ids == [1, *sentencepiece_model.encode(text)], text
        assert from_file.decode(ids, skip_special_tokens=True) == text


def test_the_tokenizers_library_reads_what_is_written(tmp_path, from_file):
    tokenizers = pytest.importorskip("tokenizers")
    from_file.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    ours = tokenizer.load(tmp_path)
    for text in strings(1000, seed=1):
        expected = theirs.encode(text, add_special_tokens=True)
        assert ours.encode(text) == expected.ids == from_file.encode(text), text
        assert ours.decode(expected.ids, skip_special_tokens=True) == theirs.decode(expected.ids), text


def test_settings_there_and_back(tmp_path, from_file):
    from minillm import files

    settings = to_settings(from_file, from_file.vocab_size)
    back = from_settings(files.GGUF(tmp_path, settings, {}))
    for text in strings(500, seed=2):
        assert back.encode(text) == from_file.encode(text)
