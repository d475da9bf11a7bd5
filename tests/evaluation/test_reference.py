"""References: computed once for a content, and read from files that others made."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from catgan.errors import UserError
from catgan.evaluation.collect import Keep, Work
from catgan.evaluation.frechet import Statistics
from catgan.evaluation.reference import has_images, has_statistics, of_source, read_npz, write_npz
from catgan.evaluation.sources import DatasetImages, Folder

Noise = Callable[..., DatasetImages]
KEEP = Keep(features=20, classes=3)


def test_a_reference_is_computed_once_for_a_content(noise: Noise, projection: Any, cache_folder: Path) -> None:
    space = projection(16)
    first = of_source(noise(60), space, KEEP, Work())
    assert space.seen == [60]
    again = of_source(noise(60), space, KEEP, Work())
    assert space.seen == [60]
    assert again.identity == first.identity
    assert torch.equal(again.statistics.sigma, first.statistics.sigma)
    assert again.features is not None
    assert torch.equal(again.features, first.features)
    assert [s.count for s in again.by_class] == [20, 20, 20]
    assert of_source(noise(60, seed=1), space, KEEP, Work()).identity != first.identity
    assert of_source(noise(60), space, Keep(), Work()).features is None, "less was asked for"
    other = projection(16, dim=5)
    assert of_source(noise(60), other, KEEP, Work()).identity != first.identity
    left = [p.suffix for p in (cache_folder / "references").iterdir()]
    assert left == [".safetensors"] * 4


def test_a_damaged_reference_is_computed_anew(noise: Noise, projection: Any, cache_folder: Path) -> None:
    space = projection(16)
    first = of_source(noise(60), space, KEEP, Work())
    (path,) = (cache_folder / "references").iterdir()
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"", whole.replace(b"correct", b"corrett")):
        path.write_bytes(damaged)
        again = of_source(noise(60), space, KEEP, Work())
        assert torch.equal(again.statistics.sigma, first.statistics.sigma)
        assert path.read_bytes() == whole
    assert space.seen == [60] * 4


def test_broken_files_count_in_a_cached_reference_too(projection: Any, tmp_path: Path) -> None:
    for i in range(9):
        pixels = np.random.default_rng(i).integers(256, size=(4, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "4.png").write_bytes(b"nothing")
    space = projection(16)
    patient, strict = Work(max_broken=0.2), Work(max_broken=0.1)
    found = of_source(Folder(tmp_path), space, Keep(), patient)
    assert [note[:5] for note in found.broken] == ["4.png"]
    with pytest.raises(UserError, match="1 of 9 files"):
        of_source(Folder(tmp_path), space, Keep(), strict)
    assert len(space.seen) == 1


def test_statistics_survive_the_way_through_an_npz(noise: Noise, projection: Any, tmp_path: Path) -> None:
    made = of_source(noise(60), projection(16), Keep(), Work()).statistics
    path = tmp_path / "stats.npz"
    write_npz(path, made)
    back = read_npz(path)
    assert torch.equal(back.statistics.mu, made.mu)
    assert torch.equal(back.statistics.sigma, made.sigma)
    assert (back.statistics.count, back.name) == (60, "stats.npz")
    assert (has_statistics(path), has_images(path)) == (True, False)
    write_npz(tmp_path / "same.npz", made)
    assert read_npz(tmp_path / "same.npz").identity == back.identity
    write_npz(tmp_path / "other.npz", Statistics(made.mu + 1, made.sigma, 60))
    assert read_npz(tmp_path / "other.npz").identity != back.identity


def test_a_file_in_adms_manner_is_read(tmp_path: Path) -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "adm.npz", arr_0=images, mu=np.zeros(5, np.float32), sigma=np.eye(5), mu_s=0, sigma_s=0)
    assert (has_statistics(tmp_path / "adm.npz"), has_images(tmp_path / "adm.npz")) == (True, True)
    found = read_npz(tmp_path / "adm.npz").statistics
    assert (found.dim, found.count, found.mu.dtype, found.singular) == (5, 0, torch.float64, False)
    assert not has_statistics(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"mu": np.zeros(3)}, "holds no statistics"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, r"mu is \(3,\) and sigma \(4, 4\): must be"),
        ({"mu": np.zeros((3, 1)), "sigma": np.eye(3)}, "must be"),
        ({"mu": np.array([0, np.nan, 0]), "sigma": np.eye(3)}, "not finite"),
        ({"mu": np.zeros(3), "sigma": np.full((3, 3), np.inf)}, "not finite"),
        ({"mu": np.array([print, print]), "sigma": np.eye(2)}, "holds no statistics"),
    ],
)
def test_bad_statistics_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=f"a.npz.*{said}"):
        read_npz(tmp_path / "a.npz")


def test_damaged_statistics_are_errors(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).standard_normal((8, 8))
    np.savez_compressed(tmp_path / "a.npz", mu=draws[0], sigma=draws)
    whole = (tmp_path / "a.npz").read_bytes()
    path = tmp_path / "b.npz"
    for place in range(0, len(whole), 41):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read_npz(path)
        except UserError as error:
            assert "b.npz" in str(error)  # noqa: PT017 - not every flip matters


# -- real processes --------------------------------------------------------------------------------------------------

SCRIPT = """
import json, os, sys
import torch
from pathlib import Path
from catgan.evaluation import collect as module
from catgan.evaluation.collect import Keep, Work
from catgan.evaluation.reference import of_source
from catgan.evaluation.sources import Npz
from catgan.system.processes import Processes

