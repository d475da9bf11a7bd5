"""Projection into style space, and files of styles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from catgan.cli.main import main
from catgan.config import Config, SampleConfig
from catgan.config_io import from_dict
from catgan.encoders import load_vae
from catgan.errors import UserError
from catgan.networks import build_generator
from catgan.sampling.inversion import FRAMES, invert, latents_of, rate_at, total_steps
from catgan.sampling.pipeline import CATPipeline, load, load_discriminator
from catgan.sampling.styles import read_styles, write_styles

Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    "name", ["digits", pytest.param("fashion-mnist", marks=pytest.mark.slow)]
)  # the target of either: what it made is found again within 30 dB
def test_a_shipped_model_finds_its_own_pictures_again(name: str) -> None:
    pipe = load(name)
    made = pipe([0, 4, 7, 9], [1000, 1001, 1002, 1003]).latents.clamp(-1, 1)
    told: list[int] = []
    found = invert(
        pipe, made, 300, 256, discriminator=load_discriminator(name), progress=lambda done, h: told.append(done)
    )
    print(name, found.psnr, found.start_psnr)
    assert min(found.psnr) >= 30
    assert max(found.start_psnr) < 30
    assert [done for done in told if done] == list(range(1, total_steps(300) + 1))
    again = pipe(w=found.w).latents
    torch.testing.assert_close(again, found.frames[-1], rtol=1e-4, atol=1e-4)
    error = (again.clamp(-1, 1) - made).square().flatten(1).mean(1)
    assert (10 * torch.log10(4 / error)).tolist() == pytest.approx(found.psnr, abs=0.1)


def test_the_way_begins_at_the_best_start_of_the_classes_that_are_asked_for() -> None:
    pipe = load("digits")
    x = pipe([3, 8], [50, 51]).latents.clamp(-1, 1)
    found = invert(pipe, x, steps=10, starts=20, classes=[8])
    assert found.frames.shape == (1 + FRAMES + 1, 2, 1, 8, 8)
    assert {k for k, _ in found.starts} == {8}
    starts = pipe([8] * 20, range(20)).latents
    nearest = torch.cdist(x.flatten(1), starts.flatten(1)).argmin(1)
    assert [seed for _, seed in found.starts] == nearest.tolist()
    torch.testing.assert_close(found.frames[0], starts[nearest], rtol=1e-4, atol=1e-4)


def test_pictures_of_a_latent_model_are_projected_through_its_vae(tiny_config: Config, tiny_vae: Path) -> None:
    sample = SampleConfig(size=8, channels=4, classes=3, scales=(2, 4, 8), latent_scale=0.18215)
    config = replace(tiny_config, sample=sample, generator=replace(tiny_config.generator, patch=2))
    pipe = CATPipeline(build_generator(from_dict({}, config)), config, ()).with_vae(load_vae(str(tiny_vae)))
    pictures = torch.rand(1, 3, 64, 64) * 2 - 1
    targets = latents_of(pipe, pictures)
    assert targets.shape == (1, 4, 8, 8)
    found = invert(pipe, targets, steps=5, starts=4)
    assert found.w.shape == (1, 16)
    assert np.isfinite(found.psnr[0])
    distance = [(found.frames[k, 0] - targets[0]).square().mean() for k in (0, -1)]
    assert distance[1] < distance[0]


def test_rates_rise_over_a_tenth_of_the_steps_and_fall_to_nothing() -> None:
    rates = [rate_at(step, 100) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[4] == pytest.approx(0.5 * np.cos(np.pi * 0.02) ** 2)
    assert rates[10:] == pytest.approx([np.cos(np.pi * step / 200) ** 2 for step in range(10, 100)])
    assert rate_at(0, 5) == 1.0


def test_pictures_of_another_shape_are_said() -> None:
    with pytest.raises(UserError, match=r"^pictures have shape \(1, 3, 8, 8\): must be \(n, 1, 8, 8\)$"):
        invert(load("digits"), torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match=r"^steps is 0: must be at least 1$"):
        invert(load("digits"), torch.zeros(1, 1, 8, 8), steps=0)


def test_styles_come_back_to_their_generator_alone(tmp_path: Path) -> None:
    pipe, path = load("digits"), tmp_path / "styles.safetensors"
    w = pipe.style([3, 8], [0, 1])
    write_styles(path, pipe, w, ["three", "eight"])
    found, names = read_styles(path, pipe)
    assert torch.equal(found, w)
    assert names == ["three", "eight"]
    with pytest.raises(UserError, match="has styles of another generator"):
        read_styles(path, load("fashion-mnist"))
    with pytest.raises(UserError, match=r"^there is no .*: must be a file of styles"):
        read_styles(tmp_path / "nothing.safetensors", pipe)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="is no file of styles"):
        read_styles(path, pipe)


def test_the_commands_go_on_from_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.chdir(tmp_path)
    for k, pixels in enumerate(load("digits")([3, 8], [7, 8]).array):
        Image.fromarray(pixels[..., 0]).save(f"{k}.png")
    assert main(["invert", "digits", "0.png", "1.png", "--steps", "20", "--starts", "64"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["inversion/strip.png", "inversion/styles.safetensors"]
    assert [line.partition(":")[0] for line in said[2:4]] == ["0.png", "1.png"]
    assert " dB, from " in said[2]
    following = said[4].removeprefix("next: catgan ").split()
    assert main(following) == 0
    assert main(["interpolate", "digits", "--points", "inversion/styles.safetensors:1", "3:0", "--frames", "2"]) == 0
    assert Image.open("samples/stages.png").width > Image.open("samples/grid.png").width
    assert main(["sample", "digits", "--styles", "inversion/styles.safetensors", "--format", "png"]) == 0
    assert (tmp_path / "samples/style-1.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("invert digits", "no pictures: catgan invert RUN PICTURE..., see catgan invert --help"),
        ("invert digits nothing.png", "picture nothing.png cannot be read: No such file or directory"),
        ("invert digits words.png", "picture words.png cannot be read: no picture of a known format"),
        ("invert digits words.png --steps 0", "--steps is 0: must be at least 1"),
        ("sample digits --styles words.png", "words.png is no file of styles: must be one that catgan invert wrote"),
        (
            "sample digits --styles s --psi 0.5",
            "--styles says what to sample: leave out --classes, --seeds, --psi, --sheet",
        ),
        ("interpolate digits --points s.safetensors:0 3:1", "there is no s.safetensors: must be a file of styles"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.png").write_text("no picture")
    assert main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["words.png"]
