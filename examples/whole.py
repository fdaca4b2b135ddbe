"""The whole thing on one page: a language model made of nothing but arrays, which learns to tell stories in a minute.

    python examples/whole.py      # on a busy machine set OPENBLAS_NUM_THREADS=1: its arrays are small

Text becomes numbers, numbers go through a GPT, the chain rule says how to change it, and numbers become text again.
This is the complete algorithm. Each part of minillm/ is the careful version of some lines: checked, general, fast.
B batch, T time, C channels, H heads, D = C / H head size, V vocabulary.
"""

import functools
import itertools
import re

import numpy as np

from minillm import data

T, C, H, LAYERS = 128, 64, 2, 2  # how many tokens the model sees; how wide it is, and how deep


# ---- Tokens: words, and characters to spell unknown words with. minillm/tokenizer/ has pieces of words, for any text.


def split(text):
    return re.findall(r" ?\w+|\W", text)  # 'said: "No"' -> 'said', ':', ' ', '"', 'No', '"'


def encode(text, ids):  # ids: token -> its number
    return [ids[token] for word in split(text) for token in ([word] if word in ids else word)]


# ---- The engine: an array that remembers what it was made of. Each operation knows its own derivative, and backward()
# multiplies them on the way from the loss to the weights: the chain rule. See minillm/autograd/engine.py and tensor.py.


class Tensor:
    clock = itertools.count()

    def __init__(self, array, inputs=(), chain_rule=lambda dy: ()):  # chain_rule(dy) -> dx for each input x
        self.data, self.grad = array, 0.0
        self.inputs, self.chain_rule, self.born = inputs, chain_rule, next(Tensor.clock)

    def backward(self):
        self.grad, waiting = np.ones_like(self.data), {self}
        while waiting:
            newest = max(waiting, key=lambda t: t.born)  # whatever used it was born later, and is done: dy is complete
            waiting.remove(newest)
            for x, dx in zip(newest.inputs, newest.chain_rule(newest.grad), strict=True):
                x.grad = x.grad + dx  # used twice, x moves the loss in two ways: gradients add
                waiting.add(x)

    def __add__(a, b):
        return Tensor(a.data + b.data, (a, b), lambda dy: (like(a, dy), like(b, dy)))

    def __mul__(x, number):
        return Tensor(x.data * number, (x,), lambda dy: (dy * number,))

    def __matmul__(a, b):
        return Tensor(a.data @ b.data, (a, b), lambda dy: (dy @ b.data.mT, like(b, a.data.mT @ dy)))

    def reshape(x, *shape):
        return Tensor(x.data.reshape(shape), (x,), lambda dy: (dy.reshape(x.data.shape),))

    def transpose(x, *axes):
        return Tensor(x.data.transpose(axes), (x,), lambda dy: (dy.transpose(np.argsort(axes)),))


def like(x, dy):  # where NumPy repeated x along new first axes, each copy sends a gradient: they add
    return dy.sum(axis=tuple(range(dy.ndim - x.data.ndim)))


# ---- Operations with a name, each with its derivative. See minillm/functional/.


def embedding(w, ids):  # (V, C), (B, T) -> (B, T, C): a row of w for each id
    def chain_rule(dy):
        dw = np.zeros_like(w.data)
        np.add.at(dw, ids, dy)  # dw[id] += dy, also where an id occurs twice
        return (dw,)

    return Tensor(w.data[ids], (w,), chain_rule)


def layer_norm(x):  # brings each row to mean 0 and variance 1
    mean = functools.partial(np.mean, axis=-1, keepdims=True)
    centred = x.data - mean(x.data)
    r = 1 / np.sqrt(mean(centred**2) + 1e-5)
    y = centred * r
    return Tensor(y, (x,), lambda dy: (r * (dy - mean(dy) - y * mean(dy * y)),))


def gelu(x):  # lets through what is large, damps what is small
    a, s = x.data, (2 / np.pi) ** 0.5
    t = np.tanh(s * (a + 0.044715 * a * a * a))
    slope = (1 + t) / 2 + a / 2 * (1 - t * t) * s * (1 + 3 * 0.044715 * a * a)
    return Tensor(a / 2 * (1 + t), (x,), lambda dy: (dy * slope,))


def probabilities(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))  # the largest becomes e^0: nothing overflows
    return e / e.sum(axis=-1, keepdims=True)


def causal_softmax(scores):  # (B, H, T, T): a share for each position up to one's own, none for later ones
    later = np.triu(np.full_like(scores.data[0, 0], -np.inf), k=1)
    p = probabilities(scores.data + later)
    return Tensor(p, (scores,), lambda dy: (p * (dy - (dy * p).sum(axis=-1, keepdims=True)),))


def cross_entropy(scores, targets):  # (B, T, V), (B, T) -> -log p(target) in nats, on average: the surprise
    p, onehot = probabilities(scores.data), np.eye(scores.data.shape[-1], dtype=scores.data.dtype)[targets]
    loss = -np.log((p * onehot).sum(axis=-1)).mean()
    return Tensor(loss, (scores,), lambda dy: (dy * (p - onehot) / targets.size,))


