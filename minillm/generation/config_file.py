"""``generation_config.json``: parameters under the names, and with the meanings, that they have in
``transformers``.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["suggestion", "to_fields", "to_parameters"]

# Fields of transformers with another name here.
_FILE_NAMES = {"stop_strings": "stop", "num_return_sequences": "n"}
_READ_APART = ("do_sample", "max_length", "sequence_bias")

# Fields of transformers that would change the text, with the values at which they do nothing.
_NOT_IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "assistant_early_exit": (),
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "constraints": ([],),
    "diversity_penalty": (0,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1,),
    "max_time": (),
    "min_length": (0,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "prompt_lookup_num_tokens": (),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "suppress_tokens": ([],),
    "token_healing": (False,),
    "top_h": (),
    "watermarking_config": (),
}

# Fields of transformers about its own workings.
_HARMLESS = frozenset(
    """
    _commit_hash _from_model_config assistant_confidence_threshold assistant_lookbehind assistant_ensemble_weight
    cache_config cache_implementation compile_config continuous_batching_config disable_compile is_assistant low_memory
    max_cache_len max_matching_ngram_size num_assistant_tokens num_assistant_tokens_schedule output_attentions
    output_hidden_states output_logits output_scores prefill_chunk_size return_dict_in_generate speculation_type
    target_lookbehind transformers_version use_cache use_mtp
    """.split()
)


def to_parameters(fields: Mapping[str, Any], names: Sequence[str], source: str) -> dict[str, Any]:
    """The parameters, of these names, that the fields of a file stand for: see
    ``GenerationConfig.from_dict``.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    values: dict[str, Any] = {"add_bos": False}
    for name, value in given.items():
        if name in _FILE_NAMES:
            values[_FILE_NAMES[name]] = value
        elif name in names:
            values[name] = value
        elif name in _NOT_IMPLEMENTED:
            if value not in _NOT_IMPLEMENTED[name]:
                raise ValueError(f"{source}: {name} = {value!r:.60} is not implemented")
        elif name not in _HARMLESS and name not in _READ_APART:
            raise ValueError(f"{source}: unknown field {suggestion(name, [*names, *_FILE_NAMES])}")
    if not isinstance(sample := given.get("do_sample", False), bool):
        raise ValueError(f"{source}: do_sample must be true or false; got {sample!r:.60}")
    if not sample:
        values["temperature"] = 0.0
    elif "top_k" not in given:
        values["top_k"] = 50
    if "max_length" in given:
        values.setdefault("max_new_tokens", given["max_length"])
    if "sequence_bias" in given:
        values["logit_bias"] = _from_sequence_bias(given["sequence_bias"], source)
    return values


def to_fields(config: Any) -> dict[str, Any]:
    """See ``GenerationConfig.to_dict``."""
    known: dict[str, Any] = {"max_new_tokens": config.max_new_tokens, "do_sample": config.temperature > 0}
    if config.temperature > 0:
        known |= {"temperature": config.temperature, "top_k": config.top_k}
    if config.eos_token_id is not None:  # transformers knows no turns: one list for all that ends a text
        known["eos_token_id"] = [*config.eos_token_id, *(config.end_of_turn_token_id or ())]
    if config.logit_bias:
        known["sequence_bias"] = [[[id], bias] for id, bias in config.logit_bias.items()]
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    file_names = {ours: theirs for theirs, ours in _FILE_NAMES.items()}
    for name in defaults:
        value = getattr(config, name)
        if name not in known and name not in ("temperature", "logit_bias", "add_bos") and value != defaults[name]:
            known[file_names.get(name, name)] = list(value) if isinstance(value, tuple) else value
    return known | {"add_bos": config.add_bos}


def _from_sequence_bias(value: Any, source: str) -> dict[int, float]:
    """``[[[id], bias], ...]``: only biases of single tokens, which do not depend on the text
    before.
    """
    try:
        pairs = [(id, bias) for (id,), bias in value]
    except (TypeError, ValueError):
        raise ValueError(
            f"{source}: sequence_bias must be a list [[[token id], bias], ...]; got {value!r:.60}"
        ) from None
    return dict(pairs)


def suggestion(name: str, known: Iterable[str]) -> str:
    """The unknown name, and the known one that was probably meant."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"{name!r:.60}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
