"""The configuration: bounds, messages, and the file that transformers shares."""

import dataclasses
import json
import math
import time

import numpy as np
import pytest

from minillm.generation import GenerationConfig
from tests.faults import mutated_json

ODD = GenerationConfig(
    max_new_tokens=7, min_new_tokens=2, stop=("a", "\n"), slide=True, temperature=0.7, top_k=5, top_p=0.9, min_p=0.1,
    typical_p=0.8, frequency_penalty=0.5, presence_penalty=-0.5, repetition_penalty=1.3, no_repeat_ngram_size=3,
    logit_bias={3: -1.5, 0: 2.0}, n=2, seed=11, num_beams=1, length_penalty=0.5, early_stopping="never", logprobs=4,
    echo=True, special=True, eos_token_id=(0, 3), end_of_turn_token_id=(2,), bos_token_id=1, pad_token_id=4,
    decoder_start_token_id=5, add_bos=False,
)  # fmt: skip


def test_every_field_differs_from_its_default():
    """So that the tests below miss none."""
    same = [f.name for f in dataclasses.fields(ODD) if getattr(ODD, f.name) == getattr(GenerationConfig(), f.name)]
    assert same == ["num_beams"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"temperature": -0.1}, r"temperature must be a number in \[0, 100\]; got -0.1"),
        ({"temperature": math.nan}, r"temperature must be a number in \[0, 100\]; got nan"),
        ({"temperature": math.inf}, ".*; got inf"),
        ({"temperature": "hot"}, ".*; got 'hot'"),
        ({"temperature": True}, ".*; got True"),
        ({"temperature": 1e-9}, r"temperature must be 0 \(the most likely token\) or at least 1e-06; got 1e-09"),
        ({"top_p": 1.5}, r"top_p must be a number in \[0, 1\]; got 1.5"),
        ({"min_p": -1}, r"min_p must be a number in \[0, 1\]"),
        ({"typical_p": 2}, r"typical_p must be a number in \[0, 1\]"),
        ({"top_k": 2.5}, r"top_k must be an integer in \[0, 2147483647\]; got 2.5"),
        ({"top_k": -1}, "top_k .*; got -1"),
        ({"repetition_penalty": 0}, r"repetition_penalty must be a number in \[0.01, 100\]; got 0"),
        ({"frequency_penalty": 1e9}, "frequency_penalty must be a number"),
        ({"max_new_tokens": 10**30}, r"max_new_tokens must be an integer in \[0, 1000000\]"),
        ({"max_new_tokens": 3, "min_new_tokens": 4}, "min_new_tokens must be at most max_new_tokens = 3; got 4"),
        ({"n": 0}, r"n must be an integer in \[1, 1024\]; got 0"),
        ({"seed": -1}, "seed must be an integer"),
        ({"logprobs": True}, "logprobs must be an integer"),
        ({"echo": 1}, "echo must be True or False; got 1"),
        ({"stop": ""}, "stop must be strings of 1 to 1000 characters; got ''"),
        ({"stop": ["a", 3]}, "stop must be strings of 1 to 1000 characters; got 3"),
        ({"stop": ["a"] * 65}, "stop must be a string, or at most 64 of them"),
        ({"stop": 5}, "stop must be a string, or at most 64 of them; got 5"),
        ({"logit_bias": {-1: 2}}, "logit_bias's token id must be an integer"),
        ({"logit_bias": {"1": 2}}, "logit_bias's token id must be an integer"),
        ({"logit_bias": {1: math.inf}}, r"logit_bias\[1\] must be a number"),
        ({"logit_bias": [1]}, "logit_bias must be a table"),
        ({"eos_token_id": -1}, "eos_token_id must be an integer"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id, or at most 1024 of them"),
        ({"bos_token_id": 1.0}, "bos_token_id must be an integer"),
        ({"early_stopping": "soon"}, "early_stopping must be True, False or \"never\"; got 'soon'"),
        ({"num_beams": 2, "n": 3}, "n must be at most num_beams = 2; got 3"),
        ({"num_beams": 2, "top_k": 3}, "top_k must be 0 with num_beams above 1, which draws nothing; got 3"),
        ({"num_beams": 2, "temperature": 0.5}, "temperature must be 1 with num_beams above 1"),
        ({"num_beams": 2, "slide": True}, "slide must be False with num_beams above 1"),
    ],
)
def test_bounds(given, message):
    with pytest.raises(ValueError, match="GenerationConfig: " + message):
        GenerationConfig(**given)


def test_values_get_their_plain_types():
    config = GenerationConfig(top_k=np.int64(3), temperature=np.float32(0.5), stop=["a"], eos_token_id=[1], top_p=1)
    assert (config.top_k, config.temperature, config.stop, config.eos_token_id) == (3, 0.5, ("a",), (1,))
    assert [type(v) for v in (config.top_k, config.temperature, config.top_p)] == [int, float, float]
    bias = {1: 2}
    kept = GenerationConfig(logit_bias=bias)
    bias[1] = 5
    assert kept.logit_bias == {1: 2.0}


