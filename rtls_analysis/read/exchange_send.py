"""Exchange's SmtpSend protocol log: the dialogue of each session, and what it says of each recipient.

Lines of sessions interleave; each has its session's id. Commands wait for their replies in order, for several may be
sent at once. An SmtpReceive log has the same columns, but there the commands come in; it gives nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from rtls_analysis.outcomes import Action, TlsLevel, TlsOutcome
from rtls_analysis.read.attempts import BAD_CERTIFICATE, CLEAR_TLS, make_room, tls_of_failure, tls_version
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
    Tls,
    readable,
)
from rtls_analysis.read.tls_reasons import classify
from rtls_analysis.schema import MailReader

MAX_SESSIONS = 10_000
MAX_RECIPIENTS = 10_000  # of one session
MAX_TEXT = 4_000

_SESSION_ID = re.compile(rb"[0-9A-Fa-f]{14,16}").fullmatch
_REPLY = re.compile(rb"(\d{3})([- ]|$)").match
_ENHANCED = re.compile(rb"\d{3}[- ]([245]\.\d{1,3}\.\d{1,3})(?![\d.])").match
_NEGOTIATED = re.compile(
    rb"TLS protocol (\w+) negotiation succeeded(?: using bulk encryption algorithm (\S+)"
    rb"(?: \([^)]*\))? with strength (\d{1,5}) bits)?"
).search
_MESSAGE = re.compile(
    rb"sending message with RecordId (\d{1,20})(?: and InternetMessageId <?([^<>\s]*)>?)?", re.IGNORECASE
).search
_VERIFIED = re.compile(rb"(?:Secure domain|SmartHost|DirectTrust) certificate", re.IGNORECASE).search
_PATH = re.compile(rb"(?:MAIL FROM|RCPT TO):\s?<([^<>]*)>", re.IGNORECASE).match
_PROBLEMS = (
    (re.compile(r"nocredentials|unknowncredentials|cipher strength is too weak"), TlsOutcome.LOCAL_POLICY),
    (re.compile(r"subjectmismatch|wrongprincipal|name mismatch"), TlsOutcome.CERTIFICATE_HOST_MISMATCH),
    (re.compile(r"cert(?:ificate)?_?expired"), TlsOutcome.CERTIFICATE_EXPIRED),
    (re.compile(r"untrustedroot|partialchain|untrusted root"), TlsOutcome.CERTIFICATE_NOT_TRUSTED),
    (re.compile(r"remote (?:server )?doesn't support tls"), TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (re.compile(r"tls configuration requires tls before mailfrom"), TlsOutcome.STARTTLS_NOT_SUPPORTED),
    (re.compile(r"certificate validation failure|tls authentication failed"), TlsOutcome.CERTIFICATE_UNVERIFIED),
    (re.compile(r"algorithmmismatch|unsupportedprotocol"), TlsOutcome.TLS_VERSION_TOO_LOW),
    (re.compile(r"tls negotiation failed"), TlsOutcome.TLS_HANDSHAKE_FAILED),
)  # fmt: skip
_PROBLEM = re.compile(
    rb"TLS negotiation failed|TLS authentication failed|doesn't support TLS|could not achieve it"
    rb"|cipher strength is too weak|certificate validation failure|Failed to connect|Chain validation",
    re.IGNORECASE,
).search
_GREETINGS = frozenset({b"GREETING", b"EHLO", b"HELO"})
NOTHING = frozenset({TlsOutcome.NOT_TLS, TlsOutcome.UNKNOWN})


class Session:
    """One session of an SmtpSend log: the commands that wait for a reply, and the message at hand."""

    __slots__ = (
        "address", "at", "connector", "host", "message_id", "number", "open", "origin", "outcome", "pending",
        "queue_id", "reached", "refused", "sender", "session_id", "started", "starting", "text", "tls",
    )  # fmt: skip

    def __init__(self, session_id: bytes, origin: Origin, number: int, at: int | None) -> None:
        self.session_id = session_id
        self.origin = origin
        self.number, self.at = number, at
        self.connector: bytes | None = None
        self.address = NO_RELAY
        self.host: bytes | None = None
        self.started = False  # seen from its first line on
        self.starting = False  # after STARTTLS, before the handshake's end
        self.pending: list[tuple[bytes, bytes]] = []  # command word, and the recipient of RCPT
        self.tls: Tls | None = None
        self.outcome = TlsOutcome.OK
        self.text: bytes | None = None
        self.reached = False
        self.sender: bytes | None = None
        self.refused: bytes | None = None  # the reply to MAIL, where it was no
        self.open: dict[bytes, None] = {}  # recipients without their end
        self.queue_id: bytes | None = None
        self.message_id: bytes | None = None


class SendLog:
    """Lines of SmtpSend logs to rows; `give` takes each with the id of the session in which it was sent, if it was."""

    def __init__(self, sink: Sink, give: Callable[[bytes, Delivery], None]) -> None:
        self.sink = sink
        self.give = give
        self.receives = False  # the lines at hand are of an SmtpReceive log
        self.sessions: dict[bytes, Session] = {}

    def finish(self) -> None:
        """Hand over the connections whose end is not in the log; their recipients may still get a reply."""
        for session in self.sessions.values():
            self._close(session)
        self.sessions.clear()

    def line(self, fields: Sequence[bytes], at: int | None, line: bytes, number: int) -> bool:
        """Handle a line of eight or nine fields; `False`: it is not one of these logs."""
        connector, session_id, sequence, _local, remote, event, data = fields[1:8]
        context = fields[8] if len(fields) > 8 else b""
        if not _SESSION_ID(session_id):
            return False
        session_id = session_id.upper()
        session = self.sessions.get(session_id)
        if data and event in (b">", b"<"):
            self.receives = (event == b">") == (_REPLY(data) is not None)  # there, the replies go out
            if self.receives:
                self.sessions.pop(session_id, None)
                session = None
        if self.receives and session is None:
            self.sink.coverage.skip("exchange: SmtpReceive, no delivery", line)
            return True
        self.sink.count("exchange protocol line")
        begins = int(sequence) == 0
        if session is None or begins:
            session = self._begin(session_id, number, at, whole=begins or event == b"+")
        session.connector = connector or session.connector
        if remote:
            session.address = _endpoint(remote)
        if event == b">":
            self._command(session, data.strip() or context.strip())
        elif event == b"<":
            self._reply(session, data.strip(), number, at)
        elif event == b"*":
            self._remark(session, (data + b" " + context).strip())
        elif event == b"-":
            session.number, session.at = number, at
            self.sessions.pop(session_id, None)
            self._unfinished(session, context.strip() or data.strip() or None)
            self._close(session)
        return True

    def _begin(self, session_id: bytes, number: int, at: int | None, *, whole: bool) -> Session:
        old = self.sessions.pop(session_id, None)
        for one in [*([old] if old is not None else []), *make_room(self.sessions, MAX_SESSIONS)]:
            self._close(one)
        session = Session(session_id, self.sink.share(Origin(MailReader.EXCHANGE)), number, at)
        session.started = whole
        if whole:
            session.pending.append((b"GREETING", b""))
        self.sessions[session_id] = session
        return session

    def _command(self, session: Session, text: bytes) -> None:
        words = text.split(None, 2)
        word = words[0].upper() if words else b""
        recipient = b""
        if word in (b"EHLO", b"HELO") and len(words) > 1:
            session.origin = self.sink.share(Origin(MailReader.EXCHANGE, words[1]))
        elif word == b"MAIL" and (path := _PATH(text)) is not None:
            self._unfinished(session)
            session.sender, session.refused = path[1], None
        elif word == b"RCPT" and (path := _PATH(text)) is not None:
            recipient = path[1]
            if len(session.open) < MAX_RECIPIENTS:
                session.open[recipient] = None
        elif word == b"BDAT":
            word = b"END" if text.upper().endswith(b" LAST") else b"CHUNK"
        elif word == b"AUTH" or not word.isalpha():
            return  # its replies are not logged one for one
        if len(session.pending) > 2 * MAX_RECIPIENTS:
            session.pending.clear()
        session.pending.append((word, recipient))

    def _reply(self, session: Session, text: bytes, number: int, at: int | None) -> None:
        match = _REPLY(text)
        if match is None:
            return
        if session.host is None and session.pending and session.pending[0][0] in _GREETINGS:
            words = text[4:].split(None, 1)
            if words and b"." in words[0]:
                session.host = words[0].rstrip(b",;")
        if match[2] == b"-":
            return
        code = int(match[1])
        session.number, session.at, session.reached = number, at, True
        session.text = text
        if not session.pending or code in (334, 235):
            return
        word, recipient = session.pending.pop(0)
        if word in (b"STARTTLS", b"X-ANONYMOUSTLS"):
            session.starting = code == 220
            if code >= 400:
                session.outcome = TlsOutcome.STARTTLS_REFUSED
        elif word == b"MAIL" and code >= 400:
            session.refused = text
            if (outcome := reason(text, None)) not in NOTHING:
                session.outcome = outcome
        elif word == b"RCPT" and code >= 400:
            session.open.pop(recipient, None)
            self._row(session, recipient, session.refused or text, number, at)
        elif word == b"DATA" and code == 354:
            session.pending.insert(0, (b"END", b""))
        elif word == b"RSET":
            self._unfinished(session)
        elif word in (b"END", b"DATA") or (word == b"CHUNK" and code >= 400):
            for one in session.open:
                self._row(session, one, text, number, at)
            session.open.clear()
            session.queue_id = session.message_id = None

    def _remark(self, session: Session, text: bytes) -> None:
        if (match := _MESSAGE(text)) is not None:
            session.queue_id, session.message_id = match[1], match[2] or None
            return
        if (match := _NEGOTIATED(text)) is not None:
            protocol, cipher, bits = match.groups()
            session.starting = False
            session.tls = self.sink.share(
                Tls(TlsLevel.ENCRYPTED, None, tls_version(protocol), cipher, int(bits) if bits else None)
            )
            return
        if _VERIFIED(text) is not None and session.tls is not None:
            session.tls = self.sink.share(replace(session.tls, level=TlsLevel.VERIFIED))
        if _PROBLEM(text) is not None:
            outcome = reason(text, None)
            session.text = text[:MAX_TEXT]
            if outcome not in NOTHING:
                session.outcome = outcome
            if outcome in BAD_CERTIFICATE or session.tls is None:
                session.starting = False

    def _close(self, session: Session) -> None:
        """The session is over, or the log of it: the connection gets its row."""
        if session.starting and session.outcome is TlsOutcome.OK:
            session.outcome = TlsOutcome.TLS_HANDSHAKE_FAILED
        if not self.sink.wants_connections:
            return
        outcome, tls = session.outcome, session.tls
        if tls is None:
            tls = tls_of_failure(outcome, self._untold(session))
            if not session.reached and outcome is TlsOutcome.OK:
                outcome, tls = TlsOutcome.NOT_TLS, NO_TLS
        self.sink.connect(
            Connection(
                session.number, session.at, session.origin, session.session_id, session.queue_id,
                self.sink.share(replace(session.address, host=session.host)), self.sink.share(tls), outcome, False,
                session.text,
            )
        )  # fmt: skip

    def _unfinished(self, session: Session, text: bytes | None = None) -> None:
        """Recipients whose message has no reply: they will be tried again."""
        if session.text is not None and not session.text.startswith((b"2", b"3")):
            text = session.text
        for one in session.open:
            self._row(session, one, session.refused or text, session.number, session.at)
        session.open.clear()

    def _untold(self, session: Session) -> Tls:
        """A session without a line about TLS: in cleartext where the log has it from its start."""
        if session.outcome is TlsOutcome.STARTTLS_REFUSED:
            return CLEAR_TLS
        return CLEAR_TLS if session.started else UNKNOWN_TLS

    def _row(
        self, session: Session, recipient: bytes, text: bytes | None, number: int, at: int | None
    ) -> None:
        reply = _REPLY(text) if text is not None else None
        code = int(reply[1]) if reply is not None else None
        action, outcome = Action.DELAYED, TlsOutcome.OK
        if code is not None and 200 <= code < 300:
            action = Action.DELIVERED
        elif code is not None and code >= 500:
            action = Action.FAILED
        match = _ENHANCED(text) if text is not None else None
        enhanced = match[1] if match is not None else None
        if action is not Action.DELIVERED:
            outcome = reason(text or b"", enhanced)
            if outcome in NOTHING and session.outcome is not TlsOutcome.OK:
                outcome = session.outcome
        tls = session.tls or tls_of_failure(outcome, self._untold(session))
        row = Delivery(
            number, at, session.origin, session.queue_id, session.message_id, session.sender, recipient or None,
            self.sink.share(replace(session.address, host=session.host)), session.connector,
            self.sink.share(Result(action, outcome, None, enhanced, code)), text, None, self.sink.share(tls),
        )  # fmt: skip
        sent = action is Action.DELIVERED
        if sent:
            session.outcome = TlsOutcome.OK  # it went, if only without TLS
        self.give(session.session_id if sent else b"", row)


def reason(text: bytes, enhanced: bytes | None) -> TlsOutcome:
    """Why it failed, by Exchange's own words, else by any server's."""
    plain = readable(text[:MAX_TEXT])
    lower = plain.lower()
    for pattern, outcome in _PROBLEMS:
        if pattern.search(lower):
            return outcome
    return classify(plain, readable(enhanced) if enhanced else None)


def _endpoint(text: bytes) -> Relay:
    address, _colon, port = text.rpartition(b":")
    if not address or not port.isdigit() or len(port) > 5:
        return Relay(address=text.strip(b"[]").lower())
    return Relay(address=address.strip(b"[]").lower(), port=int(port))
