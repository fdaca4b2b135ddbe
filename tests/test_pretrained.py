"""Model folders: what was saved is loaded, what does not fit is listed, what we do not implement is refused by name."""

from __future__ import annotations

import errno
import json
import time
import tracemalloc

import numpy as np
import pytest

from minillm import files, models
from minillm.models.folder import pretrained
from minillm.models.folder.config import is_ignored
from minillm.nn import init
from tests.faults import dies, faulty_disk, mutated_json, snapshot

IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def gpt2(**changes):
    config = dict(vocab_size=20, n_positions=8, n_embd=12, n_layer=2, n_head=3, eos_token_id=0, bos_token_id=0)
    return models.GPT2(models.GPT2Config(**config | changes), 0).eval()


def llama(**changes):
    config = dict(vocab_size=20, hidden_size=12, intermediate_size=10, num_hidden_layers=2, num_attention_heads=3)
    config |= dict(num_key_value_heads=1, max_position_embeddings=8, initializer_range=0.3)
    return models.Llama(models.LlamaConfig(**config | changes), 0).eval()


def t5(**changes):
    config = dict(vocab_size=20, d_model=12, d_kv=5, d_ff=10, num_layers=1, num_decoder_layers=2, num_heads=3)
    return models.T5(models.T5Config(**config | changes), 0).eval()


def recurrent(**changes):
    config = dict(vocab_size=20, hidden_size=12, num_layers=2, cell="lstm", attention="additive", window=3)
    return models.RecurrentLM(models.RecurrentLMConfig(**config | changes), 0).eval()


MODELS = {"gpt2": gpt2, "llama": llama, "t5": t5, "recurrent": recurrent}


def logits(model):
    return (model(IDS, IDS) if model.is_encoder_decoder else model(IDS)).data


def edit(folder, **changes):
    """Change fields of the folder's config.json; a value of ... removes the field."""
    fields = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}))


@pytest.fixture(params=MODELS)
def saved(request, tmp_path):
    model = MODELS[request.param]()
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


# ---- right folders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_was_saved_is_loaded(saved, dtype):
    model, folder = saved
    loaded = models.from_pretrained(folder, dtype=dtype)
    assert type(loaded) is type(model) and not loaded.training
    assert loaded.config.to_dict() == model.config.to_dict()
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    for name in ours:
        assert theirs[name].dtype == dtype
        np.testing.assert_array_equal(theirs[name], ours[name])
    if dtype is np.float32:
        np.testing.assert_array_equal(logits(loaded), logits(model))


def test_what_the_folder_holds(saved):
    _, folder = saved
    fields = json.loads((folder / "config.json").read_text())
    expected = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "t5": "T5ForConditionalGeneration"}
    expected |= {"minillm_recurrent": "RecurrentLM"}
    assert fields["architectures"] == [expected[fields["model_type"]]] and fields["dtype"] == "float32"
    assert sorted(snapshot(folder)) == ["config.json", "model.safetensors"]


def test_the_untied_head_is_stored_and_the_tied_one_is_not(tmp_path):
    for name, make in MODELS.items():
        for tied in (True, False):
            folder = tmp_path / f"{name}-{tied}"
            model = make(tie_word_embeddings=tied)
            model.save_pretrained(folder)
            assert ("lm_head.weight" in files.open_safetensors(folder / "model.safetensors")) != tied
            np.testing.assert_array_equal(logits(models.from_pretrained(folder)), logits(model))


def test_loading_copies_nothing_and_training_leaves_the_file_alone(saved):
    _, folder = saved
    before = snapshot(folder)
    loaded = models.from_pretrained(folder)
    for parameter in loaded.parameters():
        assert not parameter.data.flags.owndata and parameter.data.flags.writeable
        parameter.data += 1
    assert snapshot(folder) == before


def test_float64_survives(tmp_path):
    model = gpt2().astype(np.float64)
    weight = model.transformer.wte.weight
    weight.data = weight.data + 1e-12
    model.save_pretrained(tmp_path / "model")
    loaded = models.from_pretrained(tmp_path / "model", dtype=np.float64)
    np.testing.assert_array_equal(loaded.transformer.wte.weight.data, weight.data)
    assert json.loads((tmp_path / "model/config.json").read_text())["dtype"] == "float64"
    with pytest.raises(ValueError, match="dtype must be float32 or float64; got int8"):
        models.from_pretrained(tmp_path / "model", dtype=np.int8)


