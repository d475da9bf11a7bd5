"""Saving: in the background, by several processes, in whole or sharded networks, and safe from crashes."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from catgan.checkpoint import reading as checkpoint
from catgan.checkpoint import saving
from catgan.checkpoint.manifest import MANIFEST
from catgan.checkpoint.saving import Saver, share_of
from catgan.errors import UserError
from catgan.system import files
from catgan.system.processes import Processes

SCRIPT = Path(__file__).parents[1] / "processes" / "saving_processes.py"
toy: Any = runpy.run_path(str(SCRIPT))


def processes(out: Path, *jobs: str) -> list[str]:
    """Let processes do COMMAND:NUMBER one after the other; a line for each with their exit codes."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(out), *jobs],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    return done.stdout.splitlines()


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
        assert a[name].dtype == b[name].dtype


@pytest.fixture(scope="module")
def saved_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what three make of it."""
    out = tmp_path_factory.mktemp("two")
    assert processes(out, "save:2", "convert:3") == ["save 0 0", "convert 0 0 0"]
    return out


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return toy["tensors"](toy["build"](0))


def test_what_one_process_saves_it_gets_back_bit_by_bit(expected: dict[str, Tensor], tmp_path: Path) -> None:
    saver = Saver(Processes())
    saver.save(tmp_path / "a", expected, toy["header"]())
    saver.wait()
    other = toy["build"](1)
    checkpoint.restore(checkpoint.Reader(tmp_path / "a"), *other)
    assert_same(toy["tensors"](other), expected)
    (tmp_path / "ordinary").touch()
    modes = {path.stat().st_mode for path in (*(tmp_path / "a").iterdir(), tmp_path / "ordinary")}
    assert len(modes) == 1, "others may read it as they may read any file of this user"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_what_two_processes_save_one_reads(kind: str, saved_by_two: Path, expected: dict[str, Tensor]) -> None:
    assert_same(checkpoint.read(saved_by_two / kind)[1], expected)
    other = toy["build"](1)
    checkpoint.restore(checkpoint.Reader(saved_by_two / kind), *other)
    assert_same(toy["tensors"](other), expected)
    checkpoint.verify(saved_by_two / kind)
    assert len(list((saved_by_two / kind).glob("*-00001.safetensors"))) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.parametrize("source", ["ddp", "fsdp2"])
def test_three_processes_read_what_two_saved(
    source: str, kind: str, saved_by_two: Path, expected: dict[str, Tensor]
) -> None:
    """Whole into sharded networks and back; some of three have no row of a tensor at all."""
    assert_same(checkpoint.read(saved_by_two / f"{source}-{kind}")[1], expected)


@pytest.mark.slow
def test_a_process_opens_only_the_files_that_hold_its_rows(saved_by_two: Path, expected: dict[str, Tensor]) -> None:
    reader = checkpoint.Reader(saved_by_two / "fsdp2")
    assert torch.equal(reader["ema.wide.weight"][5:7], expected["ema.wide.weight"][5:7])
    assert list(reader.opened) == ["ema-00001.safetensors"]


@pytest.mark.parametrize("world", [1, 2, 5])
def test_shares_are_even_and_together_everything(world: int, expected: dict[str, Tensor]) -> None:
    shares = [share_of(expected, Processes(rank, world)) for rank in range(world)]
    assert sorted(name for share in shares for name in share) == sorted(expected)
    sizes = [sum(piece.rows.nbytes for piece in share.values()) for share in shares]
    assert max(sizes) - min(sizes) <= max(t.nbytes for t in expected.values())


@pytest.mark.slow
def test_an_error_of_one_process_is_raised_in_all(tmp_path: Path) -> None:
    assert processes(tmp_path, "fail:2") == ["fail 0 -9"]
    for rank in range(2):
        said = (tmp_path / f"full-{rank}.txt").read_text()
        assert said.startswith(f"process 1: the disk is full: could not write {tmp_path / 'full'}")
        assert (tmp_path / f"bug-{rank}.txt").read_text() == "process 1: ValueError('a bug')"
    assert "the connection to another process is lost" in (tmp_path / "dead-0.txt").read_text()
    checkpoint.verify(tmp_path / "good")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["bug", "good"], "the bug came after completion"


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_complete_checkpoints(tmp_path: Path) -> None:
    assert processes(tmp_path, "kill:1") == ["kill 0"]


def test_a_save_is_of_its_moment_and_does_not_wait_for_the_disk(
    expected: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, real, happened = threading.Event(), saving.save_tensors, []

    def slow(*args: Any) -> None:
        go.wait(60)
        real(*args)

    monkeypatch.setattr(saving, "save_tensors", slow)
    changing = {name: t.clone() for name, t in expected.items()}
    saver = Saver(Processes())
    for step in (1, 2):
        saver.save(tmp_path / checkpoint.name(step), changing, toy["header"](step), lambda s=step: happened.append(s))
        for tensor in changing.values():
            tensor.zero_()
        if step == 1:
            assert not (tmp_path / checkpoint.name(1)).exists()
            assert not happened
            go.set()
    assert happened == [1], "one at a time"
    saver.wait()
    assert happened == [1, 2]
    assert_same(checkpoint.read(tmp_path / checkpoint.name(1))[1], expected)
    assert not any(t.any() for t in checkpoint.read(tmp_path / checkpoint.name(2))[1].values()), "the copies are new"


def test_an_error_is_raised_once_by_the_next_save_or_wait(expected: dict[str, Tensor], tmp_path: Path) -> None:
    def broken() -> None:
        raise UserError("no room for best.json")

    saver = Saver(Processes())
    for again in (saver.wait, lambda: saver.save(tmp_path / "b", expected, toy["header"]())):
        saver.save(tmp_path / "a", expected, toy["header"](), broken)
        with pytest.raises(UserError, match="no room"):
            again()
    saver.wait()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*file/c"):
        saver.save(tmp_path / "file" / "c", expected, toy["header"]())


@pytest.mark.parametrize("stage", ["save_tensors", "flush", "publish"])
def test_a_failed_save_leaves_nothing(
    stage: str, expected: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    saver = Saver(Processes())
    saver.save(tmp_path / "a", expected, toy["header"]())
    saver.wait()
    monkeypatch.setattr(saving, stage, broken)
    saver.save(tmp_path / "b", expected, toy["header"]())
    with pytest.raises(UserError, match="the disk is full"):
        saver.wait()
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_the_manifest_is_the_last_to_be_written(
    expected: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing gets its name before all of it is on the disk."""
    flushed: list[Path] = []

    def flush(path: Path) -> None:
        files.flush(path)
        assert (tmp_path / "a").exists() == (path == tmp_path)
        flushed.append(path)

    monkeypatch.setattr(saving, "flush", flush)
    saver = Saver(Processes())
    saver.save(tmp_path / "a", expected, toy["header"]())
    saver.wait()
    aside = files.aside_of(tmp_path / "a")
    assert flushed[-3:] == [aside / MANIFEST, aside, tmp_path]
    assert {p.name for p in flushed[:-3]} == {p.name for p in (tmp_path / "a").glob("*.safetensors")}


def test_a_checkpoint_of_the_same_name_is_replaced(expected: dict[str, Tensor], tmp_path: Path) -> None:
    saver = Saver(Processes())
    for step in (1, 2):
        saver.save(tmp_path / "best", expected, toy["header"](step))
    saver.wait()
    assert checkpoint.read_header(tmp_path / "best").step == 2
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
