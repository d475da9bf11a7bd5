"""docs/results.md and its figures, from the records alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from glob import escape
from pathlib import Path

from PIL import Image

from catgan.errors import UserError
from catgan.images import labelled, png
from catgan.metrics import numbers, titles
from catgan.report.comparison import figure_text
from catgan.report.plots import Course, plot_courses
from catgan.studies.catalogue import STUDIES, TESTBEDS
from catgan.studies.design import Claim, Run, Study, Testbed, Variant, Versus, Within
from catgan.studies.records import RunRecord, path_of, recorded
from catgan.studies.statistics import SIGNIFICANT, Records, Verdict, finished, judge, key
from catgan.system.files import write_bytes, write_text

ALIGNMENT = (
    "delta/mean",
    "floor/mean",
    "excess/mean",
    "excess/first",
    "excess/last",
    "R/mean",
    "A/mean",
    "A_without_last",
)
HEADINGS = {
    "delta/mean": "delta",
    "delta/first": "delta, coarsest stage",
    "delta/last": "delta, finest stage",
    "floor/mean": "floor of delta",
    "excess/mean": "excess of delta",
    "excess/first": "excess, coarsest stage",
    "excess/last": "excess, finest stage",
    "R/mean": "R",
    "A/mean": "A",
    "A_without_last": "A without the last stage",
    "cross_scale_attention": "attention that leaves its scale",
}
FOLDER = "results"  # of the figures, beside the page

INTRODUCTION = f"""\
# Results: the paper's experiments at the scale of a laptop

Written by `catgan reproduce --report` from the files in `records/`: no number here was typed. Each run of each study is one
record: command, commit, configuration, machine, CPU time, the course of all numbers, and how they were measured.

The networks are small and the pictures too, so no number here can be compared with the paper's. What can be compared is the
*kind* of effect. Per claim: our means over seeds, their difference with the interval in which it lies at 95 %, the p value of
Welch's t test between variants (of the paired test between two numbers of the same runs), and one word. **agrees**: the
difference has the claim's sign, and p < {SIGNIFICANT:g}. **disagrees**: the other sign, and p < {SIGNIFICANT:g}. **no difference
seen**: anything else; look at the interval for how large a difference may have gone unseen. Many claims are tested, so that
single p values just below {SIGNIFICANT:g} say little.

Numbers at the end are of 10,000 samples of the averaged generator, classes at random; the course over training, and what is
compared after equal CPU time, is of 2,000 samples, classes in turn. CPU time is of training alone.

