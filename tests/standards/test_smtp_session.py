"""The dialogue of a probe: truth tables of what each server comes to, and any octets cut anyhow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.smtp_session import (
    EVIDENCE_BYTES,
    Action,
    ProbeSession,
    Send,
    SessionOutcome,
    SessionRecord,
    SessionStage,
    StartTls,
)

BUDGETS = {"max_line": 512, "max_lines": 20, "max_bytes": 4096}
NAME = "probe.example.net"

GREETING = b"220 mx.example.org ESMTP\r\n"
PLAIN = b"250-mx.example.org\r\n250-SIZE 1000\r\n250 STARTTLS\r\n"
NO_STARTTLS = b"250-mx.example.org\r\n250 SIZE 1000\r\n"
GO = b"220 2.0.0 go\r\n"
INSIDE = b"250-mx.example.org\r\n250 REQUIRETLS\r\n"
BYE = b"221 2.0.0 bye\r\n"

TLS, CLOSE, BROKEN, LATE = object(), object(), object(), object()
"""Beside octets of the server: handshake done, connection closed, handshake broken, time-out."""


def new_session() -> ProbeSession:
    return ProbeSession(NAME, **BUDGETS)


def run(events: list[object], piece: int = 1 << 20) -> tuple[SessionRecord, list[str]]:
    """Play a server's part, its octets in pieces; the connection closes at the end: the record, and what was sent.

    A handshake comes to an end only where one was begun.
    """
    session = new_session()
    actions = list(session.connected())
    for event in [*events, CLOSE]:
        if event in (TLS, BROKEN) and session.stage is not SessionStage.HANDSHAKE:
            continue
        if event is TLS:
            actions += session.tls_established()
        elif event is BROKEN:
            session.tls_failed("broken TLS")
        elif event is CLOSE:
            session.closed("the server closed the connection")
        elif event is LATE:
            session.timed_out("nothing whole within 1 s")
        else:
            assert isinstance(event, bytes)
            for at in range(0, len(event), piece):
                actions += session.receive(event[at : at + piece])
    return session.record, [said(action) for action in actions]


def said(action: Action) -> str:
    if isinstance(action, StartTls):
        return "TLS"
    assert isinstance(action, Send)
    assert action.data.endswith(b"\r\n")
    assert action.data.count(b"\n") == 1
    return action.data.decode("ascii").split()[0]


def words(record: SessionRecord) -> str:
    return " ".join(
        (record.outcome, record.stage, record.starttls, record.requiretls_plain, record.requiretls_tls)
    )


# why, what the server does, outcome stage starttls plain tls, reply code, what we send
TO_THE_END = "EHLO STARTTLS TLS EHLO QUIT"
UNTOLD = "unknown unknown not_tested"
DIALOGUES = [
    ("to the end", [GREETING, PLAIN, GO, TLS, INSIDE, BYE],
     "completed quit yes no yes", None, TO_THE_END),
    ("no answer to QUIT", [GREETING, PLAIN, GO, TLS, INSIDE, LATE],
     "completed quit yes no yes", None, TO_THE_END),
    ("garbage for an answer to QUIT", [GREETING, PLAIN, GO, TLS, INSIDE, b"\0\xff\n"],
     "completed quit yes no yes", None, TO_THE_END),
    ("421 for an answer to QUIT", [GREETING, PLAIN, GO, TLS, INSIDE, b"421 gone\r\n"],
     "completed quit yes no yes", None, TO_THE_END),
    ("no STARTTLS", [GREETING, NO_STARTTLS, BYE],
     "completed quit no no not_tested", None, "EHLO QUIT"),
    ("a reply of one line", [GREETING, b"250 STARTTLS\r\n", BYE],
     "completed quit no no not_tested", None, "EHLO QUIT"),
    ("STARTTLS as a parameter", [GREETING, b"250-mx\r\n250 X STARTTLS\r\n", BYE],
     "completed quit no no not_tested", None, "EHLO QUIT"),
    ("STARTTLS inside TLS again", [GREETING, PLAIN, GO, TLS, PLAIN, BYE],
     "completed quit yes no no", None, TO_THE_END),
    # the connection
    ("closed", [],
     f"closed_early greeting {UNTOLD}", None, ""),
    ("silence", [LATE],
     f"timeout greeting {UNTOLD}", None, ""),
    # the greeting
    ("421", [b"421 4.3.2 busy\r\n"],
     f"rate_limited greeting {UNTOLD}", 421, "QUIT"),
    ("450", [b"450 4.7.1 later\r\n"],
     f"greylisted greeting {UNTOLD}", 450, "QUIT"),
    ("450 for a flood of mail", [b"450 4.7.28 too much\r\n"],
     f"rate_limited greeting {UNTOLD}", 450, "QUIT"),
    ("a 4yz that nobody knows", [b"499 later\r\n"],
     f"greylisted greeting {UNTOLD}", 499, "QUIT"),
    ("554", [b"554-5.7.1 listed\r\n554 5.7.1 by us\r\n", BYE],
     f"blocked greeting {UNTOLD}", 554, "QUIT"),
    ("554, and no answer to QUIT", [b"554 no\r\n", LATE],
     f"blocked greeting {UNTOLD}", 554, "QUIT"),
    ("554, and garbage for an answer to QUIT", [b"554 no\r\n", b"\0\n"],
     f"blocked greeting {UNTOLD}", 554, "QUIT"),
    ("521", [b"521 no mail here\r\n"],
     f"blocked greeting {UNTOLD}", 521, "QUIT"),
    ("another protocol", [b"SSH-2.0-OpenSSH_9.9\r\n"],
     f"protocol_error greeting {UNTOLD}", None, ""),
    ("two codes", [b"220-mx\r\n250 mx\r\n"],
     f"protocol_error greeting {UNTOLD}", None, ""),
    ("a reply that wants more", [b"354 go on\r\n"],
     f"protocol_error greeting {UNTOLD}", 354, "QUIT"),
    ("a 2yz that nobody knows", [b"299 mx\r\n", NO_STARTTLS],
     "completed quit no no not_tested", None, "EHLO QUIT"),
    ("closed within it", [b"220-mx\r\n"],
     f"closed_early greeting {UNTOLD}", None, ""),
    # EHLO
    ("421 to EHLO", [GREETING, b"421 4.7.0 slow down\r\n"],
     f"rate_limited ehlo {UNTOLD}", 421, "EHLO QUIT"),
    ("451 to EHLO", [GREETING, b"451 later\r\n"],
     f"greylisted ehlo {UNTOLD}", 451, "EHLO QUIT"),
    *(
        (f"{code} to EHLO", [GREETING, b"%d no\r\n" % code],
         f"blocked ehlo {UNTOLD}", code, "EHLO QUIT")
        for code in (501, 503, 521, 530, 554)
    ),
    ("550 to EHLO for policy", [GREETING, b"550 5.7.1 you are listed\r\n"],
     f"blocked ehlo {UNTOLD}", 550, "EHLO QUIT"),
    *(
        (f"EHLO is unknown: {code}", [GREETING, b"%d 5.5.1 what?\r\n" % code, b"250 mx\r\n", BYE],
         "completed quit no no not_tested", None, "EHLO HELO QUIT")
        for code in (500, 502, 504, 550)
    ),
    ("HELO refused too", [GREETING, b"502 what?\r\n", b"554 5.7.1 no\r\n"],
     f"blocked ehlo {UNTOLD}", 554, "EHLO HELO QUIT"),
    ("HELO unknown too", [GREETING, b"500 what?\r\n", b"500 what?\r\n"],
     f"blocked ehlo {UNTOLD}", 500, "EHLO HELO QUIT"),
    ("421 to HELO", [GREETING, b"502 what?\r\n", b"421 busy\r\n"],
     f"rate_limited ehlo {UNTOLD}", 421, "EHLO HELO QUIT"),
    ("450 to HELO", [GREETING, b"502 what?\r\n", b"450 later\r\n"],
     f"greylisted ehlo {UNTOLD}", 450, "EHLO HELO QUIT"),
    ("silence at HELO", [GREETING, b"502 what?\r\n", LATE],
     f"timeout ehlo {UNTOLD}", None, "EHLO HELO"),
    ("hangs up at HELO", [GREETING, b"550 go away\r\n", CLOSE],
     f"blocked ehlo {UNTOLD}", 550, "EHLO HELO"),
    ("garbage to HELO", [GREETING, b"502 what?\r\n", b"?\r\n"],
     f"protocol_error ehlo {UNTOLD}", None, "EHLO HELO"),
    ("another 2yz to HELO may be no answer to it", [GREETING, b"502 what?\r\n", b"220 mx\r\n"],
     f"protocol_error ehlo {UNTOLD}", 220, "EHLO HELO QUIT"),
    ("another 2yz to EHLO may be no answer to it", [GREETING, GREETING],
     f"protocol_error ehlo {UNTOLD}", 220, "EHLO QUIT"),
    ("garbage to EHLO", [GREETING, b"250-mx\r\nSTARTTLS\r\n"],
     f"protocol_error ehlo {UNTOLD}", None, "EHLO"),
    ("silence at EHLO", [GREETING, LATE],
     f"timeout ehlo {UNTOLD}", None, "EHLO"),
    ("half a reply to EHLO, without STARTTLS so far", [GREETING, b"250-mx\r\n250-SIZE\r\n", CLOSE],
     f"closed_early ehlo {UNTOLD}", None, "EHLO"),
    ("half a reply to EHLO, with STARTTLS", [GREETING, b"250-mx\r\n250-STARTTLS\r\n250-REQUIRETLS\r\n", LATE],
     f"timeout ehlo {UNTOLD}", None, "EHLO"),
    ("keywords without end", [GREETING, b"250-X\r\n" * 30],
     f"protocol_error ehlo {UNTOLD}", None, "EHLO"),
    # STARTTLS
    ("454", [GREETING, PLAIN, b"454 4.7.0 not now\r\n", BYE],
     "greylisted starttls unknown no not_tested", 454, "EHLO STARTTLS QUIT"),
    ("421 to STARTTLS", [GREETING, PLAIN, b"421 4.7.0 too many\r\n"],
     "rate_limited starttls unknown no not_tested", 421, "EHLO STARTTLS QUIT"),
    *(
        (f"{code} to STARTTLS", [GREETING, PLAIN, b"%d no\r\n" % code, BYE],
         "tls_failed starttls failed no not_tested", code, "EHLO STARTTLS QUIT")
        for code in (500, 501, 502, 503, 530, 554, 599)
    ),
    ("354 to STARTTLS", [GREETING, PLAIN, b"354 what?\r\n"],
     "protocol_error starttls unknown no not_tested", 354, "EHLO STARTTLS QUIT"),
    ("another 2yz to STARTTLS is a go-ahead", [GREETING, PLAIN, b"250 ok\r\n", TLS, INSIDE, BYE],
     "completed quit yes no yes", None, TO_THE_END),
    ("garbage to STARTTLS", [GREETING, PLAIN, b"\x16\x03\x03\r\n"],
     "protocol_error starttls unknown no not_tested", None, "EHLO STARTTLS"),
    ("silence at STARTTLS", [GREETING, PLAIN, LATE],
     "timeout starttls unknown no not_tested", None, "EHLO STARTTLS"),
    ("closed at STARTTLS", [GREETING, PLAIN, CLOSE],
     "closed_early starttls unknown no not_tested", None, "EHLO STARTTLS"),
    # the handshake
    ("broken handshake", [GREETING, PLAIN, GO, BROKEN],
     "tls_failed handshake failed no not_tested", None, "EHLO STARTTLS TLS"),
    ("closed in the handshake", [GREETING, PLAIN, GO, CLOSE],
     "tls_failed handshake failed no not_tested", None, "EHLO STARTTLS TLS"),
    ("silence in the handshake", [GREETING, PLAIN, GO, LATE],
     "timeout handshake unknown no not_tested", None, "EHLO STARTTLS TLS"),
    # inside TLS
    *(
        (f"{code} inside TLS", [GREETING, PLAIN, GO, TLS, b"%d no\r\n" % code],
         f"{outcome} ehlo_tls yes no unknown", code, TO_THE_END)
        for code, outcome in (
            (421, "rate_limited"), (451, "greylisted"), (454, "greylisted"), (500, "blocked"), (502, "blocked"),
            (550, "blocked"), (554, "blocked"), (354, "protocol_error"), (251, "protocol_error"),
        )
    ),
    ("garbage inside TLS", [GREETING, PLAIN, GO, TLS, b"REQUIRETLS\r\n"],
     "protocol_error ehlo_tls yes no unknown", None, "EHLO STARTTLS TLS EHLO"),
    ("silence inside TLS", [GREETING, PLAIN, GO, TLS, LATE],
     "timeout ehlo_tls yes no unknown", None, "EHLO STARTTLS TLS EHLO"),
    ("closed inside TLS", [GREETING, PLAIN, GO, TLS, CLOSE],
     "closed_early ehlo_tls yes no unknown", None, "EHLO STARTTLS TLS EHLO"),
    ("half a reply inside TLS", [GREETING, PLAIN, GO, TLS, b"250-mx\r\n250-REQUIRETLS\r\n", CLOSE],
     "closed_early ehlo_tls yes no unknown", None, "EHLO STARTTLS TLS EHLO"),
    ("greets again inside TLS", [GREETING, PLAIN, GO, TLS, GREETING, INSIDE, BYE],
     "completed quit yes no yes", None, TO_THE_END),
    ("greets inside TLS without end", [GREETING, PLAIN, GO, TLS, GREETING, GREETING],
     "protocol_error ehlo_tls yes no unknown", 220, TO_THE_END),
]  # fmt: skip


@pytest.mark.parametrize("piece", [1 << 20, 7, 1])
@pytest.mark.parametrize(
    ("events", "expected", "code", "sent"), [pytest.param(*row[1:], id=row[0]) for row in DIALOGUES]
)
def test_dialogue(events: list[object], expected: str, code: int | None, sent: str, piece: int) -> None:
    """Each server comes to its own words, however its octets are cut; no trouble of any kind becomes a `no`."""
    record, lines = run(events, piece)
    assert words(record) == expected
    assert record.reply_code == code
    assert " ".join(lines) == sent
    assert (code is None) or record.reply_text is not None
    if record.outcome is not SessionOutcome.COMPLETED:
        assert code is not None or record.detail


EARLY = [
    ("EHLO's reply along with the greeting", [GREETING + PLAIN],
     f"protocol_error greeting {UNTOLD}"),
    ("a second greeting along with the first", [GREETING + GREETING],
     f"protocol_error greeting {UNTOLD}"),
    ("the beginning of a reply", [GREETING + b"2"],
     f"protocol_error greeting {UNTOLD}"),
    ("a refusal for good is no answer either", [GREETING + b"502 what?\r\n"],
     f"protocol_error greeting {UNTOLD}"),
    ("a 421 is an answer to whatever comes next", [GREETING + b"421 full\r\n"],
     f"rate_limited ehlo {UNTOLD}"),
    ("a 4yz is one too", [GREETING, PLAIN + b"451 4.3.0 trouble\r\n"],
     "greylisted starttls unknown no not_tested"),
    ("along with EHLO's reply", [GREETING, PLAIN + GO],
     f"protocol_error ehlo {UNTOLD}"),
    ("along with EHLO's reply without STARTTLS", [GREETING, NO_STARTTLS + PLAIN],
     f"protocol_error ehlo {UNTOLD}"),
    ("421 along with EHLO's reply without STARTTLS", [GREETING, NO_STARTTLS + b"421 bye\r\n"],
     "completed quit no no not_tested"),
    ("along with the refusal of EHLO", [GREETING, b"502 what?\r\n250 mx\r\n"],
     f"protocol_error ehlo {UNTOLD}"),
    ("along with HELO's reply", [GREETING, b"502 what?\r\n", b"250 mx\r\n250 mx\r\n"],
     f"protocol_error ehlo {UNTOLD}"),
    ("along with EHLO's reply inside TLS", [GREETING, PLAIN, GO, TLS, NO_STARTTLS + INSIDE],
     "protocol_error ehlo_tls yes no unknown"),
    ("empty lines are nothing", [GREETING + b"\r\n", PLAIN + b"\r\n\n", b"\r\n" + GO, TLS, INSIDE + b"\n"],
     "completed quit yes no yes"),
    ("what follows a refusal", [b"554 no\r\n220 mx\r\n"],
     f"blocked greeting {UNTOLD}"),
    ("what follows a second greeting inside TLS", [GREETING, PLAIN, GO, TLS, GREETING + INSIDE, BYE],
     "completed quit yes no yes"),
]  # fmt: skip


@pytest.mark.parametrize(("events", "expected"), [pytest.param(*row[1:], id=row[0]) for row in EARLY])
def test_early(events: list[object], expected: str) -> None:
    """A reply that comes before its command is never taken for the answer to it."""
    record, lines = run(events)
    assert words(record) == expected
    if record.outcome is SessionOutcome.PROTOCOL_ERROR:
        assert lines[-1] == "QUIT"
        assert "before the next command" in record.detail
        assert record.reply_text


KEYWORD_LINES = [
    (b"", "no"),
    (b"250-REQUIRETLS\r\n", "yes"),
    (b"250-requiretls\r\n", "yes"),
    (b"250-RequireTLS yes please\r\n", "yes"),
    (b"250-REQUIRETLS=x\r\n", "yes"),
    (b"250-XREQUIRETLS\r\n250-REQUIRETLS2\r\n250-X REQUIRETLS\r\n250-REQUIRETLS-LATER\r\n", "no"),
]


@pytest.mark.parametrize(("plain", "in_plain"), KEYWORD_LINES)
@pytest.mark.parametrize(("inside", "in_tls"), KEYWORD_LINES)
def test_requiretls_before_and_inside(plain: bytes, in_plain: str, inside: bytes, in_tls: str) -> None:
    """REQUIRETLS before TLS and inside are two facts, told apart in every combination (RFC 8689 §2)."""
    before = b"250-mx\r\n" + plain + b"250 STARTTLS\r\n"
    record, _ = run([GREETING, before, GO, TLS, b"250-mx\r\n" + inside + b"250 SIZE\r\n", BYE])
    assert (record.requiretls_plain, record.requiretls_tls) == (in_plain, in_tls)


INJECTED = [
    ("none", b""),
    ("a line end", b"\r\n"),
    ("an EHLO reply", b"250-mx\r\n250 REQUIRETLS\r\n"),
    ("a refusal", b"554 no\r\n"),
    ("a 421", b"421 no\r\n"),
    ("octets", bytes(range(256))),
    ("very many", b"x" * 5000),
]


@pytest.mark.parametrize("piece", [1 << 20, 7, 1])
@pytest.mark.parametrize("injected", [pytest.param(data, id=why) for why, data in INJECTED])
def test_injected(injected: bytes, piece: int) -> None:
    """Plaintext after the go-ahead is counted and kept, never read, and the handshake goes on (RFC 3207 §5)."""
    record, lines = run([GREETING, PLAIN, GO + injected, TLS, NO_STARTTLS, BYE], piece)
    assert words(record) == "completed quit yes no no"
    assert " ".join(lines) == TO_THE_END
    assert record.injected_bytes == len(injected)
    kept = record.injected_text.encode("ascii").decode("unicode_escape").encode("latin-1")
    assert kept == injected[:EVIDENCE_BYTES]


def test_injected_by_the_driver() -> None:
    """What the driver finds before the handshake is added to what came along with the go-ahead."""
    session = new_session()
    session.connected()
    for data in (GREETING, PLAIN, GO + b"a" * 1000):
        session.receive(data)
    session.injected(b"b" * 1000)
    session.tls_failed("plaintext in place of the handshake")
    assert session.record.injected_bytes == 2000
    assert session.record.injected_text == "a" * 1000 + "b" * 24
    assert words(session.record) == "tls_failed handshake failed no not_tested"


def test_evidence() -> None:
    """The record keeps what the server said: greeting without code, lines with it, the reply that decided."""
    record, _ = run(
        [b"220-mx \xe9\r\n220 hi\r\n", PLAIN, GO, TLS, b"554-5.7.1 not\r\n554 5.7.1 you\r\n", BYE]
    )
    assert record.banner == "mx \\xe9\nhi"
    assert record.ehlo_plain == ("250-mx.example.org", "250-SIZE 1000", "250 STARTTLS")
    assert record.ehlo_tls == ("554-5.7.1 not", "554 5.7.1 you")
    assert (record.reply_code, record.enhanced_code) == (554, "5.7.1")
    assert record.reply_text == "5.7.1 not\n5.7.1 you"


def test_no_evidence_is_missing() -> None:
    """What was not said is missing, not empty."""
    record, _ = run([])
    assert record == SessionRecord(
        SessionOutcome.CLOSED_EARLY, record.stage, detail="the server closed the connection"
    )
    assert (record.banner, record.ehlo_plain, record.ehlo_tls, record.reply_text) == (None,) * 4


DETAILS = [
    ("masked STARTTLS", [GREETING, b"250-mx\r\n250 XXXXXXXA\r\n"],
     "masked on the way, perhaps STARTTLS: XXXXXXXA"),
    ("HELO", [GREETING, b"502 what?\r\n", b"250 mx\r\n"],
     "EHLO is refused and HELO accepted: no extensions"),
    ("hangs up at HELO", [GREETING, b"550 go\r\n"],
     "EHLO was refused, and at HELO the server closed the connection"),
    ("another go-ahead", [GREETING, PLAIN, b"250 ok\r\n", TLS, INSIDE],
     "the go-ahead for TLS was 250"),
    ("a second greeting", [GREETING, PLAIN, GO, TLS, GREETING, INSIDE],
     "a second greeting inside TLS"),
    ("no such answer", [b"354 go\r\n"],
     "354 is no answer at this stage"),
    ("not a reply", [b"+OK POP3\r\n"],
     "not a reply: '+OK POP3'"),
    ("what had begun", [GREETING, b"250-mx\r\n250-ST", CLOSE],
     "the server closed the connection, after '250-mx\\r\\n250-ST'"),
    ("silence after a beginning", [b"220-mx\n", LATE],
     "nothing whole within 1 s, after '220-mx\\r\\n'"),
    ("two oddities", [GREETING, PLAIN, b"250 ok\r\n", BROKEN],
     "the go-ahead for TLS was 250; broken TLS"),
]  # fmt: skip


@pytest.mark.parametrize(("events", "detail"), [pytest.param(*row[1:], id=row[0]) for row in DETAILS])
def test_detail(events: list[object], detail: str) -> None:
    """Reasons and oddities are told in words."""
    assert run(events)[0].detail == detail


def test_broken_reply_is_kept() -> None:
    """Of what is no reply the first KiB is kept as it came, codes and all."""
    record, _ = run([GREETING, b"250-mx\n250-" + b"x" * 400 + b"\r\n220 STARTTLS\r\n"])
    assert record.reply_code is None
    assert record.reply_text == r"250-mx\r\n250-" + "x" * 400 + r"\r\n220 STARTTLS\r\n"
    assert record.ehlo_plain is None
    record, _ = run([(b"220-" + b"x" * 300 + b"\r\n") * 9 + b"\0\r\n"])
    assert len(record.reply_text or "") == EVIDENCE_BYTES + 2 * 3  # each of three line ends is escaped


def test_connect_failed() -> None:
    """Without a connection nothing is told, and nothing but that was tried."""
    session = new_session()
    session.connect_failed(SessionOutcome.REFUSED, "connection refused")
    assert session.finished
    assert words(session.record) == f"refused connect {UNTOLD}"
    assert session.record.detail == "connection refused"


def test_stage_awaited() -> None:
    """After a refusal the answer to QUIT is awaited, while the record keeps the stage that was refused."""
    session = new_session()
    session.connected()
    assert session.receive(b"554 no\r\n") == [Send(b"QUIT\r\n")]
    assert (session.finished, session.stage) == (False, "quit")
    assert session.receive(BYE) == []
    assert session.finished
    assert session.record.stage == "greeting"


def test_finished_is_final() -> None:
    """Nothing that happens later changes the record."""
    for events in ([], [LATE], [GREETING, PLAIN, GO, BROKEN], [GREETING, b"502 no\r\n", LATE], [b"?\r\n"]):
        record, sent = run([*events, CLOSE])
        later: list[object] = [b"220 mx\r\n", TLS, INSIDE, BROKEN, LATE, CLOSE]
        assert run([*events, CLOSE, *later]) == (record, sent)


def test_not_over() -> None:
    """A session that is not over has no record."""
    session = new_session()
    with pytest.raises(RuntimeError, match="not over"):
        _ = session.record


@pytest.mark.parametrize("name", ["", "a b", "a\r\nQUIT", "a\n", "\0", "münchen.example", "x" * 256])
def test_bad_ehlo_name(name: str) -> None:
    """A name that could be more than one word of a command is the caller's mistake."""
    with pytest.raises(ValueError, match="EHLO name"):
        ProbeSession(name, **BUDGETS)


