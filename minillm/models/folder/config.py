"""From ``config.json`` to a configuration class, and back.

A ``config.json`` of Hugging Face says how a model is built: its sizes, and dozens of switches. Some
switches change what the model computes. If we skipped one that we do not know, the model would
load, run, and answer nonsense. So every field of the file must be one of four kinds:

* a **field** of our configuration class: checked for its type, and kept;
* **ignored**: it cannot change a logit (the version of the library that wrote it, labels of another
  task, names that begin with ``_`` ...);
* **neutral**: a switch that we do not implement, in the position where it does nothing;
* anything else is refused, by name. Who knows better reads on with ``from_pretrained(...,
  ignore_unknown=...)``.

A configuration class needs no more than this::

    @dataclass(frozen=True)
    class GPT2Config:
        vocab_size: int = 50257
        n_inner: int | None = None      # width of the MLP; None: 4 n_embd
        ...

        def __post_init__(self):        # what the types do not say: positive sizes, width divisible by heads
            ...

        @classmethod
        def from_dict(cls, fields, source="config.json"):
            return config_from_dict(cls, fields, neutral=NEUTRAL, ignored=IGNORED, source=source)

        def to_dict(self):
            return config_to_dict(self, neutral=NEUTRAL)

    NEUTRAL = {"activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_weights":
    (True,)} IGNORED = ("n_ctx", "summary_type")

``fields.py`` has these tables for the published architectures. A field that a file leaves out takes
the default of the class, so the defaults must be those of Hugging Face.
"""  # noqa: W505

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

__all__ = ["config_from_dict", "config_to_dict", "is_ignored", "way_on"]

# Fields that a file of any architecture may have and that change no logit. Token ids, where a class
# has no field for them, matter to the generator alone, and so do the settings that old files mix
# into config.json. Dropout and first values matter to training alone.
HARMLESS = frozenset(
    """
    architectures attn_implementation auto_map base_model_ep_plan base_model_fsdp_plan base_model_pp_plan
    base_model_tp_plan bos_token bos_token_id chunk_size_feed_forward classifier_dropout cross_attention_hidden_size
    custom_pipelines decoder_start_token_id dtype eos_token eos_token_id experts_implementation finetuning_task
    gradient_checkpointing id2label is_decoder keys_to_ignore_at_inference label2id loss_type max_sequence_length
    max_window_layers model_max_length model_type n_special name_or_path num_labels output_attentions
    output_hidden_states output_past pad_token pad_token_id predict_special_tokens prefix pretraining_tp problem_type
    return_dict return_dict_in_generate sep_token_id task_specific_params tf_legacy_loss tokenizer_class
    tokenizer_model_max_length tokenizer_padding_side torch_dtype torchscript transformers.js_config
    transformers_version unk_token unk_token_id unsloth_fixed unsloth_version use_bfloat16 use_cache xla_device

    attention_dropout attention_probs_dropout_prob attn_pdrop dropout_rate embd_pdrop hidden_dropout
    hidden_dropout_prob initializer_factor initializer_range resid_pdrop

    bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length max_new_tokens
    min_length min_new_tokens no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores
    remove_invalid_values repetition_penalty suppress_tokens temperature top_k top_p typical_p
    """.split()
)

# Switches that any architecture may have, in the position where they do nothing.
NEUTRAL = {
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "tie_encoder_decoder": (False,),
    "use_sliding_window": (False,),
}

LARGEST_INTEGER = 2**31 - 1

C = TypeVar("C")


