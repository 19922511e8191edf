"""MTA-STS: the record, the policy, and which MX hosts it names (RFC 8461)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rtls_analysis.standards.names import MAX_NAME, fold_host, is_address

MAX_POLICY_BYTES = 65536
"""The longest policy that is read (RFC 8461 §3.3 suggests it)."""

MAX_AGE = 31_557_600  # a year (RFC 8461 §3.2)
_SHORT_AGE = 86_400  # shorter ones protect little; weeks or more are expected


class StsRecordState(StrEnum):
    """What the TXT answer at ``_mta-sts.<domain>`` amounts to (RFC 8461 §3.1)."""

    VALID = "valid"  # exactly one record, within the grammar
    ABSENT = "absent"  # no text there begins as an MTA-STS record does
    MULTIPLE = "multiple"  # two or more: senders act as if there were none
    MALFORMED = "malformed"  # one record, outside the grammar
    DNS_FAILURE = "dns_failure"
    NOT_TESTED = "not_tested"


class StsMode(StrEnum):
    """The mode of a policy (RFC 8461 §3.2, §5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class StsPolicyState(StrEnum):
    """What fetching and reading the policy came to (RFC 8461 §3.3)."""

    VALID = "valid"
    NO_RECORD = "no_record"
    DNS_FAILURE = "dns_failure"
    NO_ADDRESS = "no_address"
    ADDRESS_REFUSED = "address_refused"
    CONNECT_FAILED = "connect_failed"
    TIMEOUT = "timeout"
    TLS_FAILED = "tls_failed"
    CERTIFICATE_INVALID = "certificate_invalid"
    REDIRECT = "redirect"
    HTTP_STATUS = "http_status"
    CONTENT_TYPE = "content_type"
    TOO_LARGE = "too_large"
    INVALID = "invalid"
    NOT_TESTED = "not_tested"


# -- the record ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StsRecordCheck:
    """A verdict with its evidence: `policy_id` is set exactly when `state` is VALID."""

    state: StsRecordState
    policy_id: str | None = None  # opaque; a change tells senders to refetch the policy
    detail: str = ""  # why there is no usable record, in a phrase


_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)")
_POLICY_ID = re.compile(r"[A-Za-z0-9]{1,32}")


def check_sts_record(texts: Sequence[str]) -> StsRecordCheck:
    """Judge the TXT answer at ``_mta-sts.<domain>`` as a sender does (RFC 8461 §3.1).

    Parameters
    ----------
    texts
        The TXT strings of the answer; empty when the name does not exist.

    Notes
    -----
    A repeated field keeps its first value (§3.2). The ABNF allows white space before the first
    ``;`` and the prose does not: we follow the prose, as erratum 6285 proposes.

    Examples
    --------
    >>> check_sts_record(["v=STSv1; id=20160831085700Z;"]).policy_id
    '20160831085700Z'
    """
    records = [text for text in texts if text.startswith("v=STSv1;")]
    if not records:
        return StsRecordCheck(StsRecordState.ABSENT)
    if len(records) > 1:
        return StsRecordCheck(StsRecordState.MULTIPLE, detail=f"{len(records)} records")
    values: dict[str, str] = {}
    for field in record_fields(records[0]):
        if (match := _FIELD.fullmatch(field)) is None:
            return StsRecordCheck(StsRecordState.MALFORMED, detail=f"not a field: {field[:80]!r}")
        values.setdefault(match[1], match[2])
    if _POLICY_ID.fullmatch(policy_id := values.get("id", "")) is None:
        return StsRecordCheck(StsRecordState.MALFORMED, detail=f"bad or no id: {policy_id[:80]!r}")
    return StsRecordCheck(StsRecordState.VALID, policy_id)


