"""Lesson 12. Knowing when to stop: the seven ends of a text, and why the end must be learned.

    python examples/12_stopping.py
"""

# %% [markdown]
# # Knowing when to stop
#
# A model gives probabilities for the next token, for ever. There is always a next token. So how does a text end?
#
# By a token that means *the end*: **EOS**, end of sequence, here `<|endoftext|>`. It has a number in the vocabulary
# like any other, and a probability at each place. The program that draws tokens stops when it draws this one. That is
# all: the model stops because it has learned when this token comes, and because somebody watches for it.
#
# Both can fail. So there are other ends, and a good program says which it was: the `finish_reason`.

# %%
import numpy as np
from course import Lesson, close, story_model

from minillm import GenerationConfig, data, generate, generate_batch, models, optim, stream
from minillm import functional as F
from minillm.training.evaluate import evaluating

lesson = Lesson("12_stopping")
model, tokenizer, _ = story_model(lesson)
EOS = tokenizer.eos_id

# %% [markdown]
# # Seven reasons
#
# - `eos`: the model drew the end-of-text token. It was done.
# - `end_of_turn`: it drew the token that ends a turn in a chat (next lesson). This model has none; here the full stop
#   plays the part.
# - `stop`: a string came up that the caller had named. It is not shown, though it may be spread over several tokens.
# - `length`: `max_new_tokens` were drawn. The text is cut, perhaps within a word.
# - `context`: the model cannot see more tokens than it was built for.
# - `cancelled`: the caller asked for it, while the text was being written. Somebody closed the window.
# - `criterion`: a function of the caller's own said so.
#
# A program that mistakes `length` for `eos` shows half sentences as if they were answers.

# %%
settings = GenerationConfig(temperature=0.7, seed=4)
full_stop = tokenizer.encode(".", add_special_tokens=False)[0]
long = [EOS, *tokenizer.encode(" ".join(story.text for story in data.corpus(4, seed=9)), add_special_tokens=False)]
asked = iter([False] * 12 + [True])  # twelve times no, then yes
ends = [
    generate(model, tokenizer, "", settings),
    generate(model, tokenizer, "", settings.replace(end_of_turn_token_id=full_stop)),
    generate(model, tokenizer, "", settings.replace(stop=". ")),
    generate(model, tokenizer, "", settings.replace(max_new_tokens=10)),
    generate(model, tokenizer, long[: model.context - 2], settings),
    generate(model, tokenizer, "", settings, cancel=lambda: next(asked)),
    generate(model, tokenizer, "", settings, criterion=lambda ids, text: text.count(".") >= 2),
]
for end in ends:
    print(f"{end.finish_reason:11} after {len(end.ids):3} tokens: ...{end.text[-60:]!r}")

# %% [markdown]
# # A stop string is held back
#
# Text is often shown while it is being written. What if the first half of the stop string has been shown already when
# the second half comes? So the end of the text is held back for as long as it could be the beginning of a stop
# string. Look for the empty pieces.

# %%
pieces = [piece.text for piece in stream(model, tokenizer, "", settings.replace(stop=". ")) if piece.ids]
print("without delay, token by token, until the stop string might begin:")
print(pieces)

# %% [markdown]
# # The probability of stopping along a text
#
# At each place the model says how likely the end is. In a good story it is hardly ever likely, and then, after the
# last sentence, nearly certain. What is more, it must tell the last sentence from the others: all end with a full
# stop.
#
# If `s` are these probabilities, `np.cumprod(1 - s)` is how likely the text is still going on after each token. This
# is why tiny errors count: with a chance of 1% at each token, little more than a third of the texts get beyond 100
# tokens.

# %%
whole = ends[0]
stop_probs = np.array(whole.stop_probs)
written = [tokenizer.decode([id]) for id in whole.ids]
stops = np.array([i for i in range(1, len(written)) if written[i - 1].endswith((".", "!", '"'))])
print(whole.text, f"\n[{whole.finish_reason}]\n")
print(f"at the {len(stops)} places where a sentence has ended, the probability of the end of the text is")
print(", ".join(f"{stop_probs[i]:.1e}" if stop_probs[i] < 0.001 else f"{stop_probs[i]:.3f}" for i in stops))
print(f"1 % at each token: {np.cumprod(1 - np.full(100, 0.01))[-1]:.1%} of the texts reach 100 tokens")

# %% [markdown]
# # The end must be learned
#
# Does a model learn to stop by itself? It learns what it is asked for: the loss is over the *targets*, the tokens
# that come next, and EOS must be one of them. This is easily lost. Rows of a batch must be equally long, so short
# ones are filled up (**padding**), and often with EOS, since it is at hand. Nobody wants to learn the filling: those
# targets are set to -100, which the loss skips. And whoever writes `y[y == EOS] = -100` skips the one true end as
# well.
#
# We train the same small model twice, on the first sentences of stories, with the same rows in the same order. The
# only difference is that line.

# %%
sentences = [story.text.split(".")[0] + "." for story in data.corpus(1500, seed=1)]
rows = [[EOS, *ids, EOS] for ids in tokenizer.encode_batch(sentences, add_special_tokens=False)]
width = max(map(len, rows))
padded = np.array([row + [EOS] * (width - len(row)) for row in rows])  # (N, T + 1)


