from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tests.studies.conftest import made_up

from catgan.errors import UserError
from catgan.studies import results
from catgan.studies.catalogue import CONSISTENCY, OFF, ON, TESTBEDS
from catgan.studies.design import Run
from catgan.studies.records import write_record
from catgan.studies.results import Results

ROOT = Path(__file__).parents[2]
NUMBERS = (
    *(
        "delta/mean",
        "delta/first",
        "delta/last",
        "floor/mean",
        "excess/mean",
        "excess/first",
        "excess/last",
        "R/mean",
        "A/mean",
        "A_without_last",
    ),
    *("frechet_distance", "precision", "recall"),
)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Three seeds of both variants: the loss halves every number."""
    for variant, factor in ((OFF, 2.0), (ON, 1.0)):
        for seed in range(3):
            values = dict.fromkeys(NUMBERS, factor * (1 + 0.01 * seed))
            write_record(tmp_path, made_up(variant, TESTBEDS["digits"], seed, **values))
        sheet = tmp_path / variant.study / "digits" / f"{variant.name}-0.png"
        Image.new("L", (60, 40)).save(sheet)
    return tmp_path


def test_the_page_in_the_repository_is_what_its_records_make(tmp_path: Path) -> None:
    written = Results(ROOT / "records").write(tmp_path)
    assert (tmp_path / "results.md").read_text() == (ROOT / "docs" / "results.md").read_text()
    figures = {p.name for p in written if p.suffix == ".png"}
    assert figures == {p.name for p in (ROOT / "docs" / "results").glob("*.png")}
    assert set(re.findall(r"\]\(results/(.*?)\)", (tmp_path / "results.md").read_text())) == figures


def test_the_numbers_on_the_page_are_those_of_the_records(records: Path) -> None:
    page = Results(records).page()
    row = next(line for line in page.splitlines() if line.startswith("| It improves the images: distance | FID"))
    assert "| on: 1.010 ± 0.010 | off: 2.020 ± 0.020 | -50 % (-52 to -48) | < 0.001 | **agrees** |" in row
    assert "**disagrees**" in page, "A falls by a half"
    assert "`lambda`: How strong" in page.partition("Not recorded yet")[2]


def test_figures_that_are_no_longer_shown_go(records: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    (docs / "results").mkdir(parents=True)
    (docs / "results" / "old.png").touch()
    names = {p.name for p in Results(records).write(docs)}
    assert names == {"results.md", "consistency-digits.png", "consistency-digits-samples.png"}
    assert not (docs / "results" / "old.png").exists()


def test_a_record_that_belongs_to_no_study_is_named(records: Path) -> None:
    (records / "consistency" / "digits" / "on-0.json").rename(records / "consistency" / "digits" / "other-0.json")
    with pytest.raises(UserError, match=r"other-0\.json is of no study, testbed or variant"):
        Results(records)


def test_a_changed_checkout_is_said(records: Path) -> None:
    changed = replace(made_up(ON, TESTBEDS["digits"], 3, **dict.fromkeys(NUMBERS, 1.0)), changed=True)
    write_record(records, changed)
    assert "With changes that were not committed: consistency/digits/on-3" in Results(records).page()


def test_courses_of_one_variant_alone_are_no_comparison(records: Path) -> None:
    shutil.rmtree(records / "consistency" / "digits")
    write_record(records, made_up(ON, TESTBEDS["digits"], 0, **dict.fromkeys(NUMBERS, 1.0)))
    assert list(Results(records).shown()) == []
    assert results.seed_of(Path("on-12.json")) == 12
    assert Run(ON, TESTBEDS["digits"], 0).name.startswith(CONSISTENCY.name)


def test_a_run_that_diverged_is_named_and_not_counted(records: Path) -> None:
    lost = replace(made_up(OFF, TESTBEDS["digits"], 3), protocol={}, diverged="a loss is nan at step 7")
    write_record(records, lost)
    assert "| no consistency loss (lambda 0) | 0, 1, 2, 3 (diverged) | 2.020 ± 0.020 |" in Results(records).page()


def test_a_missing_sheet_is_said(records: Path, tmp_path: Path) -> None:
    (records / "consistency" / "digits" / "on-0.png").unlink()
    with pytest.raises(UserError, match=r"on-0\.png does not exist: restore it"):
        Results(records).write(tmp_path / "docs")
