"""Weights in the blocks of a GGUF file: the compiled loops compute what the de-quantised model does."""

from dataclasses import dataclass

import numpy as np
import pytest

from minillm import files, kernels, models
from minillm.files.blocks import KINDS, dequantize, quantize
from minillm.kernels import _jit
from minillm.models.fast.stored import StoredModel, stored_model
from minillm.tensor import no_grad
from minillm.tokenizer import BPETokenizer
from minillm.training.convert import to_file

NUMBA = pytest.mark.skipif(kernels.KERNELS == "numpy" or not _jit.JIT, reason="nothing is compiled")
BY_NAME = {kind.name: kind for kind in KINDS.values()}
V = 260


@dataclass
class Stored:
    """A tensor as files.StoredBlocks has it."""

    raw: np.ndarray
    dtype: str

    @property
    def shape(self):
        return (*self.raw.shape[:-2], self.raw.shape[-2] * BY_NAME[self.dtype].weights)

    def blocks(self):
        return self.raw

    def read(self):
        return dequantize(self.raw, BY_NAME[self.dtype])


def stored(shape, name, rng):
    """Random blocks of one kind, with weights of about 0.2."""
    kind = BY_NAME[name]
    raw = rng.integers(0, 256, (*shape[:-1], shape[-1] // kind.weights, kind.bytes), dtype=np.uint8)
    if name == "F32":
        numbers = [rng.uniform(0.5, 1.5, shape)] if len(shape) == 1 else [rng.normal(0, 0.2, shape)]
        return Stored(numbers[0].astype("<f4")[..., None].view(np.uint8), name)
    codes = {"Q8_0": 127, "IQ4_NL": 127, "Q4_0": 8, "Q5_1": 32}.get(name, 16)
    scale = rng.uniform(0.5, 1, raw.shape[:-1]) * 0.4 / codes * rng.choice([-1, 1], raw.shape[:-1])
    raw[..., :2] = scale.astype("<f2")[..., None].view(np.uint8)
    if name in ("Q4_1", "Q5_1"):
        raw[..., 2:4] = (-codes / 2 * scale).astype("<f2")[..., None].view(np.uint8)
    return Stored(raw, name)


def made(kinds, **changes):
    """A StoredModel whose matrices are of these kinds in turn, and the model of layers that it stands for."""
    sizes = {
        "vocab_size": V, "max_position_embeddings": 90, "hidden_size": 64, "intermediate_size": 160,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True,
    }  # fmt: skip
    layers = models.Llama(models.LlamaConfig(**sizes | changes), rng=0).eval()
    rng = np.random.default_rng(0)
    tensors = {}
    for i, (name, parameter) in enumerate(layers.named_parameters()):
        tensors[name] = stored(parameter.shape, kinds[i % len(kinds)] if parameter.ndim == 2 else "F32", rng)
        parameter.data = np.array(tensors[name].read())
    model = stored_model(layers, tensors, lambda: layers)
    if model is not None:
        model.cache_dtype = np.float32  # float16, its own, is compared in test_keys_and_values_in_float16
    return model, layers


def close(ours, plain):
    np.testing.assert_allclose(ours, plain, rtol=0, atol=2e-5 * np.abs(plain).max())


MIXED = ["Q4_1", "Q8_0", "F32", "Q4_0", "Q5_1"]
EVERY_KIND = pytest.mark.parametrize("kinds", [["Q8_0"], ["Q4_0"], ["Q4_1"], ["Q5_0"], ["Q5_1"], MIXED], ids="-".join)


@NUMBA
@EVERY_KIND
@pytest.mark.parametrize("rows", [1, 2, 3, 9])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}])
def test_a_prompt_and_some_steps_equal_the_layers(kinds, rows, changes):
    model, layers = made(kinds, **changes)
    starts = None if rows == 1 else np.arange(rows) % 5
    caches = [m.new_cache(rows, 80, starts) for m in (model, layers)]
    ids = np.random.default_rng(1).integers(0, V, (rows, 76))
    with no_grad():
        everywhere = model(ids, model.new_cache(rows, 76, starts)).data
        plain = layers(ids, cache=layers.new_cache(rows, 76, starts)).data
        close(everywhere[:, 5:], plain[:, 5:])  # what stands before is padding
        for part in (ids[:, :70], ids[:, 70:71], ids[:, 71:72], ids[:, 72:]):
            scores = layers(part, cache=caches[1]).data[:, -1]
            close(model.next_logits(part, caches[0]), scores)


