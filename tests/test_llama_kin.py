"""Mistral, Qwen2, Qwen3, SmolLM3 and scaled angles: a cache changes nothing, and each does what it is named for."""

import numpy as np
import pytest

from minillm import kernels, models
from minillm.models.fast.arrays import arrays_of
from minillm.models.rope import RopeScaling, rotary_speeds

SIZES = dict(vocab_size=31, hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=96, bos_token_id=0, eos_token_id=0, head_dim=6)  # fmt: skip
SOME = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}
LLAMA = models.LlamaConfig
KINDS = {  # name: class, changes, whether the compiled loops read it
    "linear": (LLAMA, {"rope_scaling": RopeScaling("linear", 4.0, 96)}, True),
    "llama3": (LLAMA, {"rope_scaling": RopeScaling("llama3", 4.0, 24)}, True),
    "yarn": (LLAMA, {"rope_scaling": RopeScaling("yarn", 4.0, 24)}, False),
    "dynamic": (LLAMA, {"rope_scaling": RopeScaling("dynamic", 4.0, 96)}, False),
    "mistral": (models.MistralConfig, {"sliding_window": 7}, False),
    "mistral, window as long as the context": (models.MistralConfig, {"sliding_window": 96}, True),
    "mistral without": (models.MistralConfig, {"sliding_window": None}, True),
    "qwen2": (models.Qwen2Config, {}, True),
    "qwen2, some windows": (models.Qwen2Config, SOME, False),
    "qwen3": (models.Qwen3Config, {}, False),
    "smollm3": (models.SmolLM3Config, {}, False),
    "smollm3, windows": (
        models.SmolLM3Config,
        {"no_rope_layers": (1, 0, 1, 1), "use_sliding_window": True, "sliding_window": 5},
        False,
    ),
}


def build(name):
    kind, changes, _ = KINDS[name]
    changes = {field: value for field, value in changes.items() if value is not ...}
    model = models.Llama(kind(**SIZES | {"tie_word_embeddings": True} | changes), 0).eval()
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        low, high = (0.5, 1.5) if parameter.ndim == 1 else (-0.4, 0.4)
        parameter.data = rng.uniform(low, high, parameter.shape).astype(np.float32)
    return model


def ids_of(T=36, B=2):
    return np.random.default_rng(1).integers(0, 31, (B, T))


@pytest.mark.parametrize("name", KINDS)
def test_cached_decoding_is_the_full_forward(name):
    model, ids = build(name), ids_of()
    full = model(ids).data
    for prompt in (1, 33):  # with a prompt of many tokens, which is read at once
        cache = model.new_cache(2, 36)
        steps = [model.next_logits(ids[:, :prompt], cache)]
        steps += [model.next_logits(ids[:, i : i + 1], cache) for i in range(prompt, 36)]
        np.testing.assert_allclose(np.stack(steps, 1), full[:, prompt - 1 :], rtol=0, atol=3e-5 * np.abs(full).max())


