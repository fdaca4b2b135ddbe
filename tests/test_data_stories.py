"""The default corpus: its probabilities, its riches, and that it cannot be foreseen without memory."""

import math
import re
from collections import Counter

import numpy as np
import pytest

from minillm.data import Grammar, StoryGrammar, corpus, floor, stories, train_and_validation
from minillm.data.grammar import _paths, _shape
from minillm.data.stories import NAMES, World
from minillm.tokenizer import BPETokenizer

MIA, TOM = NAMES[0], stories.BOYS[0]
SOME_WORLD = World(
    hero=MIA, love="swim", place="lake", thing="red ball", holder=TOM, friend=TOM, animal="fox",
    meeting_place="park", second="blue hat", second_holder=MIA, food="bread", flock="birds", number="three", events=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def documents():
    return corpus(4000, seed=5)


@pytest.fixture(scope="module")
def tokenizer(documents):
    return BPETokenizer.train([document.text for document in documents], 1024)


def alone(scene):
    """The grammar of one scene only."""

    def only(pen, world):
        scene(pen, world)

    return only


SCENES = ["habit", "treasure", "turn", "event", "give", "ask", "lose", "hide", "walk", "play", "tell", "eat", "count"]


@pytest.mark.parametrize("name", [*SCENES, "another", "trade", "ending"])
def test_the_probabilities_of_every_scene_sum_to_one_and_no_text_is_made_twice(name):
    scene = Grammar(alone(getattr(stories, name)), SOME_WORLD)
    written = list(scene.documents())
    assert len({document.text for document in written}) == len(written)
    probabilities = [math.exp(document.logprob) for document in written]
    assert math.fsum(probabilities) == pytest.approx(1, abs=1e-9)
    entropy = -math.fsum(p * d.logprob for p, d in zip(probabilities, written, strict=True))
    assert scene.entropy() == pytest.approx(entropy, rel=1e-9)


def test_all_ways_to_end_a_story():
    endings = Grammar(stories.turn, SOME_WORLD)
    written = list(endings.documents())
    assert len({document.text for document in written}) == len(written) == 10 * (4 + 2 * 10 + 16 + 20)
    assert math.fsum(math.exp(document.logprob) for document in written) == pytest.approx(1, abs=1e-9)
    for document in written[::50]:
        assert endings.logprob(document.text) == pytest.approx(document.logprob, rel=1e-12)


def test_the_mean_of_minus_log_p_is_the_entropy_computed_from_the_rules(documents):
    nats = np.array([-document.logprob for document in documents])
    standard_error = nats.std() / math.sqrt(len(nats))
    assert standard_error < 0.2
    assert abs(nats.mean() - StoryGrammar().entropy()) < 4 * standard_error


def test_reading_a_story_finds_exactly_the_probability_with_which_it_was_written(documents):
    grammar = StoryGrammar()
    for document in documents[:300]:
        assert grammar.logprob(document.text) == document.logprob


QUESTION = re.compile(r" Who had the [a-z]+ [a-z]+ now\? (\w+) had it\.")


def test_a_story_that_forgets_is_not_of_the_grammar(documents):
    """Who has it now is certain: with another name in the answer the probability is 0."""
    grammar, asked = StoryGrammar(), 0
    for document in documents[:400]:
        found = QUESTION.search(document.text)
        if found:
            asked += 1
            wrong = next(name for name in NAMES if name != found[1])
            forgetful = document.text.replace(found[0], found[0].replace(found[1], wrong))
            with pytest.raises(ValueError, match=f"leaves the grammar at character {found.start()}:"):
                grammar.logprob(forgetful)
    assert asked > 40


def test_at_least_300_words_and_40_sentence_patterns(documents):
    text = " ".join(document.text for document in documents)
    words = Counter(re.findall(r"[a-z]+", text.lower()))
    assert len([word for word, count in words.items() if count >= 10]) >= 300
    drawn = set(sum((list(value) for value in vars(stories).values() if isinstance(value, list)), []))
    drawn = {word for phrase in drawn for word in phrase.split()}
    patterns = Counter(
        " ".join("_" if word in drawn else word for word in re.findall(r"\w+|[.?!:]", sentence))
        for sentence in re.split(r"(?<=[.?!]) (?=[A-Z])", text)
    )
    assert sum(count >= 10 for count in patterns.values()) >= 40


def test_documents_have_some_60_to_200_tokens_and_a_floor_worth_learning(documents, tokenizer):
    lengths = [len(ids) for ids in tokenizer.encode_batch([document.text for document in documents])]
    assert min(lengths) >= 60 and max(lengths) <= 200
    assert 0.5 < floor(documents, lengths) < 1.5


def test_almost_every_word_is_one_token(documents, tokenizer):
    text = " ".join(document.text for document in documents[:500])
    assert len(tokenizer.encode(text)) < 1.05 * len(re.findall(r"\w+|[^\w\s]", text))


def test_no_story_is_likely_enough_to_come_twice_in_100_000():
    """The least nats that any story costs bound the probability of a repetition: n^2 / 2 max p."""
    known = {}

    def least(step):
        if step is None:
            return 0.0
        key = (step[0], _shape(step[1]))
        if key not in known:
            known[key] = min(sum(path.pen.nats) + least(path.next) for path in _paths(*step, everything=False))
        return known[key]

    cheapest = least(StoryGrammar()._start)
    assert 100_000**2 / 2 * math.exp(-cheapest) < 1e-6


def test_draws_do_not_depend_on_how_many_there_are():
    assert corpus(7, seed=3)[:4] == corpus(4, seed=3)
    assert not set(corpus(50, seed=3)) & set(corpus(50, seed=4))


def test_stories_told_before_are_left_out():
    first, second, third = corpus(3, seed=3)
    assert corpus(2, seed=3, exclude={second.text}) == [first, third]


def test_training_and_validation_share_no_story():
    train, validation = train_and_validation(300, 50, seed=1)
    assert len(train) == 300 and len(validation) == 50
    assert len({document.text for document in train + validation}) == 350
    assert train_and_validation(10, 50, seed=1)[1] == validation, "the same examination for runs of any length"


def test_floor_counts_the_end_of_text_token(documents):
    a, b = documents[:2]
    assert floor([a, b], [99, 49]) == pytest.approx(-(a.logprob + b.logprob) / 150, rel=1e-12)
    with pytest.raises(ValueError, match="floor: expected one count.*got 2 documents and 1 counts"):
        floor([a, b], [99])
    with pytest.raises(ValueError, match="got 0 documents"):
        floor([], [])


def test_who_has_it_now_cannot_be_guessed_from_names_alone(documents):
    """Neither the hero, nor the friend, nor the last one named, nor a name without looking back."""
    answers, guesses = Counter(), Counter()
    for document in documents:
        found = QUESTION.search(document.text)
        if not found:
            continue
        named = re.findall("|".join(NAMES), document.text[: found.start()])
        answers[found[1]] += 1
        guesses["hero"] += named[0] == found[1]
        guesses["friend"] += next(name for name in named if name != named[0]) == found[1]
        guesses["last"] += named[-1] == found[1]
        guesses["most"] += Counter(named).most_common(1)[0][0] == found[1]
    n = answers.total()
    assert n > 300
    spread = -sum(count / n * math.log(count / n) for count in answers.values())
    assert spread > math.log(len(NAMES)) - 0.15, "without looking back, every name is as likely as the others"
    assert all(0.25 < count / n < 0.75 for count in guesses.values()), guesses


MOVES = re.compile(
    r" gave the \w+ \w+ to (?P<given>\w+)"
    r"|, and (?P<picked>\w+) picked it up"
    r"|(?P<asker>\w+) asked: \"[^\"]+\" \"(?:Yes, take it|Of course|You can keep it),"
    r"|(?P<looked>\w+) looked \w+ the \w+ and found it"
    r"|(?P<saw>\w+) saw it \w+ the "
    r"|(?P<seeker>\w+) (?:looked|searched) \w+ the \w+(?:, then| and saw nothing)"
    r"|(?:Now )?(?P<a>\w+) (?:had|took) the (?P<x>\w+ \w+), and (?P<b>\w+) (?:had|took) the (?P<y>\w+ \w+)"
)


def test_who_has_it_now_agrees_with_a_reader_who_follows_the_story(documents):
    """The reader knows the meaning of the sentences, and nothing of the grammar."""
    asked = traded = 0
    for document in documents:
        found = re.search(r" Who had the (\w+ \w+) now\? (\w+) had it\.", document.text)
        if not found:
            continue
        hero = re.search(r"(?:named|called) (\w+)", document.text)[1]
        story = document.text[: found.start()]
        first = re.search(rf" a ((?:{'|'.join(stories.COLORS)}) (?:{'|'.join(stories.THINGS)}))", story)[1]
        holders = {first: hero}
        for finder, second in re.findall(r"(\w+) (?:found|bought) a (\w+ \w+)", story[story.index(first) :]):
            holders[second] = finder
        for move in MOVES.finditer(story):
            if move["a"]:
                traded += 1
                holders |= {move["x"]: move["a"], move["y"]: move["b"]}
            else:
                holders[first] = next(name for name in move.groups() if name)
        asked += 1
        assert holders[found[1]] == found[2], document.text
    assert asked > 300 and traded > 10
