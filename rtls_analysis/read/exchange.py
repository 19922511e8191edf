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
from rtls_analysis.read.attempts import make_room, tls_of_failure
from rtls_analysis.read.exchange_send import NOTHING, SendLog, reason
from rtls_analysis.read.log_rows import (
    NO_RELAY,
    NO_TLS,
    UNKNOWN_TLS,
    Delivery,
    Origin,
    Relay,
    Result,
    Sink,
    Source,
    Tls,
)
from rtls_analysis.schema import MailReader

MAX_RECIPIENTS = 10_000  # of one event
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
_SIGNS = frozenset({b"+", b"-", b">", b"<", b"*"})
_SESSION_ID = re.compile(rb"[0-9A-Fa-f]{14,16}").fullmatch

_PARTS = re.compile(rb";(?=\[\{)")
_LAST_ERROR = re.compile(rb"\{LED=([^{}]*)\}").search
_HOST = re.compile(rb"\{FQDN=([^{}]*)\}").search
_ADDRESS = re.compile(rb"\{IP=([^{}]*)\}").search
_CODE = re.compile(rb"(?<![\d.#])([245]\d\d)[ -](?:([245]\.\d{1,3}\.\d{1,3})(?![\d.]))?").search
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

Columns = dict[bytes, int]
Key = tuple[bytes, bytes]
Waiting = dict[Key, list[Delivery]]


class ExchangeReader:
    """Exchange lines to rows, tracking and SmtpSend logs joined."""

    name = MailReader.EXCHANGE

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.columns: Columns = {}
        self.header = False  # the lines at hand are those at the top of a file
        self.exported = False  # the columns are those of a header row without ``#Fields``
        self.send_log = SendLog(sink, self._spoken)
        self.waiting: tuple[Waiting, Waiting] = ({}, {})  # of the tracking log, of the dialogue
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
        self.send_log.finish()
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
            self.send_log.receives = b"receive" in text.lower()
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
        place = columns.get(b"eventid", count)
        way = columns.get(b"source", count)
        if place < count and way < count and fields[way] in _SOURCES and _EVENT(fields[place]):
            return self._tracking(fields, columns, text, number)
        if stamp is None:
            return False
        if count >= 8 and fields[6] in _SIGNS and fields[3].isdigit() and len(fields[3]) < 10:
            return self.send_log.line(fields, self._at(stamp[1]), text, number)
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
        event = fields[columns[b"eventid"]]
        action = _ATTEMPTS.get(event)
        if action is None:
            sink.coverage.skip("exchange: event without an end of an attempt", line)
            return True

        sink.count("exchange tracking event")

        def get(name: bytes) -> bytes:
            place = columns.get(name, len(fields))
            return fields[place] if place < len(fields) else b""

        way, context = get(b"source"), get(b"sourcecontext")[:MAX_TEXT]
        session_id, _semicolon, reply = context.partition(b";")
        if not _SESSION_ID(session_id):
            session_id, reply = b"", context
        reply = reply.partition(b";ClientSubmitTime")[0].strip()
        sends = event in (b"SEND", b"SENDEXTERNAL")
        path = get(b"returnpath") or get(b"senderaddress")
        host = get(b"clienthostname") if sends else get(b"serverhostname") or get(b"clienthostname")
        policy, level = _told_tls(get(b"customdata"))
        base = Delivery(
            number,
            self._at(get(b"datetime")),
            sink.share(Origin(self.name, host or None)),
            queue_id=get(b"internalmessageid") or None,
            message_id=_unbracketed(get(b"messageid")) or None,
            sender=_unbracketed(path) if path else None,
            transport=get(b"connectorid") or way.lower(),
        )
        if sends:
            base = base._replace(
                relay=sink.share(Relay(get(b"serverhostname") or None, get(b"serverip").lower() or None)),
                tls=sink.share(_tls_of_sent(policy, level) if way in _BY_SMTP else NO_TLS),
            )
        recipients = get(b"recipientaddress").split(b";")[:MAX_RECIPIENTS]
        statuses = _statuses(get(b"recipientstatus"), len(recipients))
        for recipient, status in zip(recipients, statuses, strict=True):
            text = (reply or status if sends else status or reply)[:MAX_TEXT]
            row = base._replace(recipient=recipient or None, text=text or None)
            if action is Action.DELIVERED:
                reply_code, enhanced = _codes(text)
                result = Result(action, TlsOutcome.OK, event.lower(), enhanced, reply_code)
                row = row._replace(result=sink.share(result))
            else:
                row = self._not_delivered(row, action, way, text, context, policy)
            if way == b"SMTP" and row.result is not None and row.result.attempted:
                self._join(0, session_id.upper() if sends else b"", row)
            else:
                sink.deliver(row)
        return True

    def _not_delivered(
        self, row: Delivery, action: Action, way: bytes, text: bytes, context: bytes, policy: bytes | None
    ) -> Delivery:
        """The row of a recipient that is tried again, or given up."""
        error = _LAST_ERROR(text)
        reply_code, enhanced = _codes(error[1] if error is not None else text)
        outcome = reason(text, enhanced)
        key = (row.message_id or b"", (row.recipient or b"").lower())
        word, attempted, tls = b"defer", way in _BY_SMTP or way == b"STOREDRIVER", NO_TLS
        if action is Action.DELAYED:
            make_room(self.last, MAX_LAST)
            self.last[key] = outcome
        else:
            word, last = b"fail", self.last.pop(key, outcome)
            if _EXPIRED(text) or _EXPIRED(context):
                word, attempted = b"expired", False
                outcome = last if outcome in NOTHING else outcome
        if way in _BY_SMTP and attempted:
            tls = tls_of_failure(outcome, NO_TLS if _UNREACHED(text) else UNKNOWN_TLS)
        return row._replace(
            relay=self.sink.share(_relay_of(text)),
            result=self.sink.share(Result(action, outcome, word, enhanced, reply_code, attempted)),
            tls=self.sink.share(replace(tls, policy=policy) if policy is not None else tls),
        )

    # -- one row out of two logs -------------------------------------------------------------------------------

    def _spoken(self, session_id: bytes, row: Delivery) -> None:
        self._join(1, session_id, row)

    def _join(self, side: int, session_id: bytes, row: Delivery) -> None:
        """Hold a row until the other log's one comes: the tracking log is side 0, the dialogue side 1."""
        first = session_id or row.message_id
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


def _unbracketed(text: bytes) -> bytes:
    return text.strip().removeprefix(b"<").removesuffix(b">")


def _tls_of_sent(policy: bytes | None, level: TlsLevel | None) -> Tls:
    if level is None and policy == b"EncryptionOnly":  # else it had not gone
        level = TlsLevel.ENCRYPTED
    return Tls(level or TlsLevel.UNKNOWN, policy)


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
