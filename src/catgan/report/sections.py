"""Parts of pages that the report, the comparison and the demo share."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from catgan.config import Config
from catgan.evaluation import alignment
from catgan.report import page
from catgan.report.plots import Line, color, plot_lines
from catgan.report.records import Record

# The alignment measures (paper equation 1), and what their plots say.
MEASURES = {
    "delta": "delta: distance of stage k to the final image (dotted: floor, what its resolution alone costs)",
    "excess": "excess: delta without that floor",
    "R": "R: how much the next stage rewrites",
    "A": "A: whether it rewrites towards the final image (1 for the last stage, by definition)",
}
LN2 = 0.6931
TERMS = {
    "discriminator/adversarial": "discriminator: adversarial loss (dotted: ln 2, real and fake look alike)",
    "generator/adversarial": "generator: adversarial loss (dotted: ln 2)",
    "discriminator/r1": "discriminator: R1 penalty, on real samples, before its weight",
    "discriminator/r2": "discriminator: R2 penalty, on fakes, before its weight",
    "generator/consistency": "generator: consistency loss, before lambda",
}


def loss_terms(rows: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """Every logged term, as NETWORK/NAME, with its number of values (scales or stages); CAT's own terms first."""
    counts: dict[str, int] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        if match := re.fullmatch(r"((?:discriminator|generator)/.+)/(\d+)", name):
            counts[match[1]] = max(counts.get(match[1], 0), int(match[2]) + 1)
    known = [term for term in TERMS if term in counts]
    return {term: counts[term] for term in (*known, *(t for t in counts if t not in TERMS))}


def term_title(term: str) -> str:
    network, _, name = term.partition("/")
    return TERMS.get(term, f"{network}: {name}")


def term_level(term: str) -> float | None:
    """A value worth a dotted line in the term's plot."""
    return LN2 if term in ("discriminator/adversarial", "generator/adversarial") else None


def logit_names(config: Config) -> list[str]:
    """What each logit judges."""
    if config.objective.supervision == "noise_levels":
        return ["all stages"]
    return [f"scale {k} ({s} px)" for k, s in enumerate(config.sample.scales)]


def vision_names(config: Config) -> list[str]:
    """What each logit of the vision-aided heads looks at."""
    return [*(f"map of stage {stage}" for stage in config.vision.stages), "the whole"]


def loss_panels(record: Record, terms: Sequence[str] | None = None) -> list[str]:
    """A plot per term of the objective, a line per scale or stage."""
    found = loss_terms(record.rows)
    shown = []
    for term in found if terms is None else [t for t in terms if t in found]:
        count = found[term]
        names = vision_names(record.config) if term.endswith("/vision") else logit_names(record.config)
        names = names if count == len(names) else [f"stage {k}" for k in range(count)]
        lines = [Line(names[k], *record.points(f"{term}/{k}"), color(k)) for k in range(count)]
        shown.append(page.picture(plot_lines(lines, level=term_level(term)), term_title(term), "plot"))
    return shown


def alignment_panels(record: Record, prefix: str = "diagnose", measures: Sequence[str] = tuple(MEASURES)) -> list[str]:
    """A plot per measure, a line per stage, from the entries `prefix/MEASURE/k`; empty if there are none."""
    stages = len(record.config.sample.scales) - 1
    if not record.latest(f"{prefix}/delta/"):
        return []
    shown = []
    for measure in measures:
        lines = [Line(f"stage {k}", *record.points(f"{prefix}/{measure}/{k}"), color(k)) for k in range(stages)]
        if measure == "delta":
            lines += [Line(f"stage {k}", *record.points(f"{prefix}/floor/{k}"), color(k), ":") for k in range(stages)]
        shown.append(page.picture(plot_lines(lines, zero=True), MEASURES[measure], "plot"))
    return shown


def stage_table(heading: str, values: Mapping[str, Sequence[float]], means: Mapping[str, float] | None = None) -> str:
    """Stages as rows, measures as columns, and their means if given."""
    measures = alignment.MEASURES
    rows = [[f"k = {k}", *(f"{values[m][k]:.3f}" for m in measures)] for k in range(len(values["delta"]))]
    if means:
        rows.append(["mean", *(f"{means[m]:.3f}" for m in measures)])
    return page.table([heading, *measures], rows)


def protocol_details(protocol: Mapping[str, Any]) -> str:
    """How numbers were measured, folded."""
    return page.details("Protocol", page.code(json.dumps(protocol, indent=2, ensure_ascii=False)))
