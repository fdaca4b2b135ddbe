"""Mistral, Qwen2, Qwen3, SmolLM3 and scaled angles are those of transformers, both ways."""

import numpy as np
import pytest

from minillm import models

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = dict(vocab_size=37, hidden_size=24, intermediate_size=40, num_hidden_layers=5, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=40, bos_token_id=0, eos_token_id=1, pad_token_id=None,
             initializer_range=0.3)  # fmt: skip


def scaled(**settings):
    return {"rope_parameters": {"rope_theta": 100.0, **settings}}


LENGTH = {"original_max_position_embeddings": 20}
SOME = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
KINDS = {
    "linear": ("llama", scaled(rope_type="linear", factor=3.0)),
    "dynamic": ("llama", scaled(rope_type="dynamic", factor=3.0)),
    "llama3": ("llama", scaled(rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, **LENGTH)),
    "yarn": ("llama", scaled(rope_type="yarn", factor=4.0, **LENGTH)),
    "yarn, its settings": ("llama", scaled(rope_type="yarn", factor=4.0, beta_fast=8.0, beta_slow=2.0, mscale=1.0,
                                           mscale_all_dim=0.7, truncate=False, **LENGTH)),
    "yarn, its factor": ("llama", scaled(rope_type="yarn", factor=4.0, attention_factor=1.3, **LENGTH)),
    "mistral": ("mistral", {"sliding_window": 5}),
    "mistral without": ("mistral", {"sliding_window": None, "head_dim": 10}),
    "qwen2": ("qwen2", {}),
    "qwen2, some windows, tied": ("qwen2", {**SOME, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "qwen3, some windows, biases": ("qwen3", {**SOME, "head_dim": 6, "attention_bias": True}),
    "smollm3": ("smollm3", {}),
    "smollm3, windows": ("smollm3", {"no_rope_layers": [1, 0, 1, 1, 0], "use_sliding_window": True, "sliding_window": 6,
                                     "tie_word_embeddings": False, "attention_bias": True}),
}  # fmt: skip


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


@pytest.mark.parametrize("name", KINDS)
def test_both_ways(name, tmp_path):
    kind, changes = KINDS[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES | changes)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.rand_like(parameter) + 0.5)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = models.from_pretrained(tmp_path / "theirs")
    T = 70 if name == "dynamic" else 36  # dynamic has an effect beyond the context of the training
    ids = np.random.default_rng(0).integers(0, 37, (2, T))
    expected = logits(theirs, ids)
    np.testing.assert_allclose(ours(ids).data, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    ours.save_pretrained(tmp_path / "ours")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(back) is type(theirs)
    np.testing.assert_array_equal(logits(back, ids), expected)


@pytest.mark.parametrize("name", ["dynamic", "mistral", "qwen3", "smollm3"])
def test_greedy_text_with_a_cache(name, tmp_path):
    kind, changes = KINDS[name]
    torch.manual_seed(1)
    context = 40 if name == "dynamic" else 60  # dynamic goes beyond it
    changes = changes | {"eos_token_id": None, "max_position_embeddings": context}
    config = transformers.AutoConfig.for_model(kind, **SIZES | changes)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = models.from_pretrained(tmp_path)
    ids = np.random.default_rng(0).integers(0, 37, (1, 20))
    with torch.no_grad():
        new = theirs.generate(
            torch.tensor(ids), attention_mask=torch.ones(1, 20), max_new_tokens=40, do_sample=False, pad_token_id=0
        )
    cache = ours.new_cache(1, 60)
    scores, text = ours.next_logits(ids, cache), []
    for _ in range(40):
        text.append(int(scores[0].argmax()))
        scores = ours.next_logits(np.array([[text[-1]]]), cache)
    assert text == new[0, 20:].tolist()
