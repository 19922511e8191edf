"""Bounces and other delivery status notifications out of mail, as a table (RFC 3464, RFC 6533).

What a single message says is found in `rtls_analysis.read.dsn_message`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rtls_analysis.read.dsn_message import MailKind, Notice, Row, read_notice
from rtls_analysis.read.mail_files import MailFiles, MailPath
from rtls_analysis.schema import BOUNCES

if TYPE_CHECKING:
    import pandas as pd

PART_ROWS = 50_000
SAMPLES = 3


@dataclass(slots=True)
class Skipped:
    """Messages that gave nothing, for one reason."""

    count: int = 0
    samples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Coverage:
    """What was read and what was made of it; every message is counted once, by its kind."""

    messages_read: int = 0
    kinds: dict[MailKind, int] = field(default_factory=lambda: dict.fromkeys(MailKind, 0))
    skipped: dict[str, Skipped] = field(default_factory=dict)
    rows: int = 0

    def count(self, notice: Notice, source: str) -> None:
        """Count a message; keep where it lies if it should have given rows and did not."""
        self.messages_read += 1
        self.kinds[notice.kind] += 1
        self.rows += len(notice.rows)
        if notice.detail:
            skipped = self.skipped.setdefault(notice.detail, Skipped())
            skipped.count += 1
            if len(skipped.samples) < SAMPLES:
                skipped.samples.append(source)

    def as_dict(self, problems: Mapping[str, str]) -> dict[str, Any]:
        """The whole as JSON-able values; `problems` are those of the files."""
        return {
            "messages_read": self.messages_read,
            "kinds": {str(kind): count for kind, count in self.kinds.items() if count},
            "skipped": {
                reason: {"count": skipped.count, "samples": list(skipped.samples)}
                for reason, skipped in self.skipped.items()
            },
            "rows": self.rows,
            "unreadable_files": dict(problems),
        }


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
        Columns `schema.BOUNCES`. ``attrs["coverage"]`` tells how many messages were read and of which kind, and
        which gave nothing although they should.

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
    coverage = Coverage()
    pending: list[Row] = []
    given = False
    bar = progress_bar(
        total=files.bytes_total, label="notices", unit="B", shown=progress, unit_scale=True, unit_divisor=1024
    )
    with bar:
        for source, data in files:
            notice = read_notice(data)
            coverage.count(notice, source)
            for row in notice.rows:
                row["source_file"] = source
            pending += notice.rows
            if len(pending) >= rows:
                frame = to_frame(BOUNCES, pending)
                frame.attrs["coverage"] = coverage.as_dict(files.problems)
                yield frame
                pending, given = [], True
            if files.bytes_read != bar.n:
                bar.update(files.bytes_read - bar.n)
    if pending or not given:
        frame = to_frame(BOUNCES, pending)
        frame.attrs["coverage"] = coverage.as_dict(files.problems)
        yield frame


# -- the first summary --------------------------------------------------------------------------------------------

_TITLES = {
    MailKind.DSN: "notices of failure or success",
    MailKind.DELAY: "notices of delay",
    MailKind.AUTO_REPLY: "automatic replies",
    MailKind.COMPLAINT: "complaints",
    MailKind.RECEIPT: "receipts",
    MailKind.TLS_REPORT: "TLS reports",
    MailKind.ORDINARY: "ordinary mail",
    MailKind.UNREADABLE: "unreadable",
}


def summarise_dsns(frame: pd.DataFrame) -> str:
    """Say in a few lines what was read and what it tells: for the end of ``rtls dsns``.

    Parameters
    ----------
    frame
        What `read_dsns` gave, or a selection of its rows.
    """
    lines = []
    coverage = frame.attrs.get("coverage")
    if coverage is not None:
        lines.append(f"{coverage['messages_read']:,} messages read")
        for kind, title in _TITLES.items():
            if count := coverage["kinds"].get(str(kind)):
                lines.append(f"  {count:>9,}  {title}")
        for reason, skipped in coverage["skipped"].items():
            lines.append(f"  without a row: {skipped['count']:,} {reason}, as {skipped['samples'][0]}")
        for source, reason in list(coverage["unreadable_files"].items())[:5]:
            lines.append(f"  not read to its end: {source}: {reason}")
    lines.append(f"{len(frame):,} recipients")
    lines += _counts(frame, "action")
    failed = frame[frame["action"].isin(["failed", "delayed"])]
    if len(failed):
        lines.append("Why TLS decided, of the failed and delayed:")
        lines += _counts(failed, "tls_outcome")
        asked = (failed["requiretls_requested"] == "yes").sum()
        lines.append(f"{asked:,} of them asked for REQUIRETLS, where that can be told")
    return "\n".join(lines)


def _counts(frame: pd.DataFrame, column: str) -> list[str]:
    counts = frame[column].value_counts()
    return [f"  {count:>9,}  {word}" for word, count in counts.items() if count]
