"""Lesson 16. Your own operation: its definition, its derivative, the proof that they agree, and its speed.

    python examples/16_your_own_op.py
"""

# %% [markdown]
# # What the library does not have
#
# Some day you need an operation that nobody has written for you. Ours here is the **distance to
# prototypes**: `w` holds some places, the prototypes, and we want to know how far each row of `x` is
# from each of them, squared:
#
#     y[n, k] = sum over c of (x[n, c] - w[k, c])^2
#
# One can build it out of operations that exist. Then the engine knows the derivative, and there is nothing to prove.
# But each step of it makes an array of all rows times all prototypes times all columns, and keeps it for the way back.
# So we write it as one operation, and keep what we built as a witness.

# %%
import inspect
import time

import numpy as np
from course import Lesson, close, same

from minillm import Tensor, detect_anomaly, gradcheck, kernels, nn, no_grad, optim
from minillm import functional as F

lesson = Lesson("16_your_own_op")


def built(x: Tensor, w: Tensor) -> Tensor:
    """The same out of operations that exist.   x: (N, C), w: (K, C) -> (N, K)."""
    N, C = x.shape
    return ((x.reshape(N, 1, C) - w) ** 2).sum(axis=-1)


# %% [markdown]
# # Definition and derivative
#
# An operation is two functions of arrays. **Forward** is the formula. **Backward** is given `dy`, the gradient of the
# loss with respect to the result, of the result's shape, and must return the gradient with respect to each input, of
# that input's shape: a tuple, also where there is one input only. On paper: if `x[n, c]` grows, `y[n, k]` grows by
# `2 (x[n, c] - w[k, c])`, for *every* k; if `w[k, c]` grows, by minus that, for *every* n. And where one number acts
# in several places, gradients add (lesson 2):
#
#     dx[n, c] =   sum over k of dy[n, k] * 2 (x[n, c] - w[k, c])
#     dw[k, c] = - sum over n of dy[n, k] * 2 (x[n, c] - w[k, c])
#
# `Tensor.from_op` ties the two together: the result, the inputs, and the function that the engine will call on its way
# back. Two rules: `backward` must not write into `dy`, since others may hold it; and it should hold arrays, not the
# resulting Tensor, or the graph would hold itself and never be freed.

# %%


