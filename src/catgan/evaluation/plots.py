"""Figures, as the bytes of PNG files."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from catgan.errors import UserError
from catgan.evaluation.alignment import Alignment
from catgan.evaluation.attention import CrossScaleAttention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#1b6ca8", "#e07a1f", "#3a8f5d", "#a23b72", "#6c5b9c", "#8c6d31")


def canvas(width: float, height: float) -> Figure:
    """An empty figure, size in inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("plots need matplotlib, which is not installed: pip install 'catgan[plots]'") from None
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def figure(columns: int) -> tuple[Figure, Sequence[Any]]:
    """A row of axes."""
    made = canvas(4.0 * columns, 3.0)
    axes = [made.add_subplot(1, columns, i + 1) for i in range(columns)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.25)
    return made, axes


def png(made: Figure) -> bytes:
    buffer = io.BytesIO()
    made.savefig(buffer, format="png")
    return buffer.getvalue()


def plot_alignment(result: Alignment) -> bytes:
    """delta (with its floor), R and A over stages."""
    made, axes = figure(3)
    stages = list(range(len(result.delta)))
    for ax, name, title in zip(axes, ("delta", "R", "A"), TITLES, strict=True):
        ax.bar(stages, getattr(result, name), color=COLORS[0], width=0.6, label=name)
        if name == "delta":
            left, right = [k - 0.4 for k in stages], [k + 0.4 for k in stages]
            ax.hlines(result.floor, left, right, color=COLORS[1], linewidth=2.5, label="floor")
            ax.legend(frameon=False)
        ax.set(title=title, xlabel="stage k", xticks=stages)
    return png(made)


TITLES = ("distance to the final image, $\\delta_k$", "rewriting, $R_k$", "direction of rewriting, $A_k$")


def plot_alignment_over_steps(rows: Sequence[Mapping[str, float]]) -> bytes:
    """The three measures over training, a line per stage, from a run's metrics (`diagnose/...` entries)."""
    rows = [r for r in rows if "diagnose/delta/0" in r]
    made, axes = figure(3)
    stages = sum(1 for name in (rows[0] if rows else {}) if name.startswith("diagnose/delta/") and name[-1].isdigit())
    steps = [r["step"] for r in rows]
    for ax, name, title in zip(axes, ("delta", "R", "A"), TITLES, strict=True):
        for k in range(stages):
            ax.plot(steps, [r[f"diagnose/{name}/{k}"] for r in rows], color=COLORS[k % len(COLORS)], label=f"k = {k}")
            if name == "delta":
                ax.plot(steps, [r[f"diagnose/floor/{k}"] for r in rows], ":", color=COLORS[k % len(COLORS)])
        ax.set(title=title, xlabel="step", ylim=(0, None))
    axes[0].legend(frameon=False, title="dotted: floor", fontsize=8, title_fontsize=8)
    return png(made)


def plot_curves(rows: Sequence[Mapping[str, float]], panels: Mapping[str, Sequence[tuple[str, str]]]) -> bytes:
    """Scalars over steps: one panel per title, each with (metric, label) lines."""
    made, axes = figure(len(panels))
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for i, (metric, label) in enumerate(lines):
            points = [(r["step"], r[metric]) for r in rows if metric in r]
            if points:
                ax.plot(*zip(*points, strict=True), color=COLORS[i % len(COLORS)], label=label, linewidth=1)
        ax.set(title=title, xlabel="step")
        if len(lines) > 1:
            ax.legend(frameon=False, fontsize=8)
    return png(made)


def plot_attention(result: CrossScaleAttention, source: str = "generated") -> bytes:
    """A heat map per layer: share of attention from the tokens of scale i (rows) to those of scale j (columns).

    Exact 0 and 1 are written without decimals.
    """
    layers, scales = result.mass[source].tolist(), range(len(result.tokens))
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
    made.suptitle(f"{source} samples: {result.off_diagonal(source):.1%} of attention leaves its scale", fontsize=10)
    return png(made)


MAPS_PER_ROW = 6
