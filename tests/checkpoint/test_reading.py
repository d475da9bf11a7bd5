"""Checkpoints: whole or absent, readable without pickle, and honest about damage."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from catgan.checkpoint import manifest
from catgan.checkpoint import reading as checkpoint
from catgan.checkpoint.manifest import MANIFEST, DamagedError, Header, sealed
from catgan.checkpoint.saving import Saver
from catgan.config import Config
from catgan.errors import UserError
from catgan.system import files
from catgan.system.processes import Processes

KINDS = ["ema-00000.safetensors", "generator-00000.safetensors", "optimizer-00000.safetensors", MANIFEST]


@pytest.fixture
def header(tiny_config: Config) -> Header:
    return Header(7, tiny_config, ("a", "b", "ç"), ("generator: 1 * adversarial",), 56)


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {
        "generator.w": torch.randn(3, 4),
        "generator.columns": torch.randn(4, 3).T,
        "ema.n": torch.arange(3),
        "ema.sum": torch.randn(5, 2, dtype=torch.float64),
        "optimizer.generator.w.step": torch.tensor(5.0),
    }


def write(path: Path, tensors: dict[str, Tensor], header: Header) -> None:
    saver = Saver(Processes())
    saver.save(path, tensors, header)
    saver.wait()


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_what_is_written_is_read(header: Header, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "deep" / checkpoint.name(7)
    write(path, tensors, header)
    got_header, got = checkpoint.read(path)
    assert got_header == header == checkpoint.read_header(path)
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[k], tensors[k]) and got[k].dtype == tensors[k].dtype for k in tensors)
    assert set(checkpoint.read(path, ["ema."])[1]) == {"ema.n", "ema.sum"}
    checkpoint.verify(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert sorted(p.name for p in path.iterdir()) == sorted(KINDS)


def test_rows_are_read_alone(header: Header, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / checkpoint.name(7)
    write(path, tensors, header)
    stored = checkpoint.Reader(path)["ema.sum"]
    assert stored.shape == (5, 2)
    for start, stop in ((0, 5), (1, 3), (4, 9), (5, 5), (2, 2)):
        assert torch.equal(stored[start:stop], tensors["ema.sum"][start:stop])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_checkpoint_is_passed_over_in_one_line(
    kind: str, damage: str, header: Header, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    for step in (1, 2):
        write(tmp_path / checkpoint.name(step), tensors, header)
    file, said = tmp_path / checkpoint.name(2) / kind, []
    if damage == "gone":
        file.unlink()
    else:
        cut(file) if damage == "cut" else flip(file, -9)
    found = checkpoint.latest(tmp_path, said.append, lambda _, path: checkpoint.verify(path))
    assert found == tmp_path / checkpoint.name(1)
    assert len(said) == 1
    assert str(file.parent) in said[0]
    assert kind in said[0]
    assert said[0].endswith("using step-00000001 instead")


def test_no_flipped_bit_of_the_manifest_goes_unnoticed(
    header: Header, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / checkpoint.name(7)
    write(path, tensors, header)
    good = (path / MANIFEST).read_bytes()
    chance = random.Random(0)
    for position in (0, len(good) - 1, *(chance.randrange(len(good)) for _ in range(300))):
        flip(path / MANIFEST, position, chance.randrange(8))
        with pytest.raises(DamagedError):
            checkpoint.read_header(path)
        (path / MANIFEST).write_bytes(good)
    checkpoint.read_header(path)


def test_only_what_is_opened_is_checked(header: Header, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """Sampling reads the average: damage elsewhere is none of its business, and damage there is never read."""
    path = tmp_path / checkpoint.name(7)
    write(path, tensors, header)
    flip(path / "optimizer-00000.safetensors", -1)
    checkpoint.read(path, ["ema."])
    flip(path / "ema-00000.safetensors", -1)
    with pytest.raises(DamagedError, match=r"the checksum of ema-00000\.safetensors is wrong"):
        checkpoint.read(path, ["ema."])
    with pytest.raises(DamagedError, match="checksum"):
        checkpoint.verify(path)


def test_foreign_things_are_refused_without_unpickling(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/exploded",)

    old, pickled = tmp_path / "step-00000001.safetensors", tmp_path / "step-00000002"
    save_file({"x": torch.zeros(1)}, old)
    pickled.mkdir()
    (pickled / MANIFEST).write_bytes(pickle.dumps(Bomb()))
    for path in (old, pickled):
        with pytest.raises(DamagedError, match=str(path)):
            checkpoint.read(path)
    assert not (tmp_path / "exploded").exists()


def test_what_is_no_checkpoint_is_told_apart(
    header: Header, tensors: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    good, unfinished = run / "checkpoints" / checkpoint.name(1), run / "checkpoints" / checkpoint.name(2)
    write(good, tensors, header)
    assert checkpoint.resolve(good) == checkpoint.resolve(run) == good
    unfinished.mkdir()
    assert checkpoint.resolve(run) == good
    assert f"{unfinished} was never finished" in capsys.readouterr().err
    old = tmp_path / "old" / "checkpoints" / "step-00000001.safetensors"
    old.parent.mkdir(parents=True)
    old.touch()
    for path, said in (
        (unfinished, "was never finished: it has no manifest.json"),
        (tmp_path, "is no run directory .* and no checkpoint"),
        (tmp_path / "none", "does not exist"),
        (old, r"step-00000001\.safetensors is a file: checkpoints are folders"),
        (old.parent.parent, r"step-00000001\.safetensors is a file: checkpoints are folders"),
    ):
        with pytest.raises(UserError, match=said):
            checkpoint.resolve(path)


@pytest.mark.parametrize(("field", "value", "said"), [("FORMAT", 99, "format 99"), ("KIND", "cake", "but 'cake'")])
def test_another_format_or_kind_says_so(
    field: str,
    value: object,
    said: str,
    header: Header,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / checkpoint.name(7)
    with monkeypatch.context() as patch:
        patch.setattr(manifest, field, value)
        write(path, tensors, header)
    with pytest.raises(DamagedError, match=said):
        checkpoint.read(path)


def test_a_run_of_another_format_is_refused_in_one_line(
    header: Header,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "FORMAT", 2)
        write(tmp_path / "checkpoints" / checkpoint.name(7), tensors, header)
    with pytest.raises(UserError, match=r"no usable checkpoint: .*step-00000007 has checkpoint format 2, .* version"):
        checkpoint.resolve(tmp_path)
    assert capsys.readouterr().err == ""


def test_the_manifest_can_be_read_by_people(header: Header, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / checkpoint.name(7)
    write(path, tensors, header)
    content = json.loads((path / MANIFEST).read_text())
    assert (content["step"], content["samples"], content["class_names"]) == (7, 56, ["a", "b", "ç"])
    assert content["tensors"]["generator.w"] == {"shape": [3, 4], "parts": [["generator-00000.safetensors", 0]]}
    assert content["files"]["ema-00000.safetensors"]["sha256"] == files.sha256(path / "ema-00000.safetensors")


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
        write(good, tensors, header)
        with pytest.raises(UserError, match=r"the disk is full: could not write .*step-00000002"):
            write(bad, {"big": torch.zeros(1_000_000)}, header)
        assert list(tmp_path.iterdir()) == [good]
        checkpoint.verify(good)
        with pytest.raises(UserError, match=r"checkpoints will need 5,000\.0 MB"):
            checkpoint.check_space(tmp_path, 5_000_000_000)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_forecast_is_the_size_of_the_checkpoint(tiny_config: Config, header: Header, tmp_path: Path) -> None:
    from catgan.objective import default_objective
    from catgan.training.step import Step

    engine = Step(tiny_config, default_objective(tiny_config), torch.device("cpu"))
    engine.run(0, torch.randn(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64))
    networks = {"generator": engine.generator, "discriminator": engine.discriminator, "ema": engine.ema}
    path = tmp_path / checkpoint.name(1)
    write(path, checkpoint.state_tensors(networks, engine.optimizers), header)
    body = 0
    for file in path.glob("*.safetensors"):
        with file.open("rb") as opened:
            body += file.stat().st_size - 8 - int.from_bytes(opened.read(8), "little")
    assert body == pytest.approx(checkpoint.forecast(networks, tiny_config), rel=0.02)


def test_pruning_keeps_the_last_and_the_named(tmp_path: Path) -> None:
    for step in range(1, 7):
        (tmp_path / checkpoint.name(step)).mkdir()
        (tmp_path / checkpoint.name(step) / MANIFEST).touch()
    checkpoint.prune(tmp_path, 2, (2,))
    assert [p.name for p in checkpoint.listed(tmp_path)] == [checkpoint.name(n) for n in (2, 5, 6)]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("net.bias"), r"net\.bias is missing"),
        (lambda t: t.update({"net.more": torch.zeros(1)}), r"net\.more is unknown"),
        (lambda t: t.update({"net.bias": torch.zeros(3)}), r"net\.bias has shape \(3,\), not \(2,\)"),
    ],
)
def test_a_network_that_does_not_fit_is_named_and_stays_as_it_is(
    change: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    network = nn.Linear(4, 2)
    before = {k: t.clone() for k, t in network.state_dict().items()}
    stored = {f"net.{k}": torch.zeros_like(t) for k, t in before.items()}
    change(stored)
    with pytest.raises(DamagedError, match=said):
        checkpoint.load_network(network, stored, "net")
    assert all(torch.equal(t, before[k]) for k, t in network.state_dict().items())


def resealed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who can compute its digest."""
    content = json.loads((path / MANIFEST).read_text())
    del content["digest"]
    change(content)
    (path / MANIFEST).write_text(sealed(json.dumps(content)[:-1]))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b.safetensors", "..", ""])