@pytest.mark.parametrize("name", KINDS)
def test_padding_on_the_left_changes_nothing(name):
    model, ids = build(name), ids_of(20, 1)
    cache = model.new_cache(2, 32, starts=np.array([0, 12]))
    rows = np.concatenate([ids, np.concatenate([np.zeros((1, 12), int), ids[:, :8]], axis=1)])
    both = model.next_logits(rows, cache)
    np.testing.assert_allclose(both[0], model(ids).data[0, -1], rtol=0, atol=1e-4)
    np.testing.assert_allclose(both[1], model(ids[:, :8]).data[0, -1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", KINDS)
def test_the_compiled_loops_read_what_they_can(name):
    model, fast = build(name), KINDS[name][2]
    assert (arrays_of(model) is not None) == fast
    if fast:
        small = models.quantize(model)
        difference = np.abs(small(ids_of()).data - model(ids_of()).data).max()
        assert 0 < difference < 0.2 * np.abs(model(ids_of()).data).max()
    else:
        with pytest.raises(ValueError, match="quantize: .*got Llama"):
            models.quantize(model)
    cache = model.new_cache(2, 96)
    model.next_logits(ids_of(), cache)
    assert (cache.reader is not None and cache.reader.decoder is not None) == (fast and kernels.KERNELS != "numpy")


@pytest.mark.parametrize("name", KINDS)
def test_folders_there_and_back(name, tmp_path):
    model = build(name)
    model.save_pretrained(tmp_path / "model")
    loaded = models.from_pretrained(tmp_path / "model")
    assert (loaded.config.model_type, loaded.context) == (model.config.model_type, model.context)
    np.testing.assert_array_equal(loaded(ids_of()).data, model(ids_of()).data)


def changed_by(model, at):
    """Which logits change when the token ``at`` does."""
    ids = ids_of(40, 1)
    other = ids.copy()
    other[0, at] = (other[0, at] + 1) % 31
    return np.flatnonzero(np.abs(model(ids).data - model(other).data).max(-1)[0])


def test_a_window_ends_what_a_layer_sees():
    """Four layers of a window of 7 reach 4 x 6 tokens back; one token is seen from its place on."""
    np.testing.assert_array_equal(changed_by(build("mistral"), 5), np.arange(5, 5 + 4 * 6 + 1))
    np.testing.assert_array_equal(changed_by(build("mistral without"), 5), np.arange(5, 40))


def test_layers_without_rotary_see_no_distances():
    model = build("smollm3")
    assert [layer.self_attn.turns for layer in model.model.layers] == [True, True, True, False]
    none = models.Llama(models.SmolLM3Config(**SIZES, no_rope_layers=(0, 0, 0, 0)), 0).eval()
    ids = ids_of(12, 1)
    swapped = ids[:, [*range(5, -1, -1), *range(6, 12)]]  # the last token sees the same set of tokens in each layer ...
    one = models.Llama(models.SmolLM3Config(**SIZES | {"num_hidden_layers": 1}, no_rope_layers=(0,)), 0).eval()
    np.testing.assert_allclose(one(swapped).data[:, -1], one(ids).data[:, -1], atol=1e-5)
    assert np.abs(none(swapped).data[:, -1] - none(ids).data[:, -1]).max() > 1e-6  # ... of which each saw others


def test_names_of_parameters():
    names = dict(build("qwen3").named_parameters())
    assert names["model.layers.0.self_attn.q_norm.weight"].shape == (6,)
    names = dict(build("qwen2").named_parameters())
    assert names["model.layers.0.self_attn.k_proj.bias"].shape == (12,) and "o_proj.bias" not in " ".join(names)


def test_scaled_speeds_by_hand():
    plain = rotary_speeds(8, 1e4)  # 1, 0.1, 0.01, 0.001
    np.testing.assert_allclose(plain, [1, 0.1, 0.01, 0.001])
    np.testing.assert_allclose(RopeScaling("linear", 4.0, 100).speeds(8, 1e4, 1), plain / 4)
    # turns in 1,000 tokens: 159, 15.9, 1.59, 0.159: kept, kept, (1.59 - 1) / 3 of it, none
    kept = np.array([1, 1, (10 / (2 * np.pi) - 1) / 3, 0])
    np.testing.assert_allclose(
        RopeScaling("llama3", 4.0, 1000).speeds(8, 1e4, 1), plain * (kept + (1 - kept) / 4), rtol=1e-12
    )
    dynamic = RopeScaling("dynamic", 2.0, 100)
    np.testing.assert_allclose(dynamic.speeds(8, 1e4, 100), plain)
    np.testing.assert_allclose(dynamic.speeds(8, 1e4, 200), rotary_speeds(8, 1e4 * 3 ** (8 / 6)))
    assert RopeScaling("yarn", 4.0, 100).amplitude == pytest.approx(0.1 * np.log(4) + 1)
    assert RopeScaling("yarn", 4.0, 100, attention_factor=1.5).amplitude == 1.5
    assert RopeScaling("linear", 4.0, 100).amplitude == 1


WRONG = [
    (models.MistralConfig, {"sliding_window": 0}, "sliding_window must be at least 1"),
    (models.Qwen2Config, {"layer_types": ("full_attention",)}, "layer_types must name .* for each of 4 layers"),
    (models.Qwen2Config, {"layer_types": ("full",) * 4}, "layer_types must name"),
    (models.SmolLM3Config, {"no_rope_layers": (1, 0)}, "no_rope_layers must have an entry for each of 4 layers; got 2"),
    (LLAMA, {"rope_scaling": RopeScaling("linear", 2.0, 24)}, "linear rope_scaling goes on from .* = 96; got .* 24"),
    (models.SmolLM3Config, {"no_rope_layer_interval": 0}, "no_rope_layer_interval must be at least 1"),
]


@pytest.mark.parametrize("kind, changes, message", WRONG)
def test_configurations_that_are_wrong(kind, changes, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: {message}"):
        kind(**SIZES | changes)
