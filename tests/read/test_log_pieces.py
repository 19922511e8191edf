"""Reading a Postfix log in pieces gives the table that reading it as a whole gives."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read import lines, log_engine, log_pieces, logs
from rtls_analysis.read.log_pieces import PiecewiseReading, Workers, read_piece
from rtls_analysis.read.logs import iter_logs, read_connections, read_logs
from rtls_analysis.schema import Table
from tests.benchmarks.logs import postfix_lines

Log = Callable[[str], Path]

LOGS = [
    "postfix-3.11.7/pf-default/mail.log",
    "postfix-3.11.7/pf-default/mail.iso.log",
    "postfix-3.11.7/pf-dane-enforce/maillog",
    "postfix-3.11.7/pf-danests-verbose/maillog",
    "postfix-3.11.7/pf-opportunistic/maillog",
    "postfix-3.10.13/pf310-dane/mail.log",
    "postfix-3.11.7/receiver-pf311relay/mail.log",
]


class InlineWorkers:
    """Workers of the same process: a piece is read when it is asked for."""

    def __init__(self, count: int) -> None:
        self.asked = 0

    def ask(self, text: bytes, state: Any, tables: Sequence[Table]) -> Future[Any]:
        result: Future[Any] = Future()
        result.set_result(read_piece(text, state, tables))
        self.asked += 1
        return result

    def __enter__(self) -> InlineWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[bool]]:
    """A function that sets the bytes of a block; gives whether each piece that was asked for could be used."""
    used: list[bool] = []
    fits = PiecewiseReading._fits

    def noting(self: PiecewiseReading, result: Any) -> bool:
        used.append(fits(self, result))
        return used[-1]

    def set_size(size: int) -> list[bool]:
        monkeypatch.setattr(lines, "BLOCK_BYTES", size)
        monkeypatch.setattr(log_pieces, "PIECE_BLOCKS", 2)
        monkeypatch.setattr(logs, "Workers", InlineWorkers)
        monkeypatch.setattr(PiecewiseReading, "_fits", noting)
        used.clear()
        return used

    return set_size


def assert_same(data: bytes | Path, **options: Any) -> None:
    """Both tables, and what is counted, do not depend on the number of workers."""
    options = {"timezone": "UTC", "year": 2026, **options}
    for read in (read_logs, read_connections):
        one, two = (
            read(io.BytesIO(data) if isinstance(data, bytes) else data, workers=workers, **options)
            for workers in (1, 2)
        )
        pd.testing.assert_frame_equal(two, one)
        assert counts(two) == counts(one)


def counts(frame: pd.DataFrame) -> dict[str, Any]:
    """The coverage of a frame, without samples."""
    coverage = dict(frame.attrs["coverage"])
    coverage["skipped"] = {reason: one["count"] for reason, one in coverage["skipped"].items()}
    return coverage


@pytest.mark.parametrize("size", [3_000, 20_000])
@pytest.mark.parametrize("name", LOGS)
def test_lab(name: str, size: int, lab_log: Log, small_pieces: Callable[[int], list[bool]]) -> None:
    """Logs of real servers, in pieces of a few seconds."""
    small_pieces(size)
    assert_same(lab_log(name))


def busy_log(count: int, *, field: bool = True, seed: int = 1) -> bytes:
    """So many lines of the benchmark's log."""
    made = postfix_lines(seed, field=field)
    return b"".join(
        b"Nov 23 %02d:%02d:%02d mail %s\n"
        % (n // 36_000 % 24, n // 600 % 60, n // 10 % 60, next(made).encode())
        for n in range(count)
    )


@pytest.mark.parametrize(("size", "field"), [(2_000, True), (16_000, False), (16_000, True)])
def test_busy(size: int, field: bool, small_pieces: Callable[[int], list[bool]]) -> None:
    """A busy server's log: most pieces are read apart, and most rows come from them."""
    used = small_pieces(size)
    assert_same(busy_log(6_000, field=field))
    assert sum(used) > len(used) * 3 // 4
    assert len(used) > 10


def test_real_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of their own read pieces, in a script as well as here, and go when we do."""
    monkeypatch.setattr(lines, "BLOCK_BYTES", 50_000)
    path = tmp_path / "mail.log"
    path.write_bytes(busy_log(8_000))
    assert_same(path)
    parts = iter_logs(path, timezone="UTC", year=2026, workers=3)
    next(parts)
    parts.close()  # type: ignore[attr-defined]


def test_a_worker_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker that has died was to read, we read."""

    class Dying(Workers):
        def ask(self, text: bytes, state: Any, tables: Sequence[Table]) -> Any:
            self._processes[0].kill()
            return super().ask(text, state, tables)

    monkeypatch.setattr(lines, "BLOCK_BYTES", 50_000)
    monkeypatch.setattr(logs, "Workers", Dying)
    assert_same(busy_log(5_000))


# -- made to go wrong -----------------------------------------------------------------------------------------

IDS = [b"4F1AA12345", b"5F1AA12345", b"6F1AA12345"]
RELAYS = [b"mx1.b.test[192.0.2.1]:25", b"mx2.b.test[192.0.2.2]:25", b"none"]


def _line(host: int, tag: bytes, pid: int, text: bytes) -> bytes:
    return b"mail%d %s[%d]: %s" % (host, tag, pid, text)


ids = st.sampled_from(IDS)
hosts = st.integers(1, 2).map(lambda n: 1 if n == 1 else 2)
clients = st.sampled_from([b"postfix/smtp", b"postfix/lmtp", b"out/smtp"])
managers = st.sampled_from([b"postfix/qmgr", b"out/qmgr"])
pids = st.integers(1, 2)
common = st.one_of(
    st.builds(lambda h, q: _line(h, b"postfix/cleanup", 1, q + b": message-id=<" + q + b"@a>"), hosts, ids),
    st.builds(lambda h, t, q: _line(h, t, 1, q + b": from=<s@a>, size=1, nrcpt=1 (queue active)"), hosts, managers, ids),
    st.builds(lambda h, t, q: _line(h, t, 1, q + b": removed"), hosts, managers, ids),
    st.builds(lambda h, t, p, r: _line(h, t, p, b"Trusted TLS connection established to %s: TLSv1.3 with cipher X" % r),
              hosts, clients, pids, st.sampled_from(RELAYS)),
    st.builds(lambda h, t, p, q, r: _line(h, t, p, q + b": to=<r@b>, relay=%s, delay=1, delays=0/0/0/1, dsn=2.0.0, "
              b"status=sent (250 ok)" % r), hosts, clients, pids, ids, st.sampled_from(RELAYS)),
    st.builds(lambda h, t, p, q, r: _line(h, t, p, q + b": to=<%s@b>, relay=mx1.b.test[192.0.2.1]:25, delay=1, "
              b"delays=0/0/0/1, tls=!dane, dsn=4.7.5, status=deferred (Server certificate not verified)" % r),
              hosts, clients, pids, ids, st.sampled_from([b"r", b"q"])),
    st.builds(lambda h, p, r: _line(h, b"postfix/smtp", p, b"SSL_connect error to %s: lost connection" % r),
              hosts, pids, st.sampled_from(RELAYS[:2])),
)  # fmt: skip
rare = st.one_of(
    st.builds(lambda h, q: _line(h, b"postfix/qmgr", 1, q + b": from=<s@a>, status=expired, returned to sender"), hosts, ids),
    st.builds(lambda h, p, q: _line(h, b"postfix/smtp", p, q + b": Cannot start TLS: handshake failure"), hosts, pids, ids),
    st.just(_line(1, b"postfix/smtpd", 1, b"NOQUEUE: hold: RCPT from c[1]: x; from=<s@a> to=<r@b> proto=ESMTP")),
    st.builds(lambda q: _line(1, b"postfix/smtpd", 1, q + b": client=c[1]"), ids),
    st.builds(lambda q: _line(1, b"postfix/postsuper", 1, q + b": removed"), ids),
    st.builds(lambda q: _line(1, b"postfix/cleanup", 1, q + b": milter-hold: x"), ids),
    st.just(_line(1, b"sshd", 1, b"hello")),
    st.just(b"mail1 last message repeated 2 times"),
    st.builds(lambda q: _line(1, b"postfix/smtp", 1, b"message repeated 2 times: [ " + q + b": to=<r@b>, relay=none, "
              b"delay=1, delays=0/0/0/1, dsn=4.0.0, status=deferred (x)]"), ids),
    st.just(b"sm-mta[1]: 5ANGWAxx000005: to=<a@b.test>, delay=00:00:01, relay=mx.b.test. [192.0.2.1], stat=Sent (ok)"),
    st.just(_line(1, b"postfix/smtp", 1, b"warning: TLS library problem: error:1:SSL routines::unsupported protocol:x")),
)  # fmt: skip
stamps = st.sampled_from(
    [b"Nov 23 10:00:00 "] * 12 + [b"Dec 31 10:00:00 ", b"Jan  1 10:00:00 ", b"Oct 25 01:30:00 "]
)
lines_made = st.lists(st.tuples(stamps, st.one_of(*[common] * 9, rare)), min_size=5, max_size=80)


def assert_same_in_pieces(data: bytes, size: int, zone: str, generation: int) -> None:
    """The same, in small blocks, with processes forgotten after so many lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", size)
        patch.setattr(log_pieces, "PIECE_BLOCKS", 2)
        patch.setattr(logs, "Workers", InlineWorkers)
        patch.setattr(log_engine, "GENERATION", generation)
        patch.setattr(log_pieces, "GENERATION", generation)
        assert_same(b"Nov 23 09:00:00 mail1 postfix/qmgr[9]: 9F1AA12345: removed\n" + data, timezone=zone)


@settings(max_examples=100, deadline=None)
@given(lines_made, st.integers(100, 1_500), st.sampled_from(["UTC", "Europe/Lisbon"]), st.integers(4, 60))
def test_any_lines(made: list[tuple[bytes, bytes]], size: int, zone: str, generation: int) -> None:
    """Lines of every kind in any order: ids used again, several instances and hosts, New Years, holds."""
    assert_same_in_pieces(b"".join(stamp + line + b"\n" for stamp, line in made), size, zone, generation)


attempts = st.tuples(pids, st.sampled_from(RELAYS), st.booleans(), st.integers(0, 3))
messages = st.tuples(hosts, ids, clients, st.lists(attempts, max_size=3), st.integers(0, 9))


def life(
    host: int, queue_id: bytes, client: bytes, tries: list[tuple[int, bytes, bool, int]], fate: int
) -> list[bytes]:
    """The lines of a message's life; a `fate` of 0 or 1 leaves out its end or its beginning."""
    made = [
        _line(host, b"postfix/cleanup", 1, queue_id + b": message-id=<%d@a>" % fate),
        _line(host, b"postfix/qmgr", 1, queue_id + b": from=<s%d@a>, size=1, nrcpt=1 (queue active)" % fate),
    ]
    for pid, relay, tls, how in tries:
        if tls:
            made.append(
                _line(
                    host,
                    client,
                    pid,
                    b"Trusted TLS connection established to %s: TLSv1.3 with cipher X" % relay,
                )
            )
        if how == 3:
            said = (
                b"Cannot start TLS: handshake failure"
                if fate % 2
                else b"REQUIRETLS support was not offered by host %s" % relay
            )
            made.append(_line(host, client, pid, queue_id + b": " + said))
        status = b"dsn=4.0.0, status=deferred (x)" if how == 2 else b"dsn=2.0.0, status=sent (250 ok)"
        made.append(
            _line(
                host,
                client,
                pid,
                queue_id + b": to=<r%d@b>, relay=%s, delay=1, delays=0/0/0/1, %s" % (how, relay, status),
            )
        )
        if how == 1:
            made.append(made[-1].replace(b"r1@b", b"q@b"))
    made.append(_line(host, b"postfix/qmgr", 1, queue_id + b": removed"))
    return made[1:] if fate == 1 else made[:-1] if fate == 0 else made


@settings(max_examples=100, deadline=None)
@given(
    st.lists(messages, min_size=4, max_size=25),
    st.randoms(use_true_random=False),
    st.integers(500, 2_500),
    st.integers(20, 200),
    st.lists(st.tuples(st.integers(0, 100), rare), max_size=2),
)
def test_any_interleaving(
    made: list[Any], dice: Any, size: int, generation: int, noise: list[tuple[int, bytes]]
) -> None:
    """Lives of messages, interleaved at random by processes that serve one after the other, whole and in part."""
    lives = [life(*one) for one in made]
    flight, mixed = [], []
    while lives or flight:
        if lives and (not flight or (len(flight) < 4 and dice.random() < 0.3)):
            flight.append(lives.pop(0))
        one = dice.choice(flight)
        mixed.append(one.pop(0))
        if not one:
            flight.remove(one)
    for place, line in noise:
        mixed.insert(place, line)
    data = b"".join(b"Nov 23 10:00:%02d %s\n" % (number % 60, line) for number, line in enumerate(mixed))
    assert_same_in_pieces(data, size, "UTC", generation)