def record_fields(record: str) -> Iterator[str]:
    """Yield the fields behind the version of a record: the delimiter is ``*WSP ";" *WSP`` (RFC 8461 §3.1, RFC 8460 §3).

    >>> list(record_fields("v=STSv1; id=1 ;mx=2;"))
    ['id=1', 'mx=2']
    """
    _version, *fields = record.split(";")
    last = len(fields) - 1
    for place, field in enumerate(fields):
        inner = field.lstrip(" \t")
        if place < last:
            yield inner.rstrip(" \t")
        elif inner:  # a record may end with a delimiter
            yield inner


# -- the policy ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy (RFC 8461 §3.2); `mx` are its patterns in lower case, in order."""

    mode: StsMode
    max_age_seconds: int
    mx: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StsPolicyCheck:
    """A verdict with its evidence: `policy` is set exactly when `state` is VALID.

    `detail` says why there is no policy, or what is odd about one: words in one phrase each.
    """

    state: StsPolicyState
    policy: StsPolicy | None = None
    detail: str = ""


_LINE_END = re.compile(r"\r?\n")
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*(.*)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PATTERN = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_MEDIA_TYPE = re.compile(r"text/plain[ \t]*(?:;.*)?", re.IGNORECASE)
_KEYS = ("version", "mode", "max_age", "mx")
_MAX_PATTERNS = 10_000


def check_policy_response(
    status: int,
    content_type: str | None,
    body: bytes | None,
    *,
    size: int | None = None,
    strict_media_type: bool = True,
) -> StsPolicyCheck:
    """Judge what a policy host answered (RFC 8461 §3.2, §3.3).

    Parameters
    ----------
    status
        The HTTP status; only 200 brings a policy, and no redirect is followed.
    content_type, body
        The media type as sent, None without one, and the body.
    size
        Bytes of the body as it came, where `body` is no longer that; its length by default.
    strict_media_type
        Whether a policy under another media type than text/plain is none (§3.2, SHOULD); otherwise it is only
        noted.
    """
    if 300 <= status < 400:
        return StsPolicyCheck(
            StsPolicyState.REDIRECT, detail=f"HTTP status {status}; no redirect is followed"
        )
    if status != 200:
        return StsPolicyCheck(StsPolicyState.HTTP_STATUS, detail=f"HTTP status {status}")
    is_plain = content_type is not None and _MEDIA_TYPE.fullmatch(content_type.strip()) is not None
    served_as = f"media type {content_type[:80]!r}" if content_type is not None else "no media type"
    if not is_plain and strict_media_type:
        return StsPolicyCheck(StsPolicyState.CONTENT_TYPE, detail=f"{served_as}, not text/plain")
    body = body or b""
    if (len(body) if size is None else size) > MAX_POLICY_BYTES:
        return StsPolicyCheck(StsPolicyState.TOO_LARGE, detail=f"more than {MAX_POLICY_BYTES} bytes")
    check = parse_policy(body)
    if is_plain or check.policy is None:
        return check
    return StsPolicyCheck(check.state, check.policy, "; ".join(filter(None, (served_as, check.detail))))


class _Invalid(Exception):
    """The text is no policy; the message says why."""


def parse_policy(body: bytes) -> StsPolicyCheck:
    r"""Parse a policy (RFC 8461 §3.2).

    Notes
    -----
    Lines end in LF or CRLF, mixed too: the grammar has both, the prose only CRLF (erratum 6253). Keys and the
    words of `version` and `mode` are case-sensitive. A repeated key keeps its first value; unknown keys and empty
    lines are passed over and noted. A `max_age` above the maximum has no meaning in the RFC: it makes the policy
    invalid here, as it does for most senders. A text with U+FFFD counts as one that is not UTF-8.

    Examples
    --------
    >>> parse_policy(b"version: STSv1\nmode: enforce\nmx: *.example.org\nmax_age: 604800\n").policy
    StsPolicy(mode=<StsMode.ENFORCE: 'enforce'>, max_age_seconds=604800, mx=('*.example.org',))
    """
    notes: dict[str, None] = {}
    try:
        policy = _read_policy(body, notes)
    except _Invalid as problem:
        return StsPolicyCheck(StsPolicyState.INVALID, detail=str(problem))
    return StsPolicyCheck(StsPolicyState.VALID, policy, "; ".join(notes))


