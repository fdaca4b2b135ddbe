"""A recipe is complete, what was not chosen suits the rest, and old run folders hold recipes too."""

import doctest
import json

import numpy as np
import pytest

from minillm import Recipe
from minillm.training import recipe
from minillm.training.build import build_model
from minillm.training.run import Run
from minillm.training.setup import Setup

TINY = {"layers": 1, "heads": 2, "width": 16, "context": 16, "batch_size": 4, "steps": 3, "tokenizer": "char"}


def test_docstring_examples():
    assert doctest.testmod(recipe).failed == 0


def test_what_is_left_out_suits_the_data_and_the_model(tmp_path):
    stories, text = Recipe(), Recipe(data=tmp_path / "a.txt")
    assert (stories.steps, stories.context, stories.batch_size) == (520, 256, 8)
    assert (stories.rows, stories.learning_rate, Recipe(model="rnn").steps) == ("bucketed", 3e-3, 1200)
    assert (text.steps, text.context, text.batch_size, text.data) == (2000, 128, 16, str(tmp_path / "a.txt"))
    assert (stories.layers, stories.width, stories.heads, stories.optimizer) == (2, 192, 6, "muon")
    assert (text.layers, text.width, text.heads, text.optimizer) == (4, 128, 4, "adamw")
    assert (Recipe(width=64).heads, Recipe(optimizer="adamw").learning_rate, text.learning_rate) == (4, 2e-3, 2e-3)
    assert (Recipe(model="rnn").layers, Recipe(model="rnn").width) == (2, 256)
    assert Recipe(width=64, layers=None).width == 64 and Recipe(layers=None).layers == 2
    nothing = {name for name, value in vars(text).items() if value is None}
    assert nothing == {"start"}
    assert stories.completed() is stories


def test_what_a_model_does_not_choose_has_its_value_and_is_not_kept():
    found = {kind: (made.heads, made.kv_heads, made.attention, made.dropout) for kind in ("llama", "gpt2", "rnn")
             for made in [Recipe(model=kind)]}  # fmt: skip
    assert found == {"llama": (6, 6, "dot", 0.0), "gpt2": (4, 4, "dot", 0.0), "rnn": (1, 1, "dot", 0.0)}
    of_some = {"heads", "kv_heads", "attention", "dropout"}
    kept = {kind: of_some & Recipe(model=kind).to_dict().keys() for kind in ("llama", "gpt2", "rnn")}
    assert kept == {"llama": {"heads", "kv_heads"}, "gpt2": {"heads", "dropout"}, "rnn": {"attention"}}
    # a model to start with keeps its own dropout, unless another is chosen
    assert "dropout" not in Recipe(model="gpt2", start="x").to_dict()
    assert Recipe(model="gpt2", start="x", dropout=0.0).to_dict()["dropout"] == 0.0


def test_what_follows_from_the_steps_follows_other_steps_too():
    names = ("warmup", "evaluate_every", "checkpoint_every")
    usual, chosen = Recipe(steps=100), Recipe(steps=100, warmup=5, evaluate_every=10, checkpoint_every=10)
    assert [getattr(made, name) for made in (usual, chosen) for name in names] == [5, 10, 10] * 2
    assert [getattr(usual.replace(steps=5000), name) for name in names] == [200, 500, 500]
    assert [getattr(chosen.replace(steps=5000), name) for name in names] == [5, 10, 10]
    assert not usual.to_dict().keys() & set(names) and chosen.to_dict().keys() >= set(names)
    assert usual != chosen and Recipe.from_settings(usual.to_dict()).replace(steps=5000).warmup == 200
    # the trainer is told what was chosen: a checkpoint then says the same as one of an older version
    assert (usual.train_config().warmup, chosen.train_config().warmup) == (None, 5)


def test_a_recipe_comes_back_from_json():
    chosen = {"model": "lstm", "attention": "none", "warmup": 0, "schedule": "constant", "best": True}
    for made in (Recipe(), Recipe(steps=7, seed=3, model="gpt2", dropout=0.1), Recipe(**chosen), Recipe(kv_heads=2)):
        settings = json.loads(json.dumps(made.to_dict()))
        assert Recipe.from_settings(settings) == made
        assert Recipe.from_settings(settings | dict.fromkeys(made.following)) == made  # older files say null


def test_a_run_from_before_documents_had_rows_of_their_own_goes_on_as_it_began():
    new = ("rows", "split", "schedule")
    old = {name: value for name, value in Recipe(steps=7).to_dict().items() if name not in new}
    made = Recipe.from_settings(old)
    assert (made.rows, made.split) == ("packed", "documents")
    config = made.train_config()
    assert (config.schedule, config.final_fraction) == ("cosine", 0.03)
    new = Recipe(steps=7).train_config()
    assert (new.schedule, new.decay, new.final_fraction) == ("wsd", 0.6, 0.0)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "rnn"])
def test_a_run_from_before_there_was_more_to_choose(kind):
    """Its training.json gave heads to the rnn, which has none."""
    new = ("start", "kv_heads", "attention", "dropout", "schedule", "warmup", "weight_decay", "evaluate_every",
           "checkpoint_every", "best")  # fmt: skip
    made = Recipe(model=kind, data="text.txt", steps=40)
    old = {name: value for name, value in made.to_dict().items() if name not in new} | {"heads": 4}
    assert Recipe.from_settings(old) == made
    assert made.heads == made.kv_heads == (1 if kind == "rnn" else 4)
    config = made.train_config()
    assert (config.schedule, config.final_fraction, config.warmup, config.weight_decay) == ("cosine", 0.1, None, 0.1)
    assert (config.evaluate_every, config.checkpoint_every, config.sample_every) == (4, 4, 8)


