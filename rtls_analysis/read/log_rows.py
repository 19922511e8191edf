"""What the log readers hand over, and how it becomes tables: column by column, without a dict per row.

The rows of a table lie one behind the other in a flat list, and point to shared records (`Relay`, `Tls`, `Result`),
which come in few kinds. They are spread into columns only when a part of the table is full, by Arrow.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from rtls_analysis.outcomes import Action, RequireTls, TlsLevel, TlsOutcome, Told
from rtls_analysis.read.log_time import Clock
from rtls_analysis.schema import CONNECTIONS, DELIVERIES, MailReader, Table, TlsVersion

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS = 50_000
SAMPLES = 3
SAMPLE_CHARACTERS = 300
MAX_SHARED = 50_000


# Rows share these: `Sink.share` gives one object for equal ones. They hash by identity, which is what makes the
# distinct ones of a part cheap to find.
@dataclass(frozen=True, eq=False, slots=True)
class Relay:
    """A next hop; a local mailbox has no address and no port."""

    host: bytes | None = None
    address: bytes | None = None
    port: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Tls:
    """What is known of TLS and REQUIRETLS in one attempt.

    `service` says which program's habit decides a level left at `unknown`: where it writes a line for each TLS
    connection, an attempt without such a line was in cleartext.
    """

    level: TlsLevel | None = None
    policy: bytes | None = None
    version: TlsVersion | None = None
    cipher: bytes | None = None
    bits: int | None = None
    requiretls: RequireTls = RequireTls.UNKNOWN
    violated: bool | None = None
    strict: Told | None = None
    required_no: Told = Told.UNKNOWN
    service: Service | None = None


@dataclass(eq=False, slots=True)
class Service:
    """A program that may or may not log its TLS connections, and the first line that shows that it does."""

    first_tls: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Result:
    """How an attempt ended."""

    action: Action | None
    outcome: TlsOutcome
    status_word: bytes | None = None
    enhanced_code: bytes | None = None
    reply_code: int | None = None
    attempted: bool = True


@dataclass(frozen=True, eq=False, slots=True)
class Origin:
    """Which reader saw a line, and which host wrote it."""

    mta: MailReader
    host: bytes | None = None


NO_RELAY = Relay()
NO_TLS = Tls()
UNKNOWN_TLS = Tls(TlsLevel.UNKNOWN)


class Delivery(NamedTuple):
    """One row of `deliveries`. `number` is the line's place in the input."""

    number: int
    at: int | None
    origin: Origin
    queue_id: bytes | None = None
    message_id: bytes | None = None
    sender: bytes | None = None
    recipient: bytes | None = None
    relay: Relay = NO_RELAY
    transport: bytes | None = None
    result: Result | None = None
    text: bytes | None = None
    delay: float | None = None
    tls: Tls = NO_TLS


class Connection(NamedTuple):
    """One row of `connections`."""

    number: int
    at: int | None
    origin: Origin
    process_id: bytes | None = None
    queue_id: bytes | None = None
    relay: Relay = NO_RELAY
    tls: Tls = NO_TLS
    outcome: TlsOutcome = TlsOutcome.UNKNOWN
    reused: bool | None = None
    text: bytes | None = None


class Skipped:
    """Lines that gave nothing, for one reason."""

    __slots__ = ("count", "samples")

    def __init__(self) -> None:
        self.count = 0
        self.samples: list[str] = []

    def add(self, line: bytes) -> None:
        """Count a line and keep it as a sample where few are kept."""
        self.count += 1
        self.sample(line)

    def sample(self, line: bytes) -> None:
        """Keep a line as a sample where few are kept."""
        if len(self.samples) < SAMPLES:
            self.samples.append(readable(line[:SAMPLE_CHARACTERS]))


def readable(data: bytes) -> str:
    """Bytes of a log as text; what is no UTF-8, and NUL, is escaped."""
    return data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