def test_a_file_outside_of_the_folder_is_refused(
    name: str, header: Header, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / checkpoint.name(3)
    write(path, tensors, header)
    (tmp_path / "x").write_bytes(b"secret")

    def lead_out(content: dict[str, Any]) -> None:
        content["files"][name] = {"bytes": 6, "sha256": ""}

    resealed(path, lead_out)
    with pytest.raises(DamagedError, match=r"is refused: it names the file '.*', which is not in its folder$"):
        checkpoint.read_header(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(step="3"),
        lambda c: c.update(samples=-1),
        lambda c: c.update(class_names="abc"),
        lambda c: c["tensors"][min(c["tensors"])].update(parts=[["elsewhere.safetensors", 0]]),
        lambda c: c["tensors"][min(c["tensors"])].update(parts=[]),
        lambda c: c["tensors"][min(c["tensors"])].update(shape=[2**70]),
        lambda c: c.update(files=[]),
    ],
)
def test_a_manifest_of_other_kinds_of_values_is_damaged(
    change: Callable[[dict[str, Any]], object], header: Header, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / checkpoint.name(3)
    write(path, tensors, header)
    resealed(path, change)
    with pytest.raises(DamagedError, match="cannot be understood"):
        checkpoint.read_header(path)


@pytest.mark.parametrize("change", [lambda t: t.pop(min(t)), lambda t: t.update({min(t): torch.zeros(1, 1, 7)})])
def test_a_file_that_does_not_hold_what_the_manifest_says_is_damaged(
    change: Callable[[dict[str, Tensor]], object], header: Header, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / checkpoint.name(3)
    write(path, tensors, header)
    name = min(n for n in checkpoint.Reader(path) if n.startswith("generator."))
    file = next(path.glob("generator-*.safetensors"))
    content = load_file(file)
    change(content)
    save_file(content, file, {"format": "pt"})
    with pytest.raises(DamagedError, match="is damaged"):
        checkpoint.Reader(path, verified=True)[name][...]
