"""Lesson 13. Answering: a chat template, a loss mask, and a model of stories that learns to reply, obey and stop.

    python examples/13_answering.py
"""

# %% [markdown]
# # Answering
#
# The model of lesson 10 continues texts. Ask it something, and it continues the question. A chat model is the same
# kind of model; what differs is the text it continues. A conversation is written as **one text**, with marks that say
# who speaks, and it ends where the assistant's turn has been announced. The most likely continuation is then an
# answer.
#
# How a conversation becomes a text is its **chat template**. This one is called ChatML:
#
#     <|im_start|>user
#     Who are you?<|im_end|>
#     <|im_start|>assistant
#     My name is Mini.<|im_end|>
#
# The two marks are special tokens, each with a number of its own. A message of the role `system` comes first, and
# says how to answer.

# %%
import dataclasses
import importlib.util

import numpy as np
from course import Lesson, close, same, story_model

from minillm import GenerationConfig, TrainConfig, Trainer, chat, data, generate_batch, models
from minillm.chat.dataset import ChatDataset
from minillm.chat.encode import Encoded
from minillm.chat.sft import with_marks
from minillm.chat.show import show_mask
from minillm.data.chat_corpus import chance, is_right, obeys, style_of

lesson = Lesson("13_answering")
stories = story_model(lesson)
tokenizer = with_marks(stories.tokenizer)  # the same, with two more special tokens
START, END = (tokenizer.special_tokens[mark] for mark in ("<|im_start|>", "<|im_end|>"))

# A model with a row in its embedding for each of the two, drawn as if it were one of the others.
model = models.Llama(dataclasses.replace(stories.model.config, vocab_size=tokenizer.vocab_size), rng=0)
weights = dict(stories.model.state_dict())
rows = weights["model.embed_tokens.weight"]  # (V, C)
new = rows.mean(axis=0) + rows.std(axis=0) * np.random.default_rng(0).standard_normal((2, rows.shape[1]))
weights["model.embed_tokens.weight"] = np.concatenate([rows, new.astype(rows.dtype)])
model.load_state_dict(weights)


def plain(text):
    """The ids of what people wrote. Marks spelled out in it are letters, and no marks."""
    return tokenizer.encode(text, add_special_tokens=False)


def encode(messages, answer=False):
    """A conversation as ids, and for each whether the assistant wrote it; answer: announce its turn at the end."""
    ids, mask = [], []
    for message in messages:
        head = [START, *plain(f"{message['role']}\n")]
        body = [*plain(message["content"]), END]
        ids += [*head, *body, *plain("\n")]
        mask += [False] * len(head) + [message["role"] == "assistant"] * len(body) + [False] * len(plain("\n"))
    return Encoded(ids + [START, *plain("assistant\n")] if answer else ids, mask)


example = [
    {"role": "system", "content": "Use one word."},
    {"role": "user", "content": "Mia has the red ball. Mia gives it to Tom. Who has it?"},
    {"role": "assistant", "content": "Tom."},
]
print(show_mask(tokenizer, encode(example)))
if importlib.util.find_spec("jinja2"):  # templates are written in its language
    print("the library's chat.encode gives the same:", chat.encode(example, tokenizer) == encode(example))

# %% [markdown]
# # The loss mask
#
# In the brackets: what the model is to learn. It is to answer, not to ask; so only the assistant's tokens are
# targets. The others are read, and have no loss: this is the **loss mask**.
#
# The token that ends the turn is *inside* the brackets. Lesson 12 showed what happens otherwise.
#
# And a user who types `<|im_end|>`? If that became the mark, one could end one's own turn and go on as the system. So
# special tokens are only those that the template wrote; what people write is encoded as plain letters.

# %%
print(f"the mark is 1 token; the same characters in a message are {len(plain('<|im_end|>'))}: {plain('<|im_end|>')}")

# %% [markdown]
# # Conversations with known answers
#
# The corpus is again written by a grammar: small questions whose right answer is known, in English and French, with
# system messages that really change the answer. What is examined was held out: *this* answer in *this* style was
# never seen in training.
#
# Four numbers, measured before and after. Does the model **stop**, by its own mark? Does it **obey** the system
# message: the language, capitals, a single word, its name? How often would that happen anyway, **without the
# message**? And how many answers are exactly **right**, compared with the answer to another question, given **at
# random**?

# %%
FITS = 72  # tokens: short conversations, so that the lesson is short


def conversations(n, seed, part):
    """Some conversations, and their ids."""
    found = data.chats(n, seed, part)
    both = [(talk, encode(talk.messages)) for talk in found]
    return [(talk, encoded) for talk, encoded in both if len(encoded.ids) <= FITS]


