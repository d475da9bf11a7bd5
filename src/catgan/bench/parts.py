"""The things that are measured: training steps, the generator, sampling, the loader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import torch
from torch import Tensor

from catgan.bench.meters import Meter, Part
from catgan.config import Config
from catgan.data import Dataset, prefetch
from catgan.objective import default_objective
from catgan.sampling.backends import Backend
from catgan.sampling.pipeline import CATPipeline
from catgan.training.batches import Batches
from catgan.training.graph import Metrics
from catgan.training.step import Step

STEP, HALVES = "training step", {"discriminator": "discriminator step", "generator": "generator step"}
FORWARD, SAMPLING, LOADER = "generator forward", "sampling", "loader"


def measured(config: Config) -> Config:
    """The configuration without its encoder: real samples, but not raw images, are simple to make up."""
    return replace(
        config,
        encoder=replace(config.encoder, path=None),
        objective=replace(config.objective, representation=0.0),
        discriminator=replace(config.discriminator, representation_dim=0),
    )


def inputs(config: Config, device: torch.device) -> tuple[Tensor, Tensor]:
    """Made-up real samples x (B, C, S, S) and classes y (B,): nothing takes longer or shorter because of them."""
    s, batch = config.sample, config.training.batch
    generator = torch.Generator().manual_seed(config.training.seed)
    x = torch.randn(batch, s.channels, s.size, s.size, generator=generator)
    y = torch.randint(s.classes, (batch,), generator=generator)
    return x.to(device), y.to(device)


class MeasuredStep(Step):
    """A step that notes when its halves begin and end."""

    def __init__(self, config: Config, device: torch.device) -> None:
        super().__init__(config, default_objective(config), device)
        self.meter: Meter | None = None
        self.marks: list[tuple[str, Any]] = []
        self.count = 0

    def mark(self, name: str) -> None:
        if self.meter is not None:
            self.marks.append((name, self.meter.now()))

    def generate_with_gradient(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.mark("generate")
        made = super().generate_with_gradient(z, y)
        self.mark("generated")
        return made

    def generate_without_gradient(self, z: Tensor, y: Tensor) -> Tensor:
        self.mark("generate")
        made = super().generate_without_gradient(z, y)
        self.mark("generated")
        return made

    def update(self, network: str, metrics: Metrics) -> None:
        super().update(network, metrics)
        self.mark(network)

    def once(self, x: Tensor, y: Tensor, meter: Meter) -> dict[str, float]:
        """One iteration, and what it took: the whole of it, and either network's step.

        The discriminator's step is given its fakes, the generator's step makes them. Of a step that is replayed only the
        whole of it.
        """
        if self.graph is not None:
            return Part.of(STEP, lambda: self.again(x, y)).run(meter)
        self.meter, self.marks = meter, []
        self.mark("begin")
        self.again(x, y)
        self.mark("end")
        self.meter = None
        return self.spent(meter)

    def again(self, x: Tensor, y: Tensor) -> None:
        self.run(self.count, x, y)
        self.count += 1

    def spent(self, meter: Meter) -> dict[str, float]:
        spent, half, given = dict.fromkeys(HALVES, 0.0), "discriminator", 0.0
        for (name, begin), (until, end) in pairwise(self.marks):
            span = meter.between(begin, end)
            if name == "generate" and half == "discriminator":
                given += span
            elif half:
                spent[half] += span
            if until in HALVES:
                half = "generator" if until == "discriminator" else ""
        if self.reuses_fakes:
            spent["generator"] += given
        total = meter.between(self.marks[0][1], self.marks[-1][1])
        return {STEP: total} | {HALVES[network]: value for network, value in spent.items()}


def training_part(step: MeasuredStep, x: Tensor, y: Tensor) -> Part:
    return Part(lambda meter: step.once(x, y, meter))


def forward_part(step: Step, y: Tensor) -> Part:
    """The trained generator's outputs at all stages, for a whole batch, without gradients."""
    z = torch.randn(len(y), step.generator.z_dim, device=step.device)

    @torch.no_grad()
    def run() -> None:
        step.generate_with_gradient(z, y)

    return Part.of(FORWARD, run)


def sampling_part(step: Step, size: int) -> Part:
    """Pictures, or latents, as the pipeline makes them: from class and seed to float32 on the CPU."""
    backend: Backend = "compile" if step.config.compiles(step.device.type) else "eager"
    pipe = CATPipeline(step.ema, step.config, ()).to(str(step.device), step.config.training.precision, backend)
    classes = [k % step.config.sample.classes for k in range(size)]
    return Part.of(f"{SAMPLING}, batch {size}", lambda: pipe(classes, range(size), batch_size=size))


def loader_part(config: Config, dataset: Dataset, pinned: bool) -> Part:
    """One batch of training data, read ahead as training does."""
    batches = Batches(config, dataset, None, pinned)
    count = max(4, 4 * config.data.workers)

    def read(meter: Meter) -> dict[str, float]:
        with closing(prefetch(batches.read, endless(), config.data.workers, config.data.workers)) as coming:
            next(coming)  # the threads are there
            begin = meter.now()
            for _ in islice(coming, count):
                pass
            return {LOADER: meter.between(begin, meter.now()) / count}

    return Part(read)


def endless() -> Iterator[int]:
    step = 0
    while True:
        yield step
        step += 1
