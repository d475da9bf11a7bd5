"""The rooms of the package in one order: each imports from those before it only, also lazily and for types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
# From the lowest room up. A package stands for all of its modules.
ROOMS = (
    "errors", "version", "system", "nn", "schedules", "draws", "images", "bounds", "metrics", "config", "config_io", "recipes",
    "shipped", "pyramid", "generator", "discriminator", "networks", "objective", "checkpoint", "encoders", "data", "sampling",
    "accounting", "evaluation", "training", "report", "studies", "bench", "demo", "studio", "cli",
)  # fmt: skip
# What shows the rooms to people, from above all of them: its attributes load them, `python -m catgan` runs one.
ENTRANCES = ("catgan", "catgan.__main__")


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """`checkpoint` for `catgan.checkpoint.saving`."""
    return module.split(".")[1]


@cache
def imports(module: str) -> set[str]:
    """The modules of the package that a module names in any import: at its top, in functions, for types."""
    return {name for name in named(ast.parse(modules()[module].read_text())) if name != module}


def named(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield from (n for n in [inside if inside in modules() else node.module] if n in modules())
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules())


def test_every_module_belongs_to_a_room() -> None:
    assert {room(name) for name in modules() if name not in ENTRANCES} == set(ROOMS)
    assert len(set(ROOMS)) == len(ROOMS)


def test_each_room_imports_only_from_rooms_before_it() -> None:
    upward = {
        (name, other)
        for name in modules()
        if name not in ENTRANCES
        for other in imports(name)
        if other in ENTRANCES or ROOMS.index(room(other)) > ROOMS.index(room(name))
    }
    assert not upward


@pytest.mark.parametrize("name", ROOMS)
def test_the_modules_of_a_room_import_in_no_circle(name: str) -> None:
    own = [m for m in modules() if m not in ENTRANCES and room(m) == name]
    try:
        TopologicalSorter({m: imports(m) & set(own) for m in own}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_imports_are_found_wherever_they_stand() -> None:
    text = """
if TYPE_CHECKING:
    from catgan.training.run import train
def f():
    import catgan.cli
    from catgan import recipes
    from os import path
"""
    assert set(named(ast.parse(text))) == {"catgan.training.run", "catgan.cli", "catgan.recipes"}
