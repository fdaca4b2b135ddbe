"""Layers are projections into a space where things separate: two spirals that no straight line can
part.

    python examples/separation.py

One neuron draws one straight line through the plane. A hidden layer draws many, bends the plane
along them, and hands the result to the next layer, until one straight line suffices.
"""

import numpy as np

from minillm import Tensor, nn, no_grad, optim
from minillm import functional as F


def spirals(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """n points on each of two spirals: (2 n, 2), and which spiral, (2 n,)."""
    turn = np.sqrt(rng.uniform(0.02, 1, n)) * 3 * np.pi
    arm = np.stack([turn * np.cos(turn), turn * np.sin(turn)], axis=1) / 10
    points = np.concatenate([arm, -arm]) + 0.01 * rng.standard_normal((2 * n, 2))
    return points.astype(np.float32), np.repeat([0, 1], n)


def train(model: nn.Module, points: np.ndarray, labels: np.ndarray, steps: int) -> float:
    """Fit the model; returns the share of points on the right side."""
    optimizer = optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)
    for _ in range(steps):
        F.cross_entropy(model(Tensor(points)), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    with no_grad():
        return float((model(Tensor(points)).argmax(axis=1).data == labels).mean())


def picture(model: nn.Module, width: int = 60, height: int = 26) -> str:
    """The plane, as the model divides it."""
    ys, xs = np.meshgrid(np.linspace(1, -1, height), np.linspace(-1, 1, width), indexing="ij")
    grid = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.float32)
    with no_grad():
        sides = model(Tensor(grid)).argmax(axis=1).data.reshape(height, width)
    return "\n".join("".join(".#"[side] for side in row) for row in sides)


points, labels = spirals(200, np.random.default_rng(0))
line = nn.Linear(2, 2, rng=0)
print(f"one layer:    {train(line, points, labels, 500):.0%} on the right side")
layers = nn.Sequential(nn.Linear(2, 32, rng=1), nn.Tanh(), nn.Linear(32, 32, rng=2), nn.Tanh(), nn.Linear(32, 2, rng=3))
print(f"three layers: {train(layers, points, labels, 1000):.0%} on the right side\n")
print(picture(layers))
