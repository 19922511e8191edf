"""TLS reports: what a sender tells a domain of the sessions with its servers (RFC 8460 §4)."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from rtls_analysis.standards.mail_date import find_date
from rtls_analysis.standards.names import NameProblem, to_ascii

MAX_BYTES = 50 << 20  # of one text; servers take reports of 10 MB packed
MAX_VALUES = 2_000_000  # in one text, so that its objects fit into memory; a report of 50 MB has fewer
MAX_TEXT = 1024  # characters of one value that are kept
MAX_ITEMS = 256  # of a list of one policy that are kept
MAX_ROOM = 256 << 20  # bytes that the rows of one text may take, and `ROOM_PER_BYTE` times its length
ROOM_PER_BYTE, ROOM_OF_ROW = 64, 1000


class SumsDiffer(StrEnum):
    """How the failure details of a policy add up against its total (RFC 8460 §4.5)."""

    EQUAL = "equal"
    DETAILS_EXCEED = "details_exceed"  # legal: the failure types overlap
    DETAILS_FALL_SHORT = "details_fall_short"
    NO_DETAILS = "no_details"  # though there were failures


@dataclass(frozen=True, slots=True)
class ReportedFailure:
    """Sessions that failed in one way (`failure-details`, RFC 8460 §4.4). `None`: not told."""

    result_type: str | None = None  # as reported
    sending_mta: str | None = None
    receiving_mx: str | None = None
    receiving_helo: str | None = None
    receiving_address: str | None = None
    failed_sessions: int | None = None
    failure_reason: str | None = None
    additional_information: str | None = None  # a URI, not to be fetched


@dataclass(frozen=True, slots=True)
class ReportedPolicy:
    """The sessions under one policy (RFC 8460 §4.4). `None`: not told."""

    policy_type: str | None = None  # as reported
    policy_domain: str | None = None
    policy_strings: tuple[str, ...] | None = None
    mx_hosts: tuple[str, ...] | None = None
    sessions_ok: int | None = None
    sessions_failed: int | None = None  # the sum of the details where no total is told
    failures: tuple[ReportedFailure, ...] = ()
    sums: SumsDiffer | None = None  # where both sides are told
    impossible: str = ""  # what of it cannot be, in a phrase


@dataclass(frozen=True, slots=True)
class TlsReport:
    """One report (RFC 8460 §4.4). `None`: not told."""

    organization: str | None
    contact: str | None
    report_id: str | None
    begins_at: datetime | None
    ends_at: datetime | None
    policies: tuple[ReportedPolicy, ...]
    digest: str = ""  # of the whole, where it has no id


@dataclass(frozen=True, slots=True)
class ReportText:
    """The reports of one text, and what of it is none."""

    reports: tuple[TlsReport, ...]
    problem: str = ""  # why the text, or a part of it, gives no report


def parse_tls_reports(data: bytes) -> ReportText:
    """Read a text that should be a TLS report: JSON in UTF-8 (RFC 8460 §4, RFC 7493), or what came instead.

    Parameters
    ----------
    data
        The text, unpacked. Several reports may stand in an array, one a line, or one behind the other. Nothing in
        it makes this fail.

    Notes
    -----
    Keys count in any case and with any sign between their words; beside those of the RFC the names are known that
    its own prose and its drafts have. A string stands for a list of one. Where a report has no total, the sum of its
    failure details is the total (nothing is compared then).

    A time without a zone is UTC. A date alone is its midnight, and as an end that would leave no time, its last
    second (RFC 8460 §4.1 wants whole days).

    Only what cannot be is called impossible: a negative count, an end before the begin. Details may exceed the total,
    as a session can fail in two ways.

    Examples
    --------
    >>> text = b'''{"organization-name": "Example", "report-id": "1", "policies": [{"policy": {"policy-type": "sts",
    ...     "policy-domain": "example.org", "mx-host": "*.example.org"}, "summary": {"total-failure-session-count": 3,
    ...     "total-successful-session-count": 5}}]}'''
    >>> policy = parse_tls_reports(text).reports[0].policies[0]
    >>> policy.mx_hosts, policy.sessions_ok, policy.sessions_failed, str(policy.sums)
    (('*.example.org',), 5, 3, 'no_details')
    """
    if len(data) > MAX_BYTES:
        return ReportText((), f"longer than {MAX_BYTES >> 20} MiB")
    text = _decode(data)
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        return ReportText((), f"more than {MAX_VALUES:,} values")
    room = _Room(min(MAX_ROOM, (4 << 20) + ROOM_PER_BYTE * len(data)))
    reports: list[TlsReport] = []
    problem = ""
    for value, reason in _json_values(text):
        if reason:
            problem = problem or reason
        elif isinstance(value, dict) and _is_report(fields := _fields(value)):
            reports.append(_read_report(fields, value, room))
        else:
            problem = problem or "JSON, but no TLS report"
    if room.rows_refused:
        problem = problem or f"{room.rows_refused:,} rows that repeat too much are left out"
    return ReportText(tuple(reports), problem)


@dataclass(slots=True)
class _Room:
    """What the rows of a text may still take: each repeats what its policy and its report say."""

    left: int
    rows_refused: int = 0

    def take(self, rows: int, repeated: int) -> int:
        """Take room for so many rows, or for as many as there is; gives their number."""
        taken = min(rows, max(0, self.left) // (repeated + ROOM_OF_ROW))
        self.left -= taken * (repeated + ROOM_OF_ROW)
        self.rows_refused += rows - taken
        return taken


# -- JSON ----------------------------------------------------------------------------------------------------

_BETWEEN = re.compile(r"[\s\ufeff\0,;]*")
_DIGITS = re.compile(r"[-+]?\d{1,18}")
_SQUEEZED = re.compile(r"[^a-z0-9]+")


def _decode(data: bytes) -> str:
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeError:
        return data.decode("utf-8", "replace")


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 19 else math.inf


_DECODER = json.JSONDecoder(parse_int=_integer, strict=False)


def _json_values(text: str) -> Iterator[tuple[Any, str]]:
    """The values one behind the other, those of arrays singly, and why reading ended early."""
    place = _BETWEEN.match(text).end()  # type: ignore[union-attr]
    if place == len(text):
        yield None, "empty"
    while place < len(text):
        try:
            value, place = _DECODER.raw_decode(text, place)
        except RecursionError:
            yield None, "JSON nested too deep"
            return
        except ValueError as error:
            reason = getattr(error, "msg", str(error))
            yield None, f"no JSON at character {getattr(error, 'pos', place):,}: {reason}"
            return
        if isinstance(value, list):
            yield from ((item, "") for item in value)
        else:
            yield value, ""
        place = _BETWEEN.match(text, place).end()  # type: ignore[union-attr]


def _fields(value: Any) -> dict[str, Any]:
    """An object's values by squeezed key: ``receiving-mx-host-name`` and ``receivingMxHostname`` are one."""
    if not isinstance(value, dict):
        return {}
    fields: dict[str, Any] = {}
    for key, item in value.items():
        fields.setdefault(_SQUEEZED.sub("", key.lower()), item)
    return fields


