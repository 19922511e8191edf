"""How we introduce ourselves, as the people on the other side see it in the DNS."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rtls_analysis as rtls
from rtls_analysis.cli import main
from rtls_analysis.lab import Lab
from rtls_analysis.outcomes import DnsSecurity, DnsStatus
from rtls_analysis.scanner import engine, introduction
from rtls_analysis.scanner.introduction import check_introduction
from rtls_analysis.scanner.options import make_options
from rtls_analysis.standards.dns_answer import DnsAnswer

NAME, OURS, OURS6, OTHER = "probe.example.org", "198.41.0.4", "2001:503:ba3e::2:30", "199.7.91.13"
A, AAAA = f"{NAME} A", f"{NAME} AAAA"
REVERSE, REVERSE_OTHER = "4.0.41.198.in-addr.arpa PTR", "13.91.7.199.in-addr.arpa PTR"
REVERSE6 = "0.3.0.0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.3.a.b.3.0.5.0.1.0.0.2.ip6.arpa PTR"


class Answers:
    """A resolver that knows these answers: a record, or a status; everything else has none."""

    def __init__(self, held: dict[str, Any]) -> None:
        self.held = held

    async def ask(self, name: str, rdtype: str) -> DnsAnswer:
        held = self.held.get(f"{name} {rdtype}", DnsStatus.NODATA)
        if isinstance(held, DnsStatus):
            return DnsAnswer(name, rdtype, held, DnsSecurity.INSECURE)
        return DnsAnswer(name, rdtype, DnsStatus.NOERROR, DnsSecurity.INSECURE, (held,))


INTRODUCTIONS: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...], list[str]]] = [
    ("name and address agree", {A: OURS, REVERSE: f"{NAME}."}, {}, (OURS,), []),
    ("in either case", {A: OURS, REVERSE: "PROBE.Example.org."}, {}, (OURS,), []),
    (
        "in both families",
        {A: OURS, AAAA: OURS6, REVERSE: f"{NAME}.", REVERSE6: f"{NAME}."},
        {},
        (OURS, OURS6),
        [],
    ),
    (
        "not in the other family",
        {A: OURS, REVERSE: f"{NAME}."},
        {},
        (OURS, OURS6),
        [f"not for this machine's address {OURS6}", f"{OURS6} has no reverse name"],
    ),
    ("a name that is not there", {}, {}, (OURS,), [f"the EHLO name {NAME} has no address"]),
    ("a lookup that fails", {A: DnsStatus.SERVFAIL}, {}, (OURS,), ["could not be looked up: servfail"]),
    (
        "a name for another machine",
        {A: OTHER, REVERSE: "host4.isp.example."},
        {},
        (OURS,),
        [f"stands for {OTHER}, not for this machine's address {OURS}", f"the reverse name of {OURS} is host4.isp.example"],
    ),
    ("no reverse name", {A: OURS}, {}, (OURS,), [f"{OURS} has no reverse name"]),
    ("behind a translator", {A: OTHER, REVERSE_OTHER: f"{NAME}."}, {}, ("192.168.1.7",), []),
    ("behind one, without a reverse name", {A: OTHER}, {}, ("192.168.1.7",), [f"{OTHER} has no reverse name"]),
    (
        "through a proxy our own address does not count",
        {A: OTHER, REVERSE_OTHER: f"{NAME}."},
        {"proxy": "socks5://127.0.0.1:1080"},
        (OURS,),
        [],
    ),
    ("a literal that is ours", {REVERSE: "any.example."}, {"ehlo_name": f"[{OURS}]"}, (OURS,), []),
    (
        "a literal of six",
        {REVERSE6: "any.example."},
        {"ehlo_name": f"[IPv6:{OURS6}]"},
        (OURS6,),
        [],
    ),
    (
        "a literal that is not ours",
        {REVERSE_OTHER: "any.example."},
        {"ehlo_name": f"[{OTHER}]"},
        (OURS,),
        [f"stands for {OTHER}, not for this machine's address {OURS}"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("held", "given", "ours", "parts"), [pytest.param(*case[1:], id=case[0]) for case in INTRODUCTIONS]
)
def test_introductions(
    monkeypatch: pytest.MonkeyPatch,
    held: dict[str, Any],
    given: dict[str, Any],
    ours: tuple[str, ...],
    parts: list[str],
) -> None:
    """Each way in which name and address disagree gets one line that names both."""
    monkeypatch.setattr(introduction, "sources", lambda *given: ours)
    options = make_options({"ehlo_name": NAME, "contact": "me@example.org", **given})
    resolver: Any = Answers(held)
    warnings = asyncio.run(check_introduction(options, resolver))
    assert len(warnings) == len(parts)
    assert all(part in warning for part, warning in zip(parts, warnings, strict=True))


@pytest.fixture
def disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose name and address do not agree."""

    async def check(*_arguments: object) -> list[str]:
        return ["the EHLO name has no address"]

    monkeypatch.setattr(engine, "check_introduction", check)


@pytest.mark.usefixtures("disagree")
def test_strangers_are_not_greeted_without_a_warning(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The warning stands in the manifest and on standard error; towards one's own servers there is none."""
    given = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in lab.scan_options.items()
        if isinstance(value, (int, str))
    ]
    words = ["scan", "valid.test", "--plan", "--quiet", f"--ca-file={lab.scan_options['ca_file']}", *given]
    assert main([*words, "--allow-special=127.0.0.0/8"]) == 0
    assert capsys.readouterr().err == ""

    monkeypatch.setattr("rtls_analysis.scanner.lookups.special_reason", lambda address: "")
    monkeypatch.setattr("rtls_analysis.scanner.plan.special_reason", lambda address: "")
    monkeypatch.setattr(
        "rtls_analysis.scanner.engine.families", lambda *given: (True, True)
    )  # be there a network or not
    assert main(words) == 0
    assert capsys.readouterr().err == "rtls: the EHLO name has no address\n"
    options = {**lab.scan_options, "progress": False, "allow_special": ()}
    planned = rtls.scan(["valid.test"], plan_only=True, **options)
    assert planned.manifest["vantage"]["warnings"] == ["the EHLO name has no address"]
