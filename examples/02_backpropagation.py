"""Lesson 2. Backpropagation: one walk back through the graph gives every slope, if the order is right.

    python examples/02_backpropagation.py
"""

# %% [markdown]
# # A calculation is a graph
#
# Take two numbers, `a = 2` and `b = -3`, and calculate three more from them:
#
#     c = a * b      d = a + c      L = c * d
#
# Draw an arrow from each number to those made of it, and you have the **graph** of the calculation. Note
# that `a` is used twice, by `c` and by `d`, and `c` is used twice too. Going forward we fill in the
# values. Each operation also knows, by itself, how its result moves when one of its inputs moves. This is
# its **local derivative**, and it is school mathematics: a sum moves as fast as its input, so 1; a product
# moves by the *other* factor.

# %%
import itertools
import math
import time

import numpy as np
from course import Lesson, close, same

import minillm
from minillm import Tensor
from minillm import functional as F

lesson = Lesson("02_backpropagation")

a, b = 2.0, -3.0
c = a * b  # local derivatives: dc/da = b, dc/db = a
d = a + c  # dd/da = 1, dd/dc = 1
L = c * d  # dL/dc = d, dL/dd = c
print(f"forward:  c = {c:g}, d = {d:g}, L = {L:g}")

# %% [markdown]
# # Back, step by step
#
# We want the gradient of `L` with respect to every number: by how much does `L` move when that number
# moves? At the end it is easy: `L` moves with itself, so its gradient is 1. Then we go back. Each
# operation takes the gradient that has arrived at its result and hands to each input
#
#     the gradient that arrived * the local derivative
#
# That is the chain rule of the last lesson, one link at a time. And where two gradients arrive, as at `c`
# and at `a`? They are **added**. If `c` moves a little, `L` moves for two reasons: directly, and because
# `d` moves. A small change does both, so the effects add.

# %%
dL = 1.0
dc_from_L, dd = dL * d, dL * c  # L = c * d hands back to c and d
da_from_d, dc_from_d = dd * 1, dd * 1  # d = a + c hands back to a and c
dc = dc_from_L + dc_from_d  # now c has everything that it gets: two gradients, added
da_from_c, db = dc * b, dc * a  # c = a * b hands back to a and b
da = da_from_d + da_from_c
print(f"backward: dL/dd = {dd:g}")
print(f"          dL/dc = {dc_from_L:g} + {dc_from_d:g} = {dc:g}")
print(f"          dL/db = {db:g}")
print(f"          dL/da = {da_from_d:g} + {da_from_c:g} = {da:g}")
h = 1e-6
moved = (((a + h) * b) * ((a + h) + (a + h) * b) - L) / h
print(f"a little more of a moves L by {moved:.3f} times as much")

# %%
PLACES = {"a": (0, 1), "b": (0, 0), "c": (1.1, 0.25), "d": (2.1, 0.9), "L": (3.2, 0.5)}
ARROWS = [("a", "c"), ("b", "c"), ("a", "d"), ("c", "d"), ("c", "L"), ("d", "L")]
VALUES = {"a": a, "b": b, "c": c, "d": d, "L": L}
STEPS = [  # what is said, who hands back what, and what has arrived where by then
    ("forward: the values", {}, {}),
    ("1. L hands back: 1 times d, 1 times c", {("c", "L"): "-4", ("d", "L"): "-6"}, {"L": "1", "d": "-6", "c": "-4 …"}),
    ("2. d is complete, and hands back", {("a", "d"): "-6", ("c", "d"): "-6"}, {"c": "-4 - 6 = -10", "a": "-6 …"}),
    ("3. now c is complete too", {("a", "c"): "30", ("b", "c"): "-20"}, {"a": "-6 + 30 = 24", "b": "-20"}),
]


def draw(figure):
    """The graph four times: with its values, and after each step back."""
    arrived = {}
    for axes, (title, handed, now) in zip(figure.subplots(2, 2).flat, STEPS, strict=True):
        arrived = arrived | now
        for source, target in ARROWS:
            start, end = (PLACES[target], PLACES[source]) if (source, target) in handed else (
                PLACES[source], PLACES[target])  # fmt: skip
            colour = "C1" if (source, target) in handed else lesson.grey
            axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 20,
                                                      "shrinkB": 20, "lw": 2 if colour == "C1" else 1})  # fmt: skip
            if (source, target) in handed:
                x, y = (np.array(start) + np.array(end)) / 2
                axes.text(x, y, handed[source, target], color="C1", ha="center", va="center", fontsize=9,
                          bbox={"facecolor": lesson.paper, "edgecolor": "none", "pad": 1})  # fmt: skip
        for name, (x, y) in PLACES.items():
            axes.text(x, y, f"{name} = {VALUES[name]:g}", ha="center", va="center", color=lesson.ink, fontsize=9,
                      bbox={"facecolor": lesson.paper, "edgecolor": "C0", "boxstyle": "round,pad=0.4"})  # fmt: skip
            if name in arrived:
                y += 0.2 if name in "ad" else -0.2
                axes.text(x, y, arrived[name], ha="center", va="center", color="C1", fontsize=9)
        axes.set(title=title, xlim=(-0.5, 3.7), ylim=(-0.35, 1.35))
        axes.set_axis_off()


