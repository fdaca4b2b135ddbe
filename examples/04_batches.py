"""Lesson 4. Batches: a gradient from a few examples points roughly the right way, and is cheap.

    python examples/04_batches.py
"""

# %% [markdown]
# # How many examples does a step need?
#
# The loss is an average over all examples, and so is its gradient: each example pulls at the weights in
# its own direction, and the gradient is the mean of these pulls. A text collection has a billion examples.
# Must we ask all of them before the first step? We could ask a few, drawn at random: a **batch**. Their
# mean pull is not the true gradient, but it is right on average: sometimes too far left, sometimes too far
# right. How far off is it?
#
# We look at the smallest case, a line `y = w x + b` through noisy points: two parameters, so that we can
# draw all of it.

# %%
import time

import numpy as np
from course import Lesson, close, same

from minillm import Tensor, nn, no_grad, optim
from minillm import functional as F

lesson = Lesson("04_batches")

N = 512
rng = np.random.default_rng(0)
x = rng.uniform(-0.5, 2.0, N)
y = 1.5 * x - 0.5 + 0.6 * rng.standard_normal(N)


def gradient(at: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The gradient of the mean squared error with respect to w and b, from the chosen examples."""
    w, b = Tensor(at[0], requires_grad=True), Tensor(at[1], requires_grad=True)
    F.mse_loss(w * x[chosen] + b, y[chosen]).backward()
    return np.array([w.grad, b.grad])


start = np.array([-1.0, 1.5])
true = gradient(start, np.arange(N))
print(f"from all {N} examples:  {true.round(2)}")
for size in (1, 8, 64):
    tries = [gradient(start, rng.integers(0, N, size)).round(2) for _ in range(4)]
    print(f"from {size:2} of them:       " + "  ".join(map(str, tries)))

# %% [markdown]
# # The law of the square root
#
# Draw many batches of each size, and look at the spread of their gradients around the true one: the
# **noise**. It falls with the square root of the batch's size, like the error of an opinion poll: with
# four times as many examples, half the noise. This is a bad bargain! The batch costs four times as much.
# That is why small batches are worthwhile: the first few examples tell nearly all there is to know about
# the direction, and the next thousand only polish it.

# %%
SIZES = 2 ** np.arange(9)


def spread(gradients: np.ndarray) -> float:
    """How far gradients are from the true one: the root of the mean squared distance."""
    return np.sqrt(((gradients - true) ** 2).sum(axis=1).mean())


noise_of_one = spread(np.array([gradient(start, np.array([i])) for i in range(N)]))
print(f"the gradient itself has the length {np.linalg.norm(true):.2f}")
noise = []
for size in SIZES:
    drawn = np.array([gradient(start, rng.integers(0, N, size)) for _ in range(250)])
    noise.append(spread(drawn))
    print(f"batches of {size:3}: noise {noise[-1]:.2f}, by the law {noise_of_one / np.sqrt(size):.2f}", flush=True)
slope = np.polyfit(np.log(SIZES), np.log(noise), 1)[0]
lesson.prove("the noise falls with the batch's size to the power of", slope, at_least=-0.56, at_most=-0.44)


def plain(axes):
    """Plain numbers along axes whose equal steps are equal factors."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.12g}")
        axis.set_minor_formatter("")


def draw_noise(figure):
    """Noise against batch size, both on scales where equal steps are equal factors."""
    axes = figure.subplots()
    axes.loglog(SIZES, noise, "o", color="C0", label="measured")
    axes.loglog(SIZES, noise_of_one / np.sqrt(SIZES), color=lesson.grey, linestyle="--", label="by the law")
    axes.axhline(np.linalg.norm(true), color="C1", label="length of the gradient itself")
    axes.set(xlabel="examples in a batch", ylabel="noise of the gradient", xticks=SIZES, yticks=(0.5, 1, 2, 5))
    axes.set_title("four times the examples, half the noise")
    plain(axes)
    axes.legend()


lesson.picture(
    "noise",
    draw_noise,
    alt="The noise of a batch's gradient against the number of examples in it, both axes logarithmic: the nine "
    "measured points lie on the straight line that falls with the square root.",
)

# %% [markdown]
# # Down the bowl, four ways
#
# With two parameters the loss is a landscape: a bowl, here drawn as a map with lines of equal height. All
# four walkers start at the same place, use the same learning rate, and may look at the same number of
# examples. One uses each example for a step of its own; the others collect 8 or 64, or all.
#
# Examples are not drawn anew for each step, but shuffled, used once each, and shuffled again: one such
# round is an **epoch**. So none is forgotten. Why shuffle? If the examples came sorted, each batch would
# pull in a direction of its own, and the walker would run after the last one.

