"""The page of one message that was followed: as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import html
import os
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

from rtls_analysis.analysis.stories import (
    Fate,
    Found,
    Happening,
    Kind,
    RecipientStory,
    Tone,
    asked,
    connection_happening,
    hop_happening,
    in_time,
    not_known,
    report_happening,
    stories,
)
from rtls_analysis.outcomes import Told
from rtls_analysis.read.mail_coverage import printable

_WIDTH = 100
_FATES: Mapping[Fate, tuple[str, Tone]] = {
    Fate.DELIVERED: ("accepted by the last server that is known", Tone.GOOD),
    Fate.RETURNED: ("returned", Tone.BAD),
    Fate.RETURNED_LATER: ("accepted by one server, returned by one behind it", Tone.BAD),
    Fate.QUEUED: ("still queued, as far as is known", Tone.OPEN),
    Fate.UNKNOWN: ("not known", Tone.OPEN),
}
_SIGNS = {Tone.GOOD: "+", Tone.BAD: "x", Tone.OPEN: "?", Tone.FACT: " "}
_HTML_SIGNS = {Tone.GOOD: "&#10003;", Tone.BAD: "&#10007;", Tone.OPEN: "?", Tone.FACT: "&middot;"}
_SIGN_WORDS = {Tone.GOOD: "good", Tone.BAD: "bad", Tone.OPEN: "open", Tone.FACT: "noted"}
_COLUMNS = ("", "when (UTC)", "who tells", "what")


class MessagePage:
    """What is known of one message, and what is not.

    Parameters
    ----------
    message_id
        Its Message-ID, or the queue id by which it was found.
    found
        The rows that belong to it.
    given
        The names of the tables that were searched.

    Attributes
    ----------
    recipients
        A story for each recipient.
    not_known
        What cannot be told, and why.
    """

    def __init__(self, message_id: str, found: Found, given: Iterable[str]) -> None:
        self.message_id = message_id
        self.found = found
        self.recipients: list[RecipientStory] = stories(found)
        self.not_known: list[str] = not_known(found, given)
        self._connections = in_time(map(connection_happening, found.connections))
        self._hops = [hop_happening(row) for row in sorted(found.hops, key=lambda row: row["hop"] or 0)]
        self._reports = in_time(map(report_happening, found.reports))

    @property
    def headline(self) -> str:
        """What became of it, in a sentence or two."""
        fates = [story.fate for story in self.recipients]
        counts = [f"{fates.count(fate)} {_FATES[fate][0]}" for fate in Fate if fate in fates]
        told = f"{len(fates)} recipients: {'; '.join(counts)}." if fates else "No recipient is known."
        if len(fates) == 1:
            told = f"One recipient: {_FATES[fates[0]][0]}."
        wish, sources = asked(self.found)
        match wish:
            case Told.YES:
                told += f" Its sender asked for REQUIRETLS (says {' and '.join(sources)})."
            case Told.NO:
                told += " Its sender did not ask for REQUIRETLS."
            case _:
                told += " Whether its sender asked for REQUIRETLS is not known."
        return told

    @property
    def tone(self) -> Tone:
        """How it went for the worst recipient."""
        tones = {_FATES[story.fate][1] for story in self.recipients}
        return next((tone for tone in (Tone.BAD, Tone.OPEN, Tone.GOOD) if tone in tones), Tone.OPEN)

    @property
    def sections(self) -> list[tuple[str, list[Happening]]]:
        """The parts of the page: a title and what is told there, those without anything left out."""
        parts = [
            (f"To {printable(story.recipient, 120)}: {_FATES[story.fate][0]}", list(story.happenings))
            for story in self.recipients
        ]
        parts += [
            ("Connections that were made for it", self._connections),
            ("Its way, as its Received fields tell it", self._hops),
            ("TLS reports about its destinations at that time (they name no message)", self._reports),
        ]
        return [(title, told) for title, told in parts if told]

    def __repr__(self) -> str:
        return f"<MessagePage {printable(self.message_id, 120)}: {self.headline}>"

    # -- as text ----------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        title = f"<{printable(self.message_id, 120)}>"
        lines = [title, "=" * len(title), *textwrap.wrap(self.headline, _WIDTH)]
        for heading, told in self.sections:
            lines += ["", heading, "-" * len(heading)]
            for item in told:
                lines.append(f"  {_SIGNS[item.tone]} {_moment(item)}  {printable(item.teller, 80)}")
                text = printable(item.text, 600)
                lines += textwrap.wrap(text, _WIDTH, initial_indent="      ", subsequent_indent="      ")
                if item.source:
                    lines.append(f"      ({printable(item.source, 160)})")
        if self.not_known:
            lines += ["", "Not known", "---------"]
            for gap in self.not_known:
                lines += textwrap.wrap(
                    printable(gap, 400), _WIDTH, initial_indent="  ? ", subsequent_indent="    "
                )
        return "\n".join(lines)

    # -- as HTML ----------------------------------------------------------------------------------------------

    def _repr_html_(self) -> str:
        title = html.escape(f"<{printable(self.message_id, 120)}>")
        parts = [
            _STYLE,
            '<div class="rtls-message">',
            f"<h3>{title}</h3>",
            f'<p class="rtls-verdict rtls-{self.tone}">{html.escape(printable(self.headline, 600))}</p>',
        ]
        for heading, told in self.sections:
            rows = "".join(map(_row_html, told))
            head = "".join(f"<th scope='col'>{name}</th>" for name in _COLUMNS)
            parts.append(f"<h4>{html.escape(heading)}</h4>")
            parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
        if self.not_known:
            gaps = "".join(f"<li>{html.escape(printable(gap, 400))}</li>" for gap in self.not_known)
            parts.append(f"<h4>Not known</h4><ul>{gaps}</ul>")
        parts.append("</div>")
        return "\n".join(parts)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the page as a self-contained HTML file."""
        title = html.escape(printable(self.message_id, 120))
        Path(path).write_text(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title></head>\n<body>{self._repr_html_()}</body></html>\n",
            encoding="utf-8",
        )


