"""The same servers seen from several vantages: the same, or what differs, why, and where."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rtls_analysis as rtls
from rtls_analysis.analysis import compare_vantages, snapshots, vantage_reasons
from rtls_analysis.analysis.sights import BOTH, FIRST, SECOND, Difference, differences, facts_of
from rtls_analysis.outcomes import SessionOutcome
from rtls_analysis.plots.vantages import vantage_reasons as plot_vantage_reasons
from tests.analysis.made import from_each, made

PLAIN = ["mx.example at your service", "PIPELINING", "SIZE 1000", "STARTTLS"]
SESSION: dict[str, Any] = {
    "mx_host": "mx.example",
    "address": "192.0.2.1",
    "outcome": "completed",
    "stage": "quit",
    "starttls": "yes",
    "requiretls_tls": "yes",
    "tls_version": "TLSv1.3",
    "cipher": "TLS_AES_256_GCM_SHA384",
    "key_exchange": "X25519",
    "chain_sha256": ["aa", "bb"],
    "pkix": "valid",
    "dane": "none",
    "ehlo_plain": PLAIN,
    "ehlo_tls": ["mx.example at your service", "PIPELINING", "REQUIRETLS"],
    "injected_bytes": 0,
}
NO_TLS = {
    "starttls": "no",
    "requiretls_tls": "not_tested",
    "tls_version": None,
    "cipher": None,
    "key_exchange": None,
    "chain_sha256": None,
    "pkix": "not_tested",
    "dane": "not_tested",
    "ehlo_tls": None,
}
NOTHING = {**NO_TLS, "starttls": "unknown", "ehlo_plain": None}


def ended(outcome: str, **more: Any) -> dict[str, Any]:
    return {**NOTHING, "outcome": outcome, **more}


AS_SENT = {"ehlo_tls": ["250-mx.example at your service", "250-PIPELINING", "250 REQUIRETLS"]}
FOUND = [
    ("nothing", {}, {}, {}),
    ("another greeting", {}, {"ehlo_tls": ["mx2.example", "PIPELINING", "REQUIRETLS"]}, {}),
    ("another order, other case", {}, {"ehlo_tls": ["x", "requiretls", "Pipelining"]}, {}),
    ("another last line", AS_SENT, {"ehlo_tls": ["250-x", "250-REQUIRETLS", "250 PIPELINING"]}, {}),
    ("codes or none", AS_SENT, {}, {}),
    ("blocked there", {}, ended("blocked"), {"blocked": SECOND}),
    ("blocked here", ended("blocked"), {}, {"blocked": FIRST}),
    ("silent at both", ended("timeout"), ended("timeout"), {}),
    ("silent here, refused there", ended("timeout"), ended("refused"), {"refused": SECOND, "timeout": FIRST}),
    ("greylisted there", {}, ended("greylisted"), {"greylisted": SECOND}),
    ("told to slow down", ended("rate_limited"), {}, {"rate_limited": FIRST}),
    ("no way to the family there", {}, ended("family_unavailable"), {"family_unavailable": SECOND}),
    ("not sampled there", {}, ended("not_sampled", starttls="not_tested"), {"left_alone": SECOND}),
    ("left alone for other reasons", ended("not_sampled"), ended("opted_out"), {"left_alone": BOTH}),
    ("the handshake broke there", {}, {**NO_TLS, "outcome": "tls_failed", "starttls": "failed"}, {"tls_failed": SECOND}),
    ("not offered there", {}, {**NO_TLS, "ehlo_plain": PLAIN[:3]}, {"no_starttls": SECOND, "capabilities": BOTH}),
    ("REQUIRETLS stripped here", {"requiretls_tls": "no", "ehlo_tls": ["x", "PIPELINING"]}, {}, {"requiretls_not_offered": FIRST, "capabilities": BOTH}),
    ("REQUIRETLS not told there", {}, {"requiretls_tls": "unknown"}, {}),
    ("an older version", {}, {"tls_version": "TLSv1.2", "cipher": "ECDHE-RSA-AES256-SHA"}, {"tls_version": BOTH}),
    ("another cipher", {}, {"cipher": "TLS_AES_128_GCM_SHA256"}, {"cipher": BOTH}),
    ("another group", {}, {"key_exchange": "secp256r1"}, {"cipher": BOTH}),
    ("another leaf", {}, {"chain_sha256": ["cc", "bb"], "pkix": "expired"}, {"certificate": BOTH}),
    ("another issuer above it", {}, {"chain_sha256": ["aa"], "pkix": "untrusted"}, {"verdict": BOTH}),
    ("DANE tested by one alone", {"dane": "match"}, {"dane": "not_tested"}, {}),
    ("DANE otherwise", {"dane": "match"}, {"dane": "mismatch"}, {"verdict": BOTH}),
    ("text before TLS there", {}, {"injected_bytes": 12}, {"injected_text": SECOND}),
    ("another size", {}, {"ehlo_tls": ["x", "PIPELINING", "REQUIRETLS", "SIZE 9"]}, {"capabilities": BOTH}),
    ("before TLS it does not count", {}, {"ehlo_plain": ["x", "STARTTLS"]}, {}),
    ("where neither has TLS it does", NO_TLS, {**NO_TLS, "ehlo_plain": ["x"]}, {"capabilities": BOTH}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "found"), [pytest.param(a, b, f, id=why) for why, a, b, f in FOUND])
def test_differences(one: dict[str, Any], other: dict[str, Any], found: dict[str, str]) -> None:
    """Two sessions are the same, or each difference has its word, in the order of the vocabulary, and its place."""
    told = differences(facts_of({**SESSION, **one}), facts_of({**SESSION, **other}))
    assert told == found
    assert list(told) == [word for word in Difference if word in found]
    mirrored = {FIRST: SECOND, SECOND: FIRST, BOTH: BOTH}
    back = differences(facts_of({**SESSION, **other}), facts_of({**SESSION, **one}))
    assert back == {word: mirrored[where] for word, where in found.items()}


def test_every_outcome_has_its_word() -> None:
    """A session that ended otherwise than completed is a reason where the other was completed."""
    for outcome in SessionOutcome:
        told = differences(facts_of(SESSION), facts_of({**SESSION, **ended(outcome)}))
        assert bool(told) == (outcome is not SessionOutcome.COMPLETED)


def seen(*sessions: dict[str, Any]) -> rtls.Snapshot:
    return made(sessions=[{**SESSION, **session} for session in sessions])


def server(number: int, **more: Any) -> dict[str, Any]:
    return {"address": f"192.0.2.{number}", **more}


def test_a_row_for_each_pair_and_server() -> None:
    """Three vantages make three pairs; what one has nothing of is told, and what each says of the reason."""
    each = from_each(
        ams=seen(server(1), server(2), server(3)),
        bos=seen(server(1), server(2, **ended("blocked", reply_code=554, reply_text="5.7.1 go away"))),
        cdg=seen(server(1, tls_version="TLSv1.2"), server(2), server(3)),
    )
    table = compare_vantages(each)
    assert table.attrs["vantages"] == ["ams", "bos", "cdg"]
    assert table[["first", "second"]].drop_duplicates().to_numpy().tolist() == [
        ["ams", "bos"],
        ["ams", "cdg"],
        ["bos", "cdg"],
    ]
    rows = table.set_index(["first", "second", "address"])
    assert len(rows) == 9
    blocked = rows.loc["ams", "bos", "192.0.2.2"]
    assert blocked[["verdict", "reason", "at", "first_outcome", "second_outcome"]].tolist() == [
        "differs",
        "blocked",
        "bos",
        "completed",
        "blocked",
    ]
    assert blocked["detail"] == "ams: completed; bos: blocked 554 5.7.1 go away"
    missing = rows.loc["ams", "bos", "192.0.2.3"]
    assert missing[["reason", "at", "detail"]].tolist() == [
        "one_only",
        "bos",
        "ams: completed; bos: not on record",
    ]
    older = rows.loc["bos", "cdg", "192.0.2.1"]
    assert older[["reason", "detail"]].tolist() == ["tls_version", "bos: TLSv1.3; cdg: TLSv1.2"]
    assert pd.isna(older["at"])
    same = rows.loc["ams", "bos", "192.0.2.1"]
    assert (same["verdict"], same["reasons"]) == ("same", ())
    assert same[["reason", "at", "detail"]].isna().all()


def test_two_scans_are_two_vantages() -> None:
    """Scans from two places are compared as well, by the names of the places where they have any."""
    one, other = seen(server(1)), seen(server(1, **NO_TLS))
    table = compare_vantages(one, other)
    assert table[["first", "second", "reason", "at"]].to_numpy().tolist() == [
        ["first", "second", "no_starttls", "second"]
    ]
    each = from_each(ams=one, bos=other)
    named = compare_vantages(each.from_vantage("bos"), each.from_vantage("ams"))
    assert named[["first", "second", "reason", "at"]].to_numpy().tolist() == [
        ["bos", "ams", "no_starttls", "bos"]
    ]
    pd.testing.assert_frame_equal(
        compare_vantages(each), compare_vantages(each.from_vantage("ams"), each.from_vantage("bos"))
    )


def test_the_text_for_people() -> None:
    """A line for each server, whatever its reply: the counts of each pair first."""
    one = seen(server(1), server(2), server(3))
    other = seen(
        server(1), server(2, **ended("blocked", reply_code=554, reply_text="go\naway")), server(3, **NO_TLS)
    )
    text = snapshots.sights_text(compare_vantages(from_each(ams=one, bos=other)))
    assert text.splitlines() == [
        "ams and bos say the same of 1 of 3 servers",
        "blocked: 1",
        "  mx.example [192.0.2.2]: ams: completed; bos: blocked 554 go / away",
        "no_starttls: 1",
        "  mx.example [192.0.2.3]: ams: yes; bos: no",
    ]
    assert snapshots.sights_text(compare_vantages(seen(), seen())) == "No server was seen from two vantages."


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_many_servers_are_compared_part_by_part(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many at a time, wherever one of them has nothing of a server: the table is the same, in the same order."""
    each = from_each(
        ams=seen(server(1), server(2), server(3)),
        bos=seen(server(4), server(2, **ended("blocked")), server(1)),
        cdg=seen(server(5), server(3), server(4)),
    )
    whole = compare_vantages(each)
    assert len(whole) == 4 + 5 + 5
    assert list(whole["address"][:4]) == [f"192.0.2.{number}" for number in (1, 2, 3, 4)]
    monkeypatch.setattr(snapshots, "_AT_ONCE", at_once)
    pd.testing.assert_frame_equal(compare_vantages(each), whole)


