"""GAT's supervision (arXiv:2509.24935): every stage at full size, earlier ones under more noise, all before one logit.

    t_k = 1 - 0.125^(1 - k/K) + 0.01                                            0.885, 0.76, 0.51, 0.01 for K = 3
    n_k = a n_{k+1} + sqrt(t_k^2 - a^2 t_{k+1}^2) e_k,  a = (1 - t_k) / (1 - t_{k+1}),  e_k ~ N(0, I)
    D sees the channels of (1 - t_k) h_k + n_k, k = 0..K, of a fake; of a real sample x stands for every h_k

So n_k has the deviation t_k, and the noises of a sample are correlated. Noise enters after augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from catgan.config import Config
from catgan.draws import Purpose, normal
from catgan.objective.supervision import AugmentedSupervision, Draws, Kind, Network

NOISES: dict[Network, tuple[Purpose, Purpose]] = {
    "discriminator": (Purpose.LEVELS_REAL_D, Purpose.LEVELS_FAKE_D),
    "generator": (Purpose.LEVELS_REAL_G, Purpose.LEVELS_FAKE_G),
}


def noise_levels(stages: int) -> tuple[float, ...]:
    """t_0..t_K, from the earliest stage's, the highest, to the final one's, 0.01."""
    last = stages - 1
    return tuple(1 - 0.125 ** (1 - k / last) + 0.01 if k < last else 0.01 for k in range(stages))


def level_noises(e: Tensor, levels: Sequence[float]) -> list[Tensor]:
    """n_0..n_K, (n, C, S, S) each, made from the finest to the coarsest out of standard normal e (n, K + 1, C, S, S)."""
    noises, noise, finer = [], torch.zeros_like(e[:, -1]), 0.0
    for t, fresh in zip(reversed(levels), reversed(e.unbind(1)), strict=True):
        a = (1 - t) / (1 - finer)
        noise = a * noise + math.sqrt(t**2 - (a * finer) ** 2) * fresh
        noises.append(noise)
        finer = t
    return noises[::-1]


class NoiseLevelSupervision(AugmentedSupervision):
    """GAT's. One view (n, (K + 1) * C, S, S): the noisy stages as channels, the earliest first.

    Real samples and fakes have noises of their own in either network's step, `rows["real_levels"]` and
    `rows["fake_levels"]`, (n, K + 1, C, S, S) each; a perturbed twin has those of its sample.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, together=True)
        self.levels = noise_levels(len(config.sample.scales))

    def draw(
        self, step: int | Tensor, network: Network, samples: range, batch: int, perturbed: bool, device: torch.device
    ) -> Draws:
        drawn = super().draw(step, network, samples, batch, perturbed, device)
        s, seed, (real, fake) = self.config.sample, self.config.training.seed, NOISES[network]
        shape = (len(self.levels), s.channels, s.size, s.size)
        noises = {
            "real_levels": normal(seed, real, step, samples, shape, device),
            "fake_levels": normal(seed, fake, step, samples, shape, device),
        }
        return replace(drawn, rows=drawn.rows | noises)

    def show(self, stages: Tensor, kind: Kind, rows: Mapping[str, Tensor]) -> list[Tensor]:
        noises = level_noises(rows[f"{kind}_levels"], self.levels)
        each = [stages] * len(self.levels) if stages.ndim == 4 else list(stages)
        return [torch.cat([(1 - t) * x + n for t, x, n in zip(self.levels, each, noises, strict=True)], dim=1)]