def _moment(item: Happening) -> str:
    if item.at is None:
        return "at no time told    "
    kind = {Kind.REPORT: "%Y-%m-%d (day)     "}.get(item.kind, "%Y-%m-%d %H:%M:%S")
    return f"{item.at:{kind}}"


def _row_html(item: Happening) -> str:
    word = _SIGN_WORDS[item.tone]
    source = f"<br><small>{html.escape(printable(item.source, 160))}</small>" if item.source else ""
    return (
        f'<tr><td class="rtls-{item.tone}" title="{word}"><span aria-label="{word}">{_HTML_SIGNS[item.tone]}</span>'
        f"</td><td>{_moment(item).strip()}</td><td>{html.escape(printable(item.teller, 80))}</td>"
        f"<td>{html.escape(printable(item.text, 600))}{source}</td></tr>"
    )


_STYLE = """<style>
.rtls-message { font: 14px/1.45 system-ui, sans-serif; max-width: 70em; overflow-wrap: anywhere; }
.rtls-message h3, .rtls-message h4 { margin: 1em 0 .3em; }
.rtls-message.rtls-message table { table-layout: auto; border-collapse: collapse; width: 100%; }
.rtls-message.rtls-message td, .rtls-message.rtls-message th { text-align: left; vertical-align: top;
  padding: .2em .8em .2em 0; border-top: 1px solid #8884; background: none; white-space: normal; }
.rtls-message td:first-child { width: 1.4em; font-weight: bold; }
.rtls-message td:nth-child(2) { white-space: nowrap; font-variant-numeric: tabular-nums; }
.rtls-message .rtls-verdict { border-left: 4px solid; padding: .1em .6em; font-weight: bold; }
.rtls-message .rtls-good { color: #00664b; } .rtls-message .rtls-bad { color: #a33a00; }
.rtls-message .rtls-open { color: #6b5200; } .rtls-message .rtls-fact { color: inherit; }
@media (prefers-color-scheme: dark) { .rtls-message .rtls-good { color: #3fc79a; }
  .rtls-message .rtls-bad { color: #f08a4b; } .rtls-message .rtls-open { color: #e0b84c; } }
</style>"""
