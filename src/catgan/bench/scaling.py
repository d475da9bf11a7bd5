"""Whether cost grows as work does: seconds per floating-point operation, of little work and of much."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from catgan.bench.ceiling import Ceiling
from catgan.bench.meters import Clock, Part
from catgan.bench.parts import FORWARD, STEP, MeasuredStep, forward_part, inputs, training_part
from catgan.bench.rounds import Request, rounds
from catgan.config import Config

TIMES, LAYERS = 8, (4, 24)  # how much larger the larger batch is; depths of both networks


def scaling(config: Config, request: Request, ceiling: Ceiling, clock: Clock) -> list[dict[str, Any]]:
    """The generator's forward pass from batch 1 to 8; the step from its batch to 8 times that, and from 4 layers to 24."""
    series: list[tuple[str, str, dict[int, Config]]] = []
    if "generator" in request.only:
        series.append(("by batch", FORWARD, {n: batched(config, n) for n in (1, TIMES)}))
    if "step" in request.only:
        batch, stages = config.training.batch, len(config.sample.scales)
        layers = [-(-n // stages) * stages for n in LAYERS]  # which the stages divide
        series.append(("by batch", STEP, {n: batched(config, n) for n in (batch, TIMES * batch)}))
        series.append(("by layers", STEP, {n: layered(config, n) for n in layers}))
    found = []
    for by, what, configs in series:
        parts = {f"{what}, {n}": part(what, n, c, clock) for n, c in configs.items()}
        times, work = rounds(parts, ceiling, clock, request, config.compiles(clock.device.type))
        points = [
            {"at": n, "gflop": work[name] / 1e9, "seconds": times[name].description()}
            for n, name in zip(configs, parts, strict=True)
        ]
        little, much = (times[name].median / work[name] for name in parts)
        found.append({"name": f"{what} {by}", "points": points, "ratio": much / little})
    return found


def part(what: str, n: int, config: Config, clock: Clock) -> Part:
    """The whole step, or the generator's forward pass, of one size."""
    step = MeasuredStep(config, clock.device)
    x, y = inputs(config, clock.device)
    whole = training_part(step, x, y) if what == STEP else forward_part(step, y)
    return Part(lambda meter: {f"{what}, {n}": whole.run(meter)[what]})


def batched(config: Config, batch: int) -> Config:
    return replace(config, training=replace(config.training, batch=batch))


def layered(config: Config, depth: int) -> Config:
    g, d = replace(config.generator, depth=depth), replace(config.discriminator, depth=depth)
    return replace(config, generator=g, discriminator=d)
