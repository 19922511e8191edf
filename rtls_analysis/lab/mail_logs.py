"""A week of mail to the lab's domains, as a Postfix 3.11 that sends with TLS level ``dane`` would log it.

No mail is sent: what each server of the world does is known, and the lines are those that real Postfix wrote about real
servers that do the same. It is somebody's own traffic, to try what-if on: few destinations get most of the mail.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from rtls_analysis.lab.kinds import CERTIFICATES, ServerKind
from rtls_analysis.lab.world import Domain, Host, World

BEGINS = dt.datetime(2026, 11, 16, tzinfo=dt.UTC)
DAYS = 7
SENDER = "mail.sender.test"
_QUEUED_SECONDS = 86_400.0  # until Postfix gives up, here
_FIRST_PAUSE, _LONGEST_PAUSE = 300.0, 4000.0
_PEOPLE = ("anna", "bo", "carla", "dmitri", "eve", "farid", "grace", "hugo", "ines", "jan", "kofi", "lena")
_TLS_1_3 = (
    "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange x25519 server-signature "
    "ECDSA (prime256v1) server-digest SHA256"
)
_OLDER = {
    "TLSv1.2": "TLSv1.2 with cipher ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits)",
    "TLSv1.1": "TLSv1.1 with cipher ECDHE-RSA-AES256-SHA (256/256 bits)",
    "TLSv1.0": "TLSv1 with cipher ECDHE-RSA-AES256-SHA (256/256 bits)",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes of a try: the fields of its line, how long it takes, and a line about TLS `before` it."""

    relay: str
    tls: str
    dsn: str
    status: str
    text: str
    seconds: float
    before: str = ""


def write_mail_log(world: World, path: Path, *, messages: int = 5000, seed: int = 1) -> None:
    """Write the log.

    Parameters
    ----------
    world
        The lab's world.
    path
        The file, in the form of Postfix's ``maillog_file``: stamps in UTC without a year, which is 2026.
    messages
        How many, each to one recipient; a message to a destination that puts it off is tried again for a day.
    seed
        Decides who writes to whom, and when.
    """
    random_ = random.Random(seed)
    domains = list(world.domains.values())
    random_.shuffle(domains)  # which ones get most mail has nothing to do with what they are like,
    domains.sort(key=lambda domain: domain.kind.name != "drawn")  # but few write to curiosities
    weights = list(accumulate(_liking(domain) / (place + 1) for place, domain in enumerate(domains)))
    lines: list[tuple[float, int, str]] = []
    for number in range(messages):
        (domain,) = random_.choices(domains, cum_weights=weights)
        for at, line in _message(domain, number, _moment(random_), random_):
            lines.append((at, len(lines), line))
    lines.sort()
    with path.open("w", encoding="utf-8") as file:
        for at, _order, line in lines:
            stamp = BEGINS + dt.timedelta(seconds=at)
            file.write(f"{stamp:%b} {stamp.day:>2} {stamp:%H:%M:%S} mail {line}\n")


def _liking(domain: Domain) -> float:
    """Say how much more seldom people write to a domain that takes no mail, or not at once."""
    return 1.0 if answer_of(domain, 0).status == "sent" else 0.04


def _moment(random_: random.Random) -> float:
    """Draw a second of the week: three of four messages in the working hours."""
    day = random_.randrange(DAYS)
    hour = random_.triangular(7, 19, 11) if random_.random() < 0.75 else random_.uniform(0, 24)
    return (day * 24 + hour) * 3600


def _message(domain: Domain, number: int, at: float, random_: random.Random) -> Iterator[tuple[float, str]]:
    """Write the lines of one message: how it comes in, each try, and its end."""
    queue_id = f"{random_.getrandbits(40):010X}"
    author, reader = (random_.choice(_PEOPLE) for _ in range(2))
    sender = f"from=<{author}@sender.test>"
    size = random_.randint(900, 90_000)
    yield at, f"postfix/smtpd[501]: {queue_id}: client=office.sender.test[192.0.2.7]"
    yield at, f"postfix/cleanup[502]: {queue_id}: message-id=<{number}.{queue_id.lower()}@sender.test>"
    yield at, f"postfix/qmgr[503]: {queue_id}: {sender}, size={size}, nrcpt=1 (queue active)"
    program = f"postfix/smtp[{510 + number % 17}]"
    began, pause, tries = at, _FIRST_PAUSE, 0
    while True:
        answer = answer_of(domain, tries)
        tries += 1
        spent = answer.seconds * random_.uniform(0.6, 1.8)
        at += spent
        if answer.before:
            yield at, f"{program}: {answer.before}"
        fields = (
            f"to=<{reader}@{domain.name}>",
            f"relay={answer.relay}",
            f"delay={at - began:.2f}",
            f"delays={max(0.0, at - began - spent):.2f}/0.01/{spent / 2:.2f}/{spent / 2:.2f}",
            *([f"tls={answer.tls}"] if answer.tls else []),
            f"dsn={answer.dsn}",
            f"status={answer.status} ({answer.text})",
        )
        yield at, f"{program}: {queue_id}: {', '.join(fields)}"
        if answer.status != "deferred":
            break
        at += pause
        pause = min(2 * pause, _LONGEST_PAUSE)
        if at > DAYS * 86_400:
            return  # still queued when the log ends
        if at - began > _QUEUED_SECONDS:
            yield at, f"postfix/qmgr[503]: {queue_id}: {sender}, status=expired, returned to sender"
            break
    yield at, f"postfix/qmgr[503]: {queue_id}: removed"


