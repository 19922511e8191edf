"""The trace of one message as a page: each hop, what it tells of TLS, and which of them disproves REQUIRETLS.

The same page as text for a terminal and as HTML for a notebook.
"""

from __future__ import annotations

import html
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import Told
from rtls_analysis.read.mail_coverage import coverage_lines, printable
from rtls_analysis.read.mail_files import MailPath
from rtls_analysis.read.received import read_received, received_summary
from rtls_analysis.schema import HOPS, rows_of
from rtls_analysis.standards.received import HopTls

if TYPE_CHECKING:
    import pandas as pd


WHAT_IT_SAYS: Mapping[HopTls, str] = {
    HopTls.NONE: "no TLS",
    HopTls.ENCRYPTED: "TLS",
    HopTls.ANONYMOUS: "TLS without a certificate (anonymous)",
    HopTls.AUTHENTICATED_CLIENT: "TLS, and the client's certificate was verified",
    HopTls.UNKNOWN: "TLS not told",
}
"""What a Received field tells of TLS, in a phrase."""


def read_trace(path: MailPath, *, minimum_tls: str = "TLSv1.2") -> TracePage:
    """Read one message and show its way: hop by hop, with what each tells of TLS.

    Parameters
    ----------
    path
        A message; of an mbox or folder the first one with Received fields.
    minimum_tls
        As for `read_received`.

    Raises
    ------
    FileNotFoundError
        The path names nothing.
    ValueError
        There is no Received field in it.
    """
    frame = read_received(path, minimum_tls=minimum_tls, progress=False)
    if frame.empty:
        raise ValueError(f"no message with Received fields in {path!r}")
    return TracePage(frame[frame["source_file"] == frame["source_file"].iloc[0]])


def received_report(hops: pd.DataFrame, *, pages: int = 3) -> str:
    """What `rtls received` prints: the pages of up to `pages` messages, or else the summary of all."""
    if hops.empty or hops["source_file"].nunique() > pages:
        return received_summary(hops)
    shown = [str(TracePage(message)) for _source, message in hops.groupby("source_file", sort=False)]
    if coverage := hops.attrs.get("coverage"):
        shown.append("\n".join(coverage_lines(coverage)))
    return "\n\n".join(shown)


