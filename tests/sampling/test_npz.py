"""Streaming many samples into an .npz: resumable, complete, readable by evaluators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from trainers import finish, launch, start

from catgan.config import Config
from catgan.errors import UserError
from catgan.networks import build_generator
from catgan.sampling.npz import sample_npz
from catgan.sampling.pipeline import CATPipeline


class Interrupting(CATPipeline):
    """A pipeline whose process dies at some call."""

    left = 10**9

    def __call__(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def,override]
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().__call__(*args, **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def pipe(tiny_config: Config) -> Interrupting:
    return Interrupting(build_generator(tiny_config), tiny_config, ("a", "b", "c"), step=5)


def test_it_holds_what_evaluators_read(pipe: Interrupting, tmp_path: Path) -> None:
    path = sample_npz(pipe, tmp_path / "new" / "samples.npz", [0, 2], 10, 21, 1.0, 8)
    with np.load(path, allow_pickle=False) as file:
        pixels, classes = file["arr_0"], file["arr_1"]
    assert (pixels.dtype, pixels.shape) == (np.uint8, (21, 8, 8, 1))
    assert classes.tolist() == [[0, 2][i % 2] for i in range(21)]
    expected = pipe([int(classes[13])], [23]).array[0].astype(int)
    assert np.abs(pixels[13].astype(int) - expected).max() <= 1
    assert [p.name for p in path.parent.iterdir()] == ["samples.npz"]


def test_an_interrupted_one_goes_on_and_ends_the_same(pipe: Interrupting, tmp_path: Path) -> None:
    settings = ([0, 1, 2], 0, 3000, 1.0, 256)
    plain = sample_npz(pipe, tmp_path / "plain.npz", *settings)
    path = tmp_path / "stopped.npz"
    pipe.left = 8
    with pytest.raises(KeyboardInterrupt):
        sample_npz(pipe, path, *settings)
    assert not path.exists()
    pipe.left = 10
    sample_npz(pipe, path, *settings)
    assert pipe.left > 0, "it began anew"
    with np.load(plain) as a, np.load(path) as b:
        assert np.array_equal(a["arr_0"], b["arr_0"])


def test_other_settings_do_not_mix_with_unfinished_ones(pipe: Interrupting, tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    pipe.left = 8
    with pytest.raises(KeyboardInterrupt):
        sample_npz(pipe, path, [0], 0, 3000, 1.0, 256)
    pipe.left = 10**9
    with pytest.raises(UserError, match=r"unfinished sampling with another psi \(1\.0, not 0\.5\)"):
        sample_npz(pipe, path, [0], 0, 3000, 0.5, 256)


def test_a_finished_file_is_not_overwritten(pipe: Interrupting, tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    path.write_text("good")
    with pytest.raises(UserError, match="exists"):
        sample_npz(pipe, path, [0], 0, 4, 1.0, 2)
    assert path.read_text() == "good"


@pytest.mark.slow
def test_pieces_that_a_kill_at_the_very_end_left_are_taken_away(
    pipe: Interrupting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, settings = tmp_path / "samples.npz", ([0], 0, 5, 1.0, 8)
    parts = tmp_path / "samples.npz.parts"
    monkeypatch.setattr("catgan.system.pieces.discard", lambda folder: None)
    sample_npz(pipe, path, *settings)
    made = path.read_bytes()
    assert (parts / "settings.json").exists()
    with pytest.raises(UserError, match="exists"):
        sample_npz(pipe, path, [1], *settings[1:])
    assert parts.exists(), "they are not those of other samples"
    with pytest.raises(UserError, match="exists"):
        sample_npz(pipe, path, *settings)
    assert [p.name for p in tmp_path.iterdir()] == ["samples.npz"]
    assert path.read_bytes() == made


def test_two_processes_write_what_one_does(tmp_path: Path) -> None:
    finish(start(tmp_path / "run", "--steps", "1"))
    for world in (1, 2):
        options = f"--format npz --count 2100 --batch 100 --device cpu --out {tmp_path / str(world)}".split()
        said = finish(launch(["sample", str(tmp_path / "run"), *options], tmp_path, world))
        assert str(tmp_path / str(world) / "samples.npz") in said
    one, two = ((tmp_path / world / "samples.npz").read_bytes() for world in "12")
    assert one == two
