"""The token step, and the prompt: kernel = the layers of the models; one thread = two; what makes them stand back."""

import numpy as np
import pytest

from minillm import kernels, models
from minillm.kernels import _jit, decode
from minillm.kernels.decode import prompt as prompt_kernel
from minillm.kernels.decode import step as step_kernel
from minillm.models.fast import decoding
from minillm.models.fast.arrays import arrays_of
from minillm.tensor import no_grad

V = 37
NUMBA = pytest.mark.skipif(kernels.KERNELS == "numpy" or not _jit.JIT, reason="nothing is compiled")


def gpt2(**changes):
    sizes = {"vocab_size": V, "n_positions": 40, "n_embd": 20, "n_layer": 2, "n_head": 2, "initializer_range": 0.2}
    return models.GPT2(models.GPT2Config(**sizes | changes), rng=0).eval()


def llama(**changes):
    sizes = {
        "vocab_size": V, "max_position_embeddings": 40, "hidden_size": 24, "intermediate_size": 51,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
    }  # fmt: skip
    return models.Llama(models.LlamaConfig(**sizes | changes), rng=0).eval()


MODELS = {
    "gpt2": gpt2,
    "gpt2 untied, exact gelu": lambda: gpt2(tie_word_embeddings=False, activation_function="gelu", n_inner=33),
    "gpt2 wide": lambda: gpt2(n_embd=260, n_head=4, initializer_range=0.05),  # two threads, and columns left over
    "llama": llama,
    "llama tied, biases": lambda: llama(tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    "llama head size 6, one kv head": lambda: llama(head_dim=6, num_key_value_heads=1),
    "llama wide": lambda: llama(hidden_size=160, intermediate_size=700, initializer_range=0.05),
    "llama long rows": lambda: llama(hidden_size=520, num_hidden_layers=1, initializer_range=0.03),
}
int8 = pytest.mark.parametrize("in_int8", [False, True], ids=["float32", "int8"])
every_model = pytest.mark.parametrize("name", MODELS)


def made(name, in_int8):
    model = models.quantize(MODELS[name]()) if in_int8 else MODELS[name]()
    model.cache_dtype = np.float32  # what float16 changes is in test_stored_model.py
    return model


def decoder_of(model):
    return arrays_of(model)


def layers_of(model):
    """A model that computes the same layer by layer."""
    return model.dequantized() if isinstance(model, models.QuantizedModel) else model


def filled(model, rows, tokens, starts, seed=0):
    """A cache that holds some tokens, and the tokens that come next: (B, 3)."""
    cache = model.new_cache(rows, tokens + 3, starts)
    ids = np.random.default_rng(seed).integers(0, V, (rows, tokens + 3))
    model.next_logits(ids[:, :tokens], cache)
    return cache, ids[:, tokens:]


@NUMBA
@every_model
@int8
@pytest.mark.parametrize("rows", [1, 2, 3, 9])
def test_equal_to_the_layers(name, in_int8, rows):
    model = made(name, in_int8)
    starts = None if rows == 1 else np.arange(rows) % 5
    cache, ids = filled(model, rows, 5, starts)
    other, _ = filled(layers_of(model), rows, 5, starts)
    for t in range(3):
        token = ids[:, t : t + 1]
        step = step_kernel.decode_step(decoder_of(model), token[:, 0], cache.keys, cache.values, 5 + t, cache.starts)
        with no_grad():
            layers = layers_of(model)(token, cache=other).data[:, -1]
        assert step.shape == (rows, V) and step.dtype == np.float32 and step.flags.c_contiguous
        np.testing.assert_allclose(step, layers, atol=2e-5 * max(1, np.abs(layers).max()))
    for ours, plain in zip((cache.keys, cache.values), (other.keys, other.values), strict=True):
        np.testing.assert_allclose(ours, plain, atol=2e-5)


@NUMBA
@pytest.mark.skipif(kernels.get_num_threads() < 2, reason="needs two cores")
@pytest.mark.parametrize("name", ["gpt2 wide", "llama wide"])
@int8
@pytest.mark.parametrize("rows", [1, 3])
def test_one_thread_equals_two_bit_for_bit(name, in_int8, rows):
    model, threads, results = made(name, in_int8), kernels.get_num_threads(), []
    cache, ids = filled(model, rows, 5, None)
    for n in (1, 2):
        kernels.set_num_threads(n)
        try:
            results.append(step_kernel.decode_step(decoder_of(model), ids[:, 0], cache.keys, cache.values, 5, None))
        finally:
            kernels.set_num_threads(threads)
    assert results[0].tobytes() == results[1].tobytes()


@NUMBA
def test_after_a_long_text():
    """Keys in several parts, put together again; some rows see only the last of them."""
    model = llama(max_position_embeddings=2000)
    starts = np.array([0, 1100, 3])
    (cache, ids), (other, _) = filled(model, 3, 1200, starts), filled(model, 3, 1200, starts)
    with no_grad():
        np.testing.assert_allclose(
            model.next_logits(ids[:, :1], cache), model(ids[:, :1], cache=other).data[:, -1], atol=2e-5
        )


@NUMBA
def test_every_float16_there_and_back():
    """All 65,536 as floats; floats beside them and between are rounded as by NumPy; too large ones become 65,504."""
    from minillm.kernels.decode.halves import floats_to_halves, halves_to_floats

    @_jit.jit
    def to_floats(halves, x):
        halves_to_floats(halves, 3, x.size, x, 0)

    @_jit.jit
    def to_halves(x, halves):
        floats_to_halves(x, halves)

    every = np.arange(1 << 16).astype(np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    x = np.empty(every.size, np.float32)
    to_floats(np.concatenate([np.zeros(3, np.float16), every]).view(np.int16), x)
    np.testing.assert_array_equal(x.view(np.uint32), every.astype(np.float32).view(np.uint32))  # the sign of 0 too
    middle = (np.sort(x)[1:] + np.sort(x)[:-1]) / 2
    wild = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32)
    beside = (np.nextafter(middle, np.float32(to)) for to in (np.inf, -np.inf))
    edges = np.array([65519.996, 65520, -65520, np.inf, np.nan, 2**-25, 2**-26], np.float32)
    x = np.concatenate([x, middle, *beside, wild, edges]).astype(np.float32)
    halves = np.empty(x.size, np.int16)
    to_halves(x, halves)
    with np.errstate(under="ignore"):
        expected = np.clip(x, -65504, 65504).astype(np.float16)
    there = ~np.isnan(expected)
    np.testing.assert_array_equal(halves.view(np.uint16)[there], expected.view(np.uint16)[there])
    assert np.isnan(halves.view(np.float16)[~there]).all()


@NUMBA
@pytest.mark.skipif(kernels.get_num_threads() < 2, reason="needs two cores")
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_after_a_long_text_one_thread_equals_two(dtype):
    model, threads, results = llama(max_position_embeddings=2000), kernels.get_num_threads(), []
    model.cache_dtype = dtype
    cache, ids = filled(model, 3, 1200, np.array([0, 1100, 3]))
    for n in (1, 2):
        kernels.set_num_threads(n)
        try:
            results.append(model.next_logits(ids[:, :1], cache))
        finally:
            kernels.set_num_threads(threads)
        cache.length -= 1
    assert results[0].tobytes() == results[1].tobytes()


@NUMBA
def test_few_signatures_are_compiled():
    for name in MODELS:
        for in_int8 in (False, True):
            model = made(name, in_int8)
            model.cache_dtype = np.float16 if in_int8 else np.float32
            cache, ids = filled(model, 3, 4, np.array([0, 1, 2]))
            model.next_logits(ids[:, :1].astype(np.int32), cache)
            model.next_logits(prompt(3, 30).astype(np.int32), model.new_cache(3, 30, np.array([0, 1, 2])))
    assert len(step_kernel._step.signatures) == len(prompt_kernel._read.signatures) == 1


# ---- prompts ---------------------------------------------------------------------------------------------------------


def prompt(rows, tokens, length=0, seed=1):
    return np.random.default_rng(seed).integers(0, V, (rows, length + tokens))


@NUMBA
@every_model
@int8
@pytest.mark.parametrize(("rows", "tokens", "length"), [(1, 30, 0), (1, 3, 5), (3, 17, 4), (20, 2, 1)])
def test_a_prompt_equals_the_layers(name, in_int8, rows, tokens, length):
    model, ids = made(name, in_int8), prompt(rows, tokens, length)
    starts = None if rows == 1 else np.arange(rows) % 5
    cache, other = (m.new_cache(rows, length + tokens + 2, starts) for m in (model, layers_of(model)))
    if length:
        model.next_logits(ids[:, :length], cache)
        layers_of(model).next_logits(ids[:, :length], other)
    ids = ids[:, length:]
    scores = prompt_kernel.read(decoder_of(model), ids, cache.keys, cache.values, length, cache.starts)
    with no_grad():
        layers = layers_of(model)(ids, cache=other).data
    assert scores.shape == (rows, tokens, V) and scores.dtype == np.float32
    seen = np.arange(length, length + tokens) >= (0 if starts is None else starts[:, None])  # padding scores nothing
    seen = np.broadcast_to(seen, (rows, tokens))
    close = {"atol": 2e-5 * max(1, np.abs(layers).max())}
    np.testing.assert_allclose(scores[seen], layers[seen], **close)
    written = slice(length, length + tokens)
    for ours, plain in zip((cache.keys, cache.values), (other.keys, other.values), strict=True):
        np.testing.assert_allclose(ours[:, :, written][:, seen], plain[:, :, written][:, seen], atol=2e-5)
    last = prompt_kernel.read(decoder_of(model), ids, cache.keys, cache.values, length, cache.starts, last_only=True)
    np.testing.assert_allclose(last, scores[:, -1:], **close)


@NUMBA
@int8
@pytest.mark.parametrize("last_only", [False, True])
def test_a_prompt_in_parts(monkeypatch, in_int8, last_only):
    model, ids = made("llama", in_int8), prompt(3, 29)
    results = []
    for tokens in (1024, 30, 2):
        monkeypatch.setattr(prompt_kernel, "_TOKENS", tokens)
        cache = model.new_cache(3, 29, np.array([0, 2, 4]))
        results.append(prompt_kernel.read(decoder_of(model), ids, cache.keys, cache.values, 0, cache.starts, last_only))
    for parts in results[1:]:
        np.testing.assert_allclose(parts[:, 4:], results[0][:, 4:], atol=2e-5)
        np.testing.assert_allclose(parts[:, -1], results[0][:, -1], atol=2e-5)


@NUMBA
@pytest.mark.skipif(kernels.get_num_threads() < 2, reason="needs two cores")
@pytest.mark.parametrize("name", ["gpt2 wide", "llama wide"])
@int8
def test_a_prompt_by_one_thread_equals_two_bit_for_bit(name, in_int8):
    model, threads, results = made(name, in_int8), kernels.get_num_threads(), []
    for n in (1, 2):
        kernels.set_num_threads(n)
        try:
            cache = model.new_cache(2, 35)
            results.append(prompt_kernel.read(decoder_of(model), prompt(2, 35), cache.keys, cache.values, 0, None))
        finally:
            kernels.set_num_threads(threads)
    assert results[0].tobytes() == results[1].tobytes()


# ---- when the model takes this way -----------------------------------------------------------------------------------


def reader_after(model, rows=1):
    cache, ids = filled(model, rows, 2, None)
    model.next_logits(ids[:, :1], cache)
    return cache.reader


@NUMBA
def test_the_model_takes_this_way_and_is_never_stale():
    model = llama()
    cache, ids = filled(model, 1, 4, None)
    model.next_logits(ids[:, :1], cache)
    assert cache.reader.decoder is not None

    def differ_by_layers():
        other = model.new_cache(1, 8)
        other.keys[:, :, :cache.length], other.values[:, :, :cache.length] = (
            a[:, :, : cache.length] for a in (cache.keys, cache.values)
        )
        other.length = cache.length
        with no_grad():
            expected = model(ids[:, 1:2], cache=other).data[:, -1]
        length = cache.length
        got = model.next_logits(ids[:, 1:2], cache)
        cache.length = length
        return np.abs(got - expected).max()

    weight = model.model.layers[0].mlp.up_proj.weight
    weight.data -= 0.3  # into the array, as an optimiser does
    assert differ_by_layers() < 2e-5
    weight.data = weight.data * -2  # another array
    assert differ_by_layers() < 2e-5
    model.load_state_dict({name: array * 0.9 for name, array in model.state_dict().items()}, copy=False)
    assert differ_by_layers() < 2e-5


@NUMBA
@pytest.mark.parametrize("T, kernel", [(1, "decode_step"), (kernels.FEWEST_TOKENS, "read")])
def test_a_small_model_does_not_wait_for_a_compiler(monkeypatch, T, kernel):
    model, called, is_there = llama(max_position_embeddings=80), [], False
    loop = getattr(kernels, kernel)
    monkeypatch.setattr(kernels, kernel, lambda *a, **b: called.append(a) or loop(*a, **b))
    monkeypatch.setattr(kernels, "is_compiled", lambda file, name: is_there)

    def scores(most=10_000_000):
        monkeypatch.setattr(decoding, "SMALL", most)
        return model.next_logits(np.ones((1, T), np.int64), model.new_cache(1, T))

    by_layers = scores()
    assert not called
    np.testing.assert_allclose(scores(most=model.num_parameters() - 1), by_layers, rtol=1e-4, atol=1e-5)
    assert len(called) == 1
    is_there = True
    scores()
    assert len(called) == 2


@NUMBA
def test_a_list_without_layers_is_always_read_by_the_loops(monkeypatch):
    monkeypatch.setattr(decoding, "SMALL", 10_000_000)
    monkeypatch.setattr(kernels, "is_compiled", lambda file, name: False)
    reader = reader_after(models.quantize(llama()))
    assert reader.steps and reader.reads


@NUMBA
def test_the_loops_can_be_compiled_ahead(monkeypatch):
    for name in ("decode_step", "read"):
        monkeypatch.setattr(kernels, name, lambda *a, name=name, **b: called.append(name))
    called = []
    decoding.compile_loops(gpt2())
    assert called == ["decode_step", "read"]
    decoding.compile_loops(models.RecurrentLM(models.RecurrentLMConfig(V, 8), rng=0))
    assert len(called) == 2


class Louder(models.Llama):
    def forward(self, ids, cache=None, last_only=False):
        return super().forward(ids, cache, last_only) * 2


@NUMBA
def test_what_changes_the_layers_leads_back_to_them():
    assert reader_after(llama()).decoder is not None
    hooked = llama()
    hooked.model.layers[1].mlp.register_forward_hook(lambda module, inputs, y: y * 0)
    assert reader_after(hooked).decoder is None
    assert reader_after(gpt2().train()).decoder is None
    assert reader_after(Louder(llama().config, rng=0).eval()).decoder is None
    assert reader_after(hooked, rows=kernels.FEWEST_TOKENS).decoder is None
    double = llama().astype(np.float64)
    assert reader_after(double).decoder is None
    cache, ids = filled(double, 1, 2, None)
    assert double.next_logits(ids[:, :1], cache).dtype == np.float64
    assert reader_after(llama(), rows=decode.MOST_ROWS + 1) is None


def test_hooks_that_come_and_go_in_the_middle_of_a_text_are_seen():
    model, token = llama(), np.ones((1, 1), int)
    cache, other = model.new_cache(1, 4), model.new_cache(1, 4)
    seen = []
    model.next_logits(token, cache)
    expected = [model.next_logits(token, other) for _ in range(4)]
    remove = model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, y: seen.append(y.shape))
    np.testing.assert_allclose(model.next_logits(token, cache), expected[1], atol=1e-5)
    assert len(seen) == 1
    model.next_logits(token, cache)
    remove()
    np.testing.assert_allclose(model.next_logits(token, cache), expected[3], atol=1e-5)
    assert len(seen) == 2
    if kernels.KERNELS == "numba":
        assert cache.reader.decoder is not None  # and compiled again


