"""Hub folders as they are found: fields, buffers and names that transformers ignores change no logit here either.

Each folder is opened by both; the logits, and where a folder says how a text ends, the greedy text, are the same.
"""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

from minillm import files, models  # noqa: E402
from minillm.generation import GenerationConfig, generate  # noqa: E402
from minillm.tokenizer import BPETokenizer, CharTokenizer  # noqa: E402
from minillm.training.run import load_run  # noqa: E402
from tests.parity.test_pretrained import CONFIGS, LLAMA, T5, our_logits, random_model, their_logits  # noqa: E402

AUTO = {
    "gpt2": transformers.AutoModelForCausalLM,
    "llama": transformers.AutoModelForCausalLM,
    "t5": transformers.AutoModelForSeq2SeqLM,
}


def saved(name, folder):
    theirs = random_model(copy.deepcopy(CONFIGS[name]))
    theirs.save_pretrained(folder)
    return theirs


def edit(folder, changes, file="config.json"):
    """Change fields of a JSON file; a value of ... removes the field."""
    fields = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


def assert_same_logits(folder, **options):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    theirs = AUTO[kind].from_pretrained(folder, dtype=torch.float32).eval()
    ours = our_logits(models.from_pretrained(folder, **options))
    np.testing.assert_allclose(ours, their_logits(theirs), atol=1e-4)
    return ours


# ---- config.json -----------------------------------------------------------------------------------------------------

