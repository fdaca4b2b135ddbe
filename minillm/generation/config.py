"""The parameters of generation: what they mean, their bounds, and the file
``generation_config.json``.
"""

from __future__ import annotations

import dataclasses
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..files import read_json, write_json
from .config_file import suggestion, to_fields, to_parameters

__all__ = ["GenerationConfig"]

LARGEST_ID = 2**31 - 1
LONGEST = 1_000_000  # tokens


@dataclass(frozen=True)
class GenerationConfig:
    r"""How text is drawn from a model, and when it ends.

    The model gives a score (logit) to each token of the vocabulary. The steps between the scores
    and the token that is drawn run in this order, and a parameter that is at its default costs
    nothing:

        penalties -> bias -> temperature -> top-k -> top-p -> min-p -> typical -> draw

    Raises ValueError that names the parameter, its bounds, and what was given.

    >>> GenerationConfig(temperature=0.8, top_p=0.95, stop="\n").stop
    ('\n',)
    >>> GenerationConfig(top_p=95)
    Traceback (most recent call last):
        ...
    ValueError: GenerationConfig: top_p must be a number in [0, 1]; got 95
    """

    # How long a text becomes.
    max_new_tokens: int = 256
    min_new_tokens: int = 0  # the tokens that end a text cannot be drawn before
    stop: tuple[str, ...] = ()  # strings that end the text, and are not part of it; one string may be given alone
    slide: bool = False  # when the context is full: forget its older half and go on, instead of stopping

    # What is drawn.
    temperature: float = 1.0  # logits / temperature: below 1 bolder, above 1 more varied; 0 takes the most likely token
    top_k: int = 0  # only the k most likely tokens; 0: off
    top_p: float = 1.0  # only the most likely tokens whose probabilities reach p together; 1: off
    min_p: float = 0.0  # only tokens at least p times as likely as the most likely one; 0: off
    typical_p: float = 1.0  # only tokens whose surprise is nearest to the expected one, reaching p together; 1: off

    # What is made less likely. The first two count the tokens drawn so far, the next two the
    # prompt's as well.
    frequency_penalty: float = 0.0  # logit -= penalty * count
    presence_penalty: float = 0.0  # logit -= penalty, once a token has been drawn
    repetition_penalty: float = 1.0  # logit / penalty where positive, else logit * penalty, for a token in the text
    no_repeat_ngram_size: int = 0  # no sequence of that many tokens comes twice; 0: off
    logit_bias: dict[int, float] = field(default_factory=dict)  # logit += bias, by token id

    # How many texts, and from which random numbers.
    n: int = 1  # texts for each prompt; the prompt is read once
    seed: int | None = None  # where no rng is passed in; None: another text each time
    num_beams: int = 1  # above 1: search for the most likely text with so many candidates, instead of drawing
    length_penalty: float = 1.0  # a candidate's score is its log-probability / length^penalty
    early_stopping: bool | Literal["never"] = False  # beams: True ends with num_beams texts; see beam.py

    # What is reported besides the text.
    logprobs: int = 0  # so many of the most likely tokens, with log-probabilities, at each position
    echo: bool = False  # the prompt too: its text, its log-probabilities

    # Special tokens. None: what the tokenizer says.
    special: bool = False  # special tokens written in a prompt count as such, instead of as plain text
    eos_token_id: tuple[int, ...] | None = None  # end of text; one id may be given alone, () never stops
    end_of_turn_token_id: tuple[int, ...] | None = None
    bos_token_id: int | None = None  # beginning of text; None: the tokenizer's, else its end of text
    pad_token_id: int | None = None  # not needed here; kept for transformers, which fills up batches with it
    decoder_start_token_id: int | None = None  # encoder-decoder models: the first token of the decoder
    add_bos: bool = True  # put that before a prompt that is a string; a tokenizer's own template does so anyway

    def __post_init__(self) -> None:
        """Bring every value into its plain type, and check it."""
        for name, (low, high) in _FLOATS.items():
            self._set(name, _float(name, getattr(self, name), low, high))
        for name, (least, most) in _INTEGERS.items():
            self._set(name, _integer(name, getattr(self, name), least, most))
        for name in ("slide", "echo", "special", "add_bos"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                _refuse(name, "True or False", getattr(self, name))
            self._set(name, bool(getattr(self, name)))
        for name in ("seed", "bos_token_id", "pad_token_id", "decoder_start_token_id"):
            if getattr(self, name) is not None:
                most = 2**63 - 1 if name == "seed" else LARGEST_ID
                self._set(name, _integer(name, getattr(self, name), 0, most))
        for name in ("eos_token_id", "end_of_turn_token_id"):
            self._set(name, _ids(name, getattr(self, name)))
        self._set("stop", _strings("stop", self.stop))
        self._set("logit_bias", _biases(self.logit_bias))
        if self.early_stopping not in (True, False, "never"):
            _refuse("early_stopping", 'True, False or "never"', self.early_stopping)
        if self.early_stopping != "never":
            self._set("early_stopping", bool(self.early_stopping))
        if 0 < self.temperature < 1e-6:
            _refuse("temperature", "0 (the most likely token) or at least 1e-06", self.temperature)
        if self.min_new_tokens > self.max_new_tokens:
            _refuse("min_new_tokens", f"at most max_new_tokens = {self.max_new_tokens}", self.min_new_tokens)
        if self.num_beams > 1:
            self._check_beams()

    def _check_beams(self) -> None:
        if self.n > self.num_beams:
            _refuse("n", f"at most num_beams = {self.num_beams}", self.n)
        if self.slide:
            _refuse("slide", "False with num_beams above 1", self.slide)
        if self.temperature != 0:  # at 0 they have no effect without beams either
            for name, off in (("temperature", 1), ("top_k", 0), ("top_p", 1), ("min_p", 0), ("typical_p", 1)):
                if getattr(self, name) != off:
                    _refuse(name, f"{off} with num_beams above 1, which draws nothing", getattr(self, name))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> GenerationConfig:
        """Return the same configuration with some parameters changed.

        Raises ValueError for a name that is no parameter, and suggests the nearest.

        >>> GenerationConfig().replace(temprature=0.5)
        Traceback (most recent call last):
            ...
        ValueError: GenerationConfig: unknown parameter 'temprature'; did you mean 'temperature'?
        """
        for name in changes:
            if name not in _NAMES:
                raise ValueError(f"GenerationConfig: unknown parameter {suggestion(name, _NAMES)}")
        return dataclasses.replace(self, **changes)

    # ---- generation_config.json, see config_file.py ----

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str = "generation_config.json") -> GenerationConfig:
        """Read the fields of a ``generation_config.json`` as ``transformers`` understands them.

        What it leaves out has the meaning that it has there: no ``do_sample`` is temperature 0, a
        ``do_sample`` without ``top_k`` is 50, and nothing is put before a prompt. ``max_length``,
        which counts the prompt too, is taken for ``max_new_tokens`` where that is absent.
        Parameters of ours that are unknown there have their own names.

        Raises ValueError that names a field which is unknown, or known but not implemented and not
        at rest.
        """
        values = to_parameters(fields, _NAMES, source)
        try:
            config = cls(**values)
        except ValueError as error:
            raise ValueError(f"{source}: {str(error).removeprefix('GenerationConfig: ')}") from None
        if config.eos_token_id and config.end_of_turn_token_id:  # the first holds both, see to_fields
            ends = tuple(id for id in config.eos_token_id if id not in config.end_of_turn_token_id)
            config = config.replace(eos_token_id=ends)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of ``generation_config.json``: from_dict's inverse, and what
        ``transformers`` reads.

        >>> GenerationConfig(temperature=0, eos_token_id=0).to_dict()
        {'max_new_tokens': 256, 'do_sample': False, 'eos_token_id': [0], 'add_bos': True}
        """
        return to_fields(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GenerationConfig:
        """Read ``generation_config.json``: ``path`` is the file, or the folder that holds it.

        In a model folder, special tokens that it leaves open are those of ``config.json``; and
        where there is no such file, it means the same as an empty one.

        Raises FileNotFoundError, or ValueError that says what is wrong with the file.
        """
        file, model = _file(path), Path(path) / "config.json"
        if not model.is_file():
            return cls.from_dict(read_json(file), source=str(file))
        fields = read_json(file) if file.exists() else {}
        return cls.from_dict(_special_tokens(read_json(model)) | _given(fields), source=str(file))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``generation_config.json``: ``path`` is the file, or the folder to hold it."""
        write_json(_file(path), self.to_dict())


