"""Recurrent layers and their language model: gradients, caches, padding, what the window is, files."""

import numpy as np
import pytest

import minillm.functional as F
from minillm import Tensor, gradcheck, models, nn, no_grad, optim
from minillm.nn.recurrent import Past

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
every_cell = pytest.mark.parametrize("cell", CELLS)
every_score = pytest.mark.parametrize("score", ["dot", "additive", "none"])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def step_by_step(cell, x, w_ih, w_hh, b_ih, b_hh, h, c=None):
    """The same recurrences, one Tensor operation at a time."""
    states, H = [], h.shape[1]
    for t in range(x.shape[1]):
        z, p = x[:, t] @ w_ih.swapaxes(0, 1) + b_ih, h @ w_hh.swapaxes(0, 1) + b_hh
        if cell == "rnn":
            h = F.tanh(z + p)
        elif cell == "lstm":
            i, f, g, o = ((z + p)[:, n * H : (n + 1) * H] for n in range(4))
            c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
            h = F.sigmoid(o) * F.tanh(c)
        else:
            r, u = F.sigmoid((z + p)[:, :H]), F.sigmoid((z + p)[:, H : 2 * H])
            h = (1 - u) * F.tanh(z[:, 2 * H :] + r * p[:, 2 * H :]) + u * h
        states.append(h)
    return F.stack(states, axis=1), c


@every_cell
def test_one_operation_equals_a_tensor_per_step(cell):
    layer = CELLS[cell](3, 4, rng=0).astype(np.float64)
    parameters = layer.parameters()
    x = Tensor(normal(2, 5, 3), requires_grad=True)
    states = [Tensor(normal(2, 4, seed=s), requires_grad=True) for s in range(2 if cell == "lstm" else 1)]
    weight = normal(2, 5, 4)
    results = []
    for whole in (True, False):
        if not whole:
            h, c = step_by_step(cell, x, *parameters, *states)
        elif cell == "lstm":
            h, c = F.lstm(x, *parameters, *states)
        else:
            h, c = getattr(F, cell)(x, *parameters, *states), None
        loss = (h * weight).sum() + (0 if c is None else (c * c).sum())
        loss.backward()
        results.append([h.data, *(t.grad for t in (x, *parameters, *states))])
        for t in (x, *parameters, *states):
            t.grad = None
    for one, many in zip(*results, strict=True):
        np.testing.assert_allclose(one, many, rtol=1e-10, atol=1e-12)


def test_gradients():
    x, h0, c0 = normal(2, 3, 2), normal(2, 3, seed=1), normal(2, 3, seed=2)

    def weights(gates):
        return [normal(gates * 3, n, seed=3) * 0.5 for n in (2, 3)] + [normal(gates * 3, seed=4)] * 2

    def right(fn, *arrays):
        return gradcheck(fn, [Tensor(a) for a in arrays])

    starts = np.array([0, 1])
    assert right(lambda *a: F.rnn(*a, starts), x, *weights(1), h0)
    assert right(lambda *a: F.gru(*a, starts), x, *weights(3), h0)
    assert right(lambda *a: F.lstm(*a, starts)[0], x, *weights(4), h0, c0)
    assert right(lambda *a: F.lstm(*a, starts)[1], x, *weights(4), h0, c0)  # the last memory alone
    assert right(lambda x, w, u, h: F.gru(x, w, u, None, None, h), x, *weights(3)[:2], h0)
    query, keys, values, w = normal(2, 4, 3), normal(2, 6, 3, seed=5), normal(2, 6, 3, seed=6), normal(3, seed=7)
    assert right(lambda q, k, v: F.past_attention(q, k, v, 3, starts=starts), query, keys, values)
    assert right(lambda q, k, v, w: F.past_attention(q, k, v, 3, w, starts), query, keys, values, w)


def test_the_gradient_of_the_last_memory_is_not_kept_for_another_backward():
    layer = nn.LSTM(2, 3, rng=0)
    x = Tensor(normal(1, 4, 2), requires_grad=True)
    output, (_, c_n) = layer(x)
    (output.sum() + c_n.sum()).backward(retain_graph=True)
    together, x.grad = x.grad, None
    output.sum().backward(retain_graph=True)
    of_output, x.grad = x.grad, None
    c_n.sum().backward()
    np.testing.assert_allclose(of_output + x.grad, together, rtol=1e-5, atol=1e-7)


def test_attention_by_its_definition():
    query, keys, values = normal(1, 3, 4), normal(1, 5, 4, seed=1), normal(1, 5, 4, seed=2)
    out = F.past_attention(Tensor(query), Tensor(keys), Tensor(values), window=2).data[0]
    for t in range(3):  # two steps before the first query: it is step 2, and sees steps 0 and 1
        seen = slice(t, t + 2)
        e = np.exp(keys[0, seen] @ query[0, t] / 2)
        np.testing.assert_allclose(out[t], e / e.sum() @ values[0, seen], rtol=1e-10)
    first = F.past_attention(Tensor(query), Tensor(query), Tensor(query), window=2).data[0, 0]
    assert not first.any()  # no past


