"""Files that hold a tokenizer, of whatever kind: `load` looks at what is there."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import about_the_hub, is_gguf, read_json
from .base import Tokenizer
from .bpe import BPETokenizer
from .byte_level import to_bytes
from .chat_format import read_chat_format
from .ending import beginning_of_text, end_of_text
from .from_gguf import load_gguf
from .from_json import read
from .sentencepiece import SentencePieceText
from .specials import END_OF_TEXT, Specials, Template, check_special_names, tokens_by_id
from .unigram import UnigramTokenizer

_MOST_BYTES = 100_000_000  # of a vocabulary file
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SYMBOL_SCORE = -0.1  # of a user-defined symbol, so that it is always taken: sentencepiece, unigram_model.cc


def load(path: str | Path) -> Tokenizer:
    """Read a tokenizer from a file, or from the folder that holds it.

    Known are `tokenizer.json` (the format of the `tokenizers` library and of `save`), GPT-2's
    `vocab.json` beside `merges.txt`, tiktoken's rank files (`*.tiktoken`, see `load_ranks`), GGUF
    files and, where the `sentencepiece` library is installed, its `*.model`. What a
    `tokenizer.json` says of truncation and padding is ignored: `encode` does neither. What the
    folder says of conversations is in `chat_format`.

    Raises FileNotFoundError when there is none, ValueError when it is damaged or needs a component
    that minillm does not have; the message names it.
    """
    path = Path(path)
    names = ("tokenizer.json", "vocab.json", "spiece.model")
    file = next((path / name for name in names if (path / name).is_file()), path) if path.is_dir() else path
    if not file.is_file():
        hint = "" if path.exists() else about_the_hub(path)
        raise FileNotFoundError(f"load: no tokenizer at {path}: expected {', '.join(names)} or a *.tiktoken file{hint}")
    if is_gguf(file):
        return load_gguf(file)  # which holds all that a folder says beside the vocabulary
    tokenizer = _read(file)
    if tokenizer.eos_id is None:
        tokenizer._end = end_of_text(file.parent, tokenizer)
    tokenizer._begin, tokenizer.begins_prompts = beginning_of_text(file.parent, tokenizer)
    tokenizer.chat_format = read_chat_format(file.parent)
    return tokenizer


def _read(file: Path) -> Tokenizer:
    """Read one file, of whatever kind."""
    if file.name == "vocab.json":
        return load_gpt2(file, file.with_name("merges.txt"))
    if file.suffix == ".tiktoken":
        return load_ranks(file)
    if file.suffix == ".model":
        return load_sentencepiece(file, sentinels=100 if file.name == "spiece.model" else 0)
    return read(file)


def load_gpt2(vocab_file: str | Path, merges_file: str | Path) -> BPETokenizer:
    """Read the two files that GPT-2 was published with: a vocabulary, and the merges one to a line.

    A token that is neither a byte nor made by a merge, such as `<|endoftext|>`, is a special token.
    """
    try:
        vocab = read_json(vocab_file, limit=_MOST_BYTES)
        lines = Path(merges_file).read_text(encoding="utf-8-sig").split("\n")
        lines = [line.rstrip("\r") for line in lines]
        pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        merges = [(vocab[left], vocab[right]) for left, right in pairs]
        made = {left + right for left, right in pairs}
        special = {token: id for token, id in vocab.items() if len(token) > 1 and token not in made}
        words = {to_bytes(token): id for token, id in vocab.items() if token not in special}
        specials = Specials(special)
        return BPETokenizer(tokens_by_id(words, specials), merges, specials)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"load_gpt2: {vocab_file} and {merges_file} are not GPT-2's vocabulary and merges: {error!r}"
        ) from error


def load_ranks(
    path: str | Path,
    pattern: str = "gpt4",
    special_tokens: Sequence[str] | Mapping[str, int] = (END_OF_TEXT,),
) -> BPETokenizer:
    """Read a rank file of tiktoken: on each line a token in base 64, and its rank, which is also
    its id.

    The file holds neither the pattern nor the special tokens: names get the ids after the last
    rank, a mapping gives its own.
    """
    ranks: dict[bytes, int] = {}
    lines = Path(path).read_bytes().removeprefix(_BYTE_ORDER_MARK).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(
                f"load_ranks: {path}, line {number}: expected a token in base 64 and its rank; got {line[:60]!r}"
            ) from None
    if not isinstance(special_tokens, Mapping):
        first = max(ranks.values(), default=-1) + 1
        names = check_special_names(special_tokens, "load_ranks")
        special_tokens = {name: first + i for i, name in enumerate(names)}
    return BPETokenizer.from_ranks(ranks, special_tokens, pattern)


def load_sentencepiece(path: str | Path, sentinels: int = 0) -> UnigramTokenizer:
    """Read a Unigram model of the `sentencepiece` library, which must be installed.

    sentinels: as many tokens `<extra_id_0>` ... are added at the end, numbered downwards, as T5 has
    100 of them (in its file `spiece.model`). A model with a piece `</s>` ends every text with it.
    Texts are read and unknown pieces written as `sentencepiece` does, see sentencepiece.py.

    Raises ValueError when the file is damaged, no Unigram model, or one with settings that minillm
    does not have.
    """
    from sentencepiece import sentencepiece_model_pb2 as messages

    model = messages.ModelProto()  # type: ignore[attr-defined]
    try:
        model.ParseFromString(Path(path).read_bytes())
    except Exception as error:  # the parser's own exception class moves between versions
        raise ValueError(f"load_sentencepiece: {path} is not a SentencePiece model: {error}") from None
    settings, normal = model.trainer_spec, model.normalizer_spec
    refused = {
        "a model type other than Unigram": settings.model_type != settings.UNIGRAM,
        "byte_fallback": settings.byte_fallback,
        "treat_whitespace_as_suffix": settings.treat_whitespace_as_suffix,
        "add_dummy_prefix=False": not normal.add_dummy_prefix,
        "remove_extra_whitespaces=False": not normal.remove_extra_whitespaces,
        "escape_whitespaces=False": not normal.escape_whitespaces,
        "a denormalizer": bool(model.denormalizer_spec.precompiled_charsmap),
    }
    for name in (name for name, present in refused.items() if present):
        raise ValueError(f"load_sentencepiece: {path}: {name} is not implemented")
    kinds = model.SentencePiece

    def those(*types: int) -> dict[str, int]:
        return {piece.piece: id for id, piece in enumerate(model.pieces) if piece.type in types}

    symbols, special = those(kinds.USER_DEFINED), those(kinds.CONTROL, kinds.UNKNOWN)
    pieces = [(piece.piece, _SYMBOL_SCORE if piece.piece in symbols else piece.score) for piece in model.pieces]
    for number in reversed(range(sentinels)):
        special[f"<extra_id_{number}>"] = len(pieces)
        pieces.append((f"<extra_id_{number}>", 0.0))
    charsmap = base64.b64encode(normal.precompiled_charsmap).decode("ascii")
    text = SentencePieceText(
        [{"type": "Precompiled", "precompiled_charsmap": charsmap}] if charsmap else [],
        symbols,
        [*those(kinds.UNUSED).values()],
        settings.unk_surface,
    )
    unknown = next((id for id, piece in enumerate(model.pieces) if piece.type == kinds.UNKNOWN), None)
    template = Template(after=(special["</s>"],) if "</s>" in special else ())
    return UnigramTokenizer(pieces, unknown, Specials(special), template=template, sentencepiece=text)