lesson.picture(
    "steps",
    draw,
    alt="The graph of c = a b, d = a + c, L = c d four times: first its values; then, in three steps from L back to a "
    "and b, the gradients that are handed back along the arrows, added where two arrive: at c -10, at a 24.",
    size=(8, 5.5),
)

# %% [markdown]
# # An engine in twenty-five lines
#
# What we did by hand, a program can do. Each `Value` remembers what it was made of and the local
# derivatives. They are noted going forward because they need the values of that moment: this is why
# training takes more memory than using a trained network.

# %%


class Value:
    """A number that remembers how it was made."""

    clock = itertools.count()

    def __init__(self, number, inputs=(), slopes=()):
        self.number, self.inputs, self.slopes = number, inputs, slopes
        self.grad, self.born = 0.0, next(Value.clock)

    def __add__(self, other):
        return Value(self.number + other.number, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Value(self.number * other.number, (self, other), (other.number, self.number))

    def tanh(self):
        y = math.tanh(self.number)
        return Value(y, (self,), (1 - y * y,))

    def backward(self):
        self.grad, waiting = 1.0, {self}
        while waiting:
            value = max(waiting, key=lambda v: v.born)  # the newest: all that use it have handed back
            waiting.remove(value)
            for x, slope in zip(value.inputs, value.slopes, strict=True):
                x.grad += value.grad * slope  # the chain rule; and gradients add
                waiting.add(x)


a, b = Value(2.0), Value(-3.0)
c = a * b
d = a + c
(c * d).backward()
print(f"the engine: dL/da = {a.grad:g}, dL/db = {b.grad:g}, dL/dc = {c.grad:g}")

# %% [markdown]
# # Why does the order matter?
#
# The engine always takes the **newest** value that waits. Why not simply go on from each value as soon as
# something arrives there? The smallest example that breaks this has three values:
#
#     a = 1      b = a + a      c = b + b
#
# `c` is 4 times `a`, so the gradient of `a` must be 4. But `c` hands its 1 to `b` twice. Whoever goes on
# to `a` after the first time hands over an incomplete gradient; when the second has arrived, `b` goes on
# again, with 2, in which the first 1 is counted once more. So a value may hand back only when *all* that
# use it have done so. How does one know? An operation can only use what exists already: whatever uses a
# value is newer than the value. The newest one that waits is always complete.
#
# There is a way without any order: follow each path by itself, carrying its own product along, and never
# add before the end. It is right, and hopeless: each addition like these doubles the number of paths.

# %%


def too_early(value, arrived, visits):
    """Go on as soon as something arrives: wrong."""
    value.grad += arrived
    visits.append(value)
    for x, slope in zip(value.inputs, value.slopes, strict=True):
        too_early(x, value.grad * slope, visits)


def path_by_path(value, arrived, visits):
    """Carry along what this one path hands over: right, and slow."""
    value.grad += arrived
    visits.append(value)
    for x, slope in zip(value.inputs, value.slopes, strict=True):
        path_by_path(x, arrived * slope, visits)


def doubled(times):
    """a, and what comes of it when it is added to itself so many times."""
    a = last = Value(1.0)
    for _ in range(times):
        last = last + last
    return a, last


print("doublings   newest first           too early    path by path   its visits")
for times in (1, 2, 3, 4, 12):
    a, last = doubled(times)
    last.backward()
    found = [a.grad]
    for walk in (too_early, path_by_path):
        a, last = doubled(times)
        visits = []
        walk(last, 1.0, visits)
        found.append(a.grad)
    print(f"{times:9} {found[0]:14,.0f} {found[1]:19,.0f} {found[2]:15,.0f} {len(visits):12,}")
a, last = doubled(100)
last.backward()
print(f"100 doublings: 2 to the power of {math.log2(a.grad):g}, in 101 visits; path by path, it would outlast the sun")

# %% [markdown]
# # The same with arrays
#
# minillm's engine does the same, with one difference: its values are whole arrays. A layer, many neurons
# side by side (lesson 3), may have a thousand weights: it is one matrix product, one node of the graph,
# and NumPy does the thousand multiplications. Below, a small network of two layers is built twice, of
# single numbers and of arrays. Both engines must find the same slopes.
#
# Why go back at all, and not measure each slope by a difference, as in lesson 1? A difference needs a new
# calculation *for each weight*. One walk back finds them all, and costs about as much as two or three
# calculations forward, whether there are ten weights or a billion. Without this, there would be no
# language models.
#
# To look at it yourself: `minillm.trace(loss)` does what `loss.backward()` does, and notes every step; its
# `save_html` writes a page in which you go through the walk, forward and back. It takes any graph of
# yours.

# %%
HIDDEN, EXAMPLES = 8, 20
rng = np.random.default_rng(0)
points = rng.standard_normal((EXAMPLES, 2))
w1, b1, w2 = rng.standard_normal((2, HIDDEN)), rng.standard_normal(HIDDEN), rng.standard_normal((HIDDEN, 1))

start = time.perf_counter()
v1, vb, v2 = ([Value(float(n)) for n in array.flat] for array in (w1, b1, w2))
total = Value(0.0)
for x1, x2 in points:
    y = Value(0.0)
    for j in range(HIDDEN):
        y = y + (Value(x1) * v1[j] + Value(x2) * v1[HIDDEN + j] + vb[j]).tanh() * v2[j]
    total = total + y * y
total.backward()
numbers, nodes = time.perf_counter() - start, next(Value.clock)


def loss_of(w1, b1, w2):
    """The same, with arrays."""
    y = F.tanh(points @ w1 + b1) @ w2
    return (y * y).sum()


parameters = [Tensor(array, requires_grad=True) for array in (w1, b1, w2)]
loss_of(*parameters).backward()  # the library's fast code is loaded when it is first used: this does not count
for p in parameters:
    p.grad = None  # a second gradient would be added

start = time.perf_counter()
loss = loss_of(*parameters)
loss.backward()
arrays = time.perf_counter() - start

difference = max(
    np.abs(np.array([v.grad for v in values]) - p.grad.ravel()).max()
    for values, p in zip((v1, vb, v2), parameters, strict=True)
)
print(f"of numbers: some {nodes:,} nodes, {numbers * 1e3:.1f} ms; of arrays: 6 operations, {arrays * 1e3:.1f} ms")
print(f"the loss is {total.number:.6f} and {loss.item():.6f}")
lesson.prove("the tiny engine's gradients and minillm's differ by at most", difference, at_most=1e-10)

a, b = Tensor(2.0, requires_grad=True), Tensor(-3.0, requires_grad=True)  # and the graph from above
c = a * b
d = a + c
loss = c * d
trace = minillm.trace(loss)  # what loss.backward() does, and a note of every step
print(f"minillm: dL/da = {a.grad:g}, dL/db = {b.grad:g}")
page = lesson.file("02_backpropagation.html")
trace.save_html(page)
print(f"page: {page}: step through this walk in a browser; minillm.trace does it with any graph of yours")

# %% [markdown]
# # Exercises
#
# 1. The engine lacks division. Which two local derivatives does `a / b` have?
# 2. The order of the walk back. A graph is given as a dictionary, in the order in which its values were
#    made: from the name of each value to the names of its inputs. The last one is the loss.

# %%


def check_division_slopes(f):
    """Against differences."""
    for a, b in ((1.0, 2.0), (-3.0, 0.5)):
        wanted = ((a + h) / b - a / b) / h, (a / (b + h) - a / b) / h
        got = f(a, b)
        same(None if got is None else np.shape(got), (2,), "the shape of your result, two numbers")
        close(got[0], wanted[0], f"a = {a}, b = {b}: the first", 1e-3)
        close(got[1], wanted[1], f"a = {a}, b = {b}: the second", 1e-3)


@lesson.exercise(check_division_slopes)
def division_slopes(a, b):
    """How a / b moves when a moves, and how it moves when b moves: two numbers."""
    ...


def check_walk(f):
    """Each that the loss depends on, once, and after all that use it."""
    for graph in (
        {"a": (), "b": ("a", "a"), "c": ("b", "b")},
        {"a": (), "b": (), "c": ("a", "b"), "d": ("a", "c"), "L": ("c", "d")},
        {"x": (), "unused": ("x",), "y": ("x",), "loss": ("y", "x")},
    ):
        got = f(graph)
        reached = {list(graph)[-1]}
        for name in reversed(graph):
            reached |= set(graph[name]) if name in reached else set()
        same(None if got is None else sorted(got), sorted(reached), f"in {graph}, those that are visited")
        for user in got:
            for name in graph[user]:
                assert got.index(name) > got.index(user), f"in {graph}: {name} may hand back only after {user}"


@lesson.exercise(check_walk)
def walk_back(graph):
    """The names in the order in which they hand back; those that the loss does not depend on are left out."""
    ...


# %%
lesson.end(
    changed="a graph, and one walk back through it",
    parameters=sum(p.size for p in parameters),
    read=["minillm/autograd/engine.py", "minillm/tensor.py", "minillm/functional/activations.py", "minillm/autograd/",
          "minillm/check/trace/", "examples/whole.py"],
)  # fmt: skip