@NUMBA
@pytest.mark.parametrize("rows", [1, 3, 6])
def test_long_rows_on_two_threads_and_on_one(rows):
    model, layers = made(MIXED, hidden_size=544, intermediate_size=1600, num_hidden_layers=1)
    ids, results, threads = np.random.default_rng(1).integers(0, V, (rows, 3)), [], kernels.get_num_threads()
    for n in (1, threads):
        kernels.set_num_threads(n)
        cache = model.new_cache(rows, 4)
        try:
            results.append([model.next_logits(ids[:, t : t + 1], cache) for t in range(3)][-1])
        finally:
            kernels.set_num_threads(threads)
    assert results[0].tobytes() == results[1].tobytes()
    with no_grad():
        close(results[0], layers(ids).data[:, -1])


@NUMBA
def test_every_float16_is_a_scale():
    """Small, subnormal, negative ones too."""
    for kind in ("Q8_0", "Q4_0", "Q4_1"):
        model, layers = made([kind], num_hidden_layers=1, hidden_size=32, intermediate_size=32, vocab_size=64)
        tensor = model.arrays.embedding.weight.reshape(64, 1, BY_NAME[kind].bytes)
        halves = np.array([0, 1, 2, 0x3FF, 0x400, 0x401, 0x3C00, 0x7BFF, 0x0201], "<u2")
        halves = np.resize(np.concatenate([halves, halves | 0x8000]), 64)
        tensor[:, 0, :2] = halves[:, None].view(np.uint8)
        expected = dequantize(tensor, BY_NAME[kind])
        table = model.arrays.arguments[0]
        from minillm.kernels.decode.step import embed
        from minillm.kernels.decode.table import FIELDS, QKV

        @_jit.jit
        def rows_of(entry, x, embed=embed):
            for id in range(x.shape[0]):
                embed(entry, id, x[id])

        x = np.empty((64, 32), np.float32)
        rows_of(table[-1, QKV + FIELDS : QKV + 2 * FIELDS], x)
        np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-12)