# %%
EPOCHS, RATE = 4, 0.1


def batches(n: int, size: int, rng: np.random.Generator):
    """The examples of one epoch, n in all, in a new order, some at a time."""
    order = rng.permutation(n)
    for i in range(int(np.ceil(n / size))):
        yield order[i * size : (i + 1) * size]


paths = {}
for size in (1, 8, 64, N):
    rng = np.random.default_rng(1)
    place, path = start.copy(), [start]
    for _ in range(EPOCHS):
        for chosen in batches(N, size, rng):
            place = place - RATE * gradient(place, chosen)
            path.append(place)
    paths[size] = np.array(path)
bottom = np.polyfit(x, y, 1)
for size, path in paths.items():
    away = np.linalg.norm(path - bottom, axis=1)
    print(f"batches of {size:3}: {len(path) - 1:4} steps; in the end {away[-1]:.2f} from the bottom, and during the "
          f"second half up to {away[len(away) // 2 :].max():.2f}")  # fmt: skip


def draw_paths(figure):
    """The map of the loss, and the four ways down."""
    ws, bs = np.meshgrid(np.linspace(-1.4, 3.0, 60), np.linspace(-2.2, 2.0, 60))
    heights = ((ws[..., None] * x + bs[..., None] - y) ** 2).mean(axis=-1)
    for axes, (size, path) in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, paths.items(), strict=True):
        lines = axes.contour(ws, bs, heights, levels=(0.4, 0.6, 1, 2, 4, 8), colors=lesson.grey, linewidths=0.7)
        axes.clabel(lines, fontsize=6, fmt="%g")
        axes.plot(*path.T, color="C0", linewidth=0.5, marker="" if size == 1 else ".", markersize=4)
        axes.plot(*bottom, "+", color="C1", markersize=12, markeredgewidth=2)
        name = "all at once" if size == N else f"batches of {size}"
        axes.set(title=f"{name}: {len(path) - 1:,} steps", xlim=(-1.4, 3.0), ylim=(-2.2, 2.0))
    figure.supxlabel("weight w", fontsize=9)
    figure.supylabel("bias b", fontsize=9)


lesson.picture(
    "paths",
    draw_paths,
    alt="Four maps of the same loss, a bowl over weight and bias, with the path of gradient descent for batches of 1, "
    "8, 64 and all 512 examples. Batches of 1 arrive at once and then dance around the bottom; of 8 they arrive and "
    "stay near; of 64 they come close to it along a smooth path; all at once makes four steps and is still on its way.",
    size=(7.5, 6),
)

# %% [markdown]
# The walker with batches of 1 was down first, and never stays there: its noise kicks it out again and
# again. How wide it dances depends on noise and learning rate, so one lets the learning rate fall towards
# the end (a *schedule*). The careful one with all examples hardly left its place.
#
# # Against the clock
#
# So batches of 1 are best? Not on a real machine. A processor that has fetched a weight can use it for
# many examples nearly as fast as for one, and each call of NumPy costs time, however little it does. So
# far we have counted examples. Now we count seconds too, with a network of a few thousand weights, which
# learns the form of a saddle.

# %%