train, examined = conversations(5000, 0, "train"), conversations(1000, 1, "test")
dataset = ChatDataset([encoded for _, encoded in train], [encoded for _, encoded in examined], model.context)
asked = [talk for talk, _ in examined]
floor = data.chat_floor(asked, dataset.validation_tokens)
print(f"{len(train):,} conversations to learn from, {len(asked)} others to be examined on")
print(f"{dataset.tokens_per_epoch:,} targets; floor {floor:.4f}: hardly anything in an answer is left to chance")


def answers(model, prompts):
    """The most likely answer to each conversation."""
    settings = GenerationConfig(temperature=0, max_new_tokens=32)
    return generate_batch(model, tokenizer, [encode(prompt, answer=True).ids for prompt in prompts], settings)


def wish_of(style):
    """What a system message asks for."""
    made = [style.language != "", style.capitals, style.one_word, style.name != ""]
    return WISHES[made.index(True)] if sum(made) == 1 else WISHES[-1]


WISHES = ["a language", "capitals", "one word", "a name", "several of these"]
told = [i for i, talk in enumerate(asked) if talk.messages[0]["role"] == "system"]
styles = [style_of(asked[i].messages) for i in told]
wishes = np.array([wish_of(style) for style in styles])


def measure(model):
    """The shares of answers that stop, obey, would do so without being told, and are right; and for each wish of a
    system message the second and the third of them.
    """
    given = answers(model, [talk.prompt for talk in asked])
    untold = answers(model, [asked[i].prompt[1:] for i in told])
    obeyed = np.array([obeys(style, given[i].text) for style, i in zip(styles, told, strict=True)])
    anyway = np.array([obeys(style, answer.text) for style, answer in zip(styles, untold, strict=True)])
    shares = {
        "stops by its own mark": np.mean([answer.finish_reason == "end_of_turn" for answer in given]),
        "obeys the system message": np.mean(obeyed),
        "does so without the message": np.mean(anyway),
        "exact answers": np.mean([is_right(t.prompt, a.text) for t, a in zip(asked, given, strict=True)]),
    }
    return shares, {wish: (np.mean(obeyed[wishes == wish]), np.mean(anyway[wishes == wish])) for wish in WISHES}


before, before_by_wish = measure(model)
print("before, it continues:", repr(answers(model, [example[:-1]])[0].text))

# %% [markdown]
# # Supervised fine-tuning
#
# Nothing is new but the data and the mask: the loop, the loss and the optimiser are those of lesson 10. The model
# begins with what it knows of language and stories. This is *supervised fine-tuning*, **SFT**: we show it what a good
# answer is.

# %%
config = TrainConfig(steps=240, batch_size=24, learning_rate=5e-3, final_fraction=0.03, evaluate_every=60)
trainer = Trainer(model, dataset, config, floor=floor)
result = trainer.run().evaluation
for record in trainer.history:
    if record["val_loss"] is not None:
        print(f"step {record['step']:3}   loss {record['val_loss']:.3f} nats per token of the assistant")

after, after_by_wish = measure(model)
print(f"\n{'':30} before   after")
for what in before:
    print(f"{what:30} {before[what]:6.1%}  {after[what]:6.1%}")
at_random = chance(asked)
print(f"{'exact answers at random':30} {'':6}  {at_random:6.1%}")
print(f"\n{'obeys, where it asks for':30} before   after  after, without the message")
for wish in WISHES:
    (old, _), (new, anyway) = before_by_wish[wish], after_by_wish[wish]
    print(f"{f'{wish} ({np.sum(wishes == wish)})':30} {old:6.1%}  {new:6.1%}  {anyway:6.1%}")
print()
for talk, answer in zip(asked[:6], answers(model, [talk.prompt for talk in asked[:6]]), strict=True):
    for message in talk.prompt:
        print(f"{message['role']:9} {message['content']}")
    print(f"{'answer':9} {answer.text}   [{answer.finish_reason}; right: {talk.answer}]\n")
lesson.prove("answers that stop by themselves", after["stops by its own mark"], at_least=0.9)
lesson.prove("before, those were", before["stops by its own mark"], at_most=0.1)
lesson.prove("obeys the system message", after["obeys the system message"], at_least=0.6)


