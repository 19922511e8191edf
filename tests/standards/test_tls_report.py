from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.tls_report import (
    MAX_ITEMS,
    MAX_VALUES,
    ReportedFailure,
    ReportedPolicy,
    compare_sums,
    parse_tls_reports,
)

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tlsrpt"


def report(**changes: Any) -> dict[str, Any]:
    """A report of one policy; a change of `None` takes the field away."""
    fields = {
        "organization-name": "Example Inc.",
        "date-range": {"start-datetime": "2026-08-03T00:00:00Z", "end-datetime": "2026-08-03T23:59:59Z"},
        "contact-info": "tls@example.net",
        "report-id": "r1",
        "policies": [policy()],
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in fields.items() if value is not None}


def policy(**changes: Any) -> dict[str, Any]:
    fields = {
        "policy": {"policy-type": "sts", "policy-domain": "example.org", "mx-host": ["mx.example.org"]},
        "summary": {"total-successful-session-count": 8, "total-failure-session-count": 2},
        "failure-details": [{"result-type": "certificate-expired", "failed-session-count": 2}],
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in fields.items() if value is not None}


def only_policy(value: Any) -> ReportedPolicy:
    """The one policy of the one report of a text."""
    found = parse_tls_reports(json.dumps(value).encode())
    assert (len(found.reports), found.problem) == (1, "")
    assert len(found.reports[0].policies) == 1
    return found.reports[0].policies[0]


def test_the_keys_of_the_rfc() -> None:
    """Each key of RFC 8460 §4.4 reaches its field."""
    detail = {
        "result-type": "tlsa-invalid",
        "sending-mta-ip": "2001:db8::1",
        "receiving-mx-hostname": "MX.Example.ORG.",
        "receiving-mx-helo": "mx",
        "receiving-ip": "192.0.2.1",
        "failed-session-count": 2,
        "additional-information": "https://example.net/1",
        "failure-reason-code": "why",
    }
    failure = ReportedFailure(
        "tlsa-invalid", "2001:db8::1", "mx.example.org", "mx", "192.0.2.1", 2, "why", "https://example.net/1"
    )
    found = parse_tls_reports(
        json.dumps(report(policies=[policy(failure_details=[detail])])).encode()
    ).reports[0]
    assert (found.organization, found.contact, found.report_id) == ("Example Inc.", "tls@example.net", "r1")
    assert (found.begins_at, found.ends_at) == (
        datetime(2026, 8, 3, tzinfo=UTC),
        datetime(2026, 8, 3, 23, 59, 59, tzinfo=UTC),
    )
    assert found.policies == (
        ReportedPolicy("sts", "example.org", None, ("mx.example.org",), 8, 2, (failure,), "equal"),
    )


POLICIES = [
    ("mx-host as a string", policy(policy={"mx-host": "*.Example.org"}), {"mx_hosts": ("*.example.org",)}),
    ("mx-host null", policy(policy={"mx-host": None}), {"mx_hosts": None}),
    ("mx-host empty", policy(policy={"mx-host": []}), {"mx_hosts": ()}),
    ("the prose's name of it", policy(policy={"mx-host-pattern": ["a"]}), {"mx_hosts": ("a",)}),
    ("a string of a policy", policy(policy={"policy-string": "3 1 1 AB"}), {"policy_strings": ("3 1 1 AB",)}),
    (
        "a name beyond ASCII",
        policy(policy={"policy-domain": "Bücher.example."}),
        {"policy_domain": "xn--bcher-kva.example"},
    ),
    ("a name that is none", policy(policy={"policy-domain": "A B"}), {"policy_domain": "a b"}),
    (
        "a domain in a list",
        policy(policy={"policy-domain": ["example.org"]}),
        {"policy_domain": "example.org"},
    ),
    ("another type, as it stands", policy(policy={"policy-type": "STS"}), {"policy_type": "STS"}),
    ("policy in a list", policy(policy=[{"policy-type": "tlsa"}]), {"policy_type": "tlsa"}),
    (
        "policy beside the summary",
        {"policy-type": "sts", "policy-domain": "a.example"},
        {"policy_domain": "a.example"},
    ),
    (
        "counts as strings",
        policy(summary={"total-successful-session-count": " 8", "total-failure-session-count": "2"}),
        {"sessions_ok": 8, "sessions_failed": 2, "sums": "equal"},
    ),
    ("counts as fractions", policy(summary={"total-failure-session-count": 2.0}), {"sessions_failed": 2}),
    ("counts that are none", policy(summary={"total-failure-session-count": True}), {"sums": None}),
    ("no summary", policy(summary=None), {"sessions_ok": None, "sessions_failed": 2, "sums": None}),
    ("keys with other signs", policy(summary={"totalFailureSessionCount": 2}), {"sessions_failed": 2}),
    ("details empty", policy(failure_details=[]), {"failures": (), "sums": "no_details"}),
    ("details null", policy(failure_details=None), {"failures": (), "sums": "no_details"}),
    (
        "details exceed",
        policy(failure_details=[{"failed-session-count": 2}, {"failed-session-count": 1}]),
        {"sums": "details_exceed", "impossible": ""},
    ),
    (
        "details fall short",
        policy(failure_details=[{"failed-session-count": 1}]),
        {"sums": "details_fall_short"},
    ),
    ("a detail without a count", policy(failure_details=[{"result-type": "x"}]), {"sums": None}),
    (
        "a negative count",
        policy(failure_details=[{"failed-session-count": -1}, {"failed-session-count": 3}]),
        {"impossible": "a negative count", "sums": "equal"},
    ),
    (
        "a negative total",
        policy(summary={"total-successful-session-count": -8}),
        {"impossible": "a negative count"},
    ),
    ("one detail not in a list", policy(failure_details={"failed-session-count": 2}), {"sums": "equal"}),
    (
        "names of drafts and of the prose",
        policy(
            failure_details={
                "receiving-mx-host-name": "a.example",
                "failure-error-code": "b",
                "additional-info-uri": "c",
            }
        ),
        {
            "failures": (
                ReportedFailure(receiving_mx="a.example", failure_reason="b", additional_information="c"),
            )
        },
    ),
]


