"""Speed of the log readers beside pflogsumm and eximstats; run by hand, prints ratios.

``python tests/benchmarks/logs.py make postfix 1000 FILE`` writes a log of that many megabytes;
``python tests/benchmarks/logs.py compare FILE --other PROGRAM`` reads it on one core and on two, and has the other
program (pflogsumm or eximstats, of the Debian packages `pflogsumm` and `exim4-base`) read it, in turn;
``python tests/benchmarks/logs.py linear`` shows that lines made to be tried in many ways take time in proportion.
CPU time is that of a process and its children, memory the largest resident set of each, added up.
"""

from __future__ import annotations

import argparse
import io
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
    # As before 4.97, since eximstats knows no other.
    name = f"1xV{''.join(dice.choices(_BASE62, k=3))}-{''.join(dice.choices(_BASE62, k=6))}-00"
    user = dice.randrange(100_000)
    number = int(dice.random() ** 3 * 3000)
    domain, address = f"dest{number}.example", f"198.51.100.{number % 250}"
    yield (
        f"{name} <= user{user}@sender.example H=client.example [192.0.2.{user % 250}] P=esmtps "
        f"X=TLS1.3:TLS_AES_256_GCM_SHA384:256 CV=no S={dice.randrange(900, 90_000)} id={name}@sender.example"
    )
    if dice.random() < 0.08:
        yield (
            f"{name} == rcpt{user}@{domain} R=dnslookup T=remote_smtp defer (110): Connection timed out H=mx.{domain} "
            f"[{address}]"
        )
    yield (
        f"{name} => rcpt{user}@{domain} R=dnslookup T=remote_smtp H=mx.{domain} [{address}] "
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
    """CPU seconds and wall seconds of a command, and the megabytes that it says it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = done.stdout.split()[-1:]
    return {
        "cpu": cpu,
        "wall": wall,
        "megabytes": float(said[0]) if said and said[0].isdigit() else float("nan"),
    }


_READ = """
import resource, sys
from rtls_analysis.read.logs import iter_logs
for part in iter_logs(sys.argv[1], timezone="UTC", year=2026, workers=int(sys.argv[2]), progress=False):
    pass
both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
print(sum(resource.getrusage(who).ru_maxrss for who in both) // 1024)
"""


def compare(path: Path, other: str | None, repeats: int) -> None:
    """Run `iter_logs` on one core and on two, and the other program, in turn; print medians and ratios."""
    size = path.stat().st_size / 1e6
    commands = {
        "one core": [sys.executable, "-c", _READ, str(path), "1"],
        "two cores": [sys.executable, "-c", _READ, str(path), "2"],
    }
    if other:
        commands[Path(other).name] = ["perl", other, str(path)]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(run(command))
    medians = {
        name: {key: sorted(one[key] for one in these)[repeats // 2] for key in these[0]}
        for name, these in runs.items()
    }
    for name, figures in medians.items():
        cpu, wall, megabytes = figures["cpu"], figures["wall"], figures["megabytes"]
        print(f"{name:12} {size / cpu:7.1f} MB per CPU-s  {size / wall:7.1f} MB/s wall  {megabytes:6.0f} MB")
    if other:
        theirs = medians[Path(other).name]
        print(f"CPU per byte, one core: {theirs['cpu'] / medians['one core']['cpu']:.2f} times as fast")
        print(f"wall time, two cores:   {theirs['wall'] / medians['two cores']['wall']:.2f} times as fast")


# -- lines made to be tried in many ways ----------------------------------------------------------------------

_SMTP = b"postfix/smtp[7]: "
_QMGR = b"postfix/qmgr[7]: 4F1AA12345: "
_CLEANUP = b"postfix/cleanup[7]: 4F1AA12345: "
HOSTILE: dict[str, tuple[bytes, bytes]] = {  # a beginning, and what is repeated
    "recipients": (_SMTP + b"4F1AA12345: to=<", b">, orig_to=<"),
    "relays": (_SMTP + b"4F1AA12345: to=<a@b>, ", b"relay=x, "),
    "brackets": (_SMTP + b"connect to ", b"["),
    "hosts": (_SMTP + b"connect to ", b"a["),
    "hosts in text": (_SMTP + b"4F1AA12345: ", b"host a["),
    "TLS": (_SMTP + b"Trusted TLS connection established to ", b"x: "),
    "reasons": (_SMTP + b"certificate verification failed for a[b]:25: ", b"tls "),
    "senders": (_QMGR + b"from=<", b">, size"),
    "expiries": (_QMGR + b"from=<", b">, status="),
    "holds": (_CLEANUP + b"hold: ", b"; from=<a> to=<"),
    "holds at the door": (b"postfix/smtpd[7]: NOQUEUE: hold: ", b"; from=<"),
    "Message-IDs": (_CLEANUP + b"message-id=<", b"<"),
    "repeats": (_SMTP + b"message repeated 9 times: [ ", b"]"),
    "words": (b"", b"a "),
    "one word": (b"", b"a"),
    "braces": (b"", b"{"),
}


def hostile_line(kind: str, size: int) -> bytes:
    """A line of about so many bytes of one of these kinds."""
    beginning, piece = HOSTILE[kind]
    return b"Nov 23 16:32:10 mail " + beginning + piece * (size // len(piece)) + b"\n"


def linear() -> None:
    """Print how much longer four times as much takes, for each kind; a little over four is in proportion."""
    from rtls_analysis.read.logs import read_connections, read_logs

    def seconds(kind: str, size: int) -> float:
        data = hostile_line(kind, size) * 4
        best = float("inf")
        for _ in range(3):
            begun = time.process_time()
            for read in (read_logs, read_connections):
                read(io.BytesIO(data), timezone="UTC", year=2026, progress=False)
            best = min(best, time.process_time() - begun)
        return best

    nothing = seconds("one word", 1)
    for kind in HOSTILE:
        small, large = (max(seconds(kind, size) - nothing, 1e-4) for size in (200_000, 800_000))
        print(
            f"{kind:18} {large * 1000 / 4:8.1f} ms a line of 0.8 MB, {large / small:5.1f} times that of 0.2 MB"
        )


def main() -> None:
    """Make a log, compare, or measure hostile lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    commands.add_parser("linear")
    given = parser.parse_args()
    if given.command == "make":
        write_log(given.kind, given.megabytes, given.path, iso=given.iso)
    elif given.command == "compare":
        compare(given.path, given.other, given.repeats)
    else:
        linear()


if __name__ == "__main__":
    main()
