"""What values a field allows, said in its type: `steps: Count`."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any

from catgan.errors import require

MAX_SEED = 2**63


@dataclass(frozen=True)
class Allowed:
    """A rule for one value: in words, for messages and docs, and as a test."""

    words: str
    test: Callable[[Any], bool]


Count = Annotated[int, Allowed("at least 1", lambda n: n >= 1)]
CountOrZero = Annotated[int, Allowed("at least 0", lambda n: n >= 0)]
AtLeast2 = Annotated[int, Allowed("at least 2", lambda n: n >= 2)]
Above0 = Annotated[float, Allowed("above 0 and finite", lambda v: 0 < v < math.inf)]
AtLeast0 = Annotated[float, Allowed("at least 0 and finite", lambda v: 0 <= v < math.inf)]
Share = Annotated[float, Allowed("in [0, 1]", lambda v: 0 <= v <= 1)]
ShareAbove0 = Annotated[float, Allowed("in (0, 1]", lambda v: 0 < v <= 1)]
ShareBelow1 = Annotated[float, Allowed("in [0, 1)", lambda v: 0 <= v < 1)]
Seed = Annotated[int, Allowed("in [0, 2^63)", lambda n: isinstance(n, Integral) and 0 <= n < MAX_SEED)]
Psi = Annotated[float, Allowed("in [0, 1] (1 is no truncation)", lambda v: isinstance(v, Real) and 0 <= v <= 1)]


def rules(hint: Any) -> Iterator[tuple[bool, Allowed]]:
    """The rules within a type hint, and whether each is for the elements of a tuple rather than the value."""
    if typing.get_origin(hint) is Annotated:
        yield from ((False, rule) for rule in hint.__metadata__ if isinstance(rule, Allowed))
        return
    inside = typing.get_origin(hint) is tuple
    for part in typing.get_args(hint):
        yield from ((inside or each, rule) for each, rule in rules(part))


def check_bounds(settings: Any, prefix: str = "") -> None:
    """Raise UserError for the first field of a dataclass, or of those in it, whose value its rule does not allow."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        name, value = prefix + field.name, getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            check_bounds(value, f"{name}.")
        elif value is not None:
            for v in value if isinstance(value, tuple) else (value,):
                require(not isinstance(v, int) or abs(v) < MAX_SEED, name, v, "below 2^63")
            for each, rule in rules(hints[field.name]):
                for v in value if each else (value,):
                    require(rule.test(v), name, v, rule.words)


def check(value: Any, hint: Any, name: str) -> Any:
    """Return the value if the rules of the hint allow it, else raise UserError."""
    for _, rule in rules(hint):
        require(rule.test(value), name, value, rule.words)
    return value


def check_seed(seed: int, name: str = "seed") -> int:
    """Return the seed if it is in [0, 2^63), else raise UserError."""
    return int(check(seed, Seed, name))


def check_psi(psi: float) -> float:
    """Return the truncation psi if it is in [0, 1], else raise UserError."""
    return float(check(psi, Psi, "psi"))