torch.set_num_threads(1)
module.SMALLEST_CHUNK = 50

class Space:
    name, channels, dim, classes, names_classes = "fake", 1, 6, 3, True
    matrix = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    seen = 0

    def identity(self):
        return "fake"

    def __call__(self, images):
        Space.seen += len(images)
        x = images.flatten(1).float() / 255 @ self.matrix
        return x, x[:, :3]

def run(number):
    processes = Processes.from_environment()
    for _ in range(2):  # the second time from the first process's cache
        found = of_source(Npz(Path("images.npz")), Space(), Keep(20, False, 3), Work(10, processes), Path("run"))
    said = [found.identity, found.statistics.sigma.sum().item(), found.features.sum().item()]
    Path(f"{number}.json").write_text(json.dumps([Space.seen, said]))

children = []
for number, environment in enumerate(json.loads(sys.argv[1])):
    children.append(os.fork())
    if not children[-1]:
        os.environ.update(environment)
        run(number)
        os._exit(0)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def answers(place: Path, noise: Noise, *environments: dict[str, str]) -> tuple[list[int], list[object]]:
    """How many images processes of these environments went through, and what they say of the reference."""
    np.savez(place / "images.npz", arr_0=noise(330).read(0, 330)[0].movedim(1, -1), arr_1=np.arange(330) % 3)
    named = [sys.executable, "-c", SCRIPT, json.dumps(environments)]
    done = subprocess.run(named, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = [json.loads((place / f"{number}.json").read_text()) for number in range(len(environments))]
    return [seen for seen, _ in said], [found for _, found in said]


def test_processes_of_machines_with_caches_of_their_own_meet_in_the_runs_folder(noise: Noise, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    seen, said = answers(tmp_path, noise, *(world | {"RANK": r, "CATGAN_CACHE": f"cache-{r}"} for r in "01"))
    assert (sum(seen), said[0]) == (330, said[1])
    assert not list((tmp_path / "run").iterdir())


def test_two_runs_that_start_at_once_on_new_data_compute_its_reference_once(noise: Noise, tmp_path: Path) -> None:
    seen, said = answers(tmp_path, noise, *({"CATGAN_CACHE": "cache"} for _ in range(2)))
    assert (sorted(seen), said[0]) == ([0, 330], said[1])


def test_spatial_statistics_have_names_of_their_own_in_a_file(tmp_path: Path) -> None:
    made, path = Statistics(torch.ones(3).double(), torch.eye(3).double(), 9), tmp_path / "spatial.npz"
    write_npz(path, made, "inception-spatial")
    assert has_statistics(path)
    found = read_npz(path, "inception-spatial")
    assert (found.statistics.count, found.statistics.mu.tolist()) == (9, [1, 1, 1])
    with pytest.raises(UserError, match=r"spatial.npz holds no statistics: must have mu \(d,\) and sigma \(d, d\)"):
        read_npz(path)
