"""How large must the rank be? LoRA of ranks 1 to 32 beside full fine-tuning, on the embedded conversations.

    minillm train --out runs/stories           # the base model: the default run
    python -m benchmarks.lora runs/stories     # every row: about a minute each on two cores
    python -m benchmarks.lora runs/stories 8   # one rank; "full" is all weights

All rows learn from the same conversations in the same order, and are asked the same held-out ones.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from minillm import data, finetune, load_run
from minillm.chat import report, sft
from minillm.chat.dataset import ChatDataset
from minillm.training.config import TrainConfig
from minillm.training.trainer import Trainer

ROWS = ("full", "1", "2", "4", "8", "16", "32")
CHATS, ASKED, STEPS = 4000, 200, 250
RATES = {"full": 2e-3, "LoRA": 1e-2}  # learning rates: the best of a few that were tried


def base_of(folder: str) -> tuple[Any, Any]:
    """The base model and its tokenizer, which know the marks of turns. What is frozen cannot learn to tell two marks
    apart, so each begins with an embedding of its own.
    """
    loaded = load_run(folder)
    tokenizer = sft.with_marks(loaded.tokenizer)
    known, model = loaded.model.config.vocab_size, sft.with_rows(loaded.model, tokenizer.vocab_size)
    table = model.model.embed_tokens.weight.data
    table[known:] += table.std() * np.random.default_rng(0).standard_normal(table[known:].shape, np.float32)
    return model, tokenizer


def main(folder: str, *chosen: str) -> None:
    """Print a line for each row."""
    print("| rank | trained | share | gradients and averages | a step | above the floor | stops | exact | obeys |")
    print("|---|---|---|---|---|---|---|---|---|")
    learned, asked = data.chats(CHATS, 0), data.chats(ASKED, 1, "test")
    for rank in chosen or ROWS:
        model, tokenizer = base_of(folder)
        rows = [sft.encode_all([chat.messages for chat in part], tokenizer) for part in (learned, asked)]
        dataset = ChatDataset(*rows, model.context)
        trained = finetune.Trainable(model.num_parameters(), model.num_parameters())
        if rank != "full":
            trained = finetune.add_lora(model, int(rank), targets=["*"], rng=0)
        config = TrainConfig(
            steps=STEPS, batch_size=32, learning_rate=RATES["full" if rank == "full" else "LoRA"], evaluate_every=STEPS,
            final_fraction=0.03,
        )  # fmt: skip
        floor = data.chat_floor(asked, dataset.validation_tokens)
        trainer = Trainer(model, dataset, config, tokenizer=tokenizer, floor=floor, quiet=True)
        trainer.callbacks, begun = [], time.perf_counter()
        result = trainer.run()
        seconds = (time.perf_counter() - begun) / STEPS
        if rank != "full":
            finetune.merge(model)
        said = report.measure(model.eval(), tokenizer, asked)
        memory = 3 * 4 * trained.trained / 1e6  # in float32: a gradient, and AdamW's two averages
        print(
            f"| {rank} | {trained.trained:,} | {trained.share:.1%} | {memory:.2f} MB | {1000 * seconds:.0f} ms "
            f"| {result.evaluation.above_floor:.3f} | {said.stopped:.1%} | {said.exact:.1%} | {said.obeyed:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
