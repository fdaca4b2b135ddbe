"""Model folders against transformers: what it writes runs here, what we write runs there, with the same logits."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from minillm import files, models  # noqa: E402
from minillm import functional as F  # noqa: E402

IDS = np.random.default_rng(0).integers(1, 60, (2, 11))  # without 0, T5's padding
START = np.random.default_rng(1).integers(0, 60, (2, 7))  # what a decoder has written so far

GPT2 = dict(vocab_size=60, n_positions=16, n_embd=24, n_layer=2, n_head=3, bos_token_id=1, eos_token_id=2)
LLAMA = dict(vocab_size=60, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6)
T5 = dict(vocab_size=60, d_model=20, d_kv=6, d_ff=28, num_layers=2, num_heads=3, decoder_start_token_id=0)
V11 = dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False)

CONFIGS = {
    "gpt2": transformers.GPT2Config(**GPT2),
    "gpt2 n_inner": transformers.GPT2Config(**GPT2, n_inner=10),
    "gpt2 exact gelu, large epsilon": transformers.GPT2Config(
        **GPT2, activation_function="gelu", layer_norm_epsilon=0.1
    ),
    "gpt2 untied": transformers.GPT2Config(**GPT2, tie_word_embeddings=False),
    "llama": transformers.LlamaConfig(**LLAMA),
    "llama head size 10": transformers.LlamaConfig(**LLAMA, head_dim=10),
    "llama 1 kv head, tied": transformers.LlamaConfig(**LLAMA, num_key_value_heads=1, tie_word_embeddings=True),
    "llama 3 kv heads, biases": transformers.LlamaConfig(
        **LLAMA, num_key_value_heads=3, attention_bias=True, mlp_bias=True
    ),
    "llama theta and epsilon": transformers.LlamaConfig(
        **LLAMA, rope_parameters={"rope_type": "default", "rope_theta": 123.0}, rms_norm_eps=0.1
    ),
    "t5": transformers.T5Config(**T5),
    "t5 v1.1": transformers.T5Config(**T5, **V11),
    "t5 more layers in the decoder, few buckets": transformers.T5Config(
        **T5, num_decoder_layers=3, relative_attention_num_buckets=8, relative_attention_max_distance=9
    ),
    "t5 gated, tied": transformers.T5Config(**T5, feed_forward_proj="gated-gelu"),
}
CLASSES = {
    "gpt2": transformers.GPT2LMHeadModel,
    "llama": transformers.LlamaForCausalLM,
    "t5": transformers.T5ForConditionalGeneration,
}


def random_model(config, dtype=torch.float32):
    """A model of transformers in which every parameter is random: biases and scales too."""
    torch.manual_seed(0)
    model = CLASSES[config.model_type](config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.1, 0.3)
    return model.to(dtype)


def their_logits(model):
    inputs = {"input_ids": torch.tensor(IDS)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor(START)
    with torch.no_grad():
        return model(**inputs).logits.numpy()


def our_logits(model):
    return (model(IDS, START) if model.is_encoder_decoder else model(IDS)).data


@pytest.fixture(params=CONFIGS)
def theirs(request):
    return random_model(CONFIGS[request.param])


def test_theirs_runs_here(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    np.testing.assert_allclose(our_logits(models.from_pretrained(tmp_path)), their_logits(theirs), atol=1e-4)
    exact = models.from_pretrained(tmp_path, dtype=np.float64)
    # transformers has a part in float32 in its "float64" Llama and T5: the root mean square
    atol = 1e-9 if theirs.config.model_type == "gpt2" else 2e-6
    np.testing.assert_allclose(our_logits(exact), their_logits(theirs.double()), rtol=0, atol=atol)


def test_same_loss_and_gradients(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    ours = models.from_pretrained(tmp_path, dtype=np.float64)
    written = START if ours.is_encoder_decoder else IDS
    logits = ours(IDS, START) if ours.is_encoder_decoder else ours(IDS)
    loss = F.cross_entropy(logits[:, :-1].reshape(-1, 60), written[:, 1:].reshape(-1))
    loss.backward()
    theirs = theirs.double()
    inputs = {"decoder_input_ids": torch.tensor(START)} if ours.is_encoder_decoder else {}
    logits = theirs(input_ids=torch.tensor(IDS), **inputs).logits
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, 60), torch.tensor(written[:, 1:]).reshape(-1)
    )
    expected.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), atol=2e-6)
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    reference = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == reference.keys()
    for name, gradient in reference.items():
        np.testing.assert_allclose(gradients[name], gradient.numpy(), atol=1e-5, err_msg=name)


def test_shards_and_half_precision(theirs, tmp_path):
    """The file holds rounded weights: transformers, computing with those in float32, is the reference."""
    for dtype in (torch.bfloat16, torch.float16):
        folder = tmp_path / str(dtype)
        random_model(theirs.config, dtype).save_pretrained(folder, max_shard_size="4KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 2
        reference = CLASSES[theirs.config.model_type].from_pretrained(folder, dtype=torch.float32).eval()
        np.testing.assert_allclose(our_logits(models.from_pretrained(folder)), their_logits(reference), atol=1e-4)


def test_ours_runs_there(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "theirs")
    ours = models.from_pretrained(tmp_path / "theirs")
    for parameter in ours.parameters():
        parameter.data *= 0.9  # something was learned
    ours.save_pretrained(tmp_path / "ours")
    auto = transformers.AutoModelForSeq2SeqLM if ours.is_encoder_decoder else transformers.AutoModelForCausalLM
    again, report = auto.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(again) is type(theirs)
    assert not any(report.values()), report
    np.testing.assert_allclose(their_logits(again.eval()), our_logits(ours), atol=1e-4)


def test_configurations_survive_the_way_there_and_back(theirs, tmp_path):
    """Every field that transformers writes and that we keep has, after our writing, the same meaning to it."""
    theirs.save_pretrained(tmp_path / "theirs")
    models.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    before, after = (transformers.AutoConfig.from_pretrained(tmp_path / side) for side in ("theirs", "ours"))
    ours = json.loads((tmp_path / "ours/config.json").read_text())
    for name in ours.keys() - {"rope_theta"}:  # the older word for what stands in rope_parameters too
        assert getattr(after, name) == getattr(before, name), name
    same = {"transformers_version", "_name_or_path", "dtype", "architectures"}
    assert {k: v for k, v in after.to_dict().items() if k not in same} == {
        k: v for k, v in before.to_dict().items() if k not in same
    }


def test_the_older_way_to_write_the_rotary_settings(tmp_path):
    theirs = random_model(CONFIGS["llama theta and epsilon"])
    theirs.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["rope_theta"] = fields.pop("rope_parameters")["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(fields | {"rope_scaling": None}))
    np.testing.assert_allclose(our_logits(models.from_pretrained(tmp_path)), their_logits(theirs), atol=1e-4)


def test_bare_model_names_are_those_of_their_model_without_head(tmp_path):
    """transformers reads the names of GPT2Model into GPT2LMHeadModel; so do we."""
    theirs = random_model(CONFIGS["gpt2"])
    theirs.save_pretrained(tmp_path)
    theirs.transformer.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare/config.json").write_bytes((tmp_path / "config.json").read_bytes())
    assert "wte.weight" in files.open_safetensors(tmp_path / "bare/model.safetensors")
    np.testing.assert_allclose(our_logits(models.from_pretrained(tmp_path / "bare")), their_logits(theirs), atol=1e-4)


def test_every_bfloat16_and_float16_is_torchs(tmp_path):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    safetensors_torch = pytest.importorskip("safetensors.torch")
    tensors = {"b": bits.view(torch.bfloat16), "h": bits.clone().view(torch.float16)}
    safetensors_torch.save_file(tensors, tmp_path / "x")
    for name, ours in files.read_safetensors(tmp_path / "x").items():
        np.testing.assert_array_equal(ours, tensors[name].float().numpy())


def test_generation_settings_and_template_are_found_there(tmp_path):
    models.from_pretrained(saved(tmp_path)).save_pretrained(
        tmp_path / "ours", generation_config={"temperature": 0.7, "do_sample": True, "eos_token_id": [2, 5]}
    )
    settings = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").generation_config
    assert settings.temperature == 0.7 and settings.do_sample and settings.eos_token_id == [2, 5]


def saved(folder):
    random_model(CONFIGS["gpt2"]).save_pretrained(folder / "theirs")
    return folder / "theirs"


def test_tokenizer_and_chat_template_open_there(tmp_path):
    from minillm.tokenizer import BPETokenizer

    texts = ["the cat sat on the mat", "the dog sat on the log"] * 5
    tokenizer = BPETokenizer.train(texts, 300, special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    template = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    model = models.Llama(models.LlamaConfig(**LLAMA | {"vocab_size": tokenizer.vocab_size}), 0)
    model.save_pretrained(tmp_path / "ours", tokenizer=tokenizer, chat_template=template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    for text in (*texts, "a new cat, no 123 été"):
        assert theirs(text).input_ids == tokenizer.encode(text)
    chat = [{"role": "user", "content": "hello"}]
    assert theirs.apply_chat_template(chat, tokenize=False) == "<|im_start|>user\nhello<|im_end|>\n"
    assert theirs.eos_token == "<|endoftext|>"
    theirs.save_pretrained(tmp_path / "again")  # what transformers writes is kept when we save a tuned model
    model.save_pretrained(tmp_path / "tuned", keep_from=tmp_path / "again")
    kept = transformers.AutoTokenizer.from_pretrained(tmp_path / "tuned")
    assert kept.chat_template == template and kept.get_vocab() == theirs.get_vocab()
