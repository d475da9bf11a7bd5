"""Damaged checkpoints are passed over, a full disk harms nothing, and clock and host do not matter."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from trainers import (
    assert_same,
    elsewhere,
    fills_the_disk,
    finish,
    makes_read_only,
    short_of_disk,
    signalled,
    start,
    steps,
)

from catgan.checkpoint import reading as checkpoint

pytestmark = pytest.mark.slow


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["cut", "flipped"])
def test_a_damaged_checkpoint_is_passed_over(kind: str, tmp_path: Path, plain: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(plain, run)
    before, last = checkpoint.listed(run / "checkpoints")[-2:]
    weights, manifest = last / "generator-00000.safetensors", before / "manifest.json"
    digit = manifest.read_bytes().index(b'"seed": 0') + len('"seed": ')
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
        expected = {f"{last} is damaged: {weights.name} has": "using step-00000011 instead"}
    else:
        flip(weights, 8 * (weights.stat().st_size - 1000))
        flip(manifest, 8 * digit)  # now it is 1
        expected = {
            f"{last} is damaged: the checksum of {weights.name} is wrong": "using step-00000010 instead",
            f"{before} is damaged: the digest of manifest.json is wrong": "using step-00000010 instead",
        }
    said = finish(start(run, "--steps", "12", "--resume"))
    warnings = [line for line in said.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == len(expected)
    for fault, instead in expected.items():
        assert any(fault in line and line.endswith(instead) for line in warnings), said
    assert_same(run, plain)


def test_a_file_that_cannot_grow_ends_the_run_in_one_line(tmp_path: Path, plain: Path) -> None:
    """A limit of the file's size stands for a quota."""
    run = tmp_path / "run"
    (trainer,) = start(run, "--steps", "12", faults=[partial(short_of_disk, 6, 60_000)])
    assert trainer.end() == 2, trainer.said
    last = steps(run)[-1]
    assert last in (5, 6), "the sixth may still have been on its way to the disk"
    (line,) = (line for line in trainer.said.splitlines() if "error" in line)
    assert line.startswith(f"catgan train: error: cannot write {run}/checkpoints/step-{last + 1:08}: ")
    assert "File too large" in line
    assert "Traceback" not in trainer.said
    finish(start(run, "--steps", "12", "--resume"))
    assert_same(run, plain)


def test_one_line_also_where_only_the_second_process_has_no_room(tmp_path: Path, plain_of_two: Path) -> None:
    run = tmp_path / "run"
    both = start(run, "--steps", "30", world=2, faults=[partial(short_of_disk, 6, 10_000)], faulty=1)
    assert [t.end() for t in both] == [2, 2], both[0].said + both[1].said
    last = steps(run)[-1]
    assert last in (5, 6)
    (line,) = (line for t in both for line in t.said.splitlines() if "error" in line)
    assert line.startswith(f"catgan train: error: process 1: cannot write {run}/checkpoints/step-{last + 1:08}: ")
    finish(start(run, "--steps", "30", "--resume", world=2))
    assert_same(run, plain_of_two)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes, where that can be had."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_the_run_in_one_line_and_space_mends_it(small_disk: Path, plain: Path) -> None:
    run, filler = small_disk / "run", small_disk / "filler"
    (trainer,) = start(run, "--steps", "12", faults=[partial(fills_the_disk, 6, filler)], said=small_disk.parent)
    assert trainer.end() == 2, trainer.said
    assert steps(run)[-1] >= 5
    (line,) = (line for line in trainer.said.splitlines() if "error" in line)
    assert line.startswith("catgan train: error: the disk is full")
    assert "Traceback" not in trainer.said
    filler.unlink()
    finish(start(run, "--steps", "12", "--resume"))
    assert_same(run, plain)


@pytest.mark.parametrize("place", [".", "checkpoints"])
def test_a_folder_that_becomes_read_only_ends_the_run_in_one_line(place: str, small_disk: Path, plain: Path) -> None:
    run = small_disk / "run"
    becomes = partial(makes_read_only, 4, run / place)
    try:
        (trainer,) = start(run, "--steps", "12", faults=[becomes], said=small_disk.parent)
        assert trainer.end() == 2, trainer.said
    finally:
        subprocess.run(["umount", str(run / place)], check=True)
    (line,) = (line for line in trainer.said.splitlines() if "error" in line)
    assert line.startswith(f"catgan train: error: cannot write {run}")
    assert line.endswith("Read-only file system")
    assert "Traceback" not in trainer.said
    finish(start(run, "--steps", "12", "--resume", said=small_disk.parent))
    assert_same(run, plain)


def test_clock_and_host_change_nothing(tmp_path: Path, plain: Path) -> None:
    run = tmp_path / "run"
    (trainer,) = start(
        run, "--steps", "12", faults=[partial(elsewhere, -3e7, "one"), partial(signalled, 6, signal.SIGKILL)]
    )
    assert trainer.end() == -signal.SIGKILL
    finish(start(run, "--steps", "12", "--resume", faults=[partial(elsewhere, 3e8, "two")]))
    assert_same(run, plain)
    assert "on two" in (run / "logs" / "rank-00000.log").read_text(), "the fault was there"