delta, R and A are the paper's measures of alignment (equation 1), means over stages, by the averaged weights on 1,000 fixed
samples. The *floor* of delta is what coarse resolution alone costs of it; the *excess* is what is above. Distances are
Frechet distances in the features of a small classifier of the data: no FIDs.
"""


BEYOND = (
    "- Not tried here: FIDs on ImageNet, latents, representation alignment, pixel space with the vision-aided loss, and what "
    "networks of the paper's sizes do."
)


BENCHMARKS = ("gpu", "parity", "reliability", "studio")  # folders of records of no run


class Results:
    """All records of a folder, by study and testbed, and the page that they make."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError for records that are damaged, of another configuration than the catalogue's, or not in it."""
        self.folder = folder
        self.found: dict[str, dict[str, list[RunRecord]]] = defaultdict(
            lambda: defaultdict(list)
        )  # by testbed, variant
        known = set()
        for study in STUDIES.values():
            for variant in study.variants:
                for testbed in TESTBEDS.values():
                    there = (folder / variant.study / testbed.name).glob(f"{escape(variant.name)}-*.json")
                    for path in sorted(there, key=seed_of):
                        run = Run(variant, testbed, seed_of(path))
                        if path in known or path != path_of(folder, run):
                            continue
                        known.add(path)
                        record = recorded(folder, run)
                        assert record is not None
                        self.found[testbed.name][key(variant)].append(record)
        others = {path for name in BENCHMARKS for path in (folder / name).rglob("*.json")}
        for path in sorted(set(folder.rglob("*.json")) - known - others):
            raise UserError(f"{path} is of no study, testbed or variant that there is: move it away")

    def write(self, docs: Path) -> list[Path]:
        """The page and its figures; figures that it no longer shows are deleted. Returns the files."""
        pictures = dict(self.pictures())
        folder = docs / FOLDER
        for old in folder.glob("*.png"):
            if old.name not in pictures:
                old.unlink()
        for name, data in pictures.items():
            write_bytes(folder / name, data)
        write_text(docs / "results.md", self.page())
        return [docs / "results.md", *(folder / name for name in pictures)]

    def records(self, testbed: str) -> Records:
        return self.found[testbed]

    def present(self, study: Study, testbed: str) -> list[Variant]:
        """The variants of a study that have a run which came to its end."""
        return [v for v in study.variants if finished(self.records(testbed), v)]

    def shown(self) -> dict[str, list[Testbed]]:
        """The studies that have records of their own and something to compare, with the testbeds where they have."""
        found: dict[str, list[Testbed]] = {}
        for study in STUDIES.values():
            for name in study.testbeds:
                present = self.present(study, name)
                if len(present) > 1 and any(v.study == study.name for v in present):
                    found.setdefault(study.name, []).append(TESTBEDS[name])
        return found

    # -- the page ------------------------------------------------------------------------------------------------------

    def page(self) -> str:
        shown = self.shown()
        parts = [INTRODUCTION, *self.summary(shown), *self.unseen(shown), "## Where it ran\n", *self.machines()]
        for name, testbeds in shown.items():
            study = STUDIES[name]
            parts += [
                f"## {study.question}\n",
                f"`{study.name}`: the paper's {study.figure}. {study.remark}".strip() + "\n",
            ]
            for testbed in testbeds:
                parts += self.section(study, testbed)
        missing = [s for s in STUDIES.values() if s.name not in shown]
        if missing:
            parts += ["## Not recorded yet\n", "\n".join(f"- `{s.name}`: {s.question}" for s in missing) + "\n"]
        return "\n".join(parts)

    def summary(self, shown: dict[str, list[Testbed]]) -> list[str]:
        rows = []
        for study, testbeds in shown.items():
            for claim in STUDIES[study].claims:
                words = {t.name: self.word(claim, t) for t in testbeds}
                rows.append([study, claim.text, claim.paper, "; ".join(f"{t}: {w}" for t, w in words.items() if w)])
        return ["## In short\n", table(["study", "claim", "paper", "here"], rows)]

    def unseen(self, shown: dict[str, list[Testbed]]) -> list[str]:
        """The claims of the paper that not every testbed bears out, and those that none can."""
        rows = []
        for study, testbeds in shown.items():
            for claim in (c for c in STUDIES[study].claims if c.paper != "-"):
                verdicts = {t.name: judge(claim, self.records(t.name)) for t in testbeds}
                words = {name: v.word for name, v in verdicts.items() if v and v.word != "too few runs"}
                if set(words.values()) - {"agrees"}:
                    rows.append(f"- `{study}`: {claim.text} ({'; '.join(f'{t}: {w}' for t, w in words.items())}).")
        return [
            "## What of the paper is not seen at this scale, or not everywhere\n",
            "\n".join([*rows, BEYOND]) + "\n",
        ]

    def word(self, claim: Claim, testbed: Testbed) -> str:
        verdict = judge(claim, self.records(testbed.name))
        if verdict is None:
            return ""
        return f"**{verdict.word}**" + (f", {difference(verdict)}" if verdict.word != "too few runs" else "")

    def machines(self) -> list[str]:
        everything = [r for variants in self.found.values() for records in variants.values() for r in records]
        rows = []
        for testbed, variants in self.found.items():
            records = [r for found in variants.values() for r in found]
            if records:
                spent = sum(r.cpu_seconds for r in records) / 3600
                spaces = {r.protocol["feature_space"]["identity"] for r in records if not r.diverged}
                note = "" if len(spaces) < 2 else f"; {len(spaces)} feature spaces, between which distances differ"
                rows.append(
                    f"- {testbed}: {TESTBEDS[testbed].about}. {len(records)} runs, {spent:.1f} CPU hours of training{note}."
                )
        kinds = sorted(
            {
                f"{r.machine['processor']}, threads a run: {r.machine['threads']}, PyTorch {r.versions['torch']}"
                for r in everything
            }
        )
        commits = dict.fromkeys(commit[:12] for r in everything for commit in r.commit.split(", then "))
        changed = sorted(r.name for r in everything if r.changed)
        rows += [f"- {kind}." for kind in kinds]
        rows += [f"- Trained at {'commit' if len(commits) == 1 else 'commits'} {', '.join(sorted(commits))}."]
        rows += [f"- With changes that were not committed: {', '.join(changed)}."] if changed else []
        return ["\n".join(rows) + "\n"]

    def section(self, study: Study, testbed: Testbed) -> list[str]:
        records = self.records(testbed.name)
        present = self.present(study, testbed.name)
        columns = [*testbed.metrics, *ALIGNMENT, *study.columns]
        head = ["", "seeds", *(arrowed(c) for c in columns), "CPU min."]
        rows = []
        for variant in present:
            runs = records[key(variant)]
            values = [[r.final[c] for r in runs if c in r.final] for c in columns]
            spent = [r.cpu_seconds / 60 for r in runs if not r.diverged]
            rows.append(
                [variant.about, seeds(runs), *(figure_text(v, figures) for v in values), figure_text(spent, figures)]
            )
        claims = [[c.text, c.paper, *described(c, v)] for c in study.claims if (v := judge(c, records))]
        figure, samples = f"{study.name}-{testbed.name}.png", f"{study.name}-{testbed.name}-samples.png"
        return [
            f"### {testbed.name}: {testbed.about}\n",
            table(["claim", "paper", "here", "against", "difference", "p", "verdict"], claims),
            f"![The course of {', '.join(heading(c) for c in study.curves)} over training, by variant]({FOLDER}/{figure})\n",
            "*Mean over seeds, in the band from the lowest to the highest.*\n",
            table(head, rows),
            "Mean ± standard deviation over seeds.\n",
            f"![Samples of each variant: rows of samples, then their stages from coarse to fine]({FOLDER}/{samples})\n",
            "*Samples of the first seeds, not selected; under the gap the stages h_0 to h_K of more samples, a column each, as the "
            "generator makes them: what is too fine for its scale no discriminator sees.*\n",
        ]

    # -- its pictures --------------------------------------------------------------------------------------------------

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        """File names and PNG data."""
        for study, testbed in ((STUDIES[name], t) for name, testbeds in self.shown().items() for t in testbeds):
            records = self.records(testbed.name)
            present = self.present(study, testbed.name)
            panels = {
                heading(c): [
                    Course(v.name, finished(records, v)[0].curves["step"], [r.curves[c] for r in finished(records, v)])
                    for v in present
                    if c in finished(records, v)[0].curves
                ]
                for c in study.curves
            }
            yield f"{study.name}-{testbed.name}.png", plot_courses(panels)
            sheets = [self.sheet(records[key(v)]) for v in present]
            yield f"{study.name}-{testbed.name}-samples.png", png(beside(sheets, [v.name for v in present]))

    def sheet(self, runs: Sequence[RunRecord]) -> Image.Image:
        """The samples of the first of these runs that has them."""
        paths = [(self.folder / f"{r.name}.png") for r in runs if not r.diverged]
        path = next((p for p in paths if p.exists()), None)
        if path is None:
            raise UserError(f"{paths[0] if paths else runs[0].name} does not exist: restore it, or run the seed again")
        return Image.open(path)


