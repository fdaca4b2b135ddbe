"""Generation, token by token: a small model with all that users get, and the speed at which a large one is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from .harness import Case, Contestant, Step, cores
from .random_llama import SMOLLM2_135M, TINY, Shape, written
from .train import BABY

TITLE = "generation: a baby GPT with sampling and text; Llamas of random weights, the model alone"
NEW_TOKENS = BABY.time - 1  # after a prompt of one token
DECODED, PROMPT, STREAMS = 8, 512, 8
CONTEXTS = (128, 1024, 8192)
SIZES = (  # 0.3, 1.4, 6, 26 million parameters and, below, 135
    Shape(64, 176, 4, 2, 2, 1024),
    Shape(128, 352, 6, 4, 2, 1024),
    Shape(256, 704, 8, 4, 2, 2048),
    Shape(384, 1024, 12, 6, 2, 8192),
)

LLAMA_CPP = ("llama_cpp", "gguf")


def cases(quick: bool) -> list[Case]:
    """Drawing and taking the most likely; one stream, a prompt, a batch, opening; and how the cost grows."""
    baby = (
        Contestant("minillm", build_baby, ("minillm",)),
        Contestant("transformers", build_baby_transformers, ("transformers", "torch")),
    )
    found = [
        Case(f"baby GPT, {NEW_TOKENS} tokens, drawn", baby, (True,), tokens=NEW_TOKENS),
        Case(f"baby GPT, {NEW_TOKENS} tokens, the most likely", baby, (False,), tokens=NEW_TOKENS),
    ]
    floats = (
        Contestant("minillm", build_float32, ("minillm",)),
        Contestant("transformers", build_transformers, ("transformers", "torch")),
        Contestant("llama.cpp", build_llama_cpp_f32, LLAMA_CPP),
    )
    codes = (
        Contestant("minillm", build_int8, ("minillm",)),
        Contestant("llama.cpp", build_llama_cpp_q8, LLAMA_CPP),
    )
    streams = (
        Contestant("minillm", build_batch, ("minillm",)),
        Contestant("minillm, one stream", build_one_by_one, ("minillm",)),
    )

    def tokens(title: str, who: tuple[Contestant, ...], work: str, count: int, n: int = 0) -> Case:
        memory = "all" if work == "decode" else ""
        arguments, tiny = (work, SMOLLM2_135M, n), (work, TINY, n and 8)
        return Case(f"135 M Llama, {title}", who, arguments, tiny, tokens=count, memory=memory)

    large = [
        tokens(f"{DECODED} tokens, float32", floats, "decode", DECODED),
        tokens(f"{DECODED} tokens, int8 (Q8_0)", codes, "decode", DECODED),
        tokens(f"a prompt of {PROMPT}, float32", floats, "prompt", PROMPT),
        tokens(f"a prompt of {PROMPT}, int8 (Q8_0)", codes, "prompt", PROMPT),
        tokens(f"{STREAMS} texts at once, against one by one", streams, "decode", STREAMS * DECODED),
        tokens("opened, and a token read, float32", floats, "open", 1),
    ]
    found += large[: 2 if quick else None]
    ours_and_llama = (floats[0], floats[2])
    for n in CONTEXTS[: 1 if quick else None]:
        case = tokens(f"{DECODED} tokens after {n}, float32", ours_and_llama, "decode", DECODED, n)
        found.append(dataclasses.replace(case, axis=("context", n), memory=""))
    for shape in SIZES[: 1 if quick else None]:
        millions = shape.parameters / 1e6
        title, axis = f"Llama of {millions:.1f} M, {DECODED} tokens, float32", ("million parameters", millions)
        found.append(Case(title, ours_and_llama, ("decode", shape, 0), tokens=DECODED, axis=axis))
    return found


# ---- the baby GPT ----------------------------------------------------------------------------------------------------


def build_baby(drawn: bool) -> Step:
    from minillm import GenerationConfig, generate, models
    from minillm.models.fast.decoding import compile_loops
    from minillm.tokenizer import CharTokenizer

    model = models.GPT2(models.GPT2Config(**BABY.model()), rng=0).eval()
    compile_loops(model)  # as after `minillm warmup`
    tokenizer = CharTokenizer.train([bytes(range(33, 33 + BABY.vocab_size - 1)).decode()])
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, temperature=float(drawn), eos_token_id=(), seed=0)

    def step() -> None:
        text = generate(model, tokenizer, [1], config)
        assert len(text.ids) == NEW_TOKENS

    return step


def build_baby_transformers(drawn: bool) -> Step:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.GPT2Config(**BABY.model(), bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    prompt = torch.tensor([[1]])
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": drawn, "top_k": 0, "pad_token_id": 0, "use_cache": True}
    if not drawn:
        del options["top_k"]

    def step() -> None:
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        assert ids.shape[1] == 1 + NEW_TOKENS

    return step


# ---- Llamas ----------------------------------------------------------------------------------------------------------
# work: "decode", DECODED tokens after n; "prompt", PROMPT tokens at once; "open", the files and a token.


def build_float32(work: str, shape: Shape, n: int) -> Step:
    return _ours("float32", work, shape, n, 1)


def build_int8(work: str, shape: Shape, n: int) -> Step:
    return _ours("int8", work, shape, n, 1)


def build_batch(work: str, shape: Shape, n: int) -> Step:
    return _ours("float32", work, shape, n, STREAMS)


def build_one_by_one(work: str, shape: Shape, n: int) -> Step:
    one = _ours("float32", work, shape, n, 1)

    def step() -> None:
        for _ in range(STREAMS):
            one()

    return step


def _ours(kind: str, work: str, shape: Shape, n: int, streams: int) -> Step:
    from minillm import models

    held = written(kind, shape)
    folder = held.__enter__()
    step = our_step(lambda: models.from_pretrained(folder), work, n, streams)
    if work == "open":
        return _holding(held, step)
    held.__exit__(None, None, None)  # the mapped file stays until nobody looks into it
    return step


def our_step(opened: Callable[[], Any], work: str, n: int, streams: int) -> Step:
    """The work with a model of ours, which ``opened`` opens."""
    import numpy as np

    def open_and_read() -> None:
        model = opened()
        model.next_logits(np.array([[1]]), model.new_cache(1, 1))

    if work == "open":
        return open_and_read
    model = opened()
    prompt, token = np.ones((streams, PROMPT), np.int64), np.ones((streams, 1), np.int64)
    cache = model.new_cache(streams, n + DECODED if work == "decode" else 0)

    def decode() -> None:
        cache.length = n  # the keys and values of what came before are zeros
        for _ in range(DECODED):
            model.next_logits(token, cache)

    def read() -> None:
        model.next_logits(prompt, model.new_cache(streams, PROMPT))

    return decode if work == "decode" else read


def _holding(held: object, step: Step) -> Step:
    step.held = held  # type: ignore[attr-defined]  # the folder lives as long as the step
    return step


def build_transformers(work: str, shape: Shape, n: int) -> Step:
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    held = written("float32", shape)
    folder = held.__enter__()

    def opened():
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    @torch.inference_mode()
    def open_and_read() -> None:
        opened()(torch.ones((1, 1), dtype=torch.long))

    if work == "open":
        return _holding(held, open_and_read)
    model, prompt, token = opened(), torch.ones((1, PROMPT), dtype=torch.long), torch.ones((1, 1), dtype=torch.long)

    @torch.inference_mode()
    def decode() -> None:
        past = None
        for _ in range(DECODED):
            past = model(token, past_key_values=past, use_cache=True).past_key_values

    @torch.inference_mode()
    def read() -> None:
        model(prompt, use_cache=True, logits_to_keep=1)

    return _holding(held, decode if work == "decode" else read)


def build_llama_cpp_f32(work: str, shape: Shape, n: int) -> Step:
    return _llama_cpp("f32", work, shape, n)


def build_llama_cpp_q8(work: str, shape: Shape, n: int) -> Step:
    return _llama_cpp("q8_0", work, shape, n)


def _llama_cpp(kind: str, work: str, shape: Shape, n: int) -> Step:
    held = written(kind, shape)
    return _holding(held, llama_cpp_step(str(held.__enter__() / "model.gguf"), work, n))


def llama_cpp_step(path: str, work: str, n: int) -> Step:
    """The work with llama.cpp, one text."""
    import llama_cpp

    def opened(length: int) -> llama_cpp.Llama:
        threads = cores()
        return llama_cpp.Llama(
            path, n_ctx=length, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def open_and_read() -> None:
        opened(256).eval([1])

    if work == "open":
        return open_and_read
    model = opened(max(n + DECODED, PROMPT))
    if n:
        model.eval([1] * n)

    def decode() -> None:
        model.n_tokens = n  # eval forgets what is behind
        for _ in range(DECODED):
            model.eval([1])

    def read() -> None:
        model.n_tokens = 0
        model.eval([1] * PROMPT)

    return decode if work == "decode" else read
