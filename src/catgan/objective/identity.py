"""What a term computes, as a name and a digest: equal for equal losses, wherever and whenever they are made.

A digest covers the source of the function (not its comments, layout and docstring), its defaults, the values that it
takes from around it, the arguments of a functools.partial, and all this of the functions that it calls. Those of installed
libraries count by name alone, and weights of networks not at all. Where there is no source, or several lambdas share a
line, the bytecode counts, which differs between versions of Python.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import re
import sys
import sysconfig
import textwrap
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from catgan.objective.terms import Objective, Term
from catgan.system.files import digest

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
TEXT = re.compile(r"(\w+): (\S+, \S+, \S+) \* (.*?)(?: = (.+)#(\w+))?")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A term as run.json and checkpoints tell it: NETWORK: WEIGHTS * NAME = FUNCTION#DIGEST."""

    network: str  # generator, discriminator; or encoder, supervision or a head, which have no weight and name
    weights: str  # at steps 0, 100 and 10,000
    name: str
    function: str
    digest: str

    @classmethod
    def read(cls, text: str) -> Recorded:
        if match := TEXT.fullmatch(text):
            return cls(*(part or "" for part in match.groups()))
        network, _, rest = text.partition(": ")
        function, _, found = rest.rpartition("#")
        return cls(network, "", "", function, found)

    @property
    def title(self) -> str:
        return f"the {self.network}'s term {self.name}" if self.name else f"the {self.network}"

    @property
    def builtin(self) -> bool:
        return not self.function or self.function.removeprefix("partial(").startswith("catgan.")

    @property
    def short(self) -> str:
        """Its function for labels: without module; CAT's own have no names worth showing."""
        return "CAT's" if self.builtin else re.sub(r"(?:\w+\.)+|<locals>\.", "", self.function) or self.digest

    @property
    def weight(self) -> str:
        """0.1, or 0.1 to 0.0025 where it changes."""
        first, last = self.weights.partition(",")[0], self.weights.rpartition(" ")[2]
        return first if first == last else f"{first} to {last}"

    @property
    def origin(self) -> str:
        return "#".join(part for part in (self.function, self.digest) if part) or "not recorded"


def identity(term: Term) -> str:
    """MODULE.NAME#DIGEST of a term's function; the digest is also of a weight that is a function, and of `over`."""
    schedule = term.weight if callable(term.weight) else None
    return f"{qualified_name(term.function)}#{digest(described((term.function, schedule, term.over)))[:12]}"


def object_identity(thing: object) -> str:
    """MODULE.NAME#DIGEST of an object: of the functions of its class, and the values that they use."""
    return f"{qualified_name(thing)}#{digest(described(thing))[:12]}"


def recorded(
    objective: Objective, supervision: object | None, heads: Mapping[str, object], encoder: str | None
) -> tuple[str, ...]:
    """What a run minimises, a line each: terms, and whatever stands in place of CAT's pyramid or beside its networks.

    encoder: the digest of the one that the representation head is trained towards.
    """
    lines = [
        f"{network}: {', '.join(f'{t.weight_at(step):g}' for step in (0, 100, 10_000))} * {t.name} = {identity(t)}"
        for network in ("discriminator", "generator")
        for t in getattr(objective, network)
    ]
    lines += [] if encoder is None else [f"encoder: {encoder}"]
    lines += [] if supervision is None else [f"supervision: {object_identity(supervision)}"]
    return (*lines, *(f"head {name}: {object_identity(head)}" for name, head in heads.items()))


def changes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """What differs between two objectives, as recorded: a phrase per term. Where an equal function lies does not count."""
    old, new = ({(r.network, r.name): r for r in map(Recorded.read, terms)} for terms in (before, now))
    found = []
    for key, term in (old | new).items():
        a, b = old.get(key), new.get(key)
        if a is None or b is None or a.digest != b.digest:
            was, now_is = a.origin if a else "not there", b.origin if b else "left out"
            found.append(f"{term.title} was {was}, is {now_is}")
        elif a.weights != b.weights:
            found.append(f"{term.title} had the weights {a.weights}, has {b.weights}")
    if not found and list(old) != list(new):
        found.append("the order of the terms differs")
    return found


# -- descriptions ------------------------------------------------------------------------------------------------------


