"""Lesson 15. Evaluating honestly: loss, exact match, intervals, seeds; and what a leak looks like.

    python examples/15_evaluation.py
"""

# %% [markdown]
# # How good is it?
#
# A number without its uncertainty is a rumour. Here five small models learn the same stories. They differ
# in nothing but the **seed**: the random numbers that they begin with, and the order of the data. Then
# all are examined on 40 stories that none has read:
#
# - the **loss**, in nats per token: how surprised is the model? Beside it stands the **floor**, the
#   surprise of the writer of these stories, who knows the probability of each choice;
# - **exact match**: how often is its answer to the question of a story the right word?

# %%
import re

import numpy as np
from course import Lesson, close

from minillm import TrainConfig, Trainer, data, models
from minillm.tokenizer import BPETokenizer, CharTokenizer, UnigramTokenizer
from minillm.training.by_choice import token_nats

lesson = Lesson("15_evaluation")

train, test = data.train_and_validation(800, 40, seed=0)  # no story is in both
tokenizer = UnigramTokenizer.train([story.text for story in train[:300]], vocab_size=600)


def learn(stories: list[data.Document], width: int, steps: int, seed: int) -> models.RecurrentLM:
    """A small recurrent model learns these stories."""
    documents = [tokenizer.encode(story.text, add_special_tokens=False) for story in stories]
    dataset = data.DocumentDataset(documents, documents[:1], context=176, eos_id=tokenizer.eos_id)
    config = models.RecurrentLMConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=width, num_layers=1, cell="gru", attention="none"
    )
    model = models.RecurrentLM(config, rng=seed)
    how = TrainConfig(steps=steps, batch_size=8, learning_rate=8e-3, weight_decay=0.0, evaluate_every=steps, seed=seed)
    Trainer(model, dataset, how, quiet=True).run()
    return model


def nats_of(model: models.RecurrentLM) -> np.ndarray:
    """What each of the test stories costs the model, in nats: (40,)."""
    return np.array([tokens.sum() for tokens in token_nats(model, tokenizer, test)])


QUESTION = re.compile(r"\? (?:They met at the |\w+ loved to |They ate |There were )?(\w+)(?:\.| had it)")


def answers_right(model: models.RecurrentLM) -> list[bool]:
    """Whether the likeliest next token is the right answer, for each story that asks such a question."""
    right = []
    for story in test:
        if found := QUESTION.search(story.text):
            asked = tokenizer.encode(story.text[: found.start(1)].rstrip(), add_special_tokens=False)
            answer = tokenizer.encode(found[1], add_special_tokens=False)
            said = model(np.array([[tokenizer.eos_id, *asked]])).data[0, -1].argmax()
            right.append(bool(said == answer[0]))
    return right


tokens = np.array([len(tokenizer.encode(story.text)) for story in test])  # with the one that ends the text
least = np.array([-story.logprob for story in test])  # what each story costs its writer, in nats
floor = least.sum() / tokens.sum()
honest = []
for seed in range(5):
    honest.append(learn(train, width=48, steps=80, seed=seed))
    loss = nats_of(honest[-1]).sum() / tokens.sum()
    right = answers_right(honest[-1])
    print(f"seed {seed}: loss {loss:.3f} nats per token, floor {floor:.3f}; {sum(right)} of {len(right)} answers right")

# %% [markdown]
# # Two kinds of chance
#
# **Which stories are in the test?** With another 40, the result would be another. The *bootstrap*
# imagines that: draw 40 stories from the 40, with replacement, take the mean, and do this two thousand
# times. Where the middle 95% of these means lie is the interval. One draws whole *stories*, not tokens:
# the tokens of one story are not independent.
#
# **Which seed?** That is another chance, and the bootstrap of one model knows nothing of it. Train again.
#
# A difference between two models that is smaller than these two is no result. For a share, such as right
# answers, there is a formula (Wilson, 1927), which is good also near 0 and 1; it is exercise 1.

# %%


