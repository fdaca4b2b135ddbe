"""Lesson 8. Attention and the context window: a recurrent cell that looks back over its last states.

    python examples/08_attention.py
"""

# %% [markdown]
# # Look it up instead of carrying it
#
# A recurrent cell must carry in its state all that may be asked later; lesson 7 showed how it fades. In
# 2014 Bahdanau, Cho and Bengio had a better idea: keep the old states *as they were*, and let each step
# **look back** at them. Where should it look? It computes a score for each past state, and turns the
# scores into weights with the softmax; then it takes the mean of the states with these weights. This is
# **attention**:
#
#     score_s = query_t . h_s           the query: what step t is looking for, a matrix times its own state
#     p       = softmax(scores)         weights, positive, their sum is 1
#     context = sum_s p_s h_s           what it finds
#
# Everything here has a slope, so the network learns by gradient descent what to look for. And between the
# answer and the state that holds it there is one single step, however far away it is: nothing fades.

# %%
import numpy as np
from course import Lesson, close

from minillm import functional as F
from minillm import models, optim, record_attention

lesson = Lesson("08_attention")


def softmax(scores: np.ndarray) -> np.ndarray:
    """Weights whose sum is 1; the largest score is subtracted so that nothing overflows."""
    e = np.exp(scores - scores.max())
    return e / e.sum()


past = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])  # three past states
query = np.array([0.0, 5.0])  # looks for states with a large second number
p = softmax(past @ query)
print("weights", p.round(2), "  context", (p @ past).round(2), "  it found the state in the middle")

# %% [markdown]
# # A task that needs it
#
# Each token says what a letter stands for: `D3` means that D is 3. Each letter comes once. Then four
# questions: `D?`. The right answer is 3. How far away the fact stands differs; near ones are asked more
# often, as it is in texts. Without attention the state would have to carry all digits at once, and
# overwrite none of them.
#
# The **window** W says how many past states can be seen. Older ones are gone. We train the same network
# with W = 4, 8 and 16, and once without attention.

# %%
LETTERS, DIGITS, QUESTIONS = 24, 8, 4
names = [f"{chr(65 + letter)}{digit}" for letter in range(LETTERS) for digit in range(DIGITS)]
names += [f"{chr(65 + letter)}?" for letter in range(LETTERS)]


def texts(rng: np.random.Generator, count: int, back: np.ndarray | None = None):
    """Facts and questions: ids (count, 28), the right digits and the distances (count, 4).

    back: how many facts each question goes back.
    """
    letters = rng.permuted(np.tile(np.arange(LETTERS), (count, 1)), axis=1)
    digits = rng.integers(DIGITS, size=(count, LETTERS))
    if back is None:
        back = np.floor((LETTERS + 1) ** rng.random((count, QUESTIONS))).astype(int)
    asked_at, fact_at = LETTERS + np.arange(QUESTIONS), LETTERS - back
    asked = np.take_along_axis(letters, fact_at, axis=1)
    ids = np.concatenate([letters * DIGITS + digits, LETTERS * DIGITS + asked], axis=1)
    return ids, np.take_along_axis(digits, fact_at, axis=1), asked_at - fact_at


ids, answers, far = texts(np.random.default_rng(0), count=1)
print(*(names[i] for i in ids[0]))
print("answers:", answers[0], "  distances:", far[0])
print(f"without attention: {LETTERS} digits of {DIGITS} kinds, {LETTERS * np.log2(DIGITS):.0f} bits, in one state")

# %%
STEPS, WINDOWS = 450, (4, 8, 16)


def train(attention: str, window: int) -> models.RecurrentLM:
    """A plain cell of 32 units, with or without attention, learns to answer."""
    config = models.RecurrentLMConfig(
        vocab_size=len(names), hidden_size=32, num_layers=1, cell="rnn", attention=attention, window=window,
        initializer_range=0.3, tie_word_embeddings=False,
    )  # fmt: skip
    model = models.RecurrentLM(config, rng=0)
    optimizer = optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = optim.warmup_cosine(1e-2, steps=STEPS, warmup=20)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        ids, answers, _ = texts(rng, 64)
        loss = F.cross_entropy(model(ids)[:, LETTERS:, :DIGITS], answers)  # at the questions, among the digits
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.lr = schedule(step)
        optimizer.step()
        optimizer.zero_grad()
    return model


def by_distance(model: models.RecurrentLM) -> np.ndarray:
    """The share of right answers for facts 1, 2 ... 24 steps back, on new texts."""
    ids, answers, far = texts(np.random.default_rng(1), 3000)
    right = model(ids).data[:, LETTERS:, :DIGITS].argmax(-1) == answers
    return np.array([right[far == d].mean() for d in range(1, LETTERS + 1)])


trained, shares = {}, {}
shown = (1, 4, 5, 8, 9, 16, 17, 24)
print("right answers at distance", *(f"{d:4}" for d in shown))
for name, kind, window in [("no attention", "none", 1), *((f"W = {w}", "dot", w) for w in WINDOWS)]:
    trained[name] = train(kind, window)
    shares[name] = by_distance(trained[name])
    print(f"{name:25}", *(f"{shares[name][d - 1]:4.0%}" for d in shown), flush=True)

# %% [markdown]
# Each of the three knows nearly all facts inside its window, and none outside. One step farther, and it
# guesses: one of 8 digits, 12.5%. This is what the **context window** of a language model means.
#
# And what of the state? It could carry facts beyond the window. A plain cell of 32 units that was trained
# for so short a time does not: without attention it hardly knows even the last fact. A larger cell, with
# gates, trained longer, would carry some, and the fall would be less sharp.
#
# # Where does it look?
#
# `record_attention` keeps the weights while a model reads. In the picture each row is a question, each
# column a token of the past. **Look for**: one square in full colour in each row, under the token with
# the letter that is asked for. In the last row the fact has left the window: there the weights are spread
# over tokens that do not help, and the answer is a guess. (`minillm.plot.attention` draws this for any
# model.)

