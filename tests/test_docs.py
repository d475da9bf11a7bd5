"""The configuration page tells the truth, and links lead somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from catgan.config import Config
from catgan.config_io import to_dict
from catgan.recipes import RECIPES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "configuration.md").read_text()


def shown(value: object) -> str:
    """A value as the page writes it."""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def recipe_rows() -> list[str]:
    """One table row per field in which recipes differ."""
    flat = {}
    for name, config in RECIPES.items():
        groups = {g: v for g, v in to_dict(config).items() if isinstance(v, dict)}
        flat[name] = {f"{g}.{f}": v for g, fields in groups.items() for f, v in fields.items()}
    names = [f for f in flat["cat-b2"] if len({json.dumps(values[f]) for values in flat.values()}) > 1]
    return [f"| `{f}` | " + " | ".join(shown(values[f]) for values in flat.values()) + " |" for f in names]


@pytest.mark.parametrize("row", recipe_rows())
def test_the_page_shows_what_the_recipes_say(row: str) -> None:
    assert row in PAGE


@pytest.mark.parametrize("group", [f.name for f in dataclasses.fields(Config) if f.name != "recipe"])
def test_the_page_lists_every_field_with_its_default(group: str) -> None:
    section = PAGE.split(f"\n### {group}\n")[1].split("\n## ")[0].split("\n### ")[0]
    fields = {m[1]: m[2] for m in re.finditer(r"^\| `(\w+)` \| [^|]*\| (`[^|]*`) \|", section, re.MULTILINE)}
    expected = {name: shown(value) for name, value in to_dict(Config())[group].items()}
    assert fields == expected


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
