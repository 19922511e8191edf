"""Pseudonyms: nobody is left in a table, and what belonged together still does."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read.logs import read_connections, read_logs
from rtls_analysis.read.pseudonyms import Pseudonyms, read_pseudonyms

Log = Callable[[str], Path]
KEY = b"sixteen bytes and more"
NAMES = Pseudonyms(KEY)
ALL = Pseudonyms(KEY, domains_too=True)
LOGS = [
    "postfix-3.11.7/pf-opportunistic/maillog",
    "exim-4.100.1/exim-opp/mainlog",
    "sendmail-8.18.2/sendmail-opp/mail.iso.log",
    "opensmtpd-7.9.0p0/opensmtpd-opp/mail.iso.log",
    "haraka-3.3.4/haraka-opp/haraka.log",
]


def everything(frame: pd.DataFrame) -> str:
    """All text of a table and of what is told about it, but for the name of the file."""
    columns = [name for name in frame.columns if name != "source_file" and frame[name].dtype == "str"]
    return "\n".join("\n".join(frame[name].dropna()) for name in columns) + str(
        frame.attrs["coverage"]["skipped"]
    )


@pytest.mark.parametrize("table", ["deliveries", "connections"])
@pytest.mark.parametrize("name", LOGS)
def test_nobody_is_left(
    name: str, table: str, lab_log: Log, truth: Callable[[str], list[dict[str, str]]]
) -> None:
    """No local part of the lab's people stands in any column, and with domains too none of its domains."""
    read = read_connections if table == "connections" else read_logs
    people, domains = set(), set()
    for row in truth(name.split("/")[1]):
        for address in (row["recipient"], row["envelope_from"]):
            local, _at, domain = address.rpartition("@")
            people.add(f"{local}@")
            domains.add(domain)
    plain = read(lab_log(name), timezone="UTC", year=2026)
    hidden = read(lab_log(name), timezone="UTC", year=2026, pseudonymise=NAMES)
    text = everything(hidden)
    assert not [person for person in people if person in text]
    if table == "deliveries":
        assert any(person in everything(plain) for person in people)
    wholly = read(lab_log(name), timezone="UTC", year=2026, pseudonymise=ALL)
    text = everything(wholly)
    assert not [domain for domain in domains if domain in text]
    assert "127.31." not in text
    assert len(plain) == len(hidden) == len(wholly)


def test_tables_still_join(lab_log: Log, tmp_path: Path) -> None:
    """The same address gives the same pseudonym in every column, row and file under the same key, and only there."""
    (tmp_path / "key").write_bytes(KEY + b"\n")
    options = {"timezone": "UTC", "year": 2026}
    senders = ["postfix-3.11.7/pf-opportunistic/maillog", "exim-4.100.1/exim-opp/mainlog"]
    for domains_too in (False, True):
        plain = pd.concat([read_logs(lab_log(name), **options) for name in senders])
        hidden = pd.concat(
            [
                read_logs(lab_log(name), pseudonymise=tmp_path / "key", domains_too=domains_too, **options)
                for name in senders
            ]
        )
        for column in ("recipient", "sender", "recipient_domain", "relay_host", "message_id"):
            pairs = (
                pd.DataFrame({"before": plain[column].str.lower(), "after": hidden[column]})
                .dropna()
                .drop_duplicates()
            )
            assert pairs["before"].is_unique, column
            assert pairs["after"].is_unique, column
        tails = hidden["recipient"].str.rpartition("@")[2]
        assert (tails == hidden["recipient_domain"]).all()
        hosts = set(plain["relay_host"].dropna())
        assert (set(hidden["relay_host"].dropna()) & hosts != set()) or domains_too
    other = read_logs(lab_log(senders[0]), pseudonymise=Pseudonyms(b"another key of many bytes"), **options)
    assert not set(other["recipient"].dropna()) & set(hidden["recipient"].dropna())


@pytest.mark.parametrize(
    ("text", "people", "gone", "kept"),
    [
        ("250 <ann@b.test>: ok, said bob@c.test.", [], ["ann", "bob"], ["b.test", "c.test", "250"]),
        ('550 <"ann lee"@b.test> unknown', [], ["ann lee"], ["b.test"]),
        ("550 5.1.1 No such user ann here", ["ann@b.test"], ["ann"], ["No such user", "here"]),
        ("550 5.1.1 User ANN unknown; annex is not", ["ann@b.test"], ["ANN"], ["annex"]),
        ("452 mailbox ann full", ["ann+news@b.test"], ["ann"], ["mailbox", "full"]),
        ("rcpt to ann+news@b.test", [], ["ann", "news"], ["b.test"]),
        ("550 jürgen@bücher.test", [], ["jürgen"], ["bücher.test"]),
        ("550 ann@[192.0.2.1]", [], ["ann"], ["[192.0.2.1]"]),
        ("see http://x.test/?a=b", ["a@b.test"], [], ["http://x.test/?a=b"]),
        ("550 5.7.1 TLSv1.3 12:30:45", [], [], ["550 5.7.1 TLSv1.3 12:30:45"]),
    ],
)
def test_text(text: str, people: list[str], gone: list[str], kept: list[str]) -> None:
    """Addresses in a text go, and the row's own people where they stand without a domain; the words stay."""
    hidden = NAMES.text(text, people)
    assert not [word for word in gone if word in hidden]
    assert all(word in hidden for word in kept)


def test_text_with_domains() -> None:
    """With domains too, host names and addresses of hosts go; codes, versions and times stay."""
    text = "550 5.7.1 mx1.b.test[192.0.2.1]:25 and mx[2001:db8::1] at 12:30:45: TLSv1.3, ann@b.test 1.2.3"
    hidden = ALL.text(text)
    assert not [word for word in ("b.test", "192.0.2.1", "2001:db8", "ann") if word in hidden]
    assert all(word in hidden for word in ("550 5.7.1 d", ".invalid[a", "]:25", "12:30:45: TLSv1.3", "1.2.3"))
    assert ALL.domain("MX1.b.test.") == ALL.domain("mx1.b.test")
    assert ALL.domain("mx1.b.test") in hidden
    assert ALL.text(hidden) == hidden.replace(
        ALL.address("ann@b.test"), ALL.address(ALL.address("ann@b.test"))
    )


def test_no_address_at_all() -> None:
    """The null sender stays the null sender; a local part without a domain is one."""
    assert NAMES.address("") == ""
    assert "@" not in NAMES.address("root")
    assert NAMES.address("Ann@B.test").startswith(NAMES.address("ann@b.test").partition("@")[0])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=2))
def test_any_text(text: str, people: list[str]) -> None:
    """Any text is taken, as an address, a name and a text."""
    for names in (NAMES, ALL):
        assert isinstance(names.text(text, people), str)
        assert isinstance(names.address(text), str)
        assert isinstance(names.domain(text), str)


def test_hostile_text() -> None:
    """A megabyte that is nearly an address takes time in proportion."""
    for piece in ("a", "a.", '"', "@", "a@", ":", "1.", "a::"):
        assert ALL.text(piece * (200_000 // len(piece)))


def test_keys(tmp_path: Path) -> None:
    """A key that keeps no secret is refused, with what would do."""
    with pytest.raises(ValueError, match="a key of 5 bytes keeps no secret"):
        Pseudonyms(b"short")
    (tmp_path / "key").write_bytes(b"  \n")
    with pytest.raises(ValueError, match="keeps no secret"):
        read_pseudonyms(tmp_path / "key")
    with pytest.raises(FileNotFoundError):
        read_logs(io.BytesIO(b""), pseudonymise=tmp_path / "none")
