"""qmail's log, of netqmail, notqmail and their forks: one row for each ``delivery N: success|deferral|failure``.

Message, sender and recipient stand in earlier lines, tied by the numbers of the message and of the delivery; both
are used again. The log has its own stamps (multilog's TAI64N, or what tai64nlocal made of it), or goes through
splogger to syslog. TLS shows in the text of a result only, and only where a patch or a fork writes it.

Notes
-----
The texts are those of ``qmail-send.c`` and ``qmail-remote.c`` of notqmail (1.08 to 1.09), and of the TLS code of the
patches by Vermeulen and Bonanno and of indimail. In them, spaces are underscores and a slash ends a line.
"""

from __future__ import annotations

import re

from rtls_analysis.outcomes import Action, TlsLevel, TlsOutcome
from rtls_analysis.read.attempts import BAD_CERTIFICATE, make_room, tls_of_failure, tls_version
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
    readable,
)
from rtls_analysis.read.tls_reasons import classify
from rtls_analysis.schema import MailReader

MAX_MESSAGES = 100_000
MAX_DELIVERIES = 20_000

_TAGS = frozenset({b"qmail", b"qmail-send", b"notqmail", b"notqmail-send"})

_EPOCH = re.compile(rb"(\d{9,11})\.(\d{6}) ").match
_REST = re.compile(rb"\d{9,11}\.\d{6}\+").match  # of a line that was too long for splogger
_QUEUE = rb"(?: (queue\w{0,20}))?\s*"
_RESULT = re.compile(rb"delivery (\d{1,10}): (success|deferral|failure): (\S*)" + _QUEUE).fullmatch
_MANGLED = re.compile(rb"delivery (\d{1,10}): (report mangled), (will defer)" + _QUEUE).fullmatch
_START = re.compile(
    rb"starting delivery (\d{1,10}): msg (\d{1,20}) to (local|remote) (\S*)" + _QUEUE
).fullmatch
_INFO = re.compile(
    rb"info msg (\d{1,20}): bytes \d{1,20} from <(.*)> qp \d{1,10} uid \d{1,10}" + _QUEUE, re.DOTALL
).fullmatch
_END = re.compile(rb"end msg (\d{1,20})" + _QUEUE).fullmatch
_OTHER = re.compile(
    rb"(?:new msg \d{1,20}|bounce msg \d{1,20} qp \d{1,10}|triple bounce: discarding bounce/\d{1,20}"
    rb"|status: (?:local \d{1,5}/\d{1,5} remote \d{1,5}/\d{1,5}|exiting)[^\n]{0,80})" + _QUEUE
).fullmatch

_IP = rb"((?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f.]{0,15}){2,8})"
_RELAY = (
    re.compile(rb"(?<![0-9A-Fa-f.:])" + _IP + rb"_(?:accepted_|does_not_like_|failed_)").search,
    re.compile(rb"(?:onnected_to|onnecting_to|Giving_up_on)_" + _IP).search,
)
_SAID = re.compile(rb"Remote_host_said:_(\d{3})(?:[_-]([245]\.\d{1,3}\.\d{1,3})(?!\d))?").search
_HASH = re.compile(rb"\(#([245]\.\d{1,3}\.\d{1,3})\)").search
_ADDRESSES = re.compile(rb"<From:([^<>]{0,1000}?)_To:([^<>]{0,1000}?)>_").match
_DID = re.compile(rb"did_(\d{1,5})\+(\d{1,5})\+(\d{1,5})/").match
_SESSION = re.compile(
    rb"Remote_host_said|onnected_to_|onnecting_to_|_accepted_|does_not_like_|_failed_on_|_failed_after_|Giving_up_on_"
    rb"|TLS|DANE"
).search
_PROTOCOL = re.compile(rb"STARTTLS_proto=([\w./]{1,20}?);_cipher=([\w-]{1,60}?);").search
_IN_BRACKETS = re.compile(rb"\((TLSv1(?:\.[0-3])?(?:/SSLv3)?|SSLv3)[_,:]([^()]{0,80})\)").search
_CIPHER = re.compile(rb"(?<![A-Z0-9])[A-Z0-9]{2,}(?:[-_][A-Z0-9]+)+").search

