"""Logs as a whole: any cut into rotated packed files, any order, noise, parts, output, coverage, the caller's errors."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtls_analysis.read import logs
from rtls_analysis.read.log_output import read_coverage
from rtls_analysis.read.log_summary import LogSummary, coverage_text
from rtls_analysis.read.logs import iter_logs, read_connections, read_logs, read_postfix, write_logs
from rtls_analysis.schema import CONNECTIONS, DELIVERIES, MailReader
from rtls_analysis.store import StoreProblem
from tests.benchmarks.logs import HOSTILE, hostile_line

Read = Callable[..., pd.DataFrame]
Log = Callable[[str], Path]

LAB = [
    "postfix-3.11.7/pf-default/mail.log",
    "postfix-3.11.7/pf-sts-enforce/mail.iso.log",
    "postfix-3.11.7/pf-danests-verbose/maillog",
    "postfix-3.10.13/pf310-dane/mail.log",
    "exim-4.100.1/exim-opp/mainlog",
    "exim-4.100.1/exim-reqtls/mail.log",
    "sendmail-8.18.2/sendmail-opp/mail.iso.log",
    "opensmtpd-7.9.0p0/opensmtpd-opp/mail.iso.log",
    "haraka-3.3.4/haraka-opp/haraka.log",
]
HEAD = b"Nov 23 16:32:10 mail "
SENT = (
    HEAD + b"postfix/smtp[7]: 4F1AA12345: to=<r@b.test>, relay=mx.b.test[192.0.2.1]:25, delay=1.5, "
    b"delays=0.1/0/1/0.4, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as X)\n"
)


def _zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


PACKERS = [
    ("", bytes),
    (".gz", gzip.compress),
    (".xz", lzma.compress),
    (".bz2", bz2.compress),
    (".zst", _zstd),
]


def without_place(frame: pd.DataFrame) -> pd.DataFrame:
    """All but the columns that say where a line stood."""
    return frame.drop(columns=["source_file", "line_number"])


# -- cut and packed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["deliveries", "connections"])
@pytest.mark.parametrize("name", LAB)
def test_any_cut_gives_the_same_table(name: str, table: str, lab_log: Log, tmp_path: Path) -> None:
    """Cut at any byte into rotated packed files, a log reads as the whole does."""
    read = read_connections if table == "connections" else read_logs
    whole = read(lab_log(name), timezone="UTC", year=2026)
    data = lab_log(name).read_bytes()
    dice = random.Random(name)
    for trial in range(3):
        cuts = sorted(dice.randrange(len(data)) for _ in range(trial + 1))
        pieces = [data[begin:end] for begin, end in pairwise([0, *cuts, len(data)])]
        folder = tmp_path / str(trial)
        folder.mkdir()
        for age, piece in enumerate(reversed(pieces)):
            ending, pack = PACKERS[dice.randrange(len(PACKERS))]
            (folder / f"mail.log{'' if age == 0 else f'.{age}'}{ending}").write_bytes(pack(piece))
        cut = read(folder, timezone="UTC", year=2026)
        pd.testing.assert_frame_equal(without_place(cut), without_place(whole))
        before, after = whole.attrs["coverage"], cut.attrs["coverage"]
        assert before["understood"] == after["understood"]
        assert {reason: one["count"] for reason, one in before["skipped"].items()} == {
            reason: one["count"] for reason, one in after["skipped"].items()
        }


def test_places_after_a_cut(tmp_path: Path) -> None:
    """A row names the file in which its line began, and the number of the line there."""
    (tmp_path / "mail.log.1").write_bytes(SENT + SENT[:40])
    (tmp_path / "mail.log").write_bytes(SENT[40:] + SENT)
    frame = read_logs(tmp_path, timezone="UTC", year=2026)
    places = zip(frame["source_file"], frame["line_number"], strict=True)
    assert [(Path(file).name, number) for file, number in places] == [
        ("mail.log.1", 1), ("mail.log.1", 2), ("mail.log", 2),
    ]  # fmt: skip


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` is standard input."""

    class Input:
        buffer = io.BufferedReader(io.BytesIO(SENT))  # type: ignore[arg-type]

    monkeypatch.setattr(sys, "stdin", Input)
    frame = read_logs("-", timezone="UTC", year=2026)
    assert (len(frame), frame["source_file"].tolist()) == (1, ["-"])


