"""Sendmail's log, 8.9 to 8.18: one row per recipient of a ``to=`` line, tied to the TLS lines of the same process.

``STARTTLS=client`` names no message. It belongs to the next delivery of its process to the same relay, and to those
after it over the cached connection, which log no such line again, until the process turns to another relay.

Notes
-----
``verify=TRUSTED`` is a match of the TLSA records. ``verify=OK`` is `trusted`: the chain was checked, never the name,
also where the access map demands ``VERIFY``. The word of a ``stat=`` does not name the cause: a rejection for policy
is ``User unknown``, so the code decides what became of the recipient, and the reply why.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rtls_analysis.outcomes import Action, TlsLevel, TlsOutcome
from rtls_analysis.read.attempts import CLEAR_TLS, make_room, tls_of_failure, tls_version
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

_TAG = re.compile(rb"sendmail(?:-[\w-]+)?|sm-[\w-]+").fullmatch
_QUEUE_ID = re.compile(rb"([0-9A-Za-z]{8,24}): ").match

# From ``, delay=`` on; the addresses before it hold anything.
_TO = re.compile(
    rb", delay=(?:(\d{1,5})\+)?(\d{1,3}):(\d\d):(\d\d)(?:, xdelay=([\d:+]++))?(?:, mailer=([^,]*+))?(?:, pri=-?\d++)?"
    rb"(?:, relay=([^,]*+))?(?:, dsn=([\d.]++))?(?:, (?!reply=|stat=)[a-z_]++=[^,]*+)*+(?:, reply=(\d{3})([- ].*?))??"
    rb", stat=([^(:]*+)(?:[(:] ?(.*))?",
    re.DOTALL,
).match
_RELAY = re.compile(rb"(\S*)(?: \[(?:IPv6:)?([^\]]*)\])?").fullmatch
_ANGLES = re.compile(rb"<([^<>]*)>")
_FROM = re.compile(rb"from=(.*?), size=\d", re.DOTALL).match
_MESSAGE_ID = re.compile(rb", msgid=<?([^,>\s]*)").search
_TLS_LINE = re.compile(
    rb"STARTTLS=client, relay=([^,]*+), version=([^,]*+), verify=([A-Z_]++), cipher=([^,]*+)(?:, bits=(\d{1,6})/\d+)?"
).match
_WARNING = re.compile(rb"STARTTLS=client, relay=([^,]*+), warning=(.*)", re.DOTALL).match
_VERIFY_TEXT = re.compile(
    rb"STARTTLS=client, cert-subject=.*, verifymsg=(.*)|STARTTLS: TLS cert verify: depth=.*, reason=(.*)",
    re.DOTALL,
).match
_RULESET = re.compile(
    rb"ruleset=(tls_server|tls_rcpt|try_tls), arg1=([^,]*+), relay=([^,]*+), (?:reject|discard)=(.*)",
    re.DOTALL,
).match
_GIVEN_UP = re.compile(
    rb"[0-9A-Za-z]{8,24}: (?:[a-zA-Z ]{1,40}): (Cannot send message (?:for|within) .*)", re.DOTALL
).match
_CLONE = re.compile(rb"clone:? (?:of )?([0-9A-Za-z]{8,24}), owner=").match
_WEAK = re.compile(rb"encryption too weak (\d+) less than")
_CODE = re.compile(rb"(\d{3})[- ]").match

_LEVELS = {
    b"TRUSTED": TlsLevel.VERIFIED, b"OK": TlsLevel.TRUSTED, b"FAIL": TlsLevel.UNTRUSTED,
    b"DANE_FAIL": TlsLevel.UNTRUSTED, b"NO": TlsLevel.ANONYMOUS,
}  # fmt: skip
# What a ``verify=`` word, in its line or as ``arg1=`` of a rejection, says of the TLS attempt.
_VERDICTS = {
    b"FAIL": TlsOutcome.CERTIFICATE_UNVERIFIED, b"NO": TlsOutcome.CERTIFICATE_UNVERIFIED,
    b"DANE_FAIL": TlsOutcome.TLSA_INVALID, b"DANE_TEMP": TlsOutcome.DNSSEC_INVALID,
    b"NONE": TlsOutcome.STARTTLS_NOT_SUPPORTED, b"NOT": TlsOutcome.STARTTLS_NOT_SUPPORTED,
    b"CLEAR": TlsOutcome.STARTTLS_NOT_SUPPORTED, b"TEMP": TlsOutcome.STARTTLS_REFUSED,
    b"PROTOCOL": TlsOutcome.STARTTLS_REFUSED, b"SOFTWARE": TlsOutcome.TLS_HANDSHAKE_FAILED,
}  # fmt: skip
_ACTIONS = {b"2": Action.DELIVERED, b"4": Action.DELAYED, b"5": Action.FAILED}
_WORDS = {b"Sent": Action.DELIVERED, b"Deferred": Action.DELAYED, b"queued": Action.DELAYED}
_NO_CONTACT = (
    b"Connection refused", b"Connection timed out", b"Operation timed out", b"No route to host", b"Network is ",
    b"Host is down",
)  # fmt: skip

MAX_MESSAGES = 100_000
MAX_CACHED = 20_000
MAX_NOTES = 50
MAX_ADDRESS = 2_000  # of what later rows repeat
MAX_TEXT = 4_000  # of what several rows share
MAX_RECIPIENTS = 10_000  # of one line
CACHED_MICROS = 10 * 60 * 1_000_000  # twice as long as Sendmail keeps a connection


class LastTry(NamedTuple):
    """How a recipient that is still in the queue fared."""

    outcome: TlsOutcome
    enhanced_code: bytes | None


UNTRIED = LastTry(TlsOutcome.UNKNOWN, None)


class Line(NamedTuple):
    """The line at hand; its text begins at `start`."""

    line: bytes
    start: int
    number: int
    at: int | None
    process_id: bytes | None


class Judgement(NamedTuple):
    """What a delivery line amounts to."""

    action: Action
    outcome: TlsOutcome
    word: bytes
    text: bytes | None
    attempted: bool
    reply_code: int | None


class Message:
    """A message under its queue id."""

    __slots__ = ("first_id", "message_id", "open", "sender")

    def __init__(self, queue_id: bytes) -> None:
        self.first_id = queue_id
        self.sender: bytes | None = None
        self.message_id: bytes | None = None
        self.open: dict[bytes, LastTry] = {}


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
            message = self.messages[queue_id] = Message(queue_id)
        return message


class Process:
    """What one process said of its connections."""

    __slots__ = (
        "broken", "failed", "fresh", "last", "notes", "pending", "queue", "relay", "tls", "used_at", "verify",
        "with_tls",
    )  # fmt: skip

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.verify: bytes | None = None  # why the last certificate was not accepted
        self.notes: dict[bytes, TlsOutcome] = {}  # relay -> what a ruleset or a warning said of its TLS
        self.failed: dict[bytes, TlsOutcome] = {}  # relays that this process will not try again
        self.with_tls: dict[bytes, None] = {}  # relays that had TLS before the last one
        self.pending: list[Connection] = []  # until a delivery line names their message
        self.used_at: int | None = None
        self.forget()

    def forget(self) -> None:
        """Begin anew: too much time has passed for a connection to be open still."""
        self.relay = b""  # of the last TLS line
        self.tls: Tls | None = None
        self.fresh = False  # it has had no delivery yet
        self.broken = False  # the last TLS attempt broke off
        self.last: tuple[bytes, bytes] | None = None  # queue id and relay of the last delivery
        for known in (self.notes, self.failed, self.with_tls):
            known.clear()

    def leave(self) -> None:
        """Turn to another relay: whether the one before is still connected is not told."""
        if self.tls is not None:
            make_room(self.with_tls, MAX_NOTES)
            self.with_tls[self.relay] = None
        self.relay, self.tls = b"", None


class SendmailReader:
    """Sendmail lines to rows; several hosts may share a file."""

    name = MailReader.SENDMAIL

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.hosts: dict[bytes, Queue] = {}
        self._relays: dict[bytes, tuple[bytes, Relay]] = {}
        self._waiting: dict[Process, None] = {}  # those with pending connections
        self._no_delivery = sink.coverage.reason("sendmail: no delivery")
        for kind in (
            "sendmail delivery",
            "sendmail arrival",
            "sendmail TLS connection",
            "sendmail TLS problem",
        ):
            sink.understood.setdefault(kind, 0)

    # -- which lines ---------------------------------------------------------------------------------------

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``sendmail``, ``sm-mta``, ``sm-msp-queue``, or of what writes such lines."""
        if not _TAG(tag) and not _looks_like(text):
            return None
        queue = self.hosts.get(host)
        if queue is None:
            make_room(self.hosts, MAX_CACHED)
            queue = self.hosts[host] = Queue(self.sink.share(Origin(self.name, host or None)))
        return Source(host, tag, pid, feed=self._line, state=Process(queue))

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """Sendmail has no form of its own beside syslog's."""
        return False

    def drop(self, source: Source) -> None:
        """Hand over the connections of a process that no delivery followed."""
        self._flush(source.state)

    def finish(self) -> None:
        """Hand over the connections that no delivery followed."""
        for process in list(self._waiting):
            self._flush(process)

    # -- lines ---------------------------------------------------------------------------------------------

    def _line(self, source: Source, line: bytes, start: int, number: int) -> None:
        process: Process = source.state
        match = _QUEUE_ID(line, start)
        if match is None:
            self._about_tls(process, line, start, number, source.pid)
            return
        queue_id, rest = match[1], match.end()
        if line.startswith(b"to=", rest):
            self._delivery(process, line, rest, number, source.pid, queue_id)
        elif line.startswith(b"from=", rest):
            self._arrival(process.queue, line, rest, queue_id)
        elif line.startswith(b"ruleset=", rest):
            self._about_tls(process, line, rest, number, source.pid)
        elif line.startswith(b"clone", rest) and (clone := _CLONE(line, rest)) is not None:
            self._no_delivery.add(line)
            parent, message = process.queue.find(clone[1]), process.queue.find(queue_id)
            message.first_id, message.sender, message.message_id = (
                parent.first_id,
                parent.sender,
                parent.message_id,
            )
        elif (given_up := _GIVEN_UP(line, rest)) is not None:
            self._expired(process.queue, line, number, queue_id, given_up[1][:MAX_TEXT])
        else:
            self._no_delivery.add(line)

    def _arrival(self, queue: Queue, line: bytes, start: int, queue_id: bytes) -> None:
        match = _FROM(line, start)
        if match is None:
            self._no_delivery.add(line)
            return
        self.sink.understood["sendmail arrival"] += 1
        queue.messages.pop(queue_id, None)  # an id used again
        message = queue.find(queue_id)
        message.sender = _address(match[1])[:MAX_ADDRESS]
        if (found := _MESSAGE_ID(line, match.end())) is not None:
            message.message_id = found[1][:MAX_ADDRESS] or None

    def _expired(self, queue: Queue, line: bytes, number: int, queue_id: bytes, text: bytes) -> None:
        """The sender is told that it was given up: each recipient still open is a row."""
        self.sink.count("sendmail expired")
        message = queue.find(queue_id)
        still_open: list[tuple[bytes | None, LastTry]] = [*message.open.items()] or [(None, UNTRIED)]
        for recipient, last in still_open:
            result = Result(Action.FAILED, last.outcome, b"expired", last.enhanced_code, attempted=False)
            self.sink.deliver(
                Delivery(
                    number, self.sink.clock.at(line), queue.origin, message.first_id, message.message_id,
                    message.sender, recipient, result=self.sink.share(result), text=text,
                )
            )  # fmt: skip
        message.open.clear()

    # -- deliveries ----------------------------------------------------------------------------------------

    def _delivery(
        self, process: Process, line: bytes, start: int, number: int, pid: bytes, queue_id: bytes
    ) -> None:
        where = line.find(b", delay=", start)
        match = _TO(line, where) if where > 0 else None
        if match is None:
            self.sink.coverage.skip("sendmail: delivery line of an unknown form", line)
            return
        self.sink.understood["sendmail delivery"] += 1
        *delay, _spent, mailer, relay_text, dsn, _code, _reply, _word, _stat = match.groups()
        dsn = dsn[:20] if dsn else None
        queue = process.queue
        at = self.sink.clock.at(line)
        if at is not None:
            if process.used_at is not None and at - process.used_at > CACHED_MICROS and not process.fresh:
                process.forget()
            process.used_at = at
        name, relay = self._relay(relay_text, process) if relay_text else (b"", NO_RELAY)
        judged = self._judge(process, name, relay, match)
        contact = judged.attempted and relay.address is not None
        tls = self._tls_of(process, name, judged) if contact else NO_TLS
        message = queue.messages.get(queue_id) or queue.find(queue_id)
        transport = mailer[:MAX_ADDRESS] if mailer else None
        text = judged.text[:MAX_TEXT] if judged.text is not None else None
        for recipient in _recipients(line[start + 3 : where])[:MAX_RECIPIENTS]:
            last = message.open.get(recipient)
            suspended = last is not None and not judged.attempted and judged.word != b"held"
            outcome = last.outcome if last is not None and suspended else judged.outcome
            result = Result(
                judged.action, outcome, judged.word or None, dsn, judged.reply_code, judged.attempted
            )
            self.sink.deliver(
                Delivery(
                    number, at, queue.origin, message.first_id, message.message_id, message.sender, recipient,
                    relay if judged.attempted else NO_RELAY, transport, self.sink.share(result), text,
                    _seconds(*delay), tls,
                )
            )  # fmt: skip
            if judged.action is not Action.DELAYED:
                message.open.pop(recipient, None)
            elif not suspended:
                make_room(message.open, MAX_CACHED)
                message.open[recipient] = LastTry(outcome, dsn)
        self._after(
            process, Line(line, start, number, at, pid or None), message, name, relay, tls, judged, contact
        )

    def _judge(self, process: Process, name: bytes, relay: Relay, match: re.Match[bytes]) -> Judgement:
        """What became of the recipients, and why: by the code, the reply, the ruleset's word before it."""
        *_delay, spent, _mailer, _relay, dsn, code, reply, word, stat = match.groups()
        word = word.strip()[:MAX_ADDRESS]
        if word == b"quarantined":
            return Judgement(Action.DELAYED, TlsOutcome.NOT_TLS, b"held", word, False, None)
        action = _ACTIONS.get((dsn or b"")[:1]) or _WORDS.get(word, Action.FAILED)
        if action is Action.DELIVERED:
            text = None if stat is None else stat.removesuffix(b")")
            return Judgement(action, TlsOutcome.OK, word, text, True, int(code) if code else None)
        text = code + reply if code is not None else stat or word
        attempted = word != b"queued" or spent is not None
        if action is Action.DELAYED and name and relay.address is None:
            # A host that failed this process before is not tried for the messages behind it.
            if name in process.failed:
                return Judgement(action, process.failed[name], word, text, False, None)
            attempted = attempted and stat is not None
        outcome = process.notes.get(name)
        if outcome is None:
            if b"for TLSA RR" in text:
                outcome = TlsOutcome.DNSSEC_INVALID
            else:
                outcome = classify(readable(text), dsn.decode("ascii") if dsn else None)
            said = _CODE(text)
            return Judgement(
                action, outcome, word, text, attempted, int(said[1]) if said is not None else None
            )
        return Judgement(action, outcome, word, text, attempted, int(code) if code is not None else None)

    def _tls_of(self, process: Process, name: bytes, judged: Judgement) -> Tls:
        """TLS of the connection that a delivery went over, or failed on."""
        if process.broken:
            return CLEAR_TLS
        if process.tls is not None and process.relay == name:
            return process.tls
        if (judged.text or b"").startswith(_NO_CONTACT):
            return NO_TLS
        if name in process.with_tls:
            return UNKNOWN_TLS  # that connection may be open still, or another in cleartext
        if judged.outcome in (TlsOutcome.OK, TlsOutcome.PEER_REQUIRES_TLS):
            return process.queue.untold
        return tls_of_failure(judged.outcome, process.queue.untold)

    def _after(
        self,
        process: Process,
        line: Line,
        message: Message,
        name: bytes,
        relay: Relay,
        tls: Tls,
        judged: Judgement,
        contact: bool,
    ) -> None:
        """What a delivery line means for its process: its connections have a message, a host that failed is avoided."""
        shown = any(_host_of(row) == relay.host for row in process.pending)
        self._flush(process, message.first_id, relay)
        if not contact:
            return
        here = message.first_id, name
        if self.sink.wants_connections and not shown and process.last != here:
            reused = process.last is not None and process.last[1] == name and not process.broken
            self.sink.connect(
                Connection(
                    line.number, line.at, process.queue.origin, line.process_id, message.first_id, relay, tls,
                    judged.outcome, reused or None,
                )
            )  # fmt: skip
        process.last = here
        process.fresh = process.broken = False
        process.verify = None
        if process.relay != name:
            process.leave()
        if judged.action is Action.DELAYED:
            make_room(process.failed, MAX_NOTES)
            process.failed[name] = judged.outcome
        process.notes.pop(name, None)

    # -- TLS lines -----------------------------------------------------------------------------------------

    def _about_tls(self, process: Process, text: bytes, start: int, number: int, pid: bytes) -> None:
        """A line about TLS: what was negotiated, why it broke off, what a ruleset made of it."""
        service = process.queue.service
        if text.startswith(b"STARTTLS=", start) and service.first_tls is None:
            service.first_tls = number
        line = Line(text, start, number, None, pid or None)
        if (match := _TLS_LINE(text, start)) is not None:
            self._negotiated(process, line, match)
        elif (match := _RULESET(text, start)) is not None:
            self._rejected(process, line, match)
        elif (match := _WARNING(text, start)) is not None:
            self.sink.understood["sendmail TLS problem"] += 1
            outcome = TlsOutcome.STARTTLS_NOT_SUPPORTED
            if match[2].endswith(b"STARTTLS failed"):
                outcome = TlsOutcome.TLS_HANDSHAKE_FAILED if process.broken else TlsOutcome.STARTTLS_REFUSED
            self._note(process, line, match[1], outcome)
        elif text.startswith(b"STARTTLS=client, error: connect failed", start):
            self.sink.understood["sendmail TLS problem"] += 1
            if process.relay not in process.with_tls:
                process.leave()
            process.broken, process.fresh = True, False
            outcome = classify(readable(text[start + 17 :]), None)
            if outcome is not TlsOutcome.TLS_VERSION_TOO_LOW:
                outcome = TlsOutcome.TLS_HANDSHAKE_FAILED
            self._pend(process, line, NO_RELAY, CLEAR_TLS, outcome)
        elif (match := _VERIFY_TEXT(text, start)) is not None:
            self.sink.understood["sendmail TLS problem"] += 1
            reason = match[1] or match[2]
            process.verify = None if reason == b"ok" else reason
        else:
            self._no_delivery.add(text)

    def _negotiated(self, process: Process, line: Line, match: re.Match[bytes]) -> None:
        relay_text, version, verify, cipher, bits = match.groups()
        self.sink.understood["sendmail TLS connection"] += 1
        name, relay = self._relay(relay_text, process)
        if process.relay != name:
            process.leave()
        process.with_tls.pop(name, None)
        process.failed.pop(name, None)
        process.relay, process.fresh, process.broken = name, True, False
        level = _LEVELS.get(verify, TlsLevel.ENCRYPTED)
        process.tls = self.sink.share(
            Tls(level, None, tls_version(version), cipher[:MAX_ADDRESS] or None, int(bits) if bits else None)
        )
        outcome = TlsOutcome.OK if verify in (b"NO", b"NOT") else _VERDICTS.get(verify, TlsOutcome.OK)
        self._pend(process, line, relay, process.tls, self._refined(process, outcome))

    def _rejected(self, process: Process, line: Line, match: re.Match[bytes]) -> None:
        """A ruleset of the client's own refuses the connection or a recipient."""
        ruleset, word, relay_text, text = match.groups()
        self.sink.understood["sendmail TLS problem"] += 1
        if ruleset == b"try_tls":  # no TLS with that host, please
            return
        outcome = _VERDICTS.get(word) if ruleset == b"tls_server" else None
        if outcome is None:
            weak = _WEAK.search(text)
            if weak is not None:
                outcome = TlsOutcome.STARTTLS_NOT_SUPPORTED if weak[1] == b"0" else TlsOutcome.LOCAL_POLICY
            elif b"failed temporarily" in text:
                name = self._relay(relay_text, process)[0]
                outcome = process.notes.get(name, TlsOutcome.DNSSEC_INVALID)
            else:
                outcome = classify(readable(text), None)
        self._note(process, line, relay_text, self._refined(process, outcome))

    def _note(self, process: Process, line: Line, relay_text: bytes, outcome: TlsOutcome) -> None:
        """Keep what was said of a relay's TLS, and put it into the row of its connection, or into one of its own."""
        name, relay = self._relay(relay_text, process)
        make_room(process.notes, MAX_NOTES)
        process.notes[name] = outcome
        for index, row in enumerate(process.pending):
            if row.relay is NO_RELAY:
                process.pending[index] = row._replace(relay=relay)
                return
            if _host_of(row) == relay.host:
                process.pending[index] = row._replace(outcome=outcome)
                return
        self._pend(process, line, relay, tls_of_failure(outcome), outcome)

    @staticmethod
    def _refined(process: Process, outcome: TlsOutcome) -> TlsOutcome:
        """A certificate that was not accepted, by OpenSSL's own words where the log level shows them."""
        if outcome is not TlsOutcome.CERTIFICATE_UNVERIFIED or process.verify is None:
            return outcome
        refined = classify("certificate verification failed: " + readable(process.verify), None)
        return outcome if refined is TlsOutcome.NOT_TLS else refined

    # -- connections ---------------------------------------------------------------------------------------

    def _pend(self, process: Process, line: Line, relay: Relay, tls: Tls, outcome: TlsOutcome) -> None:
        """Keep a connection until a delivery line names its message."""
        if not self.sink.wants_connections:
            return
        if len(process.pending) >= MAX_NOTES:
            self._flush(process)
        self._waiting[process] = None
        process.pending.append(
            Connection(
                line.number, self.sink.clock.at(line.line), process.queue.origin, line.process_id, None, relay, tls,
                outcome, False, line.line[line.start :],
            )
        )  # fmt: skip

    def _flush(self, process: Process, queue_id: bytes | None = None, relay: Relay = NO_RELAY) -> None:
        """Hand over connections; the relay of the delivery line knows its address."""
        for row in process.pending:
            same = relay.host is not None and _host_of(row) == relay.host
            self.sink.connect(row._replace(queue_id=queue_id, relay=relay if same else row.relay))
        process.pending.clear()
        self._waiting.pop(process, None)

    def _relay(self, text: bytes, process: Process) -> tuple[bytes, Relay]:
        """A relay's name as TLS lines have it, and the relay; delivery lines cut the middle out of a long name."""
        text = text[:MAX_ADDRESS]
        known = self._relays.get(text)
        if known is None:
            match = _RELAY(text)
            host, address = match.groups() if match is not None else (text, None)
            name = host.lower().rstrip(b".")
            unnamed = name.startswith(b"[") or name == b"local"
            relay = Relay(None if unnamed else name or None, address.lower() if address else None)
            make_room(self._relays, MAX_CACHED)
            known = self._relays[text] = name, self.sink.share(relay)
        name, relay = known
        head, cut, tail = name.partition(b"...")
        if cut and process.relay.startswith(head) and process.relay.endswith(tail):
            return process.relay, self.sink.share(Relay(process.relay, relay.address))
        return known


