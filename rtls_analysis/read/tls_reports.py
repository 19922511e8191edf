"""TLS reports out of files and mail, as a table (RFC 8460 §4, §5.3).

A report comes as JSON, packed or not, alone or as a part of a mail whose media types often say nothing: so a part is
known by its first bytes. The DKIM signature of a report mail (§5.3) is not checked here.
"""

from __future__ import annotations

import binascii
import hashlib
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import TlsOutcome
from rtls_analysis.read.mail_coverage import coverage_lines, printable
from rtls_analysis.read.mail_files import MailFile, MailFiles, MailPath
from rtls_analysis.read.mail_parts import Part, cut_header, parts, read_fields, unify_newlines
from rtls_analysis.read.mail_reading import PART_ROWS, MailReading, no_out, read_mail, whole
from rtls_analysis.read.repeats import Occurrence
from rtls_analysis.schema import TLS_REPORTS, to_arrow
from rtls_analysis.standards.tls_report import MAX_BYTES, SumsDiffer, TlsReport, parse_tls_reports

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MAX_DEPTH = 3  # of packings in packings, and of mails in mails
MAX_MEMBERS = 100  # of one zip archive

RESULT_TYPES: Mapping[str, TlsOutcome] = {
    name.replace("_", "-"): TlsOutcome(name)
    for name in (
        "starttls_not_supported",
        "certificate_host_mismatch",
        "certificate_expired",
        "certificate_not_trusted",
        "validation_failure",
        "tlsa_invalid",
        "dnssec_invalid",
        "dane_required",
        "sts_policy_fetch_error",
        "sts_policy_invalid",
        "sts_webpki_invalid",
    )
}
"""The result types of RFC 8460 §4.3 in our words."""


