from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.studies.conftest import made_up

from catgan.config_io import with_values
from catgan.errors import UserError
from catgan.studies.catalogue import OFF, ON, Run, Testbed
from catgan.studies.records import FORMAT, path_of, read_record, recorded, summary, write_record


def test_a_record_reads_as_it_was_written(tmp_path: Path, quick: Testbed) -> None:
    record = made_up(ON, quick, 3, frechet_distance=1.5)
    path = write_record(tmp_path, record)
    assert path == path_of(tmp_path, Run(ON, quick, 3))
    assert read_record(path) == record
    assert recorded(tmp_path, Run(ON, quick, 3)) == record
    assert recorded(tmp_path, Run(OFF, quick, 3)) is None


def test_a_record_of_another_configuration_is_named_and_left_alone(tmp_path: Path, quick: Testbed) -> None:
    path = write_record(tmp_path, made_up(ON, quick, 0, frechet_distance=1.5))
    before = path.read_bytes()
    other = replace(quick, config=with_values(quick.config, {"training.batch": 32}))
    with pytest.raises(UserError, match=r"on-0\.json is of another configuration \(training\.batch\)"):
        recorded(tmp_path, Run(ON, other, 0))
    assert path.read_bytes() == before


def test_another_device_does_not_make_another_run(tmp_path: Path, quick: Testbed) -> None:
    write_record(tmp_path, made_up(ON, quick, 0, frechet_distance=1.5))
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
    record = made_up(ON, quick, 0, recall=0.5)  # 1.0 at step 5, 0.5 at step 10
    assert record.course("recall", "step", 7.5) == pytest.approx(0.75)
    assert record.course("recall", "cpu_seconds", 60) == pytest.approx(0.9)
    assert record.course("recall", "step", 1) == 1.0
    assert record.course("recall", "step", 99) == 0.5


def test_stages_are_summed_up_by_name() -> None:
    found = summary({"delta": [0.8, 0.4], "A": [0.5, 1.0]})
    assert found["delta/mean"] == pytest.approx(0.6)
    assert (found["delta/first"], found["delta/last"], found["delta/1"]) == (0.8, 0.4, 0.4)
    assert found["A_without_last"] == 0.5