def test_one_vantage_is_not_compared() -> None:
    """One line says what would do."""
    with pytest.raises(ValueError, match=r'has no vantage, and .*vantage="each"'):
        compare_vantages(seen(server(1)))
    with pytest.raises(ValueError, match=r"take one with snapshot\.from_vantage"):
        compare_vantages(from_each(a=seen(server(1)), b=seen(server(1))), seen(server(1)))


def test_reasons_are_counted() -> None:
    """Each server once, by its first reason; the others beside; rates with their denominators."""
    broken = {"chain_sha256": ["cc"], "cipher": "X"}
    each = from_each(
        ams=seen(*(server(number) for number in range(1, 9))),
        bos=seen(
            server(1, **ended("blocked")),
            server(2, **ended("blocked")),
            server(3, **broken),
            *(server(number) for number in range(4, 9)),
        ),
    )
    table = vantage_reasons(each)
    assert list(table.index) == [
        ("ams", "bos", "same", ""),
        ("ams", "bos", "differs", "blocked"),
        ("ams", "bos", "differs", "certificate"),
        ("ams", "bos", "differs", "cipher"),
    ]
    assert table[["numerator", "denominator", "also"]].to_numpy().tolist() == [
        [5, 8, 0],
        [2, 8, 0],
        [1, 8, 0],
        [0, 8, 1],
    ]
    assert table["rate"].tolist() == [5 / 8, 2 / 8, 1 / 8, 0]
    assert set(table["unit"]) == {"address"}
    assert (table["low"] <= table["rate"]).all()
    pd.testing.assert_frame_equal(table, vantage_reasons(compare_vantages(each)))
    ax = plot_vantage_reasons(each)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["blocked", "certificate"]
    assert "ams and bos" in ax.get_title(loc="left")
    assert any("they agree on 5;" in text.get_text() for text in ax.texts)


