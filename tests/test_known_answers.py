"""The answers of known_answers.py, each as a test."""

import pytest

from tests.known_answers import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_answer(check):
    check()
