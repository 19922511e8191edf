"""Speed of the log readers beside pflogsumm and eximstats; run by hand, prints ratios.

``python tests/benchmarks/logs.py make postfix 1000 FILE`` writes a log of that many megabytes;
``python tests/benchmarks/logs.py compare FILE --pflogsumm PROGRAM`` runs both over it, one after the other.
The programs are those of the Debian packages `pflogsumm` and `exim4-base`. CPU time is that of the process and its
children, memory the largest resident set.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
HEX = "0123456789ABCDEF"
CIPHER = (
    "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519MLKEM768 server-signature"
)
FIELDS = ["may"] * 12 + ["dane"] * 4 + ["dane/requiretls", "may/requiretls:none", "may:none", "secure"]


def postfix_lines(seed: int = 1, *, field: bool = False) -> Iterator[str]:
    """Lines of a busy outbound Postfix, without stamp: many messages in flight, retries, several recipients.

    With `field` the delivery lines have the ``tls=`` of Postfix 3.11, which pflogsumm 1.1.5 does not understand: it
    skips them, and is the faster for it.
    """
    dice = random.Random(seed)
    domains = [f"dest{number}.example" for number in range(3_000)]
    flight = [_postfix_message(dice, domains, field=field) for _ in range(60)]
    while True:
        place = int(dice.random() * len(flight))
        line = next(flight[place], None)
        if line is None:
            flight[place] = _postfix_message(dice, domains, field=field)
        else:
            yield line


def _postfix_message(dice: random.Random, domains: list[str], *, field: bool) -> Iterator[str]:
    queue_id = "".join(dice.choices(HEX, k=11))
    smtpd, qmgr, smtp = dice.randrange(1000, 1060), 812, dice.randrange(2000, 2100)
    user = dice.randrange(100_000)
    client = f"client{user % 500}.example.net[192.0.2.{user % 250}]"
    sender = f"user{user}@sender{user % 300}.example"
    yield f"postfix/smtpd[{smtpd}]: connect from {client}"
    yield f"postfix/smtpd[{smtpd}]: {queue_id}: client={client}"
    yield f"postfix/cleanup[{smtpd + 500}]: {queue_id}: message-id=<{queue_id}.{user}@sender{user % 300}.example>"
    yield f"postfix/qmgr[{qmgr}]: {queue_id}: from=<{sender}>, size={dice.randrange(900, 90_000)}, nrcpt=1 (queue active)"
    yield f"postfix/smtpd[{smtpd}]: disconnect from {client} ehlo=2 starttls=1 mail=1 rcpt=1 data=1 quit=1 commands=7"
    domain = domains[int(dice.random() ** 3 * len(domains))]
    relay = f"mx{user % 3}.{domain}[198.51.100.{len(domain) * 7 % 250}]:25"
    while True:
        chance = dice.random()
        level = dice.choice(FIELDS)
        tls = f"tls={level}, " if field else ""
        undecided = "tls=may?, " if field else ""
        if chance > 0.08:
            if level != "may:none":
                word = "Verified" if level.startswith(("dane", "secure")) else "Untrusted"
                yield (
                    f"postfix/smtp[{smtp}]: {word} TLS connection established to {relay}: {CIPHER} ECDSA (prime256v1) "
                    "server-digest SHA256"
                )
            for recipient in range(1 + (dice.random() < 0.1)):
                yield (
                    f"postfix/smtp[{smtp}]: {queue_id}: to=<rcpt{user + recipient}@{domain}>, relay={relay}, delay=1.3, "
                    f"delays=0.04/0.01/0.71/0.54, {tls}dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as "
                    f"{queue_id[::-1]})"
                )
            break
        if chance > 0.04:
            yield (
                f"postfix/smtp[{smtp}]: {queue_id}: to=<rcpt{user}@{domain}>, relay={relay}, delay=2.1, "
                f"delays=0.04/0.01/1.5/0.54, {tls}dsn=4.7.1, status=deferred (host {relay[:-3]} said: 451 4.7.1 "
                "Greylisted, please try again later (in reply to RCPT TO command))"
            )
        else:
            yield f"postfix/smtp[{smtp}]: connect to {relay}: Connection timed out"
            yield (
                f"postfix/smtp[{smtp}]: {queue_id}: to=<rcpt{user}@{domain}>, relay=none, delay=30, delays=0.04/0.01/30/0, "
                f"{undecided}dsn=4.4.1, status=deferred (connect to {relay}: Connection timed out)"
            )
        smtp = dice.randrange(2000, 2100)
        yield f"postfix/qmgr[{qmgr}]: {queue_id}: from=<{sender}>, size=4711, nrcpt=1 (queue active)"
    yield f"postfix/qmgr[{qmgr}]: {queue_id}: removed"


def exim_lines(seed: int = 1) -> Iterator[str]:
    """Lines of an Exim main log, without stamp."""
    dice = random.Random(seed)
    flight = [_exim_message(dice) for _ in range(60)]
    while True:
        place = int(dice.random() * len(flight))
        line = next(flight[place], None)
        if line is None:
            flight[place] = _exim_message(dice)
        else:
            yield line


_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _exim_message(dice: random.Random) -> Iterator[str]:
    name = f"1xV{''.join(dice.choices(_BASE62, k=3))}-{''.join(dice.choices(_BASE62, k=11))}-{''.join(dice.choices(_BASE62, k=4))}"
    user = dice.randrange(100_000)
    domain = f"dest{int(dice.random() ** 3 * 3000)}.example"
    yield (
        f"{name} <= user{user}@sender.example H=client.example [192.0.2.{user % 250}] P=esmtps "
        f"X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no S={dice.randrange(900, 90_000)} id={name}@sender.example"
    )
    if dice.random() < 0.08:
        yield (
            f"{name} == rcpt{user}@{domain} R=dnslookup T=remote_smtp defer (110): Connection timed out H=mx.{domain} "
            f"[198.51.100.{user % 250}]"
        )
    yield (
        f"{name} => rcpt{user}@{domain} R=dnslookup T=remote_smtp H=mx.{domain} [198.51.100.{user % 250}] "
        f'X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=yes DN="CN=mx.{domain}" C="250 2.0.0 Ok: queued as {name[:6]}" QT=1.2s DT=0.6s'
    )
    yield f"{name} Completed"


def write_log(kind: str, megabytes: int, path: Path, *, iso: bool = False) -> None:
    """Write a log of one kind, of about so many megabytes, about 400 lines a second of its own time."""
    lines = exim_lines() if kind == "exim" else postfix_lines(field=kind == "postfix-3.11")
    size, number = megabytes * 1_000_000, 0
    clock = 1_790_000_000
    with path.open("w", encoding="ascii") as stream:
        written = 0
        stamp = ""
        for line in lines:
            if number % 400 == 0:
                clock += 1
                now = time.gmtime(clock)
                if kind == "exim":
                    stamp = time.strftime("%Y-%m-%d %H:%M:%S ", now)
                elif iso:
                    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.123456+00:00 mail ", now)
                else:
                    stamp = (
                        f"{MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {time.strftime('%H:%M:%S', now)} mail "
                    )
            number += 1
            written += stream.write(f"{stamp}{line}\n")
            if written >= size:
                return


def run(command: list[str]) -> dict[str, float]:
    """CPU seconds, wall seconds and peak megabytes of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    measured = subprocess.run(
        ["/usr/bin/env", "time", "-f", "%M", *command] if Path("/usr/bin/time").exists() else command,
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = measured.stderr.split()[-1:] or ["0"]
    return {
        "cpu": cpu,
        "wall": wall,
        "megabytes": float(last[0]) / 1024 if last[0].isdigit() else after.ru_maxrss / 1024,
    }


_PARTS = (
    "import sys\n"
    "from rtls_analysis.read.logs import iter_logs\n"
    "rows = sum(len(part) for part in iter_logs(sys.argv[1], timezone='UTC', year=2026, workers=int(sys.argv[2])))\n"
    "print(rows)\n"
)


def compare(path: Path, other: str | None, repeats: int) -> None:
    """Run `iter_logs` on one core and on two, and the other program, and print the medians and ratios."""
    size = path.stat().st_size / 1e6
    commands = {
        "one core": [sys.executable, "-c", _PARTS, str(path), "1"],
        "two cores": [sys.executable, "-c", _PARTS, str(path), "2"],
    }
    if other:
        commands[Path(other).name] = ["perl", other, str(path)]
    figures: dict[str, dict[str, float]] = {}
    for name, command in commands.items():
        runs = sorted((run(command) for _ in range(repeats)), key=lambda one: one["cpu"])
        figures[name] = runs[len(runs) // 2]
        cpu, wall, megabytes = (figures[name][key] for key in ("cpu", "wall", "megabytes"))
        print(f"{name:12} {size / cpu:7.1f} MB per CPU-s  {size / wall:7.1f} MB/s wall  {megabytes:6.0f} MB")
    if other:
        theirs = figures[Path(other).name]
        print(f"CPU per byte, one core: {theirs['cpu'] / figures['one core']['cpu']:.2f} times as fast")
        print(f"wall time, two cores:   {theirs['wall'] / figures['two cores']['wall']:.2f} times as fast")


def main() -> None:
    """Make a log, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make")
    make.add_argument("kind", choices=["postfix", "postfix-3.11", "exim"])
    make.add_argument("megabytes", type=int)
    make.add_argument("path", type=Path)
    make.add_argument("--iso", action="store_true")
    measure = commands.add_parser("compare")
    measure.add_argument("path", type=Path)
    measure.add_argument("--other", help="pflogsumm or eximstats, a Perl program")
    measure.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if given.command == "make":
        write_log(given.kind, given.megabytes, given.path, iso=given.iso)
    else:
        compare(given.path, given.other, given.repeats)


if __name__ == "__main__":
    main()
