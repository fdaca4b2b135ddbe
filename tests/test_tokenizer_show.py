"""What `minillm tokenize` prints."""

import doctest
import importlib

import pytest

from minillm.tokenizer import BPETokenizer, CharTokenizer, UnigramTokenizer, show


@pytest.fixture(scope="module")
def bpe():
    return BPETokenizer.train(["low low lower"], 260)


@pytest.mark.parametrize("name", ["", ".bpe", ".show", ".byte_level", ".char", ".unigram"])
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module("minillm.tokenizer" + name))
    assert result.attempted > 0 and result.failed == 0


def test_colours_only_when_asked(bpe):
    plain = show.render(bpe, "low x")
    assert "\x1b" not in plain
    assert plain.split("\n")[0] == "low| |x"
    colored = show.render(bpe, "low x", color=True)
    assert colored.startswith("\x1b[30;48;5;153mlow\x1b[0m\x1b[30;48;5;193m \x1b[0m")
    assert colored.split("\n\n")[1:] == plain.split("\n\n")[1:]


def test_table_shows_ids_bytes_and_special_tokens(bpe):
    rows = show.render(bpe, "low<|endoftext|>").split("\n\n")[1].split("\n")
    assert [row.split() for row in rows[1:]] == [["258", "3", "'low'"], ["0", "13", "<|endoftext|>", "(special)"]]
    assert show.render(bpe, "low").endswith("1 token, 3 bytes, 3 characters: 3.00 bytes per token")
    assert show.render(bpe, "").endswith("0 tokens, 0 bytes, 0 characters")


def test_control_characters_cannot_reach_the_terminal(bpe):
    shown = show.render(bpe, "a\x1b[31m\r\u202eé", merges=True)
    assert "\x1b" not in shown and "\r" not in shown and "\u202e" not in shown
    assert "\\x1b" in shown and "'\\xc3'" in shown


def test_merges_are_shown_step_by_step(bpe):
    shown = show.render(bpe, "lowest low", merges=True)
    assert "  l o w e s t\n  lo w e s t   merge 0: l + o\n  low e s t    merge 1: lo + w" in shown
    assert "' low'\n  ␣ l o w\n  ␣ lo w   merge 0: l + o\n" in shown
    assert "  ␣ low    merge 1: lo + w\n  ␣low     merge 2: ␣ + low" in shown


def test_unigram_shows_its_lattice():
    tok = UnigramTokenizer([("<unk>", 0.0), ("▁a", -2.0), ("b", -3.0), ("▁", -4.0)], 0)
    shown = show.render(tok, "abé", merges=True)
    assert "'▁abé', best: ▁a b é (log-probability -19.00)" in shown
    assert "*    é   -14.00  unknown" in shown


def test_characters_have_no_merges():
    assert "has no merges" in show.render(CharTokenizer.train(["ab"]), "ab", merges=True)
