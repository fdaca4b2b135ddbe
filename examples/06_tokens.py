"""Lesson 6. Tokens: how a text becomes numbers, and why a character may arrive in two halves.

    python examples/06_tokens.py
"""

# %% [markdown]
# # Which pieces?
#
# A language model reads numbers, so a text must be cut into pieces, and every kind of piece gets a
# number, its id. The pieces are called **tokens**; all kinds together are the **vocabulary**.
#
# Why not words? There is no end of them: names, plurals, typos. A word that is not in the vocabulary
# could be neither read nor written. Why not characters? There are few, and nothing is unknown; but texts
# become long, and every token costs the model a step. So one takes what lies between: frequent words as a
# whole, rare ones in parts. **Byte-pair encoding**, BPE, finds such pieces by counting.
#
# It starts from bytes, and repeats one thing: *find the pair of neighbours that is most frequent, and
# join it everywhere*. Words keep the space before them, so that the tokens of a text only need to be put
# one after the other to give it back; and no pair is joined across the beginning of a word.

# %%
from collections import Counter
from itertools import pairwise

import numpy as np
from course import Lesson, same

from minillm import data
from minillm.tokenizer import BPETokenizer, CharTokenizer, UnigramTokenizer

lesson = Lesson("06_tokens")

text = "sing singing ring ringing jump jumping jumps walk walking walks singer jumper walker"
bytes_only = BPETokenizer.train([], vocab_size=257)  # an id for each of the 256 bytes, and one for "the text ends"
words = [bytes_only.encode(word) for word in bytes_only.pieces(text)]
names = {id: bytes_only.token_bytes(id).decode("latin-1") for id in range(257)}
print("before: ", " | ".join(" ".join(names[id] for id in word) for word in words[:4]), "| ...")