def config_from_dict(
    cls: type[C],
    fields: Mapping[str, Any],
    *,
    neutral: Mapping[str, tuple] | None = None,
    ignored: Collection[str] = (),
    aliases: Mapping[str, str] | None = None,
    source: str = "config.json",
    can_be_left_out: bool = True,
) -> C:
    """Build the frozen dataclass ``cls`` from the fields of a ``config.json``.

    fields: the parsed file. neutral: for each switch that is not implemented, the tuple of values
    with which it changes nothing. ignored: names that change no logit, besides those common to all
    architectures. aliases: other names of fields. source: the file's name, for messages.
    can_be_left_out: whether the caller knows a way to read on without an unknown field, which the
    message then names. A field set to null counts as absent, unless the class gives null a meaning.

    Raises ValueError that lists every field which is unknown, not neutral, missing or of the wrong
    type.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     width: int = 64
    >>> config_from_dict(Config, {"width": 8, "use_cache": True})
    Config(width=8)
    >>> config_from_dict(Config, {"width": "8", "sinks": 4})  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
        ...
    ValueError: config.json: width must be int; got '8'; sinks = 4 is unknown and may change the result; to read on
    without it: --ignore-unknown sinks, or from_pretrained(..., ignore_unknown=('sinks',))
    """  # noqa: W505
    neutral = {**NEUTRAL, **(neutral or {})}
    fields = _with_own_names(fields, aliases or {}, source)
    hints = typing.get_type_hints(cls)
    own = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    problems: list[str] = []
    unknown: list[str] = []
    for name, value in fields.items():
        if name in own:
            if value is None and not _fits(None, hints[name]):
                continue
            if problem := _problem(name, value, hints[name]):
                problems.append(problem)
            else:
                values[name] = _converted(value, hints[name])
        elif value is None or is_ignored(name) or name in ignored:
            continue
        elif name not in neutral:
            problems.append(f"{name} = {_short(value)} is unknown and may change the result")
            unknown.append(name)
        elif not any(_same(value, accepted) for accepted in neutral[name]):
            accepted = " or ".join(repr(value) for value in neutral[name])
            problems.append(f"{name} = {_short(value)} is not implemented (only {accepted})")
            unknown.append(name)
    for name, field in own.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in values and not optional and not any(p.startswith(f"{name} ") for p in problems):
            problems.append(f"{name} is missing")
    if problems:
        raise ValueError(f"{source}: " + "; ".join(problems) + (way_on(unknown) if can_be_left_out else ""))
    try:
        return cls(**values)
    except ValueError as error:  # what the class itself checks, such as a width divisible by the number of heads
        raise ValueError(f"{source}: {error}") from None


def config_to_dict(config: Any, *, neutral: Mapping[str, tuple] | None = None) -> dict[str, Any]:
    """Return the fields of a configuration as ``config.json`` holds them, ``from_dict``'s inverse.

    The neutral switches are written too, each with its first value, so that no reader has to guess
    our choice.
    """
    switches = {name: accepted[0] for name, accepted in (neutral or {}).items()}
    return switches | {name: _plain(value) for name, value in dataclasses.asdict(config).items()}


def is_ignored(name: str) -> bool:
    """Whether a field changes no logit, of whatever architecture the file is."""
    return name in HARMLESS or name.startswith("_")


def way_on(unknown: Collection[str]) -> str:
    """How to read a folder without these fields or tensors; nothing where there are none."""
    named = tuple(name if len(name) <= 80 else name[:77] + "..." for name in list(unknown)[:10])
    if not named:
        return ""
    pronoun = "it" if len(named) == 1 else "them"
    options = " ".join(f"--ignore-unknown {name}" for name in named)
    return f"; to read on without {pronoun}: {options}, or from_pretrained(..., ignore_unknown={named})"


def _with_own_names(fields: Mapping[str, Any], aliases: Mapping[str, str], source: str) -> dict[str, Any]:
    """The fields, those with another name under their own."""
    renamed = {name: value for name, value in fields.items() if name not in aliases}
    for name in aliases.keys() & fields.keys():
        own = aliases[name]
        if fields[name] is None:
            continue
        if renamed.get(own) is None:
            renamed[own] = fields[name]
        elif renamed[own] != fields[name]:
            raise ValueError(
                f"{source}: {name} = {_short(fields[name])} and {own} = {_short(renamed[own])} are two names of one "
                "size, and disagree"
            )
    return renamed


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _problem(name: str, value: Any, hint: Any) -> str | None:
    """Say what is wrong with the value of a field, or None."""
    if not _fits(value, hint):
        return f"{name} must be {_spelled(hint)}; got {_short(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name} must be finite; got {value}"
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return f"{name} must be at most {LARGEST_INTEGER}; got {_short(value)}"
    return None


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value has the type that a field declares; an integer is a float, true is no
    integer.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is typing.Literal:
        return any(_same(value, part) for part in parts)
    if origin in (list, tuple):  # list[int], tuple[int, ...]
        return isinstance(value, list | tuple) and all(_fits(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, parts[1]) for item in value.values())
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _converted(value: Any, hint: Any) -> Any:
    """Give a JSON value its type in the class: whole numbers become floats, lists become (hashable)
    tuples.
    """
    kinds = typing.get_args(hint) or (hint,)  # the kinds of int | None are int and None
    if type(value) is int and float in kinds and int not in kinds:
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def _same(a: Any, b: Any) -> bool:
    """Equality that keeps ``True`` and ``1`` apart."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _spelled(hint: Any) -> str:
    """``int``, ``int | None``: the type as a person writes it."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _short(value: Any) -> str:
    """The value as a message shows it: a stranger's file may hold a megabyte."""
    if isinstance(value, int) and abs(value) > 10**20:
        return "an integer of more than 20 digits"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
