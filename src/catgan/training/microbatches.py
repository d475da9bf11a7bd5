"""A step's batch in slices, each with its share of the random numbers that are drawn for the whole batch."""

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
    """Some consecutive samples of a batch, and their share of its draws."""

    step: int
    x: Tensor  # (n, C, S, S) real samples
    y: Tensor  # (n,) classes of real samples and fakes
    z: Tensor  # (n, z_dim) latents of the fakes
    draws: Draws  # for what the discriminator is shown
    counts: dict[str, int]  # samples of the whole batch: "batch" all of them, "penalised" those under the penalties
    encoded: Tensor | None = None  # (n, ...) what the representation target reads for x
    last: bool = True  # of this process's samples: the processes exchange gradients after it


class MicroBatches:
    """Draws all numbers of a network's step for the whole batch, and hands out slices of this process's share."""

    def __init__(self, config: Config, supervision: Supervision, parallel: Parallel, penalises: bool) -> None:
        """penalises: whether the discriminator's step needs perturbed samples."""
        self.config, self.supervision, self.parallel, self.penalises = config, supervision, parallel, penalises

    def __call__(
        self, network: Network, step: int, x: Tensor, y: Tensor, encoded: Tensor | None = None
    ) -> Iterator[MicroBatch]:
        """x, y, encoded: this process's share. The fakes' z is shared by both networks, unless objective.fresh_z."""
        c, batch = self.config, len(x) * self.parallel.processes.world
        begin, end = self.parallel.share(batch)
        size = c.training.micro_batch or len(x)
        purpose = Purpose.Z_GENERATOR if network == "generator" and c.objective.fresh_z else Purpose.Z
        z = normal(c.training.seed, purpose, step, (batch, c.generator.z_dim))
        draws = self.supervision.draw(step, network, batch, network == "discriminator" and self.penalises)
        counts = {"batch": batch, "penalised": len(draws.penalised)}
        for start in range(begin, end, size):
            stop = min(start + size, end)
            here = slice(start - begin, stop - begin)
            yield MicroBatch(
                step,
                x[here],
                y[here],
                z[start:stop].to(x.device, x.dtype, non_blocking=True),
                draws.part(start, stop).to(x.device, x.dtype),
                counts,
                None if encoded is None else encoded[here],
                last=stop == end,
            )
