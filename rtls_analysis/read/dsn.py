"""Bounces and other delivery status notifications out of mail, as a table (RFC 3464, RFC 6533).

What a single message says is found in `rtls_analysis.read.dsn_message`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import Action, TlsOutcome, Told
from rtls_analysis.read.dsn_message import MailKind, Row, read_notice
from rtls_analysis.read.mail_coverage import MailCoverage, printable
from rtls_analysis.read.mail_files import MailFiles, MailPath
from rtls_analysis.schema import BOUNCES

if TYPE_CHECKING:
    import pandas as pd

PART_ROWS = 50_000


def read_dsns(paths: MailPath | Iterable[MailPath], *, progress: bool = True) -> pd.DataFrame:
    """Read bounces, delay and success notices: one row of `bounces` per recipient.

    Parameters
    ----------
    paths
        Messages (``.eml``), mbox files, Maildirs, folders, archives, packed or not; globs; open binary files; `-` for
        standard input; one or many.
    progress
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        Columns `schema.BOUNCES`. ``attrs["coverage"]`` tells how many messages were read, of which kind (`MailKind`),
        and which gave nothing although they should.

    Raises
    ------
    FileNotFoundError
        A path names nothing.

    Notes
    -----
    A notice about a notice is about the outer one. A forwarded notice, or one in a digest, counts as the notice.
    Interrupted, it raises `KeyboardInterrupt`; `iter_dsns` keeps what was read until then.
    """
    import pandas as pd

    frames = list(iter_dsns(paths, progress=progress))
    if len(frames) == 1:
        return frames[0]
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs["coverage"] = frames[-1].attrs["coverage"]
    return frame


def iter_dsns(
    paths: MailPath | Iterable[MailPath], *, progress: bool = True, rows: int = PART_ROWS
) -> Iterator[pd.DataFrame]:
    """Read as `read_dsns` does, in frames of about `rows` rows: bounded memory, whatever the size.

    There is at least one frame. The coverage of each counts all that was read up to its end.
    """
    from rtls_analysis.progress import progress_bar
    from rtls_analysis.schema import to_frame

    files = MailFiles(paths)
    coverage = MailCoverage()
    kinds: Counter[MailKind] = Counter()
    pending: list[Row] = []
    given = 0

    def part() -> pd.DataFrame:
        frame = to_frame(BOUNCES, pending)
        frame.attrs["coverage"] = coverage.as_dict(files.problems) | {
            "kinds": {str(kind): kinds[kind] for kind in MailKind if kinds[kind]},
            "rows": given + len(pending),
        }
        return frame

    bar = progress_bar(
        total=files.bytes_total, label="notices", unit="B", shown=progress, unit_scale=True, unit_divisor=1024
    )
    with bar:
        for source, data in files:
            notice = read_notice(data)
            coverage.messages_read += 1
            coverage.messages_matched += bool(notice.rows)
            kinds[notice.kind] += 1
            if notice.detail:
                coverage.skip(notice.detail, source)
            for row in notice.rows:
                row["source_file"] = source
            pending += notice.rows
            if len(pending) >= rows:
                yield part()
                given += len(pending)
                pending = []
            if files.bytes_read != bar.n:
                bar.update(files.bytes_read - bar.n)
    if pending or not given:
        yield part()


def write_dsns(
    paths: MailPath | Iterable[MailPath], output: str | os.PathLike[str], *, progress: bool = True
) -> DsnSummary:
    """Read as `read_dsns` does, into a file, in bounded memory; give what it comes to.

    Parameters
    ----------
    paths, progress
        As for `read_dsns`.
    output
        A name that ends in ``.parquet``, ``.csv`` or ``.jsonl``. An interrupt keeps what was read until then.
    """
    import pyarrow as pa

    from rtls_analysis.read.log_output import open_output

    summary = DsnSummary()
    with open_output(output, BOUNCES) as file:
        for part in iter_dsns(paths, progress=progress, rows=PART_ROWS):
            file.write(pa.Table.from_pandas(part, schema=BOUNCES.arrow_schema, preserve_index=False))
            file.coverage = part.attrs["coverage"]
            summary.add(part)
    return summary


# -- the first summary --------------------------------------------------------------------------------------------

_TITLES = {
    MailKind.DSN: "notices of failure or success",
    MailKind.DELAY: "notices of delay alone",
    MailKind.AUTO_REPLY: "automatic replies",
    MailKind.COMPLAINT: "complaints",
    MailKind.RECEIPT: "receipts",
    MailKind.TLS_REPORT: "TLS reports",
    MailKind.ORDINARY: "ordinary mail",
    MailKind.UNREADABLE: "unreadable",
}
_NO_TLS_REASON = (TlsOutcome.NOT_TLS, TlsOutcome.UNKNOWN)
_NOT_DELIVERED = (Action.FAILED, Action.DELAYED)
WIDTH = 110


class DsnSummary:
    """What notices come to: add each part of `bounces`, then print.

    Attributes
    ----------
    coverage
        That of the last part; empty where a frame had none.
    """

    def __init__(self) -> None:
        self.coverage: dict[str, Any] = {}
        self.rows = self.asked = 0
        self.actions: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()  # of what failed or waits
        self.examples: dict[str, str] = {}  # a text for each

    def add(self, part: pd.DataFrame) -> None:
        """Count the rows of a part."""
        self.coverage = part.attrs.get("coverage") or self.coverage
        self.rows += len(part)
        self.actions.update(_counts(part["action"]))
        failed = part[part["action"].isin(_NOT_DELIVERED)]
        self.asked += int((failed["requiretls_requested"] == Told.YES).sum())
        self.outcomes.update(_counts(failed["tls_outcome"]))
        for outcome, texts in failed.groupby("tls_outcome", observed=True)["diagnostic"]:
            if str(outcome) not in self.examples and len(told := texts.dropna()):
                self.examples[str(outcome)] = str(told.iloc[0])

    def __str__(self) -> str:
        """The summary as lines for a terminal."""
        lines = []
        if self.coverage:
            lines.append(f"{self.coverage['messages_read']:,} messages read")
            kinds = self.coverage["kinds"]
            lines += [f"  {kinds[kind]:>9,}  {title}" for kind, title in _TITLES.items() if kind in kinds]
            for reason, skipped in self.coverage["skipped"].items():
                lines.append(f"  {skipped['count']:,} to look at: {reason}, as {skipped['samples'][0]}")
            problems = self.coverage["unreadable_files"]
            lines += [f"  not read to its end: {source}: {why}" for source, why in problems.items()]
        lines.append(f"{self.rows:,} recipients")
        lines += [f"  {count:>9,}  {action}" for action, count in self.actions.most_common()]
        if self.outcomes:
            lines.append("Why TLS decided, of what failed or waits")
        for outcome, count in self.outcomes.most_common():
            example = "" if outcome in _NO_TLS_REASON else f": {self.examples.get(outcome, '')}".rstrip(": ")
            lines.append(f"  {count:>9,}  {outcome}{example}")
        if self.outcomes:
            lines.append(f"{self.asked:,} of them asked for REQUIRETLS, as far as their notices tell")
        return "\n".join(printable(line, WIDTH) for line in lines)


def _counts(column: pd.Series) -> dict[str, int]:
    return {str(word): int(count) for word, count in column.value_counts().items() if count}


def summarise_dsns(frame: pd.DataFrame) -> str:
    """Say in a few lines what was read and what it tells.

    Parameters
    ----------
    frame
        What `read_dsns` gave, or a selection of its rows.
    """
    summary = DsnSummary()
    summary.add(frame)
    return str(summary)