def draw(figure):
    """The tokens of a conversation, learned or read; and what the model does, before and after, and wish by wish."""
    axes = figure.subplot_mosaic([["mask", "mask"], ["shares", "wishes"]], height_ratios=(2, 3))
    above, left, right = axes["mask"], axes["shares"], axes["wishes"]
    encoded, x, y = encode(example), 0.0, 0.0
    for id, learned in zip(*encoded, strict=True):
        name = tokenizer.decode([id])
        shown = name.replace("\n", "\\n").replace(" ", "\u00b7")
        if x + len(shown) > 140 or (id == START and x > 0):
            x, y = 0.0, y + 1
        box = {"boxstyle": "round,pad=0.25", "facecolor": "C1" if learned else "none", "edgecolor": lesson.grey}
        ink = lesson.paper if learned else lesson.ink
        above.text(x, -y, shown, family="monospace", fontsize=8, va="center", color=ink, bbox=box)
        x += len(shown) + 2
    above.set(xlim=(-1, 150), ylim=(-y - 0.6, 0.6), title="the loss mask: filled tokens are learned, others only read")
    above.set_axis_off()
    names = [*before, "exact answers at random"]
    places = np.arange(len(names))[::-1]
    left.barh(places + 0.18, [*before.values(), 0], height=0.36, color=lesson.grey, label="before")
    left.barh(places - 0.18, [*after.values(), at_random], height=0.36, color="C0", label="after")
    for place, share in zip(places, [*after.values(), at_random], strict=True):
        left.text(share + 0.01, place - 0.18, f"{share:.0%}", va="center", fontsize=8)
    left.set_yticks(places, names)
    left.set(xlim=(0, 1.12), xlabel="share of held-out conversations", title="before and after")
    left.legend(loc="lower right")
    places = np.arange(len(WISHES))[::-1]
    series = {
        "before": (lesson.grey, [before_by_wish[wish][0] for wish in WISHES]),
        "after": ("C0", [after_by_wish[wish][0] for wish in WISHES]),
        "after, without the message": ("C1", [after_by_wish[wish][1] for wish in WISHES]),
    }
    for (name, (colour, bars)), shift in zip(series.items(), (0.27, 0, -0.27), strict=True):
        right.barh(places + shift, bars, height=0.27, color=colour, label=name)
    right.set_yticks(places, WISHES)
    right.set(xlim=(0, 1.12), xlabel="share of those with such a system message", title="obeys, where it asks for")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=3)


lesson.picture(
    "chat",
    draw,
    alt="Above: the tokens of a conversation in boxes; those of the assistant, and the mark that ends its turn, are "
    "filled: these are learned. Left: bars before and after fine-tuning: stopping, obeying, obeying without being "
    "told, exact answers, and exact answers at random. Right: obeying for each wish of a system message, before, "
    "after, and after without the message.",
    size=(11, 5.6),
)

# %% [markdown]
# # What it learned, and what it did not
#
# The second table says which wishes are learned. Read it by its last two columns: only what lies between them is
# obedience. Where both are high, the model would have answered so anyway: an answer in which no name occurs breaks no
# rule about names.
#
# To stop and to take the form that was asked for is learned soon: the form is the same in all conversations. The
# right *content* comes much later: to say who has the ball the model must look it up in the question, and to add it
# must know sums. A model that answers fluently, in the form that was wanted, and wrongly, is what one gets in
# between. So measure the two apart. `minillm sft` does the same for longer, and with longer conversations.
#
# # Exercises
#
# 1. The text of a conversation in ChatML, and the announcement of the assistant's turn where it is to answer.
# 2. The targets of a conversation, from its ids and its mask: -100 where nothing is asked.

# %%


def check_chatml(f):
    """With and without the announcement."""
    hello = [{"role": "user", "content": "Hello!"}]
    same(f(hello, False), "<|im_start|>user\nHello!<|im_end|>\n", "one message")
    same(f(hello, True), "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", "one message, to be answered")
    two = [{"role": "system", "content": "Be brief."}, *hello]
    same(f(two, False), "<|im_start|>system\nBe brief.<|im_end|>\n" + f(hello, False), "two messages")


@lesson.exercise(check_chatml)
def chatml(messages, answer):
    """The text; answer: whether the assistant is to speak next."""
    ...


def check_masked_targets(f):
    """What the library's batch has."""
    ids, mask = [5, 6, 7, 2, 8], [False, False, True, True, False]
    close(f(ids, mask), [-100, 7, 2, -100], "ids [5, 6, 7, 2, 8], of which 7 and 2 are the assistant's")
    close(f([1, 2], [True, True]), [2], "the first token is never a target: nothing stands before it")


@lesson.exercise(check_masked_targets)
def masked_targets(ids, mask):
    """(T + 1,) ids and mask -> (T,) targets, y[t] being the token after ids[t]."""
    ...


# %%
lesson.end(
    changed="conversations: template, mask, SFT",
    parameters=model.num_parameters(),
    loss=result.loss,
    floor=floor,
    read=[
        "minillm/chat/", "minillm/data/chat_grammar.py", "minillm/data/chat_corpus.py", "minillm/data/tasks.py",
        "minillm/tokenizer/chat_format.py", "minillm/cli/sft.py", "minillm/data/french.py",
    ],
)  # fmt: skip
