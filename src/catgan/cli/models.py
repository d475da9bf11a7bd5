"""`catgan models`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from catgan.cli.parse import parse
from catgan.shipped import DEFAULT_TAGS, Shipped, about, names

DESCRIPTION = """List the trained models that come with catgan: size, licence, data, metrics, and how they were made.

Their names work wherever a run does, offline; what lies at a path of that name here wins. `catgan train RECIPE` and
`catgan info RECIPE` mean the recipe.

  catgan sample digits --classes 3 8
  catgan train digits --init-from digits --out runs/tuned
"""


@dataclass(frozen=True)
class ModelsOptions:
    json: bool = False
    """Print JSON."""


def main(argv: Sequence[str]) -> None:
    o = parse(ModelsOptions, argv, "models", description=DESCRIPTION)
    models = [about(name) for name in names()]
    print(json.dumps([asdict(m) for m in models], indent=2) if o.json else "\n\n".join(map(text, models)))


def text(model: Shipped) -> str:
    """A block of lines about a model."""
    record, weights = model.record, model.weights
    commits = ", then ".join(commit[:12] for commit in record["commit"].split(", then "))
    short = next((f", or {recipe}" for recipe, tag in DEFAULT_TAGS.items() if f"{recipe}.{tag}" == model.name), "")
    rows = [
        ("size", f"{model.bytes / 1e6:.2f} MB, {weights['precision']}"),
        ("licence", model.licence),
        ("trained on", model.trained_on),
        *(("metrics", metrics(evaluation)) for evaluation in model.evaluations),
        ("record", f"{record['command']} (seed {record['seed']}, commit {commits}, {record['machine']})"),
    ]
    lines = [
        textwrap.fill(value, 110, initial_indent=f"  {name:<12}", subsequent_indent=" " * 14) for name, value in rows
    ]
    return "\n".join([f"{model.name}{short}", *lines])


def metrics(evaluation: dict[str, Any]) -> str:
    """Numbers of an evaluation without their deviations, and by which protocol."""
    names, protocol = evaluation["names"], evaluation["protocol"]
    numbers = [f"{names[n]} {v:.4g}" for n, v in evaluation["metrics"].items() if not n.endswith("_std")]
    return f"{', '.join(numbers)}; {protocol['samples']:,} samples, psi {protocol['psi']:g}, {protocol['features']} features"