@dataclass(slots=True)
class Coverage:
    """What was read and what was made of it; every line is counted once, as understood or as skipped.

    A line that stands for several is counted as those.
    """

    lines_read: int = 0
    repeated: int = 0  # lines more than that, folded into others
    understood: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, Skipped] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str, line: bytes) -> None:
        """Count a line that gives nothing."""
        self.reason(reason).add(line)

    def reason(self, reason: str) -> Skipped:
        """The counter of a reason."""
        if (skipped := self.skipped.get(reason)) is None:
            skipped = self.skipped[reason] = Skipped()
        return skipped

    def warn(self, text: str) -> None:
        """Note something that makes the whole result less certain."""
        if text not in self.warnings and len(self.warnings) < 100:
            self.warnings.append(text)

    def add(self, other: Coverage) -> None:
        """Take over what another part of the same input counted."""
        self.lines_read += other.lines_read
        self.repeated += other.repeated
        for kind, count in other.understood.items():
            self.understood[kind] = self.understood.get(kind, 0) + count
        for reason, skipped in other.skipped.items():
            mine = self.reason(reason)
            mine.count += skipped.count
            mine.samples = (mine.samples + skipped.samples)[:SAMPLES]
        for text in other.warnings:
            self.warn(text)

    def as_dict(self, *, files: Mapping[str, str], clock: Mapping[str, Any]) -> dict[str, Any]:
        """The whole as JSON-able values."""
        understood = {kind: count for kind, count in sorted(self.understood.items()) if count}
        foreign = sum(skip.count for reason, skip in self.skipped.items() if reason in FOREIGN)
        return {
            "lines_read": self.lines_read,
            "lines_repeated": self.repeated,
            "lines_matched": self.lines_read + self.repeated - foreign,
            "understood": understood,
            "skipped": {
                reason: {"count": skip.count, "samples": list(skip.samples)}
                for reason, skip in sorted(self.skipped.items(), key=lambda item: (-item[1].count, item[0]))
                if skip.count
            },
            "rows": dict(self.rows),
            "warnings": list(self.warnings),
            "unreadable_files": dict(files),
            "time": dict(clock),
        }


OTHER_PROGRAM = "another program"
NOT_A_LOG_LINE = "not a log line of a known form"
EMPTY = "empty line"
TOO_LONG = "longer than 1 MiB"
FOREIGN = frozenset({OTHER_PROGRAM, NOT_A_LOG_LINE, EMPTY, TOO_LONG})


class Feed(Protocol):
    """What handles the lines of one source; the text begins at `start`."""

    def __call__(self, source: Source, line: bytes, start: int, number: int, /) -> None:
        """Handle one line."""


class Source:
    """One process on one host as the log names it; readers keep what they know of the process in `state`.

    Attributes
    ----------
    feed
        What handles its lines; `None` as long as they are only to be counted, in `skipped`.
    rare
        What handles, without a feed, the few lines that hold a word of `lines.WATCHED`.
    """

    __slots__ = ("feed", "host", "pid", "rare", "skipped", "state", "tag")

    def __init__(
        self,
        host: bytes = b"",
        tag: bytes = b"",
        pid: bytes = b"",
        feed: Feed | None = None,
        skipped: Skipped | None = None,
        state: Any = None,
        rare: Feed | None = None,
    ) -> None:
        self.host, self.tag, self.pid = host, tag, pid
        self.feed = feed
        self.rare = rare
        self.skipped = skipped or Skipped()
        self.state = state


class LogReader(Protocol):
    """One mail server's log. State lives in the reader, so that it carries over from file to file.

    Every line a reader takes is counted once: `Sink.count` for what it understood, `Coverage.skip` for what gives
    nothing. `number` is the line's place in the whole input, and goes into the rows.
    """

    name: MailReader

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of a syslog source, `None` where it is not this server's; asked once for each source."""
        ...

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """Handle a line of the server's own form, which begins at `start`; `False`: it is not one.

        What stands before `start` is the envelope, if any: a stamp that `Clock.at` reads from the line's beginning,
        and the host and tag that `source` names (both empty without one).
        """
        ...

    def drop(self, source: Source) -> None:
        """Forget a source that this reader made."""
        ...

    def finish(self) -> None:
        """The input has ended: hand over what was held back."""
        ...


Record = TypeVar("Record", Relay, Tls, Result, Origin)


