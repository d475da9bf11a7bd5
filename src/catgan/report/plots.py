"""Figures, as the bytes of PNG files."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import TYPE_CHECKING, Any

from catgan.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from catgan.evaluation.alignment import Alignment
    from catgan.evaluation.attention import CrossScaleAttention

MAPS_PER_ROW = 6  # of attention
LONGEST_LINE = 50  # characters of a legend
COLORS = ("#1b6ca8", "#e07a1f", "#3a8f5d", "#a23b72", "#6c5b9c", "#8c6d31")


def canvas(width: float, height: float, dpi: int = 110) -> Figure:
    """An empty figure, size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("plots need matplotlib, which is not installed: pip install 'catgan[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained", dpi=dpi)


def figure(
    columns: int, rows: int = 1, width: float = 4.0, height: float = 3.0, dpi: int = 110
) -> tuple[Figure, Sequence[Any]]:
    """Axes from left to right and top to bottom; width and height (of each) in inches."""
    made = canvas(width * columns, height * rows, dpi)
    axes = [made.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.25)
    return made, axes


def png(made: Figure) -> bytes:
    buffer = io.BytesIO()
    made.savefig(buffer, format="png")
    return buffer.getvalue()


def plot_over_psi(psi: Sequence[float], numbers: Mapping[str, Sequence[float]]) -> bytes:
    """A panel per number, over truncation psi; beside them, where both are there, precision against recall."""
    pair = [next((v for n, v in numbers.items() if n.endswith(kind)), None) for kind in ("recall", "precision")]
    made, axes = figure(len(numbers) + (None not in pair))
    for ax, (name, values) in zip(axes, numbers.items(), strict=False):
        ax.plot(psi, values, "o-", color=COLORS[0])
        ax.set_title("\n".join(textwrap.wrap(name, 34)), fontsize=10)
        ax.set_xlabel("psi")
    recall, precision = pair
    if recall is not None and precision is not None:
        axes[-1].plot(recall, precision, "o-", color=COLORS[1])
        for p, x, y in zip(psi, recall, precision, strict=True):
            axes[-1].annotate(f"{p:g}", (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes[-1].set_title("precision over recall, by psi", fontsize=10)
        axes[-1].set_xlabel("recall")
    return png(made)


def plot_alignment(result: Alignment) -> bytes:
    """delta (with its floor), R and A over stages."""
    made, axes = figure(3)
    stages = list(range(len(result.delta)))
    titles = {
        "delta": "distance to the final image, $\\delta_k$",
        "R": "rewriting, $R_k$",
        "A": "direction of rewriting, $A_k$",
    }
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        ax.bar(stages, getattr(result, name), color=COLORS[0], width=0.6, label=name)
        if name == "delta":
            left, right = [k - 0.4 for k in stages], [k + 0.4 for k in stages]
            ax.hlines(result.floor, left, right, color=COLORS[1], linewidth=2.5, label="floor")
            ax.legend(frameon=False)
        ax.set(title=title, xlabel="stage k", xticks=stages)
    return png(made)


@dataclass(frozen=True)
class Line:
    """One line of a plot. Lines of equal label and color are one entry of the legend."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    color: str = COLORS[0]
    style: str = "-"


def color(index: int) -> str:
    """The color of scale, stage or group `index`, the same in every plot."""
    return COLORS[index % len(COLORS)]


def plot_lines(lines: Sequence[Line], xlabel: str = "step", zero: bool = False, level: float | None = None) -> bytes:
    """Lines over steps or epochs, with a legend above if there are several.

    Long ones are drawn thin with their moving average on top; few points get markers. The axis is logarithmic where
    positive values span more than a factor of 50. zero: the axis starts at 0. level: draw a dotted line there.
    """
    lines = [line for line in lines if len(line.x)]
    legend = {shown(line.label): line for line in reversed(lines)} if len({line.label for line in lines}) > 1 else {}
    columns = max(1, 60 // (max(map(len, legend), default=0) + 6))
    height = sum(label.count("\n") + 1 for label in legend) / columns
    made, (ax,) = figure(1, 1, 3.8, 2.6 + 0.17 * math.ceil(height), dpi=190)
    smoothed = [smooth(line.y) for line in lines]
    for line, values in zip(lines, smoothed, strict=True):
        if values is not line.y:
            ax.plot(line.x, line.y, line.style, color=line.color, linewidth=0.5, alpha=0.3)
        marker = "o" if len(line.x) <= 12 else None
        ax.plot(line.x, values, line.style, color=line.color, linewidth=1.4, marker=marker, markersize=3)
    if level is not None:
        ax.axhline(level, color="#888888", linestyle=":", linewidth=1)
    seen = [v for line in lines for v in line.y if math.isfinite(v)]
    if zero and seen:
        low, high = min(0.0, *seen), max(0.0, *seen)
        space = 0.06 * (high - low)
        ax.set_ylim(low - space * (low < 0), high + space or None)
    elif seen and min(seen) > 0 and max(seen) > 50 * min(seen):
        ax.set_yscale("log")
    ax.set_xlabel(xlabel)
    if legend:
        from matplotlib.lines import Line2D

        keys = [Line2D([], [], color=v.color, ls=v.style) for v in legend.values()][::-1]
        made.legend(keys, list(legend)[::-1], loc="outside upper left", frameon=False, fontsize=8, ncols=columns)
    return png(made)


def smooth(values: Sequence[float]) -> Sequence[float]:
    """Moving average over a twentieth of the values, shorter at the ends; below 60 values the values themselves."""
    half = len(values) // 40
    if len(values) < 60:
        return values
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def shown(label: str) -> str:
    """The label as matplotlib draws it literally: no formulas, a leading underscore does not hide it, long ones in lines."""
    label = textwrap.fill(label, LONGEST_LINE).replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def plot_attention(result: CrossScaleAttention) -> bytes:
    """A heat map per layer, on generated samples: share of attention from the tokens of scale i (rows) to those of scale j (columns).

    Exact 0 and 1 are written without decimals.
    """
    layers, scales = result.mass["generated"].tolist(), range(len(result.tokens))
    rows = math.ceil(len(layers) / MAPS_PER_ROW)
    columns = math.ceil(len(layers) / rows)
    side = max(1.5, 0.45 * len(scales))
    made = canvas(max(side * columns + 1.2, 4.5), (side + 0.3) * rows + 0.7)
    axes = [made.add_subplot(rows, columns, n + 1) for n in range(len(layers))]
    for n, (ax, mass) in enumerate(zip(axes, layers, strict=True)):
        shown = ax.imshow(mass, cmap="Blues", vmin=0, vmax=1)
        for i, j in product(scales, scales):
            text = f"{mass[i][j]:.0f}" if mass[i][j] in (0, 1) else f"{mass[i][j]:.2f}"
            ax.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if mass[i][j] > 0.6 else "black")
        left, bottom = n % columns == 0, n + columns >= len(layers)
        ax.set(
            xticks=scales, yticks=scales, xlabel="to scale j" if bottom else "", ylabel="from scale i" if left else ""
        )
        ax.tick_params(length=0, labelsize=8)
        ax.set_title(f"layer {n + 1}", fontsize=9)
    made.colorbar(shown, ax=axes, label="share of attention", aspect=12 * rows, shrink=0.9, pad=0.02)
    made.suptitle(
        f"generated samples: {result.off_diagonal('generated'):.1%} of attention leaves its scale", fontsize=10
    )
    return png(made)


@dataclass(frozen=True)
class Course:
    """A number over training, of several runs that differ by their seed only."""

    label: str
    x: Sequence[float]
    runs: Sequence[Sequence[float]]  # values at x, per run


def plot_courses(panels: Mapping[str, Sequence[Course]], xlabel: str = "step") -> bytes:
    """Panels beside each other, by title: the mean over runs, in the band from the lowest to the highest."""
    made, axes = figure(len(panels), 1, 3.2, 2.7, dpi=140)
    for ax, (title, courses) in zip(axes, panels.items(), strict=True):
        for i, course in enumerate(courses):
            at = list(zip(*course.runs, strict=True))
            ax.fill_between(course.x, list(map(min, at)), list(map(max, at)), color=color(i), alpha=0.18, linewidth=0)
            ax.plot(course.x, list(map(fmean, at)), color=color(i), linewidth=1.6, label=shown(course.label))
        low = min(v for course in courses for run in course.runs for v in run)
        high = max(v for course in courses for run in course.runs for v in run)
        if 0 < low < high / 20:
            ax.set_yscale("log")
        ax.set_xlabel(xlabel)
        ax.set_title(title, fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside upper center", frameon=False, fontsize=9, ncols=min(len(labels), 5))
    return png(made)