def distances_forward(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x: (N, C), w: (K, C) -> y: (N, K)."""
    return ((x[:, None] - w) ** 2).sum(axis=-1)


def distances_backward(dy: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dy: (N, K) -> dx: (N, C), dw: (K, C)."""
    pull = 2 * dy[:, :, None] * (x[:, None] - w)  # (N, K, C)
    return pull.sum(axis=1), -pull.sum(axis=0)


def distances(x: Tensor, w: Tensor, forward=distances_forward, back=distances_backward) -> Tensor:
    """The operation, with whatever computes it."""
    a, b = x.data, w.data

    def backward(dy):
        return back(dy, a, b)

    return Tensor.from_op(forward(a, b), (x, w), backward)


rng = np.random.default_rng(0)
x, w = Tensor(rng.standard_normal((5, 3)), requires_grad=True), Tensor(rng.standard_normal((4, 3)), requires_grad=True)
print(distances(x, w))

# %% [markdown]
# # The proof
#
# How do you know that the derivative is right? A wrong one does not crash. Training goes on, a little worse,
# and nobody knows why. But lesson 1 showed a judge that needs no derivative: move one number a little, and
# look at what the loss does. `gradcheck` does this for every number of every input. It weighs the results
# with random numbers before it adds them up, for a plain sum could hide a mistake.
#
# Then we make the mistake that everybody makes here some day: the minus sign of `dw` is forgotten.

# %%
print("gradcheck of ours: ", gradcheck(distances, [x, w]))


def wrong_backward(dy: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With a slip."""
    pull = 2 * dy[:, :, None] * (x[:, None] - w)
    return pull.sum(axis=1), pull.sum(axis=0)


def wrong(x: Tensor, w: Tensor) -> Tensor:
    """The operation with the slip in it."""
    return distances(x, w, back=wrong_backward)


try:
    gradcheck(wrong, [x, w])
    found = False
except AssertionError as error:
    found = True
    print("and of the slip:   ", error)
assert found, "the slip must be found"

# %% [markdown]
# # How small is a little?
#
# The smaller the step, the better the difference agrees with the slope; one would think. But a computer
# rounds: two losses that are almost equal have few digits in which they differ, and below some step the
# difference is nothing but rounding. So the error falls first, with the square of the step, and then rises
# again. With `float64` there is room between the two; with `float32`, in which networks compute, there is
# hardly any. That is why `gradcheck` computes in `float64`. A wrong derivative looks quite different: it does
# not get better whatever the step.

# %%
BENDS = np.random.default_rng(1).uniform(0.5, 1.5, (5, 4))  # a loss that is no plain sum


def loss_of(w: np.ndarray, dtype) -> float:
    """A number that depends on the prototypes."""
    y = distances_forward(x.data.astype(dtype), w.astype(dtype))
    return (np.tanh(y / 4) * BENDS.astype(dtype)).sum(dtype=dtype)


def slope(operation) -> float:
    """Its gradient with respect to the first number of w, by backward."""
    parameter = Tensor(w.data, requires_grad=True)
    (F.tanh(operation(x.detach(), parameter) / 4) * BENDS).sum().backward()
    return parameter.grad[0, 0]


STEPS = np.logspace(-11, 0, 45)
errors = {}
for name, operation, dtype in (
    ("right, float64", distances, np.float64),
    ("right, float32", distances, np.float32),
    ("wrong sign, float64", wrong, np.float64),
):
    said, errors[name] = slope(operation), []
    for h in STEPS:
        more, less = w.data.copy(), w.data.copy()
        more[0, 0] += h
        less[0, 0] -= h
        measured = (float(loss_of(more, dtype)) - float(loss_of(less, dtype))) / (2 * h)
        errors[name].append(abs(measured - said) / abs(said))
    print(f"{name:20} at its best {min(errors[name]):.1e} apart, with a step of {STEPS[np.argmin(errors[name])]:.0e}")
lesson.prove("backward and differences agree to a share of", min(errors["right, float64"]), at_most=1e-8)
lesson.prove("with a wrong sign", min(errors["wrong sign, float64"]), at_least=1)


def draw_errors(figure):
    """The error of a difference against its step, for a right derivative and a wrong one."""
    axes = figure.subplots()
    for i, (name, values) in enumerate(errors.items()):
        axes.loglog(STEPS, np.maximum(values, 1e-13), color=f"C{i}", linestyle=("-", "--", ":")[i], label=name)
    axes.set(xlabel="step of the difference", ylabel="relative difference from backward", ylim=(1e-13, 1e4))
    axes.set_title("right derivatives come close to differences, wrong ones never")
    axes.axvline(1e-6, color=lesson.grey, linewidth=0.8)
    axes.text(1.2e-6, 3e-13, "gradcheck's step", color=lesson.grey, fontsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:.0e}")
        axis.set_minor_formatter("")
    axes.legend()


lesson.picture(
    "gradcheck",
    draw_errors,
    alt="How far differences are from backward's gradient, against the step of the difference, both axes logarithmic. "
    "Right, float64: a V whose tip is near a ten-billionth. Right, float32: a V whose tip is far higher and whose left "
    "half is nothing but rounding. With a wrong sign the curve never falls below 1.",
)

# %% [markdown]
# And if a gradient does not exist at all? We want the distance itself, the root of its square. At 0 the root is
# infinitely steep, and infinity times 0 is no number: NaN, which then spreads into all weights. `gradcheck` was right,
# for it never looked *there*. Inside `detect_anomaly` the engine looks at every number that it makes, and stops where
# the first one goes wrong.

# %%
try:
    with detect_anomaly():
        (distances(x, x.detach()) ** 0.5).sum().backward()  # each row is 0 away from itself
except FloatingPointError as error:
    print(str(error).split("; called")[0])

# %% [markdown]
# # A kernel
#
# Now it is right; is it fast? The definition is short because NumPy thinks in whole arrays, and here it
# pays for it: for each pair of a row and a prototype it stores all differences, then all squares, then the
# sums. A loop would need to store only the sums. Python's loops are slow; but Numba translates a function
# of plain loops into machine code, when it is first called. Such a function is a **kernel**. The
# definition stays, for three reasons: to be read, to be what the kernel is compared with, and to run where
# there is no Numba.

# %%
WAYS = {"built of operations": built, "one operation, NumPy": distances}
try:
    import numba
except ImportError:
    print("no kernel: it is compiled by Numba, which is not here: pip install numba")
else:
    allowed = {"reassoc", "contract"}  # sums in another order, for the processor adds eight numbers at a time

    @numba.njit(fastmath=allowed)
    def kernel_forward(x, w):
        """y, with nothing in between."""
        y = np.zeros((len(x), len(w)), x.dtype)
        for n in range(len(x)):
            for k in range(len(w)):
                total = y[n, k]
                for c in range(x.shape[1]):
                    difference = x[n, c] - w[k, c]
                    total += difference * difference
                y[n, k] = total
        return y

    @numba.njit(fastmath=allowed)
    def kernel_backward(dy, x, w):
        """dx and dw, added up on the way."""
        dx, dw = np.zeros_like(x), np.zeros_like(w)
        for n in range(len(x)):
            for k in range(len(w)):
                twice = dy[n, k] + dy[n, k]
                for c in range(x.shape[1]):
                    pull = twice * (x[n, c] - w[k, c])
                    dx[n, c] += pull
                    dw[k, c] -= pull
        return dx, dw

    def fast(x: Tensor, w: Tensor) -> Tensor:
        """The operation, compiled."""
        return distances(x, w, kernel_forward, kernel_backward)

    WAYS["one operation, kernel"] = fast
    print("gradcheck of the kernel:", gradcheck(fast, [x, w]), flush=True)


def seconds(operation, N: int, K: int, C: int) -> float:
    """Forward and backward, the best of several times."""
    rng = np.random.default_rng(2)
    x, w = (Tensor(rng.standard_normal((n, C)).astype(np.float32), requires_grad=True) for n in (N, K))
    dy = np.ones((N, K), np.float32)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        operation(x, w).backward(dy)
        times.append(time.perf_counter() - start)
        x.grad = w.grad = None
    return min(times)


ROWS = (8, 32, 128, 512)
K, C = 64, 64
speeds = {name: [seconds(operation, N, K, C) for N in ROWS] for name, operation in WAYS.items()}
print(f"{'rows, with 64 prototypes of 64 numbers:':40}" + "".join(f"{N:12,}" for N in ROWS))
for name, times in speeds.items():
    print(f"{name:40}" + "".join(f"{t * 1e3:9.2f} ms" for t in times))

agree = [operation(x, w).data for operation in WAYS.values()]
assert all(np.allclose(y, agree[0], atol=1e-12) for y in agree), "all ways must agree"


def draw_speed(figure):
    """The time of each way, for more and more rows."""
    axes = figure.subplots()
    for i, (name, times) in enumerate(speeds.items()):
        axes.loglog(ROWS, np.array(times) * 1e3, "os^"[i] + "-", color=f"C{i}", label=name)
    axes.set(xlabel="rows", ylabel="forward and backward (ms)", xticks=ROWS)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.set_title("what the arrays in between cost")
    axes.legend()


lesson.picture(
    "speed",
    draw_speed,
    alt="Milliseconds for forward and backward against the number of rows, both axes logarithmic: the kernel takes the "
    "least time, the operation in NumPy many times as much, and what is built of several operations the most.",
)

# %% [markdown]
# # How the library does it
#
# In minillm, `@compiled("activations")` stands above a definition. A call of it is then a call of the function of
# the same name in `minillm/kernels/activations.py`. Whoever reads the operation sees the definition and may
# forget the rest; with `MINILLM_KERNELS=numpy` in the environment, or without Numba, it is what runs. To put
# an operation of yours there: write definition and `from_op` into a file of `minillm/functional/`, the loops
# under the same name into `minillm/kernels/`, and a row into the tests' table of operations. They then compare
# it with differences, and the kernel with the definition.

# %%
file, definition = kernels.DEFINITIONS["silu_backward"]
print(inspect.getsource(definition))
many, dy = np.random.default_rng(3).standard_normal((2, 100_000)).astype(np.float32)
times = []
for function in (definition, kernels.load(file, "silu_backward") if kernels.KERNELS == "numba" else definition):
    result = function(dy, many)
    start = time.perf_counter()
    for _ in range(10):
        function(dy, many)
    times.append((time.perf_counter() - start) * 1e9 / 10 / many.size)
apart = np.abs(result - definition(dy, many)).max()
print(f"{times[0]:.1f} ns a number by the definition, {times[1]:.1f} as it runs ({kernels.KERNELS}); {apart:.0e} apart")

# %% [markdown]
# # Like any other
#
# An operation with a derivative can stand in any model. Here prototypes part the two spirals of lesson 3: a
# point's nearness to each of them, `e` to the power of minus the distance, goes into one layer. The prototypes are
# parameters, so they wander where they are of use. A `Module` is all it needs.

# %%


class Prototypes(nn.Module):
    """How near each row is to each of K places: (N, C) -> (N, K), from 0 to 1."""

    def __init__(self, places: np.ndarray, sharpness: float) -> None:
        self.places, self.sharpness = Tensor(places, requires_grad=True), sharpness

    def forward(self, x: Tensor) -> Tensor:
        """e to the power of minus sharpness times the squared distance."""
        return F.exp(-self.sharpness * distances(x, self.places))


rng = np.random.default_rng(4)
turn = np.sqrt(rng.uniform(0.02, 1, 200)) * 3 * np.pi
arm = np.stack([turn * np.cos(turn), turn * np.sin(turn)], axis=1) / 10
points, wanted = np.concatenate([arm, -arm]).astype(np.float32), np.repeat([-1.0, 1.0], 200).astype(np.float32)
start = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
model = nn.Sequential(Prototypes(start.copy(), 20.0), nn.Linear(40, 1, rng=rng), nn.Tanh())
optimizer = optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.0)
for step in range(301):
    loss = F.mse_loss(model(Tensor(points))[:, 0], wanted)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 100 == 0:
        with no_grad():
            right = np.mean(np.sign(model(Tensor(points)).data[:, 0]) == wanted)
        print(f"step {step:3}   loss {loss.item():.4f}   {right:.1%} of the points on the right side")

# %% [markdown]
# # Exercises
#
# 1. `y = x * w`, where `x` has the shape (N, C) and `w` the shape (C,), so that each weight acts on a whole
#    column. Write its backward.
# 2. A whole operation: the squared ReLU, `y = max(x, 0)^2`, with `Tensor.from_op`.

# %%


def check_scale_backward(f):
    """By gradcheck."""

    def scale(x: Tensor, w: Tensor) -> Tensor:
        a, b = x.data, w.data
        return Tensor.from_op(a * b, (x, w), lambda dy: f(dy, a, b))

    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((4, 3)), rng.standard_normal(3)
    got = f(np.ones((4, 3)), x, w)
    same(None if got is None else np.shape(got[1]), (3,), "the shape of dw, where w has three numbers")
    gradcheck(scale, [Tensor(x), Tensor(w)])


@lesson.exercise(check_scale_backward)
def scale_backward(dy, x, w):
    """dx and dw of y = x * w.   dy: (N, C), x: (N, C), w: (C,)."""
    ...


def check_squared_relu(f):
    """Values, then gradcheck."""
    x = np.array([-2.0, -0.5, 0.5, 3.0])
    got = f(Tensor(x))
    close(None if got is None else got.data, [0, 0, 0.25, 9], "x = [-2, -0.5, 0.5, 3]")
    assert f(Tensor(x, requires_grad=True)).requires_grad, "the result does not remember how it was made"
    gradcheck(f, [Tensor(x)])


@lesson.exercise(check_squared_relu)
def squared_relu(x):
    """max(x, 0)^2 as one operation: a Tensor of a Tensor."""
    ...


# %%
lesson.end(
    changed="an operation of one's own, proved",
    parameters=model.num_parameters(),
    read=["minillm/check/gradcheck.py", "minillm/check/anomaly.py", "minillm/functional/elementwise.py",
          "minillm/functional/reductions.py", "minillm/kernels/", "tests/opspec.py"],
)  # fmt: skip
