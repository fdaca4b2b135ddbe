"""What holds for every test."""

import os

import pytest

from minillm.models.fast import decoding


@pytest.fixture(scope="session", autouse=True)
def nobody_waits_for_the_disk():
    """No test cuts the power, and what a killed process has written is there without fsync: only waiting is left out.

    That fsync is called, and when: see faults.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def small_models_are_read_by_the_compiled_loops():
    """What users get after ``minillm warmup``: else it would hang on what was compiled before which way a test goes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "SMALL", 0)
        yield
