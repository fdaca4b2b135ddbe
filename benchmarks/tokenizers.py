"""Byte-level BPE on real text: learning a vocabulary, text to ids, ids to text."""

from __future__ import annotations

import os
import site
import sysconfig
import tempfile
from functools import cache, partial
from pathlib import Path

from .harness import Case, Contestant, Step, cores

TITLE = "byte-level BPE, GPT-2's pattern, 4,096 tokens"
VOCAB_SIZE = 4096
PYTHON_BYTES = 20_000_000
ENCODED = 5_000_000  # characters of the Python source that are encoded
SHAKESPEARE, PYTHON = "Shakespeare", "Python source"


def cases(quick: bool) -> list[Case]:
    """Shakespeare where ``MINILLM_DATA`` has it, and the Python source on this machine."""
    found = [case for name in _texts()[: 1 if quick else None] for case in _cases_of(name)]
    text = _texts()[0]
    cut = tuple(Contestant(name, partial(build_split, name), (name,), threads=1) for name in ("minillm", "regex"))
    return [*found, Case(f"cut {text} into pieces", cut, (text,), bytes=_size(text, ENCODED))]


def _cases_of(name: str) -> list[Case]:
    def contestants(build, *names: str, threads: int | None = 1) -> tuple[Contestant, ...]:
        return tuple(Contestant(peer, partial(build, peer), (peer,), threads) for peer in names)

    size = _size(name, ENCODED)
    return [
        Case(
            f"train on {name}, {_size(name) / 1e6:.1f} MB",
            contestants(build_train, "minillm", "tokenizers", threads=None),
            (name,), (None,), memory="step", slow=True, bytes=_size(name),
        ),
        Case(f"encode {name}, one thread", contestants(build_encode, "minillm", "tiktoken", "tokenizers"), (name,),
             bytes=size),
        Case(f"encode {name}, {cores()} threads",
             contestants(build_encode_batch, "minillm", "tiktoken", "tokenizers", threads=None), (name,), bytes=size),
        Case(f"decode {name}", contestants(build_decode, "minillm", "tiktoken", "tokenizers"), (name,), bytes=size),
    ]  # fmt: skip


# ---- texts -----------------------------------------------------------------------------------------------------------


def _shakespeare() -> Path | None:
    path = Path(os.environ.get("MINILLM_DATA", "")) / "tinyshakespeare.txt"
    return path if path.is_file() else None


def _texts() -> list[str]:
    return [SHAKESPEARE, PYTHON] if _shakespeare() else [PYTHON]


@cache
def _text(name: str | None) -> str:
    """Shakespeare; or .py files of the standard library and of what is installed, by name, up to 20 MB; or a line."""
    if name is None:
        return "Once upon a time, there was a fox."
    if name == SHAKESPEARE:
        path = _shakespeare()
        assert path is not None
        return path.read_text("utf-8")
    parts, room = [], PYTHON_BYTES
    for folder in (sysconfig.get_path("stdlib"), *site.getsitepackages()):
        for path in sorted(Path(folder).rglob("*.py")):
            data = path.read_bytes()
            if 0 < len(data) <= room:
                parts.append(data.decode("utf-8", errors="replace"))
                room -= len(data)
    return "".join(parts)


def _size(name: str, characters: int | None = None) -> int:
    return len(_text(name)[:characters].encode())


def _documents(text: str) -> list[str]:
    """The text in 64 parts, cut at lines."""
    lines = text.splitlines(keepends=True)
    step = -(-len(lines) // 64)
    return ["".join(lines[i : i + step]) for i in range(0, len(lines), step)]


# ---- the same vocabulary for all -------------------------------------------------------------------------------------


def _minillm(name: str | None):
    from minillm.tokenizer import BPETokenizer

    return BPETokenizer.train([_text(name)], VOCAB_SIZE)


def _tiktoken(name: str | None):
    """tiktoken with our tokens: the id is the rank."""
    import tiktoken

    from minillm.tokenizer.patterns import PATTERNS

    ours = _minillm(name)
    special = ours.special_tokens
    ranks = {ours.token_bytes(id): id for id in range(ours.vocab_size) if id not in special.values()}
    return tiktoken.Encoding("ours", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens=special)


def _tokenizers(name: str | None):
    """The library tokenizers, with the file that we write."""
    import tokenizers

    with tempfile.TemporaryDirectory() as folder:
        return tokenizers.Tokenizer.from_file(str(_minillm(name).save(Path(folder) / "tokenizer.json")))


MADE = {"minillm": _minillm, "tiktoken": _tiktoken, "tokenizers": _tokenizers}


# ---- the work --------------------------------------------------------------------------------------------------------


def build_train(library: str, name: str | None) -> Step:
    text = _text(name)
    if library == "minillm":
        return lambda: _minillm(name) and None
    import tokenizers

    def step() -> None:
        theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
        theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE, show_progress=False, special_tokens=["<|endoftext|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
        theirs.train_from_iterator(text.splitlines(keepends=True), trainer)

    return step


def build_encode(library: str, name: str) -> Step:
    encoder, text = MADE[library](name), _text(name)[:ENCODED]
    encode = encoder.encode_ordinary if library == "tiktoken" else encoder.encode
    return lambda: encode(text) and None


def build_encode_batch(library: str, name: str) -> Step:
    encoder, texts = MADE[library](name), _documents(_text(name)[:ENCODED])
    if library == "tiktoken":
        return lambda: encoder.encode_ordinary_batch(texts, num_threads=cores()) and None
    return lambda: encoder.encode_batch(texts) and None


def build_decode(library: str, name: str) -> Step:
    decoder, ids = MADE[library](name), _minillm(name).encode(_text(name)[:ENCODED])
    return lambda: decoder.decode(ids) and None


def build_split(library: str, name: str) -> Step:
    text = _text(name)[:ENCODED]
    if library == "regex":
        import regex

        from minillm.tokenizer.patterns import PATTERNS

        pattern = regex.compile(PATTERNS["gpt2"])
        return lambda: pattern.findall(text) and None
    import numpy as np

    from minillm.tokenizer.patterns import Splitter

    splitter, stops = Splitter("gpt2"), np.array([len(text)])
    return lambda: splitter.ends(text, stops) is None or None
