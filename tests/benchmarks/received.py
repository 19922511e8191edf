"""Received fields a second through `read_received`, beside Python's own `email` parser on the same messages.

Run by hand: ``python tests/benchmarks/received.py [--messages N] [--rounds N]``. An mbox is made of the shapes of the
shared data where they are there, else of the few below, with hosts and addresses that change from field to field, so
that no cache knows them. Times are of this process's CPU, medians over the rounds; the two take turns. The `email`
parser only parses the message and gives the fields as text, in its old policy, which is its fastest.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from email.parser import BytesParser
from pathlib import Path

from rtls_analysis.read.mail_files import MailFiles
from rtls_analysis.read.received import iter_received
from rtls_analysis.standards.received import parse_received

SHAPES = Path(__file__).parents[3] / "shared" / "data" / "received" / "shapes.csv"
HOPS = 7
OWN = [
    "from h1.example.net (h1.example.net [192.0.2.25]) (using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) "
    "key-exchange X25519 server-signature RSA-PSS (2048 bits) server-digest SHA256) (No client certificate requested) "
    "by h2.example.net (Postfix) with ESMTPS id 4568620E00AA for <user@h2.example.net>; "
    "Wed, 13 May 2026 11:43:02 -0400 (EDT)",
    "from h1.example.net ([192.0.2.25]) by h2.example.net with esmtps (TLS1.3) tls TLS_AES_256_GCM_SHA384 (Exim 4.98) "
    "(envelope-from <user@example.net>) id 1uXyZa-000000001ab-2Bcd for user@h2.example.net; "
    "Mon, 03 Aug 2026 10:00:00 +0000",
    "from h1.example.net (localhost [127.0.0.1]) by h1.example.net (8.18.1/8.18.1) with ESMTP id 573A0000012345; "
    "Mon, 3 Aug 2026 10:00:00 GMT",
]


def fields(count: int) -> Iterator[str]:
    """Values of Received fields, each with other names and addresses."""
    values = OWN
    if SHAPES.exists():
        with SHAPES.open(encoding="utf-8", newline="") as stream:
            values = [row["value"] for row in csv.DictReader(stream)]
    draw = random.Random(1)
    for number in range(count):
        value = draw.choice(values).replace(
            "192.0.2.25", f"10.{number % 200}.{number % 251}.{draw.randrange(255)}"
        )
        yield value.replace("h1.example", f"h{number}.example").replace(
            "h2.example", f"h{number // 7}.example"
        )


def write_mbox(path: Path, messages: int) -> int:
    """An mbox of messages of about 5 KB; gives the number of its Received fields."""
    values = fields(messages * HOPS)
    with path.open("wb") as file:
        for number in range(messages):
            header = "".join(
                f"Received: {next(values).replace(' by ', chr(10) + '        by ', 1)}\n" for _ in range(HOPS)
            )
            header += (
                f"From: a@example.net\nTo: b@example.org\nSubject: x\nMessage-ID: <{number}@example.net>\n"
            )
            body = "A line of a message that says nothing.\n" * 60
            file.write(f"From a@example.net Mon Aug  3 10:00:00 2026\n{header}\n{body}\n".encode())
    return messages * HOPS


def seconds(work: Callable[[], int], expected: int) -> float:
    """CPU time of one run, which must have seen every field."""
    begin = time.process_time()
    found = work()
    took = time.process_time() - begin
    if found != expected:
        raise SystemExit(f"{found} fields found, {expected} are there")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=6000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "messages"
        count = write_mbox(path, arguments.messages)
        values = list(fields(count))

        def by_email() -> int:
            parse = BytesParser().parsebytes
            return sum(len(parse(data).get_all("Received") or ()) for _name, data in MailFiles(path))

        runs: dict[str, Callable[[], int]] = {
            "parse_received, one field": lambda: sum(parse_received(value) is not None for value in values),
            "read_received, mbox to table": lambda: sum(map(len, iter_received(path, progress=False))),
            "email.parser, mbox to text": by_email,
        }
        times = {name: [seconds(run, count)] for name, run in runs.items()}
        for _round in range(arguments.rounds):
            for name, run in runs.items():
                times[name].append(seconds(run, count))
    slowest = statistics.median(times["email.parser, mbox to text"][1:])
    for name, taken in times.items():
        median = statistics.median(taken[1:])
        print(
            f"{name:<30} {count / median:>10,.0f} fields/s   {slowest / median:>6.2f} times the email parser"
        )


if __name__ == "__main__":
    main()