def test_replace():
    assert ODD.replace(top_k=6).top_k == 6 and ODD.replace(top_k=5) == ODD
    with pytest.raises(ValueError, match="unknown parameter 'top_n'; did you mean 'top_p'"):
        ODD.replace(top_n=3)
    with pytest.raises(ValueError, match="top_p must be a number"):
        ODD.replace(top_p=7)


# ---- generation_config.json ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        GenerationConfig(),
        ODD,
        ODD.replace(temperature=0),
        GenerationConfig(temperature=0, n=3, num_beams=4, length_penalty=2, early_stopping=True),
        GenerationConfig(eos_token_id=()),
        GenerationConfig(eos_token_id=(), end_of_turn_token_id=2),
    ],
)
def test_the_file_holds_everything(config, tmp_path):
    config.save(tmp_path)
    loaded = GenerationConfig.load(tmp_path)
    assert loaded == config
    assert GenerationConfig.load(tmp_path / "generation_config.json") == loaded
    assert set(json.loads((tmp_path / "generation_config.json").read_text())) >= {"do_sample", "max_new_tokens"}


def test_a_file_means_what_it_means_to_transformers():
    read = GenerationConfig.from_dict
    assert read({}).temperature == 0, "do_sample is false where it is absent"
    assert read({"temperature": 0.7}).temperature == 0
    assert read({}).add_bos is False
    sampled = read({"do_sample": True, "temperature": 0.7, "top_p": 0.9, "transformers_version": "5.0.0"})
    assert (sampled.temperature, sampled.top_p, sampled.top_k) == (0.7, 0.9, 50)
    assert read({"do_sample": True, "top_k": 0}).top_k == 0
    assert read({"max_length": 9}).max_new_tokens == 9
    assert read({"max_length": 9, "max_new_tokens": 5}).max_new_tokens == 5
    assert read({"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 2}).eos_token_id == (2,)
    assert read({"eos_token_id": [2, 3]}).eos_token_id == (2, 3)
    assert read({"stop_strings": "x", "num_return_sequences": 3}).replace(n=1).stop == ("x",)
    assert read({"sequence_bias": [[[3], -1.0], [[4], 2]]}).logit_bias == {3: -1.0, 4: 2.0}
    assert read({"top_k": None, "epsilon_cutoff": 0.0, "suppress_tokens": [], "use_cache": True}) == read({})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temprature": 1}, "unknown field 'temprature'; did you mean 'temperature'"),
        ({"stop_string": "a"}, "unknown field 'stop_string'; did you mean 'stop_strings'"),
        ({"zzz": 1}, "unknown field 'zzz'$"),
        ({"epsilon_cutoff": 0.1}, "epsilon_cutoff = 0.1 is not implemented"),
        ({"bad_words_ids": [[3]]}, r"bad_words_ids = \[\[3\]\] is not implemented"),
        ({"suppress_tokens": [1] * 1000}, "suppress_tokens = .{1,60} is not implemented"),
        ({"do_sample": "yes"}, "do_sample must be true or false; got 'yes'"),
        ({"top_p": "0.9"}, r"top_p must be a number in \[0, 1\]; got '0.9'"),
        ({"sequence_bias": [[[3, 4], -1.0]]}, "sequence_bias must be a list"),
        ({"sequence_bias": 3}, "sequence_bias must be a list"),
        ({"eos_token_id": {}}, "eos_token_id must be a token id"),
        ({"do_sample": True, "num_beams": 2}, "top_k must be 0 with num_beams above 1"),
    ],
)
def test_a_file_that_cannot_be_followed_is_refused_by_name(fields, message, tmp_path):
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        GenerationConfig.load(path)


def test_300_mutated_files(tmp_path):
    """Each is refused with a ValueError that names the file, quickly, or gives a configuration that can be written."""
    rng = np.random.default_rng(3)
    ODD.save(tmp_path)
    path = tmp_path / "generation_config.json"
    good = path.read_bytes()
    refused = 0
    for _ in range(300):
        path.write_bytes(mutated_json(good, rng))
        begun = time.process_time()
        try:
            GenerationConfig.load(tmp_path).to_dict()
        except ValueError as error:
            assert str(error).startswith(str(path)), error
            refused += 1
        assert time.process_time() - begun < 1
    assert 150 < refused < 300


def test_numbers_of_numpy_are_numbers():
    given = GenerationConfig(
        max_new_tokens=np.int64(5), temperature=np.float32(0.5), seed=np.uint8(3), echo=np.bool_(True),
        early_stopping=np.bool_(True), eos_token_id=np.int16(2), logit_bias={np.int64(1): np.float32(0.25)},
    )  # fmt: skip
    plain = GenerationConfig(
        max_new_tokens=5, temperature=0.5, seed=3, echo=True, early_stopping=True, eos_token_id=2, logit_bias={1: 0.25}
    )
    assert given == plain and json.dumps(given.to_dict()) == json.dumps(plain.to_dict())
    assert given.early_stopping is True and given.echo is True
