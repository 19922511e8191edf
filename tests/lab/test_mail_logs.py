"""The lab's mail log reads back as what was written, and nothing of it is strange to the reader of Postfix's logs."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rtls_analysis.analysis.messages import recipient_ends
from rtls_analysis.lab.kinds import DOMAINS
from rtls_analysis.lab.mail_logs import answer_of, write_mail_log
from rtls_analysis.lab.world import World
from rtls_analysis.read.logs import read_logs

ACTIONS = {"sent": "delivered", "bounced": "failed"}


@pytest.fixture(scope="module")
def world() -> World:
    """One domain of each kind, and some that are drawn."""
    return World(len(DOMAINS) + 100)


@pytest.fixture(scope="module")
def mail(world: World, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A log of three thousand messages, read back."""
    path = tmp_path_factory.mktemp("log") / "mail.log"
    write_mail_log(world, path, messages=3000)
    return read_logs(path, timezone="UTC", year=2026, progress=False)


def test_every_line_is_understood(mail: pd.DataFrame) -> None:
    """The log has no line that its reader takes for something else."""
    coverage = mail.attrs["coverage"]
    assert coverage["lines_read"] == coverage["lines_matched"]
    assert set(coverage["skipped"]) == {"postfix/smtpd: no deliveries"}
    assert coverage["warnings"] == []


def test_what_was_written_is_read(world: World, mail: pd.DataFrame) -> None:
    """Each message ends as the kind of its destination wants it."""
    ends = recipient_ends(mail)
    assert len(ends) == 3000
    for row in ends.to_dict("records"):
        domain = world.domains[row["recipient_domain"]]
        first, second = answer_of(domain, 0), answer_of(domain, 1)
        assert row["first_action"] == ACTIONS.get(first.status, "delayed")
        if first.status != "deferred":
            assert row["tries"] == 1
        elif second.status == "deferred":
            assert row["action"] in ("failed", "delayed")  # given up after a day, or still queued
        elif row["tries"] > 1:
            assert row["action"] == "delivered"


@pytest.mark.parametrize(
    ("name", "level", "action"),
    [
        ("valid.test", "trusted", "delivered"),
        ("plain.test", "none", "delivered"),
        ("self-signed.test", "untrusted", "delivered"),
        ("dane-311.test", "verified", "delivered"),
        ("dane-mismatch.test", "untrusted", "delayed"),
        ("signed-plain.test", "none", "delivered"),
        ("null-mx.test", None, "failed"),
        ("refused.test", None, "delayed"),
        ("greylist.test", "unknown", "delayed"),
    ],
)
def test_kinds(world: World, tmp_path: Path, name: str, level: str | None, action: str) -> None:
    """A kind of server is seen in the log as Postfix sees it."""
    path = tmp_path / "mail.log"
    write_mail_log(World(0), path, messages=0)
    assert path.read_bytes() == b""
    alone = World(0)
    alone.domains[name] = world.domains[name]
    write_mail_log(alone, path, messages=1)
    first = read_logs(path, timezone="UTC", year=2026, progress=False).iloc[0]
    assert first["action"] == action
    assert (None if pd.isna(first["tls_level"]) else first["tls_level"]) == level


def test_the_same_seed_writes_the_same_log(world: World, tmp_path: Path) -> None:
    """The log depends on world, size and seed alone."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_mail_log(world, tmp_path / name, messages=50, seed=seed)
    texts = [(tmp_path / name).read_bytes() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]
