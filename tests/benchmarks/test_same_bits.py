"""The comparison of two versions: what it finds, and what it passes over."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "same_bits.py"
TENSORS = {"weight": np.arange(12, dtype=np.float32).reshape(4, 3), "step": np.array(3, np.float32)}


def save(folder: Path, network: str, *ranks: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for rank, tensors in enumerate(ranks):
        named = {f"{network}.{name}": tensor for name, tensor in tensors.items()}
        save_file(named, folder / f"{network}-{rank:05d}.safetensors")


def write(out: Path, name: str, text: str) -> None:
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(text)


@pytest.fixture
def a(tmp_path: Path) -> Path:
    """A capture as an older version wrote it."""
    out = tmp_path / "a"
    save(out / "digits/run/checkpoints/step-00000060", "average", TENSORS)
    write(out, "digits/run/metrics.jsonl", json.dumps({"step": 60, "generator/loss": 0.1, "time/data": 0.2}) + "\n")
    write(out, "evaluate/result.json", json.dumps({"metrics": {"recognised": 0.5}, "seconds": 3}))
    write(out, "sample/png/class-0.png", "picture")
    np.savez(out / "sample" / "samples.npz", arr_0=np.zeros((2, 3), np.uint8))
    write(out, "prepare/data/catgan.json", json.dumps({"vae_path": f"{out}/inputs/vae", "shards": [{"rows": 5}]}))
    write(out, "prepare/data/data.arrow", "rows")
    return out


@pytest.fixture
def b(a: Path, tmp_path: Path) -> Path:
    """The same numbers as a newer version writes them: other names, tensors in parts, more fields, other times."""
    out = Path(shutil.copytree(a, tmp_path / "b"))
    step = out / "digits/run/checkpoints/step-00000060"
    shutil.rmtree(step)
    w = TENSORS["weight"]
    save(step, "ema", {"weight": w[:3], "step": TENSORS["step"]}, {"weight": w[3:]})
    write(out, "digits/run/metrics.jsonl", json.dumps({"time/data": 0.3, "generator/loss": 0.1, "step": 60}) + "\n")
    write(out, "evaluate/result.json", json.dumps({"metrics": {"class_accuracy": 0.5}, "seconds": 4}))
    meta = {"vae_path": f"{out}/inputs/vae", "shards": [{"rows": 5, "sha256": "0"}]}
    write(out, "prepare/data/catgan.json", json.dumps(meta))
    return out


def compared(a: Path, b: Path, *more: str) -> tuple[int, list[str]]:
    """Exit status, and the lines that tell of differences."""
    cases = ("--cases", "digits", "evaluate", "sample", "prepare")
    done = subprocess.run([sys.executable, SCRIPT, "compare", a, b, *cases, *more], capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, [line for line in done.stdout.splitlines()[1:] if not line.endswith("equal")]


def flipped(array: np.ndarray) -> np.ndarray:
    """With the last bit of the first number changed."""
    changed = array.copy()
    changed.view(np.uint8).flat[0] ^= 1
    return changed


def change_tensor(b: Path) -> None:
    parts = ({"weight": flipped(TENSORS["weight"][:3]), "step": TENSORS["step"]}, {"weight": TENSORS["weight"][3:]})
    save(b / "digits/run/checkpoints/step-00000060", "ema", *parts)


def change_array(b: Path) -> None:
    np.savez(b / "sample" / "samples.npz", arr_0=flipped(np.zeros((2, 3), np.uint8)))


def change_sign_of_zero(b: Path) -> None:
    parts = (
        {"weight": np.where(TENSORS["weight"] == 0, np.float32(-0.0), TENSORS["weight"]), "step": TENSORS["step"]},
    )
    shutil.rmtree(b / "digits/run/checkpoints/step-00000060")
    save(b / "digits/run/checkpoints/step-00000060", "ema", *parts)


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (change_tensor, "ema.weight: 1 of 12 elements, up to 1.4e-45 apart"),
    (change_sign_of_zero, "ema.weight: 1 of 12 elements, up to 0 apart"),
    (change_array, "samples.npz/arr_0: 1 of 6 elements, up to 1 apart"),
    (lambda b: (b / "sample/png/class-0.png").unlink(), "png/class-0.png: only in the first"),
    (lambda b: write(b, "sample/png/class-1.png", "picture"), "png/class-1.png: only in the second"),
    (lambda b: write(b, "prepare/data/data.arrow", "raws"), "data/data.arrow: 1 of 4 elements"),
    (
        lambda b: write(b, "prepare/data/catgan.json", '{"shards": [{"rows": 6}]}'),
        'data/catgan.json/shards/0/rows: 5 and 6',
    ),
    (
        lambda b: write(b, "digits/run/metrics.jsonl", '{"step": 60, "generator/loss": 0.10000000000000002}\n'),
        "generator/loss: 0.1 and 0.10000000000000002",
    ),
    (lambda b: write(b, "evaluate/result.json", '{"metrics": {"accuracy": 0.5}}'), "result.json/accuracy: only in the second"),
    (lambda b: shutil.rmtree(b / "evaluate"), "result.json/class_accuracy: only in the first"),
]  # fmt: skip


def test_other_names_parts_times_and_more_fields_are_no_differences(a: Path, b: Path) -> None:
    assert compared(a, b) == (0, [])


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_one_difference_is_found_and_named(a: Path, b: Path, change: Callable[[Path], object], said: str) -> None:
    change(b)
    code, lines = compared(a, b)
    assert code == 1
    assert "DIFFERENT" in lines[0]
    assert said in lines[1]
    assert sum("DIFFERENT" in line for line in lines) == 1


def test_a_case_that_neither_has_counts_as_a_difference(a: Path, b: Path) -> None:
    shutil.rmtree(a / "sample")
    shutil.rmtree(b / "sample")
    code, lines = compared(a, b)
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith("sample")


def test_a_capture_runs_the_checkouts_catgan_and_tells_of_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout, out = tmp_path / "checkout", tmp_path / "out"
    write(checkout, "src/catgan/__init__.py", "")
    write(checkout, "src/catgan/__main__.py", "import sys\nprint(sys.argv[1:])\nsys.exit(sys.argv[1] == 'export')\n")
    capture = runpy.run_path(str(SCRIPT))["capture"]
    assert capture(checkout, out, ["export", "sample"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["sample"] * 3 + ["export"]
    assert ["failed with 1" in line for line in said] == [False] * 3 + [True]
    assert "['export', 'digits/run', 'export/model']" in (out / "logs" / "03-export.txt").read_text()
    with pytest.raises(FileExistsError):
        capture(checkout, out, ["sample"])
