"""A self-contained HTML page: sections of text, plots as inline SVG, and accessible tables; no script, no network.

What strangers wrote is escaped on its way in, and a content security policy in the page forbids it to be more than
text.
"""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rtls_analysis.read.mail_coverage import printable

LONGEST = 400  # characters of a cell
LONG = 40  # characters from which on a text wants room
WIDTH, HEIGHT = 7.6, 4.2  # of a plot, in inches


def text(value: Any, limit: int = LONGEST) -> str:
    r"""Make a value harmless: on one line, short, no control characters, no markup.

    >>> text('<script>\x1b[2J')
    '&lt;script&gt;\\x1b[2J'
    """
    return html.escape(printable(str(value), limit))


@dataclass(frozen=True, slots=True)
class Note:
    """A paragraph; a `warning` is set apart."""

    words: str
    warning: bool = False

    def to_html(self, _anchor: str) -> str:
        """Write it."""
        kind = ' class="warning" role="note"' if self.warning else ""
        return f"<p{kind}>{text(self.words, 2000)}</p>"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its first column names the rows; `numbers` are the columns that are set to the right.

    `folded` is what to click on, for a table that is not shown at once.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    numbers: frozenset[int] = frozenset()
    folded: str = ""

    def to_html(self, anchor: str) -> str:
        """Write it, in a region that scrolls where the page is narrow."""
        kinds = [self._kind(number) for number in range(len(self.columns))]
        head = "".join(
            f'<th scope="col"{kind}>{text(name)}</th>' for kind, name in zip(kinds, self.columns, strict=True)
        )
        body = "\n".join(self._row(row, kinds) for row in self.rows)
        table = (
            f'<div class="scroll" role="region" aria-labelledby="{anchor}" tabindex="0">\n'
            f'<table><caption id="{anchor}"><span>{text(self.caption, 1000)}</span></caption>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
        )
        return f"<details><summary>{text(self.folded)}</summary>\n{table}</details>" if self.folded else table

    def _kind(self, number: int) -> str:
        """Say what a column holds: numbers, or texts that want room."""
        if number in self.numbers:
            return ' class="number"'
        is_long = number and any(len(str(row[number])) > LONG for row in self.rows)
        return ' class="long"' if is_long else ""

    def _row(self, row: Sequence[Any], kinds: Sequence[str]) -> str:
        name, *values = row
        cells = [f"<td{kind}>{text(value)}</td>" for kind, value in zip(kinds[1:], values, strict=True)]
        return f'<tr><th scope="row">{text(name)}</th>{"".join(cells)}</tr>'


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with what it shows in words, for those who do not see it, and a caption."""

    svg: bytes
    alternative: str
    caption: str

    def to_html(self, _anchor: str) -> str:
        """Write it, as an image that brings its data along."""
        data = base64.b64encode(self.svg).decode()
        return (
            f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{text(self.caption)}">'
            f'<img src="data:image/svg+xml;base64,{data}" alt="{text(self.alternative, 1000)}"></div>'
            f"<figcaption>{text(self.caption, 1000)}</figcaption></figure>"
        )


Block = Note | Table | Figure


@dataclass(slots=True)
class Section:
    """A part of the page."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    def add(self, *blocks: Block | None) -> None:
        """Add what is there."""
        self.blocks += [block for block in blocks if block is not None]

    def to_html(self, number: int) -> str:
        """Write it, with the anchors that the table of contents and the tables' regions point to."""
        name = f"part-{number}"
        inner = "\n".join(block.to_html(f"{name}-{place}") for place, block in enumerate(self.blocks, 1))
        return f'<section aria-labelledby="{name}">\n<h2 id="{name}">{text(self.title)}</h2>\n{inner}\n</section>'


