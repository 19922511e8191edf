"""Time to delivery: against published vectors, statsmodels, and messages whose way is known."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.analysis.delays import (
    cumulative_incidence,
    retry_schedule,
    survival,
    survival_time,
    time_to_delivery,
)
from rtls_analysis.analysis.messages import message_numbers, recipient_ends
from rtls_analysis.schema import DELIVERIES, to_frame

AT = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
VECTOR = [362, 542, 542, 1739, 3396, 5924, 21600, 21600]
ENDED = [True] * 6 + [False] * 2


def deliveries(*rows: dict[str, Any]) -> pd.DataFrame:
    """Attempts of one server: `at` in seconds since noon."""
    made = [
        {
            "logged_at": AT + dt.timedelta(seconds=row.pop("at")),
            "mta": "postfix",
            "reporting_host": "out",
            "queue_id": "A",
            "recipient": "x@a.test",
            "recipient_domain": "a.test",
            "relay_host": "mx.a.test",
            "transport": "smtp",
            "attempted": True,
            "action": "delayed",
            "tls_level": "untrusted",
            **row,
        }
        for row in map(dict, rows)
    ]
    return to_frame(DELIVERIES, made)


# -- messages --------------------------------------------------------------------------------------------------


def test_a_message_is_what_one_server_queued() -> None:
    """The same queue id on another host, or another Message-ID under it, is another message; rows without ids too."""
    mail = deliveries(
        {"at": 0},
        {"at": 1},
        {"at": 2, "reporting_host": "other"},
        {"at": 3, "message_id": "1@x"},
        {"at": 4, "queue_id": None},
        {"at": 5, "queue_id": None},
        {"at": 6, "queue_id": None, "message_id": "1@x"},
        {"at": 7, "queue_id": None, "message_id": "1@x"},
    )
    numbers = message_numbers(mail).tolist()
    assert numbers[0] == numbers[1]
    assert numbers[6] == numbers[7]
    assert len(set(numbers)) == 6


def test_recipient_ends() -> None:
    """The last row tells the end; the relay is that of the last try; the first try and the arrival are kept."""
    mail = deliveries(
        {"at": 60, "delay_seconds": 60.0, "tls_outcome": "starttls_refused"},
        {"at": 0, "attempted": False, "status_word": "held"},
        {"at": 300, "relay_host": "mx2.a.test", "relay_address": "192.0.2.2", "tls_outcome": "not_tls"},
        {"at": 900, "relay_host": None, "attempted": False, "action": "failed", "status_word": "expired"},
        {"at": 900, "recipient": "y@a.test", "action": "delivered"},
    )
    plain = recipient_ends(mail.sample(frac=1, random_state=3)).set_index("recipient")
    x = plain.loc["x@a.test"]
    assert (x["action"], x["tries"], x["relay_host"], x["relay_address"]) == (
        "failed",
        2,
        "mx2.a.test",
        "192.0.2.2",
    )
    assert (x["arrived_at"], x["first_at"]) == (AT, AT + dt.timedelta(seconds=60))
    assert x["first_outcome"] == "starttls_refused"
    assert plain.loc["y@a.test", "first_action"] == "delivered"


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("AB"), st.sampled_from("xy"), st.integers(0, 9), st.booleans(), st.integers(0, 2)
        ),
        max_size=12,
    )
)
def test_recipient_ends_by_hand(rows: list[tuple[str, str, int, bool, int]]) -> None:
    """Row by row it comes to the same as a plain walk over the attempts."""
    mail = deliveries(
        *(
            {
                "at": at,
                "queue_id": queue,
                "recipient": who,
                "attempted": tried,
                "relay_host": None if relay == 0 else f"mx{relay}",
                "status_word": str(number),
            }
            for number, (queue, who, at, tried, relay) in enumerate(rows)
        )
    )
    found = {
        (row.queue_id, row.recipient): (row.status_word, row.tries, row.relay_host)
        for row in recipient_ends(mail).itertuples()
    }
    walked: dict[tuple[str, str], tuple[str, int, Any]] = {}
    for number, (queue, who, _at, tried, relay) in sorted(enumerate(rows), key=lambda item: item[1][2]):
        _word, tries, host = walked.get((queue, who), ("", 0, np.nan))
        walked[queue, who] = (str(number), tries + tried, host if relay == 0 else f"mx{relay}")
    assert {key: value[:2] for key, value in found.items()} == {
        key: value[:2] for key, value in walked.items()
    }
    assert {key: str(value[2]) for key, value in found.items()} == {
        key: str(value[2]) for key, value in walked.items()
    }


# -- curves ----------------------------------------------------------------------------------------------------


def test_published_vector() -> None:
    """The curve of the fact sheet, and its median by both rules, whatever the rounding."""
    curve = survival(VECTOR, ENDED)
    assert curve["share"].round(12).tolist() == [0.875, 0.625, 0.5, 0.375, 0.25]
    assert curve.index.tolist() == [362, 542, 1739, 3396, 5924]
    assert curve["at_risk"].tolist() == [8, 7, 5, 4, 3]
    assert survival_time(curve) == 1739
    assert survival_time(curve, rule="midpoint") == 2567.5
    assert survival_time(curve, 0.25) == 5924
    assert np.isnan(survival_time(curve, 0.1))
    with pytest.raises(ValueError, match="midpoint"):
        survival_time(curve, rule="last")


_TIMES = st.lists(st.tuples(st.integers(0, 30), st.sampled_from([0, 1, 2])), min_size=2, max_size=40)


@settings(deadline=None, max_examples=100)
@given(_TIMES)
def test_survival_agrees_with_statsmodels(data: list[tuple[int, int]]) -> None:
    """Shares and Greenwood's standard errors are those of statsmodels."""
    duration = pytest.importorskip("statsmodels.duration.survfunc")
    times, status = (np.array(values, dtype=float) for values in zip(*data, strict=True))
    ended = status > 0
    if not ended.any():
        assert survival(times, ended).empty
        return
    theirs = duration.SurvfuncRight(times, ended.astype(float))
    ours = survival(times, ended)
    np.testing.assert_allclose(ours.index, theirs.surv_times)
    np.testing.assert_allclose(ours["share"], theirs.surv_prob, atol=1e-12)
    known = ours["share"] > 1e-12
    np.testing.assert_allclose(
        ours.loc[known, "standard_error"], np.asarray(theirs.surv_prob_se)[known], atol=1e-9
    )
    inside = ours[known & ours["low"].notna()]
    assert (inside["low"] <= inside["share"] + 1e-12).all()
    assert (inside["share"] <= inside["high"] + 1e-12).all()
    assert ours["ended"].sum() + ours["censored"].sum() <= len(data)


