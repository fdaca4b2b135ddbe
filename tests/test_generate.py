"""The loop: batches, samples, streaming, the seven ways to stop, on a model without weights."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minillm import models
from minillm.generation import GenerationConfig, generate, generate_batch, stream
from minillm.generation.processors import log_sum_exp
from minillm.tokenizer import CharTokenizer
from tests.generate_mocks import MockModel, MockTokenizer, ScriptedModel

TOKENIZER = MockTokenizer()
EOS = TOKENIZER.eos_id
V = TOKENIZER.vocab_size
PROMPTS = ["once upon", "a", "the old king", ""]
GREEDY = GenerationConfig(temperature=0, max_new_tokens=12)


def scripted(text, **options):
    """A model that says a text after the empty prompt, and then ends it."""
    return ScriptedModel(V, [*TOKENIZER.encode(text), EOS], **options)


def greedy_by_hand(model, ids, steps):
    """Recompute every position from the whole text, without a cache."""
    ids, drawn = list(ids), []
    for _ in range(steps):
        drawn.append(int(model.scores(ids + drawn).argmax()))
        if drawn[-1] == EOS:
            break
    return drawn


# ---- what is written -------------------------------------------------------------------------------------------------


def test_greedy_equals_recomputation():
    model = MockModel(V)
    for prompt in PROMPTS:
        result = generate(model, TOKENIZER, prompt, GREEDY)
        assert result.prompt_ids == [EOS, *TOKENIZER.encode(prompt)]
        assert result.ids == greedy_by_hand(model, result.prompt_ids, 12)
        assert result.text == TOKENIZER.decode([id for id in result.ids if id != EOS])


def test_log_probabilities_and_stop_probabilities_are_the_models_own():
    model = MockModel(V)
    config = GenerationConfig(temperature=0.3, top_k=3, seed=1, max_new_tokens=8, logprobs=4, presence_penalty=1)
    result = generate(model, TOKENIZER, "abc", config)
    assert len(result.ids) == len(result.logprobs) == len(result.stop_probs) == len(result.top_logprobs)
    text = result.prompt_ids.copy()
    for id, logprob, stop_prob, top in zip(
        result.ids, result.logprobs, result.stop_probs, result.top_logprobs, strict=True
    ):
        logits = model.scores(text)
        expected = logits - np.log(np.exp(logits).sum())
        assert logprob == pytest.approx(expected[id], abs=1e-12)
        assert stop_prob == pytest.approx(np.exp(expected[EOS]), abs=1e-12)
        assert list(top) == np.argsort(-expected)[:4].tolist()
        assert list(top.values()) == pytest.approx(np.sort(expected)[::-1][:4])
        text.append(id)


def test_echo_gives_the_prompt_and_its_log_probabilities():
    model = MockModel(V)
    config = GREEDY.replace(echo=True, logprobs=2)
    for result, prompt in zip(generate_batch(model, TOKENIZER, PROMPTS, config), PROMPTS, strict=True):
        plain = generate(model, TOKENIZER, prompt, GREEDY)
        assert (result.text, result.ids) == (prompt + plain.text, plain.ids)
        assert result.logprobs == pytest.approx(plain.logprobs)
        ids = result.prompt_ids
        assert result.prompt_logprobs[0] is result.prompt_top_logprobs[0] is None
        assert len(result.prompt_logprobs) == len(result.prompt_top_logprobs) == len(ids)
        for t in range(1, len(ids)):
            logits = model.scores(ids[:t])[None]
            expected = (logits - log_sum_exp(logits)[:, None])[0]
            assert result.prompt_logprobs[t] == pytest.approx(expected[ids[t]])
            assert list(result.prompt_top_logprobs[t].items())[0] == pytest.approx((expected.argmax(), expected.max()))
    assert plain.prompt_logprobs == plain.prompt_top_logprobs == []


def test_echo_alone_scores_a_text():
    result = generate(MockModel(V), TOKENIZER, "abc", GenerationConfig(max_new_tokens=0, echo=True))
    assert (result.text, result.ids, result.finish_reason) == ("abc", [], "length")
    assert len(result.prompt_logprobs) == 4 and result.prompt_top_logprobs == []


def test_same_seed_same_text_other_seed_other_text():
    model, config = MockModel(V, sharpness=1), GenerationConfig(max_new_tokens=20, seed=3)
    first = generate(model, TOKENIZER, "a", config)
    assert generate(model, TOKENIZER, "a", config) == first
    assert generate(model, TOKENIZER, "a", config, rng=np.random.default_rng(3)) == first
    assert generate(model, TOKENIZER, "a", config.replace(seed=4)).text != first.text


def test_a_row_does_not_depend_on_the_others():
    """A left-padded batch is the same as one by one with the same rng, whatever ends when."""
    model = MockModel(V, sharpness=1)
    config = GenerationConfig(max_new_tokens=15, repetition_penalty=1.2, frequency_penalty=0.5, no_repeat_ngram_size=2)
    prompts = [*PROMPTS, "b", "some longer prompt here"]
    rng = np.random.default_rng(0)
    alone = [generate(model, TOKENIZER, prompt, config, rng=rng) for prompt in prompts]
    assert len({len(result.ids) for result in alone}) > 1, "rows should end at different steps"
    together = generate_batch(model, TOKENIZER, prompts, config, rng=np.random.default_rng(0))
    for a, b in zip(alone, together, strict=True):
        assert (a.text, a.ids, a.finish_reason, a.prompt_ids) == (b.text, b.ids, b.finish_reason, b.prompt_ids)
        assert a.logprobs == pytest.approx(b.logprobs) and a.stop_probs == pytest.approx(b.stop_probs)
    assert [result.index for result in together] == list(range(len(prompts)))
    first_two = generate_batch(model, TOKENIZER, prompts[:2], config, rng=np.random.default_rng(0))
    assert [r.ids for r in first_two] == [r.ids for r in together[:2]]


def test_n_samples_share_the_prefill():
    model = MockModel(V, sharpness=1)
    config = GenerationConfig(n=3, max_new_tokens=6, seed=0)
    results = generate_batch(model, TOKENIZER, ["hello", "abc"], config)
    assert model.calls[0] == (2, 6), "each prompt is read once"
    assert [shape[1] for shape in model.calls[1:]] == [1] * (len(model.calls) - 1)
    assert model.calls[1][0] == 6
    assert len({result.text for result in results[:3]}) == 3
    rng = np.random.default_rng(0)
    alone = [generate(model, TOKENIZER, p, config.replace(n=1), rng=rng) for p in ["hello"] * 3 + ["abc"] * 3]
    assert [r.ids for r in results] == [r.ids for r in alone]


def test_rows_that_are_done_leave_the_batch():
    model = MockModel(V, sharpness=1)
    results = generate_batch(model, TOKENIZER, PROMPTS, GenerationConfig(max_new_tokens=30, seed=2))
    lengths = [len(result.ids) for result in results]
    sizes = [shape[0] for shape in model.calls]
    assert sizes == [sum(length > step for length in lengths) for step in range(max(lengths))]


def test_the_draw_follows_the_probabilities():
    model, n = MockModel(V, sharpness=1), 4000
    logits = model.scores([EOS])
    p = np.exp(logits) / np.exp(logits).sum()
    config = GenerationConfig(n=1000, max_new_tokens=1)
    rng = np.random.default_rng(0)
    drawn = [r.ids[0] for _ in range(n // 1000) for r in generate_batch(model, TOKENIZER, [""], config, rng=rng)]
    counts = np.bincount(drawn, minlength=V)
    chi2 = ((counts - n * p) ** 2 / (n * p))[n * p > 5].sum()
    degrees = (n * p > 5).sum() - 1
    assert chi2 < degrees + 4 * np.sqrt(2 * degrees), "about 1 in 10,000 by chance, and the seed is fixed"


def test_tokens_that_the_tokenizer_does_not_know_are_never_drawn():
    model = MockModel(V + 50, sharpness=0.1)
    results = generate_batch(model, TOKENIZER, [""], GenerationConfig(n=20, max_new_tokens=10, seed=0))
    assert max(max(result.ids) for result in results) < V


def test_without_a_tokenizer_nothing_is_written():
    for run in (lambda: generate(scripted("a"), None, "hi"), lambda: generate_batch(scripted("a"), None, [[1, 2]])):
        with pytest.raises(ValueError, match="tokenizer must be the one that the model was trained with; got None"):
            run()


# ---- the seven ends --------------------------------------------------------------------------------------------------


def test_eos():
    result = generate(scripted("hello"), TOKENIZER, "", GREEDY)
    assert (result.text, result.finish_reason) == ("hello", "eos")
    assert result.ids == [*TOKENIZER.encode("hello"), EOS]
    assert result.stop_probs[-1] > 0.99 and max(result.stop_probs[:-1]) < 0.01


def test_end_of_turn_and_several_stop_ids():
    tokenizer = MockTokenizer(special=("<|endoftext|>", "<|im_end|>"))
    turn = tokenizer.special_tokens["<|im_end|>"]
    model = ScriptedModel(tokenizer.vocab_size, [0, 1, turn, tokenizer.eos_id])
    result = generate(model, tokenizer, "", GREEDY)
    assert (result.text, result.finish_reason, result.ids) == ("ab", "end_of_turn", [0, 1, turn])
    named = generate(model, tokenizer, "", GREEDY.replace(end_of_turn_token_id=1))
    assert (named.text, named.finish_reason) == ("a", "end_of_turn")
    several = generate(model, tokenizer, "", GREEDY.replace(eos_token_id=(7, 1)))
    assert (several.text, several.finish_reason) == ("a", "eos")
    assert several.stop_probs[1] > 0.99
    never = generate(model, tokenizer, "", GREEDY.replace(eos_token_id=(), end_of_turn_token_id=()))
    assert (never.finish_reason, never.text[:12]) == ("length", "ab<|im_end|>")
    assert never.stop_probs == [0] * 12


def test_stop_string_across_tokens():
    result = generate(scripted("one. two. three"), TOKENIZER, "", GREEDY.replace(stop=(". t", "zz")))
    assert (result.text, result.finish_reason) == ("one", "stop")
    assert result.ids == TOKENIZER.encode("one. t")
    at_the_end = generate(scripted("one. "), TOKENIZER, "", GREEDY.replace(stop=(". t",)))
    assert (at_the_end.text, at_the_end.finish_reason) == ("one. ", "eos"), "what was held back is given"


def test_stop_string_inside_a_token():
    tokenizer = MockTokenizer(pieces=["ab", "c.de", "f"])
    model = ScriptedModel(tokenizer.vocab_size, [0, 1, 2])
    result = generate(model, tokenizer, "", GREEDY.replace(stop="."))
    assert (result.text, result.ids, result.finish_reason) == ("abc", [0, 1], "stop")


def test_length():
    result = generate(scripted("hello"), TOKENIZER, "", GREEDY.replace(max_new_tokens=3))
    assert (result.text, result.finish_reason, len(result.ids)) == ("hel", "length", 3)
    nothing = generate(scripted("hello"), TOKENIZER, "", GREEDY.replace(max_new_tokens=0))
    assert (nothing.text, nothing.finish_reason, nothing.ids) == ("", "length", [])


def test_context():
    """The model sees `context` tokens at most: the last one is drawn when it is full, as in training."""
    model = scripted("abcdefgh", context=6)
    result = generate(model, TOKENIZER, "", GREEDY)
    assert (result.text, result.finish_reason) == ("abcdef", "context")
    assert sum(shape[1] for shape in model.calls) == 6
    assert generate(model, TOKENIZER, "", GREEDY.replace(max_new_tokens=6)).finish_reason == "length"


def test_context_of_a_padded_batch_is_that_of_each_row():
    model = MockModel(V, context=14, sharpness=1)
    config = GenerationConfig(max_new_tokens=40, eos_token_id=(), seed=0)
    prompts = ["abcdefgh", "a", "abcd", "abcdefghijklm"]
    results = generate_batch(model, TOKENIZER, prompts, config)
    assert [len(result.ids) for result in results] == [6, 13, 10, 1]
    assert {result.finish_reason for result in results} == {"context"}
    rng = np.random.default_rng(0)
    assert [r.ids for r in results] == [generate(model, TOKENIZER, p, config, rng=rng).ids for p in prompts]


def test_cancelled_by_an_event_or_a_function():
    event, model = threading.Event(), scripted("hello world")
    pieces = []
    for piece in stream(model, TOKENIZER, "", GREEDY.replace(stop="lo wx"), cancel=event):
        pieces.append(piece)
        if len(pieces) == 5:
            event.set()
    assert [piece.text for piece in pieces] == ["h", "e", "", "l", "", "lo"], "what was held back comes with the end"
    assert (pieces[-1].finish_reason, pieces[-1].ids) == ("cancelled", [])
    before = generate(model, TOKENIZER, "", GREEDY, cancel=lambda: True)
    assert (before.text, before.ids, before.finish_reason) == ("", [], "cancelled")


def test_criterion():
    seen = []

    def two_words(ids, text):
        seen.append((list(ids), text))
        return text.count(" ") == 2

    model = scripted("a bc d e")
    result = generate(model, TOKENIZER, "", GREEDY.replace(stop=" x"), criterion=two_words)
    assert (result.text, result.finish_reason) == ("a bc ", "criterion")
    assert [text for _, text in seen] == ["a", "a ", "a b", "a bc", "a bc "]
    assert seen[2][0] == TOKENIZER.encode("a b")


def test_min_new_tokens_holds_the_end_back():
    result = generate(scripted("ab", margin=5), TOKENIZER, "", GREEDY.replace(min_new_tokens=4))
    assert len(result.ids) >= 5 and EOS not in result.ids[:4]
    assert result.logprobs[2] < -4, "reported as the model saw it"
    exact = generate(scripted("abcd"), TOKENIZER, "", GREEDY.replace(min_new_tokens=4))
    assert exact.ids == [0, 1, 2, 3, EOS]


# ---- sliding ---------------------------------------------------------------------------------------------------------


def test_sliding_forgets_the_older_half():
    model = MockModel(V, context=8, sharpness=1)
    config = GREEDY.replace(max_new_tokens=30, eos_token_id=(), slide=True)
    result = generate(model, TOKENIZER, "abc", config)
    visible, drawn = result.prompt_ids.copy(), []
    for _ in range(30):
        if len(visible) > 8:
            visible = visible[-4:]
        drawn.append(int(model.scores(visible).argmax()))
        visible.append(drawn[-1])
    assert (result.ids, result.finish_reason) == (drawn, "length")


def test_sliding_rows_do_not_depend_on_each_other():
    model = MockModel(V, context=9, sharpness=1)
    config = GenerationConfig(max_new_tokens=25, eos_token_id=(), slide=True, seed=5)
    prompts = ["abcdefgh", "", "abc"]
    rng = np.random.default_rng(5)
    alone = [generate(model, TOKENIZER, prompt, config, rng=rng).ids for prompt in prompts]
    assert [result.ids for result in generate_batch(model, TOKENIZER, prompts, config)] == alone


# ---- streaming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"stop": ("th", "e k", ", ")}, {"echo": True, "logprobs": 2}, {"n": 3}])
def test_the_pieces_of_a_stream_add_up(changes):
    model, config = MockModel(V, sharpness=1), GenerationConfig(max_new_tokens=25, seed=7).replace(**changes)
    whole = generate_batch(model, TOKENIZER, ["the old"], config)
    pieces = list(stream(model, TOKENIZER, "the old", config))
    for result in whole:
        own = [piece for piece in pieces if piece.index == result.index]
        assert "".join(piece.text for piece in own) == result.text
        assert [piece.finish_reason for piece in own] == [None] * (len(own) - 1) + [result.finish_reason]
        for name in ("ids", "logprobs", "stop_probs", "top_logprobs", "prompt_ids", "prompt_logprobs"):
            assert sum([getattr(piece, name) for piece in own], []) == getattr(result, name), name


def test_a_stream_shows_nothing_of_a_stop_string():
    pieces = [piece.text for piece in stream(scripted("a end ends"), TOKENIZER, "", GREEDY.replace(stop="ends"))]
    assert pieces == ["a", " ", "", "", "", "end ", "", "", "", ""]


def test_a_stream_never_shows_a_broken_character():
    tokenizer = MockTokenizer(pieces=[b"a", b"\xe2", b"\x82", b"\xac", b"\xe2\x82"])
    model = ScriptedModel(tokenizer.vocab_size, [0, 1, 2, 3, 4, tokenizer.eos_id])
    assert [piece.text for piece in stream(model, tokenizer, "", GREEDY)] == ["a", "", "", "€", "", "�"]
    after = ScriptedModel(tokenizer.vocab_size, [3, tokenizer.eos_id], prompt_length=3)
    assert generate(after, tokenizer, [0, 1, 2], GREEDY).text == "€", "a character that the prompt began"


def test_a_stream_computes_only_what_is_asked_for():
    model = scripted("hello")
    pieces = stream(model, TOKENIZER, "", GREEDY)
    assert model.calls == []
    assert next(pieces).text == "h" and len(model.calls) == 1
    with pytest.raises(ValueError, match="more than the model's context of 4"):
        stream(scripted("hello", context=4), TOKENIZER, "abcdef", GREEDY)


# ---- prompts ---------------------------------------------------------------------------------------------------------


def test_what_goes_before_a_prompt():
    model = MockModel(V)

    def ids(prompt, tokenizer=TOKENIZER, **changes):
        return generate(model, tokenizer, prompt, GREEDY.replace(**changes)).prompt_ids

    assert ids("ab") == [EOS, 0, 1]
    assert ids("ab", add_bos=False) == [0, 1]
    assert ids("ab", bos_token_id=5) == [5, 0, 1]
    assert ids("fa", bos_token_id=5) == [5, 0], "the tokenizer put it there already"
    assert ids([0, 1]) == ids(np.array([0, 1])) == [0, 1], "ids are taken as they are"
    assert ids("") == ids([]) == ids("", add_bos=False) == [EOS]
    assert ids("ab", tokenizer=MockTokenizer(special=())) == [0, 1]
    ending_every_text = MockTokenizer()
    ending_every_text.encode = lambda text: [*TOKENIZER.encode(text), EOS]
    assert ids("ab", tokenizer=ending_every_text) == [EOS, 0, 1]
    assert ids("", tokenizer=ending_every_text) == [EOS]


def test_bad_input_is_refused():
    model = MockModel(V, context=10)
    with pytest.raises(ValueError, match=r"generate: the prompt has 13 tokens, more than the model's context of 10"):
        generate(model, TOKENIZER, "abcdefghijkl", GREEDY)
    with pytest.raises(ValueError, match=r"generate_batch: the prompt has 13 tokens"):
        generate_batch(model, TOKENIZER, ["a", "abcdefghijkl"], GREEDY)
    with pytest.raises(ValueError, match=rf"generate: prompt must have ids in \[0, {V}\); got {V}"):
        generate(model, TOKENIZER, [0, V], GREEDY)
    with pytest.raises(ValueError, match=r"got -1"):
        generate(model, TOKENIZER, [0, -1], GREEDY)
    with pytest.raises(ValueError, match=r"list of ids; got shape \(1, 2\) of int64"):
        generate(model, TOKENIZER, [[0, 1]], GREEDY)
    with pytest.raises(ValueError, match=r"got shape \(1,\) of float64"):
        generate(model, TOKENIZER, [0.5], GREEDY)
    with pytest.raises(ValueError, match="the prompt is empty, and there is no bos_token_id"):
        generate(model, MockTokenizer(special=()), "", GREEDY)
    with pytest.raises(ValueError, match="for n = 2 call generate_batch"):
        generate(model, TOKENIZER, "a", GenerationConfig(n=2))
    with pytest.raises(ValueError, match="prompts must be a list of prompts; got one string"):
        generate_batch(model, TOKENIZER, "abc", GREEDY)
    with pytest.raises(ValueError, match=rf"logit_bias has token id {V}; the model's are in \[0, {V}\)"):
        generate(model, TOKENIZER, "a", GREEDY.replace(logit_bias={V: 1.0}))
    with pytest.raises(ValueError, match="beam search knows its text only at the end"):
        stream(model, TOKENIZER, "a", GenerationConfig(num_beams=2))
    assert generate_batch(model, TOKENIZER, [], GREEDY) == []


@pytest.mark.parametrize("temperature", [0, 1])
def test_when_every_token_is_forbidden(temperature):
    config = GenerationConfig(temperature=temperature, no_repeat_ngram_size=1, eos_token_id=(), max_new_tokens=40)
    with pytest.raises(ValueError, match="every token is forbidden; relax no_repeat_ngram_size"):
        generate(MockModel(V), TOKENIZER, "", config)


def test_scores_that_are_not_numbers():
    model = MockModel(V)
    model.P[3] = np.nan
    with pytest.raises(ValueError, match="the model's scores for token 3 are not finite"):
        generate(model, TOKENIZER, "", GREEDY)


# ---- other models ----------------------------------------------------------------------------------------------------


class MockEncoderDecoder(MockModel):
    """Adds to each score what the encoder read, except its padding (id 4)."""

    is_encoder_decoder = True

    def __init__(self, vocab_size, start=2):
        super().__init__(vocab_size)
        self.config.pad_token_id, self.config.decoder_start_token_id = 4, start

    def new_cache(self, batch_size, length, starts=None, encoder_ids=None):
        assert starts is None
        cache = super().new_cache(batch_size, length)
        self.encoder_calls = getattr(self, "encoder_calls", []) + [encoder_ids.shape]
        memory = np.array([sum(self.E[id] * (i + 1) for i, id in enumerate(r[r != 4])) for r in encoder_ids])
        return WithMemory(cache, memory)

    def next_logits(self, ids, cache):
        return super().next_logits(ids, cache.own) + cache.memory @ self.W


class WithMemory:
    def __init__(self, own, memory):
        self.own, self.memory, self.length = own, memory, 0

    def reorder(self, rows):
        return WithMemory(self.own.reorder(rows), self.memory[rows])


def test_an_encoder_decoder_model():
    model = MockEncoderDecoder(V)
    prompts = ["abc", "a", "fghij"]
    together = generate_batch(model, TOKENIZER, prompts, GREEDY)
    assert model.encoder_calls == [(3, 5)]
    for prompt, result in zip(prompts, together, strict=True):
        assert result.prompt_ids == [2]
        assert result.ids == generate(model, TOKENIZER, prompt, GREEDY).ids
    memory = (model.E[[0, 1, 2]] * [[1], [2], [3]]).sum(axis=0) @ model.W
    assert together[0].ids[0] == (model.scores([2]) + memory).argmax()
    assert together[0].ids != together[1].ids
    named = generate(model, TOKENIZER, "abc", GREEDY.replace(decoder_start_token_id=3))
    assert named.prompt_ids == [3]
    with pytest.raises(ValueError, match="needs decoder_start_token_id"):
        generate(MockEncoderDecoder(V, start=None), TOKENIZER, "abc", GREEDY)
    with pytest.raises(ValueError, match="must not be empty"):
        generate(model, TOKENIZER, "", GREEDY)
    with pytest.raises(ValueError, match="gives its prompt no probabilities"):
        generate(model, TOKENIZER, "a", GREEDY.replace(echo=True))


def test_a_model_in_training_is_put_back():
    class Training(MockModel):
        training, seen = True, ()

        def eval(self):
            self.training = False

        def train(self):
            self.training = True

        def next_logits(self, ids, cache):
            self.seen += (self.training,)
            return super().next_logits(ids, cache)

    model = Training(V)
    generate(model, TOKENIZER, "a", GREEDY)
    next(stream(model, TOKENIZER, "a", GREEDY))
    generate(model, TOKENIZER, "a", GenerationConfig(num_beams=2, max_new_tokens=3))
    assert model.training and set(model.seen) == {False}


def test_a_stream_switches_nothing_between_two_tokens():
    """Its pieces may be asked for by several threads, and what stands between them trains."""
    tokenizer = CharTokenizer.train(["abc"])
    model = models.GPT2(models.GPT2Config(tokenizer.vocab_size, n_positions=8, n_embd=8, n_layer=1, n_head=2), rng=0)
    config = GenerationConfig(seed=0, max_new_tokens=6, eos_token_id=())
    whole = generate(model.eval(), tokenizer, "ab", config).ids
    model.train()
    ids, pieces = [], stream(model, tokenizer, "ab", config)
    for _ in range(6):
        with ThreadPoolExecutor(1) as pool:
            ids += pool.submit(next, pieces).result().ids
        assert model.training and all(module.training for module in model.modules())
    assert ids == whole
    with np.errstate(all="raise"):
        assert generate(model, tokenizer, "ab", config).ids == whole


# ---- the name --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "imports",
    [
        "from minillm import generate, stream; from minillm.generation import GenerationConfig, processors",
        "from minillm.generation import GenerationConfig, stream; from minillm import generate",
        "import minillm.generation.processors; from minillm import generate, stream",
        "import minillm; generate = minillm.generate; from minillm.generation.processors import draw",
        "import minillm.generation; generate = minillm.generate; minillm.generation.GenerationConfig",
        "from minillm.generation import generate",
    ],
)
def test_generate_is_the_function_in_every_order_of_imports(imports):
    program = f"""
{imports}
from minillm import GenerationConfig
from tests.generate_mocks import MockModel, MockTokenizer
tokenizer = MockTokenizer()
result = generate(MockModel(tokenizer.vocab_size), tokenizer, "a", GenerationConfig(max_new_tokens=2, min_new_tokens=2))
assert len(result.ids) == 2
"""
    subprocess.run([sys.executable, "-c", program], check=True)
