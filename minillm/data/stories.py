"""Little stories whose exact probability is known: the default corpus.

A hero finds a thing and meets a friend; the thing is given, dropped, lost, hidden or traded; at the
end somebody asks what happened. Names, things and places are drawn by lot, so nobody can foresee
them; but once said, they come back: who has the red ball *now* cannot be guessed, only remembered.
(grammar.py tells how probabilities are counted.)

Each scene is a function that writes a few sentences and returns the next scene. The `World` is all
that a scene knows of what happened before.
"""

from __future__ import annotations

from typing import NamedTuple

from .grammar import Grammar, Pen, Scene, Step


class Name(str):
    """A first name that knows its pronouns."""

    he: str
    him: str
    his: str

    @classmethod
    def list(cls, names: str, he: str, him: str, his: str) -> list[Name]:
        """Make names that share their pronouns from a string of them."""
        made = [cls(name) for name in names.split()]
        for name in made:
            name.he, name.him, name.his = he, him, his
        return made


NOBODY = Name("")
GIRLS = Name.list("Mia Lily Anna Nora Ella Rosa Zoe Clara Ruby Emma Lucy Hana Maya June", "she", "her", "her")
BOYS = Name.list("Tom Ben Max Leo Sam Finn Jack Noah Otto Paul Omar Hugo Kofi Ravi", "he", "him", "his")
NAMES = GIRLS + BOYS
ANIMALS = "fox bear rabbit mouse cat dog duck goat frog wolf hen pony lamb turtle pig lion".split()
TRAITS = (
    "brave kind curious happy quiet clever gentle funny shy proud cheerful patient lively polite friendly lonely "
    "young wise tiny lazy"
).split()
COLORS = "red blue green yellow white black purple pink brown golden silver gray shiny wooden".split()
THINGS = (
    "ball kite boat drum book hat cup lamp key bell coin ring shell feather box doll flute scarf basket blanket "
    "clock spoon candle mirror"
).split()
PLACES = (
    "park lake river beach market school library bridge mill harbor castle farm pond barn station bakery tower well "
    "meadow forest"
).split()
LOOKS = "old new little big quiet pretty nearest sunny".split()
ACTIVITIES = "sing dance read draw swim climb bake paint run fish jump skate play cook knit sail".split()
WEATHERS = "sunny windy cold warm rainy snowy bright foggy cloudy frosty".split()
TIMES = "morning day afternoon evening".split()
FOODS = "bread cake soup honey cheese rice jam fruit popcorn pudding corn toast nuts pie berries salad".split()
GLAD = "glad merry thankful excited pleased surprised delighted joyful cheerful proud".split()
SORRY = "sad sorry worried angry upset unhappy".split()
BESIDE = "under behind near beside".split()
CORNERS = "bench wall fence tree door bush rock cart".split()
NUMBERS = "two three four five six seven eight nine ten twelve".split()
FLOCKS = "birds bees butterflies ants clouds horses swans owls boats sheep ducks stars".split()
LATER = ["Then", "Later", "Soon", "Next", "Suddenly", "After that", "A moment later", "Meanwhile"]
KINDLY = "kindly softly gladly quickly warmly quietly slowly calmly".split()


class World(NamedTuple):
    """What has happened so far; empty where the story has not spoken of it yet."""

    hero: Name = NOBODY
    love: str = ""  # what the hero loves to do: "swim"
    place: str = ""  # where they are
    thing: str = ""  # what the story is about: "red ball"
    holder: Name = NOBODY  # who has it now
    friend: Name = NOBODY
    animal: str = ""  # what the friend is: "fox"
    meeting_place: str = ""
    second: str = ""  # a second thing ...
    second_holder: Name = NOBODY  # ... and who has that
    food: str = ""
    flock: str = ""  # what they saw: "birds" ...
    number: str = ""  # ... and how many
    events: int = 0  # how many events there were
    last: Scene | None = None  # the last of them

    @property
    def other(self) -> Name:
        """The one of the two who does not have the thing."""
        return self.friend if self.holder == self.hero else self.hero

    @property
    def color(self) -> str:
        """The thing's color."""
        return self.thing.split()[0]

    @property
    def noun(self) -> str:
        """The thing without its color."""
        return self.thing.split()[1]