class Sink:
    """Where readers put rows and counts, and where they read the time of a line."""

    def __init__(self, clock: Clock, *, connections: bool = True) -> None:
        self.clock = clock
        self.coverage = Coverage()
        self.understood = self.coverage.understood
        self.deliveries: list[Any] = []  # flat, the fields of one `Delivery` behind those of another
        self.connections: list[Any] = []  # so are these
        self.wants_connections = connections
        self._records: dict[tuple[Any, ...], Any] = {}

    def share(self, record: Record) -> Record:
        """The one object that stands for all records equal to this one."""
        key = (type(record), *(getattr(record, name) for name in record.__slots__))
        if len(self._records) >= MAX_SHARED:
            self._records.clear()
        shared: Record = self._records.setdefault(key, record)
        return shared

    def count(self, kind: str) -> None:
        """Count a line as understood, as ``exim delivery``."""
        self.understood[kind] = self.understood.get(kind, 0) + 1

    def deliver(self, row: Delivery) -> None:
        """Add a row of `deliveries`."""
        self.deliveries.extend(row)

    def connect(self, row: Connection) -> None:
        """Add a row of `connections`."""
        if self.wants_connections:
            self.connections.extend(row)


class Places:
    """From a line's place in the whole input back to its file and number."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._names: list[str] = []
        self._offsets: list[int] = []

    def add(self, number: int, name: str, line_number: int) -> None:
        """The line at place `number` is `line_number` of this file, and so on from there."""
        if self._names and self._names[-1] == name and self._offsets[-1] == line_number - number:
            return
        self._first.append(number)
        self._names.append(name)
        self._offsets.append(line_number - number)

    def columns(self, numbers: Sequence[int]) -> tuple[pa.Array, pa.Array]:
        """`source_file` and `line_number` of these places."""
        import numpy as np
        import pyarrow as pa

        array = np.asarray(numbers, dtype=np.int64)
        where = np.searchsorted(np.asarray(self._first, dtype=np.int64), array, side="right") - 1
        names = pa.array(self._names, pa.string()).take(pa.array(where))
        lines = array + np.asarray(self._offsets, dtype=np.int64)[where]
        return names, pa.array(lines, pa.int64())

    def of(self, number: int) -> tuple[str, int]:
        """File and line number of one place."""
        index = bisect_right(self._first, number) - 1
        return self._names[index], number + self._offsets[index]


# -- tuples to Arrow ------------------------------------------------------------------------------------------


def _texts(values: Sequence[bytes | None]) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:  # some of it is no UTF-8
        return pa.array([None if value is None else readable(value) for value in values], pa.string())


def _words(values: Iterable[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _shared(values: Sequence[Any]) -> tuple[list[Any], pa.Array]:
    """The distinct objects of a column, and for each row the index of its own."""
    import numpy as np
    import pyarrow as pa

    distinct = list(dict.fromkeys(values))
    index = {value: place for place, value in enumerate(distinct)}
    return distinct, pa.array(np.fromiter(map(index.__getitem__, values), dtype=np.int32, count=len(values)))


def domain_of(address: bytes) -> bytes | None:
    """The domain of a mail address as our tables write it; `None` where it has none.

    >>> domain_of(b"a@Example.ORG"), domain_of(b"postmaster")
    (b'example.org', None)
    """
    at = address.rfind(b"@")
    if at < 0:
        return None
    domain = address[at + 1 :].lower().rstrip(b".").rstrip(b">")
    if domain.isascii():
        return domain or None
    from rtls_analysis.standards.names import NameProblem, to_ascii

    try:
        return to_ascii(domain.decode("utf-8", "backslashreplace")).encode()
    except NameProblem:
        return domain


class _Domains(dict[bytes, bytes | None]):
    def __missing__(self, tail: bytes) -> bytes | None:
        domain = self[tail] = domain_of(tail)
        return domain


def _domains(addresses: Sequence[bytes | None]) -> pa.Array:
    """The domains of a column of addresses."""
    memo = _Domains()
    return _texts(
        [
            None if address is None or (at := address.rfind(b"@")) < 0 else memo[address[at:]]
            for address in addresses
        ]
    )


def _times(values: Sequence[int | None]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.int64()).cast(pa.timestamp("us", "UTC"))


def _tls_columns(values: Sequence[Any], until: int) -> dict[str, pa.Array]:
    import pyarrow as pa

    distinct, codes = _shared(values)

    def level(tls: Tls) -> TlsLevel | None:
        if tls.service is None or tls.service.first_tls is None or tls.service.first_tls > until:
            return tls.level
        return TlsLevel.NONE

    plain = {
        "tls_policy": _texts([tls.policy for tls in distinct]),
        "tls_level": _words(map(level, distinct)),
        "tls_version": _words(tls.version for tls in distinct),
        "cipher": _texts([tls.cipher for tls in distinct]),
        "cipher_bits": pa.array([tls.bits for tls in distinct], pa.int64()),
        "requiretls": _words(tls.requiretls for tls in distinct),
        "requiretls_violated": pa.array([tls.violated for tls in distinct], pa.bool_()),
        "requiretls_strict": _words(tls.strict for tls in distinct),
        "tls_required_no": _words(tls.required_no for tls in distinct),
    }
    return {name: column.take(codes) for name, column in plain.items()}


def _host_name(host: bytes | None) -> bytes | None:
    return host.lower().rstrip(b".") or None if host is not None else None


def _relay_columns(values: Sequence[Any]) -> dict[str, pa.Array]:
    import pyarrow as pa

    distinct, codes = _shared(values)
    return {
        "relay_host": _texts([_host_name(relay.host) for relay in distinct]).take(codes),
        "relay_address": _texts([relay.address for relay in distinct]).take(codes),
        "relay_port": pa.array([relay.port for relay in distinct], pa.int64()).take(codes),
    }


def _origin_columns(values: Sequence[Any]) -> dict[str, pa.Array]:
    distinct, codes = _shared(values)
    return {
        "mta": _words(origin.mta for origin in distinct).take(codes),
        "reporting_host": _texts([_host_name(origin.host) for origin in distinct]).take(codes),
    }


def deliveries_table(rows: list[Any], places: Places, until: int) -> pa.Table:
    """Rows, laid out flat, as an Arrow table of `deliveries`; `until` is the last line that their TLS may rest on."""
    import pyarrow as pa

    if not rows:
        return DELIVERIES.arrow_schema.empty_table()
    row = _columns(rows, Delivery)
    results, codes = _shared(row["result"])
    files, lines = places.columns(row["number"])
    columns = {
        "logged_at": _times(row["at"]),
        **_origin_columns(row["origin"]),
        "queue_id": _texts(row["queue_id"]),
        "message_id": _texts(row["message_id"]),
        "sender": _texts(row["sender"]),
        "recipient": _texts(row["recipient"]),
        "sender_domain": _domains(row["sender"]),
        "recipient_domain": _domains(row["recipient"]),
        **_relay_columns(row["relay"]),
        "transport": _texts(row["transport"]),
        "attempted": pa.array([one.attempted for one in results], pa.bool_()).take(codes),
        "action": _words(one.action for one in results).take(codes),
        "status_word": _texts([one.status_word for one in results]).take(codes),
        "enhanced_code": _texts([one.enhanced_code for one in results]).take(codes),
        "reply_code": pa.array([one.reply_code for one in results], pa.int64()).take(codes),
        "reply_text": _texts(row["text"]),
        "delay_seconds": pa.array(row["delay"], pa.float64()),
        **_tls_columns(row["tls"], until),
        "tls_outcome": _words(one.outcome for one in results).take(codes),
        "source_file": files,
        "line_number": lines,
    }
    return _table(DELIVERIES, columns)


def connections_table(rows: list[Any], places: Places, until: int) -> pa.Table:
    """Rows, laid out flat, as an Arrow table of `connections`."""
    import pyarrow as pa

    if not rows:
        return CONNECTIONS.arrow_schema.empty_table()
    row = _columns(rows, Connection)
    files, lines = places.columns(row["number"])
    columns = {
        "logged_at": _times(row["at"]),
        **_origin_columns(row["origin"]),
        "process_id": _texts(row["process_id"]),
        "queue_id": _texts(row["queue_id"]),
        **_relay_columns(row["relay"]),
        **_tls_columns(row["tls"], until),
        "reused": pa.array(row["reused"], pa.bool_()),
        "tls_outcome": _words(row["outcome"]),
        "text": _texts(row["text"]),
        "source_file": files,
        "line_number": lines,
    }
    return _table(CONNECTIONS, columns)


def _columns(rows: list[Any], kind: type[Delivery] | type[Connection]) -> dict[str, list[Any]]:
    names = kind._fields
    return {name: rows[place :: len(names)] for place, name in enumerate(names)}


def _table(table: Table, columns: Mapping[str, pa.Array]) -> pa.Table:
    import pyarrow as pa

    schema = table.arrow_schema
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