def answer_of(domain: Domain, tries: int) -> Answer:
    """Tell what comes of sending to a domain, `tries` tries before."""
    name = domain.name
    lookup = "Host or domain name not found. Name service error for name="
    match domain.kind.mx_state:
        case "null_mx":
            return Answer(
                "none", "", "5.1.0", "bounced", f"Domain {name} does not accept mail (nullMX)", 0.05
            )
        case "no_mail" | "nxdomain":
            return Answer("none", "", "5.4.4", "bounced", f"{lookup}{name} type=A: Host not found", 0.05)
        case "dns_failure":
            text = f"{lookup}{name} type=MX: Host not found, try again"
            return Answer("none", "", "4.4.3", "deferred", text, 5.0)
    last = Answer("none", "", "4.4.3", "deferred", f"{lookup}{name} type=A: Host not found, try again", 0.05)
    for _preference, host in sorted(domain.hosts, key=lambda pair: pair[0]):
        for address, server in host.places:
            last = _at(domain, host, address, server, tries)
            if last.status != "deferred":
                return last
    return last


def _at(domain: Domain, host: Host, address: str, server: ServerKind | None, tries: int) -> Answer:
    """Tell what comes of sending to one address of an MX host."""
    relay = f"{host.name}[{address}]:25"
    secure = domain.kind.secure or domain.kind.mx_state == "implicit_mx"
    has_dane = secure and host.kind.secure and host.kind.dane in ("match", "mismatch")
    level = "dane" if has_dane else "may"
    if server is None:
        text = f"connect to {relay}: No route to host"
        return Answer("none", f"{level}?", "4.4.1", "deferred", text, 0.1)
    if server.outcome == "refused":
        text = f"connect to {relay}: Connection refused"
        return Answer("none", f"{level}?", "4.4.1", "deferred", text, 0.1)
    if server.outcome in ("timeout", "closed_early", "protocol_error") and not server.has_tls:
        text = (
            f"conversation with {host.name}[{address}] timed out while receiving the initial server greeting"
        )
        return Answer(relay, f"{level}?", "4.4.2", "deferred", text, 30.0)
    if server.outcome in ("rate_limited", "blocked") and not server.has_tls:
        code, dsn = ("421", "4.7.0") if server.outcome == "rate_limited" else ("554", "4.7.1")
        text = f"host {host.name}[{address}] refused to talk to me: {code} {dsn} {host.name} not now"
        return Answer(relay, f"{level}?", dsn, "deferred", text, 0.2)
    if server.outcome == "greylisted" and not server.has_tls and tries == 0:
        text = f"host {host.name}[{address}] refused to talk to me: 451 4.7.1 Greylisted, try again later"
        return Answer(relay, f"{level}?", "4.7.1", "deferred", text, 0.3)
    sent = "250 2.0.0 Ok: queued as 59605258625"
    if not server.has_tls and server.outcome != "greylisted":  # whose STARTTLS was not seen: it has one
        if has_dane:
            text = f"TLS is required, but was not offered by host {host.name}[{address}]"
            return Answer(relay, "!dane", "4.7.4", "deferred", text, 0.3)
        return Answer(relay, "may:none", "2.0.0", "sent", sent, 0.3)
    peer = f"TLS connection established to {relay}: {_OLDER.get(server.tls_version or '', _TLS_1_3)}"
    if has_dane:
        if host.kind.dane == "match":
            return Answer(relay, "dane", "2.0.0", "sent", sent, 0.4, f"Verified {peer}")
        return Answer(
            relay, "!dane", "4.7.5", "deferred", "Server certificate not trusted", 0.3, f"Untrusted {peer}"
        )
    kind = CERTIFICATES[server.certificate]
    words = {"valid": "Trusted", "name_mismatch": "Trusted", "anonymous": "Anonymous"}
    return Answer(relay, "may", "2.0.0", "sent", sent, 0.4, f"{words.get(kind.pkix, 'Untrusted')} {peer}")
