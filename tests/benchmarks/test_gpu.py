"""`make gpu` where there is no GPU: the same code on next to nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import gpu
import gpu_profile
from catgan.errors import UserError


@pytest.mark.slow
def test_everything_is_tried_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setattr(gpu, "RECIPES", {"digits": 64, "cat-b2": 64})
    assert gpu.main(["--device", "cpu", "--no-tests", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert list(found["recipes"]) == ["digits, batch 4, eager", "cat-b2, batch 4, eager"]
    for result in found["recipes"].values():
        names = [part["name"] for part in result["parts"]]
        assert {"training step", "sampling, batch 1"} <= set(names)
        assert all(part["images_per_second"] > 0 for part in result["parts"])
        assert result["memory"]["state_bytes"] > 0
    assert found["vae"]["images_per_second"] > 0
    table = (tmp_path / "cpu.md").read_text()
    assert table in capsys.readouterr().out
    assert "cat-b2, batch 4, eager: training step" in table
    assert " 40%" in table


def test_a_part_that_fails_leaves_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[str, object]:
        raise UserError("there is too little memory")

    monkeypatch.setattr(gpu, "parts", lambda device, recipes: iter([("large", fail)]))
    monkeypatch.setattr(gpu, "vae_rate", lambda device: {"images_per_second": 1.0})
    assert gpu.main(["--device", "cpu", "--no-tests", "--out", str(tmp_path)]) == 1
    assert "- large: UserError: there is too little memory" in (tmp_path / "cpu.md").read_text()


def test_its_tests_are_run_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k draws")
    found = gpu.tests("cpu")
    assert (found["exit"], found["passed"], found["failed"]) == (0, 3, [])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "there is no CUDA GPU here; make gpu DEVICE=cpu tries the same code on a CPU\n"
    assert not list(tmp_path.iterdir())


def test_what_is_not_measured_anew_stays_in_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "vae_rate", lambda device: {"images_per_second": 1.0})
    for name in ("first", "second"):
        part = {"parts": [], "memory": None, "made": name}
        monkeypatch.setattr(gpu, "parts", lambda device, recipes, name=name, part=part: iter([(name, lambda: part)]))
        assert gpu.main(["--device", "cpu", "--no-tests", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "cpu.json").read_text())["recipes"]
    assert [result["made"] for result in found.values()] == ["first", "second"]
    assert all(result["commit"] for result in found.values())


def test_the_profile_tries_its_code_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_profile.main(["--device", "cpu", "ceilings", "penalties"]) == 0
    said = capsys.readouterr().out
    assert "TFLOP/s" in said
    assert [line.partition(":")[0] for line in said.splitlines()[4:6]] == [
        "discriminator/r1, float32",
        "discriminator/r2, float32",
    ]
    with pytest.raises(SystemExit):
        gpu_profile.main(["colour"])