@every_cell
@every_score
def test_in_pieces_with_a_past_equals_the_whole(cell, score):
    layer = nn.RecurrentAttention(3, 8, cell, score, window=4, rng=0)
    x = Tensor(normal(3, 14, 3).astype(np.float32))
    for starts in (None, np.array([0, 3, 7])):
        whole, past = layer(x, starts=starts).data, Past()
        edges = [0, 5, 6, 7, 9, 14]
        pieces = [layer(x[:, a:b], past, starts).data for a, b in zip(edges, edges[1:], strict=False)]
        np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=1e-4, atol=1e-6)
        assert past.length == 14 and (past.values is None or past.values.shape == (3, 4, 8))
    for row, start in enumerate(starts):  # a padded row is the row alone
        alone = layer(x[row : row + 1, start:]).data
        np.testing.assert_allclose(whole[row : row + 1, start:], alone, rtol=1e-4, atol=1e-6)


@every_score
def test_the_window_and_nothing_else_is_seen(score):
    layer = nn.RecurrentAttention(2, 4, "rnn", score, window=3, rng=0)
    layer.cell.weight_hh_l0.data[...] = 0  # no memory but attention
    x = normal(1, 9, 2).astype(np.float32)
    before = layer(Tensor(x)).data.copy()
    x[0, 4] += 1
    changed = np.flatnonzero((layer(Tensor(x)).data != before).any(axis=(0, 2)))
    assert changed.tolist() == ([4] if score == "none" else [4, 5, 6, 7])


def recall_accuracy(layer, steps, furthest, rng):
    """Train ``layer`` to repeat, at "?", the letter that was marked d steps ago; accuracy by d = 1 .. furthest."""
    letters, T = 4, furthest + 1
    embedding = nn.Embedding(2 * letters + 1, layer.query.weight.shape[0], rng)  # letters, marked letters, "?"
    head = nn.Linear(layer.query.weight.shape[0], letters, rng=rng)
    parameters = [p for part in (layer, embedding, head) for p in part.parameters() if p.requires_grad]
    optimizer = optim.AdamW(parameters, lr=1e-2)

    def batch(rows):
        ids = rng.integers(0, letters, (rows, T))
        distance = rng.integers(1, furthest + 1, rows)
        answers = ids[np.arange(rows), T - 1 - distance]
        ids[np.arange(rows), T - 1 - distance] += letters
        ids[:, -1] = 2 * letters
        return ids, distance, answers

    for _ in range(steps):
        ids, _, answers = batch(64)
        loss = F.cross_entropy(head(layer(embedding(ids))[:, -1]), answers)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    ids, distance, answers = batch(2000)
    with no_grad():
        right = head(layer(embedding(ids))[:, -1]).data.argmax(axis=1) == answers
    return np.array([right[distance == d].mean() for d in range(1, furthest + 1)])


def test_the_window_is_the_context():
    rng = np.random.default_rng(0)
    layer = nn.RecurrentAttention(16, 16, "rnn", "dot", window=6, rng=rng)
    layer.cell.weight_hh_l0.data[...] = 0  # cut the recurrent path: only attention carries anything over
    layer.cell.weight_hh_l0.requires_grad = False
    accuracy = recall_accuracy(layer, steps=250, furthest=12, rng=rng)
    assert not layer.cell.weight_hh_l0.data.any()
    assert (accuracy[:6] > 0.97).all(), accuracy  # inside the window
    assert (abs(accuracy[6:] - 0.25) < 0.15).all(), accuracy  # beyond it: four letters, one guess


# ---- the language model ----------------------------------------------------------------------------------------------


def small(**settings):
    return models.RecurrentLM(
        models.RecurrentLMConfig(**{"vocab_size": 11, "hidden_size": 8, "window": 3} | settings), rng=0
    )


@every_cell
@every_score
def test_model_with_a_cache_equals_recomputation(cell, score):
    model = small(cell=cell, attention=score)
    ids = np.random.default_rng(0).integers(0, 11, (2, 9))
    whole, cache = model(ids).data, model.new_cache(2, 9)
    np.testing.assert_allclose(model.next_logits(ids[:, :4], cache), whole[:, 3], rtol=1e-4, atol=1e-5)
    for t in range(4, 9):
        assert cache.length == t
        np.testing.assert_allclose(model.next_logits(ids[:, t : t + 1], cache), whole[:, t], rtol=1e-4, atol=1e-5)
    swapped = cache.reorder(np.array([1, 0, 1]))
    more = np.array([[3], [4], [3]])
    expected = model(np.concatenate([ids[[1, 0, 1]], more], axis=1)).data[:, -1]
    np.testing.assert_allclose(model.next_logits(more, swapped), expected, rtol=1e-4, atol=1e-5)
    assert swapped.length == 10 and cache.length == 9  # a copy


