"""A backward step by step: what the page says is what the engine did."""

import base64
import doctest
import hashlib
import json
import re
import sys

import numpy as np
import pytest

from minillm import Tensor, nn, trace
from minillm import functional as F
from minillm.autograd import observed_by
from minillm.check.trace.folding import MOST_CARDS
from minillm.check.trace.layout import GAP, lay_out


def parameter(*values, dtype=np.float32):
    return Tensor(np.array(values, dtype), requires_grad=True)


def page_of(walk, folder):
    walk.save_html(folder / "page.html")
    return (folder / "page.html").read_text(encoding="utf-8")


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="trace">(.*?)</script>', html, re.DOTALL)[1])


def exclusive_or():
    x, y = Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), Tensor([[0.0], [1.0], [1.0], [0.0]])
    model = nn.Sequential(nn.Linear(2, 8, rng=1), nn.Tanh(), nn.Linear(8, 1, rng=2))
    return model, lambda: F.mse_loss(model(x), y)


def entries_of(walk):
    return {entry.path: entry for entry in walk.entries}


# ---- what was recorded -----------------------------------------------------------------------------------------------


def test_the_walk_in_words():
    results = doctest.testmod(sys.modules["minillm.check.trace.tracing"])
    assert results.failed == 0 and results.attempted > 4
    a = parameter(2.0)
    assert repr(trace(a * 3.0)).startswith("<Trace of loss: 2 steps.")