def _read_policy(body: bytes, notes: dict[str, None]) -> StsPolicy:
    values: dict[str, str] = {}
    patterns: dict[str, None] = {}
    for key, value in _terms(_text(body), notes):
        if key == "mx":
            patterns[_pattern(value)] = None
            if len(patterns) > _MAX_PATTERNS:
                raise _Invalid(f"more than {_MAX_PATTERNS} mx patterns")
        elif key in values:
            notes[f"{key} more than once"] = None
        else:
            values[key] = value
            if key not in _KEYS:
                notes["unknown keys"] = None
    mode = _mode(values)
    seconds = _max_age(values)
    if not patterns and mode is not StsMode.NONE:
        raise _Invalid("no mx")
    if seconds < _SHORT_AGE and mode is not StsMode.NONE:
        notes[f"max_age of only {seconds} s"] = None
    return StsPolicy(mode, seconds, tuple(patterns))


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise _Invalid("not UTF-8") from None
    if "\ufffd" in text:
        raise _Invalid("not UTF-8")
    if not text:
        raise _Invalid("empty")
    return text


def _terms(text: str, notes: dict[str, None]) -> Iterator[tuple[str, str]]:
    """Yield key and value of each line."""
    lines = _LINE_END.split(text)
    if lines[-1] == "":
        lines.pop()
    for line in lines:
        term = line.rstrip(" \t")
        if not term:
            notes["empty lines"] = None
            continue
        match = _LINE.fullmatch(term)
        if match is None or _CONTROL.search(match[2]):
            raise _Invalid(f"not a line of a policy: {line[:80]!r}")
        yield match[1], match[2]


def _mode(values: dict[str, str]) -> StsMode:
    if "version" not in values:
        raise _Invalid("no version")
    if values["version"] != "STSv1":
        raise _Invalid(f"version is {values['version'][:80]!r}, not STSv1")
    if "mode" not in values:
        raise _Invalid("no mode")
    try:
        return StsMode(values["mode"])
    except ValueError:
        raise _Invalid(f"mode is {values['mode'][:80]!r}; there are {', '.join(StsMode)}") from None


def _max_age(values: dict[str, str]) -> int:
    if "max_age" not in values:
        raise _Invalid("no max_age")
    text = values["max_age"]
    if re.fullmatch(r"[0-9]{1,10}", text) is None:
        raise _Invalid(f"max_age is {text[:80]!r}, not a number")
    if int(text) > MAX_AGE:
        raise _Invalid(f"max_age of {text} s is out of range; {MAX_AGE} are allowed")
    return int(text)


def _pattern(value: str) -> str:
    pattern = value.lower()
    if len(pattern) > MAX_NAME + 2 or _PATTERN.fullmatch(pattern) is None or is_address(pattern):
        raise _Invalid(f"mx is {value[:80]!r}, not a host name or a wildcard for one label")
    return pattern


def matches_mx(patterns: Iterable[str], host: str) -> bool:
    """Tell whether a policy names an MX host (RFC 8461 §4.1).

    Parameters
    ----------
    patterns
        Its mx patterns: host names, or ``*.`` and a name, which stands for exactly one label more.
    host
        The name as the MX record has it, not the end of its aliases.

    Examples
    --------
    >>> [matches_mx(["*.example.org"], host) for host in ("mx.example.org", "example.org", "a.b.example.org")]
    [True, False, False]
    """
    name = fold_host(host)
    _first, dot, rest = name.partition(".")
    wanted = {name, f"*.{rest}"} if dot and rest else {name}
    return any(pattern in wanted for pattern in patterns)