def _pick(fields: Mapping[str, Any], *keys: str) -> Any:
    """The first of these keys that holds anything."""
    for key in keys:
        if (value := fields.get(key)) is not None:
            return value
    return None


def _objects(value: Any) -> list[dict[str, Any]]:
    """A list of objects, where one alone stands for a list of one."""
    items = value if isinstance(value, list) else [value]
    return [_fields(item) for item in items if isinstance(item, dict)]


def _is_report(fields: Mapping[str, Any]) -> bool:
    return isinstance(fields.get("policies"), (list, dict)) or {"reportid", "daterange"} <= fields.keys()


# -- values --------------------------------------------------------------------------------------------------


def _text(value: Any) -> str | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    return value.strip()[:MAX_TEXT] or None if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    items = value if isinstance(value, list) else [value]
    return tuple(text for item in items[:MAX_ITEMS] if (text := _text(item)) is not None)


def _domain(value: Any) -> str | None:
    if isinstance(value, list):
        value = value[0] if value else None
    if (text := _text(value)) is None:
        return None
    try:
        return to_ascii(text)
    except NameProblem:
        return text.lower()


def _count(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = int(text) if _DIGITS.fullmatch(text := value.strip()) else None
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) and value == int(value) and abs(value) < 1e18 else None
    return value if isinstance(value, int) else None


def _moment(value: Any) -> tuple[datetime | None, bool]:
    """A time in UTC, and whether it was told as a date alone."""
    text = (_text(value) or "").upper()
    if _DIGITS.fullmatch(text) and len(text) != 8:  # eight are a date
        return _from_epoch(int(text)), False
    whole_day = timedelta(0)
    if "T24:00" in text or " 24:00" in text:
        text, whole_day = text.replace("24:00", "00:00", 1), timedelta(days=1)
    text = text.replace(":60", ":59") if text.count(":60") == 1 else text
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment + whole_day, len(text) <= 10
    except (ValueError, OverflowError):
        found = find_date(" ".join((_text(value) or "").split()))
        return found.moment if found is not None else None, False


