"""The configuration page tells the truth, and links lead somewhere."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from catgan.config import Config
from catgan.config_io import to_dict
from catgan.metrics import METRICS
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


def metric_row(name: str) -> str:
    """A metric as the page about evaluation shows it."""
    metric = METRICS[name]
    better = {number.better for number in metric.numbers.values() if number.better}
    needs = {
        "images as reference": metric.rows,
        "features with classes": metric.logits,
        "classes on both sides, `--features classifier` by default": metric.by_class,
        "classes, `--features classifier`": metric.names_classes,
    }
    said = ", ".join(words for words, needed in needs.items() if needed)
    by = metric.package.replace("_", "-") if metric.package else "catgan"
    return f"| `{name}` | {metric.about}: {better.pop()} is better | {said} | {by} |".replace("|  |", "| |")


@pytest.mark.parametrize("name", METRICS)
def test_the_page_about_evaluation_has_the_table_of_metrics(name: str) -> None:
    assert metric_row(name) in (ROOT / "docs" / "evaluation.md").read_text().splitlines()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_to_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"
