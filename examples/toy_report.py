"""The table and the figure of toy.py."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from catgan.report.plots import COLORS, figure, png

Run = dict[str, Any]  # one training, as toy.train returns it

DIGITS = {"MMD^2": 5, "CPU seconds": 0}  # after the point; 3 elsewhere
STAGE_COLORS = (COLORS[3], COLORS[2], "0.15")  # of stages 0 to 2
TITLES = {
    "excess": "$\\delta$ above its floor",
    "R": "rewriting $R$",
    "A": "direction $A$",
    "MMD^2": "MMD$^2$ to the data",
}


def table(runs: Sequence[Run], data: dict[str, float]) -> str:
    """Measures after the last step, a column per lambda: means over seeds, and standard deviations of several."""

    def cell(name: str, weight: float) -> str:
        values = [(r["rows"][-1] | r)[name] for r in runs if r["lambda"] == weight]
        return " ± ".join(number(name, v) for v in (mean(values), *([stdev(values)] if len(values) > 1 else [])))

    def number(name: str, value: float) -> str:
        return f"{value:.{DIGITS.get(name, 3)}f}"

    weights = dict.fromkeys(r["lambda"] for r in runs)
    lines = [f"{'':<12}{'data':>8}" + "".join(f"{f'lambda = {w:g}':>20}" for w in weights)]
    for name in [*data, "CPU seconds"]:
        of_data = number(name, data[name]) if name in data else ""
        lines.append(f"{name:<12}{of_data:>8}" + "".join(f"{cell(name, w):>20}" for w in weights))
    return "\n".join(lines)


def draw(runs: Sequence[Run], data: dict[str, float]) -> bytes:
    """Per lambda a row of four signals with their stages, then a row of measures over training."""
    weights = list(dict.fromkeys(r["lambda"] for r in runs))
    made, axes = figure(4, rows=len(weights) + 1)
    made.set_size_inches(11, 2.2 * (len(weights) + 1))
    for row, w in enumerate(weights):
        of_row = axes[4 * row : 4 * row + 4]
        draw_signals(of_row, next(r["stages"] for r in runs if r["lambda"] == w))
        of_row[0].set_ylabel(f"$\\lambda$ = {w:g}", fontsize=13)
    made.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    for ax, (name, title) in zip(axes[-4:], TITLES.items(), strict=True):
        draw_measure(ax, name, runs, data)
        ax.set_title(title, fontsize=11)
    axes[-1].set_yscale("symlog", linthresh=1e-3)
    return png(made)


def draw_signals(axes: Sequence[Any], stages: Sequence[Sequence[Sequence[float]]]) -> None:
    """A signal per axes, its four stages as the discriminator sees them, the last one broad and grey."""
    for k, of_stage in enumerate(stages):
        style = {"color": STAGE_COLORS[k], "linewidth": 1.8} if k < 3 else {"color": "0.8", "linewidth": 5, "zorder": 0}
        for ax, x in zip(axes, of_stage, strict=True):
            ax.stairs(x, baseline=None, label=f"$r_{k}(h_{k})$", **style)
            ax.set(xticks=[], yticks=[-3, 0, 3], ylim=(-4.2, 4.2))


def draw_measure(ax: Any, name: str, runs: Sequence[Run], data: dict[str, float]) -> None:
    """One measure, its mean over stages: a thin line per seed, a broad one for their mean, a dotted one for the data."""

    def over_stages(row: dict[str, float]) -> float:
        return mean(v for n, v in row.items() if n.startswith(name))

    steps = [row["step"] for row in runs[0]["rows"]]
    ax.axhline(over_stages(data), color="0.4", linestyle=":", linewidth=1)
    ax.annotate("data", (steps[0], over_stages(data)), (0, -10), textcoords="offset points", color="0.4", fontsize=8)
    for i, w in enumerate(dict.fromkeys(r["lambda"] for r in runs)):
        color = COLORS[i % len(COLORS)]
        lines = [[over_stages(row) for row in r["rows"]] for r in runs if r["lambda"] == w]
        middle = [mean(values) for values in zip(*lines, strict=True)]
        for line in lines:
            ax.plot(steps, line, color=color, alpha=0.35, linewidth=0.8)
        ax.plot(steps, middle, color=color, linewidth=2)
        ax.annotate(f" {w:g}", (steps[-1], middle[-1]), color=color, va="center", annotation_clip=False)
    ax.margins(y=0.12)
    ax.set_xlabel("step")
