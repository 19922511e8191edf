"""Exim's main log, its own file or through syslog: one row per ``=>``, ``->``, ``>>``, ``**`` and ``==`` line.

A delivery line tells its TLS itself (``X=``, ``CV=``); a deferral (``==``) never does. What happened to one host
before another took the message stands in notices, which go into `connections`: ``DANE attempt failed``,
``TLS session: ...: delivering unencrypted``, ``H=host [ip] Connection refused``.

Notes
-----
``CV=dane`` is `verified`. ``CV=yes`` is `trusted`: whether the settings would have refused a bad certificate is not
logged. ``CV=no`` is `untrusted`, and no ``CV=`` (old logs, or the log selector off) leaves it at `encrypted`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rtls_analysis.outcomes import Action, TlsLevel, TlsOutcome
from rtls_analysis.read.attempts import CLEAR_TLS, make_room, tls_of_failure, tls_version
from rtls_analysis.read.durations import seconds_of
from rtls_analysis.read.log_rows import (
    NO_RELAY,
    NO_TLS,
    UNKNOWN_TLS,
    Connection,
    Delivery,
    Origin,
    Relay,
    Result,
    Service,
    Sink,
    Source,
    Tls,
    readable,
)
from rtls_analysis.read.tls_reasons import classify
from rtls_analysis.schema import MailReader

_ID = rb"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})"
_STAMP = rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})?(?: [+-]\d{4})? "
_PID = rb"(?:\[(\d{1,10})\] )?"
_OWN = re.compile(_STAMP + _PID + rb"(?:(" + _ID + rb") )?").match
_SYSLOG = re.compile(rb"(" + _STAMP + rb")?" + _PID + rb"(?:(" + _ID + rb") )?").match
_PART = re.compile(rb"\[(\d{1,3})[/\\](\d{1,3})\] ").match  # of an entry that was too long for syslog
# Lines without a message id that only Exim writes; any other server's line may begin with a date.
_OTHER_LINES = re.compile(
    rb"Start queue run: |End queue run: |exim \S+ daemon |daemon_notifier_socket |SMTP (?:connection|protocol|syntax|"
    rb"command|call|data) |TLS (?:error|client disconnected) |H=|U=\S+ |I=|no host name found for IP |no IP address "
    rb"found for host |cwd=\S+ \d+ args: |refused connection |rejected |unexpected disconnection |"
    rb"Spool file |host name alias list truncated|\S+ authenticator failed for |DKIM: "
).match

_ADDRESS = re.compile(
    rb"(\S++)(?: <([^<>\s]*)>)?(?: F=<([^<>\s]*)>)?(?: P=<[^<>\s]*>)?(?: SRS=<[^<>\s]*>)?(?= [RT]=)"
).match
_WAY = rb"(?: R=[\w.-]++)?(?: T=([\w.-]++))?(?: S=\w++)?"
_HOST = rb"(?: H=(\S++)(?: \([^\s()]*\))? \[(?:([^\]\s]++)\]|([\d.]++)(?=: ))(?::(\w++))?(\*)?)?"
_WORDS = rb"(?: (?!X=|CV=|DN=|C=)[^\s\":]++(?::[^\s\":]++)*+)*+"
_TLS = rb"(?: X=([^\s:]++):([^\s:]++)(?::(\d{1,6}))?\S*+)?(?: CV=(\w++)\*?)?(?: DN=\"(?:[^\"\\]++|\\.)*+\")?"
_SENT = re.compile(
    _WAY + _HOST + _WORDS + _TLS + _WORDS + rb"(?: C=\"(?P<reply>(?:[^\"\\]++|\\.)*+)\"?)?", re.DOTALL
).match
_FAILED = re.compile(_WAY + _HOST + _WORDS + _TLS + _WORDS + rb" ?: ?(.*)", re.DOTALL).match
_DEFERRED = re.compile(
    rb"(?: R=[\w.-]++(?: T=([\w.-]++))?| routing) defer(?: \(([^()]*+)\)(?:: [^:\[\]]{0,200}?(?= H=))?)?"
    + _HOST
    + _WORDS
    + rb"(?: ?: ?(.*))?",
    re.DOTALL,
).match
_NO_ROUTER = re.compile(
    rb"(\"(?:[^\"\\]++|\\.)*+\"@\S*[^\s:]|\S*[^\s:])(?: <([^<>\s]*)>)?(?: F=<([^<>\s]*)>)? ?: ?(.*)",
    re.DOTALL,
).match
_TIMES = re.compile(rb"(?: QT=\S++)?(?: DT=\S++)?$")
_REPLY = re.compile(rb"(\d{3})[- ](?:([245]\.\d{1,3}\.\d{1,3})\b)?").match
_SAID = re.compile(
    rb"(?:SMTP|LMTP|PRDR) error (?:from remote mail server )?"
    rb"after ([^:<]{0,400}+(?::<[^>]{0,1000}+>[^:]{0,400}+)?): (\d{3}[- ].*)",
    re.DOTALL,
).match
_NOTICE = re.compile(
    rb"(?:H=)?(\S++)(?: \([^\s()]*\))? \[([^\]\s]++)\](?::(\w++))?"
    rb"(?:: ((?:SMTP|LMTP|TLS session|a TLS session|DANE|Remote host|smtp) .*)"
    rb"| ((?:Connection |Network |No route |Host is |Operation timed |Can't assign ).*))",
    re.DOTALL,
).match
_DANE_NOTICE = re.compile(
    rb"DANE attempt failed; TLS connection to (\S++) \[([^\]\s]++)\](?::(\w++))?: (.*)", re.DOTALL
).match
_UNENCRYPTED = re.compile(
    rb": delivering unencrypted to H=(\S++)(?: \([^\s()]*\))? \[([^\]\s]++)\](?::(\w++))?"
).search
_VERIFY_ERROR = re.compile(rb"\[([^\]\s]++)\] (SSL verify error: .*)", re.DOTALL).match

_LEVELS = {
    b"dane": TlsLevel.VERIFIED, b"yes": TlsLevel.TRUSTED, b"no": TlsLevel.UNTRUSTED, None: TlsLevel.ENCRYPTED,
}  # fmt: skip
_NO_CONTACT = (
    b"Connection ",
    b"Network ",
    b"No route ",
    b"Host is ",
    b"Operation timed ",
    b"Can't assign ",
    b"DANE error",
)
# Reasons that a notice of the same try may tell better.
_VAGUE = frozenset(
    {TlsOutcome.TLS_HANDSHAKE_FAILED, TlsOutcome.CERTIFICATE_UNVERIFIED, TlsOutcome.VALIDATION_FAILURE}
)
_NOT_A_TRY = (b"retry time not reached", b"concurrency limit reached", b"SMTP delivery explicitly queued")
_FROZEN = (b"Frozen", b"frozen", b"Message is frozen", b"*** Frozen")
_THAWED = (b"Unfrozen", b"unfrozen")

MAX_MESSAGES = 100_000
MAX_CACHED = 20_000
MAX_NOTES = 50
MAX_ADDRESS = 2_000  # of what later rows repeat
MAX_TEXT = 4_000  # of what several rows share
MAX_RECIPIENTS = 10_000  # of one message


class Seen(NamedTuple):
    """What `connections` already has of one peer in this round of tries."""

    outcome: TlsOutcome | None  # what a notice said of the TLS attempt
    number: int
    delivered: bool = False


class LastTry(NamedTuple):
    """The last try of a recipient that is still in the queue."""

    outcome: TlsOutcome
    enhanced_code: bytes | None


UNTRIED = LastTry(TlsOutcome.UNKNOWN, None)


class Tries:
    """What became of the recipients of one message, and of the servers tried for them; most messages need none."""

    __slots__ = ("fresh", "frozen", "held", "last_number", "open", "round", "seen")

    def __init__(self) -> None:
        self.frozen = False
        self.open: dict[bytes, LastTry] = {}  # recipients still in the queue
        self.fresh: dict[bytes, None] = {}  # those of them with a row since they were held
        self.held = False
        self.round: set[bytes] = set()  # recipients tried since the round began
        self.last_number = 0  # line of the last of them
        self.seen: dict[Relay, Seen] = {}

    def turn(self, recipient: bytes, number: int) -> None:
        """Note a try; a recipient that comes up again begins a round, to which only newer notices belong."""
        if recipient in self.round:
            self.round.clear()
            self.seen = {relay: seen for relay, seen in self.seen.items() if seen.number > self.last_number}
        if len(self.round) < MAX_RECIPIENTS:
            self.round.add(recipient)
        self.last_number = number

    def wait(self, recipient: bytes, last: LastTry) -> None:
        """Note that a recipient stays in the queue."""
        make_room(self.open, MAX_RECIPIENTS)
        make_room(self.fresh, MAX_RECIPIENTS)
        self.open[recipient] = last
        self.fresh[recipient] = None

    def end(self, recipient: bytes) -> LastTry:
        """Note that a recipient is done with; gives its last try."""
        self.fresh.pop(recipient, None)
        return self.open.pop(recipient, UNTRIED)

    def saw(self, relay: Relay, seen: Seen) -> None:
        """Note that `connections` has this peer."""
        make_room(self.seen, MAX_NOTES)
        self.seen[relay] = seen


class Message:
    """A message from its arrival to ``Completed``."""

    __slots__ = ("arrived", "message_id", "recipients", "sender", "tries", "way")

    def __init__(
        self, arrived: bytes = b"", sender: bytes | None = None, message_id: bytes | None = None
    ) -> None:
        self.arrived = arrived  # the stamp
        self.sender = sender
        self.message_id = message_id
        self.recipients: tuple[bytes, ...] = ()  # where the arrival line names them
        self.way: tuple[Relay, Tls] | None = None  # of the last delivery, for the ``->`` lines behind it
        self.tries: Tries | None = None

    def noted(self) -> Tries:
        """Its tries, noted from now on."""
        if self.tries is None:
            self.tries = Tries()
        return self.tries


class Queue:
    """The messages of one host, and whether its log shows TLS."""

    __slots__ = ("messages", "origin", "service", "untold")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.messages: dict[bytes, Message] = {}
        self.service = Service()
        self.untold = Tls(TlsLevel.UNKNOWN, service=self.service)

    def find(self, queue_id: bytes) -> Message:
        """The message of that id, a new one where its arrival was not seen."""
        message = self.messages.get(queue_id)
        if message is None:
            make_room(self.messages, MAX_MESSAGES)
            message = self.messages[queue_id] = Message()
        return message


class Entry(NamedTuple):
    """The line at hand: its text begins at `start`, behind the message id; its time is that of `stamp`."""

    queue: Queue
    queue_id: bytes
    line: bytes
    start: int
    number: int
    stamp: bytes
    process_id: bytes | None


class Attempt(NamedTuple):
    """What a ``**`` or ``==`` line names."""

    recipient: bytes
    sender: bytes | None
    transport: bytes | None
    relay: Relay
    tls: Tls | None  # where the line has ``X=``
    text: bytes


class Parts:
    """An entry that syslog got in several pieces, as far as it has come."""

    __slots__ = ("number", "pieces", "total")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.total = 0
        self.number = 0


class EximReader:
    """Exim main log lines to rows."""

    name = MailReader.EXIM

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.at = sink.clock.at
        self.understood = sink.understood
        self.hosts: dict[bytes, Queue] = {}
        self._tls: dict[tuple[bytes | None, ...], Tls] = {}
        self._relays: dict[tuple[bytes | None, bytes, bytes | None], Relay] = {}
        self._replies: dict[tuple[bytes, bytes | None], Result] = {}
        self._ways: dict[bytes, tuple[Relay, Tls | None, bytes | None, bool]] = {}
        self._no_delivery = sink.coverage.reason("exim: no delivery")
        for kind in ("exim delivery", "exim arrival", "exim completed", "exim notice"):
            sink.understood.setdefault(kind, 0)

    # -- which lines ---------------------------------------------------------------------------------------

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``exim`` and ``exim4``; under other names its lines are known by their form."""
        if not tag.startswith(b"exim"):
            return None
        return Source(host, tag, pid, feed=self._syslog, state=Parts())

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """Handle a line of the main log's own form."""
        queue = self.hosts.get(source.host)
        if queue is not None and not start and line.endswith(b" Completed"):
            for queue_id in (line[-33:-10], line[-26:-10]):
                if queue.messages.pop(queue_id, None) is not None:
                    self.understood["exim completed"] += 1
                    return True
        match = _OWN(line, start)
        if match is None:
            return False
        process_id, queue_id = match.groups()
        rest = match.end()
        if queue_id is None:
            if _OTHER_LINES(line, rest) is None:
                return False
            self._no_delivery.add(line)
            return True
        queue = queue or self._queue(source.host)
        self._entry(queue, queue_id, line, rest, number, line[start:] if start else line, process_id)
        return True

    def drop(self, source: Source) -> None:
        """Nothing hangs on a process but the pieces of one entry."""

    def finish(self) -> None:
        """Nothing is held back."""

    def _queue(self, host: bytes) -> Queue:
        make_room(self.hosts, MAX_CACHED)
        queue = self.hosts[host] = Queue(self.sink.share(Origin(self.name, host or None)))
        return queue

    def _syslog(self, source: Source, line: bytes, start: int, number: int) -> None:
        """A line under Exim's tag: with or without a stamp of its own, whole or in pieces."""
        if line[start : start + 1] == b"[" and (part := _PART(line, start)) is not None:
            whole = self._join(source.state, line, start, part, number)
            if whole is None:
                return
            line, number = whole
        match = _SYSLOG(line, start)
        if match is None or match[3] is None:
            self._no_delivery.add(line)
            return
        inner, process_id, queue_id = match.groups()
        # The outer stamp has no year in RFC 3164, the inner one mostly no zone.
        stamp = line if inner is None or line[4:5] == b"-" else inner
        queue = self.hosts.get(source.host) or self._queue(source.host)
        self._entry(queue, queue_id, line, match.end(), number, stamp, process_id or source.pid or None)

    def _join(
        self, parts: Parts, line: bytes, start: int, part: re.Match[bytes], number: int
    ) -> tuple[bytes, int] | None:
        """Put an entry together again; `None` until its last piece has come."""
        place, total = int(part[1]), int(part[2])
        if place == 1:
            parts.pieces, parts.total, parts.number = [line[:start]], total, number
        if place != len(parts.pieces) or total != parts.total:
            parts.pieces = []
            self.sink.coverage.skip("exim: piece of an entry whose beginning is missing", line)
            return None
        parts.pieces.append(line[part.end() :])
        if place < total:
            self.sink.count("exim piece of an entry")
            return None
        whole = b"".join(parts.pieces), parts.number
        parts.pieces = []
        return whole

    # -- one entry -------------------------------------------------------------------------------------------

    def _entry(
        self,
        queue: Queue,
        queue_id: bytes,
        line: bytes,
        start: int,
        number: int,
        stamp: bytes,
        process_id: bytes | None,
    ) -> None:
        """A line with a message id; the kinds that a busy log is full of come first."""
        flag = line[start : start + 3]
        if flag == b"<= ":
            self._arrived(queue, queue_id, line, start + 3, number, stamp)
        elif flag == b"=> ":
            self._sent(queue, queue_id, line, start, number, stamp, process_id)
        elif line.startswith(b"Completed", start):
            self.understood["exim completed"] += 1
            queue.messages.pop(queue_id, None)
        elif flag in (b"-> ", b">> "):
            self._sent(queue, queue_id, line, start, number, stamp, process_id)
        else:
            entry = Entry(queue, queue_id, line, start, number, stamp, process_id)
            if flag == b"** ":
                self._failed(entry)
            elif flag == b"== ":
                self._deferred(entry)
            elif flag == b"*> ":
                self.sink.coverage.skip("exim: delivery suppressed by -N", line)
            elif line.startswith(_FROZEN, start):
                self._freeze(entry)
            else:
                self._notice(entry)

    def _arrived(
        self, queue: Queue, queue_id: bytes, line: bytes, start: int, number: int, stamp: bytes
    ) -> None:
        self.understood["exim arrival"] += 1
        end = line.find(b" ", start)
        if end < 0:
            return
        message_id = None
        found = line.find(b" id=", end)
        if found > 0:
            behind = line.find(b" ", found + 4)
            message_id = line[found + 4 : behind] if behind > 0 else line[found + 4 :]
            if message_id[:1] == b"<":
                message_id = message_id[1:].removesuffix(b">")
        sender = line[start:end]
        messages = queue.messages
        if len(messages) >= MAX_MESSAGES:
            make_room(messages, MAX_MESSAGES)
        message = messages[queue_id] = Message(
            stamp[:40],
            b"" if sender == b"<>" else sender[:MAX_ADDRESS],
            message_id[:MAX_ADDRESS] if message_id is not None else None,
        )
        if queue.service.first_tls is None and line.find(b" X=", end) > 0:
            queue.service.first_tls = number
        named = line.rfind(b" for ", end)
        if named > 0 and b'"' not in (tail := line[named + 5 :]) and b"@" in tail:
            message.recipients = tuple(tail[: MAX_RECIPIENTS * 10].split())

    def _sent(
        self,
        queue: Queue,
        queue_id: bytes,
        line: bytes,
        start: int,
        number: int,
        stamp: bytes,
        process_id: bytes | None,
    ) -> None:
        # What stands between address and reply is the same for many messages to one server.
        behind = line.find(b" R=", start)
        quote = line.find(b' C="', behind)
        recipient = line[start + 3 : behind]
        sender: bytes | None = None
        way = self._ways.get(line[behind:quote]) if quote > 0 else None
        end = line.find(b'"', quote + 4) if way is not None else -1
        reply: bytes | None = line[quote + 4 : end]
        plain = b"@" in recipient and b" " not in recipient and not recipient.startswith(b">")
        if way is None or not plain or end < 0 or b"\\" in line[quote:end]:
            who = self._recipient(line, start + 3)
            match = _SENT(line, who[2]) if who is not None else None
            if who is None or match is None:
                discarded = line.startswith(b"blackhole ", start + 3)
                self.sink.coverage.skip(
                    "exim: message discarded" if discarded else "exim: delivery line of an unknown form", line
                )
                return
            recipient, sender, behind = who
            way = self._way_of(match)
            reply, end = match["reply"], match.end()
            if reply is None:
                quote = end
            else:
                if match.start("reply") == quote + 4 and quote - behind < MAX_ADDRESS:
                    make_room(self._ways, MAX_CACHED)
                    self._ways[line[behind:quote]] = way
                quote = match.start("reply") - 4
                reply = reply.replace(b'\\"', b'"')
        self.understood["exim delivery"] += 1
        message = queue.messages.get(queue_id) or queue.find(queue_id)
        relay, tls, transport, again = way
        flag = line[start : start + 2]
        if relay is not NO_RELAY:
            if tls is None:
                tls = queue.untold
            elif queue.service.first_tls is None:
                queue.service.first_tls = number
            message.way = relay, tls
        elif flag == b"->" and message.way is not None:
            relay, tls = message.way
        else:
            tls = NO_TLS
            message.way = relay, tls
        at = self.at(stamp)
        self.sink.deliveries += (  # the fields of a `Delivery`
            number, at, queue.origin, queue_id, message.message_id,
            message.sender if sender is None else sender, recipient, relay, transport, self._reply(flag, reply),
            reply, self._delay(message, at, line, end), tls,
        )  # fmt: skip
        if message.tries is not None or self.sink.wants_connections:
            entry = Entry(queue, queue_id, line, start, number, stamp, process_id)
            text = line[line.find(b" H=", behind) + 1 : quote]
            self._after(entry, message, recipient, flag, relay, tls, at, again, text)

    def _way_of(self, match: re.Match[bytes]) -> tuple[Relay, Tls | None, bytes | None, bool]:
        """Relay, TLS where it is named, transport, and whether an open connection was used again."""
        transport, host, address, bare, port, again, version, cipher, bits, verified, _reply = match.groups()
        relay = NO_RELAY if host is None else self._relay(host, address or bare, port)
        tls = None if version is None else self._tls_of(version, cipher, bits, verified)
        return relay, tls, transport, again is not None

    def _after(
        self,
        entry: Entry,
        message: Message,
        recipient: bytes,
        flag: bytes,
        relay: Relay,
        tls: Tls,
        at: int | None,
        again: bool,
        text: bytes,
    ) -> None:
        """What a delivery means for the message's tries, and the row of its connection if that has none yet."""
        tries = message.noted()
        tries.end(recipient)
        if relay is NO_RELAY:
            return
        tries.turn(recipient, entry.number)
        before = tries.seen.get(relay)
        tries.saw(relay, Seen(None, entry.number, delivered=True))
        new = before is None or before.delivered or before.outcome is not None
        if new and flag != b"->":
            self._connection(entry, at, relay, tls, TlsOutcome.OK, text, reused=again)

    def _failed(self, entry: Entry) -> None:
        """``**``: failed for good, by a try, for want of a route, or because its time was up."""
        attempt = self._failure(entry.line, entry.start + 3)
        if attempt is None:
            self.sink.coverage.skip("exim: delivery line of an unknown form", entry.line)
            return
        message = entry.queue.find(entry.queue_id)
        last = message.noted().end(attempt.recipient)
        text = attempt.text
        if text.startswith(b"retry timeout exceeded") or b"have been failing for a long time" in text[:1000]:
            result = Result(Action.FAILED, last.outcome, b"expired", last.enhanced_code, attempted=False)
            self._row(entry, message, attempt, result, NO_TLS)
            return
        self._tried(entry, message, attempt, Action.FAILED, b"**")
        if message.sender == b"" and len(message.recipients) < MAX_NOTES:
            message.recipients += (attempt.recipient,)  # a bounce that fails is frozen, not ended

    def _failure(self, line: bytes, start: int) -> Attempt | None:
        who = self._recipient(line, start)
        match = _FAILED(line, who[2]) if who is not None else None
        if who is not None and match is not None and line.find(b": ", start, who[2]) < 0:
            transport, host, address, bare, port, _again, *words, text = match.groups()
            relay = NO_RELAY if host is None else self._relay(host, address or bare, port)
            tls = None if words[0] is None else self._tls_of(*words)
            return Attempt(who[0], who[1], transport, relay, tls, _TIMES.sub(b"", text, 1))
        if (unrouted := _NO_ROUTER(line, start)) is None:
            return None
        address, original, sender, text = unrouted.groups()
        return Attempt(_envelope(address, original), sender, None, NO_RELAY, None, _TIMES.sub(b"", text, 1))

    def _deferred(self, entry: Entry) -> None:
        """``==``: put off, by a try or because the time for the next one has not come."""
        line, start = entry.line, entry.start + 3
        who = self._recipient(line, start)
        if who is None and (end := line.find(b" routing defer", start, start + MAX_ADDRESS)) > 0:
            who = line[start:end], None, end
        match = _DEFERRED(line, who[2]) if who is not None else None
        if who is None or match is None:
            self.sink.coverage.skip("exim: delivery line of an unknown form", line)
            return
        transport, error, host, address, bare, port, _again, text = match.groups()
        relay = NO_RELAY if host is None else self._relay(host, address or bare, port)
        attempt = Attempt(who[0], who[1], transport, relay, None, error or b"" if text is None else text)
        message = entry.queue.find(entry.queue_id)
        if any(phrase in attempt.text[:1000] for phrase in _NOT_A_TRY):
            last = message.noted().open.get(attempt.recipient, UNTRIED)
            message.noted().wait(attempt.recipient, last)
            result = Result(Action.DELAYED, last.outcome, b"==", last.enhanced_code, attempted=False)
            self._row(entry, message, attempt._replace(relay=NO_RELAY), result, NO_TLS)
            return
        last = self._tried(entry, message, attempt, Action.DELAYED, b"==")
        message.noted().wait(attempt.recipient, last)

    def _tried(
        self, entry: Entry, message: Message, attempt: Attempt, action: Action, word: bytes
    ) -> LastTry:
        """A try that did not succeed: its reason, and what is known of its TLS."""
        relay = attempt.relay
        message.noted().turn(attempt.recipient, entry.number)
        outcome, code, enhanced = _reason(attempt.text)
        note = None if relay is NO_RELAY else message.noted().seen.get(relay)
        if note is not None and note.outcome is not None and outcome in _VAGUE:
            outcome = note.outcome
        tls = attempt.tls or _tls_of_failure(relay, attempt.text, outcome)
        at = self._row(entry, message, attempt, Result(action, outcome, word, enhanced, code), tls)
        if relay is not NO_RELAY and note is None:
            message.noted().saw(relay, Seen(None, entry.number))
            self._connection(entry, at, relay, tls, outcome, attempt.text)
        return LastTry(outcome, enhanced)

    def _row(self, entry: Entry, message: Message, attempt: Attempt, result: Result, tls: Tls) -> int | None:
        """Add a row for a line that is no delivery, and give its time."""
        self.understood["exim delivery"] += 1
        at = self.at(entry.stamp)
        self.sink.deliver(
            Delivery(
                entry.number, at, entry.queue.origin, entry.queue_id, message.message_id,
                message.sender if attempt.sender is None else attempt.sender, attempt.recipient, attempt.relay,
                attempt.transport, self.sink.share(result), attempt.text,
                self._delay(message, at, entry.line, entry.start), tls,
            )
        )  # fmt: skip
        return at

    def _freeze(self, entry: Entry) -> None:
        """A frozen message waits for its administrator; each queue run says so again."""
        message = entry.queue.find(entry.queue_id)
        tries = message.noted()
        waiting: list[bytes | None] = [*tries.fresh]
        if not waiting and not tries.held:
            # Of a message that had some deliveries, those that the arrival names are not all waiting.
            waiting = [*message.recipients] if message.way is None else []
            waiting = waiting or [None]
        if tries.frozen or not waiting:
            self._no_delivery.add(entry.line)
            return
        tries.fresh.clear()
        tries.frozen = tries.held = True
        result = self.sink.share(Result(Action.DELAYED, TlsOutcome.NOT_TLS, b"held", attempted=False))
        at = self.at(entry.stamp)
        delay = self._delay(message, at, entry.line, entry.start)
        text = entry.line[entry.start : entry.start + MAX_TEXT]
        self.sink.count("exim frozen")
        for recipient in waiting:
            self.sink.deliver(
                Delivery(
                    entry.number, at, entry.queue.origin, entry.queue_id, message.message_id, message.sender, recipient,
                    result=result, text=text, delay=delay,
                )
            )  # fmt: skip

    # -- notices: how it went with one host ------------------------------------------------------------------

    def _notice(self, entry: Entry) -> None:
        line, start = entry.line, entry.start
        if line.startswith(_THAWED, start):
            entry.queue.find(entry.queue_id).noted().frozen = False
            self._no_delivery.add(line)
            return
        host: bytes | None
        port: bytes | None
        if (
            line.startswith(b"DANE attempt failed; ", start)
            and (match := _DANE_NOTICE(line, start)) is not None
        ):
            host, address, port, text = match.groups()
            outcome = classify(readable(text), None)
            if outcome is not TlsOutcome.TLS_HANDSHAKE_FAILED:
                outcome = TlsOutcome.TLSA_INVALID
        elif line.startswith(b"TLS ", start) and (match := _UNENCRYPTED(line, start)) is not None:
            host, address, port = match.groups()
            text = line[start : match.start()]
            outcome = classify(readable(text), None)
        elif line.startswith(b"[", start) and (match := _VERIFY_ERROR(line, start)) is not None:
            host = port = None
            address, text = match.groups()
            outcome = classify(readable(text), None)
        elif (match := _NOTICE(line, start)) is not None:
            host, address, port, text, no_contact = match.groups()
            text = no_contact if text is None else text
            outcome = _reason(text)[0]
        else:
            self._no_delivery.add(line)
            return
        self.understood["exim notice"] += 1
        relay = self._relay(host, address, port)
        entry.queue.find(entry.queue_id).noted().saw(relay, Seen(outcome, entry.number))
        tls = _tls_of_failure(relay, text, outcome)
        self._connection(entry, self.at(entry.stamp), relay, tls, outcome, line[start:])

    def _connection(
        self,
        entry: Entry,
        at: int | None,
        relay: Relay,
        tls: Tls,
        outcome: TlsOutcome,
        text: bytes,
        *,
        reused: bool | None = None,
    ) -> None:
        if self.sink.wants_connections:
            self.sink.connect(
                Connection(
                    entry.number, at, entry.queue.origin, entry.process_id, entry.queue_id, relay, tls, outcome,
                    reused, text,
                )
            )  # fmt: skip

    # -- parts of a line -------------------------------------------------------------------------------------

    def _delay(self, message: Message, at: int | None, line: bytes, start: int) -> float | None:
        """Seconds in the queue: as logged (``QT=``), else since the arrival line."""
        where = line.rfind(b" QT=", start)
        if where > 0 and (logged := seconds_of(line[where + 4 :].partition(b" ")[0])) is not None:
            return logged
        arrived_at = self.at(message.arrived) if message.arrived else None
        if at is None or arrived_at is None or at < arrived_at:
            return None
        return (at - arrived_at) / 1e6

    def _reply(self, flag: bytes, reply: bytes | None) -> Result:
        """The result of a delivery that the peer confirmed with this reply."""
        key = flag, reply[:16] if reply is not None else None
        result = self._replies.get(key)
        if result is None:
            make_room(self._replies, MAX_CACHED)
            said = _REPLY(reply) if reply is not None else None
            code, enhanced = (int(said[1]), said[2]) if said is not None else (None, None)
            result = self._replies[key] = self.sink.share(
                Result(Action.DELIVERED, TlsOutcome.OK, flag, enhanced, code)
            )
        return result

    @staticmethod
    def _recipient(line: bytes, start: int) -> tuple[bytes, bytes | None, int] | None:
        """Recipient, sender where the line has it, and where the rest begins; `None`: no such line."""
        match = _ADDRESS(line, start)
        if match is not None:
            address, original, sender = match.groups()
            return _envelope(address, original), sender, match.end()
        end = line.find(b" R=", start, start + MAX_ADDRESS)
        if end < 0:
            return None
        # An address with spaces, a pipe, or the addresses by which it came.
        head = line[start:end]
        sender = original = None
        for key in (b" SRS=<", b" P=<", b" F=<"):
            head, found, value = head.rpartition(key) if key in head else (head, b"", b"")
            if key == b" F=<" and found:
                sender = value.removesuffix(b">")
        if head.endswith(b">") and (at := head.rfind(b" <")) > 0:
            head, original = head[:at], head[at + 2 : -1]
        if head.endswith(b")") and (at := head.find(b" (")) > 0:
            head = head[:at]
        return _envelope(head, original), sender, end

    def _relay(self, host: bytes | None, address: bytes, port: bytes | None) -> Relay:
        key = host[:MAX_ADDRESS] if host is not None else None, address[:MAX_ADDRESS], port
        relay = self._relays.get(key)
        if relay is None:
            make_room(self._relays, MAX_CACHED)
            name = None if key[0] is None else key[0].removeprefix(b"(").removesuffix(b")") or None
            number = int(port) if port is not None and port.isdigit() and len(port) < 6 else None
            relay = self._relays[key] = self.sink.share(Relay(name, key[1].lower(), number))
        return relay

    def _tls_of(
        self, version: bytes, cipher: bytes | None, bits: bytes | None, verified: bytes | None
    ) -> Tls:
        cipher = cipher[:MAX_ADDRESS] if cipher is not None else None
        key = version[:MAX_ADDRESS], cipher, bits, verified
        tls = self._tls.get(key)
        if tls is None:
            make_room(self._tls, MAX_CACHED)
            tls = self._tls[key] = self.sink.share(
                Tls(
                    _LEVELS.get(verified, TlsLevel.ENCRYPTED), None, tls_version(version), cipher,
                    int(bits) if bits else None,
                )
            )  # fmt: skip
        return tls


