"""The engine that knows its own probabilities, on grammars small enough to write down every text."""

import doctest
import math
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest

from minillm.data import Document, Grammar, grammar

NAMES = ["Mia", "Tom", "Ben"]


class World(NamedTuple):
    giver: str = ""
    owner: str = ""
    gifts: int = 0


def begin(pen, world):
    pen.say("One day ", "At night ")
    name = pen.pick(NAMES, end=" had a ball.")
    return give, World(giver=name, owner=name)


def give(pen, world):
    """The owner gives the ball away or not: at most twice, and the second time it may come back."""
    if world.gifts == 2 or not pen.choose({" Then": True, " Now": False}, weights=[3, 1]):
        if world.gifts == 2:
            pen.say(" Now")
        pen.say(f" {world.owner} has it.")
        return None
    receiver = pen.pick(NAMES, but=(world.owner,), end=" got it.") if world.gifts == 0 else world.giver
    if world.gifts == 1:
        pen.say(f" it went to {receiver}.")
    return give, World(world.giver, receiver, world.gifts + 1)


GIFTS = Grammar(begin)


def texts_by_hand():
    """Every text of the grammar above, from its description."""
    texts = {}
    for start in ("One day ", "At night "):
        for giver in NAMES:
            head = f"{start}{giver} had a ball."
            texts[f"{head} Now {giver} has it."] = 1 / 6 * 1 / 4
            for receiver in NAMES:
                if receiver != giver:
                    once = f"{head} Then{receiver} got it."
                    texts[f"{once} Now {receiver} has it."] = 1 / 6 * 3 / 4 * 1 / 2 * 1 / 4
                    texts[f"{once} Then it went to {giver}. Now {giver} has it."] = 1 / 6 * 3 / 4 * 1 / 2 * 3 / 4
    return texts


def test_every_text_is_found_once_with_its_probability():
    documents = list(GIFTS.documents())
    assert len(documents) == len({document.text for document in documents}) == 30
    assert {d.text: pytest.approx(math.exp(d.logprob), rel=1e-12) for d in documents} == texts_by_hand()
    assert math.fsum(math.exp(d.logprob) for d in documents) == pytest.approx(1, abs=1e-12)


def test_entropy_is_the_mean_of_minus_log_p():
    by_hand = -math.fsum(p * math.log(p) for p in texts_by_hand().values())
    assert GIFTS.entropy() == pytest.approx(by_hand, rel=1e-12)


def test_reading_finds_the_probability_of_every_text():
    for text, probability in texts_by_hand().items():
        assert GIFTS.logprob(text) == pytest.approx(math.log(probability), rel=1e-12)


def test_samples_come_as_often_as_their_probability_says():
    rng, n = np.random.default_rng(0), 20_000
    drawn = Counter(GIFTS.sample(rng) for _ in range(n))
    expected = texts_by_hand()
    assert {document.text for document in drawn} == set(expected)
    for (text, logprob), count in drawn.items():
        p = expected[text]
        assert logprob == pytest.approx(math.log(p), rel=1e-12)
        assert abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p)), text


def test_sampling_is_a_function_of_the_generator_state():
    draw = [GIFTS.sample(np.random.default_rng(7)) for _ in range(2)]
    assert draw[0] == draw[1] and isinstance(draw[0], Document)
    assert len({GIFTS.sample(np.random.default_rng(i)) for i in range(20)}) > 5


def test_choices_say_where_and_how_much():
    text = "At night Tom had a ball. ThenMia got it. Now Mia has it."
    choices = GIFTS.choices(text)
    assert "".join(choice.text for choice in choices) == text
    assert all(text.startswith(choice.text, choice.position) for choice in choices)
    costs = {choice.text.strip(): choice.nats for choice in choices}
    assert costs["At night"] == pytest.approx(math.log(2)) and costs["Tom had a ball."] == pytest.approx(math.log(3))
    assert costs["Then"] == pytest.approx(math.log(4 / 3)) and costs["Now"] == pytest.approx(math.log(4))
    assert costs["Mia has it."] == 0, "what is known costs nothing"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"character 0: expected 'One day ' or 'At night '; got its end"),
        ("One day Zoe had a ball.", r"character 8: expected 'Mia had .* or 'Ben had a ball.'; got 'Zoe had a ball.'"),
        ("One day Mia had a ball. Now Tom has it.", r"character 27: expected ' Mia has it.'; got ' Tom has it.'"),
        ("One day Mia had a ball. Now Mia has it. Ha!", r"character 39: expected its end; got ' Ha!'"),
        ("One day Mia had a ball. ThenMia got it. Now Mia has it.", r"character 28: expected 'Tom got it.' or 'Ben"),
    ],
)
def test_a_text_of_another_grammar_is_refused_with_its_position(text, message):
    with pytest.raises(ValueError, match=message):
        GIFTS.logprob(text)


@pytest.mark.parametrize("options", [["a", "ab"], ["b", "a", "b"], ["", "x"]])
def test_options_that_begin_alike_are_refused(options):
    ambiguous = Grammar(lambda pen, world: pen.say(*options))
    for prove in (ambiguous.entropy, lambda: list(ambiguous.documents()), lambda: ambiguous.logprob(max(options))):
        with pytest.raises(ValueError, match="none may be the beginning of another"):
            prove()


def test_entropy_tells_worlds_apart_by_which_words_are_equal_and_by_numbers():
    def first(pen, world):
        giver = pen.pick(NAMES)
        keeps = pen.choose({" keeps": True, " gives": False}, weights=[1, 2])
        owner = giver if keeps else pen.pick(NAMES, but=(giver,))
        return second, World(giver, owner, gifts=pen.choose({" once": 1, " twice": 2}))

    def second(pen, world):
        pen.say(*"abcde"[: world.gifts + 2 * (world.giver == world.owner)])

    documents = list(Grammar(first).documents())
    assert len(documents) == 3 * (3 + 4) + 3 * 2 * (1 + 2)
    by_hand = -math.fsum(math.exp(d.logprob) * d.logprob for d in documents)
    assert Grammar(first).entropy() == pytest.approx(by_hand, rel=1e-12)


def test_the_examples_in_the_text_run():
    assert doctest.testmod(grammar).failed == 0


def test_the_probability_of_a_beginning_is_that_of_all_texts_that_begin_so():
    texts = texts_by_hand()
    for text in texts:
        found = GIFTS.prefix_nats(text, range(len(text) + 1))
        for end, nats in enumerate(found):
            expected = sum(p for other, p in texts.items() if other.startswith(text[:end]))
            assert math.exp(-nats) == pytest.approx(expected), (text, end)
