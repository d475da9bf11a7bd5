from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.studies.conftest import STEPS

from catgan.config_io import with_values
from catgan.errors import UserError
from catgan.studies.catalogue import AGGREGATED, GAT, OFF
from catgan.studies.design import Run, Testbed
from catgan.studies.perform import perform, sources
from catgan.studies.queue import Queue, last_line, step_of
from catgan.studies.records import LARGEST, RunRecord, read_record

ONCE = ("began", "cpu_seconds", "commit", "changed")  # what another run of the same may say otherwise


def numbers(record: RunRecord) -> dict[str, Any]:
    """What must be the same whenever a run is made."""
    content = {k: v for k, v in vars(record).items() if k not in ONCE}
    return content | {"curves": {k: v for k, v in record.curves.items() if k != "cpu_seconds"}}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, quick: Testbed) -> Path:
    """Folder with the runs and records of three variants, two at a time."""
    folder = tmp_path_factory.mktemp("studies")
    runs = [Run(v, quick, 0) for v in (OFF, GAT, AGGREGATED)]
    assert Queue(runs, folder / "runs", folder / "records", 2, quiet=True).work() == []
    return folder


def test_a_run_leaves_a_record_with_all_that_it_takes_to_believe_it(done: Path, quick: Testbed) -> None:
    path = done / "records" / "consistency" / "digits" / "off-0.json"
    record = read_record(path)
    assert path.stat().st_size < LARGEST
    assert record.config == Run(OFF, quick, 0).config
    assert record.command == "catgan reproduce consistency --testbeds digits --variants off --seeds 0"
    assert record.curves["step"] == [4, 8, STEPS]
    assert all(len(values) == 3 for values in record.curves.values())
    assert record.curves["cpu_seconds"] == sorted(record.curves["cpu_seconds"])
    assert set(quick.metrics) <= set(record.final)
    assert record.final["excess/mean"] == pytest.approx(record.curves["excess/mean"][-1], rel=0.2)
    assert set(record.truncated) == {"0.85", "0.7"}
    assert record.machine["threads"] == 1
    assert record.protocol["samples"] == quick.samples
    assert record.protocol["feature_space"]["identity"]


def test_what_is_rounded_says_so_by_its_digits(done: Path) -> None:
    text = (done / "records" / "consistency" / "digits" / "off-0.json").read_text()
    assert json.loads(text)["final"]["delta/0"] == float(f"{json.loads(text)['final']['delta/0']:.6g}")


def test_only_an_aggregated_discriminator_attends_across_scales(done: Path) -> None:
    def attention(variant: str) -> float | None:
        return read_record(done / "records" / f"{variant}-0.json").final.get("cross_scale_attention")

    assert attention("consistency/digits/off") == 0
    assert attention("aggregated/digits/aggregated") > 0.2
    assert attention("gat/digits/gat") is None


def test_a_sample_sheet_lies_beside_the_records(done: Path) -> None:
    with Image.open(done / "records" / "gat" / "digits" / "gat-0.png") as sheet:
        assert sheet.width > 300
        assert len(set(sheet.convert("L").tobytes())) > 10


def test_a_run_that_was_killed_goes_on_to_the_same_record(done: Path, quick: Testbed, tmp_path: Path) -> None:
    run = Run(OFF, quick, 0)
    script = (
        "import pickle, sys; from pathlib import Path; from catgan.studies.perform import perform\n"
        "perform(pickle.loads(bytes.fromhex(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    import pickle

    arguments = [pickle.dumps(run).hex(), str(tmp_path / "runs"), str(tmp_path / "records")]
    process = subprocess.Popen([sys.executable, "-c", script, *arguments])
    until = time.monotonic() + 120
    while step_of(tmp_path / "runs" / run.name) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "records" / f"{run.name}.json").exists()
    path = perform(run, tmp_path / "runs", tmp_path / "records")
    assert numbers(read_record(path)) == numbers(read_record(done / "records" / f"{run.name}.json"))


def test_a_run_directory_of_another_configuration_is_left_alone(done: Path, quick: Testbed, tmp_path: Path) -> None:
    other = replace(quick, config=with_values(quick.config, {"objective.penalty": 3.0}))
    with pytest.raises(UserError, match=r"is a run of another configuration \(objective\.penalty\)"):
        perform(Run(OFF, other, 0), done / "runs", tmp_path)


def test_a_run_that_another_process_has_recorded_is_left_as_it_is(done: Path, quick: Testbed) -> None:
    path = done / "records" / "consistency" / "digits" / "off-0.json"
    before = path.read_bytes()
    assert perform(Run(OFF, quick, 0), done / "runs", done / "records") == path
    assert path.read_bytes() == before


def test_a_run_that_diverges_leaves_a_record_of_that(quick: Testbed, tmp_path: Path) -> None:
    wild = {"optimizer.lr_generator": 1e30, "optimizer.lr_discriminator": 1e30}
    run = Run(OFF, replace(quick, config=with_values(quick.config, wild)), 0)
    record = read_record(perform(run, tmp_path / "runs", tmp_path / "records"))
    assert "step" in record.diverged
    assert not record.final
    assert record.commit


def test_commits_that_trained_a_run_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for commit in ("one", "one", "two"):
        monkeypatch.setattr("catgan.studies.perform.checkout", lambda commit=commit: (commit, False))
        found = sources(tmp_path / "run")
    assert [s["commit"] for s in found] == ["one", "two"]


def test_a_failed_run_is_named_and_the_others_go_on(
    quick: Testbed, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = replace(quick, config=with_values(quick.config, {"data.source": "prepared", "data.path": "nowhere"}))
    runs = [Run(OFF, replace(bad, name="bad"), 0), Run(OFF, quick, 1)]
    assert Queue(runs, tmp_path / "runs", tmp_path / "records", 1).work() == ["consistency/bad/off-0"]
    said = capfd.readouterr().err
    assert "consistency/bad/off-0 failed:" in said
    assert "nowhere" in said
    assert (tmp_path / "records" / "consistency" / "digits" / "off-1.json").exists()


def test_the_last_line_of_a_file_that_is_being_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_line(path) == ""
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert step_of(tmp_path) == 2
    path.write_text('{"step": 1}\n{"st')
    assert step_of(tmp_path) == 0