@pytest.mark.parametrize(("value", "expected"), [pytest.param(v, e, id=why) for why, v, e in POLICIES])
def test_policies_as_senders_write_them(value: Any, expected: dict[str, Any]) -> None:
    """What senders write in other forms is read as what it means."""
    found = only_policy(report(policies=[value]))
    assert {name: getattr(found, name) for name in expected} == expected


PERIODS = [
    (
        "offsets",
        "2026-08-03T02:00:00+02:00",
        "2026-08-04T02:00:00+02:00",
        "2026-08-03 00:00",
        "2026-08-04 00:00",
    ),
    ("no zone", "2026-08-03T00:00:00", "2026-08-03 23:59:59", "2026-08-03 00:00", "2026-08-03 23:59:59"),
    (
        "lower case",
        "2026-08-03t00:00:00z",
        "2026-08-03t23:59:59.5z",
        "2026-08-03 00:00",
        "2026-08-03 23:59:59.5",
    ),
    ("dates alone, the same", "2026-08-03", "2026-08-03", "2026-08-03 00:00", "2026-08-03 23:59:59"),
    ("dates alone, the next", "2026-08-03", "2026-08-04", "2026-08-03 00:00", "2026-08-04 00:00"),
    ("digits alone", "20260803", "20260803", "2026-08-03 00:00", "2026-08-03 23:59:59"),
    ("seconds", 1785715200, "1785801599", "2026-08-03 00:00", "2026-08-03 23:59:59"),
    ("milliseconds", 1785715200000, 1785801599000, "2026-08-03 00:00", "2026-08-03 23:59:59"),
    (
        "twenty-four o'clock",
        "2026-08-03T00:00:00Z",
        "2026-08-03T24:00:00Z",
        "2026-08-03 00:00",
        "2026-08-04 00:00",
    ),
    (
        "a leap second",
        "2026-08-03T00:00:00Z",
        "2026-08-03T23:59:60Z",
        "2026-08-03 00:00",
        "2026-08-03 23:59:59",
    ),
    (
        "as in mail",
        "Mon, 03 Aug 2026 00:00:00 GMT",
        "Mon, 3 Aug 2026 23:59:59 +0000",
        "2026-08-03 00:00",
        "2026-08-03 23:59:59",
    ),
    ("not at all", None, "soon", None, None),
    ("beyond the calendar", 10**17, "9999-12-31T23:59:59-23:00", None, None),
]


@pytest.mark.parametrize(
    ("start", "end", "begins", "ends"), [pytest.param(*row, id=why) for why, *row in PERIODS]
)
def test_periods(start: Any, end: Any, begins: str | None, ends: str | None) -> None:
    """Times come in many forms; in the table they are UTC."""
    value = report(date_range={"start-datetime": start, "end-datetime": end})
    found = parse_tls_reports(json.dumps(value).encode()).reports[0]
    wanted = [datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None for text in (begins, ends)]
    assert [found.begins_at, found.ends_at] == wanted
    assert found.policies[0].impossible == ""


def test_an_end_before_the_begin() -> None:
    """A period that runs backwards is called impossible, in each of its policies."""
    dates = {"start-datetime": "2026-08-04T00:00:00Z", "end-datetime": "2026-08-03T00:00:00Z"}
    assert only_policy(report(date_range=dates)).impossible == "an end before the begin"


