"""Whoever computes the generator, a sample is the same up to rounding."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

import catgan
from catgan.cli import main
from catgan.cli.options import PictureOptions
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.errors import UserError
from catgan.networks import build_generator
from catgan.sampling.backends import BACKENDS
from catgan.sampling.pipeline import CATPipeline


@pytest.fixture
def pipe(tiny_config: Config) -> CATPipeline:
    torch.manual_seed(0)
    return CATPipeline(build_generator(tiny_config), tiny_config, ("ant", "bee", "cat"))


def available(backend: str) -> str:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'catgan[openvino]'")
    if backend == "compile" and not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("needs a C++ compiler: apt-get install g++")
    return backend


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_makes_the_samples_of_eager(pipe: CATPipeline, backend: str) -> None:
    """Alone, in batches that do not come out even, with all stages, and after going back to eager."""
    classes, seeds = [0, 1, 2, 2, 0], [3, 4, 5, 6, 7]
    eager = pipe(classes, seeds, stages=True)
    assert pipe.to(backend=available(backend)).backend == backend
    staged = pipe(classes, seeds, stages=True, batch_size=2)
    torch.testing.assert_close(staged.stages, eager.stages, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pipe(classes, seeds, batch_size=3).latents, eager.latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pipe(classes[1:2], seeds[1:2]).latents, eager.latents[1:2], rtol=1e-4, atol=1e-5)
    assert torch.equal(pipe.to(backend="eager")(classes, seeds, stages=True).stages, eager.stages)


def test_the_command_line_offers_every_backend() -> None:
    assert get_args(get_type_hints(PictureOptions)["backend"]) == BACKENDS


def test_weights_that_change_place_or_format_are_not_those_of_before(pipe: CATPipeline) -> None:
    exact = pipe([0, 1], [0, 1]).latents
    rounded = pipe.to(precision="bfloat16")([0, 1], [0, 1]).latents
    assert not torch.equal(rounded, exact)
    assert torch.equal(pipe.to("cpu", "float32")([0, 1], [0, 1]).latents, exact)


def test_a_backend_that_is_unknown_elsewhere_or_missing_is_refused_and_the_last_one_stays(
    pipe: CATPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="backend is tensorrt: must be one of eager, compile, openvino"):
        pipe.to(backend="tensorrt")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"backend openvino needs openvino.*pip install 'catgan\[openvino\]'"):
        pipe.to(backend="openvino")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"backend is compile, but there is no C\+\+ compiler"):
        pipe.to(backend="compile")
    assert pipe.backend == "eager"
    monkeypatch.setattr("catgan.sampling.pipeline.pick_device", lambda name: torch.device("cuda"))
    with pytest.raises(UserError, match="openvino, which computes on the CPU, but device is cuda"):
        pipe.to("cuda", backend="openvino")


@pytest.mark.slow
def test_sampling_by_another_backend_is_one_flag_away(tiny_config: Config, tmp_path: Path) -> None:
    available("openvino")
    noise = np.random.default_rng(0).uniform(-1, 1, (30, 1, 8, 8)).astype(np.float32)
    config = from_dict({"training": {"steps": 1}}, tiny_config)
    run = catgan.train(config, tmp_path / "run", dataset=Images(noise, np.arange(30) % 3, ("a", "b", "c")), quiet=True)
    pictures = []
    for backend in ("eager", "openvino"):
        out = tmp_path / backend
        main(["sample", str(run), "--seeds", "0-2", "--device", "cpu", "--backend", backend, "--out", str(out)])
        pictures.append(np.asarray(Image.open(out / "grid.png")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
