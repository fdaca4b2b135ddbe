"""A cache that is copied, changed or of another model: the scores are right, or a sentence says what is wrong."""

import copy
import gc
import pickle

import numpy as np
import pytest

from minillm import GenerationConfig, generate, models
from minillm.models import quantize
from minillm.models.base import KVCache
from minillm.tokenizer import CharTokenizer

SIZES = {
    "vocab_size": 24, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 32, "initializer_range": 0.3,
}  # fmt: skip
IDS, NEXT = np.arange(6)[None], np.array([[7]])


def llama(seed=0, **changes):
    return models.Llama(models.LlamaConfig(**SIZES | changes), rng=seed).eval()


def read(model, dtype=None):
    model.cache_dtype = dtype
    cache = model.new_cache(1, 32)
    model.next_logits(IDS, cache)
    model.next_logits(NEXT, cache)
    return cache


def scores(model, cache):
    """Of what follows the first six ids and NEXT, once more."""
    cache.length = 6
    return model.next_logits(NEXT, cache)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("make", [lambda: llama(), lambda: quantize(llama())], ids=["llama", "int8"])
def test_a_copy_does_not_read_the_memory_of_what_it_was_copied_from(make):
    """The compiled loops find arrays by their places, which no copy shares."""
    model = make()
    cache = read(model, np.float32)
    expected, other, other_cache = scores(model, cache), copy.deepcopy(model), copy.deepcopy(cache)
    if "arrays" in vars(other):
        theirs, ours = (m.arrays.arguments[0] for m in (other, model))
        assert (theirs[0, 2:4] != ours[0, 2:4]).any()  # kind and place of the first matrix
    assert other_cache.reader is None and pickle.loads(pickle.dumps(cache)).reader is None
    if "arrays" in vars(model):  # what stood there is another's by now
        for array in model.state_dict().values():
            array[...] = 0
    else:
        for parameter in model.parameters():
            parameter.data[...] = 0
    del model, cache
    gc.collect()
    np.testing.assert_array_equal(scores(other, other_cache), expected)


def test_a_cache_goes_on_with_another_model_of_its_shape():
    one, two = llama(0), llama(1)
    cache = read(one)
    other = copy.deepcopy(cache)
    close(scores(two, cache), two(NEXT, cache=_at(other, 6)).data[:, -1])


def _at(cache, length):
    cache.length = length
    return cache


def test_a_cache_of_another_shape_is_refused_before_a_kernel_sees_it():
    """It would read and write what is not there."""
    q = quantize(llama())
    for other in (llama(num_hidden_layers=1), llama(num_key_value_heads=2), llama(hidden_size=32)):
        with pytest.raises(ValueError, match=r"QuantizedModel: the cache must be one that new_cache\(1, ...\) of this"):
            q(IDS, other.new_cache(1, 32))
        with pytest.raises((ValueError, IndexError), match="made for|out of bounds"):
            llama().next_logits(NEXT, other.new_cache(1, 32))
    for rows in (1, 3):
        with pytest.raises(ValueError, match=r"new_cache\(2, ...\) of this model made"):
            q(np.repeat(IDS, 2, axis=0), q.new_cache(rows, 32))
    with pytest.raises(ValueError, match=r"starts must have a number for each of 2 rows; got \(3,\)"):
        q.new_cache(2, 32, np.array([0, 1, 2]))


def test_the_numbers_that_are_kept():
    model, q = llama(), quantize(llama())
    exact, whole = scores(model, read(model)), model(np.concatenate([IDS, NEXT], axis=1)).data[:, -1]
    close(exact, whole)
    for dtype in (np.float64, "float32"):
        close(scores(model, read(model, dtype)), exact)
    for m, dtype in ((model, "float16"), (q, np.float16), (q, "f2")):
        assert read(m, dtype).keys.dtype == np.float16
    half = scores(model, read(model, np.float16))
    assert 0 < np.abs(half - exact).max() < 5e-3 * np.abs(exact).max()
    for dtype in (np.int8, ">f2", np.complex64, "bfloat16", "x", 3, bool):
        for m in (model, q):
            m.cache_dtype = dtype
            with pytest.raises(ValueError, match="cache_dtype must be np.float16, np.float32 or np.float64; got "):
                m.new_cache(1, 32)
    q.cache_dtype = np.float64
    with pytest.raises(ValueError, match="in np.float16 or np.float32; got float64"):
        q.next_logits(NEXT, q.new_cache(1, 32))


def test_a_cache_made_in_other_numbers_goes_on():
    """Of a model that was widened, or whose cache_dtype was changed, since."""
    model = llama()
    expected = scores(model, read(model))
    cache = read(llama().astype(np.float64))
    assert cache.keys.dtype == np.float64 and isinstance(cache, KVCache)
    close(scores(model, cache), expected)


@pytest.mark.parametrize("changes", [{"temperature": 0}, {"top_p": 0.5}, {"top_k": 3}, {"typical_p": 0.5},
                                     {"num_beams": 2}, {"logprobs": 2}], ids=str)  # fmt: skip
def test_scores_that_are_no_numbers_are_told_whatever_chooses_among_them(changes):
    tokenizer = CharTokenizer.train(["abcdefghijklmnopqrstuvw"], ["<|endoftext|>"])
    for bad in (np.nan, np.inf):
        model = llama()
        model.model.norm.weight.data[3] = bad
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="the model's scores for token 0 are not f"):
            generate(model, tokenizer, "abc", GenerationConfig(max_new_tokens=3, seed=0, **changes))


def test_keys_and_values_beyond_float16_become_its_largest_number():
    """Of an infinite one, every score would be NaN."""
    model = llama()
    for layer in model.model.layers:
        part = layer.self_attn
        part.k_proj.weight.data *= 2e5
        part.q_proj.weight.data /= 2e5
        part.v_proj.weight.data *= 2e5
        part.o_proj.weight.data /= 2e5
    for m in (model, quantize(model)):
        cache = read(m, np.float16)
        step = scores(m, cache)
        assert np.abs(cache.keys).max() == np.abs(cache.values).max() == 65504 and np.isfinite(step).all()
        layers = model if m is model else m.dequantized()
        layers.cache_dtype = np.float16
        plain = layers.new_cache(1, 32)
        layers(IDS, cache=plain)
        close(step, layers(NEXT, cache=plain).data[:, -1])