def bootstrap(nats: np.ndarray, tokens: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The middle 95 % of the losses of test sets drawn from this one."""
    drawn = rng.integers(len(nats), size=(2000, len(nats)))
    return tuple(np.quantile(nats[drawn].sum(1) / tokens[drawn].sum(1), [0.025, 0.975]))


losses = [nats_of(model).sum() / tokens.sum() for model in honest]
intervals = [bootstrap(nats_of(model), tokens, np.random.default_rng(0)) for model in honest]
for seed, (loss, (low, high)) in enumerate(zip(losses, intervals, strict=True)):
    print(f"seed {seed}: {loss:.3f}, with other stories from {low:.3f} to {high:.3f}")
print(f"the seeds alone: from {min(losses):.3f} to {max(losses):.3f}, standard deviation {np.std(losses, ddof=1):.3f}")

# %% [markdown]
# (All models were examined on the *same* stories. To compare two, look at the difference story by story:
# most of the chance in the choice of stories is then in both, and cancels.)
#
# # Nats per what?
#
# A model of characters has a far lower loss per token than a model of words: it is asked more, and
# easier, questions. To compare across tokenizers, divide by what does not depend on them: the bytes of
# the text. **Bits per byte** say how small the text would become if the model compressed it. The floor
# shows it without any training: it differs for each tokenizer in nats per token, and is the same for all
# in bits per byte.

# %%
texts = [story.text for story in train[:300]]
size = sum(len(story.text.encode()) for story in test)
for name, kind in {
    "characters": CharTokenizer.train(texts),
    "BPE, 500 ids": BPETokenizer.train(texts, 500),
    "Unigram": tokenizer,
}.items():
    counts = [len(kind.encode(story.text, add_special_tokens=False)) for story in test]
    per_token = data.floor(test, counts)
    bits = per_token * (sum(counts) + len(test)) / (np.log(2) * size)  # one token more for each end of a text
    print(f"{name:12} floor {per_token:.3f} nats per token, {bits:.4f} bits per byte")

# %% [markdown]
# # A leak
#
# Now a mistake, of the kind that happens: half of the test stories have slipped into the training data.
# They are on the web twice, say. We train a larger model on these data, for longer: long enough to know
# them by heart, which is called **overfitting**.

# %%
leaked = np.arange(len(test)) % 2 == 0
found_on_the_web = train[:60] + [story for story, is_leaked in zip(test, leaked, strict=True) if is_leaked]
suspect = learn(found_on_the_web, width=128, steps=200, seed=0)
suspect_nats = nats_of(suspect)
suspect_loss = suspect_nats.sum() / tokens.sum()
low, high = bootstrap(suspect_nats, tokens, np.random.default_rng(0))
print(f"the honest models: {np.mean(losses):.3f} nats per token")
print(f"the suspect:       {suspect_loss:.3f}, from {low:.3f} to {high:.3f}; the floor is {floor:.3f}")
right = answers_right(suspect)
print(f"                   {sum(right)} of {len(right)} answers right")

# %% [markdown]
# It seems the best model of the lesson: above the floor, ahead of all others, its interval clear of
# theirs. All the statistics of this page are right, and all say yes. No interval sees a leak.
#
# But look at single stories. The writer's probability of a story is the true one. Can an honest model
# give a story *more*? By luck, a little. The chance that it gives a story more than e^a times the true
# probability, so that it lies a nats below the floor, is at most e^-a (if it did so more often, its
# probabilities would add up to more than 1; this is Markov's inequality). At 20 nats that is one in 500
# million.
#
# So **a loss far below the floor is no success, but a proof**: the model has seen the answers. Only a
# text whose probability is known can show that.

# %%
below = least - suspect_nats  # nats below the floor; negative: above
caught = below > 20
print(f"more than 20 nats below the floor: {caught.sum()} of {len(test)} stories of the suspect")
for seed, model in enumerate(honest[:2]):
    print(f"                                   {(least - nats_of(model) > 20).sum()} of {len(test)} with seed {seed}")
print(f"the clearest is {below.max():.0f} nats below: for an honest model a chance of at most e^-{below.max():.0f}")


def draw(figure):
    """The losses with their intervals; the suspect, story by story."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
    everything = [*zip(losses, intervals, strict=True), (suspect_loss, (low, high))]
    for i, (loss, (lower, upper)) in enumerate(everything):
        colour, marker = ("C0", "o") if i < len(losses) else ("C1", "s")
        left.errorbar(i, loss, [[loss - lower], [upper - loss]], fmt=marker, color=colour, capsize=3, markersize=5)
    left.axhline(floor, color=lesson.ink, linewidth=1)
    left.text(0, floor + 0.02, "floor", fontsize=8, va="bottom")
    left.set_xticks(range(6), [f"seed {i}" for i in range(5)] + ["suspect"], rotation=45)
    left.set(title="on average: a better model", ylabel="loss (nats per token)", ylim=(0, None))
    order = np.argsort(below / tokens)
    groups = (leaked, "C1", "s", "was in the training data"), (~leaked, "C0", "o", "was not")
    for kind, colour, marker, name in groups:
        at = np.flatnonzero(kind[order])
        right.scatter(at, -(below / tokens)[order][at], s=22, color=colour, marker=marker, label=name)
    right.axhline(0, color=lesson.ink, linewidth=1)
    right.text(0, -0.05, "the floor: no honest model is far below", fontsize=8, va="top")
    right.set(title="story by story: it has read half of them", xlabel="test stories, in order")
    right.set(ylabel="above the floor (nats per token)")
    right.legend(loc="upper right")


lesson.picture(
    "leak",
    draw,
    alt="Left: the losses of five honest models with their intervals, and of the suspect, which is lower and still "
    "above the floor. Right: the suspect story by story: those that were in its training data lie far below the floor, "
    "the others above.",
    size=(9, 4),
)
lesson.prove("leaked stories that are unmasked, of 20", np.sum(caught & leaked), at_least=18)
lesson.prove("honest ones that are accused, of 20", np.sum(caught & ~leaked), at_most=0)

# %% [markdown]
# # Exercises
#
# 1. Wilson's interval for k right answers of n, with z = 1.96: the centre is `(k + z^2 / 2) / (n + z^2)`,
#    the half width `z / (n + z^2) * sqrt(k (n - k) / n + z^2 / 4)`.
# 2. Two models, examined on the same stories: the mean difference of their nats per story, and its
#    standard error, the standard deviation of the differences (`ddof=1`) divided by the square root of
#    their number.

# %%


def check_wilson(f):
    """Figures from the literature; none right of ten does not mean none at all."""
    for (k, n), wanted in (((0, 10), (0, 0.2775)), ((5, 10), (0.2366, 0.7634)), ((81, 263), (0.2553, 0.3662))):
        close(f(k, n), wanted, f"{k} of {n}", tolerance=1e-3)


@lesson.exercise(check_wilson)
def wilson(k, n):
    """(low, high)."""
    ...


def check_difference(f):
    """Against hand-made numbers, and on our models."""
    close(f(np.array([3.0, 5.0, 4.0]), np.array([2.0, 3.0, 1.0])), (2.0, 1 / np.sqrt(3)), "differences 1, 2, 3")
    a, b = nats_of(honest[0]), nats_of(honest[1])
    close(f(a, b), (np.mean(a - b), np.std(a - b, ddof=1) / np.sqrt(40)), "seeds 0 and 1")


@lesson.exercise(check_difference)
def difference(nats_a, nats_b):
    """(mean, standard error)."""
    ...


# %%
right = answers_right(honest[0])
if (interval := wilson(sum(right), len(right))) not in (None, ...):
    print(f"seed 0 answers {sum(right)} of {len(right)}: from {interval[0]:.0%} to {interval[1]:.0%}")
lesson.end(
    changed="how sure is that? intervals, a leak",
    parameters=honest[0].num_parameters(),
    loss=float(np.mean(losses)),
    floor=float(floor),
    read=[
        "minillm/training/evaluate.py", "minillm/training/by_choice.py", "minillm/data/story_corpus.py",
        "minillm/data/grammar.py", "minillm/data/split.py", "minillm/data/digest.py",
    ],
)  # fmt: skip
