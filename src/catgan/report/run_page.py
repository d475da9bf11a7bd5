"""The page of one run, whatever its recipe and however far it came."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from catgan.checkpoint.card import training_seconds
from catgan.checkpoint.reading import listed
from catgan.config import Config
from catgan.config_io import attribute, differences, dump_yaml
from catgan.evaluation.alignment import MEASURES, Alignment
from catgan.objective.identity import Recorded
from catgan.objective.noise_levels import noise_levels
from catgan.recipes import RECIPES
from catgan.report import page
from catgan.report.plots import Line, color, plot_lines
from catgan.report.records import (
    BETTER,
    TITLES,
    Evaluation,
    Record,
    arrow,
    read_object,
    shown_metrics,
    value,
)
from catgan.report.sections import alignment_panels, logit_names, loss_panels, protocol_details, stage_table
from catgan.system.files import write_text
from catgan.system.progress import clock, counted

NETWORKS = {"discriminator": "#444444", "generator": "#b5446e"}


def write_run_page(record: Record, path: Path) -> None:
    """Write the page. Raises UserError if matplotlib is missing or the place cannot be written."""
    name = record.folder.resolve().name
    parts = [
        f"<h1>{page.text(name)}</h1>",
        page.paragraph(lead(record), "lead"),
        page.cards(figures(record)),
        *samples_section(record),
        *stages_section(record),
        *losses_section(record),
        *gradients_section(record),
        *alignment_section(record),
        *diagnosis_section(record),
        *evaluation_section(record),
        *configuration_section(record.config),
        *objective_section(list(record.terms.values())),
        *machine_section(record),
        page.heading("Go on"),
        page.code(commands(record)),
    ]
    write_text(path, page.page(f"catgan: {name}", parts))


def lead(record: Record) -> str:
    """Which recipe, on what, and how far."""
    c, step = record.config, record.step
    s = c.sample
    kind = "pixels" if s.channels in (1, 3) else "latents"
    stages = counted(len(s.scales), "noise level" if c.objective.supervision == "noise_levels" else "scale")
    text = (
        f"A run of recipe {c.recipe}: {s.size} x {s.size} {kind}, {counted(s.classes, 'class', 'classes')}, {stages}."
    )
    if step >= c.training.steps:
        return f"{text} Finished after {step:,} steps."
    text += f" Unfinished: step {step:,} of {c.training.steps:,}."
    rate = throughput(record)
    left = (c.training.steps - step) * c.training.batch / rate if rate else math.nan
    return text if math.isnan(left) else f"{text} The rest takes {clock(left)} at the speed so far."


def throughput(record: Record) -> float | None:
    """Images per second, median over entries."""
    _, rates = record.points("images_per_second")
    return float(np.median(rates)) if rates else None


def figures(record: Record) -> list[tuple[str, str]]:
    """The cards; what is not known is left out."""
    c, step = record.config, record.step
    cards = [(f"{step:,}", f"steps, of {c.training.steps:,}")]
    if record.epochs_per_step:
        cards.append((f"{step * record.epochs_per_step:,.3g}", "epochs"))
    cards.append((f"{step * c.training.batch:,}", "images seen"))
    rate, seconds = throughput(record), training_seconds(record.rows, c.training.batch)
    if rate:
        cards += [(f"{rate:,.0f}", "images per second, median"), (clock(seconds), "training time")]
    if record.evaluations:
        last = record.evaluations[-1]
        metric = next((m for m in (*TITLES, *last.metrics) if m in last.metrics), None)
        if metric:
            cards.append((f"{last.metrics[metric]:.4g}", f"{last.title(metric)}, step {last.step:,}"))
    if record.best:
        metric = str(record.best["metric"])
        name = record.evaluations[-1].title(metric) if record.evaluations else TITLES.get(metric, metric)
        cards.append((f"{record.best['value']:.4g}", f"best {name}, step {record.best['step']:,}"))
    return cards


def samples_section(record: Record) -> list[str]:
    found = record.previews("samples")
    if not found:
        return []
    *before, last = found
    by_class = "a column per class, " if record.config.sample.classes > 1 else ""
    text = f"Averaged weights, psi = 1, not selected: {by_class}every tile with a fixed seed of its own."
    parts = [
        page.heading("Samples"),
        page.paragraph(f"{text} {columns(record)}{latent_note(record.config)}"),
        page.panels([page.picture(found[last].read_bytes(), f"step {last:,}"), *real_samples(record)]),
    ]
    if before:
        early = [page.picture(found[s].read_bytes(), f"step {s:,}") for s in denser_early(before, last)]
        parts += [page.paragraph("The same classes and seeds earlier in training:"), page.panels(early, "three")]
    return parts


def real_samples(record: Record) -> list[str]:
    path = record.folder / "previews" / "real.png"
    return [page.picture(path.read_bytes(), "real samples of the same classes")] if path.is_file() else []


def columns(record: Record) -> str:
    """Names of the classes that previews show."""
    names = record.about.get("class_names", [])
    if record.config.sample.classes == 1 or max(record.config.previewed) >= len(names):
        return ""
    return f"Classes: {', '.join(str(names[k]) for k in record.config.previewed)}. "


def latent_note(config: Config) -> str:
    if config.sample.channels in (1, 3):
        return ""
    return "The samples are latents: shown are their first channels, as colours."


def denser_early(steps: Sequence[int], last: int, most: int = 6) -> list[int]:
    """At most `most` of the steps, more of them early, where samples change most."""
    if len(steps) <= most:
        return list(steps)
    wanted = [0.0, *(last / 2**k for k in range(most - 1, 0, -1))]
    return sorted({min(steps, key=lambda s: abs(s - w)) for w in wanted})


def stages_section(record: Record) -> list[str]:
    found = record.previews("stages")
    if not found or len(record.config.sample.scales) == 1:
        return []
    *before, last = found
    shown = [*denser_early(before, last, 3), last]
    return [
        page.heading("Stages: one sample per row, coarse to fine"),
        page.paragraph(
            f"h_0 to h_{len(record.config.sample.scales) - 1}, all generated at full size; {judged(record.config)}. "
            f"Aligned stages show one and the same picture. {latent_note(record.config)}"
        ),
        page.row(*(page.picture(found[s].read_bytes(), f"step {s:,}") for s in shown), css="small"),
    ]


def judged(config: Config) -> str:
    """How the discriminator sees the stages."""
    scales = config.sample.scales
    if config.objective.supervision == "noise_levels":
        levels = ", ".join(f"{t:.2f}" for t in noise_levels(len(scales)))
        return f"the discriminator judges them together, stage k under noise of deviation {levels}"
    return f"the discriminator judges stage k at {', '.join(str(s) for s in scales)} pixels"


def losses_section(record: Record) -> list[str]:
    panels = loss_panels(record)
    if not panels:
        return [page.heading("Losses"), page.paragraph("Nothing is logged yet.")]
    return [
        page.heading("Losses and penalties"),
        page.paragraph(
            "Each entry is the value of one step. Long runs: thin, the entries; thick, their moving average over a twentieth of the run."
        ),
        page.panels(panels),
    ]


def gradients_section(record: Record) -> list[str]:
    lines = [Line(n, *record.points(f"{n}/gradient_norm"), c) for n, c in NETWORKS.items()]
    if not any(len(line.x) for line in lines):
        return []
    clip = record.config.optimizer.clip
    panels = [page.picture(plot_lines(lines, level=clip), f"gradient norms (dotted: clipped from {clip:g} on)", "plot")]
    logits = [
        Line(f"{kind}, {name}", *record.points(f"logits/{kind}/{k}"), color(k), style)
        for kind, style in (("real", "-"), ("fake", "--"))
        for k, name in enumerate(logit_names(record.config))
    ]
    if any(len(line.x) for line in logits):
        panels.append(page.picture(plot_lines(logits), "mean logits of real samples and (dashed) fakes", "plot"))
    return [page.heading("Gradients and logits"), page.panels(panels)]


def alignment_section(record: Record) -> list[str]:
    if len(record.config.sample.scales) == 1:
        return []
    prefix = "diagnose" if record.latest("diagnose/") else "alignment"
    panels = alignment_panels(record, prefix)
    if not panels:
        return []
    what = (
        f"Averaged weights, the same {record.config.log.diagnose_samples:,} samples each time."
        if prefix == "diagnose"
        else "No diagnosis is logged yet: these are training fakes of raw weights."
    )
    last = record.latest(f"{prefix}/")
    stages = range(len(record.config.sample.scales) - 1)
    values = {m: [last[f"{m}/{k}"] for k in stages] for m in MEASURES}
    means = Alignment(**values, protocol={}).averages()
    parts = [
        page.heading("Alignment of the stages"),
        page.paragraph(f"{what} Low delta and R, and A near 1, mean that stages build on each other."),
        page.panels(panels),
        stage_table(f"step {last['step']:,}", values, means),
    ]
    if len(stages) > 1:
        parts.append(page.paragraph(f"Mean A without the last stage: {means['A_without_last']:.3f}.", "dim"))
    return parts


def diagnosis_section(record: Record) -> list[str]:
    """What `catgan diagnose` found, where it writes by itself."""
    folder = record.folder / "diagnosis"
    if not (folder / "diagnosis.json").is_file():
        return []
    found = read_object(folder / "diagnosis.json", (*MEASURES, "average", "protocol"))
    protocol = found["protocol"]
    text = f"By catgan diagnose: {protocol['samples']:,} samples, {protocol['weights']} weights, psi = {protocol['psi']:g}."
    parts = [page.heading("Diagnosis"), page.paragraph(text)]
    parts.append(stage_table(f"step {protocol.get('step', 0):,}", found, found["average"]))
    for name, caption in (("diagnosis.png", "alignment"), ("attention.png", "attention of the discriminator")):
        if (folder / name).is_file():
            parts.append(page.picture((folder / name).read_bytes(), caption, "plot"))
    if (folder / "attention.json").is_file():
        attention = read_object(folder / "attention.json", ())
        shares = [f"{s} samples {attention[s]['off_diagonal']:.1%}" for s in ("generated", "real") if s in attention]
        parts.append(page.paragraph(f"Attention that leaves its scale: {', '.join(shares)}.", "dim"))
    return [*parts, protocol_details(protocol)]


def evaluation_section(record: Record) -> list[str]:
    if not record.evaluations:
        return []
    parts = [page.heading("Evaluation")]
    failed = [(e, failure) for e in record.evaluations for failure in e.failures]
    if failed:
        parts.append(page.paragraph("What has gone wrong (evaluations of these steps keep no best checkpoint):"))
        parts.append(page.table(["step", ""], [[f"{e.step:,}", failure] for e, failure in failed], "text"))
    by_protocol: dict[str, list[Evaluation]] = {}  # those whose numbers may be compared, together
    for e in record.evaluations:
        by_protocol.setdefault(e.key(), []).append(e)
    for same in by_protocol.values():
        metrics = shown_metrics([e.metrics for e in same])
        head = ["step", "made by", *(f"{same[-1].title(m)}{arrow(m)}" for m in metrics)]
        rows = [[f"{e.step:,}", e.name, *(cell(e, m) for m in metrics)] for e in same]
        parts += [
            page.paragraph(f"Feature space: {same[-1].features}."),
            page.panels([panel for m in metrics if (panel := metric_panel(same, m, record.best))], "three"),
            page.table(head, rows),
            *map(page.paragraph, dict.fromkeys(warning for e in same for warning in e.warnings)),
            protocol_details(same[-1].protocol),
        ]
    return parts


def cell(e: Evaluation, metric: str) -> str:
    if metric not in e.metrics:
        return "-"
    deviation = e.metrics.get(f"{metric}_std")
    return f"{e.metrics[metric]:.4g}" + (f" ± {deviation:.2g}" if deviation is not None else "")


def metric_panel(evaluations: Sequence[Evaluation], metric: str, best: dict[str, object] | None) -> str:
    """A metric over steps; empty with fewer than two points."""
    points = [(e.step, e.metrics[metric]) for e in evaluations if metric in e.metrics]
    if len({step for step, _ in points}) < 2:
        return ""
    steps, values = zip(*points, strict=True)
    level = float(str(best["value"])) if best and best["metric"] == metric else None
    better = f", {BETTER[metric]} is better" if metric in BETTER else ""
    title = f"{evaluations[-1].title(metric)}{better}" + (" (dotted: best checkpoint)" if level is not None else "")
    return page.picture(plot_lines([Line(metric, steps, values)], level=level), title, "plot")


def configuration_section(config: Config) -> list[str]:
    base = RECIPES.get(config.recipe)
    parts = [page.heading("Configuration")]
    if base is None:
        parts.append(page.paragraph(f"{config.recipe} is no recipe of this catgan."))
    elif names := differences(base, config):
        rows = [[n, value(attribute(base, n)), value(attribute(config, n))] for n in names]
        parts.append(page.table(["differs from the recipe", config.recipe, "this run"], rows, "text"))
    else:
        parts.append(page.paragraph(f"As the recipe {config.recipe}."))
    return [*parts, page.details("Everything", page.code(dump_yaml(config)))]


def objective_section(terms: Sequence[Recorded]) -> list[str]:
    if not terms:
        return []
    rows = [[t.network, t.name, *(t.weights.split(", ") if t.weights else [""] * 3), t.origin] for t in terms]
    head = ["minimised by", "term", "weight at step 0", "100", "10,000", "function and digest"]
    return [page.heading("Objective"), page.table(head, rows)]


def machine_section(record: Record) -> list[str]:
    known = {n: v for n, v in record.about.items() if n not in ("class_names", "objective")}
    rows = [[n, f"{v:,}" if isinstance(v, int) else v] for n, v in known.items()]
    return [page.heading("Machine and versions"), page.table(["", "at the last start"], rows, "text")] if rows else []


def commands(record: Record) -> str:
    """What to do next with this run."""
    c, run = record.config, shlex.quote(str(record.folder))
    recipe = shlex.quote(c.recipe)
    again = f"catgan train {recipe} --out {run} --resume"
    finished = record.step >= c.training.steps
    lines = [f"# train twice as long\n{again} --steps {2 * c.training.steps}" if finished else f"# go on\n{again}"]
    if listed(record.folder / "checkpoints"):
        if c.sample.channels in (1, 3):
            lines.append(f"# samples\ncatgan sample {run} --out samples")
        if len(c.sample.scales) > 1:
            lines.append(f"# alignment by the full protocol\ncatgan diagnose {run}")
    lines += [f"# beside another run\ncatgan compare {run} OTHER", f"# curves\ntensorboard --logdir {run}"]
    return "\n\n".join(lines)
