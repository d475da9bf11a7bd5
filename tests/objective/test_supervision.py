"""What the discriminator is shown: CAT's pyramid, and another supervision that is written here in one class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.data.datasets import Images
from catgan.draws import Purpose, normal, uniform
from catgan.objective import Draws, PyramidSupervision, Supervision, default_objective
from catgan.objective.supervision import Network
from catgan.training import train
from catgan.training.step import Step


class NoisyScales:
    """Each scale sees its stage under noise of a level of its own, coarse ones under more; all samples are penalised."""

    LEVELS, NOISE = 1000, 1001  # purposes of its draws

    def __init__(self, config: Config) -> None:
        self.scales, self.seed, self.eps = config.sample.scales, config.training.seed, config.objective.penalty_eps
        self.shape = (config.sample.channels, config.sample.size, config.sample.size)

    def penalised(self, batch: int) -> Tensor:
        return torch.arange(batch)

    def draw(
        self, step: int, network: Network, samples: range, batch: int, perturbed: bool, device: torch.device
    ) -> Draws:
        position = 2 * step + (network == "generator")
        rows = {"levels": uniform(self.seed, self.LEVELS, position, samples, (len(self.scales),), device)}
        rows["noise"] = normal(self.seed, self.NOISE, position, samples, self.shape, device)
        twins = {"twin": (rows["noise"].flip(-1),)} if perturbed else {}
        return Draws(rows, torch.arange(len(samples), device=device), twins)

    def view(self, stages: list[Tensor], draws: Draws) -> list[Tensor]:
        shown = []
        for k, (h, size) in enumerate(zip(stages, self.scales, strict=True)):
            level = draws.rows["levels"][:, k].view(-1, 1, 1, 1) / (k + 1)
            shown.append(((1 - level) * h + level * draws.rows["noise"])[..., :size, :size])
        return shown

    def real(self, x: Tensor, draws: Draws) -> list[Tensor]:
        return self.view([x] * len(self.scales), draws)

    def fake(self, h: Tensor, draws: Draws) -> list[Tensor]:
        return self.view(list(h), draws)

    def real_perturbed(self, x: Tensor, draws: Draws) -> list[Tensor]:
        return self.real(x + self.eps * draws.noise["twin"][0], draws)

    def fake_perturbed(self, h: Tensor, draws: Draws) -> list[Tensor]:
        return self.fake(h + self.eps * draws.noise["twin"][0], draws)

    def register(self, images: Tensor, draws: Draws) -> Tensor:
        return images


def run(config: Config, supervision: Supervision | None) -> tuple[Step, dict[str, Tensor]]:
    step = Step(config, default_objective(config), torch.device("cpu"), supervision=supervision)
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    for network in (step.generator, step.discriminator, step.ema):
        network.double()
    return step, step.run(0, x, torch.arange(8) % 3)


def test_another_supervision_trains_without_a_change_elsewhere(
    tiny_config: Config, some_digits: Callable[[int], Images], tmp_path: Path
) -> None:
    out = train(
        tiny_config, tmp_path / "run", supervision=NoisyScales(tiny_config), dataset=some_digits(12), quiet=True
    )
    assert (out / "checkpoints" / "step-00000004").is_dir()
    _, other = run(tiny_config, NoisyScales(tiny_config))
    _, cat = run(tiny_config, None)
    assert other.keys() == cat.keys()
    assert not torch.equal(other["discriminator/r1"], cat["discriminator/r1"])


@pytest.mark.parametrize("micro", [3, 4])
def test_its_draws_and_its_penalised_samples_are_the_batchs_whatever_the_micro_batches(
    tiny_config: Config, micro: int
) -> None:
    _, whole = run(tiny_config, NoisyScales(tiny_config))
    config = replace(tiny_config, training=replace(tiny_config.training, micro_batch=micro))
    _, parts = run(config, NoisyScales(config))
    assert whole["discriminator/r1"].any()
    assert all(torch.allclose(parts[name], value, rtol=1e-9) for name, value in whole.items())


def test_cats_pyramid_is_the_default(tiny_config: Config) -> None:
    ours, default = run(tiny_config, PyramidSupervision(tiny_config))[1], run(tiny_config, None)[1]
    assert all(torch.equal(ours[name], value) for name, value in default.items())


def draws(config: Config, samples: range) -> Draws:
    return PyramidSupervision(config).draw(3, "discriminator", samples, 8, True, torch.device("cpu"))


def test_some_samples_draw_the_numbers_that_they_have_in_the_batch(tiny_config: Config) -> None:
    whole, part = draws(tiny_config, range(8)), draws(tiny_config, range(3, 6))
    assert whole.penalised.tolist() == [0, 4]
    assert torch.equal(part.rows["real"], whole.rows["real"][3:6])
    assert part.penalised.tolist() == [1]
    assert torch.equal(part.noise["fake"][0], whole.noise["fake"][0][1:])


def test_only_an_aggregated_discriminator_is_shown_stages_with_noises_of_their_own(tiny_config: Config) -> None:
    """It sees them together: shared noise would let their gradients cancel in the penalty."""
    config = from_dict({"discriminator": {"aggregated": True}, "augment": {"color": 0}}, tiny_config)
    for c, own in ((from_dict({"augment": {"color": 0}}, tiny_config), False), (config, True)):
        one, h = draws(c, range(8)), torch.zeros(3, 8, 1, 8, 8)
        one = replace(one, rows={name: torch.full_like(u, 0.5) for name, u in one.rows.items()})
        finest = c.sample.scales[-1]
        fake = PyramidSupervision(replace(c, sample=replace(c.sample, scales=(finest,) * 3))).fake_perturbed(h, one)
        assert torch.equal(fake[0], fake[1]) != own
        assert len(PyramidSupervision(c).real_perturbed(h[0], one)) == 3


@pytest.mark.parametrize("kind", ["full", "per_scale"])
def test_noise_of_the_pyramid_is_that_of_its_step_and_purpose(tiny_config: Config, kind: str) -> None:
    config = from_dict({"objective": {"penalty_noise": kind}}, tiny_config)
    (purpose, step), samples = (Purpose.PENALTY_FAKE, 3), [3, 5]
    noise = PyramidSupervision(config).noise(purpose, step, samples, torch.device("cpu"))
    sizes = (8,) if kind == "full" else config.sample.scales
    assert [tuple(n.shape) for n in noise] == [(2, 1, size, size) for size in sizes]
    expected = normal(config.training.seed, purpose, step, samples, (1, sum(s * s for s in sizes)), torch.device("cpu"))
    assert torch.equal(torch.cat([n.flatten(2) for n in noise], 2), expected)