def test_names_without_their_beginning_masks_and_equal_copies_of_tied_weights(tmp_path):
    """The first GPT-2 files call a parameter ``h.0...``, and store the causal mask beside it."""
    model = gpt2()
    model.save_pretrained(tmp_path / "model")
    state = {name.removeprefix("transformer."): array for name, array in model.state_dict().items()}
    state["h.0.attn.bias"] = np.tril(np.ones((1, 1, 8, 8), np.float32))
    state["h.0.attn.masked_bias"] = np.float32(-1e4)
    state["lm_head.weight"] = state["wte.weight"].copy()
    files.write_safetensors(tmp_path / "model/model.safetensors", state)
    np.testing.assert_array_equal(logits(models.from_pretrained(tmp_path / "model")), logits(model))
    state["lm_head.weight"][3, 4] += 1
    files.write_safetensors(tmp_path / "model/model.safetensors", state)
    with pytest.raises(ValueError, match="lm_head.weight differs from transformer.wte.weight, though the config"):
        models.from_pretrained(tmp_path / "model")
    del state["lm_head.weight"]
    state["transformer.ln_f.bias"] = state["ln_f.bias"]
    files.write_safetensors(tmp_path / "model/model.safetensors", state)
    with pytest.raises(ValueError, match="transformer.ln_f.bias is there twice"):
        models.from_pretrained(tmp_path / "model")


def smollm2(C, layers, H, G, inner, **changes):
    """The sizes of a SmolLM2."""
    config = dict(vocab_size=49152, hidden_size=C, num_hidden_layers=layers, num_attention_heads=H)
    config |= dict(num_key_value_heads=G, intermediate_size=inner, max_position_embeddings=8192)
    return lambda: models.Llama(models.LlamaConfig(**config | {"tie_word_embeddings": True} | changes))


PUBLISHED = [
    ("GPT-2 small", lambda: models.GPT2(models.GPT2Config()), 124_439_808),
    ("SmolLM2-135M", smollm2(576, 30, 9, 3, 1536), 134_515_008),
    ("SmolLM2-360M", smollm2(960, 32, 15, 5, 2560), 361_821_120),
    ("SmolLM2-1.7B", smollm2(2048, 24, 32, 32, 8192), 1_711_376_384),
    ("its teaching twin", smollm2(64, 4, 4, 2, 176, vocab_size=512), 217_664),
    ("T5 small", lambda: models.T5(models.T5Config()), 60_506_624),
    ("T5 base", lambda: models.T5(models.T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12)), 222_903_552),
]


@pytest.mark.parametrize("make, parameters", [case[1:] for case in PUBLISHED], ids=[case[0] for case in PUBLISHED])
def test_as_many_parameters_as_were_published(make, parameters):
    with init.skipped():  # the memory is never touched
        assert make().num_parameters() == parameters


def test_the_cache_of_smollm2_takes_46080_bytes_a_token():
    with init.skipped():
        cache = smollm2(576, 30, 9, 3, 1536)().new_cache(1, 10)
    assert sum(array.nbytes for array in (*cache.keys, *cache.values)) == 10 * 46_080


# ---- wrong folders ---------------------------------------------------------------------------------------------------