def test_a_prompt_scores_its_last_position_only():
    model = llama()
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, y: None)
    original, ids = model.forward, np.ones((2, 6), int)
    model.forward = lambda *a, **k: seen.append(original(*a, **k)) or seen[-1]
    logits = model.next_logits(ids, model.new_cache(2, 6))
    assert seen[0].shape == (2, 1, V)
    with no_grad():
        np.testing.assert_allclose(logits, original(ids).data[:, -1], atol=1e-6)


def test_a_long_prompt_is_read_in_one_call():
    model, ids = llama(max_position_embeddings=100), prompt(2, 40)
    original = model.forward
    model.forward = lambda *a, **k: pytest.fail("layer by layer") if kernels.KERNELS == "numba" else original(*a, **k)
    cache = model.new_cache(2, 45, np.array([0, 3]))
    logits = model.next_logits(ids, cache)
    model.forward, other = original, model.new_cache(2, 45, np.array([0, 3]))
    with no_grad():
        np.testing.assert_allclose(logits, model(ids, cache=other).data[:, -1], atol=2e-5)
    assert cache.length == 40
    with pytest.raises(ValueError, match="room for 45 tokens, 40 are in it; got 40 more"):
        model.next_logits(ids, cache)
    with pytest.raises(ValueError, match=r"in \[0, 37\)"):
        model.next_logits(ids + 1, model.new_cache(2, 45))
    with pytest.raises(ValueError, match="the context is 100 tokens; got 120"):
        model.next_logits(prompt(1, 120), model.new_cache(1, 120))