def test_padded_rows_equal_single_ones():
    model = small()
    ids, starts = np.random.default_rng(1).integers(0, 11, (3, 7)), np.array([0, 2, 5])
    cache = model.new_cache(3, 9, starts)
    first = model.next_logits(ids, cache)
    cache = cache.reorder(np.array([2, 1]))
    second = model.next_logits(np.array([[1], [2]]), cache)
    for row, (start, more) in enumerate([(5, 1), (2, 2)]):
        tokens = ids[2 - row, start:]
        np.testing.assert_allclose(first[2 - row], model(tokens).data[0, -1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(second[row], model(np.append(tokens, more)).data[0, -1], rtol=1e-4, atol=1e-5)


@every_score
def test_a_token_does_not_change_the_logits_before_it(score):
    model = small(attention=score, hidden_size=40, window=5)
    ids = np.random.default_rng(2).integers(0, 11, (3, 20))
    before = model(ids).data.copy()
    ids[:, 12] = (ids[:, 12] + 1) % 11
    after = model(ids).data
    assert before[:, :12].tobytes() == after[:, :12].tobytes()
    assert (before[:, 12:] != after[:, 12:]).any(axis=-1).all()


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_learns(tied):
    model = small(cell="lstm", attention="additive", tie_word_embeddings=tied, initializer_range=0.5)
    assert ("lm_head.weight" in model.state_dict()) != tied
    ids = np.arange(22).reshape(2, 11) % 11
    loss = F.cross_entropy(model(ids[:, :-1]).reshape(-1, 11), ids[:, 1:].reshape(-1))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_memory_of_the_cache_does_not_grow():
    model = small(window=3)
    cache = model.new_cache(1, 1000)
    for _ in range(6):
        model.next_logits(np.array([[1, 2]]), cache)
    assert cache.length == 12
    assert {layer.values.shape for layer in cache.layers} == {(1, 3, 8)}


@pytest.mark.parametrize("settings", [{}, {"cell": "lstm", "attention": "additive", "tie_word_embeddings": False}])
def test_save_and_load(tmp_path, settings):
    model = small(**settings)
    model.save_pretrained(tmp_path / "model")
    again = models.from_pretrained(tmp_path / "model")
    assert type(again) is models.RecurrentLM and again.config == model.config
    ids = np.array([[1, 2, 3]])
    assert again(ids).data.tobytes() == model(ids).data.tobytes()


def test_errors():
    x = Tensor(np.zeros((2, 3, 4), np.float32))
    with pytest.raises(ValueError, match=r"GRU: x must be \(B, T, 5\); got \(2, 3, 4\)"):
        nn.GRU(5, 6)(x)
    with pytest.raises(ValueError, match=r"RNN: h0 must be \(num_layers, B, H\) = \(1, 2, 6\); got \(2, 6\)"):
        nn.RNN(4, 6)(x, Tensor(np.zeros((2, 6))))
    with pytest.raises(ValueError, match="LSTM: sizes must be at least 1; got 4 -> 0, 1 layers"):
        nn.LSTM(4, 0)
    layer = nn.LSTM(4, 6)
    with pytest.raises(ValueError, match=r"gru: weight_ih must be \(18, 4\) for x .* and H = 6; got \(24, 4\)"):
        F.gru(x, *layer.parameters(), Tensor(np.zeros((2, 6))))
    with pytest.raises(ValueError, match=r"rnn: x must be \(B, T, C\) with T >= 1; got \(2, 0, 4\)"):
        F.rnn(x[:, :0], *nn.RNN(4, 6).parameters(), Tensor(np.zeros((2, 6))))
    with pytest.raises(ValueError, match="RecurrentAttention: cell must be one of rnn, lstm, gru; got 'tcn'"):
        nn.RecurrentAttention(4, 6, "tcn")
    with pytest.raises(ValueError, match="RecurrentAttention: window must be at least 1; got 0"):
        nn.RecurrentAttention(4, 6, window=0)
    with pytest.raises(ValueError, match=r"past_attention: expected query \(B, T, C\)"):
        F.past_attention(x, x[:, 1:], x[:, 1:], 2)
    with pytest.raises(ValueError, match="RecurrentLMConfig: num_layers must be at least 1; got 0"):
        models.RecurrentLMConfig(num_layers=0)
    with pytest.raises(ValueError, match="RecurrentLMConfig: attention must be one of dot, additive, none; got 'soft'"):
        models.RecurrentLMConfig(attention="soft")
    with pytest.raises(ValueError, match="config.json: dropout = 0.1 is unknown and may change the result"):
        models.RecurrentLMConfig.from_dict({"dropout": 0.1})


def test_the_gradient_of_an_lstms_last_cell_state_is_gone_when_its_backward_was_interrupted():
    layer, x = nn.LSTM(3, 5, rng=0), Tensor(np.random.default_rng(0).standard_normal((2, 4, 3)), requires_grad=True)

    def interrupt(gradient):
        raise KeyboardInterrupt

    y, (_, c) = layer(x)
    y.sum().backward(retain_graph=True)
    expected, x.grad = x.grad, None
    hooks = x.register_hook(interrupt), y.register_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        c.sum().backward(retain_graph=True)
    for hook in hooks:
        hook.remove()
    x.grad = None
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, expected)
