"""GGUF files beside llama.cpp, whose format it is: what we write is opened there and continued with the same text, and
the real file is answered alike.

    pip install llama-cpp-python                 (builds llama.cpp)

llama.cpp rounds activations to 8 bits for its products with blocks, and keys and values to float16: where two tokens
are all but equally likely it may take the other one. Such a difference is allowed where our own scores say that the two
tokens are no further apart than that rounding explains.
"""

import contextlib
import os

import numpy as np
import pytest

from minillm import files, generate, kernels, models
from minillm.cli import main
from minillm.training.convert import to_file
from minillm.training.run import load_run
from tests.parity import smollm2
from tests.parity.smollm2 import TOKENS
from tests.test_gguf import KINDS_OF_LLAMA, TEXT, bpe, folder_of, model_of  # noqa: F401
from tests.tokenizer_texts import strings

llama_cpp = pytest.importorskip("llama_cpp", reason="needs llama.cpp: pip install llama-cpp-python")

CLOSE = {"f32": 0.02, "f16": 0.02, "q8_0": 0.3, "q4_1": 0.5}  # nats between two tokens that rounding may turn round


class Peer:
    """llama.cpp with a file open, greedy."""

    def __init__(self, path, context=256):
        with quiet():
            self.model = llama_cpp.Llama(str(path), n_ctx=context, n_threads=2, verbose=False, logits_all=False)

    def scores(self, ids):
        """(V,) of the token after these."""
        self.model.reset()
        return self.after(ids)

    def after(self, ids):
        """(V,) of the token after these, which follow what was read before."""
        self.model.eval(ids)
        pointer = llama_cpp.llama_get_logits_ith(self.model._ctx.ctx, -1)
        return np.ctypeslib.as_array(pointer, (self.model.n_vocab(),)).copy()

    def ids(self, text):
        """As llama.cpp cuts it, special tokens among it."""
        return self.model.tokenize(text.encode(), add_bos=False, special=True)


@contextlib.contextmanager
def quiet():
    """llama.cpp writes to standard error of the process."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def agree(run, peer, prompts, kind, tokens=TOKENS):
    """Let ours continue each prompt, and ask llama.cpp for each token which it would take; returns in how many places
    a near tie was decided otherwise.
    """
    ties, config = 0, run.generation.replace(max_new_tokens=tokens, temperature=0)
    for ids in prompts:
        ours = generate(run.model, run.tokenizer, ids, config).ids
        assert len(ours) > 3
        for i, token in enumerate(ours):
            theirs = int((peer.after(ours[i - 1 : i]) if i else peer.scores(ids)).argmax())
            if theirs != token:
                text = np.array([[*ids, *ours[:i]]])
                scores = run.model.next_logits(text, run.model.new_cache(1, text.size))[0]
                assert scores[token] - scores[theirs] < CLOSE[kind], (kind, i, ours, theirs)
                ties += 1
    return ties


# ---- small models of all architectures -------------------------------------------------------------------------------


@pytest.mark.parametrize("config, changes", KINDS_OF_LLAMA)
@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_scores_of_what_is_written(tmp_path, bpe, config, changes, kind):  # noqa: F811
    _, folder = folder_of(tmp_path, bpe, config, **changes)
    to_file(folder, tmp_path / "model.gguf", kind)
    run, peer = load_run(tmp_path / "model.gguf"), Peer(tmp_path / "model.gguf", 48)
    ids = np.random.default_rng(0).integers(0, 300, 40)
    ours, theirs = run.model(ids).data[0, -1], peer.scores(ids.tolist())
    away = np.linalg.norm(theirs - ours) / np.linalg.norm(ours)
    assert away < (5e-3 if kind == "f32" else 0.1)  # rows in another order: above 1


def test_ids_of_texts(tmp_path, bpe):  # noqa: F811
    _, folder = folder_of(tmp_path, bpe)
    to_file(folder, tmp_path / "model.gguf", "f16")
    peer = Peer(tmp_path / "model.gguf", 48)
    for text in (TEXT, "<|im_start|>The fox<|im_end|>", *strings(1000)):
        assert peer.ids(text) == bpe.encode(text, allowed_special="all"), text


# ---- K-quants, as llama.cpp makes them -------------------------------------------------------------------------------

MADE = {"Q4_K_M": "LLAMA_FTYPE_MOSTLY_Q4_K_M", "Q5_K_M": "LLAMA_FTYPE_MOSTLY_Q5_K_M", "Q6_K": "LLAMA_FTYPE_MOSTLY_Q6_K"}


def quantized(source, out, kind):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = getattr(llama_cpp, MADE[kind]), 1
    with quiet():
        assert llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), parameters) == 0
    return out


@pytest.mark.parametrize("kind", MADE)
def test_k_quants(tmp_path, bpe, kind, capsys):  # noqa: F811
    """From stored blocks with the same codes, within 1.15 of the file; scores as of the de-quantised weights."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "tie_word_embeddings": False}
    model = model_of(models.LlamaConfig, sizes)
    for parameter in model.parameters():
        parameter.data *= 0.2 if parameter.ndim == 2 else 1  # or what is rounded grows from layer to layer
    model.save_pretrained(tmp_path / "folder", tokenizer=bpe)
    to_file(tmp_path / "folder", tmp_path / "floats.gguf", "f32")
    path = quantized(tmp_path / "floats.gguf", tmp_path / "model.gguf", kind)
    inside = {tensor.dtype for tensor in files.open_gguf(path).tensors.values()} - {"F32"}
    assert inside == {"Q4_K_M": {"Q4_K", "Q6_K"}, "Q5_K_M": {"Q5_K", "Q6_K"}, "Q6_K": {"Q6_K"}}[kind]
    run, plain = load_run(path, stored=True), load_run(path)
    stored = sum(tensor.nbytes for tensor in files.open_gguf(path).tensors.values())
    if kernels.KERNELS == "numba":
        assert isinstance(run.model, models.StoredModel) and run.model.nbytes < 1.15 * stored
    ids = np.random.default_rng(0).integers(0, 300, 40)
    ours, exact, theirs = run.model(ids).data[0, -1], plain.model(ids).data[0, -1], Peer(path, 48).scores(ids.tolist())
    assert np.linalg.norm(ours - exact) < 5e-3 * np.linalg.norm(exact)
    assert np.linalg.norm(theirs - exact) < 0.1 * np.linalg.norm(exact)
    assert main(["info", str(path)]) == 0
    said = capsys.readouterr().out
    assert "in memory" in said and "Q6_K as Q6" in said and " of the file (" in said


# ---- the real file ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    return smollm2.file()


def test_ten_answers_of_the_real_file(real):
    run, peer = load_run(real, stored=True), Peer(real)
    prompts = smollm2.prompts_of(run.tokenizer)
    assert peer.ids(run.tokenizer.decode(prompts[0])) == prompts[0]
    assert agree(run, peer, prompts, "q4_1") <= 8  # of 240 places


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_the_real_model_there_and_back(tmp_path, real, kind):
    opened = load_run(real)
    opened.model.save_pretrained(tmp_path / "folder", tokenizer=opened.tokenizer)
    to_file(tmp_path / "folder", tmp_path / "new.gguf", kind)
    run, peer = load_run(tmp_path / "new.gguf", stored=True), Peer(tmp_path / "new.gguf")
    assert agree(run, peer, smollm2.prompts_of(run.tokenizer)[:4], kind) <= {"f16": 0, "q8_0": 4}[kind]  # of 96 places
