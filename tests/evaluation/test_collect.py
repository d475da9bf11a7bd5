"""Streaming: neither processes, nor interruptions, nor batches change the numbers, and little stays in memory."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catgan.errors import UserError
from catgan.evaluation import collect as module
from catgan.evaluation.collect import Collected, Keep, Work, collect, kept_rows, read
from catgan.evaluation.sources import DatasetImages, Folder

ALL = Keep(features=100, logits=True, classes=3)
Noise = Callable[..., DatasetImages]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALLEST_CHUNK", 50)


def assert_same(a: Collected, b: Collected, exactly: bool = True) -> None:
    rtol = 0 if exactly else 1e-10
    for x, y in zip((a.moments, *a.by_class), (b.moments, *b.by_class), strict=True):
        assert x.count == y.count
        torch.testing.assert_close(x.mean, y.mean, rtol=rtol, atol=rtol)
        torch.testing.assert_close(x.scatter, y.scatter, rtol=rtol, atol=rtol * float(y.scatter.abs().max()))
    for x_, y_ in ((a.features, b.features), (a.logits, b.logits)):
        assert (x_ is None) == (y_ is None)
        if x_ is not None:
            torch.testing.assert_close(x_, y_, rtol=0, atol=0 if exactly else 1e-5)
    assert (a.correct, a.labelled, a.broken) == (b.correct, b.labelled, b.broken)


def test_what_is_collected_equals_all_features_at_once(noise: Noise, projection: Any) -> None:
    source, space = noise(330), projection(16)
    found = collect(source, space, ALL, Work(batch=7))
    images, y = source.read(0, 330)
    x, logits = space(images)
    np.testing.assert_allclose(found.moments.statistics.mu, x.double().numpy().mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.moments.statistics.sigma, np.cov(x.double().numpy(), rowvar=False), rtol=1e-5)
    torch.testing.assert_close(found.logits, logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.features, x[[i * 330 // 100 for i in range(100)]], rtol=1e-5, atol=1e-6)
    assert [m.count for m in found.by_class] == [110, 110, 110]
    np.testing.assert_allclose(found.by_class[1].mean, x[y == 1].double().numpy().mean(0), rtol=1e-5)
    assert found.correct == int((logits.argmax(1) == y).sum())
    assert found.labelled == 330


def test_only_what_is_wanted_is_kept(noise: Noise, projection: Any) -> None:
    found = collect(noise(60), projection(16), Keep(), Work())
    assert (found.features, found.logits, found.by_class, found.labelled) == (None, None, [], 0)


@given(batch=st.integers(1, 80))
def test_batches_change_nothing_but_rounding(noise: Noise, projection: Any, batch: int) -> None:
    source = noise(130)
    keep = Keep(features=40, logits=True)
    whole = collect(source, projection(16), keep, Work(batch=130))
    parts = collect(source, projection(16), keep, Work(batch=batch))
    torch.testing.assert_close(parts.moments.scatter, whole.moments.scatter, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(parts.features, whole.features, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts.logits, whole.logits, rtol=1e-5, atol=1e-6)


@given(count=st.integers(1, 400), kept=st.integers(1, 400), size=st.integers(1, 90))
def test_kept_rows_are_as_many_as_promised_and_evenly_spread(count: int, kept: int, size: int) -> None:
    rows = [a + i for a in range(0, count, size) for i in kept_rows(a, min(a + size, count), count, kept)]
    assert rows == sorted(set(rows))
    assert len(rows) == min(count, kept)
    assert rows[0] == 0
    assert rows[-1] < count
    gaps = set(np.diff(rows).tolist())
    assert gaps <= {max(1, count // kept), count // kept + 1}


def test_files_hold_what_was_collected(noise: Noise, projection: Any, tmp_path: Path) -> None:
    found = collect(noise(120), projection(16), ALL, Work())
    module.write(tmp_path / "a.safetensors", found)
    assert_same(read(tmp_path / "a.safetensors"), found)
    assert_same(collect(noise(120), projection(16), ALL, Work(), tmp_path / "chunks"), found)


def test_finished_chunks_are_not_done_again_and_damaged_ones_are(noise: Noise, projection: Any, tmp_path: Path) -> None:
    source = noise(330)
    plain = collect(source, projection(16), ALL, Work(batch=50), tmp_path)
    chunks = sorted(tmp_path.iterdir())
    assert len(chunks) == 7
    again = projection(16)
    assert_same(collect(source, again, ALL, Work(batch=50), tmp_path), plain)
    assert again.seen == []
    chunks[2].write_bytes(chunks[2].read_bytes()[:-3])
    chunks[3].write_bytes(b"")
    chunks[6].unlink()
    assert_same(collect(source, again, ALL, Work(batch=50), tmp_path), plain)
    assert again.seen == [50, 50, 30]


def picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(256, size=(4, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_broken_files_up_to_the_share_are_left_out(projection: Any, tmp_path: Path) -> None:
    for i in range(120):
        picture(tmp_path / f"{i:03}.png", i)
    for i in (5, 6, 77):
        (tmp_path / f"{i:03}.png").write_bytes(b"nothing")
    folder = tmp_path / "chunks"
    source, keep = Folder(tmp_path), Keep(features=60)
    with pytest.raises(UserError, match=r"3 of 120 files of .* cannot be read \(first: 005.png"):
        collect(source, projection(16), keep, Work(batch=2, max_broken=0.02), folder)
    found = collect(source, projection(16), keep, Work(batch=2, max_broken=0.025), folder)  # the chunks know
    assert found.moments.count == 117
    assert [note[:7] for note in found.broken] == ["005.png", "006.png", "077.png"]
    assert found.features is not None
    assert len(found.features) == 60, "others take the place of broken ones"


def test_a_single_image_is_not_enough(noise: Noise, projection: Any) -> None:
    with pytest.raises(UserError, match="has 1 images: at least 2"):
        collect(noise(1), projection(16), Keep(), Work())


def test_too_many_classes_for_the_memory_are_refused_at_once(noise: Noise, projection: Any) -> None:
    with pytest.raises(UserError, match=r"per-class distances of 1000 classes in 2048 features need 31.2 GiB"):
        collect(noise(4), projection(16, dim=2048), Keep(classes=1000), Work())


# -- real processes --------------------------------------------------------------------------------------------------

SCRIPT = """
import json, os, sys
import numpy as np, torch
torch.set_num_threads(1)
from pathlib import Path
from catgan.evaluation import collect as module
from catgan.evaluation.collect import Keep, Work, collect, write
from catgan.evaluation.sources import Npz
from catgan.system.processes import Processes

