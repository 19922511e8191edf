"""Make the samples of a real Postfix 3.11: ``python -m tests.servers.make_samples`` writes ``data/postfix-3.11/``.

A part of the messages of `mail_world` is sent as the tests send all of them, a message a second: every way in which one
can end is among them. What was scanned before, the senders' logs, the notices and the receiver's copies belong to each
other.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, replace
from email import message_from_bytes
from pathlib import Path

from rtls_analysis.read.dsn_message import read_notice
from tests.servers.conftest import REPOSITORY
from tests.servers.mail_start import INBOX, LOG, Plan, send
from tests.servers.mail_truth import expect
from tests.servers.mail_world import RECEIVER, Message, Policy, messages

TARGET = REPOSITORY / "data" / "postfix-3.11"
MOST_BYTES = 60_000  # of each file
MOST_RECIPIENTS = 34  # of each sender; those that are tried again count twice


def chosen(policy: Policy) -> Iterator[Message]:
    """Choose a sender's messages: first those that end as none before them does, then others, within the limit."""
    wanted = [message for message in messages() if message.policy is policy and message.kind != "odd"]
    seen: set[object] = set()
    left, others = MOST_RECIPIENTS, []
    for message in sorted(wanted, key=lambda message: len(message.recipients)):
        ends = {_end(message, recipient) for recipient in message.recipients}
        if ends <= seen:
            others.append(message)
        elif _weight(message) <= left:
            left -= _weight(message)
            seen |= ends
            yield message
    for message in others[:: len(others) // 8 or 1]:
        if _weight(message) <= left:
            left -= _weight(message)
            yield message


def _weight(message: Message) -> int:
    return sum(1 + expect(message, recipient).expires for recipient in message.recipients)


def _end(message: Message, recipient: str) -> tuple[object, ...]:
    """What tells the end of one message from that of another, but for the server's name."""
    end = replace(expect(message, recipient), code="", host=None, policy=None, level=None, reply_code=None)
    return message.requiretls, message.tls_required_no, message.is_utf8, *astuple(end)


def _mbox(files: Iterable[Path]) -> bytes:
    """Put messages into one mbox, as many of the first as there is room for, in the order of their arrival."""
    parts: list[tuple[int, bytes]] = []
    for path in files:
        lines = path.read_bytes().split(b"\n")
        quoted = [b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in lines]
        stamp = time.asctime(time.gmtime(path.stat().st_mtime)).encode()
        part = b"From MAILER-DAEMON " + stamp + b"\n" + b"\n".join(quoted).rstrip(b"\n") + b"\n\n"
        if sum(len(other) for _, other in parts) + len(part) <= MOST_BYTES:
            parts.append((path.stat().st_mtime_ns, part))
    return b"".join(part for _, part in sorted(parts))


def _notices(folder: Path) -> list[Path]:
    """Give the notices that came, those first that say what none before them says, and the shortest of them."""
    files = [file for policy in Policy for file in (folder / "log" / policy.label / INBOX / "new").iterdir()]
    first: list[Path] = []
    others: list[Path] = []
    seen: set[object] = set()
    for path in sorted(files, key=lambda path: (path.stat().st_size, path.name)):
        rows = read_notice(path.read_bytes()).rows
        says: set[object] = set()
        for row in rows:
            says |= {
                row["form"],
                (row["action"], row["tls_outcome"]),
                (row["requiretls_requested"], row["returned"]),
            }
        (others if says <= seen else first).append(path)
        seen |= says
    return first + others


def _copies(folder: Path, told: set[str]) -> list[Path]:
    """Give the receiver's copies, those first of messages that a notice tells of."""
    files = sorted((folder / "log" / RECEIVER / INBOX / "new").iterdir())
    return sorted(files, key=lambda path: message_from_bytes(path.read_bytes())["Message-ID"] not in told)


def main() -> None:
    """Send, and write what remains."""
    plan = Plan(
        tuple(message.number for policy in Policy for message in chosen(policy)),
        pause=1,
        backoff=7,
        scan=True,
    )
    print(f"{len(plan.numbers)} messages")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        send(folder, plan)
        shutil.rmtree(TARGET, ignore_errors=True)
        TARGET.mkdir(parents=True)
        shutil.copytree(folder / "scan", TARGET / "scan")
        for policy in Policy:
            log = (folder / "log" / policy.label / LOG).read_bytes()
            (TARGET / f"maillog-{policy.value.replace('+', '-')}.log").write_bytes(log)
        notices = _notices(folder)
        (TARGET / "dsns.mbox").write_bytes(_mbox(notices))
        told = {
            str(row["original_message_id"]) for path in notices for row in read_notice(path.read_bytes()).rows
        }
        copies = _copies(folder, {f"<{message_id}>" for message_id in told})
        (TARGET / "copies.mbox").write_bytes(_mbox(copies))
    for path in sorted(TARGET.rglob("*")):
        if path.is_file():
            print(f"{path.stat().st_size:>7} {path.relative_to(TARGET)}")


if __name__ == "__main__":
    main()
