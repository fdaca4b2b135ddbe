"""LoRA: an adapter of low rank beside frozen weights, merged, saved and trained."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest

from minillm import GenerationConfig, finetune, generate, load_run, models, nn, optim
from minillm.autograd.engine import observed_by
from minillm.files import read_safetensors, write_safetensors
from minillm.finetune import adapter as files
from minillm.finetune.lora import adapters, linear_layers
from minillm.models import from_pretrained, quantize
from minillm.models.folder.to_gguf import to_gguf
from minillm.tokenizer import CharTokenizer
from minillm.training.evaluate import next_token_loss
from minillm.training.run import Run
from minillm.training.trainer import TrainConfig, Trainer
from tests.tiny_training import tiny_ids, tiny_model

V = 40
IDS = np.random.default_rng(0).integers(3, V, (2, 7))


def llama(dtype=np.float32):
    config = models.LlamaConfig(
        vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, initializer_range=0.2, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return models.Llama(config, rng=1).astype(dtype).eval()


def gpt2():
    return models.GPT2(models.GPT2Config(vocab_size=V, n_positions=32, n_embd=16, n_layer=2, n_head=2), rng=1).eval()


def t5():
    config = models.T5Config(vocab_size=V, d_model=16, d_kv=4, num_heads=4, d_ff=24, num_layers=2)
    return models.T5(config, rng=1).eval()


def recurrent():
    return models.RecurrentLM(models.RecurrentLMConfig(vocab_size=V, hidden_size=16, window=4), rng=1).eval()


FAMILIES = {"llama": llama, "gpt2": gpt2, "t5": t5, "recurrent": recurrent}


def scores(model):
    return model(IDS, IDS).data if model.is_encoder_decoder else model(IDS).data


def adapted(model, seed=2, **settings):
    """With an adapter that has learned something."""
    finetune.add_lora(model, rng=seed, **{"rank": 3, "alpha": 6.0} | settings)
    rng = np.random.default_rng(seed)
    for lora in adapters(model).values():
        lora.B.data[...] = 0.1 * rng.standard_normal(lora.B.shape)
    return model


# ---- the method ------------------------------------------------------------------------------------------------------


def test_what_is_computed():
    layer = nn.Sequential(nn.Linear(4, 3, rng=0))
    for stabilized, scale in ((False, 6 / 2), (True, 6 / np.sqrt(2))):
        model = adapted(copy.deepcopy(layer), targets=["0"], rank=2, rank_stabilized=stabilized)
        lora, x = model[0].lora, np.random.default_rng(3).standard_normal((5, 4), np.float32)
        expected = layer(models.base.Tensor(x)).data + scale * x @ lora.A.data.T @ lora.B.data.T
        np.testing.assert_allclose(model(models.base.Tensor(x)).data, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_begins_as_nothing_and_is_all_that_learns(family):
    model = FAMILIES[family]()
    before = scores(model)
    share = finetune.add_lora(model, rank=2, rng=0)
    assert np.array_equal(scores(model), before)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {f"{path}.lora.{part}" for path in adapters(model) for part in "AB"} and learning
    sizes = sum(2 * sum(layer.weight.shape) for path, layer in linear_layers(model).items() if path in adapters(model))
    assert share == (sizes, model.num_parameters()) and 0 < share.share < 0.5
    assert str(share).startswith(f"{share.share:.2%} of {share.all:,} numbers are trained: {sizes:,}")
    bound = max(np.abs(lora.A.data).max() * np.sqrt(lora.A.shape[1]) for lora in adapters(model).values())
    assert 0.9 < bound <= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_it_is_the_same_model(family):
    model = adapted(FAMILIES[family](), targets=["*"])
    expected, names = scores(model), FAMILIES[family]().state_dict().keys()
    assert np.abs(expected - scores(FAMILIES[family]())).max() > 1e-2
    finetune.merge(model)
    np.testing.assert_allclose(scores(model), expected, rtol=0, atol=1e-5)
    assert not adapters(model) and model.state_dict().keys() == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert "LoRA" not in repr(model) and not any(part.is_watched for part in model.modules())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_gradients_are_those_of_the_merged_weights(family):
    """d loss / d B = (alpha / r) dW A^T and d loss / d A = (alpha / r) B^T dW."""
    model = adapted(FAMILIES[family](), dropout=0.0).astype(np.float64)
    whole = copy.deepcopy(model)
    finetune.merge(whole)
    batch = IDS, np.roll(IDS, -1, axis=1)
    next_token_loss(model, batch).backward()
    next_token_loss(whole, batch).backward()
    layers = linear_layers(whole)
    for path, lora in adapters(model).items():
        dW = layers[path].weight.grad.T if family == "gpt2" else layers[path].weight.grad
        np.testing.assert_allclose(lora.B.grad, 2 * dW @ lora.A.data.T, rtol=0, atol=1e-12)
        np.testing.assert_allclose(lora.A.grad, 2 * lora.B.data.T @ dW, rtol=0, atol=1e-12)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_nothing_is_computed_for_what_is_frozen(family):
    """No gradient of a frozen matrix, and none at all before the first adapter."""
    model = FAMILIES[family]()
    finetune.add_lora(model, rank=2, targets=["layers.1.*.v_proj"] if family == "llama" else ["h.1.attn.c_attn"])

    class Watch:
        computed = 0
        operations = 0

        def on_forward(self, out, inputs):
            pass

        def on_backward(self, node, dy, gradients):
            self.operations += 1
            if node.op == "linear":
                self.computed += gradients[1] is not None

    loss, watch = next_token_loss(model, (IDS, IDS)), Watch()
    with observed_by(watch):
        loss.backward()
    assert watch.computed == 2  # A and B of one layer
    last = FAMILIES[family]()
    everything = next_token_loss(last, (IDS, IDS))
    all_of_it = Watch()
    with observed_by(all_of_it):
        everything.backward()
    assert watch.operations < 0.6 * all_of_it.operations


def test_targets_are_names_paths_and_patterns():
    def chosen(*targets):
        model = llama()
        finetune.add_lora(model, targets=targets)
        return [path.removeprefix("model.layers.") for path in adapters(model)]

    assert chosen("v_proj") == ["0.self_attn.v_proj", "1.self_attn.v_proj"]
    assert chosen("model.layers.1.mlp.up_proj") == ["1.mlp.up_proj"]
    assert chosen("layers.0.self_attn.*") == [f"0.self_attn.{x}_proj" for x in "qkvo"]
    assert len(chosen("*")) == 14
    untied = models.Llama(models.LlamaConfig(V, 16, 24, 1, 2, tie_word_embeddings=False), rng=0)
    finetune.add_lora(untied, targets=["lm_head"])
    assert [*adapters(untied)] == ["lm_head"]


def test_what_makes_no_sense_is_refused():
    model = llama()
    with pytest.raises(ValueError, match="no linear layer is called 'c_attn'; the linear layers of this Llama are: do"):
        finetune.add_lora(model, targets=["q_proj", "c_attn"])
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="rank must be at least 1; got 0"):
        finetune.add_lora(model, rank=0)
    with pytest.raises(ValueError, match="rank must be at most 16: no dW of these layers has a higher one; got 17"):
        finetune.add_lora(model, rank=17, targets=["q_proj", "v_proj"])
    finetune.add_lora(llama(), rank=16, targets=["q_proj", "v_proj"])
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\); got 1"):
        finetune.add_lora(llama(), dropout=1)
    with pytest.raises(ValueError, match="name the layers; the linear layers of this Sequential are: none"):
        finetune.add_lora(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match="targets must be a list of names; got the string 'q_proj'"):
        finetune.add_lora(model, targets="q_proj")
    for function in (finetune.merge, lambda model: finetune.save_adapter(model, "nowhere")):
        with pytest.raises(ValueError, match="the model has no adapter"):
            function(model)
    finetune.add_lora(model)
    with pytest.raises(ValueError, match=r"the model has an adapter already: merge\(model\) first"):
        finetune.add_lora(model)
    with pytest.raises(ValueError, match=r"quantize: the model has an adapter: finetune.merge\(model\) first"):
        quantize(model)


def test_dropout_is_for_training_and_drawn_from_the_steps_generator():
    model = adapted(llama(), dropout=0.5)
    expected = scores(model)
    assert np.array_equal(scores(model), expected)
    model.train()
    model.set_rng(np.random.default_rng(1))
    first, second = scores(model), scores(model)
    model.set_rng(np.random.default_rng(1))
    assert np.array_equal(scores(model), first) and not np.array_equal(first, second)


# ---- using it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_fast_decoding_sees_it_come_learn_and_go(family):
    model, ids = FAMILIES[family](), np.arange(3, 23)[None]

    def one_after_another():
        cache = model.new_cache(1, 32)
        return [model.next_logits(part, cache) for part in (ids[:, :18], ids[:, 18:19], ids[:, 19:])]

    def expected():
        whole = model(ids).data[0]
        return whole[17], whole[18], whole[19]

    found = [np.concatenate(one_after_another())]
    np.testing.assert_allclose(found[0], expected(), rtol=0, atol=1e-5)
    for change in (adapted, finetune.merge):
        change(model)
        found.append(np.concatenate(one_after_another()))
        np.testing.assert_allclose(found[-1], expected(), rtol=0, atol=1e-5)
    assert np.abs(found[1] - found[0]).max() > 1e-3
    np.testing.assert_allclose(found[2], found[1], rtol=0, atol=1e-5)


def test_a_cache_in_use_notices_the_adapter():
    model = llama()
    cache = model.new_cache(1, 32)
    for ids in (IDS[:1], IDS[:1, :1]):  # one token is read by the compiled loop
        model.next_logits(ids, cache)
    adapted(model)
    layer_by_layer = copy.deepcopy(cache)
    expected = model(IDS[:1, 1:2], cache=layer_by_layer).data[:, -1]
    np.testing.assert_allclose(model.next_logits(IDS[:1, 1:2], cache), expected, rtol=0, atol=1e-5)


def test_it_writes_what_the_merged_model_writes():
    model, tokenizer = llama(), CharTokenizer.train(["".join(map(chr, range(48, 48 + V - 1)))], ["<|endoftext|>"])
    adapted(model, targets=["*"])
    config = GenerationConfig(temperature=0, max_new_tokens=12)
    written = generate(model, tokenizer, "0123", config).ids
    finetune.merge(model)
    assert generate(model, tokenizer, "0123", config).ids == written
    assert generate(llama(), tokenizer, "0123", config).ids != written


def test_a_copy_has_an_adapter_of_its_own():
    model = adapted(llama())
    other = copy.deepcopy(model)
    expected = scores(model)
    for lora in adapters(other).values():
        lora.B.data[...] = 0
    assert np.array_equal(scores(model), expected) and np.array_equal(scores(other), scores(llama()))


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_as_a_model_folder_it_is_merged(family, tmp_path):
    model = adapted(FAMILIES[family]())
    model.save_pretrained(tmp_path / "model")
    np.testing.assert_allclose(scores(from_pretrained(tmp_path / "model")), scores(model), rtol=0, atol=1e-5)
    assert adapters(model)
    if family == "llama":
        name = "model.layers.0.self_attn.v_proj.weight"
        merged = read_safetensors(tmp_path / "model/model.safetensors")[name]
        assert np.array_equal(to_gguf(model, "f32")[1]["blk.0.attn_v.weight"], merged)
        assert np.abs(merged - model.state_dict()[name]).max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_is_written_and_read_again(family, tmp_path):
    model = adapted(FAMILIES[family](), dropout=0.25, rank_stabilized=True, alpha=5.5)
    finetune.save_adapter(model, tmp_path / "adapter", base="its/base", card="# Mine")
    other = FAMILIES[family]()
    share = finetune.load_adapter(other, tmp_path / "adapter")
    assert np.array_equal(scores(other), scores(model))
    first = next(iter(adapters(other).values()))
    assert (first.rank, first.alpha, first.dropout.p, first.rank_stabilized) == (3, 5.5, 0.25, True)
    assert share.trained == sum(p.size for p in other.parameters() if p.requires_grad)
    finetune.save_adapter(other, tmp_path / "adapter")  # over the old one
    fields = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert fields["target_modules"] == sorted({path.rsplit(".")[-1] for path in adapters(model)})
    assert fields["task_type"] == ("SEQ_2_SEQ_LM" if family == "t5" else "CAUSAL_LM")
    assert fields["fan_in_fan_out"] == (family == "gpt2")
    assert (tmp_path / "adapter/README.md").read_text() == "# Mine"


def test_where_only_some_layers_of_a_name_are_adapted_their_paths_are_written(tmp_path):
    finetune.save_adapter(adapted(llama(), targets=["layers.1.self_attn.q_proj"]), tmp_path / "adapter")
    fields = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert fields["target_modules"] == ["model.layers.1.self_attn.q_proj"]


def test_only_the_layers_of_the_file_are_adapted(tmp_path):
    """Though another path ends with the same name."""

    def two():
        inner = nn.Sequential(nn.Linear(4, 4, rng=0))
        return nn.Sequential(inner, nn.Sequential(nn.Sequential(nn.Linear(4, 4, rng=1))))

    model = adapted(two(), targets=["0.0"])
    assert [*adapters(model)] == ["0.0", "1.0.0"]
    finetune.merge(model)
    finetune.lora.attach(model, ["0.0"], 2, 2.0, 0.0, False)
    finetune.save_adapter(model, tmp_path / "adapter")
    other = two()
    finetune.load_adapter(other, tmp_path / "adapter")
    assert [*adapters(other)] == ["0.0"]


def test_a_folder_with_an_adapter_alone_is_no_model(tmp_path):
    finetune.save_adapter(adapted(llama()), tmp_path / "a")
    for opened in (from_pretrained, load_run):
        with pytest.raises((ValueError, FileNotFoundError), match=r"it holds an adapter.*finetune.load_adapter\(model"):
            opened(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="load_adapter: .*nowhere: no such folder"):
        finetune.load_adapter(llama(), tmp_path / "nowhere")


def changed(folder: Path, **fields):
    content = json.loads((folder / "adapter_config.json").read_text()) | fields
    (folder / "adapter_config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))


@pytest.mark.parametrize(
    "fields, complaint",
    [
        ({"use_dora": True}, r"use_dora = True is not implemented \(only False\)$"),
        ({"bias": "all"}, "bias = 'all' is not implemented"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save = .'lm_head'. is not implemented"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern = .* is not implemented"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern = .* is not implemented"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' is not implemented"),
        ({"layer_replication": [[0, 2]]}, "layer_replication = .* is unknown and may change the result"),
        ({"peft_type": "IA3"}, "peft_type must be .*; got 'IA3'"),
        ({"peft_type": ...}, "peft_type is missing"),
        ({"r": 0}, "r must be at least 1, .* got 0, 0.0"),
        ({"r": 2**40}, "r must be at most"),
        ({"r": 4}, r"q_proj.lora_A.weight is F32 \(3, 16\), expected floats \(4, 16\)"),
        ({"lora_alpha": "8"}, "lora_alpha must be float; got '8'"),
        ({"lora_dropout": 1.0}, r"lora_dropout in \[0, 1\); got 3, 1.0"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(tmp_path, fields, complaint):
    finetune.save_adapter(adapted(llama()), tmp_path / "a")
    changed(tmp_path / "a", **fields)
    model = llama()
    with pytest.raises(ValueError, match=complaint) as error:
        finetune.load_adapter(model, tmp_path / "a")
    assert str(tmp_path / "a") in str(error.value) and not adapters(model)


def test_what_changes_nothing_is_read_over(tmp_path):
    finetune.save_adapter(adapted(llama()), tmp_path / "a")
    changed(tmp_path / "a", use_dora=False, exclude_modules=None, target_modules="all-linear", peft_version="0.1",
            runtime_config=None, init_lora_weights="gaussian")  # fmt: skip
    model = llama()
    finetune.load_adapter(model, tmp_path / "a")
    assert np.array_equal(scores(model), scores(adapted(llama())))


def test_tensors_that_do_not_fit_are_all_named(tmp_path):
    path = tmp_path / "a/adapter_model.safetensors"
    finetune.save_adapter(adapted(llama()), tmp_path / "a")
    good = {name: array.copy() for name, array in read_safetensors(path).items()}
    q, v = (f"base_model.model.model.layers.0.self_attn.{x}_proj.lora_" for x in "qv")
    bad = dict(good)
    del bad[f"{q}B.weight"]
    bad[f"{v}A.weight"] = good[f"{v}A.weight"].astype(np.int32)
    bad["base_model.model.lm_head.lora_A.weight"] = good[f"{v}A.weight"]
    write_safetensors(path, bad)
    expected = (
        f"missing {q}B.weight (16, 3)", "unexpected base_model.model.lm_head.lora_A.weight (3, 16)",
        f"{v}A.weight is I32 (3, 16), expected floats (3, 16)",
    )  # fmt: skip
    model = llama()
    with pytest.raises(ValueError, match=re.escape("; ".join(expected))):
        finetune.load_adapter(model, tmp_path / "a")
    assert not adapters(model) and all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="not an adapter for this GPT2: unexpected"):
        finetune.load_adapter(gpt2(), tmp_path / "a")
    write_safetensors(path, {})
    with pytest.raises(ValueError, match="not an adapter for this Llama: it holds nothing"):
        finetune.load_adapter(llama(), tmp_path / "a")
    write_safetensors(path, {name: array.astype(np.float16) for name, array in good.items()})
    finetune.load_adapter(model, tmp_path / "a")
    np.testing.assert_allclose(scores(model), scores(adapted(llama())), rtol=0, atol=2e-2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="adapter_model.safetensors"):
        finetune.load_adapter(llama(), tmp_path / "a")
    assert files.WEIGHTS == path.name


# ---- training --------------------------------------------------------------------------------------------------------


def trainer_of(run=None, steps=12):
    model = tiny_model()
    finetune.add_lora(model, rank=2, dropout=0.3, rng=0, targets=["*"])
    config = TrainConfig(steps=steps, batch_size=4, learning_rate=0.02, evaluate_every=20, checkpoint_every=5)
    trainer = Trainer(model, tiny_ids(), config, run=run, quiet=True)
    trainer.callbacks = []  # no picture
    return trainer


def test_a_run_keeps_state_for_the_adapter_alone_and_leaves_a_model(tmp_path):
    trainer = trainer_of(tmp_path / "run")
    trainer.run()
    learned = adapters(trainer.model)
    assert {id(p) for p in trainer.optimizer.params} == {id(p) for x in learned.values() for p in (x.A, x.B)}
    assert trainer.optimizer.m.size == sum(x.A.size + x.B.size for x in learned.values())
    for name, array in tiny_model().state_dict().items():
        assert np.array_equal(trainer.model.state_dict()[name], array), name
    assert all(np.abs(x.B.data).max() > 0 for x in learned.values())
    opened = from_pretrained(tmp_path / "run")
    trainer.model.eval()
    ids = tiny_ids()[:8]
    np.testing.assert_allclose(opened(ids).data, trainer.model(ids).data, rtol=0, atol=1e-5)


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path):
    whole = trainer_of()
    whole.run()
    first = trainer_of(tmp_path / "run")
    first.callbacks = [Stop()]
    assert first.run().step == 7
    second = trainer_of(Run.open(tmp_path / "run"))
    assert second.resume() == 7
    second.run()
    for name, array in whole.model.state_dict().items():
        assert np.array_equal(second.model.state_dict()[name], array), name


class Stop:
    """After seven steps."""

    decorates = False

    def on_step(self, trainer, loss):
        if trainer.step == 7:
            trainer.stop("seven")

    def __getattr__(self, name):
        return lambda *_: None


def test_a_model_learns_through_it():
    model, batch = llama(), (IDS, np.roll(IDS, -1, axis=1))
    finetune.add_lora(model, rank=4, targets=["*"], rng=0)
    optimizer = optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.02)
    losses = []
    for _ in range(30):
        loss = next_token_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
