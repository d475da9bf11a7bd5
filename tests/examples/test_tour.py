"""The notebook, cell by cell, without a notebook server."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NOTEBOOK = Path(__file__).parents[2] / "examples" / "tour.ipynb"


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


def run(source: str, names: dict[str, Any]) -> Any:
    """The cell's last expression, which a notebook would show."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)


@pytest.mark.slow
def test_every_cell_runs_and_shows_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    shown = [run(source, names) for source in cells("code")]
    pictures = [value for value in shown if isinstance(value, Image.Image)]
    assert len(pictures) == sum("\nshow(" in source for source in cells("code"))
    assert all(picture.width > 300 and picture.height > 60 for picture in pictures)
    said = capsys.readouterr().out
    assert names["found"].psnr[0] > 30
    assert re.search(r"Frechet distance.* \d", said)
    assert not list(folder.iterdir()), "it writes nothing"


def test_nothing_of_a_run_is_kept_in_it() -> None:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_pages_that_it_names_are_there() -> None:
    links = [link for source in cells("markdown") for link in re.findall(r"\]\(([^)]+)\)", source)]
    assert links
    assert all((NOTEBOOK.parent / link).exists() for link in links)
