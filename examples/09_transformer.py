"""Lesson 9. A transformer: attention without recurrence, on the same task, and then on stories.

    python examples/09_transformer.py
"""

# %% [markdown]
# # What if the recurrence goes?
#
# In lesson 8 a cell read token by token, and attention let it look back. In 2017 Vaswani and seven others
# asked what the cell was still good for, and left it out: *Attention is all you need*. A **transformer**
# is a stack of blocks, and each block is two lines:
#
#     x = x + attention(norm(x))        look at the tokens before, and at oneself
#     x = x + mlp(norm(x))              think about what was found: two layers of neurons, for each token alone
#
# `norm` brings the numbers of a token to one size. `x` holds one vector for each token. Both lines *add* to it
# (a **residual connection**), so that what is there stays, and the gradient has a straight way back through
# all blocks.
#
# In lesson 8 a past state did two things: the query was compared with it, and it was averaged. Here each token
# makes a vector of its own for each of the two, by two more matrices: the **key** and the **value**. And there
# are several such attentions side by side, called **heads**.
#
# Two things must replace what the recurrence gave. **Order**: attention alone sees a heap of tokens, not a
# row. So positions are put in; a *Llama*, the kind of transformer that we build here, turns queries and keys
# by an angle that grows with the position. And **causality**: a token may look back only, or it would see the
# very token that it has to predict. So scores of later tokens are set to minus infinity before the softmax,
# which makes their weights 0.
#
# First the task of lesson 8: `D3` says that D is 3, later `D?` asks. Same tokens, about as many
# parameters.

# %%
import numpy as np
from course import Lesson, close, same

from minillm import TrainConfig, Trainer, data, models, optim
from minillm import functional as F
from minillm.tokenizer import UnigramTokenizer

lesson = Lesson("09_transformer")
LETTERS, DIGITS, QUESTIONS = 24, 8, 4


def texts(rng: np.random.Generator, count: int):
    """As in lesson 8: 24 facts and 4 questions, the right digits, and how far away the facts are."""
    letters = rng.permuted(np.tile(np.arange(LETTERS), (count, 1)), axis=1)
    digits = rng.integers(DIGITS, size=(count, LETTERS))
    back = np.floor((LETTERS + 1) ** rng.random((count, QUESTIONS))).astype(int)
    asked_at, fact_at = LETTERS + np.arange(QUESTIONS), LETTERS - back
    asked = np.take_along_axis(letters, fact_at, axis=1)
    ids = np.concatenate([letters * DIGITS + digits, LETTERS * DIGITS + asked], axis=1)
    return ids, np.take_along_axis(digits, fact_at, axis=1), asked_at - fact_at


STEPS = 300
small = models.Llama(
    models.LlamaConfig(
        vocab_size=LETTERS * (DIGITS + 1), hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=32, initializer_range=0.1,
    ),
    rng=0,
)  # fmt: skip
print(f"a transformer of one block, {small.num_parameters():,} parameters")
optimizer = optim.AdamW(small.parameters(), lr=1e-2, weight_decay=0.0)
schedule = optim.warmup_cosine(1e-2, steps=STEPS, warmup=20)
rng = np.random.default_rng(0)
for step in range(STEPS):
    ids, answers, _ = texts(rng, 64)
    loss = F.cross_entropy(small(ids)[:, LETTERS:, :DIGITS], answers)
    loss.backward()
    optim.clip_grad_norm(small.parameters(), 1.0)
    optimizer.lr = schedule(step)
    optimizer.step()
    optimizer.zero_grad()
    if step % 50 == 49:
        print(f"step {step + 1:3}   loss {loss.item():.3f} nats per answer, a guess: {np.log(DIGITS):.3f}", flush=True)
ids, answers, far = texts(np.random.default_rng(1), 3000)
right = small(ids).data[:, LETTERS:, :DIGITS].argmax(-1) == answers
by_distance = np.array([right[far == d].mean() for d in range(1, LETTERS + 1)])
print("right answers at distance", *(f"{d:4}" for d in (1, 4, 8, 16, 17, 24)))
print(" " * 25, *(f"{by_distance[d - 1]:4.0%}" for d in (1, 4, 8, 16, 17, 24)))
lesson.prove("right answers at the worst of 24 distances, without recurrence", by_distance.min(), at_least=0.9)