# ---- The model: GPT-2 without biases and gains. See minillm/nn/ for layers, minillm/models/gpt2.py for the real one.


def new_weights(V, rng):
    shapes = {"token": (V, C), "position": (T, C)}
    for i in range(LAYERS):
        shapes |= {f"query{i}": (C, C), f"key{i}": (C, C), f"value{i}": (C, C), f"out{i}": (C, C)}
        shapes |= {f"up{i}": (C, 4 * C), f"down{i}": (4 * C, C)}
    return {name: Tensor((0.06 * rng.standard_normal(shape)).astype(np.float32)) for name, shape in shapes.items()}


def gpt(w, ids):  # (B, T) -> a score for each token that may come next
    x = embedding(w["token"], ids) + embedding(w["position"], np.arange(ids.shape[1]))  # (B, T, C)
    for i in range(LAYERS):
        x = x + attention(layer_norm(x), w[f"query{i}"], w[f"key{i}"], w[f"value{i}"]) @ w[f"out{i}"]
        x = x + gelu(layer_norm(x) @ w[f"up{i}"]) @ w[f"down{i}"]
    return layer_norm(x) @ w["token"].transpose(1, 0)  # (B, T, V)


def attention(x, query, key, value):  # each position looks back, and takes a mean of the values it finds there
    B, T, C = x.data.shape
    q, k, v = ((x @ w).reshape(B, T, H, C // H).transpose(0, 2, 1, 3) for w in (query, key, value))  # (B, H, T, D)
    shares = causal_softmax(q @ k.transpose(0, 1, 3, 2) * (C // H) ** -0.5)  # (B, H, T, T)
    return (shares @ v).transpose(0, 2, 1, 3).reshape(B, T, C)


# ---- From gradients to better weights: Adam gives each weight a step size of its own. See minillm/optim.py.


def adamw(weights, averages, step, lr, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.01):  # step: 1, 2, ...
    for name, w in weights.items():
        m, v = averages.setdefault(name, (np.zeros_like(w.data), np.zeros_like(w.data)))
        m += (1 - beta1) * (w.grad - m)  # the mean of the recent gradients
        v += (1 - beta2) * (w.grad**2 - v)  # and the mean of its square
        mean, square = m / (1 - beta1**step), v / (1 - beta2**step)  # both began at 0, and were too small
        w.data -= lr * (mean / (np.sqrt(square) + eps) + decay * w.data)
        w.grad = 0.0


# ---- From scores to text: one token at a time, until the model ends the story itself. See minillm/generation/.


def write(weights, rng, temperature=1.0, limit=200):
    ids = [0]  # after the end of one text another begins
    while len(ids) <= limit and (len(ids) == 1 or ids[-1] != 0):
        scores = gpt(weights, np.array([ids[-T:]])).data[0, -1] / temperature  # (V,)
        ends = np.cumsum(probabilities(scores), dtype=np.float64)  # a line on which each token has its stretch
        ids.append(int(np.searchsorted(ends, rng.random() * ends[-1], side="right")))  # a point on it, at random
    return ids[1:]


# ---- The loop: some text, how wrong, which way is down, a step; and again. See minillm/training/ and minillm/data/.


def how_wrong(weights, stream, starts):  # each token of a window is asked for the next one
    ids = stream[starts[:, None] + np.arange(T + 1)]  # (B, T + 1)
    return cross_entropy(gpt(weights, ids[:, :-1]), ids[:, 1:])


def main(n_stories=3000, steps=400, batch=8, learning_rate=0.01):
    rng = np.random.default_rng(0)
    stories, unseen = data.train_and_validation(n_stories, 100)  # made up, so that the probability of each is known
    vocabulary = ["<end>", *sorted({token for story in stories for token in [*split(story.text), *story.text]})]
    ids = {token: i for i, token in enumerate(vocabulary)}
    train, test = (np.array([i for s in part for i in [0, *encode(s.text, ids)]] + [0]) for part in (stories, unseen))
    tokens = len(test) / sum(len(story.text) + 1 for story in unseen)  # per character
    guess, floor = tokens * np.log(len(vocabulary)), data.floor(unseen, [len(story.text) for story in unseen])
    print(f"nats per character: {guess:.3f} for a guess at random, {floor:.3f} for whoever knows all that can be known")

    weights, averages = new_weights(len(vocabulary), rng), {}
    for step in range(1, steps + 1):
        loss = how_wrong(weights, train, starts=rng.integers(0, len(train) - T, batch))
        loss.backward()
        adamw(weights, averages, step, lr=learning_rate * min(step / 50, 1 - step / steps))
        if step % 50 == 0:
            print(f"step {step:4}   loss {tokens * loss.data:.3f}", flush=True)

    loss = tokens * how_wrong(weights, test, starts=np.arange(0, len(test) - T, T)).data
    print(f"on stories that it has not seen: {loss:.3f}, of which {floor:.3f} cannot be known. It writes:\n")
    print("".join(vocabulary[i] for i in write(weights, rng)))


if __name__ == "__main__":
    main()
