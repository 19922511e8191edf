"""Exchange Server's message tracking and SmtpSend protocol logs: CSV, columns by the last ``#Fields`` line.

A tracking event says how it went with each recipient, and in ``custom-data`` at best which kind of TLS there was. A
protocol log has the dialogue: TLS version, recipients and replies, but nothing of what failed before ``MAIL``. Where
both are read, the rows of one attempt become one: sent ones by session id and recipient, others by Message-ID and
recipient.

Notes
-----
Columns and events are those of Exchange 2007 to 2019 and Exchange Online's exports; the texts of the protocol log are
those of the transport service of 2013 to 2019. SmtpReceive logs have the columns of SmtpSend logs; there the commands
come in, and they give nothing. Nothing is logged about REQUIRETLS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
    Source,
    Tls,
    readable,
)
from rtls_analysis.read.tls_texts import classify
from rtls_analysis.schema import MailReader

MAX_SESSIONS = 10_000
MAX_RECIPIENTS = 10_000  # of one event or session
MAX_HELD = 50_000  # rows that wait for their counterpart in the other log
MAX_LAST = 50_000
MAX_TEXT = 4_000

_STAMP = re.compile(rb"\"?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?)(Z?)\"?,").match
_HEADER = re.compile(
    rb"#(?:Software: Microsoft Exchange|Log-type: (?:Message Tracking Log|SMTP (?:Send|Receive) Protocol Log))",
    re.IGNORECASE,
).match
_HEADER_MORE = (b"#Version:", b"#Date:", b"#Log-type:", b"#Software:")
_FIELDS = b"#Fields: "
_FIELD = re.compile(rb"(?:\A|,)(?:\"([^\"]*(?:\"\"[^\"]*)*)\"|([^,]*))")
_NOT_NAME = re.compile(rb"[^a-z0-9]")

# Names of columns without signs, and what other exports call them.
_SAME = {
    b"timestamp": b"datetime", b"datetimeutc": b"datetime", b"recipients": b"recipientaddress",
    b"sender": b"senderaddress",
}  # fmt: skip
_TRACKING = (
    b"datetime clientip clienthostname serverip serverhostname sourcecontext connectorid source eventid "
    b"internalmessageid messageid"
)
_TRACKING_END = (
    b"recipientaddress recipientstatus totalbytes recipientcount relatedrecipientaddress reference messagesubject "
    b"senderaddress returnpath messageinfo directionality tenantid originalclientip originalserverip customdata "
    b"transporttraffictype logid schemaversion"
)
_PROTOCOL = b"datetime connectorid sessionid sequencenumber localendpoint remoteendpoint event data context"
_SOURCES = frozenset(
    {b"ADMIN", b"AGENT", b"APPROVAL", b"BOOTLOADER", b"DNS", b"DSN", b"GATEWAY", b"MAILBOXRULE",
     b"MEETINGMESSAGEPROCESSOR", b"ORAR", b"PICKUP", b"POISONMESSAGE", b"PUBLICFOLDER", b"QUEUE", b"REDUNDANCY",
     b"RESOLVER", b"ROUTING", b"SAFETYNET", b"SMTP", b"STOREDRIVER", b"UNIFIEDGROUPSGROUPMAILBOX"}
)  # fmt: skip
_EVENT = re.compile(rb"[A-Z]{3,40}").fullmatch
_ATTEMPTS = {
    b"SEND": Action.DELIVERED, b"SENDEXTERNAL": Action.DELIVERED, b"DELIVER": Action.DELIVERED,
    b"DEFER": Action.DELAYED, b"FAIL": Action.FAILED,
}  # fmt: skip
_BY_SMTP = frozenset({b"SMTP", b"GATEWAY"})
_SESSION_ID = re.compile(rb"[0-9A-Fa-f]{14,16}").fullmatch

_PARTS = re.compile(rb";(?=\[\{)")
_LAST_ERROR = re.compile(rb"\{LED=([^{}]*)\}").search
_HOST = re.compile(rb"\{FQDN=([^{}]*)\}").search
_ADDRESS = re.compile(rb"\{IP=([^{}]*)\}").search
_CODE = re.compile(rb"(?<![\d.#])([245]\d\d)[ -](?:([245]\.\d{1,3}\.\d{1,3})(?![\d.]))?").search
_REPLY = re.compile(rb"(\d{3})([- ]|$)").match
_ENHANCED = re.compile(rb"\d{3}[- ]([245]\.\d{1,3}\.\d{1,3})(?![\d.])").match
_EXPIRED = re.compile(rb"QUEUE\.Expired|message expired", re.IGNORECASE).search
_UNREACHED = re.compile(
    rb"unable to connect|failed to connect|connection (?:timed out|refused)|socketerror|dns|no such host|4\.4\.[14]\b",
    re.IGNORECASE,
).search
_LEVEL = re.compile(rb"(Required|Effective)TlsAuthLevel=(\w+)").finditer
_LEVELS = {
    b"EncryptionOnly": TlsLevel.ENCRYPTED, b"CertificateValidation": TlsLevel.TRUSTED,
    b"DomainValidation": TlsLevel.VERIFIED,
}  # fmt: skip

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
_NOTHING = frozenset({TlsOutcome.NOT_TLS, TlsOutcome.UNKNOWN})

Columns = dict[bytes, int]
Key = tuple[bytes, bytes]


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


class ExchangeReader:
    """Exchange lines to rows, tracking and SmtpSend logs joined."""

    name = MailReader.EXCHANGE

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.columns: Columns = {}
        self.header = False  # the lines at hand are those at the top of a file
        self.exported = False  # the columns are those of a header row without ``#Fields``
        self.receives = False
        self.sessions: dict[bytes, Session] = {}
        self.waiting: tuple[dict[Key, list[Delivery]], dict[Key, list[Delivery]]] = (
            {},
            {},
        )  # tracking, protocol
        self.held = [0, 0]
        self.given_up = [False, False]
        self.last: dict[Key, TlsOutcome] = {}  # by Message-ID and recipient

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """Exchange does not log to syslog; what a shipper puts there has its own form."""
        return None

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """A line of one of the CSV logs."""
        text = line[start:] if start else line
        if text.startswith(b"#"):
            return self._header_line(text)
        self.header = False
        stamp = _STAMP(text)
        if stamp is None:
            return self._header_row(text) or (self.exported and self._data(text, None, number))
        return self._data(text, stamp, number)

    def drop(self, source: Source) -> None:
        """Nothing hangs on a process: sessions have ids of their own."""

    def finish(self) -> None:
        """Hand over sessions without an end, and rows whose counterpart did not come."""
        for session in self.sessions.values():
            self._close(session)
        self.sessions.clear()
        for side in (0, 1):
            self._give_up(side, len(self.waiting[side]))

    # -- which columns ---------------------------------------------------------------------------------------

    def _header_line(self, text: bytes) -> bool:
        if text.startswith(_FIELDS):
            columns = _columns(text[len(_FIELDS) :])
            if b"datetime" not in columns or not (b"eventid" in columns or b"sequencenumber" in columns):
                self.columns, self.header = {}, False
                return False
            self.columns, self.exported = columns, False
        elif _HEADER(text) is not None:
            self.header = True
        elif not (self.header and text.startswith(_HEADER_MORE)):
            return False
        if text.startswith(b"#Log-type:"):
            self.receives = b"receive" in text.lower()
        self.sink.count("exchange header")
        return True

    def _header_row(self, text: bytes) -> bool:
        """The first row of an export: names of columns."""
        if b"ecipient" not in text or len(text) > MAX_TEXT:
            return False
        columns = _columns(text)
        if not {b"datetime", b"eventid", b"recipientaddress"} <= columns.keys():
            return False
        self.columns, self.exported = columns, True
        self.sink.count("exchange header")
        return True

    def _data(self, text: bytes, stamp: re.Match[bytes] | None, number: int) -> bool:
        fields = _split(text)
        count = len(fields)
        columns = self.columns
        event_column = columns.get(b"eventid", count)
        if (
            event_column < count
            and columns.get(b"source", count) < count
            and fields[columns[b"source"]] in _SOURCES
            and _EVENT(fields[event_column])
        ):
            return self._tracking(fields, columns, text, number)
        if stamp is None:
            return False
        if (
            count >= 8
            and fields[6] in (b"+", b"-", b">", b"<", b"*")
            and fields[3].isdigit()
            and len(fields[3]) < 10
        ):
            return self._protocol(fields, stamp, text, number)
        if count >= 21 and (guess := _guess(fields)) is not None:
            return self._tracking(fields, guess, text, number)
        return False

    def _at(self, stamp: bytes | None) -> int | None:
        """The logs are in UTC, which not all exports say."""
        if not stamp:
            return None
        stamp = stamp[:40]
        return self.sink.clock.at((stamp if stamp.endswith(b"Z") else stamp + b"Z").ljust(40))

    # -- message tracking ------------------------------------------------------------------------------------

    def _tracking(self, fields: Sequence[bytes], columns: Columns, line: bytes, number: int) -> bool:
        sink = self.sink

        def get(name: bytes) -> bytes:
            place = columns.get(name, len(fields))
            return fields[place] if place < len(fields) else b""

        event, way = get(b"eventid"), get(b"source")
        action = _ATTEMPTS.get(event)
        if action is None:
            sink.coverage.skip("exchange: event without an end of an attempt", line)
            return True
        sink.count("exchange tracking event")
        recipients = get(b"recipientaddress").split(b";")[:MAX_RECIPIENTS]
        statuses = _statuses(get(b"recipientstatus"), len(recipients))
        context = get(b"sourcecontext")
        session_id, _semicolon, reply = context.partition(b";")
        if not _SESSION_ID(session_id):
            session_id, reply = b"", context
        reply = reply.partition(b";ClientSubmitTime")[0].strip()
        sends = event in (b"SEND", b"SENDEXTERNAL")
        message_id = get(b"messageid").strip().removeprefix(b"<").removesuffix(b">") or None
        host = get(b"clienthostname") if sends else get(b"serverhostname") or get(b"clienthostname")
        origin = sink.share(Origin(self.name, host or None))
        policy, level = _told_tls(get(b"customdata"))
        at = self._at(get(b"datetime"))
        transport = get(b"connectorid") or way.lower() or None
        path = get(b"returnpath") or get(b"senderaddress")
        sender = path.strip().removeprefix(b"<").removesuffix(b">") if path else None
        next_hop = NO_RELAY
        if sends and (get(b"serverhostname") or get(b"serverip")):
            next_hop = Relay(get(b"serverhostname") or None, get(b"serverip").lower() or None)
        if level is None and policy == b"EncryptionOnly" and sends:  # else it had not gone
            level = TlsLevel.ENCRYPTED
        for recipient, status in zip(recipients, statuses, strict=True):
            text = status if status and not (sends and reply) else reply or status
            relay = next_hop if sends else _relay_of(status)
            outcome, tls, attempted, word = TlsOutcome.OK, NO_TLS, True, event.lower()
            error = _LAST_ERROR(text)
            reply_code, enhanced = _codes(error[1] if error is not None else text)
            if sends and way in _BY_SMTP:
                tls = Tls(level or TlsLevel.UNKNOWN, policy)
            elif action is not Action.DELIVERED:
                expired = action is Action.FAILED and (_EXPIRED(text) or _EXPIRED(context)) is not None
                attempted = not expired and (way in _BY_SMTP or way == b"STOREDRIVER")
                word = b"expired" if expired else word
                outcome = self._not_sent(
                    text, enhanced, (message_id or b"", recipient.lower()), action, expired=expired
                )
                if way in _BY_SMTP and attempted:
                    tls = tls_of_failure(outcome, NO_TLS if _UNREACHED(text) else UNKNOWN_TLS)
                if policy is not None:
                    tls = replace(tls, policy=policy)
            result = sink.share(Result(action, outcome, word, enhanced, reply_code, attempted))
            row = Delivery(
                number, at, origin, get(b"internalmessageid") or None, message_id, sender, recipient or None,
                sink.share(relay), transport, result, text[:MAX_TEXT] or None, None, sink.share(tls),
            )  # fmt: skip
            if way == b"SMTP" and attempted and recipient:
                self._join(0, (session_id.upper() if sends else b"", message_id), row)
            else:
                sink.deliver(row)
        return True

    def _not_sent(
        self, text: bytes, enhanced: bytes | None, key: Key, action: Action, *, expired: bool
    ) -> TlsOutcome:
        """Why: by the text; for what expired, else by that of the last try."""
        outcome = _reason(text, enhanced)
        if action is Action.DELAYED:
            make_room(self.last, MAX_LAST)
            self.last[key] = outcome
            return outcome
        last = self.last.pop(key, outcome)
        return last if expired and outcome in _NOTHING else outcome

    # -- one row out of two logs -------------------------------------------------------------------------------

    def _join(self, side: int, ids: tuple[bytes, bytes | None], row: Delivery) -> None:
        """Hold a row until the other log's one comes: tracking is side 0, protocol side 1."""
        session_id, message_id = ids
        first = session_id or message_id
        if not first or row.recipient is None:
            self.sink.deliver(row)
            return
        key = ((b"S" if session_id else b"M") + first, row.recipient.lower())
        others = self.waiting[1 - side].get(key)
        if others:
            other = others.pop(0)
            self.held[1 - side] -= 1
            if not others:
                del self.waiting[1 - side][key]
            self.sink.deliver(self._merged(row, other) if side == 0 else self._merged(other, row))
            return
        if self.held[side] >= MAX_HELD:
            self.given_up[side] = True
            self._give_up(side, len(self.waiting[side]) // 4 + 1)
        self.waiting[side].setdefault(key, []).append(row)
        self.held[side] += 1
        if self.given_up[1 - side]:
            self.sink.coverage.warn(
                "exchange: message tracking and SmtpSend logs are too far apart to be joined: an attempt that is in "
                "both may have two rows"
            )

    def _give_up(self, side: int, count: int) -> None:
        waiting = self.waiting[side]
        for key in list(waiting)[:count]:
            rows = waiting.pop(key)
            self.held[side] -= len(rows)
            for row in rows:
                self.sink.deliver(row)

    def _merged(self, tracking: Delivery, protocol: Delivery) -> Delivery:
        """The tracking log's row, with what only the dialogue tells."""
        one, two = tracking.tls, protocol.tls
        stronger = one.level in (TlsLevel.VERIFIED, TlsLevel.TRUSTED)
        tls = replace(two, policy=one.policy, level=one.level if stronger else two.level)
        if two.level is TlsLevel.UNKNOWN:
            tls = replace(one, version=two.version, cipher=two.cipher, bits=two.bits)
        relay, near = tracking.relay, protocol.relay
        if isinstance(relay, Relay) and isinstance(near, Relay):
            relay = self.sink.share(Relay(relay.host or near.host, near.address or relay.address, near.port))
        return tracking._replace(
            tls=self.sink.share(tls),
            relay=relay,
            message_id=tracking.message_id or protocol.message_id,
            queue_id=tracking.queue_id or protocol.queue_id,
        )

    # -- SmtpSend ----------------------------------------------------------------------------------------------

    def _protocol(self, fields: Sequence[bytes], stamp: re.Match[bytes], line: bytes, number: int) -> bool:
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
        at = self._at(stamp[1])
        if session is None or (event == b"+" and int(sequence) == 0):
            if session is not None:  # an id used again
                self._close(session)
            for old in make_room(self.sessions, MAX_SESSIONS):
                self._close(old)
            session = Session(session_id, self.sink.share(Origin(self.name)), number, at)
            session.started = int(sequence) == 0 or event == b"+"
            if session.started:
                session.pending.append((b"GREETING", b""))
            self.sessions[session_id] = session
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

    def _command(self, session: Session, text: bytes) -> None:
        words = text.split(None, 2)
        word = words[0].upper() if words else b""
        recipient = b""
        if word in (b"EHLO", b"HELO") and len(words) > 1:
            session.origin = self.sink.share(Origin(self.name, words[1]))
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
            if (outcome := _reason(text, None)) not in _NOTHING:
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
            outcome = _reason(text, None)
            session.text = text[:MAX_TEXT]
            if outcome not in _NOTHING:
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
            outcome = _reason(text or b"", enhanced)
            if outcome in _NOTHING and session.outcome is not TlsOutcome.OK:
                outcome = session.outcome
        tls = session.tls or tls_of_failure(outcome, self._untold(session))
        row = Delivery(
            number, at, session.origin, session.queue_id, session.message_id, session.sender, recipient or None,
            self.sink.share(replace(session.address, host=session.host)), session.connector,
            self.sink.share(Result(action, outcome, None, enhanced, code)), text, None, self.sink.share(tls),
        )  # fmt: skip
        sent = action is Action.DELIVERED
        self._join(1, (session.session_id if sent else b"", session.message_id), row)


def _columns(text: bytes) -> Columns:
    names = [_NOT_NAME.sub(b"", name.lower()) for name in _split(text)]
    return {_SAME.get(name, name): place for place, name in enumerate(names) if name}


def _guess(fields: Sequence[bytes]) -> Columns | None:
    """The columns of a tracking line without a header, by their number."""
    count = len(fields)
    if fields[7] not in _SOURCES or not _EVENT(fields[8]):
        return None
    # From 2013 on a column stands behind the Message-ID.
    start = _TRACKING + b" networkmessageid " if count >= 27 else _TRACKING + b" "
    return {name: place for place, name in enumerate((start + _TRACKING_END).split()) if place < count}


def _split(text: bytes) -> list[bytes]:
    """The fields of a CSV line."""
    if b'"' not in text:
        return text.split(b",")
    return [quoted.replace(b'""', b'"') if quoted else plain for quoted, plain in _FIELD.findall(text)]


def _statuses(text: bytes, count: int) -> list[bytes]:
    """The status of each recipient; where they cannot be told apart, the whole for all."""
    if count == 1:
        return [text]
    parts = _PARTS.split(text) if b"[{" in text else text.split(b";")
    return parts if len(parts) == count else [text] * count


def _relay_of(status: bytes) -> Relay:
    host, address = _HOST(status), _ADDRESS(status)
    if host is None and address is None:
        return NO_RELAY
    return Relay((host[1] or None) if host else None, (address[1].lower() or None) if address else None)


def _endpoint(text: bytes) -> Relay:
    address, _colon, port = text.rpartition(b":")
    if not address or not port.isdigit() or len(port) > 5:
        return Relay(address=text.strip(b"[]").lower())
    return Relay(address=address.strip(b"[]").lower(), port=int(port))


def _codes(text: bytes) -> tuple[int | None, bytes | None]:
    match = _CODE(text[:500])
    return (int(match[1]), match[2]) if match is not None else (None, None)


def _told_tls(text: bytes) -> tuple[bytes | None, TlsLevel | None]:
    """Which TLS the connector asked for, and which there was."""
    policy, level = None, None
    for match in _LEVEL(text):
        if match[1] == b"Required":
            policy = match[2]
        else:
            level = _LEVELS.get(match[2])
    return policy, level


def _reason(text: bytes, enhanced: bytes | None) -> TlsOutcome:
    plain = readable(text[:MAX_TEXT])
    lower = plain.lower()
    for pattern, outcome in _PROBLEMS:
        if pattern.search(lower):
            return outcome
    return classify(plain, readable(enhanced) if enhanced else None)
