"""The pipeline: a sample is a function of its class and seed, and of nothing around it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import catgan
from catgan.config import Config
from catgan.data.datasets import Images
from catgan.draws import sample_z
from catgan.errors import UserError
from catgan.sampling.pipeline import CATPipeline


@pytest.fixture(scope="module")
def run(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of training on noise with three named classes."""
    out = tmp_path_factory.mktemp("run")
    labels = np.arange(30) % 3
    data = Images(
        np.random.default_rng(0).uniform(-1, 1, (30, 1, 8, 8)).astype(np.float32), labels, ("ant", "bee", "cat")
    )
    catgan.train(
        dataclasses.replace(tiny_config, training=dataclasses.replace(tiny_config.training, steps=3)),
        out,
        dataset=data,
        quiet=True,
    )
    return out


@pytest.fixture
def pipe(run: Path) -> CATPipeline:
    return catgan.load(run)


def test_three_lines_make_pictures(run: Path) -> None:
    pipe = catgan.load(run)
    images = pipe(classes=[2], seeds=[0], psi=0.85).images
    assert [image.size for image in images] == [(8, 8)]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_a_sample_depends_on_its_class_and_seed_alone(pipe: CATPipeline, batch_size: int) -> None:
    classes, seeds = [0, 1, 2, 1, 0, 2, 2], [5, 5, 9, 2**62, 0, 9, 1]
    together = pipe(classes, seeds, psi=0.7, batch_size=batch_size).latents
    alone = torch.cat([pipe([c], [s], psi=0.7).latents for c, s in zip(classes, seeds, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[2], together[5], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[4])


def test_one_class_goes_with_many_seeds_and_the_other_way_round(pipe: CATPipeline) -> None:
    assert pipe([1], [0, 1, 2]).latents.shape[0] == 3
    assert torch.equal(pipe([0, 1], [4]).latents, pipe([0, 1], [4, 4]).latents)
    with pytest.raises(UserError, match="2 classes and 3 seeds"):
        pipe([0, 1], [0, 1, 2])


def test_classes_have_names(pipe: CATPipeline) -> None:
    assert torch.equal(pipe(["bee"], [3]).latents, pipe([1], [3]).latents)
    for unknown in ("dog", 3, -1, "7"):
        with pytest.raises(
            UserError, match=rf"class is {unknown}: must be a number from 0 to 2 or one of ant, bee, cat"
        ):
            pipe([unknown], [0])


def test_numbers_of_any_integer_type_will_do_and_others_will_not(pipe: CATPipeline) -> None:
    assert torch.equal(pipe(np.arange(3), np.arange(3)).latents, pipe([0, 1, 2], [0, 1, 2]).latents)
    for classes, seeds in (([1.5], [0]), ([0], [0.5]), ([], [0]), ([0], [])):
        with pytest.raises(UserError):
            pipe(classes, seeds)  # type: ignore[arg-type]


def test_own_z_and_own_w_do_what_seeds_do(pipe: CATPipeline) -> None:
    expected = pipe([0, 1], [7, 8], psi=0.5).latents
    assert torch.equal(pipe([0, 1], z=sample_z([7, 8], 8), psi=0.5).latents, expected)
    assert torch.equal(pipe(w=pipe.style([0, 1], [7, 8], psi=0.5)).latents, expected)
    with pytest.raises(UserError, match=r"z has shape \(2, 5\): must be \(n, 8\)"):
        pipe([0], z=torch.zeros(2, 5))
    with pytest.raises(UserError, match=r"w has shape \(2, 5\): must be \(n, 16\)"):
        pipe(w=torch.zeros(2, 5))


def test_stages_end_in_the_sample(pipe: CATPipeline) -> None:
    made = pipe([0, 1], [0, 1], stages=True, batch_size=1)
    assert made.stages is not None
    assert made.stages.shape == (3, 2, 1, 8, 8)
    assert torch.equal(made.stages[-1], made.latents)
    assert pipe([0], [0]).stages is None


def test_psi_zero_gives_the_class_mean(pipe: CATPipeline) -> None:
    a, b = pipe([1], [0, 1], psi=0.0).latents
    torch.testing.assert_close(a, b)


def test_one_class_and_one_seed_need_no_list(pipe: CATPipeline) -> None:
    expected = pipe([1], [3]).latents
    name = pipe.class_names[1]
    for classes, seeds in ((1, 3), (np.int64(1), np.int64(3)), (name, 3), ([name], 3), (iter([1]), [3])):
        assert torch.equal(pipe(classes, seeds).latents, expected)
    with pytest.raises(UserError, match="class is birds: must be a number"):
        pipe("birds")
    with pytest.raises(UserError, match="class is 77: must be a number"):
        pipe(77)
    with pytest.raises(UserError, match="2 classes and 3 seeds: must be equally many"):
        pipe([0, 1], [0, 1, 2])


def test_what_is_shown_of_an_object_is_one_short_line(pipe: CATPipeline) -> None:
    made = pipe([0, 1], [0, 1], stages=True)
    for thing in (pipe, made):
        assert len(repr(thing)) < 120
    assert "2 of" in repr(made)
    assert f"step {pipe.step}" in repr(pipe)


@pytest.mark.parametrize("psi", [-0.1, 1.01, float("nan")])
def test_psi_outside_zero_to_one_is_refused(pipe: CATPipeline, psi: float) -> None:
    with pytest.raises(UserError, match=r"psi is .*: must be in \[0, 1\]"):
        pipe([0], [0], psi=psi)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_outside_their_range_are_refused(pipe: CATPipeline, seed: int) -> None:
    with pytest.raises(UserError, match=rf"seed is {seed}: must be in \[0, 2\^63\)"):
        pipe([0], [seed])


def test_average_and_raw_weights_are_both_there(run: Path) -> None:
    average, raw = catgan.load(run), catgan.load(run, weights="generator")
    assert not torch.equal(average([0], [0]).latents, raw([0], [0]).latents)
    with pytest.raises(UserError, match="weights is best"):
        catgan.load(run, weights="best")


def test_a_checkpoint_loads_like_its_run(run: Path) -> None:
    saved = run / "checkpoints" / "step-00000003"
    assert torch.equal(catgan.load(saved)([0], [0]).latents, catgan.load(run)([0], [0]).latents)
    with pytest.raises(UserError, match="does not exist"):
        catgan.load(run / "nowhere")


def test_bfloat16_is_close_and_still_float32_outside(pipe: CATPipeline) -> None:
    exact = pipe([0, 1], [0, 1]).latents
    rough = pipe.to(precision="bfloat16")([0, 1], [0, 1]).latents
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1
    with pytest.raises(UserError, match="precision is float8"):
        pipe.to(precision="float8")
    with pytest.raises(UserError, match="device is tpu"):
        pipe.to("tpu")


def test_latents_are_not_mistaken_for_pixels(pipe: CATPipeline) -> None:
    samples = dataclasses.replace(pipe([0], [0]), latents=torch.zeros(1, 4, 8, 8))
    with pytest.raises(UserError, match="latents of 4 channels"):
        _ = samples.images