def joined(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The word with the pair replaced by the new id, everywhere."""
    done: list[int] = []
    for id in word:
        if done and (done[-1], id) == pair:
            done[-1] = new
        else:
            done.append(id)
    return done


merges = []
while len(merges) < 14:
    count = Counter(pair for word in words for pair in pairwise(word))
    best = min(count, key=lambda pair: (-count[pair], pair))  # among equals the pair with the lowest ids
    new = 257 + len(merges)
    names[new] = names[best[0]] + names[best[1]]
    words = [joined(word, best, new) for word in words]
    merges.append(best)
    left, right = (f"'{names[id]}'" for id in best)
    print(f"merge {len(merges):2}: {left:>6} + {right:6} stood side by side {count[best]} times -> '{names[new]}'")
print("after:  ", " | ".join(" ".join(names[id] for id in word) for word in words))

# %% [markdown]
# The endings `ing` and `er` were found, and some stems: nobody told it what a word is. The library's
# tokenizer does the same with compiled loops (so that books take seconds), and must find the same merges.
#
# To **encode** a new text, the merges are applied to it *in the order in which they were learned*. That
# is all; there is no search for the longest piece.

# %%
ours = BPETokenizer.train([text], vocab_size=257 + len(merges))
assert ours.merges == merges, "the library's merges are others"
print("the library's merges are the same; words that it never saw:")
for word in (" talking", " winger", " jumpers"):
    print(f"{word!r:11} ->", [ours.token_bytes(id).decode() for id in ours.encode(word)])

# %% [markdown]
# # Three ways to cut a text
#
# **Unigram** goes the other way round: it starts with far too many pieces, gives each a probability, and
# throws out those that are missed least. A text is cut in the way that makes the product of the
# probabilities largest. Here are characters, BPE and Unigram on the same sentence. The last two learned
# from the same stories, and "umbrella" is in none of them.
#
# How large should a vocabulary be? Each new token shortens the text a little less than the one before;
# and each id costs a row of the model's table of embeddings, which must be seen often enough to be
# learned.

# %%
stories = [story.text for story in data.corpus(200, seed=0)]
heard = [story.text for story in data.corpus(30, seed=1)]  # other stories, to measure on
characters = CharTokenizer.train(stories)
sizes = [257, 320, 400, 500, 650, 800, 1000]
bpe = [BPETokenizer.train(stories, size) for size in sizes]
unigram = [UnigramTokenizer.train(stories, size, special_tokens=()) for size in sizes if 300 < size < 800]


def tokens_per_text(tokenizer) -> float:
    """On average, of the stories that no tokenizer learned from."""
    return float(np.mean([len(tokenizer.encode(story)) for story in heard]))


by_bpe, by_unigram = ([(t.vocab_size, tokens_per_text(t)) for t in group] for group in (bpe, unigram))
by_characters = tokens_per_text(characters)
print(f"characters: {by_characters:.0f} tokens per story, {characters.vocab_size} ids")
for (ids, tokens), size in zip(by_bpe, sizes, strict=True):
    beside = [f"   Unigram {u:.0f}" for n, u in by_unigram if n == size]
    print(f"{ids:5} ids:  BPE {tokens:.0f} tokens per story" + "".join(beside))

sentence = "The unlucky fox found a golden umbrella."
last = f"Unigram, {unigram[-1].vocab_size} ids"  # all the pieces that these stories gave
chosen = {"characters": characters, "BPE, 1,000 ids": bpe[-1], last: unigram[-1]}
cut = {name: [t.token_bytes(id).decode() for id in t.encode(sentence)] for name, t in chosen.items()}
cut[last][0] = cut[last][0].lstrip()  # it puts a space before the first word as well
for name, pieces in cut.items():
    print(f"{name:16} {'|'.join(pieces)}")


def draw(figure):
    """The sentence in pieces; how long the stories are for each size of the vocabulary."""
    top, bottom = figure.subplots(2, 1, height_ratios=(1, 1.7))
    for line, (name, pieces) in enumerate(cut.items()):
        at = 0
        top.text(-0.7, -line, f"{name}: {len(pieces)}", ha="right", va="center", fontsize=8, color=lesson.grey)
        for i, piece in enumerate(pieces):
            top.barh(-line, len(piece), left=at, height=0.72, color=f"C{i % 3}", alpha=0.35, edgecolor=lesson.paper)
            for j, character in enumerate(piece):
                top.text(at + j + 0.5, -line, character, ha="center", va="center", fontsize=9, family="monospace")
            at += len(piece)
    top.set(title="one sentence; a box is a token", xlim=(-11, len(sentence)), ylim=(-2.5, 0.5))
    top.set_axis_off()
    bottom.axhline(by_characters, color="C2", linestyle=":")
    bottom.text(1000, by_characters - 8, f"characters, {characters.vocab_size} ids", ha="right", va="top", color="C2")
    for points, marker, colour, name in ((by_bpe, "o-", "C0", "BPE"), (by_unigram, "s--", "C1", "Unigram")):
        bottom.plot(*zip(*points, strict=True), marker, color=colour, markersize=5, label=name)
    bottom.set(title="stories become shorter", xlabel="size of the vocabulary (ids)", ylabel="tokens per story")
    bottom.set(ylim=(0, None))
    bottom.legend(loc="lower left")


lesson.picture(
    "pieces",
    draw,
    alt="Above: one sentence in coloured boxes, one for each token: characters make most, Unigram fewer, BPE fewest. "
    "Below: tokens per story against the size of the vocabulary; both curves fall steeply, then flatten out.",
    size=(7, 5),
)
lesson.prove("characters per token of BPE", by_characters / by_bpe[-1][1], at_least=3)

# %% [markdown]
# (Why is Unigram below BPE for small vocabularies? It need not hold all 256 bytes, so it has more ids
# left for pieces. The price: a character that it has never seen becomes "unknown", and is lost. BPE on
# bytes never loses anything.)
#
# This also answers a famous question: why do language models miscount the letters of a word? They do not
# see letters. They see the ids of pieces.
#
# # A character in two halves
#
# In UTF-8, the usual way to store text, an English letter is one byte, but `é` is two, and most emoji are
# four. Our BPE met English stories only, so it knows such characters as single bytes: *a token may be
# half a character*.
#
# That matters when a model writes and each token is shown at once. Half a character is no text, and shows
# as `�`. So a **streaming** decoder must wait: it holds back the bytes at the end that are the beginning
# of a character, and shows them when the rest has come.

# %%
shown = bpe[-1].stream_decoder()
print("token      bytes  decoded alone  shown by the stream")
for id in bpe[-1].encode("A café 🦊!"):
    token = bpe[-1].token_bytes(id)
    print(f"{id:5} {token.hex(' '):>10}  {bpe[-1].decode([id])!r:13}  {shown.push(id)!r}")

# %% [markdown]
# # Exercises
#
# 1. Encode a word: apply the merges, each everywhere, in the order in which they were learned (`joined`
#    is there for you). Merge number k makes the id 257 + k.
# 2. How many bytes at the end of `data` must a stream hold back? `data` is correct UTF-8, perhaps cut
#    within its last character: try to decode it without the last bytes.

# %%


def check_encode(f):
    """Against the library, on words it saw and words it did not."""
    for word in (" walker", " talking", "winger", "jumpers", "w"):
        got = f([int(id) for id in bytes_only.encode(word)], merges)
        same(got, [int(id) for id in ours.encode(word)], word)


@lesson.exercise(check_encode)
def encode(word, merges):
    """The ids of a word, given as the ids of its bytes. merges: pairs of ids."""
    ...


def check_waiting(f):
    """Cut after each byte."""
    for part, wanted in ((b"caf", 0), (b"caf\xc3", 1), (b"caf\xc3\xa9", 0), (b"\xf0\x9f", 2), (b"\xf0\x9f\xa6", 3)):
        same(f(part), wanted, f"{part!r}")


@lesson.exercise(check_waiting)
def waiting(data):
    """0, 1, 2 or 3: so many bytes at the end are not yet a character."""
    ...


# %%
lesson.end(
    changed="text becomes tokens: BPE, Unigram",
    read=["minillm/tokenizer/bpe.py", "minillm/tokenizer/unigram.py", "minillm/tokenizer/"],
)
