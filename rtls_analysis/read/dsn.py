"""Bounces and other delivery status notifications out of mail, as a table (RFC 3464, RFC 6533).

What a single message says is found in `rtls_analysis.read.dsn_message`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import Action, TlsOutcome, Told
from rtls_analysis.read.dsn_message import MailKind, Row, read_notice
from rtls_analysis.read.mail_coverage import printable
from rtls_analysis.read.mail_files import MailFile, MailFiles, MailPath
from rtls_analysis.read.mail_reading import PART_ROWS, MailReading, no_out, read_mail, whole
from rtls_analysis.schema import BOUNCES, to_arrow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def read_dsns(
    paths: MailPath | Iterable[MailPath],
    *,
    client: Any = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Read bounces, delay and success notices: one row of `bounces` per recipient.

    Parameters
    ----------
    paths
        Messages (``.eml``), mbox files, Maildirs, folders, archives, packed or not; globs; all of these also at an
        address, as ``s3://bucket/bounces/``; open binary files; `-` for standard input; one or many.
    client, out
        A Dask cluster that does it, and the folder for the table: as for `read_logs`. Files are read in groups of about
        64 MB, a larger one as a whole.
    progress
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame, or dask.dataframe.DataFrame with `client`
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
    if client is not None:
        return read_mail(client, MailFiles(paths), _notices, None, BOUNCES, out=out, progress=progress)
    no_out(out)
    return whole(NoticeReading(MailFiles(paths)), progress=progress)


def iter_dsns(
    paths: MailPath | Iterable[MailPath], *, progress: bool = True, rows: int = PART_ROWS
) -> Iterator[pd.DataFrame]:
    """Read as `read_dsns` does, in frames of about `rows` rows: bounded memory, whatever the size.

    There is at least one frame. The coverage of each counts all that was read up to its end.
    """
    yield from NoticeReading(MailFiles(paths), rows=rows).frames(progress=progress)


class NoticeReading(MailReading):
    """One pass over messages for `bounces`."""

    table = BOUNCES
    label = "notices"

    def __init__(self, files: MailFiles, *, rows: int = PART_ROWS) -> None:
        super().__init__(files, rows=rows)
        self._kinds: Counter[MailKind] = Counter()
        self._waiting: list[Row] = []
        self._taken = 0

    def read_message(self, source: str, data: bytes) -> int:
        """Read a message; of one that is no notice, its kind is counted."""
        notice = read_notice(data)
        self.counts.messages_matched += bool(notice.rows)
        self._kinds[notice.kind] += 1
        if notice.detail:
            self.counts.skip(notice.detail, source)
        for row in notice.rows:
            row["source_file"] = source
        self._waiting += notice.rows
        return len(self._waiting)

    def take_rows(self) -> pa.Table:
        """The rows that wait."""
        rows, self._waiting = self._waiting, []
        self._taken += len(rows)
        return to_arrow(BOUNCES, rows)

    @property
    def coverage(self) -> dict[str, Any]:
        """What was read, with the messages by their kind."""
        kinds = {str(kind): self._kinds[kind] for kind in MailKind if self._kinds[kind]}
        return super().coverage | {"kinds": kinds, "rows": self._taken}


def _notices(files: Sequence[MailFile], _options: None) -> NoticeReading:
    return NoticeReading(MailFiles.of(files))


def write_dsns(
    paths: MailPath | Iterable[MailPath],
    output: str | os.PathLike[str],
    *,
    client: Any = None,
    progress: bool = True,
) -> DsnSummary:
    """Read as `read_dsns` does, into a file, in bounded memory; give what it comes to.

    Parameters
    ----------
    paths, client, progress
        As for `read_dsns`.
    output
        A name that ends in ``.parquet``, ``.csv`` or ``.jsonl``, or a folder (it ends in a slash, or is there); also at
        an address. With a cluster it is a folder. An interrupt keeps what was read until then.
    """
    import pyarrow as pa

    from rtls_analysis.read.log_output import open_output

    summary = DsnSummary()
    if client is not None:
        from rtls_analysis.read.clustered import sum_up

        frame = read_dsns(paths, client=client, out=output, progress=progress)
        sum_up(client, output, BOUNCES, summary)
        summary.coverage = frame.attrs["coverage"]
        return summary
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

    def merge(self, other: DsnSummary) -> None:
        """Take over what was counted of other parts, that come after these."""
        self.coverage = other.coverage or self.coverage
        self.rows += other.rows
        self.asked += other.asked
        self.actions.update(other.actions)
        self.outcomes.update(other.outcomes)
        for outcome, text in other.examples.items():
            self.examples.setdefault(outcome, text)

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
