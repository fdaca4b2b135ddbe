"""A model without weights and a tokenizer without training, for the tests of the generator."""

from types import SimpleNamespace

import numpy as np


class MockTokenizer:
    """One token for each byte of a small alphabet, then the end of text; `pieces` can be any byte strings."""

    def __init__(self, pieces="abcdefghijklmnopqrstuvwxyz .,", special=("<|endoftext|>",)):
        self.pieces = [p if isinstance(p, bytes) else p.encode() for p in pieces]
        self.special_tokens = {name: len(self.pieces) + i for i, name in enumerate(special)}
        self.tokens = self.pieces + [name.encode() for name in special]
        self.vocab_size = len(self.tokens)
        self.eos_id = self.special_tokens.get("<|endoftext|>")

    def encode(self, text, allowed_special=()):
        return [self.pieces.index(c.encode()) for c in text]

    def decode(self, ids):
        return b"".join(self.tokens[i] for i in ids).decode("utf-8", "replace")

    def stream_decoder(self):
        import codecs

        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        return SimpleNamespace(push=lambda id: utf8.decode(self.tokens[id]), flush=lambda: utf8.decode(b"", True))


class MockCache:
    """The ids read so far, and the number of padding positions of each row."""

    def __init__(self, ids, starts, capacity):
        self.ids, self.starts, self.capacity = ids, starts, capacity

    @property
    def length(self):
        return self.ids.shape[1]

    def reorder(self, rows):
        return MockCache(self.ids[rows], self.starts[rows], self.capacity)


class MockModel:
    """Scores that depend on every token read and its position: sum over j of 0.7^(t - j) E[id_j] + P[j], times W.

    The cache holds only ids, so that every answer is a recomputation; padding takes no part in it.
    """

    training = False

    def __init__(self, vocab_size, context=None, seed=0, sharpness=3.0):
        rng = np.random.default_rng(seed)
        self.context, self.vocab_size = context, vocab_size
        self.config = SimpleNamespace(vocab_size=vocab_size)
        self.E = rng.normal(size=(vocab_size, 16))
        self.P = rng.normal(size=(4096, 16))
        self.W = rng.normal(size=(16, vocab_size)) * sharpness / 4
        self.calls = []  # the shape of the ids of each call

    def new_cache(self, batch_size, length, starts=None):
        starts = np.zeros(batch_size, int) if starts is None else starts
        assert self.context is None or length <= self.context
        return MockCache(np.zeros((batch_size, 0), int), starts, length)

    def scores(self, ids):
        """Logits after the last of some ids (T,): (V,)."""
        ids = np.asarray(ids)
        decay = 0.7 ** np.arange(len(ids))[::-1]
        return ((self.E[ids] + self.P[: len(ids)]) * decay[:, None]).sum(axis=0) @ self.W

    def __call__(self, ids, cache):
        self.calls.append(ids.shape)
        before = cache.length
        cache.ids = np.concatenate([cache.ids, ids], axis=1)
        assert cache.length <= cache.capacity, "the cache has no room"
        logits = np.zeros((*ids.shape, self.vocab_size))
        for row, start, out in zip(cache.ids, cache.starts, logits, strict=True):
            for t in range(ids.shape[1]):
                out[t] = self.scores(row[start : before + t + 1]) if before + t >= start else 0
        return SimpleNamespace(data=logits)

    def next_logits(self, ids, cache):
        return self(ids, cache).data[:, -1]


class ScriptedModel(MockModel):
    """Says a given sequence of ids, whatever the prompt; each is e^margin times as likely as any other token."""

    def __init__(self, vocab_size, script, context=None, margin=10.0, prompt_length=1):
        super().__init__(vocab_size, context)
        self.script, self.margin, self.prompt_length = script, margin, prompt_length

    def scores(self, ids):
        logits = np.zeros(self.vocab_size)
        logits[self.script[(len(ids) - self.prompt_length) % len(self.script)]] = self.margin
        return logits
