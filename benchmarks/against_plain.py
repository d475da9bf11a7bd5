"""A training step against the straightforward version of it (`plain.py`): `python benchmarks/against_plain.py RECIPE`.

    python benchmarks/against_plain.py fashion-mnist --training.compile
    python benchmarks/against_plain.py digits --memory --json > digits.json

Both run on the same weights and inputs, in turns, after their losses were found equal in float64. Further options
change the recipe, as in `catgan train`; what is measured, and how, is in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from catgan.bench.measure import Bench
from catgan.bench.meters import Part
from catgan.bench.parts import STEP, training_part
from catgan.bench.rounds import Request, rounds
from catgan.cli.bench import head, percent, timed
from catgan.cli.configuration import expanded
from catgan.cli.parse import parse
from catgan.config import Config
from catgan.errors import UserError
from catgan.objective import default_objective
from catgan.recipes import recipe
from catgan.system.tables import aligned
from catgan.training.step import Metrics, Step
from plain import PlainStep

EQUAL, SHIPPED = "equal settings", "as such code ships"
CHECKED = 2  # samples for which losses are compared
TOLERANCE = 1e-6  # relative, in float64: the penalties divide differences of logits by 0.01, and square them


# -- the same losses ---------------------------------------------------------------------------------------------------


def check_same(plain: Any, config: Config, x: Tensor, y: Tensor, recompute: bool) -> float:
    """The largest relative difference of any loss in the first iteration of both, from the same weights in float64.

    On the first samples of the batch, with as many blocks as stages. Raises AssertionError if it is above TOLERANCE.
    """
    x, y = x[:CHECKED].double(), y[:CHECKED]
    config = shallow(
        replace(config, training=replace(config.training, batch=len(x), precision="float32", compile=False))
    )

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


def full_penalties(config: Config) -> Config:
    return replace(config, objective=replace(config.objective, penalty_fraction=1.0))


def shallow(config: Config) -> Config:
    """Networks of at most one block per stage: float64 of more would not fit beside what is measured."""
    stages = len(config.sample.scales)
    g, d = config.generator, config.discriminator
    return replace(config, generator=replace(g, depth=stages), discriminator=replace(d, depth=min(d.depth, stages)))


# -- measuring ---------------------------------------------------------------------------------------------------------


def compare(config: Config, request: Request) -> dict[str, Any]:
    """Both training steps of a recipe, measured in turns; with "memory" in request.only also their peaks."""
    t = config.training
    if config.objective.supervision != "pyramid" or not config.generator.shift:
        raise UserError(
            f"{config.recipe} is not CAT's: the straightforward version has neither noise levels nor another modulation"
        )
    if 0 < t.micro_batch < t.batch:
        raise UserError(f"training.micro_batch is {t.micro_batch}: must be 0, the straightforward version has none")
    bench = Bench(config, request)
    ours, x, y = bench.step, bench.x, bench.y
    differences: dict[str, float] = {}
    plain: dict[str, Any] = {}
    settings = (EQUAL, bench.config, t.recompute), (SHIPPED, full_penalties(bench.config), True)
    for name, changed, recompute in settings:
        request.say(f"comparing losses: {name}")
        differences[name] = check_same(PlainStep, changed, x, y, recompute)
        plain[name] = PlainStep(changed, ours.generator, ours.discriminator, ours.ema, recompute)
    plain[SHIPPED].optimizers = plain[EQUAL].optimizers  # one set of moments is enough

    parts = {name: Part.of(name, lambda step=step: step.run(0, x, y)) for name, step in plain.items()}
    times, work = rounds(
        {STEP: training_part(ours, x, y)} | parts,
        bench.ceiling,
        bench.clock,
        request,
        bench.config.compiles(bench.device.type),
    )
    top = max(bench.ceiling.rates().values())
    found: dict[str, Any] = {"parts": [bench.row(STEP, times[STEP], work[STEP], top)]}
    found["against"] = [
        {
            "settings": name, "seconds": times[name].description(), "gflop": work[name] / 1e9,
            "ratio": times[name].median / times[STEP].median, "loss_difference": differences[name],
        }
        for name in plain
    ]  # fmt: skip
    if "memory" in request.only:
        memory = bench.memory()
        theirs = {f"plain, {name}": bench.peak(step) for name, step in plain.items()}
        to_plain = memory["peak_bytes"]["fakes made twice"] / theirs[f"plain, {EQUAL}"]
        found["memory"] = memory | {"peak_bytes": memory["peak_bytes"] | theirs, "to_plain": to_plain}
    return bench.description() | found


def text(r: dict[str, Any]) -> str:
    step = r["parts"][0]
    rows: list[Sequence[str]] = [("training step", "GFLOP", "time", "+-", "times catgan's")]
    rows.append(("catgan", f"{step['gflop']:,.4g}", *timed(step["seconds"]), ""))
    for a in r["against"]:
        rows.append((f"plain, {a['settings']}", f"{a['gflop']:,.4g}", *timed(a["seconds"]), f"{a['ratio']:.2f}"))
    worst = max(a["loss_difference"] for a in r["against"])
    table = aligned(rows) + f"\ncatgan's share of the ceiling: {percent(step['share'], 1)}"
    table += f"\nlosses of both compared before: relative difference at most {worst:.0e}"
    found = [head(r), table]
    if "memory" in r:
        peaks = [(f"peak memory, {n}", f"{size / 2**20:,.4g} MiB") for n, size in r["memory"]["peak_bytes"].items()]
        found.append(aligned(peaks) + f"\nfakes made twice to plain at equal settings: {r['memory']['to_plain']:.2f}")
    return "\n\n".join([*found, *r["notes"]])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each, in turns")
    parser.add_argument("--memory", action="store_true", help="also the peaks of memory")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor, with --training.threads 1")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    own, options = parser.parse_known_args(argv)
    try:
        base = recipe(own.recipe)
        config = parse(Config, expanded(options), f"train {own.recipe}", base).validate()
        only = ("step", "memory") if own.memory else ("step",)
        result = compare(
            config, Request(only, (), own.repeats, lambda m: print(m, file=sys.stderr), cpu_time=own.cpu_time)
        )
    except UserError as error:
        sys.exit(str(error))
    print(json.dumps(result, indent=2) if own.json else text(result))


if __name__ == "__main__":
    main()
