"""Received fields out of mail, as a table: the way of each message, hop by hop (RFC 5321 §4.4).

Only headers are read. Each server puts its field on top, so the last one in a header is the oldest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import Told
from rtls_analysis.read.mail_coverage import coverage_lines
from rtls_analysis.read.mail_files import MailFile, MailFiles, MailPath
from rtls_analysis.read.mail_parts import cut_header, unify_newlines
from rtls_analysis.read.mail_reading import PART_ROWS, MailReading, no_out, read_mail, whole
from rtls_analysis.schema import HOPS
from rtls_analysis.standards.received import (
    MAX_FIELD,
    TLS_VERSIONS,
    parse_received,
    tls_version,
    why_not_requiretls,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

HEAD_BYTES, MAX_HEADER_BYTES = 1 << 16, 1 << 20  # of a message: what is looked at first, and at most
MAX_HOPS = 1000  # of a message; servers refuse one as looping after a hundred (RFC 5321 §6.3)


def read_received(
    paths: MailPath | Iterable[MailPath],
    *,
    minimum_tls: str = "TLSv1.2",
    client: Any = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Read the Received fields of messages: one row of `hops` per field, the oldest of a message is hop 1.

    Parameters
    ----------
    paths
        Messages, mbox, Maildir or other folders, globs, all of these also at an address, as ``s3://bucket/mail/``;
        open binary files, `-` for standard input; packed or not.
    minimum_tls
        The lowest TLS version with which a hop could be REQUIRETLS; below ``TLSv1.2`` BCP 195 forbids.
    client, out
        A Dask cluster that does it, and the folder for the table: as for `read_dsns`.
    progress
        Whether to show a progress bar.

    Returns
    -------
    pandas.DataFrame, or dask.dataframe.DataFrame with `client`
        Columns `schema.HOPS`. ``attrs["coverage"]`` counts what was read, and what gave no hops, with the reason.

    Raises
    ------
    FileNotFoundError
        A path names nothing.
    ValueError
        `minimum_tls` is no TLS version.

    Notes
    -----
    A Received field is written by the receiving host: it can disprove that a hop met RFC 8689, never prove it. Fields
    below the first host that one trusts can be forged. A copy that a mailing list or a forwarder sent anew has the
    hops of both ways; what the later ones show says nothing of the earlier.
    """
    minimum = _minimum(minimum_tls)
    if client is not None:
        return read_mail(client, MailFiles(paths), _hops, minimum, HOPS, out=out, progress=progress)
    no_out(out)
    return whole(HopReading(MailFiles(paths), minimum), progress=progress)


def iter_received(
    paths: MailPath | Iterable[MailPath],
    *,
    minimum_tls: str = "TLSv1.2",
    progress: bool = True,
    rows: int = PART_ROWS,
) -> Iterator[pd.DataFrame]:
    """Read as `read_received` does, in frames of about `rows` rows: bounded memory, whatever the size.

    There is at least one frame. Each one's ``attrs["coverage"]`` counts all that was read up to its end.
    """
    minimum = _minimum(minimum_tls)
    return HopReading(MailFiles(paths), minimum, rows=rows).frames(progress=progress)


def _minimum(text: str) -> str:
    version = tls_version(text if text[:3].upper() in ("TLS", "SSL") else f"TLSv{text}")
    if version is None:
        raise ValueError(f"minimum_tls is {text!r}; give one of {', '.join(TLS_VERSIONS)}")
    return version


class HopReading(MailReading):
    """One pass over messages for `hops`; `minimum_tls` is a version as the table has it."""

    table = HOPS
    label = "messages"

    def __init__(self, files: MailFiles, minimum_tls: str, *, rows: int = PART_ROWS) -> None:
        super().__init__(files, rows=rows)
        self._minimum = minimum_tls
        self._waiting = _Columns()
        self.counts.counts["rows"] = 0

    def read_message(self, source: str, data: bytes) -> int:
        """Read a message's header."""
        header = read_header(data)
        if header.received:
            self.counts.messages_matched += 1
            self.counts.count("rows", len(header.received))
            self._waiting.add(header, source, self._minimum)
        else:
            self.counts.skip("no Received field" if header.is_mail else "no mail", source)
        return len(self._waiting)

    def take_rows(self) -> pa.Table:
        """The rows that wait."""
        waiting, self._waiting = self._waiting, _Columns()
        return waiting.table()


def _hops(files: Sequence[MailFile], minimum_tls: str) -> HopReading:
    return HopReading(MailFiles.of(files), minimum_tls)


# -- one message ----------------------------------------------------------------------------------------------

_FIELD = re.compile(
    rb"^(received|message-id|list-id|require-tls-esmtp|tls-required|require-?tls)[ \t]*+:((?:.*+\n[ \t])*+.*+)",
    re.IGNORECASE | re.MULTILINE,
)
_ANY_FIELD = re.compile(rb"[!-9;-~]++[ \t]*+:")
_ORIGIN = re.compile(
    rb"^(?:received|from|to|date|subject|sender|return-path|delivered-to|message-id|mime-version|content-type|x-[!-9;-~]++)"
    rb"[ \t]*+:",
    re.IGNORECASE | re.MULTILINE,
)
_MESSAGE_ID = re.compile(r"<([^<>\s]+)>")


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """What a message's header says of its way, field values unfolded; the newest Received field comes first."""

    is_mail: bool
    received: tuple[str, ...] = ()
    message_id: str | None = None
    list_id: str | None = None
    requiretls_requested: Told = Told.UNKNOWN  # by Postfix's private field, which anybody can write
    tls_required_no: Told = Told.NO


