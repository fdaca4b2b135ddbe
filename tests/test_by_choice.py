"""Nats above the floor by kind of word: they add up to the loss and to the floor, and tell who guesses."""

import math

import numpy as np
import pytest

from minillm import Tensor, data, evaluate
from minillm.data.story_words import KINDS, kinds_of
from minillm.tokenizer import BPETokenizer, load
from minillm.training.by_choice import Share, by_choice, table, token_nats
from minillm.training.evaluation_data import validation_stories
from minillm.training.run import Run

STORIES = data.corpus(6, seed=3)
TOKENIZER = BPETokenizer.train([story.text for story in data.corpus(40)], 400)


class Shy:
    """Gives every next token the same score, but one more to the first ids: a loss that differs by token."""

    training = False
    is_encoder_decoder = False

    def eval(self):
        return self

    def __call__(self, ids):
        scores = np.zeros((*ids.shape, TOKENIZER.vocab_size), np.float32)
        scores[..., :300] = 1
        return Tensor(scores)


def test_the_kinds_add_up_to_the_loss_and_to_the_floor():
    shares = by_choice(Shy(), TOKENIZER, STORIES)
    ids = TOKENIZER.encode_batch([story.text for story in STORIES])
    tokens = sum(len(row) + 1 for row in ids)
    assert sum(share.tokens for share in shares) == tokens
    assert sum(share.floor for share in shares) == pytest.approx(-sum(story.logprob for story in STORIES))
    batches = data.DocumentDataset(ids, ids, 256, TOKENIZER.eos_id).validation(4)
    assert sum(share.nats for share in shares) == pytest.approx(evaluate(Shy(), batches).loss * tokens, rel=1e-6)
    assert {share.kind.split(",")[0] for share in shares} <= {*KINDS, "phrase", "end of the text"}
    assert [s.nats - s.floor for s in shares] == sorted((s.nats - s.floor for s in shares), reverse=True)


def test_what_is_certain_has_no_floor_and_what_is_drawn_by_lot_that_of_the_draw():
    shares = {share.kind: share for share in by_choice(Shy(), TOKENIZER, STORIES)}
    assert shares["name, certain"].floor == pytest.approx(0, abs=1e-6)
    assert shares["name, certain"].tokens > 10
    assert shares["end of the text, certain"].tokens == len(STORIES)
    # a story has one thing at least, drawn from 24, told in one token or more
    assert shares["thing, to choose"].floor >= len(STORIES) * math.log(22)


def test_token_costs_are_those_of_each_story_alone():
    every = token_nats(Shy(), TOKENIZER, STORIES, rows=4)
    for story, costs in zip(STORIES, every, strict=True):
        ids = [*TOKENIZER.encode(story.text), TOKENIZER.eos_id]
        total = math.log(300 * math.e + TOKENIZER.vocab_size - 300)
        np.testing.assert_allclose(costs, [total - (id < 300) for id in ids], rtol=1e-6)


def test_a_tokenizer_that_begins_every_text_changes_nothing(tmp_path):
    begins = BPETokenizer.train([story.text for story in data.corpus(40)], 400)
    begins.set_beginning(begins.eos_id, True)
    begins.as_trained().save(tmp_path)
    loaded = load(tmp_path)
    assert loaded.encode("Tom")[0] == loaded.eos_id
    assert by_choice(Shy(), loaded, STORIES) == by_choice(Shy(), TOKENIZER, STORIES)


def test_words_are_found_whole():
    assert kinds_of("the redhead", [11]) == ["phrase"]
    assert kinds_of("Mia", [2, 2, 3]) == ["name", "phrase", "name"]  # a token without characters is no name


def test_a_run_on_other_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="did not learn from made-up stories"):
        validation_stories(tmp_path)
    Run.create(tmp_path / "tuned", {"command": "sft", "start": "runs/stories", "data": None, "seed": 0})
    with pytest.raises(ValueError, match="tuned did not learn from made-up stories"):
        validation_stories(tmp_path / "tuned")


def test_nothing_above_the_floor_is_no_division_by_zero():
    assert table([Share("name, certain", 2, 1.0, 1.0)]).splitlines()[1].split()[-2:] == ["0.0", "%"]