# Texts of the TLS code, spaces put back; classify knows the words of OpenSSL that some of them quote.
_TEXTS = (
    (re.compile(r"no tls achieved while|tls not available"), TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (re.compile(r"starttls rejected while"), TlsOutcome.STARTTLS_REFUSED),
    (re.compile(r"received certificate for|no matching dnsname|no valid commonname"),
     TlsOutcome.CERTIFICATE_HOST_MISMATCH),
    (re.compile(r"unable to fetch tlsa"), TlsOutcome.DNSSEC_INVALID),
    (re.compile(r"tls error initializing|tls unable to (?:load|set|initiali[sz]e)"), TlsOutcome.LOCAL_POLICY),
)  # fmt: skip
_UNVERIFIED = re.compile(r"tls unable to verify server[^:]{0,300}:(.*)", re.DOTALL)
_CONNECT = re.compile(r"tls connect failed")
_NOTHING = frozenset({TlsOutcome.NOT_TLS, TlsOutcome.UNKNOWN})
_ACTIONS = {b"success": Action.DELIVERED, b"deferral": Action.DELAYED, b"failure": Action.FAILED}

Instance = tuple[bytes, bytes, bytes]  # host, tag, queue


class QmailReader:
    """qmail-send's lines to rows, from any number of instances and hosts."""

    name = MailReader.QMAIL

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.senders: dict[tuple[Instance, bytes], bytes] = {}
        self.deliveries: dict[tuple[Instance, bytes], tuple[bytes, bytes, bytes]] = {}

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``qmail``, under which splogger writes without a process number."""
        return Source(host, tag, pid, feed=self._line) if tag in _TAGS else None

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """A line of qmail-send behind its stamp, if any."""
        begin = stamp_end(line, start)
        if begin == start and (match := _EPOCH(line, start)) is not None:
            begin = match.end()
        return self._own(source, line, start, begin, number)

    def drop(self, source: Source) -> None:
        """Nothing hangs on a process: there is one qmail-send."""

    def finish(self) -> None:
        """Nothing is held back: a delivery without a result may still be under way."""

    # -- lines ---------------------------------------------------------------------------------------------

    def _line(self, source: Source, line: bytes, start: int, number: int) -> None:
        if self.raw(source, line, start, number):
            return
        rest = _REST(line, start) is not None
        self.sink.coverage.skip("qmail: rest of a long line" if rest else "qmail: no end of a delivery", line)

    def _own(self, source: Source, line: bytes, start: int, begin: int, number: int) -> bool:
        sink = self.sink
        if line.startswith(b"delivery ", begin):
            match = _RESULT(line, begin) or _MANGLED(line, begin)
            if match is None:
                return False
            sink.count("qmail delivery")
            self._result(source, line, self._at(line, start, begin), number, match)
        elif line.startswith(b"starting delivery ", begin):
            if (match := _START(line, begin)) is None:
                return False
            sink.count("qmail delivery begun")
            make_room(self.deliveries, MAX_DELIVERIES)
            delivery, message, kind, recipient, queue = match.groups()
            self.deliveries[(source.host, source.tag, queue or b""), delivery] = (message, kind, recipient)
        elif line.startswith(b"info msg ", begin):
            if (match := _INFO(line, begin)) is None:
                return False
            sink.count("qmail message")
            make_room(self.senders, MAX_MESSAGES)
            self.senders[(source.host, source.tag, match[3] or b""), match[1]] = match[2]
        elif (match := _END(line, begin)) is not None:
            sink.count("qmail message")
            self.senders.pop(((source.host, source.tag, match[2] or b""), match[1]), None)
        elif line.startswith((b"new msg ", b"bounce msg ", b"triple bounce", b"status: "), begin) and _OTHER(
            line, begin
        ):
            sink.coverage.skip("qmail: no end of a delivery", line)
        else:
            return False
        return True

    def _at(self, line: bytes, start: int, begin: int) -> int | None:
        """The time of the innermost stamp; syslog's is that of splogger's writing."""
        if begin > start and (match := _EPOCH(line, start)) is not None:
            return int(match[1]) * 1_000_000 + int(match[2])
        return self.sink.clock.at(line[start:] if begin > start else line)

    # -- rows ----------------------------------------------------------------------------------------------

    def _result(
        self, source: Source, line: bytes, at: int | None, number: int, match: re.Match[bytes]
    ) -> None:
        sink = self.sink
        delivery, word, text, queue = match.groups()
        instance = (source.host, source.tag, queue or b"")
        begun = self.deliveries.pop((instance, delivery), None)
        sender = message = recipient = kind = None
        if begun is not None:
            message, kind, recipient = begun
            sender = self.senders.get((instance, message))
        else:  # the log begins in the middle
            if _DID(text):
                kind = b"local"
            elif _SESSION(text):
                kind = b"remote"
        if (told := _ADDRESSES(text)) is not None:
            sender = told[1] if sender is None else sender
            recipient = told[2] if recipient is None else recipient
        action = _ACTIONS.get(word, Action.DELAYED)
        said, hashed = _SAID(text), _HASH(text)
        enhanced = (said[2] if said else None) or (hashed[1] if hashed else None)
        relay, tls, outcome = NO_RELAY, NO_TLS, TlsOutcome.OK
        if kind == b"local":
            did = _DID(text)
            if action is not Action.DELIVERED:
                outcome = TlsOutcome.NOT_TLS
            elif did is not None and not int(did[1]) and not int(did[3]) and int(did[2]):
                action = Action.EXPANDED
        else:
            relay = self._relay(text)
            if action is not Action.DELIVERED:
                outcome = _reason(text, enhanced)
            tls = sink.share(_tls(text, action, outcome))
        result = sink.share(
            Result(action, outcome, word, enhanced, int(said[1]) if said and said[1] >= b"200" else None)
        )
        origin = sink.share(Origin(self.name, source.host or None))
        sink.deliver(
            Delivery(
                number, at, origin, message, None, sender, recipient, relay, kind, result, text or None, None, tls
            )
        )  # fmt: skip
        if sink.wants_connections and tls.level is not None:
            sink.connect(Connection(number, at, origin, None, message, relay, tls, outcome, False, text))

    def _relay(self, text: bytes) -> Relay:
        for search in _RELAY:
            if (match := search(text)) is not None:
                return self.sink.share(Relay(address=match[1].rstrip(b".").lower()))
        return NO_RELAY


def _reason(text: bytes, enhanced: bytes | None) -> TlsOutcome:
    """Why a remote delivery failed."""
    plain = readable(text).replace("_", " ")
    lower = plain.lower()
    for pattern, outcome in _TEXTS:
        if pattern.search(lower):
            return outcome
    unverified = _UNVERIFIED.search(lower)
    if unverified is not None:
        outcome = classify(unverified[1], None)
        return outcome if outcome in BAD_CERTIFICATE else TlsOutcome.CERTIFICATE_UNVERIFIED
    outcome = classify(plain, readable(enhanced) if enhanced else None)
    if _CONNECT.search(lower) and outcome in _NOTHING:
        return TlsOutcome.TLS_HANDSHAKE_FAILED
    return outcome


def _tls(text: bytes, action: Action, outcome: TlsOutcome) -> Tls:
    """What the text of a remote delivery says of its session."""
    if (match := _PROTOCOL(text)) is not None:
        return Tls(TlsLevel.ENCRYPTED, version=tls_version(match[1]), cipher=match[2])
    if (match := _IN_BRACKETS(text)) is not None:
        cipher = _CIPHER(match[2])
        return Tls(TlsLevel.ENCRYPTED, version=tls_version(match[1]), cipher=cipher[0] if cipher else None)
    if outcome is TlsOutcome.LOCAL_POLICY:
        return UNKNOWN_TLS
    return tls_of_failure(outcome, UNKNOWN_TLS if action is Action.DELIVERED or _SESSION(text) else NO_TLS)
