"""What this machine can do at most: the fastest of the matrix products that the networks consist of."""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from catgan.bench.meters import Clock, Part
from catgan.config import Config
from catgan.nn.layers import SwiGLU
from catgan.objective.supervision import penalised_samples
from catgan.training.step import Step

SHORTEST = 0.02  # seconds that a product is repeated for, at least


class Ceiling:
    """Matrix products of the shapes (rows, inputs, outputs) of both networks' linear layers, in the recipe's format."""

    def __init__(self, config: Config, step: Step, clock: Clock) -> None:
        dtype = torch.bfloat16 if config.training.precision == "bfloat16" else torch.float32
        self.clock = clock
        self.products: dict[tuple[int, int, int], Part] = {}
        for rows, inputs, outputs in shapes(config, step):
            x = torch.randn(rows, inputs, device=clock.device, dtype=dtype)
            w = torch.randn(outputs, inputs, device=clock.device, dtype=dtype)
            y = torch.empty(rows, outputs, device=clock.device, dtype=dtype)
            self.products[rows, inputs, outputs] = Part.of("gemm", partial(torch.mm, x, w.T, out=y))
        first = {shape: product.repeated(clock, 2)["gemm"] for shape, product in self.products.items()}  # warms up
        self.repeats = {shape: max(1, round(SHORTEST / seconds)) for shape, seconds in first.items()}
        self.times: dict[tuple[int, int, int], list[float]] = {shape: [] for shape in self.products}

    def measure(self) -> None:
        """One more measurement of each product."""
        for shape, product in self.products.items():
            self.times[shape].append(product.repeated(self.clock, self.repeats[shape])["gemm"])

    def rates(self) -> dict[tuple[int, int, int], float]:
        """Median FLOP/s of each product."""
        return {s: 2 * s[0] * s[1] * s[2] / median(times) for s, times in self.times.items()}

    def description(self) -> dict[str, Any]:
        rates = self.rates()
        best = max(rates, key=lambda s: rates[s])
        shown = [{"shape": list(s), "gflops": r / 1e9, "runs": self.times[s]} for s, r in rates.items()]
        return {"gflops": rates[best] / 1e9, "shape": list(best), "products": shown}


def shapes(config: Config, step: Step) -> list[tuple[int, int, int]]:
    """Of one forward pass of each network in training: queries, keys and values; and both halves of SwiGLU."""
    s, g, d, t = config.sample, config.generator, config.discriminator, config.training
    penalised = (
        2 * len(penalised_samples(t.batch, config.objective.penalty_fraction)) if config.objective.penalty else 0
    )
    found = []
    for rows, width, hidden in (
        (t.batch * (s.size // g.patch) ** 2, g.width, hidden_width(step.generator)),
        ((2 * t.batch + penalised) * sum(step.discriminator.lengths), d.width, hidden_width(step.discriminator)),
    ):
        found += [(rows, width, 3 * width), (rows, width, 2 * hidden), (rows, hidden, width)]
    return found


def hidden_width(network: nn.Module) -> int:
    """Hidden width of the feed-forward layers."""
    return next(m.down.in_features for m in network.modules() if isinstance(m, SwiGLU))