def test_missing_unexpected_and_misshapen_tensors_are_listed_in_one_message(saved):
    model, folder = saved
    state = dict(model.state_dict())
    names = list(state)
    for name in names[1:3]:
        del state[name]
    state[names[0]] = np.zeros((20, 13), np.float32)
    state[names[3]] = np.zeros(5, np.float32)
    state |= {"extra.weight": np.zeros(2, np.float32), "another.bias": np.zeros((3, 1), np.float32)}
    files.write_safetensors(folder / "model.safetensors", state)
    with pytest.raises(ValueError) as caught:
        models.from_pretrained(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    for name in (*names[:4], "extra.weight", "another.bias", "(20, 13)", "(5,)", "(3, 1)"):
        assert name in message
    assert not any(f" {name} " in message for name in names[4:])


def test_quantised_weights_are_refused(saved):
    model, folder = saved
    state = dict(model.state_dict())
    name = next(iter(state))
    files.write_safetensors(folder / "model.safetensors", state | {name: state[name].astype(np.int8)})
    with pytest.raises(ValueError, match=f"{name} has dtype I8; parameters are F32, F16, BF16 or F64"):
        models.from_pretrained(folder)


REFUSED = [
    ("gpt2", {"model_type": "mixtral"}, "model_type must be one of gpt2, llama, t5, .*; got 'mixtral'"),
    ("gpt2", {"model_type": ...}, "model_type must be one of .*; got None"),
    ("gpt2", {"activation_function": "relu"}, "activation_function must be one of .*; got 'relu'"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights = False is not implemented"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True is not implemented"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention = True is not implemented"),
    ("gpt2", {"quantization_config": {"bits": 4}}, "quantization_config = .* is unknown and may change the result"),
    ("gpt2", {"n_layer": 10**6}, "n_layer = 1000000, but there are only 28 tensors"),
    ("gpt2", {"n_layer": 10**30}, "n_layer must be at most"),
    ("gpt2", {"n_layer": True}, "n_layer must be int; got True"),
    ("gpt2", {"n_head": 5}, "n_embd must be divisible by n_head"),
    ("gpt2", {"n_head": -3}, "n_head must be at least 1"),
    ("gpt2", {"vocab_size": 2**31 - 1}, r"transformer.wte.weight has shape \(20, 12\), expected \(2147483647, 12\)"),
    ("gpt2", {"n_embd": 12 * 2**20}, r"transformer.wte.weight has shape \(20, 12\), expected \(20, 12582912\)"),
    ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 4.0}},
     "rope_scaling = .*longrope.* is not implemented"),
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling and rope_parameters disagree"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 0.5}, "rope_parameters": ...}, "factor must be at least 1"),
    ("llama", {"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 2}, "rope_parameters": ...},
     "rope_scaling: beta_slow must be above 0 and below beta_fast"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2, "sinks": 1}, "rope_parameters": ...},
     r"rope_scaling.sinks = 1 is unknown .*ignore_unknown=\('rope_scaling',\)"),
    ("llama", {"rope_theta": 1.0, "rope_parameters": ...}, "rope_theta must be above 1; got 1.0"),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_parameters = .*llama3"),
    ("llama", {"rope_parameters": {"rope_theta": 5.0}}, "rope_theta and rope_parameters.rope_theta disagree"),
    ("llama", {"rope_parameters": {"rope_theta": "x"}, "rope_theta": ...}, "rope_theta must be float; got 'x'"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu' is not implemented"),
    ("llama", {"sliding_window": 4096}, "sliding_window = 4096 is unknown and may change the result"),
    ("llama", {"num_attention_heads": 5, "head_dim": ...}, "hidden_size must be divisible by num_attention_heads"),
    ("llama", {"rms_norm_eps": "1e-6"}, "rms_norm_eps must be float; got '1e-6'"),
    ("llama", {"attention_bias": True}, "missing model.layers.0.self_attn.q_proj.bias"),
    ("t5", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj must be one of .*; got 'gated-tanh'"),
    ("t5", {"is_gated_act": True}, "missing encoder.block.0.layer.1.DenseReluDense.wi_0.weight"),
    ("t5", {"dense_act_fn": "mish"}, "dense_act_fn must be one of relu, .*; got 'mish'"),
    ("t5", {"is_encoder_decoder": False}, r"is_encoder_decoder = False is not implemented \(only True\)"),
    ("t5", {"num_decoder_layers": 10**9}, "num_decoder_layers = 1000000000, but there are only"),
    ("t5", {"model_type": "mt5"}, "model_type must be one of .*; got 'mt5'"),
    ("recurrent", {"cell": "qrnn"}, "cell must be .*; got 'qrnn'"),
    ("recurrent", {"cell": "gru"}, r"has shape \(48, .*\), expected \(36"),
    ("recurrent", {"window": 0}, "window must be at least 1"),
]


@pytest.mark.parametrize("name, changes, message", REFUSED)
def test_what_changes_the_result_and_is_not_implemented_is_refused_by_name(tmp_path, name, changes, message):
    MODELS[name]().save_pretrained(tmp_path / "model")
    edit(tmp_path / "model", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        models.from_pretrained(tmp_path / "model")
    assert str(caught.value).startswith(str(tmp_path / "model"))


def test_fields_that_change_nothing_are_accepted(tmp_path):
    """Fields of the published SmolLM2, GPT-2 and T5."""
    llama().save_pretrained(tmp_path / "llama")
    edit(
        tmp_path / "llama", is_llama_config=True, rope_interleaved=False, rope_scaling=None, pretraining_tp=1,
        torch_dtype="bfloat16", transformers_version="4.40.1", use_cache=True, dtype=...,
        **{"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}},
    )  # fmt: skip
    gpt2().save_pretrained(tmp_path / "gpt2")
    edit(
        tmp_path / "gpt2", n_ctx=8, summary_type="cls_index", summary_use_proj=True, summary_activation=None,
        task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}},
    )  # fmt: skip
    t5().save_pretrained(tmp_path / "t5")
    edit(tmp_path / "t5", n_positions=512, output_past=True, scale_decoder_outputs=..., is_encoder_decoder=True)
    for name in ("llama", "gpt2", "t5"):
        loaded = models.from_pretrained(tmp_path / name)
        np.testing.assert_array_equal(logits(loaded), logits(MODELS[name]()))


def test_whoever_knows_better_reads_on_without_a_field_or_a_tensor(saved):
    model, folder = saved
    edit(folder, attention_sinks=4, adapters={"a": 1})
    state = dict(model.state_dict()) | {"score.weight": np.zeros(2, np.int8), "extra": np.zeros(3, np.float32)}
    files.write_safetensors(folder / "model.safetensors", state)
    for known, message in (
        ((), r"config.json: attention_sinks = 4 .*; to read on without them: .*\('attention_sinks', 'adapters'\)\)$"),
        (["adapters", "attention_sinks"], "score.weight has dtype I8"),
        (["adapters", "attention_sinks", "score.weight"],
         r"unexpected extra \(3,\); to read on without it: .*\('extra',\)\)$"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            models.from_pretrained(folder, ignore_unknown=known)
    names = ("adapters", "attention_sinks", "score.weight", "extra")
    np.testing.assert_array_equal(logits(models.from_pretrained(folder, ignore_unknown=names)), logits(model))
    edit(folder, vocab_size=21)  # what is known is never left out
    with pytest.raises(ValueError, match=r"has shape \(20, 12\), expected \(21, 12\)"):
        models.from_pretrained(folder, ignore_unknown=(*names, "vocab_size"))
    with pytest.raises(ValueError, match="ignore_unknown must be a list of names; got the string 'adapters'"):
        models.from_pretrained(folder, ignore_unknown="adapters")


def test_two_names_of_one_size_must_agree(tmp_path):
    gpt2().save_pretrained(tmp_path)
    edit(tmp_path, hidden_size=12, num_attention_heads=None)
    models.from_pretrained(tmp_path)
    edit(tmp_path, hidden_size=24)
    with pytest.raises(ValueError, match="hidden_size = 24 and n_embd = 12 are two names of one size, and disagree"):
        models.from_pretrained(tmp_path)


def test_folders_without_a_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        models.from_pretrained(tmp_path)
    gpt2().save_pretrained(tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    (tmp_path / "model/pytorch_model.bin").write_bytes(b"cos\nsystem\n")  # pickle: never read
    with pytest.raises(FileNotFoundError, match="no weights here"):
        models.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", MODELS)
def test_300_mutated_configurations(tmp_path, name):
    """Each is refused with a ValueError that names the file, or all that it says was understood."""
    rng = np.random.default_rng(11)
    folder = tmp_path / "model"
    MODELS[name](vocab_size=9000).save_pretrained(folder)
    good = (folder / "config.json").read_bytes()
    size = (folder / "model.safetensors").stat().st_size
    refused = 0
    for _ in range(300):
        (folder / "config.json").write_bytes(mutated_json(good, rng))
        tracemalloc.start()
        begun = time.process_time()
        try:
            model = models.from_pretrained(folder)
        except ValueError as error:
            model = None
            assert str(error).startswith(str(folder))
            refused += 1
        assert time.process_time() - begun < 1
        assert tracemalloc.get_traced_memory()[1] < 2 * size
        tracemalloc.stop()
        if model is not None:
            understood = model.config.to_dict()
            for key, value in json.loads((folder / "config.json").read_bytes()).items():
                known = key in understood and understood[key] == value
                defaulted = value is None and (key not in understood or understood[key] is not None)
                other_wording = key in ("activation_function", "hidden_act")  # synonyms
                assert known or defaulted or other_wording or is_ignored(key), (key, value)
    assert 150 < refused < 300


def test_300_mutated_weights(tmp_path):
    rng = np.random.default_rng(13)
    folder = tmp_path / "model"
    llama(vocab_size=3000).save_pretrained(folder)
    path = folder / "model.safetensors"
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little")
    refused = 0
    for _ in range(300):
        changed = bytearray(good)
        for position in rng.integers(8 + header, size=rng.integers(1, 4)):
            changed[position] = rng.integers(256)
        path.write_bytes(changed[: rng.integers(len(good))] if rng.random() < 0.2 else changed)
        tracemalloc.start()
        begun = time.process_time()
        try:
            models.from_pretrained(folder)
        except ValueError as error:
            assert str(error).startswith(str(folder))
            refused += 1
        assert time.process_time() - begun < 1
        assert tracemalloc.get_traced_memory()[1] < 2 * len(good)
        tracemalloc.stop()
    assert refused > 270  # the rest changed a space at the header's end, or the format's name


# ---- writing ---------------------------------------------------------------------------------------------------------


class Tokenizer:
    def save(self, folder):
        (folder / "tokenizer.json").write_text("{}")


class Settings:
    def to_dict(self):
        return {"temperature": 0.5}


def test_everything_that_is_given_is_written_and_the_rest_kept(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    gpt2().save_pretrained(
        first, tokenizer=Tokenizer(), generation_config=Settings(), chat_template="{{ é }}", model_card="# A card"
    )
    assert json.loads((first / "generation_config.json").read_text()) == {"temperature": 0.5}
    assert (first / "README.md").read_text() == "# A card"
    assert pretrained.read_chat_template(first) == "{{ é }}"
    gpt2().save_pretrained(second, keep_from=first, generation_config={"eos_token_id": 0})
    kept, given = snapshot(first), snapshot(second)
    assert given.keys() == kept.keys() - {"README.md"}  # a card describes other weights
    assert {name for name in given if given[name] != kept[name]} == {"generation_config.json"}


def test_how_a_decoder_begins_stands_with_the_generation_settings(tmp_path):
    """transformers looks for it there."""
    t5(decoder_start_token_id=3, pad_token_id=2).save_pretrained(tmp_path / "t5", generation_config={"max_length": 9})
    fields = json.loads((tmp_path / "t5/generation_config.json").read_text())
    assert fields == {"decoder_start_token_id": 3, "pad_token_id": 2, "max_length": 9}


def test_a_chat_template_is_found_wherever_it_stands(tmp_path):
    config = tmp_path / "tokenizer_config.json"
    assert pretrained.read_chat_template(tmp_path) is None
    files.write_json(config, {"eos_token": "</s>"})
    assert pretrained.read_chat_template(tmp_path) is None
    files.write_json(config, {"chat_template": "one"})
    assert pretrained.read_chat_template(tmp_path) == "one"
    gpt2().save_pretrained(tmp_path / "tuned", keep_from=tmp_path, tokenizer=Tokenizer())
    assert (tmp_path / "tuned/chat_template.jinja").read_text() == "one"
    named = [{"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]
    files.write_json(config, {"chat_template": named})
    assert pretrained.read_chat_template(tmp_path) == "three"
    (tmp_path / "chat_template.jinja").write_text("four")
    assert pretrained.read_chat_template(tmp_path) == "four"


@pytest.mark.parametrize("wrong", [1, {"a": 1}, [1], [{"template": "x"}, {"name": "default", "template": 2}]])
def test_a_chat_template_that_is_no_text_is_refused(tmp_path, wrong):
    files.write_json(tmp_path / "tokenizer_config.json", {"chat_template": wrong})
    with pytest.raises(ValueError, match="tokenizer_config.json: chat_template must be"):
        pretrained.read_chat_template(tmp_path)


@pytest.mark.parametrize("error", [errno.ENOSPC, None], ids=["full", "crash"])
@pytest.mark.parametrize("exists", [False, True])
def test_a_failure_at_any_operation_leaves_no_mixture(tmp_path, error, exists):
    old, new = gpt2(), gpt2(n_layer=1)
    extras = dict(tokenizer=Tokenizer(), model_card="card")

    def save(folder):
        new.save_pretrained(folder, **extras)

    def prepare(folder):
        if exists:
            with faulty_disk():
                old.save_pretrained(folder)
            (folder / "log.jsonl").write_text("{}")

    prepare(tmp_path / "count")
    with faulty_disk() as disk:
        save(tmp_path / "count")
    layers = set()
    for fail_at in range(len(disk.log)):
        folder = tmp_path / f"{fail_at}"
        prepare(folder)
        if error is None:
            assert dies(lambda folder=folder: save(folder), fail_at)
        else:
            with faulty_disk(fail_at, error), pytest.raises(OSError):
                save(folder)
        try:
            layers.add(models.from_pretrained(folder).config.n_layer)
        except FileNotFoundError:
            layers.add(None)
        if exists:
            assert (folder / "log.jsonl").read_text() == "{}"
    assert layers == ({2, None, 1} if exists else {None, 1})
