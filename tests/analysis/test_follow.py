"""One message through logs, notices, reports and Received fields: what belongs to it, and what is said not to be known."""

from __future__ import annotations

import csv
import datetime as dt
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rtls_analysis.analysis.follow import follow
from rtls_analysis.analysis.stories import queued_as
from rtls_analysis.read.dsn import read_dsns
from rtls_analysis.read.logs import read_connections, read_logs
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, HOPS, TLS_REPORTS, to_frame

DATA = Path(__file__).parents[3] / "shared" / "data"
AT = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


def minutes(number: float) -> dt.datetime:
    return AT + dt.timedelta(minutes=number)


def attempt(at: float, **row: Any) -> dict[str, Any]:
    return {
        "logged_at": minutes(at),
        "mta": "postfix",
        "reporting_host": "out",
        "queue_id": "AAA1",
        "message_id": "1@own.test",
        "recipient": "x@a.test",
        "recipient_domain": "a.test",
        "relay_host": "mx.a.test",
        "attempted": True,
        "action": "delivered",
        "tls_level": "verified",
        "tls_version": "TLSv1.3",
        "requiretls": "sent",
        "tls_outcome": "ok",
        "reply_text": "250 2.0.0 Ok: queued as BBB2",
        **row,
    }


def notice(at: float, **row: Any) -> dict[str, Any]:
    return {
        "reported_at": minutes(at),
        "reporting_mta": "mx.a.test",
        "final_recipient": "x@a.test",
        "recipient_domain": "a.test",
        "action": "failed",
        "enhanced_code": "5.7.30",
        "original_message_id": "1@own.test",
        "requiretls_requested": "yes",
        "tls_required_no": "no",
        **row,
    }


def log(*rows: dict[str, Any]) -> pd.DataFrame:
    return to_frame(DELIVERIES, rows)


def notices(*rows: dict[str, Any]) -> pd.DataFrame:
    return to_frame(BOUNCES, rows)


# -- what belongs to it --------------------------------------------------------------------------------------------


def test_by_message_id() -> None:
    """Brackets do not matter; other messages are not shown; the recipient's story is in the order of time."""
    frame = log(
        attempt(5),
        attempt(1, action="delayed", requiretls="undecided", reply_text="451 try again"),
        attempt(2, message_id="2@own.test", queue_id="ZZZ9"),
    )
    page = follow("<1@own.test>", frame)
    (story,) = page.recipients
    assert (story.recipient, story.fate) == ("x@a.test", "delivered")
    assert [item.at for item in story.happenings] == [minutes(1), minutes(5)]
    assert "Its sender asked for REQUIRETLS (says the log)" in page.headline
    assert "ZZZ9" not in str(page)


def test_by_queue_id() -> None:
    """A queue id leads to the message, and from there to what else has its Message-ID."""
    frame = log(attempt(0), attempt(1, reporting_host="mx", queue_id="BBB2", relay_host="inner.a.test"))
    assert [len(story.happenings) for story in follow("BBB2", frame).recipients] == [2]


def test_the_next_server_by_the_queue_id_it_gave() -> None:
    """A log without Message-IDs belongs to the message where the server before it told the queue id; not elsewhere."""
    nameless = {"message_id": None, "reply_text": "delivered to maildir", "requiretls": "unknown"}
    frame = log(
        attempt(0),
        attempt(1, reporting_host="mx", queue_id="BBB2", relay_host=None, **nameless),
        attempt(1, reporting_host="elsewhere", queue_id="BBB2", relay_host=None, **nameless),
    )
    page = follow("1@own.test", frame)
    assert {item.teller for item in page.recipients[0].happenings} == {"out (AAA1)", "mx (BBB2)"}


def test_returned_behind_the_first_hop() -> None:
    """Accepted is not delivered: a notice of the next server tells the rest."""
    page = follow("1@own.test", log(attempt(0)), notices(notice(1)))
    assert page.recipients[0].fate == "returned_later"
    assert page.tone == "bad"
    assert "accepted by one server, returned by one behind it" in page.headline
    again = follow(
        "1@own.test", log(attempt(0, action="failed"), attempt(9, queue_id="AAA2")), notices(notice(1))
    )
    assert again.recipients[0].fate == "delivered"  # sent again later


def test_notices_by_envelope_id() -> None:
    """Some write the Message-ID as the envelope id; a notice without a Message-ID belongs to that of its envelope id."""
    frame = notices(
        notice(1, original_envelope_id="e1"),
        notice(2, original_message_id=None, original_envelope_id="e1", final_recipient="y@a.test"),
        notice(3, original_message_id=None, original_envelope_id="<1@own.test>", final_recipient="z@a.test"),
        notice(4, original_message_id=None, original_envelope_id="e2", final_recipient="no@a.test"),
        notice(5, original_message_id="9@own.test", original_envelope_id="e1", final_recipient="no@a.test"),
    )
    page = follow("1@own.test", bounces=frame)
    assert [story.recipient for story in page.recipients] == ["x@a.test", "y@a.test", "z@a.test"]


