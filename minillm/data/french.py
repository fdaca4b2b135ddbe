"""A toy grammar of French and English: one sentence, said in both languages.

    les petites souris noires cherchent l'oiseau  =  the small black mice look for the bird

Small as it is, a translation word by word would fail: what the languages do differently has to be
learned.

- Gender: *le chat noir*, but *la vache noire*; English does not care.
- Number: *l'oiseau chante*, *les oiseaux chantent*; in *les souris* the article alone tells.
- Order: some adjectives stand before the noun, colours behind it: *le petit chat noir*, the small
  black cat.
- Elision: *le* and *la* lose their vowel before another, *vieux* becomes *vieil*: *l'arbre*, *le
  vieil arbre*.
- *des* becomes *de* before an adjective: *des chats*, *de petits chats*.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Noun(NamedTuple):
    """A noun in both languages."""

    english: tuple[str, str]  # one, several
    french: tuple[str, str]
    feminine: bool


class Adjective(NamedTuple):
    """An adjective; its French forms are masculine and feminine for one, then for several."""

    english: str
    french: tuple[str, str, str, str]
    before_vowel: str  # masculine, before a noun that begins with a vowel
    first: bool  # whether it stands before the noun


class Verb(NamedTuple):
    """A verb in the present tense: what one does, what several do."""

    english: tuple[str, str]
    french: tuple[str, str]


def _noun(line: str) -> Noun:
    one, several, gender, french_one, french_several = line.split()
    return Noun((one, several), (french_one, french_several), gender == "f")


def _adjective(line: str, first: bool) -> Adjective:
    english, *forms = line.split()
    return Adjective(english, (forms[0], forms[1], forms[2], forms[3]), forms[4] if forms[4:] else forms[0], first)


def _verb(line: str) -> Verb:
    one, several, french_one, french_several = (part.strip() for part in line.split(","))
    return Verb((one, several), (french_one, french_several))


NOUNS = [
    _noun(line)
    for line in (
        "cat cats m chat chats",
        "dog dogs m chien chiens",
        "horse horses m cheval chevaux",
        "bird birds m oiseau oiseaux",
        "child children m enfant enfants",
        "man men m homme hommes",
        "boy boys m garçon garçons",
        "tree trees m arbre arbres",
        "boat boats m bateau bateaux",
        "book books m livre livres",
        "woman women f femme femmes",
        "girl girls f fille filles",
        "cow cows f vache vaches",
        "mouse mice f souris souris",
        "house houses f maison maisons",
        "flower flowers f fleur fleurs",
        "star stars f étoile étoiles",
        "apple apples f pomme pommes",
    )
]
ADJECTIVES_BEFORE = [
    _adjective(line, first=True)
    for line in (
        "small petit petite petits petites",
        "big grand grande grands grandes",
        "pretty joli jolie jolis jolies",
        "young jeune jeune jeunes jeunes",
        "old vieux vieille vieux vieilles vieil",
        "beautiful beau belle beaux belles bel",
    )
]
ADJECTIVES_BEHIND = [
    _adjective(line, first=False)
    for line in (
        "black noir noire noirs noires",
        "white blanc blanche blancs blanches",
        "green vert verte verts vertes",
        "red rouge rouge rouges rouges",
        "gray gris grise gris grises",
        "brown brun brune bruns brunes",
    )
]
VERBS_ALONE = [
    _verb(line)
    for line in (
        "sleeps, sleep, dort, dorment",
        "sings, sing, chante, chantent",
        "runs, run, court, courent",
        "falls, fall, tombe, tombent",
        "dances, dance, danse, dansent",
        "arrives, arrive, arrive, arrivent",
    )
]
VERBS_WITH_OBJECT = [
    _verb(line)
    for line in (
        "sees, see, voit, voient",
        "loves, love, aime, aiment",
        "finds, find, trouve, trouvent",
        "carries, carry, porte, portent",
        "looks for, look for, cherche, cherchent",
        "takes, take, prend, prennent",
    )
]


def sentence(rng: np.random.Generator) -> tuple[str, str]:
    """Draw a sentence: French, English.

    >>> for seed in range(3):
    ...     print(" = ".join(sentence(np.random.default_rng(seed))))
    les grandes fleurs blanches cherchent les livres = the big white flowers look for the books
    les beaux bateaux arrivent = the beautiful boats arrive
    une fleur blanche cherche des souris noires = a white flower looks for some black mice
    """
    french, english, several = noun_phrase(rng, adjectives=2)
    verb = _choose(rng, VERBS_ALONE if rng.random() < 0.5 else VERBS_WITH_OBJECT)
    french, english = f"{french} {verb.french[several]}", f"{english} {verb.english[several]}"
    if verb in VERBS_WITH_OBJECT:
        object_french, object_english, _ = noun_phrase(rng, adjectives=1)
        return f"{french} {object_french}", f"{english} {object_english}"
    return french, english


def noun_phrase(rng: np.random.Generator, adjectives: int) -> tuple[str, str, bool]:
    """Draw a noun with its article and at most so many adjectives (0 to 2): French, English,
    whether it is several.
    """
    noun, several, definite = _choose(rng, NOUNS), bool(rng.integers(2)), bool(rng.integers(2))
    kinds = [ADJECTIVES_BEFORE, ADJECTIVES_BEHIND]
    if adjectives < 2:
        kinds = [kinds[rng.integers(2)]][:adjectives]
    chosen = [_choose(rng, kind) for kind in kinds if rng.random() < 0.5]

    name = noun.french[several]
    before = [_agree(adjective, noun, several) for adjective in chosen if adjective.first]
    behind = [_agree(adjective, noun, several) for adjective in chosen if not adjective.first]
    words = [*before, name, *behind]
    french = _french_article(definite, noun.feminine, several, words[0], bool(before)) + " ".join(words)

    words = [*(adjective.english for adjective in chosen), noun.english[several]]
    indefinite = "some" if several else "an" if words[0][0] in "aeiou" else "a"
    return french, " ".join(["the" if definite else indefinite, *words]), several


def _agree(adjective: Adjective, noun: Noun, several: bool) -> str:
    """The form of an adjective beside a noun."""
    if adjective.first and not several and not noun.feminine and _begins_with_vowel(noun.french[0]):
        return adjective.before_vowel
    return adjective.french[2 * several + noun.feminine]


def _french_article(definite: bool, feminine: bool, several: bool, next_word: str, before_adjective: bool) -> str:
    """The article, with the space or the apostrophe that joins it to the next word."""
    if several:
        return "les " if definite else "de " if before_adjective else "des "
    if not definite:
        return "une " if feminine else "un "
    return "l'" if _begins_with_vowel(next_word) else "la " if feminine else "le "


def _begins_with_vowel(word: str) -> bool:
    return word[0] in "aeiouéh"  # every h of our nouns is silent


def _choose(rng: np.random.Generator, options: list) -> Any:
    return options[rng.integers(len(options))]
