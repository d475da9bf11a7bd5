"""The one exception that people see: a mistake in the input, said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input or a condition the user can mend.

    The message is one line: what, the value found, what is allowed, what to do. The command line prints it
    without a traceback and exits with code 2.
    """

    exit_code = 2
    said = False  # whether all processes of a run raise it, so that the first one alone needs to say it
    abrupt = False  # whether the program should end without tidying up, which might never end


@contextmanager
def said_once() -> Iterator[None]:
    """What is raised here, all processes of a run raise."""
    try:
        yield
    except UserError as error:
        error.said = True
        raise
