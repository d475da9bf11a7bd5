"""The straightforward version of a training step (`benchmarks/plain.py`): finding it, and holding it to the same losses."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

import catgan
from catgan.config import Config
from catgan.errors import UserError
from catgan.objective import default_objective
from catgan.training.step import Metrics, Step

CHECKED = 2  # samples for which losses are compared
TOLERANCE = 1e-6  # relative, in float64: the penalties divide differences of logits by 0.01, and square them


def load_plain() -> Any:
    """The class PlainStep. Raises UserError where the benchmarks of a checkout are not beside the package."""
    path = Path(catgan.__file__).parents[2] / "benchmarks" / "plain.py"
    spec = importlib.util.spec_from_file_location("catgan_plain", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(
            f"--against plain needs {path}, which is not there: it comes with catgan's repository, not with its package; "
            "install from a checkout (pip install -e .)"
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PlainStep


def full_penalties(config: Config) -> Config:
    return replace(config, objective=replace(config.objective, penalty_fraction=1.0))


def shallow(config: Config) -> Config:
    """Networks of at most one block per stage: float64 of more would not fit beside what is measured."""
    stages = len(config.sample.scales)
    g, d = config.generator, config.discriminator
    return replace(config, generator=replace(g, depth=stages), discriminator=replace(d, depth=min(d.depth, stages)))


def check_same(plain: Any, config: Config, x: Tensor, y: Tensor, recompute: bool) -> float:
    """Run the first iteration of both from the same weights, on the first samples of the batch, in float64 and with as many blocks as stages.

    Returns the largest relative difference of any loss. Raises AssertionError if it is above the tolerance.
    """
    x, y = x[:CHECKED].double(), y[:CHECKED]
    t = replace(config.training, batch=len(x), precision="float32", compile=False)
    config = shallow(replace(config, training=t))

    def first(straightforward: bool) -> Metrics:
        step = Step(config, default_objective(config), x.device)
        networks = [network.double() for network in (step.generator, step.discriminator, step.ema)]
        metrics: Metrics = (plain(config, *networks, recompute) if straightforward else step).run(0, x, y)
        return {name: value.cpu() for name, value in metrics.items()}

    ours, theirs = first(False), first(True)
    worst = 0.0
    for name, value in theirs.items():
        error = float((ours[name] - value).abs().max() / value.abs().max().clamp_min(1e-12))
        if not error <= TOLERANCE:
            raise AssertionError(f"plain and catgan differ in {name}: {value.tolist()} and {ours[name].tolist()}")
        worst = max(worst, error)
    return worst