class TracePage:
    """The page of one message.

    Parameters
    ----------
    hops
        Its rows of the `hops` table.
    """

    def __init__(self, hops: pd.DataFrame) -> None:
        if hops.empty or hops["source_file"].nunique() != 1:
            raise ValueError(f"a trace has the hops of one message, not of {hops['source_file'].nunique()}")
        self.hops = hops.sort_values("hop").reset_index(drop=True)
        self._rows = rows_of(HOPS, self.hops)

    @property
    def headline(self) -> str:
        """The verdict on the message in one sentence."""
        disproved = [row for row in self._rows if row["could_be_requiretls"] == Told.NO]
        if disproved:
            first = disproved[0]
            others = f", and {len(disproved) - 1} more" if len(disproved) > 1 else ""
            return f"REQUIRETLS did not hold all the way: hop {first['hop']} ({first['detail']}){others}."
        if all(row["inside_host"] for row in self._rows):
            return "The message never left its host: there is no hop to judge."
        return "No hop disproves REQUIRETLS. None can prove it: the fields never tell whether a server was verified."

    @property
    def notes(self) -> list[str]:
        """What has to be known to read the page rightly."""
        row = self._rows[0]
        notes = []
        if row["requiretls_requested"] == Told.YES:
            notes.append(
                "The message carries Require-TLS-ESMTP: yes, Postfix's private mark, which anybody can write."
            )
        if row["tls_required_no"] == Told.YES:
            notes.append("The message carries TLS-Required: No: its sender wanted delivery before security.")
        if row["list_id"]:
            notes.append(
                f"The mailing list {printable(row['list_id'], 100)} sent this copy anew: the hops before the list and "
                "those behind it are the ways of two messages (RFC 8689 §6)."
            )
        notes.append(
            "Each host writes its own line on top; what stands before the first host you trust can be forged."
        )
        return notes

    def _title(self) -> str:
        row = self._rows[0]
        name = f"<{row['message_id']}>" if row["message_id"] else row["source_file"]
        count = len(self._rows)
        return f"{printable(name, 120)}, {count} hop{'s' if count != 1 else ''}"

    # -- as text ----------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        title = self._title()
        lines = [title, "=" * len(title), *textwrap.wrap(self.headline, 100), ""]
        for row in self._rows:
            after = f" ({_delay(row['delay_seconds'])} later)" if row["delay_seconds"] is not None else ""
            lines.append(f"{_sign(row)} {row['hop']:>2}  {_client(row)} -> {_host(row['by_host'])}")
            lines.append(f"      {_time(row)}{after}")
            lines.append(f"      {_session(row)}")
            if row["detail"]:
                lines.append(f"      => not REQUIRETLS: {row['detail']}")
        lines.append("")
        for note in self.notes:
            lines += textwrap.wrap(note, 100)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<TracePage {self._title()}: {self.headline}>"

    # -- as HTML ----------------------------------------------------------------------------------------------

    def _repr_html_(self) -> str:
        is_bad = any(row["could_be_requiretls"] == Told.NO for row in self._rows)
        parts = [
            _STYLE,
            '<div class="rtls-trace">',
            f"<h3>{html.escape(self._title())}</h3>",
            f'<p class="rtls-verdict {"rtls-bad" if is_bad else "rtls-open"}">{html.escape(self.headline)}</p>',
            f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in _COLUMNS)}</tr></thead><tbody>",
            *(_row_html(row) for row in self._rows),
            "</tbody></table>",
            *(f"<p>{html.escape(note)}</p>" for note in self.notes),
            "</div>",
        ]
        return "\n".join(parts)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the page as a self-contained HTML file."""
        Path(path).write_text(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self._title())}</title></head>\n<body>{self._repr_html_()}</body></html>\n",
            encoding="utf-8",
        )


_COLUMNS = ("hop", "received (UTC)", "after", "from", "by", "session", "could be REQUIRETLS")
_STYLE = """<style>
.rtls-trace { font: 14px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
.rtls-trace.rtls-trace table { table-layout: auto; border-collapse: collapse; width: 100%; }
.rtls-trace.rtls-trace td, .rtls-trace.rtls-trace th { text-align: left; vertical-align: top; padding: .2em .8em .2em 0;
  border-top: 1px solid #8884; background: none; white-space: normal; }
.rtls-trace pre { margin: .2em 0; font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
.rtls-trace .rtls-verdict { border-left: 4px solid; padding: .1em .6em; font-weight: bold; }
.rtls-trace .rtls-bad { color: #a33a00; } .rtls-trace .rtls-open { color: #6b5200; }
.rtls-trace .rtls-inside td { opacity: .7; }
@media (prefers-color-scheme: dark) { .rtls-trace .rtls-bad { color: #f08a4b; }
  .rtls-trace .rtls-open { color: #e0b84c; } }
</style>"""


def _row_html(row: Mapping[str, Any]) -> str:
    if row["could_be_requiretls"] == Told.NO:
        verdict = f'<td class="rtls-bad">no: {html.escape(row["detail"])}</td>'
    else:
        verdict = f"<td>{'no hop: inside one host' if row['inside_host'] else 'unknown'}</td>"
    raw = html.escape(printable(row["raw"] or "", 4000))
    cells = (str(row["hop"]), _time(row), _delay(row["delay_seconds"]), _client(row), _host(row["by_host"]))
    shown = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    opening = '<tr class="rtls-inside">' if row["inside_host"] else "<tr>"
    return (
        f"{opening}{shown}<td>{html.escape(_session(row))}"
        f"<details><summary>the field</summary><pre>{raw}</pre></details></td>{verdict}</tr>"
    )


# -- the parts of a hop ---------------------------------------------------------------------------------------


def _sign(row: Mapping[str, Any]) -> str:
    if row["could_be_requiretls"] == Told.NO:
        return "x"
    return " " if row["inside_host"] else "?"


def _time(row: Mapping[str, Any]) -> str:
    return f"{row['received_at']:%Y-%m-%d %H:%M:%S}" if row["received_at"] is not None else "no time"


def _delay(seconds: float | None) -> str:
    """A span of time as people say it.

    >>> _delay(1557.0), _delay(-3.0), _delay(90000.0), _delay(None)
    ('25 min 57 s', '-3 s', '1 d 1 h', '')
    """
    if seconds is None:
        return ""
    sign, whole = ("-" if seconds < 0 else ""), abs(round(seconds))
    if whole < 60:
        return f"{sign}{whole} s"
    if whole < 3600:
        return f"{sign}{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{sign}{whole // 3600} h {whole % 3600 // 60} min"
    return f"{sign}{whole // 86_400} d {whole % 86_400 // 3600} h"


def _host(name: str | None) -> str:
    return printable(name or "(not told)", 100)


def _client(row: Mapping[str, Any]) -> str:
    if row["from_name"] is None and row["from_address"] is None:
        return "(from the host itself)" if row["inside_host"] else "(not told)"
    address = f" at {row['from_address']}" if row["from_address"] else ""
    return f"{_host(row['from_name'])}{address}"


def _session(row: Mapping[str, Any]) -> str:
    """What the field tells of the session, as a phrase."""
    told = [printable(row["with_protocol"], 60)] if row["with_protocol"] else []
    told.append(WHAT_IT_SAYS[HopTls(row["tls_state"])])
    if row["tls_version"]:
        told.append(row["tls_version"])
    if row["cipher"]:
        bits = f" ({row['cipher_bits']} bits)" if row["cipher_bits"] else ""
        told.append(f"{printable(row['cipher'], 80)}{bits}")
    if row["authenticated"]:
        told.append("the client logged in")
    if row["requiretls_mark"]:
        told.append(f"marked {row['requiretls_mark']}")
    if row["inside_host"]:
        told.append("inside one host")
    if row["mta"]:
        told.append(f"written by {row['mta']}")
    return ", ".join(told)
