"""What the table of operations does not reach, or not at its limits: answers that are known otherwise.

Each function here asserts values that come from a formula written out anew, from mathematics, or that can be counted
by hand. break_on_purpose.py runs those that pass through a changed definition, test_known_answers.py runs all.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import regex

import minillm.functional as F
from minillm import GenerationConfig, Tensor, generate, models, optim
from minillm.tokenizer import BPETokenizer, CharTokenizer, UnigramTokenizer
from minillm.tokenizer.base import join_tokens
from minillm.tokenizer.bpe import learn_merges
from minillm.tokenizer.patterns import split
from minillm.tokenizer.pieces import unique_pieces

TEXT = "the cat sat on the mat; the rat ate the hat, and that was that. hello, hello yellow! " * 3


# ---- operations at their limits --------------------------------------------------------------------------------------


def check_large_scores() -> None:
    """e^1000 is beyond every float; the greatest score is taken off first."""
    big = Tensor(np.array([[1000.0, 1000.0 - math.log(3), -1000.0]]))
    near(F.softmax(big).data, [[0.75, 0.25, 0.0]])
    near(F.log_softmax(big).data, [[math.log(0.75), math.log(0.25), math.log(0.75) - 2000.0]])
    near(F.cross_entropy(big, np.array([1])).data, math.log(4))
    near(F.logsumexp(big).data, [1000 - math.log(0.75)])
    smoothed = F.cross_entropy(-big, np.array([1]), label_smoothing=0.3)
    near(smoothed.data, 0.7 * (2000 - math.log(3)) + 0.3 * (4000 - math.log(3)) / 3)
    ones = np.ones((1, 1, 2, 1))
    keys = Tensor(np.array([1000.0, 1000.0 - math.log(3)]).reshape(1, 1, 2, 1))
    values = Tensor(np.array([1.0, 5.0]).reshape(1, 1, 2, 1))
    near(F.scaled_dot_product_attention(Tensor(ones), keys, values).data.reshape(-1), [2.0, 2.0])
    near(F.scaled_dot_product_attention(Tensor(ones), keys, values, causal=True).data.reshape(-1), [1.0, 2.0])
    packed = np.concatenate([np.ones((1, 2, 1)), keys.data[0], values.data[0]], axis=-1)
    near(F.self_attention(Tensor(packed), 1).data.reshape(-1), [1.0, 2.0])


def check_large_inputs() -> None:
    """Non-linearities far out, where an intermediate value may overflow."""
    x = Tensor(np.array([-1000.0, -40.0, 0.0, 40.0, 1000.0]), requires_grad=True)
    with np.errstate(over="ignore"):
        for call, values, slopes in (
            (F.sigmoid, [0, math.exp(-40), 0.5, 1, 1], [0, math.exp(-40), 0.25, 0, 0]),
            (F.silu, [0, -40 * math.exp(-40), 0, 40, 1000], [0, -39 * math.exp(-40), 0.5, 1, 1]),
            (F.gelu, [0, 0, 0, 40, 1000], [0, 0, 0.5, 1, 1]),
            (lambda t: F.gelu(t, "none"), [0, 0, 0, 40, 1000], [0, 0, 0.5, 1, 1]),
            (F.softplus, [0, math.exp(-40), math.log(2), 40, 1000], [0, math.exp(-40), 0.5, 1, 1]),
            (F.tanh, [-1, -1, 0, 1, 1], [0, 0, 1, 0, 0]),
            (lambda t: F.elu(t, 2.0), [-2, -2, 0, 40, 1000], [0, 2 * math.exp(-40), 2, 1, 1]),
        ):
            x.grad = None
            y = call(x)
            y.sum().backward()
            near(y.data, values)
            near(x.grad, slopes)


def check_corners() -> None:
    """Where there is no derivative, or a formula divides by zero: torch's conventions, and mathematics' limits."""
    inf = math.inf
    for call, values, slopes in (
        (F.relu, [-1.0, 0.0, 2.0], [0, 0, 1]),
        (F.abs, [-1.0, 0.0, 2.0], [-1, 0, 1]),
        (lambda t: F.leaky_relu(t, 0.5), [-1.0, 0.0, 2.0], [0.5, 0.5, 1]),
        (F.elu, [-1.0, 0.0, 2.0], [math.exp(-1), 1, 1]),
        (lambda t: F.clip(t, -1.0, 1.0), [-2.0, -1.0, 0.0, 1.0, 2.0], [0, 1, 1, 1, 0]),
        (Tensor.max, [1.0, 3.0, 3.0, 3.0], [0, 1 / 3, 1 / 3, 1 / 3]),
        (Tensor.min, [1.0, 3.0, 1.0, 3.0], [0.5, 0, 0.5, 0]),
        (lambda t: F.maximum(t, np.ones(3)), [0.0, 1.0, 2.0], [0, 0.5, 1]),
        (lambda t: F.minimum(t, np.ones(3)), [0.0, 1.0, 2.0], [1, 0.5, 0]),
        (F.norm, [0.0, 0.0], [0, 0]),
        (F.norm, [0.6, 0.8], [0.6, 0.8]),
        (F.std, [5.0, 5.0], [0, 0]),
        (F.std, [4.0, 6.0], [-0.5, 0.5]),
        (lambda t: F.log(F.std(t)), [5.0, 5.0], [0, 0]),
        (lambda t: F.logsumexp(t), [-inf, -inf], [0, 0]),
        (lambda t: F.logsumexp(t), [-inf, 0.0], [0, 1]),
        (lambda t: t**0, [0.0, 2.0], [0, 0]),
        (lambda t: t**1, [0.0, 2.0], [1, 1]),
        (lambda t: t**2, [0.0, -2.0], [0, -4]),
        (lambda t: 0**t, [0.0, 2.0], [0, 0]),
        (lambda t: 1**t, [0.0, 2.0], [0, 0]),
        (lambda t: F.prod(t), [0.0, 3.0, 2.0], [6, 0, 0]),
    ):
        x = Tensor(np.array(values), requires_grad=True)
        with np.errstate(divide="ignore"):
            call(x).sum().backward()
        near(x.grad, slopes)


def check_padding_and_repeats() -> None:
    """Targets that do not count give no gradient; ids that come twice get both gradients."""
    z = Tensor(np.array([[0.0, math.log(3)], [5.0, 1.0], [math.log(3), 0.0]]), requires_grad=True)
    loss = F.cross_entropy(z, np.array([0, -100, 0]), reduction="sum")
    loss.backward()
    near(loss.data, math.log(4) + math.log(4 / 3))
    near(z.grad, [[-0.75, 0.75], [0, 0], [-0.25, 0.25]])
    w = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    y = F.embedding(w, np.array([2, 0, 2]))
    y.backward(np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]]))
    near(y.data, [[4, 5], [0, 1], [4, 5]])
    near(w.grad, [[3, 4], [0, 0], [11, 22]])


def check_left_padding() -> None:
    """A row whose first steps are padding is the shorter row alone: values, and the gradients of all weights."""
    rng = np.random.default_rng(1)
    H, T, start = 3, 6, 2
    zeros = Tensor(np.zeros((1, H)))
    for name, gates, states in (("rnn", 1, 1), ("gru", 3, 1), ("lstm", 4, 2)):
        weights = [rng.standard_normal(shape) for shape in [(gates * H, H)] * 2 + [(gates * H,)] * 2]
        x, dy = rng.standard_normal((2, 1, T, H))
        outcomes = []
        for first, options in ((start, ()), (0, (np.array([start]),))):
            w = [Tensor(a, requires_grad=True) for a in weights]
            part = Tensor(x[:, first:], requires_grad=True)
            y = getattr(F, name)(part, *w, *[zeros] * states, *options)
            y, last = y if states == 2 else (y, y[:, -1])
            ((y * dy[:, first:]).sum() + last.sum()).backward()
            outcomes.append([y.data[:, -T + start :], part.grad[:, -T + start :], *(t.grad for t in w)])
            near(y.data[:, : start - first], 0.0)
            near(part.grad[:, : start - first], 0.0)
        for short, padded in zip(*outcomes, strict=True):
            near(padded, short)
    q, k, v, dy = rng.standard_normal((4, 1, 2, T, H))
    for call in (
        lambda q, k, v, s: F.scaled_dot_product_attention(q, k, v, causal=True, starts=s),
        lambda q, k, v, s: F.scaled_dot_product_attention(q, k, v, causal=True, window=2, starts=s),
        lambda q, k, v, s: F.past_attention(q[:, 0], k[:, 0], v[:, 0], 2, starts=s),
        lambda q, k, v, s: F.past_attention(q[:, 0], k[:, 0], v[:, 0], 2, Tensor(np.array([90.0, -800.0, 70.0])), s),
    ):
        outcomes = []
        for first, starts in ((start, None), (0, np.array([start]))):
            inputs = [Tensor(a[:, :, first:], requires_grad=True) for a in (q, k, v)]
            y = call(*inputs, starts)
            (y * (dy if y.ndim == 4 else dy[:, 0])[..., first:, :]).sum().backward()
            outcomes.append([a[..., -T + start :, :] for a in (y.data, *(t.grad for t in inputs))])
            for a in (y.data, *(t.grad for t in inputs[1:])):
                near(a[..., : start - first, :], 0.0)
        for short, padded in zip(*outcomes, strict=True):
            near(padded, short)


def check_blind_queries() -> None:
    """What sees nothing takes nothing, gives nothing, and disturbs nobody."""
    rng = np.random.default_rng(2)
    data = rng.standard_normal((3, 1, 1, 3, 2)) * 2
    sees = np.array([[False, False, False], [True, False, True], [False, True, False]])
    for mask in (sees, np.where(sees, 0.0, -np.inf)):
        q, k, v = (Tensor(a, requires_grad=True) for a in data)
        y = F.scaled_dot_product_attention(q, k, v, mask=mask)
        y.sum().backward()
        x = data[0, 0, 0, 1] @ data[1, 0, 0, [0, 2]].T / math.sqrt(2)
        p = 1 / (1 + math.exp(x[1] - x[0]))
        near(y.data[0, 0], [[0, 0], p * data[2, 0, 0, 0] + (1 - p) * data[2, 0, 0, 2], data[2, 0, 0, 1]], 1e-7)
        near(v.grad[0, 0], [[p, p], [1, 1], [1 - p, 1 - p]], 1e-7)
        near(q.grad[0, 0, [0, 2]], 0.0)


# ---- optimisers ------------------------------------------------------------------------------------------------------

GRADIENTS = np.array([[1.0, -2.0, 0.5], [0.3, 0.1, -4.0], [-2.0, 0.7, 0.0], [5.0, -0.2, 1.0]])
BEGIN = np.array([1.0, -2.0, 3.0])


def check_sgd() -> None:
    """b = momentum b + g + decay w;   w = w - lr b."""
    for momentum, decay in ((0.0, 0.0), (0.9, 0.0), (0.7, 0.3)):
        w = Tensor(BEGIN.copy(), requires_grad=True)
        optimizer = optim.SGD([w], lr=0.1, momentum=momentum, weight_decay=decay)
        expected, b = BEGIN.copy(), np.zeros(3)
        for g in GRADIENTS:
            w.grad = g.copy()
            optimizer.step()
            b = momentum * b + g + decay * expected
            expected = expected - 0.1 * b
            near(w.data, expected)


def check_adamw() -> None:
    """Loshchilov & Hutter 2019, with the corrections for the beginning, written out for each number."""
    b1, b2, eps = 0.8, 0.95, 1e-3
    for decay in (0.0, 0.4):
        w = Tensor(BEGIN.copy(), requires_grad=True)
        optimizer = optim.AdamW([w], lr=0.1, betas=(b1, b2), eps=eps, weight_decay=decay)
        expected, m, v = BEGIN.tolist(), [0.0] * 3, [0.0] * 3
        for t, g in enumerate(GRADIENTS.tolist(), 1):
            w.grad = np.array(g)
            optimizer.step()
            for i in range(3):
                m[i] = b1 * m[i] + (1 - b1) * g[i]
                v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2
                step = (m[i] / (1 - b1**t)) / (math.sqrt(v[i] / (1 - b2**t)) + eps)
                expected[i] -= 0.1 * (step + decay * expected[i])
            near(w.data, expected)


def check_muon() -> None:
    """By the decomposition that it does without: each singular value goes five times through the same polynomial."""
    shapes, (a, b, c) = ((2, 3), (2, 2), (3, 1)), (3.4445, -4.7750, 2.0315)
    rng = np.random.default_rng(0)
    for momentum, decay, length in ((0.0, 0.0, 1.0), (0.9, 0.3, 1e-3), (0.5, 0.1, 0.0)):
        w = [Tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes]
        optimizer = optim.Muon(w, lr=0.1, weight_decay=decay, momentum=momentum)
        expected, m = [p.data.copy() for p in w], [np.zeros(shape) for shape in shapes]
        for _ in range(3):
            for i, p in enumerate(w):
                p.grad = g = length * rng.normal(size=p.shape)
                m[i] = momentum * m[i] + (1 - momentum) * g
                left, s, right = np.linalg.svd(momentum * m[i] + (1 - momentum) * g, full_matrices=False)
                s = s / max(math.sqrt((s**2).sum()), 1e-7)
                for _ in range(5):
                    s = a * s + b * s**3 + c * s**5
                expected[i] -= 0.1 * (0.2 * math.sqrt(max(p.shape)) * (left * s) @ right + decay * expected[i])
            optimizer.step()
            for p, right_one in zip(w, expected, strict=True):
                near(p.data, right_one, 1e-9)


def check_clipping() -> None:
    """All gradients together have the length 13, and get 6.5."""
    a, b = Tensor(np.zeros(2), requires_grad=True), Tensor(np.zeros((1, 1)), requires_grad=True)
    for limit, share in ((6.5, 0.5), (26.0, 1.0)):
        a.grad, b.grad = np.array([3.0, 4.0]), np.array([[12.0]])
        assert math.isclose(optim.clip_grad_norm([a, b], limit), 13.0)
        near(a.grad, [3 * share, 4 * share], 1e-4)
        near(b.grad, [[12 * share]], 1e-4)


# ---- tokenizers ------------------------------------------------------------------------------------------------------


def plain_merges(words: Counter[bytes], n: int, ids: dict[bytes, int], least: int) -> list[tuple[bytes, bytes]]:
    """Byte-pair encoding (Sennrich et al. 2016): join the most frequent pair, the lowest of equals, n times."""
    parts = {word: [bytes([byte]) for byte in word] for word in words}
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < n:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, pieces in parts.items():
            for pair in pairwise(pieces):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda p: (-pairs[p], ids[p[0]], ids[p[1]]), default=None)
        if best is None or pairs[best] < least:
            break
        ids[best[0] + best[1]] = 256 + len(merges)
        merges.append(best)
        parts = {word: joined(pieces, best) for word, pieces in parts.items()}
    return merges


def joined(pieces: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """The pieces after one merge, from the left."""
    out: list[bytes] = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


GPT2_PIECES = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
ODD = "aaaa aaa zzzzz ababab \n\n  tabs\tand  spaces 1234 12 don't we'll déjà 日本   "


def check_bpe() -> None:
    """Merges and pieces are those of the algorithm as it is told, and the text comes back."""
    words = Counter(piece.encode() for text in (TEXT, ODD) for piece in GPT2_PIECES.findall(text))
    for n, least in ((40, 1), (400, 3), (1000, 1)):
        trained = BPETokenizer.train([TEXT, ODD], 256 + n, special_tokens=(), min_frequency=least)
        ids = {trained.token_bytes(id): id for id in range(256)}
        merges = plain_merges(words, n, ids, least)
        assert [trained.token_bytes(id) for id in range(256, trained.vocab_size)] == [a + b for a, b in merges]
        for sample in (TEXT + ODD, "zzzz zz", "the that hello yellow", "aaaaaaaab", "日本 ok ä", ""):
            expected: list[bytes] = []
            for piece in GPT2_PIECES.findall(sample):
                parts = [bytes([byte]) for byte in piece.encode()]
                for pair in merges:
                    parts = joined(parts, pair)
                expected += parts
            found = trained.encode(sample)
            assert [trained.token_bytes(id) for id in found] == expected and trained.decode(found) == sample
            assert [list(row) for row in trained.encode_batch([sample, "x", sample])][::2] == [found] * 2
            stream = trained.stream_decoder()
            assert "".join([stream.push(id) for id in found] + [stream.flush()]) == sample


def check_unigram() -> None:
    """The text comes back, in the pieces whose probabilities have the greatest product."""
    trained = UnigramTokenizer.train([TEXT], 60)
    for sample in ("the hat", "hello yellow", "that cat ate"):
        best, *others = trained.encode_n_best(sample, 5)
        assert trained.decode(best[0]) == sample and trained.encode(sample) == [*best[0], 1]  # </s>
        assert all(score <= best[1] for _, score in others)


# ---- models ----------------------------------------------------------------------------------------------------------


def check_writing() -> None:
    """Token by token with a cache, greedily: the likeliest of a full computation each time."""
    ids, letters = np.array([[3, 1, 4, 1, 5]]), CharTokenizer.train(["abcdefghij"])
    for model in (
        models.GPT2(models.GPT2Config(11, 16, 8, 2, 2), rng=0),
        models.Llama(models.LlamaConfig(11, 16, 32, 2, 4, 2, max_position_embeddings=16), rng=0),
    ):
        model.eval()
        written = ids
        for _ in range(6):
            written = np.concatenate([written, model(written).data[:, -1].argmax(-1)[:, None]], axis=1)
        config = GenerationConfig(max_new_tokens=6, temperature=0.0, eos_token_id=())
        assert list(generate(model, letters, ids[0].tolist(), config).ids) == written[0, 5:].tolist()


def check_quantized_weights() -> None:
    """Rounded to int8, a model's scores move by less than a rounding error, and not by none."""
    model = models.GPT2(models.GPT2Config(11, 16, 32, 2, 2), rng=0)
    ids = np.array([[3, 1, 4, 1, 5]])
    exact, rounded = model.eval()(ids).data, models.quantize(model)(ids).data
    error = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.02


