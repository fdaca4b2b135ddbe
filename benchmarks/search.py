"""Which settings learn the stories fastest: the search behind the default of ``minillm train``.

    python -m benchmarks.search            # every row: about three quarters of an hour on two cores
    python -m benchmarks.search 1 2 14     # some of them

Each row trains a small Llama on the same stories and prints how far it ends above their
floor, on 400 stories that it has not seen. What is compared is what is learned from so many tokens; the processor time
says what it costs.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from minillm import data, evaluate, models, optim
from minillm.training.build import build_model
from minillm.training.config import TrainConfig
from minillm.training.evaluate import next_token_loss
from minillm.training.recipe import Recipe
from minillm.training.setup import Setup


@dataclasses.dataclass(frozen=True)
class Row:
    """What is tried. ``places``: tokens and padding in a batch; ``decay``: see ``optim.wsd``, None: a cosine."""

    steps: int = 580
    rows: str = "bucketed"  # one story to a row; or packed
    places: int = 2048
    lr: float = 3e-3
    decay: float | None = 0.6
    beta2: float = 0.95
    zero: bool = True  # whether the last products of a block begin as zeros
    muon: bool = False  # Muon for the matrices of the blocks
    layers: int = 4
    width: int = 128
    heads: int = 4
    theta: float = 10_000.0  # of the rotary embedding
    embedding: float = 1.0  # the standard deviation of the embedding at first, in times of the usual one


ROWS = (
    Row(400, "packed", decay=0.4, zero=False),
    Row(400, decay=0.4, zero=False),
    Row(400, decay=0.4, zero=False, muon=True),
    Row(600, decay=0.4, zero=False),
    Row(600, decay=0.4, zero=False, lr=2e-3),
    Row(600, decay=0.4, zero=False, lr=5e-3),
    Row(1160, decay=0.4, zero=False, lr=2e-3, places=1024),
    Row(290, decay=0.4, zero=False, places=4096),
    Row(decay=0.5, zero=False, muon=True),
    Row(decay=0.4, zero=False, lr=2e-3, heads=8),
    Row(decay=0.4, lr=2e-3),
    Row(decay=0.4, lr=2e-3, theta=500.0),
    Row(decay=0.7, lr=2e-3, beta2=0.99),
    Row(),
    Row(decay=None),
    Row(decay=0.8, lr=4e-3),
    Row(muon=True),
    Row(390, decay=0.4, places=3072),
    Row(decay=0.4, lr=2e-3, embedding=0.3),
    Row(embedding=1.5),
    Row(lr=2e-3, layers=2, width=192),
    Row(lr=2e-3, layers=2, width=192, heads=6),
    Row(560, lr=2e-3, layers=2, width=192, heads=6, theta=300.0),
    Row(560, layers=2, width=192, heads=6, theta=300.0),
    Row(560, layers=2, width=192, heads=12, theta=300.0),
    Row(500, layers=2, width=192, heads=12, muon=True),
    Row(500, lr=4e-3, layers=2, width=192, heads=12, muon=True),
    Row(500, layers=2, width=192, heads=6, muon=True),
    Row(500, layers=3, width=160, heads=5, muon=True),
)


def model_of(row: Row, setup: Setup) -> models.LanguageModel:
    """The default model as a row wants it."""
    recipe = setup.recipe.replace(layers=row.layers, width=row.width, heads=row.heads, kv_heads=row.heads)
    config = build_model(recipe, setup.model.config.vocab_size).config
    config = dataclasses.replace(config, rope_theta=row.theta)
    model = models.Llama(config, np.random.default_rng((setup.recipe.seed, 0)))
    for name, p in model.named_parameters():
        if row.zero and name.endswith(("o_proj.weight", "down_proj.weight")):
            p.data = np.zeros_like(p.data)
        if "embed" in name:
            p.data = p.data * np.float32(row.embedding)
    return model


def learn(row: Row, setup: Setup, batches: Iterator[data.Batch]) -> tuple[models.LanguageModel, int]:
    """Train; returns the model, and the tokens that it has learned from."""
    model, tokens = model_of(row, setup), 0
    how = TrainConfig(optimizer="muon" if row.muon else "adamw", betas=(0.9, row.beta2))
    optimizers = how.optimizers(model).values()
    settings: dict[str, Any] = {"steps": row.steps, "warmup": 20}
    rate = optim.warmup_cosine(1, **settings) if row.decay is None else optim.wsd(1, decay=row.decay, **settings)
    model.train()
    for step in range(row.steps):
        batch = next(batches)
        next_token_loss(model, batch).backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.lr = row.lr * rate(step)
            optimizer.step()
            optimizer.zero_grad()
        tokens += int((batch[-1] != -100).sum())
    return model, tokens


def main(chosen: list[str]) -> None:
    """Print a line for each row."""
    print("| row | what differs | above the floor | tokens learned from | processor time |\n|---|---|---|---|---|")
    made = {rows: Setup.prepare(Recipe(rows=rows, steps=600)) for rows in ("bucketed", "packed")}
    for number, row in enumerate(ROWS, 1):
        if chosen and str(number) not in chosen:
            continue
        setup, begun = made[row.rows], time.process_time()
        batches = (setup.corpus.dataset.batch(step, row.places // 256, 0) for step in range(row.steps))
        model, tokens = learn(row, setup, batches)
        seconds = time.process_time() - begun
        result = evaluate(model, made["bucketed"].corpus.dataset.validation(32), floor=setup.corpus.floor)
        differs = ", ".join(f"{name} {value}" for name, value in vars(row).items() if value != getattr(Row(), name))
        differs = differs or "nothing"
        print(f"| {number} | {differs} | {result.above_floor:.4f} | {tokens:,} | {seconds:.0f} s |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
