"""What a term computes, as a name and a digest: equal for equal losses, wherever and whenever they are made.

A digest covers the source of the function (not its comments, layout and docstring; the bytecode where there is no
source), its defaults, the values that it takes from around it, the arguments of a functools.partial, and all this of
the functions that it calls. Those of installed libraries count by name alone, and weights of networks not at all.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import re
import sysconfig
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from catgan.objective.terms import Objective, Term

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
    weight = described(term.weight) if callable(term.weight) else ""
    return f"{qualified_name(term.function)}#{digest(f'{described(term.function)} {weight} {term.over}')}"


def object_identity(thing: object) -> str:
    """MODULE.NAME#DIGEST of an object: of the functions of its class, and the values that they use."""
    return f"{qualified_name(thing)}#{digest(described(thing))}"


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
    for key in dict.fromkeys((*old, *new)):
        a, b = old.get(key), new.get(key)
        if a is None or b is None:
            title = (a or b or new[key]).title
            found.append(f"{title} was {a.origin if a else 'not there'}, is {b.origin if b else 'left out'}")
        elif a.digest != b.digest:
            found.append(f"{a.title} was {a.origin}, is {b.origin}")
        elif a.weights != b.weights:
            found.append(f"{a.title} had the weights {a.weights}, has {b.weights}")
    if not found and list(old) != list(new):
        found.append("the order of the terms differs")
    return found


# -- descriptions ------------------------------------------------------------------------------------------------------


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def qualified_name(function: Any) -> str:
    """Module and name of a function, of the class of another callable, or of what a partial is made of."""
    if isinstance(function, functools.partial):
        return f"partial({qualified_name(function.func)})"
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def described(value: Any, names: Collection[str] = (), within: tuple[Any, ...] = ()) -> str:
    """A value as text, equal for equal ones.

    names: what the function that sees it looks up: of an object only these attributes count. within: what is being
    described, so that a function that calls itself comes to an end.
    """
    rest = functools.partial(described, names=names, within=within)
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=repr)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(rest, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{rest(k)}: {rest(v)}' for k, v in value.items()))}}}"
    if isinstance(value, functools.partial):
        return f"partial({rest(value.func)}, {rest(value.args)}, {rest(value.keywords)})"
    if hasattr(value, "__wrapped__") and not isinstance(value, types.FunctionType):  # by functools.cache
        return rest(value.__wrapped__)
    if isinstance(value, types.MethodType):
        return f"{rest(value.__func__)} of {rest(value.__self__)}"
    if hasattr(value, "tolist"):  # tensors and arrays
        return digest(f"{value.dtype} {value.tolist()}")
    if isinstance(value, types.ModuleType) and not in_library(value):
        return rest({name: vars(value)[name] for name in names & vars(value).keys()})
    if any(value is other for other in within):
        return "itself"
    if isinstance(value, types.FunctionType) and not in_library(value):
        return described_function(value, (*within, value))
    named = isinstance(value, (type, types.ModuleType)) or hasattr(value, "__qualname__")
    if named or (in_library(type(value)) and not isinstance(value, nn.Module)):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    return described_object(value, names, within)


def described_object(value: Any, names: Collection[str], within: tuple[Any, ...]) -> str:
    """The functions of its class, what they or who sees it look up in it, and of a network the layers, not the weights."""
    kinds = [kind for kind in reversed(type(value).__mro__) if not in_library(kind)]
    members = {name: inner(member) for kind in kinds for name, member in vars(kind).items()}
    # The constructor counts by the attributes that it leaves, what dataclasses generate by their fields.
    functions = {n: m for n, m in members.items() if isinstance(m, types.FunctionType) and n != "__init__"}
    functions = {n: f for n, f in functions.items() if f.__code__.co_filename != "<string>"}
    names = set(names).union(*(used_names(f.__code__) for f in functions.values()))
    constants = {n: m for n, m in members.items() if n in names and not hasattr(m, "__get__")}
    attributes = {n: v for n, v in getattr(value, "__dict__", {}).items() if n in names}
    layers = repr(value) if isinstance(value, nn.Module) else ""
    return " ".join(described(part, names, (*within, value)) for part in (functions, constants | attributes, layers))


def inner(member: Any) -> Any:
    """The function in a property, cached property, static method or class method; else what it is."""
    return getattr(member, "fget", None) or getattr(member, "func", None) or getattr(member, "__func__", member)


def described_function(function: types.FunctionType, within: tuple[Any, ...]) -> str:
    """The digest of a function's source and of all that it depends on."""
    code = function.__code__
    names = used_names(code)
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    values = {name: cell.cell_contents for name, cell in cells.items() if is_filled(cell)}
    values |= {name: function.__globals__[name] for name in sorted(names & function.__globals__.keys())}
    parts = [source_of(function) or described_code(code)]
    parts += [described(v, names, within) for v in (function.__defaults__, function.__kwdefaults__)]
    return digest("\n".join([*parts, *(f"{name}: {described(v, names, within)}" for name, v in values.items())]))


def is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def in_library(thing: Any) -> bool:
    """Whether a module, class or function is of an installed package other than this one."""
    module = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__ or ""
    if module.partition(".")[0] == "catgan":
        return False
    try:
        return (inspect.getsourcefile(thing) or "").startswith(LIBRARIES)
    except TypeError:  # built in, or typed in at a prompt
        return module != "__main__"


def used_names(code: types.CodeType) -> set[str]:
    """Global names and attributes that a function and those inside it look up."""
    inner = (used_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def source_of(function: types.FunctionType) -> str | None:
    """The source without comments, layout, docstrings and the name; None where there is none, or none surely its."""
    try:
        tree = ast.parse("".join(inspect.findsource(function)[0]))
    except (OSError, SyntaxError):
        return None
    candidates = [node for node in ast.walk(tree) if is_of(node, function.__code__)]
    if len(candidates) != 1:  # several lambdas in a line
        return None
    for node in ast.walk(candidates[0]):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(candidates[0])


def is_of(node: ast.AST, code: types.CodeType) -> bool:
    """Whether a piece of source may be what this code was compiled from."""
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    if not isinstance(node, ast.FunctionDef):
        return False
    return node.name == code.co_name and code.co_firstlineno in {node.lineno, *(d.lineno for d in node.decorator_list)}


def described_code(code: types.CodeType) -> str:
    """The bytecode, which differs between versions of Python."""
    constants = [described_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames} {code.co_freevars}"
