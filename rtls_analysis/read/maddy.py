"""maddy's log: one row for each recipient of an attempt out of a queue, from lines that end in a JSON object.

A failure is written before its weight is known: ``not delivered, permanent error`` or ``will retry`` follows. A
success has no word about TLS; what was given up on the way to it has: ``trying without authentication`` and
``trying plaintext``.

Notes
-----
The texts are those of ``internal/target/queue``, ``internal/target/remote`` and ``framework/log`` of maddy 0.4 to
0.9, spelling mistakes included.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from rtls_analysis.outcomes import Action, RequireTls, TlsLevel, TlsOutcome
from rtls_analysis.read.attempts import (
    BAD_CERTIFICATE,
    CLEAR_TLS,
    ENCRYPTED_TLS,
    NEVER_ENCRYPTED,
    make_room,
    tls_of_failure,
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
from rtls_analysis.read.tls_reasons import classify
from rtls_analysis.schema import MailReader

MAX_MESSAGES = 100_000
MAX_NOTES = 50_000
MAX_HELD = 100_000  # failures without their weight, of all messages

_WANTED = (
    rb"delivered|delivery attempt failed|not delivered, permanent error|will retry|generated failed DSN"
    rb"|TLS verify error, trying without authentication|TLS error, trying plaintext|cannot use MX"
    rb"|reusing cached connection|incoming message|connected"
)
_LINE = re.compile(
    rb"(?:\[debug\] )?(?:[\w./-]+: )?(?:(" + _WANTED + rb")(?:[ \t]+|#011)|[^\t{]*(?:\t|#011))(\{.*\})\s*$",
    re.DOTALL,
).match
_FORM = re.compile(rb"(?:\[debug\] )?[\w./-]+: [^\t]").match
_ATTEMPT = re.compile(r"-[0-9a-f]{6,12}$")
_ADDRESS = re.compile(rb"\[?([0-9a-fA-F.:]*[0-9a-fA-F])\]?:(\d{1,5})").fullmatch
_OWN_WEIGHT = re.compile(rb"REQUIRETLS\)|not support REQUIRETLS")
_NO_SESSION = re.compile(rb"MX lookup error|null MX|lookup |no such host|DNS error|dial tcp|i/o timeout")
_LEVELS: dict[Any, TlsLevel] = {
    "none": TlsLevel.NONE, "encrypted": TlsLevel.ENCRYPTED, "authenticated": TlsLevel.TRUSTED,
    0: TlsLevel.NONE, 1: TlsLevel.ENCRYPTED, 2: TlsLevel.TRUSTED,
}  # fmt: skip
_NOTHING = frozenset({TlsOutcome.NOT_TLS, TlsOutcome.UNKNOWN})


class Message:
    """A message: who sent it, and failures whose weight is not known yet."""

    __slots__ = ("held", "sender")

    def __init__(self) -> None:
        self.sender: bytes | None = None
        self.held: dict[bytes, Delivery] = {}


class Note:
    """What became of TLS on the way to one domain with one message."""

    __slots__ = ("outcome", "relay", "shown", "tls")

    def __init__(self) -> None:
        self.relay = NO_RELAY
        self.tls = UNKNOWN_TLS
        self.outcome = TlsOutcome.OK
        self.shown = False


class MaddyReader:
    """maddy lines to rows, from any number of hosts."""

    name = MailReader.MADDY

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.messages: dict[tuple[bytes, str], Message] = {}
        self.notes: dict[tuple[bytes, str, bytes | None], Note] = {}
        self.held = 0

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``maddy[12]``."""
        return Source(host, tag, pid, feed=self._line) if tag == b"maddy" else None

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """A line of the own form, with or without its stamp: name, text, JSON object."""
        if not line.endswith((b"}", b"} ", b"}\r")):
            return False
        begin = stamp_end(line, start)
        match = _LINE(line, begin)
        if match is None or (match[1] is None and _FORM(line, begin) is None):
            return False
        fields = _fields(match[2])
        if fields is None or (match[1] is not None and not _fits(match[1], fields)):
            return False
        self._known(source, line, match[1], fields, number)
        return True

    def drop(self, source: Source) -> None:
        """Nothing hangs on a process: messages have ids of their own."""

    def finish(self) -> None:
        """Hand over failures whose weight the log does not tell: by their code."""
        for message in self.messages.values():
            self._release(message)

    # -- lines ---------------------------------------------------------------------------------------------

    def _line(self, source: Source, line: bytes, start: int, number: int) -> None:
        match = _LINE(line, stamp_end(line, start))
        fields = _fields(match[2]) if match is not None else None
        if match is None or fields is None or (match[1] is not None and not _fits(match[1], fields)):
            self.sink.coverage.skip("maddy: no delivery", line)
            return
        self._known(source, line, match[1], fields, number)

    def _known(
        self, source: Source, line: bytes, kind: bytes | None, fields: dict[str, Any], number: int
    ) -> None:
        sink = self.sink
        if kind is None:
            sink.coverage.skip("maddy: no delivery", line)
            return
        whole = fields.get("msg_id")
        msg_id = _ATTEMPT.sub("", whole) if isinstance(whole, str) else ""
        if kind == b"delivered":
            sink.count("maddy delivery")
            self._delivered(source, line, msg_id, fields, number)
        elif kind == b"delivery attempt failed":
            sink.count("maddy delivery")
            self._failed(source, line, msg_id, fields, number)
        elif kind == b"not delivered, permanent error":
            sink.count("maddy weight of a failure")
            message = self._message(source.host, msg_id)
            held = message.held.pop(_bytes(fields.get("rcpt")) or b"", None)
            if held is not None:
                self.held -= 1
                self._emit(held, Action.FAILED, b"permanent error")
        elif kind == b"will retry":
            sink.count("maddy weight of a failure")
            message = self._message(source.host, msg_id)
            for held in message.held.values():
                self._emit(held, Action.DELAYED, b"will retry")
            self.held -= len(message.held)
            message.held.clear()
        elif kind == b"incoming message":
            sink.count("maddy message")
            if msg_id:
                self._message(source.host, msg_id).sender = _bytes(fields.get("sender"))
        elif kind == b"generated failed DSN":
            sink.count("maddy message")
            if isinstance(dsn_id := fields.get("dsn_id"), str):
                self._message(source.host, dsn_id).sender = b""
        elif kind == b"reusing cached connection":
            sink.coverage.skip("maddy: no delivery", line)
        else:
            sink.count("maddy connection")
            self._note(source, line, kind, msg_id, fields, number)

    def _message(self, host: bytes, msg_id: str) -> Message:
        key = (host, msg_id)
        if (message := self.messages.get(key)) is None:
            for old in make_room(self.messages, MAX_MESSAGES):
                self._release(old)
            message = self.messages[key] = Message()
        return message

    def _note_of(self, host: bytes, msg_id: str, domain: bytes | None) -> Note:
        key = (host, msg_id, domain)
        if (note := self.notes.get(key)) is None:
            make_room(self.notes, MAX_NOTES)
            note = self.notes[key] = Note()
        return note

    def _note(
        self, source: Source, line: bytes, kind: bytes, msg_id: str, fields: dict[str, Any], number: int
    ) -> None:
        domain = _bytes(fields.get("domain"))
        note = self._note_of(source.host, msg_id, domain.lower() if domain is not None else None)
        relay = self._relay(fields)
        if kind == b"connected":
            if note.relay.host != relay.host:
                note.tls = UNKNOWN_TLS
            note.relay = relay
            return
        text = _text(fields)
        reason = classify(readable(text), None)
        if kind == b"cannot use MX":
            outcome, tls = self._reason(fields, text, note)
            if note.shown and reason in _NOTHING:
                note.tls, note.relay, note.shown = UNKNOWN_TLS, NO_RELAY, False
                return
            note.tls, note.relay, note.shown = UNKNOWN_TLS, NO_RELAY, False
            note.outcome = outcome
        else:
            clear = kind == b"TLS error, trying plaintext"
            outcome = TlsOutcome.TLS_HANDSHAKE_FAILED if clear else TlsOutcome.CERTIFICATE_UNVERIFIED
            outcome = outcome if reason in _NOTHING else reason
            note.tls = tls = CLEAR_TLS if clear else ENCRYPTED_TLS
            note.relay, note.outcome = relay, outcome
        if self.sink.wants_connections:
            queue_id = msg_id.encode("utf-8", "replace") or None
            self.sink.connect(
                Connection(
                    number, self.sink.clock.at(line), self._origin(source), source.pid or None, queue_id, relay,
                    self.sink.share(tls), outcome, False, text or None,
                )
            )  # fmt: skip

    def _origin(self, source: Source) -> Origin:
        return self.sink.share(Origin(self.name, source.host or None))

    def _relay(self, fields: dict[str, Any]) -> Relay:
        host, address = _bytes(fields.get("remote_server")), _bytes(fields.get("remote_addr")) or b""
        match = _ADDRESS(address)
        port = match[2] if match else _bytes(fields.get("remote_port")) or b""
        if host is None and match is None:
            return NO_RELAY
        number = int(port) if port.isdigit() and len(port) < 6 else None
        return self.sink.share(Relay(host, match[1].lower() if match else None, number))

    # -- rows ----------------------------------------------------------------------------------------------

    def _delivered(
        self, source: Source, line: bytes, msg_id: str, fields: dict[str, Any], number: int
    ) -> None:
        sink = self.sink
        recipient = _bytes(fields.get("rcpt"))
        message = self._message(source.host, msg_id)
        note = self._known_note(source.host, msg_id, recipient)
        relay, tls = (note.relay, note.tls) if note is not None else (NO_RELAY, UNKNOWN_TLS)
        result = sink.share(Result(Action.DELIVERED, TlsOutcome.OK, b"delivered"))
        row = Delivery(
            number, sink.clock.at(line), self._origin(source), msg_id.encode("utf-8", "replace") or None, None,
            message.sender, recipient, relay, None, result, None, None, sink.share(tls),
        )  # fmt: skip
        sink.deliver(row)
        if note is not None and note.relay is not NO_RELAY and not note.shown:
            note.shown = True
            self._connect(source, row, relay, TlsOutcome.OK)

    def _known_note(self, host: bytes, msg_id: str, recipient: bytes | None) -> Note | None:
        domain = recipient.rpartition(b"@")[2].lower() if recipient is not None else None
        note = self.notes.get((host, msg_id, domain))
        if note is None and recipient is not None and (ascii_domain := domain_of(recipient)) != domain:
            note = self.notes.get((host, msg_id, ascii_domain))
        return note

    def _failed(self, source: Source, line: bytes, msg_id: str, fields: dict[str, Any], number: int) -> None:
        sink = self.sink
        recipient = _bytes(fields.get("rcpt"))
        message = self._message(source.host, msg_id)
        note = self._known_note(source.host, msg_id, recipient)
        text = _text(fields)
        outcome, tls = self._reason(fields, text, note)
        relay = self._relay(fields)
        result = Result(None, outcome, None, _enhanced(fields), _code(fields))
        row = Delivery(
            number, sink.clock.at(line), self._origin(source), msg_id.encode("utf-8", "replace") or None, None,
            message.sender, recipient, relay, _bytes(fields.get("target")), result, text or None, None, sink.share(tls),
        )  # fmt: skip
        if (recipient or b"") in message.held:
            self._release(message)
        if self.held >= MAX_HELD:
            self.finish()
        message.held[recipient or b""] = row
        self.held += 1
        if tls.level is not None and relay is not NO_RELAY:
            self._connect(source, row, relay, outcome)

    def _connect(self, source: Source, row: Delivery, relay: Relay, outcome: TlsOutcome) -> None:
        if self.sink.wants_connections:
            self.sink.connect(
                Connection(
                    row.number, row.at, row.origin, source.pid or None, row.queue_id, relay, row.tls, outcome,
                    None, row.text,
                )
            )  # fmt: skip

    def _emit(self, row: Delivery, action: Action, word: bytes | None) -> None:
        if row.result is not None:
            result = self.sink.share(replace(row.result, action=action, status_word=word))
            self.sink.deliver(row._replace(result=result))

    def _release(self, message: Message) -> None:
        """Hand over failures whose weight did not follow."""
        for row in message.held.values():
            code = row.result.reply_code if row.result is not None else None
            final = code is not None and 500 <= code < 600
            self._emit(row, Action.FAILED if final else Action.DELAYED, None)
        self.held -= len(message.held)
        message.held.clear()

    def _reason(self, fields: dict[str, Any], text: bytes, note: Note | None) -> tuple[TlsOutcome, Tls]:
        """Why it failed, and what TLS there was: maddy's own refusals name the level that they found."""
        told = fields.get("tls_level")
        level = _LEVELS.get(told) if isinstance(told, (str, int)) else None
        had = note.tls if note is not None else UNKNOWN_TLS
        code = _enhanced(fields)
        cause = _bytes(fields.get("tls_err")) or b""
        refined = classify(readable(cause), None)
        if refined in _NOTHING and note is not None:
            refined = note.outcome
        if b"TLS it not available or unauthenticated but required" in text:
            outcome = (
                TlsOutcome.CERTIFICATE_UNVERIFIED
                if (level or had.level) is TlsLevel.ENCRYPTED
                else TlsOutcome.STARTTLS_NOT_SUPPORTED
            )
        elif b"is not trusted but authentication is required by MTA-STS" in text:
            outcome = TlsOutcome.STS_WEBPKI_INVALID
        elif b"the MX record authenticity (MTA-STS)" in text:
            outcome = TlsOutcome.STS_MX_MISMATCH
        elif b"the MX record authenticity" in text:
            outcome = TlsOutcome.MX_UNAUTHENTICATED
        else:
            outcome = classify(readable(text), code.decode("ascii", "replace") if code else None)
        if outcome is TlsOutcome.STARTTLS_NOT_SUPPORTED and refined in NEVER_ENCRYPTED:
            outcome = refined  # there was one, it failed, and plaintext was tried
        elif outcome in BAD_CERTIFICATE and refined in BAD_CERTIFICATE:
            outcome = refined
        if level is not None:
            tls = Tls(level)
        elif outcome is TlsOutcome.STS_WEBPKI_INVALID:
            tls = ENCRYPTED_TLS
        elif fields.get("io_op") == "dial" or (outcome is TlsOutcome.NOT_TLS and _NO_SESSION.search(text)):
            tls = NO_TLS
        else:
            tls = tls_of_failure(outcome, had)
        if _OWN_WEIGHT.search(text):
            tls = _refused(tls, outcome, text)
        return outcome, tls


