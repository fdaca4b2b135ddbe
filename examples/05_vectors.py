"""Lesson 5. Anything becomes vectors: hours, handwritten digits, words, and how nearness gets a meaning.

    python examples/05_vectors.py
"""

# %% [markdown]
# # Lists of numbers
#
# Layers move points about in space. So whatever a network is to work with must become a list of numbers
# first: a **vector**, a place in a space. Anything can be turned into numbers. The question is which
# places: **things that are alike should be near to each other**, for a network is smooth and gives similar
# answers for near places.
#
# Even a number has to be asked this question. The hour of the day is a number from 0 to 23; then 23 and midnight are
# as far apart as two hours can be. And if the year 2026 stands beside it in the list, the hour drowns: the hours of
# a whole day are about a hundredth of it. So numbers are brought to the same size first, usually to mean 0 and
# variance 1; and what goes round in a circle is put on a circle (exercise 1).

# %%
import re

import numpy as np
from course import Lesson, close, same

import minillm
from minillm import Tensor, data, nn, no_grad, optim
from minillm import functional as F
from minillm.data.story_words import KINDS

lesson = Lesson("05_vectors")

visits = np.array([[2024.0, 9.0], [2025.0, 14.0], [2026.0, 3.0], [2026.0, 22.0]])  # year, hour
print("as they come:   ", visits.tolist())
print("to the same size:", ((visits - visits.mean(axis=0)) / visits.std(axis=0)).round(1).tolist())

# %% [markdown]
# # A picture is a vector too
#
# A picture of 8 by 8 points is a list of 64 numbers: how much ink is where. Where scikit-learn is installed,
# we take its digits, which people wrote by hand (Alpaydin and Kaynak 1998); else the lesson draws some with
# a font, moved about and with noise.

# %%
FONT = "ehjlphe 4c4444e eh1248v v2421he 26aiv22 vgu11he 68guhhe v124888 ehhehhe ehhf12c".split()  # five bits a row


def drawn_digits(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 8, 8), and which digit each shows (n,)."""
    pictures, which = np.zeros((n, 8, 8)), rng.integers(0, 10, n)
    for picture, digit in zip(pictures, which, strict=True):
        form = np.array([[int(row, 32) >> bit & 1 for bit in (4, 3, 2, 1, 0)] for row in FONT[digit]])
        down, along = rng.integers(0, 2), rng.integers(0, 4)
        picture[down : down + 7, along : along + 5] = form * rng.uniform(0.5, 1, form.shape)
    return np.clip(pictures + 0.15 * rng.standard_normal(pictures.shape), 0, 1), which


try:
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures, digits = found.images / 16, found.target
    print(f"{len(pictures):,} digits written by hand, from scikit-learn")
except ImportError:
    pictures, digits = drawn_digits(1797, np.random.default_rng(0))
    print(f"{len(pictures):,} digits drawn with a font: for handwritten ones, pip install scikit-learn")
pictures = pictures.astype(np.float32)[:, None]  # (N, 1, 8, 8): one channel, ink; a photograph has three
TRAIN = 1400  # the others are kept for the test
moved = np.roll(pictures, 1, axis=3)  # one point to the right
far, moving = (np.linalg.norm((pictures - others).reshape(-1, 64), axis=1).mean()
               for others in (np.roll(pictures, 1, axis=0), moved))  # fmt: skip
print(f"two pictures are {far:.2f} apart on average; a picture and itself, moved by one point, {moving:.2f}")

# %% [markdown]
# That is the weakness of the list of 64: to move a digit by one point changes nearly every number, and
# takes it as far away as another digit is. What we see at once, the list hides: that the same strokes are
# still there, a little further right.
#
# # The same filter everywhere
#
# A **convolution** is a neuron with few weights, here 3 by 3, a *filter*, that is slid over the whole picture. Its
# answer at each place says how well the picture fits the filter there. A stroke is found wherever it is, with the
# same nine weights. Several filters look for several strokes. `ReLU` makes negative answers 0: it bends, as `tanh`
# does. Then, of each two by two answers, only the largest is kept (`MaxPool2d`): *whether* there was such a stroke
# hereabouts, no longer exactly where.
#
# What do we minimise? The network gives ten **scores**, one for each digit. `softmax` turns them into probabilities:
# `e` to the power of each, divided by their sum. The loss is `-log p` of the right digit (the natural logarithm,
# `np.log`), called **cross-entropy**: 0 for one who is sure and right, large for one who is sure and wrong, and
# `log 10`, about 2.3, for one who knows nothing. It measures surprise, in *nats*. It will be with us to the end of
# the course.

# %%
rng = np.random.default_rng(0)
flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, rng=rng))
FILTERS = 8
convolution = nn.Sequential(
    nn.Conv2d(1, FILTERS, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(FILTERS * 16, 10, rng=rng),
)  # fmt: skip


def train(model: nn.Sequential, steps: int) -> None:
    """Batches of 64, as in the last lesson."""
    optimizer, rng = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0), np.random.default_rng(1)
    for step in range(steps + 1):
        chosen = rng.integers(0, TRAIN, 64)
        loss = F.cross_entropy(model(Tensor(pictures[chosen])), digits[chosen])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 150 == 0:
            print(f"  step {step:3}   loss {loss.item():.3f} nats", flush=True)


def right(model: nn.Sequential, pictures: np.ndarray) -> float:
    """The share of the test's digits that get the highest score."""
    with no_grad():
        return float(np.mean(model(Tensor(pictures[TRAIN:])).argmax(axis=1).data == digits[TRAIN:]))


