from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.studies.conftest import made_up

from catgan.config_io import with_values
from catgan.errors import UserError
from catgan.studies.catalogue import OFF, ON
from catgan.studies.design import Run, Testbed
from catgan.studies.records import FORMAT, path_of, read_record, recorded, summary, write_record

NUMBERS = {"frechet_distance": 1.5, "precision": 0.6, "recall": 0.5}


def test_a_record_reads_as_it_was_written(tmp_path: Path, quick: Testbed) -> None:
    record = made_up(ON, quick, 3, **NUMBERS)
    path = write_record(tmp_path, record)
    assert path == path_of(tmp_path, Run(ON, quick, 3))
    assert read_record(path) == record
    assert recorded(tmp_path, Run(ON, quick, 3)) == record
    assert recorded(tmp_path, Run(OFF, quick, 3)) is None


def test_a_record_of_another_configuration_is_named_and_left_alone(tmp_path: Path, quick: Testbed) -> None:
    path = write_record(tmp_path, made_up(ON, quick, 0, **NUMBERS))
    before = path.read_bytes()
    other = replace(quick, config=with_values(quick.config, {"training.batch": 32}))
    with pytest.raises(UserError, match=r"on-0\.json is of another configuration \(training\.batch\)"):
        recorded(tmp_path, Run(ON, other, 0))
    assert path.read_bytes() == before


def test_another_device_does_not_make_another_run(tmp_path: Path, quick: Testbed) -> None:
    write_record(tmp_path, made_up(ON, quick, 0, **NUMBERS))
    other = replace(quick, config=with_values(quick.config, {"training.device": "cpu", "data.workers": 0}))
    assert recorded(tmp_path, Run(ON, other, 0)) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "config": {}}'])
def test_a_damaged_record_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is damaged"):
        read_record(path)


def test_a_record_of_another_format_is_refused(tmp_path: Path, quick: Testbed) -> None:
    path = write_record(tmp_path, made_up(ON, quick, 0, recall=0.5))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": FORMAT + 1}))
    with pytest.raises(UserError, match=f"no record of format {FORMAT}"):
        read_record(path)


def test_between_the_points_of_its_course_a_number_goes_straight(quick: Testbed) -> None:
    record = made_up(ON, quick, 0, recall=0.5)  # 1.0 at step 6, 0.5 at step 12
    assert record.course("recall", "step", 9) == pytest.approx(0.75)
    assert record.course("recall", "cpu_seconds", 60) == pytest.approx(0.9)
    assert record.course("recall", "step", 1) == 1.0
    assert record.course("recall", "step", 99) == 0.5


def test_stages_are_summed_up_by_name() -> None:
    found = summary({"delta": [0.8, 0.4], "A": [0.5, 1.0]})
    assert found["delta/mean"] == pytest.approx(0.6)
    assert (found["delta/first"], found["delta/last"], found["delta/1"]) == (0.8, 0.4, 0.4)
    assert found["A_without_last"] == 0.5


def test_a_record_is_not_overwritten(tmp_path: Path, quick: Testbed) -> None:
    path = write_record(tmp_path, made_up(ON, quick, 0, **NUMBERS))
    before = path.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        write_record(tmp_path, made_up(ON, quick, 0, **{**NUMBERS, "recall": 0.9}))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [({"samples": 99}, "how many samples were measured")],
)
def test_a_record_of_another_measurement_is_refused(tmp_path: Path, quick: Testbed, change, said: str) -> None:
    write_record(tmp_path, made_up(ON, quick, 0, **NUMBERS))
    with pytest.raises(UserError, match=said):
        recorded(tmp_path, Run(ON, replace(quick, **change), 0))


def test_a_record_without_a_number_that_is_measured_by_now_is_refused(tmp_path: Path, quick: Testbed) -> None:
    path = write_record(tmp_path, made_up(ON, quick, 0, **NUMBERS))
    content = json.loads(path.read_text())
    del content["final"]["recall"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="no recall"):
        recorded(tmp_path, Run(ON, quick, 0))


def test_that_a_run_diverged_is_a_record_too(tmp_path: Path, quick: Testbed) -> None:
    lost = replace(made_up(ON, quick, 0), protocol={}, diverged="generator/loss is nan at step 3")
    write_record(tmp_path, lost)
    assert recorded(tmp_path, Run(ON, quick, 0)) == lost
