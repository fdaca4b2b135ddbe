"""The rotary settings of a ``config.json``, which three generations of files write in three ways.

{"rope_theta": 10000.0, "rope_scaling": null}                          the oldest
{"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}    longer texts: see ../rope.py
{"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}   the newest
"""  # noqa: W505

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..rope import RopeScaling
from .config import config_from_dict, way_on

# What each kind must say, and what it may say besides: names of files and of RopeScaling.
NEEDED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
}
POSSIBLE = {"yarn": ("beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim")}
LENGTH = "original_max_position_embeddings"

# Settings of any kind. What a kind does not ask for, transformers leaves unread.
SETTINGS = frozenset(
    """
    attention_factor beta_fast beta_slow factor high_freq_factor long_factor low_freq_factor mscale mscale_all_dim
    original_max_position_embeddings partial_rotary_factor rope_theta rope_type short_factor truncate type
    """.split()
)


def with_rotary_settings(fields: Mapping[str, Any], default_context: int, source: str) -> dict[str, Any]:
    """The fields with the rotary settings as ``rope_theta`` and ``rope_scaling`` (a RopeScaling, or
    None) alone.

    default_context: where the file says no ``max_position_embeddings``. Raises ValueError where
    angles are scaled in a way that is not implemented, a setting is missing or wrong, or two
    disagree.
    """
    plain = {name: value for name, value in fields.items() if name not in ("rope_scaling", "rope_parameters")}
    for name in ("rope_parameters", "rope_scaling"):
        settings = fields.get(name)
        if not settings:  # absent, null, or an empty table
            continue
        scaling = _scaling(settings, fields, default_context, f"{source}: {name}")
        if plain.setdefault("rope_scaling", scaling) != scaling:
            raise ValueError(f"{source}: rope_scaling and rope_parameters disagree")
        theta = settings.get("rope_theta")
        if theta is not None and plain.setdefault("rope_theta", theta) != theta:
            raise ValueError(f"{source}: rope_theta and {name}.rope_theta disagree")
    return plain


def _scaling(settings: Any, fields: Mapping[str, Any], default_context: int, where: str) -> RopeScaling | None:
    """What one table says; None where positions are taken as they are."""
    name = where.split()[-1]
    kind = settings.get("rope_type", settings.get("type", "default")) if isinstance(settings, dict) else None
    if not isinstance(kind, str) or kind not in (*NEEDED, "default"):
        raise ValueError(
            f"{where} = {settings!r:.200} is not implemented (only rope_type default, {', '.join(NEEDED)})"
            f"{way_on([name])}"
        )
    for unknown in settings.keys() - SETTINGS:
        raise ValueError(
            f"{where}.{unknown:.80} = {settings[unknown]!r:.80} is unknown and may change the result{way_on([name])}"
        )
    if settings.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise ValueError(f"{where}.partial_rotary_factor is not implemented (only 1){way_on([name])}")
    if kind == "default":
        return None
    context = fields.get("max_position_embeddings") or default_context
    # as transformers has it: what stands beside the table goes before what stands in it
    original = context if kind in ("linear", "dynamic") else fields.get(LENGTH) or settings.get(LENGTH) or context
    values: dict[str, Any] = {"rope_type": kind, "original": original}
    if kind == "yarn" and settings.get("factor") is None and type(context) is type(original) is int and original > 0:
        values["factor"] = context / original
    for setting in (*NEEDED[kind], *POSSIBLE.get(kind, ())):
        if settings.get(setting) is not None:
            values[setting] = settings[setting]
    if missing := [setting for setting in NEEDED[kind] if setting not in values]:
        raise ValueError(f"{where} = {settings!r:.200}: {kind} needs {', '.join(missing)}")
    scaling = config_from_dict(RopeScaling, values, source=where)
    problem = _problem(scaling)
    if problem:
        raise ValueError(f"{where}: {problem}")
    return None if kind == "linear" and scaling.factor == 1 else scaling


def _problem(scaling: RopeScaling) -> str | None:
    """What is wrong with the numbers, so that no angle could be computed."""
    if not scaling.factor >= 1:
        return f"factor must be at least 1; got {scaling.factor}"
    if scaling.original < 1:
        return f"{LENGTH} must be at least 1; got {scaling.original}"
    if scaling.rope_type == "llama3" and not 0 < scaling.low_freq_factor < scaling.high_freq_factor:
        return "low_freq_factor must be above 0 and below high_freq_factor"
    if scaling.rope_type == "yarn" and not 0 < scaling.beta_slow < scaling.beta_fast:
        return "beta_slow must be above 0 and below beta_fast"
    return None


def rotary_fields(theta: float, scaling: RopeScaling | None) -> dict[str, Any]:
    """The field ``rope_parameters`` of a ``config.json``: ``with_rotary_settings``'s inverse."""
    if scaling is None:
        return {"rope_type": "default", "rope_theta": theta}
    kind = scaling.rope_type
    names = (*NEEDED[kind], *POSSIBLE.get(kind, ()))
    given = {name: getattr(scaling, name) for name in names if getattr(scaling, name) is not None}
    length = {} if kind in ("linear", "dynamic") else {LENGTH: scaling.original}
    return {"rope_type": kind, "rope_theta": theta, **given, **length}
