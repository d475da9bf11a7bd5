"""The page on which several runs are overlaid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from catgan.report import page
from catgan.report.comparison import ALIGNMENT, Comparison, Table, differing, mean, series, setting, table_rows
from catgan.report.plots import Line, color, plot_lines
from catgan.report.records import BETTER, Record, arrow
from catgan.report.sections import MEASURES, loss_terms, protocol_details, term_level, term_title
from catgan.system.files import write_text
from catgan.system.progress import counted

Points = tuple[Sequence[float], Sequence[float]]
STYLES = ("-", "--", "-.", ":")
PALETTE = 6  # colors before the line style changes


def write_comparison(c: Comparison, path: Path) -> None:
    """Write the page. Raises UserError if matplotlib is missing or the place cannot be written."""
    title = " / ".join(c.names) if len(c.names) <= 3 else f"{len(c.names)} runs"
    parts = [
        f"<h1>{page.text(title)}</h1>",
        page.paragraph(lead(c), "lead"),
        *(page.paragraph(note) for note in c.notes),
        *tables_section(c),
        *samples_section(c),
        *alignment_section(c),
        *losses_section(c),
        *runs_section(c),
    ]
    write_text(path, page.page(f"catgan: {title}", parts))


def lead(c: Comparison) -> str:
    runs = counted(len(c.records), "run")
    if len(c.groups) == len(c.records):
        return f"{runs}. A color is a run."
    return f"{runs} in {counted(len(c.groups), 'group')}: runs of a group differ by their seed only. A color is a group, a line is a run."


def tables_section(c: Comparison) -> list[str]:
    parts = []
    for table in c.tables:
        head = ["", "runs", "step", *(f"{title}{arrow(m)}" for m, title in table.columns.items())]
        parts += [page.heading(table.title), page.paragraph(explained(c, table))]
        parts.append(page.table(head, table_rows(c, table, single=False)))
        if any(len(g.runs) > 1 for g in c.groups):
            parts.append(page.details("Every run", page.table(head, table_rows(c, table))))
        if table.protocol:
            parts.append(protocol_details(table.protocol))
        if table.key and any(len(series(r, table.key)) > 1 for r in c.records):
            parts.append(metric_panels(c, table))
    return parts or [page.heading("Figures"), page.paragraph("No diagnosis and no evaluation is logged yet.")]


def samples_section(c: Comparison) -> list[str]:
    """The newest samples of each run, group by group."""
    shown = []
    for group in c.groups:
        for run in group.runs:
            if found := c.records[run].previews("samples"):
                label = f"{group.label}: " if group.label != c.names[run] else ""
                shown.append(
                    page.picture(found[max(found)].read_bytes(), f"{label}{c.names[run]}, step {max(found):,}")
                )
    if not shown:
        return []
    text = "Averaged weights, psi = 1, not selected; in all runs a column per class and the same seeds."
    return [page.heading("Samples"), page.paragraph(text), page.panels(shown)]


def explained(c: Comparison, table: Table) -> str:
    text = f"At {table.at}."
    if any(len(g.runs) > 1 for g in c.groups):
        text += " Mean ± standard deviation (n - 1) over the runs of a group."
    if "delta" in table.columns:
        text += " Lower delta, excess and R and higher A mean better aligned stages."
    return text


def overlay(
    c: Comparison,
    caption: str,
    points: Callable[[Record], Points],
    xlabel: str = "step",
    zero: bool = False,
    level: float | None = None,
) -> list[str]:
    """A plot with a line per run in its group's color; nothing if no run has any points."""
    lines = []
    for i, group in enumerate(c.groups):
        style = STYLES[i // PALETTE % len(STYLES)]
        lines += [Line(group.label, *points(c.records[r]), color(i), style) for r in group.runs]
    if not any(len(line.x) for line in lines):
        return []
    return [page.picture(plot_lines(lines, xlabel, zero, level), caption, "plot")]


def losses_section(c: Comparison) -> list[str]:
    terms = dict.fromkeys(term for r in c.records for term in loss_terms(r.rows))
    panels: list[str] = []
    for term in terms:
        panels += overlay(c, term_title(term), partial(over_scales, term), level=term_level(term))
    if not panels:
        return []
    text = "Means over scales or stages. Long runs: thin, the entries; thick, their moving average over a twentieth of the run."
    return [page.heading("Losses and penalties"), page.paragraph(text), page.panels(panels)]


def over_scales(term: str, record: Record) -> Points:
    """Mean of a term's values over scales or stages."""
    names = [f"{term}/{k}" for k in range(loss_terms(record.rows).get(term, 0))]
    rows = [r for r in record.rows if names and all(n in r for n in names)]
    return [r["step"] for r in rows], [mean([r[n] for n in names]) for r in rows]


def alignment_section(c: Comparison) -> list[str]:
    captions = {m: text.partition(" (")[0] for m, text in MEASURES.items()}
    captions["A_without_last"] = "A without the last stage"
    panels: list[str] = []
    for measure in ALIGNMENT:
        points = partial(Record.points, metric=f"diagnose/{measure}/mean")
        panels += overlay(c, captions[measure], points, zero=True)
    if not panels:
        return []
    return [page.heading("Alignment over training"), page.paragraph("Means over stages."), page.panels(panels)]


def metric_panels(c: Comparison, table: Table) -> str:
    """Every metric of an evaluation over steps and over epochs."""
    panels: list[str] = []
    for metric, title in table.columns.items():
        better = f", {BETTER[metric]} is better" if metric in BETTER else ""
        for unit in ("step", "epoch"):
            points = partial(metric_points, table.key, metric, unit)
            panels += overlay(c, f"{title}{better}, over {unit}s", points, unit)
    return page.panels(panels)


def metric_points(key: str, metric: str, unit: str, record: Record) -> Points:
    found = {s: e.metrics[metric] for s, e in series(record, key).items() if metric in e.metrics}
    if unit == "step":
        return list(found), list(found.values())
    scale = record.epochs_per_step
    return ([s * scale for s in found], list(found.values())) if scale else ([], [])


def runs_section(c: Comparison) -> list[str]:
    rows = []
    for i, r in enumerate(c.records):
        label = c.groups[c.group_of(i)].label
        done = f"{r.step:,} of {r.config.training.steps:,}"
        rows.append([label, c.names[i], r.config.training.seed, done, r.folder, r.about.get("machine", "-")])
    head = ["group", "run", "seed", "steps", "folder", "machine"]
    parts = [page.heading("Runs"), page.table(head, rows, "text")]
    firsts = [c.records[g.runs[0]] for g in c.groups]
    fields = dict.fromkeys(n for r in firsts for n in differing(firsts[0], r))
    if fields:
        settings = [[n, *(setting(r, n, firsts) for r in firsts)] for n in fields]
        differ = page.table(["field or term", *(g.label for g in c.groups)], settings, "text")
        parts += [
            page.heading("What differs"),
            differ if len(fields) <= 12 else page.details(f"{len(fields)} fields", differ),
        ]
    return parts