def _envelope(address: bytes, original: bytes | None) -> bytes:
    """The recipient: where a remote delivery goes; of a local one (a name, a file, a pipe) the envelope's address."""
    if original and (b"@" not in address or address[:1] in b"|/:"):
        return original
    return address.removeprefix(b">")  # an automatic reply


def _reason(text: bytes) -> tuple[TlsOutcome, int | None, bytes | None]:
    """Why a try failed, reply code, enhanced code; of a reply only what the peer says counts, not the command."""
    said = _SAID(text)
    if said is None:
        return classify(readable(text), None), None, None
    reply = _REPLY(said[2])
    code, enhanced = (int(reply[1]), reply[2]) if reply is not None else (None, None)
    if said[1].startswith(b"STARTTLS"):
        return TlsOutcome.STARTTLS_REFUSED, code, enhanced
    return classify(readable(said[2]), enhanced.decode("ascii") if enhanced else None), code, enhanced


def _tls_of_failure(relay: Relay, text: bytes, outcome: TlsOutcome) -> Tls:
    """TLS of a session that carried no mail and does not log it: what the reason tells."""
    if relay is NO_RELAY or text.startswith(_NO_CONTACT):
        return NO_TLS
    if b"after initial connection" in text[:80]:
        return CLEAR_TLS
    return UNKNOWN_TLS if outcome is TlsOutcome.PEER_REQUIRES_TLS else tls_of_failure(outcome)
