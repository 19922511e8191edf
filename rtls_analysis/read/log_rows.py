"""What the log readers hand over: rows, the records they share, and what was made of each line.

The rows of a table lie one behind the other in a flat list, and point to shared records (`Relay`, `Tls`, `Result`),
which come in few kinds. `log_tables` spreads them into columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

from rtls_analysis.outcomes import Action, RequireTls, TlsLevel, TlsOutcome, Told
from rtls_analysis.read.log_time import Clock
from rtls_analysis.schema import MailReader, TlsVersion

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
    """A program that may or may not log its TLS connections, and the first line that shows that it does.

    `name` tells it from others of its server.
    """

    first_tls: int | None = None
    name: tuple[bytes, ...] = ()


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
    relay: Relay | bytes = NO_RELAY  # bytes: ``host[address]:port``, taken apart when the table is made
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
    relay: Relay | bytes = NO_RELAY
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

    def as_dict(
        self,
        *,
        rows: Mapping[str, int],
        files: Mapping[str, str],
        time: Mapping[str, Any],
        samples: bool = True,
    ) -> dict[str, Any]:
        """The whole as JSON-able values."""
        foreign = sum(skip.count for reason, skip in self.skipped.items() if reason in FOREIGN)
        return {
            "lines_read": self.lines_read,
            "lines_repeated": self.repeated,
            "lines_matched": self.lines_read + self.repeated - foreign,
            "understood": {kind: count for kind, count in sorted(self.understood.items()) if count},
            "skipped": {
                reason: {"count": skip.count, "samples": list(skip.samples) if samples else []}
                for reason, skip in sorted(self.skipped.items(), key=lambda item: (-item[1].count, item[0]))
                if skip.count
            },
            "rows": dict(rows),
            "warnings": list(self.warnings),
            "unreadable_files": dict(files),
            "time": dict(time),
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


RARE = b"hold: "


class Source:
    """One process on one host as the log names it; readers keep what they know of the process in `state`.

    Attributes
    ----------
    feed
        What handles its lines; `None` as long as they are only to be counted, in `skipped`.
    rare
        What handles, without a feed, the lines that hold `RARE`.
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
