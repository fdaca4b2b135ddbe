"""Lesson 7. A recurrent network: reading letter by letter, what it forgets, and the LSTM's answer.

    python examples/07_recurrent.py
"""

# %% [markdown]
# # Reading with one cell
#
# A text has no fixed length, and a layer of neurons has a fixed number of inputs. So read it piece by
# piece: one **cell**, the same at every step, takes the next letter `x` and its own **state** `h`, the
# numbers it had after the letter before, and makes the new state:
#
#     h_t = tanh(W x_t + U h_{t-1} + b)
#
# The state is all that the cell knows of what it has read. Why the same weights at every step? What a
# letter means should not depend on whether it is the fifth or the fiftieth, and so any length can be
# read.
#
# Our texts here are simple: the first letter is one of four, *a b c d*, and is to be remembered; then
# come letters from *w x y z*, which mean nothing. A letter is given to the cell as a row of zeros with a
# single 1.

# %%
import numpy as np
from course import Lesson, close

from minillm import Tensor, nn, optim
from minillm import functional as F

lesson = Lesson("07_recurrent")

LETTERS, H = "abcdwxyz", 32  # H: how many numbers the state has


def texts(rng: np.random.Generator, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """A letter to remember and ``length`` others: rows of zeros and a 1, and which letter was the first."""
    first = rng.integers(4, size=count)
    ids = np.concatenate([first[:, None], rng.integers(4, 8, (count, length))], axis=1)
    return np.eye(8)[ids], first


rnn = nn.RNN(8, H, rng=0)
W, U, b = rnn.weight_ih_l0.data, rnn.weight_hh_l0.data, (rnn.bias_ih_l0 + rnn.bias_hh_l0).data


def read(x: np.ndarray) -> np.ndarray:
    """Cell by cell: the state after each letter of a text."""
    h, states = np.zeros(H), []
    for letter in x:
        h = np.tanh(W @ letter + U @ h + b)
        states.append(h)
    return np.array(states)


x, _ = texts(np.random.default_rng(1), count=1, length=24)
states = read(x[0])
for t in range(4):
    print(f"after {''.join(LETTERS[i] for i in x[0, : t + 1].argmax(-1)):5} the state begins {states[t, :4].round(2)}")
assert np.allclose(states, rnn(Tensor(x))[0].data[0], atol=1e-5), "nn.RNN reads otherwise"
print("nn.RNN, which is compiled, gives the same states")

# %% [markdown]
# # What it forgets
#
# Let the cell read two texts that differ in the first letter alone. The difference of the two states is
# all that is left of that letter. It fades with every step, since `U` shrinks it and `tanh` flattens it.
#
# In the other direction the same happens to the gradient. How much would the last state change if the input
# at step t changed? The chain rule multiplies one factor *for every step in between*. If each factor is
# 0.6, after 20 steps some 0.00004 is left: the network is never told that the first letter mattered. This
# is the **vanishing gradient**. (Factors above 1 are no better: the gradient explodes. That is why one
# clips it.)

# %%
other = x[0].copy()
other[0] = np.eye(8)[(x[0, 0].argmax() + 1) % 4]  # another first letter, the rest alike
left_over = np.abs(read(other) - states)
for t in (0, 5, 10, 20):
    print(f"{t:2} letters later the two states differ by {left_over[t].mean():.1e}")


def gradient_by_distance(cell, length: int = 40) -> np.ndarray:
    """How strongly the last state depends on the input 0, 1, 2 ... steps before: the length of the gradient."""
    inputs = Tensor(texts(np.random.default_rng(2), 32, length)[0], requires_grad=True)
    last = cell(inputs)[0][:, -1]
    (last * np.random.default_rng(3).normal(size=last.shape)).sum().backward()  # along a direction at random
    return np.sqrt((inputs.grad**2).sum(-1)).mean(0)[::-1]


# %% [markdown]
# # The LSTM's answer
#
# The *long short-term memory* (Hochreiter and Schmidhuber, 1997) has a second state, the **cell state**
# `c`, to which no matrix and no `tanh` is applied on the way. **Gates**, numbers between 0 and 1 that the
# cell computes at each step (`sigmoid` bends like `tanh`, but between these two), say how much of it is
# kept, what is added, and what is shown:
#
#     f, i, o = sigmoid(...)      g = tanh(...)       each of W x_t + U h_{t-1} + b, with weights of its own
#     c_t = f c_{t-1} + i g       keep the share f of the old, add the share i of the new
#     h_t = o tanh(c_t)           show the share o
#
# Now the factor of each step is `f`, the **forget gate**. Where it is near 1, the cell state goes through
# a hundred steps almost unchanged, and so does the gradient on its way back.
#
# But nobody says that it *is* near 1: at the beginning all weights are small, `f` is near 1/2, and an
# LSTM forgets like the others. A known trick helps: begin with a bias of 4, since `sigmoid(4)` is 0.98.

# %%


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Between 0 and 1."""
    return 1 / (1 + np.exp(-z))


def lstm_gates(cell, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An LSTM reads one text: its forget gates and its states at each step."""
    h, c, kept, states = np.zeros(H), np.zeros(H), [], []
    for letter in x:
        z = cell.weight_ih_l0.data @ letter + cell.bias_ih_l0.data + cell.weight_hh_l0.data @ h + cell.bias_hh_l0.data
        i, f, o = sigmoid(z[:H]), sigmoid(z[H : 2 * H]), sigmoid(z[3 * H :])
        c = f * c + i * np.tanh(z[2 * H : 3 * H])
        h = o * np.tanh(c)
        kept.append(f)
        states.append(h)
    return np.array(kept), np.array(states)


def new_cells() -> dict[str, nn.Module]:
    """The three that are compared, fresh."""
    open_gate = nn.LSTM(8, H, rng=0)
    open_gate.bias_ih_l0.data[H : 2 * H] = 4.0  # the rows of a gate stand together: i, f, g, o
    return {"plain cell": nn.RNN(8, H, rng=0), "LSTM": nn.LSTM(8, H, rng=0), "LSTM, gate open": open_gate}


cells = new_cells()
assert np.allclose(lstm_gates(cells["LSTM"], x[0])[1], cells["LSTM"](Tensor(x))[0].data[0], atol=1e-5)
gradients = {name: gradient_by_distance(cell) for name, cell in cells.items()}
print("gradient that is left after", *(f"{d:9}" for d in (0, 10, 20, 30, 40)), "steps")
for name, g in gradients.items():
    print(f"{name:26}", *(f"{g[d]:9.1e}" for d in (0, 10, 20, 30, 40)))

# %% [markdown]
# # Can they learn it?
#
# The task: say at the end which letter was the first. Each cell gets a linear layer on its last state, and
# is trained for the same number of steps, anew for each distance. A guess is right in 25% of all cases.

# %%
STEPS, DISTANCES = 200, (5, 10, 20, 40)


def train(cell, distance: int) -> float:
    """Learn to name the first letter; returns how often that succeeds on new texts."""
    rng = np.random.default_rng(0)
    head = nn.Linear(H, 4, rng=1)
    parameters = cell.parameters() + head.parameters()
    optimizer = optim.AdamW(parameters, lr=3e-3)
    for _ in range(STEPS):
        letters, first = texts(rng, 32, distance)
        F.cross_entropy(head(cell(Tensor(letters.astype(np.float32)))[0][:, -1]), first).backward()
        optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    letters, first = texts(np.random.default_rng(4), 500, distance)
    return float(np.mean(head(cell(Tensor(letters.astype(np.float32)))[0][:, -1]).data.argmax(-1) == first))


accuracy: dict[str, list[float]] = {name: [] for name in cells}
print("first letter known after  ", *(f"{d:5}" for d in DISTANCES), "letters")
for distance in DISTANCES:
    trained = new_cells()
    for name, cell in trained.items():
        accuracy[name].append(train(cell, distance))
for name, shares in accuracy.items():
    print(f"{name:26}", *(f"{share:5.0%}" for share in shares))
gates, _ = lstm_gates(trained["LSTM, gate open"], texts(np.random.default_rng(5), 1, 40)[0][0])
print(f"the forget gates of the last one, after training: {gates.mean():.2f} on average, {gates.min():.2f} the lowest")


def draw(figure):
    """What is left of the first letter; the gradient through time; who learns the task."""
    from matplotlib.colors import LinearSegmentedColormap

    left, middle, right = figure.subplots(1, 3)
    shades = LinearSegmentedColormap.from_list("shades", [lesson.paper, "C0"])
    image = left.imshow(left_over.T, aspect="auto", cmap=shades, vmin=0, vmax=0.3, interpolation="nearest")
    left.set(title="plain cell: what is left\nof the first letter")
    left.set(xlabel="letters read since", ylabel="unit of the state")
    figure.colorbar(image, ax=left, location="bottom", label="difference of the states", shrink=0.9)
    looks = dict(zip(cells, (("C0", "-", "o"), ("C1", "--", "s"), ("C2", "-.", "^")), strict=True))
    for name, (colour, style, marker) in looks.items():
        middle.semilogy(gradients[name], style, color=colour, label=name)
        right.plot(DISTANCES, np.array(accuracy[name]) * 100, style, marker=marker, color=colour, markersize=5)
    middle.set(title="how much the last state\ndepends on an input")
    middle.set(xlabel="steps before", ylabel="length of the gradient")
    middle.set_yticks([10.0**-k for k in range(0, 10, 2)], ["1", *(f"1e-{k}" for k in range(2, 10, 2))])
    right.axhline(25, color=lesson.grey, linewidth=0.8, linestyle=":")
    right.text(40, 22, "guessing", color=lesson.grey, fontsize=8, va="top", ha="right")
    right.set(title="who learns to name\nthe first letter", xlabel="letters in between", ylabel="right answers (%)")
    right.set(ylim=(0, 104))
    middle.legend(loc="lower left")


lesson.picture(
    "memory",
    draw,
    alt="Left: of the first letter almost nothing is left in the plain cell's state ten letters later. Middle: the "
    "gradient of the plain cell and of the fresh LSTM falls by orders of magnitude, that of the LSTM with an open "
    "forget gate does not. Right: only the last one still learns the task at 40 letters.",
    size=(9.5, 4),
)
ratio = gradients["LSTM, gate open"][30] / gradients["plain cell"][30]
known = accuracy["LSTM, gate open"][-1]
lesson.prove("first letter known 40 letters later, by an LSTM with an open forget gate", known, at_least=0.9)
lesson.prove("its gradient after 30 steps, as a multiple of the plain cell's", ratio, at_least=1000)

# %% [markdown]
# (With another seed the plain cell may learn a distance that it does not learn here: Adam takes steps of
# the same size from tiny gradients too, and some of them go the right way by luck. The farther, the
# rarer.)
#
# The GRU (2014) is a simpler cell with the same idea: one gate mixes the old state and the new one. In
# `minillm.nn` all three have the same interface.
#
# # Exercises
#
# 1. A cell with a single unit and no input, `h = tanh(u * h)`. What is the slope of its last state with
#    respect to the one it began with? `states` holds h after each step, so not that one.
# 2. Which forget gate keeps the share `share` of a cell state through n steps?

# %%


def check_slope_through(f):
    """Against differences."""
    for u, start, steps in ((0.9, 0.5, 3), (1.5, -0.2, 6), (0.5, 1.0, 1)):
        after = []
        for moved in (start - 1e-5, start + 1e-5, start):
            h, states = moved, []
            for _ in range(steps):
                h = np.tanh(u * h)
                states.append(h)
            after.append(h)
        close(f(u, states), (after[1] - after[0]) / 2e-5, f"u = {u}, from {start}, {steps} steps")


@lesson.exercise(check_slope_through)
def slope_through(u, states):
    """d(last state) / d(state before the first step): one factor for each step; the slope of tanh is 1 - h^2."""
    ...


def check_gate_for(f):
    """Half after ten steps, all after any."""
    for share, n in ((0.5, 10), (0.9, 40), (1.0, 7)):
        gate = f(share, n)
        close(gate if gate is None else gate**n, share, f"{share:.0%} after {n} steps")


@lesson.exercise(check_gate_for)
def gate_for(share, n):
    """The forget gate f, the same at each step."""
    ...


# %%
lesson.end(
    changed="a cell with a state reads letters",
    parameters=trained["LSTM, gate open"].num_parameters() + 4 * H + 4,
    read=["minillm/nn/recurrent.py", "minillm/functional/recurrent.py", "minillm/nn/linear.py", "minillm/optim.py"],
)
