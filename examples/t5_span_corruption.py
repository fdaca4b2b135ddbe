"""How T5 learns from plain text: words of it are hidden, and the model says what was there.

    python examples/t5_span_corruption.py                            # three and a half minutes
    python examples/t5_span_corruption.py --steps 300 --held-out 50  # a first impression

The texts say one thing twice, in French and in English: what is hidden on one side can be read from
the other. Nobody tells the model so. To fill the gaps it has to find out by itself which words
belong together, and that *la vache* is *noire* where *le chat* is *noir*.
"""

import argparse

import numpy as np
from tqdm import tqdm

from minillm import GenerationConfig, TrainConfig, Trainer, data, models
from minillm.data import french, tasks
from minillm.generation import generate_batch
from minillm.tokenizer import UnigramTokenizer

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=4000, help="batches of 64 texts to learn from")
parser.add_argument("--texts", type=int, default=20_000, help="to draw, to learn from")
parser.add_argument("--held-out", type=int, default=300, help="texts in the examination")
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()


def draw(n: int, held_out: bool, seed: int) -> list[str]:
    """Different texts, all to learn from or all held out: the text itself says which it is."""
    found: dict[str, None] = {}
    rng = np.random.default_rng(seed)
    while len(found) < n:
        text = " = ".join(french.sentence(rng))
        if tasks.is_held_out(text) == held_out:
            found[text] = None
    return list(found)


train, held_out = draw(options.texts, False, options.seed), draw(options.held_out, True, 0)
words = {word for text in train for word in text.split()}
tokenizer = UnigramTokenizer.train(train, vocab_size=len(words) + 40, sentinels=10)  # a piece for nearly every word
sentinels = [tokenizer.special_tokens[f"<extra_id_{i}>"] for i in range(10)]


def as_ids(texts: list[str]) -> list[list[int]]:
    """The ids of each text, without the end."""
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


dataset = data.SpanCorruptionDataset(as_ids(train), as_ids(held_out), sentinels, tokenizer.eos_id)
model = models.T5(
    models.T5Config(
        vocab_size=tokenizer.vocab_size, d_model=64, d_kv=16, num_heads=4, d_ff=256, num_layers=2, dropout_rate=0.0
    ),
    rng=options.seed,
)  # fmt: skip
print(f"{len(train):,} texts to learn from, {len(held_out)} others held out; {model.num_parameters():,} parameters")
config = TrainConfig(
    steps=options.steps, batch_size=64, learning_rate=4e-3, weight_decay=0.01, evaluate_every=500, seed=options.seed
)
result = Trainer(model, dataset, config, tokenizer=tokenizer).run()

# The examination: each text that was held out, with a gap of its own.
asked = [dataset.corrupt(ids, np.random.default_rng((1, i))) for i, ids in enumerate(as_ids(held_out))]
greedy = GenerationConfig(temperature=0, max_new_tokens=20)
answers = []
for start in tqdm(range(0, len(asked), 50), desc="filling gaps", leave=False, disable=None):
    answers += generate_batch(model, tokenizer, [inputs for inputs, _ in asked[start : start + 50]], greedy)

right = [answer.ids == target.tolist() for answer, (_, target) in zip(answers, asked, strict=True)]
for i in [*range(4), *(i for i in range(4, len(asked)) if not right[i])][:8]:
    inputs, target = asked[i]
    filled = tokenizer.decode(data.fill_spans(inputs, answers[i].ids, sentinels), skip_special_tokens=True)
    print(f"\n  asked   {tokenizer.decode(inputs)}\n  wanted  {tokenizer.decode(target)}")
    print(f"  wrote   {tokenizer.decode(answers[i].ids)}   [{answers[i].finish_reason}]")
    print(f"  text    {filled}   {'right' if right[i] else 'WRONG'}")
print(f"\nexact match {np.mean(right):.1%} of {len(right)} texts that were held out")