def draw(
    plot: Callable[..., Any],
    *arguments: Any,
    alternative: str,
    caption: str,
    height: float = HEIGHT,
    **options: Any,
) -> Figure:
    """Draw a plot, one of `rtls_analysis.plots`, as SVG: without a window, whatever the backend, always alike."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    settings: Any = {"svg.fonttype": "path", "svg.hashsalt": "rtls", "font.size": 10, "axes.titlesize": 11}
    settings["text.parse_math"] = False  # a dollar sign in a name is one
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # a name in a script that the font lacks
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        plot(*arguments, ax=canvas.subplots(), **options)
        drawn = io.BytesIO()
        canvas.savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return Figure(drawn.getvalue(), alternative, caption)


def render(title: str, lead: Iterable[str], sections: Sequence[Section], ending: Iterable[str]) -> str:
    """Write the whole page."""
    contents = "\n".join(
        f'<li><a href="#part-{number}">{text(section.title)}</a></li>'
        for number, section in enumerate(sections, 1)
    )
    body = "\n".join(section.to_html(number) for number, section in enumerate(sections, 1))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#content">To the content</a>
<header>
<h1>{text(title)}</h1>
{"".join(f"<p>{text(words, 2000)}</p>" for words in lead)}
</header>
<nav aria-label="Contents"><ol>
{contents}
</ol></nav>
<main id="content">
{body}
</main>
<footer>{"".join(f"<p>{text(words, 2000)}</p>" for words in ending)}</footer>
</body>
</html>
"""


STYLE = """
:root { --ink: #1c1e21; --soft: #565b63; --ground: #ffffff; --line: #d9dce1; --band: #f4f5f7; --link: #005a94;
  --warn: #fff4d6; --warn-line: #b38a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --soft: #a9afb8; --ground: #16181b; --line: #3a3f46;
  --band: #212429; --link: #7cc0f0; --warn: #332a10; --warn-line: #d0a420; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 62rem; color: var(--ink); background: var(--ground);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
p { max-width: 44rem; margin: .5rem 0; }
a { color: var(--link); }
.skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; }
nav ol { columns: 18rem; padding-left: 1.9rem; margin: 1rem 0; }
.warning { background: var(--warn); border-left: 4px solid var(--warn-line); padding: .5rem .8rem; }
.scroll { overflow-x: auto; }
.scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; margin: .4rem 0 1.2rem; font-size: .9rem; min-width: 60%; }
caption { text-align: left; color: var(--soft); padding: .4rem 0; caption-side: top; }
caption span { display: inline-block; position: sticky; left: 0; max-width: min(44rem, calc(100vw - 2rem)); }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-top: 1px solid var(--line);
  font-weight: normal; overflow-wrap: break-word; min-width: 6rem; max-width: 22rem; }
thead th { font-weight: 600; border-top: 0; border-bottom: 2px solid var(--line); vertical-align: bottom; }
tbody th { position: sticky; left: 0; background: var(--ground); min-width: 9rem; max-width: 17rem;
  overflow-wrap: anywhere; }
tbody tr:nth-child(even) > * { background: var(--band); }
.number { text-align: right; font-variant-numeric: tabular-nums; min-width: 0; }
td.number { white-space: nowrap; }
.long { min-width: 15rem; }
figure { margin: 1rem 0 1.4rem; }
figure img { display: block; width: 100%; min-width: 34rem; max-width: 52rem; height: auto; background: #fff;
  border-radius: 4px; padding: .5rem; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .3rem; }
details { margin: .4rem 0 1.2rem; } summary { cursor: pointer; color: var(--link); }
footer { margin-top: 3rem; padding-top: .6rem; border-top: 1px solid var(--line); color: var(--soft);
  font-size: .9rem; }
@media (max-width: 40rem) { tbody th { max-width: 9rem; } td { max-width: 15rem; } td.long { max-width: 18rem; } }
@media print {
  :root { --ink: #000; --soft: #333; --ground: #fff; --line: #999; --band: #f2f2f2; --link: #000; --warn: #fff; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .skip, nav { display: none; }
  .scroll { overflow: visible; } .long { min-width: 0; } tbody th { position: static; }
  details > * { display: block; } details::details-content { content-visibility: visible; height: auto; }
  figure, tr, caption { break-inside: avoid; } h2, caption { break-after: avoid; }
  figure img { min-width: 0; padding: 0; }
}
"""
