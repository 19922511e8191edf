"""OpenSMTPD's log, 5.3 to 7.9: one row per envelope and delivery, with the TLS of its session.

Every line of a session carries its id, so nothing is tied by process. Three forms are in use: ``smtp-out: ... on
session ID`` and ``relay: Ok for ...`` up to 5.9, ``ID mta event=...`` in 6.0 to 6.3, ``ID mta ...`` since 6.4.

Notes
-----
A session that failed before it took a message is not named by the row of the message, which only says ``Network error
on destination MXs``. Its reason is that of a failed host only where the log shows elsewhere that this host serves the
domain; else it is `unknown`.

``cert-check result="valid"`` is `verified`: it is written where the action demands verification, and the session is
over where that fails. ``unverified`` says that it was not asked for.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rtls_analysis.outcomes import Action, TlsLevel, TlsOutcome
from rtls_analysis.read.attempts import CLEAR_TLS, make_room, tls_of_failure, tls_version
from rtls_analysis.read.durations import seconds_of
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

_SESSION_LINE = re.compile(rb"([0-9a-f]{16}) (mta|mda|smtp) (?:event=)?([a-z-]+)(?: |$)").match
_OWN = re.compile(
    rb"[0-9a-f]{16} (?:mta|mda|smtp) (?:event=)?[a-z]"
    rb"|(?:relay|delivery): [A-Z][A-Za-z]+ for [0-9a-f]{16}: |smtp-(?:in|out): "
).match
_NO_SESSION = b"0" * 16

_FROM_TO = rb"from=<([^>]*)>,? to=<([^>]*)>"
_RELAYED = re.compile(
    rb"evpid=([0-9a-f]{16}) "
    + _FROM_TO
    + rb"(?: rcpt=<[^>]*>)? source=\"[^\"]*\" relay=\"([^\"]*)\" delay=(\S++) "
    rb"result=\"([A-Za-z]+)\" stat=\"(.*?)\"?$",
    re.DOTALL,
).match
_LOCAL = re.compile(
    rb"evpid=([0-9a-f]{16}) "
    + _FROM_TO
    + rb"(?: rcpt=<[^>]*>)?(?: user=\S*+)?(?: method=\S*+)? delay=(\S++) result=\"?"
    rb"([A-Za-z]+)\"? stat=\"?(.*?)\"?$",
    re.DOTALL,
).match
_OLD = re.compile(
    rb"(relay|delivery): ([A-Z][A-Za-z]+) for ([0-9a-f]{16}): (?:session=([0-9a-f]{16}), )?"
    + _FROM_TO
    + rb",(?: rcpt=<[^>]*>,)?(?: source=[^,]*+,)?(?: relay=([^,]*+),)?(?: user=[^,]*+,)?(?: method=[^,]*+,)?"
    rb" delay=([^,]*+), stat=(.*)",
    re.DOTALL,
).match
_CONNECTING = re.compile(rb"address=([a-z+]+)://\[?([^\]\s]*?)\]?(?::(\d{1,5}))? host=(\S*)").match
_OLD_CONNECTING = re.compile(
    rb"smtp-out: Connecting to ([a-z+]+)://\[?([^\]\s]*?)\]?(?::(\d{1,5}))? \(([^()\s]*)\) on session ([0-9a-f]{16})"
).match
_OLD_SESSION = re.compile(
    rb"smtp-out: (Started TLS|Server certificate verification|TLS Error|Error|Closing|Disconnecting)"
    rb"(?: (succeeded|failed))?(?: on)?(?: session)? ([0-9a-f]{16})(?: after \d+ messages? sent)?(?:: (.*))?",
    re.DOTALL,
).match
_CIPHERS = re.compile(
    rb"(?:.*?ciphers=)?\"?(?:version=)?([^:,\"\s]+)(?::|, cipher=)([^:,\"]+)(?::|, bits=)(\d{1,6})"
).match
_RESULT = re.compile(rb"result=\"([^\"]*)\"").match
_RELAY = re.compile(rb"(\S*) \(([^()]*)\)").fullmatch
_REPLY = re.compile(rb"(\d{3})[- ](?:([245]\.\d{1,3}\.\d{1,3})\b)?").match

_ACTIONS = {
    b"Ok": Action.DELIVERED, b"TempFail": Action.DELAYED, b"PermFail": Action.FAILED, b"LoopError": Action.FAILED,
}  # fmt: skip
_LEVELS = {
    b"valid": TlsLevel.VERIFIED, b"unverified": TlsLevel.ENCRYPTED, b"success": TlsLevel.TRUSTED,
    b"succeeded": TlsLevel.TRUSTED, b"failure": TlsLevel.UNTRUSTED, b"failed": TlsLevel.UNTRUSTED,
    b"no certificate presented": TlsLevel.ANONYMOUS,
}  # fmt: skip
_NO_CONTACT = (b"IO Error: Connection refused", b"IO Error: No route", b"IO Error: Network is", b"IO Error: Host is",
               b"IO Error: Operation timed out", b"IO Error: Connection timed out", b"Connection failed")  # fmt: skip
_NETWORK_ERROR = (b"Network error on destination", b"No valid route to", b"No relay for")

MAX_SESSIONS = 20_000
MAX_ENVELOPES = 100_000
MAX_NAMES = 20_000
MAX_ADDRESS = 2_000  # of what later rows repeat


class LastTry(NamedTuple):
    """How an envelope that is still in the queue fared."""

    outcome: TlsOutcome
    enhanced_code: bytes | None


UNTRIED = LastTry(TlsOutcome.UNKNOWN, None)


class Envelope(NamedTuple):
    """What a delivery line says of one recipient of a message."""

    envelope: bytes
    sender: bytes
    recipient: bytes
    delay: bytes
    word: bytes
    text: bytes


class Session:
    """One connection to a server, from ``connecting`` to its end."""

    __slots__ = ("at", "number", "policy", "queue_id", "relay", "text", "tls")

    def __init__(self, number: int, at: int | None, relay: Relay, policy: bytes) -> None:
        self.number = number
        self.at = at
        self.relay = relay
        self.policy = policy  # the scheme: smtp, smtp+tls, smtp+notls, smtps, lmtp
        self.tls: Tls | None = None
        self.queue_id: bytes | None = None
        self.text: bytes | None = None


class Server:
    """What one host's log said so far."""

    __slots__ = ("errors", "hosts_of", "open", "origin", "sessions")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.sessions: dict[bytes, Session] = {}
        self.open: dict[bytes, LastTry] = {}  # by envelope
        self.hosts_of: dict[bytes, bytes] = {}  # domain -> the host that answered for it last
        self.errors: dict[bytes, TlsOutcome] = {}  # host -> why its last session failed


