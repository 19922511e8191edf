"""mox's log: one row for each recipient of an attempt out of its queue, tied to the lines of the same delivery.

Each delivery logs under a number of its own (``cid``), each host that it tries under a second one behind it. The
lines at the level ``info`` tell the end only; TLS is told by lines of the levels ``debug`` and ``trace``.

Notes
-----
The texts are those of ``queue/direct.go``, ``queue/submit.go``, ``queue/dsn.go`` and ``smtpclient/client.go`` of
2023 to 2025 (mox 0.0.1 to 0.0.15).
"""

from __future__ import annotations

import re
from dataclasses import replace

from rtls_analysis.outcomes import Action, RequireTls, TlsLevel, TlsOutcome, Told
from rtls_analysis.read.attempts import CLEAR_TLS, make_room, tls_of_failure, tls_version
from rtls_analysis.read.lines import stamp_end
from rtls_analysis.read.log_rows import (
    NO_RELAY,
    NO_TLS,
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

MAX_ATTEMPTS = 20_000
MAX_PENDING = 100

_HEAD = re.compile(
    rb"l=(?:trace|traceauth|tracedata|debug|info|warn|error|fatal|print) "
    rb"m=(\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|[^ \"]*)(?= |$)"
).match
_PAIR = re.compile(rb" ([A-Za-z][\w.]*)=(\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|[^ ]*)").finditer
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}

_DELIVERED = frozenset({b"delivered from queue", b"delivered from queue with transport"})
_FAILED = {
    b"permanent failure delivering from queue": Action.FAILED,
    b"temporary failure delivering from queue": Action.DELAYED,
    b"temporary failure delivering from queue, sending delayed dsn": Action.DELAYED,
}
_AGAIN_IN_CLEAR = b"connecting again for delivery attempt without tls"
_HANDSHAKES = frozenset({b"starttls client handshake done", b"tls client handshake done"})
_HOST_RESULTS = frozenset({b"queue deliverhost result", b"queue deliversubmit result"})
_DIALS = frozenset({b"delivering to remote", b"dialing for submission"})
_NO_POLICY = (
    b"verified tls is required, but destination has no usable dane records and no mta-sts policy, canceling "
    b"delivery attempt to host"
)
_NO_STS = b"mtasts lookup temporary error, aborting delivery attempt"
_UNVERIFIED_DANE = frozenset(
    {b"no usable dane records, requiring starttls but not verifying with dane",
     b"verifying dane failed, continuing with connection"}
)  # fmt: skip
_REQUIRED_NO = frozenset(
    {b"mx host does not match mta-sts policy in mode enforce, ignoring due to tls-required-no message header",
     b"mtasts lookup temporary error, continuing due to tls-required-no message header"}
)  # fmt: skip
_MAIL_FROM = re.compile(rb"LC: MAIL FROM:<", re.IGNORECASE).match

_GOT = re.compile(rb"STARTTLS: got (\d{3}), expected 220")
_NO_SESSION = re.compile(
    rb"\bdial|lookup|no such host|null mx|does not accept (?:email|mail)|\bmx record|no hosts|ip address|connect:"
)
_NOT_TRIED = re.compile(
    rb"not delivering to recipient address|domain of sender temporarily disabled|cannot find transport"
    rb"|delivery fails due to transport"
)
_LEVELS_OF_MODE = {
    b"skip": TlsLevel.NONE, b"requiredstarttls": TlsLevel.ENCRYPTED, b"immediate": TlsLevel.ENCRYPTED,
    b"strict": TlsLevel.VERIFIED,
}  # fmt: skip


class Attempt:
    """One delivery out of the queue: what its lines have told so far."""

    __slots__ = (
        "clear", "dane_unverified", "inner", "mail", "no_policy", "no_sts", "pending", "policy", "relay", "required_no",
        "shown", "submits", "tls", "wanted",
    )  # fmt: skip

    def __init__(self) -> None:
        self.inner = b""  # the number of the host at hand
        self.relay = NO_RELAY
        self.tls: Tls | None = None
        self.clear = False
        self.policy: bytes | None = None
        self.mail: RequireTls | None = None  # what the MAIL command said
        self.wanted: RequireTls | None = None  # what the message asks for, where it asks for nothing
        self.required_no = Told.UNKNOWN
        self.no_policy = False
        self.no_sts = False  # the policy could not be had
        self.dane_unverified = False
        self.submits = False
        self.pending: list[Connection] = []
        self.shown = False  # there is a connection row for the host at hand

    def next_host(self, inner: bytes) -> None:
        """Another host is tried: what the last one's connection was is not for this one."""
        if inner and inner != self.inner:
            self.inner = inner
            self.tls = self.policy = self.mail = None
            self.clear = self.dane_unverified = self.shown = False


