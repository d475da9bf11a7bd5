"""Plots show all of what they are given."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from catgan.report import plots
from catgan.report.plots import Line, plot_lines


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are made."""
    made: list[Figure] = []
    monkeypatch.setattr(plots, "png", lambda figure: made.append(figure) or b"")
    return made


@pytest.mark.parametrize("values", [[0.5, 0.7, 0.69], [-0.2, 0.1], [0.0, 0.0], [0.1] * 70 + [2.0] + [0.1] * 70])
def test_no_point_lies_at_the_edge_or_beyond(values: list[float], drawn: list[Figure]) -> None:
    plot_lines([Line("a", range(len(values)), values)], zero=True)
    low, high = drawn[0].axes[0].get_ylim()
    assert high > max(values)
    assert low < min(values) or low == 0


@pytest.mark.parametrize("label", ["a word and " * 12, "x" * 200])
def test_legends_of_long_labels_are_inside(label: str, drawn: list[Figure]) -> None:
    plot_lines([Line(f"{label}{i}", [0, 1], [0, 1]) for i in range(3)])
    canvas = FigureCanvasAgg(drawn[0])
    canvas.draw()
    box = drawn[0].legends[0].get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= drawn[0].bbox.x1
    assert drawn[0].axes[0].get_window_extent().height > 0.5 * 2.6 * drawn[0].dpi * 0.8, "room is left for the plot"