print(minillm.summary(convolution, Tensor(pictures[:1])))
for said, model in (("64 numbers, one layer", flat), (f"{FILTERS} filters, then one layer", convolution)):
    print(f"{said}: {model.num_parameters():,} parameters")
    train(model, 300)
    print(f"  of {len(pictures) - TRAIN} new digits {right(model, pictures):.1%} right; moved by one point, "
          f"{right(model, moved):.1%}", flush=True)  # fmt: skip


def draw_digits(figure):
    """Digits, the filters, and where each filter finds what it looks for in one digit."""
    weights = convolution.layers[0].weight.data[:, 0]
    with no_grad():
        answers = np.maximum(convolution.layers[0](Tensor(pictures[TRAIN : TRAIN + 1])).data[0], 0)
    most, ink = np.abs(weights).max(), {"cmap": "Greys" if lesson.paper == "#ffffff" else "Greys_r"}
    red_and_blue = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    rows = (
        ("some of the digits", pictures[TRAIN : TRAIN + FILTERS, 0], ink),
        ("the filters: weights above 0 in red, below 0 in blue", weights, red_and_blue),
        ("where each filter answers in the first digit", answers, ink),
    )
    for part, (title, shown, look) in zip(figure.subfigures(3, 1), rows, strict=True):
        part.suptitle(title, fontsize=10, x=0.01, ha="left")
        for axes, picture in zip(part.subplots(1, FILTERS), shown, strict=True):
            axes.imshow(picture, **look)
            axes.set(xticks=(), yticks=())


lesson.picture(
    "filters",
    draw_digits,
    alt="First row: eight small pictures of digits. Second row: eight filters of 3 by 3 weights, red where they want "
    "ink and blue where they want none: edges in several directions. Third row: where each of them answers in the "
    "first digit, each along other parts of its strokes.",
    size=(8, 3.8),
)

# %% [markdown]
# # Words
#
# And text? Number the words, from the first to the last in the alphabet. But as *numbers* they would say that word
# 17 lies between 16 and 18, and is half of 34. None of this is true. So each word gets an axis of its own: a vector
# of zeros with a 1 at its place (**one-hot**). Now all words are equally far from each other, which claims nothing,
# and tells nothing either.
#
# Multiply such a vector by a matrix of weights, and what comes out is one row of the matrix: the row of that
# word. So we need not multiply; we look the row up. These rows are the **embedding**: a vector for each
# word, and since they are weights like all others, they can *learn*.

