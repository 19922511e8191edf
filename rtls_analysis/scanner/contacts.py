"""The contacts of a scan: addresses probed and policies fetched as the manners allow, each stored when it is done."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rtls_analysis.outcomes import Purpose, SessionOutcome, SessionStage, StsPolicyState
from rtls_analysis.scanner.addresses import families
from rtls_analysis.scanner.descriptors import connections_left
from rtls_analysis.scanner.options import Options
from rtls_analysis.scanner.policy_fetch import PolicyFetch, fetch_policy
from rtls_analysis.scanner.politeness import Job, Scheduler, Turn, prefix_of
from rtls_analysis.scanner.probe import ProbeTarget, not_contacted, probe
from rtls_analysis.scanner.smtp_client import Connect, Limits, LocalTrouble
from rtls_analysis.scanner.tls import lax_context
from rtls_analysis.standards.certificates import Roots, describe_certificate
from rtls_analysis.store import POLICIES, VISITS
from rtls_analysis.verdicts import Judge

Row = dict[str, Any]
Append = Callable[[str, Mapping[str, Any]], None]

PUSHED_BACK = frozenset({SessionOutcome.RATE_LIMITED, SessionOutcome.GREYLISTED, SessionOutcome.BLOCKED})
"""Outcomes that ask us to come less often: the provider gets a pause."""

_MUTE = frozenset({SessionOutcome.TIMEOUT, SessionOutcome.CLOSED_EARLY})
_BUSY_POLICY_HOST = frozenset({429, 503})
ASKED_FOR_REST = frozenset({*PUSHED_BACK, *(f"http {status}" for status in _BUSY_POLICY_HOST)})
"""Outcomes on record in `attempts` after which the provider gets a pause."""

_NO_CONNECTION = frozenset({StsPolicyState.CONNECT_FAILED, StsPolicyState.TIMEOUT})
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

SILENT_ADDRESSES, SILENT_NETWORKS = 20, 10
"""So many addresses in a row that take no connection, in so many networks, speak of this side, not of theirs."""

_TO_ANSWER_SECONDS = 3.0  # with the network well for so long, a server that lives would have been heard

PATIENCE = 60.0
"""Seconds for which trouble of our own is waited out before the scan stops."""


class ScanStopped(Exception):
    """The scan cannot go on from here: one line that says why and what would do.

    What was done is kept: in the directory of the scan, and in `snapshot`.
    """

    snapshot: Any = None


@dataclass(frozen=True, slots=True)
class PolicyTarget:
    """A policy domain, and the addresses at which its policy is still to be asked for, in order."""

    domain: str
    addresses: tuple[str, ...]


@dataclass(slots=True)
class _Doubtful:
    """A connection that came to nothing, kept back until it is known that the network works."""

    purpose: Purpose
    prefix: str
    store: Callable[[], None]


class Contacts:
    """Makes the connections of a scan, or of a worker's share of it.

    Parameters
    ----------
    options
        Of the scan.
    roots
        What PKIX trusts.
    append
        Stores a row of a table.
    connect
        Makes connections in place of the loop, for a proxy.
    report
        Is told of the outcome of each job that is done.
    turns
        Networks that other workers contact too, and whose turn is when.
    """

    def __init__(
        self,
        options: Options,
        roots: Roots,
        append: Append,
        *,
        connect: Connect | None = None,
        report: Callable[[str], None] = lambda outcome: None,
        turns: Mapping[str, Turn] | None = None,
    ) -> None:
        times = options.timeouts
        self._options = options
        self._roots = roots
        self._append = append
        self._connect = connect
        self._report = report
        self._limits = Limits(
            connect=times.connect,
            greeting=times.greeting,
            reply=times.reply,
            handshake=times.handshake,
            session=times.session,
        )
        self._context = lax_context()
        self._judge = Judge(options.rules, roots, _not_kept)
        self._scheduler = Scheduler(options.manners, turns, clock=time.time() - time.monotonic())
        self._at_once = connections_left(options.concurrency)
        self._known: set[bytes] = set()  # certificates stored already
        self._last_visits: dict[int, Callable[[], None]] = {}  # what stores it, should there be no other
        self._doubtful: list[_Doubtful] = []
        self._answered_at = dict.fromkeys(Purpose, float("-inf"))
        self._trouble_since: float | None = None
        self._not_before = 0.0
        self._wake: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self.outcomes: Counter[str] = Counter()

    @property
    def in_flight(self) -> int:
        """Connections that are open now."""
        return len(self._tasks)

    def remember(self, contacts: Iterable[Mapping[str, Any]]) -> None:
        """Let rows of `attempts` that an earlier run made a moment ago count for the manners of this one."""
        now = time.monotonic()
        since = now - time.time()
        for row in contacts:
            self._scheduler.remember(
                row["provider"],
                row["address"],
                began=min(row["started_at"].timestamp() + since, now),  # a clock may have been set back
                ended=min(row["ended_at"].timestamp() + since, now),
                pushed_back=row["outcome"] in ASKED_FOR_REST,
            )

    async def run(self, jobs: Iterable[Job], visits: Mapping[tuple[str, str], Row] | None = None) -> None:
        """Do all these jobs; `visits` are sessions of an earlier run that a server pushed back.

        Raises
        ------
        ScanStopped
            This machine or its network cannot go on.
        OSError
            A row could not be stored.
        """
        for job in jobs:
            if visits and isinstance(job.payload, ProbeTarget):
                visit = visits.get((job.payload.mx_host, job.payload.address))
                if visit is not None:
                    job.attempts = int(visit["attempts"])
                    self._last_visits[id(job)] = partial(self._store_session, visit)
            self._scheduler.add(job)
        loop = asyncio.get_running_loop()
        try:
            while True:
                while (wait := self._start(loop)) is not None:
                    await self._until_something_happens(loop, wait)
                if not self._doubtful:
                    return
                self._settle()  # which may bring the next address of a policy host up
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> float | None:
        """Begin what may begin; gives the seconds until more may, infinite where that depends on others.

        None: all is done.
        """
        if self._failure is not None:
            raise self._failure
        while len(self._tasks) < self._at_once:
            now = time.monotonic()
            if now < self._not_before:
                return self._not_before - now
            job = self._scheduler.take(now)
            self._drop_given_up()
            if not isinstance(job, Job):
                return job if job is not None or not self._tasks else float("inf")
            task = loop.create_task(self._do(job))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return float("inf")

    async def _until_something_happens(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._wake = wake = loop.create_future()
        timer = loop.call_later(seconds, _set, wake) if seconds != float("inf") else None
        try:
            await wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._failure is None:
            self._failure = error
        if self._wake is not None:
            _set(self._wake)

    # -- one job ---------------------------------------------------------------------------------------------

    async def _do(self, job: Job) -> None:
        """Make one connection and store what was seen, or queue the job again."""
        began = time.monotonic()
        self._scheduler.begins(job, began)
        try:
            if isinstance(job.payload, ProbeTarget):
                pushed_back, made_contact, store = await self._probe(job, job.payload)
            else:
                pushed_back, made_contact, store = await self._fetch(job, job.payload)
        except LocalTrouble as trouble:
            self._wait_out(job, trouble)
            return
        except BaseException:
            self._scheduler.release(job, time.monotonic())
            raise
        self._trouble_since = None
        if self._scheduler.done(job, time.monotonic(), pushed_back=pushed_back):
            self._last_visits[id(job)] = store
            return
        self._last_visits.pop(id(job), None)
        purpose = Purpose.PROBE if isinstance(job.payload, ProbeTarget) else Purpose.POLICY
        if made_contact and not job.own:
            self._believe(purpose)
        sure_at = min(time.monotonic(), began + _TO_ANSWER_SECONDS)
        if made_contact or job.own or self._answered_at[purpose] >= sure_at:
            store()
        else:
            self._doubtful.append(_Doubtful(purpose, prefix_of(job.address), store))
            self._check_silence()

    async def _probe(self, job: Job, target: ProbeTarget) -> tuple[bool, bool, Callable[[], None]]:
        row, chain = await probe(
            target,
            ehlo_name=self._options.ehlo_name,
            limits=self._limits,
            context=self._context,
            vantage=self._options.vantage_name,
            source=self._options.source_for(target.address),
            connect=self._connect,
        )
        row["attempts"] = job.attempts
        made_contact = self._was_reached(row)
        if row["outcome"] == SessionOutcome.UNREACHABLE and not job.own and self._connect is None:
            _check_family(target.address, self._options)
        self._record(job, Purpose.PROBE, row["started_at"], row["outcome"], mx_host=target.mx_host)
        row.update(self._judge.session(row, target.host_row, chain))
        self._keep_certificates(chain)
        pushed_back = row["outcome"] in PUSHED_BACK
        if pushed_back and self._scheduler.paces(job):
            self._append(VISITS, row)
        return pushed_back, made_contact, partial(self._store_session, row)

    def _was_reached(self, row: Row) -> bool:
        """Whether a session shows that servers can be reached from here.

        Through a proxy only those that speak were: ``ssh -D`` takes each connection, and drops it if it finds nobody.
        """
        if self._connect is not None and row["stage"] == SessionStage.GREETING:
            return row["outcome"] not in _MUTE
        return bool(row["stage"] != SessionStage.CONNECT)

    def _store_session(self, row: Row) -> None:
        self._append("sessions", row)
        self._count(str(row["outcome"]))

    def _keep_certificates(self, chain: Iterable[bytes]) -> None:
        for der in chain:
            certificate = describe_certificate(der)
            key = bytes.fromhex(certificate.sha256)
            if key in self._known:
                continue
            self._known.add(key)
            self._append(
                "certificates",
                {
                    "sha256": certificate.sha256,
                    "der": der,
                    "subject": certificate.subject,
                    "issuer": certificate.issuer,
                    "dns_names": certificate.dns_names,
                    "not_before": certificate.not_before,
                    "not_after": certificate.not_after,
                    "key": certificate.key or None,
                },
            )

    async def _fetch(self, job: Job, target: PolicyTarget) -> tuple[bool, bool, Callable[[], None]]:
        address, *others = target.addresses
        fetch = await fetch_policy(
            f"mta-sts.{target.domain}",
            [address],
            roots=self._roots,
            port=self._options.https_port,
            deadline=self._options.timeouts.policy,
            user_agent=f"rtls_analysis ({self._options.contact})",
            source=self._options.source_for(address),
            connect=self._connect,
        )
        for made in fetch.attempts:
            self._record(
                job,
                Purpose.POLICY,
                made.started_at,
                made.outcome,
                ended_at=made.ended_at,
                domain=target.domain,
            )
        made_contact = bool(fetch.chain) or fetch.state not in _NO_CONNECTION

        def store() -> None:
            if others and not made_contact:  # the next address is a connection of its own, with its own lanes
                rest = PolicyTarget(target.domain, tuple(others))
                self._scheduler.add(Job(others[0], job.provider, rest, own=job.own))
                return
            self._keep_certificates(fetch.chain)
            self._append(
                POLICIES, {**_policy_row(target.domain, fetch), "vantage": self._options.vantage_name}
            )
            self._count(str(fetch.state or StsPolicyState.VALID))

        return fetch.http_status in _BUSY_POLICY_HOST, made_contact, store

    def _record(self, job: Job, purpose: Purpose, started_at: dt.datetime, outcome: str, **more: Any) -> None:
        """Put a connection on record."""
        port = self._options.smtp_port if purpose is Purpose.PROBE else self._options.https_port
        row = {
            "vantage": self._options.vantage_name,
            "purpose": purpose,
            "address": job.address,
            "port": port,
            "provider": job.provider,
            "started_at": started_at,
            "ended_at": dt.datetime.now(dt.UTC),
            "outcome": outcome,
            **more,
        }
        self._append("attempts", row)

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self._report(outcome)

    def _drop_given_up(self) -> None:
        """Put on record those that are left alone because their provider refused too many."""
        jobs, self._scheduler.given_up = self._scheduler.given_up, []
        here = self._options.vantage_name
        for job in jobs:
            reason = f"left alone: {job.provider} pushed back too often"
            if (store := self._last_visits.pop(id(job), None)) is not None:
                store()
            elif isinstance(job.payload, PolicyTarget):
                state = StsPolicyState.NOT_TESTED
                row = {"domain": job.payload.domain, "sts_policy": state, "sts_detail": reason}
                self._append(POLICIES, {**row, "vantage": here})
                self._count(str(state))
            else:
                row = not_contacted(job.payload, SessionOutcome.NOT_SAMPLED, reason, vantage=here)
                self._store_session({**row, **self._judge.session(row, job.payload.host_row)})

    # -- trouble of our own ----------------------------------------------------------------------------------

    def _wait_out(self, job: Job, trouble: LocalTrouble) -> None:
        """Queue a job again that failed for want of something here; stop where that lasts."""
        now = time.monotonic()
        self._scheduler.release(job, now)
        if self._trouble_since is None:
            self._trouble_since = now
        if now - self._trouble_since > PATIENCE:
            raise ScanStopped(
                f"{trouble.strerror or trouble}; mend that, and run the same scan again"
            ) from trouble
        if trouble.errno in _TOO_MANY and now >= self._not_before:  # once for all that failed together
            self._at_once = max(1, min(self._at_once, len(self._tasks)) * 3 // 4)
        self._not_before = now + min(5.0, PATIENCE / 10)
        job.attempts -= 1
        self._scheduler.add(job)

    def _believe(self, purpose: Purpose) -> None:
        """Take note that the network works: what came to nothing meanwhile was not our doing.

        Whoever reaches a mail server reaches policy hosts, but not the other way round: port 25 alone may be closed.
        """
        believed = tuple(Purpose) if purpose is Purpose.PROBE else (purpose,)
        self._answered_at.update(dict.fromkeys(believed, time.monotonic()))
        waiting, self._doubtful = self._doubtful, []
        for doubtful in waiting:
            if doubtful.purpose in believed:
                doubtful.store()
            else:
                self._doubtful.append(doubtful)

    def _check_silence(self) -> None:
        count = len(self._doubtful)
        if count < SILENT_ADDRESSES:
            return
        if len({doubtful.prefix for doubtful in self._doubtful}) >= SILENT_NETWORKS:
            self._doubtful.clear()  # nothing is known of them
            where = "from the proxy" if self._connect is not None else "on the way out"
            raise ScanStopped(
                f"none of the last {count} addresses took a connection: the network is gone, or port "
                f"{self._options.smtp_port} is closed {where}, as on most laptops and clouds; nothing is said "
                "of these servers; scan from another place, or through one with --proxy socks5://HOST:PORT"
            )
        if count >= 50 * SILENT_ADDRESSES:  # a large provider that is dead
            self._settle()

    def _settle(self) -> None:
        """Store what is left in doubt at the end: too few to speak of this side."""
        for doubtful in self._doubtful:
            doubtful.store()
        self._doubtful.clear()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _not_kept(sha256: str) -> bytes:
    raise KeyError(sha256)


def _check_family(address: str, options: Options) -> None:
    """Raise where an address is unreachable because this machine has lost its way to the whole family."""
    is_v6 = ":" in address
    if not families(options.source)[is_v6]:
        raise LocalTrouble(errno.ENETUNREACH, f"no route to {'IPv6' if is_v6 else 'IPv4'} addresses any more")


def _policy_row(domain: str, fetch: PolicyFetch) -> Row:
    return {
        "domain": domain,
        "sts_policy": fetch.state,
        "sts_detail": fetch.detail or None,
        "sts_http_status": fetch.http_status if fetch.state is None else None,
        "sts_content_type": fetch.content_type,
        "sts_policy_bytes": None if fetch.body is None else len(fetch.body),
        "sts_policy_text": None if fetch.body is None else fetch.body.decode("utf-8", "replace"),
        "sts_address": fetch.address,
        "sts_chain_sha256": [describe_certificate(der).sha256 for der in fetch.chain],
    }