@settings(deadline=None, max_examples=100)
@given(_TIMES)
def test_cumulative_incidence_agrees_with_statsmodels(data: list[tuple[int, int]]) -> None:
    """Delivered and failed compete: shares and standard errors are those of statsmodels, and all adds up to one."""
    duration = pytest.importorskip("statsmodels.duration.survfunc")
    times, status = (np.array(values) for values in zip(*data, strict=True))
    words = np.array(["queued", "delivered", "failed"])[status]
    ours = cumulative_incidence(times, words)
    np.testing.assert_allclose(ours[["delivered_share", "failed_share", "queued_share"]].sum(axis=1), 1)
    if status.max() < 2 or not (status == 1).any():
        return  # statsmodels wants each cause to occur
    with np.errstate(divide="ignore", invalid="ignore"):
        theirs = duration.CumIncidenceRight(times.astype(float), status.astype(float))
    place = np.searchsorted(theirs.times, ours.index)
    for number, cause in enumerate(("delivered", "failed")):
        np.testing.assert_allclose(ours[f"{cause}_share"], theirs.cinc[number][place], atol=1e-12)
        their_error = np.asarray(theirs.cinc_se[number])[place]
        known = np.isfinite(their_error) & ours[f"{cause}_standard_error"].notna().to_numpy()
        np.testing.assert_allclose(ours.loc[known, f"{cause}_standard_error"], their_error[known], atol=1e-6)


