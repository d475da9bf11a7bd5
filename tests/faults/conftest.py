"""Shared by the tests of faults: runs that nobody disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainers import finish, start


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 steps of one process."""
    run = tmp_path_factory.mktemp("plain") / "one"
    finish(start(run, "--steps", "12"))
    return run


@pytest.fixture(scope="session")
def plain_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 steps of two processes."""
    run = tmp_path_factory.mktemp("plain") / "two"
    finish(start(run, "--steps", "30", world=2))
    return run