# -- several servers, noise -----------------------------------------------------------------------------------


def test_several_servers_in_one_file(lab_log: Log, tmp_path: Path) -> None:
    """Lines of all servers, mixed at random, give each server's rows as its own log does."""
    dice = random.Random(1)
    alone, queues = {}, []
    for name in LAB:
        alone[name] = read_logs(lab_log(name), timezone="UTC", year=2026)
        queues.append(list(reversed(lab_log(name).read_bytes().splitlines(keepends=True))))
    mixed = []
    while queues:
        queue = dice.choice(queues)
        mixed.append(queue.pop())
        if not queue:
            queues.remove(queue)
    path = tmp_path / "mixed.log"
    path.write_bytes(b"".join(line.rstrip(b"\n") + b"\n" for line in mixed))
    frame = read_logs(path, timezone="UTC", year=2026)
    for mta in ("haraka", "opensmtpd", "sendmail"):
        name = next(one for one in LAB if one.startswith(mta))
        own = without_place(frame[frame["mta"] == mta]).reset_index(drop=True)
        pd.testing.assert_frame_equal(own, without_place(alone[name]))
    expected = sum(len(one) for one in alone.values())
    assert len(frame) == expected


def test_only_one_server(lab_log: Log) -> None:
    """`read_postfix` and its kin pass over all others' lines; an unknown name is the caller's error."""
    name = lab_log("exim-4.100.1/exim-opp/mainlog")
    assert len(read_postfix(name, timezone="UTC", year=2026)) == 0
    assert len(logs.read_exim(name, timezone="UTC", year=2026)) > 0
    with pytest.raises(ValueError, match="no reader for 'sendmial': there are auto, postfix"):
        read_logs(name, mta="sendmial")


@pytest.mark.parametrize("mta", list(MailReader))
def test_a_function_for_each(mta: str, tmp_path: Path) -> None:
    """Each reader of the table has its function, with a name and a meaning."""
    path = tmp_path / "empty.log"
    path.write_bytes(b"")
    function = getattr(logs, f"read_{mta}")
    assert function.__name__ == f"read_{mta}"
    assert mta in function.__doc__
    frame = function(path, timezone="UTC")
    assert list(frame.columns) == DELIVERIES.names()


def test_message_repeated(read_text: Read) -> None:
    """Syslog folds equal lines in two ways: of either, each counts."""
    text = SENT.removeprefix(HEAD)
    tag, _, said = text.rstrip(b"\n").partition(b"]: ")
    new = read_text(SENT + HEAD + tag + b"]: message repeated 2 times: [ " + said + b"]\n")
    assert (len(new), new["line_number"].tolist()) == (3, [1, 2, 2])
    old = read_text(
        SENT + HEAD.replace(b"mail", b"other") + b"kernel: x\n" + HEAD + b"last message repeated 2 times\n"
    )
    assert len(old) == 3
    coverage = new.attrs["coverage"]
    assert (coverage["lines_read"], coverage["lines_repeated"], coverage["lines_matched"]) == (2, 1, 3)
    assert coverage["understood"]["postfix delivery"] == 3
    endless = read_text(SENT + HEAD + tag + b"]: message repeated 999999999 times: [ " + said + b"]\n")
    assert len(endless) == 1_001
    assert endless.attrs["coverage"]["warnings"]
    assert len(read_text(HEAD + b"last message repeated 2 times\n")) == 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda line: b"mail-1  | " + line,
        lambda line: b"<22>" + line,
        lambda line: b"\0\0\0" + line,
        lambda line: b"\xef\xbb\xbf" + line,
        lambda line: line.replace(b"\n", b"\r\n"),
        lambda line: line.replace(b"Nov 23 16:32:10 mail", b"2026-11-23T16:32:10+00:00 mail"),
        lambda line: line.replace(b"Nov 23 16:32:10", b"Nov 23 16:32:10.000000"),
        lambda line: line.replace(b"]: ", b"]: [ID 197553 mail.info] ", 1),
        lambda line: line.replace(b" mail ", b" <mail.info> mail "),
        lambda line: b"2026-11-23T16:32:10.5Z stdout F " + line,
        lambda line: json.dumps({"log": line.decode(), "stream": "stdout"}).encode() + b"\n",
        lambda line: json.dumps({
            "__REALTIME_TIMESTAMP": "1795451530000000", "_HOSTNAME": "mail", "SYSLOG_IDENTIFIER": "postfix/smtp",
            "_PID": "7", "MESSAGE": line.decode().partition("]: ")[2].rstrip(),
        }).encode() + b"\n",
    ],
)  # fmt: skip
def test_noise(wrap: Callable[[bytes], bytes], read_text: Read) -> None:
    """In whatever a line is wrapped, the row is the same."""
    expected = read_text(SENT)
    pd.testing.assert_frame_equal(read_text(wrap(SENT)), expected)