# %%
stories = [re.findall(r"\w+|[^\w\s]", story.text) for story in data.corpus(1500, seed=0)]
vocabulary = sorted({word for story in stories for word in story})
number = {word: i for i, word in enumerate(vocabulary)}
V, C = len(vocabulary), 16
ids = np.concatenate([[number[word] for word in story] for story in stories])
print(" ".join(stories[0][:24]), "...")
print(f"{len(ids):,} words, of which {V} are different: {ids[:8]} ...")

rng = np.random.default_rng(0)
embedding, scores = nn.Embedding(V, C, rng=rng), nn.Linear(C, V, rng=rng)
one_hot = np.eye(V, dtype=np.float32)[ids[:5]]
apart = np.abs(one_hot @ embedding.weight.data - embedding(ids[:5]).data).max()
print(f"one-hot times matrix, and rows looked up: {apart:.0f} apart")

# %% [markdown]
# # Known by the company it keeps
#
# What should a word's place depend on? "You shall know a word by the company it keeps" (J. R. Firth, 1957). We hide
# a word, look up the two before it and the two after it, and take the mean of these four vectors; from it one layer
# must guess which word is hidden (Mikolov and others, 2013). That is the whole model. Nobody tells it what an animal
# is. But *fox* and *frog* stand in the same company, so the same vector helps for both.
#
# The grammar that wrote the stories knows of some words what kind they are: names, animals, colours, places.
# So we can count: of the four nearest neighbours of such a word, how many are of its own kind? Near means:
# in nearly the same direction, whatever the length. This is the **cosine** of the angle between the two, 1
# for the same direction, 0 for a right angle.

# %%
KIND = {word: kind for kind in reversed(KINDS) for word in KINDS[kind] if word in number}