_NAMES = tuple(f.name for f in dataclasses.fields(GenerationConfig))

_FLOATS = {
    "temperature": (0, 100),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "frequency_penalty": (-100, 100),
    "presence_penalty": (-100, 100),
    "repetition_penalty": (0.01, 100),
    "length_penalty": (-100, 100),
}
_INTEGERS = {
    "max_new_tokens": (0, LONGEST),
    "min_new_tokens": (0, LONGEST),
    "top_k": (0, LARGEST_ID),
    "no_repeat_ngram_size": (0, LONGEST),
    "n": (1, 1024),
    "num_beams": (1, 1024),
    "logprobs": (0, 1024),
}


def _refuse(name: str, expected: str, given: Any) -> None:
    raise ValueError(f"GenerationConfig: {name} must be {expected}; got {given!r:.60}")


def _float(name: str, value: Any, low: float, high: float) -> float:
    return float(_bounded(name, value, numbers.Real, "a number", low, high))


def _integer(name: str, value: Any, least: int, most: int) -> int:
    return int(_bounded(name, value, numbers.Integral, "an integer", least, most))


def _bounded(name: str, value: Any, kind: type, what: str, low: float, high: float) -> Any:
    is_kind: bool = isinstance(value, kind) and not isinstance(value, bool)
    if not is_kind or not low <= value <= high:  # a comparison with NaN is false, so that NaN is refused as well
        _refuse(name, f"{what} in [{low:.10g}, {high:.10g}]", value)
    return value