def test_lost_lines_are_a_warning(read_text: Read) -> None:
    """A rate limit means that attempts are missing."""
    frame = read_text(SENT + HEAD + b"rsyslogd: imuxsock lost 46 messages from pid 7 due to rate-limiting\n")
    assert "rate limit" in frame.attrs["coverage"]["warnings"][0]


# -- any bytes ------------------------------------------------------------------------------------------------

LINES = [
    SENT,
    HEAD + b"postfix/qmgr[8]: 4F1AA12345: removed\n",
    HEAD + b"postfix/cleanup[9]: 4F1AA12345: message-id=<1@a.test>\n",
    HEAD + b"postfix/smtp[7]: Trusted TLS connection established to mx.b.test[192.0.2.1]:25: TLSv1.3 with cipher X\n",
    b"2026-11-23 16:32:23 1xVWyA-000000000Aa-0001 => a@b.test R=r T=t H=mx.b.test [192.0.2.1] C=\"250 ok\"\n",
    b"2026-11-23T16:32:23.5Z [INFO] [A1B2C3D4-0000-0000-0000-000000000000.1.1] [outbound] secured verified=true\n",
    HEAD + b"sm-mta[5]: 5ANGWAxx000005: to=<a@b.test>, delay=00:00:01, relay=mx.b.test. [192.0.2.1], stat=Sent (ok)\n",
    b"#Fields: date-time,client-ip,event-id\n",
    b"@4000000065a1b2c31d2e3f40 starting delivery 1: msg 7 to remote a@b.test\n",
    b"l=info m=\"delivered from queue\" pkg=queue cid=1\n",
    HEAD + b"last message repeated 3 times\n",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LINES), st.integers(0, 200), st.binary(max_size=4)), max_size=12))
def test_any_bytes_any_order(lines: list[tuple[bytes, int, bytes]]) -> None:
    """Whatever is done to lines, in whichever order, nothing raises, and every line is counted once."""
    data = b"".join(line[:place] + noise + line[place:] for line, place, noise in lines).lstrip(
        b"\xff\xfe\x1f\xef(]B"
    )
    frame = read_logs(io.BytesIO(data), timezone="Europe/Berlin", year=2026)
    coverage = frame.attrs["coverage"]
    counted = sum(coverage["understood"].values()) + sum(one["count"] for one in coverage["skipped"].values())
    assert counted == coverage["lines_read"] + coverage["lines_repeated"]
    assert len(read_connections(io.BytesIO(data), timezone="UTC", year=2026)) >= 0


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_lines(kind: str, read_text: Read) -> None:
    """A line of most of a megabyte, made to be tried in many ways, is read like any other."""
    line = hostile_line(kind, 700_000)
    for table in ("deliveries", "connections"):
        assert read_text(line, table=table).attrs["coverage"]["lines_read"] == 1