def k_quant(shape, name, rng):
    """Random super-blocks of a K-quant, with weights of about 0.2."""
    kind = BY_NAME[name]
    raw = rng.integers(0, 256, (*shape[:-1], shape[-1] // 256, kind.bytes), dtype=np.uint8)
    scale, minimum, at = {"Q4_K": (5e-4, 4e-3, 0), "Q5_K": (2.5e-4, 4e-3, 0), "Q6_K": (8e-5, 0, 208)}[name]
    numbers = np.array([scale, minimum] if minimum else [scale]) * rng.uniform(0.8, 1.2, (*raw.shape[:-1], 1))
    raw[..., at : at + 2 * numbers.shape[-1]] = numbers.astype("<f2").view(np.uint8)
    return Stored(raw, name)


@NUMBA
@pytest.mark.parametrize("kind, plain", [("Q4_K", "Q4_1"), ("Q5_K", "Q5_1"), ("Q6_K", "Q6")])
def test_k_quants_become_plain_blocks_with_the_same_codes(kind, plain):
    """Scale and minimum are 2^-11 away at most: a sixteenth, or less, of what another code would be."""
    pytest.importorskip("gguf")
    model, layers = made(["F32"], hidden_size=256, intermediate_size=512)
    assert model is None
    rng, tensors = np.random.default_rng(0), {}
    for name, p in layers.named_parameters():
        tensors[name] = k_quant(p.shape, kind, rng) if p.ndim == 2 else stored(p.shape, "F32", rng)
        p.data = np.array(tensors[name].read())
    model = stored_model(layers, tensors, lambda: layers)
    assert {m.blocks for m in (model.arrays.embedding, *model.arrays.layers[1].qkv)} == {plain}
    assert model.nbytes < 1.15 * sum(t.raw.nbytes for t in tensors.values())
    from minillm.kernels.decode.step import embed
    from minillm.kernels.decode.table import FIELDS, QKV

    @_jit.jit
    def rows_of(entry, x, embed=embed):
        for id in range(x.shape[0]):
            embed(entry, id, x[id])

    x, expected = np.empty((V, 256), np.float32), tensors["model.embed_tokens.weight"].read()
    rows_of(model.arrays.arguments[0][-1, QKV + FIELDS : QKV + 2 * FIELDS], x)
    largest = np.abs(expected).reshape(V, -1, 32).max(axis=2, keepdims=True)
    assert (np.abs(x - expected).reshape(V, -1, 32) <= 2.0**-9 * largest).all()
    ids = np.random.default_rng(1).integers(0, V, (2, 70))
    with no_grad():
        ours, plainly = model(ids).data, layers(ids).data
    assert np.linalg.norm(ours - plainly) < 0.02 * np.linalg.norm(plainly)


@NUMBA
def test_kinds_that_the_loops_do_not_know_become_the_nearest():
    pytest.importorskip("gguf")
    _, layers = made(["F32"])
    rng, tensors = np.random.default_rng(0), {}
    for name, p in layers.named_parameters():
        tensors[name] = stored(p.shape, "IQ4_NL" if p.ndim == 2 else "F32", rng)
        p.data = np.array(tensors[name].read())
    model = stored_model(layers, tensors, lambda: layers)
    assert isinstance(model, StoredModel) and {m.blocks for m in model.arrays.layers[0].qkv} == {"Q8_0"}
    for parameter in layers.parameters():
        if parameter.ndim == 2:
            blocks = quantize(parameter.data, BY_NAME["Q8_0"]).reshape(len(parameter), -1, 34)
            parameter.data = dequantize(blocks, BY_NAME["Q8_0"])
    ids = np.random.default_rng(1).integers(0, V, (2, 70))
    with no_grad():
        close(model(ids).data, layers(ids).data)


@NUMBA
@pytest.mark.parametrize("rows", [1, 3])
def test_keys_and_values_in_float16(rows):
    """As the layers compute with the same cache; and float32 is as far as rounding to 11 bits explains."""
    model, layers = made(["Q8_0"], max_position_embeddings=1300)
    starts, length = None if rows == 1 else np.arange(rows) * 600, 1250
    ids = np.random.default_rng(1).integers(0, V, (rows, length + 3))
    exact, model.cache_dtype, layers.cache_dtype = model.new_cache(rows, length + 3, starts), np.float16, np.float16
    caches = [m.new_cache(rows, length + 3, starts) for m in (model, layers)]
    assert StoredModel.cache_dtype is np.float16 and {c.keys.dtype for c in caches} == {np.dtype(np.float16)}
    with no_grad():
        for part in (ids[:, :length], *(ids[:, t : t + 1] for t in range(length, length + 3))):
            ours, plain = model.next_logits(part, caches[0]), layers(part, cache=caches[1]).data[:, -1]
            size, float32 = np.abs(plain).max(), model.next_logits(part, exact)
            assert np.abs(ours - plain).max() < 2e-4 * size  # a key on the edge may be rounded either way
            assert 0 < np.abs(ours - float32).max() < 2e-3 * size


def test_where_blocks_cannot_be_read_there_is_no_such_model():
    assert made(["F32"])[0] is None
    assert made(["Q8_0"], rope_scaling=models.rope.RopeScaling("yarn", 2.0, 45))[0] is None


def test_from_a_file(tmp_path):
    layers = made(["Q8_0"])[1]
    layers.save_pretrained(tmp_path / "folder", tokenizer=BPETokenizer.train(["a story"], V, ("<|endoftext|>",)))
    to_file(tmp_path / "folder", tmp_path / "small.gguf", "q8_0")
    to_file(tmp_path / "folder", tmp_path / "floats.gguf", "f32")
    model = models.from_pretrained(tmp_path / "small.gguf", stored=True)
    plain = models.from_pretrained(tmp_path / "small.gguf")
    assert type(model) is StoredModel and type(plain) is models.Llama
    assert type(models.from_pretrained(tmp_path / "floats.gguf", stored=True)) is models.Llama
    ids = np.random.default_rng(1).integers(0, V, (2, 70))
    with no_grad():
        close(model(ids).data, plain(ids).data)
    inside = files.open_gguf(tmp_path / "small.gguf").tensors["blk.0.ffn_up.weight"]
    assert model.arrays.layers[0].up[1].weight.nbytes == inside.nbytes == 160 * 2 * 34
    assert not model.arrays.layers[0].up[1].weight.flags.owndata  # a window into the file
    assert model.num_parameters() == plain.num_parameters()
    with pytest.raises(ValueError, match="StoredModel: blocks cannot be trained; open the file without stored=True"):
        model.train()
    with pytest.raises(ValueError, match=r"StoredModel: ids must be in \[0, 260\)"):
        model([[260]])


def test_what_is_wrong_in_a_file_is_said_as_ever(tmp_path):
    layers = made(["Q8_0"])[1]
    layers.save_pretrained(tmp_path / "folder", tokenizer=BPETokenizer.train(["a story"], V, ("<|endoftext|>",)))
    to_file(tmp_path / "folder", tmp_path / "small.gguf", "q8_0")
    file = files.open_gguf(tmp_path / "small.gguf")
    arrays = {name: tensor.read() for name, tensor in file.tensors.items() if name != "blk.1.ffn_up.weight"}
    files.write_gguf(tmp_path / "less.gguf", file.settings, arrays, dict.fromkeys(arrays, "F32"))
    with pytest.raises(ValueError, match=r"missing model.layers.1.mlp.up_proj.weight"):
        models.from_pretrained(tmp_path / "less.gguf", stored=True)