@pytest.mark.parametrize("name", ["probe.example.net", "[192.0.2.1]", "[IPv6:2001:db8::1]"])
def test_ehlo_name(name: str) -> None:
    """We introduce ourselves by the name given, alike before and inside TLS, and to HELO."""
    session = ProbeSession(name, **BUDGETS)
    session.connected()
    assert session.receive(GREETING) == [Send(f"EHLO {name}\r\n".encode())]
    assert session.receive(b"502 what?\r\n") == [Send(f"HELO {name}\r\n".encode())]


answers = st.one_of(
    st.sampled_from([GREETING, PLAIN, NO_STARTTLS, GO, INSIDE, BYE, b"\r\n", b"502 no\r\n", b"421 no\r\n", b"454 4.7.28 no\r\n"]),
    st.builds(
        b"%d%b%b%b".__mod__,
        st.tuples(
            st.integers(100, 600),
            st.sampled_from([b" ", b"-", b""]),
            st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")),
            st.sampled_from([b"\r\n", b"\n", b""]),
        ),
    ),
    st.binary(max_size=80),
)  # fmt: skip
events = st.lists(st.one_of(answers, st.sampled_from([TLS, TLS, BROKEN, CLOSE, LATE])), max_size=10)
begun = st.sampled_from([[], [GREETING, PLAIN, GO], [GREETING, PLAIN, GO, TLS]])


