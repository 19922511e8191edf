from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtls_analysis.scanner import addresses
from rtls_analysis.scanner.addresses import AllowedNetworks, families, own_addresses, special_reason

SPECIAL = [
    ("0.0.0.0", "unspecified"),
    ("0.1.2.3", "this network"),
    ("10.255.255.255", "private"),
    ("100.64.0.0", "shared by carriers (CGNAT)"),
    ("100.127.255.255", "shared by carriers (CGNAT)"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("169.254.169.254", "link-local"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.8", "protocol assignment"),
    ("192.0.2.200", "documentation"),
    ("192.88.99.1", "6to4 relay"),
    ("192.168.1.1", "private"),
    ("198.19.255.255", "benchmarking"),
    ("198.51.100.1", "documentation"),
    ("203.0.113.1", "documentation"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.255", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("0:0:0:0:0:0:0:1", "loopback"),
    ("::ffff:127.0.0.1", "IPv4-mapped (127.0.0.1: loopback)"),
    ("::FFFF:7F00:1", "IPv4-mapped (127.0.0.1: loopback)"),
    ("::ffff:9.9.9.9", "IPv4-mapped (9.9.9.9)"),
    ("::10.0.0.1", "IPv4-compatible (10.0.0.1: private)"),
    ("::ffff:0:192.168.0.1", "IPv4-translated (192.168.0.1: private)"),
    ("64:ff9b::127.0.0.1", "NAT64 (127.0.0.1: loopback)"),
    ("64:ff9b::9.9.9.9", "NAT64 (9.9.9.9)"),
    ("64:ff9b:1:a00:0:100::", "NAT64 (10.0.0.1: private)"),
    ("100::1", "discard-only"),
    ("2001:0:1::f5ff:fffe", "Teredo (10.0.0.1: private)"),
    ("2001:2::1", "benchmarking"),
    ("2001:10::1", "ORCHID"),
    ("2001:2f:ffff::1", "ORCHID"),
    ("2001:100::1", "protocol assignment"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::1", "6to4 (127.0.0.1: loopback)"),
    ("2002:909:909::1", "6to4 (9.9.9.9)"),
    ("2a00:1:2:3:0:5efe:10.0.0.1", "ISATAP (10.0.0.1: private)"),
    ("2a00:1:2:3:200:5efe:127.0.0.1", "ISATAP (127.0.0.1: loopback)"),
    ("3fff::1", "documentation"),
    ("3ffe::1", "reserved"),
    ("4000::1", "reserved"),
    ("5f00::1", "segment routing"),
    ("8000::1", "reserved"),
    ("fc00::1", "unique local"),
    ("fdff::1", "unique local"),
    ("fe80::1", "link-local"),
    ("febf::1", "link-local"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
    ("fe80::1%eth0", "an address with a zone"),
    ("2a00::1%1", "an address with a zone"),
    ("", "not an address"),
    ("mx.example.org", "not an address"),
    ("127.1", "not an address"),
    ("010.0.0.1", "not an address"),
    ("0x7f.0.0.1", "not an address"),
    ("2130706433", "not an address"),
    ("[::1]", "not an address"),
    ("9.9.9.9 ", "not an address"),
    ("９.9.9.9", "not an address"),
    ("9.9.9.9\0", "not an address"),
]

ORDINARY = [
    "1.1.1.1",
    "9.9.9.9",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2620:fe::fe",
    "2a00:1:2:3:0:5efe:9.9.9.9",
    "3ffd::1",
]


@pytest.mark.parametrize(("address", "reason"), SPECIAL)
def test_special_addresses_are_refused_with_the_reason(address: str, reason: str) -> None:
    """No special address passes, in no disguise, and no text that is not an address."""
    assert special_reason(address) == reason


@pytest.mark.parametrize("address", ORDINARY)
def test_ordinary_addresses_pass(address: str) -> None:
    """The neighbours of every special block are ordinary."""
    assert special_reason(address) == ""


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_nothing_passes_that_python_does_not_call_global(address: ipaddress.IPv4Address) -> None:
    """The standard library's reading of the registries refuses nothing that passes here."""
    if special_reason(str(address)) == "":
        assert address.is_global
        assert not address.is_multicast


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    """Text from a hostile zone never raises."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        assert special_reason(text)
        assert not AllowedNetworks(["0.0.0.0/0", "::/0"]).allows(text)


FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 11.22.33.0/24 2 0 2
        |-- 11.22.33.0
           /24 link UNICAST
        |-- 11.22.33.44
           /32 host LOCAL
        |-- 11.22.33.255
           /32 link BROADCAST
     |-- 12.0.0.0
        /24 host LOCAL
     |-- nonsense
        /32 host LOCAL
"""
IPV6_ROUTE = """\
2a000000000000000000000000000000 40 0 00 0 00000100 00000001 00000000 00000001     eth0
2a000000000000000000000000000002 80 0 00 0 00000000 00000003 00000000 80200001     eth0
2a000000000000000000000000000000 80 0 00 0 00000000 00000003 00000000 00300001     eth0
2a000bad
"""


@pytest.fixture
def proc_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(addresses, "_PROC_NET", tmp_path)
    monkeypatch.setattr(addresses, "_held", [])
    monkeypatch.setattr(addresses, "_source", lambda family, peer: None)
    return tmp_path


def test_own_interfaces_and_local_broadcasts_are_special(proc_net: Path) -> None:
    """What the kernel takes for this machine is never contacted, though it be public."""
    (proc_net / "fib_trie").write_text(FIB_TRIE)
    (proc_net / "ipv6_route").write_text(IPV6_ROUTE)
    assert special_reason("11.22.33.44") == "own interface"
    assert special_reason("12.0.0.77") == "own interface"
    assert special_reason("11.22.33.255") == "broadcast of a local network"
    assert special_reason("11.22.33.45") == ""
    assert special_reason("2a00::2") == "own interface"
    assert special_reason("2a00::") == "own interface"  # the subnet-router anycast address
    assert special_reason("2a00::3") == ""
    assert special_reason("::ffff:11.22.33.44") == "IPv4-mapped (11.22.33.44: own interface)"
    assert special_reason("2a00::5efe:11.22.33.44") == "ISATAP (11.22.33.44: own interface)"


def test_own_addresses_are_read_again_on_request(proc_net: Path) -> None:
    """The list is cached, and a change of network is seen when asked for."""
    assert special_reason("11.22.33.44") == ""
    (proc_net / "fib_trie").write_text(FIB_TRIE)
    assert special_reason("11.22.33.44") == ""
    assert ipaddress.ip_address("11.22.33.44") in own_addresses(refresh=True).addresses
    assert special_reason("11.22.33.44") == "own interface"


def test_own_addresses_hold_what_this_machine_answers_at() -> None:
    """The real tables name loopback, and the source of a connection to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 9))
        source = ipaddress.ip_address(probe.getsockname()[0])
    own = own_addresses(refresh=True)
    assert source in own.addresses or any(source in network for network in own.networks)


ALLOWED = [
    ("127.0.0.0/8", "127.9.9.9", True),
    ("127.0.0.0/8", "128.0.0.1", False),
    ("127.0.0.0/8", "::ffff:127.0.0.1", True),
    ("127.0.0.0/8", "::127.0.0.1", False),
    ("127.0.0.1", "127.0.0.1", True),
    ("127.0.0.1/8", "127.0.0.2", True),
    ("127.0.0.0/255.0.0.0", "127.0.0.2", True),
    ("::ffff:127.0.0.0/104", "127.0.0.1", True),
    ("::ffff:127.0.0.0/104", "::ffff:127.0.0.1", True),
    ("::1", "::1", True),
    ("::1", "0:0:0:0:0:0:0:1", True),
    ("::1", "127.0.0.1", False),
    ("fd00::/8", "fd00::1", True),
    ("fe80::/10", "fe80::1%eth0", False),
    (" 10.0.0.0/8 ", "10.1.1.1", True),
    ("10.0.0.0/8", "junk", False),
]


@pytest.mark.parametrize(("entry", "address", "allowed"), ALLOWED)
def test_allowed_networks(entry: str, address: str, allowed: bool) -> None:
    """What the user names is allowed, mapped forms with it, and nothing else."""
    assert AllowedNetworks([entry]).allows(address) is allowed


def test_nothing_is_allowed_by_an_empty_list() -> None:
    assert not AllowedNetworks([]).allows("127.0.0.1")


@pytest.mark.parametrize(
    "entry", ["junk", "", "127.0.0.1/33", "fe80::1%eth0", "localhost", "1.2.3.4-1.2.3.9"]
)
def test_junk_is_no_network(entry: str) -> None:
    """The message says what came and what would do."""
    with pytest.raises(ValueError, match=r"not an address or network: .*; give 192\.0\.2\.1"):
        AllowedNetworks([entry])


def test_families_follow_the_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family without a route is absent; nothing is sent to find out."""
    sent: list[object] = []

    class Socket:
        def __init__(self, family: int, kind: int) -> None:
            self.family = family
            assert kind == socket.SOCK_DGRAM

        def __enter__(self) -> Socket:
            return self

        def __exit__(self, *error: object) -> None: ...

        def connect(self, peer: tuple[str, int]) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(101, "Network is unreachable")
            assert special_reason(peer[0]) == ""

        def getsockname(self) -> tuple[str, int]:
            return ("10.0.0.5", 12345)

        def send(self, *data: object) -> None:
            sent.append(data)

    own_addresses(refresh=True)
    monkeypatch.setattr(socket, "socket", Socket)
    assert families() == (True, False)
    assert not sent
