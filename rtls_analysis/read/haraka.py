"""Haraka's log in its default, logfmt and JSON forms: one row per recipient of an outbound result.

Its result lines count recipients without naming them. They are those that the connection's own lines accepted for the
transaction: the first domain named is its mail ``.1``, the second ``.2``. What was negotiated stands in a ``secured``
line before the result, and which server failed in lines of that mail before ``Tried all MXs``.

Notes
-----
``verified=true`` is `trusted`: whether the settings would have refused a bad certificate is not logged. A garbled
reply (``Unrecognized response``) may have been one to STARTTLS: its reason is `unknown`. The last try of a mail and
its end are one line (``Too many failures (...)``), and two rows.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import NamedTuple

from rtls_analysis.outcomes import Action, TlsLevel, TlsOutcome
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
    domain_of,
    readable,
)
from rtls_analysis.read.tls_reasons import classify
from rtls_analysis.schema import MailReader

_LEVEL = rb"(?:DATA|PROTOCOL|DEBUG|INFO|NOTICE|WARN|ERROR|CRIT|ALERT|EMERG)"
_UUID = rb"([0-9A-Fa-f]{8}-[0-9A-Fa-f-]{27}(?:\.\d{1,9}){0,2}|-)"
_DEFAULT = re.compile(rb"\[" + _LEVEL + rb"\] \[" + _UUID + rb"\] \[([^\]]*)\] *").match
_LOGFMT = re.compile(
    rb"level="
    + _LEVEL
    + rb" (?:connection_)?uuid="
    + _UUID
    + rb" origin=(\S+) message=(\"(?:[^\"\\]++|\\.)*+\"|\S*+) ?",
    re.DOTALL,
).match
_JSON = b'{"level":"'
_NEEDS_QUOTES = re.compile(rb"^$|[ =\"\\\r\n]").search

_FIELD = re.compile(rb"([A-Za-z_]+)=(\"(?:[^\"\\]++|\\.)*+\"|\S*+)", re.DOTALL).finditer
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_RECIPIENT = re.compile(rb"recipient <(.*?)> (?:(deferred|rejected): (.*)|code=([A-Z]+)\b)", re.DOTALL).match
_TEMP_FAILING = re.compile(rb"Temp failing \S+ for [\d.]+ seconds: (.*)", re.DOTALL).match
_TOO_MANY = re.compile(rb"Too many failures \((.*)\)", re.DOTALL).fullmatch
_SOME = re.compile(rb"Some recipients (?:temp )?failed: (.*)", re.DOTALL).match
_ANGLES = re.compile(rb"<([^<>]*)>")
_FAILED = re.compile(
    rb"(?:Ongoing connection failed to|Remote end) (\S+?):(\d{1,5}) (?:: )?(.*)"
    rb"|Failed to get (?:socket|pool entry): (.*)",
    re.DOTALL,
).match
_PEER = re.compile(rb"connect E[A-Z]+ (\S+?):(\d{1,5})\b").match
_REPLY = re.compile(rb"(?:Upstream error: )?([245]\d\d)[- ](?:([245]\.\d{1,3}\.\d{1,3})\b)?").match
_WANTED = (
    b"delivered file=", b"secured ", b"recipient <", b"Temp failing ", b"bouncing mail: ",
    b"Ongoing connection failed to ", b"Remote end ", b"Failed to get ",
)  # fmt: skip
_NO_CONTACT = re.compile(rb"connect E|.*connection timed out", re.IGNORECASE).match
# Node's words for what happens during the handshake.
_HANDSHAKE = re.compile(
    rb"before secure TLS connection was established|timeout waiting on starttls|ERR_SSL_|EPROTO",
    re.IGNORECASE,
).search
_UNVERIFIED = re.compile(rb"unable to verify|UNABLE_TO_|certificate", re.IGNORECASE).search

MAX_MAILS = 50_000
MAX_SERVERS = 10_000
MAX_RECIPIENTS = 10_000
MAX_ROWS = 100_000  # of one mail, that each of its tries multiplies by its recipients
MAX_ADDRESS = 2_000  # of what later rows repeat
MAX_TEXT = 4_000  # of what several rows share


class Transaction:
    """A message as it was received."""

    __slots__ = ("by_domain", "message_id", "recipients", "sender")

    def __init__(self) -> None:
        self.sender: bytes | None = None
        self.message_id: bytes | None = None
        self.recipients: list[bytes] = []
        self.by_domain: dict[bytes | None, list[bytes]] = {}  # the same

    def add(self, recipient: bytes) -> None:
        """Note a recipient."""
        if len(self.recipients) < MAX_RECIPIENTS:
            self.recipients.append(recipient)
            self.by_domain.setdefault(domain_of(recipient), []).append(recipient)


class Failure(NamedTuple):
    """A server that could not be used."""

    outcome: TlsOutcome
    relay: Relay
    tls: Tls
    text: bytes


class Mail:
    """The part of a message for one domain, on its way out."""

    __slots__ = (
        "failure", "last", "open", "place", "queue_id", "rows", "said", "secured", "tls", "transaction",
        "verdict",
    )  # fmt: skip

    def __init__(
        self, queue_id: bytes, place: int, transaction: Transaction | None, recipients: list[bytes]
    ) -> None:
        self.queue_id = queue_id
        self.place = place  # among the mails of its transaction
        self.rows = 0
        self.transaction = transaction
        self.open: dict[bytes, None] = dict.fromkeys(recipients)  # recipients without an end
        self.said: set[bytes] = set()  # those that this try has a row of
        self.tls: Tls | None = None  # of this try
        self.verdict = TlsOutcome.OK  # on its certificate
        self.secured: Connection | None = None  # its row, until a result line names the server
        self.failure: Failure | None = None  # the last server of this try that could not be used
        self.last: dict[bytes | None, tuple[TlsOutcome, bytes | None]] = {}  # of each recipient still open

    def begin(self) -> None:
        """The try is over; the next one begins."""
        self.said.clear()
        self.tls = self.secured = self.failure = None


class Server:
    """What one host's log said so far."""

    __slots__ = ("always_split", "mails", "origin", "service", "transactions", "untold")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.transactions: dict[bytes, Transaction] = {}
        self.mails: dict[bytes, Mail] = {}
        self.always_split = False  # each recipient is a mail of its own
        self.service = Service()
        self.untold = Tls(TlsLevel.UNKNOWN, service=self.service)

    def transaction(self, uuid: bytes) -> Transaction:
        """The transaction of that id, new where it is not known."""
        found = self.transactions.get(uuid)
        if found is None:
            make_room(self.transactions, MAX_MAILS)
            found = self.transactions[uuid] = Transaction()
        return found

    def mail(self, uuid: bytes) -> Mail:
        """The mail of that id, with its part of the transaction's recipients."""
        found = self.mails.get(uuid)
        if found is None:
            queue_id, _dot, place = uuid.rpartition(b".")
            transaction = self.transactions.get(queue_id)
            found = Mail(queue_id or uuid, int(place) if queue_id else 0, transaction, [])
            self._share_out(found)
            make_room(self.mails, MAX_MAILS)
            self.mails[uuid] = found
        return found

    def split(self, mail: Mail) -> None:
        """Note that each recipient is a mail of its own, as a result for one of several shows."""
        self.always_split = True
        self._share_out(mail)

    def _share_out(self, mail: Mail) -> None:
        """Give a mail its part of the transaction's recipients."""
        if mail.transaction is None or mail.place < 1:
            return
        recipients, by_domain = mail.transaction.recipients, mail.transaction.by_domain
        place = mail.place - 1
        if len(by_domain) <= place < len(recipients):
            self.always_split = True
        if self.always_split:
            mail.open = dict.fromkeys(recipients[place : place + 1])
        else:
            mail.open = dict.fromkeys(next(islice(by_domain.values(), place, None), ()))


