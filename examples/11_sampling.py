"""Lesson 11. Choosing the next token: what temperature, top-k, top-p and the others do to the probabilities.

    python examples/11_sampling.py
"""

# %% [markdown]
# # Choosing the next token
#
# A language model does not write. It gives a score, a **logit**, to each token of its vocabulary; a few lines of code
# turn the scores into probabilities, draw a token, append it, and ask again. Those lines are called *sampling*, and
# all the dials of a chat program (`temperature`, `top_p` ...) turn something in them. The model never notices.
#
# We take one place in one text, and look. The model is that of lesson 10. At this place the grammar of the stories
# goes on with a girl or a boy, 5 chances in 26 each, or with one of 16 animals, one chance each: so we know what
# would be right, and how likely.

# %%
import numpy as np
from course import Lesson, close, story_model

from minillm import GenerationConfig, generate, no_grad
from minillm.data.stories import ANIMALS
from minillm.generation import processors as P

lesson = Lesson("11_sampling")
model, tokenizer, _ = story_model(lesson)


def read(text):
    """(1, T) the ids of a text, which begins after the end of another, and (1, V) the scores of the token after it."""
    ids = np.array([[tokenizer.eos_id, *tokenizer.encode(text, add_special_tokens=False)]])
    with no_grad():
        return ids, model(ids).data[:, -1].astype(float)


def softmax(logits):
    """Probabilities in proportion to e^logit; the largest is subtracted, so that nothing overflows."""
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def shown(id):
    """A token as a person reads it."""
    return "EOS" if id == tokenizer.eos_id else tokenizer.decode([id]).strip() or "(space)"


text = "Once upon a time, there was a brave"
_, logits = read(text)
p = softmax(logits[0])  # (V,)
order = np.argsort(-p)  # the most likely first
right = {tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in ["girl", "boy", *ANIMALS]}
print(f"{text} ...")
print(", ".join(f"{shown(id)} {p[id]:.1%}" for id in order[:22]))
wrong = 1 - sum(p[id] for id in right)
print(f"{len(right)} tokens can be right here; all the others together got {wrong:.2%}")

# %% [markdown]
# # The draw
#
# Lay the probabilities end to end: stretches on a line from 0 to 1. Throw a point `u` onto the line; the stretch in
# which it falls is the token. A token of 20% has a fifth of the line, and is hit in a fifth of all throws. In NumPy
# the ends of the stretches are `np.cumsum(p)`, and `np.searchsorted` finds the first end beyond `u`.
#
# This is why a **seed** makes a text repeatable: the same seed gives the same points `u`. And why a small change of
# the probabilities often changes nothing: the point still falls into the same stretch.

# %%
rng = np.random.default_rng(0)
draws = np.searchsorted(np.cumsum(p), rng.random(20_000) * p.sum(), side="right")
frequency = np.bincount(draws, minlength=len(p)) / len(draws)
for id in order[:5]:
    print(f"{shown(id):8} probability {p[id]:.4f}   drawn {frequency[id]:.4f}")
lesson.prove("frequency and probability differ at most by", np.abs(frequency - p).max(), at_most=0.015)

# %% [markdown]
# # Why not always the most likely one?
#
# That is `temperature=0`, also called *greedy*. It gives the same text each time, and it suits questions that have
# one answer. But a text of nothing but the most likely words is not a likely text: here it would begin every story
# with the same hero. And why not just draw from the probabilities as they are? Because hundreds of tokens that are
# wrong here got a little each, and together that is the chance of nonsense at *each* token: among 100 tokens, one is
# soon wrong. The dials trade one against the other.
#
# **Scores divided by `temperature`.** Below 1 the likely become likelier, above 1 all come nearer to each other.
# `softmax(logits / t)` raises each probability to the power `1 / t`.
#
# **Cut off the tail.** What is cut gets the score `-inf`, so the probability 0, and the rest is scaled up to sum 1:
#
# - `top_k`: the k most likely stay. Simple, but k is the same where two words fit and where a hundred do.
# - `top_p`: the fewest that reach p together stay. Also called *nucleus*.
# - `min_p`: what is at least p times as likely as the most likely one stays.
# - `typical_p`: those stay whose surprise is nearest to the expected surprise, the entropy. So even the most likely
#   may go, where it says less than is usual here.

# %%


def keep_top_k(p, k):
    """The k most likely tokens, scaled to sum 1."""
    least = np.sort(p)[-k]
    kept = np.where(p >= least, p, 0.0)
    return kept / kept.sum()


assert np.allclose(keep_top_k(p, 5), softmax(P.keep_top_k(logits, 5)[0]))  # the library's step does the same

