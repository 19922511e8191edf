"""The samples of real servers in ``data/``: small, of nobody's machine, and of one piece."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rtls_analysis as rtls
from rtls_analysis.outcomes import RequireTls
from tests.servers.conftest import REPOSITORY
from tests.servers.mail_world import Policy
from tests.servers.make_samples import MOST_BYTES, TARGET, chosen

FILES = [
    *TARGET.glob("*.log"),
    *TARGET.glob("*.mbox"),
    *(REPOSITORY / "data" / name for name in ("exim/mainlog", "sendmail/mail.log")),
    *(REPOSITORY / "data" / name for name in ("opensmtpd/mail.iso.log", "haraka/haraka.log")),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_small_and_neutral(path: Path) -> None:
    """A sample is small, ends with a whole line, and names neither a user's folder nor a host outside of ``.test``."""
    data = path.read_bytes()
    assert 10_000 < len(data) <= MOST_BYTES
    assert data.endswith(b"\n")
    assert not re.search(rb"/(?:home|root|tmp|work|srv)/", data)
    hosts = re.findall(rb"@([A-Za-z0-9.-]+\.[A-Za-z]{2,})\b", data)
    assert hosts
    assert {host.rpartition(b".")[2].lower() for host in hosts} == {b"test"}


def test_of_one_piece() -> None:
    """Notices, copies and scan are about what the logs tell of."""
    logs = rtls.read_logs(TARGET.glob("*.log"), timezone="UTC", year=2026, progress=False)
    sent = set(zip(logs["message_id"], logs["recipient"], strict=True))
    notices = rtls.read_dsns(TARGET / "dsns.mbox", progress=False)
    assert set(zip(notices["original_message_id"], notices["final_recipient"], strict=True)) <= sent
    hops = rtls.read_received(TARGET / "copies.mbox", progress=False)
    assert set(hops["queue_id"]) & set(logs["queue_id"])
    assert set(hops["message_id"]) <= set(logs["message_id"])
    scanned = set(rtls.open_snapshot(TARGET / "scan").domains["domain"])
    mailed = logs[logs["transport"] == "smtp"]["recipient_domain"]
    assert set(mailed) <= scanned


def test_what_there_is_to_see() -> None:
    """Each thing that can become of the wish for REQUIRETLS is in the logs, by the policy that makes it so."""
    words = {}
    for policy in Policy:
        path = TARGET / f"maillog-{policy.replace('+', '-')}.log"
        log = rtls.read_logs(path, timezone="UTC", year=2026, progress=False)
        assert log["message_id"].nunique() > 15
        words[policy] = set(log["requiretls"])
    shared = {RequireTls.SENT, RequireTls.UNDECIDED, RequireTls.NO_CERTIFICATE_MATCH, RequireTls.NOT_OFFERED}
    assert words[Policy.ENFORCE] >= shared | {RequireTls.NO_STARTTLS, RequireTls.NOT_REQUESTED}
    assert words[Policy.STARTTLS] >= shared | {RequireTls.NO_STARTTLS, RequireTls.SENT_UNAUTHENTICATED}
    assert words[Policy.OPPORTUNISTIC] >= shared | {RequireTls.SENT_UNAUTHENTICATED}


def test_chosen_once() -> None:
    """A message is chosen once, whatever it was chosen for."""
    for policy in Policy:
        numbers = [message.number for message in chosen(policy)]
        assert len(numbers) == len(set(numbers))
