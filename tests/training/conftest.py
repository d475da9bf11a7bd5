"""Shared by the tests of training."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from catgan.data.datasets import Images


@pytest.fixture(scope="module")
def data(some_digits: Callable[[int], Images]) -> Images:
    """A few real digits of three classes."""
    return some_digits(50)
