"""The one exception that people see: a mistake in the input, said in one line."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

LONGEST = 400  # characters of a message
BEGIN, GAP = 280, " ... "  # of one that would be longer: what stays of its beginning, and what stands for the middle
BRIEF = reprlib.Repr()
BRIEF.maxlevel, BRIEF.maxlist, BRIEF.maxdict, BRIEF.maxstring, BRIEF.maxother = 3, 10, 5, 60, 60


class UserError(Exception):
    """Bad input or a condition the user can mend.

    The message is one line: what, the value found, what is allowed, what to do. The command line prints it
    without a traceback and exits with code 2. What input brings along of lines, control characters and length is
    written out or cut.
    """

    exit_code = 2
    raised_by_all = False  # by every process of a run, so that the first one alone needs to say it
    exit_immediately = False  # without tidying up, which might never end

    def __init__(self, message: str) -> None:
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        if len(text) > LONGEST:
            text = text[:BEGIN] + GAP + text[BEGIN + len(GAP) - LONGEST :]
        super().__init__(text)


def brief(value: object) -> str:
    """A value as Python writes it, in at most 60 characters, however large and nested it is."""
    return BRIEF.repr(value)[:60]


def first_line(error: Exception) -> str:
    """What an error of another package says, as part of a message: its first line, of at most 160 characters."""
    return (str(error).strip() or repr(error)).splitlines()[0].rstrip(".:")[:160]


@contextmanager
def said_once() -> Iterator[None]:
    """What is raised here, all processes of a run raise."""
    try:
        yield
    except UserError as error:
        error.raised_by_all = True
        raise


def require(ok: bool, name: str, value: object, allowed: str, todo: str = "") -> None:
    """Raise UserError unless ok: the field, its value, what is allowed, what to do."""
    if not ok:
        raise UserError(f"{name} is {value}: must be {allowed}" + (f"; {todo}" if todo else ""))


def check_known(kind: str, name: str, known: Collection[str]) -> None:
    """Raise UserError unless the name is one of the known ones; it says which is nearest."""
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"{kind} is {name}: must be one of {', '.join(known)}{meant}")