filters = {
    "as they are": {},
    "temperature=0.5": {"temperature": 0.5},
    "temperature=1.5": {"temperature": 1.5},
    "top_k=5": {"top_k": 5},
    "top_p=0.6": {"top_p": 0.6},
    "min_p=0.1": {"min_p": 0.1},
    "typical_p=0.5": {"typical_p": 0.5},
    "top_k=1": {"top_k": 1},
}


def after(settings, logits=logits):
    """The probabilities once the steps that these settings ask for have run, in the library's order."""
    for step in P.filters(GenerationConfig(**settings)):
        logits = step(logits)
    return softmax(logits[0])


print(f"{'':18} possible   right words left   nonsense   entropy in nats")
for name, settings in filters.items():
    q = after(settings)
    left, nonsense = sum(q[id] > 0 for id in right), abs(1 - sum(q[id] for id in right))
    entropy = np.sum(q[q > 0] * -np.log(q[q > 0]))
    print(f"{name:18} {np.sum(q > 0):8} {left:11} of {len(right)} {nonsense:10.2%} {entropy:12.2f}")

# %% [markdown]
# # Before and after
#
# Grey: before. In colour: after. A token that is excluded keeps its place and its grey bar, with a cross: so one sees
# what was given up for safety. Which words are lost is a choice, not a detail: with `top_k=5` most of the animals
# never appear in any story.

# %%


def panels(figure, named):
    """A panel for each (title, before, after, the tokens to show): pale bars before, coloured after; crosses where a
    token can no longer be drawn.
    """
    top = 1.15 * max(probabilities[ids].max() for _, p, q, ids in named for probabilities in (p, q))
    for i, (axes, (title, p, q, ids)) in enumerate(zip(figure.subplots(2, 3, sharey=True).flat, named, strict=True)):
        places = np.arange(len(ids))
        axes.bar(places, p[ids], color=lesson.grey, alpha=0.35, width=0.9, label="before")
        axes.bar(places, q[ids], color=f"C{i % 3}", width=0.5, label="after")
        out = places[q[ids] == 0]
        axes.plot(out, np.full(len(out), top / 40), "x", color=lesson.ink, markersize=4, label="excluded")
        axes.set(ylim=(0, top), title=title, ylabel="" if i % 3 else "probability")
        axes.set_xticks(places, [shown(id) for id in ids], rotation=90, fontsize=7)
        axes.tick_params(axis="x", length=0)
    axes.legend()


dials = [name for name in filters if name not in ("as they are", "top_k=1")]
lesson.picture(
    "filters",
    lambda figure: panels(figure, [(name, p, after(filters[name]), order[:22]) for name in dials]),
    alt="Six bar charts of the 22 most likely tokens after 'there was a brave', before and after temperature 0.5 and "
    "1.5, top_k 5, top_p 0.6, min_p 0.1 and typical_p 0.5; tokens that can no longer be drawn have crosses.",
    size=(10, 5.6),
)

# %% [markdown]
# # Looking back
#
# A second family of dials looks at the text so far, against models that repeat themselves:
#
# - `frequency_penalty`: the logit falls by so much for each time the token was drawn already;
# - `presence_penalty`: it falls once, however often the token came;
# - `repetition_penalty`: a positive logit is divided by it, a negative one multiplied; the prompt, the text that the
#   model was given, counts too;
# - `no_repeat_ngram_size=2`: no pair of tokens comes twice;
# - `logit_bias`: so much is added to the logits of chosen tokens, to want a word, or with -100 to ban it;
# - `min_new_tokens`: the tokens that end the text are excluded until so many were drawn.
#
# They do not know *why* a word is repeated. A story needs its names again: to whom does Mia give the ball? Only Tom
# is there. A penalty takes from him and gives to people who are not in the story; and where a pair of tokens may not
# come twice, nobody can go "to the" lake who has been "to the" park. For the same reason these dials spoil code and
# tables.

