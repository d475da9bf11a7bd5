"""A step's batch in slices, each with the random numbers of its samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from catgan.config import Config
from catgan.draws import Purpose, normal
from catgan.objective.supervision import Draws, Network, Supervision
from catgan.training.parallel import Parallel


@dataclass
class MicroBatch:
    """Some consecutive samples of a batch, and their draws."""

    step: int | Tensor
    x: Tensor  # (n, C, S, S) real samples
    y: Tensor  # (n,) classes of real samples and fakes
    z: Tensor  # (n, z_dim) latents of the fakes
    draws: Draws  # for what the discriminator is shown
    counts: dict[str, int]  # samples of the whole batch: "batch" all of them, "penalised" those under the penalties
    encoded: Tensor | None = None  # (n, ...) what the representation target reads for x
    last: bool = True  # of this process's samples: the processes exchange gradients after it


class MicroBatches:
    """Hands out slices of this process's share of a batch, with what a network's step draws for them."""

    def __init__(self, config: Config, supervision: Supervision, parallel: Parallel, penalises: bool) -> None:
        """penalises: whether the discriminator's step needs perturbed samples."""
        self.config, self.supervision, self.parallel, self.penalises = config, supervision, parallel, penalises

    def __call__(
        self, network: Network, step: int | Tensor, x: Tensor, y: Tensor, encoded: Tensor | None = None
    ) -> Iterator[MicroBatch]:
        """x, y, encoded: this process's share. The fakes' z is shared by both networks, unless objective.fresh_z."""
        c, batch = self.config, len(x) * self.parallel.processes.world
        begin, end = self.parallel.share(batch)
        size = c.training.micro_batch or len(x)
        purpose = Purpose.Z_GENERATOR if network == "generator" and c.objective.fresh_z else Purpose.Z
        perturbed = network == "discriminator" and self.penalises
        counts = {"batch": batch, "penalised": len(self.supervision.penalised(batch))}
        for start in range(begin, end, size):
            stop = min(start + size, end)
            here, samples = slice(start - begin, stop - begin), range(start, stop)
            z = normal(c.training.seed, purpose, step, samples, (c.generator.z_dim,), x.device)
            draws = self.supervision.draw(step, network, samples, batch, perturbed, x.device)
            yield MicroBatch(
                step,
                x[here],
                y[here],
                z.to(x.dtype),
                draws.to(x.dtype),
                counts,
                None if encoded is None else encoded[here],
                last=stop == end,
            )
