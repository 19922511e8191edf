"""What the servers' own logs tell of the sessions that they had: a scan as the other side saw it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.servers.world import EXIM, NODE, OPEN, P11, P37, addresses

_POSTFIX = re.compile(r"postfix/(mx\.\S+|implicit\.\S+)/smtpd\[\d+\]: (.*)")
_POSTFIX_TLS = re.compile(
    r"Anonymous TLS connection established from \S+: (\S+) with cipher (\S+) \(\d+/\d+ bits\)"
    r"(?: key-exchange (?:ECDHE \()?(\w+))?"
)
_EXIM = re.compile(r"^\S+ \S+ (.*)")
_EXIM_CONNECT = re.compile(r"SMTP connection from \[\S+\] I=\[(\S+)\]:25 \(TCP/IP connection count = \d+\)")
_EXIM_SESSION = re.compile(
    r"no MAIL in SMTP connection from .* I=\[(\S+)\]:25 D=\S+(?: X=TLS([\d.]+):ECDHE_([^_]+)\S*)?(?: CV=no)? C=(\S+)"
)
_OPEN_LISTENER = re.compile(r"smtp: (0x\w+): connected to listener \S+ \[hostname=(\S+), port=25")
_OPEN_COMMAND = re.compile(r"smtp: (0x\w+): <<< (\S+)")
_OPEN_CONNECT = re.compile(r"(\w{16}) smtp connected address=(\S+) ")
_OPEN_TLS = re.compile(r"(\w{16}) smtp tls ciphers=([^:]+):([^:]+):\d+")
_OPEN_COMPLAINT = re.compile(r"SSL library error|smtp disconnected reason=(?!quit)")
_NODE = re.compile(r"(\S+) (connect|C: |TLS: )(.*)")

_VERSIONS = {"TLSv1": "TLSv1.0"}
_GROUPS = {
    "SECP256R1": "P-256",
    "SECP384R1": "P-384",
    "prime256v1": "P-256",
    "secp384r1": "P-384",
    "x25519": "X25519",
}


@dataclass(slots=True)
class Seen:
    """A session as the server saw it; `order` of the commands where its log tells more than their number."""

    commands: Counter[str] = field(default_factory=Counter)
    order: list[str] | None = None
    tls_version: str | None = None
    cipher: str | None = None
    key_exchange: str | None = None


@dataclass(slots=True)
class Account:
    """The sessions at each address, and every line that speaks of something else."""

    sessions: dict[str, list[Seen]] = field(default_factory=dict)
    other_lines: list[tuple[str, str]] = field(default_factory=list)  # address, line

    def begin(self, address: str) -> Seen:
        self.sessions.setdefault(address, []).append(seen := Seen())
        return seen


def _postfix(text: str, address_of: Mapping[str, str]) -> Account:
    """Read `postfix.log`: one process at a time serves a host here, and a disconnect sums its commands up."""
    account = Account()
    current: dict[str, Seen] = {}
    for line in text.splitlines():
        found = _POSTFIX.search(line)
        if found is None:
            account.other_lines.append(("", line))
            continue
        host, words = found[1], found[2]
        address = address_of[host]
        if words.startswith("connect from"):
            current[host] = account.begin(address)
        elif tls := _POSTFIX_TLS.match(words):
            seen = current[host]
            seen.tls_version, seen.cipher = _VERSIONS.get(tls[1], tls[1]), tls[2]
            seen.key_exchange = _GROUPS.get(tls[3], tls[3])
        elif words.startswith("disconnect from"):
            for name, number in re.findall(r" (\w+)=(?:\d+/)?(\d+)", words):
                if name != "commands":
                    current[host].commands[name.upper()] = int(number)
        else:
            account.other_lines.append((address, line))
    return account


def _exim(text: str, address_of: Mapping[str, str]) -> Account:
    """Read `mainlog`: a session without MAIL is summed up in one line."""
    account = Account()
    connected: Counter[str] = Counter()
    for line in text.splitlines():
        words = _EXIM.sub(r"\1", line)
        if begun := _EXIM_CONNECT.fullmatch(words):
            connected[begun[1]] += 1
        elif session := _EXIM_SESSION.fullmatch(words):
            seen = account.begin(session[1])
            seen.order = session[4].split(",")
            if session[2]:
                seen.tls_version, seen.key_exchange = f"TLSv{session[2]}", _GROUPS.get(session[3], session[3])
        elif not words.endswith("closed by QUIT"):
            account.other_lines.append(("", line))
    assert connected == {address: len(sessions) for address, sessions in account.sessions.items()}
    return account


def _opensmtpd(text: str, address_of: Mapping[str, str]) -> Account:
    """Read the trace of smtpd, which names a session by a pointer or by an id; a client comes from where it goes to."""
    account = Account()
    by_pointer: dict[str, Seen] = {}
    by_id: dict[str, Seen] = {}
    for line in text.splitlines():
        if begun := _OPEN_LISTENER.match(line):
            seen = by_pointer[begun[1]] = account.begin(address_of[begun[2]])
            seen.order = []
        elif connected := _OPEN_CONNECT.match(line):
            by_id[connected[1]] = account.sessions[connected[2]][-1]
        elif command := _OPEN_COMMAND.match(line):
            order = by_pointer[command[1]].order
            assert order is not None
            order.append(command[2])
        elif tls := _OPEN_TLS.match(line):
            by_id[tls[1]].tls_version, by_id[tls[1]].cipher = tls[2], tls[3]
        elif _OPEN_COMPLAINT.search(line):
            account.other_lines.append(("", line))
    return account


def _node(text: str, address_of: Mapping[str, str]) -> Account:
    """Read what `smtp_server.cjs` logs."""
    account = Account()
    for line in text.splitlines():
        found = _NODE.fullmatch(line)
        if found is None:
            account.other_lines.append(("", line))
            continue
        address, kind, words = found.groups()
        if kind == "connect":
            account.begin(address).order = []
            continue
        seen = account.sessions[address][-1]
        if kind == "TLS: ":
            seen.tls_version, seen.cipher = words.split()
        elif seen.order is not None:
            seen.order.append(words.split()[0])
    return account


_READERS: Mapping[str, Callable[[str, Mapping[str, str]], Account]] = {
    P11: _postfix,
    P37: _postfix,
    EXIM: _exim,
    OPEN: _opensmtpd,
    NODE: _node,
}


def read_log(server: str, text: str) -> Account:
    """Read the log of a server."""
    address_of = {row.host: address for row, address in addresses().items() if row.server == server}
    account = _READERS[server](text, address_of)
    for seen in _all(account):
        if seen.order is not None:
            seen.commands = Counter(seen.order)
    return account


def _all(account: Account) -> Iterator[Seen]:
    for sessions in account.sessions.values():
        yield from sessions
