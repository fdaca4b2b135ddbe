"""Model folders against transformers: what it writes runs here, what we write runs there, with the same logits."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from minillm import files, models  # noqa: E402
from minillm import functional as F  # noqa: E402
from minillm.data import PairDataset  # noqa: E402
from minillm.generation import GenerationConfig, generate, generate_batch  # noqa: E402
from minillm.models.t5 import relative_buckets  # noqa: E402
from minillm.optim import AdamW  # noqa: E402
from minillm.tensor import Tensor  # noqa: E402
from minillm.tokenizer import BPETokenizer, CharTokenizer, UnigramTokenizer  # noqa: E402
from tests.generate_mocks import MockTokenizer  # noqa: E402

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


# ---- T5, part by part ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("buckets, most", [(32, 128), (8, 9), (64, 128), (12, 500), (4, 3)])
def test_buckets(bidirectional, buckets, most):
    theirs = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket
    distances = np.arange(-700, 701)
    expected = theirs(torch.tensor(distances), bidirectional, buckets, most).numpy()
    np.testing.assert_array_equal(relative_buckets(distances, bidirectional, buckets, most), expected)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name.startswith("t5")])
def test_encoder_and_cross_attention(name, tmp_path):
    """Of questions of different lengths: the encoder's output where there is text, and what the decoder reads there."""
    theirs = random_model(CONFIGS[name]).double()
    theirs.save_pretrained(tmp_path)
    ours = models.from_pretrained(tmp_path, dtype=np.float64)
    ids = IDS.copy()
    ids[1, 6:] = 0  # padding
    real = torch.tensor(ids != 0)
    with torch.no_grad():
        expected = theirs.encoder(input_ids=torch.tensor(ids), attention_mask=real.long()).last_hidden_state
        memory, visible = ours.encode(ids)
        np.testing.assert_allclose(memory.data[ids != 0], expected[real].numpy(), atol=2e-6)

        states = torch.tensor(np.random.default_rng(2).normal(size=(2, 7, 20)))
        hidden = torch.where(real, 0.0, -torch.inf).double()[:, None, None, :]
        for our_block, their_block in zip(ours.decoder.block, theirs.decoder.block, strict=True):
            attended = their_block.layer[1].EncDecAttention(states, key_value_states=expected, mask=hidden)[0]
            attention = our_block.layer[1].EncDecAttention
            y = attention(Tensor(states.numpy()), attention.keys_values(memory), visible)
            np.testing.assert_allclose(y.data, attended.numpy(), atol=2e-6)

        logits = theirs(
            input_ids=torch.tensor(ids), attention_mask=real.long(), decoder_input_ids=torch.tensor(START)
        ).logits
    np.testing.assert_allclose(ours(ids, START).data, logits.numpy(), atol=5e-6)


# ---- texts -----------------------------------------------------------------------------------------------------------


def their_text(model, ids, **options):
    """The ids that transformers writes after a prompt: the most likely one each time, or those of the best beam."""
    prompt = torch.tensor([ids])
    out = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, pad_token_id=0, max_new_tokens=10,
        use_cache=False,  # its cache has as many layers as the encoder: too few for a decoder that has more
        **options,
    )  # fmt: skip
    return out[0, 1 if model.config.is_encoder_decoder else len(ids) :].tolist()