def _looks_like(text: bytes) -> bool:
    """Whether a line can only be Sendmail's, under a name that its administrator chose."""
    match = _QUEUE_ID(text)
    if match is None:
        return text.startswith((b"STARTTLS=client, relay=", b"STARTTLS=server, relay="))
    if text.startswith(b"to=", match.end()):
        delay = text.find(b", delay=", match.end())
        return delay > 0 and text.find(b", stat=", delay) > 0
    return text.startswith(b"from=", match.end()) and text.find(b", nrcpts=", match.end()) > 0


def _host_of(row: Connection) -> bytes | None:
    return row.relay.host if isinstance(row.relay, Relay) else row.relay


def _address(text: bytes) -> bytes:
    """An address without its angle brackets and what stands before them."""
    match = _ANGLES.search(text)
    return match[1] if match is not None else text


def _recipients(text: bytes) -> list[bytes]:
    """The recipients of ``to=A,B, ctladdr=C``; a file or a program is for the controlling address."""
    text, _control, owner = text.partition(b", ctladdr=")
    text = text.removesuffix(b" [more]")
    if text[:1] in b"/|" or text[:2] == b'"|':
        owner = owner.partition(b" (")[0]
        return [_address(owner) if owner else text]
    if text[:1] == b"<" and text[-1:] == b">":
        return text[1:-1].split(b">,<")
    return text.split(b",") if b'"' not in text else [text]


def _seconds(days: bytes | None, hours: bytes, minutes: bytes, seconds: bytes) -> float:
    return float(((int(days or 0) * 24 + int(hours)) * 60 + int(minutes)) * 60 + int(seconds))
