"""Postfix's log, 2.x to 3.11: one row per ``to=`` line, tied to the TLS lines of the same process.

smtp(8) and lmtp(8) serve one message at a time: a TLS line belongs to the queue id that the same process names
next, and to that alone; the next request may run over a cached connection in cleartext. From 3.11 on the
``tls=`` field is the authority for level and REQUIRETLS, and the TLS line adds protocol and cipher.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rtls_analysis.outcomes import Action, TlsLevel, TlsOutcome
from rtls_analysis.read.log_rows import (
    NO_TLS,
    UNKNOWN_TLS,
    Connection,
    Coverage,
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
from rtls_analysis.read.postfix_tls import BAD_CERTIFICATE, NEVER_ENCRYPTED, tls_of_field, tls_of_line
from rtls_analysis.read.tls_reasons import classify
from rtls_analysis.schema import MailReader

_CLIENTS = frozenset({b"smtp", b"lmtp", b"local", b"virtual", b"pipe", b"error", b"retry", b"discard"})
_QUEUE_MANAGERS = frozenset({b"qmgr", b"oqmgr", b"nqmgr"})
_SERVICES = _CLIENTS | _QUEUE_MANAGERS | {
    b"anvil", b"bounce", b"cleanup", b"defer", b"dnsblog", b"flush", b"master", b"pickup", b"postalias", b"postdrop",
    b"postfix-script", b"postlog", b"postlogd", b"postmap", b"postqueue", b"postscreen", b"postsuper", b"proxymap",
    b"proxywrite", b"qmqpd", b"scache", b"sendmail", b"showq", b"smtpd", b"spawn", b"tlsmgr", b"tlsproxy", b"trace",
    b"trivial-rewrite", b"verify",
}  # fmt: skip

_ID = rb"([0-9A-Za-z]{6,30}): "
_RELAY = rb"relay=([^,\[]*(\[/?)?[^,]*), "
_DELIVERY = re.compile(  # as nearly all are
    _ID + rb"to=<([^>]*)>, " + _RELAY + rb"delay=([0-9]+(?:\.[0-9]+)?), delays=[^,]+, (?:tls=([^,]*), )?dsn=([0-9.]+), "
    rb"status=([^ ]+) \((.*)\)",
    re.DOTALL,
).fullmatch  # fmt: skip
_REST = (
    _RELAY
    + rb"(?:conn_use=\d+, )?delay=([0-9]+(?:\.[0-9]+)?), (?:delays=[^,]+, )?(?:tls=([^,]*), )?(?:dsn=([0-9.]+), )?"
    rb"status=([^\s,]+)(?: \((.*?)\)?)?"
)
_ANY_DELIVERY = re.compile(  # a quoted local part may hold ">"; old versions, cut lines
    _ID + rb"to=<(.{0,512}?)>, (?:orig_to=<.{0,512}?>, )?" + _REST, re.DOTALL
).fullmatch
_BARE_DELIVERY = re.compile(
    _ID + rb"to=([^<,]{0,512}), (?:orig_to=[^,]{0,512}, )?" + _REST, re.DOTALL
).fullmatch
_FROM = re.compile(_ID + rb"from=<([^>]*)>, size=").match
_FROM_QUOTED = re.compile(_ID + rb"from=<(.{0,512}?)>, size=", re.DOTALL).match
_EXPIRED = re.compile(_ID + rb"from=<(.{0,512}?)>, status=((?:force-)?expired), (.*)", re.DOTALL).match
_MESSAGE_ID = re.compile(_ID + rb"message-id=<?(.{0,1000})", re.DOTALL).match
_HELD = re.compile(_ID + rb"(?:milter-)?hold: (.*)", re.DOTALL).fullmatch
_HELD_FROM = re.compile(rb"; from=<(.{0,512}?)>(?: to=<(.{0,512}?)>)?(?: |$)", re.DOTALL).search
_CLIENT = re.compile(_ID + rb"client=").match
_BY_HAND = re.compile(_ID + rb"(placed on hold|released from hold|removed)").match
_TLS_LINE = re.compile(
    rb"(?:([A-Z][a-z]+) )?TLS connection (established|reused) to ([^ ]+): (.*)", re.DOTALL
).match
_NOTE = re.compile(
    rb"(SSL_connect error to|(?:server )?certificate (?:peer name )?verification failed for|connect to) "
    rb"([^\s\[]{1,255}\[[^\]\s]{1,64}\](?::\d+)?|[^\s:]{1,255}(?::\d+)?): (.*)",
    re.DOTALL,
).match
_INFO = re.compile(_ID + rb"(.*)", re.DOTALL).match
_WORDS = frozenset({b"warning", b"statistics", b"NOQUEUE", b"message"})  # no queue ids
_NAMED_HOST = re.compile(rb"(?:host|server was|with|to) ([^\s\[]{1,255}\[[^\]\s]{1,64}\](?::\d+)?)").search
_SAID = re.compile(rb"(?:said|talk to me|start TLS): (\d{3})\b").search
_LIBRARY = b"warning: TLS library problem: "
_SUSPENDED = b"delivery temporarily suspended: "
_GOES_ON = re.compile(rb"my configured TLS security level|REQUIRETLS support was not offered by").search
_ACTIONS = {
    b"sent": Action.DELIVERED,
    b"deferred": Action.DELAYED,
    b"bounced": Action.FAILED,
    b"SOFTBOUNCE": Action.DELAYED,
    b"expanded": Action.EXPANDED,
    b"deliverable": None,  # probes of an address
    b"undeliverable": None,
}
_NOT_THE_CONNECTION = frozenset({TlsOutcome.OK, TlsOutcome.NOT_TLS, TlsOutcome.UNKNOWN})

_Value = TypeVar("_Value")

COUNTED = (
    "postfix delivery", "postfix message taken up", "postfix message-id", "postfix removed", "postfix TLS connection",
)  # fmt: skip
MAX_MESSAGES = 150_000
MAX_CACHED = 20_000
MAX_PENDING = 100  # connections of one process that wait for their message
MAX_OPEN = 10_000  # recipients of one message that wait for another try
MAX_OPEN_IN_ALL = 500_000

# What opens the address in relay=: that of a host, or of a socket; without one it is "none", or a local agent.
_HOST = b"["


LastTry = tuple[TlsOutcome, Tls, bytes | None]


class Message:
    """A queue file: from its first line to ``removed``."""

    __slots__ = ("held", "message_id", "open", "queue_id", "sender", "turn")

    def __init__(self, queue_id: bytes, message_id: bytes | None = None) -> None:
        self.queue_id = queue_id
        self.message_id = message_id
        self.sender: bytes | None = None
        self.turn = 0  # times that the queue manager took it up
        self.open: dict[bytes, LastTry] | None = None  # recipients to be tried again
        self.held: list[Delivery] | None = None  # rows that wait for the Message-ID


class Queue:
    """The messages of one Postfix instance on one host."""

    __slots__ = ("messages", "others")

    def __init__(self, others: list[Queue]) -> None:
        self.messages: dict[bytes, Message] = {}
        self.others = others  # all instances of that host, this one among them
        others.append(self)

    def find(self, queue_id: bytes) -> Message:
        """The message, also where another part of the host logs under another name; else a new one."""
        for queue in (self, *self.others):
            if (message := queue.messages.get(queue_id)) is not None:
                return message
        return self.add(Message(queue_id))

    def add(self, message: Message) -> Message:
        """A new message, in the place of one that had the same id."""
        if len(self.messages) >= MAX_MESSAGES:
            self.shrink()
        self.messages[message.queue_id] = message
        return message

    def shrink(self) -> None:
        """Forget the oldest messages."""
        for old in list(self.messages)[: MAX_MESSAGES // 4]:
            del self.messages[old]

    def remove(self, queue_id: bytes) -> Message | None:
        """Forget a message, whichever instance has it."""
        for queue in (self, *self.others):
            if (message := queue.messages.pop(queue_id, None)) is not None:
                return message
        return None


class Process:
    """One Postfix process: the request it serves, and what it said of connections since the last one."""

    __slots__ = (
        "fresh", "holds", "notes", "origin", "owner", "pending", "queue", "relay", "service", "shown", "tls",
        "transport", "turn", "untold",
    )  # fmt: skip

    def __init__(self, queue: Queue, origin: Origin, transport: bytes, service: Service, untold: Tls) -> None:
        self.queue = queue
        self.origin = origin
        self.transport = transport
        self.service = service
        self.untold = untold  # a session whose TLS the log does not tell
        self.owner: Message | None = None
        self.turn = 0  # of the owner, when it was taken up
        self.fresh = False  # lines about connections have come since the last line with a queue id
        self.relay: bytes | None = None  # of the last TLS line
        self.tls: Tls | None = None
        self.notes: dict[bytes, bytes] | None = None  # relay -> what failed
        self.pending: list[Connection] = []
        self.shown: bytes | None = None  # relay that this request already has a connection row for
        self.holds: list[tuple[int, int | None, bytes | None, bytes | None, bytes]] = []  # without a queue id

    def begin(self, message: Message | None) -> None:
        """Take up another request: what was said before the last one is not for this one."""
        self.owner = message
        self.turn = message.turn if message is not None else 0
        self.shown = None
        if not self.fresh:
            self.relay = self.tls = self.notes = None

    def hear(self) -> None:
        """A line about connections has come: with the first one, those of before are over."""
        if not self.fresh:
            self.relay = self.tls = self.notes = None
            self.fresh = True


class PostfixReader:
    """Postfix lines to rows; feed it sources from any number of hosts and instances.

    Attributes
    ----------
    last
        The message that the last line about any was about.
    remarks
        Lines about a message that settled nothing.
    opened
        Recipients to be tried again that were noted since those at hand were last counted, and these.
    holding
        Servers that have held a recipient whose queue id is still to come.
    """

    name = MailReader.POSTFIX

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.rows = sink.deliveries
        self.at = sink.clock.at
        self.understood = sink.understood
        self.wants_connections = sink.wants_connections
        self.last: Message | None = None
        self.holding: set[Source] = set()
        self.remarks = self.opened = 0
        self.hosts: dict[bytes, dict[bytes, Queue]] = {}
        self.services: dict[tuple[bytes, bytes], tuple[Service, Tls]] = {}
        self.origins: dict[bytes, Origin] = {}
        self.server_skipped = sink.coverage.reason("postfix/smtpd: no deliveries")
        self._tls: dict[Any, Tls] = {}
        self._results: dict[Any, Result] = {}
        self._verdicts: dict[Any, tuple[Result, Tls]] = {}
        self._lines: dict[tuple[bytes, bytes], Tls] = {}
        self.understood.update(dict.fromkeys(COUNTED, 0))

    # -- which lines ---------------------------------------------------------------------------------------

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``postfix/smtp[12]`` and its kin: any name before the slash."""
        instance, slash, rest = tag.partition(b"/")
        service = rest.rpartition(b"/")[2]
        if not slash or (service not in _SERVICES and not instance.startswith(b"postfix")):
            return None
        feed: Any
        rare: Any = None
        if service in _CLIENTS or service not in _SERVICES:
            feed = self._client
        elif service in _QUEUE_MANAGERS:
            feed = self._queue_manager
        elif service == b"cleanup":
            feed = self._cleanup
        elif service == b"smtpd":
            feed, rare = None, self._server
            self.server_skipped.sample(text)
        elif service == b"postsuper":
            feed = self._postsuper
        else:
            return Source(host, tag, pid, skipped=self.sink.coverage.reason(_skipped(service)))
        queues = self.hosts.setdefault(host, {})
        queue = queues.get(instance)
        if queue is None:
            others = next(iter(queues.values())).others if queues else []
            queue = queues[instance] = Queue(others)
        origin = self.origins.setdefault(host, Origin(self.name, host or None))
        process = Process(queue, origin, service, *self.service(host, tag))
        return Source(host, tag, pid, feed, self.server_skipped, process, rare)

    def service(self, host: bytes, tag: bytes) -> tuple[Service, Tls]:
        """A program on a host, and a session of which it does not tell the TLS."""
        if (known := self.services.get((host, tag))) is None:
            service = Service(name=(host, tag))
            known = self.services[host, tag] = (service, Tls(TlsLevel.UNKNOWN, service=service))
        return known

    @contextmanager
    def counting_in(self, coverage: Coverage) -> Iterator[None]:
        """Count lines there for a while."""
        ours, self.sink.coverage = self.sink.coverage, coverage
        self.sink.understood = self.understood = coverage.understood
        try:
            yield
        finally:
            self.sink.coverage = ours
            self.sink.understood = self.understood = ours.understood

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """Postfix has no form of its own beside syslog's."""
        return False

    def drop(self, source: Source) -> None:
        """Forget a process: its connections without a message are handed over as they are."""
        self.holding.discard(source)
        if isinstance(process := source.state, Process):
            self._hand_over(process, None)

    def finish(self) -> None:
        """Hand over held messages without a Message-ID."""
        for queues in self.hosts.values():
            for queue in queues.values():
                for message in queue.messages.values():
                    self._release_held(message)

    def _skip(self, service: bytes, line: bytes) -> None:
        self.sink.coverage.skip(_skipped(service), line)

    # -- queue manager and cleanup ---------------------------------------------------------------------------

    def _queue_manager(self, source: Source, line: bytes, start: int, number: int) -> None:
        queue: Queue = source.state.queue
        if line.endswith(b": removed"):
            self.understood["postfix removed"] += 1
            queue_id = line[start:-9]
            message = self.last = queue.messages.pop(queue_id, None) or queue.remove(queue_id)
            if message is not None and message.held is not None:
                self._release_held(message)
            return
        match = _FROM(line, start) or _FROM_QUOTED(line, start)
        if match is not None:
            self.understood["postfix message taken up"] += 1
            queue_id, sender = match.groups()
            message = self.last = queue.messages.get(queue_id) or queue.find(queue_id)
            message.sender = sender
            message.turn += 1
        elif (match := _EXPIRED(line, start)) is not None:
            self._expired(source.state, line, number, match)
        else:
            self._client(source, line, start, number)

    def _expired(self, process: Process, line: bytes, number: int, match: re.Match[bytes]) -> None:
        """A row for each recipient that was still to be tried, with what its last try came to."""
        self.sink.count("postfix expired")
        queue_id, sender, word, text = match.groups()
        message = self.last = process.queue.find(queue_id)
        message.sender = sender
        still_open: Iterable[tuple[bytes | None, LastTry]]
        still_open = message.open.items() if message.open else [(None, (TlsOutcome.UNKNOWN, NO_TLS, None))]
        for recipient, (outcome, tls, code) in still_open:
            self.sink.deliver(
                Delivery(
                    number, self.at(line), process.origin, queue_id, message.message_id, sender, recipient,
                    result=self._result(Action.FAILED, outcome, word, code, None, False), text=text,
                    tls=self._without_session(tls),
                )
            )  # fmt: skip
        message.open = None

    def _cleanup(self, source: Source, line: bytes, start: int, number: int) -> None:
        process: Process = source.state
        match = _MESSAGE_ID(line, start)
        if match is not None:
            self.understood["postfix message-id"] += 1
            queue_id, message_id = match.groups()
            message_id = message_id.removesuffix(b">")
            queue = process.queue
            message = queue.messages.get(queue_id)
            if message is None or message.message_id is not None:  # an id used again
                self._begin(queue, Message(queue_id, message_id))
                return
            self.last = message
            message.message_id = message_id
            self._release_held(message)
        elif (match := _HELD(line, start)) is not None:
            message = process.queue.find(match[1])
            self._hold(process, message, number, self.at(line), *_held(match[2]))
            if message.message_id is not None:
                self._release_held(message)
        elif line.endswith(b": removed"):
            self.understood["postfix removed"] += 1
            self.last = process.queue.remove(line[start:-9])
        else:
            self._skip(b"cleanup", line)

    def _begin(self, queue: Queue, message: Message) -> None:
        """The first line that names a message has come."""
        if len(queue.messages) >= MAX_MESSAGES:
            queue.shrink()
        queue.messages[message.queue_id] = self.last = message

    # -- held at the door, or by hand ------------------------------------------------------------------------

    def _server(self, source: Source, line: bytes, start: int, number: int) -> None:
        """A hold, or what follows one that has no queue id yet: it comes with the line ``client=``."""
        process: Process = source.state
        match = _HELD(line, start)
        if match is not None and match[1] == b"NOQUEUE":
            self.sink.count("postfix held")
            if len(process.holds) < MAX_OPEN:
                process.holds.append((number, self.at(line), *_held(match[2])))
            source.feed = self._server
            self.holding.add(source)
        elif match is not None:
            self._hold(process, process.queue.find(match[1]), number, self.at(line), *_held(match[2]))
        elif (match := _CLIENT(line, start)) is not None and process.holds:
            self.sink.count("postfix held")
            message = process.queue.add(Message(match[1]))
            for hold in process.holds:
                self._hold(process, message, *hold, count=False)
            self._let_go(source)
        else:
            self.server_skipped.count += 1
            if line.startswith((b"disconnect from ", b"connect from "), start):
                self._let_go(source)

    def _let_go(self, source: Source) -> None:
        """The recipients that a server held have a queue id now, or will get none."""
        source.state.holds.clear()
        source.feed = None
        self.holding.discard(source)

    def _postsuper(self, source: Source, line: bytes, start: int, number: int) -> None:
        process: Process = source.state
        match = _BY_HAND(line, start)
        if match is None or match[2] == b"released from hold":
            self._skip(b"postsuper", line)
        elif match[2] == b"removed":
            self.understood["postfix removed"] += 1
            process.queue.remove(match[1])
        else:
            message = process.queue.find(match[1])
            for index, recipient in enumerate(message.open or (None,)):
                self._hold(
                    process,
                    message,
                    number,
                    self.at(line),
                    message.sender,
                    recipient,
                    match[2],
                    count=not index,
                )
            self._release_held(message)

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
            self.sink.count("postfix held")
        if sender is not None:
            message.sender = sender
        result = self._result(Action.DELAYED, TlsOutcome.NOT_TLS, b"held", None, None, False)
        message.held = message.held or []
        if len(message.held) < MAX_OPEN:
            message.held.append(
                Delivery(
                    number, at, process.origin, message.queue_id, None, message.sender, recipient, result=result,
                    text=text,
                )
            )  # fmt: skip

    def _release_held(self, message: Message) -> None:
        for row in message.held or ():
            self.sink.deliver(row._replace(message_id=message.message_id))
        message.held = None

    # -- delivery agents -------------------------------------------------------------------------------------

    def _client(self, source: Source, line: bytes, start: int, number: int) -> None:
        match = _DELIVERY(line, start)
        if match is None:
            if (match := _TLS_LINE(line, start)) is not None:
                self._tls_line(source, line, start, number, match)
                return
            if line.find(b": to=", start, start + 64) > 0:
                match = _ANY_DELIVERY(line, start) or _BARE_DELIVERY(line, start)
            if match is None or (match[9] is None and match[8] not in _ACTIONS):  # cut within the status
                self._other(source, line, start, number)
                return
        queue_id, recipient, relay, bracket, delay, field, dsn, status, text = match.groups()
        self.understood["postfix delivery"] += 1
        process: Process = source.state
        message = self.last = process.queue.messages.get(queue_id) or process.queue.find(queue_id)
        if process.owner is not message or process.turn != message.turn:
            process.begin(message)
        had = process.tls if process.relay == relay else None
        if status == b"sent":
            key = (field, had, bracket, process.service, dsn, text[:3] if text else None)
            verdict = self._verdicts.get(key)
            if verdict is None:
                verdict = _cached(self._verdicts, key, self._sent(process, *key))
            result, tls = verdict
            if message.open is not None:
                message.open.pop(recipient, None)
        else:
            result, tls = self._not_sent(process, message, match, had)
        self.rows += (
            number, self.at(line), process.origin, queue_id, message.message_id, message.sender, recipient, relay,
            process.transport, result, text, float(delay), tls,
        )  # fmt: skip
        if self.wants_connections and (process.fresh or process.shown != relay):
            self._connections_of(process, message, number, line, match, source.pid, result, tls)
        process.fresh = False

    def _sent(
        self,
        process: Process,
        field: bytes | None,
        had: Tls | None,
        bracket: bytes | None,
        _service: Service,
        dsn: bytes | None,
        code: bytes | None,
    ) -> tuple[Result, Tls]:
        reply = int(code) if code is not None and code.isdigit() and len(code) == 3 else None
        result = self._result(Action.DELIVERED, TlsOutcome.OK, b"sent", dsn, reply, True)
        return result, self._tls_of(process, field, had, bracket, True, TlsOutcome.OK, session=True)

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
        return self._results.get(key) or _cached(
            self._results, key, Result(action, outcome, word, dsn, code, attempted)
        )

    def _not_sent(
        self, process: Process, message: Message, match: re.Match[bytes], had: Tls | None
    ) -> tuple[Result, Tls]:
        _id, recipient, relay, bracket, _delay, field, dsn, status, text = match.groups()
        suspended = text is not None and text.startswith(_SUSPENDED)
        reason = (text or b"").removeprefix(_SUSPENDED)
        said = _SAID(reason)
        code = int(said[1]) if said else int(reason[:3]) if reason[:3].isdigit() else None
        session = relay != b"none"
        outcome = TlsOutcome.OK
        if status not in (b"deliverable", b"expanded"):
            note = process.notes.get(relay) if process.notes else None
            outcome = _outcome(reason, field, dsn, note, session=session)
        if suspended:
            session, had = False, None
        tls = self._tls_of(process, field, had, bracket, False, outcome, session=session)
        attempted = not suspended and process.transport not in (b"error", b"retry")
        action = _ACTIONS.get(status)
        if action is Action.DELAYED:
            self._still_open(message, recipient, (outcome, tls, dsn))
        elif message.open is not None:
            message.open.pop(recipient, None)
        return self._result(action, outcome, status, dsn, code, attempted), tls

    def _still_open(self, message: Message, recipient: bytes, last_try: LastTry) -> None:
        """Note that a recipient is to be tried again, and what the last try came to."""
        if message.open is None:
            message.open = {}
        if len(message.open) < MAX_OPEN:
            message.open[recipient] = last_try
            self.opened += 1
            if self.opened > MAX_OPEN_IN_ALL:
                self._count_open()

    def _count_open(self) -> None:
        """Forget the recipients of the oldest messages where there are too many of all."""
        queues = [queue for all_of in self.hosts.values() for queue in all_of.values()]
        messages = [message for queue in queues for message in queue.messages.values() if message.open]
        self.opened = sum(len(message.open or ()) for message in messages)
        for message in messages:
            if self.opened <= MAX_OPEN_IN_ALL // 2:
                break
            self.opened -= len(message.open or ())
            message.open = None

    def _tls_of(
        self,
        process: Process,
        field: bytes | None,
        had: Tls | None,
        bracket: bytes | None,
        sent: bool,
        outcome: TlsOutcome,
        *,
        session: bool,
    ) -> Tls:
        key = (field, had, bracket, process.service, sent, session, outcome)
        if (known := self._tls.get(key)) is not None:
            return known
        if field is not None:
            tls = tls_of_field(field, had, session=session, sent=sent, outcome=outcome)
        elif bracket != _HOST or not session:
            tls = NO_TLS
        elif had is not None:
            tls = had
        elif outcome in NEVER_ENCRYPTED:
            tls = Tls(TlsLevel.NONE)
        else:
            tls = Tls(TlsLevel.ENCRYPTED) if outcome in BAD_CERTIFICATE else process.untold
        return _cached(self._tls, key, tls)

    def _without_session(self, tls: Tls) -> Tls:
        """What a recipient's last try says of the message, without its session."""
        key = ("expired", tls.policy, tls.requiretls, tls.violated, tls.strict)
        bare = Tls(policy=tls.policy, requiretls=tls.requiretls, violated=tls.violated, strict=tls.strict)
        return self._tls.get(key) or _cached(self._tls, key, bare)

    # -- lines about connections -------------------------------------------------------------------------------

    def _other(self, source: Source, line: bytes, start: int, number: int) -> None:
        """Any other line of a delivery agent."""
        process: Process = source.state
        if (match := _NOTE(line, start)) is not None:
            self.sink.count("postfix connection problem")
            self._note(process, source.pid, line, start, number, match)
        elif line.startswith(_LIBRARY, start):
            self.sink.count("postfix connection problem")
            _library_problem(process, line[start + len(_LIBRARY) :])
        elif (match := _INFO(line, start)) is None or match[1] in _WORDS:
            self._skip(process.transport, line)
        elif match[2].startswith(b"to="):
            self.sink.coverage.skip("postfix: delivery line cut short", line)
        else:
            self._info(process, line, number, source.pid, match)

    def _tls_line(self, source: Source, line: bytes, start: int, number: int, match: re.Match[bytes]) -> None:
        self.understood["postfix TLS connection"] += 1
        process: Process = source.state
        word, how, relay, rest = match.groups()
        if process.service.first_tls is None:
            process.service.first_tls = number
        tls = self._lines.get((word, rest))
        if tls is None:
            tls = _cached(self._lines, (word, rest), tls_of_line(word or b"", rest))
        process.hear()
        process.relay, process.tls = relay, tls
        if self.wants_connections:
            note = process.notes.get(relay) if process.notes else None
            refined = classify(readable(note), None) if note else TlsOutcome.OK
            outcome = refined if refined in BAD_CERTIFICATE else TlsOutcome.OK
            self._add_connection(
                process, source.pid, number, line, relay, tls, outcome, line[start:], reused=how == b"reused"
            )

    def _note(
        self, process: Process, pid: bytes, line: bytes, start: int, number: int, match: re.Match[bytes]
    ) -> None:
        what, relay, reason = match.groups()
        process.hear()
        if what == b"connect to":
            tls, outcome = NO_TLS, TlsOutcome.NOT_TLS
        else:
            if process.notes is None or len(process.notes) >= MAX_PENDING:
                process.notes = {}
            if what != b"SSL_connect error to":
                process.notes[relay] = b"certificate verification failed: " + reason
                return  # the TLS line of the same connection follows
            process.notes[relay] = b"SSL_connect error: " + reason
            tls, outcome = Tls(TlsLevel.NONE), TlsOutcome.TLS_HANDSHAKE_FAILED
        if self.wants_connections:
            self._add_connection(process, pid, number, line, relay, tls, outcome, line[start:])

    def _info(self, process: Process, line: bytes, number: int, pid: bytes, match: re.Match[bytes]) -> None:
        """``QID: TEXT`` without ``to=``: how it went with one of several servers."""
        queue_id, text = match.groups()
        self.sink.count("postfix result of one server")
        message = self.last = process.queue.find(queue_id)
        if process.owner is not message or process.turn != message.turn:
            process.begin(message)
        outcome = classify(readable(text), None)
        if outcome in _NOT_THE_CONNECTION or _GOES_ON(text):
            self.remarks += 1  # of a connection that goes on: a lenient sender only says what it lacks
            return
        if self.wants_connections:
            self._result_of_server(process, line, number, pid, queue_id, text, outcome)
            self._hand_over(process, queue_id)
        process.fresh = False

    def _result_of_server(
        self,
        process: Process,
        line: bytes,
        number: int,
        pid: bytes,
        queue_id: bytes,
        text: bytes,
        outcome: TlsOutcome,
    ) -> None:
        """Write the outcome to the connection it is about, else give it a row of its own."""
        named = _NAMED_HOST(text)
        relay = named[1] if named else b"none"
        for index, row in enumerate(process.pending):
            if named is None or _without_port(row.relay) == _without_port(relay):
                if row.outcome in _NOT_THE_CONNECTION:
                    process.pending[index] = row._replace(outcome=outcome)
                return
        if named is not None or not process.fresh:
            tls = Tls(TlsLevel.NONE) if outcome in NEVER_ENCRYPTED else UNKNOWN_TLS
            process.pending.append(
                Connection(
                    number, self.at(line), process.origin, pid, queue_id, relay, tls, outcome, text=text
                )
            )

    # -- rows of connections -----------------------------------------------------------------------------------

    def _add_connection(
        self,
        process: Process,
        pid: bytes,
        number: int,
        line: bytes,
        relay: bytes,
        tls: Tls,
        outcome: TlsOutcome,
        text: bytes,
        *,
        reused: bool | None = None,
    ) -> None:
        if len(process.pending) >= MAX_PENDING:
            self._hand_over(process, None)
        process.pending.append(
            Connection(number, self.at(line), process.origin, pid, None, relay, tls, outcome, reused, text)
        )

    def _connections_of(
        self,
        process: Process,
        message: Message,
        number: int,
        line: bytes,
        match: re.Match[bytes],
        pid: bytes,
        result: Result,
        tls: Tls,
    ) -> None:
        """The connections that a delivery line ends: those before it, or one of its own where it has none."""
        relay = match[3]
        for index, row in enumerate(process.pending):
            if row.relay == relay:
                process.shown = relay
                if result.outcome not in _NOT_THE_CONNECTION and row.outcome in _NOT_THE_CONNECTION:
                    process.pending[index] = row._replace(outcome=result.outcome)
        if match[4] == _HOST and process.shown != relay and result.attempted:
            process.shown = relay
            reused = b", conn_use=" in line[: match.start(5)]
            process.pending.append(
                Connection(
                    number, self.at(line), process.origin, pid, message.queue_id, relay, tls, result.outcome, reused,
                    match[9],
                )
            )  # fmt: skip
        self._hand_over(process, message.queue_id)

    def _hand_over(self, process: Process, queue_id: bytes | None) -> None:
        for row in process.pending:
            self.sink.connect(row._replace(queue_id=row.queue_id or queue_id))
        process.pending.clear()


