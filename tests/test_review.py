"""What a stranger stumbled over: each test is the sentence that was not yet true."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis import cli
from rtls_analysis.cli import main
from rtls_analysis.lab import Lab
from rtls_analysis.scanner.contacts import Contacts
from rtls_analysis.scanner.options import make_options
from rtls_analysis.scanner.politeness import Job
from rtls_analysis.schema import SNAPSHOT_TABLES
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.store import Snapshot


@pytest.fixture
def words(lab: Lab) -> list[str]:
    """The arguments with which `rtls scan` scans the lab."""
    plain = {name: value for name, value in lab.scan_options.items() if isinstance(value, (str, int))}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in plain.items()]
    return [*given, f"--ca-file={lab.scan_options['ca_file']}", "--allow-special=127.0.0.0/8", "--quiet"]


def test_pages_come_in_the_order_of_the_domains(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Not in the order in which their scans ended; one that is named twice comes once."""
    asked = ["valid.test", "null-mx.test", "nxdomain.test", "Valid.test", "bad name"]
    assert main(["scan", *asked, *words]) == cli.UNREADABLE
    out = capsys.readouterr().out
    titles = [before.split(",")[0] for before, line in zip(out.splitlines(), out.splitlines()[1:], strict=False) if line[:3] == "==="]  # fmt: skip
    assert titles == ["valid.test", "null-mx.test", "nxdomain.test", "bad name"]


NO_MAIL = [
    ("nxdomain.test", "there is no such domain"),
    ("null-mx.test", "by its null MX the domain takes no mail"),
    ("no-mail.test", "neither an MX record nor an address"),
    ("bad name", "this is not a domain name"),
]


@pytest.mark.parametrize(("domain", "why"), NO_MAIL)
def test_the_headline_says_why_no_mail_is_taken(lab: Lab, domain: str, why: str) -> None:
    """A domain that does not exist is no domain that takes no mail."""
    snapshot = rtls.scan([domain], progress=False, **lab.scan_options)
    assert why in rtls.DomainPage(snapshot, domain).headline


def test_many_breaches_are_counted_not_listed(
    tiny: Snapshot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An audit of a million connections does not print a million lines."""
    at = pd.Timestamp("2026-11-25", tz="UTC")
    many = pd.DataFrame({"rule": ["pause"] * 70, "who": "x.example", "started_at": at, "detail": "why"})
    monkeypatch.setattr(rtls, "audit", lambda snapshot: many)
    assert main(["audit", str(tiny.path)]) == cli.UNREADABLE
    told = capsys.readouterr()
    assert told.out.count("x.example") == 50
    assert "... and 20 more" in told.out
    assert "70 breaches in" in told.err


def test_rows_are_counted_without_reading_them(tiny: Snapshot) -> None:
    """To say how large a snapshot is takes none of its tables into memory."""
    opened = rtls.open_snapshot(str(tiny.path))
    counts = {table.name: opened.count(table.name) for table in SNAPSHOT_TABLES}
    assert repr(opened).endswith(f"{counts['domains']} domains, {counts['sessions']} sessions>")
    assert not opened._frames
    assert counts == {table.name: len(opened.table(table.name)) for table in SNAPSHOT_TABLES}
    in_memory = rtls.judge(opened)
    assert counts == {table.name: in_memory.count(table.name) for table in SNAPSHOT_TABLES}


def test_a_snapshot_of_another_format_is_one_clear_error(tiny: Snapshot) -> None:
    """Words of a later version would come out as missing ones."""
    path = Path(str(tiny.path), "manifest.json")
    manifest: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(rtls.StoreProblem, match="a snapshot of format 2, this version reads 1"):
        rtls.open_snapshot(str(tiny.path))


@pytest.mark.parametrize(("outcome", "wait"), [("completed", 2.0), ("blocked", 60.0)])
def test_a_clock_that_was_set_back_holds_nobody_up(outcome: str, wait: float) -> None:
    """Connections of an earlier run that lie in the future count as of now, not until their time has come again."""
    options = make_options({"ehlo_name": "probe.example.org", "contact": "me@example.org"})
    contacts = Contacts(options, Roots.builtin(), lambda _table, _row: None)
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    row = {"provider": "example.org", "address": "198.41.0.4", "outcome": outcome}
    contacts.remember([{**row, "started_at": tomorrow, "ended_at": tomorrow}])
    contacts._scheduler.add(Job("198.41.0.4", "example.org", None))
    due = contacts._scheduler.take(time.monotonic())
    assert isinstance(due, float)
    assert wait - 1 < due < wait + 1
