"""Checkpoint files: whole or absent, readable without pickle, and honest about damage."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from catgan import files
from catgan.config import Config
from catgan.errors import UserError
from catgan.training import checkpoint
from catgan.training.checkpoint import DamagedError, Header


@pytest.fixture
def header(tiny_config: Config) -> Header:
    return Header(7, tiny_config, ("a", "b", "c"), ("generator: 1 * adversarial",))


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {
        "generator.w": torch.randn(3, 4),
        "average.n": torch.arange(3),
        "optimizer.generator.w.step": torch.tensor(5.0),
    }


def test_what_is_written_is_read(header: Header, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "deep" / checkpoint.name(7)
    checkpoint.write(path, tensors, header)
    got_header, got = checkpoint.read(path)
    assert got_header == header
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[k], tensors[k]) for k in tensors)
    assert set(checkpoint.read(path, ["average."])[1]) == {"average.n"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_truncated_files_are_damaged(header: Header, tensors: dict[str, Tensor], tmp_path: Path, cut: int) -> None:
    path = tmp_path / checkpoint.name(7)
    checkpoint.write(path, tensors, header)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedError, match="truncated or no checkpoint"):
        checkpoint.read(path)


def test_foreign_files_are_refused_without_unpickling(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/exploded",)

    pickled, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    pickled.write_bytes(pickle.dumps(Bomb()))
    save_file({"x": torch.zeros(1)}, other)
    for path in (pickled, other):
        with pytest.raises(DamagedError, match=str(path)):
            checkpoint.read(path)
    assert not (tmp_path / "exploded").exists()


def test_a_newer_format_says_so(
    header: Header, tensors: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / checkpoint.name(7)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT_VERSION", 99)
        checkpoint.write(path, tensors, header)
    with pytest.raises(DamagedError, match="format 99"):
        checkpoint.read(path)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_text(path, "good")

    def crash(aside: Path) -> None:
        aside.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(path, crash)
    assert path.read_text() == "good"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_and_keeps_the_checkpoint_before(
    header: Header, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """On a real file system of one megabyte."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root: run as root, or in a container with CAP_SYS_ADMIN")
    try:
        good, bad = tmp_path / checkpoint.name(1), tmp_path / checkpoint.name(2)
        checkpoint.write(good, tensors, header)
        with pytest.raises(UserError, match=r"the disk is full: could not write .*step-00000002"):
            checkpoint.write(bad, {"big": torch.zeros(1_000_000)}, header)
        assert list(tmp_path.iterdir()) == [good]
        checkpoint.read(good)
        with pytest.raises(UserError, match=r"checkpoints will need 5,000\.0 MB"):
            checkpoint.check_space(tmp_path, 5_000_000_000)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_forecast_is_the_size_of_the_file(tiny_config: Config, header: Header, tmp_path: Path) -> None:
    from catgan.objective import default_objective
    from catgan.training.step import Step

    engine = Step(tiny_config, default_objective(tiny_config), torch.device("cpu"))
    engine.run(0, torch.randn(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64))
    networks = {"generator": engine.generator, "discriminator": engine.discriminator, "average": engine.average}
    path = tmp_path / checkpoint.name(1)
    checkpoint.write(path, checkpoint.state_tensors(networks, engine.optimizers), header)
    with path.open("rb") as file:
        body = path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")
    assert body == pytest.approx(checkpoint.forecast(networks), rel=0.02)


def test_pruning_keeps_the_last_and_the_named(tmp_path: Path) -> None:
    for step in range(1, 7):
        (tmp_path / checkpoint.name(step)).touch()
    checkpoint.prune(tmp_path, 2, (2,))
    assert [p.name for p in checkpoint.listed(tmp_path)] == [checkpoint.name(n) for n in (2, 5, 6)]
