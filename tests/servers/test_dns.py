"""The resolver's reading of unbound, which validates really signed zones."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.world import RESOLVER

if TYPE_CHECKING:
    from tests.servers.conftest import RunningWorld

ASK = """
import asyncio, json, sys
from dataclasses import asdict
from rtls_analysis.scanner.resolver import Resolver

async def main(server, questions):
    async with Resolver(server) as resolver:
        check = await resolver.check()
        answers = await asyncio.gather(*(resolver.ask(name, rdtype) for name, rdtype in questions))
    json.dump([asdict(check), *(asdict(answer) for answer in answers)], sys.stdout)

asyncio.run(main(*json.load(sys.stdin)))
"""

# what is asked, and: status, security, canonical name, how many records, the reason in the detail
ANSWERS = [
    ("a signed MX", "ee.signed.test", "MX", "noerror secure ee.signed.test 1", ""),
    ("a signed address", "mx.ee.signed.test", "A", "noerror secure mx.ee.signed.test 1", ""),
    ("signed, no such type (NSEC3)", "mx.ee.signed.test", "AAAA", "nodata secure mx.ee.signed.test 0", ""),
    ("signed, no such name (NSEC3)", "_mta-sts.ee.signed.test", "TXT", "nxdomain secure - 0", ""),
    ("signed, no such name below the root", "nowhere", "MX", "nxdomain secure nowhere 0", ""),
    ("a signed alias", "mx.alias.signed.test", "A", "noerror secure mx.ee.signed.test 1", ""),
    ("the alias itself", "mx.alias.signed.test", "CNAME", "noerror secure mx.alias.signed.test 1", ""),
    ("a signed TLSA", "_25._tcp.mx.ee.signed.test", "TLSA", "noerror secure - 1", ""),
    ("a whole certificate in TLSA", "_25._tcp.mx.old-given.signed.test", "TLSA", "noerror secure - 1", ""),
    ("an alias out of the signed tree", "_25._tcp.mx.astray.signed.test", "TLSA", "noerror insecure * 1", ""),
    ("an unsigned MX", "enforce.plain.test", "MX", "noerror insecure enforce.plain.test 1", ""),
    ("unsigned, no such name", "nowhere.plain.test", "MX", "nxdomain insecure nowhere.plain.test 0", ""),
    ("expired signatures", "bad.broken.test", "MX", "bogus error * 0", "signature expired"),
    ("expired, a denial too", "nowhere.broken.test", "MX", "bogus error * 0", ""),
    ("changed after signing", "_25._tcp.mx.forged.signed.test", "TLSA", "bogus error * 0", "DNSSEC bogus"),
]


@pytest.fixture(scope="module")
def answers(world: RunningWorld) -> list[dict[str, Any]]:
    questions = [(name, rdtype) for _why, name, rdtype, _words, _reason in ANSWERS]
    given = json.dumps([RESOLVER, questions])
    done = world.run([sys.executable, "-c", ASK], stdin=given)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_unbound_validates(answers: list[dict[str, Any]]) -> None:
    """The root of this world is signed, and nothing else that is well known is in it."""
    assert answers[0] == {"trusted": True, "detail": "it validates: AD bit for ."}


@pytest.mark.parametrize("at", range(len(ANSWERS)), ids=[row[0] for row in ANSWERS])
def test_unbound_is_read_as_it_means(answers: list[dict[str, Any]], at: int) -> None:
    """Secure, insecure and bogus; records, no such records and no such name."""
    _why, name, rdtype, words, reason = ANSWERS[at]
    answer = answers[at + 1]
    status, security, canonical, records = words.split()
    assert (answer["name"], answer["rdtype"]) == (name, rdtype)
    assert (answer["status"], answer["security"], len(answer["records"])) == (status, security, int(records))
    assert canonical == "*" or answer["canonical"] == (name if canonical == "-" else canonical)
    assert reason in answer["detail"]
    assert bool(answer["detail"]) is (security == "error")
