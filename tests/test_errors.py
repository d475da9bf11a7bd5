"""A message is one short line, whatever the input was."""

from __future__ import annotations

import pytest

from catgan.errors import LONGEST, UserError, brief


def test_lines_and_control_characters_of_the_input_are_written_out() -> None:
    assert str(UserError("class is a\nb\x1b[31m\ud800ü: must be a number")) == (
        r"class is a\nb\x1b[31m\ud800ü: must be a number"
    )


def test_of_a_long_message_the_middle_is_left_out() -> None:
    said = str(UserError(f"name is {'x' * 9999}: must be a name; choose another"))
    assert len(said) == LONGEST
    assert said.startswith("name is xxx")
    assert said.endswith("xxx: must be a name; choose another")
    assert " ... " in said


@pytest.mark.parametrize("text", ["", "x" * LONGEST])
def test_what_is_short_enough_stays(text: str) -> None:
    assert str(UserError(text)) == text


def test_a_value_is_brief_however_much_it_holds() -> None:
    twice: list[object] = ["x"]
    for _ in range(60):  # written out, it would fill the memory of all computers
        twice = [twice, twice]
    assert len(brief(twice)) <= 60
    assert brief([4, 8]) == "[4, 8]"
    assert brief("many") == "'many'"
