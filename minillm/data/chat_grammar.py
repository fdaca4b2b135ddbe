"""Small conversations whose exact probability is known, and whose answers follow from them.

    system: Your name is Otto. Use one word.
    user: Hello!
    assistant: Hello.
    user: Quel est ton nom ?
    assistant: Otto.
    end

What is asked is drawn by lot; what is answered can be worked out: who has the ball (stories), what
is 4 plus 5, who is second in a list, what is your name. The system message, if there is one, really
changes the answer: its language, capitals, a single word, a name. Only a goodbye leaves a choice.
So log p(text) comes from grammar.py, and hardly anything of it stands in the assistant's lines.

One scene writes one message. The `World` is what later messages must know of earlier ones.
"""

from __future__ import annotations

import functools
from itertools import product
from typing import NamedTuple

from .grammar import Grammar, Pen, Scene, Step
from .stories import NAMES

ENGLISH, FRENCH = "en", "fr"
MOST_TURNS = 3
ME = "Mini"  # the assistant's name where nobody gives it one

# Where one can be: the place in the stories, and in French with its preposition and without.
PLACES = {
    "park": ("au parc", "parc"),
    "lake": ("au lac", "lac"),
    "beach": ("sur la plage", "plage"),
    "market": ("au marché", "marché"),
    "farm": ("à la ferme", "ferme"),
    "bridge": ("sur le pont", "pont"),
    "school": ("à l'école", "école"),
    "forest": ("dans la forêt", "forêt"),
}
THINGS = {
    ENGLISH: "ball book hat drum boat basket".split(),
    FRENCH: "ballon livre chapeau tambour bateau panier".split(),
}
COLORS = {ENGLISH: "red blue green yellow white black".split(), FRENCH: "rouge bleu vert jaune blanc noir".split()}
ORDINALS = {ENGLISH: ("first", "second", "third"), FRENCH: ("premier", "deuxième", "troisième")}
_ENGLISH_WORDS = "has it is at the my name i am hello goodbye take care see you soon minus".split()
_FRENCH_WORDS = "l a est mon nom je suis bonjour au revoir adieu bonne journée bientôt font moins en".split()
WORDS = {  # of the answers: those that tell the language
    ENGLISH: {*_ENGLISH_WORDS, *ORDINALS[ENGLISH], *PLACES},
    FRENCH: {*_FRENCH_WORDS, *ORDINALS[FRENCH], *(bare for _, bare in PLACES.values())},
}
DIGITS = range(10)
PROBLEMS = {f"{a} plus {b}": a + b for a, b in product(DIGITS, DIGITS) if a + b in DIGITS}
PROBLEMS |= {f"{a} minus {b}": a - b for a, b in product(DIGITS, DIGITS) if b <= a}


class Style(NamedTuple):
    """What a system message asks for."""

    name: str = ""  # the assistant's; empty: ME
    language: str = ""  # empty: the user's
    capitals: bool = False
    one_word: bool = False

    def written(self, sentence: str, word: str) -> str:
        """An answer in this style: a sentence, or the one word that matters in it."""
        text = word if self.one_word else sentence
        return text.upper() if self.capitals else text


# How a system message says it: after "Your name is ..." and alone.
_LANGUAGES = {
    "Speak English.": ENGLISH,
    "Answer in English.": ENGLISH,
    "Speak French.": FRENCH,
    "Answer in French.": FRENCH,
}
_CAPITALS = ("Use capital letters.", "Write in capitals.")
_ONE_WORD = ("Use one word.", "Answer with one word.")
WISHES = {
    " ".join(filter(None, words)): Style("", _LANGUAGES.get(words[0], ""), bool(words[1]), bool(words[2]))
    for words in product(("", *_LANGUAGES), ("", *_CAPITALS), ("", *_ONE_WORD))
}
CALLED = ("Your name is ", "You are called ")


class World(NamedTuple):
    """What has been said."""

    style: Style = Style()
    language: str = ENGLISH  # of the last question
    turns: int = 0
    holder: str = ""  # who has the thing of the story, if there was one
    friends: tuple[str, ...] = ()  # the list, if there was one
    last: Scene | None = None

    @property
    def me(self) -> str:
        """The assistant's name."""
        return self.style.name or ME

    def in_language(self, english: str, french: str) -> str:
        """What is said in the language of the answer."""
        return french if (self.style.language or self.language) == FRENCH else english


# ---- how a conversation begins -------------------------------------------------------------------


