"""The dialogue of a probe: greeting, EHLO, STARTTLS, EHLO, QUIT, without input or output (RFC 5321, 3207, 8689 §2)."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from rtls_analysis.standards.smtp_reply import (
    Reply,
    ReplyReader,
    escape_octets,
    masked_keywords,
    parse_keywords,
)


class FeatureState(StrEnum):
    """Whether a server has a feature, told apart from not knowing."""

    YES = "yes"
    NO = "no"  # a whole EHLO reply without it
    FAILED = "failed"  # offered; then a 5yz or a broken handshake
    UNKNOWN = "unknown"  # tried, no conclusion: time-out, limit, any 4yz
    NOT_TESTED = "not_tested"


class SessionOutcome(StrEnum):
    """How a session ended; the last four were not contacted."""

    COMPLETED = "completed"  # to the end of what was offered
    TIMEOUT = "timeout"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    RATE_LIMITED = "rate_limited"  # 421 and kin
    GREYLISTED = "greylisted"  # another 4yz
    BLOCKED = "blocked"  # 5yz to the connection or to EHLO
    PROTOCOL_ERROR = "protocol_error"  # garbage, or a budget spent
    TLS_FAILED = "tls_failed"  # STARTTLS refused, or the handshake broke
    CLOSED_EARLY = "closed_early"
    ADDRESS_REFUSED = "address_refused"  # a special address, not allowed
    OPTED_OUT = "opted_out"
    NOT_SAMPLED = "not_sampled"
    FAMILY_UNAVAILABLE = "family_unavailable"  # the vantage lacks IPv4 or IPv6


class SessionStage(StrEnum):
    """The last stage that a session began."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    HANDSHAKE = "handshake"
    EHLO_TLS = "ehlo_tls"
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class Send:
    """Send these octets."""

    data: bytes


@dataclass(frozen=True, slots=True)
class StartTls:
    """Begin the TLS handshake; what comes now belongs to it."""


Action = Send | StartTls
"""What a session asks its driver to do."""

EVIDENCE_BYTES = 1024
"""Octets kept of what is no reply: injected ones, and those of a broken reply."""