@pytest.mark.parametrize("given", ["loss", "function"])
def test_the_gradients_of_the_page_are_those_of_backward_bit_for_bit(tmp_path, given):
    model, loss = exclusive_or()
    loss().backward()
    expected = {f"model.{name}": p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    nodes = data_of(page_of(trace(loss() if given == "loss" else loss), tmp_path))["nodes"]
    found = {node["name"]: node for node in nodes if node["grad"] is not None}
    assert found.keys() == expected.keys()
    for name, p in model.named_parameters():
        node = found[f"model.{name}"]
        for what in ("grad", "gradient"):
            array = np.array(node[what], np.float32).reshape(node["shape"])
            assert array.tobytes() == p.grad.tobytes() == expected[f"model.{name}"].tobytes()
        assert np.array(node["value"], np.float32).tobytes() == p.data.tobytes()


def test_what_grad_held_before_is_added_to_and_said():
    a = parameter(1.0, 2.0)
    a.grad = np.array([10, 20], np.float32)
    walk = trace((a * a).sum())
    entry = entries_of(walk)["a"]
    np.testing.assert_array_equal(a.grad, [12, 24])
    np.testing.assert_array_equal(entry.grad.values, [12, 24])
    np.testing.assert_array_equal(entry.gradient.values, [2, 4])
    assert "what a.grad held before" in str(walk)


def test_what_was_recorded_stays_as_it_was():
    a = parameter(1.0, 2.0)
    walk = trace((a * a).sum())
    a.data -= 5.0
    a.grad += 7.0
    entry = entries_of(walk)["a"]
    found = [entry.value.values, entry.gradient.values, entry.grad.values]
    np.testing.assert_array_equal(found, [[1, 2], [2, 4], [2, 4]])


def test_the_walk_has_the_order_of_the_engine():
    class Order:
        def __init__(self):
            self.names = []

        def on_forward(self, out, inputs):
            pass

        def on_backward(self, node, dy, gradients):
            self.names.append((node.op, dy.tolist()))

    _, loss = exclusive_or()
    order = Order()
    with observed_by(order):
        loss().backward()
    walk = trace(loss())
    walked = [entry for step in walk.steps for entry in step.card.members]
    found = [(e.op, e.gradient.values.reshape(e.gradient.shape).tolist()) for e in walked if e.op]
    assert found == order.names and [e.is_leaf for e in walked] == [False] * 6 + [True] * 4


def test_a_chain_rule_in_numbers_adds_up():
    """The sum that an example writes out is the gradient that was passed on."""
    rng = np.random.default_rng(0)
    x, w = Tensor(rng.standard_normal((3, 4))), Tensor(rng.standard_normal((4, 5)), requires_grad=True)
    bias = Tensor(rng.standard_normal(5), requires_grad=True)
    walk = trace(F.cross_entropy(F.tanh(x @ w + bias), [0, 3, 1]))
    slopes = 0
    for entry in walk.entries:
        for slope, passed in zip(entry.slopes, entry.passed, strict=False):
            if slope is not None:
                assert slope.column @ entry.gradient.values == pytest.approx(passed.values[slope.j], rel=1e-12)
                slopes += 1
    assert slopes == 5
    tanh = next(entry for entry in walk.entries if entry.op == "tanh")
    np.testing.assert_allclose(tanh.slopes[0].diagonal, 1 - tanh.value.values**2)
    assert "∂t2/∂bias = 1. Each entry of bias was used 3 times, and its 3 gradients add." in str(walk)
    assert re.search(r"w gets xᵀ @ dt1\. At \[\d, \d\]: .* \+ .* \+ .* = ", str(walk))


def test_what_is_empty_or_large_is_shown_too(tmp_path):
    x, empty = parameter([1.0, 2.0]), Tensor(np.zeros((0, 2), np.float32), requires_grad=True)
    table = Tensor(np.ones((5000, 2), np.float32), requires_grad=True)
    walk = trace((F.concatenate([x, empty]) * F.embedding(table, np.array([1])) * np.array([True, False])).sum())
    html = page_of(walk, tmp_path)
    node = data_of(html)["nodes"][[entry.name for entry in walk.entries].index("table")]
    assert node["gradient"] == [0, 0, 1] + [0] * 61 and node["shape"] == [5000, 2] and len(node["value"]) == 64
    assert "each row of dt2, added to the row that was looked up." in str(walk) and "(5000, 2)" in html


def test_an_operation_of_ones_own_is_not_taken_for_ours():
    def mul(x):
        return Tensor.from_op(x.data * 5, (x,), lambda dy: (dy * 5,), op="mul")

    x = parameter(2.0)
    text = str(trace(mul(x)))
    assert "loss = mul(x)" in text and "∂loss/∂x = 5, so x gets 5 × 1 = 5." in text


# ---- the order, and small changes ------------------------------------------------------------------------------------


def test_a_walk_in_the_wrong_order_loses_what_comes_late(tmp_path):
    a = parameter(1.0)
    b = a + a
    c = b + b
    walk = trace(c)
    entry = entries_of(walk)["a"]
    assert a.grad == 4 and entry.hasty.values == 2
    html = page_of(walk, tmp_path).split("Does the order matter?")[1]
    assert "where b must wait" in html and '<td>4</td><td>2 <span class="no">✗ wrong' in html
    x = parameter(3.0)
    walk = trace(F.exp(x) * 2.0 + x)  # only a leaf is used twice
    assert entries_of(walk)["x"].hasty.values == x.grad
    assert "no order can be wrong" in page_of(walk, tmp_path)


def test_small_changes_agree_in_the_middle_too(tmp_path):
    model, loss = exclusive_or()
    before = {name: (p.data, p.data.copy()) for name, p in model.named_parameters()}
    walk = trace(loss)
    checked = [entry for entry in walk.entries if entry.differences]
    results = {"t1", "t2", "t3", "t4", "t5", "loss"}
    assert {entry.path for entry in checked} == results | {f"model.{name}" for name in before}
    for entry in checked:
        differences = np.array(list(entry.differences.values()))
        np.testing.assert_allclose(differences, entry.gradient.values, rtol=1e-3, atol=1e-5)
    for name, p in model.named_parameters():
        assert p.data is before[name][0] and np.array_equal(p.data, before[name][1])
    html = page_of(walk, tmp_path)
    assert html.count('<span class="yes">✓</span>') == 10 and "differ</span>" not in html


def test_a_small_change_of_a_view_changes_its_source_not():
    x = parameter(2.0, 3.0)
    walk = trace(lambda: (x.reshape(1, 2) * x * x).sum())
    for entry in walk.entries:
        assert list(entry.differences.values()) == pytest.approx(entry.gradient.values.tolist(), rel=1e-6)


def test_small_changes_find_a_wrong_backward(tmp_path):
    def cube(x):
        a = x.data
        return Tensor.from_op(a**3, (x,), lambda dy: (dy * 2 * a**2,))

    x = parameter(1.0, 2.0)
    html = page_of(trace(lambda x: (cube(x) * 2.0).sum(), x), tmp_path)
    row = re.search(r'<th scope="row">x</th>.*?</tr>', html)[0]
    assert "✗ 2 of 2 differ</span> 6 24" in row and "4 16" in row
    assert html.count('<span class="yes">✓</span>') == 3  # what comes after the cube is right


def test_why_there_are_no_small_changes():
    x, rng = parameter(1.0), np.random.default_rng(0)
    assert "minillm.trace(f, x, ...)" in trace(x * 2.0).unchecked
    assert "two calls give two results" in trace(lambda: x * float(rng.uniform())).unchecked
    assert "float64" in trace(lambda: x.astype(np.float32) * 2.0).unchecked
    with np.errstate(divide="ignore"):
        assert "not finite" in trace(lambda: F.log(x - 1.0)).unchecked
    walk = trace(lambda: (Tensor([2.0], requires_grad=True) * x).sum())  # one leaf is another in each call
    assert [bool(entry.differences) for entry in walk.entries if entry.is_leaf] == [False, True]


# ---- the page --------------------------------------------------------------------------------------------------------


def test_names_and_values_can_be_no_html(tmp_path):
    evil = '</script><img src=x onerror="alert(1)">&{0}'
    a = parameter(2.0)
    walk = trace((a * 3.0).sum(), names={evil: a})
    html = page_of(walk, tmp_path)
    assert "<img" not in html and html.count("</script>") == 2
    assert entries_of(walk)[evil].grad.values == 3
    assert data_of(html)["nodes"][-2]["expression"] == f"{evil} × 3"


def test_the_page_needs_no_network_and_runs_no_other_script(tmp_path):
    html = page_of(trace(parameter(2.0) * 3.0), tmp_path)
    assert not re.search(r"https?:|src=|href=|@import|url\((?!#)", html)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#x27;", "'")
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")


def test_not_a_number_is_marked_where_it_arose(tmp_path):
    x = parameter(1.0, -2.0, 0.5)
    with np.errstate(invalid="ignore"):
        y = F.log(x)
        loss = (y * 2.0).sum()
    walk = trace(loss)
    html = page_of(walk, tmp_path)
    assert [entry.name for entry in walk.entries if entry.born_bad] == ["y"]
    assert "NaN or infinity arose forward, in y = log(x), from x (from -2 to 1)." in html
    assert "the first NaN appeared at [1], out of finite numbers" in str(walk)
    node = next(node for node in data_of(html)["nodes"] if node["name"] == "y")
    assert node["value"] == [0.0, "nan", float(np.log(np.float32(0.5)))]
    x = parameter(0.0)
    with np.errstate(divide="ignore"):
        walk = trace(F.sqrt(x))
    assert "on the way back, in loss = sqrt(x)" in page_of(walk, tmp_path)
    assert "the first infinity appeared, out of a finite gradient" in str(walk)
    assert data_of(page_of(walk, tmp_path))["nodes"][0]["grad"] == ["inf"]


def test_without_javascript_all_is_there(tmp_path):
    walk = trace(exclusive_or()[1])
    html = page_of(walk, tmp_path)
    body = re.sub(r"<script.*?</script>|<style>.*?</style>", "", html, flags=re.DOTALL)
    for step in walk.steps:
        assert step.headline in body
    assert body.count("<li ") == len(walk.steps) == 10
    assert 'id="controls" role="group" aria-label="Controls" hidden' in body


# ---- large graphs ----------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, rng):
        self.norm, self.mix = nn.LayerNorm(2), nn.Linear(2, 2, rng=rng)

    def forward(self, x):
        return x + F.tanh(self.mix(self.norm(x)))


class Deep(nn.Module):
    def __init__(self, layers):
        self.blocks = [Block(i) for i in range(layers)]

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_above_a_hundred_tensors_modules_are_folded(tmp_path):
    model = Deep(24)
    x = np.ones((2, 2), np.float32)
    walk = trace(lambda: model(Tensor(x)).sum())
    assert len(walk.entries) > 190 and len(walk.cards) <= MOST_CARDS
    titles = [card.title for card in walk.cards if card.is_folded]
    assert titles[:2] == ["model.blocks.0", "model.blocks.1"] and len(titles) == 24
    first = next(card for card in walk.cards if card.is_folded)
    assert [e.op for e in first.operations] == ["layer_norm", "linear"]
    members = [entry for card in walk.cards for entry in card.members]
    assert len(members) == len(set(members)) == len(walk.entries)
    assert all(walk.cards.index(source) < i for i, card in enumerate(walk.cards) for source in card.inputs)
    html = page_of(walk, tmp_path)
    assert "model.blocks.23.mix.weight" in html and "2 operations pass it on to" in html


def test_without_modules_runs_of_operations_are_folded():
    y = parameter(1.0)
    for _ in range(150):
        y = F.tanh(y)
    walk = trace(y)
    assert 40 < len(walk.cards) <= MOST_CARDS and walk.cards[0].title == "t2 … t4"


def test_what_is_too_large_is_refused_before_anything_happens():
    x = y = parameter(1.0)
    for _ in range(2000):
        y = -y
    with pytest.raises(ValueError, match="2,001 tensors, more than the 2,000 that a page can show; trace fewer layers"):
        trace(y)
    assert x.grad is None
    y.backward()  # the graph is still there
    assert x.grad == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: trace(3.0), TypeError, "expected a Tensor, the loss, or a function that returns one; got float"),
        (lambda: trace(lambda: 3.0), TypeError, "got float"),
        (lambda: trace(parameter(1.0) * 2.0, 5), TypeError, r"inputs go with a function, trace\(f, x, ...\)"),
        (lambda: trace(parameter(1.0, 2.0) * 2.0), RuntimeError, "the gradient can start from a single number only"),
        (lambda: trace(Tensor([1.0])), RuntimeError, "not computed from any tensor with requires_grad"),
    ],
)
def test_mistakes(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_cards_stand_below_what_they_need_and_do_not_overlap():
    rng = np.random.default_rng(0)
    edges = [(int(u), v) for v in range(3, 40) for u in rng.choice(v, 2, replace=False)]
    sizes = [(float(w), 50.0) for w in rng.integers(60, 200, 40)]
    layout = lay_out(sizes, edges)
    tops = sorted({y for _, y in layout.centres})
    for (u, v), route in zip(edges, layout.routes, strict=True):
        assert layout.centres[u][1] + 50 <= layout.centres[v][1]
        between = [y for y in tops if layout.centres[u][1] < y < layout.centres[v][1]]
        assert [top for _, top, _ in route] == between
        for x, top, _ in route:  # past the cards of each row
            row = [(at, width) for (at, y), (width, _) in zip(layout.centres, sizes, strict=True) if y == top]
            assert all(abs(x - at) > width / 2 for at, width in row)
    for i, (x, y) in enumerate(layout.centres):
        assert x - sizes[i][0] / 2 >= 0 and x + sizes[i][0] / 2 <= layout.width + 1e-6
        assert y + 50 <= layout.height + 1e-6
        for j, (other, below) in enumerate(layout.centres[:i]):
            if y == below:
                assert abs(x - other) >= (sizes[i][0] + sizes[j][0]) / 2 + GAP - 1e-6
