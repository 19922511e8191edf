"""What the user says of a scan: from arguments, then a TOML file, then `configure`, then the environment."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rtls_analysis.standards.names import NameProblem, is_address, to_ascii
from rtls_analysis.standards.requiretls import Rules


class ScanProblem(ValueError):
    """What the caller asked for cannot be done: one line that says what came and what would do."""


EACH = "each"
"""In place of a vantage's name: every target is contacted from each vantage there is."""

SAYS = {
    "ehlo_name": "RTLS_EHLO_NAME",
    "contact": "RTLS_CONTACT",
    "vantage": "RTLS_VANTAGE",
    "source": "RTLS_SOURCE",
}
"""What a machine's environment may say of who scans, and from where; several source addresses with commas."""

_configured: dict[str, Any] = {}

_WHO = (
    "give your own host name and address: rtls.configure(ehlo_name=..., contact=...), "
    "--ehlo-name and --contact, or RTLS_EHLO_NAME and RTLS_CONTACT"
)


def configure(
    *,
    ehlo_name: str | None = None,
    contact: str | None = None,
    vantage: str | None = None,
    source: str | Sequence[str] | None = None,
) -> None:
    """Say once who scans: the name for EHLO, and where the people on the other side can reach you; and from where.

    There is no default: a scanner that greets with somebody else's name is rude and gets wrong answers.

    Parameters
    ----------
    ehlo_name
        A host name of yours that resolves to the address you scan from, or that address in brackets.
    contact
        A mail address, or a page, at which you can be reached.
    vantage
        Name of the place you scan from, for the tables: letters, digits, ``.``, ``-`` and ``_``; without one, the
        EHLO name.
    source
        Addresses of this machine from which connections are made: one IPv4, one IPv6, or both.
    """
    if ehlo_name is not None:
        _configured["ehlo_name"] = checked_ehlo_name(ehlo_name)
    if contact is not None:
        _configured["contact"] = checked_contact(contact)
    if vantage is not None:
        _configured["vantage"] = checked_vantage(vantage)
    if source is not None:
        _configured["source"] = checked_source(source)


def checked_ehlo_name(text: str) -> str:
    """Give a name for EHLO as it is sent; `ScanProblem` where it is none."""
    name = text.strip()
    if re.fullmatch(r"\[(IPv6:)?[0-9A-Fa-f:.]+\]", name) and is_address(name):
        return name
    try:
        name = to_ascii(name)
    except NameProblem as problem:
        raise ScanProblem(f"not a name for EHLO: {problem}") from None
    if "." not in name:
        raise ScanProblem(
            f"not a name for EHLO: {text!r} has no dot; give a fully qualified host name of yours"
        )
    return name


def checked_contact(text: str) -> str:
    """Give a contact without white space around it; `ScanProblem` where nobody is reached by it."""
    contact = text.strip()
    if not contact.isprintable() or not re.search(r"\S+@\S+|https?://\S+", contact):
        raise ScanProblem(f"not a contact: {text!r}; give a mail address or the address of a page")
    return contact


def checked_vantage(text: str) -> str:
    """Give the name of a vantage; `ScanProblem` where it cannot be one."""
    name = text.strip()
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ScanProblem(
            f"not a name of a vantage: {text!r}; give 1 to 64 letters, digits, dots, hyphens or underscores"
        )
    return name


def checked_source(given: str | Sequence[str]) -> tuple[str, ...]:
    """Give own addresses to connect from in their usual form; a text lists them with commas.

    Raises
    ------
    ScanProblem
        One is no address of this machine, or there are two of a family.
    """
    texts = given.split(",") if isinstance(given, str) else [str(item) for item in given]
    addresses = [_own_address(text.strip()) for text in texts if text.strip()]
    for version, family in ((4, "IPv4"), (6, "IPv6")):
        if len(same := [str(address) for address in addresses if address.version == version]) > 1:
            raise ScanProblem(
                f"{len(same)} {family} addresses to connect from ({', '.join(same)}); give one of each family at most"
            )
    return tuple(str(address) for address in sorted(addresses, key=lambda address: address.version))


