"""Lesson 10. A language model: how surprised it is, how far from the best possible, and what it still guesses.

    python examples/10_language_model.py
"""

# %% [markdown]
# # A language model
#
# A **language model** reads the beginning of a text and gives each token of its vocabulary a probability: the
# probability that it comes next. Nothing else. From that it can write: draw a token, append it, ask again.
#
# How good are its probabilities? We take a text that it has not seen, look at the probability `p` that it gave to
# each token that really came, and call `-ln p` its surprise, in **nats**. A certain token costs 0, one that was
# thought impossible costs infinity. The mean surprise is the **loss**.
#
# Is a loss of 0.9 good? For a text from a book, nobody can say. So here the text is made by a grammar: a program that
# writes little stories by rolling dice. It knows the probability of each choice, and so that of the whole text.

# %%
import dataclasses
import lzma

import numpy as np
from course import Lesson, close, story_run

from minillm import GenerationConfig, Recipe, Trainer, data, files, generate
from minillm.training.by_choice import by_choice, table
from minillm.training.evaluation_data import validation_stories
from minillm.training.setup import Setup

lesson = Lesson("10_language_model")

story = data.corpus(1, seed=7)[0]
print(story.text, "\n")
print("what was chosen               one of    nats")
for choice in data.StoryGrammar().choices(story.text)[:8]:
    print(f"{choice.text!r:30} {np.exp(choice.nats):5.0f} {choice.nats:7.3f}")
print(f"... and so on; all together {-story.logprob:.1f} nats, and not one less for any reader in the world")

# %% [markdown]
# # The two ends of the scale
#
# Whoever knows nothing gives all `V` tokens the same probability, `1 / V`, and is surprised by `ln V` each time: the
# **random baseline**. Whoever knows the grammar pays what the dice cost, and nothing more: the **floor**, the
# *entropy* of the text. On average over many stories no model gets below it, however large. All that can be learned
# lies between the two.
#
# `Setup.prepare` does what the earlier lessons did by hand: it writes stories, learns a BPE tokenizer from them
# (lesson 6), encodes them, keeps 400 of them apart for the examination, and makes a transformer (lesson 9) with
# random weights.

# %%
recipe = Recipe(steps=400, layers=3, width=96, batch_size=5, learning_rate=4e-3, optimizer="adamw",
                evaluate_every=80, checkpoint_every=80)  # fmt: skip
made = Setup.prepare(recipe)
corpus, model = made.corpus, made.model
baseline, floor = np.log(corpus.tokenizer.vocab_size), corpus.floor
print(f"{corpus.about}, {corpus.dataset.tokens_per_epoch:,} tokens; {model.num_parameters():,} parameters")
print(f"random baseline: ln {corpus.tokenizer.vocab_size} = {baseline:.3f} nats per token")
print(f"floor:           {floor:.3f} nats per token")

# %% [markdown]
# # Learning
#
# Each step: some stories, the loss of all their tokens at once, `backward`, a step of AdamW. The learning rate rises
# for a few steps, stays, and then falls to 0, for a model that still jumps cannot settle. `Trainer` is this loop; it
# also measures the loss on the 400 stories, and saves checkpoints in a **run folder**. A run that was interrupted
# goes on from the last checkpoint, and one that is complete is not done again. Look at the very first loss: it is
# *above* the baseline. Random weights are not modest, they are sure of nonsense; the first thing learned is to be
# unsure.
#
# Why 400 other stories? On those it has learned from, a model may just remember.

# %%
settings = GenerationConfig(temperature=0.8, max_new_tokens=200, seed=3)


def sample(model):
    """A story, always with the same random numbers."""
    return generate(model, corpus.tokenizer, "", settings).text


run = story_run(lesson, recipe)
config = dataclasses.replace(recipe.train_config(), keep_checkpoints=5)  # all of them, to look back
trainer = Trainer(model, corpus.dataset, config, tokenizer=corpus.tokenizer, run=run, floor=floor)
trainer.resume()
result = trainer.run()
history = trainer.history
for record in history:
    if record["val_loss"] is not None:
        above = record["val_loss"] - floor
        print(f"step {record['step']:3}   loss {record['val_loss']:.3f}   above the floor {above:.3f}")
lesson.prove("nats per token above the floor", result.evaluation.above_floor, at_least=0.0, at_most=0.3)

# %% [markdown]
# # How its stories get better
#
# The same random numbers, the model as it was at three checkpoints. What comes first? What last? Look for names that
# change, things that turn up from nowhere, and whether the story ends.

# %%
saved = {int(path.name[-8:]): path for path in sorted(run.checkpoints.glob("step-*"))}
stories = validation_stories(run.path)
groups = {"how it is said": [], "drawn at random": [], "to be remembered": []}
for step, path in saved.items():
    tensors = files.read_safetensors(path / "tensors.safetensors")
    model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
    if step in (80, 240, recipe.steps):
        print(f"step {step}:\n{sample(model)}\n")
    sums = {name: np.zeros(2) for name in groups}  # nats above the floor, and tokens, for the next cell
    for share in by_choice(model, corpus.tokenizer, stories[:80]):
        word, _, certain = share.kind.partition(", ")
        spoken = word in ("phrase", "end of the text")
        group = "how it is said" if spoken else "to be remembered" if certain == "certain" else "drawn at random"
        sums[group] += share.nats - share.floor, share.tokens
    for name, (nats, tokens) in sums.items():
        groups[name].append(nats / tokens)

