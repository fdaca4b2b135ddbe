"""Lesson 1. A neuron: weighted inputs, a value between -1 and 1, and what a gradient is.

    python examples/01_neuron.py
"""

# %% [markdown]
# # A neuron
#
# A neuron receives numbers, its inputs `x`. It multiplies each by a weight, adds the products up, adds
# a bias, and bends the sum by `tanh`, so that the result lies between -1 and 1:
#
#     y = tanh(w1 x1 + w2 x2 + b)
#
# That is all it computes. What it knows is in its weights `w` and its bias `b`.

# %%
import numpy as np
from course import Lesson, close

from minillm import Tensor
from minillm import functional as F

lesson = Lesson("01_neuron")


def neuron(x: np.ndarray, w: np.ndarray, b: float) -> float:
    """Two inputs, two weights, a bias: one number between -1 and 1."""
    return np.tanh(w @ x + b)


x, w, b = np.array([1.0, -2.0]), np.array([0.5, 0.3]), 0.2
print(f"0.5 * 1 + 0.3 * -2 + 0.2 = {w @ x + b:.2f}, and tanh of it is {neuron(x, w, b):.4f}")

# %% [markdown]
# # How does it learn?
#
# We want another result, say 1. How wrong it is, the **loss**, is the square of the difference. For each
# weight we ask one question: if it grew a little, would the loss grow or fall, and how fast? The answer
# is a slope, and all slopes together are the **gradient**. There are three ways to find it.
#
# **By difference.** Move the weight a little to both sides, and look.

# %%
target, h = 1.0, 1e-5


def loss_of(w1: float) -> float:
    """The loss as a function of the first weight alone."""
    return (neuron(x, np.array([w1, w[1]]), b) - target) ** 2


by_difference = (loss_of(w[0] + h) - loss_of(w[0] - h)) / (2 * h)
print(f"by difference:  {by_difference:.6f}")

# %% [markdown]
# **By hand.** The loss is a chain of three simple steps: `z = w1 x1 + w2 x2 + b`, `y = tanh(z)`,
# `loss = (y - 1)^2`. The slope of a chain is the product of the slopes of its steps; this is the chain
# rule:
#
#     dloss/dw1 = dloss/dy * dy/dz * dz/dw1 = 2 (y - 1) * (1 - y^2) * x1

# %%
y = neuron(x, w, b)
by_hand = 2 * (y - target) * (1 - y**2) * x[0]
print(f"by hand:        {by_hand:.6f}")

# %% [markdown]
# **By `backward`.** A `Tensor` is an array that remembers how it was made. `backward` walks from the loss
# back along this memory and multiplies the slopes for us, for all weights at once.

# %%
w_t, b_t = Tensor(w, requires_grad=True), Tensor(np.array(b), requires_grad=True)
loss = (F.tanh((w_t * x).sum() + b_t) - target) ** 2
loss.backward()
print(f"by backward:    {w_t.grad[0]:.6f}, and for the others {w_t.grad[1]:.6f} and {b_t.grad:.6f}")
lesson.prove(
    "the three gradients differ by at most",
    max(abs(by_hand - by_difference), abs(by_hand - w_t.grad[0])),
    at_most=1e-8,
)

# %% [markdown]
# # Down the slope
#
# The gradient says in which direction the loss grows. We go the other way, a little, and again: this is
# **gradient descent**. How far a step goes is set by the **learning rate**, here 0.5. Here a neuron
# learns from examples which points lie above a line. Nobody tells it the line; it is told how wrong it
# was: the loss is now the mean of the squares over all the points.

# %%
rng = np.random.default_rng(0)
points = rng.uniform(-1, 1, (200, 2))
wanted = np.where(points[:, 1] > 0.6 * points[:, 0] - 0.1, 1.0, -1.0)  # 1 above the line, -1 below

weights, bias = Tensor(np.array([1.0, 0.0]), requires_grad=True), Tensor(np.array(0.5), requires_grad=True)
losses, lines = [], []
for step in range(201):
    loss = F.mse_loss(F.tanh(points @ weights + bias), wanted)
    loss.backward()
    losses.append(loss.item())
    lines.append((*weights.data, bias.item()))
    for parameter in (weights, bias):
        parameter.data -= 0.5 * parameter.grad
        parameter.grad = None  # gradients add up, and each step wants its own
    if step % 50 == 0:
        right = np.mean(np.sign(points @ weights.data + bias.data) == wanted)
        print(f"step {step:3}   loss {losses[-1]:.4f}   {right:.0%} of the points on the right side")


def draw(figure):
    """The loss, step by step; and the line that the neuron draws, before and after."""
    left, right = figure.subplots(1, 2)
    left.plot(losses, color="C0")
    left.set(title="the loss falls", xlabel="step", ylabel="mean squared error", ylim=(0, None))
    for side, marker, colour in ((1.0, "o", "C0"), (-1.0, "s", "C1")):
        right.scatter(*points[wanted == side].T, s=12, marker=marker, color=colour, alpha=0.7, linewidths=0,
                      label=f"wanted {side:g}")  # fmt: skip
    across = np.array([-1.0, 1.0])
    for step, style in ((0, ":"), (10, "--"), (200, "-")):
        w1, w2, c = lines[step]
        if abs(w2) < 1e-9:
            right.axvline(-c / w1, color=lesson.ink, linestyle=style, label=f"step {step}")
        else:
            right.plot(across, -(w1 * across + c) / w2, color=lesson.ink, linestyle=style, label=f"step {step}")
    right.set(title="where its sum is 0", xlabel="x1", ylabel="x2")
    right.set(xlim=(-1, 1), ylim=(-1, 1), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    right.legend(loc="lower right", framealpha=0.8, frameon=True)


lesson.picture(
    "learning",
    draw,
    alt="Left: the mean squared error of a neuron falls over 200 steps. Right: 200 points of two kinds, and the line "
    "where the neuron's sum is zero, which turns from upright to the border between them.",
)

# %% [markdown]
# # Exercises
#
# Complete each function and run the lesson again: it says whether you are right.
#
# 1. The slope of the loss with respect to the bias, by hand.
# 2. One step of gradient descent: the new weights.

# %%


def check_bias_slope(f):
    """Against differences, at two places."""
    for z_before, target in ((0.3, 1.0), (-1.2, -1.0)):
        slope = ((np.tanh(z_before + h) - target) ** 2 - (np.tanh(z_before - h) - target) ** 2) / (2 * h)
        close(f(z_before, target), slope, f"z = {z_before}, target = {target}")


@lesson.exercise(check_bias_slope)
def bias_slope(z, target):
    """dloss/db of loss = (tanh(z) - target)^2, where z = w1 x1 + w2 x2 + b."""
    ...


def check_descend(f):
    """A step goes against the gradient."""
    close(f(np.array([1.0, 2.0]), np.array([0.5, -1.0]), 0.1), [0.95, 2.1], "w = [1, 2], gradient [0.5, -1], rate 0.1")


@lesson.exercise(check_descend)
def descend(w, gradient, learning_rate):
    """The weights after one step."""
    ...


# %%
lesson.end(
    changed="one neuron, gradient descent",
    parameters=weights.size + bias.size,
    read=["minillm/tensor.py", "minillm/autograd/engine.py"],
)