ANY = [  # fields of any architecture
    {"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},  # distilgpt2
    {"num_labels": 3},
    {"auto_map": {"AutoModelForCausalLM": "modeling_custom.Custom"}, "custom_pipelines": {}},
    {"loss_type": "ForCausalLM", "problem_type": None},
    {"attention_dropout": 0.1, "hidden_dropout": 0.1, "classifier_dropout": 0.1, "dropout_rate": 0.2},
    {"architectures": []},
    {"architectures": None},
    {"architectures": ["SomebodysModelForAnotherTask"]},
    {"eos_token_id": [2, 5], "bos_token_id": None, "pad_token_id": 2, "sep_token_id": 3},
    {"_name_or_path": "/home/somebody", "name_or_path": "x", "_commit_hash": None, "_something_private": {"a": 1}},
    {"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "use_cache": False},
    {"unsloth_version": "2025.1", "unsloth_fixed": True},
    {"torch_dtype": "float16", "dtype": ..., "gradient_checkpointing": False, "torchscript": True},
    {"task_specific_params": {"text-generation": {"do_sample": True}}, "predict_special_tokens": True, "n_special": 0},
    {"do_sample": True, "temperature": 0.7, "max_length": 50, "min_new_tokens": 2, "max_new_tokens": 7},
    {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024, "max_sequence_length": 9, "xla_device": True},
    {"base_model_tp_plan": {"a": "b"}, "initializer_range": 0.5, "initializer_factor": 2.0},
    {"use_sliding_window": False, "pruned_heads": {}, "chunk_size_feed_forward": 0},
]
OWN = {
    "gpt2": [
        {"architectures": ["GPT2Model"]},
        {"architectures": ["GPT2ForSequenceClassification"]},
        {"n_ctx": 16, "summary_type": "mean", "summary_last_dropout": 0.3, "afn": "gelu", "output_past": True},
        {"reorder_and_upcast_attn": True},
        {"activation_function": "gelu_pytorch_tanh"},
        {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "max_position_embeddings": 16},
        {"n_embd": ..., "hidden_size": 24, "n_head": ..., "num_attention_heads": 3},
        {"n_layer": ..., "num_hidden_layers": 2, "n_positions": ..., "max_position_embeddings": 16},
    ],
    "llama": [
        {"architectures": ["LlamaModel"]},
        {"rope_scaling": {"type": "default"}},
        {"rope_scaling": {"rope_type": "default", "rope_theta": 99.0}, "rope_parameters": ...},
        {"rope_scaling": {"rope_type": "default"}, "rope_theta": 77.0, "rope_parameters": ...},
        {"rope_scaling": {"rope_type": "default", "factor": 8.0, "high_freq_factor": 4.0}},
        {"rope_scaling": {"rope_type": "linear", "factor": 1.0}, "rope_theta": 50.0, "rope_parameters": None},
        {"rope_parameters": {}, "rope_scaling": {}},
        {"hidden_act": "swish", "pretraining_tp": 1, "rope_interleaved": False, "is_llama_config": True},
        {"original_max_position_embeddings": 64, "max_window_layers": 3, "sliding_window": None},
    ],
    "t5": [
        {"architectures": ["T5WithLMHeadModel"]},
        {"architectures": ["T5Model"], "n_positions": 512, "output_past": True, "add_cross_attention": True},
        {"d_model": ..., "hidden_size": 20, "num_attention_heads": 3, "num_hidden_layers": 2, "head_dim": 6},
    ],
}
CHANGES = [(kind, changes) for kind in OWN for changes in ANY + OWN[kind]]


@pytest.mark.parametrize(("kind", "changes"), CHANGES, ids=lambda value: str(value)[:60])
def test_a_field_that_changes_nothing_there_stops_nobody_here(kind, changes, tmp_path):
    saved(kind, tmp_path)
    edit(tmp_path, changes)
    assert_same_logits(tmp_path)


def test_the_rotary_settings_have_an_effect(tmp_path):
    """So that the equalities above say something."""
    saved("llama", tmp_path)
    plain = assert_same_logits(tmp_path)
    edit(tmp_path, {"rope_scaling": {"rope_type": "default", "rope_theta": 99.0}, "rope_parameters": ...})
    assert np.abs(assert_same_logits(tmp_path) - plain).max() > 1e-3


ACTS = ["relu", "gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "swish"]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("gated", [False, True])
def test_the_activation_of_t5_is_what_its_fields_say(act, gated, tmp_path):
    """Named by feed_forward_proj; and by dense_act_fn and is_gated_act, which win where they differ from it."""
    named = ("gated-" if gated else "") + act
    theirs = random_model(transformers.T5Config(**T5, feed_forward_proj=named))
    theirs.save_pretrained(tmp_path)
    by_its_fields = assert_same_logits(tmp_path)
    edit(tmp_path, {"dense_act_fn": ..., "is_gated_act": ...})
    by_its_name = assert_same_logits(tmp_path)
    np.testing.assert_array_equal(by_its_name, by_its_fields)

    other = "silu" if act == "relu" else "relu"
    edit(tmp_path, {"dense_act_fn": other})
    assert np.abs(assert_same_logits(tmp_path) - by_its_name).max() > 1e-3
    edit(tmp_path, {"feed_forward_proj": other, "dense_act_fn": act, "is_gated_act": gated})
    ours = models.from_pretrained(tmp_path)
    if (act, gated) != ("gelu", True):  # gated-gelu is gelu_new; a dense_act_fn of gelu is gelu
        np.testing.assert_array_equal(assert_same_logits(tmp_path), by_its_name)
    ours.save_pretrained(tmp_path / "ours")
    np.testing.assert_array_equal(assert_same_logits(tmp_path / "ours"), assert_same_logits(tmp_path))


# ---- tensors ---------------------------------------------------------------------------------------------------------


def rewrite(folder, change):
    """Write the weights again, changed."""
    tensors = safetensors_torch.load_file(folder / "model.safetensors")
    safetensors_torch.save_file(change(tensors), folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float32])
@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_masks_of_gpt2_of_any_dtype(dtype, prefix, tmp_path):
    saved("gpt2", tmp_path)

    def with_masks(tensors):
        masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 16, 16).tril().to(dtype) for i in range(2)}
        masks |= {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-10000.0) for i in range(2)}
        return {prefix + name.removeprefix("transformer."): tensor for name, tensor in (tensors | masks).items()}

    rewrite(tmp_path, with_masks)
    assert_same_logits(tmp_path)


def test_tables_of_angles_and_positions_of_llama(tmp_path):
    saved("llama", tmp_path)
    tables = {
        **{f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in range(2)},
        **{f"model.layers.{i}.self_attn.rotary_emb.{name}_cached": torch.ones(1, 1, 9, 4) for name in ("cos", "sin")
           for i in range(2)},
        "model.rotary_emb.inv_freq": torch.ones(2, dtype=torch.float16),
        "model.rotary_emb.original_inv_freq": torch.ones(2),
        "model.position_ids": torch.arange(9)[None],
        "position_ids": torch.arange(9)[None],
    }  # fmt: skip
    rewrite(tmp_path, lambda tensors: tensors | tables)
    assert_same_logits(tmp_path)


TIED = ["gpt2", "llama 1 kv head, tied", "t5"]


@pytest.mark.parametrize("name", TIED)
def test_what_save_model_writes(name, tmp_path):
    """safetensors' save_model keeps a tied weight under one of its names alone."""
    theirs = saved(name, tmp_path)
    safetensors_torch.save_model(theirs, str(tmp_path / "model.safetensors"), {"format": "pt"})
    assert_same_logits(tmp_path)