def test_without_competition_it_is_survival() -> None:
    """Where nothing fails, the share delivered is what the survival curve lacks to one."""
    curve = survival(VECTOR, ENDED)
    incidence = cumulative_incidence(VECTOR, ["delivered" if ended else "queued" for ended in ENDED])
    np.testing.assert_allclose(incidence["delivered_share"], 1 - curve["share"])
    np.testing.assert_allclose(incidence["delivered_standard_error"], curve["standard_error"])
    with pytest.raises(ValueError, match="one end for each time"):
        cumulative_incidence([1, 2], ["delivered"])


# -- from a log ------------------------------------------------------------------------------------------------


def test_time_to_delivery() -> None:
    """Delivered and failed take as long as the log says, the queued at least until the log ends; local mail is none."""
    mail = deliveries(
        {"at": 2, "queue_id": "A", "action": "delivered", "delay_seconds": 1.75},
        {"at": 10, "queue_id": "B", "delay_seconds": 5.0},
        {"at": 100, "queue_id": "B", "action": "failed", "attempted": False, "relay_host": None},
        {"at": 40, "queue_id": "C"},
        {"at": 70, "queue_id": "D", "action": "delivered"},
        {"at": 80, "queue_id": "E", "action": "delivered", "transport": "virtual", "relay_host": "virtual",
         "tls_level": None},
        {"at": 50, "queue_id": "F", "reporting_host": "other"},
    )  # fmt: skip
    table = time_to_delivery(mail).set_index("queue_id")
    assert table["end"].astype(str).to_dict() == {
        "A": "delivered",
        "B": "failed",
        "C": "queued",
        "D": "delivered",
        "F": "queued",
    }
    assert table["seconds"].to_dict() == {"A": 1.75, "B": 95, "C": 60, "D": 0, "F": 0}
    later = time_to_delivery(mail, until="2026-11-23T13:00:00Z").set_index("queue_id")
    assert later.loc["C", "seconds"] == 3560
    empty = time_to_delivery(mail.iloc[:0])
    assert empty.empty
    assert cumulative_incidence(empty["seconds"], empty["end"]).empty
    assert survival([], []).empty


def test_retry_schedule() -> None:
    """Tries of one run are one; the waits and the time since the first try are told for each retry."""
    mail = deliveries(
        {"at": 0},
        {"at": 0, "relay_host": "mx2.a.test"},
        {"at": 300},
        {"at": 301, "relay_host": "mx2.a.test"},
        {"at": 400, "attempted": False},
        {"at": 1200, "action": "delivered"},
        {"at": 0, "queue_id": "B"},
        {"at": 500, "queue_id": "B", "action": "delivered"},
        {"at": 0, "queue_id": "C", "action": "delivered"},
    )
    table = retry_schedule(mail)
    assert table["messages"].to_dict() == {("out", 1): 2, ("out", 2): 1}
    assert table.loc[("out", 1), "since_first_seconds"] == 400
    assert table.loc[("out", 1), ["shortest_seconds", "longest_seconds"]].tolist() == [300, 500]
    assert table.loc[("out", 2), ["wait_seconds", "since_first_seconds"]].tolist() == [900, 1200]
    assert retry_schedule(mail.iloc[:0]).empty


def test_published_retries() -> None:
    """The retries after a 4xx that Pagani et al. (2015) measured come back from a log that has them."""
    waits = {
        "gmail": ("6:02", "29:02", "56:36", "98:44"),
        "hotmail": ("1:01", "2:03", "3:04", "5:06"),
        "aol": ("5:32", "11:32", "21:32", "31:32"),
    }
    seconds = {
        name: [int(text.split(":")[0]) * 60 + int(text.split(":")[1]) for text in texts]
        for name, texts in waits.items()
    }
    mail = deliveries(
        *(
            {"at": at, "reporting_host": name, "queue_id": name}
            for name, times in seconds.items()
            for at in (0, *times)
        )
    )
    table = retry_schedule(mail)
    found = {name: table.loc[name, "since_first_seconds"].tolist() for name in seconds}
    assert found == seconds
