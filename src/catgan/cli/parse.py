"""Command-line options from dataclasses (tyro), with errors of one line."""

from __future__ import annotations

import contextlib
import io
import re
import typing
from collections.abc import Sequence
from itertools import groupby
from typing import Any, TypeVar

import tyro

from catgan.bounds import check
from catgan.errors import UserError
from catgan.metrics import RENAMED

T = TypeVar("T")


def parse(
    options: type[T], argv: Sequence[str], command: str, default: Any = None, description: str | None = None
) -> T:
    """The dataclass of the options, with values that its types allow (catgan.bounds).

    Prints help and exits for --help, raises UserError for mistakes.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            extra = {} if default is None else {"default": default}
            found = tyro.cli(options, args=list(argv), prog=f"catgan {command}", description=description, **extra)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{one_line(said.getvalue())}; see catgan {command} --help") from None
    for name, hint in typing.get_type_hints(options, include_extras=True).items():
        if (value := getattr(found, name)) is not None:
            check(value, hint, "--" + name.replace("_", "-"))
    return found


def one_line(box: str) -> str:
    """tyro's framed message as one line: what is wrong, and which options were perhaps meant."""
    # A title, then blocks between rules. Frames are box characters, or dashes where the terminal has no others.
    lines = [line.strip("│╭╮╰╯|+ ") for line in box.splitlines() if line.strip()]
    blocks = [list(g) for rule, g in groupby(lines[1:], lambda line: not line.strip("─-")) if not rule]
    message = re.sub(r"Missing from .*?:", "missing:", " ".join(blocks[0] if blocks else []))
    meant = [m.group(0) for line in lines if (m := re.match(r"--\w[\w.-]+", line))]
    if "nrecognized" in message and meant:
        message += f"; did you mean {' or '.join(dict.fromkeys(meant))}?"
    for old, new in RENAMED.items():
        if f"choice '{old}'" in message:
            message += f"; {old} is now {new}"
    return message or "the arguments do not fit"


def numbers(text: str, name: str) -> list[int]:
    """Numbers and ranges like 0-3,7 as a list: [0, 1, 2, 3, 7]. Raises UserError naming the option."""
    result: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise UserError(f"{name} is {text}: must be numbers and ranges like 0-3,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last - first >= 1_000_000:
            raise UserError(f"{name} is {text}: must be at most a million numbers")
        result += range(first, last + 1)
    return result