def _own_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ScanProblem(
            f"not an address to connect from: {text!r}; give one of this machine's own"
        ) from None
    if address.is_unspecified or address.is_multicast:
        raise ScanProblem(f"not an address to connect from: {text}; give one of this machine's own")
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((text, 0))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ScanProblem(
            f"cannot connect from {text}: {why}; give an address of this machine's own"
        ) from None
    return address


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits of a session in seconds; shorter ones than a mail client's bias towards "could not tell".

    `session` bounds a whole session, `policy` a whole policy fetch, however slowly bytes drip in.
    """

    connect: float = 10.0
    greeting: float = 60.0
    reply: float = 30.0
    handshake: float = 30.0
    session: float = 120.0
    policy: float = 60.0


@dataclass(frozen=True, slots=True)
class Manners:
    """How the scanner behaves towards others; every connection is on record in `attempts`.

    Spacings are in seconds between the beginnings of two connections. A prefix is an IPv4 /24 or an IPv6 /48, a
    provider the registrable domain of the MX host through the alias map. A provider that pushes back (421, 45x, a
    block) is paused for `pause` seconds, twice as long each time, and a server visited again `retries` times at
    most; of one where more than `error_share` of at least `error_minimum` servers pushed back to the last, the
    others are left alone. `own_addresses` holds the scan to the same manners on the addresses that the user allowed
    as their own.
    """

    address_at_once: int = 1
    address_spacing: float = 2.0
    provider_at_once: int = 2
    provider_spacing: float = 1.0
    prefix_at_once: int = 2
    prefix_spacing: float = 1.0
    pause: float = 60.0
    longest_pause: float = 3600.0
    retries: int = 2
    error_share: float = 0.05
    error_minimum: int = 20
    own_addresses: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides how a scan goes, checked."""

    ehlo_name: str
    contact: str
    resolver: str | None = None
    ca_file: Path | None = None
    smtp_port: int = 25
    https_port: int = 443
    concurrency: int = 50
    workers: int | None = None
    proxy: str | None = None
    sample_shared: int | None = None
    responder: str | None = None
    allow_special: tuple[str, ...] = ()
    opt_out: tuple[str, ...] = ()
    seed: int = 0
    vantage: str | None = None
    source: tuple[str, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    manners: Manners = field(default_factory=Manners)
    rules: Rules = field(default_factory=Rules)

    @property
    def vantage_name(self) -> str:
        """What the tables call the place that this machine scans from."""
        return self.ehlo_name if self.vantage in (None, EACH) else str(self.vantage)

    def source_for(self, address: str) -> str | None:
        """Give our own address from which this one is connected to; None: the system chooses."""
        return next((own for own in self.source if (":" in own) == (":" in address)), None)


def make_options(given: Mapping[str, Any], config: str | Path | None = None) -> Options:
    """Gather the options of a scan: arguments first, then the TOML file, `configure`, the environment.

    Parameters
    ----------
    given
        Arguments by name, as `rtls.scan` takes them; None means not given.
    config
        A TOML file with the same names at its top, and tables `[timeouts]`, `[manners]`, `[rules]`. Its `opt_out` is a
        list of entries, or the name of a file of them.

    Raises
    ------
    ScanProblem
        A name or value that does not fit, or no EHLO name or contact.
    """
    known = {item.name for item in fields(Options)}
    if unknown := sorted(set(given) - known):
        raise ScanProblem(f"no option {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    merged: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name, value in _read_config(config, known).items():
        if name in ("timeouts", "manners", "rules"):
            merged[name] = {**value, **_as_mapping(merged.get(name, {}))}
        else:
            merged.setdefault(name, value)
    for name, variable in SAYS.items():
        value = merged.get(name) or _configured.get(name) or os.environ.get(variable)
        if value:
            merged[name] = value
    if missing := [name for name in ("ehlo_name", "contact") if not merged.get(name)]:
        words = {"ehlo_name": "no EHLO name", "contact": "no contact"}
        raise ScanProblem(f"{' and '.join(words[name] for name in missing)}: {_WHO}")
    merged["ehlo_name"] = checked_ehlo_name(str(merged["ehlo_name"]))
    merged["contact"] = checked_contact(str(merged["contact"]))
    if merged.get("vantage") is not None:
        merged["vantage"] = checked_vantage(str(merged["vantage"]))
    merged["source"] = checked_source(merged.get("source", ()))
    if merged["source"] and merged.get("proxy") is not None:
        raise ScanProblem(
            "a source address and a proxy: the proxy connects from its own; give one of the two"
        )
    merged["timeouts"] = _record(Timeouts, merged.get("timeouts", {}), "timeouts")
    merged["manners"] = _record(Manners, merged.get("manners", {}), "manners")
    merged["rules"] = _rules(merged.get("rules", {}))
    if merged.get("ca_file") is not None:
        merged["ca_file"] = Path(merged["ca_file"])
    for name in ("allow_special", "opt_out"):
        merged[name] = _texts(merged.get(name, ()))
    for name, low, high in (
        ("smtp_port", 1, 65535),
        ("https_port", 1, 65535),
        ("concurrency", 1, 20_000),
        ("workers", 1, 256),
        ("sample_shared", 1, 10**9),
        ("seed", 0, 2**63),
    ):
        if merged.get(name) is not None:
            merged[name] = _whole_number(name, merged[name], low, high)
    return Options(**merged)


def _texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(item) for item in value)


def _whole_number(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ScanProblem(f"{name} is {value!r}; give a whole number from {low} to {high}")
    return value


def _as_mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {item.name: getattr(value, item.name) for item in fields(value)}


def _record(kind: type[Any], value: Any, name: str) -> Any:
    if isinstance(value, kind):
        value = _as_mapping(value)
    if not isinstance(value, Mapping):
        raise ScanProblem(f"{name} is {value!r}; give a mapping")
    types = {item.name: str(item.type) for item in fields(kind)}
    if unknown := sorted(set(value) - set(types)):
        raise ScanProblem(f"no {name} {', '.join(unknown)}; there are {', '.join(types)}")
    for key, held in value.items():
        if words := _misfit(key, types[key], held):
            raise ScanProblem(f"{name}: {key} is {held!r}; give {words}")
    return kind(**value)


_FROM_NOUGHT = ("_spacing", "pause", "retries", "error_share")


def _misfit(key: str, kind: str, value: Any) -> str:
    """Say what would do in place of a value that does not fit its field; empty where it fits."""
    if kind == "bool":
        return "" if isinstance(value, bool) else "true or false"
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    lowest = 0 if key.endswith(_FROM_NOUGHT) else 1 if kind == "int" else 0.001
    if kind == "int":
        return "" if is_whole and value >= lowest else f"a whole number from {lowest} on"
    if (is_whole or isinstance(value, float)) and lowest <= value < float("inf"):
        return "" if key != "error_share" or value <= 1 else "a number from 0 to 1"
    return f"a number from {lowest} on"


def _rules(value: Any) -> Rules:
    if isinstance(value, Rules):
        return value
    try:
        return Rules.of(**value)
    except (TypeError, ValueError) as problem:
        raise ScanProblem(f"rules: {problem}") from None


def _read_config(config: str | Path | None, known: set[str]) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        with Path(config).open("rb") as file:
            held = tomllib.load(file)
    except OSError as error:
        raise ScanProblem(f"cannot read {config}: {error.strerror}") from None
    except ValueError as error:
        raise ScanProblem(f"{config} is no TOML: {error}") from None
    held = {name.replace("-", "_"): value for name, value in held.items()}
    if isinstance(held.get("opt_out"), str):  # a file, as for the option of that name
        held["opt_out"] = read_opt_out(held["opt_out"])
    if unknown := sorted(set(held) - known):
        raise ScanProblem(f"{config}: no option {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return held


def read_opt_out(path: str | Path) -> Sequence[str]:
    """Read a file of opt-outs: a domain, an MX host or a prefix a line; ``#`` begins a comment."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ScanProblem(f"cannot read the opt-out list {path}: {reason}") from None
    entries = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return [entry for entry in entries if entry]
