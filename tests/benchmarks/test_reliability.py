"""The campaigns of reliability, short: their findings, and that an interrupted one goes on."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import catgan
import reliability
from campaigns import coverage, long, visitors
from campaigns.journal import Journal
from campaigns.opened import Opened, strace

RECORDS = sorted((Path(__file__).parents[2] / "records" / "reliability").glob("*.json"))


def record(tmp_path: Path, *argv: object) -> dict[str, Any]:
    """The record of a campaign, whose table is beside it."""
    code = reliability.main([str(a) for a in (*argv, "--runs", tmp_path / "runs", "--out", tmp_path)])
    path = tmp_path / f"{argv[0]}.json"
    found = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == reliability.table(found) + "\n"
    assert code == bool(found["failed"])
    return dict(found)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bad_input_is_read_or_refused_in_one_line(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    count = request.config.getoption("--fuzz")
    found = record(tmp_path, "fuzz", "--cases", count)
    assert found["failures"] == []
    assert sum(row[1] for row in found["table"][1:]) == count
    assert all(row[2] or row[3] for row in found["table"][1:]), "a reader was never called"


@pytest.mark.slow
def test_a_long_run_is_watched_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long, "EVERY", 0.5)
    monkeypatch.setattr(long, "OPTIONS", ("--checkpoint.every", "100"))
    stopped = record(tmp_path, "long", "--steps", 100_000, "--minutes", 0.2)
    reached = int(dict(stopped["table"])["steps"].replace(",", ""))
    assert stopped["failed"] == 0
    again = record(tmp_path, "long", "--steps", reached + 5, "--minutes", 2)
    assert dict(again["table"])["steps"] == f"{reached + 5:,}"
    assert again["looks"] >= stopped["looks"] > 2


@pytest.mark.slow
def test_a_studio_is_visited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visitors, "EVERY", 1.0)
    monkeypatch.setattr(visitors, "CHECKED", 0.5)
    found = record(tmp_path, "studio", "--minutes", 0.15, "--clients", 3)
    assert found["failures"] == []
    table = dict(found["table"])
    assert table["what the studio left or said"] == "nothing"
    assert table["pictures compared with the pipeline's"] != "0"
    assert found["looks"] > 2


def test_wrong_answers_and_a_studio_that_ends_are_noticed() -> None:
    row = {"pid": 1, "at": 1.0, "seconds": 1.0, "megabytes": 9.0, "threads": 1, "files": 1, "counts": {}}
    row |= {"milliseconds": [5], "wrong": ["walk has shape (1,)"]}
    found = visitors.found([row], 3, ["the studio ended with 1"])
    assert found["failed"] == 2
    assert found["failures"] == ["walk has shape (1,)"]
    assert dict(found["table"])["what the studio left or said"] == "the studio ended with 1"


def test_a_journal_does_no_case_twice_but_failed_ones(tmp_path: Path) -> None:
    done: list[str] = []

    def work(case: str, chance: Any) -> dict[str, Any]:
        done.append(case)
        if done == ["a", "b"]:
            raise ValueError("it fails the first time")
        return {"drawn": chance.random()}

    path = tmp_path / "journal.jsonl"
    first = Journal(path, "0").perform(["a", "b"], work)
    assert "ValueError: it fails" in first[1]["failed"]
    again = Journal(path, "0").perform(["a", "b", "c"], work)
    assert done == ["a", "b", "b", "c"]
    assert again[0] == first[0]
    assert Journal(path, "1").rows == {}, "cases of another seed are others"


def test_what_a_reader_must_not_touch_is_noticed(tmp_path: Path) -> None:
    opened, mine = Opened(), tmp_path / "mine"
    mine.mkdir()
    with opened.watched([mine]):
        opened.note("open", (str(mine / "a"), "r", 0))
        assert opened.elsewhere == []
        opened.note("open", (str(mine / ".." / "b"), "r", 0))
        opened.note("pickle.find_class", ("os", "system"))
    assert opened.elsewhere[0] == f"open {tmp_path / 'b'}"
    assert opened.elsewhere[1].startswith("pickle.find_class")


def test_what_a_c_library_opens_is_noticed(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.touch()
    program = Path(__file__).parents[1] / "processes" / "opening_in_c.py"
    argv = [sys.executable, program, mine, other, tmp_path / "trace"]
    with subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE) as process:
        try:
            tracer = strace(process.pid, tmp_path / "trace")
        except SystemExit as refused:
            process.kill()
            pytest.skip(str(refused))
        elsewhere, calls = json.loads(process.communicate(timeout=60)[0])
        tracer.communicate()
    odd = os.fsdecode(os.fsencode(tmp_path) + b'/b \n\xff"')
    assert elsewhere[:3] == [f"openat {other}", f"openat {odd}", f"unlink {other}"]
    assert elsewhere[3].startswith("execve "), "what lies inside, or is only pointed at, is none of it"
    assert calls >= 7


def test_without_strace_a_traced_campaign_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="--trace needs strace, which is not installed"):
        record(tmp_path, "fuzz", "--trace", "--cases", 1)


def test_without_atheris_its_campaign_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    with pytest.raises(SystemExit, match="needs atheris, which is not installed: pip install atheris"):
        record(tmp_path, "atheris")


def test_what_atheris_calls_reads_whole_inputs_and_lets_faults_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.png", picture.getvalue())
    shutil.copytree(Path(catgan.__file__).parent / "shipped" / "digits.sklearn", tmp_path / "model" / "export")
    calls: list[object] = []
    monkeypatch.setattr("catgan.data.decode.to_picture", lambda *given: calls.append(given[0]))
    read = coverage.archive(tmp_path)
    read((tmp_path / "a.zip").read_bytes())
    assert calls == [picture.getvalue()]
    read(b"no archive")
    read = coverage.export(tmp_path)
    whole = coverage.one_input("export", tmp_path / "model")
    read(whole)
    read(whole[:-1])
    monkeypatch.setattr("catgan.checkpoint.export.count", lambda step: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        read(whole)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_tables_of_records_say_what_the_records_do(path: Path) -> None:
    found = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == reliability.table(found) + "\n"
    assert {"command", "seed", "commit", "machine", "versions", "failed"} <= set(found)
    assert found["failed"] == 0
