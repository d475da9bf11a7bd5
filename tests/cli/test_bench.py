"""`catgan bench`: the same measurements as text and as JSON, and mistakes in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from catgan.bench import rounds
from catgan.cli import main
from catgan.cli.bench import text, timed

TINY = ["--batch", "4", "--repeats", "2", "--device", "cpu"]
TINY += ["--generator.width", "8", "--generator.heads", "1", "--discriminator.width", "8", "--discriminator.heads", "1"]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is repeated, and the number of threads is as before."""
    monkeypatch.setattr(rounds, "SHORTEST", 0.0)
    monkeypatch.setattr("catgan.bench.ceiling.SHORTEST", 0.0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["bench", "digits", "--json", *TINY, *options]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_json_has_everything_and_the_text_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "--sizes", "1,3")
    assert {
        "recipe",
        "machine",
        "settings",
        "notes",
        "ceiling",
        "parts",
        "loader",
        "python",
        "memory",
    } == set(result)
    names = [p["name"] for p in result["parts"]]
    assert names == [
        "training step",
        "discriminator step",
        "generator step",
        "generator forward",
        "sampling, batch 1",
        "sampling, batch 3",
    ]
    for part in result["parts"]:
        assert len(part["seconds"]["runs"]) == 2
        expected = part["gflop"] / part["seconds"]["median"] / result["ceiling"]["gflops"]
        assert part["share"] == pytest.approx(expected)
    peaks = result["memory"]["peak_bytes"]
    assert list(peaks) == ["fakes reused", "fakes made twice"]
    assert peaks["fakes reused"] > peaks["fakes made twice"] > 0
    assert result["settings"]["config"]["generator"]["width"] == 8
    shown = text(result)
    for said in (
        *names,
        "loader",
        "peak memory",
        "ceiling",
        "batch 4, float32",
    ):
        assert said in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_the_text_is_what_is_printed_and_progress_goes_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "digits", *TINY, "--only", "generator"]) == 0
    said = capsys.readouterr()
    assert "generator forward" in said.out
    assert "training step" not in said.out
    assert "round 2 of 2" in said.err


@pytest.mark.slow
def test_scaling_compares_little_work_with_much(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catgan.bench.scaling.LAYERS", (4, 9))
    result = run(capsys, "--only", "step,generator", "--scaling", "--repeats", "1")
    found = {s["name"]: s for s in result["scaling"]}
    assert [[p["at"] for p in s["points"]] for s in found.values()] == [[1, 8], [4, 32], [6, 9]]
    for s in found.values():
        little, much = (p["seconds"]["median"] / p["gflop"] for p in s["points"])
        assert s["ratio"] == pytest.approx(much / little)
    assert "training step by layers" in text(result)


def test_data_that_is_not_there_is_said_and_does_not_stop_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--sample.vae", "None", "--generator.depth", "4", "--discriminator.depth", "1", "--precision", "float32"]
    assert main(["bench", "cat-b2", "--json", *TINY, *small, "--only", "generator,loader"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert "data.path is not set" in result["loader"]["skipped"]
    assert "without the encoder" in result["notes"][0]
    assert "skipped" in text(result)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nothing"], "recipe is nothing: must be one of"),
        (["--json"], "the recipe comes first"),
        (["digits", "--only", "step,speed"], "--only is speed: must be some of step"),
        (["digits", "--sizes", "1,x"], "--sizes is 1,x: must be"),
        (["digits", "--repeats", "0"], "--repeats is 0: must be at least 1"),
        (["digits", "--batch", "0"], "training.batch is 0: must be at least 1"),
        (["digits", "--bacth", "4"], "--bacth"),
        (
            ["digits", "--cpu-time", "--training.threads", "2"],
            "--cpu-time measures one thread of a CPU, this would be 2",
        ),
        (["cat-h2", "--device", "cpu", "--batch", "100000"], "training.batch is 100000: a step needs about"),
    ],
)
def test_mistakes_are_one_line(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_times_read_well() -> None:
    assert timed({"median": 0.0123, "low": 0.012, "high": 0.0126}) == ("12.3 ms", "2.4 %")
    assert timed({"median": 31.2, "low": 31.2, "high": 31.2}) == ("31.2 s", "0.0 %")
