"""Writing `tokenizer.json`, the file format of the `tokenizers` library.

The file names a chain of components: added tokens, normalizer, pre-tokenizer, model,
post-processor, decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .byte_level import to_characters
from .patterns import PATTERNS
from .sentencepiece import SPACE
from .specials import Matching, Template

if TYPE_CHECKING:
    from .base import Tokenizer
    from .bpe import BPETokenizer
    from .char import CharTokenizer
    from .sentencepiece_bpe import SentencePieceBPE
    from .unigram import UnigramTokenizer


def _frame(tokenizer: Tokenizer, **components: Any) -> dict[str, Any]:
    """What every `tokenizer.json` holds around its model."""
    specials = tokenizer._specials
    names = sorted(reversed(specials.by_name.items()), key=lambda item: item[1])  # of equal ids the first name last
    added = []
    for name, id in names:
        added.append(_added(name, id, name in specials.special, specials.matching.get(name, Matching())))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": _template_to_json(tokenizer),
        "decoder": None,
        **components,
    }


def _added(name: str, id: int, special: bool, how: Matching = Matching()) -> dict[str, Any]:  # noqa: B008
    return {
        "id": id, "content": name, "single_word": how.single_word, "lstrip": how.lstrip, "rstrip": how.rstrip,
        "normalized": how.normalized, "special": special,
    }  # fmt: skip


def _template_to_json(tokenizer: Tokenizer) -> dict[str, Any] | None:
    template = tokenizer._template
    if template == Template():
        return None

    def token(id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": tokenizer._names[id], "type_id": 0}}

    single = [*map(token, template.before), {"Sequence": {"id": "A", "type_id": 0}}, *map(token, template.after)]
    second = [*map(token, template.before), {"Sequence": {"id": "B", "type_id": 0}}, *map(token, template.after)]
    names = {tokenizer._names[id]: id for id in (*template.before, *template.after)}
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single + second,
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]} for name, id in names.items()},
    }


def _byte_level(use_regex: bool, prefix_space: bool, trim_offsets: bool = False) -> dict[str, Any]:
    return {
        "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": trim_offsets, "use_regex": use_regex
    }  # fmt: skip


def bpe_to_json(tokenizer: BPETokenizer) -> dict[str, Any]:
    """The file of a `BPETokenizer`."""
    pattern, prefix_space = tokenizer.pattern, tokenizer.prefix_space
    if pattern == "gpt2":
        pre_tokenizer = _byte_level(True, prefix_space)
    elif pattern == "smollm2":
        steps = [{"type": "Digits", "individual_digits": True}, _byte_level(True, prefix_space)]
        pre_tokenizer = {"type": "Sequence", "pretokenizers": steps}
    else:
        split = {
            "type": "Split", "pattern": {"Regex": PATTERNS.get(pattern, pattern)}, "behavior": "Isolated",
            "invert": False,
        }  # fmt: skip
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, _byte_level(False, prefix_space)]}
    specials = tokenizer._specials
    merges = tokenizer._merges.pairs  # an added token may take part in them too
    merged = {id for (left, right), (_, new) in merges.items() for id in (left, right, new)}
    written = {id: to_characters(token) for id, token in tokenizer._bytes.items()}
    vocab = {written[id]: id for id in written if id not in specials.ids or id in merged}
    for name, id in specials.by_name.items():
        if vocab.get(name, id) != id:
            raise ValueError(
                f"save: tokenizer.json has one id for {name!r}, which is token {vocab[name]} and added as {id}"
            )
    processor = _template_to_json(tokenizer)
    if tokenizer.trim_offsets:
        trim = _byte_level(True, prefix_space, trim_offsets=True)
        processor = {"type": "Sequence", "processors": [trim, processor]} if processor else trim
    return _frame(
        tokenizer,
        pre_tokenizer=pre_tokenizer,
        post_processor=processor,
        decoder=_byte_level(True, prefix_space),
        model={
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": tokenizer.whole_first,
            "vocab": dict(sorted({**vocab, **specials.by_name}.items(), key=lambda item: item[1])),
            "merges": [[written[left], written[right]] for left, right in tokenizer.merges],
        },
    )


CHARACTERS = {
    "normalizer": None,
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False},
    "decoder": {"type": "Fuse"},
}


def char_to_json(tokenizer: CharTokenizer) -> dict[str, Any]:
    """The file of a `CharTokenizer`: the words of its word-level model are single characters."""
    vocab = {token.decode("utf-8"): id for id, token in tokenizer._bytes.items()}
    return _frame(
        tokenizer,
        **CHARACTERS,
        model={"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    )


def unigram_to_json(tokenizer: UnigramTokenizer) -> dict[str, Any]:
    """The file of a `UnigramTokenizer`.

    One that reads texts as `sentencepiece` does says so in its model, where `tokenizers` does not
    look.
    """
    text = tokenizer.sentencepiece
    steps = text.steps if text else tokenizer.normalizer.steps
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    words = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
    frame = _frame(
        tokenizer,
        normalizer={"type": "Sequence", "normalizers": steps} if len(steps) > 1 else steps[0] if steps else None,
        pre_tokenizer=words if tokenizer.collapse_spaces else metaspace,
        decoder=metaspace,
        model={
            "type": "Unigram",
            "unk_id": tokenizer.unknown_id,
            "vocab": [[piece, score] for piece, score in tokenizer.pieces],
            "byte_fallback": False,
        },
    )
    if text:
        frame["model"]["sentencepiece"] = {
            "symbols": text.symbols, "unused": text.unused, "unknown": text.unknown
        }  # fmt: skip
        added = [_added(name, id, special=False) for name, id in text.symbols.items()]
        frame["added_tokens"] = sorted([*frame["added_tokens"], *added], key=lambda token: token["id"])
    return frame


def sentencepiece_bpe_to_json(tokenizer: SentencePieceBPE) -> dict[str, Any]:
    """The file of a `SentencePieceBPE`: its spaces are made by a normalizer and taken away by the
    decoder.
    """
    prefix = tokenizer.prefix_space
    marks = [{"type": "Prepend", "prepend": SPACE}] * prefix
    normalizers = [*marks, {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = tokenizer.unknown_id
    return _frame(
        tokenizer,
        normalizer={"type": "Sequence", "normalizers": normalizers},
        decoder={"type": "Sequence", "decoders": decoders},
        model={
            "type": "BPE",
            "dropout": None,
            "unk_token": None if unknown is None else tokenizer.pieces[unknown],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": bool(tokenizer.byte_ids),
            "ignore_merges": False,
            "vocab": {piece: id for id, piece in enumerate(tokenizer.pieces)},
            "merges": [[*pair] for pair in sorted(tokenizer.ranks, key=tokenizer.ranks.__getitem__)],
        },
    )
