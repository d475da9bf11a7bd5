"""Tables of the documentation say what the code says, and links lead somewhere."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

import catgan
import write_tables as tables
from catgan.cli.main import HELP
from catgan.config import Config
from catgan.config_io import RESUMABLE
from catgan.recipes import RECIPES

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", tables.TABLES)
def test_tables_say_what_the_code_says(page: str) -> None:
    assert (tables.DOCS / page).read_text() == tables.filled(page), "run python docs/write_tables.py"


def test_the_reference_of_python_names_what_the_package_exports_and_it_is_there() -> None:
    named = re.findall(r"^::: (catgan[\w.]+)", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    found = {name: pkgutil.resolve_name(name) for name in named}
    exported = {id(getattr(catgan, name)): name for name in catgan.__all__ if name != "__version__"}
    assert set(exported) <= {id(thing) for thing in found.values()}, exported


def test_every_field_has_a_row_with_type_default_and_meaning() -> None:
    written = tables.fields()
    assert len([line for line in written.splitlines() if line.startswith("| `")]) == sum(
        len(fields) for fields in tables.groups(Config()).values()
    )
    for row in (
        "| `steps` | int, at least 1 | `50000` | Length of the run, in iterations (one discriminator and one generator step each). |",
        "| `penalty_end` | float, above 0 and finite, or null | `null` | gamma after its anneal; null keeps it at `penalty`. |",
        "| `consistency_weights` | list of float, at least 0 and finite, or null | `null` | w_0..w_{K-1}; null is 1 / (K - k). |",
        "| `precision` | `float32`, `bfloat16` | `float32` | bfloat16 is autocast: weights stay in float32. |",
    ):
        assert row in written


def test_what_a_resumed_run_may_change_is_all_in_its_table() -> None:
    section = (tables.DOCS / "configuration.md").read_text().partition("## What a resumed run may change")[2]
    written = set(re.findall(r"`([\w.]+?)(?:\.\*)?`", section.partition("\n\nBut for")[0])) - {"eval.best"}
    assert written == set(RESUMABLE)


def test_recipes_are_all_named_where_one_starts() -> None:
    started = (tables.DOCS / "quickstart.md").read_text().partition("## Train")[2].partition("\n## ")[0]
    for name in RECIPES:
        assert f"`{name}`" in started
        assert name in HELP


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


@pytest.mark.parametrize("page", PAGES)
def test_files_and_names_in_them_are_there(page: str) -> None:
    """`nn/layers.py`, `SwiGLU` is read from the package, the checkout or its examples; catgan.train is imported."""
    text = (ROOT / page).read_text()
    for path, names in re.findall(r"`([\w/]+\.py)`((?:, `\w+`)*)", text):
        found = [base / path for base in (ROOT / "src/catgan", ROOT, ROOT / "examples") if (base / path).is_file()]
        assert found, path
        assert all(re.search(rf"\b{name}\b", found[0].read_text()) for name in re.findall(r"`(\w+)`", names)), path
    for name in re.findall(r"`(catgan(?:\.[A-Za-z_]\w*)+)", text):
        if name != "catgan.json":
            pkgutil.resolve_name(name)