# ---- what is shared --------------------------------------------------------------------------------------------------


def check_switches() -> None:
    """A window of one sees itself alone; rows may begin at positions of their own; no smoothing is no smoothing."""
    rng = np.random.default_rng(3)
    q, k, v = (Tensor(rng.standard_normal((1, 1, 3, 2))) for _ in range(3))
    near(F.scaled_dot_product_attention(q, k, v, causal=True, window=1).data, v.data)
    x, angles = rng.standard_normal((2, 1, 2, 2)), np.array([[[0.0], [math.pi / 2]], [[math.pi], [0.0]]])  # (B, T, 1)
    turned = F.rotary_embedding(Tensor(x), np.cos(angles), np.sin(angles)).data
    (a, b), (c, d) = x[0, 0, 1], x[1, 0, 0]
    near(turned, [[[x[0, 0, 0], [-b, a]]], [[[-c, -d], x[1, 0, 1]]]], rtol=1e-6)
    impossible = Tensor(np.array([[0.0, 0.0, -np.inf]]))
    near(F.cross_entropy(impossible, np.array([0])).data, math.log(2))


def check_a_memory_before_the_beginning() -> None:
    """Where a row is padding the memory is 0 whatever it was: nothing goes back to the first one."""
    rng = np.random.default_rng(4)
    B, T, C, H = 2, 3, 2, 2
    x, h0, c0 = (Tensor(rng.standard_normal(s), requires_grad=True) for s in ((B, T, C), (B, H), (B, H)))
    weights = [Tensor(rng.standard_normal((4 * H, n))) for n in (C, H)]
    h, _ = F.lstm(x, *weights, None, None, h0, c0, np.array([2, 0]))
    (h * h).sum().backward()
    assert not c0.grad[0].any() and not h0.grad[0].any() and c0.grad[1].all() and h0.grad[1].all()