def surface(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n places, two numbers each, and the height there, a little wrong."""
    at = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    height = 2 * at[:, 0] * at[:, 1] + 0.1 * rng.standard_normal(n)
    return at, height.astype(np.float32)


N = 2048
inputs, heights = surface(N, np.random.default_rng(2))
new_inputs, new_heights = surface(1000, np.random.default_rng(3))


def new_network() -> nn.Sequential:
    """Two hidden layers of 64 neurons, always with the same weights to begin with."""
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Linear(2, 64, rng=rng), nn.Tanh(), nn.Linear(64, 64, rng=rng), nn.Tanh(),
                         nn.Linear(64, 1, rng=rng))  # fmt: skip


def error(model: nn.Sequential) -> float:
    """The mean squared error on new places; 0.01 of it is noise that nobody can know."""
    with no_grad():
        return F.mse_loss(model(Tensor(new_inputs))[:, 0], new_heights).item()


def learn(model: nn.Sequential, size: int, steps: int) -> tuple[list[int], list[float], list[float]]:
    """Examples seen, seconds spent on learning, and the error, from time to time."""
    optimizer, rng = optim.SGD(model.parameters(), lr=0.03), np.random.default_rng(4)
    done, spent, seen = 0, 0.0, []
    looks = set(np.unique(np.geomspace(1, steps, 40).astype(int)))
    while True:
        for chosen in batches(N, size, rng):
            began = time.perf_counter()
            F.mse_loss(model(Tensor(inputs[chosen]))[:, 0], heights[chosen]).backward()
            optimizer.step()
            optimizer.zero_grad()
            spent += time.perf_counter() - began
            done += 1
            if done in looks:
                seen.append((done * size, spent, error(model)))
            if done == steps:
                return tuple(zip(*seen, strict=True))


learn(new_network(), 8, 5)  # the first time, the library's fast code is loaded: it does not count
runs = {}
for size, steps in ((1, 3000), (8, 3000), (64, 2000), (N, 400)):
    runs[size] = learn(model := new_network(), size, steps)
    examples, seconds, errors = (values[-1] for values in runs[size])
    print(f"batches of {size:4}: {seconds / steps * 1e3:5.2f} ms a step, {examples / seconds:9,.0f} examples a second, "
          f"error {errors:.3f} after {seconds:.1f} s", flush=True)  # fmt: skip


def draw_runs(figure):
    """The error against examples seen, and against seconds."""
    left, right = figure.subplots(1, 2, sharey=True)
    for i, (size, (examples, seconds, errors)) in enumerate(runs.items()):
        name = "all at once" if size == N else f"batches of {size}"
        look = {"color": f"C{i}", "linestyle": ("-", "--", "-.", ":")[i], "label": name}
        left.loglog(examples, errors, **look)
        right.loglog(seconds, errors, **look)
    left.set(xlabel="examples seen", ylabel="mean squared error on new examples", title="per example")
    right.set(xlabel="seconds", title="per second")
    for axes in (left, right):
        axes.axhline(0.01, color=lesson.grey, linewidth=1)
        axes.set(yticks=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5))
        plain(axes)
    left.set_xticks([1, 100, 10_000, 1_000_000])
    left.text(1, 0.0102, "what nobody can know", color=lesson.grey, fontsize=8, va="bottom")
    right.legend()


lesson.picture(
    "clock",
    draw_runs,
    alt="The error on new examples against examples seen and against seconds, for batches of 1, 8, 64 and all 2048. "
    "Per example seen, the smallest batches fall first and all at once last. Per second, those of 8 and 64 fall first.",
    size=(8, 4),
)

# %% [markdown]
# # What people do
#
# Batches as large as the machine can handle in nearly no extra time, and not larger: a few dozen for the
# models of this course, a few thousand on machines with many processors. If the memory is too small for
# the batch that one wants: gradients add, so four batches of 16, their gradients summed and divided by 4,
# are one of 64. And a little noise is not only harm: it shakes a walker out of small hollows in which it
# would stay for ever.
#
# The rule that turns gradients into steps is the **optimizer**: `SGD` takes them as they are, `AdamW`, as
# in lesson 3, gives each weight a step size of its own. It can also pull all weights a little towards 0 at
# each step (**weight decay**), so that only those that are needed stay large.

# %% [markdown]
# # Exercises
#
# 1. How many examples must a batch have so that its noise is at most what you want? You know the noise of
#    a single example.
# 2. The gradient of a large batch from those of its parts, which may be of different sizes.

# %%


def check_examples_for(f):
    """The smallest number that is enough."""
    for one, wanted in ((3.0, 1.5), (2.0, 0.5), (1.0, 0.3), (1.0, 2.0)):
        least = next(n for n in range(1, 100) if one / np.sqrt(n) <= wanted)
        same(f(one, wanted), least, f"one example's noise {one}, wanted {wanted}")


@lesson.exercise(check_examples_for)
def examples_for(noise_of_one, wanted):
    """The smallest whole number of examples that brings the noise down to ``wanted``."""
    ...


def check_together(f):
    """Against the gradient of all at once."""
    parts = np.split(np.random.default_rng(5).permutation(len(x)), [100, 150, 300])
    got = f([gradient(start, part) for part in parts], [len(part) for part in parts])
    close(got, gradient(start, np.arange(len(x))), f"parts of {[len(part) for part in parts]} examples")


@lesson.exercise(check_together)
def together(gradients, sizes):
    """The gradient of the mean over all examples. gradients: of the mean over each part; sizes: of the parts."""
    ...


# %%
lesson.end(
    changed="gradients from batches",
    parameters=model.num_parameters(),
    read=[
        "minillm/optim.py", "minillm/data/batches.py", "minillm/functional/losses.py", "minillm/nn/dropout.py",
        "minillm/nn/batch_norm.py", "minillm/functional/checks.py", "minillm/functional/products.py",
    ],
)  # fmt: skip
