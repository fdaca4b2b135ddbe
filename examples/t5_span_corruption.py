"""How T5 learns from plain text: pieces of it are hidden, and the model says what was there.

    python examples/t5_span_corruption.py                            # about two minutes
    python examples/t5_span_corruption.py --steps 300 --held-out 50  # a first impression

The texts say one thing twice, in French and in English: what is hidden on one side can be read from the other. Nobody
tells the model so. To fill the gaps it has to find out by itself which words belong together.
"""

import argparse
import re

import numpy as np
from tqdm import tqdm

from minillm import GenerationConfig, TrainConfig, Trainer, data, models
from minillm.data import french, tasks
from minillm.generate import generate_batch
from minillm.tokenizer import CharTokenizer

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=7000, help="batches of 32 texts to learn from")
parser.add_argument("--held-out", type=int, default=300, help="texts in the examination")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

rng = np.random.default_rng(0)
texts = sorted({"{} = {}".format(*french.noun_phrase(rng, adjectives=2)[:2]) for _ in range(60_000)})
train = [text for text in texts if not tasks.is_held_out(text)]
held_out = [text for text in texts if tasks.is_held_out(text)]
held_out = [held_out[i] for i in rng.permutation(len(held_out))[: options.held_out]]

names = ["<pad>", "</s>", *(f"<extra_id_{i}>" for i in range(10))]
tokenizer = CharTokenizer.train(texts, special_tokens=names)
sentinels = [tokenizer.special_tokens[name] for name in names[2:]]


def as_ids(texts: list[str]) -> list[list[int]]:
    """One id for each character."""
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


dataset = data.SpanCorruptionDataset(as_ids(train), as_ids(held_out), sentinels, tokenizer.eos_id)
model = models.T5(
    models.T5Config(
        vocab_size=tokenizer.vocab_size, d_model=64, d_kv=16, num_heads=4, d_ff=256, num_layers=2,
        relative_attention_num_buckets=64, dropout_rate=0.0,
    ),
    rng=options.seed,
)  # fmt: skip
print(f"{len(train):,} texts to learn from, {len(held_out)} others held out; {model.num_parameters():,} parameters")
config = TrainConfig(
    steps=options.steps, batch_size=32, learning_rate=4e-3, weight_decay=0.01, evaluate_every=500, seed=options.seed
)
result = Trainer(model, dataset, config, tokenizer=tokenizer).run()

# The examination: each text that was held out, with gaps of its own.
asked = [dataset.corrupt(ids, np.random.default_rng((1, i))) for i, ids in enumerate(as_ids(held_out))]
greedy = GenerationConfig(temperature=0, max_new_tokens=40)
answers = []
for start in tqdm(range(0, len(asked), 50), desc="filling gaps", leave=False, disable=None):
    answers += generate_batch(model, tokenizer, [inputs for inputs, _ in asked[start : start + 50]], greedy)


def with_gaps(inputs: np.ndarray) -> str:
    """The text as the model sees it, a dot for each gap."""
    return "".join("..." if id in sentinels else tokenizer.decode([id]) for id in inputs[:-1])


def could_be(inputs: np.ndarray) -> int:
    """How many of all texts agree with what is visible."""
    pattern = "^" + ".+".join(map(re.escape, with_gaps(inputs).split("..."))) + "$"
    return len(re.findall(pattern, "\n".join(texts), re.MULTILINE))


right = [answer.ids == target.tolist() for answer, (_, target) in zip(answers, asked, strict=True)]
alone = [could_be(inputs) == 1 for inputs, _ in asked]
for i in [*range(3), *(i for i in range(len(asked)) if not right[i])][:8]:
    inputs, target = asked[i]
    filled = tokenizer.decode(data.fill_spans(inputs[:-1], answers[i].ids[:-1], sentinels))
    verdict = "right" if right[i] else f"wrong: {held_out[i]}"
    print(f"\n  {with_gaps(inputs)}\n  {filled}   [{answers[i].finish_reason}] {verdict}")
print(
    f"\nexact match {np.mean(right):.1%} of {len(right)} texts; what is visible leaves no doubt in {np.mean(alone):.1%}"
)