def _ids(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, numbers.Integral):
        value = (value,)
    if not isinstance(value, list | tuple) or len(value) > 1024:
        _refuse(name, "a token id, or at most 1024 of them", value)
    return tuple(_integer(name, id, 0, LARGEST_ID) for id in value)


def _strings(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple) or len(value) > 64:
        _refuse(name, "a string, or at most 64 of them", value)
    for text in value:
        if not isinstance(text, str) or not 1 <= len(text) <= 1000:
            _refuse(name, "strings of 1 to 1000 characters", text)
    return tuple(value)


def _biases(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping) or len(value) > 100_000:
        _refuse("logit_bias", "a table {token id: bias} with at most 100000 entries", value)
    return {
        _integer("logit_bias's token id", id, 0, LARGEST_ID): _float(f"logit_bias[{id}]", bias, -1e6, 1e6)
        for id, bias in value.items()
    }


def _file(path: str | os.PathLike[str]) -> Path:
    return Path(path) if Path(path).suffix == ".json" else Path(path) / "generation_config.json"


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that say something: null is as good as absent."""
    return {name: value for name, value in fields.items() if value is not None}


def _special_tokens(model: Mapping[str, Any]) -> dict[str, Any]:
    """Where a text begins and ends, as a model's ``config.json`` says.

    A file that keeps the default of a larger vocabulary, as GPT-2's 50256, says nothing: such an id
    can never come.
    """
    most = model.get("vocab_size")

    def can_come(id: Any) -> bool:
        return isinstance(id, int) and not isinstance(id, bool) and 0 <= id and (not isinstance(most, int) or id < most)

    found: dict[str, Any] = {}
    ends = model.get("eos_token_id")
    if ends := [id for id in (ends if isinstance(ends, list) else [ends]) if can_come(id)]:
        found["eos_token_id"] = ends
    if can_come(model.get("bos_token_id")):
        found["bos_token_id"] = model["bos_token_id"]
    return found
