"""Layers import downwards only, so that any module can be the first to be imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "catgan"
# What the modules of a folder may not import when they are loaded.
ABOVE = {
    "nn": ("objective", "data", "encoders", "training", "evaluation", "report", "demo", "cli", "pipeline", "config"),
    "objective": ("data", "encoders", "training", "evaluation", "report", "demo", "cli", "pipeline"),
    "data": ("training", "evaluation", "report", "demo", "cli", "pipeline"),
    "encoders": ("data", "training", "evaluation", "report", "demo", "cli", "pipeline"),
    "training": ("report", "demo", "cli", "pipeline"),
    "evaluation": ("report", "demo", "cli"),
    "report": ("demo", "cli"),
}


def imported_when_loaded(path: Path) -> Iterator[str]:
    """Modules that a file imports at its top level, but for type checking."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("folder", ABOVE)
def test_a_layer_imports_nothing_from_above(folder: str) -> None:
    for path in (SOURCE / folder).glob("*.py"):
        for name in imported_when_loaded(path):
            parts = name.split(".")
            assert parts[0] != "catgan" or len(parts) < 2 or parts[1] not in ABOVE[folder], f"{path} imports {name}"
