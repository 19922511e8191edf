"""Postfix's log, 2.x to 3.11: one row per ``to=`` line, tied to the TLS lines of the same process.

smtp(8) and lmtp(8) serve one message at a time: a TLS line belongs to the queue id that the same process names
next, and to that alone; the next request may run over a cached connection in cleartext. From 3.11 on the
``tls=`` field is the authority for level and REQUIRETLS, and the TLS line adds protocol and cipher.
"""

from __future__ import annotations

import re
from typing import Any

from rtls_analysis.outcomes import Action, RequireTls, TlsLevel, TlsOutcome, Told
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
)
from rtls_analysis.read.tls_texts import classify
from rtls_analysis.schema import MailReader, TlsVersion

_CLIENTS = frozenset({b"smtp", b"lmtp", b"local", b"virtual", b"pipe", b"error", b"retry", b"discard"})
_SERVICES = _CLIENTS | {
    b"anvil", b"bounce", b"cleanup", b"defer", b"dnsblog", b"flush", b"master", b"nqmgr", b"oqmgr", b"pickup",
    b"postalias", b"postdrop", b"postfix-script", b"postlog", b"postmap", b"postqueue", b"postscreen", b"postsuper",
    b"proxymap", b"proxywrite", b"qmgr", b"qmqpd", b"scache", b"sendmail", b"showq", b"smtpd", b"spawn", b"tlsmgr",
    b"tlsproxy", b"trace", b"trivial-rewrite", b"verify", b"postlogd", b"relay", b"submission", b"smtps",
}  # fmt: skip

_DELIVERY = re.compile(
    rb"([0-9A-Za-z]{6,}): to=<([^>]*)>, (?:orig_to=<[^>]*>, )?relay=([^,]+), (?:conn_use=(\d+), )?"
    rb"delay=([\d.]+), (?:delays=[\d./]+, )?(?:tls=([^,]*), )?(?:dsn=([\d.]+), )?status=([^\s,]+)(?: \((.*))?",
    re.DOTALL,
).match
# The same, for quoted local parts that hold ">"; slower.
_DELIVERY_QUOTED = re.compile(
    rb"([0-9A-Za-z]{6,}): to=<(.*?)>, (?:orig_to=<.*?>, )?relay=([^,]+), (?:conn_use=(\d+), )?"
    rb"delay=([\d.]+), (?:delays=[\d./]+, )?(?:tls=([^,]*), )?(?:dsn=([\d.]+), )?status=([^\s,]+)(?: \((.*))?",
    re.DOTALL,
).match
_RELAY = re.compile(rb"([^\[]*)\[([^\]]*)\](?::(\d+))?")
_FROM = re.compile(rb"([0-9A-Za-z]{6,}): from=<([^>]*)>, size=").match
_FROM_QUOTED = re.compile(rb"([0-9A-Za-z]{6,}): from=<(.*?)>, size=").match
_EXPIRED = re.compile(rb"([0-9A-Za-z]{6,}): from=<(.*?)>, status=((?:force-)?expired), (.*)", re.DOTALL).match
_REMOVED = re.compile(rb"([0-9A-Za-z]{6,}): removed(?: \(canceled\))?").fullmatch
_MESSAGE_ID = re.compile(rb"([0-9A-Za-z]{6,}): message-id=<?(.*?)>?", re.DOTALL).fullmatch
_HELD = re.compile(
    rb"([0-9A-Za-z]{6,}): (?:milter-)?hold: (.*?)(?:; from=<(.*?)>(?: to=<(.*?)>)?(?: proto=.*)?)?", re.DOTALL
).fullmatch
_CLIENT = re.compile(rb"([0-9A-Za-z]{6,}): client=").match
_SUPER = re.compile(rb"([0-9A-Za-z]{6,}): (placed on hold|released from hold|removed)").match
_TLS_LINE = re.compile(
    rb"(?:(Verified|Trusted|Untrusted|Anonymous) )?TLS connection (established|reused) to (\S+): "
    rb"(\S+)(?: with cipher (\S+)(?: \((\d+)/\d+ bits\))?)?"
).match
_NOTE = re.compile(
    rb"(SSL_connect error to|(?:server )?certificate (?:peer name )?verification failed for|connect to) "
    rb"(\S+?\[[^\]]*\](?::\d+)?|[^\s:]+(?::\d+)?): (.*)",
    re.DOTALL,
).match
_INFO = re.compile(rb"([0-9A-Za-z]{6,}): (.*)", re.DOTALL).match
_NO_QUEUE_ID = frozenset({b"warning", b"fatal", b"panic", b"error", b"statistics", b"NOQUEUE", b"message"})
_NAMED_HOST = re.compile(rb"(?:host|server was|with|to) ([^\s\[]+\[[^\]]*\](?::\d+)?)")
_SAID = re.compile(rb"(?:said|talk to me|start TLS): (\d{3})\b")
_REQUIRETLS = {
    b"": RequireTls.SENT,
    b"none": RequireTls.NOT_OFFERED,
    b"nostarttls": RequireTls.NO_STARTTLS,
    b"noencryption": RequireTls.NO_ENCRYPTION,
    b"nocertmatch": RequireTls.NO_CERTIFICATE_MATCH,
    b"nomatch": RequireTls.NO_CERTIFICATE_MATCH,  # one of the two spellings in the manual
}
_VERIFYING = frozenset({b"dane", b"dane-only", b"verify", b"secure", b"fingerprint"})
_STRICT = {
    b"dane": Told.YES, b"dane-only": Told.YES, b"secure": Told.YES, b"halfdane": Told.NO, b"half-dane": Told.NO,
    b"verify": Told.UNKNOWN, b"fingerprint": Told.UNKNOWN,
}  # fmt: skip
_LEVELS = {
    b"Verified": TlsLevel.VERIFIED, b"Trusted": TlsLevel.TRUSTED, b"Untrusted": TlsLevel.UNTRUSTED,
    b"Anonymous": TlsLevel.ANONYMOUS, None: TlsLevel.ENCRYPTED,
}  # fmt: skip
_VERSIONS = {
    b"SSLv3": TlsVersion.SSLV3, b"TLSv1": TlsVersion.TLSV1_0, b"TLSv1.0": TlsVersion.TLSV1_0,
    b"TLSv1.1": TlsVersion.TLSV1_1, b"TLSv1.2": TlsVersion.TLSV1_2, b"TLSv1.3": TlsVersion.TLSV1_3,
}  # fmt: skip
_ACTIONS = {
    b"sent": Action.DELIVERED, b"deferred": Action.DELAYED, b"bounced": Action.FAILED,
    b"SOFTBOUNCE": Action.DELAYED, b"expanded": Action.EXPANDED,
}  # fmt: skip

