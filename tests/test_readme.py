"""What the README and the docstrings show is what happens."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import minillm

README = Path(__file__).parents[1] / "README.md"
MODULES = [name for _, name, _ in pkgutil.walk_packages(minillm.__path__, "minillm.")]


def test_the_readmes_code_prints_what_it_says():
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert tried > 10 and failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


def test_the_files_that_the_readme_names_exist():
    text = README.read_text()
    for path in re.findall(r"`(minillm/[\w/.]+|tests/[\w/.]+)`", text):
        assert (README.parent / path).exists(), path
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (README.parent / picture).exists(), picture
