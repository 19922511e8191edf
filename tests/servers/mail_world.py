"""The world of mail, as data: who sends, who receives, and every message that is sent.

Three Postfix 3.11 send, each with a REQUIRETLS policy of its own, and each at three TLS levels: the local part of the
envelope sender is the level. The domains of `DESTINATIONS` receive. What must come of each message is in
`mail_truth`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from tests.servers.world import PREFIX

RECEIVER, RELAY = "receiver", "relay"
NOBODY = "nobody"  # local part of those whom no server knows
DATE = "Wed, 25 Nov 2026 08:00:00 +0000"


class Policy(StrEnum):
    """What a sender does where a message asks for REQUIRETLS and a server falls short (``smtp_requiretls_policy``)."""

    ENFORCE = "enforce"
    STARTTLS = "opportunistic+starttls"
    OPPORTUNISTIC = "opportunistic"

    @property
    def label(self) -> str:
        """The name of its sender: of the domain, of the host in the log, of the root."""
        return self.value.rpartition("+")[2]

    @property
    def domain(self) -> str:
        return f"{self.label}.plain.test"

    @property
    def redacts(self) -> bool:
        """Whether its notices leave out the body of what asked for REQUIRETLS (``requiretls_redact_dsn``)."""
        return self is not Policy.STARTTLS

    @property
    def host(self) -> str:
        return f"mta{list(Policy).index(self) + 1}.{self.domain}"


class Level(StrEnum):
    """The TLS level of a sender (``smtp_tls_security_level``)."""

    DANE = "dane"
    SECURE = "secure"
    MAY = "may"


@dataclass(frozen=True, slots=True)
class Destination:
    """A domain that mail goes to, and what there is to know of its MX host.

    `tlsa` is a record as `materials.tlsa_data` wants it, or ``broken``: an alias into the zone whose signatures are
    over. `dane` is what the level dane comes to there; `dane_fault` and `pkix_fault` are what is wrong with the
    certificate by DANE, and by the CA with the domain's name: words of `TlsOutcome`.
    """

    label: str
    why: str
    certificate: str = "valid"
    tlsa: str = ""
    dane: str = "may"
    dane_fault: str = ""
    pkix_fault: str = ""
    starttls: str = "yes"  # no, refused, broken
    offers_requiretls: bool = True
    settings: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()  # hosts of others
    dns: str = ""  # null_mx, nxdomain
    only_requiretls: bool = False  # whether others are not sent there

    @property
    def domain(self) -> str:
        return f"{self.label}.test"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The MX hosts, the most preferred first."""
        return self.mx or (f"mx.{self.domain}",)

    @property
    def listens(self) -> bool:
        return not (self.mx or self.dns or "refused" in self.settings)

    @property
    def server(self) -> str:
        return RELAY if "relay" in self.settings else RECEIVER


_LATE, _NAME, _SELF = "certificate_expired", "certificate_host_mismatch", "certificate_not_trusted"

