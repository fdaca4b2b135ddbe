"""One neuron learns: y = w x + b, from points that lie near a line.

    python examples/one_neuron.py

The neuron weighs its input, adds a bias, and is told how wrong it was. The gradient says in which
direction each of the two numbers makes the error grow; we go the other way, a little, and again.
"""

import numpy as np

from minillm import Tensor
from minillm import functional as F

rng = np.random.default_rng(0)
x = rng.uniform(-1, 1, (100, 1)).astype(np.float32)
y = 3 * x - 1 + 0.1 * rng.standard_normal((100, 1)).astype(np.float32)  # the line, and some noise

w, b = Tensor([[0.0]], requires_grad=True), Tensor([0.0], requires_grad=True)
for step in range(101):
    loss = F.mse_loss(x @ w + b, y)
    loss.backward()
    if step % 20 == 0:
        print(
            f"step {step:3}   loss {loss.item():.4f}   w {w.item():+.3f} (slope {w.grad.item():+.3f})"
            f"   b {b.item():+.3f} (slope {b.grad.item():+.3f})"
        )
    for parameter in (w, b):
        parameter.data -= 0.2 * parameter.grad
        parameter.grad = None  # gradients add up, and each step wants its own

print(f"found y = {w.item():.2f} x {b.item():+.2f}; the points were made with y = 3 x - 1, and noise of 0.1^2 = 0.01")