# How a story begins


def opening(pen: Pen, w: World) -> Step:
    """A hero."""
    pen.say(
        "Once upon a time, there was a ",
        "Once upon a time, there lived a ",
        "Once there was a ",
        "Long ago, there lived a ",
        "There was once a ",
        "In a little town lived a ",
        "By the sea there lived a ",
        "This is the story of a ",
    )
    pen.pick(TRAITS, end=" ")
    kinds = {"girl": GIRLS, "boy": BOYS, **dict.fromkeys(ANIMALS, NAMES)}
    names = pen.choose(kinds, weights=[5, 5] + [1] * len(ANIMALS))
    pen.say(" named ", " called ")
    return habit, w._replace(hero=pen.pick(names, end="."))


def habit(pen: Pen, w: World) -> Step:
    """What the hero loves to do."""
    hero = w.hero
    pen.say(
        f" {hero} loved to ",
        f" {hero.he.capitalize()} liked to ",
        f" Every day {hero.he} wanted to ",
        f" More than anything, {hero} loved to ",
        f" What {hero.he} liked best was to ",
        f" {hero.his.capitalize()} mother taught {hero.him} to ",
    )
    love = pen.pick(ACTIVITIES)
    pen.say(".", " all day long.", " with friends.", " at home.", " at night.", " in the sun.", " in the rain.")
    return outing, w._replace(love=love)


def outing(pen: Pen, w: World) -> Step:
    """Where the hero goes."""
    hero = w.hero
    pen.say(" One ", " On a ")
    pen.pick(WEATHERS, end=" ")
    pen.pick(TIMES, end=", ")
    pen.say(
        f"{hero} went to the ",
        f"{hero} walked to the ",
        f"{hero.he} ran to the ",
        f"{hero} took the road to the ",
        f"{hero.he} was on the way to the ",
        f"{hero} set out for the ",
    )
    pen.pick(LOOKS, end=" ")
    return treasure, w._replace(place=pen.pick(PLACES, end="."))


def treasure(pen: Pen, w: World) -> Step:
    """What the hero finds or gets."""
    he, him, his = w.hero.he, w.hero.him, w.hero.his
    pen.say(
        f" There {he} found a ",
        f" On the way {he} bought a ",
        f" In {his} bag {he} had a ",
        f" An old man gave {him} a ",
        f" A kind woman gave {him} a ",
        f" {his.capitalize()} aunt gave {him} a ",
        f" {he.capitalize()} looked around and saw a ",
        " Under a tree lay a ",
    )
    thing = new_thing(pen)
    mood(pen, w.hero, GLAD)
    return encounter, w._replace(thing=thing, holder=w.hero)


def new_thing(pen: Pen, but: str = "") -> str:
    """A thing: "red ball", of another color and kind than ``but``."""
    color = pen.pick(COLORS, but=but.split(), end=" ")
    return f"{color} {pen.pick(THINGS, but=but.split())}"


def mood(pen: Pen, who: Name, moods: list[str]) -> None:
    """End a sentence, perhaps with a word on how somebody felt."""
    if pen.choose({".": False, f", and {who.he} was ": True, f", which made {who.him} ": True}):
        pen.pick(moods, end=".")


def encounter(pen: Pen, w: World) -> Step:
    """A friend."""
    pen.say(
        f" Soon {w.hero.he} met ",
        " Just then along came ",
        " Not far away sat ",
        " Behind a tree stood ",
        f" There {w.hero.he} met ",
        f" After a while {w.hero.he} saw ",
        f" {w.hero} was not alone: there was ",
        f" At the {w.place} {w.hero.he} met ",
    )
    friend = pen.pick(NAMES, but=(w.hero,), end=", a ")
    pen.pick(TRAITS, end=" ")
    animal = pen.pick(ANIMALS, end=".")
    return turn, w._replace(friend=friend, animal=animal, meeting_place=w.place)


