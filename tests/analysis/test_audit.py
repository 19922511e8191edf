"""The audit finds every kind of breach that is planted in a record of connections, and nothing in a clean one."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.analysis.audit import audit
from rtls_analysis.scanner.options import Manners
from rtls_analysis.scanner.politeness import Job, Scheduler
from rtls_analysis.store import Snapshot, SnapshotWriter

START = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)


def attempt(second: float, address: str = "198.41.0.4", **changes: Any) -> dict[str, Any]:
    row = {
        "purpose": "probe",
        "mx_host": "mx.example.org",
        "domain": None,
        "address": address,
        "port": 25,
        "provider": "example.org",
        "started_at": START + dt.timedelta(seconds=second),
        "ended_at": START + dt.timedelta(seconds=second + 0.5),
        "outcome": "completed",
    }
    return {**row, **changes}


def snapshot(
    rows: list[dict[str, Any]], sessions: list[dict[str, Any]] | None = None, **manifest: Any
) -> Snapshot:
    manners = Manners()
    given_manners = {name: getattr(manners, name) for name in manners.__slots__}
    given_manners.update(manifest.pop("manners", {}))
    scan = manifest.pop("scan", {})
    writer = SnapshotWriter(
        None, {"scan": scan, "manners": given_manners, "concurrency": 50, **manifest}, b""
    )
    for row in rows:
        writer.append("attempts", row)
    for row in sessions or ():
        writer.append("sessions", row)
    writer.close()
    return writer.snapshot()


OTHER = {"mx_host": "mx2.example.net", "provider": "example.net"}
BREACHES: list[tuple[str, list[dict[str, Any]], dict[str, Any], set[str]]] = [
    ("nothing was done", [], {}, set()),
    ("well apart", [attempt(0), attempt(3, mx_host="mx2.example.org")], {}, set()),
    (
        "two at once at one address",
        [attempt(0, ended_at=START + dt.timedelta(seconds=9)), attempt(3, mx_host="mx2.example.org")],
        {},
        {"address_at_once"},
    ),
    ("too soon at one address", [attempt(0), attempt(1.9, **OTHER)], {}, {"address_spacing"}),
    ("too soon in one network", [attempt(0), attempt(0.6, "198.41.0.5", **OTHER)], {}, {"prefix_spacing"}),
    ("too soon at one provider", [attempt(0), attempt(0.6, "199.7.91.13", mx_host="b")], {}, {"provider_spacing"}),
    (
        "three at once at one provider",
        [
            attempt(n, f"19{n}.7.91.13", mx_host=f"mx{n}", ended_at=START + dt.timedelta(seconds=60))
            for n in range(1, 4)
        ],
        {},
        {"provider_at_once"},
    ),
    (
        "more at once than the run may have",
        [
            attempt(n, f"19{n}.7.91.13", mx_host=f"mx{n}", provider=f"{n}.org", ended_at=START + dt.timedelta(seconds=60))
            for n in range(1, 4)
        ],
        {"concurrency": 2},
        {"run_at_once"},
    ),
    (
        "within the pause of a provider that asked for rest",
        [attempt(0, outcome="rate_limited"), attempt(55, "199.7.91.13", mx_host="b")],
        {},
        {"pause"},
    ),
    ("when its pause is over", [attempt(0, outcome="blocked"), attempt(61, "199.7.91.13", mx_host="b")], {}, set()),
    ("the pause of another provider", [attempt(0, outcome="blocked"), attempt(9, "199.7.91.13", **OTHER)], {}, set()),
    ("let go before it asked", [attempt(0, outcome="blocked"), attempt(1.2, "199.7.91.13", mx_host="b")], {}, set()),
    (
        "within its second pause, which is twice as long",
        [attempt(0, outcome="greylisted"), attempt(70, outcome="greylisted"), attempt(180)],
        {},
        {"pause"},
    ),
    (
        "of which only the first length is asked for after an interruption",
        [attempt(0, outcome="greylisted"), attempt(70, outcome="greylisted"), attempt(180)],
        {"resumed": [{"at": str(START + dt.timedelta(seconds=100))}], "runs": 2},
        set(),
    ),
    (
        "which it may not cut short",
        [attempt(0, outcome="greylisted"), attempt(30)],
        {"resumed": [{"at": str(START + dt.timedelta(seconds=10))}], "runs": 2},
        {"pause"},
    ),
    (
        "a policy host that asked for rest",
        [
            attempt(0, outcome="http 429", purpose="policy", mx_host=None, domain="a.org"),
            attempt(9, purpose="policy", mx_host=None, domain="b.org"),
        ],
        {},
        {"pause"},
    ),
    (
        "a run that resumed with other manners is held to those",
        [attempt(0), attempt(0.6, "198.41.0.5", **OTHER), attempt(60), attempt(60.6, "198.41.0.5", **OTHER)],
        {
            "manners": {"prefix_spacing": 0.5},
            "resumed": [
                {"at": str(START + dt.timedelta(seconds=50)), "manners": {"prefix_spacing": 1.0}, "concurrency": 1}
            ],
        },
        {"prefix_spacing"},
    ),
    (
        "and to its own number of connections",
        [
            attempt(0, ended_at=START + dt.timedelta(seconds=9)),
            attempt(1, "199.7.91.13", **OTHER, ended_at=START + dt.timedelta(seconds=9)),
            attempt(60, ended_at=START + dt.timedelta(seconds=70)),
            attempt(61, "199.7.91.13", **OTHER),
        ],
        {"resumed": [{"at": str(START + dt.timedelta(seconds=50)), "concurrency": 1}]},
        {"run_at_once"},
    ),
    (
        "four visits, one of them cut off by a kill",
        [attempt(n * 100) for n in range(4)],
        {"resumed": [{"at": str(START + dt.timedelta(seconds=150))}]},
        set(),
    ),
    (
        "a plan that was made before is no kill",
        [attempt(n * 100) for n in range(4)],
        {"resumed": [{"at": str(START - dt.timedelta(seconds=150))}]},
        {"retries"},
    ),
    ("four visits", [attempt(n * 100) for n in range(4)], {}, {"retries"}),
    ("a policy host too soon", [attempt(0), attempt(1, purpose="policy", mx_host=None, domain="a.org")], {}, {"address_spacing"}),
    ("a private address", [attempt(0, "10.0.0.1")], {}, {"special_address"}),
    ("a private address that is the user's own", [attempt(0, "10.0.0.1")], {"scan": {"allow_special": ["10.0.0.0/8"]}}, set()),
    (
        "own addresses are not paced",
        [attempt(0, "10.0.0.1"), attempt(0.1, "10.0.0.1", **OTHER)],
        {"scan": {"allow_special": ["10.0.0.0/8"]}},
        set(),
    ),
    (
        "unless the manners say so",
        [attempt(0, "10.0.0.1"), attempt(0.6, "10.0.0.1", **OTHER)],
        {"scan": {"allow_special": ["10.0.0.0/8"]}, "manners": {"own_addresses": True}},
        {"address_spacing", "prefix_spacing"},
    ),
    ("a host that opted out", [attempt(0)], {"scan": {"opt_out": ["example.org"]}}, {"opted_out"}),
    ("a network that opted out", [attempt(0)], {"scan": {"opt_out": ["198.41.0.0/16"]}}, {"opted_out"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "manifest", "rules"), [pytest.param(*case[1:], id=case[0]) for case in BREACHES]
)
def test_breaches(rows: list[dict[str, Any]], manifest: dict[str, Any], rules: set[str]) -> None:
    """Each limit that was broken is named, and no other."""
    found = audit(snapshot(rows, **manifest))
    assert set(found["rule"]) == rules
    assert all(found["detail"])


# -- over all workers and vantages ---------------------------------------------------------------------------

EACH = {"scan": {"vantages": ["a", "b"]}}
FREE = {"address_spacing": 0.0, "prefix_spacing": 0.0, "provider_spacing": 0.0}


def by(vantage: str, second: float, address: str = "198.41.0.4", **changes: Any) -> dict[str, Any]:
    return attempt(second, address, vantage=vantage, **changes)


def until(second: float) -> dt.datetime:
    return START + dt.timedelta(seconds=second)


def visits(vantage: str, count: int, first: float = 0.0) -> list[dict[str, Any]]:
    return [by(vantage, first + 10 * n) for n in range(count)]


DEATH = {"at": (START + dt.timedelta(seconds=5)).isoformat(), "writer": "c1", "worker": "tcp://127.0.0.1:1"}
LATE_DEATH = {**DEATH, "at": (START + dt.timedelta(seconds=70)).isoformat()}

OF_ALL: list[tuple[str, list[dict[str, Any]], dict[str, Any], set[str]]] = [
    ("one after the other", [by("a", 0), by("b", 3)], EACH, set()),
    ("at one address at once", [by("a", 0, ended_at=until(9)), by("b", 3)], EACH, {"address_at_once"}),
    ("too soon after the other", [by("a", 0), by("b", 1)], EACH, {"address_spacing"}),
    (
        "too soon in a network of the other",
        [by("a", 0), by("b", 0.6, "198.41.0.5", **OTHER)],
        EACH,
        {"prefix_spacing"},
    ),
    (
        "one more than a provider allows to both together",
        [
            by(vantage, n, f"19{n}.7.91.13", mx_host=f"mx{n}", ended_at=until(60))
            for n, vantage in enumerate("aba", start=1)
        ],
        EACH,
        {"provider_at_once"},
    ),
    (
        "within the rest that was asked of the other",
        [by("a", 0, outcome="rate_limited"), by("b", 30, "199.7.91.13", mx_host="b")],
        EACH,
        {"pause"},
    ),
    (
        "after the rest that was asked of the other, which would be the second of ours",
        [
            by("a", 0, outcome="rate_limited"),
            by("b", 61, "199.7.91.13", mx_host="b", outcome="rate_limited"),
            by("b", 125, "199.7.91.14", mx_host="c"),
        ],
        EACH,
        set(),
    ),
    (
        "before the end of our own second one",
        [
            by("a", 0, outcome="rate_limited"),
            by("a", 61, "199.7.91.13", mx_host="b", outcome="rate_limited"),
            by("a", 125, "199.7.91.14", mx_host="c"),
        ],
        EACH,
        {"pause"},
    ),
    (
        "the whole run, over both",
        [
            by("ab"[n % 2], n, f"19{n}.7.91.13", mx_host=f"mx{n}", provider=f"{n}.example", ended_at=until(60))
            for n in range(1, 5)
        ],
        {**EACH, "concurrency": 3},
        {"run_at_once"},
    ),
    ("three visits from each", [*visits("a", 3), *visits("b", 3, 30)], EACH, set()),
    ("four from one of them", [*visits("a", 4), *visits("b", 1, 60)], EACH, {"retries"}),
    ("four from two, of which one was to do it", [*visits("a", 2), *visits("b", 2, 30)], {}, {"retries"}),
    ("one more where a worker died", visits("a", 4), {**EACH, "worker_deaths": [DEATH]}, set()),
    ("two more where one died", visits("a", 5), {**EACH, "worker_deaths": [DEATH]}, {"retries"}),
    ("a death before the first contact", [by("a", n) for n in (10, 20, 30, 40)], {"worker_deaths": [DEATH]}, {"retries"}),
    (
        "a worker that took over knows of the last rest, not of those before it",
        [
            by("a", 0, outcome="rate_limited"),
            by("a", 61, "199.7.91.13", mx_host="b", outcome="rate_limited"),
            by("a", 125, "199.7.91.14", mx_host="c"),
        ],
        {"worker_deaths": [LATE_DEATH]},
        set(),
    ),
    (
        "a worker that took over keeps to the last rest",
        [by("a", 0, outcome="rate_limited"), by("a", 30, "199.7.91.13", mx_host="b")],
        {"worker_deaths": [DEATH]},
        {"pause"},
    ),
    ("a worker that took over keeps the spacing", [by("a", 4), by("a", 5.5)], {"worker_deaths": [DEATH]}, {"address_spacing"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "manifest", "rules"), [pytest.param(r, m, b, id=why) for why, r, m, b in OF_ALL]
)
def test_breaches_of_several(rows: list[dict[str, Any]], manifest: dict[str, Any], rules: set[str]) -> None:
    """The limits hold over workers and vantages together: what one did the others are held to."""
    manners = {"manners": FREE} if "retries" in rules else {}
    found = audit(snapshot(rows, **manifest, **manners))
    assert set(found["rule"]) == rules


def test_each_vantage_has_its_own_record() -> None:
    """A server that was visited from two places has two sessions, each with its visits; from one, one."""
    rows = [*visits("a", 2), *visits("b", 1, 30)]
    server = {"mx_host": "mx.example.org", "address": "198.41.0.4"}
    sessions = [{**server, "vantage": "a", "attempts": 2}, {**server, "vantage": "b", "attempts": 1}]
    assert audit(snapshot(rows, sessions, **EACH)).empty
    sessions[1]["attempts"] = 2
    (breach,) = audit(snapshot(rows, sessions, **EACH)).itertuples()
    assert (breach.rule, breach.who) == ("attempts_recorded", "mx.example.org at 198.41.0.4 from b")
    (breach,) = audit(snapshot(rows, [{**server, "vantage": "a", "attempts": 2}])).itertuples()
    assert (breach.rule, breach.detail) == (
        "attempts_recorded",
        "3 connections on record, the session says 2",
    )


def test_connections_that_are_not_on_record() -> None:
    """A session that says two visits needs two connections on record."""
    said = {"mx_host": "mx.example.org", "address": "198.41.0.4", "attempts": 2}
    assert list(audit(snapshot([attempt(0)], [said]))["rule"]) == ["attempts_recorded"]
    assert not len(audit(snapshot([attempt(0), attempt(100)], [said])))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), min_size=1, max_size=40),
    st.floats(0.05, 4.0),
    st.integers(1, 8),
)
def test_what_the_scheduler_lets_go_holds(
    places: list[tuple[int, int, bool]], duration: float, at_once: int
) -> None:
    """The audit, which knows nothing of the scheduler, finds no breach in what it did, also where some push back."""
    scheduler = Scheduler(Manners())
    grumpy = {f"mx{number}" for number, (_place, _provider, pushes_back) in enumerate(places) if pushes_back}
    for number, (place, provider, _pushes_back) in enumerate(places):
        scheduler.add(Job(f"198.{place % 2}.0.{place + 1}", f"{provider}.org", f"mx{number}"))
    now, running, rows = 0.0, [], []
    while True:
        job = scheduler.take(now) if len(running) < at_once else float("inf")
        if isinstance(job, Job):
            row = attempt(now, job.address, mx_host=job.payload, provider=job.provider)
            outcome = "rate_limited" if job.payload in grumpy else "completed"
            ended_at = START + dt.timedelta(seconds=now + duration)
            rows.append({**row, "ended_at": ended_at, "outcome": outcome})
            running.append((now + duration, job))
            continue
        if job is None and not running:
            break
        wait = now + job if isinstance(job, float) else float("inf")
        now = min([wait, *(end for end, _job in running)])
        for ended in [item for item in running if item[0] <= now]:
            running.remove(ended)
            scheduler.done(ended[1], now, pushed_back=ended[1].payload in grumpy)
    left_alone = {job.payload for job in scheduler.given_up}
    visited = {row["mx_host"] for row in rows}
    assert visited | left_alone == {f"mx{number}" for number in range(len(places))}
    assert len(rows) >= len(visited)
    assert not len(audit(snapshot(rows, concurrency=at_once)))