_NEVER_ENCRYPTED = frozenset(
    {TlsOutcome.STARTTLS_NOT_SUPPORTED, TlsOutcome.STARTTLS_REFUSED, TlsOutcome.TLS_HANDSHAKE_FAILED,
     TlsOutcome.TLS_VERSION_TOO_LOW}
)  # fmt: skip
_CERTIFICATE = frozenset(
    {TlsOutcome.CERTIFICATE_UNVERIFIED, TlsOutcome.CERTIFICATE_EXPIRED, TlsOutcome.CERTIFICATE_NOT_TRUSTED,
     TlsOutcome.CERTIFICATE_HOST_MISMATCH, TlsOutcome.TLSA_INVALID, TlsOutcome.VALIDATION_FAILURE}
)  # fmt: skip
_NOT_THE_CONNECTION = frozenset({TlsOutcome.OK, TlsOutcome.NOT_TLS, TlsOutcome.UNKNOWN})

MAX_MESSAGES = 150_000
MAX_CACHED = 20_000


class Message:
    """A queue file: from its first line to ``removed``."""

    __slots__ = ("held", "message_id", "open", "queue_id", "sender", "turn")

    def __init__(self, queue_id: bytes) -> None:
        self.queue_id = queue_id
        self.message_id: bytes | None = None
        self.sender: bytes | None = None
        self.turn = 0  # times that the queue manager took it up
        self.open: dict[bytes, tuple[TlsOutcome, Tls, bytes | None]] | None = None  # deferred recipients
        self.held: list[Delivery] | None = None  # rows that wait for the Message-ID


