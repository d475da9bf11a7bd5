"""How real samples and stages become what the discriminator judges: augmentation, resizing, perturbed twins.

This is all that CAT and other multi-stage GANs differ in, beside the discriminator: CAT shows stage k at resolution k,
GAT (`noise_levels.py`) under noise of level k.
Another supervision is a class with these methods, in a file of its own; the trainer stays as it is:

    catgan.train(config, "runs/other", supervision=Other(config))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from catgan.config import Config
from catgan.draws import Purpose, normal, uniform
from catgan.networks import build_pyramid
from catgan.objective.augment import PARAMETERS, augment, register
from catgan.system.devices import kept

Network = Literal["generator", "discriminator"]
Kind = Literal["real", "fake"]


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
        self, step: int | Tensor, network: Network, samples: range, batch: int, perturbed: bool, device: torch.device
    ) -> Draws:
        """The random numbers for some samples of a batch, by their numbers in it.

        Those of a sample must depend on step, network and its number alone. step: a tensor () on the device where steps are
        recorded (training.cuda_graph). perturbed: whether twins will be asked for.
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


class AugmentedSupervision:
    """What CAT's and GAT's supervision share: augmentation, perturbed twins, and the samples that have them.

    A sample is augmented at full size, all stages of a fake alike, then shown (`show`). Its twin gets eps * noise before
    the very same augmentation. The stages of a fake share their noise where each has a logit of its own. Where a logit
    depends on several (`together`), each has its own: with shared noise the penalty would estimate |sum over j of
    grad_j d|^2 rather than the sum of |grad_j d|^2.
    """

    def __init__(self, config: Config, together: bool) -> None:
        self.config, self.together = config, together

    def show(self, stages: Tensor, kind: Kind, rows: Mapping[str, Tensor]) -> list[Tensor]:
        """The view of augmented samples (n, C, S, S) or stages (K + 1, n, C, S, S); rows: those of their draws."""
        raise NotImplementedError

    def penalised(self, batch: int) -> Tensor:
        return penalised_samples(batch, self.config.objective.penalty_fraction)

    def draw(
        self, step: int | Tensor, network: Network, samples: range, batch: int, perturbed: bool, device: torch.device
    ) -> Draws:
        seed, (real, fake) = self.config.training.seed, AUGMENTATIONS[network]
        rows = {
            "real": uniform(seed, real, step, samples, (PARAMETERS,), device),
            "fake": uniform(seed, fake, step, samples, (PARAMETERS,), device),
        }
        chosen = [number for number in self.penalised(batch).tolist() if number in samples]
        noise = {}
        if perturbed:
            stages = len(self.config.sample.scales) if self.together else 1
            noise["real"] = self.noise(Purpose.PENALTY_REAL, step, chosen, device)
            noise["fake"] = self.noise(Purpose.PENALTY_FAKE, step, chosen, device, stages)
        return Draws(rows, kept(tuple(number - samples.start for number in chosen), device), noise)

    def noise(
        self, purpose: Purpose, step: int | Tensor, samples: Sequence[int], device: torch.device, stages: int = 1
    ) -> tuple[Tensor, ...]:
        """Noise n of these m samples: one (m, C, S, S), or of several stages (m, stages, C, S, S)."""
        s = self.config.sample
        each = (s.channels, s.size, s.size)
        shape = each if stages == 1 else (stages, *each)
        return (normal(self.config.training.seed, purpose, step, samples, shape, device),)

    def real(self, x: Tensor, draws: Draws) -> list[Tensor]:
        return self.view(x, "real", draws)

    def fake(self, h: Tensor, draws: Draws) -> list[Tensor]:
        return self.view(h, "fake", draws)

    def real_perturbed(self, x: Tensor, draws: Draws) -> list[Tensor]:
        return self.perturbed(x, "real", draws)

    def fake_perturbed(self, h: Tensor, draws: Draws) -> list[Tensor]:
        return self.perturbed(h, "fake", draws)

    def register(self, images: Tensor, draws: Draws) -> Tensor:
        return register(images, draws.rows["real"], self.config.augment, self.config.sample.size)

    def view(self, samples: Tensor, kind: Kind, draws: Draws) -> list[Tensor]:
        """The view of samples (n, C, S, S) or stages (K + 1, n, C, S, S)."""
        return self.show(augment(samples, draws.rows[kind], self.config.augment), kind, draws.rows)

    def perturbed(self, samples: Tensor, kind: Kind, draws: Draws) -> list[Tensor]:
        """The view of the penalised samples plus eps * noise, with everything else as in `view`."""
        samples, (n,) = samples[..., draws.penalised, :, :, :], draws.noise[kind]
        n = n if n.ndim == 4 else n.movedim(1, 0)
        return self.augmented_twin(samples, samples + self.config.objective.penalty_eps * n, kind, draws)

    def augmented_twin(self, samples: Tensor, twins: Tensor, kind: Kind, draws: Draws) -> list[Tensor]:
        """The view of twins of the penalised samples, augmented as these are."""
        rows = {name: drawn[draws.penalised] for name, drawn in draws.rows.items()}
        anchor = samples if samples.ndim == 4 else samples[-1]
        return self.show(augment(twins, rows[kind], self.config.augment, anchor), kind, rows)


class PyramidSupervision(AugmentedSupervision):
    """CAT's: stage k at the resolution of scale k, x_k = r_k(h_k) (paper 3.1).

    With objective.penalty_noise "per_scale" the perturbation is added to each x_k, after augmentation and resizing.
    Stages are judged together where the discriminator is aggregated.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config, together=config.discriminator.aggregated)
        self.pyramid = build_pyramid(config)

    def show(self, stages: Tensor, kind: Kind, rows: Mapping[str, Tensor]) -> list[Tensor]:
        """[x_0, ..., x_K], each (n, C, S_k, S_k)."""
        return self.pyramid(stages)

    def noise(
        self, purpose: Purpose, step: int | Tensor, samples: Sequence[int], device: torch.device, stages: int = 1
    ) -> tuple[Tensor, ...]:
        """As above; or with objective.penalty_noise "per_scale" one (m, C, S_k, S_k) of each scale's size."""
        s = self.config.sample
        if self.config.objective.penalty_noise == "full":
            return super().noise(purpose, step, samples, device, stages)
        areas, seed = [size * size for size in s.scales], self.config.training.seed
        noise = normal(seed, purpose, step, samples, (s.channels, sum(areas)), device).split(areas, 2)
        return tuple(n.unflatten(2, (size, size)) for n, size in zip(noise, s.scales, strict=True))

    def perturbed(self, samples: Tensor, kind: Kind, draws: Draws) -> list[Tensor]:
        if self.config.objective.penalty_noise == "full":
            return super().perturbed(samples, kind, draws)
        samples, eps = samples[..., draws.penalised, :, :, :], self.config.objective.penalty_eps
        clean = self.augmented_twin(samples, samples, kind, draws)
        return [x + eps * n for x, n in zip(clean, draws.noise[kind], strict=True)]