class Entry(NamedTuple):
    """The line at hand: its time is that of `stamp`."""

    line: bytes
    number: int
    stamp: bytes


class HarakaReader:
    """Haraka lines to rows."""

    name = MailReader.HARAKA

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.servers: dict[bytes, Server] = {}
        self._no_delivery = sink.coverage.reason("haraka: no delivery")
        for kind in (
            "haraka delivery",
            "haraka arrival",
            "haraka TLS connection",
            "haraka connection problem",
        ):
            sink.understood.setdefault(kind, 0)

    # -- which lines ---------------------------------------------------------------------------------------

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``haraka``, as its syslog plugin and most units name it."""
        if not tag.lower().startswith(b"haraka"):
            return None
        return Source(host, tag, pid, feed=self._line)

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """Handle a line of one of the three forms, with or without a stamp."""
        begin = stamp_end(line, start)
        stamp = line if begin == start else line[start:]
        head = line[begin : begin + 1]
        text: bytes | None
        if head == b"[" and (match := _DEFAULT(line, begin)) is not None:
            uuid, origin = match.groups()
            text = (
                line[match.end() :].rstrip()
                if line.startswith(_WANTED, match.end()) or origin == b"core"
                else None
            )
        elif head == b"l" and (match := _LOGFMT(line, begin)) is not None:
            uuid, origin, message = match.groups()
            text = (_unquoted(message) + b" " + line[match.end() :]).strip()
        elif line.startswith(_JSON, begin) and (record := _from_json(line[begin:])) is not None:
            uuid, origin, text = record
        else:
            return False
        entry = Entry(line, number, stamp)
        server = self.servers.get(source.host) or self._server(source.host)
        if text is None or uuid == b"-":
            self._no_delivery.add(line)
        elif origin == b"core":
            self._received(server, entry, uuid, text)
        elif text.startswith(_WANTED):
            self._sent(server, entry, uuid, text)
        else:
            self._no_delivery.add(line)
        return True

    def drop(self, source: Source) -> None:
        """Nothing hangs on a process."""

    def finish(self) -> None:
        """Hand over connections whose mail had no result."""
        for server in self.servers.values():
            for mail in server.mails.values():
                self._connected(mail, NO_RELAY)

    def _server(self, host: bytes) -> Server:
        make_room(self.servers, MAX_SERVERS)
        server = self.servers[host] = Server(self.sink.share(Origin(self.name, host or None)))
        return server

    def _line(self, source: Source, line: bytes, start: int, number: int) -> None:
        if not self.raw(source, line, start, number):
            self._no_delivery.add(line)

    # -- received ------------------------------------------------------------------------------------------

    def _received(self, server: Server, entry: Entry, uuid: bytes, text: bytes) -> None:
        """Sender, recipients and Message-ID of a transaction."""
        if text.startswith(b"recipient <") and (match := _RECIPIENT(text)) is not None and match[4] == b"OK":
            transaction = server.transaction(uuid)
            transaction.add(match[1][:MAX_ADDRESS])
        elif text.startswith(b"sender <") and (found := _ANGLES.match(text, 7)) is not None:
            server.transactions.pop(uuid, None)
            server.transaction(uuid).sender = found[1][:MAX_ADDRESS]
        elif text.startswith(b"message mid="):
            mid = _fields(text).get(b"mid", b"")
            server.transaction(uuid).message_id = (
                mid[:MAX_ADDRESS].removeprefix(b"<").removesuffix(b">") or None
            )
        else:
            self._no_delivery.add(entry.line)
            return
        self.sink.understood["haraka arrival"] += 1

    # -- sent ----------------------------------------------------------------------------------------------

    def _sent(self, server: Server, entry: Entry, uuid: bytes, text: bytes) -> None:
        mail = server.mail(uuid)
        if mail.rows >= MAX_ROWS:
            self.sink.coverage.skip("haraka: more tries of one mail than are read", entry.line)
        elif text.startswith(b"delivered file="):
            self._delivered(server, entry, mail, _fields(text))
        elif text.startswith(b"secured "):
            self._secured(server, entry, mail, text)
        elif (recipient := _RECIPIENT(text)) is not None and recipient[2]:
            self._refused(server, entry, mail, recipient)
        elif (failing := _TEMP_FAILING(text)) is not None:
            self._failed(server, entry, mail, failing[1], Action.DELAYED, b"Temp failing")
            mail.begin()
        elif text.startswith(b"bouncing mail: "):
            self._bounced(server, entry, mail, text[15:])
            mail.begin()
        elif (failed := _FAILED(text)) is not None:
            self._unusable(server, entry, mail, failed)
        else:
            self._no_delivery.add(entry.line)

    def _delivered(self, server: Server, entry: Entry, mail: Mail, said: dict[bytes, bytes]) -> None:
        counts = said.get(b"rcpts", b"").split(b"/")
        if counts in ([b"1", b"0", b"0"], [b"1"]) and len(mail.open) > 1 and not mail.said:
            server.split(mail)
        recipients: list[bytes | None] = [who for who in mail.open if who not in mail.said]
        port = said.get(b"port", b"")
        relay = self.sink.share(
            Relay(
                said.get(b"host") or None,
                said.get(b"ip", b"").lower() or None,
                int(port) if port.isdigit() and len(port) < 6 else None,
            )
        )
        tls = CLEAR_TLS
        if said.get(b"tls") != b"N":
            tls = mail.tls or self.sink.share(Tls(TlsLevel.ENCRYPTED if b"tls" in said else TlsLevel.UNKNOWN))
        result = Result(Action.DELIVERED, TlsOutcome.OK, b"delivered")
        delay = _number(said.get(b"delay", b""))
        for recipient in recipients or [None]:
            self._row(
                server,
                entry,
                mail,
                recipient,
                result,
                said.get(b"response"),
                relay,
                tls,
                said.get(b"mode"),
                delay,
            )
            if recipient is not None:
                mail.open.pop(recipient, None)
        if mail.secured is None and self.sink.wants_connections:
            mail.secured = Connection(
                entry.number, self.sink.clock.at(entry.stamp), server.origin, None, mail.queue_id, NO_RELAY, tls,
                TlsOutcome.OK,
            )  # fmt: skip
        self._connected(mail, relay)
        mail.begin()

    def _secured(self, server: Server, entry: Entry, mail: Mail, text: bytes) -> None:
        self.sink.understood["haraka TLS connection"] += 1
        if server.service.first_tls is None:
            server.service.first_tls = entry.number
        self._connected(mail, NO_RELAY)
        mail.said.clear()
        said = _fields(text)
        verified = said.get(b"verified") == b"true"
        mail.tls = self.sink.share(
            Tls(
                TlsLevel.TRUSTED if verified else TlsLevel.UNTRUSTED,
                None,
                tls_version(said.get(b"version")),
                said.get(b"cipher") or None,
            )
        )
        mail.verdict = TlsOutcome.OK
        if not verified:
            mail.verdict = _outcome(b"certificate verification failed: " + said.get(b"error", b""))
        if self.sink.wants_connections:
            mail.secured = Connection(
                entry.number, self.sink.clock.at(entry.stamp), server.origin, None, mail.queue_id, NO_RELAY, mail.tls,
                mail.verdict, False, text,
            )  # fmt: skip

    def _refused(self, server: Server, entry: Entry, mail: Mail, match: re.Match[bytes]) -> None:
        """One recipient was not accepted, for now or for good."""
        recipient, word, text = match[1], match[2], match[3]
        action = Action.DELAYED if word == b"deferred" else Action.FAILED
        self._end_of_try(server, entry, mail, [recipient], action, word, text)

    def _failed(
        self, server: Server, entry: Entry, mail: Mail, text: bytes, action: Action, word: bytes
    ) -> list[bytes | None]:
        """A try that ended for all recipients, or for those named, which had lines of their own."""
        some = _SOME(text)
        if some is None:
            concerned: list[bytes | None] = [who for who in mail.open if who not in mail.said] or [None]
            self._end_of_try(server, entry, mail, concerned, action, word, text)
            return concerned
        concerned = [*_ANGLES.findall(some[1])[:MAX_RECIPIENTS]] or [None]
        new = [
            recipient for recipient in concerned if recipient not in mail.said and recipient not in mail.last
        ]
        if new:
            self._end_of_try(server, entry, mail, new, action, word, text)
        else:
            self.sink.understood["haraka delivery"] += 1
            self._connected(mail, NO_RELAY)
        return concerned

    def _bounced(self, server: Server, entry: Entry, mail: Mail, text: bytes) -> None:
        too_many = _TOO_MANY(text)
        if too_many is None:
            concerned = self._failed(server, entry, mail, text, Action.FAILED, b"bouncing mail")
        else:
            concerned = self._failed(server, entry, mail, too_many[1], Action.DELAYED, b"Temp failing")
            for recipient in concerned:
                outcome, enhanced = mail.last.get(recipient, (TlsOutcome.UNKNOWN, None))
                result = Result(Action.FAILED, outcome, b"expired", enhanced, attempted=False)
                self._row(server, entry, mail, recipient, result, text, NO_RELAY, NO_TLS, counted=True)
        for recipient in concerned:
            mail.last.pop(recipient, None)
            if recipient is not None:
                mail.open.pop(recipient, None)

    def _end_of_try(
        self,
        server: Server,
        entry: Entry,
        mail: Mail,
        recipients: list[bytes] | list[bytes | None],
        action: Action,
        word: bytes,
        text: bytes,
    ) -> None:
        """Rows of recipients whose try did not succeed, with its reason and what is known of its TLS."""
        relay = NO_RELAY
        if mail.failure is not None and text == b"Tried all MXs":
            outcome, relay, tls, text = mail.failure
        else:
            outcome = _outcome(text, secured=mail.tls is not None)
            if outcome is TlsOutcome.CERTIFICATE_UNVERIFIED and mail.tls is not None:
                outcome = mail.verdict if mail.verdict is not TlsOutcome.OK else outcome
            tls = mail.tls or _tls_of(text, outcome, server.untold)
        reply = _REPLY(text)
        code, enhanced = (int(reply[1]), reply[2]) if reply is not None else (None, None)
        result = Result(action, outcome, word, enhanced, code)
        for index, recipient in enumerate(recipients):
            self._row(server, entry, mail, recipient, result, text, relay, tls, counted=index > 0)
            if recipient is not None and len(mail.said) < MAX_RECIPIENTS:
                mail.said.add(recipient)
            if action is Action.DELAYED:
                make_room(mail.last, MAX_RECIPIENTS)
                mail.last[recipient] = outcome, enhanced
            else:
                mail.last.pop(recipient, None)
                if recipient is not None:
                    mail.open.pop(recipient, None)
        if word in (b"deferred", b"rejected"):
            return
        self._connected(mail, NO_RELAY)

    def _row(
        self,
        server: Server,
        entry: Entry,
        mail: Mail,
        recipient: bytes | None,
        result: Result,
        text: bytes | None,
        relay: Relay,
        tls: Tls,
        mode: bytes | None = None,
        delay: float | None = None,
        *,
        counted: bool = False,
    ) -> None:
        if not counted:
            self.sink.understood["haraka delivery"] += 1
        mail.rows += 1
        transaction = mail.transaction
        self.sink.deliver(
            Delivery(
                entry.number, self.sink.clock.at(entry.stamp), server.origin, mail.queue_id,
                None if transaction is None else transaction.message_id,
                None if transaction is None else transaction.sender, recipient, relay, mode,
                self.sink.share(result), text[:MAX_TEXT] if text is not None else None, delay, tls,
            )
        )  # fmt: skip

    # -- connections ---------------------------------------------------------------------------------------

    def _unusable(self, server: Server, entry: Entry, mail: Mail, match: re.Match[bytes]) -> None:
        """A server that failed; the next one is tried, or the mail is put off."""
        address, port, text, no_socket = match.groups()
        self.sink.understood["haraka connection problem"] += 1
        if no_socket is not None:
            text = no_socket
            peer = _PEER(text)
            address, port = peer.groups() if peer is not None else (None, None)
        relay = NO_RELAY
        if address is not None:
            relay = self.sink.share(Relay(None, address[:MAX_ADDRESS].lower(), int(port)))
        outcome = _outcome(text, secured=mail.tls is not None)
        tls = mail.tls or _tls_of(text, outcome, server.untold)
        mail.failure = Failure(outcome, relay, tls, text[:MAX_TEXT])
        if self.sink.wants_connections:
            if mail.secured is None:
                mail.secured = Connection(
                    entry.number,
                    self.sink.clock.at(entry.stamp),
                    server.origin,
                    None,
                    mail.queue_id,
                    relay,
                    tls,
                )
            mail.secured = mail.secured._replace(outcome=outcome, text=text)
        self._connected(mail, relay)
        mail.tls = None

    def _connected(self, mail: Mail, relay: Relay) -> None:
        """Hand over the connection of a mail, with its server where a line named it."""
        if mail.secured is not None:
            self.sink.connect(mail.secured._replace(relay=relay))
            mail.secured = None


def _outcome(text: bytes, *, secured: bool = False) -> TlsOutcome:
    """Why a try failed, in Haraka's words, Node's or the peer's."""
    if text.startswith(b"Unrecognized response from upstream server"):
        return TlsOutcome.NOT_TLS if secured else TlsOutcome.UNKNOWN
    if text == b"Tried all MXs":  # and no line tells how
        return TlsOutcome.UNKNOWN
    reply = _REPLY(text)
    outcome = classify(readable(text), reply[2].decode("ascii") if reply is not None and reply[2] else None)
    if outcome is TlsOutcome.NOT_TLS and reply is None:
        if _HANDSHAKE(text):
            return TlsOutcome.TLS_HANDSHAKE_FAILED
        if _UNVERIFIED(text):
            return TlsOutcome.CERTIFICATE_UNVERIFIED
    return outcome