def targets(with_end):
    """(N, T) the next token at each place; -100 where nothing is asked."""
    y = padded[:, 1:].copy()
    if with_end:
        for i, row in enumerate(rows):
            y[i, len(row) - 1 :] = -100  # the filling, not the end of the row
    else:
        y[y == EOS] = -100  # the mistake
    return y


def train(y, steps=150):
    """A small transformer that has learned these targets."""
    config = models.LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=48, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64, initializer_range=48**-0.5,
        tie_word_embeddings=True, bos_token_id=EOS, eos_token_id=EOS,
    )  # fmt: skip
    model = models.Llama(config, rng=0)
    optimizer = optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.95))
    rate, rng = optim.warmup_cosine(0.01, steps=steps, warmup=10), np.random.default_rng(0)
    for step in range(steps):
        some = rng.integers(0, len(rows), 48)
        loss = F.cross_entropy(model(padded[some, :-1]), y[some])
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.lr = rate(step)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:3}   loss {loss.item():.3f}")
    return model


rate, along, example = {}, {}, generate(model, tokenizer, "", settings.replace(stop=".", seed=2)).text + "."
ids = [EOS, *tokenizer.encode(example, add_special_tokens=False)]
for name, with_end in (("with", True), ("without", False)):
    print(f"{name} the end among the targets:")
    small = train(targets(with_end))
    texts = generate_batch(small, tokenizer, [""] * 100, GenerationConfig(max_new_tokens=60, seed=0))
    rate[name] = np.mean([text.finish_reason == "eos" for text in texts])
    with evaluating(small):
        along[name] = F.softmax(small(np.array([ids]))).data[0, :, EOS]  # (T,) after each token
    print(f"it stops in {rate[name]:.0%} of 100 texts; the first: {texts[0].text!r} [{texts[0].finish_reason}]\n")
gained = rate["with"] - rate["without"]
lesson.prove("share that stops with the end in the loss, minus the share without", gained, at_least=0.9, at_most=1)
lesson.prove("different reasons to stop", len({end.finish_reason for end in ends}), at_least=7)


def draw(figure):
    """The probability of the end: along a story, and along one sentence for both small models."""
    left, right = figure.subplots(1, 2)
    left.semilogy(np.maximum(stop_probs, 1e-9), color="C5", linewidth=1)
    left.plot(stops, np.maximum(stop_probs[stops], 1e-9), "o", color="C0", markersize=5, label="after a sentence")
    left.axhline(0.01, color=lesson.grey, linestyle="--", linewidth=1)
    left.text(0, 0.013, "1 %", color=lesson.grey, fontsize=8)
    left.set(title="a story, and how likely its end is", xlabel="tokens written", ylabel="probability of EOS next")
    left.set(ylim=(1e-9, 3))
    left.legend(loc="upper center")
    for (name, p), style, marker in zip(along.items(), ("-", "--"), "os", strict=True):
        right.semilogy(np.maximum(p, 1e-9), style, marker=marker, markersize=4, label=f"{name} the end in the loss")
    right.set_xticks(range(len(ids)), ["(begin)", *(tokenizer.decode([id]).strip() for id in ids[1:])], rotation=90)
    right.set(title="the same sentence, two models", xlabel="after this token", ylim=(1e-9, 3))
    right.legend(loc="upper left")
    for axes in (left, right):
        axes.yaxis.set_major_formatter("{x:g}")


lesson.picture(
    "end",
    draw,
    alt="Left: the probability of the end-of-text token along a story, tiny at the end of each sentence but the last, "
    "where it is nearly 1. Right: along one sentence, it rises to nearly 1 for the model that learned the end, and "
    "stays tiny for the one that did not.",
    size=(10, 4.4),
)

# %% [markdown]
# # Exercises
#
# 1. The targets of one row that is filled up: the next token at each place, its end included, and -100 for the
#    filling.
# 2. The share of texts that have not ended after each token, from the probabilities of stopping.

# %%


def check_targets_of(f):
    """A row of three tokens between two ends, with and without room."""
    same_length = f([0, 7, 8, 9, 0], 4)
    close(same_length, [7, 8, 9, 0], "[0, 7, 8, 9, 0] in a row of 4 targets, where 0 is EOS")
    close(f([0, 7, 0], 5), [7, 0, -100, -100, -100], "[0, 7, 0] in a row of 5 targets")


@lesson.exercise(check_targets_of)
def targets_of(ids, width):
    """[EOS, d1 ... dn, EOS] -> (width,) targets; -100 where nothing is asked."""
    ...


def check_still_going(f):
    """Halves and quarters; a certain end."""
    close(f(np.array([0.5, 0.5])), [0.5, 0.25], "a half at each token")
    close(f(np.array([0.0, 0.1, 1.0, 0.2])), [1, 0.9, 0, 0], "0, 0.1, 1, 0.2")


@lesson.exercise(check_still_going)
def still_going(stop_probs):
    """(T,) probabilities that the text ends at this token -> (T,) that it has not ended yet."""
    ...


# %%
lesson.end(
    changed="the end of a text: seven reasons, EOS",
    parameters=small.num_parameters(),
    read=[
        "minillm/generation/stopping.py", "minillm/generation/result.py", "minillm/generation/prompt.py",
        "minillm/tokenizer/stream.py", "minillm/tokenizer/specials.py", "minillm/data/batches.py",
        "minillm/generation/", "minillm/check/stop_plot.py", "minillm/check/figure.py",
    ],
)  # fmt: skip
