"""Catgan's step beside the straightforward one, and the targets of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import against_plain
import targets
from catgan.bench import ceiling, rounds
from catgan.bench.parts import FORWARD
from catgan.config_io import from_dict, to_dict
from catgan.recipes import recipe
from targets import EQUAL, STEP, Target

TINY = ["digits", "--batch", "4", "--repeats", "1", "--device", "cpu"]
TINY += ["--generator.width", "8", "--generator.heads", "1", "--discriminator.width", "8", "--discriminator.heads", "1"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is repeated, and the number of threads is as before."""
    monkeypatch.setattr(rounds, "SHORTEST", 0.0)
    monkeypatch.setattr(ceiling, "SHORTEST", 0.0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_the_straightforward_step_does_more_and_keeps_less(capsys: pytest.CaptureFixture[str]) -> None:
    against_plain.main([*TINY, "--memory", "--json"])
    result = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    (step,), (equal, shipped) = result["parts"], result["against"]
    assert equal["ratio"] == pytest.approx(equal["seconds"]["median"] / step["seconds"]["median"])
    assert shipped["gflop"] > equal["gflop"] > step["gflop"]
    assert max(equal["loss_difference"], shipped["loss_difference"]) < against_plain.TOLERANCE
    peaks = result["memory"]["peak_bytes"]
    assert list(peaks) == ["fakes reused", "fakes made twice", "plain, equal settings", "plain, as such code ships"]
    assert peaks["fakes reused"] > peaks["fakes made twice"] > peaks["plain, as such code ships"] > 0
    shown = against_plain.text(result)
    for said in ("batch 4, float32", "plain, equal settings", "plain, as such code ships", "peak memory, fakes reused"):
        assert said in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_micro_batches_are_refused() -> None:
    with pytest.raises(SystemExit, match=r"training.micro_batch is 2: must be 0"):
        against_plain.main([*TINY, "--micro-batch", "2"])


# -- targets -----------------------------------------------------------------------------------------------------------


def test_targets_are_for_recipes_as_they_are() -> None:
    assert targets.targets(recipe("digits"), "cpu")[EQUAL] == Target(3.0)
    for change in ({"generator": {"width": 32}}, {"training": {"precision": "bfloat16"}}):
        assert targets.targets(from_dict(change, recipe("digits")), "cpu") == {}
    assert targets.targets(recipe("digits"), "cuda") == {}
    assert EQUAL not in targets.targets(from_dict({"training": {"batch": 8}}, recipe("digits")), "cpu")


def test_what_was_measured_stands_beside_its_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "digits.json"
    settings = {"config": to_dict(recipe("digits")), "device": "cpu"}
    result = {
        "recipe": "digits", "settings": settings, "parts": [{"name": STEP, "share": 0.4}, {"name": FORWARD, "share": 1}],
        "against": [{"settings": EQUAL, "ratio": 3.1}], "memory": {"to_plain": 0.8}, "cold_start": {"cold": 31.0},
        "scaling": [{"name": f"{STEP} by layers", "ratio": 0.8}],
    }  # fmt: skip
    path.write_text(json.dumps(result))
    targets.main([str(path)])
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()[1:]]
    shown = {tuple(cell.strip() for cell in row if cell)[1:] for row in rows}
    assert shown == {
        (STEP, "0.4", ">= 0.5", "missed"),
        (EQUAL, "3.1", ">= 3"),
        ("memory to plain", "0.8", "<= 1"),
        ("first compiled step, cold", "31", "<= 30", "missed"),
        (f"time per operation, {STEP} by layers", "0.8", ">= 0.9 and <= 1.1", "missed"),
    }
