"""Stalwart's log, text or JSON: one row for each recipient of an attempt, from the events of the attempt's span.

What fails for a whole domain is an event without a recipient. The attempt's recipients are on each line of its
span, and get their rows when the attempt ends; only the notices behind the attempt tell whether that was final.

Notes
-----
The events are those of ``crates/smtp/src/outbound`` of 0.11 to 0.16 (2026); the form before (0.2 to 0.8, ``tracing``)
names the recipient only where a server answered to one. A session without an event about TLS may have been one with
implicit TLS, whose success is not logged. Nothing is logged about REQUIRETLS.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from rtls_analysis.outcomes import Action, TlsLevel, TlsOutcome
from rtls_analysis.read.attempts import CLEAR_TLS, make_room, tls_of_failure, tls_version
from rtls_analysis.read.lines import stamp_end
from rtls_analysis.read.log_rows import (
    NO_RELAY,
    NO_TLS,
    UNKNOWN_TLS,
    Connection,
    Delivery,
    Origin,
    Relay,
    Result,
    Sink,
    Source,
    Tls,
    domain_of,
    readable,
)
from rtls_analysis.read.stalwart_events import (
    MAX_TEXT,
    Event,
    event_head,
    json_event,
    key_line,
    keys_of,
    old_event,
    old_head,
)
from rtls_analysis.read.tls_reasons import classify
from rtls_analysis.schema import MailReader

MAX_MESSAGES = 20_000
MAX_RECIPIENTS = 10_000  # of one message
MAX_ATTEMPTS = 20_000
MAX_KEYS = 100  # of an event with a line for each

_TAGS = frozenset({b"stalwart", b"stalwart-mail", b"stalwart-smtp", b"stalwart-mta"})
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
_RUSTLS = (
    (re.compile(rb"notvalidforname|not valid for (?:name|any)"), TlsOutcome.CERTIFICATE_HOST_MISMATCH),
    (re.compile(rb"\bexpired|notvalidyet|not valid yet"), TlsOutcome.CERTIFICATE_EXPIRED),
    (re.compile(rb"unknownissuer|unknown issuer"), TlsOutcome.CERTIFICATE_NOT_TRUSTED),
    (re.compile(rb"invalid ?(?:peer )?certificate"), TlsOutcome.CERTIFICATE_UNVERIFIED),
    (re.compile(rb"protocolversion|incompatible"), TlsOutcome.TLS_VERSION_TOO_LOW),
)  # fmt: skip

# Events that end an attempt with one host, or with the domain; the outcome where the event itself names it.
_FAILURES: dict[bytes, TlsOutcome | None] = {
    b"delivery.connect-error": TlsOutcome.NOT_TLS,
    b"delivery.missing-outbound-hostname": TlsOutcome.NOT_TLS,
    b"delivery.greeting-failed": None,
    b"delivery.ehlo-rejected": None,
    b"delivery.lhlo-rejected": None,
    b"delivery.auth-failed": None,
    b"delivery.mail-from-rejected": None,
    b"delivery.message-rejected": None,
    b"delivery.start-tls-error": TlsOutcome.TLS_HANDSHAKE_FAILED,
    b"delivery.implicit-tls-error": TlsOutcome.TLS_HANDSHAKE_FAILED,
    b"delivery.mx-lookup-failed": TlsOutcome.NOT_TLS,
    b"delivery.ip-lookup-failed": TlsOutcome.NOT_TLS,
    b"delivery.null-mx": TlsOutcome.NOT_TLS,
    b"delivery.rate-limit-exceeded": TlsOutcome.NOT_TLS,
    b"delivery.concurrency-limit-exceeded": TlsOutcome.NOT_TLS,
    b"dane.authentication-failure": TlsOutcome.TLSA_INVALID,
    b"dane.no-certificates-found": TlsOutcome.TLSA_INVALID,
    b"dane.bogus-dnssec-record": TlsOutcome.DNSSEC_INVALID,
    b"dane.tlsa-record-fetch-error": TlsOutcome.DNSSEC_INVALID,
}
_STRICT_FAILURES = {  # only where the policy is not just a wish
    b"dane.tlsa-record-invalid": TlsOutcome.TLSA_INVALID,
    b"dane.tlsa-record-not-found": TlsOutcome.DANE_REQUIRED,
    b"dane.tlsa-record-not-dnssec-signed": TlsOutcome.DANE_REQUIRED,
    b"mta-sts.not-authorized": TlsOutcome.STS_MX_MISMATCH,
    b"mta-sts.policy-fetch-error": TlsOutcome.STS_POLICY_FETCH_ERROR,
    b"mta-sts.policy-not-found": TlsOutcome.STS_POLICY_FETCH_ERROR,
    b"mta-sts.invalid-policy": TlsOutcome.STS_POLICY_INVALID,
}
_NO_SESSION = frozenset(
    {b"delivery.connect-error", b"delivery.missing-outbound-hostname", b"delivery.mx-lookup-failed",
     b"delivery.ip-lookup-failed", b"delivery.null-mx", b"delivery.rate-limit-exceeded",
     b"delivery.concurrency-limit-exceeded"}
)  # fmt: skip
_NOT_TRIED = frozenset({b"delivery.rate-limit-exceeded", b"delivery.concurrency-limit-exceeded"})
_ENDS = frozenset({b"queue.rescheduled", b"delivery.completed", b"delivery.attempt-end"})
_NOTES = frozenset(
    {b"delivery.attempt-start", b"delivery.domain-delivery-start", b"delivery.connect", b"delivery.start-tls",
     b"delivery.start-tls-unavailable", b"delivery.start-tls-disabled", b"dane.authentication-success",
     b"mta-sts.authorized"}
)  # fmt: skip
_RECIPIENTS = frozenset(
    {b"delivery.delivered", b"delivery.rcpt-to-rejected", b"delivery.rcpt-to-failed", b"delivery.failed",
     b"delivery.dsn-success", b"delivery.dsn-temp-fail", b"delivery.dsn-perm-fail"}
)  # fmt: skip
_NOTICES = frozenset({b"delivery.dsn-success", b"delivery.dsn-temp-fail", b"delivery.dsn-perm-fail"})
_WANTED = _NOTES | _RECIPIENTS | _ENDS | frozenset(_FAILURES) | frozenset(_STRICT_FAILURES)
_UNTIMED = _ENDS | {b"delivery.attempt-start", b"delivery.domain-delivery-start", b"delivery.connect"}


class Failure(NamedTuple):
    """How it went with one recipient, or with a whole domain."""

    number: int
    at: int | None
    text: bytes | None
    outcome: TlsOutcome
    tls: Tls
    relay: Relay
    reply: int | None = None
    enhanced: bytes | None = None
    attempted: bool = True


class Message:
    """A message in the queue, over all of its attempts."""

    __slots__ = ("done", "last", "queue_id", "sender")

    def __init__(self, queue_id: bytes) -> None:
        self.queue_id = queue_id
        self.sender: bytes | None = None
        self.done: set[bytes] = set()
        self.last: dict[bytes, Failure] = {}  # of recipients that are tried again


class Attempt:
    """One attempt: a message, and one of the queues that it is in."""

    __slots__ = (
        "domain", "domains", "message", "open", "origin", "relay", "results", "shown", "sts", "tls", "to", "told",
    )  # fmt: skip

    def __init__(self, message: Message, origin: Origin) -> None:
        self.message = message
        self.origin = origin
        self.to: list[bytes] | None = None
        self.told: set[bytes] = set()  # recipients that have their row of this attempt
        self.domain: bytes | None = None
        self.domains: dict[bytes | None, Failure] = {}
        self.results: dict[bytes, Failure] = {}
        self.relay = NO_RELAY
        self.tls = UNKNOWN_TLS
        self.sts = False  # an enforced policy names this host
        self.open: Connection | None = None
        self.shown = False  # there is a row of the connection at hand

    def forget_connection(self) -> None:
        """The next event is about another host."""
        self.relay, self.tls, self.sts, self.shown = NO_RELAY, UNKNOWN_TLS, False, False

    def fail(self, failure: Failure) -> None:
        """Note how it went with the domain at hand."""
        make_room(self.domains, MAX_RECIPIENTS)
        self.domains[self.domain] = failure

    def has_row(self, recipient: bytes) -> bool:
        """Whether a recipient has its row of this attempt, or its last one."""
        return recipient in self.told or recipient in self.message.done

    def failure_of(self, recipient: bytes) -> Failure | None:
        """What the attempt came to for a recipient: by an event of its own, else by one of its domain."""
        failure = self.results.get(recipient)
        if failure is None and self.domains:
            domain = recipient.rpartition(b"@")[2].lower()
            failure = (
                self.domains.get(domain) or self.domains.get(domain_of(recipient)) or self.domains.get(None)
            )
        return failure


class StalwartReader:
    """Stalwart events to rows, from any number of hosts."""

    name = MailReader.STALWART

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.messages: dict[tuple[bytes, bytes], Message] = {}
        self.attempts: dict[tuple[bytes, bytes, bytes], Attempt] = {}
        # An event with a line for each key: its source, itself without keys, and the lines so far.
        self.unfinished: tuple[Source, Event, list[bytes]] | None = None

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``stalwart[12]``."""
        return Source(host, tag, pid, feed=self._line) if tag in _TAGS else None

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """A line of one of the own forms."""
        if self.unfinished is not None:
            if key_line(line, start) and self.unfinished[0] is source:
                self._more(line, start)
                return True
            self._end_unfinished()
        if line.startswith(b"{", start):
            return b'"createdAt"' in line and self._json(source, line, start, number)
        if b"\x1b[" in line:
            line = line[:start] + _COLOUR.sub(b"", line[start:])
        begin = stamp_end(line, start)
        if (head := event_head(line, begin)) is not None:
            self._text(source, line, head, number)
        elif (head := old_head(line, begin)) is not None:
            self._old(source, line, head, number)
        else:
            return False
        return True

    def drop(self, source: Source) -> None:
        """Nothing hangs on a process: attempts have ids of their own."""

    def finish(self) -> None:
        """Hand over what attempts without an end had come to."""
        self._end_unfinished()
        for attempt in self.attempts.values():
            self._end(attempt)

    # -- forms ---------------------------------------------------------------------------------------------

    def _line(self, source: Source, line: bytes, start: int, number: int) -> None:
        if not self.raw(source, line, start, number):
            self._skip(line)

    def _skip(self, line: bytes) -> None:
        self.sink.coverage.skip("stalwart: no event of a delivery", line)

    def _text(self, source: Source, line: bytes, head: re.Match[bytes], number: int) -> None:
        title, name = head.groups()
        if name not in _WANTED:
            self._skip(line)
            return
        self.sink.count("stalwart event")
        at = self.sink.clock.at(line) if name not in _UNTIMED else None
        event = Event(name, title, {}, number, at, source.pid or None)
        if head.end() == len(line):
            self.unfinished = (source, event, [])
        else:
            self._handle(source, event._replace(keys=keys_of(line[head.end() :])))

    def _more(self, line: bytes, start: int) -> None:
        self.sink.count("stalwart continuation")
        if self.unfinished is not None and len(self.unfinished[2]) < MAX_KEYS:
            self.unfinished[2].append(line[start : start + MAX_TEXT].strip())

    def _end_unfinished(self) -> None:
        if self.unfinished is not None:
            source, event, lines = self.unfinished
            self.unfinished = None
            self._handle(source, event._replace(keys=keys_of(b", ".join(lines))))

    def _json(self, source: Source, line: bytes, start: int, number: int) -> bool:
        found = json_event(line[start:], _WANTED)
        if found is None:
            return False
        name, title, created, keys = found
        if name not in _WANTED:
            self._skip(line)
        else:
            self.sink.count("stalwart event")
            at = self.sink.clock.at(created.ljust(40))
            self._handle(source, Event(name, title, keys, number, at, source.pid or None))
        return True

    def _old(self, source: Source, line: bytes, head: re.Match[bytes], number: int) -> None:
        found = old_event(line, head)
        if found is None:
            self._skip(line)
            return
        self.sink.count("stalwart event")
        self._handle(source, Event(*found, number, self.sink.clock.at(line), source.pid or None))

    # -- events --------------------------------------------------------------------------------------------

    def _handle(self, source: Source, event: Event) -> None:
        """One event of a delivery, whatever form it came in."""
        queue_id, keys = event.word(b"queueId"), event.keys
        key = (source.host, queue_id, event.word(b"queueName"))
        name = event.name
        if not queue_id or (name in _ENDS and key not in self.attempts):
            return
        attempt = self._attempt(key)
        if name == b"delivery.attempt-start":
            self._end(attempt)
            attempt.to = None
        if sender := event.word(b"from"):
            attempt.message.sender = _address(sender)
        to = keys.get(b"to")
        if attempt.to is None and isinstance(to, list):
            attempt.to = to[:MAX_RECIPIENTS]
        if domain := event.word(b"domain"):
            attempt.domain = domain.lower()
        if b"hostname" in keys and name not in _NOTICES:
            self._meet(attempt, event)
        if name in _RECIPIENTS:
            self._recipient(attempt, event)
        elif name in _ENDS:
            self._end(attempt)
            if name != b"queue.rescheduled":
                self.attempts.pop(key, None)
            if name == b"delivery.completed":
                self.messages.pop(key[:2], None)
        elif name in _NOTES:
            self._note(attempt, event)
        elif name in _FAILURES:
            self._domain_failed(attempt, event, _FAILURES[name])
        elif event.word(b"strict") == b"true":
            self._domain_failed(attempt, event, _STRICT_FAILURES[name])

    def _attempt(self, key: tuple[bytes, bytes, bytes]) -> Attempt:
        attempt = self.attempts.get(key)
        if attempt is None:
            for old in make_room(self.attempts, MAX_ATTEMPTS):
                self._end(old)
            host, queue_id, _queue = key
            message = self.messages.get((host, queue_id))
            if message is None:
                make_room(self.messages, MAX_MESSAGES)
                message = self.messages[host, queue_id] = Message(queue_id)
            origin = self.sink.share(Origin(self.name, host or None))
            attempt = self.attempts[key] = Attempt(message, origin)
        return attempt

    def _meet(self, attempt: Attempt, event: Event) -> None:
        """Which host the event is about."""
        host = event.word(b"hostname")
        if host == attempt.relay.host and event.name not in (b"delivery.connect", b"delivery.connect-error"):
            return
        self._flush(attempt)
        attempt.tls, attempt.shown = UNKNOWN_TLS, False
        attempt.sts = attempt.sts and host == attempt.relay.host
        address, port = event.word(b"remoteIp"), event.word(b"remotePort")
        number = int(port) if port.isdigit() and len(port) < 6 else None
        attempt.relay = self.sink.share(Relay(host or None, address or None, number))

    def _note(self, attempt: Attempt, event: Event) -> None:
        """An event on the way."""
        if event.name == b"delivery.domain-delivery-start":
            self._flush(attempt)
            attempt.forget_connection()
        elif event.name == b"mta-sts.authorized":
            attempt.sts = event.word(b"strict") == b"true"
        elif event.name == b"dane.authentication-success":
            attempt.tls = self.sink.share(replace(attempt.tls, level=TlsLevel.VERIFIED))
            if attempt.open is not None:
                attempt.open = attempt.open._replace(tls=attempt.tls)
        elif event.name == b"delivery.start-tls":
            attempt.tls = self.sink.share(
                Tls(
                    TlsLevel.VERIFIED if attempt.sts else TlsLevel.ENCRYPTED,
                    version=tls_version(event.word(b"version")),
                    cipher=event.word(b"details") or None,
                )
            )
            self._connect(attempt, event, attempt.tls, TlsOutcome.OK)
        elif event.name == b"delivery.start-tls-disabled":
            attempt.tls = CLEAR_TLS
            self._connect(attempt, event, CLEAR_TLS, TlsOutcome.OK)
        elif event.name == b"delivery.start-tls-unavailable":
            said = event.cause().lower()
            refused = bool(said) and b"advertis" not in said and b"support" not in said
            outcome = TlsOutcome.STARTTLS_REFUSED if refused else TlsOutcome.STARTTLS_NOT_SUPPORTED
            attempt.tls = CLEAR_TLS
            attempt.fail(_failure(event, outcome, CLEAR_TLS, attempt.relay))
            self._connect(attempt, event, CLEAR_TLS, outcome)

    def _domain_failed(self, attempt: Attempt, event: Event, outcome: TlsOutcome | None) -> None:
        """An event that ends the attempt with a host, for all recipients of the domain."""
        name = event.name
        if name == b"delivery.mx-lookup-failed" and b"implicit MX" in event.word(b"details"):
            return
        if outcome is None:
            outcome = _outcome(event.cause(), event.codes()[1])
        elif outcome is TlsOutcome.TLS_HANDSHAKE_FAILED:
            outcome = _tls_error(event.cause())
        if name in _NO_SESSION:
            tls = NO_TLS
        elif attempt.tls.level is not TlsLevel.UNKNOWN:
            tls = attempt.tls
        else:
            tls = tls_of_failure(outcome)
        tried = name not in _NOT_TRIED
        failure = _failure(event, outcome, tls, attempt.relay if tried else NO_RELAY)
        attempt.fail(failure._replace(attempted=tried))
        if attempt.open is not None:
            if outcome is not TlsOutcome.NOT_TLS:
                attempt.open = attempt.open._replace(outcome=outcome, text=event.text())
        elif tried:
            self._connect(attempt, event, tls, outcome)

    def _recipient(self, attempt: Attempt, event: Event) -> None:
        """An event about one recipient."""
        to = event.word(b"to")
        recipient = _address(to) if to else None
        name, text = event.name, event.word(b"details") or None
        if name == b"delivery.delivered":
            done = _failure(event, TlsOutcome.OK, attempt.tls, attempt.relay)
            self._emit(attempt, recipient, done._replace(text=text), Action.DELIVERED, word=b"delivered")
            attempt.domains.pop(attempt.domain, None)
        elif name == b"delivery.failed":
            self._expired(attempt, recipient, event)
        elif name not in _NOTICES:
            attempt.domains.pop(attempt.domain, None)
            outcome = _outcome(event.cause(), event.codes()[1])
            tls = attempt.tls if attempt.tls.level is not TlsLevel.UNKNOWN else tls_of_failure(outcome)
            if recipient is not None:
                make_room(attempt.results, MAX_RECIPIENTS)
                attempt.results[recipient] = _failure(event, outcome, tls, attempt.relay)
        elif recipient is not None and not attempt.has_row(recipient):
            self._notice(attempt, recipient, event, text)

    def _notice(self, attempt: Attempt, recipient: bytes, event: Event, text: bytes | None) -> None:
        """What is said to the sender of a recipient, behind the attempt or, to remind, before it."""
        host = event.word(b"hostname")
        relay = self.sink.share(Relay(host)) if host and host != b"localhost" else NO_RELAY
        known = attempt.failure_of(recipient)
        if (
            event.name == b"delivery.dsn-success"
        ):  # there was no event of its own: a mailbox, or a higher log level
            local = host == b"localhost"
            done = _failure(event, TlsOutcome.OK, NO_TLS if local else UNKNOWN_TLS, relay)._replace(text=text)
            self._emit(attempt, recipient, done, Action.DELIVERED, b"local" if local else None, b"delivered")
        elif event.name == b"delivery.dsn-perm-fail":
            if known is None:
                outcome = _outcome(text or b"", event.codes()[1])
                known = _failure(event, outcome, tls_of_failure(outcome), relay)._replace(text=text)
            self._emit(attempt, recipient, known, Action.FAILED, word=b"dsn-perm-fail")
        elif known is not None:
            self._emit(attempt, recipient, known, Action.DELAYED, word=b"dsn-temp-fail")

    def _expired(self, attempt: Attempt, recipient: bytes | None, event: Event) -> None:
        """Given up for its age; the last attempt was an earlier one, whose reason stands."""
        event.keys.pop(b"details", None)  # the time
        text = event.cause()
        last = attempt.message.last.get(recipient) if recipient is not None else None
        outcome = last.outcome if last is not None else _outcome(text, None)
        failure = Failure(event.number, event.at, text or None, outcome, NO_TLS, NO_RELAY, attempted=False)
        self._emit(attempt, recipient, failure, Action.FAILED, word=b"expired")

    def _end(self, attempt: Attempt) -> None:
        """The attempt is over: recipients without a word of their own share that of their domain."""
        self._flush(attempt)
        for recipient, failure in list(attempt.results.items()):
            if recipient not in attempt.message.done:
                self._emit(attempt, recipient, failure, _weight(failure))
        if attempt.domains:
            for recipient in map(_address, attempt.to or ()):
                found = None if attempt.has_row(recipient) else attempt.failure_of(recipient)
                if found is not None:
                    self._emit(attempt, recipient, found, _weight(found))
            if attempt.to is None and not attempt.told:
                for failure in attempt.domains.values():
                    self._emit(attempt, None, failure, _weight(failure))
        attempt.domains.clear()
        attempt.results.clear()
        attempt.told.clear()
        attempt.forget_connection()

    # -- rows ----------------------------------------------------------------------------------------------

    def _emit(
        self,
        attempt: Attempt,
        recipient: bytes | None,
        failure: Failure,
        action: Action,
        transport: bytes | None = None,
        word: bytes | None = None,
    ) -> None:
        message = attempt.message
        if recipient is not None:
            attempt.results.pop(recipient, None)
            if len(message.done) < MAX_RECIPIENTS and action is not Action.DELAYED:
                message.done.add(recipient)
                message.last.pop(recipient, None)
            elif len(message.last) < MAX_RECIPIENTS:
                message.last[recipient] = failure
            if len(attempt.told) < MAX_RECIPIENTS:
                attempt.told.add(recipient)
        result = Result(
            action, failure.outcome, word, failure.enhanced, failure.reply, failure.attempted
        )  # fmt: skip
        self.sink.deliver(
            Delivery(
                failure.number, failure.at, attempt.origin, message.queue_id, None, message.sender, recipient,
                failure.relay, transport, self.sink.share(result), failure.text, None, self.sink.share(failure.tls),
            )
        )  # fmt: skip
        if action is not Action.DELIVERED or failure.relay is NO_RELAY:
            return
        if attempt.open is not None:  # it went, if only without TLS
            attempt.open = attempt.open._replace(outcome=TlsOutcome.OK, text=None)
        elif not attempt.shown:
            attempt.shown = True
            self.sink.connect(
                Connection(
                    failure.number, failure.at, attempt.origin, None, message.queue_id, failure.relay,
                    self.sink.share(failure.tls), TlsOutcome.OK, False, None,
                )
            )  # fmt: skip

    def _connect(self, attempt: Attempt, event: Event, tls: Tls, outcome: TlsOutcome) -> None:
        """Note a connection; its row waits for what comes of it."""
        self._flush(attempt)
        attempt.shown = True
        if self.sink.wants_connections and attempt.relay is not NO_RELAY:
            text = event.text() if outcome is not TlsOutcome.OK else None
            attempt.open = Connection(
                event.number, event.at, attempt.origin, event.pid, attempt.message.queue_id, attempt.relay,
                self.sink.share(tls), outcome, False, text,
            )  # fmt: skip

    def _flush(self, attempt: Attempt) -> None:
        if attempt.open is not None:
            self.sink.connect(attempt.open)
            attempt.open = None


def _weight(failure: Failure) -> Action:
    """Final or not, where no notice tells: by the server's code."""
    return Action.FAILED if failure.reply is not None and failure.reply >= 500 else Action.DELAYED


def _outcome(text: bytes, enhanced: bytes | None) -> TlsOutcome:
    return classify(readable(text), readable(enhanced) if enhanced else None)


def _tls_error(text: bytes) -> TlsOutcome:
    lower = text.lower()
    for pattern, outcome in _RUSTLS:
        if pattern.search(lower):
            return outcome
    outcome = classify(readable(text), None)
    return (
        outcome
        if outcome not in (TlsOutcome.NOT_TLS, TlsOutcome.UNKNOWN)
        else TlsOutcome.TLS_HANDSHAKE_FAILED
    )


def _failure(event: Event, outcome: TlsOutcome, tls: Tls, relay: Relay) -> Failure:
    reply, enhanced = event.codes()
    return Failure(event.number, event.at, event.text(), outcome, tls, relay, reply, enhanced)


def _address(text: bytes) -> bytes:
    """An address without the brackets that some forms have."""
    return text[1:-1] if text.startswith(b"<") and text.endswith(b">") else text
