"""Lesson 3. Layers redraw space: two spirals, which layers pull apart until a straight line parts them.

    python examples/03_layers.py
"""

# %% [markdown]
# # What one neuron cannot do
#
# The neuron of lesson 1 draws one straight line through the plane, and says which side a point is on.
# Here are two spirals, one inside the other. No straight line has one of them on each side. How far does
# the best line get? We ask for the line that fits the answers -1 and 1 with the smallest squared error,
# which `np.linalg.lstsq` finds at once, and count how many points are on the right side: of *other* points
# of the same spirals, which the line has not seen.

# %%
import numpy as np
from course import Lesson, close, same

from minillm import Tensor, nn, no_grad, optim
from minillm import functional as F

lesson = Lesson("03_layers")


def spirals(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n points on each of two spirals: (2 n, 2), and which spiral, -1 or 1: (2 n,)."""
    turn = np.sqrt(rng.uniform(0.02, 1, n)) * 3 * np.pi
    arm = np.stack([turn * np.cos(turn), turn * np.sin(turn)], axis=1) / 10
    points = np.concatenate([arm, -arm]) + 0.01 * rng.standard_normal((2 * n, 2))
    return points.astype(np.float32), np.repeat([-1.0, 1.0], n).astype(np.float32)


def best_line(x: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The weights, and last the bias, of the sum that is nearest to -1 and 1."""
    return np.linalg.lstsq(np.c_[x, np.ones(len(x))], wanted, rcond=None)[0]


def separable(x, wanted, x_new, wanted_new) -> float:
    """The share of new points that the best line for x has on the right side; by chance, a half."""
    line = best_line(x, wanted)
    return float(np.mean(np.sign(x_new @ line[:-1] + line[-1]) == wanted_new))


rng = np.random.default_rng(0)
points, wanted = spirals(200, rng)
new_points, new_wanted = spirals(500, rng)
print(f"the best straight line has {separable(points, wanted, new_points, new_wanted):.1%} on the right side")

# %% [markdown]
# # A layer, and why it must bend
#
# A **layer** is many neurons side by side that see the same inputs: a matrix of weights, a bias each, and
# `tanh`, its **activation**. It makes a new list of numbers out of each point, and a list of numbers is a
# place in a space. So a layer takes every point somewhere else: it *redraws the space*. And the next layer
# works with the new places, not with the old ones.
#
# Could we leave the `tanh` out? Without it, a layer can turn, stretch and shift the space, but straight
# lines stay straight. Ten such layers are no more than one: `(x @ A) @ B` is `x @ (A @ B)`, one matrix
# again. Bending is what makes depth worth something. Compare.

# %%


def network(sizes: list[int], bends: bool, rng: np.random.Generator) -> nn.Sequential:
    """Layers from two numbers through ``sizes`` to one number between -1 and 1."""
    layers, inputs = [], 2
    for size in sizes:
        layers += [nn.Linear(inputs, size, rng=rng), nn.Tanh()] if bends else [nn.Linear(inputs, size, rng=rng)]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, 1, rng=rng), nn.Tanh())


def train(model: nn.Sequential, steps: int, watch=lambda step: None) -> None:
    """Gradient descent, with a step size of its own for each weight: that is what AdamW adds."""
    optimizer = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(steps + 1):
        watch(step)
        F.mse_loss(model(Tensor(points))[:, 0], wanted).backward()
        optimizer.step()
        optimizer.zero_grad()


def right(model: nn.Sequential) -> float:
    """The share of new points that it has on the right side."""
    with no_grad():
        return float(np.mean(np.sign(model(Tensor(new_points)).data[:, 0]) == new_wanted))


for said, sizes, bends in (
    ("one neuron", [], True),
    ("three layers that do not bend", [12, 12], False),
    ("two layers that bend", [12], True),
):
    small = network(sizes, bends, np.random.default_rng(0))
    train(small, 500)
    print(f"{said:30} {small.num_parameters():4} parameters {right(small):7.1%}")