def _from_epoch(seconds: int) -> datetime | None:
    if abs(seconds) > 100_000_000_000:  # milliseconds: as seconds it would be after the year 5000
        seconds //= 1000
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


# -- the report ----------------------------------------------------------------------------------------------


def _read_report(fields: Mapping[str, Any], value: Mapping[str, Any], room: _Room) -> TlsReport:
    period = fields.get("daterange")
    if isinstance(period, list):
        period = dict(zip(("start", "end"), period, strict=False))
    dates = _fields(period) or fields
    begins_at, _is_date = _moment(_pick(dates, "startdatetime", "start", "begin", "startdate"))
    ends_at, is_date = _moment(_pick(dates, "enddatetime", "end", "enddate"))
    if is_date and begins_at is not None and ends_at is not None and ends_at == begins_at:
        ends_at = datetime.combine(ends_at.date(), time(23, 59, 59), UTC)
    organization = _text(_pick(fields, "organizationname", "organisationname", "orgname", "organization"))
    contact = _text(_pick(fields, "contactinfo", "contact"))
    report_id = _text(_pick(fields, "reportid"))
    backwards = begins_at is not None and ends_at is not None and ends_at < begins_at
    repeated = len(organization or "") + len(contact or "") + len(report_id or "")
    entries = (_read_policy(entry, backwards, repeated, room) for entry in _objects(fields.get("policies")))
    return TlsReport(
        organization,
        contact,
        report_id,
        begins_at,
        ends_at,
        tuple(entry for entry in entries if entry is not None),
        "" if report_id else hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest(),
    )


def _read_policy(
    entry: Mapping[str, Any], backwards: bool, repeated: int, room: _Room
) -> ReportedPolicy | None:
    policy = next(iter(_objects(entry.get("policy"))), entry)
    summary = next(iter(_objects(entry.get("summary"))), entry)
    strings = _texts(_pick(policy, "policystring", "policystrings"))
    patterns = _texts(_pick(policy, "mxhost", "mxhosts", "mxhostpattern", "mxhostpatterns"))
    details = _objects(_pick(entry, "failuredetails", "failuredetail", "failures"))
    repeated += sum(map(len, (*(strings or ()), *(patterns or ()))))
    if not (rows := room.take(max(len(details), 1), repeated)):
        return None
    failures = tuple(map(_read_failure, details[:rows]))
    ok = _count(_pick(summary, "totalsuccessfulsessioncount", "totalsuccesssessioncount"))
    failed = _count(_pick(summary, "totalfailuresessioncount", "totalfailedsessioncount"))
    counts = [failure.failed_sessions for failure in failures]
    reasons = ["an end before the begin"] if backwards else []
    if any(count is not None and count < 0 for count in (ok, failed, *counts)):
        reasons.append("a negative count")
    return ReportedPolicy(
        _text(_pick(policy, "policytype", "type")),
        _domain(_pick(policy, "policydomain", "domain")),
        strings,
        tuple(pattern.lower() for pattern in patterns) if patterns is not None else None,
        ok,
        failed
        if failed is not None
        else sum(count for count in counts if count is not None)
        if counts
        else None,
        failures,
        compare_sums(failed, counts) if len(failures) == len(details) else None,
        ", ".join(reasons),
    )


def _read_failure(detail: Mapping[str, Any]) -> ReportedFailure:
    return ReportedFailure(
        _text(_pick(detail, "resulttype", "result")),
        _text(_pick(detail, "sendingmtaip", "sendingmta", "sendingip")),
        _domain(_pick(detail, "receivingmxhostname", "receivingmx")),
        _text(_pick(detail, "receivingmxhelo", "receivinghelo")),
        _text(_pick(detail, "receivingip", "receivingmxip")),
        _count(_pick(detail, "failedsessioncount", "failedsessionscount")),
        _text(_pick(detail, "failurereasoncode", "failureerrorcode", "failurereason")),
        _text(_pick(detail, "additionalinformation", "additionalinfouri", "additionalinfo")),
    )


def compare_sums(total: int | None, counts: Sequence[int | None]) -> SumsDiffer | None:
    """Compare the failed sessions of a policy with those of its details; `None` where a number is not told.

    >>> str(compare_sums(3, [2, 2])), str(compare_sums(3, [])), compare_sums(3, [None])
    ('details_exceed', 'no_details', None)
    """
    if total is None:
        return None
    if not counts:
        return SumsDiffer.NO_DETAILS if total else SumsDiffer.EQUAL
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    if sum(known) == total:
        return SumsDiffer.EQUAL
    return SumsDiffer.DETAILS_EXCEED if sum(known) > total else SumsDiffer.DETAILS_FALL_SHORT
