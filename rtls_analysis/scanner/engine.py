"""The way of a scan: look up, plan, contact, judge; where there is much to do, in worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rtls_analysis.outcomes import FeatureState, SessionOutcome, StsPolicyState, StsRecordState, TlsaState
from rtls_analysis.progress import progress_bar
from rtls_analysis.scanner.addresses import families
from rtls_analysis.scanner.cluster import ClusterCrew
from rtls_analysis.scanner.contacts import ScanStopped
from rtls_analysis.scanner.introduction import check_introduction
from rtls_analysis.scanner.options import Options
from rtls_analysis.scanner.plan import LeftAlone, NoPolicy, Plan, Planner, expected, plan_text
from rtls_analysis.scanner.probe import ProbeTarget, not_contacted
from rtls_analysis.scanner.resolver import Resolver
from rtls_analysis.scanner.shares import Part, split, within_reach
from rtls_analysis.scanner.targets import Target
from rtls_analysis.scanner.vantages import EACH
from rtls_analysis.scanner.worker import (
    PROGRESS_SECONDS,
    Begin,
    Domains,
    Done,
    Held,
    Hosts,
    Messages,
    Progress,
    Share,
    Trouble,
    Work,
    Worker,
    held_of,
    of_late,
    questions_each,
    write_message,
)
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.storage import Folder
from rtls_analysis.store import LOOKUPS, POLICIES, SnapshotWriter, TableWriter
from rtls_analysis.verdicts import Judge

Row = dict[str, Any]

WORTH_WORKERS = 2000
"""Domains from which on worker processes are worth their start."""

_LAST_SECONDS = 20.0  # that a worker has to put its things in order
_FOLD_SECONDS = 20.0  # between two looks for journals that are full


@dataclass(slots=True)
class _View:
    """What is contacted from a vantage; or from all of them, where each target is contacted from one."""

    vantage: str | None
    seats: Sequence[int]  # of those who do it, in their crew
    held: Held
    plan: Plan


class Engine:
    """Fetches evidence and stores it row by row; what is stored already is not fetched again.

    Parameters
    ----------
    options, resolver, roots
        Of the scan.
    writer
        Where its rows go.
    progress
        Show progress bars.
    announce
        Is given the plan, as text, before the first contact.
    cluster
        The workers of a cluster, where they do the work.
    """

    def __init__(
        self,
        options: Options,
        resolver: Resolver,
        writer: SnapshotWriter,
        roots: Roots,
        *,
        progress: bool,
        announce: Callable[[str], None],
        cluster: ClusterCrew | None = None,
    ) -> None:
        self.options = options
        self.resolver = resolver
        self.writer = writer
        self.roots = roots
        self.progress = progress
        self.announce = announce
        self.cluster = cluster

    async def run(self, targets: Sequence[Target], *, plan_only: bool = False) -> None:
        """Do all that is left to do for these domains.

        Raises
        ------
        ScanStopped, ResolverProblem
            It cannot go on from here; what was done is stored.
        """
        done: set[str] = set()
        if self.writer.resumed:
            done = {row["domain"] for row in self.writer.stored(LOOKUPS, ["domain"])}
        todo = [target for target in targets if target.domain not in done]
        async with self._crew(len(targets)) as crew:
            await self._look_up(crew, todo)
            views = self._plan(crew)
            if any(not job.own for view in views for job in view.plan.jobs):
                await self._check_introduction()
            if not plan_only:
                await self._contact(crew, views)

    @contextlib.asynccontextmanager
    async def _crew(self, domains: int) -> AsyncIterator[Crew]:
        """Give those who do the work: this process, worker processes, or the workers of a cluster."""
        if self.cluster is not None:
            try:
                yield self.cluster
            finally:
                await self.cluster.close()
            return
        count = self.options.workers
        if count is None:
            count = (os.cpu_count() or 1) if domains >= WORTH_WORKERS else 1
        count = min(count, self.options.concurrency)
        if count == 1 or self.writer.folder.is_private:
            journals = self.writer.journals("w0")
            try:
                yield _Here(Worker(self.options, journals, self.resolver, self.roots), self.options)
            finally:
                journals.close()
            return
        crew = _Crew(self.options, self.writer.folder, count, self.resolver)
        try:
            yield crew
        finally:
            await crew.close()

    async def _look_up(self, crew: Crew, targets: Sequence[Target]) -> None:
        names: dict[str, None] = {}
        if targets:
            shares = [Domains(targets[at :: crew.size]) for at in range(crew.size)]
            async for progress in self._shown(crew, shares, "Looking up", "domain", len(targets)):
                names.update(dict.fromkeys(progress.hosts))
        if self.writer.resumed or self.cluster is not None:
            wanted = (row["mx"] for row in self.writer.stored(LOOKUPS))
            names.update((name, None) for mx in wanted for _preference, name in mx)
        for row in self.writer.stored("hosts", ["mx_host"]):
            names.pop(row["mx_host"], None)
        if names:
            hosts = list(names)
            shares_of_hosts = [Hosts(hosts[at :: crew.size]) for at in range(crew.size)]
            async for _progress in self._shown(crew, shares_of_hosts, "Looking up", "MX host", len(hosts)):
                pass

    async def _shown(
        self, crew: Crew, work: Sequence[Work], label: str, unit: str, total: int
    ) -> AsyncIterator[Progress]:
        """Let the work be done behind a progress bar; yields each word of it."""
        outcomes: Counter[str] = Counter()
        loop = asyncio.get_running_loop()
        fold_at = loop.time() + _FOLD_SECONDS
        with progress_bar(total=total, label=label, unit=f" {unit}", shown=self.progress) as bar:
            async for progress in crew.do(work):
                outcomes.update(progress.outcomes)
                bar.update(sum(progress.outcomes.values()))
                most = ", ".join(f"{word} {count:,}" for word, count in outcomes.most_common(3))
                open_now = f"{progress.in_flight:,} open, " if progress.in_flight else ""
                bar.set_postfix_str(f"{open_now}{most}", refresh=False)
                if loop.time() >= fold_at:
                    await asyncio.to_thread(self.writer.fold, finished=False)
                    fold_at = loop.time() + _FOLD_SECONDS
                yield progress

    def _plan(self, crew: Crew) -> list[_View]:
        """Plan the contacts: one view of them, or one for each vantage."""
        every = self.options.vantage == EACH
        names = list(dict.fromkeys(crew.vantages)) if every else [None]
        views: list[_View] = []
        for name in names:
            seats = [seat for seat, here in enumerate(crew.vantages) if name in (None, here)]
            reached = [crew.families[seat] for seat in seats]
            families = any(v4 for v4, _v6 in reached), any(v6 for _v4, v6 in reached)
            here = {crew.vantages[seat] for seat in seats}
            views.append(self._view(name, seats, families, here.pop() if len(here) == 1 else None))
        whole = Plan(
            [job for view in views for job in view.plan.jobs],
            [left for view in views for left in view.plan.left_alone],
            hosts=views[0].plan.hosts,
            done=sum(view.plan.done for view in views),
        )
        summary = expected(whole, self.options)
        if "plan" not in self.writer.manifest:
            self.writer.manifest["plan"] = summary
        self.writer.write_manifest()
        self.announce(plan_text(summary, concurrency=self.options.concurrency))
        return views

    def _view(
        self, vantage: str | None, seats: Sequence[int], families: tuple[bool, bool], name: str | None
    ) -> _View:
        """Plan what is contacted from a vantage, and put on record, by its name, what is left alone there."""
        columns = ["mx_host", "provider", "addresses", "tlsa_base", "tlsa_dnssec", "tlsa_state", "tlsa"]
        found = (
            (row["domain"], row["policy_host"])
            for row in self.writer.stored(LOOKUPS)
            if row.get("policy_host")
        )
        held = held_of(self.writer.stored, vantage) if self.writer.resumed else Held()
        plan = Planner(self.options, families).make(
            self.writer.stored("hosts", columns), found, probed=held.probed, fetched=held.fetched
        )
        unreached = SessionOutcome.FAMILY_UNAVAILABLE
        if not any(families) and any(left.outcome is unreached for left in plan.left_alone):
            raise ScanStopped(
                "this machine has no route to the Internet, over IPv4 or IPv6; once it has, run the same scan "
                "again: what was done is kept"
            )
        self._leave(plan.left_alone, plan.no_policy, name)
        return _View(vantage, seats, held, plan)

    def _leave(self, alone: Iterable[LeftAlone], no_policy: Iterable[NoPolicy], vantage: str | None) -> None:
        """Put on record what is not contacted from a vantage, and why."""
        judge = Judge(self.options.rules, self.roots, _none_held)
        for left in alone:
            row = not_contacted(left.target, left.outcome, left.detail, vantage=vantage)
            self.writer.append("sessions", {**row, **judge.session(row, left.target.host_row)})
        for policy in no_policy:
            row = {"domain": policy.domain, "sts_policy": policy.state, "sts_detail": policy.detail}
            self.writer.append(POLICIES, {**row, "vantage": vantage})

    async def _check_introduction(self) -> None:
        """Warn where strangers would find something wrong with the way we introduce ourselves."""
        if self.cluster is not None:
            warnings = await self.cluster.check_introductions()
        else:
            warnings = await check_introduction(self.options, self.resolver)
        self.writer.manifest["vantage"]["warnings"] = warnings
        self.writer.write_manifest()
        for warning in warnings:
            self.announce(f"Warning: {warning}")

    async def _contact(self, crew: Crew, views: Sequence[_View]) -> None:
        total = sum(len(view.plan.jobs) for view in views)
        if not total:
            return
        rounds = [parts for parts in self._rounds(crew, views) if any(part.jobs for part, _held in parts)]
        for number, parts in enumerate(rounds):
            is_first = not (self.writer.resumed or number)
            contacts = [] if is_first else of_late(self.writer.stored, self.options.manners)
            shares = [Share(part.jobs, held.visits, contacts, part.turns) for part, held in parts]
            label = "Contacting" if len(rounds) == 1 else f"Contacting, round {number + 1} of {len(rounds)}"
            jobs = sum(len(share.jobs) for share in shares)
            async for _progress in self._shown(crew, shares, label, "server", jobs):
                pass

    def _rounds(self, crew: Crew, views: Sequence[_View]) -> Iterator[list[tuple[Part, Held]]]:
        """Give the shares of the crew: at once, or from each vantage what others contact in other rounds.

        What is paced together is contacted from one vantage at a time, so that the manners hold over all of them.
        """
        manners = self.options.manners
        if len(views) == 1:
            (view,) = views
            parts = split(view.plan.jobs, crew.size, manners, reach=self._reach(crew, view.seats))
            view.plan.jobs = []
            self._leave_out_of_reach(crew, parts)
            yield [(part, view.held) for part in parts]
            return
        whose = {id(job): number for number, view in enumerate(views) for job in view.plan.jobs}
        everything = [job for view in views for job in view.plan.jobs]
        blocks = split(everything, len(views), manners, too_large=len(everything))
        for turn in range(len(views)):
            shares: list[tuple[Part, Held]] = [(Part(), Held()) for _ in range(crew.size)]
            for number, view in enumerate(views):
                block = blocks[(number + turn) % len(views)]
                jobs = [job for job in block.jobs if whose[id(job)] == number]
                reach = self._reach(crew, view.seats)
                parts = split(jobs, len(view.seats), manners, reach=reach)
                for seat, part in zip(view.seats, parts, strict=True):
                    shares[seat] = part, view.held
            self._leave_out_of_reach(crew, [part for part, _held in shares])
            yield shares

    def _reach(self, crew: Crew, seats: Sequence[int]) -> list[tuple[bool, bool]]:
        """Give what those on some seats reach; a proxy is taken to reach everything."""
        return [(True, True) if self.options.proxy else crew.families[seat] for seat in seats]

    def _leave_out_of_reach(self, crew: Crew, parts: Sequence[Part]) -> None:
        """Put on record what lies in a family that those who were to contact it lack, though others have it."""
        for seat, (part, reach) in enumerate(zip(parts, self._reach(crew, range(crew.size)), strict=True)):
            if all(reach):
                continue
            place, jobs = crew.vantages[seat], part.jobs
            part.jobs = []
            alone: list[LeftAlone] = []
            no_policy: list[NoPolicy] = []
            for job in jobs:
                if (reached := within_reach(job, reach)) is not None:
                    part.jobs.append(reached)
                elif isinstance(job.payload, ProbeTarget):
                    why = f"no {'IPv6' if ':' in job.address else 'IPv4'} at {place}"
                    alone.append(LeftAlone(job.payload, SessionOutcome.FAMILY_UNAVAILABLE, why))
                else:
                    why = f"no way to the policy host's address family from {place}"
                    no_policy.append(NoPolicy(job.payload.domain, StsPolicyState.NOT_TESTED, why))
            self._leave(alone, no_policy, place)

    # -- verdicts --------------------------------------------------------------------------------------------

    def judge(self) -> int:
        """Judge every domain whose contacts are all done: the tables `domains` and `mx`, written anew.

        Returns
        -------
        int
            How many domains were judged; where each of several vantages tells of all of them, from each.
        """
        hosts = {row["mx_host"]: row for row in self.writer.stored("hosts", _HOST_COLUMNS)}
        tables = self.writer.replacement("domains"), self.writer.replacement("mx")
        every = self.options.vantage == EACH
        places = [place["name"] for place in self.writer.manifest["vantages"]] if every else [None]
        judged = [self._judge_view(place, hosts, *tables) for place in places]
        for table in tables:
            table.finish()
        return min(judged)

    def _judge_view(
        self, vantage: str | None, hosts: Mapping[str, Row], domains: TableWriter, mx_table: TableWriter
    ) -> int:
        """Judge what was seen from a vantage, or from all of them together; gives how many domains."""
        sessions: dict[str, list[Row]] = {}
        for row in self.writer.stored("sessions", _SESSION_COLUMNS):
            if vantage in (None, row.get("vantage")):
                sessions.setdefault(row["mx_host"], []).append(_lean(row))
        policies = {
            row["domain"]: row
            for row in self.writer.stored(POLICIES)
            if vantage in (None, row.get("vantage"))
        }
        judge = Judge(self.options.rules, self.roots, self._certificates(hosts, sessions).__getitem__)
        judged = 0
        for lookup in self.writer.stored(LOOKUPS):
            if not _is_done(lookup, hosts, sessions, policies):
                continue
            judged += 1
            domain, mx = _rows_of(lookup, hosts, policies)
            place = vantage or _place(lookup, domain, mx, hosts, sessions)
            result = judge.domain(domain, mx, hosts, sessions)
            domains.add({**domain, **result.domain, "vantage": place})
            for row, columns in zip(mx, result.mx, strict=True):
                mx_table.add({**row, **columns, "vantage": place})
        return judged

    def _certificates(
        self, hosts: Mapping[str, Row], sessions: Mapping[str, Sequence[Row]]
    ) -> dict[str, bytes]:
        """Give the certificates that verdicts on domains need: those at hosts with a DANE authority (usage 2)."""
        wanted = {
            sha256
            for name, host in hosts.items()
            if host["tlsa_state"] == TlsaState.USABLE and any(text.startswith("2 ") for text in host["tlsa"])
            for session in sessions.get(name, ())
            for sha256 in session["chain_sha256"] or ()
        }
        if not wanted:
            return {}
        stored = self.writer.stored("certificates", ["sha256", "der"])
        return {row["sha256"]: row["der"] for row in stored if row["sha256"] in wanted}


_HOST_COLUMNS = [
    "mx_host",
    "mx_state",
    "provider",
    "addresses",
    "tlsa_state",
    "tlsa_base",
    "tlsa",
    "addresses_dnssec",
    "vantage",
]
_SESSION_COLUMNS = [
    "mx_host",
    "address",
    "started_at",
    "outcome",
    "starttls",
    "tls_version",
    "chain_sha256",
    "requiretls_tls",
    "pkix",
    "name_match",
    "dns_id_match",
    "dane",
    "dane_detail",
    "vantage",
]


def _none_held(sha256: str) -> bytes:
    raise KeyError(sha256)


def _lean(row: Row) -> Row:
    """Keep one copy of each word: a large scan has many sessions and few words."""
    kept = {name: sys.intern(value) if isinstance(value, str) else value for name, value in row.items()}
    chain = kept.get("chain_sha256")
    kept["chain_sha256"] = (
        tuple(map(sys.intern, chain)) if chain and kept["starttls"] == FeatureState.YES else ()
    )
    return {name: kept.get(name) for name in _SESSION_COLUMNS}


def _is_done(
    lookup: Row, hosts: Mapping[str, Row], sessions: Mapping[str, Sequence[Row]], policies: Mapping[str, Row]
) -> bool:
    if lookup["sts_record"] == StsRecordState.VALID and lookup["domain"] not in policies:
        return False
    for _preference, name in lookup["mx"]:
        if name not in hosts or len(hosts[name]["addresses"] or ()) > len(sessions.get(name, ())):
            return False
    return True


def _place(
    lookup: Row,
    domain: Row,
    mx: Sequence[Row],
    hosts: Mapping[str, Row],
    sessions: Mapping[str, Sequence[Row]],
) -> str | None:
    """Name the vantage from which everything about a domain was seen; None where it was not one alone."""
    names = [line["mx_host"] for line in mx]
    places = {lookup.get("vantage"), domain.get("vantage"), *(hosts[name].get("vantage") for name in names)}
    places.update(session["vantage"] for name in names for session in sessions.get(name, ()))
    return places.pop() if len(places) == 1 else None


def _rows_of(lookup: Row, hosts: Mapping[str, Row], policies: Mapping[str, Row]) -> tuple[Row, list[Row]]:
    """Put what was found into the columns of `domains` and `mx`, verdicts aside."""
    row = {**lookup, **policies.get(lookup["domain"], {})}
    row["scanned_at"] = dt.datetime.fromisoformat(row["scanned_at"])
    mx = [
        {
            "domain": row["domain"],
            "preference": preference,
            "mx_host": name,
            "mx_state": hosts[name]["mx_state"],
            "provider": hosts[name]["provider"],
        }
        for preference, name in row.pop("mx")
    ]
    row["mx_hosts"] = len(mx)
    row["addresses"] = len({address for line in mx for address in hosts[line["mx_host"]]["addresses"] or ()})
    row["provider"] = mx[0]["provider"] if mx else None
    return row, mx


# -- who does the work ---------------------------------------------------------------------------------------


class Crew(Protocol):
    """Those who do the work of a scan; each does a share of a piece of it."""

    size: int
    vantages: list[str]  # of each
    families: list[tuple[bool, bool]]  # whether each reaches IPv4, and IPv6

    def do(self, work: Sequence[Work]) -> AsyncIterator[Progress]:
        """Let each do its share; yields how it goes over all."""
        ...


class _Here:
    """The work is done in this process, in this event loop."""

    size = 1

    def __init__(self, worker: Worker, options: Options) -> None:
        self._worker = worker
        self.vantages = [options.vantage_name]
        self.families = [families(options.source)]

    async def do(self, work: Sequence[Work]) -> AsyncIterator[Progress]:
        """Do the work; yields how it goes."""
        (share,) = work
        doing = asyncio.ensure_future(self._worker.do(share))
        try:
            while not doing.done():
                await asyncio.wait((doing,), timeout=PROGRESS_SECONDS)
                yield self._worker.progress()
            await doing
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)


class _Crew:
    """Worker processes; they are started with their first work and end when this is closed."""

    def __init__(self, options: Options, folder: Folder, size: int, resolver: Resolver) -> None:
        self.size = size
        self.vantages = [options.vantage_name] * size
        self.families = [families(options.source)] * size
        self._begin = [
            Begin(
                replace(
                    options, concurrency=options.concurrency // size + (number <= options.concurrency % size)
                ),
                folder,
                f"w{number}",
                resolver.trusted,
                resolver.reaches_out,
                questions_each(size),
            )
            for number in range(1, size + 1)
        ]
        self._processes: list[asyncio.subprocess.Process] = []

    async def _start(self) -> None:
        code = "from rtls_analysis.scanner.worker import main; main()"
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        for begin in self._begin:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                code,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
            )
            self._processes.append(process)
            await self._tell(process, begin)

    @staticmethod
    async def _tell(process: asyncio.subprocess.Process, message: Any) -> None:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it died: its answers end, which says so
            for piece in _pieces(message):
                process.stdin.write(piece)
                await process.stdin.drain()

    async def do(self, work: Sequence[Work]) -> AsyncIterator[Progress]:
        """Let the workers do a share each; yields how it goes over all."""
        if not self._processes:
            await self._start()
        words: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        listening = [
            asyncio.ensure_future(self._listen(number, share, words)) for number, share in enumerate(work)
        ]
        in_flight = [0] * len(work)
        left = len(work)
        try:
            while left:
                number, word = await words.get()
                if isinstance(word, Progress):
                    in_flight[number] = word.in_flight
                    yield replace(word, in_flight=sum(in_flight))
                elif isinstance(word, Trouble):
                    raise word.problem
                else:
                    in_flight[number] = 0
                    left -= 1
        finally:
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)

    async def _listen(self, number: int, share: Work, words: asyncio.Queue[tuple[int, Any]]) -> None:
        """Give a worker its share, and pass its words on until it is done."""
        process = self._processes[number]
        assert process.stdout is not None
        await self._tell(process, share)
        reading = Messages()
        while data := await process.stdout.read(1 << 16):
            for word in reading.feed(data):
                words.put_nowait((number, word))
                if isinstance(word, (Done, Trouble)):
                    return
        code = await process.wait()
        problem = ScanStopped(
            f"a worker process of the scan died (status {code}); run the same scan again: what was done is kept"
        )
        words.put_nowait((number, Trouble(problem)))

    async def close(self) -> None:
        """End the workers: each puts its rows on the disk first."""
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                async with asyncio.timeout(_LAST_SECONDS):
                    if process.stdout is not None:
                        while await process.stdout.read(1 << 16):
                            pass
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        self._processes.clear()


def _pieces(message: Any) -> Iterator[bytes]:
    """Cut a message for a pipe into pieces that are written one after another."""
    import io

    whole = io.BytesIO()
    write_message(whole, message)
    view = whole.getbuffer()
    for at in range(0, len(view), 1 << 20):
        yield bytes(view[at : at + (1 << 20)])
