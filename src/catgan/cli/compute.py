"""`catgan compute`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from catgan.cli.parse import parse
from catgan.recipes import RECIPES
from catgan.system.tables import aligned

DESCRIPTION = """What every recipe costs to sample and to train, beside published models and the paper's figures.

CAT and GAT are counted on networks without weights, iMF by closed form from its published sizes.
"""

NOTE = """\
A GMAC is 10^9 multiply-accumulates in matrix products and attention, what papers of the field call a GFLOP.
Training counts 3 forward passes for a network that is trained and 1 where gradients are blocked (paper A.2)."""


@dataclass(frozen=True)
class ComputeOptions:
    json: bool = False
    """Print JSON: everything the tables show, with sources."""


def main(argv: Sequence[str]) -> None:
    o = parse(ComputeOptions, argv, "compute", description=DESCRIPTION)

    from catgan.accounting.compute import compute
    from catgan.accounting.published import account

    result = account({name: compute(config) for name, config in RECIPES.items()})
    print(json.dumps(result, indent=2) if o.json else tables(result))


def tables(result: dict[str, Any]) -> str:
    counted = [forward(result["recipes"]), training(result["recipes"]), models(result)]
    parts = [*counted, reported(result), paper(result["paper"])]
    return "\n\n".join([*parts, NOTE])


def forward(recipes: dict[str, Any]) -> str:
    rows: list[Sequence[str]] = [("recipe", "generator", "discriminator", "with representation head")]
    for name, r in recipes.items():
        d = r["discriminator"]
        head = d["representation_gmacs"]
        rows.append((name, number(r["generator"]["gmacs"]), number(d["gmacs"]), number(head and d["gmacs"] + head)))
    return "One forward pass, GMACs per sample\n" + aligned(rows)


def training(recipes: dict[str, Any]) -> str:
    rows: list[Sequence[str]] = [("recipe", "images", "per sample: twice", "once", "whole run: twice", "once")]
    for name, r in recipes.items():
        t = r["training"]
        twice, once = t["paper_gmacs_per_sample"], t["gmacs_per_sample"]
        images = t["samples"]
        rows.append((name, f"{images:,}", number(twice), number(once), total(twice * images), total(once * images)))
    title = (
        "Training, GMACs per sample and step, and multiply-accumulates of the whole run\n"
        "(fakes generated twice, 4 F_G, as in the paper, or once, 3 F_G; 10.5 F_D in cat-*, 15 F_D in the others)"
    )
    return title + "\n" + aligned(rows)


def models(result: dict[str, Any]) -> str:
    rows: list[Sequence[str]] = [
        ("model", "sampling", "training", "per sample", "epochs", "whole run", "times CAT-H/2")
    ]
    for m in result["models"]:
        cost = [number(m["sampling_gmacs"]), m["formula"], number(m["gmacs_per_sample"])]
        rows.append((m["name"], *cost, f"{m['epochs']:.1f}", total(m["total_gmacs"]), f"{m['times_cat_h2']:.2f}"))
    return "One-step models of ImageNet-256, GMACs per sample, and multiply-accumulates of the whole run\n" + aligned(
        rows
    )


def reported(result: dict[str, Any]) -> str:
    rows: list[Sequence[str]] = [("model", "space", "FID-50K", "parameters", "sampling", "epochs", "stated in")]
    for r in result["reported"]:
        cost, epochs = ("-" if r[n] is None else f"{r[n]:g}" for n in ("gmacs", "epochs"))
        rows.append((r["name"], r["space"], f"{r['fid']:.2f}", f"{r['parameters']} M", cost, epochs, r["source"]))
    title = (
        "One-step models of ImageNet-256 as published, GMACs per sample of the generator\n"
        f"(- not stated there; a latent takes SD's VAE another {result['decoder_gmacs']:g} to decode)"
    )
    return title + "\n" + aligned(rows, left=(0, 1, 6))


def paper(figures: list[dict[str, Any]]) -> str:
    rows: list[Sequence[str]] = [("figure", "ours", "paper", "difference")]
    for f in figures:
        stated = f"{f['relation']} {f['paper']:g}".removeprefix("= ")
        difference = round(f["difference_percent"], 1) + 0.0  # no -0.0
        rows.append((f["figure"], f"{f['ours']:.2f}", stated, f"{difference:+.1f} %"))
    return "Beside the paper (> over, ~ about)\n" + aligned(rows)


def number(gmacs: float) -> str:
    """As many digits as say something: 1,017 and 166.9, but 0.0026."""
    if not gmacs:
        return "-"
    return f"{gmacs:#.2g}" if gmacs < 1 else f"{gmacs:,.{0 if gmacs >= 1000 else 1}f}"


def total(gmacs: float) -> str:
    """Multiply-accumulates of a whole run: 7.81e19."""
    return f"{gmacs * 1e9:.2e}".replace("e+", "e")