module.SMALLEST_CHUNK = 50

class Space:
    name, channels, dim, classes, names_classes = "fake", 1, 6, 3, True
    matrix = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    calls = 0

    def __call__(self, images):
        Space.calls += 1
        if Space.calls == int(os.environ.get("DIE_AT", 0)):
            os.kill(os.getpid(), 9)
        x = images.flatten(1).float() / 255 @ self.matrix
        return x, x[:, :3]

source, out = Npz(Path(sys.argv[1])), Path(sys.argv[2])
processes = Processes.from_environment()
found = collect(source, Space(), Keep(100, True, 3), Work(10, processes), out / "chunks")
write(out / f"{processes.rank}.safetensors", found)
(out / f"{processes.rank}.json").write_text(json.dumps(Space.calls))
"""


def start(source: Path, out: Path, **environment: object) -> subprocess.Popen[str]:
    more = {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in environment.items()}
    out.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(source), str(out)], stderr=subprocess.PIPE, text=True, env=os.environ | more
    )


@pytest.fixture
def images(tmp_path: Path, noise: Noise) -> Path:
    x, y = noise(330).read(0, 330)
    assert y is not None
    np.savez(tmp_path / "images.npz", arr_0=x.permute(0, 2, 3, 1).numpy(), arr_1=y.numpy())
    return tmp_path / "images.npz"


def test_three_processes_give_the_numbers_of_one(noise: Noise, projection: Any, images: Path, tmp_path: Path) -> None:
    alone = collect(noise(330), projection(16), ALL, Work(batch=10))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / "out"
    together = [
        start(images, out, RANK=rank, WORLD_SIZE=3, MASTER_ADDR="127.0.0.1", MASTER_PORT=port) for rank in range(3)
    ]
    for process in together:
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    assert sum(json.loads((out / f"{rank}.json").read_text()) for rank in range(3)) == 33, "the work was not shared"
    for rank in range(3):
        assert_same(read(out / f"{rank}.safetensors"), alone)


def test_a_killed_evaluation_goes_on_where_it_was(noise: Noise, projection: Any, images: Path, tmp_path: Path) -> None:
    alone = collect(noise(330), projection(16), ALL, Work(batch=10))
    out = tmp_path / "out"
    killed = start(images, out, DIE_AT=18)  # 5 batches a chunk: in the fourth chunk
    assert killed.wait(300) == -signal.SIGKILL, killed.communicate()[1]
    assert len(list((out / "chunks").glob("chunk-*"))) == 3
    resumed = projection(16)
    assert_same(collect(noise(330), resumed, ALL, Work(batch=10), out / "chunks"), alone)
    assert sum(resumed.seen) == 330 - 150


MEMORY = """
import resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from catgan.evaluation.collect import Keep, Work, collect
from catgan.evaluation.metrics import measured
from catgan.evaluation.protocol import Protocol
from catgan.evaluation.reference import Reference
import torch_fidelity.metric_isc, torch_fidelity.metric_kid, torch_fidelity.metric_prc