# %%
story = "Once there was a kind girl named Mia. Mia loved to sing. One sunny day, Mia went to the old park. There she "
story += "found a red ball. Soon she met Tom, a shy fox. Then "
past, scores = read(f"{story}Mia gave the red ball to")
went, went_scores = read(f"{story}they went to")
ended = "they ate some jam. Then they saw two owls. What did Mia love? She loved to sing. The end."
_, end_scores = read(story + ended)
tom = tokenizer.encode(" Tom", add_special_tokens=False)[0]
q = softmax(scores[0])
likely = np.argsort(-q)[:12]
print(f"...{tokenizer.decode(past[0, -20:])} ...\n" + ", ".join(f"{shown(id)} {q[id]:.1%}" for id in likely))
looking_back = [  # the whole story counts as drawn
    ("frequency_penalty=1", P.penalize_frequency(scores, past, frequency=1.0, presence=0.0)),
    ("presence_penalty=1", P.penalize_frequency(scores, past, frequency=0.0, presence=1.0)),
    ("repetition_penalty=1.5", P.penalize_repetition(scores, past, penalty=1.5)),
    ("logit_bias={Tom: 2}", P.add_bias(scores, {tom: 2.0})),
]
for title, changed in looking_back:
    print(f"{title:23} Tom {softmax(changed[0])[tom]:.1%}")
dials = [(title, q, softmax(changed[0]), likely) for title, changed in looking_back]
for title, before, changed in (
    ("min_new_tokens, 'The end.'", end_scores, P.forbid(end_scores, [tokenizer.eos_id])),
    ("no_repeat_ngram_size=2, 'they went to'", went_scores, P.forbid_repeated_ngrams(went_scores, went, size=2)),
):
    dials.append((title, softmax(before[0]), softmax(changed[0]), np.argsort(-before[0])[:12]))
lesson.picture(
    "penalties",
    lambda figure: panels(figure, dials),
    alt="Six bar charts of the 12 most likely tokens in a story where only Tom can be meant, before and after three "
    "penalties and a bias for his name; and of other places, before and after the end of the text is excluded, and a "
    "repeated pair.",
    size=(10, 5.6),
)

# %% [markdown]
# # The same seed
#
# One seed, three temperatures: as long as the points fall into the same stretches, the texts are the same.
#
# `num_beams=4` draws nothing. It keeps the 4 most likely beginnings and looks for the most likely *whole* text.
# Greedy search, which takes the best token each time, usually finds a less likely one: the best first step need not
# lead to the best end.

# %%
for temperature in (0.6, 0.7, 1.3):
    settings = GenerationConfig(temperature=temperature, max_new_tokens=40, seed=1)
    print(f"temperature {temperature}: {generate(model, tokenizer, text, settings).text}\n")
greedy = generate(model, tokenizer, text, GenerationConfig(temperature=0, max_new_tokens=30))
beams = generate(model, tokenizer, text, GenerationConfig(num_beams=4, max_new_tokens=30, length_penalty=0.0))
for name, found in (("greedy", greedy), ("4 beams", beams)):
    print(f"{name:8} log-probability {sum(found.logprobs):7.2f}: {found.text}\n")

# %% [markdown]
# # Exercises
#
# 1. Probabilities at a temperature. (Temperature 0 need not be handled.)
# 2. `top_p`: the fewest most likely tokens whose probabilities reach p together, scaled to sum 1, the others 0.

# %%


def check_at_temperature(f):
    """Squares at 1/2, no change at 1; large scores must not overflow."""
    scores = np.log(np.array([0.5, 0.3, 0.2]))
    close(f(scores, 1.0), [0.5, 0.3, 0.2], "temperature 1")
    close(f(scores, 0.5), np.array([0.25, 0.09, 0.04]) / 0.38, "temperature 0.5")
    close(f(np.array([2000.0, 2000.0]), 1.0), [0.5, 0.5], "scores of 2000")


@lesson.exercise(check_at_temperature)
def at_temperature(logits, temperature):
    """(V,) scores -> (V,) probabilities."""
    ...


def check_nucleus(f):
    """The last one needed is kept too, and the tokens may come in any order."""
    probs = np.array([0.1, 0.4, 0.2, 0.3])
    close(f(probs, 0.5), [0, 4 / 7, 0, 3 / 7], "p = 0.5 of [0.1, 0.4, 0.2, 0.3]")
    close(f(probs, 0.3), [0, 1, 0, 0], "p = 0.3: one token reaches it alone")
    close(f(probs, 0.95), probs, "p = 0.95: all are needed")


@lesson.exercise(check_nucleus)
def nucleus(p, reach):
    """(V,) probabilities -> (V,) probabilities, of which the unlikely are 0."""
    ...


# %%
lesson.end(
    changed="the draw: temperature, top-k, top-p ...",
    parameters=model.num_parameters(),
    read=[
        "minillm/generation/processors.py", "minillm/generation/config.py", "minillm/generation/config_file.py",
        "minillm/generation/generator.py", "minillm/generation/beam.py", "minillm/generation/large_vocabulary.py",
        "minillm/cli/generate.py", "minillm/cli/probabilities.py", "minillm/models/fast/", "minillm/cli/",
    ],
)  # fmt: skip