# %% [markdown]
# # What does it still guess?
#
# One number does not say what is missing. But the grammar knows the cost of each word, so the distance to the floor
# can be divided among kinds of words. `certain`: there was nothing to choose, because the story has said it before
# (or because the word had begun); a name that is certain must be *remembered*. `to choose`: the dice were rolled, and
# the best is to take all possible words for equally likely.
#
# In the picture on the right: the turns of phrase come first, for there are few of them and they are everywhere. For
# words drawn at random it is enough to know all that are possible. What takes longest is to know *who has the ball
# now*: it stands far back in the text, and attention must learn where to look.

# %%
print(table(by_choice(model, corpus.tokenizer, stories)))


def draw(figure):
    """The loss between its two ends; and how far the three groups of words are from theirs."""
    left, right = figure.subplots(1, 2)
    seen = [(r["step"], r["loss"]) for r in history]
    left.plot(*zip(*seen, strict=True), color=lesson.grey, linewidth=1, label="training")
    measured = [(r["step"], r["val_loss"]) for r in history if r["val_loss"] is not None]
    left.plot(*zip(*measured, strict=True), color="C0", marker="o", markersize=3, label="400 other stories")
    for level, text in ((baseline, f"knows nothing: ln V = {baseline:.2f}"), (floor, f"floor: {floor:.2f}")):
        left.axhline(level, color=lesson.grey, linestyle="--", linewidth=1)
        left.text(recipe.steps, level - 0.08, text, color=lesson.grey, fontsize=8, ha="right", va="top")
    left.set(title="the loss, between its two ends", xlabel="step", ylabel="nats per token", ylim=(0, baseline + 0.4))
    left.legend(loc="center right")
    styles = (("C0", "-", "o"), ("C2", "--", "s"), ("C1", "-", "^"))
    for (name, nats), (colour, style, marker) in zip(groups.items(), styles, strict=True):
        right.semilogy([*saved], nats, color=colour, linestyle=style, marker=marker, markersize=4, label=name)
    right.set(title="how far each kind of word is above its floor", xlabel="step", ylabel="nats per token of this kind")
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("")
    right.legend()


lesson.picture(
    "floor",
    draw,
    alt="Left: the loss of a language model falls from ln V, where nothing is known, nearly to the floor of the text. "
    "Right: how far three kinds of words are above their own floors; words that must be remembered come last.",
    size=(9, 4),
)

# %% [markdown]
# # Comparing with others: bits per byte
#
# Nats per *token* depend on how the text was cut: with longer tokens there are fewer of them, each harder to foresee.
# So for comparisons the whole cost of the text is divided by its length in bytes, and counted in bits: nats divided
# by `ln 2`. That is also the size to which the model could compress the text, eight bits for each byte of a plain
# file. A program that compresses files without having read anything before is a good measure for it.
#
# And **perplexity** is `e^loss`: the model hesitates as if between so many equally likely tokens.

# %%
result = result.evaluation
in_bytes = "".join(story.text for story in stories).encode()
packed = 8 * len(lzma.compress(in_bytes, preset=9)) / len(in_bytes)
print(f"perplexity {result.perplexity:.2f} of {corpus.tokenizer.vocab_size}; the best possible is {np.exp(floor):.2f}")
print(f"a plain file  8 bits per byte\nlzma          {packed:.3f}\nthe model     {result.bits_per_byte:.3f}")
print(f"the floor     {result.bits_per_byte * floor / result.loss:.3f}")
lesson.prove("times smaller than lzma makes the text", packed / result.bits_per_byte, at_least=1.5)

# %% [markdown]
# # Exercises
#
# 1. The loss of a text, from the probabilities that the model gave at each position.
# 2. Bits per byte, from the loss, the number of tokens and the text.

# %%


def check_text_loss(f):
    """Against numbers computed by hand: -ln 1/2, -ln 1/4, and their mean."""
    p = np.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    close(f(p, np.array([0, 1])), np.log(8) / 2, "probabilities 1/2 and 1/4")
    close(f(p, np.array([1, 2])), np.log(8) / 2, "probabilities 1/4 and 1/2")
    close(f(np.full((4, 10), 0.1), np.array([3, 1, 4, 1])), np.log(10), "ten equally likely tokens")


@lesson.exercise(check_text_loss)
def text_loss(probabilities, tokens):
    """(T, V) probabilities, (T,) the tokens that came -> nats per token."""
    ...


def check_bits_per_byte(f):
    """A byte costs 8 bits where each token is a byte and all 256 are equally likely; an é has two bytes."""
    close(f(np.log(256), 5, "seven"), 8.0, "256 equally likely bytes")
    close(f(np.log(2), 6, "été"), 6 / 5, "a bit for each of 6 tokens, in a text of 5 bytes")


@lesson.exercise(check_bits_per_byte)
def bits_per_byte(loss, tokens, text):
    """loss: nats per token. tokens: how many there are. text: what they stand for."""
    ...


# %%
lesson.end(
    changed="a real text, its floor, bits per byte",
    parameters=model.num_parameters(),
    loss=result.loss,
    floor=floor,
    read=[
        "minillm/data/grammar.py", "minillm/data/stories.py", "minillm/data/story_corpus.py",
        "minillm/data/story_words.py", "minillm/data/bucketed.py", "minillm/data/beginning.py",
        "minillm/data/digest.py", "minillm/training/", "minillm/files/", "minillm/cli/train.py", "minillm/cli/eval.py",
    ],
)  # fmt: skip
