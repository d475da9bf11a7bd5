"""GAT's supervision: levels, their noises, and the one view that the discriminator gets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from catgan.config import Config
from catgan.config_io import from_dict
from catgan.networks import build_discriminator
from catgan.objective import Draws, NoiseLevelSupervision, PyramidSupervision, augment, default_supervision
from catgan.objective.noise_levels import level_noises, noise_levels
from catgan.recipes import gat

CPU = torch.device("cpu")


@pytest.fixture
def config(tiny_config: Config) -> Config:
    return gat(tiny_config)


def drawn(config: Config, samples: range = range(8), network: str = "discriminator", step: int = 3) -> Draws:
    return NoiseLevelSupervision(config).draw(step, network, samples, 8, network == "discriminator", CPU)


def data() -> tuple[Tensor, Tensor]:
    """Real samples (8, 1, 8, 8) and stages (3, 8, 1, 8, 8)."""
    return torch.rand(8, 1, 8, 8) * 2 - 1, torch.randn(3, 8, 1, 8, 8)


# -- levels and noises -------------------------------------------------------------------------------------------------


def test_levels_fall_from_stage_to_stage_to_a_hundredth() -> None:
    assert noise_levels(4) == pytest.approx((0.885, 0.76, 0.51, 0.01))
    assert noise_levels(3)[1] == pytest.approx(1 - 0.125**0.5 + 0.01)
    assert noise_levels(1) == (0.01,)


def test_each_level_has_its_deviation_and_neighbours_the_correlation_of_the_recursion() -> None:
    """n_k = a n_j + fresh noise: cov(n_k, n_j) = a t_j^2 for neighbours, and a product of such a beyond them."""
    levels = noise_levels(4)
    n = torch.stack(level_noises(torch.randn(400, 4, 1, 32, 32, dtype=torch.float64), levels)).flatten(1)
    found = n @ n.T / n.shape[1]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for k, t in enumerate(levels):
        for j in range(k, 4):  # j is finer: n_k has (1 - t_k) / (1 - t_j) of it
            expected[k, j] = expected[j, k] = (1 - t) / (1 - levels[j]) * levels[j] ** 2
    deviation = n.square().mean(1).sqrt()
    assert deviation.tolist() == pytest.approx(levels, rel=5e-3)
    assert torch.allclose(found, expected, atol=5 * 0.885**2 / n.shape[1] ** 0.5)
    assert expected[0, 1] > 0.2, "levels are far from independent"


# -- the view ----------------------------------------------------------------------------------------------------------


def test_the_view_is_the_formula_after_augmentation_stages_as_channels(config: Config) -> None:
    (x, h), draws, t = data(), drawn(config), noise_levels(3)
    see = NoiseLevelSupervision(config)
    augmented = {
        "real": [augment(x, draws.rows["real"], config.augment)] * 3,
        "fake": augment(h, draws.rows["fake"], config.augment),
    }
    for kind, (view,) in (("real", see.real(x, draws)), ("fake", see.fake(h, draws))):
        e = draws.rows[f"{kind}_levels"]
        n2 = t[2] * e[:, 2]
        a = (1 - t[1]) / (1 - t[2])
        n1 = a * n2 + (t[1] ** 2 - a**2 * t[2] ** 2) ** 0.5 * e[:, 1]
        a = (1 - t[0]) / (1 - t[1])
        n0 = a * n1 + (t[0] ** 2 - a**2 * t[1] ** 2) ** 0.5 * e[:, 0]
        for k, n in enumerate((n0, n1, n2)):
            assert torch.allclose(view[:, k : k + 1], (1 - t[k]) * augmented[kind][k] + n, atol=1e-6)
        assert view.shape == (8, 3, 8, 8)


def test_the_discriminator_has_one_grid_one_cls_and_one_logit(config: Config) -> None:
    discriminator, (x, _) = build_discriminator(config), data()
    assert discriminator.lengths == (1 + 16,)
    assert discriminator(NoiseLevelSupervision(config).real(x, drawn(config)), torch.zeros(8, dtype=int)).shape == (
        8,
        1,
    )


def test_one_field_picks_the_supervision(config: Config, tiny_config: Config) -> None:
    assert isinstance(default_supervision(config), NoiseLevelSupervision)
    assert isinstance(default_supervision(tiny_config), PyramidSupervision)


# -- draws and twins ---------------------------------------------------------------------------------------------------


def test_real_and_fake_and_both_steps_have_noises_of_their_own(config: Config) -> None:
    found = [
        drawn(config, network=n).rows[f"{k}_levels"] for n in ("discriminator", "generator") for k in ("real", "fake")
    ]
    found.append(drawn(config, step=4).rows["real_levels"])
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_draws_of_a_sample_do_not_depend_on_the_split(config: Config) -> None:
    whole, parts = drawn(config), [drawn(config, range(a, b)) for a, b in ((0, 3), (3, 8))]
    for name, rows in whole.rows.items():
        assert torch.equal(torch.cat([p.rows[name] for p in parts]), rows)
    for name, (noise,) in whole.noise.items():
        assert torch.equal(torch.cat([p.noise[name][0] for p in parts]), noise)


def test_the_whole_batch_is_penalised_with_a_noise_for_every_stage_of_a_fake(config: Config) -> None:
    draws = drawn(config)
    assert draws.penalised.tolist() == list(range(8))
    assert draws.noise["real"][0].shape == (8, 1, 8, 8)
    assert draws.noise["fake"][0].shape == (8, 3, 1, 8, 8)
    noises = draws.noise["fake"][0].unbind(1)
    assert not any(torch.equal(noises[i], noises[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_twins_differ_from_their_samples_by_the_augmented_perturbation_alone(config: Config, fraction: float) -> None:
    """Without colour augmentation is linear, so with reused parameters and levels the difference is that of eps * n."""
    config = from_dict({"augment": {"color": 0.0}, "objective": {"penalty_fraction": fraction}}, config)
    see, draws, (x, h) = NoiseLevelSupervision(config), drawn(config), data()
    some, eps = draws.penalised, config.objective.penalty_eps
    silent = replace(draws, rows={n: torch.zeros_like(r) if "levels" in n else r for n, r in draws.rows.items()})
    n = torch.zeros(3, 8, 1, 8, 8)
    n[:, some] = draws.noise["fake"][0].movedim(1, 0)
    change = see.fake_perturbed(h, draws)[0] - see.fake(h, draws)[0][some]
    assert torch.allclose(change, eps * see.fake(n, silent)[0][some], atol=1e-5)
    n = torch.zeros(8, 1, 8, 8)
    n[some] = draws.noise["real"][0]
    change = see.real_perturbed(x, draws)[0] - see.real(x, draws)[0][some]
    assert torch.allclose(change, eps * see.real(n, silent)[0][some], atol=1e-5)


def test_colour_of_a_twin_is_its_samples(config: Config) -> None:
    """A perturbation of zero changes nothing."""
    see, draws, (x, h) = NoiseLevelSupervision(config), drawn(config), data()
    still = replace(draws, noise={name: (torch.zeros_like(n[0]),) for name, n in draws.noise.items()})
    assert torch.equal(see.fake_perturbed(h, still)[0], see.fake(h, draws)[0])
    assert torch.equal(see.real_perturbed(x, still)[0], see.real(x, draws)[0])