def test_same_greedy_text(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    ours = models.from_pretrained(tmp_path)
    theirs.generation_config.eos_token_id = None  # it would stop there; the rest of the text is wanted too
    config = GenerationConfig(temperature=0, max_new_tokens=10, eos_token_id=(), add_bos=False)
    for prompt in (IDS[0, :5].tolist(), IDS[1, :3].tolist()):
        room = 10 if ours.context is None else min(10, ours.context - len(prompt) + 1)
        result = generate(ours, MockTokenizer(map(chr, range(33, 93)), special=()), prompt, config)
        assert result.ids == their_text(theirs, prompt)[:room]
        assert len(result.ids) == room


@pytest.mark.parametrize("name", ["gpt2", "llama 3 kv heads, biases", "t5", "t5 v1.1"])
def test_same_beams(name, tmp_path):
    theirs = random_model(CONFIGS[name])
    theirs.save_pretrained(tmp_path)
    ours = models.from_pretrained(tmp_path)
    ends = [5, 17]
    tokenizer = MockTokenizer(map(chr, range(33, 93)), special=())
    config = GenerationConfig(num_beams=4, max_new_tokens=10, eos_token_id=tuple(ends), add_bos=False)
    for prompt in (IDS[0, :5].tolist(), IDS[1, :3].tolist()):
        result = generate(ours, tokenizer, prompt, config)
        expected = their_text(theirs, prompt, num_beams=4, eos_token_id=ends)
        assert result.ids == expected[: len(result.ids)] and set(expected[len(result.ids) :]) <= {0}


LINES = ["the cat sat on the mat", "the dog sat on the log", "a cat and a dog", "the mat and the log"]
TRAINED = {
    "gpt2 of bytes": (
        lambda V: models.GPT2(models.GPT2Config(**GPT2 | {"vocab_size": V, "n_positions": 48}), 0),
        lambda: BPETokenizer.train(LINES, 280),
    ),
    "llama of characters": (
        lambda V: models.Llama(models.LlamaConfig(**LLAMA | {"vocab_size": V}, num_key_value_heads=3), 0),
        lambda: CharTokenizer.train(LINES),
    ),
    "t5 of pieces": (
        lambda V: models.T5(models.T5Config(**T5 | {"vocab_size": V}, dropout_rate=0.0), 0),
        lambda: UnigramTokenizer.train(LINES * 5, 40, sentinels=2),
    ),
    "t5 v1.1 of characters": (
        lambda V: models.T5(models.T5Config(**T5 | {"vocab_size": V}, **V11, dropout_rate=0.0), 0),
        lambda: CharTokenizer.train(LINES, special_tokens=("<pad>", "</s>")),
    ),
}


@pytest.mark.parametrize("name", TRAINED)
def test_trained_here_it_says_the_same_there(name, tmp_path):
    """Model and tokenizer, from the folder alone: the same ids for a prompt, the same text after it."""
    make, train = TRAINED[name]
    tokenizer = train()
    model = make(tokenizer.vocab_size)
    optimizer = AdamW(model.parameters(), lr=0.02)
    encoded = [tokenizer.encode(line) for line in LINES]
    end = [] if model.is_encoder_decoder else [tokenizer.eos_id]  # the tokenizers of T5 end each text themselves
    pairs = [(ids, ids[::-1][1:] + [tokenizer.eos_id]) for ids in encoded]
    for step in range(40):
        if model.is_encoder_decoder:
            ids, seen, targets = PairDataset(pairs, pairs).batch(step, 4, seed=0)
            loss = F.cross_entropy(model(ids, seen), targets)
        else:
            text = np.array([end + encoded[step % 4] + end])
            loss = F.cross_entropy(model(text[:, :-1]), text[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    settings = GenerationConfig(temperature=0, max_new_tokens=10)
    model.eval().save_pretrained(tmp_path / "ours", tokenizer=tokenizer, generation_config=settings)

    auto = transformers.AutoModelForSeq2SeqLM if model.is_encoder_decoder else transformers.AutoModelForCausalLM
    theirs = auto.from_pretrained(tmp_path / "ours").eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    said = generate_batch(model, tokenizer, ["the cat", "a dog"], settings)
    assert len({result.text for result in said}) == 2, "it answers what it was asked"
    for prompt, result in zip(["the cat", "a dog"], said, strict=True):
        ids = their_tokenizer(prompt).input_ids
        assert ids == (tokenizer.encode(prompt))
        if not model.is_encoder_decoder:
            ids = result.prompt_ids
        expected = their_text(theirs, ids, eos_token_id=tokenizer.eos_id)
        assert result.ids == expected[: len(result.ids)] and set(expected[len(result.ids) :]) <= {0}
        assert their_tokenizer.decode(expected, skip_special_tokens=True).strip() == result.text.strip()