# %% [markdown]
# # Look inside
#
# Now a deeper one: three hidden layers of 12 neurons, then one of 2, which we can draw as it is. While it
# learns, we stop from time to time and take the numbers that each layer makes. They are called the
# **hidden** states, because nobody said what they should be. Then we ask the same question as above, after
# each layer: could a straight line part the spirals *here*, are they **linearly separable**?
#
# The line is a judge from outside; the network does not know it. It is trained for one thing only: that
# its last neuron is right. But that neuron can draw nothing but a straight line (in many dimensions: a
# flat wall). So all that the layers before it can do to help is to carry the points to places where a
# straight line is enough.

# %%
STEPS = 600
model = network([12, 12, 12, 2], True, np.random.default_rng(0))
NAMES = ["the plane", "after layer 1", "after layer 2", "after layer 3", "after layer 4"]


def hidden(model: nn.Sequential, x: np.ndarray) -> list[np.ndarray]:
    """x itself, and then what each layer makes of it."""
    found = [x]
    with no_grad():
        y = Tensor(x)
        for layer in model.layers[:-2]:
            y = layer(y)
            if isinstance(layer, nn.Tanh):
                found.append(y.data)
    return found


shares, spaces = {}, {}  # step -> how separable, and what there is to draw, after each layer


def watch(step: int) -> None:
    """Note how separable the points are after each layer."""
    if step % 25 == 0:
        before, after = hidden(model, points), hidden(model, new_points)
        shares[step] = [separable(x, wanted, x_new, new_wanted) for x, x_new in zip(before, after, strict=True)]
    if step in (0, 100, 200, STEPS):
        spaces[step] = before
        print(f"{step:4}  " + "".join(f"{share:14.1%}" for share in shares[step]), flush=True)


print("step  " + "".join(f"{name:>14}" for name in NAMES))
train(model, STEPS, watch)
lesson.prove("right side of a straight line, before the layers", shares[STEPS][0], at_most=0.75)
lesson.prove("and after them", shares[STEPS][-1], at_least=0.97)

# %%


def side_view(x: np.ndarray) -> np.ndarray:
    """Places of many numbers as two: along the judge's sum, and along what varies most besides."""
    line = best_line(x, wanted)
    across = line[:-1] / np.linalg.norm(line[:-1])
    rest = x - np.outer(x @ across, across) - x.mean(axis=0)
    most = np.linalg.svd(rest, full_matrices=False)[2][0]
    return np.stack([x @ across + line[-1] / np.linalg.norm(line[:-1]), rest @ most], axis=1)


def draw(figure):
    """The points after each layer, seen so that the best line stands upright in the middle."""
    grid = figure.subplots(len(spaces), len(NAMES))
    for row, (step, places) in zip(grid, spaces.items(), strict=True):
        for axes, name, x, share in zip(row, NAMES, places, shares[step], strict=True):
            seen = side_view(x)
            axes.axvline(0, color=lesson.grey, linewidth=1)
            for side, marker, colour in ((-1, "o", "C0"), (1, "s", "C1")):
                axes.scatter(*seen[wanted == side].T, s=4, marker=marker, color=colour, linewidths=0, alpha=0.8)
            axes.set(xticks=(), yticks=(), title=f"{name}: {share:.0%}" if step == 0 else f"{share:.0%}")
            axes.title.set_fontsize(9)
        row[0].set_ylabel(f"step {step}")
    figure.supxlabel("along the best line's sum: 0 is the line itself", color=lesson.grey, fontsize=9)


lesson.picture(
    "spaces",
    draw,
    alt="Two spirals as each of four layers sees them, at steps 0, 100, 200 and 600. In the plane they are wound into "
    "each other at every step. After training, the deeper the layer, the further apart they lie, until after layer 4 "
    "they are two clumps on the two sides of a straight line.",
    size=(9, 7.5),
)


