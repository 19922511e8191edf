"""A scan that is cut off, in whatever way, goes on where it was: nothing lost, nothing done twice, nothing misread."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import rtls_analysis as rtls
from rtls_analysis import store
from rtls_analysis.lab import Lab
from rtls_analysis.scanner import campaign, contacts, engine, worker
from rtls_analysis.scanner.addresses import special_reason
from rtls_analysis.scanner.contacts import ScanStopped
from rtls_analysis.scanner.resolver import Resolver, ResolverProblem
from rtls_analysis.store import StoreProblem
from tests.lab.truth import differences, disagreements, rows_by_key
from tests.scanner.relays import DnsRelay, SocksProxy

Options = dict[str, Any]

PACED = {
    "own_addresses": True,
    "address_spacing": 0.02,
    "provider_spacing": 0.02,
    "prefix_spacing": 0.0,
    "prefix_at_once": 8,
    "pause": 0.1,
}
"""Manners that cost little time, and have those who push back visited again."""

SLOW = {**PACED, "prefix_spacing": 0.001}
"""Manners under which a scan takes some seconds, for all is one network, so that it can be cut off on its way."""


def of_many_kinds(lab: Lab, count: int) -> list[str]:
    """The lab's first domains, of many kinds, and some that push back; those that take their time are left out."""
    odd = ["unreachable.test", "busy.test", "greylist.test", "blocked.test", "closes-at-once.test"]
    return [*(domain for domain in lab.domains[:count] if domain != "silent.test"), *odd]


def with_manners(lab: Lab, manners: Options) -> Options:
    """The options of a scan of the lab under manners that hold for it too."""
    return {**lab.scan_options, "concurrency": 8, "manners": manners, "progress": False}


@pytest.fixture(scope="module")
def domains(lab: Lab) -> list[str]:
    return of_many_kinds(lab, 30)


@pytest.fixture(scope="module")
def options(lab: Lab) -> Options:
    return with_manners(lab, PACED)


@pytest.fixture(scope="module")
def slow(options: Options) -> Options:
    return {**options, "manners": SLOW}


@pytest.fixture(scope="module")
def undisturbed(domains: list[str], options: Options) -> rtls.Snapshot:
    return rtls.scan(domains, **options)


def lines_written(out: Path) -> int:
    """How many rows are in the journals of an unfinished scan."""
    return sum(path.read_bytes().count(b"\n") for path in (out / "_work").glob("*.jsonl"))


def wait_for(out: Path, lines: int, stop: Callable[[], bool] = lambda: False) -> None:
    """Wait until a scan that runs has written so many rows, or has ended."""
    until = time.monotonic() + 60
    while lines_written(out) < lines and not stop():
        assert time.monotonic() < until, "the scan does not get on"
        time.sleep(0.002)


def visits(snapshot: rtls.Snapshot) -> Counter[tuple[str, str]]:
    """Connections on record, by MX host and address."""
    probes = snapshot.attempts.query("purpose == 'probe'")
    return Counter(zip(probes["mx_host"], probes["address"], strict=True))


def visits_said(snapshot: rtls.Snapshot) -> Counter[tuple[str, str]]:
    """Connections as `sessions` counts them."""
    rows = rows_by_key(snapshot, "sessions")
    return Counter({key: row["attempts"] for key, row in rows.items() if row["attempts"]})


# -- again ---------------------------------------------------------------------------------------------------


def test_a_finished_scan_is_not_done_again(lab: Lab, tmp_path: Path) -> None:
    """The same call with the same directory gives the tables that are there: nobody is asked, no file is touched."""
    out, given = tmp_path / "scan", {**lab.scan_options, "progress": False}
    first = rtls.scan(lab.domains[:20], out, **given)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = rtls.scan(lab.domains[:20], out, **{**given, "resolver": "127.0.0.1:1"})  # where nobody answers
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert differences(first, again) == []
    assert again.is_complete
    assert not (out / "_work").exists()