@settings(max_examples=200, deadline=None)
@given(begun, events)
def test_nothing_raises(before: list[object], happens: list[object]) -> None:
    """Whatever happens in whatever order, the session ends with one record and never sends mail."""
    record, lines = run([*before, *happens])
    assert lines.count("QUIT") <= 1
    assert set(lines) <= {"EHLO", "HELO", "STARTTLS", "TLS", "QUIT"}
    assert record.outcome is SessionOutcome.COMPLETED or record.detail or record.reply_code is not None
    assert len(record.injected_text) <= 4 * EVIDENCE_BYTES
    for text in (record.banner, record.reply_text, record.detail, *(record.ehlo_plain or ())):
        assert text is None or text.replace("\n", "").isprintable()


@settings(max_examples=200, deadline=None)
@given(st.lists(answers, max_size=6), st.integers(1, 9))
def test_cut_anyhow(turns: list[bytes], piece: int) -> None:
    """Where each command is answered by one reply at most, how it is cut makes no difference."""
    happens: list[object] = []
    session = new_session()
    session.connected()
    for turn in turns:
        # one line at a time, so that no turn holds more than its reply
        for line in turn.splitlines(keepends=True):
            happens.append(line)
            for action in session.receive(line):
                if isinstance(action, StartTls):
                    happens.append(TLS)
                    session.tls_established()
    whole, sent = run(happens)
    assert run(happens, piece) == (whole, sent)