def check_pieces_of_texts() -> None:
    """Cutting, counting and joining, by hand."""
    ends = split("ab cd", np.array([3, 5]), "gpt2")
    assert ends.tolist() == [2, 3, 5]  # "ab", " " and, in the second text, "cd"
    assert split("!ab", np.array([3]), "gpt2").tolist() == [1, 3]
    letters = np.frombuffer(b"abcabab", np.uint8)
    data, ends, counts = unique_pieces(letters, np.array([2, 3, 5, 7]), np.array([1, 5, 2, 4]))
    assert (data.tobytes(), ends.tolist(), counts.tolist()) == (b"abc", [2, 3], [7, 5])
    words = np.frombuffer(b"onetwo" + bytes(8), np.uint8)
    starts, stops = np.array([0, 3, 0, 0]), np.array([3, 6, -1, 0])
    made = join_tokens(np.array([1, 0, 1]), words, starts, stops)
    assert made is not None and made.tobytes() == b"twoonetwo"
    assert join_tokens(np.array([], np.int64), words, starts, stops).tobytes() == b""
    assert join_tokens(np.array([3]), words, starts, stops).tobytes() == b""  # a token of nothing
    assert [join_tokens(np.array([id]), words, starts, stops) for id in (2, 4, -1)] == [None, None, None]
    told: list[tuple[int, int]] = []
    one = np.array([1])
    learn_merges(np.array([1, 2, 1, 2], np.int32), np.array([4]), one, 10, 5, 1, lambda *a: told.append(a))
    assert told[-1] == (2, 5)  # no third pair occurs
    assert optim.sum_of_squares([]) == 0.0 and optim.sum_of_squares([np.full(3, 2.0)]) == 12.0


def near(found: np.ndarray, expected: object, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(found, np.asarray(expected, float), rtol=rtol, atol=1e-12)


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]
