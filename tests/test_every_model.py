"""Every recipe and every shipped model, old or new, is built, trained for a step, exported, read again and sampled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import catgan
from catgan import shipped
from catgan.config import Config
from catgan.data.datasets import Images
from catgan.networks import build_discriminator, build_generator
from catgan.recipes import RECIPES, recipe
from catgan.sampling.pipeline import CATPipeline, load_discriminator
from catgan.sampling.shipping import check_golden, stored_pictures
from catgan.training.fine_tuning import start_from


def tiny(c: Config) -> Config:
    """A recipe with its scales, patches, supervision and losses, but three classes, few weights and no pretrained network,
    for one step."""
    return replace(
        c,
        sample=replace(c.sample, classes=3, vae=None),
        generator=replace(c.generator, depth=len(c.sample.scales), width=16, heads=2, z_dim=8),
        discriminator=replace(c.discriminator, depth=2, width=16, heads=2, head_dim=16, representation_dim=0),
        vision=replace(c.vision, path=None),
        objective=replace(c.objective, representation=0.0),
        training=replace(c.training, steps=1, batch=3, device="cpu", precision="float32"),
        log=replace(c.log, every=1, preview_rows=1, diagnose_samples=3),
        eval=replace(c.eval, every=0),
    )


def noise(c: Config) -> Images:
    """Three samples of three classes."""
    s = c.sample
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, s.channels, s.size, s.size)).astype(np.float32)
    return Images(pixels, np.arange(3), ("ant", "bee", "cat"))


def check_gradients(generator: nn.Module, discriminator: nn.Module, c: Config) -> None:
    """Each network's outputs have their shapes, and each of its weights a gradient."""
    z, y = torch.zeros(2, c.generator.z_dim), torch.zeros(2, dtype=torch.int64)
    h = generator(z, y, all_stages=True)
    assert h.shape == (len(c.sample.scales), 2, c.sample.channels, c.sample.size, c.sample.size)
    inputs = [torch.zeros(2, discriminator.channels, n, n) for n in discriminator.scales]
    logits = discriminator(inputs, y)
    assert logits.shape == (2, len(discriminator.scales))
    (h.sum() + logits.sum()).backward()
    for network in (generator, discriminator):
        without = [name for name, p in network.named_parameters() if p.grad is None and "representation" not in name]
        assert not without


def check_same_again(pipe: CATPipeline, folder: Path) -> None:
    """An export gives the samples of what was exported, to the bit."""
    again = catgan.load(pipe.save_pretrained(folder))
    expected = pipe([0, 1, 2], [5, 6, 7], psi=0.7, stages=True).stages
    assert expected is not None
    assert torch.isfinite(expected).all()
    assert torch.equal(again([0, 1, 2], [5, 6, 7], psi=0.7, stages=True).stages, expected)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_whole_at_its_size(name: str) -> None:
    """On tensors without memory."""
    config = recipe(name).validate()
    with torch.device("meta"):
        check_gradients(build_generator(config), build_discriminator(config), config)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_made_small_is_trained_exported_read_again_and_sampled(name: str, tmp_path: Path) -> None:
    config = tiny(recipe(name))
    run = catgan.train(config, tmp_path / "run", dataset=noise(config), quiet=True)
    check_same_again(catgan.load(run), tmp_path / "model")


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_model_gives_its_golden_samples(name: str) -> None:
    pipe, about = catgan.load(name), shipped.about(name)
    assert pipe.config.recipe == name.partition(".")[0]
    check_golden(pipe, about.golden, stored_pictures(shipped.FOLDER / name))


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_model_is_exported_and_starts_another_run(name: str, tmp_path: Path) -> None:
    pipe = catgan.load(name)
    check_same_again(pipe, tmp_path / "model")
    networks: dict[str, nn.Module] = {"generator": build_generator(pipe.config), "ema": build_generator(pipe.config)}
    networks["discriminator"] = build_discriminator(pipe.config)
    assert start_from(Path(name), networks, pipe.config) == (shipped.FOLDER / name, pipe.step)
    judge = load_discriminator(name).state_dict()
    assert all(torch.equal(t, judge[key]) for key, t in networks["discriminator"].state_dict().items())
    check_gradients(networks["generator"], networks["discriminator"], pipe.config)