count, cheap, folder, *metrics = sys.argv[1:]
count = int(count)
if cheap == "cheap":  # the memory that distances need depends on the numbers of images alone
    whole = torch.cdist
    torch.cdist = lambda a, b: whole(a[:, :8], b[:, :8])

class Space:
    name, channels, dim, classes, names_classes = "fake", 1, 2048, 1008, False
    def __call__(self, images):
        draws = torch.Generator().manual_seed(int(images[0, 0, 0, 0]))
        return torch.randn(len(images), 2048, generator=draws), torch.randn(len(images), 1008, generator=draws)

class Blank:
    name, channels, class_names, broken = "blank", 1, (), []
    def __init__(self, first): self.first = first
    def __len__(self): return count
    def read(self, start, stop):
        return torch.full((stop - start, 1, 1, 1), (start // 500 + self.first) % 256, dtype=torch.uint8), None

protocol = Protocol(metrics=tuple(metrics), kid_subsets=2)
from pathlib import Path
place = Path(folder) if folder != "none" else None
def gather(name, first, keep):
    return collect(Blank(first), Space(), keep, Work(500), place and place / name)

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = count if protocol.rows_kept else 0
real = gather("real", 100, Keep(rows)) if rows else None
samples = gather("samples", 0, Keep(rows, "inception_score" in metrics))
statistics = (real or samples).moments.statistics
numbers = measured(samples, Reference("", "", statistics, real.features if real else None), protocol)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / 1024, numbers)
"""


def megabytes(count: int, cheap: str, folder: object, *metrics: str) -> float:
    """DatasetImages above that of the imports, at its highest."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(count), cheap, str(folder), *metrics],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[0])


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [False, True])
def test_distance_and_score_of_ten_thousand_images_stay_small(tmp_path: Path, chunks: bool) -> None:
    """Logits of 40 MB, twice while they are put together, and a few 2048 x 2048 matrices."""
    assert megabytes(10_000, "whole", tmp_path if chunks else "none", "distance", "inception_score") < 500


@pytest.mark.slow
def test_precision_and_recall_of_ten_thousand_images_stay_small(tmp_path: Path) -> None:
    """Features of 2 x 82 MB; all distances at once would take 400 MB a matrix."""
    assert megabytes(10_000, "cheap", tmp_path, "kid", "precision_recall") < 800