class Queue:
    """The messages of one Postfix instance on one host."""

    __slots__ = ("messages", "others")

    def __init__(self, others: list[Queue]) -> None:
        self.messages: dict[bytes, Message] = {}
        self.others = others  # every instance of that host
        others.append(self)

    def find(self, queue_id: bytes) -> Message:
        """The message, also when another part of the same host logs under another name; else a new one."""
        for queue in self.others:
            if (message := queue.messages.get(queue_id)) is not None:
                return message
        return self.add(queue_id)

    def add(self, queue_id: bytes) -> Message:
        """A new message, in the place of one that had the same id."""
        messages = self.messages
        messages.pop(queue_id, None)
        if len(messages) >= MAX_MESSAGES:
            for old in list(messages)[: MAX_MESSAGES // 4]:
                del messages[old]
        message = messages[queue_id] = Message(queue_id)
        return message

    def remove(self, queue_id: bytes) -> Message | None:
        """Forget a message."""
        message = self.messages.pop(queue_id, None)
        if message is None and len(self.others) > 1:
            for queue in self.others:
                if (message := queue.messages.pop(queue_id, None)) is not None:
                    break
        return message


class Process:
    """One smtp(8), lmtp(8) or smtpd(8) process: the request it serves, and the lines since the last one."""

    __slots__ = (
        "fresh", "holds", "notes", "origin", "owner", "pending", "queue", "relay", "service", "shown", "tls",
        "transport", "turn", "untold",
    )  # fmt: skip

    def __init__(self, queue: Queue, origin: Origin, transport: bytes, service: Service, untold: Tls) -> None:
        self.queue = queue
        self.origin = origin
        self.transport = transport
        self.service = service
        self.untold = untold
        self.owner: Message | None = None
        self.turn = 0
        self.fresh = False  # connection lines have come since the last line with a queue id
        self.relay: bytes | None = None  # of the last TLS line
        self.tls: Tls | None = None
        self.notes: dict[bytes, bytes] | None = None  # relay -> what failed
        self.pending: list[Connection] = []
        self.shown: bytes | None = None  # relay that this request already has a connection row for
        self.holds: list[tuple[int, int | None, bytes | None, bytes | None, bytes]] | None = None


class PostfixReader:
    """Postfix lines to rows; feed it sources from any number of hosts and instances."""

    name = MailReader.POSTFIX

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.rows = sink.deliveries
        self.at = sink.clock.at
        self.understood = sink.understood
        self.wants_connections = sink.wants_connections
        self.hosts: dict[bytes, dict[bytes, Queue]] = {}
        self.services: dict[tuple[bytes, bytes], tuple[Service, Tls]] = {}
        self.origins: dict[bytes, Origin] = {}
        self.processes: list[Process] = []
        self.server_skipped = sink.coverage.reason("postfix/smtpd: no deliveries")
        self._relays: dict[bytes, tuple[Relay, int]] = {}
        self._tls: dict[tuple[Any, ...], Tls] = {}
        self._results: dict[tuple[Any, ...], Result] = {}
        self._lines: dict[tuple[Any, ...], Tls] = {}
        for kind in (
            "postfix delivery", "postfix message taken up", "postfix message-id", "postfix removed",
            "postfix TLS connection", "postfix connection problem", "postfix result of one server", "postfix expired",
            "postfix held",
        ):  # fmt: skip
            self.understood.setdefault(kind, 0)

    # -- which lines ---------------------------------------------------------------------------------------

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``postfix/smtp[12]`` and its kin: any name before the slash."""
        instance, slash, rest = tag.partition(b"/")
        if not slash:
            return None
        service = rest.rpartition(b"/")[2]
        if service not in _SERVICES and not instance.startswith(b"postfix"):
            return None
        feed: Any = None
        if service in _CLIENTS or service not in _SERVICES or service in (b"relay", b"submission"):
            feed = self._client
        elif service in (b"qmgr", b"oqmgr", b"nqmgr"):
            feed = self._queue_manager
        elif service == b"cleanup":
            feed = self._cleanup
        elif service == b"smtpd":
            feed = self._server
            self.server_skipped.sample(text)
        elif service == b"postsuper":
            feed = self._postsuper
        if feed is None:
            skipped = self.sink.coverage.reason(
                f"postfix/{service.decode('ascii', 'replace')}: no deliveries"
            )
            return Source(host, tag, pid, skipped=skipped)
        queues = self.hosts.setdefault(host, {})
        queue = queues.get(instance)
        if queue is None:
            others = next(iter(queues.values())).others if queues else []
            queue = queues[instance] = Queue(others)
        origin = self.origins.get(host) or self.origins.setdefault(host, Origin(self.name, host or None))
        known = self.services.get((host, tag))
        if known is None:
            habit = Service()
            known = self.services[host, tag] = (habit, Tls(TlsLevel.UNKNOWN, service=habit))
        process = Process(queue, origin, service, *known)
        return Source(host, tag, pid, feed=feed, state=process)

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """Postfix has no form of its own beside syslog's."""
        return False

    def finish(self) -> None:
        """Hand over held messages without a Message-ID, and connections whose message never came."""
        for queues in self.hosts.values():
            for queue in queues.values():
                for message in queue.messages.values():
                    self._release_held(message)

    def drop(self, source: Source) -> None:
        """Forget a process: its connections without a message are handed over as they are."""
        if isinstance(process := source.state, Process):
            self._emit_pending(process, source, None)

    # -- queue manager, cleanup, server ----------------------------------------------------------------------

    def _queue_manager(self, source: Source, line: bytes, start: int, number: int) -> None:
        process: Process = source.state
        if line.endswith(b": removed"):
            self.understood["postfix removed"] += 1
            if process.queue.remove(line[start:-9]) is None:
                return
            return
        match = _FROM(line, start) or _FROM_QUOTED(line, start)
        if match is not None:
            self.understood["postfix message taken up"] += 1
            queue_id, sender = match.groups()
            message = process.queue.messages.get(queue_id)
            if message is None:
                message = process.queue.find(queue_id)
            message.sender = sender
            message.turn += 1
            return
        match = _EXPIRED(line, start)
        if match is not None:
            self._expired(process, line, number, match)
            return
        self._client(source, line, start, number)

    def _expired(self, process: Process, line: bytes, number: int, match: re.Match[bytes]) -> None:
        queue_id, sender, word, text = match.groups()
        self.understood["postfix expired"] += 1
        message = process.queue.messages.get(queue_id) or process.queue.find(queue_id)
        message.sender = sender
        still_open = message.open or {None: (TlsOutcome.UNKNOWN, NO_TLS, None)}
        for recipient, (outcome, tls, code) in still_open.items():
            result = self._result(Action.FAILED, outcome, word, code, None, False)
            self.rows.extend(
                Delivery(
                    number, self.at(line), process.origin, queue_id, message.message_id, sender, recipient,
                    result=result, text=text, tls=self._without_session(tls),
                )
            )  # fmt: skip
        message.open = None

    def _cleanup(self, source: Source, line: bytes, start: int, number: int) -> None:
        match = _MESSAGE_ID(line, start)
        process: Process = source.state
        if match is not None:
            self.understood["postfix message-id"] += 1
            queue_id, message_id = match.groups()
            queue = process.queue
            message = queue.messages.get(queue_id)
            if message is None or message.message_id is not None:  # an id used again
                message = queue.add(queue_id)
            message.message_id = message_id
            if message.held is not None:
                self._release_held(message)
            return
        match = _HELD(line, start)
        if match is not None:
            queue_id, text, sender, recipient = match.groups()
            message = process.queue.messages.get(queue_id) or process.queue.find(queue_id)
            self._hold(process, message, number, self.at(line), sender, recipient, text)
            if message.message_id is not None:
                self._release_held(message)
            return
        match = _REMOVED(line, start)
        if match is not None:
            self.understood["postfix removed"] += 1
            process.queue.remove(match[1])
            return
        self._other(source, line, start, number)

    def _server(self, source: Source, line: bytes, start: int, number: int) -> None:
        process: Process = source.state
        if process.holds is None and line.find(b": hold: ", start, start + 24) < 0:
            self.server_skipped.count += 1
            return
        self._server_hold(process, line, start, number)

    def _server_hold(self, process: Process, line: bytes, start: int, number: int) -> None:
        match = _HELD(line, start)
        if match is not None:
            queue_id, text, sender, recipient = match.groups()
            if queue_id == b"NOQUEUE":
                process.holds = process.holds or []
                process.holds.append((number, self.at(line), sender, recipient, text))
                self.understood["postfix held"] += 1
                return
            message = process.queue.messages.get(queue_id) or process.queue.find(queue_id)
            self._hold(process, message, number, self.at(line), sender, recipient, text)
            return
        match = _CLIENT(line, start)
        if match is not None:
            self.understood["postfix held"] += 1
            message = process.queue.add(match[1])
            for hold in process.holds or ():
                self._hold(process, message, *hold, count=False)
        else:
            self.sink.coverage.skip("postfix/smtpd: no deliveries", line)
        if match is not None or line.startswith((b"disconnect from ", b"connect from "), start):
            process.holds = None

    def _hold(
        self,
        process: Process,
        message: Message,
        number: int,
        at: int | None,
        sender: bytes | None,
        recipient: bytes | None,
        text: bytes,
        *,
        count: bool = True,
    ) -> None:
        """Keep the row of a held recipient until the Message-ID is known."""
        if count:
            self.understood["postfix held"] += 1
        if sender is not None:
            message.sender = sender
        result = self._result(Action.DELAYED, TlsOutcome.NOT_TLS, b"held", None, None, False)
        row = Delivery(
            number,
            at,
            process.origin,
            message.queue_id,
            None,
            message.sender,
            recipient,
            result=result,
            text=text,
        )
        message.held = message.held or []
        message.held.append(row)

    def _release_held(self, message: Message) -> None:
        for row in message.held or ():
            self.rows.extend(row._replace(message_id=message.message_id))
        message.held = None

    def _postsuper(self, source: Source, line: bytes, start: int, number: int) -> None:
        process: Process = source.state
        match = _SUPER(line, start)
        if match is None:
            self.sink.coverage.skip("postfix/postsuper: no deliveries", line)
            return
        queue_id, what = match.groups()
        if what == b"removed":
            self.understood["postfix removed"] += 1
            process.queue.remove(queue_id)
            return
        message = process.queue.messages.get(queue_id) or process.queue.find(queue_id)
        if what == b"placed on hold":
            for recipient in message.open or (None,):
                self._hold(process, message, number, self.at(line), message.sender, recipient, what)
            self._release_held(message)
        else:
            self.sink.coverage.skip("postfix/postsuper: no deliveries", line)

    # -- delivery agents -------------------------------------------------------------------------------------

    def _client(self, source: Source, line: bytes, start: int, number: int) -> None:
        match = _DELIVERY(line, start)
        if match is None:
            match = _DELIVERY_QUOTED(line, start) if line.find(b": to=<", start, start + 32) > 0 else None
            if match is None:
                self._other(source, line, start, number)
                return
        queue_id, recipient, relay_text, _conn_use, delay, field, dsn, status, text = match.groups()
        self.understood["postfix delivery"] += 1
        process: Process = source.state
        message = process.queue.messages.get(queue_id)
        if message is None:
            message = process.queue.find(queue_id)
        if process.owner is not message or process.turn != message.turn:
            self._begin(process, message)
        known = self._relays.get(relay_text)
        if known is None:
            known = self._relay(relay_text)
        relay, kind = known
        had = process.tls if process.relay == relay_text else None
        if text is not None and text.endswith(b")"):
            text = text[:-1]
        if status == b"sent":
            key = (field, had, kind, process.service)
            tls = self._tls.get(key)
            if tls is None:
                tls = self._tls_of(key, process, field, had, kind, True, TlsOutcome.OK)
            code = text[:3] if text else None
            result = self._results.get((dsn, code))
            if result is None:
                result = self._sent(dsn, code)
            if message.open is not None:
                message.open.pop(recipient, None)
        else:
            result, tls = self._not_sent(process, message, match, relay_text, kind, had, text)
        self.rows.extend(
            (
                number, self.at(line), process.origin, queue_id, message.message_id, message.sender, recipient, relay,
                process.transport, result, text, float(delay), tls,
            )
        )  # fmt: skip
        if self.wants_connections and (process.fresh or process.shown != relay_text):
            self._connections_of(process, source, message, number, line, match, relay, kind, result, tls)
        process.fresh = False

    def _begin(self, process: Process, message: Message) -> None:
        """Another request: what the process logged before the last one is not for this one."""
        process.owner = message
        process.turn = message.turn
        process.shown = None
        if not process.fresh:
            process.relay = process.tls = process.notes = None

    def _relay(self, text: bytes) -> tuple[Relay, int]:
        """A ``relay=`` value, and what it is: 0 no session, 1 a host, 2 a local mailbox or socket."""
        match = _RELAY.fullmatch(text)
        if match is None:
            relay, kind = (NO_RELAY, 0) if text == b"none" else (Relay(text), 2)
        elif match[2].startswith(b"/"):
            relay, kind = Relay(match[1]), 2
        else:
            address = match[2].removeprefix(b"IPv6:").lower()
            relay, kind = Relay(match[1], address, int(match[3][:6]) if match[3] else None), 1
        if len(self._relays) >= MAX_CACHED:
            self._relays.clear()
        self._relays[text] = relay, kind
        return relay, kind

    def _sent(self, dsn: bytes | None, code: bytes | None) -> Result:
        number = int(code) if code and len(code) == 3 and code.isdigit() else None
        result = Result(Action.DELIVERED, TlsOutcome.OK, b"sent", dsn, number)
        if len(self._results) >= MAX_CACHED:
            self._results.clear()
        self._results[dsn, code] = result
        return result

    def _result(
        self,
        action: Action | None,
        outcome: TlsOutcome,
        word: bytes,
        dsn: bytes | None,
        code: int | None,
        attempted: bool,
    ) -> Result:
        key = (action, outcome, word, dsn, code, attempted)
        result = self._results.get(key)
        if result is None:
            if len(self._results) >= MAX_CACHED:
                self._results.clear()
            result = self._results[key] = Result(action, outcome, word, dsn, code, attempted)
        return result

    def _not_sent(
        self,
        process: Process,
        message: Message,
        match: re.Match[bytes],
        relay_text: bytes,
        kind: int,
        had: Tls | None,
        text: bytes | None,
    ) -> tuple[Result, Tls]:
        _id, recipient, _relay, _use, _delay, field, dsn, status, _text = match.groups()
        text = text or b""
        suspended = text.startswith(b"delivery temporarily suspended: ")
        reason = text[32:] if suspended else text
        attempted = not suspended and process.transport not in (b"error", b"retry")
        action = _ACTIONS.get(status)
        said = _SAID.search(reason)
        code = int(said[1]) if said else int(text[:3]) if text[:3].isdigit() else None
        note = process.notes.get(relay_text) if process.notes else None
        outcome = (
            TlsOutcome.OK
            if status in (b"deliverable", b"expanded")
            else self._outcome(reason, field, dsn, note, kind)
        )
        if suspended:
            kind, had = 0, None
        tls = self._tls_of((), process, field, had, kind, False, outcome)
        result = self._result(action, outcome, status, dsn, code, attempted)
        if action is Action.DELAYED:
            if message.open is None:
                message.open = {}
            message.open[recipient] = (outcome, tls, dsn)
        elif message.open is not None:
            message.open.pop(recipient, None)
        return result, tls

    def _outcome(
        self, text: bytes, field: bytes | None, dsn: bytes | None, note: bytes | None, kind: int
    ) -> TlsOutcome:
        """Why it failed: by the ``tls=`` field, then by the text, then by code; a line of the process refines it."""
        outcome = classify(text.decode("utf-8", "backslashreplace"), dsn.decode("ascii") if dsn else None)
        _level, _slash, wish = (field or b"").partition(b"/")
        if wish.startswith(b"!"):
            actual = wish.partition(b":")[2].rstrip(b"?")
            if actual == b"none":
                return TlsOutcome.REQUIRETLS_NOT_SUPPORTED
            if actual == b"noencryption" or (actual in (b"nocertmatch", b"nomatch") and kind == 0):
                return TlsOutcome.LOCAL_POLICY
        if note is not None and (outcome in _CERTIFICATE or outcome is TlsOutcome.TLS_HANDSHAKE_FAILED):
            refined = classify(note.decode("utf-8", "backslashreplace"), None)
            if refined not in (TlsOutcome.UNKNOWN, TlsOutcome.NOT_TLS):
                return refined
        return outcome

    # -- TLS ---------------------------------------------------------------------------------------------------

    def _tls_of(
        self,
        key: tuple[Any, ...],
        process: Process,
        field: bytes | None,
        had: Tls | None,
        kind: int,
        sent: bool,
        outcome: TlsOutcome,
    ) -> Tls:
        key = key or (field, had, kind, process.service, outcome)
        if (tls := self._tls.get(key)) is not None:
            return tls
        tls = (
            self._from_line(process, had, kind, outcome)
            if field is None
            else _from_field(field, had, kind, sent, outcome)
        )
        if len(self._tls) >= MAX_CACHED:
            self._tls.clear()
        self._tls[key] = tls
        return tls

    def _from_line(self, process: Process, had: Tls | None, kind: int, outcome: TlsOutcome) -> Tls:
        """No ``tls=`` field: the TLS line says it, or the lack of one where this service writes them."""
        if kind != 1:
            return NO_TLS
        if had is not None:
            return had
        if outcome in _NEVER_ENCRYPTED:
            return Tls(TlsLevel.NONE)
        if outcome in _CERTIFICATE:
            return Tls(TlsLevel.ENCRYPTED)
        return process.untold

    def _without_session(self, tls: Tls) -> Tls:
        """What a recipient's last try says of the message, without its session."""
        key = ("expired", tls.policy, tls.requiretls, tls.violated, tls.strict)
        if (bare := self._tls.get(key)) is None:
            bare = self._tls[key] = Tls(
                policy=tls.policy, requiretls=tls.requiretls, violated=tls.violated, strict=tls.strict
            )
        return bare

    # -- lines of the connection -------------------------------------------------------------------------------

    def _other(self, source: Source, line: bytes, start: int, number: int) -> None:
        process: Process = source.state
        match = _TLS_LINE(line, start)
        if match is not None:
            word, how, relay, *kind = match.groups()
            self.understood["postfix TLS connection"] += 1
            if process.service.first_tls is None:
                process.service.first_tls = number
            key = (word, *kind)
            tls = self._lines.get(key)
            if tls is None:
                protocol, cipher, bits = kind
                if len(self._lines) >= MAX_CACHED:
                    self._lines.clear()
                tls = self._lines[key] = Tls(
                    _LEVELS[word], None, _VERSIONS.get(protocol), cipher, int(bits[:6]) if bits else None
                )
            process.relay, process.tls, process.fresh = relay, tls, True
            if self.wants_connections:
                note = process.notes.get(relay) if process.notes else None
                outcome = TlsOutcome.OK
                if note is not None:
                    outcome = classify(note.decode("utf-8", "backslashreplace"), None)
                    outcome = outcome if outcome in _CERTIFICATE else TlsOutcome.OK
                self._add_connection(
                    process, source, number, line, relay, tls, outcome, how == b"reused", start
                )
            return
        match = _NOTE(line, start)
        if match is not None:
            what, relay, reason = match.groups()
            self.understood["postfix connection problem"] += 1
            if not process.fresh:
                process.notes = None
            if process.notes is None:
                process.notes = {}
            process.fresh = True
            if what == b"connect to":
                if self.wants_connections:
                    self._add_connection(
                        process, source, number, line, relay, NO_TLS, TlsOutcome.NOT_TLS, None, start
                    )
                return
            process.notes[relay] = (
                reason if what != b"SSL_connect error to" else b"SSL_connect error: " + reason
            )
            if what == b"SSL_connect error to" and self.wants_connections:
                self._add_connection(
                    process, source, number, line, relay, Tls(TlsLevel.NONE), TlsOutcome.TLS_HANDSHAKE_FAILED, None,
                    start,
                )  # fmt: skip
            return
        if line.startswith(b"warning: TLS library problem: ", start):
            self.understood["postfix connection problem"] += 1
            self._library_problem(process, line[start + 30 :])
            return
        match = _INFO(line, start)
        if match is not None and match[1] not in _NO_QUEUE_ID:
            self._info(process, source, line, number, match)
            return
        service = process.transport.decode("ascii", "replace")
        self.sink.coverage.skip(f"postfix/{service}: no deliveries", line)

    def _library_problem(self, process: Process, text: bytes) -> None:
        """OpenSSL's own words refine the handshake that failed just before."""
        if not process.notes:
            return
        relay = next(reversed(process.notes))
        process.notes[relay] += b" (" + text[:300] + b")"
        if process.pending and process.pending[-1].outcome is TlsOutcome.TLS_HANDSHAKE_FAILED:
            refined = classify(process.notes[relay].decode("utf-8", "backslashreplace"), None)
            if refined is TlsOutcome.TLS_VERSION_TOO_LOW:
                process.pending[-1] = process.pending[-1]._replace(outcome=refined)

    def _info(
        self, process: Process, source: Source, line: bytes, number: int, match: re.Match[bytes]
    ) -> None:
        """``QID: TEXT`` without ``to=``: how it went with one of several servers."""
        queue_id, text = match.groups()
        if text.startswith(b"to=<"):
            self.sink.coverage.skip("postfix delivery line cut short", line)
            return
        self.understood["postfix result of one server"] += 1
        message = process.queue.messages.get(queue_id) or process.queue.find(queue_id)
        if process.owner is not message or process.turn != message.turn:
            self._begin(process, message)
        if self.wants_connections:
            outcome = classify(text.decode("utf-8", "backslashreplace"), None)
            named = _NAMED_HOST.search(text)
            host = named[1].partition(b"]")[0] + b"]" if named else None
            if outcome not in _NOT_THE_CONNECTION:
                for index, row in enumerate(process.pending):
                    if host is None or self._bracketed(row.relay) == host:
                        process.pending[index] = row._replace(
                            outcome=row.outcome if row.outcome not in _NOT_THE_CONNECTION else outcome
                        )
                        break
                else:
                    if host is not None or not process.fresh:
                        tls = Tls(TlsLevel.NONE) if outcome in _NEVER_ENCRYPTED else UNKNOWN_TLS
                        relay = self._relay(host)[0] if host else NO_RELAY
                        process.pending.append(
                            Connection(
                                number, self.at(line), process.origin, source.pid, queue_id, relay, tls, outcome,
                                text=text,
                            )
                        )  # fmt: skip
            self._emit_pending(process, source, queue_id)
        process.fresh = False

    @staticmethod
    def _bracketed(relay: Relay) -> bytes:
        return (relay.host or b"") + b"[" + (relay.address or b"") + b"]"

    def _add_connection(
        self,
        process: Process,
        source: Source,
        number: int,
        line: bytes,
        relay_text: bytes,
        tls: Tls,
        outcome: TlsOutcome,
        reused: bool | None,
        start: int,
    ) -> None:
        known = self._relays.get(relay_text) or self._relay(relay_text)
        if len(process.pending) >= 100:
            self._emit_pending(process, source, None)
        process.pending.append(
            Connection(
                number,
                self.at(line),
                process.origin,
                source.pid,
                None,
                known[0],
                tls,
                outcome,
                reused,
                line[start:],
            )
        )

    def _connections_of(
        self,
        process: Process,
        source: Source,
        message: Message,
        number: int,
        line: bytes,
        match: re.Match[bytes],
        relay: Relay,
        kind: int,
        result: Result,
        tls: Tls,
    ) -> None:
        """The connection rows that a delivery line ends: those before it, or one of its own where it has none."""
        relay_text = match[3]
        if process.pending:
            for index, row in enumerate(process.pending):
                if row.relay is relay:
                    process.shown = relay_text
                    if result.outcome not in _NOT_THE_CONNECTION and row.outcome in _NOT_THE_CONNECTION:
                        process.pending[index] = row._replace(outcome=result.outcome)
            self._emit_pending(process, source, message.queue_id)
        if kind == 1 and process.shown != relay_text and result.attempted:
            process.shown = relay_text
            self.sink.connections.extend(
                Connection(
                    number, self.at(line), process.origin, source.pid, message.queue_id, relay, tls, result.outcome,
                    match[4] is not None, match[9],
                )
            )  # fmt: skip

    def _emit_pending(self, process: Process, source: Source, queue_id: bytes | None) -> None:
        for row in process.pending:
            self.sink.connections.extend(row._replace(queue_id=row.queue_id or queue_id))
        process.pending.clear()


def _from_field(field: bytes, had: Tls | None, kind: int, sent: bool, outcome: TlsOutcome) -> Tls:
    """Level and REQUIRETLS out of ``tls=``; the TLS line of the same connection adds what it knows.

    Notes
    -----
    ``may?`` on a message that was sent is cleartext over a cached connection. A `!` on the first part means that
    the connection was not used: its TLS was had where a certificate is what was wrong.
    """
    first, _slash, second = field.partition(b"/")
    name, _colon, actual = first.strip(b"!?").partition(b":")
    undecided, violated = first.endswith(b"?"), first.startswith(b"!")
    reached = actual or name
    level: TlsLevel | None
    if kind == 0:
        level = None
    elif undecided:
        level = TlsLevel.UNKNOWN
        if had is not None:
            level = had.level
        elif (sent and name == b"may") or outcome in _NEVER_ENCRYPTED:
            level = TlsLevel.NONE
    elif reached == b"none" or outcome in _NEVER_ENCRYPTED:
        level = TlsLevel.NONE
    elif violated:
        level = TlsLevel.ENCRYPTED if outcome in _CERTIFICATE else TlsLevel.UNKNOWN
        if had is not None:
            level = had.level
    elif had is not None:
        level = had.level
    elif reached in _VERIFYING:
        level = TlsLevel.VERIFIED
    else:
        level = TlsLevel.ENCRYPTED if reached != b"unknown" else TlsLevel.UNKNOWN
    wish, broken, strict = RequireTls.NOT_REQUESTED, None, None
    if second:
        broken = second.startswith(b"!")
        asked, _colon, got = second.strip(b"!?").partition(b":")
        if asked != b"requiretls":
            wish = RequireTls.UNKNOWN
        elif second.endswith(b"?"):
            wish = RequireTls.UNDECIDED
        else:
            wish = _REQUIRETLS.get(got, RequireTls.UNKNOWN)
            if wish is RequireTls.NO_CERTIFICATE_MATCH and not (undecided or violated or broken):
                wish = RequireTls.SENT_UNAUTHENTICATED
            if wish is RequireTls.SENT:
                strict = _STRICT.get(reached, Told.NO)
            elif wish is RequireTls.SENT_UNAUTHENTICATED:
                strict = Told.NO
    version = had.version if had is not None and kind else None
    cipher = had.cipher if had is not None and kind else None
    bits = had.bits if had is not None and kind else None
    return Tls(level, name or None, version, cipher, bits, wish, broken, strict)