def nearest(vectors: np.ndarray, count: int) -> np.ndarray:
    """For each word the numbers of those whose vectors have the most similar direction: (V, count)."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -1)  # not itself
    return np.argsort(-cosines, axis=1)[:, :count]


def own_kind(vectors: np.ndarray) -> float:
    """The share of the four nearest neighbours that are of the same kind."""
    near = nearest(vectors, 4)
    found = [[KIND.get(vocabulary[j]) == kind for j in near[number[word]]] for word, kind in KIND.items()]
    return float(np.mean(found))


def tell(vectors: np.ndarray) -> None:
    """Some words and their neighbours."""
    near = nearest(vectors, 4)
    for word in ("fox", "red", "Mia", "park", "sing", "she"):
        print(f"  {word:5} {', '.join(vocabulary[j] for j in near[number[word]])}")


before = embedding.weight.data.copy()
print(f"before: {own_kind(before):.0%} of the neighbours are of the same kind")
tell(before)

AROUND, STEPS = np.array([-2, -1, 1, 2]), 800
optimizer = optim.AdamW([*embedding.parameters(), *scores.parameters()], lr=0.01, weight_decay=0.0)
print(f"a guess at random costs log {V} = {np.log(V):.2f} nats")
shares = {}
for step in range(STEPS + 1):
    hidden = rng.integers(2, len(ids) - 2, 256)
    company = embedding(ids[hidden[:, None] + AROUND])  # (256, 4, C)
    loss = F.cross_entropy(scores(company.mean(axis=1)), ids[hidden])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 100 == 0:
        shares[step] = own_kind(embedding.weight.data)
        print(f"  step {step:3}   loss {loss.item():.2f} nats   {shares[step]:.0%} of the same kind", flush=True)
after = embedding.weight.data
print("after:")
tell(after)
lesson.prove("neighbours of the same kind, after training", own_kind(after), at_least=0.8)
lesson.prove("and before it", own_kind(before), at_most=0.2)


def draw_words(figure):
    """The vectors of words with a kind, seen along the two directions in which they differ most."""
    drawn = ("name", "animal", "color", "thing", "place", "activity")
    for axes, vectors, title in zip(figure.subplots(1, 2), (before, after), ("before", "after"), strict=True):
        words = [word for word, kind in KIND.items() if kind in drawn]
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        chosen = units[[number[word] for word in words]]
        places = (chosen - chosen.mean(axis=0)) @ np.linalg.svd(chosen - chosen.mean(axis=0))[2][:2].T
        for i, kind in enumerate(drawn):
            here = places[[KIND[word] == kind for word in words]]
            axes.scatter(*here.T, s=18, marker="os^Dv*"[i], color=f"C{i}", label=kind, linewidths=0)
        axes.set(title=f"{title}: {own_kind(vectors):.0%} of neighbours of the same kind", xticks=(), yticks=())
        axes.set(xlabel="direction in which they differ most", ylabel="second such direction")
    axes.legend(loc="best", frameon=True, framealpha=0.8)


lesson.picture(
    "words",
    draw_words,
    alt="The vectors of 118 words as a map, before and after training. Before, names, animals, colours, things, places "
    "and activities are mixed without order. After, the words of each kind lie together.",
    size=(9, 4.5),
)

# %% [markdown]
# # Questions
#
# - **Why does the convolution still misread moved digits?** Its filters do not mind where a stroke is, but its last
#   layer does: it has weights for each place again. More filters and pools one after another, or moved digits in the
#   training, make it better.
# - **What does the third number of a word mean?** Nothing by itself, as in lesson 3: the whole space could be
#   turned, and the neighbours would be the same.
# - **How many numbers should a vector have?** Enough for the differences that matter. Here 16 are plenty for a few
#   hundred words; GPT-2 takes 768 for each of its fifty thousand.
# - **Is a neighbour a synonym?** No. *Red* and *blue* are neighbours because they stand in the same places. A word
#   that may stand where another stands is near, even if it means the opposite.
# - **What if a word was never seen?** Then there is no row for it. Real language models cut text into smaller
#   pieces for this reason: the next lesson.

# %% [markdown]
# # Exercises
#
# 1. Put the hours on a circle, so that midnight lies between 23 and 1: two numbers for each.
# 2. Slide a filter over a picture, by hand.

# %%


def check_on_circle(f):
    """Neighbours are near, also over midnight; opposites are farthest."""
    got = [f(hour) for hour in range(24)]
    same(None if got[0] is None else np.shape(got[0]), (2,), "the shape of one hour")
    step = [np.linalg.norm(np.subtract(got[hour], got[(hour + 1) % 24])) for hour in range(24)]
    close(step, np.full(24, step[0]), "the distances from each hour to the next, the last over midnight")
    far = [np.linalg.norm(np.subtract(got[0], hour)) for hour in got]
    close(np.argmax(far), 12, "the hour that is farthest from midnight")


@lesson.exercise(check_on_circle)
def on_circle(hour):
    """Where the hour, from 0 to 23, lies on a circle: two numbers."""
    ...


def check_slide(f):
    """Against the library's."""
    rng = np.random.default_rng(3)
    for height, width in ((5, 5), (6, 4)):
        picture, weights = rng.standard_normal((height, width)), rng.standard_normal((3, 3))
        wanted = F.conv2d(Tensor(picture[None, None]), Tensor(weights[None, None])).data[0, 0]
        close(f(picture, weights), wanted, f"a picture of {height} by {width}")


@lesson.exercise(check_slide)
def slide(picture, weights):
    """The sum of nine products at each place where the weights fit: (Y, X), (3, 3) -> (Y - 2, X - 2)."""
    ...


# %%
lesson.end(
    changed="digits and words as vectors",
    parameters=embedding.num_parameters() + scores.num_parameters(),
    read=[
        "minillm/functional/conv.py", "minillm/nn/conv.py", "minillm/functional/losses.py",
        "minillm/functional/embedding.py", "minillm/nn/embedding.py", "minillm/check/summary.py",
        "minillm/data/stories.py", "minillm/data/story_corpus.py", "minillm/data/story_words.py",
        "minillm/functional/shaping.py", "minillm/data/text.py", "minillm/data/encode.py", "minillm/data/shards.py",
        "minillm/data/shard_dataset.py",
    ],
)  # fmt: skip