# %% [markdown]
# There is no window here but the length of the text. The price: each token is compared with each before
# it, so the work grows with the square of the length, and the keys and values of all must be kept. What
# lesson 8 kept was always of the same size: one state, and the last W.
#
# # Does it cheat?
#
# Change the last token of a text. If a prediction before it changes, the model has looked into the
# future.

# %%
print("what minus infinity becomes in the softmax:", np.exp(-np.inf))
changed = ids[:1].copy()
changed[0, -1] = LETTERS * DIGITS + (changed[0, -1] + 1) % LETTERS
difference = np.abs(small(ids[:1]).data - small(changed).data)[0].max(-1)
print(f"the last token changed: at its own place scores change by up to {difference[-1]:.2f}, before it by", end=" ")
print(f"{difference[:-1].max():.0f}")
assert difference[:-1].max() == 0, "an earlier score has changed"

# %% [markdown]
# # The same stories, two models
#
# Now real language, or nearly: stories that the library writes itself, so that the **floor** is known,
# the loss that no model can beat. The transformer has two blocks. Beside it stands the recurrent model of
# lesson 8, two layers of GRU cells with a window of 16, of about the same size. Both read the same
# batches.

# %%
train, test = data.train_and_validation(3000, 40, seed=0)
tokenizer = UnigramTokenizer.train([story.text for story in train[:300]], vocab_size=600)
encoded = [
    tokenizer.encode_batch([story.text for story in stories], add_special_tokens=False) for stories in (train, test)
]
dataset = data.DocumentDataset(*encoded, context=176, eos_id=tokenizer.eos_id)
floor = data.floor(test, [len(story) for story in encoded[1]])
V = tokenizer.vocab_size
print(f"{V} kinds of tokens; a random guess costs {np.log(V):.2f} nats per token, the floor is {floor:.3f}")
competitors = {
    "transformer": models.Llama(
        models.LlamaConfig(
            vocab_size=V, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=512, tie_word_embeddings=True,
        ),
        rng=0,
    ),
    "recurrent, W = 16": models.RecurrentLM(
        models.RecurrentLMConfig(vocab_size=V, hidden_size=72, num_layers=2, cell="gru", window=16), rng=0
    ),
}  # fmt: skip
how = TrainConfig(steps=300, batch_size=8, learning_rate=6e-3, evaluate_every=60)
curves, results = {}, {}
for name, model in competitors.items():
    trainer = Trainer(model, dataset, how, floor=floor, quiet=True)
    results[name] = trainer.run()
    curves[name] = [(line["tokens"], line["val_loss"]) for line in trainer.history if line["val_loss"]]
    result = results[name]
    print(f"{name:18} {model.num_parameters():8,} parameters   {result.tokens / result.seconds:7,.0f} tokens/s   "
          f"{result.evaluation.above_floor:.3f} nats above the floor", flush=True)  # fmt: skip
print(f"in a row of {dataset.context} tokens so many steps wait for the one before: recurrent {dataset.context}, "
      f"transformer {len(competitors['transformer'].model.layers)}, one for each block")  # fmt: skip

# %% [markdown]
# So small, and trained so briefly, the two end close to each other, and the recurrent model is even ahead
# at first. Why did the transformer win all the same?
#
# - **Distance costs nothing**, as the first task shows.
# - **Nothing waits.** The recurrent model can compute token t only when t - 1 is done; the transformer
#   does all tokens of a text at once, in a few large matrix products. On two cores that is worth little,
#   as the figures above show: they have enough to do in any case. On a machine that does thousands of
#   things at once it is worth nearly all. (While it *writes*, a transformer too must wait for each
#   token.)

# %%


