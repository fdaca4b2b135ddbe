"""Every task is a text that is answered by a text: a small T5 learns to reverse, to sort, to write
dates, to translate.

    python examples/t5_text_to_text.py                            # some minutes
    python examples/t5_text_to_text.py --steps 300 --held-out 50  # a first impression

The encoder reads a question, whose first words say what is wanted. The decoder writes the answer,
letter by letter, and looks at the question at every step. The examination is on questions that were
kept apart before training began.
"""

import argparse

from tqdm import tqdm

from minillm import GenerationConfig, TrainConfig, Trainer, data, models
from minillm.generation import generate_batch
from minillm.tokenizer import CharTokenizer

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=8000, help="batches of 32 questions to learn from")
parser.add_argument("--questions", type=int, default=110_000, help="to draw, all tasks together, to learn from")
parser.add_argument("--held-out", type=int, default=300, help="questions of each task in the examination")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--save", metavar="FOLDER", help="keep the model here; transformers can open it too")
options = parser.parse_args()

SHARES = {"reverse": 2, "sort": 4, "date": 1, "translate": 4}  # what is hard is asked more often
print("drawing questions")
counts = {name: options.questions * share // sum(SHARES.values()) for name, share in SHARES.items()}
train = {task.name: task.pairs(counts[task.name], held_out=False, seed=options.seed) for task in data.TASKS}
held_out = {task.name: task.pairs(options.held_out, held_out=True) for task in data.TASKS}

# the alphabet of all texts, so that a short training knows every letter too
texts = [text for pairs in (train, held_out) for task in pairs.values() for pair in task for text in pair]
tokenizer = CharTokenizer.train(texts, special_tokens=("<pad>", "</s>"))  # </s> ends every text that it encodes


def as_ids(pairs: list[data.Pair]) -> list[tuple[list[int], list[int]]]:
    """Questions and answers as token ids."""
    questions, answers = (tokenizer.encode_batch(texts) for texts in zip(*pairs, strict=True))
    return list(zip(questions, answers, strict=True))


dataset = data.PairDataset(
    as_ids([pair for pairs in train.values() for pair in pairs]),
    as_ids([pair for pairs in held_out.values() for pair in pairs[:50]]),
)
model = models.T5(
    models.T5Config(
        vocab_size=tokenizer.vocab_size, d_model=64, d_kv=16, num_heads=4, d_ff=256, num_layers=2,
        relative_attention_num_buckets=64, dropout_rate=0.0,
    ),
    rng=options.seed,
)  # fmt: skip
print(f"{sum(counts.values()):,} questions of {len(train)} tasks to learn from; {model.num_parameters():,} parameters")
config = TrainConfig(
    steps=options.steps, batch_size=32, learning_rate=4e-3, weight_decay=0.01, evaluate_every=500, seed=options.seed
)
result = Trainer(model, dataset, config, tokenizer=tokenizer).run()

greedy = GenerationConfig(temperature=0, max_new_tokens=80)
print(f"\n{'task':<10} {'exact match':>11}  an example")
for name, pairs in held_out.items():
    answers = []
    for start in tqdm(range(0, len(pairs), 50), desc=name, leave=False, disable=None):
        answers += generate_batch(model, tokenizer, [pair.question for pair in pairs[start : start + 50]], greedy)
    results = list(zip(pairs, answers, strict=True))
    wrong = [(pair, answer) for pair, answer in results if answer.text != pair.answer]
    right = [(pair, answer) for pair, answer in results if answer.text == pair.answer]
    print(f"{name:<10} {len(right) / len(pairs):>11.1%}", end="")
    for pair, answer in right[:1]:
        print(f"  {pair.question} -> {answer.text}  [{answer.finish_reason}]", end="")
    for pair, answer in wrong[:3]:
        print(f"\n{'wrong':>22}  {pair.question} -> {answer.text}  [{answer.finish_reason}]  not {pair.answer}", end="")
    print()
if options.save:
    model.save_pretrained(options.save, tokenizer=tokenizer, generation_config=greedy)