def read_header(data: bytes) -> TraceHeader:
    """Read a message's header as far as its way is concerned (RFC 5322 §3.6.7).

    Notes
    -----
    Up to three paragraphs of a few lines before the header are passed over where they are none themselves: archives
    put a title there. Of a header that is longer than 1 MiB, or has a thousand hops, the beginning is read.
    """
    header = _header(data)
    received: list[str] = []
    first: dict[bytes, str] = {}
    for name, value in _FIELD.findall(header):
        key = name.lower()
        if key == b"received":
            if len(received) < MAX_HOPS:
                received.append(_unfold(value))
        else:
            first.setdefault(key, _unfold(value))
    message_id = first.get(b"message-id", "")
    if match := _MESSAGE_ID.search(message_id):
        message_id = match[1]
    wishes = [first[name] for name in (b"tls-required", b"requiretls", b"require-tls") if name in first]
    is_requested = first.get(b"require-tls-esmtp", "").lower() == "yes"
    return TraceHeader(
        _ANY_FIELD.match(header) is not None,
        tuple(received),
        message_id or None,
        first.get(b"list-id") or None,
        Told.YES if is_requested else Told.UNKNOWN,
        Told.YES if any(wish.lower() == "no" for wish in wishes) else Told.NO,
    )


def _header(data: bytes) -> bytes:
    lines = unify_newlines(data[:HEAD_BYTES])
    header, body = cut_header(lines)
    if not body and len(data) > HEAD_BYTES:
        header, body = cut_header(unify_newlines(data[:MAX_HEADER_BYTES]))
    first = header
    for _paragraph in range(3):
        if _ORIGIN.search(header) is not None:
            return header
        if header.count(b"\n") > 2:
            break
        header, body = cut_header(body)
    return first


def _unfold(value: bytes) -> str:
    """A value on one line; bytes that are no UTF-8 are escaped."""
    return " ".join(value[: 4 * MAX_FIELD].decode("utf-8", "backslashreplace").split())[:MAX_FIELD]


class _Columns:
    """Rows of `hops`, held by column: a table of Arrow is made of them as they are."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {name: [] for name in HOPS.names()}

    def __len__(self) -> int:
        return len(self.values["hop"])

    def add(self, header: TraceHeader, source: str, minimum_tls: str) -> None:
        """Add the hops of a message, the oldest first."""
        before: datetime | None = None
        appends = [values.append for values in self.values.values()]
        for number, raw in enumerate(reversed(header.received), 1):
            hop = parse_received(raw)
            reason = why_not_requiretls(hop, minimum_tls)
            row = (
                header.message_id,
                number,
                hop.received_at,
                hop.from_name,
                hop.helo_name,
                hop.reverse_name,
                hop.from_address,
                hop.by_host,
                hop.with_protocol,
                hop.tls_version,
                hop.cipher,
                hop.cipher_bits,
                hop.client_certificate,
                hop.mta,
                hop.tls,
                hop.is_authenticated,
                hop.is_inside_host,
                hop.requiretls_mark,
                Told.NO if reason else Told.UNKNOWN,
                reason or None,
                (hop.received_at - before).total_seconds() if before and hop.received_at else None,
                hop.queue_id,
                hop.recipient,
                header.requiretls_requested,
                header.tls_required_no,
                header.list_id,
                raw,
                source,
            )
            before = hop.received_at
            for append, value in zip(appends, row, strict=True):
                append(value)

    def table(self) -> pa.Table:
        """The rows as a table of Arrow."""
        import pyarrow as pa

        arrays = [pa.array(values, HOPS[name].arrow) for name, values in self.values.items()]
        return pa.Table.from_arrays(arrays, schema=HOPS.arrow_schema)


# -- the first summary ----------------------------------------------------------------------------------------


def received_summary(frame: pd.DataFrame) -> str:
    """Say in a few lines what a table of hops holds, and what of the input gave none."""
    hops = frame[~frame["inside_host"].fillna(False)]
    disproved = hops[hops["could_be_requiretls"] == Told.NO]
    lines = [
        f"{frame['source_file'].nunique():,} messages with {len(frame):,} hops, {len(frame) - len(hops):,} of them "
        "inside one host",
        "",
        "What the others tell of TLS:",
    ]
    states = hops["tls_state"].value_counts(sort=False)
    lines += [f"  {word:<22} {count:>10,}" for word, count in states.items()]
    lines += [
        "",
        f"{disproved['source_file'].nunique():,} messages have a hop that could not be REQUIRETLS (no Received field "
        "can prove that one was), by the reason:",
    ]
    reasons = disproved["detail"].str.split(":", n=1).str[0].value_counts().head(8)
    lines += [f"  {count:>10,}  {reason}" for reason, count in reasons.items()]
    if coverage := frame.attrs.get("coverage"):
        lines += ["", *coverage_lines(coverage)]
    return "\n".join(lines)
