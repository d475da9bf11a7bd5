"""What the networks and their training should reach, on a CPU in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from catgan.bench.parts import FORWARD, SAMPLING, STEP, measured
from catgan.config import Config
from catgan.recipes import RECIPES

EQUAL, SHIPPED, LINEAR = "equal settings", "as such code ships", 0.1
SMALL = ("digits", "fashion-mnist")


@dataclass(frozen=True)
class Target:
    low: float = float("-inf")
    high: float = float("inf")

    def met(self, value: float) -> bool:
        return self.low <= value <= self.high

    def description(self, value: float) -> dict[str, Any]:
        finite = {"low": self.low, "high": self.high}
        return {n: v if abs(v) < float("inf") else None for n, v in finite.items()} | {"met": self.met(value)}


def targets(config: Config, device: str) -> dict[str, Target]:
    """By the name of what is measured; those that hold for this configuration as it is."""
    base = measured(RECIPES[config.recipe])
    unchanged = all(
        getattr(config, f) == getattr(base, f) for f in ("sample", "generator", "discriminator", "objective")
    )
    if not unchanged or config.training.precision != "float32" or device != "cpu":
        return {}
    batch, name = config.training.batch, config.recipe
    found = {"memory": Target(high=1.0), "linear": Target(1 - LINEAR, 1 + LINEAR)}
    if name == "cat-b2":
        found |= {f"{SAMPLING}, batch 1": Target(0.60), "python, batch 1": Target(high=0.05)}
        if batch == 4:
            found |= {STEP: Target(0.85), EQUAL: Target(1.3), SHIPPED: Target(2.0)}
        if batch == 8:
            found |= {FORWARD: Target(0.92)}
    if name in SMALL:
        found |= {"cold": Target(high=30.0), "cached": Target(high=10.0)}
        if batch == base.training.batch:
            found |= {STEP: Target(0.50), EQUAL: Target(3.0), SHIPPED: Target(5.0)}
    return found


def described(target: Target | None, value: float) -> dict[str, Any] | None:
    return None if target is None else target.description(value)