def _skipped(service: bytes) -> str:
    return f"postfix/{readable(service)}: no deliveries"


def _held(text: bytes) -> tuple[bytes | None, bytes | None, bytes]:
    """Sender and recipient of what is held, and why."""
    match = _HELD_FROM(text)
    return (None, None, text) if match is None else (match[1], match[2], text[: match.start()])


def _without_port(relay: Relay | bytes) -> bytes:
    return relay.partition(b"]")[0] if isinstance(relay, bytes) else b""


def _cached(cache: dict[Any, _Value], key: Any, value: _Value) -> _Value:
    if len(cache) >= MAX_CACHED:
        cache.clear()
    cache[key] = value
    return value


def _library_problem(process: Process, text: bytes) -> None:
    """OpenSSL's own words refine the handshake that failed just before."""
    if not process.notes:
        return
    relay = next(reversed(process.notes))
    process.notes[relay] = (process.notes[relay] + b" (" + text + b")")[:1000]
    if process.pending and process.pending[-1].outcome is TlsOutcome.TLS_HANDSHAKE_FAILED:
        refined = classify(readable(process.notes[relay]), None)
        if refined is TlsOutcome.TLS_VERSION_TOO_LOW:
            process.pending[-1] = process.pending[-1]._replace(outcome=refined)


def _outcome(
    text: bytes, field: bytes | None, dsn: bytes | None, note: bytes | None, *, session: bool
) -> TlsOutcome:
    """Why it failed: by the ``tls=`` field, then by the text, then by code; a line of the process refines it."""
    outcome = classify(readable(text), readable(dsn) if dsn else None)
    wish = (field or b"").partition(b"/")[2]
    if wish.startswith(b"!"):
        actual = wish.partition(b":")[2].rstrip(b"?")
        if actual == b"none":
            return TlsOutcome.REQUIRETLS_NOT_SUPPORTED
        if actual == b"noencryption" or (actual in (b"nocertmatch", b"nomatch") and not session):
            return TlsOutcome.LOCAL_POLICY
    if note is not None and (outcome in BAD_CERTIFICATE or outcome is TlsOutcome.TLS_HANDSHAKE_FAILED):
        refined = classify(readable(note), None)
        if refined not in (TlsOutcome.UNKNOWN, TlsOutcome.NOT_TLS):
            return refined
    return outcome