@pytest.mark.parametrize(
    "stage", [[], [GREETING], [GREETING, PLAIN], [GREETING, PLAIN, GO, TLS], [b"554 no\r\n"]]
)
@pytest.mark.parametrize("flood", [b"x", b"\r\n", b"250-x\r\n", b"250-" + b"x" * 400 + b"\r\n", b"\0"])
def test_floods_end(stage: list[object], flood: bytes) -> None:
    """Octets without end are read up to the budgets, at every stage, and then no more."""
    budget = BUDGETS["max_bytes"] + BUDGETS["max_line"]
    session = new_session()
    session.connected()
    for event in stage:
        if event is TLS:
            session.tls_established()
        else:
            assert isinstance(event, bytes)
            session.receive(event)
    read = 0
    while not session.finished:
        session.receive(flood)
        read += len(flood)
        assert read <= budget
    if session.record.outcome is SessionOutcome.PROTOCOL_ERROR:
        assert len(session.record.detail) < 400
    else:
        assert session.record.outcome is SessionOutcome.BLOCKED


def test_default_reason_of_a_timeout() -> None:
    """A time-out has a reason where the driver gives none."""
    session = new_session()
    session.connected()
    session.timed_out()
    assert (session.record.outcome, session.record.detail) == ("timeout", "the session took too long")
