"""`tokenizer.json`, the file format of the `tokenizers` library, read and written.

The file names a chain of components: added tokens, normalizer, pre-tokenizer, model, post-processor, decoder. Reading
is strict: a component or setting that is not implemented here would change the ids, so it is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import read_json
from .base import Specials, Template, Tokenizer
from .byte_level import to_bytes, to_characters
from .normalize import Normalizer

if TYPE_CHECKING:
    from .bpe import BPETokenizer
    from .char import CharTokenizer
    from .unigram import UnigramTokenizer

SPACE = "▁"
_MOST_BYTES = 200_000_000  # of a file; a vocabulary of 256,000 tokens takes 30 MB


# ---- writing ---------------------------------------------------------------------------------------------------------


def _frame(tokenizer: Tokenizer, **components: Any) -> dict[str, Any]:
    """What every `tokenizer.json` holds around its model."""
    specials = tokenizer._specials
    added = [(id, name, True) for name, id in specials.special.items()]
    added += [(id, name, False) for name, id in specials.plain.items()]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": special}
            for id, name, special in sorted(added)
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": _template_to_json(tokenizer),
        "decoder": None,
        **components,
    }  # fmt: skip


def _template_to_json(tokenizer: Tokenizer) -> dict[str, Any] | None:
    template = tokenizer._template
    if template == Template():
        return None

    def token(id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": tokenizer._name_of(id), "type_id": 0}}

    single = [*map(token, template.before), {"Sequence": {"id": "A", "type_id": 0}}, *map(token, template.after)]
    second = [*map(token, template.before), {"Sequence": {"id": "B", "type_id": 0}}, *map(token, template.after)]
    names = {tokenizer._name_of(id): id for id in (*template.before, *template.after)}
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
    from minillm.kernels.split import PATTERNS

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
    names = {**tokenizer._specials.special, **tokenizer._specials.plain}
    reserved = set(names.values())
    vocab = {to_characters(token): id for id, token in tokenizer._bytes.items() if id not in reserved}
    written = {id: text for text, id in vocab.items()}
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
            "vocab": dict(sorted({**vocab, **names}.items(), key=lambda item: item[1])),
            "merges": [[written[left], written[right]] for left, right in tokenizer.merges],
        },
    )


_CHARACTERS = {
    "normalizer": None,
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False},
    "decoder": {"type": "Fuse"},
}


def char_to_json(tokenizer: CharTokenizer) -> dict[str, Any]:
    """The file of a `CharTokenizer`: the words of its word-level model are single characters."""
    vocab = {token.decode("utf-8"): id for id, token in tokenizer._bytes.items()}
    return _frame(
        tokenizer,
        **_CHARACTERS,
        model={"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    )


def unigram_to_json(tokenizer: UnigramTokenizer) -> dict[str, Any]:
    """The file of a `UnigramTokenizer`."""
    steps = tokenizer.normalizer.steps
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    words = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
    return _frame(
        tokenizer,
        normalizer={"type": "Sequence", "normalizers": steps} if len(steps) > 1 else steps[0] if steps else None,
        pre_tokenizer=words if tokenizer.collapse_spaces else metaspace,
        decoder=metaspace,
        model={
            "type": "Unigram",
            "unk_id": tokenizer.unknown_id,
            "vocab": [[text, score] for text, score in tokenizer.pieces],
            "byte_fallback": False,
        },
    )


# ---- reading ---------------------------------------------------------------------------------------------------------


def read(file: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises ValueError, naming the file and the component, when it is damaged or asks for what is not implemented.
    """
    try:
        return from_json(read_json(file, _MOST_BYTES))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"load: {file} is not a tokenizer that minillm can read: {reason}") from error


