"""How large must the rank be? LoRA of ranks 1 to 32 beside full fine-tuning, on a new habit.

    minillm train && minillm sft runs/stories       # a model that answers: runs/stories-chat
    python -m benchmarks.lora runs/stories-chat     # every row: some twenty seconds each on two cores
    python -m benchmarks.lora runs/stories-chat 8   # one rank; "full" is all weights

It is to answer in one word, unasked, where it says whole sentences now; and right. All rows learn from the same 1,000
conversations in the same order, and are asked the same 200 others, in styles that were held out.
"""

from __future__ import annotations

import copy
import sys
import time

import numpy as np

from minillm import finetune, load_run
from minillm.chat.dataset import ChatDataset
from minillm.chat.report import answer_all
from minillm.chat.sft import encode_all
from minillm.data.chat_preferences import preferences
from minillm.training.config import TrainConfig
from minillm.training.evaluate import answer_loss
from minillm.training.trainer import Trainer

ROWS = ("full", "1", "2", "4", "8", "16", "32")
LEARNED, ASKED, STEPS = 1000, 200, 120
RATES = {"full": 1e-3, "LoRA": 5e-3}  # learning rates: few numbers take larger steps


def main(folder: str, *chosen: str) -> None:
    """Print a line for each row."""
    print("| rank | trained | share | gradients and averages | a step | loss | in one word | right |")
    print("|---|---|---|---|---|---|---|---|")
    base, tokenizer, _ = load_run(folder)
    learned, asked = preferences(LEARNED, 0), preferences(ASKED, 1, "test")
    rows = [encode_all([[*pair.prompt, *pair.chosen] for pair in part], tokenizer) for part in (learned, asked)]
    dataset = ChatDataset(*rows, base.context)
    for rank in chosen or ROWS:
        model = copy.deepcopy(base)
        trained = finetune.Trainable(model.num_parameters(), model.num_parameters())
        if rank != "full":
            trained = finetune.add_lora(model, int(rank), alpha=16, targets=["*"], rng=0)
        rate = RATES["full" if rank == "full" else "LoRA"]
        config = TrainConfig(steps=STEPS, batch_size=16, learning_rate=rate, evaluate_every=STEPS, final_fraction=0.03)
        trainer = Trainer(model, dataset, config, tokenizer=tokenizer, loss=answer_loss, quiet=True)
        trainer.callbacks, begun = [], time.perf_counter()
        result = trainer.run()
        seconds = (time.perf_counter() - begun) / STEPS
        if result.evaluation is None:  # it was interrupted
            return
        if rank != "full":
            finetune.merge(model)
        answers = [answer.text for answer in answer_all(model.eval(), tokenizer, [pair.prompt for pair in asked])]
        short = np.mean([pair.is_short(text) for pair, text in zip(asked, answers, strict=True)])
        right = np.mean([pair.is_right(text) for pair, text in zip(asked, answers, strict=True)])
        memory = 3 * 4 * trained.trained / 1e6  # in float32: a gradient, and AdamW's two averages
        print(
            f"| {rank} | {trained.trained:,} | {trained.share:.1%} | {memory:.2f} MB | {1000 * seconds:.0f} ms "
            f"| {result.evaluation.loss:.3f} | {short:.1%} | {right:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