SECOND = {
    "gpt2": ("transformer.wte.weight", ["lm_head.weight"]),
    "llama 1 kv head, tied": ("model.embed_tokens.weight", ["lm_head.weight"]),
    "t5": ("shared.weight", ["lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]),
}


@pytest.mark.parametrize(("name", "second"), [(name, second) for name in TIED for second in SECOND[name][1]])
def test_a_tied_weight_under_its_second_name_alone(name, second, tmp_path):
    theirs, first = saved(name, tmp_path), SECOND[name][0]
    expected = their_logits(theirs)
    rewrite(tmp_path, lambda tensors: {second if key == first else key: value for key, value in tensors.items()})
    np.testing.assert_allclose(our_logits(models.from_pretrained(tmp_path)), expected, atol=1e-4)
    bare = {"gpt2": "transformer.", "llama 1 kv head, tied": "model."}.get(name)
    if bare:  # without the beginning of its names
        rewrite(tmp_path, lambda tensors: {key.removeprefix(bare): value for key, value in tensors.items()})
        np.testing.assert_allclose(our_logits(models.from_pretrained(tmp_path)), expected, atol=1e-4)


def test_an_untied_t5_whose_embedding_is_stored_as_its_decoders(tmp_path):
    expected = their_logits(saved("t5 v1.1", tmp_path))
    second = "decoder.embed_tokens.weight"

    def moved(tensors):
        return {second if key == "shared.weight" else key: value for key, value in tensors.items()}

    rewrite(tmp_path, moved)
    np.testing.assert_allclose(our_logits(models.from_pretrained(tmp_path)), expected, atol=1e-4)


def test_a_model_of_another_task_says_how_to_go_on(tmp_path):
    """A classifier's text model can be used; its own head is no part of it."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(**CONFIGS["gpt2"].to_diff_dict() | {"num_labels": 2})
    transformers.GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    message = r"unexpected score.weight \(2, 24\); to read on without it: .*ignore_unknown=\('score.weight',\)"
    with pytest.raises(ValueError, match=message):
        models.from_pretrained(tmp_path)
    assert_same_logits(tmp_path, ignore_unknown=("score.weight",))


def test_a_bare_llama_opens_where_its_head_is_tied(tmp_path):
    theirs = random_model(copy.deepcopy(CONFIGS["llama 1 kv head, tied"]))
    theirs.model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaModel"]
    np.testing.assert_allclose(our_logits(models.from_pretrained(tmp_path)), their_logits(theirs), atol=1e-4)


def test_a_bare_t5_opens_and_an_encoder_alone_does_not(tmp_path):
    theirs = random_model(copy.deepcopy(CONFIGS["t5"]))
    config = theirs.config
    bare = transformers.T5Model(config)
    bare.load_state_dict({k: v for k, v in theirs.state_dict().items() if k in bare.state_dict()})
    bare.save_pretrained(tmp_path / "bare")
    np.testing.assert_allclose(our_logits(models.from_pretrained(tmp_path / "bare")), their_logits(theirs), atol=1e-4)
    transformers.T5EncoderModel(copy.deepcopy(config)).save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="is_encoder_decoder = False is not implemented .only True."):
        models.from_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="missing decoder.block.0.layer.0.SelfAttention.q.weight"):
        models.from_pretrained(tmp_path / "encoder", ignore_unknown=["is_encoder_decoder"])


# ---- the end of a text -----------------------------------------------------------------------------------------------

END = "<|finis|>"  # a name that nobody knows


def chat_folder(folder, ends):
    """A Llama that writes the token ``END`` after a few others; ends: changes of its files."""
    tokenizer = BPETokenizer.train(["the cat sat on the mat"] * 5, 264, special_tokens=(END, "<|other|>"))
    V, end = tokenizer.vocab_size, tokenizer.special_tokens[END]
    torch.manual_seed(1)
    sizes = LLAMA | {"vocab_size": V, "bos_token_id": None, "eos_token_id": None}
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    with torch.no_grad():
        theirs.lm_head.weight.normal_(0, 1)
        ids = tokenizer.encode("the cat")
        for step in range(4):
            text = theirs(torch.tensor([ids])).logits[0, -1].argmax().item()
            if step == 3:
                hidden = theirs.model(torch.tensor([ids])).last_hidden_state[0, -1]
                theirs.lm_head.weight[end] = 20 * hidden / hidden.norm() ** 2  # here, the end is the most likely token
            ids.append(text)
    theirs.save_pretrained(folder)
    tokenizer.save(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text("{}")
    for file, fields in ends(end).items():
        if not (folder / file).exists():
            (folder / file).write_text("{}")
        edit(folder, fields, file)
    return end


ENDS = {
    "config.json": lambda end: {"config.json": {"eos_token_id": end}},
    "config.json, a list": lambda end: {"config.json": {"eos_token_id": [end, 0]}},
    "tokenizer_config.json": lambda end: {"tokenizer_config.json": {"eos_token": END}},
    "tokenizer_config.json, a table": lambda end: {"tokenizer_config.json": {"eos_token": {"content": END}}},
    "generation_config.json": lambda end: {"generation_config.json": {"eos_token_id": end}},
    "an empty one": lambda end: {"generation_config.json": {}, "config.json": {"eos_token_id": end}},
}


@pytest.mark.parametrize("where", ENDS)
def test_the_end_of_the_text_is_known_wherever_it_stands(where, tmp_path):
    end = chat_folder(tmp_path, ENDS[where])
    loaded = load_run(tmp_path)
    assert loaded.tokenizer.eos_id == end
    result = generate(loaded.model, loaded.tokenizer, "the cat", loaded.generation.replace(max_new_tokens=8))
    assert result.finish_reason == "eos" and result.ids[-1] == end and len(result.ids) <= 5
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    prompt = torch.tensor([loaded.tokenizer.encode("the cat")])
    out = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, eos_token_id=end,
                          pad_token_id=0)  # fmt: skip
    assert result.ids == out[0, prompt.shape[1] :].tolist()


def test_without_any_word_of_it_no_end_is_known(tmp_path):
    chat_folder(tmp_path, lambda end: {})
    loaded = load_run(tmp_path)
    assert loaded.tokenizer.eos_id is None and loaded.generation.eos_token_id is None


@pytest.mark.parametrize("settings", [None, {}, {"transformers_version": "5.0.0"}])
def test_missing_and_empty_generation_settings_mean_the_same(settings, tmp_path):
    """Greedy, as in transformers, and the beginning and end of the text as config.json says."""
    saved("llama", tmp_path)
    edit(tmp_path, {"bos_token_id": 7, "eos_token_id": [2, 5]})
    BPETokenizer.train(["abc"], 260).save(tmp_path)
    (tmp_path / "generation_config.json").unlink(missing_ok=True)
    if settings is not None:
        files.write_json(tmp_path / "generation_config.json", settings)
    with pytest.warns(UserWarning, match="the tokenizer has 2.. tokens, the model only 60"):
        generation = load_run(tmp_path).generation
    theirs = AUTO["llama"].from_pretrained(tmp_path).generation_config
    assert generation.temperature == 0 and not theirs.do_sample
    assert generation.add_bos is False and generation.bos_token_id == 7 and generation.eos_token_id == (2, 5)
    if settings is None:
        assert (theirs.bos_token_id, theirs.eos_token_id) == (7, [2, 5])


# ---- folders of users ------------------------------------------------------------------------------------------------

FOUND = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=48, n_positions=32, n_embd=24, n_layer=2, n_head=3)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=48, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3
        )
    ),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=48, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_heads=3, decoder_start_token_id=0
        )
    ),
}
HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("dtype", [*HALVES, "float32"])
@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_in_half_precision_and_in_several_files(name, dtype, shards, tmp_path):
    """With a vocabulary that was filled up beyond the tokenizer, as for speed it often is."""
    torch.manual_seed(0)
    theirs = FOUND[name]().eval().to(HALVES.get(dtype, torch.float32))
    theirs.save_pretrained(tmp_path, max_shard_size="10KB" if shards else "1GB")
    CharTokenizer.train(["abcdefgh \n"], special_tokens=("<pad>", "</s>")).save(tmp_path)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == shards
    ours, words, _ = load_run(tmp_path)
    assert words.vocab_size < ours.config.vocab_size == 48
    ids = np.random.default_rng(0).integers(1, 48, (2, 9))  # 0 is padding, which a T5 does not see
    with torch.no_grad():
        inputs = {"decoder_input_ids": torch.tensor(ids)} if name == "t5" else {}
        expected = theirs.float()(torch.tensor(ids), **inputs).logits.numpy()
    found = ours(ids, decoder_ids=ids) if name == "t5" else ours(ids)
    np.testing.assert_allclose(found.data, expected, rtol=0, atol=1e-5)
    result = generate(ours, words, "abc", GenerationConfig(max_new_tokens=3, temperature=0, eos_token_id=()))
    assert len(result.ids) == 3
