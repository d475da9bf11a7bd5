"""A self-contained HTML page: text, tables, and pictures embedded as data."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Literal

STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --dim: #667085; --line: #e3e6ec; --back: #ffffff; --card: #f7f8fa; --accent: #1b6ca8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaf0; --dim: #9aa3b5; --line: #2d3442; --back: #14171d; --card: #1c2028; --accent: #6cb4ea; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--back); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 2rem; margin: 0 0 .25rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .5rem 0; }
.lead, figcaption, .dim { color: var(--dim); }
figure { margin: 1rem 0; }
figcaption { font-size: .875rem; margin-bottom: .35rem; }
img { max-width: 100%; height: auto; image-rendering: pixelated; border-radius: 4px; }
img.plot { image-rendering: auto; background: #fff; }
@media (prefers-color-scheme: dark) { img.plot { filter: invert(.92) hue-rotate(180deg); } }
.row { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
.row > figure { flex: 1 1 18rem; }
.row.small > figure { flex: 0 1 auto; }
.panels { display: grid; align-items: end; gap: .5rem 1.25rem; margin: 1rem 0; }
.panels.two { grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); }
.panels.three { grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); }
.panels > figure { margin: .25rem 0; min-width: 0; }
.panels img { width: 100%; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .75rem 1rem; }
.card b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.card span { font-size: .875rem; color: var(--dim); }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; vertical-align: bottom; }
th { max-width: 10rem; }
td + td { white-space: nowrap; }
table.text td { white-space: normal; }
table.text th, table.text td { text-align: left; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: 1rem 0 .5rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1rem; overflow-x: auto; font-size: .9rem; }
"""


def text(value: object) -> str:
    """Escaped for HTML."""
    return html.escape(str(value))


def paragraph(value: str, css: str = "") -> str:
    return f'<p class="{css}">{text(value)}</p>' if css else f"<p>{text(value)}</p>"


def heading(value: str) -> str:
    return f"<h2>{text(value)}</h2>"


def picture(data: bytes, caption: str, css: str = "") -> str:
    """A PNG or GIF with its caption above."""
    kind = "gif" if data[:3] == b"GIF" else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<figure><figcaption>{text(caption)}</figcaption><img class="{css}" src="{source}" alt="{text(caption)}"></figure>'


def row(*parts: str, css: str = "") -> str:
    """Side by side where there is room. css "small": no wider than they are."""
    return f'<div class="row {css}">{"".join(parts)}</div>'


def panels(parts: Sequence[str], columns: Literal["two", "three"] = "two") -> str:
    """Pictures of equal width, at most so many beside each other, fewer where there is less room."""
    return f'<div class="panels {columns}">{"".join(parts)}</div>'


def cards(values: Sequence[tuple[str, str]]) -> str:
    """Large figures with what they are."""
    return f'<div class="cards">{"".join(f"<div class=card><b>{text(v)}</b><span>{text(k)}</span></div>" for v, k in values)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[object]], css: str = "") -> str:
    """Numbers to the right; css "text": words to the left. Too wide for the page, it scrolls."""
    top = "".join(f"<th>{text(h)}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{text(c)}</td>" for c in r) + "</tr>" for r in rows)
    return f'<div class="wide"><table class="{css}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def details(summary: str, *parts: str) -> str:
    """Folded until it is asked for."""
    return f"<details><summary>{text(summary)}</summary>{''.join(parts)}</details>"


def code(value: str) -> str:
    return f"<pre>{text(value)}</pre>"


def page(title: str, parts: Sequence[str]) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