def test_nothing_to_compare() -> None:
    """Scans of nothing give tables of nothing, and an empty plot."""
    table = compare_vantages(made(), made())
    assert len(table) == 0
    assert list(table.columns)[:2] == ["mx_host", "address"]
    counts = vantage_reasons(table)
    assert len(counts) == 0
    assert {"numerator", "rate", "also"} <= set(counts.columns)
    plot_vantage_reasons(counts)


def test_a_lab_seen_twice_is_the_same(scans: dict[int, rtls.Snapshot]) -> None:
    """Two scans of the same servers at about the same time tell the same of each of them."""
    table = compare_vantages(scans[1], scans[2])
    assert set(table["verdict"]) == {"same"}
    assert len(table) == len(scans[1].sessions)


words = st.fixed_dictionaries(
    {
        "outcome": st.sampled_from([str(word) for word in SessionOutcome]),
        "starttls": st.sampled_from(["yes", "no", "failed", "unknown", "not_tested"]),
        "requiretls_tls": st.sampled_from(["yes", "no", "unknown", "not_tested"]),
        "tls_version": st.sampled_from([None, "TLSv1.2", "TLSv1.3"]),
        "chain_sha256": st.sampled_from([None, [], ["aa"], ["cc", "aa"]]),
        "ehlo_tls": st.sampled_from([None, ["x"], ["x", "SIZE"]]),
        "injected_bytes": st.sampled_from([None, 0, 5]),
        "pkix": st.sampled_from(["valid", "expired", "not_tested"]),
    }
)


@given(words, words)
def test_differences_mirror(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Who is called first changes nothing but the side; a server that two see alike has no difference."""
    first, second = facts_of({**SESSION, **one}), facts_of({**SESSION, **other})
    mirrored = {FIRST: SECOND, SECOND: FIRST, BOTH: BOTH}
    there, back = differences(first, second), differences(second, first)
    assert back == {word: mirrored[where] for word, where in there.items()}
    assert differences(first, first) == {}
