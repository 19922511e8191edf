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

import json
import re
from dataclasses import replace
from typing import Any, NamedTuple

from rtls_analysis.outcomes import Action, TlsLevel, TlsOutcome
from rtls_analysis.read.attempts import (
    CLEAR_TLS,
    make_room,
    tls_of_failure,
    tls_version,
)
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
from rtls_analysis.read.tls_texts import classify
from rtls_analysis.schema import MailReader

MAX_MESSAGES = 20_000
MAX_RECIPIENTS = 10_000  # of one message
MAX_ATTEMPTS = 20_000
MAX_TEXT = 65_536  # of one line; whatever is behind it is not looked at

_TAGS = frozenset({b"stalwart", b"stalwart-mail", b"stalwart-smtp", b"stalwart-mta"})
_GROUPS = (
    b"acme|ai|arc|auth|calendar|cluster|config|dane|delivery|dkim|dmarc|dns|eval|housekeeper|http|imap|incoming-report"
    b"|iprev|jmap|limit|mail-auth|mailauth|manage|manage-sieve|message-ingest|milter|mta-hook|mta-sts|network"
    b"|outgoing-report|pop3|purge|push-subscription|queue|registry|resource|security|server|sieve|smtp|spam|spf|store"
    b"|task-manager|task-queue|telemetry|tls|tls-rpt|web-dav|webdav"
)
_HEAD = re.compile(
    rb"(?:TRACE|DEBUG|INFO|WARN|ERROR) {1,5}([^()\n]{1,120}) \(((?:" + _GROUPS + rb")\.[a-z0-9-]+)\)(?: +|$)"
).match
_MORE = re.compile(rb"[ \t]+[a-z][A-Za-z0-9]* = ").match
_PAIR = re.compile(
    rb"(?<!\w)([A-Za-z]\w{0,40}) = "
    rb"(\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|\[(?:\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|[^\"\]\[=])*\]|[^,\"\[{}]*)( ?[{}])?",
    re.DOTALL,
).finditer
_ITEM = re.compile(rb"\"([^\"\\]*+(?:\\.[^\"\\]*+)*+)\"", re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
_JSON = re.compile(rb"\s*\{\"").match

_OLD_HEAD = re.compile(
    rb"(?:TRACE|DEBUG|INFO|WARN|ERROR) {1,5}delivery\{([^{}]{0,2000})\}:(?:attempt\{([^{}]{0,2000})\}:)?[^=]{0,200}? "
    rb"(?:[\w:]+: )?"
).match
_OLD_PAIR = re.compile(
    rb"(?<!\w)([a-z_]\w{0,40})=(\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|(?:[^ \"]| (?![a-z_]+=))*)", re.DOTALL
).finditer

_ENHANCED = re.compile(rb"(?:\d{3}[ -])?([245]\.\d{1,3}\.\d{1,3})\b").match
_OLD_REPLY = re.compile(
    rb"Code: (\d{3}), Enhanced code: (\d\.\d{1,3}\.\d{1,3}), Message: (.*)", re.DOTALL
).search
_CODE = re.compile(rb"[2-5]\d\d").fullmatch
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
_WANTED = _NOTES | _RECIPIENTS | _ENDS | frozenset(_FAILURES) | frozenset(_STRICT_FAILURES)

# (context, event) of the old form, and what the event is called since.
_OLD_EVENTS = {
    (b"rcpt", b"delivered"): b"delivery.delivered",
    (b"rcpt", b"rejected"): b"delivery.rcpt-to-rejected",
    (b"rcpt", b"failed"): b"delivery.rcpt-to-failed",
    (b"message", b"rejected"): b"delivery.message-rejected",
    (b"message", b"failed"): b"delivery.message-rejected",
    (b"sender", b"rejected"): b"delivery.mail-from-rejected",
    (b"ehlo", b"rejected"): b"delivery.ehlo-rejected",
    (b"auth", b"failed"): b"delivery.auth-failed",
    (b"greeting", b"invalid"): b"delivery.greeting-failed",
    (b"tls", b"unavailable"): b"delivery.start-tls-unavailable",
    (b"tls", b"failed"): b"delivery.start-tls-error",
    (b"tls", b"disabled"): b"delivery.start-tls-disabled",
    (b"connect", b"success"): b"delivery.connect",
    (b"connect", b"failed"): b"delivery.connect-error",
    (b"dns", b"mx-lookup-failed"): b"delivery.mx-lookup-failed",
    (b"dns", b"ip-lookup-failed"): b"delivery.ip-lookup-failed",
    (b"dns", b"null-mx"): b"delivery.null-mx",
    (b"sts", b"policy-error"): b"mta-sts.not-authorized",
    (b"sts", b"policy-fetch-failure"): b"mta-sts.policy-fetch-error",
    (b"dane", b"authenticated"): b"dane.authentication-success",
    (b"dane", b"auth-failure"): b"dane.authentication-failure",
    (b"dane", b"no-tlsa-records"): b"dane.tlsa-record-invalid",
    (b"dane", b"tlsa-dnssec-missing"): b"dane.tlsa-record-not-dnssec-signed",
    (b"dane", b"tlsa-missing"): b"dane.tlsa-record-not-found",
    (b"queue", b"requeue"): b"queue.rescheduled",
    (b"queue", b"completed"): b"delivery.completed",
}

Pairs = dict[bytes, Any]  # bytes, or a list of bytes


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


class StalwartReader:
    """Stalwart events to rows, from any number of hosts."""

    name = MailReader.STALWART

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.messages: dict[tuple[bytes, bytes], Message] = {}
        self.attempts: dict[tuple[bytes, bytes, bytes], Attempt] = {}
        # An event of the form with a line for each key: source, event, description, place, time, keys.
        self.unfinished: tuple[Source, bytes, bytes, int, int | None, list[bytes]] | None = None

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``stalwart[12]``."""
        return Source(host, tag, pid, feed=self._line) if tag in _TAGS else None

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """A line of one of the own forms."""
        if self.unfinished is not None:
            if _MORE(line, start) and self.unfinished[0] is source:
                self._more(line, start)
                return True
            self._end_unfinished()
        if line.startswith(b"{", start):
            return b'"createdAt"' in line and self._json(source, line, start, number)
        if b"\x1b[" in line:
            line = line[:start] + _COLOUR.sub(b"", line[start:])
        begin = stamp_end(line, start)
        if (head := _HEAD(line, begin)) is not None:
            self._event(source, line, head, number)
        elif (head := _OLD_HEAD(line, begin)) is not None:
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
            self.sink.coverage.skip("stalwart: no event of a delivery", line)

    def _event(self, source: Source, line: bytes, head: re.Match[bytes], number: int) -> None:
        description, event = head.groups()
        if event not in _WANTED:
            self.sink.coverage.skip("stalwart: no event of a delivery", line)
            return
        self.sink.count("stalwart event")
        at = self.sink.clock.at(line)
        if head.end() == len(line):
            self.unfinished = (source, event, description, number, at, [])
            return
        pairs = _pairs(line[head.end() : head.end() + MAX_TEXT])
        self._handle(source, event, description, pairs, number, at)

    def _more(self, line: bytes, start: int) -> None:
        self.sink.count("stalwart continuation")
        if self.unfinished is not None and len(self.unfinished[5]) < 100:
            self.unfinished[5].append(line[start : start + MAX_TEXT].strip())

    def _end_unfinished(self) -> None:
        if self.unfinished is None:
            return
        source, event, description, number, at, lines = self.unfinished
        self.unfinished = None
        self._handle(source, event, description, _pairs(b", ".join(lines)[:MAX_TEXT]), number, at)

    def _json(self, source: Source, line: bytes, start: int, number: int) -> bool:
        try:
            record = json.loads(line[start:].decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            return False
        if not isinstance(record, dict) or not isinstance(record.get("data"), dict):
            return False
        event, created = _bytes(record.get("type")), _bytes(record.get("createdAt"))
        if not event or not created:
            return False
        if event not in _WANTED:
            self.sink.coverage.skip("stalwart: no event of a delivery", line)
            return True
        self.sink.count("stalwart event")
        pairs: Pairs = {}
        for key, value in record["data"].items():
            _add_json(pairs, key.encode("utf-8", "replace"), value)
        text = _bytes(record.get("text")) or event
        self._handle(source, event, text, pairs, number, self.sink.clock.at(created.ljust(40)))
        return True

    def _old(self, source: Source, line: bytes, head: re.Match[bytes], number: int) -> None:
        pairs: Pairs = {}
        for part in (head[1], head[2] or b"", line[head.end() : head.end() + MAX_TEXT]):
            for match in _OLD_PAIR(part):
                value = match[2]
                pairs[match[1]] = _plain(value[1:-1]) if value.startswith(b'"') else value
        context, what = pairs.get(b"context", b""), pairs.get(b"event", b"")
        event = b"delivery.failed" if what == b"delivery-expired" else _OLD_EVENTS.get((context, what))
        if event is None or b"id" not in pairs:
            self.sink.coverage.skip("stalwart: no event of a delivery", line)
            return
        self.sink.count("stalwart event")
        pairs[b"queueId"] = pairs[b"id"]
        if b"return_path" in pairs:
            pairs[b"from"] = pairs[b"return_path"] or b"<>"
        renamed = {b"rcpt": b"to", b"mx": b"hostname", b"response": b"details", b"error": b"reason"}
        for name, new in renamed.items():
            if name in pairs:
                pairs.setdefault(new, pairs[name])
        pairs[b"strict"] = b"true"  # the old form logs these where the policy is enforced
        if reply := _OLD_REPLY(pairs.get(b"details", b"") or pairs.get(b"reason", b"")):
            pairs[b"code"], pairs[b"details"] = reply[1], reply[2] + b" " + reply[3]
            pairs.pop(b"reason", None)
        self._handle(source, event, what.replace(b"-", b" "), pairs, number, self.sink.clock.at(line))

    # -- events --------------------------------------------------------------------------------------------

    def _handle(
        self, source: Source, event: bytes, description: bytes, pairs: Pairs, number: int, at: int | None
    ) -> None:
        """One event of a delivery, whatever form it came in."""
        queue_id = _text(pairs.get(b"queueId"))
        if not queue_id:
            return
        queue = _text(pairs.get(b"queueName"))
        attempt = self._attempt(source, queue_id, queue)
        if event == b"delivery.attempt-start":
            self._end(attempt)
            attempt.to = None
        sender = pairs.get(b"from")
        if isinstance(sender, bytes):
            attempt.message.sender = b"" if sender == b"<>" else _address(sender)
        to = pairs.get(b"to")
        if isinstance(to, list) and attempt.to is None:
            attempt.to = to[:MAX_RECIPIENTS]
        domain = pairs.get(b"domain")
        if isinstance(domain, bytes):
            attempt.domain = domain.lower()
        self._meet(attempt, event, pairs)
        if event in _RECIPIENTS:
            self._recipient(attempt, event, description, pairs, number, at)
        elif event in _ENDS:
            self._end(attempt)
            if event == b"delivery.completed":
                self.messages.pop((source.host, queue_id), None)
            elif event == b"delivery.attempt-end":
                self.attempts.pop((source.host, queue_id, queue), None)
        elif event in _NOTES:
            self._note(attempt, source, event, description, pairs, number, at)
        else:
            strict = pairs.get(b"strict") == b"true"
            outcome = _STRICT_FAILURES.get(event) if strict else None
            if event in _FAILURES or outcome is not None:
                self._domain_failed(attempt, source, event, description, pairs, number, at, outcome)

    def _attempt(self, source: Source, queue_id: bytes, queue: bytes) -> Attempt:
        key = (source.host, queue_id, queue)
        attempt = self.attempts.get(key)
        if attempt is None:
            for old in make_room(self.attempts, MAX_ATTEMPTS):
                self._end(old)
            message = self.messages.get((source.host, queue_id))
            if message is None:
                make_room(self.messages, MAX_MESSAGES)
                message = self.messages[source.host, queue_id] = Message(queue_id)
            attempt = self.attempts[key] = Attempt(
                message, self.sink.share(Origin(self.name, source.host or None))
            )
        return attempt

    def _meet(self, attempt: Attempt, event: bytes, pairs: Pairs) -> None:
        """Which host the event is about."""
        host = pairs.get(b"hostname")
        if not isinstance(host, bytes) or event.startswith(b"delivery.dsn-"):
            return
        address, port = pairs.get(b"remoteIp"), _text(pairs.get(b"remotePort"))
        new = event in (b"delivery.connect", b"delivery.connect-error")
        if new or host != attempt.relay.host:
            self._flush(attempt)
            attempt.tls, attempt.shown = UNKNOWN_TLS, False
            attempt.sts = attempt.sts and host == attempt.relay.host
            attempt.relay = self.sink.share(
                Relay(
                    host, address if isinstance(address, bytes) else None,
                    int(port) if port.isdigit() and len(port) < 6 else None,
                )
            )  # fmt: skip

    def _note(
        self,
        attempt: Attempt,
        source: Source,
        event: bytes,
        description: bytes,
        pairs: Pairs,
        number: int,
        at: int | None,
    ) -> None:
        if event == b"delivery.domain-delivery-start":
            self._flush(attempt)
            attempt.relay, attempt.tls, attempt.sts, attempt.shown = NO_RELAY, UNKNOWN_TLS, False, False
        elif event == b"mta-sts.authorized":
            attempt.sts = pairs.get(b"strict") == b"true"
        elif event == b"dane.authentication-success":
            attempt.tls = self.sink.share(replace(attempt.tls, level=TlsLevel.VERIFIED))
            if attempt.open is not None:
                attempt.open = attempt.open._replace(tls=attempt.tls)
        elif event == b"delivery.start-tls":
            attempt.tls = self.sink.share(
                Tls(
                    TlsLevel.VERIFIED if attempt.sts else TlsLevel.ENCRYPTED,
                    version=tls_version(_text(pairs.get(b"version")) or None),
                    cipher=_text(pairs.get(b"details")) or None,
                )
            )
            self._connect(attempt, source, number, at, attempt.tls, TlsOutcome.OK, None)
        elif event == b"delivery.start-tls-disabled":
            attempt.tls = CLEAR_TLS
            self._connect(attempt, source, number, at, CLEAR_TLS, TlsOutcome.OK, None)
        elif event == b"delivery.start-tls-unavailable":
            said = _reason(b"", pairs).lower()
            refused = bool(said) and b"advertis" not in said and b"support" not in said
            outcome = TlsOutcome.STARTTLS_REFUSED if refused else TlsOutcome.STARTTLS_NOT_SUPPORTED
            attempt.tls = CLEAR_TLS
            text = _reason(description, pairs)
            self._fail(attempt, Failure(number, at, text, outcome, CLEAR_TLS, attempt.relay, *_codes(pairs)))
            self._connect(attempt, source, number, at, CLEAR_TLS, outcome, text)

    def _domain_failed(
        self,
        attempt: Attempt,
        source: Source,
        event: bytes,
        description: bytes,
        pairs: Pairs,
        number: int,
        at: int | None,
        outcome: TlsOutcome | None,
    ) -> None:
        """An event that ends the attempt with a host, for all recipients of the domain."""
        if event == b"delivery.mx-lookup-failed" and b"implicit MX" in _text(pairs.get(b"details")):
            return
        text, cause = _reason(description, pairs), _reason(b"", pairs)
        if outcome is None:
            outcome = _FAILURES.get(event)
        reply, enhanced = _codes(pairs)
        if outcome is None:
            outcome = _outcome(cause, enhanced)
        elif outcome is TlsOutcome.TLS_HANDSHAKE_FAILED:
            outcome = _tls_error(cause)
        if event in _NO_SESSION:
            tls = NO_TLS
        elif attempt.tls.level is not TlsLevel.UNKNOWN:
            tls = attempt.tls
        else:
            tls = tls_of_failure(outcome)
        relay = attempt.relay if event not in _NOT_TRIED else NO_RELAY
        self._fail(
            attempt,
            Failure(number, at, text, outcome, tls, relay, reply, enhanced, event not in _NOT_TRIED),
        )
        if attempt.open is not None:
            if outcome is not TlsOutcome.NOT_TLS:
                attempt.open = attempt.open._replace(outcome=outcome, text=text)
        elif event not in _NOT_TRIED:
            self._connect(attempt, source, number, at, tls, outcome, text)

    def _fail(self, attempt: Attempt, failure: Failure) -> None:
        make_room(attempt.domains, MAX_RECIPIENTS)
        attempt.domains[attempt.domain] = failure

    def _recipient(
        self,
        attempt: Attempt,
        event: bytes,
        description: bytes,
        pairs: Pairs,
        number: int,
        at: int | None,
    ) -> None:
        """An event about one recipient."""
        to = pairs.get(b"to")
        recipient = _address(to) if isinstance(to, bytes) else None
        message = attempt.message
        reply, enhanced = _codes(pairs)
        text = _text(pairs.get(b"details")) or None
        if event == b"delivery.delivered":
            done = Failure(number, at, text, TlsOutcome.OK, attempt.tls, attempt.relay, reply, enhanced)
            self._emit(attempt, recipient, done, Action.DELIVERED, word=b"delivered")
            attempt.domains.pop(attempt.domain, None)
            return
        if event == b"delivery.failed":
            self._expired(attempt, recipient, pairs, number, at)
            return
        if event in (b"delivery.rcpt-to-rejected", b"delivery.rcpt-to-failed"):
            attempt.domains.pop(attempt.domain, None)
            text = _reason(description, pairs)
            outcome = _outcome(_reason(b"", pairs), enhanced)
            tls = attempt.tls if attempt.tls.level is not TlsLevel.UNKNOWN else tls_of_failure(outcome)
            make_room(attempt.results, MAX_RECIPIENTS)
            if recipient is not None:
                attempt.results[recipient] = Failure(
                    number, at, text, outcome, tls, attempt.relay, reply, enhanced
                )
            return
        if recipient is None or recipient in message.done or recipient in attempt.told:
            return
        host = _text(pairs.get(b"hostname")) or None
        if event == b"delivery.dsn-success":
            local = host == b"localhost"
            relay = self.sink.share(Relay(host)) if host and not local else NO_RELAY
            done = Failure(
                number, at, text, TlsOutcome.OK, NO_TLS if local else UNKNOWN_TLS, relay, reply, enhanced
            )
            self._emit(attempt, recipient, done, Action.DELIVERED, b"local" if local else None, b"delivered")
            return
        known = self._known_failure(attempt, recipient)
        if event == b"delivery.dsn-temp-fail":
            if known is not None:
                self._emit(attempt, recipient, known, Action.DELAYED, word=b"dsn-temp-fail")
            return  # else it reminds of an attempt before this one
        if known is None:
            outcome = _outcome(text or b"", enhanced)
            relay = self.sink.share(Relay(host)) if host and host != b"localhost" else NO_RELAY
            known = Failure(number, at, text, outcome, tls_of_failure(outcome), relay, reply, enhanced)
        self._emit(attempt, recipient, known, Action.FAILED, word=b"dsn-perm-fail")

    def _known_failure(self, attempt: Attempt, recipient: bytes) -> Failure | None:
        """What the attempt came to for a recipient: by its own event, else by one of its domain."""
        failure = attempt.results.get(recipient)
        if failure is None and attempt.domains:
            domain = recipient.rpartition(b"@")[2].lower()
            failure = attempt.domains.get(domain) or attempt.domains.get(domain_of(recipient))
            failure = failure or attempt.domains.get(None)
        return failure

    def _expired(
        self, attempt: Attempt, recipient: bytes | None, pairs: Pairs, number: int, at: int | None
    ) -> None:
        """Given up for its age; the last attempt was an earlier one, whose reason stands."""
        pairs.pop(b"details", None)  # the time
        text = _reason(b"", pairs) or None
        last = attempt.message.last.get(recipient) if recipient is not None else None
        outcome = last.outcome if last is not None else _outcome(text or b"", None)
        failure = Failure(number, at, text, outcome, NO_TLS, NO_RELAY, attempted=False)
        self._emit(attempt, recipient, failure, Action.FAILED, word=b"expired")

    def _end(self, attempt: Attempt) -> None:
        """The attempt is over: recipients without a word of their own share that of their domain."""
        self._flush(attempt)
        for recipient, failure in list(attempt.results.items()):
            if recipient not in attempt.message.done:
                self._emit(attempt, recipient, failure, _weight(failure))
        if attempt.domains:
            for one in attempt.to or ():
                recipient = _address(one)
                if recipient in attempt.message.done or recipient in attempt.told:
                    continue
                found = self._known_failure(attempt, recipient)
                if found is not None:
                    self._emit(attempt, recipient, found, _weight(found))
            if attempt.to is None and not attempt.told:
                for failure in attempt.domains.values():
                    self._emit(attempt, None, failure, _weight(failure))
        attempt.domains.clear()
        attempt.results.clear()
        attempt.told.clear()
        attempt.relay, attempt.tls, attempt.sts = NO_RELAY, UNKNOWN_TLS, False

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

    def _connect(
        self,
        attempt: Attempt,
        source: Source,
        number: int,
        at: int | None,
        tls: Tls,
        outcome: TlsOutcome,
        text: bytes | None,
    ) -> None:
        """Note a connection; its row waits for what comes of it."""
        self._flush(attempt)
        attempt.shown = True
        if self.sink.wants_connections and attempt.relay is not NO_RELAY:
            attempt.open = Connection(
                number, at, attempt.origin, source.pid or None, attempt.message.queue_id, attempt.relay,
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


def _reason(description: bytes, pairs: Pairs) -> bytes:
    """The event in words: what it is called, and what it says of its cause."""
    parts = [description] if description else []
    for key in (b"code", b"details", b"reason", b"causedBy"):
        value = _text(pairs.get(key))
        if value and value not in parts:
            parts.append(value)
        parts.extend(_text(inner) for name, inner in pairs.items() if name.startswith(key + b"."))
    return b": ".join(part for part in parts if part)


def _codes(pairs: Pairs) -> tuple[int | None, bytes | None]:
    code = _text(pairs.get(b"code"))
    if not code:
        code = next((_text(value) for key, value in pairs.items() if key.endswith(b".code")), b"")
    texts = [_text(pairs.get(b"details"))]
    texts += [_text(value) for key, value in pairs.items() if key.endswith((b".details", b".reason"))]
    enhanced = next((match[1] for text in texts if (match := _ENHANCED(text))), None)
    return int(code) if _CODE(code) else None, enhanced


def _address(text: bytes) -> bytes:
    return text[1:-1] if text.startswith(b"<") and text.endswith(b">") else text


def _text(value: Any) -> bytes:
    if isinstance(value, list):
        return b", ".join(value)
    return value if isinstance(value, bytes) else b""


def _pairs(text: bytes) -> Pairs:
    """The ``key = value`` list of an event; keys of an event inside another are written ``outer.inner``."""
    pairs: Pairs = {}
    outer: list[bytes] = []
    for match in _PAIR(text):
        key, value, brace = match.groups()
        if len(outer) < 4:
            key = b".".join((*outer, key))
        name = key
        if value.startswith(b'"'):
            pairs.setdefault(name, _plain(value[1:-1]))
        elif value.startswith(b"["):
            pairs.setdefault(name, [_plain(item[1]) for item in _ITEM.finditer(value)])
        else:
            value = value.strip()
            pairs.setdefault(name, b"" if value == b"(null)" else value)
        if brace is None:
            continue
        if brace.endswith(b"{"):
            outer.append(match[1])
            outer = outer[:8]
        elif outer:
            outer.pop()
    return pairs


def _add_json(pairs: Pairs, key: bytes, value: Any, depth: int = 0) -> None:
    if isinstance(value, dict):
        inner = value.get("data") if isinstance(value.get("data"), dict) else value
        if isinstance(inner, dict) and depth < 4:
            for name, one in inner.items():
                _add_json(pairs, key + b"." + name.encode("utf-8", "replace"), one, depth + 1)
    elif isinstance(value, list):
        pairs[key] = [text for one in value if (text := _bytes(one)) is not None]
    elif (text := _bytes(value)) is not None:
        pairs[key] = text


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, (int, float)):
        value = str(value)
    if not isinstance(value, str):
        return None
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair
        return value.encode("utf-8", "replace")


def _plain(text: bytes) -> bytes:
    """A quoted value without its escapes."""
    if b"\\" not in text:
        return text
    return _ESCAPE.sub(
        lambda match: bytes([int(match[1], 16)]) if match[1] else _ESCAPES.get(match[2], match[2]), text
    )
