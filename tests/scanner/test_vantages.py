"""From where a scan is made: names, own addresses, and what a machine says of itself to somebody else's scan."""

from __future__ import annotations

import asyncio
import pickle
import socket
from typing import Any

import pytest

import rtls_analysis as rtls
from rtls_analysis.lab import Lab
from rtls_analysis.scanner import policy_fetch, smtp_client
from rtls_analysis.scanner.addresses import families, sources
from rtls_analysis.scanner.manifest import scan_identity
from rtls_analysis.scanner.options import SAYS, Options, ScanProblem, make_options
from rtls_analysis.scanner.vantages import Vantage, describe_vantage
from rtls_analysis.standards.certificates import Roots

OPTIONS = Options("caller.example.org", "caller@example.org", source=("127.0.0.9",))


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in SAYS.values():
        monkeypatch.delenv(variable, raising=False)


def test_a_machine_that_says_nothing_is_what_the_caller_says() -> None:
    """Without words of its own a worker stands where the caller said, under the caller's name."""
    place = describe_vantage(OPTIONS)
    assert (place.name, place.ehlo_name, place.contact) == (
        "caller.example.org",
        "caller.example.org",
        "caller@example.org",
    )
    assert place.source == ("127.0.0.9",)
    assert place.version == rtls.__version__
    assert pickle.loads(pickle.dumps(place)) == place


def test_a_machines_own_words_go_before_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker introduces itself; a vantage without a name has that of its EHLO."""
    monkeypatch.setenv("RTLS_EHLO_NAME", "worker.example.net")
    monkeypatch.setenv("RTLS_CONTACT", "worker@example.net")
    monkeypatch.setenv("RTLS_SOURCE", "127.0.0.7")
    place = describe_vantage(OPTIONS)
    assert (place.name, place.ehlo_name, place.contact, place.source) == (
        "worker.example.net",
        "worker.example.net",
        "worker@example.net",
        ("127.0.0.7",),
    )
    monkeypatch.setenv("RTLS_VANTAGE", "ams")
    assert describe_vantage(OPTIONS).name == "ams"
    assert place.as_dict()["source"] == ["127.0.0.7"]  # as JSON gives it back


WRONG = [
    ("an address of another machine", "RTLS_SOURCE", "192.0.2.77", "RTLS_SOURCE: cannot connect from"),
    ("a name that is none", "RTLS_VANTAGE", "a b", "RTLS_VANTAGE: not a name of a vantage"),
    ("all places at once", "RTLS_VANTAGE", "each", "no name of a place"),
    ("no EHLO name", "RTLS_EHLO_NAME", "laptop", "RTLS_EHLO_NAME: .*has no dot"),
    ("no contact", "RTLS_CONTACT", "me", "RTLS_CONTACT: not a contact"),
]


@pytest.mark.parametrize(
    ("variable", "value", "message"), [pytest.param(v, x, m, id=why) for why, v, x, m in WRONG]
)
def test_what_a_machine_says_wrongly_is_one_clear_error(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the variable, for it is another machine's."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ScanProblem, match=message):
        describe_vantage(OPTIONS)


def test_the_callers_source_must_be_the_workers_too() -> None:
    """An address that the caller gave is checked where it is used."""
    with pytest.raises(ScanProblem, match="cannot connect from"):
        describe_vantage(Options("a.example.org", "a@example.org", source=("192.0.2.77",)))


def test_a_family_without_a_source_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may connect from an IPv4 address alone reaches no IPv6 address, whatever routes there are."""
    bound: list[tuple[str, int]] = []

    class Socket(socket.socket):
        def connect(self, where: object) -> None:
            pass

        def bind(self, where: tuple[str, int]) -> None:  # type: ignore[override]
            bound.append(where)

        def getsockname(self) -> tuple[str, int]:
            return (bound[-1][0] if bound else "10.0.0.5", 12345)

    monkeypatch.setattr(socket, "socket", Socket)
    assert families(("10.0.0.9",)) == (True, False)
    assert sources(("10.0.0.9",)) == ("10.0.0.9",)
    assert bound == [("10.0.0.9", 0)] * 2


def test_which_vantages_there_are_makes_a_scan_from_each_of_them() -> None:
    """From where counts only where every target is contacted from each place: else it may change between runs."""
    who = {"ehlo_name": "a.example.org", "contact": "a@example.org"}
    roots = Roots.builtin()
    one, each = make_options(who), make_options({**who, "vantage": "each"})
    here, there = (Vantage(name, f"{name}.example.org", "a@example.org") for name in "ab")
    assert "vantages" not in scan_identity((), one, roots, [here])
    assert scan_identity((), each, roots, [there, here, here])["vantages"] == ["a", "b"]
    assert scan_identity((), each, roots)["vantages"] == ["a.example.org"]


def test_a_scan_connects_from_its_source_and_names_its_vantage(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mail servers and policy hosts alike see the address that was given; every row has the place it was seen from."""
    seen: dict[str, set[str | None]] = {"smtp_client": set(), "policy_fetch": set()}

    def watch(module: Any) -> None:
        connect = module.open_connection

        async def open_connection(protocol: Any, address: str, port: int, **how: Any) -> None:
            if ":" not in address:
                seen[module.__name__.rpartition(".")[2]].add(how["source"])
            await connect(protocol, address, port, **how)

        monkeypatch.setattr(module, "open_connection", open_connection)

    watch(smtp_client)
    watch(policy_fetch)
    names = ["dual-stack.test", "sts-enforce.test", "requiretls-everywhere.test", *lab.domains[:12]]
    given = {**lab.scan_options, "progress": False, "workers": 1}
    domains = [name for name in dict.fromkeys(names) if name in lab.domains]
    snapshot = asyncio.run(rtls.scan_async(domains, vantage="here", source=["127.0.0.9"], **given))
    assert seen == {"smtp_client": {"127.0.0.9"}, "policy_fetch": {"127.0.0.9"}}
    place = snapshot.manifest["vantage"]
    assert (place["name"], place["source"]) == ("here", ["127.0.0.9"])
    assert [each["name"] for each in snapshot.manifest["vantages"]] == ["here"]
    assert snapshot.manifest["vantages"][0]["resolver"]["trusted"] is True
    for name in ("domains", "mx", "hosts", "sessions", "attempts"):
        table = snapshot.table(name)
        assert len(table), name
        assert set(table["vantage"]) == {"here"}, name
