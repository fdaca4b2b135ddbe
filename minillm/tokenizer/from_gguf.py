"""The tokenizer of a GGUF file, from its settings and back.

`tokenizer.ggml.model` says of which kind it is: "gpt2" is byte-level BPE (bpe.py), and
`tokenizer.ggml.pre` then names the pattern; "llama" is BPE on characters by scores
(sentencepiece_bpe.py). Every token has a type: an ordinary one, one of control (end of text, turn
markers), one that a user added, a byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..files import GGUF, open_gguf
from .base import Tokenizer
from .bpe import BPETokenizer
from .byte_level import to_bytes, to_characters
from .chat_format import ChatFormat
from .sentencepiece import SPACE
from .sentencepiece_bpe import SentencePieceBPE, ranks_of_scores
from .specials import Specials, Template

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
PRE = "tokenizer.ggml.pre"

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# Patterns by the names that llama.cpp gives them; the first name of a pattern is written.
PATTERNS_BY_NAME = {
    "gpt-2": "gpt2", "smollm": "smollm2", "llama-bpe": LLAMA3, "qwen2": QWEN2,
    "starcoder": "smollm2", "refact": "smollm2", "command-r": "smollm2", "exaone": "smollm2",
    "llama3": LLAMA3, "llama-v3": LLAMA3, "smaug-bpe": LLAMA3, "stablelm2": QWEN2,
    "phi-2": "gpt2", "mpt": "gpt2", "olmo": "gpt2", "jais": "gpt2",
}  # fmt: skip
WHOLE_FIRST = (LLAMA3,)  # a piece that is a token is taken whole, whatever the merges
MOST_TOKENS = 2_000_000


def load_gguf(path: str | Path) -> Tokenizer:
    """Read the tokenizer of a GGUF file.

    Raises ValueError, with the file's name, when it is damaged or of a kind that is not
    implemented.
    """
    return from_settings(open_gguf(path))


def from_settings(file: GGUF) -> Tokenizer:
    """See `load_gguf`."""
    kind = file.get("tokenizer.ggml.model", str)
    readers = {"gpt2": _read_bpe, "llama": _read_sentencepiece}
    if kind not in readers:
        raise ValueError(
            f"{file.path}: tokenizer.ggml.model must be one of {', '.join(readers)}; got {kind!r:.60}"
        )
    tokens = file.get("tokenizer.ggml.tokens", list)
    if len(tokens) > MOST_TOKENS or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{file.path}: tokenizer.ggml.tokens must be at most {MOST_TOKENS:,} texts")
    types = _numbers(file, "tokenizer.ggml.token_type", len(tokens), NORMAL)
    try:
        tokenizer = readers[kind](file, tokens, types.astype(int).tolist())
    except ValueError as error:
        raise ValueError(f"{file.path}: {str(error).removeprefix(f'{file.path}: ')}") from None
    named = {name: file.settings.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos")}
    known = {name: id for name, id in named.items() if type(id) is int and 0 <= id < len(tokens)}
    tokenizer._end, tokenizer._begin = known.get("eos", tokenizer._end), known.get("bos")
    tokenizer.begins_prompts = bool(tokenizer._template.before)
    if "tokenizer.chat_template" in file.settings:
        words = {f"{name}_token": tokens[id] for name, id in known.items()}
        tokenizer.chat_format = ChatFormat(file.get("tokenizer.chat_template", str), tokens=words)
    return tokenizer


def _numbers(file: GGUF, key: str, count: int, default: float | None = None) -> np.ndarray:
    """A list of as many numbers as there are tokens."""
    values = file.get(key, np.ndarray, None if default is None else np.full(count, default))
    if len(values) != count or not np.isfinite(values).all():
        raise ValueError(f"{file.path}: {key} must have a number for each of {count:,} tokens; got {len(values):,}")
    return values


def _specials(tokens: list[str], types: list[int]) -> Specials:
    control = {token: id for id, token in enumerate(tokens) if types[id] == CONTROL and token}
    added = {token: id for id, token in enumerate(tokens) if types[id] == USER_DEFINED and token}
    return Specials(control, added)


def _template(file: GGUF, begins: bool) -> Template:
    """What is put around every text. begins: what holds where the file does not say."""

    def id_of(name: str, wanted: bool) -> tuple[int, ...]:
        if not file.get(f"tokenizer.ggml.add_{name}_token", bool, wanted):
            return ()
        id = file.get(f"tokenizer.ggml.{name}_token_id", int)
        if not 0 <= id < len(file.settings["tokenizer.ggml.tokens"]):
            raise ValueError(f"{file.path}: tokenizer.ggml.{name}_token_id = {id} is no token")
        return (id,)

    begins = begins and "tokenizer.ggml.bos_token_id" in file.settings
    return Template(id_of("bos", begins), id_of("eos", False))


def _read_bpe(file: GGUF, tokens: list[str], types: list[int]) -> BPETokenizer:
    name = file.get(PRE, str, "none given")
    if name not in PATTERNS_BY_NAME:
        raise ValueError(f"{PRE} must be one of {', '.join(PATTERNS_BY_NAME)}; got {name!r:.60}")
    pattern = PATTERNS_BY_NAME[name]
    specials = _specials(tokens, types)
    known = {token: id for id, token in reversed([*enumerate(tokens)])}
    words: list[bytes | None] = []
    for id, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        if kind in (CONTROL, USER_DEFINED):
            words.append(token.encode("utf-8"))
        elif kind == UNUSED or known[token] != id:
            words.append(None)
        else:
            words.append(to_bytes(token))
    merges = []
    for merge in file.get("tokenizer.ggml.merges", list):
        left, space, right = merge.partition(" ")  # a part may begin with one, if it is written as Ġ
        first, second = known.get(left), known.get(right)
        if not space or first is None or second is None:
            raise ValueError(f"tokenizer.ggml.merges: {merge!r:.60} must be two tokens with a space between them")
        merges.append((first, second))
    begins = pattern == LLAMA3
    prefix = file.get("tokenizer.ggml.add_space_prefix", bool, False) and pattern == "gpt2"
    return BPETokenizer(
        words, merges, specials, pattern, prefix, _template(file, begins), whole_first=pattern in WHOLE_FIRST
    )


def _read_sentencepiece(file: GGUF, tokens: list[str], types: list[int]) -> SentencePieceBPE:
    scores = _numbers(file, "tokenizer.ggml.scores", len(tokens)).astype(float).tolist()
    if len({*tokens}) < len(tokens):
        raise ValueError("tokenizer.ggml.tokens: a text is there twice")
    if file.get("tokenizer.ggml.remove_extra_whitespaces", bool, False):
        raise ValueError("tokenizer.ggml.remove_extra_whitespaces = true is not implemented")
    ids = {token: id for id, token in enumerate(tokens) if types[id] == BYTE}
    bytes = [ids.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
    if min(bytes) < 0 < max(bytes):
        raise ValueError("tokenizer.ggml.tokens: some of the 256 bytes <0x00> ... <0xFF> are missing")
    ordinary = {tokens[id]: scores[id] for id, kind in enumerate(types) if kind in (NORMAL, UNUSED)}
    unknown = next((id for id, kind in enumerate(types) if kind == UNKNOWN), None)
    specials = _specials(tokens, types)
    control = dict(specials.special) | ({} if unknown is None else {tokens[unknown]: unknown})
    plain = {name.replace(SPACE, " "): id for name, id in specials.plain.items()}
    return SentencePieceBPE(
        tokens, ranks_of_scores(ordinary), Specials(control, plain), bytes if bytes[0] >= 0 else (), unknown,
        file.get("tokenizer.ggml.add_space_prefix", bool, True), _template(file, begins=True),
    )  # fmt: skip


# ---- writing -------------------------------------------------------------------------------------


def to_settings(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """The settings that stand for a tokenizer, with so many tokens as the model has rows.

    Raises ValueError for a tokenizer of a kind, or with a pattern, that llama.cpp does not know.
    """
    if isinstance(tokenizer, BPETokenizer):
        found = _bpe_settings(tokenizer)
    elif isinstance(tokenizer, SentencePieceBPE):
        found = _sentencepiece_settings(tokenizer)
    else:
        raise ValueError(f"a {type(tokenizer).__name__} cannot be written to a GGUF file: llama.cpp has no such kind")
    tokens, types = found.pop("tokens"), found.pop("types")
    if len(tokens) > vocab_size:
        raise ValueError(f"the tokenizer has {len(tokens):,} tokens, the model only {vocab_size:,}")
    for id in range(len(tokens), vocab_size):
        tokens.append(f"[PAD{id}]")
        types.append(UNUSED)
    if "scores" in found:
        scores = found.pop("scores")
        found["tokenizer.ggml.scores"] = np.array(scores + [-1e4] * (vocab_size - len(scores)), np.float32)
    before, after = tokenizer._template.before, tokenizer._template.after
    if len(before) > 1 or len(after) > 1:
        raise ValueError("a template with several tokens before or after a text cannot be written to a GGUF file")
    around = {"tokenizer.ggml.add_bos_token": bool(before), "tokenizer.ggml.add_eos_token": bool(after)}
    ids = {f"tokenizer.ggml.{name}_token_id": id[0] for name, id in (("bos", before), ("eos", after)) if id}
    found |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": np.array(types, np.int32)}
    return found | around | ids


def _types(tokenizer: Tokenizer) -> list[int]:
    types = [UNUSED if token is None else NORMAL for token in tokenizer._tokens]
    for kind, names in ((CONTROL, tokenizer._specials.special), (USER_DEFINED, tokenizer._specials.plain)):
        for id in names.values():
            types[id] = kind
    return types


def _bpe_settings(tokenizer: BPETokenizer) -> dict[str, Any]:
    names = {pattern: name for name, pattern in reversed(PATTERNS_BY_NAME.items())}
    if tokenizer.pattern not in names:
        raise ValueError(f"llama.cpp has no name for the pattern {tokenizer.pattern!r:.60}")
    if tokenizer.whole_first != (tokenizer.pattern in WHOLE_FIRST):
        raise ValueError("llama.cpp takes whole pieces first with the pattern llama-bpe only, not with this tokenizer")
    types = _types(tokenizer)
    tokens = []
    for id, token in enumerate(tokenizer._tokens):
        named = types[id] in (CONTROL, USER_DEFINED)
        tokens.append(f"[UNUSED{id}]" if token is None else token.decode() if named else to_characters(token))
    merges = [f"{tokens[left]} {tokens[right]}" for left, right in tokenizer.merges]
    return {
        "tokenizer.ggml.model": "gpt2", PRE: names[tokenizer.pattern], "tokens": tokens, "types": types,
        "tokenizer.ggml.merges": merges, "tokenizer.ggml.add_space_prefix": tokenizer.prefix_space,
    }  # fmt: skip


def _sentencepiece_settings(tokenizer: SentencePieceBPE) -> dict[str, Any]:
    types = _types(tokenizer)
    for id in tokenizer.byte_ids:
        types[id] = BYTE
    if tokenizer.unknown_id is not None:
        types[tokenizer.unknown_id] = UNKNOWN
    best: dict[str, int] = {}
    for (left, right), rank in tokenizer.ranks.items():
        best[left + right] = min(rank, best.get(left + right, rank))
    return {
        "tokenizer.ggml.model": "llama", "tokens": [*tokenizer.pieces], "types": types,
        "scores": [-float(best.get(piece, 0)) for piece in tokenizer.pieces],
        "tokenizer.ggml.add_space_prefix": tokenizer.prefix_space,
    }  # fmt: skip