class OpenSmtpdReader:
    """OpenSMTPD lines to rows."""

    name = MailReader.OPENSMTPD

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.servers: dict[bytes, Server] = {}
        self._no_delivery = sink.coverage.reason("opensmtpd: no delivery")
        for kind in ("opensmtpd delivery", "opensmtpd session"):
            sink.understood.setdefault(kind, 0)

    # -- which lines ---------------------------------------------------------------------------------------

    def source(self, host: bytes, tag: bytes, pid: bytes, text: bytes) -> Source | None:
        """The handler of ``smtpd``, which Postfix always writes with a name in front."""
        if tag not in (b"smtpd", b"opensmtpd"):
            return None
        server = self.servers.get(host) or self._server(host)
        return Source(host, tag, pid, feed=self._line, state=server)

    def raw(self, source: Source, line: bytes, start: int, number: int) -> bool:
        """Handle a line without its tag, as the server writes it in the foreground."""
        begin = stamp_end(line, start)
        if _OWN(line, begin) is None:
            return False
        server = self.servers.get(source.host) or self._server(source.host)
        self._handle(server, line, begin, number, source.pid)
        return True

    def drop(self, source: Source) -> None:
        """Nothing hangs on a process."""

    def finish(self) -> None:
        """Hand over the sessions whose end was not seen."""
        for server in self.servers.values():
            for session_id in list(server.sessions):
                self._close(server, session_id)

    def _server(self, host: bytes) -> Server:
        make_room(self.servers, MAX_NAMES)
        server = self.servers[host] = Server(self.sink.share(Origin(self.name, host or None)))
        return server

    def _line(self, source: Source, line: bytes, start: int, number: int) -> None:
        self._handle(source.state, line, start, number, source.pid)

    # -- lines ---------------------------------------------------------------------------------------------

    def _handle(self, server: Server, line: bytes, start: int, number: int, pid: bytes) -> None:
        match = _SESSION_LINE(line, start)
        if match is not None:
            session_id, part, event = match.groups()
            if part == b"mta":
                self._mta(server, line, match.end(), number, session_id, event)
            elif part == b"mda" and event == b"delivery":
                self._local(server, line, match.end(), number)
            elif (
                event == b"cert-check" and session_id in server.sessions
            ):  # it says smtp where no certificate came
                self._checked(server, session_id, line, match.end())
            else:
                self._no_delivery.add(line)
        elif line.startswith((b"relay: ", b"delivery: "), start):
            self._old_delivery(server, line, start, number)
        elif line.startswith(b"smtp-out: ", start):
            self._old_session(server, line, start, number)
        else:
            self._no_delivery.add(line)

    def _mta(
        self, server: Server, line: bytes, start: int, number: int, session_id: bytes, event: bytes
    ) -> None:
        if event == b"delivery":
            self._relayed(server, line, start, number, session_id)
        elif event == b"connecting" and (match := _CONNECTING(line, start)) is not None:
            scheme, address, port, host = match.groups()
            self._open(server, session_id, line, number, scheme, host, address, port)
        elif event in (b"tls", b"starttls"):
            self._encrypted(server, session_id, line[start:])
        elif event in (b"cert-check", b"server-cert-check"):
            self._checked(server, session_id, line, start)
        elif event in (b"error", b"closing", b"closed"):
            self.sink.understood["opensmtpd session"] += 1
            self._fail(server, session_id, line[start:].removeprefix(b"reason="))
        elif event == b"disconnected":
            self.sink.understood["opensmtpd session"] += 1
            self._close(server, session_id)
        else:
            self._no_delivery.add(line)

    # -- sessions ------------------------------------------------------------------------------------------

    def _open(
        self,
        server: Server,
        session_id: bytes,
        line: bytes,
        number: int,
        scheme: bytes,
        host: bytes,
        address: bytes,
        port: bytes | None,
    ) -> None:
        self.sink.understood["opensmtpd session"] += 1
        if session_id in server.sessions:
            self._close(server, session_id)
        self._make_room(server)
        name = None if host in (b"", b"<unknown>") or host == address else host[:MAX_ADDRESS]
        relay = self.sink.share(
            Relay(name, address[:MAX_ADDRESS].lower() or None, int(port) if port else None)
        )
        server.sessions[session_id] = Session(number, self.sink.clock.at(line), relay, scheme)

    def _make_room(self, server: Server) -> None:
        """Close the oldest sessions where too many are open."""
        if len(server.sessions) >= MAX_SESSIONS:
            for session_id in list(server.sessions)[: MAX_SESSIONS // 4]:
                self._close(server, session_id)

    def _encrypted(self, server: Server, session_id: bytes, text: bytes) -> None:
        self.sink.understood["opensmtpd session"] += 1
        session = server.sessions.get(session_id)
        if session is None:
            self._make_room(server)
            session = server.sessions[session_id] = Session(0, None, NO_RELAY, b"")
        match = _CIPHERS(text[:500])
        version, cipher, bits = match.groups() if match is not None else (None, None, None)
        policy = session.policy or None
        session.tls = Tls(
            TlsLevel.ENCRYPTED, policy, tls_version(version), cipher, int(bits) if bits else None
        )
        session.text = text

    def _checked(self, server: Server, session_id: bytes, line: bytes, start: int) -> None:
        match = _RESULT(line, start)
        self._verified(server, session_id, match[1] if match is not None else b"")

    def _verified(self, server: Server, session_id: bytes, word: bytes) -> None:
        self.sink.understood["opensmtpd session"] += 1
        session = server.sessions.get(session_id)
        if session is not None and session.tls is not None:
            had = session.tls
            level = _LEVELS.get(word, TlsLevel.ENCRYPTED)
            session.tls = Tls(level, had.policy, had.version, had.cipher, had.bits)

    def _fail(self, server: Server, session_id: bytes, reason: bytes) -> None:
        """A session that ended for a reason, or goes on in cleartext."""
        session = server.sessions.get(session_id)
        if session is None:
            return
        outcome = classify(readable(reason), None)
        tls = session.tls or _with_policy(tls_of_failure(outcome, CLEAR_TLS), session.policy)
        if reason.startswith(_NO_CONTACT):
            tls = NO_TLS
        if session.relay.host is not None:
            make_room(server.errors, MAX_NAMES)
            server.errors[session.relay.host] = outcome
        self._connection(server, session, tls, outcome, reason)
        del server.sessions[session_id]

    def _close(self, server: Server, session_id: bytes) -> None:
        """A session that came to its end, or whose end was not seen."""
        session = server.sessions.pop(session_id, None)
        if session is not None and session.number:
            tls = session.tls or _with_policy(CLEAR_TLS, session.policy)
            self._connection(server, session, tls, TlsOutcome.OK, session.text)

    def _connection(
        self, server: Server, session: Session, tls: Tls, outcome: TlsOutcome, text: bytes | None
    ) -> None:
        if self.sink.wants_connections and session.number:
            self.sink.connect(
                Connection(
                    session.number, session.at, server.origin, None, session.queue_id, session.relay,
                    self.sink.share(tls), outcome, False, text,
                )
            )  # fmt: skip

    # -- deliveries ----------------------------------------------------------------------------------------

    def _relayed(self, server: Server, line: bytes, start: int, number: int, session_id: bytes) -> None:
        match = _RELAYED(line, start)
        if match is None:
            self.sink.coverage.skip("opensmtpd: delivery line of an unknown form", line)
            return
        envelope, sender, recipient, relay_text, delay, word, text = match.groups()
        self._deliver(
            server,
            line,
            number,
            session_id,
            Envelope(envelope, sender, recipient, delay, word, text),
            relay_text,
        )

    def _local(self, server: Server, line: bytes, start: int, number: int) -> None:
        match = _LOCAL(line, start)
        if match is None:
            self.sink.coverage.skip("opensmtpd: delivery line of an unknown form", line)
            return
        self._deliver(server, line, number, None, Envelope(*match.groups()), None)

    def _old_delivery(self, server: Server, line: bytes, start: int, number: int) -> None:
        match = _OLD(line, start)
        if match is None:
            self._no_delivery.add(line)
            return
        part, word, envelope, session_id, sender, recipient, relay_text, delay, text = match.groups()
        said = Envelope(envelope, sender, recipient, delay, word, text)
        if word in (b"Expire", b"Expired"):
            self._expired(server, line, number, said)
        elif word in _ACTIONS:
            local = part == b"delivery"
            self._deliver(
                server, line, number, None if local else session_id or _NO_SESSION, said, relay_text
            )
        else:  # removed by hand, bounced
            self._no_delivery.add(line)

    def _deliver(
        self,
        server: Server,
        line: bytes,
        number: int,
        session_id: bytes | None,
        said: Envelope,
        relay_text: bytes | None,
    ) -> None:
        """Add the row of an envelope; without session id it is for a mailbox here, all zeros are no session."""
        self.sink.understood["opensmtpd delivery"] += 1
        action = _ACTIONS.get(said.word, Action.FAILED)
        reply = _REPLY(said.text)
        code, enhanced = (int(reply[1]), reply[2]) if reply is not None else (None, None)
        relay, tls, outcome = NO_RELAY, NO_TLS, TlsOutcome.OK
        if session_id is not None and session_id != _NO_SESSION:
            relay, tls = self._session_of(server, session_id, said, relay_text)
        if action is not Action.DELIVERED:
            outcome = classify(readable(said.text), enhanced.decode("ascii") if enhanced else None)
            if session_id == _NO_SESSION and said.text.startswith(_NETWORK_ERROR):
                outcome = self._behind(server, said.recipient, relay_text)
        elif relay.host is not None:
            server.errors.pop(relay.host, None)
        if action is Action.DELAYED:
            make_room(server.open, MAX_ENVELOPES)
            server.open[said.envelope] = LastTry(outcome, enhanced)
        else:
            server.open.pop(said.envelope, None)
        self.sink.deliver(
            Delivery(
                number, self.sink.clock.at(line), server.origin, said.envelope[:8], None, said.sender, said.recipient,
                relay, b"mda" if session_id is None else b"mta",
                self.sink.share(Result(action, outcome, said.word, enhanced, code)), said.text or None,
                seconds_of(said.delay), self.sink.share(tls),
            )
        )  # fmt: skip

    def _session_of(
        self, server: Server, session_id: bytes, said: Envelope, relay_text: bytes | None
    ) -> tuple[Relay, Tls]:
        """Relay and TLS of a delivery; without its session's beginning its TLS is not told."""
        match = _RELAY(relay_text or b"")
        address, host = match.groups() if match is not None else (relay_text, b"")
        session = server.sessions.get(session_id)
        if session is not None and session.number:
            relay = session.relay
            tls = session.tls or _with_policy(CLEAR_TLS, session.policy)
            if session.queue_id is None:
                session.queue_id = said.envelope[:8]
        else:
            name = host if host and host != address else None
            relay = self.sink.share(Relay(name, address.lower() if address else None))
            tls = UNKNOWN_TLS if session is None or session.tls is None else session.tls
        domain = domain_of(said.recipient)
        if domain is not None and relay.host is not None:
            make_room(server.hosts_of, MAX_NAMES)
            server.hosts_of[domain] = relay.host
        return relay, tls

    @staticmethod
    def _behind(server: Server, recipient: bytes, relay_text: bytes | None) -> TlsOutcome:
        """Why no host of the destination could be used: by the host that it names, or that answered for it before."""
        named = (relay_text or b"").lower()
        if named in server.errors:
            return server.errors[named]
        host = server.hosts_of.get(domain_of(recipient) or b"")
        return server.errors.get(host, TlsOutcome.UNKNOWN) if host is not None else TlsOutcome.UNKNOWN

    def _expired(self, server: Server, line: bytes, number: int, said: Envelope) -> None:
        self.sink.count("opensmtpd expired")
        last = server.open.pop(said.envelope, UNTRIED)
        result = Result(Action.FAILED, last.outcome, b"expired", last.enhanced_code, attempted=False)
        self.sink.deliver(
            Delivery(
                number, self.sink.clock.at(line), server.origin, said.envelope[:8], None, said.sender, said.recipient,
                transport=b"mta", result=self.sink.share(result), text=said.text, delay=seconds_of(said.delay),
            )
        )  # fmt: skip

    # -- sessions as they were logged before 6.0 -------------------------------------------------------------

    def _old_session(self, server: Server, line: bytes, start: int, number: int) -> None:
        if (connecting := _OLD_CONNECTING(line, start)) is not None:
            scheme, address, port, host, session_id = connecting.groups()
            self._open(server, session_id, line, number, scheme, host, address, port)
            return
        match = _OLD_SESSION(line, start)
        if match is None:
            self._no_delivery.add(line)
            return
        what, word, session_id, text = match.groups()
        if what == b"Started TLS":
            self._encrypted(server, session_id, text or b"")
        elif what == b"Server certificate verification":
            self._verified(server, session_id, word or b"")
        elif what == b"Closing":
            self.sink.understood["opensmtpd session"] += 1
            self._close(server, session_id)
        else:
            self.sink.understood["opensmtpd session"] += 1
            self._fail(server, session_id, text or b"")


def _with_policy(tls: Tls, policy: bytes) -> Tls:
    """The same with the scheme that was asked for."""
    return Tls(tls.level, policy or None) if tls.level is not None else tls