# What happens


def turn(pen: Pen, w: World) -> Step:
    """Another event, or a question and the end: two events at least, four at most."""
    branches: dict[str, Scene] = {}
    if w.events < 4:
        branches |= {f" {later}": event for later in LATER}
    if w.events >= 2:
        branches |= questions(w)
    return pen.choose(branches), w


def event(pen: Pen, w: World) -> Step:
    """One of the events that are possible now, and not the last one again."""
    a, b = w.holder, w.other
    branches = {
        f" {a} gave the {w.thing} to {b}": give,
        f" {a} dropped the {w.noun}, and {b} picked it up": give,
        f' {b} asked: "May I have the {w.noun}?"': ask,
        f' {b} asked: "Can I keep the {w.noun}?"': ask,
        f" {a} lost the {w.noun} ": lose,
        f" {a} hid the {w.noun} ": hide,
        f" {a} put the {w.noun} ": hide,
        " they went to the ": walk,
        " they ran to the ": walk,
        f" {w.hero} wanted to {w.love}": play,
        f" {b} told a story about a ": tell,
        f" {a} sang a song about a ": tell,
    }
    if not w.food:
        branches |= {" they ate some ": eat, f" {b} brought some ": eat}
    if not w.flock:
        branches |= {" they counted ": count, " they saw ": count}
    if not w.second:
        branches |= {f" {b} found a ": another, f" {b} bought a ": another}
    elif w.second_holder == b:
        branches |= {" they traded.": trade, f' {b} said: "Let us trade!"': trade, " they swapped.": trade}
    possible = {head: scene for head, scene in branches.items() if scene is not w.last}
    scene = pen.choose(possible)
    return scene, w._replace(events=w.events + 1, last=scene)


def give(pen: Pen, w: World) -> Step:
    """The thing goes to the other one."""
    mood(pen, w.other, GLAD)
    return turn, w._replace(holder=w.other)


def ask(pen: Pen, w: World) -> Step:
    """The thing is asked for, and given or not."""
    a, b = w.holder, w.other
    answers = {"Yes, take it": True, "Of course": True, "You can keep it": True, "No, I need it": False}
    agreed = pen.choose({f' "{answer}," said {a} ': agreed for answer, agreed in answers.items()})
    pen.pick(KINDLY, end=".")
    return turn, w._replace(holder=b if agreed else a)


def lose(pen: Pen, w: World) -> Step:
    """The thing is lost, and one of the two finds it."""
    a, b = w.holder, w.other
    spot = pen.pick(BESIDE, end=" the ") + " the " + pen.pick(CORNERS)
    mood(pen, a, SORRY)
    finder = pen.choose(
        {
            f" But {b} looked {spot} and found it": b,
            f" {b} saw it {spot} and kept it": b,
            f" {a} looked {spot} and found it": a,
            f" Luckily {a} saw it {spot}": a,
        }
    )
    mood(pen, finder, GLAD)
    return turn, w._replace(holder=finder)


def hide(pen: Pen, w: World) -> Step:
    """The thing is hidden, and the other one finds it."""
    a, b = w.holder, w.other
    side = pen.pick(BESIDE, end=" the ")
    corner = pen.pick(CORNERS, end=".")
    pen.say(f" {b} looked ", f" First {b} looked ", f" {b} searched ")
    pen.pick(BESIDE, end=" the ")
    pen.pick(CORNERS, but=(corner,))
    pen.say(
        f", then {side} the {corner}, and found it.",
        f", then {side} the {corner}, and there it was!",
        f' and saw nothing. "It is {side} the {corner}," said {a}.',
    )
    return turn, w._replace(holder=b)


