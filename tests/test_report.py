"""The page: everything escaped, nothing fetched, every table and picture usable without seeing it, every rate counted."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rtls_analysis.analysis.rates import rates
from rtls_analysis.analysis.what_if import what_if
from rtls_analysis.read.logs import read_connections, read_logs
from rtls_analysis.report import write_report
from rtls_analysis.samples import load_sample
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, HOPS, TLS_REPORTS, WHAT_IF, to_frame
from rtls_analysis.store import Snapshot

VOID = {"meta", "img", "br", "link"}
EVIL = '$\\frac{$<script>alert(1)</script>"><img src=x onerror=alert(2)> \x00\x1b[2J\u202e ' + "x" * 100_000
LOG = b"""\
Nov 23 16:32:10 mx1 postfix/smtp[411]: CF51F2585C1: to=<a@one.test>, relay=mx.one.test[192.0.2.1]:25, delay=0.9, delays=0/0/0.5/0.4, tls=dane/requiretls, dsn=2.0.0, status=sent (250 2.0.0 Ok)
Nov 23 16:33:10 mx1 postfix/smtp[412]: CF51F2585C2: to=<b@two.test>, relay=mx.two.test[192.0.2.2]:25, delay=1.2, delays=0/0/0.5/0.7, tls=!dane/!requiretls:nostarttls, dsn=5.7.30, status=bounced (Sender requested REQUIRETLS, but TLS service was not offered by host mx.two.test[192.0.2.2])
Nov 24 16:33:10 mx1 postfix/smtp[413]: CF51F2585C3: to=<c@two.test>, relay=none, delay=30, delays=0/0/30/0, dsn=4.4.1, status=deferred (connect to mx.two.test[192.0.2.2]:25: Connection timed out)
"""


class Reader(HTMLParser):
    """Reads a page as a browser would see it, and holds it to what this project's pages promise."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(path: Path) -> Reader:
    """Parse a page, and check what holds for every one of them."""
    reader = Reader(path.read_text(encoding="utf-8"))
    assert reader.open == []
    names = [attributes["id"] for _tag, attributes in reader.tags if "id" in attributes]
    assert len(names) == len(set(names))
    for tag, attributes in reader.tags:
        assert tag not in ("script", "iframe", "object", "link", "form")
        assert not [name for name in attributes if name.startswith("on")]
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in names
        if tag == "a":
            assert (attributes["href"] or "")[:1] == "#"
            assert (attributes["href"] or "")[1:] in names
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/svg+xml;base64,")
            assert len(attributes["alt"] or "") > 40
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert len(reader.all("h1")) == 1
    policy = next(
        a["content"] or "" for a in reader.all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    assert not re.search(
        r"(?:src|href|url)\s*[=(]\s*[\"']?\s*(?:https?:)?//", path.read_text(encoding="utf-8")
    )
    return reader


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """A small scan."""
    series: dict[str, Snapshot] = load_sample("lab-series")
    return series["2026-11-02"]


@pytest.fixture(scope="module")
def deliveries() -> pd.DataFrame:
    """A small log."""
    return read_logs(io.BytesIO(LOG), timezone="UTC", year=2026, progress=False)


def test_a_scan_alone(tmp_path: Path, snapshot: Snapshot) -> None:
    """The page of a scan has its rates with numerator, denominator and interval, and names every domain."""
    write_report(tmp_path / "page.html", snapshot=snapshot)
    page = read_page(tmp_path / "page.html")
    row = rates(snapshot.domains, of="requiretls_ready").iloc[0]
    assert f"{row['numerator']} / {row['denominator']} {row['rate']:.1%}" in page.text
    assert f"{row['low']:.1%}".removesuffix("%") + f"-{row['high']:.1%}" in page.text
    assert all(domain in page.text for domain in snapshot.domains["domain"])
    assert page.all("img")


def test_mail_of_every_kind(tmp_path: Path, snapshot: Snapshot, deliveries: pd.DataFrame) -> None:
    """Logs, connections, what-if and Received fields have their sections, and tell what was read."""
    connections = read_connections(io.BytesIO(LOG), timezone="UTC", year=2026, progress=False)
    path = tmp_path / "page.html"
    write_report(
        path,
        snapshot=snapshot,
        deliveries=deliveries,
        connections=connections,
        hops=load_sample("received-2019"),
    )
    page = read_page(path)
    assert "Logs of 2026-11-23 to 2026-11-24: 3 delivery attempts. Of 2 messages" in page.text
    assert "the next server does not offer STARTTLS 1 / 2" in page.text
    assert "What if all this mail had asked for REQUIRETLS" in page.text
    assert "Not scanned: 2 domains with 3 messages (two.test, one.test)" in page.text
    assert "anonymous cipher" in page.text
    assert "deliveries 3 lines" in page.text


def test_what_if_for_another_rule(tmp_path: Path, snapshot: Snapshot, deliveries: pd.DataFrame) -> None:
    """A table of what-if that the caller brings is the one that is shown."""
    write_report(tmp_path / "page.html", what_if=what_if(deliveries, snapshot, "tls"))
    page = read_page(tmp_path / "page.html")
    assert "What if all this mail had asked for any TLS?" in page.text
    assert "What became of mail" not in page.text


EMPTY = {
    "deliveries": DELIVERIES,
    "connections": CONNECTIONS,
    "bounces": BOUNCES,
    "tls_reports": TLS_REPORTS,
    "hops": HOPS,
    "what_if": WHAT_IF,
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_tables(tmp_path: Path, name: str) -> None:
    """A table without a row has a section that says so."""
    write_report(tmp_path / "page.html", **{name: to_frame(EMPTY[name], ())})  # type: ignore[arg-type]
    assert len(read_page(tmp_path / "page.html").text) > 50


def test_nothing_to_report_on(tmp_path: Path) -> None:
    """Who gives nothing is told what could be given, and no file is written."""
    with pytest.raises(ValueError, match="snapshot=, what_if=, deliveries="):
        write_report(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_hostile_text_is_text(tmp_path: Path) -> None:
    """Markup, control characters, characters that turn the line around, and endless text stay harmless text."""
    at = pd.Timestamp("2026-11-23T16:00Z").to_pydatetime()
    rows: dict[str, list[dict[str, Any]]] = {
        "deliveries": [
            {
                "logged_at": at,
                "mta": "postfix",
                "reporting_host": EVIL,
                "queue_id": "1",
                "recipient": EVIL,
                "recipient_domain": EVIL,
                "sender_domain": EVIL,
                "relay_host": EVIL,
                "attempted": True,
                "action": "failed",
                "reply_text": EVIL,
                "requiretls": "no_starttls",
                "tls_level": "none",
                "tls_outcome": "starttls_not_supported",
            }
        ],
        "bounces": [
            {
                "final_recipient": EVIL,
                "recipient_domain": EVIL,
                "diagnostic": EVIL,
                "action": "failed",
                "tls_outcome": "unknown",
                "source_file": EVIL,
            }
        ],
        "tls_reports": [
            {
                "policy_index": 0,
                "organization": EVIL,
                "policy_domain": EVIL,
                "sessions_ok": 3,
                "sessions_failed": 1,
                "source_file": EVIL,
            }
        ],
        "hops": [{"hop": 1, "by_host": EVIL, "message_id": EVIL, "detail": EVIL, "could_be_requiretls": "no", "source_file": "a"}],
    }  # fmt: skip
    frames = {name: to_frame(EMPTY[name], found) for name, found in rows.items()}
    frames["deliveries"].attrs["coverage"] = {
        "lines_read": 1,
        "lines_matched": 1,
        "skipped": {EVIL: {"count": 1, "samples": [EVIL]}},
        "unreadable_files": {EVIL: EVIL},
    }
    path = tmp_path / "page.html"
    write_report(path, title=EVIL, **frames)  # type: ignore[arg-type]
    page = read_page(path)
    assert "<script>alert(1)</script>" in page.text
    whole = path.read_text(encoding="utf-8")
    assert not [sign for sign in "\x00\x1b\u202e" if sign in whole]
    assert len(whole) < 200_000


def test_an_unfinished_scan_says_so(tmp_path: Path, snapshot: Snapshot) -> None:
    """What makes a scan worth less is said at the top of it."""
    manifest = snapshot.manifest | {"state": "interrupted", "resolver": {"warning": "nobody <believes> it"}}
    frames = {
        name: snapshot.table(name)
        for name in ("domains", "mx", "hosts", "sessions", "certificates", "attempts")
    }
    write_report(tmp_path / "page.html", snapshot=Snapshot(None, manifest, snapshot.roots_pem, frames))
    page = read_page(tmp_path / "page.html")
    assert "The scan is not complete: interrupted." in page.text
    assert "nobody <believes> it" in page.text


def test_the_same_input_gives_the_same_page(tmp_path: Path, snapshot: Snapshot) -> None:
    """Two pages of one scan differ in the time of making at most."""
    pages = []
    for name in ("one.html", "two.html"):
        write_report(tmp_path / name, snapshot=snapshot)
        pages.append(re.sub(r"on [\d :-]+ UTC", "", (tmp_path / name).read_text(encoding="utf-8")))
    assert pages[0] == pages[1]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_browser_has_nothing_to_complain_about(
    tmp_path: Path, snapshot: Snapshot, deliveries: pd.DataFrame
) -> None:
    """Chromium shows the page without an error on its console, and asks for nothing but the page."""
    path = tmp_path / "page.html"
    write_report(path, snapshot=snapshot, deliveries=deliveries)
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    quiet += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    command = ["chromium", *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "</html>" in done.stdout
    assert "CONSOLE" not in done.stderr
