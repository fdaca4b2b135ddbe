"""What holds for every test."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def nobody_waits_for_the_disk():
    """No test cuts the power, and what a killed process has written is there without fsync: only waiting is left out.

    That fsync is called, and when: see faults.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