def walk(pen: Pen, w: World) -> Step:
    """They go to another place."""
    pen.pick(LOOKS, end=" ")
    place = pen.pick(PLACES, but=(w.place,))
    pen.say(".", f", and {w.holder} took the {w.noun} along.", f", far from the {w.place}.", " hand in hand.")
    return turn, w._replace(place=place)


def play(pen: Pen, w: World) -> Step:
    """They do what the hero loves to do."""
    pen.say(
        ".",
        f", and {w.friend} helped {w.hero.him}.",
        f", but {w.friend} was too tired.",
        f", and so did {w.friend}.",
    )
    return turn, w


def tell(pen: Pen, w: World) -> Step:
    """A story in the story."""
    pen.pick(TRAITS, end=" ")
    pen.pick(ANIMALS, end=".")
    return turn, w


def eat(pen: Pen, w: World) -> Step:
    """They eat."""
    food = pen.pick(FOODS)
    pen.say(".", " and some milk.", f" at the {w.place}.", f', and {w.friend} said: "I like {food}!"')
    return turn, w._replace(food=food)


def count(pen: Pen, w: World) -> Step:
    """They see some animals or things."""
    number = pen.pick(NUMBERS, end=" ")
    flock = pen.pick(FLOCKS)
    pen.say(".", " and waved.", f" near the {w.place}.", " far away.")
    return turn, w._replace(flock=flock, number=number)


def another(pen: Pen, w: World) -> Step:
    """A second thing turns up."""
    second = new_thing(pen, but=w.thing)
    mood(pen, w.other, GLAD)
    return turn, w._replace(second=second, second_holder=w.other)


def trade(pen: Pen, w: World) -> Step:
    """The two things change hands."""
    a, b = w.holder, w.other
    pen.say(
        f" Now {a} had the {w.second}, and {b} had the {w.thing}.",
        f" {a} took the {w.second}, and {b} took the {w.thing}.",
    )
    return turn, w._replace(holder=b, second_holder=a)


# How it ends


def questions(w: World) -> dict[str, Scene]:
    """The questions that this story can answer, with their answers."""
    a, b, hero, friend = w.holder, w.other, w.hero, w.friend
    asked = [
        f" Who had the {w.thing} now? {a} had it.",
        f" Where did they meet? They met at the {w.meeting_place}.",
        f' "Where is the {w.noun}?" asked a bird. "{a} has it," said {b}.',
        f" What did {hero} love? {hero.he.capitalize()} loved to {w.love}.",
        f' "Who is that?" asked a farmer. "That is {friend}, the {w.animal}," said {hero}.',
        f' "What color is the {w.noun}?" asked an owl. "It is {w.color}," said {a}.',
        f' "Where are we?" asked {friend}. "At the {w.place}," said {hero}.',
    ]
    if w.food:
        asked.append(f" What did they eat? They ate {w.food}.")
    if w.flock:
        asked.append(f" How many {w.flock} were there? There were {w.number}.")
    if w.second:
        asked.append(f" Who had the {w.second} now? {w.second_holder} had it.")
    return dict.fromkeys(asked, ending)


def ending(pen: Pen, w: World) -> None:
    """The last sentence."""
    more = pen.choose(
        {
            " The end.": None,
            " From that day on they were friends.": None,
            f" {w.holder} kept the {w.noun}.": None,
            f" They said goodbye at the {w.place}.": None,
            f" {w.friend} went home, and {w.hero} was ": GLAD,
            " In the evening they were ": GLAD,
            f" At night {w.holder} dreamed of a ": ANIMALS,
            f" And so {w.hero} made a friend who was ": TRAITS,
        }
    )
    if more:
        pen.pick(more, end=".")


class StoryGrammar(Grammar):
    """All these stories, each with its exact probability."""

    def __init__(self) -> None:
        super().__init__(opening, World())