def opening(pen: Pen, w: World) -> Step:
    """A system message, or none."""
    style = pen.choose(_HEADS, _HEAD_WEIGHTS)
    if style is None:
        name = pen.pick(NAMES)
        style = pen.choose(_ENDS, _END_WEIGHTS)._replace(name=name)
    if style != Style():
        pen.say("user: ")
    return question, w._replace(style=style)


def _weight(style: Style) -> float:
    """The more a message asks for, the more ways there are to say it: all demands are as likely."""
    return 4.0 / (2 ** (bool(style.language) + style.capitals + style.one_word))


_ALONE = {f"system: {text}\n": style for text, style in WISHES.items() if text}
_HEADS: dict[str, Style | None] = {
    "user: ": Style(),
    **dict.fromkeys((f"system: {c}" for c in CALLED), None),
    **_ALONE,
}
_HEAD_WEIGHTS = [6.0] + [6.0] * len(CALLED) + [_weight(style) for style in _ALONE.values()]
_ENDS = {f".{' ' * bool(text)}{text}\n": style for text, style in WISHES.items()}  # after a name
_END_WEIGHTS = [_weight(style) for style in _ENDS.values()]


def question(pen: Pen, w: World) -> Step:
    """What the user wants, in one of two languages."""
    scene, language = pen.choose(*_possible(bool(w.holder), bool(w.friends), w.last))
    return scene, w._replace(language=language, turns=w.turns + 1, last=scene)


@functools.cache
def _possible(story: bool, friends: bool, last: Scene | None) -> tuple[dict[str, tuple[Scene, str]], list[float]]:
    """How a question may begin, with its scene and language, and how often; none is asked twice."""
    asked: dict[str, tuple[Scene, str]] = {}
    weights: list[float] = []
    for english, french, scene, weight in (*QUESTIONS, *[OF_A_STORY] * story, *[OF_A_LIST] * friends):
        if scene is not last:
            asked |= dict.fromkeys(english, (scene, ENGLISH)) | dict.fromkeys(french, (scene, FRENCH))
            weights += [weight] * (len(english) + len(french))
    return asked, weights


# ---- questions and their answers -----------------------------------------------------------------


def answer(pen: Pen, w: World, english: tuple[str, str], french: tuple[str, str]) -> Step:
    """The only right answer: a sentence and its one word, in each language."""
    pen.say("\nassistant: " + w.style.written(*(french if w.in_language("", FRENCH) else english)))
    return after, w


def after(pen: Pen, w: World) -> Step | None:
    """Another question, or the end."""
    if w.turns == MOST_TURNS:
        pen.say("\nend")
        return None
    return pen.choose({"\nend": None, "\nuser: ": (question, w)})


def greeting(pen: Pen, w: World) -> Step:
    """Hello."""
    return answer(pen, w, (f"Hello! I am {w.me}.", "Hello."), (f"Bonjour ! Je suis {w.me}.", "Bonjour."))


def name(pen: Pen, w: World) -> Step:
    """Who are you?"""
    return answer(pen, w, (f"My name is {w.me}.", f"{w.me}."), (f"Mon nom est {w.me}.", f"{w.me}."))


def story(pen: Pen, w: World) -> Step:
    """Who has the thing? It may be given away once."""
    first = pen.pick(NAMES)
    if w.language == FRENCH:
        pen.say(" a le ")
        pen.pick(THINGS[FRENCH], end=" ")
        pen.pick(COLORS[FRENCH], end=".")
    else:
        pen.say(" has the ")
        pen.pick(COLORS[ENGLISH], end=" ")
        pen.pick(THINGS[ENGLISH], end=".")
    gives, asks = (
        (f" {first} le donne à ", " Qui l'a ?") if w.language == FRENCH else (f" {first} gives it to ", " Who has it?")
    )
    given = pen.choose({gives: True, asks: False})
    return holder(pen, w._replace(holder=pen.pick(NAMES, but=(first,), end="." + asks) if given else first))


def passed_on(pen: Pen, w: World) -> Step:
    """And who has it now?"""
    gives, asks = ("le donne à", "Qui l'a ?") if w.language == FRENCH else ("gives it to", "Who has it?")
    pen.say(f"{w.holder} {gives} ")
    return holder(pen, w._replace(holder=pen.pick(NAMES, but=(w.holder,), end=f". {asks}")))