def test_what_is_chosen_reaches_the_trainer_and_the_model():
    recipe = Recipe(steps=40, warmup=3, weight_decay=0, schedule="constant", evaluate_every=7, checkpoint_every=9)
    config = recipe.train_config()
    assert (config.warmup, config.weight_decay, config.schedule) == (3, 0.0, "constant")
    assert (config.evaluate_every, config.checkpoint_every) == (7, 9)
    sizes = {"layers": 1, "width": 16, "context": 8}
    built = {kind: build_model(Recipe("x", model=kind, **sizes | chosen), 20, 1).config for kind, chosen in {
        "llama": {"kv_heads": 2}, "gpt2": {"dropout": 0.25}, "t5": {"dropout": 0.25, "heads": 2},
        "gru": {"attention": "additive"}, "lstm": {"attention": "none"}, "rnn": {},
    }.items()}  # fmt: skip
    assert (built["llama"].num_attention_heads, built["llama"].kv_heads) == (4, 2)
    assert {built["gpt2"].resid_pdrop, built["gpt2"].embd_pdrop, built["gpt2"].attn_pdrop} == {0.25}
    t5 = built["t5"]
    assert (t5.dropout_rate, t5.num_heads, t5.d_kv, t5.eos_token_id) == (0.25, 2, 8, 1)
    found = {kind: (built[kind].cell, built[kind].attention) for kind in ("rnn", "gru", "lstm")}
    assert found == {"rnn": ("gru", "dot"), "gru": ("gru", "additive"), "lstm": ("lstm", "none")}


def test_numbers_of_numpy_are_numbers(tmp_path):
    made = Recipe(steps=np.int64(7), width=np.int32(32), learning_rate=np.float32(0.25))
    assert made == Recipe(steps=7, width=32, learning_rate=0.25) and type(made.steps) is int
    Run.create(tmp_path / "run", {"steps": np.int64(7), "rate": np.float32(0.25)})
    assert Run.open(tmp_path / "run").settings == {"steps": 7, "rate": 0.25}
    Run.open(tmp_path / "run").log({"step": 1, "floor": np.float32(0.5)})
    assert Run.open(tmp_path / "run").records() == [{"step": 1, "floor": 0.5}]


@pytest.mark.parametrize(
    "chosen, message",
    [
        ({"step": 3}, "unknown setting 'step'; did you mean 'steps'"),
        ({"width": 100, "heads": 3}, "width must be divisible by heads; got width 100, heads 3"),
        ({"width": 12, "heads": 4}, "must be even for the llama model; got 12 / 4"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"steps": "many"}, "steps must be at least 1; got many"),
        ({"dropout": "much", "model": "t5"}, "dropout must be at least 0 and below 1; got much"),
        ({"following": frozenset()}, "unknown setting 'following'"),
        ({"steps": 2.5}, "steps must be at least 1; got 2.5"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"model": "mamba"}, "model must be one of llama, gpt2, t5, rnn, gru, lstm; got 'mamba'"),
        ({"model": "rnn", "heads": 4}, "heads must be left out: a model of the kind rnn has no such setting"),
        ({"model": "gpt2", "kv_heads": 2}, "kv_heads must be left out: a model of the kind gpt2"),
        ({"model": "lstm", "dropout": 0.1}, "dropout must be left out: a model of the kind lstm"),
        ({"attention": "dot"}, "attention must be left out: a model of the kind llama"),
        ({"model": "gru", "attention": "flash"}, "attention must be one of dot, additive, none; got 'flash'"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads must be a divisor of heads = 4; got 3"),
        ({"model": "gpt2", "dropout": 1}, "dropout must be at least 0 and below 1; got 1"),
        ({"schedule": "linear"}, "schedule must be one of cosine, wsd, constant; got 'linear'"),
        ({"steps": 5, "warmup": 6}, "warmup must be from 0 to steps = 5; got 6"),
        ({"weight_decay": -1}, "weight_decay must be a number"),
        ({"evaluate_every": 0}, "evaluate_every must be at least 1; got 0"),
        ({"model": "t5"}, "a t5 learns from questions and answers: data must be"),
        ({"model": "t5", "data": "x.tsv", "vocab_size": 257}, "vocab_size must be at least 258 .* <pad> and </s>"),
        ({"best": "yes"}, "best must be one of True, False; got 'yes'"),
        ({"vocab_size": 256}, "at least 257"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
    ],
)
def test_settings_that_make_no_sense(chosen, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**chosen)


def test_an_old_run_goes_on_with_the_text_that_it_held_out(tmp_path):
    """Its settings hold None where nothing was to be chosen, and no word of how the text was split."""
    for name, size in (("a", 3000), ("b", 300), ("c", 300)):
        (tmp_path / f"{name}.txt").write_text(f"{name} " * size)
    settings = Recipe(data=tmp_path, **TINY).to_dict() | {"vocab_size": None, "seed": 1}
    del settings["split"]
    old, new = Recipe.from_settings(settings), Recipe(data=tmp_path, seed=1, **TINY)
    assert (old.split, new.split) == ("documents", "text")
    # one of three documents was held out, here the longest; of the new one, a tenth of the text
    assert Setup.prepare(old).corpus.dataset.validation_tokens == 5999
    assert Setup.prepare(new).corpus.dataset.validation_tokens == pytest.approx(720, abs=2)