_EHLO_UNKNOWN = frozenset({500, 502, 504, 550})
_EXCERPT = 80  # octets of a reply that only began, quoted in the reason
_TOO_MUCH_MAIL = "4.7.28"  # registered as "mail flood detected"


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What a session came to, with its evidence; all text of the server is escaped (`smtp_reply.escape_octets`).

    `reply_code`, `enhanced_code` and `reply_text` are those of the reply that ended the dialogue before its end;
    where that was none, the text is what came, code and all, and the code is missing. `banner` is the greeting without
    its code; `ehlo_plain` and `ehlo_tls` are the lines of the whole reply to EHLO before and inside TLS, a refusal
    too, and missing where there was none. `detail` has the reasons and oddities in words.
    """

    outcome: SessionOutcome = SessionOutcome.COMPLETED
    stage: SessionStage = SessionStage.CONNECT
    reply_code: int | None = None
    enhanced_code: str | None = None
    reply_text: str | None = None
    banner: str | None = None
    ehlo_plain: tuple[str, ...] | None = None
    ehlo_tls: tuple[str, ...] | None = None
    starttls: FeatureState = FeatureState.UNKNOWN
    requiretls_plain: FeatureState = FeatureState.UNKNOWN
    requiretls_tls: FeatureState = FeatureState.NOT_TESTED
    injected_bytes: int = 0
    injected_text: str = ""
    detail: str = ""


class ProbeSession:
    """The client's side of one probe: events in, actions out, a `SessionRecord` at the end.

    Parameters
    ----------
    ehlo_name
        Name or address literal to introduce ourselves by (RFC 5321 §4.1.1.1).
    max_line, max_lines, max_bytes
        Budgets of each reply, as of `ReplyReader`.

    Raises
    ------
    ValueError
        `ehlo_name` would not stay one word of one line.

    Notes
    -----
    Greeting and STARTTLS are judged by the first digit of the reply, as §4.2.1 wants it and senders do. EHLO and
    HELO want 250: any other 2yz may answer something else, and a list without a keyword would say `no`.

    EHLO answered by 500, 502, 504 or 550 may be unknown to the server: HELO follows, and where that is accepted there
    are no extensions (§3.2, §4.1.4). Any other 5yz is a block, as is one of these with an enhanced code X.7.Y, security
    or policy (RFC 3463 §3.8), or where the server then hangs up or refuses HELO as well. Inside TLS there is no
    HELO: its reply lists nothing, so REQUIRETLS would stay `unknown`.

    `rate_limited` are 421, at any stage (§3.8), and any 4yz whose enhanced code is X.7.28, registered as "mail flood
    detected". The texts of other replies are no protocol: they are `greylisted`, and kept.

    A reply that comes before its command is not an answer. One that came along with the answer to the last
    command makes the session a `protocol_error` with nothing learned from either, except a 4yz: a server may say
    at any time that it must stop (§3.8), which is an answer to whatever comes next. What came after the go-ahead for
    TLS is evidence, never read (RFC 3207 §5), and the handshake goes on.

    A second greeting inside TLS, which RFC 8689 shows in its example A.1 and RFC 3207 §4.2 does not allow, is
    skipped. STARTTLS offered inside TLS is ignored.

    QUIT is sent, and its answer awaited, after every reply that leaves the dialogue, a refusal too; not to a server
    whose words are no replies.
    """

    __slots__ = (
        "_budgets",
        "_ehlo_name",
        "_greeted_again",
        "_reader",
        "_record",
        "_refused_ehlo",
        "_rest",
        "finished",
        "stage",
    )

    def __init__(self, ehlo_name: str, *, max_line: int, max_lines: int, max_bytes: int) -> None:
        if re.fullmatch(r"[!-~]{1,255}", ehlo_name) is None:
            raise ValueError(f"EHLO name {ehlo_name!r}: want a host name in ASCII, or an address literal")
        self._ehlo_name = ehlo_name.encode("ascii")
        self._budgets = {"max_line": max_line, "max_lines": max_lines, "max_bytes": max_bytes}
        self._record = SessionRecord()
        self._refused_ehlo: Reply | None = None
        self._greeted_again = False
        self._rest = b""
        self.finished = False
        self.stage = SessionStage.CONNECT
        """What is awaited now: `quit` after a refusal too, where the record keeps the stage that was refused."""
        self._expect_reply()

    @property
    def record(self) -> SessionRecord:
        """What the session came to.

        Raises
        ------
        RuntimeError
            The session is not `finished`.
        """
        if not self.finished:
            raise RuntimeError("the session is not over: feed it, or tell it that it was closed or timed out")
        return self._record

    # what happens to the connection

    def connected(self) -> list[Action]:
        """Wait for the greeting: a client that talks first is taken for a spammer."""
        self._enter(SessionStage.GREETING)
        return []

    def connect_failed(self, outcome: SessionOutcome, detail: str) -> None:
        """End, for there was no connection."""
        self._end(outcome, detail)

    def receive(self, data: bytes) -> list[Action]:
        """Take octets of the server, decrypted where TLS is up."""
        actions: list[Action] = []
        self._rest = data
        while self._rest and not self.finished:
            if self.stage is SessionStage.HANDSHAKE:
                self.injected(self._rest)
                break
            reply = self._reader.feed(self._rest)
            if reply is None:
                if self._reader.failure:
                    self._reject(self._reader.raw, self._reader.failure)
                    self.finished = True
                break
            self._rest = self._reader.rest
            self._expect_reply()
            actions += self._answer(reply)
        self._rest = b""
        return actions

    def injected(self, data: bytes) -> None:
        """Keep plaintext that came between the go-ahead for TLS and the handshake (RFC 3207 §5)."""
        before = self._record.injected_bytes
        kept = data[: max(0, EVIDENCE_BYTES - before)]
        self._note(
            injected_bytes=before + len(data),
            injected_text=self._record.injected_text + escape_octets(kept),
        )

    def tls_established(self) -> list[Action]:
        """Forget what was said in the clear and introduce ourselves again (RFC 3207 §4.2)."""
        if self.finished:
            return []
        self._note(starttls=FeatureState.YES, requiretls_tls=FeatureState.UNKNOWN)
        return self._say_hello(SessionStage.EHLO_TLS)

    def tls_failed(self, reason: str) -> list[Action]:
        """End, for the handshake broke; there is no channel left on which to say QUIT."""
        self._note(starttls=FeatureState.FAILED)
        self._end(SessionOutcome.TLS_FAILED, reason)
        return []

    def closed(self, how: str) -> None:
        """End, for the server did; a server that refused EHLO and hangs up at HELO has blocked us."""
        if self.stage is SessionStage.HANDSHAKE:
            self.tls_failed(how)
        elif self._refused_ehlo is not None and self.stage is SessionStage.EHLO:
            self._quote(self._refused_ehlo)
            self._end(SessionOutcome.BLOCKED, f"EHLO was refused, and at HELO {how}")
        else:
            self._end(SessionOutcome.CLOSED_EARLY, how)

    def timed_out(self, detail: str = "the session took too long") -> None:
        """End, for what was awaited did not come in time."""
        self._end(SessionOutcome.TIMEOUT, detail)

    # the dialogue

    def _answer(self, reply: Reply) -> list[Action]:
        match self.stage:
            case SessionStage.GREETING:
                return self._answer_greeting(reply)
            case SessionStage.EHLO if self._refused_ehlo is not None:
                return self._answer_helo(reply)
            case SessionStage.EHLO:
                return self._answer_ehlo(reply)
            case SessionStage.STARTTLS:
                return self._answer_starttls(reply)
            case SessionStage.EHLO_TLS:
                return self._answer_ehlo_tls(reply)
        self.finished = True  # whatever answers QUIT
        return []

    def _answer_greeting(self, reply: Reply) -> list[Action]:
        self._note(banner=reply.text)
        if reply.first_digit != 2:
            return self._refused(reply)
        if self._spoke_early():
            return self._quit()
        return self._say_hello(SessionStage.EHLO)

    def _answer_ehlo(self, reply: Reply) -> list[Action]:
        self._note(ehlo_plain=reply.escaped_lines)
        if _ehlo_is_unknown(reply):
            if self._spoke_early():
                return self._quit()
            self._refused_ehlo = reply
            return [Send(b"HELO " + self._ehlo_name + b"\r\n")]
        if reply.code != 250:
            return self._refused(reply)
        if self._spoke_early():
            return self._quit()
        keywords = parse_keywords(reply)
        self._note(requiretls_plain=_offered("REQUIRETLS", keywords))
        if "STARTTLS" in keywords:
            self._enter(SessionStage.STARTTLS)
            return [Send(b"STARTTLS\r\n")]
        if masked := masked_keywords(reply):
            self._remark(f"masked on the way, perhaps STARTTLS: {', '.join(masked)}")
        return self._complete(starttls=FeatureState.NO)

    def _answer_helo(self, reply: Reply) -> list[Action]:
        if reply.code != 250:
            return self._refused(reply)
        if self._spoke_early():
            return self._quit()
        self._remark("EHLO is refused and HELO accepted: no extensions")
        return self._complete(starttls=FeatureState.NO, requiretls_plain=FeatureState.NO)

    def _answer_starttls(self, reply: Reply) -> list[Action]:
        if reply.first_digit == 2:
            if reply.code != 220:
                self._remark(f"the go-ahead for TLS was {reply.code}")
            self._enter(SessionStage.HANDSHAKE)
            if self._rest:
                self.injected(self._rest)
                self._rest = b""
            return [StartTls()]
        if reply.first_digit == 5:
            self._note(starttls=FeatureState.FAILED)
            return self._refused(reply, SessionOutcome.TLS_FAILED)
        return self._refused(reply)

    def _answer_ehlo_tls(self, reply: Reply) -> list[Action]:
        if reply.code == 220 and not self._greeted_again:
            self._greeted_again = True
            self._remark("a second greeting inside TLS")
            return []
        self._note(ehlo_tls=reply.escaped_lines)
        if reply.code != 250:
            return self._refused(reply)
        if self._spoke_early():
            return self._quit()
        return self._complete(requiretls_tls=_offered("REQUIRETLS", parse_keywords(reply)))

    def _say_hello(self, stage: SessionStage) -> list[Action]:
        self._enter(stage)
        return [Send(b"EHLO " + self._ehlo_name + b"\r\n")]

    def _complete(self, **learned: FeatureState) -> list[Action]:
        self._note(stage=SessionStage.QUIT, **learned)
        return self._quit()

    def _quit(self) -> list[Action]:
        self.stage = SessionStage.QUIT
        return [Send(b"QUIT\r\n")]

    def _refused(self, reply: Reply, for_good: SessionOutcome = SessionOutcome.BLOCKED) -> list[Action]:
        """Leave after a reply that does not let us go on; `for_good` is the word for a 5yz."""
        self._quote(reply)
        match reply.first_digit:
            case 5:
                self._note(outcome=for_good)
            case 4 if reply.code == 421 or reply.enhanced_code == _TOO_MUCH_MAIL:
                self._note(outcome=SessionOutcome.RATE_LIMITED)
            case 4:
                self._note(outcome=SessionOutcome.GREYLISTED)
            case _:
                self._note(outcome=SessionOutcome.PROTOCOL_ERROR)
                self._remark(f"{reply.code} is no answer at this stage")
        return self._quit()

    def _spoke_early(self) -> bool:
        """Whether a reply came before its command, other than a 4yz; the session is then a `protocol_error`."""
        early = self._rest.lstrip(b"\r\n")
        if not early or early.startswith(b"4"):
            return False
        self._reject(early, "more came along with the reply, before the next command")
        self._rest = b""
        return True

    # the record

    def _expect_reply(self) -> None:
        self._reader = ReplyReader(**self._budgets)

    def _enter(self, stage: SessionStage) -> None:
        self.stage = stage
        self._note(stage=stage)

    def _note(self, **learned: Any) -> None:
        if not self.finished:
            self._record = replace(self._record, **learned)

    def _remark(self, words: str) -> None:
        self._note(detail=f"{self._record.detail}; {words}" if self._record.detail else words)

    def _quote(self, reply: Reply) -> None:
        self._note(reply_code=reply.code, enhanced_code=reply.enhanced_code, reply_text=reply.text)

    def _reject(self, came: bytes, reason: str) -> None:
        if self.stage is not SessionStage.QUIT:  # what answers QUIT decides nothing
            self._note(outcome=SessionOutcome.PROTOCOL_ERROR, reply_text=escape_octets(came[:EVIDENCE_BYTES]))
            self._remark(reason)

    def _end(self, outcome: SessionOutcome, reason: str) -> None:
        if self.stage is not SessionStage.QUIT:
            self._note(outcome=outcome)
            if begun := self._reader.raw:
                reason += f", after '{escape_octets(begun[:_EXCERPT])}'"
            self._remark(reason)
        self.finished = True


def _ehlo_is_unknown(reply: Reply) -> bool:
    by_policy = (reply.enhanced_code or "").startswith("5.7.")
    return reply.code in _EHLO_UNKNOWN and not by_policy


def _offered(keyword: str, keywords: Container[str]) -> FeatureState:
    return FeatureState.YES if keyword in keywords else FeatureState.NO
