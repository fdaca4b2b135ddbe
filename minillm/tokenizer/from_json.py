"""Reading `tokenizer.json`, the file format of the `tokenizers` library.

Reading is strict: a component or setting that is not implemented here would change the ids, so it
is refused by name. Only `truncation` and `padding` are ignored: they say how texts were made into
batches when the file was saved, and `encode` here does neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..files import read_json
from .base import Tokenizer
from .bpe import BPETokenizer
from .byte_level import to_bytes, to_characters
from .char import CharTokenizer
from .normalize import Normalizer
from .patterns import PATTERNS
from .sentencepiece import SPACE, SentencePieceText
from .sentencepiece_bpe import SentencePieceBPE
from .specials import Matching, Specials, Template, tokens_by_id
from .to_json import CHARACTERS
from .unigram import UnigramTokenizer

_MOST_BYTES = 200_000_000  # of a file; a vocabulary of 256,000 tokens takes 30 MB
_HIGH_BYTES = {to_characters(bytes([byte])) for byte in range(128, 256)}
_FLAGS = ("normalized", "lstrip", "rstrip", "single_word")  # of an added token, see specials.Matching


def read(file: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises ValueError, naming the file and the component, when it is damaged or asks for what is not
    implemented.
    """
    try:
        return from_json(read_json(file, _MOST_BYTES))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"load: {file} is not a tokenizer that minillm can read: {reason}") from error


