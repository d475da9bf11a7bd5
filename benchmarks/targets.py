"""What the networks and their training should reach on a CPU in float32, beside what was measured.

    catgan bench digits --json > digits.json
    python benchmarks/against_plain.py digits --memory --json > plain.json
    python benchmarks/targets.py digits.json plain.json

Targets hold for the recipes as they are, at the batch named here: anything else has none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from against_plain import EQUAL, SHIPPED
from catgan.bench.parts import FORWARD, SAMPLING, STEP, measured
from catgan.config import Config
from catgan.config_io import from_dict
from catgan.recipes import RECIPES
from catgan.system.tables import aligned

SMALL = ("digits", "fashion-mnist")


@dataclass(frozen=True)
class Target:
    low: float = float("-inf")
    high: float = float("inf")

    def met(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        sides = (">=", self.low), ("<=", self.high)
        return " and ".join(f"{sign} {side:g}" for sign, side in sides if abs(side) < float("inf"))


def targets(config: Config, device: str) -> dict[str, Target]:
    """By the name of what is measured; those that hold for this configuration as it is."""
    base = measured(RECIPES[config.recipe])
    unchanged = all(
        getattr(config, f) == getattr(base, f) for f in ("sample", "generator", "discriminator", "objective")
    )
    if not unchanged or config.training.precision != "float32" or device != "cpu":
        return {}
    batch, name = config.training.batch, config.recipe
    found = {"memory to plain": Target(high=1.0)}
    found |= {f"time per operation, {what}": Target(0.9, 1.1) for what in (STEP, FORWARD)}
    if name == "cat-b2":
        found |= {f"{SAMPLING}, batch 1": Target(0.60), "outside of operators, batch 1": Target(high=0.05)}
        if batch == 4:
            found |= {STEP: Target(0.85), EQUAL: Target(1.3), SHIPPED: Target(2.0)}
        if batch == 8:
            found |= {FORWARD: Target(0.92)}
    if name in SMALL:
        found |= {"first compiled step, cold": Target(high=30.0), "first compiled step, cached": Target(high=10.0)}
        if batch == base.training.batch:
            found |= {STEP: Target(0.50), EQUAL: Target(3.0), SHIPPED: Target(5.0)}
    return found


def values(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of a measurement that may have a target: shares, ratios, seconds."""
    found = {p["name"]: p["share"] for p in result.get("parts", [])}
    found |= {f"outside of operators, batch {p['batch']}": p["share"] for p in result.get("python", [])}
    found |= {a["settings"]: a["ratio"] for a in result.get("against", [])}
    found |= {f"time per operation, {s['name']}": s["ratio"] for s in result.get("scaling", [])}
    found |= {f"first compiled step, {name}": seconds for name, seconds in result.get("cold_start", {}).items()}
    if "to_plain" in result.get("memory", {}):
        found["memory to plain"] = result["memory"]["to_plain"]
    return found


def compared(result: dict[str, Any]) -> list[Sequence[str]]:
    """A row for each value that has a target."""
    settings = result["settings"]
    wanted = targets(from_dict(settings["config"]), settings["device"])
    rows: list[Sequence[str]] = []
    for name, value in values(result).items():
        target = next((t for n, t in wanted.items() if name == n or name.startswith(f"{n} by ")), None)
        if target is not None:
            rows.append((result["recipe"], name, f"{value:.3g}", str(target), "" if target.met(value) else "missed"))
    return rows


def main(paths: Sequence[str]) -> None:
    rows = [row for path in paths for row in compared(json.loads(Path(path).read_text()))]
    print(aligned([("recipe", "what", "measured", "target", ""), *rows]))


if __name__ == "__main__":
    main(sys.argv[1:])
