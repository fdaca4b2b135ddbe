"""config_from_dict: each field is understood, harmless, in its neutral position, or refused by name."""

from __future__ import annotations

import doctest
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from minillm.models.folder import config as module
from minillm.models.folder.config import config_from_dict, config_to_dict
from minillm.training import checkpoint


@dataclass(frozen=True)
class Config:
    width: int
    rate: float = 0.5
    inner: int | None = None
    scale: float | None = None
    tied: bool = True
    cell: Literal["rnn", "gru"] = "rnn"
    stops: int | tuple[int, ...] | None = 7
    free: Any = None

    def __post_init__(self):
        if self.width < 1:
            raise ValueError("Config: width must be at least 1")


NEUTRAL = {"act": ("silu", "swish"), "bias": (False,), "groups": (1,)}


def read(**fields):
    return config_from_dict(Config, fields, neutral=NEUTRAL, ignored=("label",), source="run/config.json")


def test_doctests():
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(checkpoint).failed == 0


def test_fields_get_their_types():
    config = read(width=3, rate=1, scale=2, stops=[1, 2], cell="gru", tied=False, free=[1])
    assert config == Config(3, 1.0, None, 2.0, False, "gru", (1, 2), (1,))
    assert type(config.rate) is float and type(config.scale) is float
    hash(config)


def test_null_is_absence_unless_the_class_gives_it_a_meaning():
    assert read(width=3, rate=None, inner=None, unheard_of=None) == Config(3)
    assert read(width=3, stops=None).stops is None


def test_what_changes_nothing_is_accepted():
    assert read(width=3, act="swish", bias=False, label=[1], use_cache=True, transformers_version="5") == Config(3)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({}, "width is missing"),
        ({"width": None}, "width is missing"),
        ({"width": True}, "width must be int; got True"),
        ({"width": 3.0}, r"width must be int; got 3\.0"),
        ({"width": 2**31}, "width must be at most 2147483647; got 2147483648"),
        ({"width": 10**25}, "width must be at most 2147483647; got an integer of more than 20 digits"),
        ({"width": 0}, "Config: width must be at least 1"),
        ({"width": 3, "rate": float("inf")}, "rate must be finite; got inf"),
        ({"width": 3, "rate": True}, "rate must be float; got True"),
        ({"width": 3, "rate": "x" * 1000}, r"rate must be float; got 'x{76}\.\.\.$"),
        ({"width": 3, "inner": 1.5}, r"inner must be int \| None; got 1\.5"),
        ({"width": 3, "tied": 1}, "tied must be bool; got 1"),
        ({"width": 3, "cell": "lstm"}, r"cell must be Literal\['rnn', 'gru'\]; got 'lstm'"),
        ({"width": 3, "stops": [1, "x"]}, r"stops must be int \| tuple\[int, \.\.\.\] \| None; got \[1, 'x'\]"),
        ({"width": 3, "act": "gelu"}, "act = 'gelu' is not implemented .only 'silu' or 'swish'."),
        ({"width": 3, "bias": 0}, "bias = 0 is not implemented"),
        ({"width": 3, "groups": True}, "groups = True is not implemented"),
        ({"width": 3, "is_encoder_decoder": True}, "is_encoder_decoder = True is not implemented"),
        ({"width": 3, "unheard_of": False}, "unheard_of = False is unknown and may change the result"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"^run/config.json: {message}"):
        read(**fields)


def test_all_problems_stand_in_one_message():
    with pytest.raises(ValueError) as caught:
        read(rate="fast", act="gelu", unheard_of=1)
    for problem in ("rate must", "act = 'gelu'", "unheard_of = 1", "width is missing"):
        assert problem in str(caught.value)


def test_back_to_json():
    written = config_to_dict(Config(3, stops=(1, 2)), neutral=NEUTRAL)
    assert written["stops"] == [1, 2] and written["act"] == "silu" and written["bias"] is False
    assert config_from_dict(Config, written, neutral=NEUTRAL) == Config(3, stops=(1, 2))
