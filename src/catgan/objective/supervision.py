"""How real samples and stages become what the discriminator judges: augmentation, resizing, perturbed twins.

This is all that CAT and other multi-stage GANs differ in, beside the discriminator: CAT shows stage k at resolution k.
Another supervision is a class with these methods, in a file of its own; the trainer stays as it is:

    catgan.train(config, "runs/other", supervision=Other(config))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from catgan.config import Config
from catgan.draws import Purpose, normal, uniform
from catgan.networks import build_pyramid
from catgan.objective.augment import PARAMETERS, augment, register

Network = Literal["generator", "discriminator"]


@dataclass(frozen=True)
class Draws:
    """The random numbers of one network's step, for consecutive samples of a batch: whatever a supervision needs."""

    rows: dict[str, Tensor]  # (n, ...) each, a row per sample
    penalised: Tensor  # (m,) which of the n samples are under the penalties
    noise: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)  # (m, ...) each, a row per penalised sample

    def to(self, dtype: torch.dtype) -> Draws:
        """Numbers as `dtype`."""
        return Draws(
            {name: rows.to(dtype) for name, rows in self.rows.items()},
            self.penalised,
            {name: tuple(n.to(dtype) for n in ns) for name, ns in self.noise.items()},
        )


class Supervision(Protocol):
    """What the discriminator is shown. A view is a list of tensors (n, ...): what the discriminator takes."""

    def penalised(self, batch: int) -> Tensor:
        """The numbers of those samples of a batch that are under the penalties, ascending."""
        ...

    def draw(
        self, step: int, network: Network, samples: range, batch: int, perturbed: bool, device: torch.device
    ) -> Draws:
        """The random numbers for some samples of a batch, by their numbers in it.

        Those of a sample must depend on step, network and its number alone. perturbed: whether twins will be asked for.
        """
        ...

    def real(self, x: Tensor, draws: Draws) -> list[Tensor]:
        """The view of real samples x (n, C, S, S)."""
        ...

    def fake(self, h: Tensor, draws: Draws) -> list[Tensor]:
        """The view of stages h (K + 1, n, C, S, S)."""
        ...

    def real_perturbed(self, x: Tensor, draws: Draws) -> list[Tensor]:
        """The view of the penalised samples (m, ...) plus eps * noise, with everything else as in `real`."""
        ...

    def fake_perturbed(self, h: Tensor, draws: Draws) -> list[Tensor]:
        """The same of the penalised fakes, with everything else as in `fake`."""
        ...

    def register(self, images: Tensor, draws: Draws) -> Tensor:
        """Raw images (n, 3, P, P), for an encoder, moved and mirrored as `real` does their samples."""
        ...


def penalised_samples(batch: int, fraction: float) -> Tensor:
    """Global indices of the samples under the penalties: evenly spread, at least one."""
    count = max(1, int(batch * fraction))
    return torch.arange(count) * batch // count


AUGMENTATIONS: dict[Network, tuple[Purpose, Purpose]] = {
    "discriminator": (Purpose.AUGMENT_REAL_D, Purpose.AUGMENT_FAKE_D),
    "generator": (Purpose.AUGMENT_REAL_G, Purpose.AUGMENT_FAKE_G),
}


class PyramidSupervision:
    """CAT's: augment at full size, then resize stage k to scale k, x_k = r_k(h_k) (paper 3.1).

    All stages of a fake share their augmentation. Perturbations are added to the full-size sample and to every stage
    before augmentation, or with objective.penalty_noise "per_scale" to each x_k. The stages of a fake share their noise
    too, unless the discriminator is aggregated: d_k then depends on all of them, and with shared noise the penalty would
    estimate |sum over j of grad_j d_k|^2 rather than the sum of |grad_j d_k|^2.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.pyramid = config, build_pyramid(config)

    def penalised(self, batch: int) -> Tensor:
        return penalised_samples(batch, self.config.objective.penalty_fraction)

    def draw(
        self, step: int, network: Network, samples: range, batch: int, perturbed: bool, device: torch.device
    ) -> Draws:
        seed, (real, fake) = self.config.training.seed, AUGMENTATIONS[network]
        rows = {
            "real": uniform(seed, real, step, samples, (PARAMETERS,), device),
            "fake": uniform(seed, fake, step, samples, (PARAMETERS,), device),
        }
        chosen = [number for number in self.penalised(batch).tolist() if number in samples]
        noise = {}
        if perturbed:
            stages = len(self.pyramid.scales) if self.config.discriminator.aggregated else 1
            noise["real"] = self.noise(Purpose.PENALTY_REAL, step, chosen, device)
            noise["fake"] = self.noise(Purpose.PENALTY_FAKE, step, chosen, device, stages)
        return Draws(rows, torch.tensor(chosen, dtype=torch.int64, device=device) - samples.start, noise)

    def noise(
        self, purpose: Purpose, step: int, samples: Sequence[int], device: torch.device, stages: int = 1
    ) -> tuple[Tensor, ...]:
        """Noise n of these m samples: one (m, C, S, S), of several stages (m, stages, C, S, S); or with
        objective.penalty_noise "per_scale" one (m, C, S_k, S_k) of each scale's size."""
        s, seed = self.config.sample, self.config.training.seed
        if self.config.objective.penalty_noise == "per_scale":
            areas = [size * size for size in s.scales]
            noise = normal(seed, purpose, step, samples, (s.channels, sum(areas)), device).split(areas, 2)
            return tuple(n.unflatten(2, (size, size)) for n, size in zip(noise, s.scales, strict=True))
        each = (s.channels, s.size, s.size)
        return (normal(seed, purpose, step, samples, each if stages == 1 else (stages, *each), device),)

    def real(self, x: Tensor, draws: Draws) -> list[Tensor]:
        return self.view(x, draws.rows["real"])

    def fake(self, h: Tensor, draws: Draws) -> list[Tensor]:
        return self.view(h, draws.rows["fake"])

    def real_perturbed(self, x: Tensor, draws: Draws) -> list[Tensor]:
        return self.perturbed(x, draws.rows["real"], draws.penalised, draws.noise["real"])

    def fake_perturbed(self, h: Tensor, draws: Draws) -> list[Tensor]:
        return self.perturbed(h, draws.rows["fake"], draws.penalised, draws.noise["fake"])

    def register(self, images: Tensor, draws: Draws) -> Tensor:
        return register(images, draws.rows["real"], self.config.augment, self.config.sample.size)

    def view(self, samples: Tensor, u: Tensor) -> list[Tensor]:
        """[x_0, ..., x_K] of samples (n, C, S, S) or stages (K + 1, n, C, S, S), augmented by u (n, 9)."""
        return self.pyramid(augment(samples, u, self.config.augment))

    def perturbed(self, samples: Tensor, u: Tensor, chosen: Tensor, noise: tuple[Tensor, ...]) -> list[Tensor]:
        """The view of the chosen samples plus eps * noise, under the very same augmentation."""
        eps, policy = self.config.objective.penalty_eps, self.config.augment
        samples = samples[..., chosen, :, :, :]
        anchor = samples if samples.ndim == 4 else samples[-1]
        if self.config.objective.penalty_noise == "full":
            n = noise[0] if noise[0].ndim == 4 else noise[0].movedim(1, 0)
            return self.pyramid(augment(samples + eps * n, u[chosen], policy, anchor))
        clean = self.pyramid(augment(samples, u[chosen], policy, anchor))
        return [x + eps * n for x, n in zip(clean, noise, strict=True)]
