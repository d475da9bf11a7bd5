"""`catgan compute`: the same figures as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catgan.cli import main
from catgan.cli.compute import number, tables, total
from catgan.recipes import RECIPES


@pytest.fixture
def result(
    computed: Callable[[str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    """What --json prints, with recipes counted once for all tests."""
    monkeypatch.setattr("catgan.accounting.compute.compute", lambda config: computed(config.recipe))
    assert main(["compute", "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_json_has_everything_that_the_tables_show(result: dict[str, Any]) -> None:
    assert list(result["recipes"]) == list(RECIPES)
    assert {"unit", "epoch_images", "encoder", "models", "reported", "paper"} < set(result)
    text = tables(result)
    for name in [*RECIPES, *(m["name"] for m in result["models"]), *(r["name"] for r in result["reported"])]:
        assert f"\n{name}  " in text
    for name in [f["figure"] for f in result["paper"]]:
        assert f"\n{name}  " in text


def test_the_tables_fit_a_terminal_and_explain_themselves(result: dict[str, Any]) -> None:
    text = tables(result)
    assert max(map(len, text.splitlines())) <= 110
    assert "GMAC is 10^9 multiply-accumulates" in text


def test_the_documentation_shows_what_is_printed(result: dict[str, Any]) -> None:
    page = Path(__file__).parents[2] / "docs" / "compute.md"
    assert tables(result) in page.read_text(), "docs/compute.md is out of date: paste what `catgan compute` prints"


@pytest.mark.parametrize(
    ("gmacs", "said"), [(0.0, "-"), (0.002626, "0.0026"), (0.04994, "0.050"), (30.53, "30.5"), (2286.6, "2,287")]
)
def test_small_and_large_costs_keep_digits_that_say_something(gmacs: float, said: str) -> None:
    assert number(gmacs) == said


def test_totals_are_multiply_accumulates() -> None:
    assert total(7.81e10) == "7.81e19"
