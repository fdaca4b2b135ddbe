"""The chat corpus: exact probabilities, exact answers, styles that change them, combinations that are held out."""

import math
from collections import Counter

import numpy as np
import pytest

from minillm.data import chat_corpus as corpus
from minillm.data.chat_corpus import chance, chat_floor, chats, is_right, messages_of, obeys, style_of, text_of
from minillm.data.chat_grammar import PLACES, PROBLEMS, WISHES, ChatGrammar, Style


@pytest.fixture(scope="module")
def drawn():
    return chats(300, seed=1), chats(150, seed=2, part="test")


def test_the_same_seed_gives_the_same_conversations(drawn):
    assert chats(20, seed=1) == drawn[0][:20] and chats(20, seed=3) != drawn[0][:20]
    assert len({text_of(chat.messages) for chat in drawn[0]}) == 300
    with pytest.raises(ValueError, match="part must be train or test; got 'dev'"):
        chats(1, part="dev")


def test_a_conversation_and_its_text(drawn):
    for chat in drawn[0]:
        text = text_of(chat.messages)
        assert messages_of(text) == chat.messages
        assert ChatGrammar().logprob(text) == pytest.approx(chat.logprob)
        roles = [message["role"] for message in chat.messages if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and 1 <= len(roles) // 2 <= 3


def test_the_entropy_is_the_mean_of_what_is_drawn():
    rng = np.random.default_rng(0)
    grammar = ChatGrammar()
    nats = [-grammar.sample(rng).logprob for _ in range(1500)]
    assert abs(np.mean(nats) - grammar.entropy()) < 4 * np.std(nats) / math.sqrt(len(nats))


def test_what_is_drawn_are_the_choices_that_a_reader_finds():
    grammar = ChatGrammar()
    for i in range(50):
        drawn = grammar.drawn(np.random.default_rng((3, i)))
        assert drawn == grammar.choices("".join(choice.text for choice in drawn))


def test_the_floor_counts_the_choices_of_the_assistant_alone():
    texts = [
        f"user: Who are you?\nassistant: My name is Mini.{more}\nend"
        for more in ("", "\nuser: I must go.\nassistant: Goodbye! Take care.")
    ]
    hello, goodbye = (corpus._chat(corpus.messages_of(text), ChatGrammar().choices(text)) for text in texts)
    assert hello.answer_nats == 0 and goodbye.answer_nats == pytest.approx(math.log(2))
    assert chat_floor([hello, goodbye], 10) == pytest.approx(math.log(2) / 10)
    with pytest.raises(ValueError, match="n_targets must be at least 1; got 0"):
        chat_floor([hello], 0)


QUESTIONS = {
    "Hello!": ("Hello! I am Mini.", "Hello."),
    "Quel est ton nom ?": ("Mon nom est Mini.", "Mini."),
    "Listen: Mia has the red ball. Mia gives it to Tom. Who has it?": ("Tom has it.", "Tom."),
    "Regarde : Mia et Tom sont à l'école. Où est Tom ?": ("Tom est à l'école.", "École."),
    "Count: 4 plus 5?": ("4 plus 5 is 9.", "9."),
    "Combien font 7 moins 5 ?": ("7 moins 5 font 2.", "2."),
    "I know Mia, Tom and Ben. Who is second?": ("Tom is second.", "Tom."),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_right_answer_and_no_other(question):
    sentence, word = QUESTIONS[question]
    asked = {"role": "user", "content": question}
    for system, right in (
        (None, sentence),
        ("Use one word.", word),
        ("Write in capitals.", sentence.upper()),
        ("Use capital letters. Answer with one word.", word.upper()),
    ):
        prompt = [asked] if system is None else [{"role": "system", "content": system}, asked]
        assert is_right(prompt, right)
        for wrong in ({sentence, word, sentence.upper(), word.upper()} - {right}) | {"", right[:-1], right + "\nend"}:
            assert not is_right(prompt, wrong)


def test_languages_and_names_change_the_answer():
    def right(system, question, answer):
        return is_right([{"role": "system", "content": system}, {"role": "user", "content": question}], answer)

    assert right("Speak French.", "Hello!", "Bonjour ! Je suis Mini.")
    assert right("Answer in English.", "Qui es-tu ?", "My name is Mini.")
    assert right("You are called Otto. Speak French. Use capital letters.", "Hello!", "BONJOUR ! JE SUIS OTTO.")
    assert right("Your name is Otto.", "Who are you?", "My name is Otto.")
    assert not right("Your name is Otto.", "Who are you?", "My name is Mini.")


def test_what_was_said_before_counts():
    before = [
        {"role": "user", "content": "Listen: Mia has the red ball. Who has it?"},
        {"role": "assistant", "content": "Mia has it."},
        {"role": "user", "content": "And then Mia gives it to Ben. Who has it?"},
    ]
    assert is_right(before, "Ben has it.") and not is_right(before, "Mia has it.")


def test_both_ways_to_say_goodbye_are_right():
    asked = [{"role": "user", "content": "Goodbye!"}]
    assert is_right(asked, "Goodbye! Take care.") and is_right(asked, "Goodbye! See you soon.")
    assert not is_right(asked, "Goodbye!")


def test_what_is_examined_was_never_trained(drawn):
    def pairs(chat):
        style = style_of(chat.messages)._replace(name="")
        return {(style, m["content"]) for m in chat.messages if m["role"] == "assistant"}

    trained = set().union(*map(pairs, chats(1500, seed=5)))
    examined = [(style_of(chat.messages)._replace(name=""), chat.answer) for chat in drawn[1]]
    assert not trained & set(examined)
    assert len({style for style, _ in examined}) >= 10
    known = {answer for _, answer in trained}
    assert np.mean([answer in known for _, answer in examined]) > 0.4  # in another style


def test_an_answer_that_is_held_out_was_seen_in_another_style():
    """All of them: the same capitals and length, with its language asked for or without."""
    styles = {style._replace(name="") for style in WISHES.values()}
    shares = []
    for words in (bare for pair in PLACES.items() for bare in (pair[0], pair[1][1])):
        for style in styles:
            answer = style.written(f"Tom is at the {words}.", f"{words.capitalize()}.")
            others = [style._replace(language=language) for language in ("", "en", "fr")]
            shares.append(corpus._is_held_out(style, answer))
            assert not all(corpus._is_held_out(other, answer) for other in (style, others[not style.language]))
    assert 0.03 < np.mean(shares) < 0.2


def test_a_style_is_read_and_kept(drawn):
    for chat in [*drawn[0], *drawn[1]]:
        assert obeys(style_of(chat.messages), chat.answer)
    styles = Counter(style_of(chat.messages)._replace(name="") for chat in drawn[0])
    assert len(styles) == len(set(WISHES.values())) == 12
    for style, answer in (
        (Style(language="fr"), "Tom has it."),
        (Style(language="en"), "Tom est au lac."),
        (Style(capitals=True), "Tom has it."),
        (Style(), "TOM HAS IT."),
        (Style(one_word=True), "Tom has it."),
        (Style(), "Tom."),
        (Style(name="Otto"), "My name is Mini."),
        (Style(), ""),
    ):
        assert not obeys(style, answer)
    assert obeys(Style(capitals=True, one_word=True), "12.") and obeys(Style(language="fr", one_word=True), "12.")


def test_chance_is_low(drawn):
    assert 0 < chance(drawn[1]) < 0.15


def test_the_tables_are_whole():
    assert len(PROBLEMS) == 110 and PROBLEMS["9 minus 4"] == 5 and PROBLEMS["3 plus 6"] == 9
    assert len({bare for _, bare in PLACES.values()}) == len(PLACES)
