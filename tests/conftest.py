"""Shared by the whole suite: one thread, reproducible examples, and a configuration that trains in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from leaks import nothing_left

import untrained
from catgan.accounting.compute import compute
from catgan.config import (
    AugmentConfig,
    Config,
    DataConfig,
    DiscriminatorConfig,
    GeneratorConfig,
    LogConfig,
    SampleConfig,
    TrainingConfig,
)
from catgan.data.datasets import Images, digits
from catgan.recipes import recipe
from catgan.system.packages import without_reports

torch.set_num_threads(1)
without_reports()  # tests import packages themselves, too


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", type=int, default=2, help="runs of each kind with random faults (tests/faults)")
    parser.addoption("--faults-seed", default="0", help="which random faults")
    parser.addoption("--screenshots", type=Path, help="folder that the browser's tests write pictures of the studio to")
    parser.addoption("--fuzz", type=int, default=1000, help="bad inputs to readers (tests/benchmarks)")


settings.register_profile("quick", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """8x8, one channel, three classes, scales 2-4-8, every augmentation on. Change it with `from_dict(..., base)`."""
    return Config(
        recipe="digits",
        data=DataConfig(source="digits"),
        sample=SampleConfig(size=8, channels=1, classes=3, scales=(2, 4, 8)),
        generator=GeneratorConfig(depth=3, width=16, heads=2, patch=2, z_dim=8),
        discriminator=DiscriminatorConfig(depth=2, width=16, heads=2, patches=(2, 2, 2), head_dim=24),
        augment=AugmentConfig(color=0.5, translation=0.125, cutout=0.5, flip=0.4),
        training=TrainingConfig(steps=4, batch=8, device="cpu"),
        log=LogConfig(
            every=1, preview_every=2, preview_classes=3, preview_rows=2, diagnose_every=2, diagnose_samples=6
        ),
    )


@pytest.fixture(scope="session")
def computed() -> Callable[[str], dict[str, Any]]:
    """What the recipe of that name costs; counted once."""
    return cache(lambda name: compute(recipe(name)))


@pytest.fixture(scope="session")
def some_digits() -> Callable[[int], Images]:
    """Makes a dataset of that many real digits of three classes."""

    def make(count: int) -> Images:
        full = digits()
        few = (full.labels < 3).nonzero()[:count, 0]
        return Images(full.pixels[few].numpy(), full.labels[few].numpy(), ("0", "1", "2"))

    return make


@pytest.fixture(scope="session")
def tiny_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained VAE as diffusers saves it: 4 channels, 8 pixels per latent's."""
    folder = tmp_path_factory.mktemp("vae")
    torch.manual_seed(0)
    untrained.vae().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained DINOv2 as transformers saves it: 32 channels, patches of 14 pixels, made for 56."""
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    untrained.dino().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_convnext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained ConvNextV2Model as transformers saves it: maps of 8, 16, 24 and 32 channels, 16 pixels per last cell."""
    from transformers import ConvNextV2Config, ConvNextV2Model

    folder = tmp_path_factory.mktemp("convnext")
    torch.manual_seed(0)
    sizes = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "initializer_range": 0.3}
    ConvNextV2Model(ConvNextV2Config(patch_size=2, image_size=32, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the suite for processes, threads, shared memory and temporary files that it leaves."""
    with nothing_left(tmp_path_factory.mktemp("t")):
        yield


@pytest.fixture(autouse=True)
def seed() -> None:
    """Random weights and inputs are the same in every run of a test."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights, classifiers and references of a test are its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CATGAN_CACHE", str(folder))
    return folder