def _tls_of(text: bytes, outcome: TlsOutcome, untold: Tls) -> Tls:
    """TLS of a connection without a ``secured`` line."""
    if _NO_CONTACT(text) or text.startswith(
        (b"DNS lookup failure", b"Nowhere to deliver", b"Domain ", b"No ", b"Tried ")
    ):
        return CLEAR_TLS if outcome is TlsOutcome.STARTTLS_NOT_SUPPORTED else NO_TLS
    if text.endswith(b"waiting on connect"):
        return CLEAR_TLS
    return untold if outcome is TlsOutcome.PEER_REQUIRES_TLS else tls_of_failure(outcome, untold)


def _fields(text: bytes) -> dict[bytes, bytes]:
    """The ``key=value`` pairs of a line; the first one of a key counts."""
    fields: dict[bytes, bytes] = {}
    for match in _FIELD(text):
        fields.setdefault(match[1], _unquoted(match[2])[:MAX_TEXT])
    return fields


def _unquoted(value: bytes) -> bytes:
    if value[:1] != b'"' or len(value) < 2:
        return value
    return _ESCAPE.sub(rb"\1", value[1:-1]) if b"\\" in value else value[1:-1]


def _number(text: bytes) -> float | None:
    try:
        return float(text) if len(text) < 20 else None
    except ValueError:
        return None


def _from_json(text: bytes) -> tuple[bytes, bytes, bytes] | None:
    """UUID, origin and text of a line in JSON, the text in the words of the default form."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    words = {
        key.encode("utf-8", "surrogatepass"): _word(value)
        for key, value in record.items()
        if isinstance(value, (str, bool, int, float))
    }
    uuid, origin, message = (words.pop(key, None) for key in (b"uuid", b"origin", b"message"))
    words.pop(b"level", None)
    if uuid is None or origin is None or message is None or re.fullmatch(_UUID, uuid) is None:
        return None
    pairs = [key + b"=" + (_quoted(value) if _NEEDS_QUOTES(value) else value) for key, value in words.items()]
    return uuid, origin, b" ".join([message, *pairs] if message else pairs).rstrip()


def _word(value: str | float) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode("utf-8", "surrogatepass")


def _quoted(value: bytes) -> bytes:
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