def qualified_name(function: Any) -> str:
    """Module and name of a function, of the class of another callable, or of what a partial is made of."""
    if isinstance(function, functools.partial):
        return f"partial({qualified_name(function.func)})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def in_library(thing: Any) -> bool:
    """Whether a module, class or function is of an installed package other than this one."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
    if name not in sys.modules or name.partition(".")[0] in ("catgan", "__main__"):
        return False
    file = getattr(sys.modules[name], "__file__", None)
    return file is None or file.startswith(LIBRARIES)  # None: built in


def described(value: Any, names: Collection[str] = (), within: tuple[Any, ...] = ()) -> str:
    """A value as text, equal for equal ones.

    names: what is looked up in it: of an object or module only these count. within: what is being described, so that a
    function that calls itself comes to an end.
    """
    rest = functools.partial(described, names=names, within=(*within, value))
    match value:
        case None | bool() | int() | float() | complex() | str() | bytes():
            return repr(value)
        case _ if any(value is other for other in within):
            return "itself"
        case tuple() | list():
            return f"[{', '.join(map(rest, value))}]"
        case set() | frozenset():
            return rest(sorted(value, key=repr))
        case dict():
            return rest(sorted((rest(k), rest(v)) for k, v in value.items()))
        case functools.partial():
            return rest((value.func, value.args, value.keywords))
        case types.MethodType():
            return rest((value.__func__, value.__self__))
        case types.FunctionType() if not in_library(value):
            return digest(rest(parts_of_function(value), names=used_names(value.__code__)))
        case types.ModuleType() if not in_library(value):
            return rest({name: v for name, v in vars(value).items() if name in names})
        case types.CodeType():
            return rest((value.co_code.hex(), value.co_consts, value.co_names, value.co_varnames, value.co_freevars))
        case _ if hasattr(value, "__wrapped__"):  # by functools.cache
            return rest(value.__wrapped__)
        case _ if isinstance(value, types.ModuleType) or hasattr(value, "__qualname__"):
            return str(getattr(value, "__qualname__", None) or value.__name__)
        case _ if hasattr(value, "tolist"):  # a tensor or array
            return digest(f"{value.dtype} {value.tolist()}")
        case _ if in_library(type(value)) and not isinstance(value, nn.Module):
            return type(value).__qualname__
    return described_object(value, names, within)


def described_object(value: Any, names: Collection[str], within: tuple[Any, ...]) -> str:
    """The functions of its class, what they or who sees it look up in it, and of a network the layers, not the weights."""
    kinds = [kind for kind in reversed(type(value).__mro__) if not in_library(kind)]
    members = {name: function_in(member) for kind in kinds for name, member in vars(kind).items()}
    # The constructor counts by the attributes that it leaves, what dataclasses generate by their fields.
    functions = {
        name: member
        for name, member in members.items()
        if isinstance(member, types.FunctionType) and name != "__init__" and member.__code__.co_filename != "<string>"
    }
    if isinstance(identity := getattr(value, "identity", None), str):  # a frozen network, whose weights it stands for
        return described((functions, identity), (), (*within, value))
    names = set(names).union(*(used_names(f.__code__) for f in functions.values()))
    values = {n: m for n, m in members.items() if not hasattr(m, "__get__")} | getattr(value, "__dict__", {})
    layers = repr(value) if isinstance(value, nn.Module) else ""
    parts = (functions, {n: v for n, v in values.items() if n in names}, layers)
    return described(parts, names, (*within, value))


def function_in(member: Any) -> Any:
    """The function in a property, cached property, static method or class method; else what it is."""
    return getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)


def parts_of_function(function: types.FunctionType) -> tuple[Any, ...]:
    """All that decides what a function computes: its source or bytecode, and the values that it uses."""
    code, names = function.__code__, used_names(function.__code__)
    values = {name: value for name, value in function.__globals__.items() if name in names}
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    values |= {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}  # which is empty
    return source_of(code) or code, function.__defaults__, function.__kwdefaults__, values


def used_names(code: types.CodeType) -> set[str]:
    """Global names and attributes that a function and those inside it look up."""
    inner = (used_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def source_of(code: types.CodeType) -> str | None:
    """A function's source without comments, layout and docstrings; None where there is none, or none surely its."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError):
        return None
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.Lambda)))
    found = [node for node in functions if getattr(node, "name", "<lambda>") == code.co_name]
    if len(found) != 1:
        return None
    for node in ast.walk(found[0]):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(found[0])
