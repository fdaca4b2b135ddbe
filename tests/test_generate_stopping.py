"""Stop strings: the same text however it is cut into tokens, and nothing of a stop string is ever shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.generation import GenerationConfig
from minillm.generation.stopping import StopStrings, asked, ending
from tests.generate_mocks import MockTokenizer

letters = st.text("ab", max_size=12)


def first_stop(text, strings):
    """By definition: the text before the stop string that is complete first."""
    for end in range(1, len(text) + 1):
        complete = [string for string in strings if text[:end].endswith(string)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@settings(deadline=None, max_examples=400)
@given(st.lists(letters, max_size=6), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_equal_to_the_definition_however_the_text_is_cut(pieces, strings):
    stops, shown = StopStrings(strings), ""
    expected, found = first_stop("".join(pieces), strings)
    for piece in pieces:
        shown += stops.push(piece)
        assert expected.startswith(shown), "shown too early"
        if stops.found:
            break
        assert not any(string in shown for string in strings)
        held = "".join(pieces)[len(shown) :]
        assert len(stops.held) < max(map(len, strings)) and held.startswith(stops.held)
    assert stops.found == found
    assert shown + stops.flush() == expected


def test_what_is_held_back():
    stops = StopStrings(["\nUser:", "END"])
    assert [stops.push(piece) for piece in ["Hi", "\n", "Us", "e", "d\nE", "N", "\nU", "ser:", "x"][:8]] == [
        "Hi", "", "", "", "\nUsed\n", "", "EN", "",
    ]  # fmt: skip
    assert stops.found and stops.held == ""


def test_which_tokens_end_a_text():
    tokenizer = MockTokenizer("ab", special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"))

    def ids(**changes):
        return ending(tokenizer, GenerationConfig(**changes), None).ids

    assert ids() == {2: "eos", 4: "end_of_turn"}
    assert ids(eos_token_id=4) == {4: "end_of_turn"}, "SmolLM2's file calls <|im_end|> the end of text"
    assert ids(eos_token_id=(2, 0), end_of_turn_token_id=()) == {2: "eos", 0: "eos"}
    assert ids(eos_token_id=(), end_of_turn_token_id=1) == {1: "end_of_turn"}
    assert ending(MockTokenizer("ab", special=()), GenerationConfig(), None).ids == {}


def test_cancel_is_asked_each_time():
    answers = iter([False, True])
    cancelled = asked(lambda: next(answers))
    assert [cancelled(), cancelled()] == [False, True]
    assert asked(None)() is False


@pytest.mark.parametrize("text", ["", "a", "aaaaaaab"])
def test_nothing_is_lost_without_a_stop(text):
    stops = StopStrings(["aab_", "zz"])
    assert "".join(map(stops.push, text)) + stops.flush() == text and not stops.found
