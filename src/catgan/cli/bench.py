"""`catgan bench RECIPE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from catgan.cli.configuration import SHORT, expanded, recipe_first, split_own
from catgan.cli.parse import parse
from catgan.config import Config
from catgan.errors import require
from catgan.recipes import RECIPES, recipe
from catgan.system.tables import aligned

PARTS = ("step", "generator", "sampling", "loader", "memory")
OWN = {
    **{"--only": None, "--sizes": "1,8", "--repeats": "5"},
    **dict.fromkeys(("--json", "--scaling", "--cold-start", "--cpu-time"), False),
}
USAGE = f"""usage: catgan bench RECIPE [--json] [OPTIONS]

Measure how fast a recipe trains and samples on this machine, as a share of what its matrix products could do here:
{", ".join(RECIPES)}.

  --only PARTS      some of {",".join(PARTS)}
  --sizes N,N       batch sizes of sampling (default: 1,8)
  --repeats N       measurements of each part, in turns (default: 5)
  --scaling         also whether time grows as work does, with the batch and with the number of layers
  --cold-start      also the time to the first step of compiled training, in new processes
  --cpu-time        seconds of the processor instead of the clock's: on a busy machine, with --training.threads 1
  --json            print everything as JSON
  {", ".join(SHORT)}
                    short for the training.* options of these names

Further options change the recipe, as in catgan train.

  catgan bench digits
  catgan bench fashion-mnist --training.compile --cold-start
  catgan bench cat-b2 --batch 4 --precision float32 --only step
"""

NOTE = """\
GFLOP are 10^9 operations in matrix products and attention, a multiplication and an addition counted as two, on an
uncompiled run. The ceiling is the fastest of the networks' own matrix products, measured in turns with the rest.
+-: half of the distance between the quartiles."""


def main(argv: Sequence[str]) -> None:
    name, rest = recipe_first(argv, "bench", USAGE)
    base = recipe(name)
    own, options = split_own(rest, "bench", OWN)
    only = tuple(own.only.split(",")) if own.only else PARTS
    for part in only:
        require(part in PARTS, "--only", part, f"some of {', '.join(PARTS)}", "separate them by commas")
    require(own.repeats.isdecimal() and int(own.repeats) >= 1, "--repeats", own.repeats, "at least 1")
    sizes = own.sizes.split(",")
    require(all(s.isdecimal() and int(s) >= 1 for s in sizes), "--sizes", own.sizes, "batch sizes like 1,8")
    config = parse(Config, expanded(options), f"bench {name}", base, USAGE.partition("\n\n")[2])
    config.validate()

    from catgan.bench.measure import Bench
    from catgan.bench.rounds import Request

    result = Bench(
        config,
        Request(
            only=only,
            sizes=tuple(map(int, sizes)),
            repeats=int(own.repeats),
            say=lambda message: print(message, file=sys.stderr, flush=True),
            scaling=own.scaling,
            cold_start=own.cold_start,
            cpu_time=own.cpu_time,
        ),
    ).run()
    print(json.dumps(result, indent=2) if own.json else text(result))


# -- text ------------------------------------------------------------------------------------------------------------


def text(r: dict[str, Any]) -> str:
    tables = [parts(r), others(r), scaling(r)]
    return "\n\n".join([head(r), *(t for t in tables if t), "\n".join([*r["notes"], NOTE])])


def head(r: dict[str, Any]) -> str:
    m, s, c = r["machine"], r["settings"], r["ceiling"]
    t = s["config"]["training"]
    mode = "compiled" if s["compiled"] else "eager"
    rows, inputs, outputs = c["shape"]
    return "\n".join(
        [
            f"{r['recipe']}, batch {t['batch']}, {t['precision']}, {mode}",
            f"{m['device']}, {m['threads']} threads of {m['cores']} cores, load {m['load']:.1f}, torch {m['torch']}",
            f"ceiling {c['gflops']:,.1f} GFLOP/s ({rows} x {inputs} by {inputs} x {outputs}), medians of {s['repeats']}"
            + (", processor time" if s["clock"] == "cpu" else ""),
        ]
    )


def parts(r: dict[str, Any]) -> str:
    if not r["parts"]:
        return ""
    rows: list[Sequence[str]] = [("", "GFLOP", "time", "+-", "images/s", "GFLOP/s", "share")]
    for p in r["parts"]:
        part_of = p["name"] in ("discriminator step", "generator step")
        rows.append(
            (
                f"  {p['name']}" if part_of else p["name"],
                f"{p['gflop']:,.4g}",
                *timed(p["seconds"]),
                "" if part_of else f"{p['images_per_second']:,.4g}",
                f"{p['gflops']:,.1f}",
                percent(p["share"], 1),
            )
        )
    return aligned(rows)


def others(r: dict[str, Any]) -> str:
    """Loader, Python, memory, cold start: a line each."""
    rows: list[Sequence[str]] = []
    loader = r.get("loader", {})
    if "skipped" in loader:
        rows.append(("loader", "skipped", loader["skipped"]))
    elif loader:
        much = f"{loader['times_training']:,.0f} times what training takes" if "times_training" in loader else ""
        rows.append(("loader", f"{loader['images_per_second']:,.4g} images/s", much))
    for p in r.get("python", []):
        rows.append((f"outside of operators, batch {p['batch']}", percent(p["share"], 1), ""))
    memory = r.get("memory", {})
    for name, count in memory.get("peak_bytes", {}).items():
        rows.append((f"peak memory of a step, {name}", f"{count / 2**20:,.4g} MiB", ""))
    if memory:
        rows.append(("weights and moments beside it", f"{memory['state_bytes'] / 2**20:,.4g} MiB", ""))
    for name, seconds in r.get("cold_start", {}).items():
        said = {"cold": "nothing compiled yet", "cached": "compiled before"}[name]
        rows.append((f"first compiled step, {said}", f"{seconds:.1f} s", ""))
    width = max((len(row[0]) for row in rows), default=0)
    value = max((len(row[1]) for row in rows if row[1] != "skipped"), default=0)
    return "\n".join(f"{a:<{width}}  {b:>{value}}  {c}".rstrip() for a, b, c in rows)


def scaling(r: dict[str, Any]) -> str:
    if not r.get("scaling"):
        return ""
    rows: list[Sequence[str]] = [("time per operation, much work to little", "from", "to", "ratio")]
    for s in r["scaling"]:
        low, high = (str(p["at"]) for p in s["points"])
        rows.append((s["name"], low, high, f"{s['ratio']:.2f}"))
    return aligned(rows)


def timed(seconds: dict[str, Any]) -> tuple[str, str]:
    """Median, and half of the distance between the quartiles as a share of it."""
    median = seconds["median"]
    spread = (seconds["high"] - seconds["low"]) / 2 / median
    return f"{median * 1e3:,.4g} ms" if median < 10 else f"{median:,.4g} s", percent(spread, 1)


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"