OTHERS: list[tuple[str, Options, str]] = [
    ("another seed", {"seed": 7}, "seed"),
    ("another port", {"smtp_port": 26}, "smtp port"),
    ("others that opted out", {"opt_out": ["x.test"]}, "opt out"),
    ("other roots", {"ca_file": None}, "roots sha256"),
]


@pytest.mark.parametrize(("change", "word"), [pytest.param(c, w, id=why) for why, c, w in OTHERS])
def test_the_directory_of_another_scan_is_refused(
    lab: Lab, tiny: rtls.Snapshot, change: Options, word: str
) -> None:
    """One line says in what the scans differ; the tables that are there stay."""
    given = {**lab.scan_options, "progress": False, **change}
    with pytest.raises(StoreProblem, match=rf"another scan \(different {word}\); give a new directory"):
        rtls.scan(lab.domains[:20], tiny.path, **given)
    assert tiny.path is not None
    assert differences(tiny, rtls.open_snapshot(tiny.path)) == []


def test_other_domains_are_another_scan(lab: Lab, tiny: rtls.Snapshot, tmp_path: Path) -> None:
    """So are the same ones with ranks; a directory of something else is none at all."""
    for domains in (lab.domains[:19], [(name, 1) for name in lab.domains[:20]]):
        with pytest.raises(StoreProblem, match="holds another scan"):
            rtls.scan(domains, tiny.path, progress=False, **lab.scan_options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(StoreProblem, match="is no snapshot"):
        rtls.scan(lab.domains[:3], tmp_path / "mine", progress=False, **lab.scan_options)


# -- interrupted ---------------------------------------------------------------------------------------------


class Suddenly:
    """A function that is as it was `after` so many calls, and then another."""

    def __init__(self, one: Callable[..., Any], other: Callable[..., Any], *, after: int) -> None:
        self.one, self.other, self.left = one, other, after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        return (self.one if self.left >= 0 else self.other)(*args, **kwargs)


@contextlib.contextmanager
def interrupt_after(rows: int) -> Iterator[None]:
    """Send this process an interrupt, as Ctrl-C does, when a scan in it has written so many rows."""
    write = store._write_all

    def interrupt(file: Any, data: bytes) -> None:
        patch.undo()
        os.kill(os.getpid(), signal.SIGINT)
        write(file, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_write_all", Suddenly(write, interrupt, after=rows))
        yield


def test_an_interrupt_keeps_what_was_done(
    domains: list[str], slow: Options, undisturbed: rtls.Snapshot, tmp_path: Path
) -> None:
    """Ctrl-C ends a scan with a snapshot of all that is done; the same call goes on, and visits nobody again."""
    out = tmp_path / "scan"
    words = rf"after [\d,]+ of 34 domains; .*{out.name}.* resumes"
    with interrupt_after(100), pytest.raises(rtls.ScanInterrupted, match=words) as caught:
        rtls.scan(domains, out, **slow)
    held = caught.value.snapshot
    assert held.manifest["state"] == "interrupted"
    assert 0 < len(held.sessions) < len(undisturbed.sessions)
    assert 0 < len(held.domains) < len(domains)
    done = rows_by_key(held, "domains")
    whole = rows_by_key(undisturbed, "domains")
    assert all(row["obstacle"] == whole[key]["obstacle"] for key, row in done.items())
    assert differences(rtls.judge(held), held) == []

    resumed = rtls.scan(domains, out, **slow)
    assert resumed.is_complete
    assert differences(resumed, undisturbed) == []
    assert visits(resumed) == visits_said(resumed)
    assert rtls.audit(resumed).empty


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cancellation_keeps_what_was_done(
    domains: list[str], slow: Options, undisturbed: rtls.Snapshot, tmp_path: Path, workers: int
) -> None:
    """Cancelled from async code it stores what it has before the cancellation is passed on, its processes too."""
    out, given = tmp_path / "scan", {**slow, "workers": workers}

    async def cancel() -> None:
        scanning = asyncio.ensure_future(rtls.scan_async(domains, out, **given))
        while lines_written(out) < 90 and not scanning.done():
            await asyncio.sleep(0.005)
        scanning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await scanning

    asyncio.run(cancel())
    held = rtls.open_snapshot(out)
    assert held.manifest["state"] == "interrupted"
    assert len(held.hosts) > 0
    resumed = rtls.scan(domains, out, **given)
    assert differences(resumed, undisturbed) == []
    assert visits(resumed) == visits_said(resumed)


def test_an_interrupted_scan_in_memory_hands_over_what_it_has(domains: list[str], slow: Options) -> None:
    """Without a directory the exception's snapshot is all there is of it."""
    words = r"^interrupted after [\d,]+ of 34 domains$"
    with interrupt_after(100), pytest.raises(rtls.ScanInterrupted, match=words) as caught:
        rtls.scan(domains, **slow)
    assert caught.value.snapshot.path is None
    assert len(caught.value.snapshot.hosts) > 0


# -- killed --------------------------------------------------------------------------------------------------


@pytest.fixture
def command(domains: list[str], slow: Options, tmp_path: Path) -> list[str]:
    """The command line of the scan, its directory last."""
    return scan_command(domains, slow, tmp_path)


def scan_command(domains: list[str], options: Options, folder: Path) -> list[str]:
    (folder / "list").write_text("\n".join(domains))
    tables = "".join(
        f"[{table}]\n" + "".join(f"{k} = {str(v).lower()}\n" for k, v in options[table].items())
        for table in ("timeouts", "manners")
    )
    (folder / "scan.toml").write_text(tables)
    words = [sys.executable, "-m", "rtls_analysis.cli", "scan", "-i", str(folder / "list"), "--quiet"]
    words += ["--config", str(folder / "scan.toml")]
    for name in ("resolver", "smtp_port", "https_port", "ca_file", "ehlo_name", "contact", "concurrency"):
        words += [f"--{name.replace('_', '-')}", str(options[name])]
    for network in options["allow_special"]:
        words += ["--allow-special", network]
    return [*words, "-o", str(folder / "scan")]


def kill_at(command: list[str], out: Path, lines: int, seconds: float = 0.0) -> None:
    """Start a scan, and kill it at once when it has written so many rows."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        wait_for(out, lines, lambda: process.poll() is not None)
        time.sleep(seconds)
    finally:
        process.kill()
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()


def test_kills_lose_nothing_and_repeat_nothing(
    domains: list[str], options: Options, command: list[str], tmp_path: Path
) -> None:
    """Killed while resolving, planning and contacting, the same command comes to the tables of an undisturbed run.

    A proxy counts the connections that were really made: the kills repeat only what was in flight.
    """
    rng, out = random.Random(3), tmp_path / "scan"
    with SocksProxy() as proxy:
        by_proxy = {**options, "proxy": proxy.url}
        whole = rtls.scan(domains, **by_proxy)
        once = proxy.connections.copy()
        proxy.connections.clear()
        moments = [
            3,
            rng.randrange(20, 34),
            rng.randrange(40, 60),
            rng.randrange(70, 90),
            rng.randrange(100, 140),
        ]
        for moment in moments:
            kill_at([*command, "--proxy", proxy.url], out, moment, rng.random() / 20)
        subprocess.run([*command, "--proxy", proxy.url], check=True)
        resumed = rtls.open_snapshot(out)
        assert resumed.is_complete
        assert differences(resumed, whole) == []
        assert proxy.connections.keys() == once.keys()
        assert (proxy.connections - once).total() <= options["concurrency"] * len(moments)
    again = visits(resumed) - visits_said(resumed)
    assert again.total() <= len(moments)  # a row of the record, and the kill came before that of the session
    assert visits_said(resumed) == visits_said(whole)
    assert rtls.audit(resumed).empty


def test_kills_of_a_scan_with_workers(undisturbed: rtls.Snapshot, command: list[str], tmp_path: Path) -> None:
    """Worker processes end with the scan that started them, and leave nothing half done behind."""
    out = tmp_path / "scan"
    for moment in (20, 100):
        kill_at([*command, "--workers", "2"], out, moment)
    subprocess.run([*command, "--workers", "2"], check=True)
    resumed = rtls.open_snapshot(out)
    assert differences(resumed, undisturbed) == []
    assert rtls.audit(resumed).empty


def test_a_kill_before_the_manifest(lab: Lab, tmp_path: Path) -> None:
    """A directory that was only just made is no obstacle to the same command."""
    (tmp_path / "scan" / "_work").mkdir(parents=True)
    (tmp_path / "scan" / "_work" / "lock").touch()
    (tmp_path / "scan" / "roots.pem").write_bytes(b"whatever")
    (tmp_path / "scan" / ".manifest.json.tmp").write_text('{"format": ')
    snapshot = rtls.scan(lab.domains[:3], tmp_path / "scan", progress=False, **lab.scan_options)
    assert disagreements(lab, snapshot, lab.domains[:3]) == []


LAST_MOMENTS = [
    ("all rows are in parts", "store.SnapshotWriter.replacement = kill"),
    ("the new table lies beside the old one", "store._hidden = calls(1, store._hidden)"),
    ("the old table is gone, the new one not in its place", "store._hidden = calls(2, store._hidden)"),
    ("one of two is in its place", "store._hidden = calls(3, store._hidden)"),
    ("the manifest says complete", "store.SnapshotWriter.drop_work = kill"),
]

_KILLED = """
import itertools, os, signal, sys
from rtls_analysis import store
from rtls_analysis.cli import main

def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def calls(count, function):
    numbers = itertools.count()
    return lambda *args: function(*args) if next(numbers) < count else kill()

{code}
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("code", [pytest.param(code, id=why) for why, code in LAST_MOMENTS])
def test_a_kill_while_a_scan_is_finished(lab: Lab, tmp_path: Path, code: str) -> None:
    """Cut off at any step of its last moments, a scan is finished by the same command."""
    few = [*lab.domains[:20], lab.domains[53]]
    words = scan_command(few, {**lab.scan_options, "manners": {}}, tmp_path)[3:]
    out = Path(words[-1])
    rtls.scan(tmp_path / "list", out, plan_only=True, progress=False, **lab.scan_options)
    killed = subprocess.run([sys.executable, "-c", _KILLED.format(code=code), *words])
    assert killed.returncode == -signal.SIGKILL
    snapshot = rtls.scan(tmp_path / "list", out, progress=False, **lab.scan_options)
    assert snapshot.is_complete
    assert disagreements(lab, snapshot, few) == []
    assert visits(snapshot) == visits_said(snapshot)


def test_workers_that_die(
    domains: list[str], slow: Options, undisturbed: rtls.Snapshot, tmp_path: Path
) -> None:
    """Processes that are killed by themselves end the run in one line; the same call goes on."""
    out, given = tmp_path / "scan", {**slow, "workers": 2}

    def kill() -> None:
        wait_for(out, 90)
        for pid in _workers():
            with contextlib.suppress(ProcessLookupError):  # the scan ends the others when one is dead
                os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(
        ScanStopped, match=r"a worker process of the scan died \(status -9\); run the same scan again"
    ):
        rtls.scan(domains, out, **given)
    thread.join()
    assert _workers() == []
    resume(domains, out, given, undisturbed)


def _workers() -> list[int]:
    """Worker processes that are our children now."""
    lists = (_read(path).split() for path in Path("/proc/self/task").glob("*/children"))
    children = map(int, itertools.chain.from_iterable(lists))
    return [pid for pid in children if b"scanner.worker" in _read(Path(f"/proc/{pid}/cmdline"))]


def _read(path: Path) -> bytes:
    """Read of a thread or a process what there is, which is nothing if it has ended meanwhile."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


# -- trouble of our own --------------------------------------------------------------------------------------


@contextlib.contextmanager
def impatience(*, until_back: float = 1.0) -> Iterator[None]:
    """Wait out trouble for a second, and give questions up soon: where trouble is to come, and only there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contacts, "PATIENCE", 1.0)
        patch.setattr(worker, "PATIENCE", until_back)
        patch.setattr(campaign, "Resolver", partial(Resolver, tries=(0.5, 0.5)))
        yield


def resume(domains: list[str], out: Path, options: Options, whole: rtls.Snapshot) -> rtls.Snapshot:
    """Go on with a scan, and see that it comes to the tables of an undisturbed one."""
    resumed = rtls.scan(domains, out, **options)
    assert resumed.is_complete
    assert differences(resumed, whole) == []
    return resumed


DISKS = [
    ("full", errno.ENOSPC, "no space left on device"),
    ("over quota", errno.EDQUOT, "disk quota exceeded"),
    ("read only", errno.EROFS, "read-only file system"),
]


@pytest.mark.parametrize(("number", "words"), [pytest.param(n, w, id=why) for why, n, w in DISKS])
def test_a_disk_that_takes_no_more(
    domains: list[str],
    options: Options,
    undisturbed: rtls.Snapshot,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    words: str,
) -> None:
    """One line says why the scan stopped; the rows are kept, a torn one aside, and the same call goes on."""

    def torn(file: Any, data: bytes) -> None:
        file.write(data[: len(data) // 2])
        raise OSError(number, os.strerror(number))

    out = tmp_path / "scan"
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write_all", Suddenly(store._write_all, torn, after=110))
        with pytest.raises(
            ScanStopped, match=rf"cannot write to .*: {words}; mend that.*what was done is kept"
        ):
            rtls.scan(domains, out, **options)
    held = rtls.open_snapshot(out)
    assert held.manifest["state"] == "stopped"
    assert len(held.sessions) > 0
    resumed = resume(domains, out, options, undisturbed)
    again = visits(resumed) - visits_said(resumed)
    assert again.total() <= 1  # the one whose row did not fit


def test_a_disk_that_is_full_at_the_last_moment(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the parts find no room the journals stay; the same call turns them into tables, and contacts nobody."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out, few = tmp_path / "scan", lab.domains[:20]
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_part", full)
        with pytest.raises(ScanStopped, match="no space left on device"):
            rtls.scan(few, out, progress=False, **lab.scan_options)
    monkeypatch.setattr(contacts, "probe", full)
    snapshot = rtls.scan(few, out, progress=False, **lab.scan_options)
    assert disagreements(lab, snapshot, few) == []


_ON_A_SMALL_DISK = """
set -e
mount -t tmpfs -o size=80k none "$1"
shift
"$@" && exit 99
[ $? = 2 ]
mount -o remount,size=30m "$OUT"
"$@"
cp -r "$OUT" "$KEPT"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which needs root")
def test_a_small_disk(
    undisturbed: rtls.Snapshot, command: list[str], domains: list[str], tmp_path: Path
) -> None:
    """On a file system that really is full the command exits with 2 and one line, and goes on once there is room."""
    out, kept = tmp_path / "disk", tmp_path / "kept"
    out.mkdir()
    words = [*command[:-1], str(out / "scan")]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _ON_A_SMALL_DISK, "sh", str(out), *words],
        env={**os.environ, "OUT": str(out), "KEPT": str(kept)},
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "no space left on device" in line
    assert differences(rtls.open_snapshot(kept / "scan"), undisturbed) == []


@pytest.mark.parametrize("questions", [30, 130])
def test_a_resolver_that_vanishes(
    domains: list[str], options: Options, undisturbed: rtls.Snapshot, tmp_path: Path, questions: int
) -> None:
    """No domain is said to fail: the run ends with one line, and goes on when the resolver is back."""
    out = tmp_path / "scan"
    with DnsRelay(options["resolver"]) as relay:
        by_relay = {**options, "resolver": relay.address}
        relay.silent_after = questions
        words = r"stopped answering.*--resolver.*what was done is kept"
        with impatience(), pytest.raises(ResolverProblem, match=words):
            rtls.scan(domains, out, **by_relay)
        held = rtls.open_snapshot(out)
        assert held.manifest["state"] == "stopped"
        assert held.sessions.empty
        relay.silent_after = None
        resume(domains, out, by_relay, undisturbed)


def test_a_resolver_that_is_back_soon(
    domains: list[str], options: Options, undisturbed: rtls.Snapshot, tmp_path: Path
) -> None:
    """A pause that is waited out leaves no trace in the tables."""
    with DnsRelay(options["resolver"]) as relay, impatience(until_back=120.0):
        relay.silent_after, relay.back_after = 40, 3  # the scan has seen it gone, and looks after it
        resume(domains, tmp_path / "scan", {**options, "resolver": relay.address}, undisturbed)
        assert relay.silent_after is None


def test_a_proxy_that_vanishes(domains: list[str], options: Options, tmp_path: Path) -> None:
    """A proxy that is gone is no silence of servers: the run ends with one line, and goes on when it is back."""
    out = tmp_path / "scan"
    with SocksProxy() as proxy:
        by_proxy = {**options, "proxy": proxy.url}
        whole = rtls.scan(domains, **by_proxy)
        proxy.connections.clear()
        proxy.vanish_after = 12
        words = r"the proxy .*; mend that, and run the same scan again"
        with impatience(), pytest.raises(ScanStopped, match=words):
            rtls.scan(domains, out, **by_proxy)
        held = rtls.open_snapshot(out)
        assert 0 < len(held.sessions) <= 12
        truth = rows_by_key(whole, "sessions")
        assert all(
            row["outcome"] == truth[key]["outcome"] for key, row in rows_by_key(held, "sessions").items()
        )
        proxy.vanish_after = None
        proxy.call(proxy.start())
        resumed = resume(domains, out, by_proxy, whole)
        assert visits(resumed) == visits_said(resumed)


def test_a_proxy_that_is_not_there(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names it; so it does where the text is no proxy at all."""
    monkeypatch.setattr(contacts, "PATIENCE", 0.2)
    with pytest.raises(ScanStopped, match=r"the proxy 127\.0\.0\.1:1 does not answer"):
        rtls.scan(lab.domains[:3], proxy="socks5://127.0.0.1:1", progress=False, **lab.scan_options)
    with pytest.raises(rtls.ScanProblem, match=r"not a proxy: .*; give socks5://HOST:PORT"):
        rtls.scan(lab.domains[:3], proxy="http://127.0.0.1:1", progress=False, **lab.scan_options)


_FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
from rtls_analysis.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_few_file_descriptors(lab: Lab, tmp_path: Path) -> None:
    """With a handful of descriptors a scan takes longer and comes to the same; with none left it says so."""
    few = lab.domains[:22]
    given = {**lab.scan_options, "manners": {}, "timeouts": {}}
    words = scan_command(few, given, tmp_path)[3:]

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        code = _FEW_FILES.format(limit=limit)
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)

    none = run(14)
    assert none.returncode == 2
    assert len(none.stderr.splitlines()) == 1
    assert "too many open files" in none.stderr
    done = run(48)
    assert done.returncode == 0, done.stderr
    assert disagreements(lab, rtls.open_snapshot(words[-1]), few) == []


# -- those who are not our own -------------------------------------------------------------------------------


@pytest.fixture
def strangers(options: Options, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Options under which the lab's loopback addresses are ordinary ones of others, as on the Internet."""

    def special(address: str) -> str:
        return "" if address.startswith("127.") or address == "::1" else special_reason(address)

    for module in ("lookups", "plan"):
        monkeypatch.setattr(f"rtls_analysis.scanner.{module}.special_reason", special)
    for module in (engine, contacts):
        monkeypatch.setattr(module, "families", lambda *given: (True, True))
    manners = {**PACED, "own_addresses": False}
    return {**options, "allow_special": (), "manners": manners, "workers": 1}


def test_the_addresses_of_others_come_to_the_same(
    domains: list[str], strangers: Options, undisturbed: rtls.Snapshot
) -> None:
    """What is found depends on the servers, not on whose they are; manners hold without being asked for."""
    snapshot = rtls.scan(domains, **strangers)
    assert differences(snapshot, undisturbed) == []


def test_without_a_route_at_all(
    domains: list[str], strangers: Options, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine without a route puts nothing on record of those it cannot reach, and says why it stops."""
    out = tmp_path / "scan"
    with monkeypatch.context() as patch:
        patch.setattr(engine, "families", lambda *given: (False, False))
        with pytest.raises(ScanStopped, match="no route to the Internet"):
            rtls.scan(domains, out, **strangers)
        assert rtls.open_snapshot(out).sessions.empty
    assert rtls.scan(domains, out, **strangers).is_complete


def test_without_a_route_for_one_family(
    lab: Lab, domains: list[str], strangers: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses of the family that is missing are left out, and a domain that has no other is not tested."""
    monkeypatch.setattr(engine, "families", lambda *given: (True, False))
    both, six = "dual-stack.test", "ipv6-only.test"
    snapshot = rtls.scan([both, six], **strangers)
    sessions = snapshot.sessions.set_index("address")
    if "::1" not in sessions.index:
        pytest.skip("no ::1 on this machine")
    assert set(sessions.loc[["::1"], "outcome"]) == {"family_unavailable"}
    assert set(sessions.loc[["::1"], "starttls"]) == {"not_tested"}
    starttls = snapshot.domains.set_index("domain")["starttls"]
    assert (starttls[both], starttls[six]) == ("all", "not_tested")
    assert "::1" not in set(snapshot.attempts["address"])


def test_a_route_that_is_lost(
    domains: list[str],
    strangers: Options,
    undisturbed: rtls.Snapshot,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A network that goes away meanwhile is not held against servers."""

    async def cut_off(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    out = tmp_path / "scan"
    with monkeypatch.context() as patch:
        patch.setattr(contacts, "PATIENCE", 0.5)
        patch.setattr(contacts, "families", lambda *given: (False, False))
        connect = "rtls_analysis.scanner.smtp_client.open_connection"
        patch.setattr(connect, Suddenly(_open_connection(), cut_off, after=10))
        with pytest.raises(ScanStopped, match=r"no route to IPv[46] addresses any more; mend that"):
            rtls.scan(domains, out, **strangers)
        held = rtls.open_snapshot(out)
        assert 0 < len(held.sessions) <= 10
    resume(domains, out, strangers, undisturbed)


def _open_connection() -> Callable[..., Any]:
    from rtls_analysis.scanner.smtp_client import open_connection

    return open_connection


SILENT = [
    ("silence from the first on", 0),
    ("silence after some have answered", 8),
]


@pytest.mark.parametrize("after", [pytest.param(after, id=why) for why, after in SILENT])
def test_silence_of_all_stops_the_run(
    domains: list[str],
    strangers: Options,
    undisturbed: rtls.Snapshot,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    after: int,
) -> None:
    """Where no address takes a connection it is port 25 that is closed here: none of them is put on record."""

    async def silent(*_: Any, **__: Any) -> None:
        await asyncio.sleep(0.3)  # until those before it have answered
        raise TimeoutError

    out = tmp_path / "scan"
    with monkeypatch.context() as patch:
        patch.setattr(contacts, "prefix_of", lambda address: address)  # the lab is one network
        connect = "rtls_analysis.scanner.smtp_client.open_connection"
        patch.setattr(connect, Suddenly(_open_connection(), silent, after=after))
        with pytest.raises(
            ScanStopped, match=r"none of the last 20 addresses took a connection: .* closed on the way"
        ):
            rtls.scan(domains, out, **strangers)
    held = rtls.open_snapshot(out)
    assert len(held.sessions) <= after
    assert "timeout" not in set(held.sessions["outcome"])
    resume(domains, out, strangers, undisturbed)


def test_a_responder_that_does_not_answer(lab: Lab, tmp_path: Path) -> None:
    """The user's own responder shows before anything is done that port 25 is closed."""
    closed = {**lab.scan_options, "responder": "127.0.0.1:1"}
    with pytest.raises(ScanStopped, match=r"127\.0\.0\.1:1 takes no connection from here .*--proxy"):
        rtls.scan(lab.domains[:3], tmp_path / "scan", progress=False, **closed)
    assert not (tmp_path / "scan").exists()
    good = {**lab.scan_options, "responder": "127.64.0.1"}
    assert rtls.scan(lab.domains[:3], progress=False, **good).is_complete
    with pytest.raises(rtls.ScanProblem, match="not a responder"):
        rtls.scan(lab.domains[:3], progress=False, **{**closed, "responder": "mx.example.org"})