class MoxReader:
    """mox lines to rows, from any number of hosts."""

    name = MailReader.MOX

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.attempts: dict[tuple[bytes, bytes], Attempt] = {}
        self.services: dict[bytes, Service] = {}

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``mox[12]``, and of any tag under which mox logs."""
        if tag != b"mox" and _HEAD(text) is None:
            return None
        return Source(host, tag, pid, feed=self._line)

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """A line that begins with ``l=``, behind a stamp at most."""
        begin = start if line.startswith(b"l=", start) else stamp_end(line, start)
        head = _HEAD(line, begin) if line.startswith(b"l=", begin) else None
        if head is None:
            return False
        self._known(source, line, head, number)
        return True

    def drop(self, source: Source) -> None:
        """Nothing hangs on a process: deliveries have numbers of their own."""

    def finish(self) -> None:
        """Hand over connections whose delivery has no end in the log."""
        for attempt in self.attempts.values():
            self._flush(attempt, None)

    # -- lines ---------------------------------------------------------------------------------------------

    def _line(self, source: Source, line: bytes, start: int, number: int) -> None:
        head = _HEAD(line, start)
        if head is None:
            self.sink.coverage.skip("mox: not of its form", line)
            return
        self._known(source, line, head, number)

    def _known(self, source: Source, line: bytes, head: re.Match[bytes], number: int) -> None:
        message = head[1]
        if message.startswith(b'"'):
            message = message[1:-1]
        action = Action.DELIVERED if message in _DELIVERED else _FAILED.get(message)
        if action is not None:
            self._delivery(source, line, head.end(), number, message, action)
        elif (
            message in _HANDSHAKES
            or message in _HOST_RESULTS
            or message in _DIALS
            or message in _UNVERIFIED_DANE
            or message in _REQUIRED_NO
            or message in (_AGAIN_IN_CLEAR, _NO_POLICY, _NO_STS)
            or _MAIL_FROM(message) is not None
        ):
            self.sink.count("mox attempt")
            self._note(source, line, head.end(), number, message)
        else:
            self.sink.coverage.skip("mox: no end of a delivery", line)

    def _pairs(self, line: bytes, start: int) -> tuple[dict[bytes, bytes], bytes, bytes]:
        """The last value of each key, and the numbers of the delivery and of the host that it tries."""
        pairs: dict[bytes, bytes] = {}
        numbers: list[bytes] = []
        for match in _PAIR(line, start):
            key, value = match.groups()
            if value.startswith(b'"'):
                value = _unquoted(value)
            if key == b"cid":
                numbers.append(value)
            else:
                pairs[key] = value
        outer = numbers[0] if numbers else pairs.get(b"msgid", b"")
        return pairs, outer, numbers[-1] if len(numbers) > 1 else b""

    def _attempt(self, host: bytes, outer: bytes, inner: bytes) -> Attempt:
        key = (host, outer)
        attempt = self.attempts.get(key)
        if attempt is None:
            for old in make_room(self.attempts, MAX_ATTEMPTS):
                self._flush(old, None)
            attempt = Attempt()
            if outer:
                self.attempts[key] = attempt
        attempt.next_host(inner)
        return attempt

    def _service(self, host: bytes) -> Service:
        if (service := self.services.get(host)) is None:
            make_room(self.services, MAX_ATTEMPTS)
            service = self.services[host] = Service()
        return service

    def _note(self, source: Source, line: bytes, start: int, number: int, message: bytes) -> None:
        """A line from within a delivery."""
        pairs, outer, inner = self._pairs(line, start)
        if message in _DIALS:
            attempt = self._attempt(source.host, outer, inner)
            attempt.submits = message != b"delivering to remote"
            attempt.relay = self._relay(pairs, attempt)
            return
        attempt = self._attempt(source.host, outer, inner)
        if message in _HANDSHAKES:
            self._service(source.host).first_tls = self._service(source.host).first_tls or number
            attempt.tls = self.sink.share(_handshake(pairs, attempt))
        elif message in _HOST_RESULTS:
            self._host_result(source, line, number, pairs, attempt, outer)
        elif message == _AGAIN_IN_CLEAR:
            attempt.clear = True
            attempt.tls = None
            wish = pairs.get(b"requiretls")
            attempt.wanted = RequireTls.NOT_REQUESTED if wish in (b"", b"false") else attempt.wanted
            if wish is not None:
                attempt.required_no = Told.YES if wish == b"false" else Told.NO
        elif message == _NO_POLICY:
            attempt.no_policy = True
        elif message in _UNVERIFIED_DANE:
            attempt.dane_unverified = True
        elif message in _REQUIRED_NO:
            attempt.required_no = Told.YES
        elif message == _NO_STS:
            attempt.no_sts = True
        else:
            wish_sent = b" REQUIRETLS" in message.upper()
            attempt.mail = RequireTls.SENT if wish_sent else RequireTls.NOT_REQUESTED

    def _relay(self, pairs: dict[bytes, bytes], attempt: Attempt) -> Relay:
        host = pairs.get(b"host") or pairs.get(b"remote") or attempt.relay.host
        if host is None:
            return attempt.relay
        host = host.rpartition(b"/")[2]  # unicode/ascii
        address = pairs.get(b"remoteip")
        port = pairs.get(b"port", b"")
        number = int(port) if port.isdigit() and len(port) < 6 else None if attempt.submits else 25
        if address in (b"", b"<nil>"):
            address = None
        return self.sink.share(Relay(host, address, number))

    def _host_result(
        self,
        source: Source,
        line: bytes,
        number: int,
        pairs: dict[bytes, bytes],
        attempt: Attempt,
        outer: bytes,
    ) -> None:
        mode = pairs.get(b"tlsmode", b"")
        attempt.relay = self._relay(pairs, attempt)
        attempt.policy = mode + (b"+pkix" if pairs.get(b"tlspkix") == b"true" else b"") + (
            b"+dane" if pairs.get(b"tlsdane") == b"true" else b""
        )  # fmt: skip
        told = pairs.get(b"tlsrequiredno")
        if told is not None:
            attempt.required_no = Told.YES if told == b"true" else Told.NO
        if not self.sink.wants_connections or len(attempt.pending) >= MAX_PENDING:
            return
        error = pairs.get(b"err", b"")
        outcome = TlsOutcome.OK if pairs.get(b"result", b"").startswith(b"ok") else _reason(error, attempt)
        tls = self._tls(source.host, attempt, outcome, outcome is not TlsOutcome.OK and _no_session(error))
        attempt.shown = True
        attempt.pending.append(
            Connection(
                number, self.sink.clock.at(line), self._origin(source), outer or None, None, attempt.relay, tls,
                outcome, False, error or None,
            )
        )  # fmt: skip

    def _origin(self, source: Source) -> Origin:
        return self.sink.share(Origin(self.name, source.host or None))

    def _flush(self, attempt: Attempt, queue_id: bytes | None) -> None:
        for row in attempt.pending:
            self.sink.connect(row._replace(queue_id=queue_id))
        attempt.pending.clear()

    # -- rows ----------------------------------------------------------------------------------------------

    def _delivery(
        self, source: Source, line: bytes, start: int, number: int, message: bytes, action: Action
    ) -> None:
        """The end of an attempt for one recipient."""
        sink = self.sink
        pairs, outer, inner = self._pairs(line, start)
        recipient = pairs.get(b"recipient")
        sink.count("mox delivery")
        attempt = self._attempt(source.host, outer, inner)
        transport = pairs.get(b"transport") or None
        text = pairs.get(b"err") or None
        at, origin, queue_id = sink.clock.at(line), self._origin(source), pairs.get(b"msgid")
        reply, enhanced = _codes(pairs, action)
        if action is Action.DELIVERED:
            outcome, attempted, session = TlsOutcome.OK, True, True
            word = b"delivered"
        else:
            outcome = _reason(text or b"", attempt)
            attempted = _NOT_TRIED.search(text or b"") is None
            session = attempted and not _no_session(text or b"")
            word = message.partition(b" delivering")[0]
        relay = attempt.relay if session or attempted else NO_RELAY
        tls = self._tls(source.host, attempt, outcome, not session)
        if text is not None and action is not Action.DELIVERED:
            tls = self._wish_of_failure(tls, text, attempt)
        result = sink.share(Result(action, outcome, word, enhanced, reply, attempted))
        sink.deliver(
            Delivery(
                number, at, origin, queue_id, None, pairs.get(b"from"), _address(recipient), relay, transport, result,
                text, None, tls,
            )
        )  # fmt: skip
        if sink.wants_connections:
            self._flush(attempt, queue_id)
            if not attempt.shown and attempted and tls.level is not None:
                attempt.shown = True
                sink.connect(
                    Connection(number, at, origin, outer or None, queue_id, relay, tls, outcome, False, text)
                )

    def _tls(self, host: bytes, attempt: Attempt, outcome: TlsOutcome, no_session: bool) -> Tls:
        """What the lines of the delivery tell of its connection."""
        service = None
        if attempt.tls is not None and not no_session:
            tls = attempt.tls
        elif no_session and outcome is not TlsOutcome.OK:
            tls = tls_of_failure(outcome, NO_TLS)
        elif attempt.clear:
            tls = CLEAR_TLS
        else:
            level, service = TlsLevel.UNKNOWN, self._service(host)
            if attempt.policy is not None and outcome is TlsOutcome.OK:
                mode, _plus, checks = attempt.policy.partition(b"+")
                level = _LEVELS_OF_MODE.get(mode, TlsLevel.UNKNOWN)
                if checks and level is TlsLevel.ENCRYPTED and not attempt.dane_unverified:
                    level = TlsLevel.VERIFIED if attempt.required_no is not Told.YES else level
            tls = tls_of_failure(outcome, Tls(level))
            service = service if tls.level is TlsLevel.UNKNOWN else None
        wish = attempt.mail or attempt.wanted or RequireTls.UNKNOWN
        sent = wish is RequireTls.SENT
        return self.sink.share(
            replace(
                tls, policy=attempt.policy or None, requiretls=wish, required_no=attempt.required_no, service=service,
                violated=False if sent else None, strict=Told.YES if sent else None,
            )
        )  # fmt: skip

    def _wish_of_failure(self, tls: Tls, text: bytes, attempt: Attempt) -> Tls:
        """What a failure tells of REQUIRETLS: mox says so only where the wish was what failed."""
        lower = text.lower()
        if b"missing required tls verification mechanism" in lower or b"requires verified tls" in lower:
            word, level = RequireTls.NO_CERTIFICATE_MATCH, tls.level
        elif b"does not implement requiretls" in lower:  # asked for only over verified TLS
            word, level = RequireTls.NOT_OFFERED, TlsLevel.VERIFIED
        elif b"do not support requiretls" in lower:
            word = RequireTls.NO_CERTIFICATE_MATCH if attempt.no_policy else RequireTls.NOT_OFFERED
            level = tls.level if attempt.no_policy else TlsLevel.VERIFIED
        else:
            return tls
        return self.sink.share(replace(tls, level=level, requiretls=word, violated=True, service=None))


def _handshake(pairs: dict[bytes, bytes], attempt: Attempt) -> Tls:
    mode = pairs.get(b"tlsmode")
    verified = (
        b"true" in (pairs.get(b"verifypkix"), pairs.get(b"verifydane")) or mode == b"strict"
    ) and pairs.get(b"ignoretlsverifyerrors") != b"true"
    return Tls(
        TlsLevel.VERIFIED if verified and not attempt.dane_unverified else TlsLevel.ENCRYPTED,
        version=tls_version(pairs.get(b"tls") or pairs.get(b"version")),
        cipher=pairs.get(b"ciphersuite") or None,
    )


def _reason(text: bytes, attempt: Attempt) -> TlsOutcome:
    if got := _GOT.search(text):
        known = 500 <= int(got[1]) <= 504
        return TlsOutcome.STARTTLS_NOT_SUPPORTED if known else TlsOutcome.STARTTLS_REFUSED
    outcome = classify(readable(text), None)
    if attempt.no_policy and outcome is TlsOutcome.REQUIRETLS_NOT_SUPPORTED:
        return TlsOutcome.MX_UNAUTHENTICATED
    if attempt.no_sts:
        return TlsOutcome.STS_POLICY_FETCH_ERROR
    return outcome


def _no_session(error: bytes) -> bool:
    return _NO_SESSION.search(error) is not None


def _codes(pairs: dict[bytes, bytes], action: Action) -> tuple[int | None, bytes | None]:
    """Reply code and enhanced code; the log leaves out the first digit of the latter."""
    text, short = pairs.get(b"code", b""), pairs.get(b"secode", b"")
    code = int(text) if len(text) == 3 and text.isdigit() else None
    if not short or not short.replace(b".", b"").isdigit():
        return code, None
    digit = text[:1] if code is not None else b"5" if action is Action.FAILED else b"4"
    return code, digit + b"." + short


def _address(text: bytes | None) -> bytes | None:
    """A logged address: one with a domain beyond ASCII stands there twice, as ``a@ü.test/a@xn--tda.test``."""
    if text is None or b"/" not in text:
        return text
    one, _slash, two = text.partition(b"/")
    return one if two and b"@" in one and two.startswith(one.rpartition(b"@")[0] + b"@xn--") else text


def _unquoted(value: bytes) -> bytes:
    """A Go string as ``%q`` writes it."""
    text = value[1:-1]
    if b"\\" not in text:
        return text

    def plain(match: re.Match[bytes]) -> bytes:
        byte, short, long, other = match.groups()
        if byte is not None:
            return bytes([int(byte, 16)])
        if other is not None:
            return _ESCAPES.get(other, other)
        number = int(short or long, 16)
        return chr(min(number, 0x10FFFF)).encode("utf-8", "replace")

    return _ESCAPE.sub(plain, text)