def seeds(runs: Sequence[RunRecord]) -> str:
    """0, 1, 2, and which of them diverged."""
    return ", ".join(f"{r.seed}{' (diverged)' * bool(r.diverged)}" for r in runs)


def seed_of(path: Path) -> int:
    """The seed in VARIANT-SEED.json; -1 where there is none."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def heading(name: str) -> str:
    """What a number is called on the page."""
    return HEADINGS.get(name) or titles("classifier")[name]


def arrowed(name: str) -> str:
    """Its heading, and which way is better."""
    known = numbers().get(name)
    better = known.better if known else ("higher" if name.startswith("A") else "lower" if name in ALIGNMENT else None)
    return heading(name) + {"lower": " ↓", "higher": " ↑"}.get(better or "", "")


def figures(value: float) -> str:
    """Three figures: 12.3, 0.00912."""
    return "0" if value == 0 else f"{value:.3g}" if 1e-4 <= abs(value) < 1000 else f"{value:.2e}"


def described(claim: Claim, verdict: Verdict) -> list[str]:
    """The cells of a claim's row."""
    moments = {"equal CPU time": " after equal CPU time", "over training": ", mean over training"}
    moment = moments.get(claim.at, "") if isinstance(claim, Versus) else ""
    if isinstance(claim, Within):
        here = HEADINGS.get(claim.number, claim.number)
        than = HEADINGS.get(claim.than_number, claim.than_number)
        here, than = (
            f"{claim.of.name}: {here}",
            than + (f" after {claim.early * 100:.0f} % of the steps" if claim.early < 1 else ""),
        )
    else:
        here, than = claim.of.name, claim.than.name
    p = "-" if verdict.p != verdict.p else "< 0.001" if verdict.p < 0.001 else f"{verdict.p:.3f}"
    return [
        f"{here}: {figure_text(verdict.of, figures)}{moment}",
        f"{than}: {figure_text(verdict.than, figures)}",
        difference(verdict),
        p,
        f"**{verdict.word}**",
    ]


def difference(verdict: Verdict) -> str:
    """In per cent, with the interval in which it lies at 95 %."""
    low, high = map(verdict.percent_of, verdict.interval)
    if math.isnan(verdict.percent):
        return "-"
    return f"{signed(verdict.percent)} %" + ("" if math.isnan(low) else f" ({signed(low)} to {signed(high)})")


def signed(percent: float) -> str:
    """A whole number with its sign; none for 0."""
    return f"{round(percent):+d}" if round(percent) else "0"


def beside(sheets: Sequence[Image.Image], names: Sequence[str]) -> Image.Image:
    """Pictures with their names above, from left to right, two in a row."""
    gap, columns = 16, min(2, len(sheets))
    titled = [labelled(sheet, [name], [" "]) for sheet, name in zip(sheets, names, strict=True)]
    width, height = max(s.width for s in titled), max(s.height for s in titled)
    rows = -(-len(titled) // columns)
    made = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, sheet in enumerate(titled):
        made.paste(sheet, (i % columns * (width + gap), i // columns * (height + gap)))
    return made