def draw_shares(figure):
    """How separable each layer is, while the network learns."""
    axes = figure.subplots()
    steps = np.array(list(shares))
    for i, name in enumerate(NAMES):
        colour = lesson.grey if i == 0 else f"C{i - 1}"
        axes.plot(steps, 100 * np.array(list(shares.values()))[:, i], color=colour, label=name,
                  linestyle=(":", "--", "-.", (0, (6, 1)), "-")[i])  # fmt: skip
    axes.set(xlabel="step", ylabel="new points on the right side of a straight line (%)", ylim=(50, 101))
    axes.set_title("what a straight line can do after each layer")
    axes.legend(loc="lower right")


lesson.picture(
    "separability",
    draw_shares,
    alt="The share of points on the right side of the best straight line, over 600 steps. In the plane it stays at "
    "two thirds. After layers 1 and 2 it ends higher than that, after layers 3 and 4 it rises to all of them.",
)

# %% [markdown]
# # How to read this
#
# - **The plane stays where it is**: the network cannot change its input. If that line moved, we would have
#   made a mistake.
# - **The deeper, the better.** Each layer finishes a part of the work and hands it on. None of them was
#   told which part.
# - **Even before training, the first layers are better than the plane.** Twelve neurons with weights drawn
#   at random make twelve numbers out of two, and in twelve directions there is more room for a wall.
#   Learning must do better than that luck, and may give some of it away: layer 1 is not paid for what a
#   line could do there. In the last layer, where there are two numbers only, luck has nothing to offer.
# - **What does the fifth number of layer 2 mean?** Nothing by itself. Only the places of the points to each
#   other count; another start finds another arrangement, as good as this one.
#
# The same happens in every network of this course. A language model's last layer, too, draws nothing but
# flat walls, between the words that may follow. All the work is in redrawing the space before it.
# `minillm.plot.plane` draws what a layer of your own does to a grid.

# %% [markdown]
# # Exercises
#
# 1. Two layers that do not bend are one. What are its weights and its bias?
# 2. Redraw space by hand: the points in a disc around 0, and those on a ring around the disc. Which one
#    number, made of a point's two, is small for the first and large for the second?

# %%


def check_one_layer(f):
    """Against the two, on points drawn at random."""
    rng = np.random.default_rng(1)
    x, A, a, B, b = (rng.standard_normal(shape) for shape in ((5, 2), (2, 3), (3,), (3, 4), (4,)))
    got = f(A, a, B, b)
    weights, bias = (None, None) if got is None else got
    close(weights, A @ B, "the weights")
    close(x @ weights + bias, (x @ A + a) @ B + b, "what becomes of five points")


@lesson.exercise(check_one_layer)
def one_layer(A, a, B, b):
    """The weights and the bias of the layer that does as (x @ A + a) @ B + b: two arrays."""
    ...


def check_redraw(f):
    """One number for each point, and a border between the two kinds."""
    rng = np.random.default_rng(2)
    angle, radius = rng.uniform(0, 2 * np.pi, 200), np.r_[rng.uniform(0, 1, 100), rng.uniform(1.2, 2, 100)]
    got = f(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1))
    same(None if got is None else np.shape(got), (200,), "the shape of your result for 200 points")
    assert np.max(got[:100]) < np.min(got[100:]), "some point of the disc gets more than some point of the ring"


@lesson.exercise(check_redraw)
def redraw(points):
    """(N, 2) -> (N,): less for every point of the disc than for any point of the ring."""
    ...


# %%
lesson.end(
    changed="hidden layers that bend",
    parameters=model.num_parameters(),
    read=["minillm/nn/linear.py", "minillm/nn/container.py", "minillm/nn/module.py", "minillm/nn/init.py",
          "minillm/nn/activations.py", "minillm/functional/linear.py", "minillm/check/plot.py"],
)  # fmt: skip