ONE = json.dumps(report()).encode()
TEXTS = [
    ("plain", ONE, 1, ""),
    ("a byte order mark", b"\xef\xbb\xbf" + ONE, 1, ""),
    ("UTF-16", ONE.decode().encode("utf-16"), 1, ""),
    ("bytes that are no UTF-8", ONE.replace(b"Inc.", b"\xff"), 1, ""),
    ("an array of reports", b"[" + ONE + b"," + ONE + b"]", 2, ""),
    ("one a line", ONE + b"\r\n" + ONE + b"\n", 2, ""),
    ("a report and a NUL", ONE + b"\0", 1, ""),
    ("a report and something else", ONE + b"--end", 1, "no JSON at character"),
    ("a raw line break in a string", ONE.replace(b"Inc.", b"I\nnc"), 1, ""),
    ("a report cut short", ONE[:-9], 0, "no JSON at character"),
    ("nothing", b" \n", 0, "empty"),
    ("another object", b'{"report-id": "1"}', 0, "JSON, but no TLS report"),
    ("no object", b"17", 0, "JSON, but no TLS report"),
    ("nested too deep", b'{"policies":' + b"[" * 100_000, 0, "JSON nested too deep"),
    ("more than can be", b"[" * (MAX_VALUES + 1), 0, "more than 2,000,000 values"),
    ("a number without end", ONE.replace(b": 8,", b": " + b"8" * 10_000 + b","), 1, ""),
    ("numbers that are none", ONE.replace(b": 8,", b": NaN,").replace(b": 2}", b": 1e999}"), 1, ""),
]


@pytest.mark.parametrize(
    ("data", "reports", "problem"), [pytest.param(d, r, p, id=why) for why, d, r, p in TEXTS]
)
def test_texts(data: bytes, reports: int, problem: str) -> None:
    """Whatever comes gives its reports, and a reason for what is none."""
    found = parse_tls_reports(data)
    assert len(found.reports) == reports
    assert found.problem.startswith(problem)
    assert bool(found.problem) == bool(problem)


def test_a_report_without_an_id_has_a_digest() -> None:
    """Where the id is missing, the same content has the same digest in any order of its keys."""
    value = report(report_id=None)
    turned = dict(reversed(value.items()))
    one, two, other = (
        parse_tls_reports(json.dumps(item).encode()).reports[0].digest
        for item in (value, turned, value | {"contact-info": "x"})
    )
    assert one == two != other
    assert parse_tls_reports(ONE).reports[0].digest == ""


def test_what_repeats_too_much_is_left_out() -> None:
    """A policy of 256 kB that a hundred thousand details would repeat keeps what fits, and says so."""
    strings = ["x" * 1024] * (MAX_ITEMS + 1)
    value = report(policies=[policy(policy={"policy-string": strings}, failure_details=[{}] * 100_000)])
    found = parse_tls_reports(json.dumps(value).encode())
    kept = found.reports[0].policies[0]
    assert len(kept.policy_strings or ()) == MAX_ITEMS
    assert 0 < len(kept.failures) < 1000
    assert kept.sums is None
    assert found.problem == f"{100_000 - len(kept.failures):,} rows that repeat too much are left out"


@pytest.mark.parametrize(
    ("total", "counts", "sums"),
    [
        (0, [], "equal"),
        (2, [], "no_details"),
        (2, [1, 1], "equal"),
        (2, [1, 2], "details_exceed"),
        (2, [1], "details_fall_short"),
        (None, [1], None),
        (1, [1, None], None),
    ],
)
def test_compare_sums(total: int | None, counts: list[int | None], sums: str | None) -> None:
    """Sums say which way they differ, and nothing where a side is not told."""
    assert compare_sums(total, counts) == sums


KEYS = """policies policy policy-type policy-domain policy-string mx-host summary failure-details date-range report-id
start-datetime end-datetime total-failure-session-count failed-session-count result-type"""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS.split()), inner, max_size=5)
    ),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_any_json_is_read_without_failing(value: Any) -> None:
    """Values of a wrong kind anywhere become missing values."""
    found = parse_tls_reports(
        json.dumps({"policies": value, "date-range": value, "report-id": value}).encode()
    )
    for one in found.reports:
        for entry in one.policies:
            assert entry.sessions_failed is None or isinstance(entry.sessions_failed, int)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(ONE)))
def test_any_bytes_are_read_without_failing(noise: bytes, place: int) -> None:
    """Damage anywhere gives a report or a reason."""
    found = parse_tls_reports(ONE[:place] + noise + ONE[place + len(noise) :])
    assert found.reports or found.problem


def labels(name: str) -> list[dict[str, str]]:
    path = SHARED / name
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.skipif(not labels("labels.csv"), reason="no tlsrpt/labels.csv beside the repository")
def test_every_quirk_gives_a_report() -> None:
    """Reports as they were published in issue threads are read without a reason to complain."""
    for row in labels("quirks/quirks.csv"):
        found = parse_tls_reports((SHARED / "quirks" / row["file"]).read_bytes())
        assert (found.problem, len(found.reports)) == ("", 2 if row["file"].startswith("trailing") else 1)
        assert all(one.policies and one.begins_at and one.ends_at for one in found.reports)