def draw(figure):
    """Answers by distance, without a window; the loss of both models against the floor."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    distance = np.arange(1, LETTERS + 1)
    left.plot(distance, 100 * by_distance, "o-", color="C0", markersize=4)
    left.axhline(100 / DIGITS, color=lesson.grey, linestyle=":")
    left.text(24, 100 / DIGITS + 1, "guessing", ha="right", va="bottom", color=lesson.grey, fontsize=8)
    left.axvline(16.5, color="C1", linestyle="--", linewidth=0.8)
    left.text(16.2, 50, "here W = 16 ended\nin lesson 8", ha="right", color="C1", fontsize=8)
    left.set(title="transformer: no window", xlabel="distance of the fact (tokens)", ylabel="right answers (%)")
    left.set(ylim=(0, 104), xticks=(1, 8, 16, 24))
    for (name, points), colour, style in zip(curves.items(), ("C0", "C1"), ("o-", "s--"), strict=True):
        tokens, losses = np.array(points).T
        right.plot(tokens / 1000, losses, style, color=colour, markersize=4, label=name)
    right.axhline(floor, color=lesson.ink, linewidth=1)
    right.text(6, floor - 0.03, "the floor: no model can be below", fontsize=8, va="top")
    right.set(title="stories: both come down towards the floor", xlabel="tokens read (thousands)")
    right.set(ylabel="loss on new stories (nats per token)", xlim=(0, None), ylim=(0, None))
    right.legend()


lesson.picture(
    "loss",
    draw,
    alt="Left: the transformer's right answers are near 100% at every distance from 1 to 24 tokens, also beyond the "
    "16 where the window of lesson 8 ended. Right: the losses of transformer and recurrent model on new stories fall "
    "side by side towards the floor.",
    size=(9, 4),
)
best = results["transformer"].evaluation
lesson.prove("nats per token above the floor, transformer", best.above_floor, at_least=0.0, at_most=0.7)

# %% [markdown]
# # Exercises
#
# 1. The causal mask: a square of T rows and T columns, 0 where the token of the row may look at the token
#    of the column, minus infinity where it may not. It is added to the scores.
# 2. How many parameters does one block of a Llama have? Its attention has four matrices of C times C
#    (query, key, value, output), its MLP three of C times I, and there are two norms of C numbers each.

# %%


def check_causal_mask(f):
    """The first token sees itself alone."""
    mask = f(3)
    if mask is not None:
        assert np.shape(mask) == (3, 3), f"expected the shape (3, 3), got {np.shape(mask)}"
        mask = np.exp(mask)
    close(mask, [[1, 0, 0], [1, 1, 0], [1, 1, 1]], "e to the mask, T = 3")


@lesson.exercise(check_causal_mask)
def causal_mask(T):
    """(T, T), of 0 and -np.inf."""
    ...


def check_block_parameters(f):
    """Against the model's own blocks."""
    for model, C, inner in ((competitors["transformer"], 64, 160), (small, 32, 48)):
        block = model.model.layers[0]
        same(f(C, inner), sum(parameter.size for parameter in block.parameters()), f"C = {C}, I = {inner}")


@lesson.exercise(check_block_parameters)
def block_parameters(C, inner):
    """A whole number."""
    ...


# %%
lesson.end(
    changed="no recurrence: a transformer",
    parameters=competitors["transformer"].num_parameters(),
    loss=best.loss,
    floor=floor,
    read=[
        "minillm/models/llama.py", "minillm/models/gpt2.py", "minillm/models/rope.py", "minillm/models/base.py",
        "minillm/functional/attention.py", "minillm/functional/norm.py", "minillm/functional/embedding.py",
        "minillm/nn/attention.py", "minillm/nn/norm.py", "minillm/nn/embedding.py", "minillm/data/stories.py",
        "minillm/data/batches.py", "minillm/training/trainer.py", "minillm/training/config.py",
        "minillm/models/t5.py", "minillm/models/llama_kin.py", "minillm/models/checks.py", "minillm/data/pairs.py",
        "minillm/data/pair_files.py", "minillm/data/spans.py",
    ],
)  # fmt: skip