DESTINATIONS: tuple[Destination, ...] = (
    Destination("broken.plain", "the handshake breaks", starttls="broken", settings=("no_cipher",)),
    Destination("broken.signed", "so it does with DANE", tlsa="3 1 1 leaf", dane="dane", starttls="broken",
                settings=("no_cipher",)),
    Destination("ee.signed", "all is well", tlsa="3 1 1 leaf", dane="dane"),
    Destination("ta.signed", "DANE-TA", tlsa="2 1 1 issuer", dane="dane"),
    Destination("pkix.signed", "no TLSA"),
    Destination("pkix.plain", "no DNSSEC"),
    Destination("late.signed", "expired", "expired", pkix_fault=_LATE),
    Destination("late-ee.signed", "DANE-EE ignores dates", "expired", "3 1 1 leaf", "dane", pkix_fault=_LATE),
    Destination("late-ta.signed", "DANE-TA minds dates", "expired", "2 1 1 issuer", "dane", _LATE, _LATE),
    Destination("name.signed", "wrong name", "wrong_name", pkix_fault=_NAME),
    Destination("name-ta.signed", "DANE-TA minds names", "wrong_name", "2 1 1 issuer", "dane", _NAME, _NAME),
    Destination("self.plain", "self-signed", "self_signed", pkix_fault=_SELF),
    Destination("self-ee.signed", "DANE-EE needs no CA", "self_signed", "3 1 1 leaf", "dane", pkix_fault=_SELF),
    Destination("stale.signed", "the key was changed", tlsa="3 1 1 other", dane="dane", dane_fault="tlsa_invalid"),
    Destination("unusable.signed", "PKIX-EE is none of mail's usages", tlsa="1 1 1 leaf", dane="encrypt"),
    Destination("short.signed", "not a digest, which comes out within TLS", tlsa="3 1 1 short", dane="dane:encrypt"),
    Destination("bogus.signed", "the lookup of TLSA fails", tlsa="broken", dane="unknown"),
    Destination("half.plain", "an unsigned MX record names a signed host, whose name is not the domain's",
                dane="halfdane", pkix_fault=_NAME, mx=("mx.ee.signed.test",)),
    Destination("off.signed", "no REQUIRETLS", tlsa="3 1 1 leaf", dane="dane", offers_requiretls=False,
                settings=("no_requiretls",)),
    Destination("off.plain", "no REQUIRETLS, no DSN", offers_requiretls=False, settings=("no_requiretls", "no_dsn")),
    Destination("backup.signed", "the second MX host has what the first lacks", dane="dane", pkix_fault=_NAME,
                mx=("mx.off.signed.test", "mx.ta.signed.test")),
    Destination("clear.signed", "no STARTTLS", tlsa="3 1 1 leaf", dane="dane", starttls="no", offers_requiretls=False,
                settings=("no_starttls",)),
    Destination("clear.plain", "no STARTTLS", starttls="no", offers_requiretls=False, settings=("no_starttls",)),
    Destination("busy.signed", "454 to STARTTLS", tlsa="3 1 1 leaf", dane="dane", starttls="refused",
                offers_requiretls=False, settings=("no_ca",)),
    Destination("busy.plain", "454 to STARTTLS", starttls="refused", offers_requiretls=False, settings=("no_ca",)),
    Destination("old.plain", "TLS 1.2, and anonymous ciphers for those who want no certificate",
                settings=("tls12",)),
    Destination("picky.signed", "it takes REQUIRETLS for granted, and says so at MAIL", tlsa="3 1 1 leaf", dane="dane",
                settings=("refuses_mail",), only_requiretls=True),
    Destination("refused.signed", "nobody listens", settings=("refused",)),
    Destination("null.signed", "null MX", dns="null_mx"),
    Destination("gone.signed", "no such domain", dns="nxdomain"),
    Destination("hop.signed", "sends it on to a server without REQUIRETLS", tlsa="3 1 1 leaf", dane="dane",
                settings=("relay",)),
)  # fmt: skip
NEXT_HOP = "off.signed.test"  # of the relay

UTF8_DOMAIN = "bücher.signed.test"
NO_UTF8 = "ascii.signed"
EXTRA_DESTINATIONS = (
    Destination("xn--bcher-kva.signed", "an internationalised domain", tlsa="3 1 1 leaf", dane="dane"),
    Destination(NO_UTF8, "no SMTPUTF8", tlsa="3 1 1 leaf", dane="dane", settings=("no_smtputf8",)),
)
BY_HOST = {row.hosts[0]: row for row in (*DESTINATIONS, *EXTRA_DESTINATIONS) if not row.mx}
BY_DOMAIN = {row.domain: row for row in (*DESTINATIONS, *EXTRA_DESTINATIONS)}
BY_DOMAIN[UTF8_DOMAIN] = EXTRA_DESTINATIONS[0]


def mail_addresses() -> dict[str, str]:
    """Give the address of every host that listens."""
    hosts = [row.hosts[0] for row in (*DESTINATIONS, *EXTRA_DESTINATIONS) if row.listens]
    hosts += [policy.host for policy in Policy]
    return {host: f"{PREFIX}.1.{number}" for number, host in enumerate(hosts, start=1)}


# -- what is sent ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Options:
    """What a message asks of notices (RFC 3461); empty: it does not ask."""

    notify: str = ""
    ret: str = ""
    envelope_id: str = ""
    original_recipient: bool = False

    def wants(self, action: str) -> bool:
        """Whether a notice of this kind is wanted: ``SUCCESS``, ``FAILURE``, ``DELAY``."""
        return action in (self.notify or "FAILURE,DELAY").split(",")


