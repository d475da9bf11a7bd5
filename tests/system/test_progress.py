"""What long operations say of their time."""

from __future__ import annotations

import pytest

from catgan.system.progress import about


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "1 s"), (59.4, "59 s"), (59.6, "1 min"), (3_560, "59 min"), (3_600, "1 h"), (7_900, "2 h 10 min"),
        (86_300, "1 day"), (100_000, "1 day 4 h"), (300_000, "3 days 11 h"),
    ],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert about(seconds) == said
