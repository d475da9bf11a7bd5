"""Pictures a second of the studio: the script for a moment, and the records that the documentation shows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs playwright")

import studio

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "records" / "studio").glob("*.json"))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium (Debian's package)")
def test_pictures_are_counted_while_a_slider_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--models", "digits", "--backends", "eager", "--seconds", "0.5", "--rounds", "1", "--out", str(tmp_path)]
    assert studio.main(argv) == 0
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())
    assert [(r["model"], r["backend"], r["stages"]) for r in found["pictures_per_second"]] == [
        ("digits", "eager", True),
        ("digits", "eager", False),
    ]
    assert all(r["median"] > 1 for r in found["pictures_per_second"])
    assert found["command"] == "python benchmarks/studio.py --models digits --backends eager --seconds 0.5 --rounds 1"
    assert path.with_suffix(".md").read_text().strip() in capsys.readouterr().out


@pytest.mark.parametrize("record", RECORDS, ids=lambda p: p.stem)
def test_the_documentation_shows_what_was_recorded(record: Path) -> None:
    written = record.with_suffix(".md").read_text().strip()
    assert written == studio.table(json.loads(record.read_text())["pictures_per_second"])
    assert written in (ROOT / "docs" / "studio.md").read_text()