# -- parts and files ------------------------------------------------------------------------------------------


def many(count: int) -> bytes:
    """So many deliveries, the TLS line of the program in the middle."""
    lines = [SENT.replace(b"4F1AA12345", b"%010X" % number) for number in range(count)]
    lines.insert(count // 2, LINES[3])
    return b"".join(lines)


def test_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Parts are of one size, and together they are the whole; what was read so far is told with each."""
    monkeypatch.setattr(logs, "PART_ROWS", 100)
    path = tmp_path / "mail.log"
    path.write_bytes(many(350))
    parts = list(iter_logs(path, timezone="UTC", year=2026))
    assert [len(part) for part in parts] == [100, 100, 100, 50]
    whole = read_logs(path, timezone="UTC", year=2026)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    # A program that is first seen to log TLS in the second part is not known to in the first.
    levels = whole["tls_level"].tolist()
    assert levels == ["unknown"] * 100 + ["none"] * 75 + ["trusted"] + ["none"] * 174
    assert parts[0].attrs["coverage"]["rows"] == {"deliveries": 100}
    assert parts[-1].attrs["coverage"] == whole.attrs["coverage"]
    assert [len(part) for part in iter_logs(path, table="connections", timezone="UTC", year=2026)][-1] >= 0
    with pytest.raises(ValueError, match="no table 'bounces'"):
        iter_logs(path, table="bounces")


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_write_logs(ending: str, lab_log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files written part by part hold the table, and a Parquet file the coverage as well."""
    monkeypatch.setattr(logs, "PART_ROWS", 64)
    source = lab_log("postfix-3.11.7/pf-opportunistic/maillog")
    one, two = tmp_path / f"d.{ending}", tmp_path / f"c.{ending}"
    summary, coverage = write_logs(source, one, two, timezone="UTC", year=2026)
    whole = read_logs(source, timezone="UTC", year=2026)
    connections = read_connections(source, timezone="UTC", year=2026)
    assert coverage["rows"] == {"deliveries": len(whole), "connections": len(connections)}
    if ending == "parquet":
        assert pq.read_schema(one).remove_metadata() == DELIVERIES.arrow_schema
        assert pq.read_schema(two).remove_metadata() == CONNECTIONS.arrow_schema
        assert pq.read_table(one)["recipient"].to_pylist() == whole["recipient"].tolist()
        assert read_coverage(one) == json.loads(json.dumps(coverage))
    else:
        frame = pd.read_csv(one) if ending == "csv" else pd.read_json(one, lines=True)
        assert frame["recipient"].tolist() == whole["recipient"].tolist()
        assert list(frame.columns) == DELIVERIES.names()
    assert summary.attempts == whole["attempted"].sum()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([one.name, two.name])


def test_write_where_it_cannot(tmp_path: Path) -> None:
    """A file of another ending is the caller's error, and leaves nothing behind."""
    (tmp_path / "mail.log").write_bytes(SENT)
    with pytest.raises(StoreProblem, match=r"ends in .parquet, .csv or .jsonl"):
        write_logs(tmp_path / "mail.log", tmp_path / "d.txt", timezone="UTC")
    assert [path.name for path in tmp_path.iterdir()] == ["mail.log"]


def test_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before an interruption is kept."""
    monkeypatch.setattr(logs, "PART_ROWS", 100)
    (tmp_path / "mail.log").write_bytes(many(250))
    added = LogSummary.add

    def interrupt(self: LogSummary, part: pd.DataFrame) -> None:
        added(self, part)
        if self.attempts == 200:
            raise KeyboardInterrupt

    monkeypatch.setattr(LogSummary, "add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_logs(tmp_path / "mail.log", tmp_path / "d.parquet", timezone="UTC", year=2026)
    assert pq.read_table(tmp_path / "d.parquet").num_rows == 100
    assert read_coverage(tmp_path / "d.parquet")["rows"] == {"deliveries": 200}


# -- coverage, errors -----------------------------------------------------------------------------------------


def test_coverage(read_text: Read) -> None:
    """Lines are counted by what was made of them, with a few samples of those that gave nothing."""
    other = b"".join(HEAD + b"sshd[%d]: hello\n" % number for number in range(5))
    frame = read_text(SENT + other + b"no log line\n\n" + b"x" * (2 << 20) + b"\n")
    coverage = frame.attrs["coverage"]
    assert coverage["lines_read"] == 9
    assert coverage["lines_matched"] == 1
    assert coverage["understood"] == {"postfix delivery": 1}
    skipped = {reason: one["count"] for reason, one in coverage["skipped"].items()}
    assert skipped == {
        "another program": 5, "not a log line of a known form": 1, "empty line": 1, "longer than 1 MiB": 1,
    }  # fmt: skip
    assert len(coverage["skipped"]["another program"]["samples"]) == 3
    assert coverage["time"]["timezone"] == "UTC"
    assert json.loads(json.dumps(coverage)) == coverage
    text = coverage_text(coverage)
    assert "9 lines read, 1 of mail servers we know" in text
    assert "5 skipped: another program" in text


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    """A file that cannot be read to its end gives what it has; the coverage says which and why."""
    (tmp_path / "mail.log.1.gz").write_bytes(gzip.compress(SENT * 3_000)[:-20])
    (tmp_path / "mail.log").write_bytes(SENT)
    frame = read_logs(tmp_path, timezone="UTC", year=2026)
    assert 1 < len(frame) <= 3_001
    ((name, why),) = frame.attrs["coverage"]["unreadable_files"].items()
    assert name.endswith("mail.log.1.gz")
    assert "EOFError" in why


def test_errors_of_the_caller(tmp_path: Path) -> None:
    """What cannot be done is said at once."""
    (tmp_path / "mail.log").write_bytes(SENT)
    with pytest.raises(ValueError, match="no time zone"):
        read_logs(tmp_path, timezone="Mars/Olympus")
    with pytest.raises(ValueError, match="no year 20260"):
        read_logs(tmp_path, year=20260)
    with pytest.raises(FileNotFoundError):
        read_logs(tmp_path / "other.log")


def test_summary(read_text: Read) -> None:
    """An operator sees attempts, TLS levels, REQUIRETLS, and who fails and why."""
    failed = SENT.replace(b"dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as X)", b"tls=!dane/!requiretls:nostarttls, "
                          b"dsn=5.7.30, status=bounced (Sender requested REQUIRETLS, but TLS service was not offered by "
                          b"host mx.b.test[192.0.2.1])")  # fmt: skip
    summary = LogSummary()
    summary.add(
        read_text(
            SENT * 3 + failed * 2 + HEAD + b"postfix/qmgr[1]: 4F1AA12345: from=<a>, status=expired, x\n"
        )
    )
    text = str(summary)
    assert "5 delivery attempts" in text
    assert "1 ends without a try" in text
    assert "2  40.0%  no_starttls" in text
    assert "b.test: 2 of 5 attempts failed" in text
    assert "2 starttls_not_supported: Sender requested REQUIRETLS" in text
    assert str(LogSummary()) == "No delivery attempts."


def test_summary_of_many_destinations(monkeypatch: pytest.MonkeyPatch, read_text: Read) -> None:
    """However many destinations fail, those that fail most are kept."""
    monkeypatch.setattr("rtls_analysis.read.log_summary.MAX_DESTINATIONS", 10)
    failed = SENT.replace(b"dsn=2.0.0, status=sent", b"dsn=4.0.0, status=deferred")
    summary = LogSummary()
    for part in range(5):
        lines = [failed.replace(b"b.test>", b"d%d-%d.test>" % (part, number)) for number in range(4)]
        summary.add(read_text(b"".join(lines) + failed * 2))
    assert len(summary.failures) <= 10
    assert "b.test: 10 of 10" in str(summary)