# %%
ids, answers, far = texts(np.random.default_rng(8), 1, back=np.array([[5, 8, 13, 20]]))
with record_attention(trained["W = 16"]) as recorded:
    said = trained["W = 16"](ids).data[0, LETTERS:, :DIGITS].argmax(-1)
weights = next(iter(recorded.values()))[0, 0, LETTERS:, :LETTERS]  # (4 questions, 24 facts)
tokens = [names[i] for i in ids[0]]
with record_attention(trained["W = 16"]) as many:
    some, _, some_far = texts(np.random.default_rng(4), 500)
    trained["W = 16"](some)
found = next(iter(many.values()))[:, 0, LETTERS:]  # (500, 4, 28)
on_the_fact = np.take_along_axis(found, LETTERS + np.arange(QUESTIONS)[:, None] - some_far[..., None], axis=-1)[..., 0]
print(f"weight on the fact that is asked for: {on_the_fact[some_far <= 16].mean():.2f} on average inside the window")
for q in range(QUESTIONS):
    most = int(weights[q].argmax())
    print(f"{tokens[LETTERS + q]} {far[0, q]:2} steps back: looks most at {tokens[most]} ({weights[q, most]:.2f}), "
          f"answers {said[q]}, right is {answers[0, q]}")  # fmt: skip


def draw(figure):
    """Right answers against distance; the attention of four questions."""
    from matplotlib.colors import LinearSegmentedColormap

    top, bottom = figure.subplots(2, 1, height_ratios=(2, 1))
    distance = np.arange(1, LETTERS + 1)
    looks = (("no attention", lesson.grey, ":", "x"), ("W = 4", "C0", "-", "o"), ("W = 8", "C1", "-", "s"),
             ("W = 16", "C2", "-", "^"))  # fmt: skip
    for name, colour, style, marker in looks:
        top.plot(distance, 100 * shares[name], style, marker=marker, color=colour, markersize=4, label=name)
    for window, colour in zip(WINDOWS, ("C0", "C1", "C2"), strict=True):
        top.axvline(window + 0.5, color=colour, linewidth=0.7, linestyle="--")
    top.set(title="each knows what stands inside its window", xlabel="distance of the fact (tokens)")
    top.set(ylabel="right answers (%)", xlim=(0.5, 24.5), xticks=(1, 4, 8, 12, 16, 20, 24), ylim=(0, 104))
    top.legend(loc="upper right", bbox_to_anchor=(1, 0.9))
    shades = LinearSegmentedColormap.from_list("shades", [lesson.paper, "C0"])
    image = bottom.imshow(weights, cmap=shades, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for q in range(QUESTIONS):
        at = LETTERS + q - far[0, q]
        bottom.add_patch(_frame(at, q))
    bottom.set_xticks(range(LETTERS), tokens[:LETTERS], fontsize=7)
    bottom.set_yticks(range(QUESTIONS), tokens[LETTERS:])
    bottom.set(title="where the four questions look (W = 16); framed: the fact", ylabel="question", xlabel="fact")
    figure.colorbar(image, ax=bottom, label="weight", fraction=0.03, pad=0.01)


def _frame(column: int, row: int):
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="C1", linewidth=1.6)


lesson.picture(
    "window",
    draw,
    alt="Above: right answers against the distance of the fact; for windows of 4, 8 and 16 tokens they are near 100% "
    "up to the window and fall to guessing one token later. Below: three questions put nearly all attention on the "
    "token with their letter, the fourth, whose fact has left the window, does not.",
    size=(7.5, 6),
)
falls = [shares[f"W = {w}"][w - 1] - shares[f"W = {w}"][w] for w in WINDOWS]
lesson.prove("right answers lost from distance W to W + 1, the least of three windows", min(falls), at_least=0.5)

# %% [markdown]
# # Exercises
#
# 1. Attention with a window: what does step t see, given its query, all states so far and W?
# 2. A book has facts at these distances from where they are needed. What share of them does a window
#    reach?

# %%


def check_look_back(f):
    """States outside the window must not matter."""
    states = np.random.default_rng(0).normal(size=(6, 3))
    ask = np.array([1.0, -2.0, 0.5])
    for t, window in ((5, 2), (3, 8), (1, 1)):
        inside = states[max(0, t - window) : t]
        close(f(ask, states, t, window), softmax(inside @ ask) @ inside, f"t = {t}, W = {window}")


@lesson.exercise(check_look_back)
def look_back(query, states, t, window):
    """The context of step t: from the states t - W ... t - 1, as far as there are any; not its own."""
    ...


def check_share_reached(f):
    """A fact at distance W is just inside."""
    for window, share in ((4, 0.5), (8, 0.75), (1, 0.25), (100, 1.0)):
        close(f([1, 4, 8, 50], window), share, f"distances 1, 4, 8, 50; W = {window}")


@lesson.exercise(check_share_reached)
def share_reached(distances, window):
    """From 0 to 1."""
    ...


# %%
lesson.end(
    changed="it looks back at its last W states",
    parameters=trained["W = 16"].num_parameters(),
    read=[
        "minillm/functional/recurrent_attention.py", "minillm/functional/attention_weights.py",
        "minillm/models/recurrent.py", "minillm/check/attention.py", "minillm/functional/losses.py",
    ],
)  # fmt: skip
