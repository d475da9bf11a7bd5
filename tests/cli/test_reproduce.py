"""`catgan reproduce`: lists, refusals, and what it says next."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.studies.conftest import made_up

from catgan.cli.main import main
from catgan.studies.catalogue import OFF, STUDIES, TESTBEDS
from catgan.studies.design import Run
from catgan.studies.records import path_of, write_record


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["reproduce", *arguments]) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


@pytest.fixture
def records(tmp_path: Path) -> Path:
    write_record(
        tmp_path / "records", made_up(OFF, TESTBEDS["digits"], 0, frechet_distance=1.0, precision=0.5, recall=0.5)
    )
    return tmp_path / "records"


def test_without_a_study_all_are_listed(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--records", str(records))
    for study in STUDIES.values():
        assert study.name in text
        assert study.question in text
    row = next(line for line in text.splitlines() if line.startswith("lambda"))
    assert row.split()[1:3] == ["12", "1"], "twelve runs, one of them recorded with another study"
    assert "1 recorded" in text


def test_the_runs_of_a_study_are_listed_with_their_records(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "lambda", "--list", "--records", str(records))
    rows = {
        line.split()[0]: line.split()[-1] for line in text.splitlines() if line.startswith(("consistency/", "lambda/"))
    }
    assert rows["consistency/digits/off-0"] == "yes"
    assert rows["lambda/digits/1-2"] == "-"
    assert all(claim.text in text for claim in STUDIES["lambda"].claims)


def test_what_is_recorded_is_not_run_again(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ("--testbeds", "digits", "--variants", "off", "--seeds", "0")
    text = said(capsys, "consistency", *only, "--records", str(records), "--runs", str(records / "runs"))
    assert text == f"1 run recorded in {records}\nnext: catgan reproduce --report\n"
    assert not (records / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lamda"], "study is lamda: must be one of consistency, lambda"),
        (["lamda"], "did you mean lambda?"),
        (["lambda", "--variants", "2"], "--variants is 2: must be one of off, 0.01, on, 1"),
        (["lambda", "--testbeds", "imagenet"], "--testbeds is imagenet: must be one of digits"),
        (["lambda", "--jobs", "0"], "--jobs is 0: must be at least 1"),
        (["--report", "--records", "nowhere"], "--records is nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, *arguments, code=2)
    assert message in text
    assert text.count("\n") == 1


def test_a_record_of_another_configuration_stops_before_any_run(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = path_of(records, Run(OFF, TESTBEDS["digits"], 0))
    path.write_text(path.read_text().replace('"penalty_eps": 0.01', '"penalty_eps": 0.02'))
    text = said(capsys, "lambda", "--records", str(records), "--runs", str(records / "runs"), code=2)
    assert "is of another configuration (objective.penalty_eps): move it away" in text
    assert not (records / "runs").exists()


def test_the_imagenet_runs_are_written_and_torchrun_starts_one_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = said(capsys, "lambda", "--scale", "paper", "--out", str(tmp_path))
    assert (tmp_path / "lambda" / "1-0" / "config.yaml").exists()
    assert "sbatch" in text
    monkeypatch.setenv("RANK", "0")
    assert "4 runs are named: under torchrun name one" in said(capsys, "lambda", "--scale", "paper", code=2)
    only = ("--scale", "paper", "--variants", "1", "--seeds", "0")
    assert "--data is missing" in said(capsys, "lambda", *only, code=2)