def test_by_recipient_and_time() -> None:
    """Where a log has no Message-IDs and one message alone fits the notice, it is taken, and the page says so."""
    nameless = {"message_id": None, "action": "failed", "relay_host": None, "tls_level": None}
    frame = log(
        attempt(0, queue_id="P1", **nameless),
        attempt(-60, queue_id="P0", **nameless),
        attempt(0, queue_id="P2", recipient="other@a.test", **nameless),
    )
    bounced = notices(notice(1, reporting_mta="out.own.test"))
    page = follow("1@own.test", frame, bounced)
    assert [item.teller for item in page.recipients[0].happenings] == ["out (P1)", "out.own.test"]
    assert any("recipient and time fit one message" in gap for gap in page.not_known)
    twice = pd.concat([frame, log(attempt(0.5, queue_id="P3", **nameless))], ignore_index=True)
    page = follow("1@own.test", twice, bounced)
    assert [item.kind for item in page.recipients[0].happenings] == ["notice"]


def test_aliases_are_one_recipient() -> None:
    """A notice about the address behind an alias belongs to the recipient whom the sender wrote to."""
    page = follow(
        "1@own.test",
        log(attempt(0)),
        notices(notice(1, final_recipient="inner@b.test", original_recipient="X@a.test")),
    )
    assert [story.recipient for story in page.recipients] == ["x@a.test"]


def test_connections_reports_and_hops() -> None:
    """What stands beside: connections by queue id, reports by destination and day, hops by Message-ID."""
    connections = to_frame(
        CONNECTIONS,
        [
            {"logged_at": minutes(0), "reporting_host": "out", "queue_id": "AAA1", "relay_host": "mx0.a.test",
             "tls_level": "none", "tls_outcome": "tls_handshake_failed", "process_id": "1"},
            {"logged_at": minutes(0), "reporting_host": "other", "queue_id": "AAA1", "relay_host": "no.test",
             "tls_outcome": "ok", "process_id": "1"},
        ],
    )  # fmt: skip
    report = {"organization": "G", "report_id": "1", "policy_index": 0, "policy_type": "sts", "sessions_ok": 7,
              "sessions_failed": 2, "failed_sessions": 2, "result_type": "certificate-expired",
              "tls_outcome": "certificate_expired", "begins_at": minutes(-720), "ends_at": minutes(720)}  # fmt: skip
    reports = to_frame(
        TLS_REPORTS,
        [
            {**report, "policy_domain": "a.test"},
            {**report, "policy_domain": "b.test"},
            {**report, "policy_domain": "a.test", "begins_at": minutes(9000), "ends_at": minutes(9999)},
        ],
    )
    hops = to_frame(
        HOPS,
        [
            {"message_id": "1@own.test", "hop": 2, "by_host": "mx.a.test", "from_name": "out", "tls_state": "none",
             "could_be_requiretls": "no", "detail": "no TLS", "received_at": minutes(0), "queue_id": "BBB2",
             "tls_required_no": "no", "requiretls_requested": "unknown"},
            {"message_id": "1@own.test", "hop": 1, "by_host": "out", "from_name": "me", "tls_state": "encrypted",
             "could_be_requiretls": "unknown", "received_at": minutes(0)},
        ],
    )  # fmt: skip
    page = follow("1@own.test", log(attempt(0)), notices(), reports, hops, connections=connections)
    text = str(page)
    assert "gave up on mx0.a.test" in text
    assert "no.test" not in text
    assert text.count("sessions to a.test (sts): 7 ok, 2 failed; 2 for certificate-expired") == 1
    assert "b.test" not in text
    assert text.index("hop 1:") < text.index("hop 2:")
    assert "not REQUIRETLS: no TLS" in text


# -- what is not known ---------------------------------------------------------------------------------------------


def test_what_is_not_known() -> None:
    """Each source that is missing is a gap in words; with everything at hand there is none."""
    page = follow("1@own.test", log(attempt(0, requiretls="unknown")))
    gaps = " ".join(page.not_known)
    assert "Whether its sender asked for REQUIRETLS: no source has a word for it" in gaps
    assert "Whether it carries TLS-Required: No" in gaps
    assert "behind mx.a.test (there: BBB2)" in gaps
    assert "no bounces were given" in gaps
    assert "Received fields" in gaps
    with_empty = follow("1@own.test", log(attempt(0)), notices(), to_frame(TLS_REPORTS, []))
    gaps = " ".join(with_empty.not_known)
    assert "there is none; it may have been lost" in gaps
    assert "no TLS report about it covers that time" in gaps
    only_notice = follow("1@own.test", bounces=notices(notice(1)))
    assert "no log with this message was given" in only_notice.not_known[0]
    assert only_notice.recipients[0].fate == "returned"


