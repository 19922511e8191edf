"""Speed and memory of the DSN reader beside the standard library's own mail parser; run by hand, prints ratios.

``python tests/benchmarks/dsns.py speed [FOLDER]`` reads notices (those of FOLDER, else made ones) to a table, and lets
`email` do nothing but parse the same messages; CPU time of this process, the best of five.
``python tests/benchmarks/dsns.py make 2000 FILE`` writes an mbox of that many megabytes, and ``... memory FILE`` reads
it to Parquet parts and prints the largest resident set as it grows.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from email import policy
from email.parser import BytesParser
from pathlib import Path

from rtls_analysis.read.dsn import iter_dsns

SEPARATOR = b"From MAILER-DAEMON Mon Nov 23 16:32:12 2026\n"
REASONS = [
    ("5.1.1", "smtp", "550 5.1.1 <{to}>: Recipient address rejected: User unknown in virtual mailbox table"),
    ("4.4.1", "X-Postfix", "connect to mx.{domain}[192.0.2.25]:25: Connection timed out"),
    ("5.7.1", "smtp", "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using list.example"),
    ("4.7.5", "X-Postfix", "Server certificate not verified"),
    ("5.7.30", "X-Postfix", "Sender requested REQUIRETLS, but TLS service was not offered by host mx.{domain}[192.0.2.25]"),
]  # fmt: skip


def made_notices(seed: int = 1) -> Iterator[bytes]:
    """Notices as Postfix writes them, none like the other, without end."""
    dice = random.Random(seed)
    while True:
        number = dice.randrange(1 << 40)
        domain = f"dest{number % 5000}.example"
        to, sender = f"user{number % 90_000}@{domain}", f"writer{number % 700}@desk.example"
        status, kind, reason = dice.choice(REASONS)
        reason = reason.format(to=to, domain=domain)
        boundary = f"{number:011X}.1795451530/relay.example"
        yield f"""Return-Path: <>
X-Original-To: {sender}
Delivered-To: {sender}
Received: by relay.example (Postfix)
\tid {number:011X}; Mon, 23 Nov 2026 16:32:{number % 60:02d} +0000 (UTC)
Date: Mon, 23 Nov 2026 16:32:{number % 60:02d} +0000 (UTC)
From: Mail Delivery System <MAILER-DAEMON@relay.example>
Subject: Undelivered Mail Returned to Sender
To: {sender}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="{boundary}"
Content-Transfer-Encoding: 8bit
Message-Id: <20261123163210.{number:011X}@relay.example>

This is a MIME-encapsulated message.

--{boundary}
Content-Description: Notification
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

This is the mail system at host relay.example.

I'm sorry to have to inform you that your message could not
be delivered to one or more recipients. It's attached below.

                   The mail system

<{to}>: {reason}

--{boundary}
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; relay.example
X-Postfix-Queue-ID: {number:011X}
X-Postfix-Sender: rfc822; {sender}
Arrival-Date: Mon, 23 Nov 2026 16:32:10 +0000 (UTC)

Final-Recipient: rfc822; {to}
Original-Recipient: rfc822;{to}
Action: failed
Status: {status}
Remote-MTA: dns; mx.{domain}
Diagnostic-Code: {kind}; {reason}

--{boundary}
Content-Description: Undelivered Message
Content-Type: message/rfc822
Content-Transfer-Encoding: 8bit

Return-Path: <{sender}>
Received: from desk.example (desk.example [192.0.2.9])
\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))
\tby relay.example (Postfix) with ESMTPS id {number:011X}
\tfor <{to}>; Mon, 23 Nov 2026 16:32:10 +0000 (UTC)
From: <{sender}>
To: <{to}>
Subject: Printer paper {number}
Date: Mon, 23 Nov 2026 16:32:10 -0000
Message-ID: <{number:x}@desk.example>
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

{"Please see the note. " * (number % 40)}

--{boundary}--
""".encode()


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        begin = _cpu()
        work()
        times.append(_cpu() - begin)
    return min(times)


def _speed(folder: Path | None) -> None:
    if folder is None:
        notices = made_notices()
        messages = [next(notices) for _ in range(20_000)]
    else:
        messages = [path.read_bytes() for path in sorted(folder.rglob("*.eml"))]
        messages *= max(1, 20_000 // len(messages))
    mbox = b"".join(SEPARATOR + message + b"\n" for message in messages)
    rows = sum(len(frame) for frame in iter_dsns(io.BytesIO(mbox), progress=False))
    ours = _best(lambda: [len(frame) for frame in iter_dsns(io.BytesIO(mbox), progress=False)])
    parser = BytesParser(policy=policy.compat32)
    theirs = _best(lambda: [parser.parsebytes(message).get_content_type() for message in messages])
    print(f"{len(messages):,} messages of {len(mbox) // len(messages):,} bytes, {rows:,} rows")
    print(f"mbox to table          {len(messages) / ours:>9,.0f} messages per core-second")
    print(f"email, parsing alone   {len(messages) / theirs:>9,.0f} messages per core-second")
    print(f"ratio                  {theirs / ours:>9.2f}")


def _make(megabytes: int, path: Path) -> None:
    written = 0
    with path.open("wb") as stream:
        for message in made_notices():
            written += stream.write(SEPARATOR + message + b"\n")
            if written >= megabytes << 20:
                return


def _memory(path: Path) -> None:
    begin, rows = time.process_time(), 0
    with tempfile.TemporaryDirectory() as folder:
        for number, frame in enumerate(iter_dsns(path, progress=False)):
            frame.to_parquet(Path(folder) / f"part-{number:05d}.parquet")
            rows += len(frame)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"{rows:>10,} rows, {peak:>5,} MB", flush=True)
    print(f"{rows / (time.process_time() - begin):,.0f} notices per core-second, Parquet written too")


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    speed = commands.add_parser("speed")
    speed.add_argument("folder", type=Path, nargs="?")
    speed.set_defaults(run=lambda given: _speed(given.folder))
    make = commands.add_parser("make")
    make.add_argument("megabytes", type=int)
    make.add_argument("path", type=Path)
    make.set_defaults(run=lambda given: _make(given.megabytes, given.path))
    memory = commands.add_parser("memory")
    memory.add_argument("path", type=Path)
    memory.set_defaults(run=lambda given: _memory(given.path))
    given = parser.parse_args()
    given.run(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