OPTIONS = (
    Options(),
    Options("SUCCESS,FAILURE,DELAY", "FULL", "all+everything"),
    Options("FAILURE", "HDRS", "failure+headers"),
    Options("FAILURE,DELAY", "FULL", "failure=delay", original_recipient=True),
    Options("SUCCESS", envelope_id="success only"),
    Options(ret="FULL"),
    Options("NEVER"),
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it is submitted to its sender's server."""

    number: int
    policy: Policy
    level: Level
    requiretls: bool
    tls_required_no: bool
    options: Options
    recipients: tuple[str, ...]
    sender: str
    kind: str = ""  # what is special about its addresses

    @property
    def message_id(self) -> str:
        return f"{self.number}.{self.level}@{self.policy.domain}"

    @property
    def is_utf8(self) -> bool:
        return not "".join((self.sender, *self.recipients)).isascii()

    @property
    def group(self) -> str:
        """Name those messages that differ in recipients and options only."""
        if self.kind:
            return self.kind
        wishes = ["requiretls"] * self.requiretls + ["tls_required_no"] * self.tls_required_no
        return "-".join([self.policy.label, self.level, *(wishes or ["plain"])])

    def text(self) -> bytes:
        """Give header and body; the body is what a redacted notice must not show."""
        lines = [
            f"From: <{self.sender}>",
            f"To: {', '.join(f'<{address}>' for address in self.recipients)}",
            f"Date: {DATE}",
            f"Message-ID: <{self.message_id}>",
            f"Subject: {'Grüße' if self.is_utf8 else 'message'} {self.number}",
            *(["TLS-Required: No"] if self.tls_required_no else []),
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "",
            f"The body of message {self.number}.",
            "",
        ]
        return "\r\n".join(lines).encode()


WISHES = {  # REQUIRETLS, TLS-Required: No
    Policy.ENFORCE: ((True, False), (False, True), (True, True), (False, False)),
    Policy.STARTTLS: ((True, False), (True, True)),
    Policy.OPPORTUNISTIC: ((True, False), (True, True)),
}
UTF8_RECIPIENTS = (
    ("grüße@ee.signed.test", True),
    (f"{NOBODY}-ü@ee.signed.test", True),
    (f"δοκιμή@{NO_UTF8}.test", False),
    ("用户@late.signed.test", True),
    (f"leser@{UTF8_DOMAIN}", False),
    (f"{NOBODY}-é@{UTF8_DOMAIN}", True),
    ("jürgen@stale.signed.test", False),
    (f"{NOBODY}@ee.signed.test", False),
)
ODD_RECIPIENTS = (
    '"two words"@late.signed.test',
    '"a>b"@late.signed.test',
    '"comma, colon: (no comment)"@late.signed.test',
    "plus+tag=x@late.signed.test",
    "o'brien@late.signed.test",
    "MiXeD@LATE.signed.TEST",
)


def _options(which: int, number: int) -> Options:
    """Give a set of options, its envelope id made one of its own."""
    options = OPTIONS[which % len(OPTIONS)]
    return replace(options, envelope_id=f"{options.envelope_id} {number}") if options.envelope_id else options


def messages() -> Iterator[Message]:
    """Give every message: all that a sender, a level and a wish can meet, in messages of one to three recipients."""
    number = 0
    for policy in Policy:
        for level in Level:
            for requiretls, tls_required_no in WISHES[policy]:
                wanted = [row for row in DESTINATIONS if requiretls or not row.only_requiretls]
                people = [f"user@{row.domain}" for row in wanted]
                people.append(f"{NOBODY}@ee.signed.test")
                while people:
                    size = 1 + number % 3
                    number += 1
                    yield Message(
                        number, policy, level, requiretls, tls_required_no, _options(number, number),
                        tuple(people[:size]), f"{level}@{policy.domain}",
                    )  # fmt: skip
                    people = people[size:]
    policy = Policy.ENFORCE
    for recipient, requiretls in UTF8_RECIPIENTS:
        for which in range(5):
            number += 1
            yield Message(
                number, policy, Level.DANE, requiretls, False, _options(which, number), (recipient,),
                f"jörg@{policy.domain}", "utf8",
            )  # fmt: skip
    for recipient in ODD_RECIPIENTS:
        for which in range(4):
            number += 1
            yield Message(
                number, policy, Level.MAY, True, False, _options(which, number), (recipient,),
                f"may@{policy.domain}", "odd",
            )  # fmt: skip