def from_json(content: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer that the content of a `tokenizer.json` describes.

    Raises ValueError, KeyError, TypeError, AttributeError or IndexError when it does not describe one.
    """
    _only(content, "tokenizer.json", "version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
          "decoder", "model", unset=("truncation", "padding"))  # fmt: skip
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
    """Refuse a component with keys that are not known, or with a value for those that must stay unset."""
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


def _read_specials(content: Mapping[str, Any], normalized: bool = False) -> Specials:
    """The added tokens. normalized: whether there is a normalizer that tokens could have to pass."""
    special: dict[str, int] = {}
    plain: dict[str, int] = {}
    for token in content.get("added_tokens") or []:
        name = token["content"]
        _expect(isinstance(name, str) and name != "", f"added token {name!r} must be a text")
        _only(token, f"added token {name!r}", "id", "content", "special", "normalized",
              unset=("single_word", "lstrip", "rstrip"))  # fmt: skip
        _expect(not (normalized and token.get("normalized")), f"added token {name!r}: normalized is not implemented")
        (special if token.get("special") else plain)[name] = _as_id(token["id"])
    return Specials(special, plain)


def _as_id(value: Any) -> int:
    _expect(isinstance(value, int) and not isinstance(value, bool) and value >= 0, f"{value!r} is no id")
    return value


def _tokens_by_id(vocab: Mapping[bytes, int], specials: Specials) -> list[bytes | None]:
    names = {name.encode("utf-8"): id for name, id in {**specials.special, **specials.plain}.items()}
    size = max([*vocab.values(), *names.values()], default=-1) + 1
    _expect(size <= 2 * (len(vocab) + len(names)) + 1024, f"the highest of {len(vocab)} ids is {size - 1}")
    tokens: list[bytes | None] = [None] * size
    for token, id in [*vocab.items(), *names.items()]:
        _expect(tokens[id] in (None, token), f"id {id} belongs to two tokens, {tokens[id]!r} and {token!r}")
        tokens[id] = token
    return tokens


def _read_processors(content: Mapping[str, Any]) -> tuple[Template, bool]:
    """What the post-processors do: the template they fill in, and whether they trim spaces off the offsets."""
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


def _read_bpe(content: Mapping[str, Any]) -> BPETokenizer:
    from .bpe import BPETokenizer

    model = content["model"]
    _only(model, "BPE", "type", "vocab", "merges", "ignore_merges", "fuse_unk", "unk_token",
          unset=("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"))  # fmt: skip
    _expect(not content.get("normalizer"), "BPE with a normalizer is not implemented")
    _expect((content.get("decoder") or {}).get("type") == "ByteLevel", "BPE: the decoder must be ByteLevel")
    specials = _read_specials(content)
    names = {**specials.special, **specials.plain}
    vocab = {text: _as_id(id) for text, id in model["vocab"].items()}
    words = {to_bytes(text): id for text, id in vocab.items() if text not in names}
    bytes_known = sum(len(word) == 1 for word in words)
    _expect(not model.get("unk_token") or bytes_known == 256, "BPE: unk_token is not implemented")
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    merges = [(vocab[left], vocab[right]) for left, right in pairs]
    pattern, prefix_space = _read_byte_level(content["pre_tokenizer"])
    template, trim_offsets = _read_processors(content)
    return BPETokenizer(
        _tokens_by_id(words, specials), merges, specials, pattern, prefix_space, template,
        whole_first=bool(model.get("ignore_merges")), trim_offsets=trim_offsets,
    )  # fmt: skip


def _read_byte_level(component: Mapping[str, Any]) -> tuple[str, bool]:
    """The pattern and the prefix space of a byte-level pre-tokenizer."""
    from minillm.kernels.split import PATTERNS

    steps = _flat(component, "pretokenizers")
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
    from .char import CharTokenizer

    specials = _read_specials(content)
    for part, expected in _CHARACTERS.items():
        _expect(content.get(part) == expected, f"WordLevel: only single characters are implemented, not this {part}")
    _only(content["model"], "WordLevel", "type", "vocab", "unk_token")
    vocab = {text.encode("utf-8"): _as_id(id) for text, id in content["model"]["vocab"].items()}
    tokens = _tokens_by_id(vocab, specials)
    template, _ = _read_processors(content)
    return CharTokenizer([None if t is None else t.decode("utf-8") for t in tokens], specials, template)


def _read_unigram(content: Mapping[str, Any]) -> UnigramTokenizer:
    from .unigram import UnigramTokenizer

    model = content["model"]
    _only(model, "Unigram", "type", "vocab", "unk_id", unset=("byte_fallback",))
    pieces = []
    for text, score in model["vocab"]:
        number = isinstance(score, (int, float)) and score <= 0
        message = f"Unigram: expected a piece and its log-probability; got {text!r}, {score!r}"
        _expect(isinstance(text, str) and number, message)
        pieces.append((text, float(score)))
    specials = _read_specials(content, normalized=content.get("normalizer") is not None)
    for name, id in sorted({**specials.special, **specials.plain}.items(), key=lambda item: item[1]):
        if id == len(pieces):
            pieces.append((name, 0.0))
        _expect(id < len(pieces) and pieces[id][0] == name, f"added token {name!r} has the id {id} of another piece")
    steps = _flat(content.get("normalizer"), "normalizers")
    template, _ = _read_processors(content)
    return UnigramTokenizer(
        pieces, model.get("unk_id"), specials, Normalizer(steps), _read_metaspace(content), template
    )


def _read_metaspace(content: Mapping[str, Any]) -> bool:
    """Whether white space is collapsed, from the pre-tokenizer; it and the decoder must be Metaspace."""
    *before, metaspace = _flat(content["pre_tokenizer"], "pretokenizers")
    for step in (metaspace, content["decoder"]):
        _expect(step["type"] == "Metaspace", f"Unigram: {step['type']} is not implemented, only Metaspace")
        _expect(step.get("replacement", SPACE) == SPACE, f"Metaspace: the replacement must be {SPACE}")
        scheme = step.get("prepend_scheme") or ("always" if step.get("add_prefix_space", True) else "never")
        _expect(scheme == "always", f"Metaspace: prepend_scheme {scheme!r} is not implemented")
    _expect(metaspace.get("split", True), "Metaspace: split=False is not implemented")
    kinds = [step["type"] for step in before]
    _expect(kinds in ([], ["WhitespaceSplit"]), f"Unigram: pre-tokenizer {' + '.join(kinds)} is not implemented")
    return bool(kinds)