def test_wishes() -> None:
    """The log says no as well as yes; what only the message says can be forged."""
    assert (
        "did not ask for REQUIRETLS"
        in follow("1@own.test", log(attempt(0, requiretls="not_requested"))).headline
    )
    hops = to_frame(HOPS, [{"message_id": "1@own.test", "hop": 1, "requiretls_requested": "yes"}])
    assert "can be forged" in follow("1@own.test", hops=hops).headline


def test_no_such_message() -> None:
    """A message that no table tells of is an error of the caller, in one line that names the tables."""
    with pytest.raises(
        LookupError, match=r"no message '9@own.test' in what was given \(deliveries, bounces\)"
    ):
        follow("9@own.test", log(attempt(0)), notices(notice(1)))
    with pytest.raises(LookupError, match="no table was given"):
        follow("9@own.test")


# -- the page ------------------------------------------------------------------------------------------------------


class _Tags(HTMLParser):
    """Checks that tags are closed in order, and collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("br", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_is_safe_and_whole(tmp_path: Path) -> None:
    """What strangers wrote is text on the page, whatever it looks like; the page stands alone as a file."""
    evil = "<script>alert(1)</script>\x1b[31m & more"
    page = follow(
        "1@own.test",
        log(attempt(0, reply_text=evil, relay_host="mx.<b>")),
        notices(notice(1, diagnostic=evil)),
    )
    page.write_html(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<b>" not in text
    assert "\x1b" not in text
    tags = _Tags()
    tags.feed(page._repr_html_())
    assert tags.open == []
    assert "".join(tags.text).count("alert(1)") == 2
    assert "\x1b" not in str(page)
    assert repr(page).startswith("<MessagePage 1@own.test: One recipient: accepted")


def test_queued_as() -> None:
    """The next server's queue id is read from the replies of several servers, never made up."""
    assert queued_as("250 2.0.0 Ok: queued as 42A69258955") == "42A69258955"
    assert queued_as("250 OK id=1xVWyA-000000000Aa-0001") == "1xVWyA-000000000Aa-0001"
    assert queued_as("250 2.0.0 accepted") is None
    assert queued_as(None) is None


# -- the lab of real servers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab() -> dict[str, pd.DataFrame]:
    """The logs and notices of one sender, and of the servers behind it."""
    if not (DATA / "mta-logs" / "truth.csv").exists():
        pytest.skip("no mta-logs beside the repository")
    folder = DATA / "mta-logs" / "postfix-3.11.7"
    logs = [str(folder / "pf-dane-enforce" / "maillog"), str(folder / "receiver-pf311relay" / "mail.log")]
    options: dict[str, Any] = {"timezone": "UTC", "year": 2026, "progress": False}
    return {
        "deliveries": read_logs(logs, **options),
        "connections": read_connections(logs, **options),
        "bounces": read_dsns(DATA / "dsn-lab" / "postfix-3.11.7" / "pf-dane-enforce", progress=False),
    }


def test_every_message_of_the_lab(lab: dict[str, pd.DataFrame]) -> None:
    """Each message is found, and its fate is that of the truth, the second hop's refusal included."""
    with (DATA / "mta-logs" / "truth.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["sender"] == "pf-dane-enforce"]
    fates = {"delivered": "delivered", "bounced": "returned", "expired": "returned", "deferred": "queued",
             "held": "queued"}  # fmt: skip
    wrong = []
    for row in rows[::3]:
        page = follow(row["message_id"], lab["deliveries"], lab["bounces"], connections=lab["connections"])
        story = next(story for story in page.recipients if story.recipient == row["recipient"])
        expected = fates[row["final_action"]]
        if row["second_hop"] and "bounced" in row["second_hop"]:
            expected = "returned_later"
        if story.fate != expected:
            wrong.append((row["message_id"], row["recipient"], story.fate, expected, row["second_hop"]))
        if row["requiretls_requested"] == "yes" and row["log_tls_field"]:
            assert "asked for REQUIRETLS" in page.headline
    assert wrong == []


def test_the_second_hop_of_the_lab(lab: dict[str, pd.DataFrame]) -> None:
    """A REQUIRETLS message that the first hop took and the second could not pass on is told to its end."""
    frame = lab["deliveries"]
    sent = frame[(frame["recipient_domain"] == "dogwood.test") & (frame["requiretls"] == "sent")]
    page = follow(sent["message_id"].iloc[0], frame, lab["bounces"])
    assert page.recipients[0].fate == "returned_later"
    assert {item.teller.split(" ")[0] for item in page.recipients[0].happenings} == {
        "mta12",
        "mx1",
        "mx1.dogwood.test",
    }
    assert any("the server does not offer REQUIRETLS" in item.text for item in page.recipients[0].happenings)
