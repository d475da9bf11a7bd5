"""Tiny generators on disk, and a studio that serves one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from studio_served import Served, serving

from catgan.config import Config, SampleConfig
from catgan.networks import build_generator
from catgan.sampling.pipeline import CATPipeline, load
from catgan.studio.model import Model
from catgan.studio.server import Studio


def exported(config: Config, folder: Path, names: tuple[str, ...]) -> Path:
    """A random generator with means of its classes' styles, as an exported folder."""
    torch.manual_seed(0)
    generator = build_generator(config)
    y = torch.arange(64) % config.sample.classes
    generator.update_style_mean(generator.style(torch.randn(64, config.generator.z_dim), y), y)
    return CATPipeline(generator, config, names, 7).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_model(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tiny_config, tmp_path_factory.mktemp("studio") / "tiny", ("ant", "bee", "cat"))


@pytest.fixture(scope="session")
def latent_model(tiny_config: Config, tiny_vae: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of latents 4x8x8, whose VAE makes pictures of 64 pixels."""
    sample = SampleConfig(
        size=8, channels=4, classes=3, scales=(2, 4, 8), latent_scale=0.18215, vae=str(tiny_vae.absolute())
    )
    config = replace(tiny_config, sample=sample)
    return exported(config, tmp_path_factory.mktemp("studio") / "latent", ("ant", "bee", "cat"))


@pytest.fixture
def pipe(tiny_model: Path) -> CATPipeline:
    return load(tiny_model)


@pytest.fixture
def served(pipe: CATPipeline) -> Iterator[Served]:
    """One tiny model, for this machine alone."""
    with serving(Studio([Model(pipe, "tiny")])) as made:
        yield made


@pytest.fixture
def screenshots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where pictures of the page go: the folder of --screenshots, or one of the test's own."""
    return Path(request.config.getoption("--screenshots") or tmp_path)