@pytest.mark.parametrize("in_int8", [False, True])
def test_mistakes(in_int8):
    model = made("gpt2", in_int8)
    cache, ids = filled(model, 1, 2, None)
    with pytest.raises(ValueError, match=r"in \[0, 37\)"):
        model.next_logits(np.array([[V]]), cache)
    with pytest.raises(ValueError, match=r"in \[0, 37\)"):
        model.next_logits(np.array([[-1]]), cache)
    for t in range(3):
        model.next_logits(ids[:, t : t + 1], cache)
    with pytest.raises(ValueError, match="room for 5 tokens, 5 are in it; got 1 more"):
        model.next_logits(ids[:, :1], cache)
    cache = model.new_cache(1, 50)
    model.next_logits(np.ones((1, 40), int), cache)
    with pytest.raises(ValueError, match="the context is 40 tokens; got 41"):
        model.next_logits(ids[:, :1], cache)


@pytest.mark.skipif(kernels.KERNELS == "numba", reason="the loops are compiled")
@int8
def test_without_compiled_loops_the_layers_are_called(in_int8):
    model = made("llama", in_int8)
    cache, ids = filled(model, 2, 5, None)
    assert model.next_logits(ids[:, :1], cache).shape == (2, V) and cache.reader is None and cache.length == 6