def _refused(tls: Tls, outcome: TlsOutcome, text: bytes) -> Tls:
    """REQUIRETLS was wished, and maddy gave up for it."""
    if b"not support REQUIRETLS" in text:
        return replace(tls, requiretls=RequireTls.NOT_OFFERED, violated=True)
    if outcome is TlsOutcome.MX_UNAUTHENTICATED:  # the test for it comes after that of the certificate
        return Tls(TlsLevel.TRUSTED, requiretls=RequireTls.NO_CERTIFICATE_MATCH, violated=True)
    if outcome is TlsOutcome.STARTTLS_NOT_SUPPORTED:
        word = RequireTls.NO_STARTTLS
    elif outcome in NEVER_ENCRYPTED:
        word = RequireTls.NO_ENCRYPTION
    else:
        word = RequireTls.NO_CERTIFICATE_MATCH
    return replace(tls, requiretls=word, violated=True)


def _fields(text: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _fits(kind: bytes, fields: dict[str, Any]) -> bool:
    """Whether a line has what lines of its kind have: other programs deliver too."""
    if kind in (b"delivered", b"delivery attempt failed", b"not delivered, permanent error"):
        return "rcpt" in fields and "msg_id" in fields
    return "msg_id" in fields or "domain" in fields


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair
        return value.encode("utf-8", "replace")


def _text(fields: dict[str, Any]) -> bytes:
    """The reason, behind the reply where that is another text."""
    reason, reply = _bytes(fields.get("reason")) or b"", _bytes(fields.get("smtp_msg")) or b""
    if not reply or reply in reason:
        return reason
    return reply if not reason or reason in reply else reply + b": " + reason


def _code(fields: dict[str, Any]) -> int | None:
    code = fields.get("smtp_code")
    return code if isinstance(code, int) and 200 <= code < 600 else None


def _enhanced(fields: dict[str, Any]) -> bytes | None:
    code = fields.get("smtp_enchcode")
    if isinstance(code, list) and len(code) == 3 and all(isinstance(part, int) for part in code):
        code = ".".join(str(part) for part in code if 0 <= part < 1000)
    if isinstance(code, str) and re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", code, re.ASCII):
        return code.encode()
    return None
