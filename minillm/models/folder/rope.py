"""The rotary settings of a ``config.json``, which three generations of files write in three ways.

{"rope_theta": 10000.0, "rope_scaling": null}                          the oldest
{"rope_theta": 10000.0, "rope_scaling": {"type": "default"}}           scaling to longer texts, or none
{"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}   the newest
"""  # noqa: W505

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config import way_on

# Settings of the scaled kinds. Beside rope_type "default", transformers leaves them unread.
SCALING = frozenset(
    """
    attention_factor beta_fast beta_slow factor high_freq_factor long_factor low_freq_factor mscale mscale_all_dim
    original_max_position_embeddings rope_theta rope_type short_factor truncate type
    """.split()
)


def plain_rope_theta(fields: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The fields with the rotary settings as ``rope_theta`` alone.

    Raises ValueError where angles are scaled, which is not implemented, or two settings disagree.
    """
    plain = {name: value for name, value in fields.items() if name not in ("rope_scaling", "rope_parameters")}
    for name in ("rope_parameters", "rope_scaling"):
        settings = fields.get(name)
        if not settings:  # absent, null, or an empty table
            continue
        if not isinstance(settings, dict) or not _changes_no_angle(settings):
            raise ValueError(
                f"{source}: {name} = {settings!r:.200} is not implemented (only rope_type 'default'){way_on([name])}"
            )
        for unknown in settings.keys() - SCALING:
            raise ValueError(
                f"{source}: {name}.{unknown:.80} = {settings[unknown]!r:.80} is unknown and may change the result"
                f"{way_on([name])}"
            )
        theta = settings.get("rope_theta")
        if theta is not None and plain.setdefault("rope_theta", theta) != theta:
            raise ValueError(f"{source}: rope_theta and {name}.rope_theta disagree")
    return plain


def _changes_no_angle(settings: dict[str, Any]) -> bool:
    """Whether positions are taken as they are; a linear scaling by 1 is none."""
    kind = settings.get("rope_type", settings.get("type", "default"))
    return kind == "default" or kind == "linear" and settings.get("factor") == 1 and settings.get("factor") is not True