def read_tls_reports(
    paths: MailPath | Iterable[MailPath],
    *,
    client: Any = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Read TLS reports: one row of `tls_reports` per failure detail, or per policy without one.

    Parameters
    ----------
    paths
        JSON files, report mails, mbox, Maildir or other folders, globs, all of these also at an address, as
        ``s3://bucket/reports/``; open binary files, `-` for standard input; packed or not.
    client, out
        A Dask cluster that does it, and the folder for the table: as for `read_dsns`.
    progress
        Whether to show a progress bar.

    Returns
    -------
    pandas.DataFrame, or dask.dataframe.DataFrame with `client`
        Columns `schema.TLS_REPORTS`. ``attrs["coverage"]`` counts what was read, what came twice, and what was no
        report, with the reason.

    Raises
    ------
    FileNotFoundError
        A path names nothing.

    Notes
    -----
    A report that came before is left out: the same organisation, report id (or content, where it has none), policy
    domain and period (RFC 8460 §5.3). What a report says of one domain in several policies all counts; MTA-STS and
    DANE policies of one domain may count the same sessions, so their totals are not to be added.
    """
    files = MailFiles(paths, limit=MAX_BYTES)
    if client is not None:
        return read_mail(client, files, _reports, None, TLS_REPORTS, out=out, progress=progress)
    no_out(out)
    return whole(ReportReading(files), progress=progress)


def _reports(files: Sequence[MailFile], _options: None) -> ReportReading:
    return ReportReading(MailFiles.of(files, limit=MAX_BYTES))


class ReportReading(MailReading):
    """One pass over files and mail for `tls_reports`.

    Attributes
    ----------
    seen
        Whatever a report said of a domain, in order.
    """

    table = TLS_REPORTS
    label = "TLS reports"

    def __init__(self, files: MailFiles, *, rows: int = PART_ROWS) -> None:
        super().__init__(files, rows=rows)
        self.counts.counts |= {"reports": 0, "duplicates": 0, "duplicates_that_differ": 0, "rows": 0}
        self.seen: list[Occurrence] = []
        self._known: dict[str, str] = {}
        self._waiting: list[dict[str, Any]] = []

    def read_message(self, source: str, data: bytes) -> int:
        """Read a file or mail; rows come of those of its reports that have not come before."""
        found = find_reports(data)
        self.counts.messages_matched += bool(found.reports)
        self.counts.count("reports", len(found.reports))
        if found.problem:
            self.counts.skip(found.problem, source)
        for number, report in enumerate(found.reports, 1):
            label = source if number == 1 else f"{source}#{number}"
            for index in self._fresh(report, label):
                self._waiting += _rows(report, index, label)
        return len(self._waiting)

    def take_rows(self) -> pa.Table:
        """The rows that wait."""
        rows, self._waiting = self._waiting, []
        self.counts.count("rows", len(rows))
        return to_arrow(TLS_REPORTS, rows)

    def _fresh(self, report: TlsReport, source: str) -> list[int]:
        """The places of a report's policies, but for the domains about which the same report has come before."""
        by_domain: dict[str | None, list[int]] = {}
        for index, policy in enumerate(report.policies):
            by_domain.setdefault(policy.policy_domain, []).append(index)
        fresh: list[int] = []
        organization, report_id = (
            (report.organization or "").lower(),
            (report.report_id or report.digest).lower(),
        )
        for domain, places in by_domain.items():
            key = _digest(organization, report_id, domain, report.begins_at, report.ends_at)
            content = _digest(*(report.policies[place] for place in places))
            if (before := self._known.get(key)) is None:
                self._known[key] = content
                rows = sum(len(report.policies[place].failures) or 1 for place in places)
                self.seen.append(Occurrence(key, content, source, tuple(places), rows))
                fresh += places
            else:
                self.seen.append(Occurrence(key, content))
                self.counts.count("duplicates")
                self.counts.count("duplicates_that_differ", before != content)
        return sorted(fresh)


def _digest(*values: object) -> str:
    """Equal for equal values, in whichever process."""
    return hashlib.blake2b(repr(values).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def _rows(report: TlsReport, index: int, source: str) -> Iterator[dict[str, Any]]:
    policy = report.policies[index]
    shared = {
        "policy_index": index,
        "organization": report.organization,
        "report_id": report.report_id,
        "contact": report.contact,
        "begins_at": report.begins_at,
        "ends_at": report.ends_at,
        "policy_type": policy.policy_type,
        "policy_domain": policy.policy_domain,
        "policy_mx_hosts": policy.mx_hosts,
        "policy_strings": policy.policy_strings,
        "sessions_ok": policy.sessions_ok,
        "sessions_failed": policy.sessions_failed,
        "sums": policy.sums,
        "impossible": bool(policy.impossible),
        "detail": policy.impossible or None,
        "source_file": source,
    }
    if not policy.failures:
        yield {**shared, "tls_outcome": TlsOutcome.OK if policy.sessions_failed == 0 else TlsOutcome.UNKNOWN}
    for failure in policy.failures:
        yield {
            **shared,
            "result_type": failure.result_type,
            "tls_outcome": outcome_of(failure.result_type),
            "sending_mta": failure.sending_mta,
            "receiving_mx": failure.receiving_mx,
            "receiving_helo": failure.receiving_helo,
            "receiving_address": failure.receiving_address,
            "failed_sessions": failure.failed_sessions,
            "failure_reason": failure.failure_reason,
            "additional_information": failure.additional_information,
        }


def outcome_of(result_type: str | None) -> TlsOutcome:
    """A result type in our words; `unknown` for one that RFC 8460 §4.3 does not have.

    >>> str(outcome_of("certificate-expired")), str(outcome_of("Testing"))
    ('certificate_expired', 'unknown')
    """
    return RESULT_TYPES.get((result_type or "").lower().replace("_", "-"), TlsOutcome.UNKNOWN)


# -- one file or mail -----------------------------------------------------------------------------------------

_JSON = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\0]*+[\[{]")
_IN_BASE64 = re.compile(
    rb"\s*+(?:H4sI|UEsD|e[wy]|W[3wy])[A-Za-z0-9+/]{20}"
)  # how gzip, zip and JSON begin in it
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
_FILE_NAME = re.compile(rb"\.(?:json|gz|gzip|zip)\b", re.IGNORECASE)
_NO_ZIP = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)
_MAGIC = (b"\x1f\x8b\x08", b"PK\x03\x04")


@dataclass(slots=True)
class FoundReports:
    """The reports of one file or mail, and the first reason why something in it gave none."""

    reports: list[TlsReport] = field(default_factory=list)
    problem: str = ""

    def note(self, problem: str) -> None:
        """Keep the first problem."""
        self.problem = self.problem or problem


def find_reports(data: bytes) -> FoundReports:
    """Find the TLS reports in a file: JSON, packed JSON, or a mail that has them as parts (RFC 8460 §5.3).

    Nothing in it makes this fail; what is unpacked is bounded.
    """
    found = FoundReports()
    search = _Search(found)
    if not data.strip():
        found.note("empty")
    elif _is_text(data) or data.startswith(_MAGIC):
        search.unpack(data, MAX_DEPTH)
    else:
        search.mail(data, MAX_DEPTH)
    if not found.reports:
        found.note("no TLS report in it")
    return found


class _Search:
    """Looks for reports in what is packed and nested, with one budget for all that it unpacks."""

    def __init__(self, found: FoundReports) -> None:
        self.found = found
        self.left = MAX_BYTES

    def text(self, data: bytes) -> None:
        parsed = parse_tls_reports(data)
        self.found.reports += [report for report in parsed.reports if report.policies]
        if len(self.found.reports) < len(parsed.reports):
            self.found.note("a report without a policy")
        if parsed.problem:
            self.found.note(parsed.problem)

    def unpack(self, data: bytes, depth: int) -> None:
        """Read JSON, or unpack it first: gzip, zip, one in the other."""
        if _is_text(data):
            self.text(data)
        elif depth == 0:
            self.found.note(f"packed more than {MAX_DEPTH} times")
        elif data.startswith(_MAGIC[0]):
            self.unpack(self._gunzip(data), depth - 1)
        elif data.startswith(_MAGIC[1]):
            for member in self._members(data):
                if _is_text(member) or member.startswith(_MAGIC):
                    self.unpack(member, depth - 1)
        else:
            self.found.note("neither JSON nor packed")

    def _gunzip(self, data: bytes) -> bytes:
        """All members of a gzip file up to the first damage; bytes behind the last are passed over (RFC 1952 §2.2)."""
        pieces = []
        while data.startswith(_MAGIC[0]) and self.left > 0:
            unpacker = zlib.decompressobj(wbits=31)
            try:
                piece = unpacker.decompress(data, self.left)
            except zlib.error as error:
                self.found.note(f"gzip: {error}")
                break
            pieces.append(piece)
            self.left -= len(piece)
            if not unpacker.eof:
                reason = (
                    f"unpacks to more than {MAX_BYTES >> 20} MiB" if self.left <= 0 else "gzip: cut short"
                )
                self.found.note(reason)
                break
            data = unpacker.unused_data
        return b"".join(pieces)

    def _members(self, data: bytes) -> Iterator[bytes]:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for member in archive.infolist()[:MAX_MEMBERS]:
                    with archive.open(member) as stream:
                        piece = stream.read(self.left)
                        is_whole = not stream.read(1)
                    self.left -= len(piece)
                    if not is_whole:
                        self.found.note(f"unpacks to more than {MAX_BYTES >> 20} MiB")
                        return
                    yield piece
        except _NO_ZIP as error:
            self.found.note(f"zip: {error}")

    def mail(self, data: bytes, depth: int) -> None:
        """Look into the parts of a mail, and of mails in it."""
        header, body = cut_header(unify_newlines(data))
        fields = read_fields(header)
        if not fields:
            self.found.note("neither mail nor JSON")
            return
        before = len(self.found.reports)
        for leaf in parts(fields, body):
            if leaf.media_type.startswith("message/"):
                if depth:
                    self.mail(_payload(leaf), depth - 1)
            elif leaf.media_type != "text/html":
                self._leaf(leaf, depth)
        if (
            len(self.found.reports) == before
        ):  # a part sent as it is, in the 8 bits that line ends do not survive
            place = data.find(_MAGIC[0])
            if place >= 0 and depth == MAX_DEPTH:
                self.unpack(data[place:], depth)

    def _leaf(self, leaf: Part, depth: int) -> None:
        payload = _payload(leaf)
        is_named = leaf.media_type.startswith("application/tlsrpt") or _names_report(leaf.fields)
        if payload.startswith(_MAGIC) or (_is_text(payload) and (is_named or b"polic" in payload)):
            self.unpack(payload, depth)
        elif leaf.media_type.startswith("application/tlsrpt"):
            self.found.note("neither JSON nor packed")


def _is_text(data: bytes) -> bool:
    return _JSON.match(data) is not None


def _names_report(fields: Mapping[bytes, bytes]) -> bool:
    names = fields.get(b"content-disposition", b"") + b" " + fields.get(b"content-type", b"")
    return _FILE_NAME.search(names) is not None


def _payload(leaf: Part) -> bytes:
    """The part's bytes without its transfer encoding; base64 also where it is not declared."""
    encoding = leaf.fields.get(b"content-transfer-encoding", b"").strip().lower()
    if encoding.startswith(b"base64") or _IN_BASE64.match(leaf.body):
        return _decode_base64(leaf.body)
    if encoding.startswith(b"quoted-printable"):
        return binascii.a2b_qp(leaf.body)
    return leaf.body


def _decode_base64(data: bytes) -> bytes:
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:  # cut short, or followed by something else
        letters = _NOT_BASE64.sub(b"", data.partition(b"=")[0])
        return binascii.a2b_base64(letters[: len(letters) // 4 * 4])


# -- the first summary ----------------------------------------------------------------------------------------

_ODD_SUMS = {
    SumsDiffer.DETAILS_EXCEED: "with details beyond the total (one session may fail in two ways)",
    SumsDiffer.DETAILS_FALL_SHORT: "with details short of the total",
    SumsDiffer.NO_DETAILS: "with failures but no details",
}


def tls_reports_summary(frame: pd.DataFrame) -> str:
    """Say in a few lines what a table of TLS reports holds, and what of the input gave none.

    Totals stand by policy type and are not added up: policies of two types may count the same sessions.
    """
    policies = frame.drop_duplicates(["source_file", "policy_index"])
    head = (
        f"{frame['source_file'].nunique():,} TLS reports of {frame['organization'].nunique():,} organisations on "
        f"{frame['policy_domain'].nunique():,} policy domains"
    )
    if frame["begins_at"].notna().any() and frame["ends_at"].notna().any():
        head += f", {frame['begins_at'].min():%Y-%m-%d} to {frame['ends_at'].max():%Y-%m-%d}"
    lines = [head]
    if len(policies):
        lines += ["", "Sessions by policy type (one session may count in two types):"]
        totals = policies.groupby(policies["policy_type"].fillna("not told"))[
            ["sessions_ok", "sessions_failed"]
        ].sum()
        for kind, ok, failed in totals.itertuples():
            lines.append(f"  {printable(str(kind), 40):<28} {ok:>12,} ok {failed:>12,} failed")
    failures = frame[frame["failed_sessions"].notna()]
    if len(failures):
        lines += ["", "Failed sessions by result type:"]
        sums = failures.groupby(failures["result_type"].fillna("not told"))["failed_sessions"].sum()
        for kind, failed in sums.sort_values(ascending=False).head(12).items():
            lines.append(f"  {printable(str(kind), 40):<28} {failed:>12,}")
    notes = [
        f"{number:,} {text}"
        for word, text in _ODD_SUMS.items()
        if (number := (policies["sums"] == word).sum())
    ]
    if impossible := int(frame["impossible"].sum()):
        notes.append(f"{impossible:,} rows hold what cannot be (see detail)")
    if notes:
        lines += ["", "Policies: " + "; ".join(notes)]
    if coverage := frame.attrs.get("coverage"):
        lines += ["", *coverage_lines(coverage)]
        if coverage["duplicates"]:
            lines.append(f"  {coverage['duplicates']:,}: came before, and left out")
    return "\n".join(lines)