def holder(pen: Pen, w: World) -> Step:
    """Who has it."""
    return answer(pen, w, (f"{w.holder} has it.", f"{w.holder}."), (f"{w.holder} l'a.", f"{w.holder}."))


def place(pen: Pen, w: World) -> Step:
    """Where is somebody? Two are there, one is asked for."""
    french = w.language == FRENCH
    shown = {(french_place if french else f"at the {here}"): here for here, (french_place, _) in PLACES.items()}
    joint, verb, asks, mark = (" et ", " sont ", "Où est ", " ?") if french else (" and ", " are ", "Where is ", "?")
    a = pen.pick(NAMES, end=joint)
    b = pen.pick(NAMES, but=(a,), end=verb)
    here = shown[pen.pick([*shown], end=f". {asks}")]
    asked = pen.pick((a, b), end=mark)
    there, bare = PLACES[here]
    sentences = f"{asked} is at the {here}.", f"{asked} est {there}."
    return answer(pen, w, (sentences[0], f"{here.capitalize()}."), (sentences[1], f"{bare.capitalize()}."))


def arithmetic(pen: Pen, w: World) -> Step:
    """What is 4 plus 5? The result has one digit."""
    french = w.language == FRENCH
    shown = {(_in_french(problem) if french else problem): problem for problem in PROBLEMS}
    problem = shown[pen.pick([*shown], end=" ?" if french else "?")]
    word = f"{PROBLEMS[problem]}."
    return answer(pen, w, (f"{problem} is {word}", word), (f"{_in_french(problem)} font {word}", word))


def _in_french(problem: str) -> str:
    return problem.replace("minus", "moins")


def friends(pen: Pen, w: World) -> Step:
    """Who is second in the list?"""
    joint, asks = (" et ", "Qui est en ") if w.language == FRENCH else (" and ", "Who is ")
    a = pen.pick(NAMES, end=", ")
    b = pen.pick(NAMES, but=(a,), end=joint)
    c = pen.pick(NAMES, but=(a, b), end=f". {asks}")
    return place_in_list(pen, w._replace(friends=(a, b, c)))


def place_in_list(pen: Pen, w: World) -> Step:
    """Who is at this place?"""
    words = ORDINALS[w.language]
    i = words.index(pen.pick(words, end=" ?" if w.language == FRENCH else "?"))
    who, english, french = w.friends[i], ORDINALS[ENGLISH][i], ORDINALS[FRENCH][i]
    return answer(pen, w, (f"{who} is {english}.", f"{who}."), (f"{who} est en {french}.", f"{who}."))


def goodbye(pen: Pen, w: World) -> None:
    """The one answer that leaves a choice."""
    words = w.in_language("Goodbye!", "Au revoir !"), w.in_language("Goodbye.", "Adieu.")
    wishes = w.in_language(" Take care.| See you soon.", " Bonne journée.| À bientôt.").split("|")
    pen.say(*dict.fromkeys("\nassistant: " + w.style.written(words[0] + wish, words[1]) for wish in wishes))
    pen.say("\nend")


# How each begins in English and in French, and how often it is asked: the harder, the more often.
Question = tuple[tuple[str, ...], tuple[str, ...], Scene, float]
QUESTIONS: tuple[Question, ...] = (
    (("Hello!", "Good morning!"), ("Bonjour !", "Salut !"), greeting, 1.0),
    (("What is your name?", "Who are you?"), ("Quel est ton nom ?", "Qui es-tu ?"), name, 2.0),
    (("A story: ", "Listen: "), ("Une histoire : ", "Écoute : "), story, 2.0),
    (("Look: ", "Today "), ("Regarde : ", "Aujourd'hui "), place, 3.0),
    (("How much is ", "Count: "), ("Combien font ", "Compte : "), arithmetic, 4.0),
    (("My friends are ", "I know "), ("Mes amis sont ", "Je connais "), friends, 3.0),
    (("Goodbye!", "I must go."), ("Au revoir !", "Je dois partir."), goodbye, 1.0),
)
OF_A_STORY: Question = (("And then ",), ("Et puis ",), passed_on, 4.0)  # once there was one
OF_A_LIST: Question = (("And who is ",), ("Et qui est en ",), place_in_list, 4.0)
KINDS = {scene.__name__: (*english, *french) for english, french, scene, _ in (*QUESTIONS, OF_A_STORY, OF_A_LIST)}


class ChatGrammar(Grammar):
    """All these conversations, each with its exact probability."""

    def __init__(self) -> None:
        super().__init__(opening, World())