def from_json(content: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer that the content of a `tokenizer.json` describes.

    Raises ValueError, KeyError, TypeError, AttributeError or IndexError when it does not describe
    one.
    """
    _only(content, "tokenizer.json", "version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
          "decoder", "model", "truncation", "padding")  # fmt: skip
    model = content["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else None)
    readers: dict[Any, Callable[[Mapping[str, Any]], Tokenizer]] = {
        "BPE": _read_bpe, "WordLevel": _read_char, "Unigram": _read_unigram
    }  # fmt: skip
    _expect(kind in readers, f"model {kind!r} is not implemented; expected one of {', '.join(readers)}")
    return readers[kind](content)


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _only(component: Mapping[str, Any], name: str, *known: str, unset: tuple[str, ...] = ()) -> None:
    """Refuse a component with keys that are not known, or with a value for those that must stay
    unset.
    """
    for key, value in component.items():
        _expect(key in known or key in unset, f"{name}: {key!r} is not implemented")
        _expect(key in known or not value, f"{name}: {key}={value!r} is not implemented")


def _flat(component: Mapping[str, Any] | None, steps: str) -> list[Any]:
    """The steps of a component that may be a sequence, or of none."""
    if component is None:
        return []
    if component["type"] != "Sequence":
        return [component]
    return [step for part in component[steps] for step in _flat(part, steps)]


def _read_specials(content: Mapping[str, Any]) -> Specials:
    """The added tokens. Of several with one id the last in the file is what the id decodes to, as
    in `tokenizers`.
    """
    special: dict[str, int] = {}
    plain: dict[str, int] = {}
    matching: dict[str, Matching] = {}
    added = [(_as_id(token["id"]), token) for token in reversed(content.get("added_tokens") or [])]
    for id, token in sorted(added, key=lambda item: item[0]):
        name = token["content"]
        _expect(isinstance(name, str) and name != "", f"added token {name!r} must be a text")
        _only(token, f"added token {name!r}", "id", "content", "special", *_FLAGS)
        how = Matching(**{flag: bool(token.get(flag)) for flag in _FLAGS})
        (special if token.get("special") else plain)[name] = id
        if how != Matching():
            matching[name] = how
    return Specials(special, plain, matching)


def _as_id(value: Any) -> int:
    _expect(isinstance(value, int) and not isinstance(value, bool) and value >= 0, f"{value!r} is no id")
    return value


def _read_processors(content: Mapping[str, Any]) -> tuple[Template, bool]:
    """What the post-processors do: the template they fill in, and whether they trim spaces off the
    offsets.
    """
    template, trim_offsets = Template(), False
    for step in _flat(content.get("post_processor"), "processors"):
        if step["type"] == "ByteLevel":
            trim_offsets = bool(step.get("trim_offsets", True))
        elif step["type"] == "TemplateProcessing":
            template = _read_template(step)
        else:
            raise ValueError(f"post-processor {step['type']!r} is not implemented")
    return template, trim_offsets


def _read_template(step: Mapping[str, Any]) -> Template:
    before: list[int] = []
    after: list[int] = []
    side = before
    for item in step["single"]:
        if "Sequence" in item:
            _expect(side is before, "TemplateProcessing: a template that repeats the text is not implemented")
            side = after
        else:
            side += map(_as_id, step["special_tokens"][item["SpecialToken"]["id"]]["ids"])
    return Template(tuple(before), tuple(after))


def _read_bpe(content: Mapping[str, Any]) -> Tokenizer:
    model = content["model"]
    if (content.get("decoder") or {}).get("type") in ("Sequence", "Metaspace"):
        return _read_sentencepiece_bpe(content)
    _only(model, "BPE", "type", "vocab", "merges", "ignore_merges", "fuse_unk", "unk_token",
          unset=("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"))  # fmt: skip
    _expect(not content.get("normalizer"), "BPE with a normalizer is not implemented")
    _expect((content.get("decoder") or {}).get("type") == "ByteLevel", "BPE: the decoder must be ByteLevel")
    specials = _read_specials(content)
    names = specials.by_name
    vocab = {text: _as_id(id) for text, id in model["vocab"].items()}
    for name in names.keys() & _HIGH_BYTES:
        _expect(name not in vocab, f"added token {name!r} has the id of a single byte, which is written like it")
    words = {to_bytes(text): id for text, id in vocab.items() if text not in names}
    bytes_known = sum(len(word) == 1 for word in words)
    _expect(not model.get("unk_token") or bytes_known == 256, "BPE: unk_token is not implemented")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    merges = [(vocab[left], vocab[right]) for left, right in pairs]
    pattern, prefix_space = _read_byte_level(content.get("pre_tokenizer"))
    template, trim_offsets = _read_processors(content)
    return BPETokenizer(
        tokens_by_id(words, specials), merges, specials, pattern, prefix_space, template,
        whole_first=bool(model.get("ignore_merges")), trim_offsets=trim_offsets,
    )  # fmt: skip


def _read_sentencepiece_bpe(content: Mapping[str, Any]) -> SentencePieceBPE:
    """BPE on characters, as the files of Llama 2 and Mistral have it: see sentencepiece_bpe.py."""
    model = content["model"]
    _only(model, "BPE", "type", "vocab", "merges", "byte_fallback", "fuse_unk", "unk_token",
          unset=("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"))  # fmt: skip
    prefix = _read_marks(content)
    vocab = {text: _as_id(id) for text, id in model["vocab"].items()}
    specials = _read_specials(content)
    words = {text.encode("utf-8"): id for text, id in vocab.items()} | {
        name.encode("utf-8"): id for name, id in specials.by_name.items()
    }
    tokens = tokens_by_id(words, Specials())
    _expect(None not in tokens, "BPE with byte_fallback: every id must be in use")
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    found = [vocab[name] for name in names if name in vocab]
    _expect(len(found) in (0, 256), f"BPE with byte_fallback: {len(found)} of 256 tokens <0x00> ... <0xFF> are there")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    ranks: dict[tuple[str, str], int] = {}
    for rank, (left, right) in enumerate(pairs):
        _expect(left + right in vocab, f"merge {rank} makes {left + right!r:.60}, which is not in the vocabulary")
        ranks.setdefault((left, right), rank)
    unknown = model.get("unk_token")
    _expect(unknown is None or unknown in vocab, f"unk_token {unknown!r:.60} is not in the vocabulary")
    template, _ = _read_processors(content)
    return SentencePieceBPE(
        [token.decode("utf-8") for token in tokens if token is not None], ranks, specials,
        found if model.get("byte_fallback") else (), None if unknown is None else vocab[unknown], prefix, template,
    )  # fmt: skip


def _read_marks(content: Mapping[str, Any]) -> bool:
    """Whether a space is put before a text; spaces must become marks, and the decoder undo both."""
    steps = _flat(content.get("normalizer"), "normalizers")
    prefix = bool(steps) and steps[0] == {"type": "Prepend", "prepend": SPACE}
    pre = content.get("pre_tokenizer")
    if pre:  # newer files: a text stays whole
        _expect(not steps and pre["type"] == "Metaspace" and pre.get("replacement", SPACE) == SPACE,
                f"BPE on characters: pre-tokenizer {pre['type']} is not implemented")  # fmt: skip
        scheme = pre.get("prepend_scheme", "always")
        _expect(not pre.get("split", True), "Metaspace: split=True is not implemented for BPE")
        _expect(scheme in ("always", "never"), f"Metaspace: prepend_scheme {scheme!r} is not implemented")
        prefix = scheme == "always"
    else:
        marked = [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
        _expect(steps[int(prefix) :] == marked, "BPE on characters: the normalizer must replace spaces by marks alone")
    decoders = [step["type"] for step in _flat(content.get("decoder"), "decoders")]
    _expect(decoders in (["Replace", "ByteFallback", "Fuse"] + ["Strip"] * prefix, ["Metaspace"]),
            f"BPE on characters: decoder {' + '.join(decoders)} is not implemented")  # fmt: skip
    return prefix


def _read_byte_level(component: Mapping[str, Any] | None) -> tuple[str, bool]:
    """The pattern and the prefix space of a byte-level pre-tokenizer."""
    steps = _flat(component, "pretokenizers")
    _expect(bool(steps), "BPE: the pre-tokenizer must end with ByteLevel; got none")
    kinds = [step["type"] for step in steps]
    _expect(kinds[-1] == "ByteLevel" and len(kinds) <= 2, f"pre-tokenizer {' + '.join(kinds)} is not implemented")
    _only(steps[-1], "ByteLevel", "type", "add_prefix_space", "use_regex", "trim_offsets")
    prefix_space, use_regex = bool(steps[-1].get("add_prefix_space", True)), steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and use_regex:
        return "gpt2", prefix_space
    if kinds == ["Digits", "ByteLevel"] and use_regex:
        _expect(bool(steps[0].get("individual_digits")), "Digits: only individual_digits=True is implemented")
        return "smollm2", prefix_space
    if kinds == ["Split", "ByteLevel"] and not use_regex:
        _only(steps[0], "Split", "type", "pattern", "behavior", unset=("invert",))
        _expect(steps[0]["behavior"] == "Isolated", f"Split: behavior {steps[0]['behavior']!r} is not implemented")
        expression = steps[0]["pattern"]["Regex"]
        return next((name for name, known in PATTERNS.items() if known == expression), expression), prefix_space
    raise ValueError(f"pre-tokenizer {' + '.join(kinds)} with use_regex={use_regex} is not implemented")


def _read_char(content: Mapping[str, Any]) -> CharTokenizer:
    specials = _read_specials(content)
    for part, expected in CHARACTERS.items():
        _expect(content.get(part) == expected, f"WordLevel: only single characters are implemented, not this {part}")
    _only(content["model"], "WordLevel", "type", "vocab", "unk_token")
    vocab = {text.encode("utf-8"): _as_id(id) for text, id in content["model"]["vocab"].items()}
    tokens = tokens_by_id(vocab, specials)
    template, _ = _read_processors(content)
    return CharTokenizer([None if t is None else t.decode("utf-8") for t in tokens], specials, template)


def _read_unigram(content: Mapping[str, Any]) -> UnigramTokenizer:
    model = content["model"]
    _only(model, "Unigram", "type", "vocab", "unk_id", "sentencepiece", unset=("byte_fallback",))
    pieces = []
    for text, score in model["vocab"]:
        number = isinstance(score, (int, float)) and score <= 0
        message = f"Unigram: expected a piece and its log-probability; got {text!r}, {score!r}"
        _expect(isinstance(text, str) and number, message)
        pieces.append((text, float(score)))
    specials = _read_specials(content)
    for name, id in sorted(specials.by_name.items(), key=lambda item: item[1]):
        if id == len(pieces):
            pieces.append((name, 0.0))
        _expect(id < len(pieces) and pieces[id][0] == name, f"added token {name!r} has the id {id} of another piece")
    steps = _flat(content.get("normalizer"), "normalizers")
    template, _ = _read_processors(content)
    collapse_spaces, unknown_id = _read_metaspace(content), model.get("unk_id")
    if "sentencepiece" not in model:
        return UnigramTokenizer(pieces, unknown_id, specials, Normalizer(steps), collapse_spaces, template)
    described = model["sentencepiece"]
    _only(described, "sentencepiece", "symbols", "unused", "unknown")
    symbols = {name: _as_id(id) for name, id in described["symbols"].items()}
    wrong = [name for name, id in symbols.items() if id >= len(pieces) or pieces[id][0] != name or name == ""]
    _expect(not wrong, f"sentencepiece: the symbols {wrong[:1]} are no pieces with their ids")
    _expect(isinstance(described["unknown"], str), "sentencepiece: unknown must be a text")
    _expect(not specials.matching, "sentencepiece: added tokens with settings are not implemented")
    text = SentencePieceText(steps, symbols, [*map(_as_id, described["unused"])], described["unknown"])
    plain = {name: id for name, id in specials.plain.items() if name not in symbols}
    specials = Specials(specials.special, plain)
    return UnigramTokenizer(pieces, unknown_id, specials, None, True, template, text)


def _read_metaspace(content: Mapping[str, Any]) -> bool:
    """Whether white space is collapsed, from the pre-tokenizer; it and the decoder must be
    Metaspace.
    """
    steps = _flat(content.get("pre_tokenizer"), "pretokenizers")
    _expect(bool(steps), "Unigram: the pre-tokenizer must be Metaspace; got none")
    _expect(bool(content.get("decoder")), "Unigram: the decoder must be Metaspace; got none")
    *before, metaspace = steps
    for step in (metaspace, content["decoder"]):
        _expect(step["type"] == "Metaspace", f"Unigram: {step['type']} is not implemented, only Metaspace")
        _expect(step.get("replacement", SPACE) == SPACE, f"Metaspace: the replacement must be {SPACE}")
        scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
        _expect(scheme == "always", f"Metaspace: prepend_scheme {scheme!r} is not implemented")
    _expect(metaspace.get("split", True), "Metaspace: split=False is not implemented")
    kinds = [step["type"] for step in before]
    _expect(kinds in ([], ["WhitespaceSplit"]), f"Unigram: pre-tokenizer {' + '.join(kinds)} is not implemented")
    return bool(kinds)
